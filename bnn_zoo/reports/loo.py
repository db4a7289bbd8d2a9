"""Leave-one-out scores of the training rows: by Pareto-smoothed importance sampling, or by fitting again.

The arithmetic of PSIS is ArviZ's, and so are the results (``ELPDDataLOO``, ``ELPDDataLOOKFold``), for its plots and
tables. ArviZ's ``loo`` and ``loo_kfold`` themselves are not called. ``loo`` holds the log likelihood of all rows and
draws three times over, and finds the relative efficiency from the ESS of every weight, which says little of a network
and takes minutes. ``loo_kfold`` averages likelihoods over draws, which is not how a linearised Laplace approximation,
moments or a distilled network predict.
"""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from bnn_zoo.datasets import as_dataset
from bnn_zoo.engine import predictive, weights
from bnn_zoo.engine.context import PROGRESS, Progress
from bnn_zoo.errors import bad_value, check_choice, check_count
from bnn_zoo.posterior import ROWS, Posterior

if TYPE_CHECKING:
    from arviz_stats.utils import ELPDDataLOO, ELPDDataLOOKFold

log = logging.getLogger("bnn_zoo")

PARETO_K = 0.7  # Vehtari (2024)
MOST_EFFICIENCIES = 64  # rows


def loo(posterior: Posterior) -> ELPDDataLOO:
    """Return how well each training row is predicted from all others, without fitting again.

    ``elpd = Σ_i log p(y_i | y_-i)``, each term estimated from the draws of the one posterior, weighted by
    1 / p(y_i | z) and smoothed (PSIS). Draws of an approximation whose density is known (Laplace, variational
    inference) are weighted by p(z, y) / q(z) too, so that the result is of the posterior that it stands for, not of the
    approximation.

    Parameters
    ----------
    posterior : Posterior
        Markov chains at temperature 1, or independent draws from one density ``q``; 25 draws or more.

    Returns
    -------
    arviz_stats.ELPDDataLOO
        ``elpd``, its standard error ``se``, ``p`` (effective number of parameters), and for each row ``elpd_i`` and
        ``pareto_k``, in nats per unit of the target. Rows of k above 0.7 cannot be relied on; see `bnn_zoo.kfold`. A
        row whose importance weights have no tail to fit (all draws of it the same) has NaN.

    Raises
    ------
    ZooValueError
        If LOO means nothing: members of an ensemble, a point, a mixture or an approximation of unknown density, a
        tempered chain, too few draws, rows that stayed on disk.

    References
    ----------
    Vehtari, Gelman & Gabry (2017), Practical Bayesian model evaluation using leave-one-out cross-validation and WAIC,
    equations 4 and 10; Vehtari et al. (2024), Pareto smoothed importance sampling; Magnusson et al. (2019), Bayesian
    leave-one-out cross-validation for large data, equation 9.
    """
    reason = no_loo(posterior)
    if reason is not None:
        mend = "Score it on held-out rows, or with zoo.kfold(model, method, data)."
        raise bad_value("posterior", "one whose draws leave-one-out can weigh", reason, mend)
    ratios = posterior.log_ratios if posterior.kind == "independent" else None
    draws = posterior.num_draws if ratios is None else len(ratios)
    data, count = posterior.data, posterior.num_chains * draws
    elpd, k, p = (np.empty(len(data)) for _ in range(3))
    rows = predictive.block_rows(posterior.num_chains * posterior.num_draws, len(data))
    efficiency = _efficiency(posterior)
    for begin in range(0, len(data), rows):
        some = slice(begin, begin + rows)
        values = posterior.log_likelihood(data.x[some], data.y[some])[:, :draws]
        elpd[some], k[some], p[some] = _psis(values, efficiency, ratios)
    return _result(elpd, k, p, count, ratios is not None)


def no_loo(posterior: Any) -> str | None:
    """Why leave-one-out by importance sampling means nothing for a posterior; None where it does."""
    method = getattr(posterior, "method_name", "")
    if posterior.kind == "members":
        return f"members, by {method}, which are no draws from a posterior"
    if not isinstance(posterior, Posterior):
        return "a Gaussian process, whose draws are of functions"
    if ROWS in posterior.attributes:
        return "one of rows that stayed on disk, of which a sample is at hand"
    if posterior.kind == "independent" and ("log_q" not in posterior.stats or posterior.num_chains > 1):
        return f"draws by {method}, whose density is not known"
    if posterior.kind == "markov" and getattr(posterior.method, "temperature", 1.0) != 1.0:
        return f"chains at temperature {posterior.method.temperature}"
    count = posterior.num_chains * posterior.num_draws
    if count < weights.LEAST_FOR_K:
        return f"{count} draws, too few for Pareto k-hat"
    return None


def relative_efficiency(log_likelihood: np.ndarray) -> float:
    """Effective draws over draws, of the likelihoods of rows ``(C, S, n)``, mean over rows (Vehtari 2017, section 2.2).

    At most 1, as antithetic chains should not shorten the tail that is fitted.
    """
    from arviz_stats.base import array_stats

    likelihood = np.exp(log_likelihood - log_likelihood.max((0, 1)))
    likelihood = likelihood[:, :, np.ptp(likelihood, axis=(0, 1)) > 0]
    if likelihood.shape[2] == 0 or likelihood.shape[1] < 4:
        return 1.0
    found = array_stats.ess(likelihood, chain_axis=0, draw_axis=1, method="mean")
    return float(min(1.0, np.mean(found) / (likelihood.shape[0] * likelihood.shape[1])))


