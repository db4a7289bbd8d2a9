"""``zoo.report``: one page about one posterior, or about several side by side."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bnn_zoo.errors import bad_type
from bnn_zoo.infinite import GaussianProcess
from bnn_zoo.paths import writable_file
from bnn_zoo.posterior import Posterior
from bnn_zoo.reports import page, plots
from bnn_zoo.reports.comparison import DISTANCES, compare
from bnn_zoo.reports.drawing import GREY, axes_for, chain_look, describe, legend_below
from bnn_zoo.reports.pictures import Picture
from bnn_zoo.reports.repeating import repeat
from bnn_zoo.reports.subjects import inside
from bnn_zoo.reports.words import SCORES, shown, with_error

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bnn_zoo.datasets import Dataset
    from bnn_zoo.reports.convergence import Diagnosis

MOST_PICTURES = 6  # posteriors that are shown one by one; tables hold them all
TABLES = {
    "Scores": ("Scores on {rows}, each with its standard error.", tuple(SCORES)),
    "Differences": (
        "Each against the posterior that is best by that score, paired row by row: within two standard errors the two "
        "cannot be told apart on these rows.",
        ("nll_difference", "crps_difference", "squared_error_difference"),
    ),
    "Left out": (
        "Training rows, each predicted from the others, where that means something.",
        ("elpd_loo", "elpd_difference", "p_loo", "k_high", "loo_weight", "log_evidence"),
    ),
    "Agreement and cost": (
        "What the draws are worth and what they cost.",
        ("rhat", "ess", "nll_worst_chain", "compile_seconds", "run_seconds", "gradients", "draws", "megabytes"),
    ),
    "Distance from the reference": ("How far predictive distributions are from those of {reference}.", DISTANCES),
}


def report(
    posteriors: Posterior | Mapping[str, Posterior], path: Any, test: Any = None, *, reference: str | None = None
) -> Path:
    """Write one self-contained HTML page about a posterior, or about several side by side, and return where it is.

    Parameters
    ----------
    posteriors : Posterior, or mapping of str to Posterior
        One, for the page that `Posterior.report` writes; or several, each under a name of its own.
    path : str or path-like
        The file to write; it is replaced at once or not at all.
    test : Dataset, pair or str, optional
        Held-out ``x (m, d)`` and ``y (m,)``; without it everything is scored on the training data of the first, and
        the page says so.
    reference : str, optional
        A name among ``posteriors``: how far are the others from it? See `bnn_zoo.compare`.

    Returns
    -------
    pathlib.Path
        The file. Print it from the browser for a PDF.

    Raises
    ------
    ZooTypeError, ZooValueError
        If there is no such folder, the data do not fit a posterior, or no posterior has the name of the reference.
    """
    if isinstance(posteriors, Posterior):
        if reference is not None:
            mend = "Pass {'nuts': posterior, 'map': other}, or use posterior.diagnose(reference='nuts')."
            raise bad_type("reference", "None, where one posterior is reported", repr(reference), mend)
        return page.write(posteriors, path, test)
    target = writable_file(path, "comparison.html")
    return page.save(render(posteriors, test, reference), target)


def render(posteriors: Mapping[str, Posterior], test: Any, reference: str | None) -> str:
    """Return the page about several posteriors as text."""
    if not isinstance(posteriors, Mapping) or not posteriors:
        mend = "Pass {'nuts': posterior, 'map': other}."
        got = "an empty dict" if posteriors == {} else type(posteriors).__name__
        raise bad_type("posteriors", "a posterior, or a dict of posteriors by name", got, mend)
    first = next(iter(posteriors.values()))
    data = first.data if test is None else test
    frame = compare(posteriors, data, reference=reference)
    fitting = {name: plots.matched(posterior, data) for name, posterior in posteriors.items()}
    diagnoses = {name: posterior.diagnose() for name, posterior in posteriors.items()}
    scored = fitting[frame.attrs["best"]]
    held_out = not any(plots.same_rows(fitting[name], one.data) for name, one in posteriors.items())
    where = f"{len(scored)} {'held-out' if held_out else 'training'} rows of {scored.name}"
    return (
        page.environment()
        .get_template("comparison.html.j2")
        .render(
            title=f"{len(posteriors)} posteriors on {scored.name}",
            data=scored,
            scored_on=where,
            held_out=held_out,
            verdicts=[(name, one.verdict, one.checks[0], one.mends) for name, one in diagnoses.items()],
            sentences=in_words(frame, diagnoses, held_out),
            tables=tables(frame, where, reference),
            notes=frame.attrs.get("notes", ()),
            pictures=page.pictures(gallery(frame, posteriors, fitting)),
            codes=[(name, repeat(one)) for name, one in posteriors.items() if not isinstance(one, GaussianProcess)],
        )
    )


def in_words(frame: pd.DataFrame, diagnoses: Mapping[str, Diagnosis], held_out: bool) -> list[str]:
    """Say which is best, which cannot be told from it, and whose draws are not to be relied on whatever the scores."""
    best = frame.attrs["best"]
    gap, error = frame["nll_difference"], frame["nll_difference_se"]
    level = [str(name) for name in frame.index if name != best and gap[name] <= 2 * error[name]]
    behind = [str(name) for name in frame.index if name != best and str(name) not in level]
    said = [f"By negative log predictive density {best} is best, with {shown(frame.loc[best, 'nll'])} nats a row."]
    if level:
        said.append(f"Not to be told from it on these rows, within two standard errors: {', '.join(level)}.")
    if behind:
        each = [f"{name} by {' ± '.join(with_error(gap[name], error[name]))}" for name in behind]
        said.append(f"Behind it, in nats a row: {', '.join(each)}.")
    bad = [name for name, diagnosis in diagnoses.items() if diagnosis.verdict == "failed"]
    if bad:
        also = ", the best of all among them" if best in bad else ""
        said.append(
            f"The draws of {', '.join(bad)} failed their diagnosis{also}: such a score holds for this run on rows like "
            "these, and another seed may earn another."
        )
    if not held_out:
        said.append("Some of these rows were fitted, which flatters the fits. Pass held-out rows: zoo.report(…, test).")
    return said


def tables(frame: pd.DataFrame, where: str, reference: str | None) -> list[tuple[str, str, str, list[str], list]]:
    """Title, caption, corner, heads and rows of each table that has something to tell.

    The longer side runs down the page: a table of many scores has a row each, so that a phone shows it.
    """
    found, names = [], [str(name) for name in frame.index]
    for title, (caption, wanted) in TABLES.items():
        columns = [name for name in wanted if name in frame and frame[name].notna().any()]
        if not columns:
            continue
        cells = [[_cell(frame, name, column) for column in columns] for name in frame.index]
        labels = [SCORES[name][0] if name in SCORES else name.replace("_", " ") for name in columns]
        caption = caption.replace("{rows}", where).replace("{reference}", str(reference))
        if len(columns) > len(names):
            turned = list(zip(labels, map(list, zip(*cells, strict=True)), strict=True))
            found.append((title, caption, "", names, turned))
        else:
            found.append((title, caption, "Posterior", labels, list(zip(names, cells, strict=True))))
    return found


def _cell(frame: pd.DataFrame, name: Any, column: str) -> str:
    value = float(frame.loc[name, column])
    if f"{column}_se" in frame and np.isfinite(error := float(frame.loc[name, f"{column}_se"])) and error > 0:
        return " ± ".join(with_error(value, error))
    return f"{value:,.0f}" if value.is_integer() and abs(value) < 1e12 else shown(value)


# --- pictures ---------------------------------------------------------------------------------------------------------


def gallery(frame: pd.DataFrame, posteriors: Mapping[str, Posterior], fitting: Mapping[str, Dataset]) -> list[Picture]:
    """List the plots: scores, calibration of all, and the predictions of each."""
    found = [
        Picture(
            "scores",
            "Negative log predictive density",
            "Mean over rows, with two standard errors to either side. Rows are shared, so the table of differences "
            "tells posteriors apart where these bars overlap.",
            lambda: scores_plot(frame),
        ),
        Picture(
            "calibration",
            "Calibration of all",
            "Share of observations inside central intervals of every level. Below the diagonal intervals are too "
            "narrow.",
            lambda: calibration_plot(posteriors, fitting),
        ),
    ]
    for number, (name, posterior) in enumerate(list(posteriors.items())[:MOST_PICTURES]):
        if isinstance(posterior, Posterior):
            draw = partial(plots.predictive, posterior, fitting[name])
            found.append(Picture(f"predictive_{number}", f"Predictions of {name}", "With 90 % intervals.", draw))
    return found


def scores_plot(frame: pd.DataFrame, ax: Axes | None = None) -> Figure:
    """Show the mean negative log predictive density of each, with two standard errors to either side."""
    figure, ax = axes_for(ax, height=max(2.0, 1.0 + 0.35 * len(frame)))
    rows = np.arange(len(frame))[::-1]
    ax.errorbar(frame["nll"], rows, xerr=2 * frame["nll_se"], fmt="o", color=chain_look(0)["color"], capsize=3)
    ax.set_yticks(rows, [str(name) for name in frame.index], parse_math=False)
    describe(ax, "negative log predictive density, nats a row", "")
    return figure


def calibration_plot(
    posteriors: Mapping[str, Posterior], fitting: Mapping[str, Dataset], ax: Axes | None = None
) -> Figure:
    """Show the share of observations inside central intervals of every level, for each posterior."""
    levels = np.linspace(0, 1, 101)
    figure, ax = axes_for(ax)
    ax.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="perfect")
    for number, (name, posterior) in enumerate(posteriors.items()):
        data = fitting[name]
        ax.plot(
            levels, inside(posterior.predict(data.x), data.y, levels), linewidth=1.6, label=name, **chain_look(number)
        )
    ax.set(xlim=(0, 1), ylim=(0, 1))
    describe(ax, "nominal level of the central interval", "share of observations inside")
    legend_below(ax)
    return figure
