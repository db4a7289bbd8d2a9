"""One self-contained HTML page about a posterior: the verdict in words first, then what the numbers behind it are.

The page loads nothing: style is inline, plots are inline SVG drawn in the colour of the text, so that they follow a
dark screen as well as paper. All text goes through Jinja's autoescape: names of features and data are the user's own.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bnn_zoo.datasets import Dataset
from bnn_zoo.paths import writable_file
from bnn_zoo.posterior import Posterior
from bnn_zoo.reports import apart, plots, sections
from bnn_zoo.reports.mixing import WHERE
from bnn_zoo.reports.pictures import Picture, drawn
from bnn_zoo.reports.repeating import facts, name_of, repeat
from bnn_zoo.reports.scores import evaluate
from bnn_zoo.reports.words import VERDICTS, caveats_of, in_words, score_rows, shown

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

    from bnn_zoo.reports.convergence import Diagnosis

# Columns of the diagnosis that a page tells by place: what they are called, and how those of many inputs become one.
BY_PLACE = {
    "sd": ("sd of f(x)", "median"),
    "rhat": ("R-hat, median", "median"),
    "worst": ("R-hat, worst", "max"),
    "rhat_within": ("R-hat within chains", "median"),
    "ess_bulk": ("bulk ESS, least", "min"),
    "ess_within": ("the same within chains", "min"),
    "sd_within": ("sd within", "median"),
    "sd_between": ("sd between", "median"),
    "sd_error": ("standard error of the sd", "median"),
    "reference_sd": ("sd of the reference", "median"),
}


def write(posterior: Posterior, path: Any, test: Any = None) -> Path:
    """Write one HTML page about ``posterior`` and return where it is.

    Parameters
    ----------
    posterior : Posterior
        Of any kind.
    path : str or path-like
        The file to write; it is replaced at once or not at all.
    test : Dataset, pair or str, optional
        Held-out ``x (m, d)`` and ``y (m,)`` for scores and plots. Without it they are of the training data, and the
        page says so.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    ZooTypeError, ZooValueError
        Before any work: if there is no such folder, the path is a folder, or the test data do not fit. A plot that
        fails raises nothing: it is logged, and a note stands in its place.
    """
    target = writable_file(path, "report.html")
    return save(render(posterior, plots.matched(posterior, test)), target)


def save(text: str, target: Path) -> Path:
    """Write a page to its file, at once or not at all."""
    scratch = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        scratch.write_text(text, encoding="utf-8")
        os.replace(scratch, target)
    finally:
        scratch.unlink(missing_ok=True)
    return target


def environment() -> Environment:
    """Templates of this folder, with all text escaped, and nothing that a template asks for missing."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(Path(__file__).resolve().parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(posterior: Posterior, data: Dataset) -> str:
    """Return the page as text, with scores and plots on ``data``."""
    held_out = not plots.same_rows(data, posterior.data)
    diagnosis = posterior.diagnose()
    prediction = posterior.predict(data.x)
    scores = evaluate(prediction, data.y)
    sentences = in_words(posterior, data, prediction, scores, held_out)
    if posterior.kind == "markov" and posterior.num_chains > 1:
        sentences.insert(1, apart.in_words(posterior, data, float(scores["nll"])))
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            title=f"{name_of(posterior.model, posterior.model_name)} on {posterior.data.name}, "
            f"by {name_of(posterior.method, posterior.method_name)}",
            data=posterior.data,
            num_rows=posterior.num_rows,
            sampled=posterior.num_rows != posterior.data.num_rows,
            seed=posterior.seed,
            verdict=diagnosis.verdict,
            headline=VERDICTS[diagnosis.verdict],
            diagnosis=diagnosis,
            wanting=[check for check in diagnosis.checks if check.status != "passed"],
            sentences=sentences,
            held_out=held_out,
            scored_on=f"{len(data)} {'held-out' if held_out else 'training'} rows of {data.name}",
            scores=score_rows(scores, data),
            predictions=pictures(sections.predictions(posterior, data)),
            calibration=pictures(sections.calibration(posterior, data)),
            course=pictures(sections.course(posterior)),
            parameters=pictures(sections.parameters(posterior)),
            prior=prior_in_words(posterior),
            checks=[(check, shown(check.value)) for check in diagnosis.checks],
            places=by_place(diagnosis),
            facts=facts(posterior),
            code=repeat(posterior),
            caveats=caveats_of(diagnosis, held_out, len(data)),
        )
    )


def pictures(wanted: list[Picture]) -> list[tuple[Picture, Markup | None]]:
    """Draw each, or leave None where that fails."""
    return [(picture, drawn(picture)) for picture in wanted]


def by_place(diagnosis: Diagnosis) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Heads and rows of a table of the diagnosis of f(x): one row a place, among the data, between and beyond them."""
    points = diagnosis.points.copy()
    if "rhat" in points:
        points["worst"] = points["rhat"]
    known = {name: how for name, (_, how) in BY_PLACE.items() if name in points and points[name].notna().any()}
    table = points.groupby("where", sort=False).agg(known)
    heads = ["inputs", *(BY_PLACE[name][0] for name in known)]
    counts = points["where"].value_counts()
    rows = [
        (WHERE[str(place)], [str(counts[place]), *(shown(float(value)) for value in row)])
        for place, row in zip(table.index, table.to_numpy(float), strict=True)
    ]
    return heads, rows


def prior_in_words(posterior: Posterior) -> list[str]:
    """Say what the prior expects of f and of an observation, in the units of the target."""
    import jax

    from bnn_zoo.priors.predictive import reach

    with jax.enable_x64(posterior.x64):
        seen = reach(posterior._going_on)
    if seen is None or not np.isfinite(seen.prior):
        return ["The prior's functions were not looked at: the network is too wide for a look at no cost."]
    scale, name = posterior.scaling.y_scale, posterior.data.target_name
    said = [
        f"Before it saw data the model expected functions with an sd of {shown(seen.prior * scale)} {name} at a "
        f"typical input; the observations have an sd of {shown(seen.data * scale)}."
    ]
    said += [f"{seen.complaint[0].upper()}{seen.complaint[1:]}."] if seen.complaint else []
    return said