def kfold(
    model: Any,
    method: Any,
    data: Any,
    *,
    k: int = 10,
    seed: int = 0,
    standardize: bool | None = None,
    precision: str | None = None,
    progress: bool | str = True,
) -> ELPDDataLOOKFold:
    """Return how well each row is predicted by a fit to the folds that it is not in: ``k`` fits.

    Choose it where PSIS-LOO fails, or means nothing, as for ensembles, point fits and approximations; it judges the
    whole procedure, standardisation, ``method`` and kind of prediction included. A fit sees (k − 1) / k of the rows, so
    that scores are slightly worse than leaving out one.

    Parameters
    ----------
    model, method, data, standardize, precision
        As `bnn_zoo.fit` takes them; rows on disk are read into memory.
    k : int
        Folds, of sizes that differ by one at most.
    seed : int
        Of the folds, and of every fit.
    progress : bool or str
        Show a bar over folds.

    Returns
    -------
    arviz_stats.ELPDDataLOOKFold
        ``elpd``, its standard error ``se``, and ``elpd_i`` for each row, in the order of the data, in nats per unit of
        the target. ``p`` is NaN: it takes a fit to all rows.

    Raises
    ------
    ZooTypeError, ZooValueError
        If ``k`` is below 2 or above the number of rows, or `bnn_zoo.fit` refuses.
    """
    from arviz_stats.utils import ELPDDataLOOKFold

    from bnn_zoo.fitting import fit  # stands above the reports

    check_count("k", k, 2)
    check_choice("progress", progress, PROGRESS)
    whole = as_dataset(data)
    if k > len(whole):
        raise bad_value("k", f"at most the number of rows, {len(whole)}", str(k), "10 is usual.")
    fold = np.random.default_rng(seed).permutation(len(whole)) % k
    elpd = np.empty(len(whole))
    draws = 0
    with Progress(f"{k} folds", k, progress) as bar:
        for i in range(k):
            inside, outside = np.flatnonzero(fold != i), np.flatnonzero(fold == i)
            fitted = fit(
                model,
                method,
                whole.subset(inside),
                seed=seed,
                standardize=standardize,
                precision=precision,
                progress=False,
            )
            elpd[outside] = fitted.predict(whole.x[outside]).log_prob(whole.y[outside])
            draws = fitted.num_chains * fitted.num_draws
            bar.advance(1)
    return ELPDDataLOOKFold(
        elpd=float(elpd.sum()),
        se=standard_error(elpd),
        p=float("nan"),
        n_samples=draws,
        n_data_points=len(elpd),
        scale="log",
        warning=False,
        good_k=None,  # type: ignore[arg-type]  # as ArviZ itself has it
        elpd_i=_by_row(elpd, "elpd_i"),
        n_folds=k,
    )


# --- importance weights -----------------------------------------------------------------------------------------------


def _efficiency(posterior: Posterior) -> float:
    if posterior.kind == "independent":
        return 1.0
    data, some = posterior.data, np.linspace(0, len(posterior.data) - 1, MOST_EFFICIENCIES).astype(int)
    some = np.unique(some)
    return relative_efficiency(posterior.log_likelihood(data.x[some], data.y[some]))


def _psis(values: np.ndarray, efficiency: float, ratios: np.ndarray | None) -> tuple[np.ndarray, ...]:
    """``elpd``, Pareto k and ``p``, ``(rows,)`` each, of log likelihoods ``(C, S, rows)``."""
    from arviz_stats.base import array_stats

    values = np.moveaxis(values, 2, 0)

    def several(some: np.ndarray) -> tuple[np.ndarray, ...]:
        if ratios is None:
            return array_stats.loo(some, r_eff=efficiency)
        p = np.broadcast_to(ratios[None], some.shape)
        return array_stats.loo_approximate_posterior(some, p, np.zeros_like(p))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the k are returned
        try:
            return several(values)
        except ValueError:  # a row without a tail, of which ArviZ does not say which it is
            out = np.full((3, len(values)), np.nan)
            for i in range(len(values)):
                try:
                    out[:, i] = np.concatenate([np.ravel(a) for a in several(values[i : i + 1])])
                except ValueError:
                    log.debug("row %d of a block has no tail", i)
            return tuple(out)


def _result(elpd: np.ndarray, k: np.ndarray, p: np.ndarray, draws: int, approximate: bool) -> ELPDDataLOO:
    from arviz_stats.utils import ELPDDataLOO

    good_k = min(1 - 1 / np.log10(draws), PARETO_K)
    return ELPDDataLOO(
        elpd=float(elpd.sum()),
        se=standard_error(elpd),
        p=float(p.sum()),
        n_samples=draws,
        n_data_points=len(elpd),
        scale="log",
        warning=bool((~(k <= good_k)).any()),
        good_k=good_k,
        elpd_i=_by_row(elpd, "elpd_i"),
        pareto_k=_by_row(k, "pareto_k"),
        approx_posterior=approximate,
    )


def standard_error(values: np.ndarray) -> float:
    """Of the sum of the values of all rows."""
    return float(np.sqrt(len(values)) * values.std(ddof=1)) if len(values) > 1 else np.nan


def _by_row(values: np.ndarray, name: str) -> Any:
    import xarray as xr

    return xr.DataArray(values, dims=("row",), coords={"row": np.arange(len(values))}, name=name)
