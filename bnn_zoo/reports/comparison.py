"""``zoo.compare``: several posteriors in one table: how good, at what cost, and how far from a reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import pandas as pd
from jax import lax
from scipy.special import ndtr, ndtri

from bnn_zoo.engine import mixture
from bnn_zoo.engine.compiled import call
from bnn_zoo.engine.likelihood import Likelihood
from bnn_zoo.errors import bad_type, bad_value, check_choice, unknown_name
from bnn_zoo.infinite import GaussianProcess
from bnn_zoo.posterior import Posterior
from bnn_zoo.prediction import Prediction
from bnn_zoo.reports import apart, left_out, plots
from bnn_zoo.reports.scores import evaluate
from bnn_zoo.reports.stacked import StackedPosterior

if TYPE_CHECKING:
    from bnn_zoo.datasets import Dataset

PAIRED = ("nll", "crps", "squared_error")  # means over rows, of which differences can be paired
DISTANCES = ("wasserstein2", "total_variation", "epistemic_ratio", "uncertainty_rank_correlation")
MOST_POINTS = 256

# Standard Normal quantiles at which quantile functions are compared. Where these are straight, as two Normals' are, the
# sum is the integral but for what lies beyond: a mass of 6e-7, and 1.5e-5 of a squared difference of widths.
LEVELS = np.linspace(-5, 5, 101)
WEIGHTS = np.exp(-(LEVELS**2) / 2) / np.exp(-(LEVELS**2) / 2).sum()
# Where distribution functions are first looked at, in sds about the mean: 0.05 apart in the middle, 0.45 at the ends.
SPREAD = 10 * np.sinh(3 * np.linspace(-1, 1, 129)) / np.sinh(3)


def compare(
    posteriors: Mapping[str, Posterior], data: Any, *, reference: str | None = None, loo: str | bool = "auto"
) -> pd.DataFrame:
    """Return one row a posterior: its scores on ``data``, what it cost, and the verdict on its draws.

    Parameters
    ----------
    posteriors : mapping of str to Posterior
        Each under the name of its row, in the order of the rows. A `bnn_zoo.GaussianProcess` stands for one too.
    data : Dataset, pair or str
        Held-out rows, as `bnn_zoo.fit` takes data: the same for all. Columns are matched by name, and those that a
        posterior was not fitted to are left out, so that posteriors of other columns can be compared on one table.
    reference : str, optional
        A name among ``posteriors``: how far is every other predictive distribution from this one's?
    loo : str or False
        ``"auto"``: leave-one-out scores of the training rows by importance sampling, where they mean something.
        ``"kfold"``: where they do not, or fail, 10-fold cross-validation too, which fits ten times again. ``False``:
        neither.

    Returns
    -------
    pandas.DataFrame
        - ``rmse``, ``rmse_se``, ``nll``, …: every score of `Posterior.evaluate` and its standard error.
        - ``nll_difference``, ``nll_difference_se``: mean over rows of nll less that of the posterior whose nll is
          least, and the standard error of that mean of paired differences. Rows that are hard for one are hard for
          all, so this tells posteriors apart where the errors of ``nll`` overlap. Likewise ``crps_difference`` and
          ``squared_error_difference``, each against the posterior that is best by that score.
        - ``elpd_loo``, ``elpd_loo_se``: log predictive density of the training rows, each predicted from the others,
          summed, and its standard error; ``elpd_difference``, ``elpd_difference_se``: less that of the best, paired;
          ``p_loo``: effective number of parameters; ``k_high``: rows whose Pareto k is above 0.7, whose scores cannot
          be relied on; ``loo_weight``: stacking weight by these scores; ``loo_by``: ``"psis"`` or ``"kfold"``. NaN
          where LOO means nothing (members, point fits, densities that are not known), and for all where they were
          fitted to other rows: ``frame.attrs["notes"]`` says which and why. Of draws from an approximation they are
          of the posterior that it stands for; see `bnn_zoo.loo`.
        - ``log_evidence``, where the posterior has one.
        - ``rhat`` and ``ess``, of chains: the worst of f(x) among the data and between them; ``nll_worst_chain``: nll
          on ``data`` of the one chain that predicts worst alone. A good ``nll`` beside these is one that another seed
          would change.
        - ``compile_seconds``, ``run_seconds``, ``gradients``; ``draws``, over all chains, and their ``megabytes``
          (10⁶ bytes); ``verdict``.
        - With a reference, means over rows (``wasserstein2`` and ``total_variation`` over 256 of them, drawn with a
          fixed seed, where there are more):

          - ``wasserstein2``: √∫₀¹ (F⁻¹(u) − G⁻¹(u))² du, in units of the target;
          - ``total_variation``: ½ ∫ |p(y) − q(y)| dy, from 0 (the same) to 1 (nothing in common);
          - ``epistemic_ratio``: epistemic sd over that of the reference; NaN where the reference has none;
          - ``uncertainty_rank_correlation``: Spearman's, between predictive sds; NaN where all are equal.

        ``frame.attrs`` also has ``rows``, the number of rows scored, ``best``, the name of least nll, and
        ``reference``. Scores are in units of the target; densities in nats, per unit of it.

    Raises
    ------
    ZooTypeError, ZooValueError
        If there is nothing to compare, the data do not fit one of the posteriors, or no posterior has that name.
    """
    _check(posteriors, reference)
    check_choice("loo", loo, left_out.CHOICES)
    fitting = {name: plots.matched(posterior, data) for name, posterior in posteriors.items()}
    predictions = {name: posterior.predict(fitting[name].x) for name, posterior in posteriors.items()}
    rows = {name: _scores(predictions[name], fitting[name]) for name in posteriors}
    best = min(rows, key=lambda name: rows[name]["nll"])
    for score in PAIRED:
        _pair(rows, score, {name: _by_row(score, predictions[name], fitting[name]) for name in posteriors})
    notes: list[str] = []
    if loo:
        found, notes = left_out.columns(dict(posteriors), loo)
        for name in posteriors:
            rows[name] |= found[name]
    for name, posterior in posteriors.items():
        rows[name] |= {
            "log_evidence": _log_evidence(posterior),
            **_agreement(posterior, fitting[name]),
            "compile_seconds": posterior.timing.compile_seconds,
            "run_seconds": posterior.timing.run_seconds,
            "gradients": posterior.timing.gradient_evaluations,
            "draws": posterior.num_chains * posterior.num_draws,
            "megabytes": _megabytes(posterior),
            "verdict": posterior.diagnose().verdict,
        }
    if reference is not None:
        some = _some_rows(len(fitting[reference]))
        few = {name: posterior.predict(fitting[name].x[some]) for name, posterior in posteriors.items()}
        for name in posteriors:
            rows[name] |= dict(zip(DISTANCES[:2], distances(few[name], few[reference]), strict=True))
            rows[name] |= _uncertainties(predictions[name], predictions[reference])
    frame = pd.DataFrame.from_dict(rows, orient="index")
    frame.index.name = "posterior"
    frame.attrs |= {"rows": len(fitting[best]), "best": best, "notes": tuple(notes)}
    frame.attrs |= {} if reference is None else {"reference": reference}
    return frame


def distances(one: Prediction, other: Prediction) -> tuple[float, float]:
    """Mean over rows of the Wasserstein-2 distance and of the total variation between two predictive distributions.

    Both come from distribution functions on one grid a row, fine where either distribution has mass. Total variation is
    half the sum of |ΔF − ΔG| over the cells of the grid, the tails beyond it included: it misses only what cancels
    inside a cell. Quantile functions are interpolated between the Normal scores of F, in which a Normal's is straight.
    """
    if one is other:
        return 0.0, 0.0
    grid = np.sort(np.concatenate([_nodes(one), _nodes(other)]), axis=0)
    values = [_cdf(prediction, grid) for prediction in (one, other)]
    edges = [np.concatenate([np.zeros_like(v[:1]), v, np.ones_like(v[:1])]) for v in values]
    variation = 0.5 * np.abs(np.diff(edges[0], axis=0) - np.diff(edges[1], axis=0)).sum(0)
    gap = _quantiles(values[0], grid) - _quantiles(values[1], grid)
    return float(np.sqrt(WEIGHTS @ gap**2).mean()), float(variation.mean())


# --- rows -------------------------------------------------------------------------------------------------------------


def _check(posteriors: Any, reference: Any) -> None:
    if not isinstance(posteriors, Mapping):
        mend = "Pass {'nuts': posterior, 'map': other}."
        raise bad_type("posteriors", "a dict of posteriors by name", type(posteriors).__name__, mend)
    if not posteriors:
        raise bad_value("posteriors", "one or more", "an empty dict", "Pass {'nuts': posterior, 'map': other}.")
    for name, posterior in posteriors.items():
        if not isinstance(name, str) or not isinstance(posterior, (Posterior, GaussianProcess)):
            got = f"{type(posterior).__name__} under {name!r}"
            raise bad_type("posteriors", "a dict of posteriors by name", got, "zoo.fit and zoo.load return posteriors.")
    if reference is not None and reference not in posteriors:
        raise unknown_name("reference", str(reference), posteriors)


def _scores(prediction: Prediction, data: Dataset) -> dict[str, Any]:
    scores = evaluate(prediction, data.y)
    errors = scores.attrs["standard_error"]
    found: dict[str, Any] = {}
    for name, value in scores.items():
        found |= {str(name): float(value), f"{name}_se": float(errors[name])}
    return found


def _by_row(score: str, prediction: Prediction, data: Dataset) -> np.ndarray:
    """A score of each row ``(n,)``; not a number where there is no closed form."""
    if score == "squared_error":
        return (data.y - prediction.mean) ** 2
    if score == "crps":
        return prediction.crps(data.y) if prediction.is_normal else np.full(len(data), np.nan)
    return -prediction.log_prob(data.y)


def _agreement(posterior: Posterior, data: Dataset) -> dict[str, float]:
    """How far chains agree, and what the worst of them is worth; NaN of what is no chain."""
    if posterior.kind != "markov" or posterior.num_chains == 1:
        return {"rhat": np.nan, "ess": np.nan, "nll_worst_chain": np.nan}
    inner = posterior.diagnose().inner
    worst = float(apart.nll_of_chains(posterior, data).max())
    return {"rhat": float(inner["rhat"].max()), "ess": float(inner["ess_bulk"].min()), "nll_worst_chain": worst}


def _pair(rows: dict[str, dict[str, Any]], score: str, values: dict[str, np.ndarray]) -> None:
    """Add the mean difference from the best by ``score``, and its standard error."""
    best = min(values, key=lambda name: np.nan_to_num(values[name].mean(), nan=np.inf))
    for name, value in values.items():
        gap = value - values[best]
        error = gap.std(ddof=1) / np.sqrt(len(gap)) if len(gap) > 1 else np.nan
        rows[name] |= {f"{score}_difference": float(gap.mean()), f"{score}_difference_se": float(error)}


def _log_evidence(posterior: Any) -> float:
    if isinstance(posterior, Posterior) and "log_evidence" not in posterior.result.info:
        return np.nan
    return float(posterior.log_evidence)


def _megabytes(posterior: Any) -> float:
    parts = posterior.parts.values() if isinstance(posterior, StackedPosterior) else [posterior]
    return sum(part.result.positions.nbytes if isinstance(part, Posterior) else np.nan for part in parts) / 1e6


def _uncertainties(one: Prediction, other: Prediction) -> dict[str, float]:
    from scipy.stats import spearmanr

    known = (other.epistemic_std > 0).all()
    flat = np.ptp(one.std) == 0 or np.ptp(other.std) == 0
    return {
        "epistemic_ratio": float((one.epistemic_std / other.epistemic_std).mean()) if known else np.nan,
        "uncertainty_rank_correlation": np.nan if flat else float(spearmanr(one.std, other.std).statistic),
    }


def _some_rows(count: int) -> np.ndarray:
    if count <= MOST_POINTS:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, MOST_POINTS, replace=False))


# --- distribution functions on a grid ---------------------------------------------------------------------------------


def _nodes(prediction: Prediction) -> np.ndarray:
    """Grid ``(230, n)`` for one prediction: sds about the mean, and then where its mass was found to be."""
    first = prediction.mean + np.multiply.outer(SPREAD, prediction.std)
    return np.concatenate([first, _quantiles(_cdf(prediction, first), first)])


def _cdf(prediction: Prediction, grid: np.ndarray) -> np.ndarray:
    """P(Y ≤ y) for each row at its own column of ``grid (m, n)``; the network runs once, not once a node."""
    source = prediction._source
    targets, out = source.scaling.targets(grid), np.empty(grid.shape)
    for where, parts in source.blocks():
        rows = next(iter(parts.parameters.values())).shape[1]
        block = np.zeros((len(grid), rows))
        block[:, : where.stop - where.start] = targets[:, where]
        with jax.enable_x64(True):
            wide = jax.tree.map(lambda a: np.asarray(a, np.float64), parts)
            found = np.asarray(call(_cdf_rows, (), wide, block))
        out[:, where] = found[:, : where.stop - where.start]
    return out


def _cdf_rows(parts: Likelihood, grid: jax.Array) -> jax.Array:
    return lax.map(lambda y: mixture.cdf(parts, y), grid)


def _quantiles(values: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Quantiles ``(101, n)`` at ``LEVELS``, between nodes ``(m, n)`` where the distribution function is known."""
    scores = ndtri(np.clip(values, ndtr(-8.0), ndtr(8.0)))
    return np.stack([np.interp(LEVELS, scores[:, i], grid[:, i]) for i in range(grid.shape[1])], axis=1)
