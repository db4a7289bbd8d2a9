"""``zoo.stack``: posteriors, chains or members weighed by how well their mixture predicts.

Weights are those of `bnn_zoo.engine.simplex`, which make the mixture's mean log score on some rows the largest. They
are no posterior probabilities: of two posteriors that are both wrong, each where the other is right, both are used, and
of chains that found different modes those count that predict, whatever mass their modes have.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from bnn_zoo.engine import simplex
from bnn_zoo.engine.draws import Draws
from bnn_zoo.errors import bad_type, bad_value
from bnn_zoo.infinite import GaussianProcess
from bnn_zoo.posterior import ROWS, Posterior, Timing
from bnn_zoo.reports import plots, stacked
from bnn_zoo.reports.loo import PARETO_K, loo
from bnn_zoo.reports.stacked import StackedPosterior, Stacking, units

log = logging.getLogger("bnn_zoo")

LEAST_DRAWS = 1000


def stack(posteriors: Any, data: Any = None) -> StackedPosterior:
    """Return posteriors as one: the mixture of their predictive distributions that scores best on ``data``.

    Weights w maximise ``1/n Σ_i log Σ_k w_k p_k(y_i | x_i)``, a concave problem that is solved to 1e-7 nats a row. So
    on ``data`` the stack's nll is at most that of any part and of any other mixture of them.

    Parameters
    ----------
    posteriors : mapping or sequence of Posterior, or Posterior
        Two or more posteriors, of any models and methods that were fitted to the same columns (a
        `bnn_zoo.GaussianProcess` may be among them). Or one posterior, whose chains or members are then weighed.
    data : Dataset, pair or str, optional
        Rows to weigh on that none has been fitted to. Without them each training row is scored by the posterior given
        all others, by PSIS-LOO (`bnn_zoo.loo`), which is for Markov chains that were fitted to the same rows: of an
        approximation LOO estimates how the exact posterior would predict.

    Returns
    -------
    StackedPosterior
        A `Posterior` whose ``weights`` are a Series over ``parts``.

    Raises
    ------
    ZooTypeError, ZooValueError
        If there is nothing to weigh; the parts are of other columns, or their observations of families that do not mix
        (a Normal and a Student's t, or a family that cannot be rescaled under different ``standardize``); or, without
        ``data``, LOO means nothing for a part.

    References
    ----------
    Yao, Vehtari, Simpson & Gelman (2018), Using stacking to average Bayesian predictive distributions, equations 6 and
    9. For chains: Yao, Vehtari & Gelman (2022), Stacking for non-mixing Bayesian computations, section 2; of their
    choices the prior on weights is left out.
    """
    parts, origin = _parts(posteriors)
    first = next(iter(parts.values()))
    _check_columns(parts)
    _check_families(parts)
    if data is None:
        scores, weighed_on, unreliable = _left_out(parts)
    else:
        scores, weighed_on, unreliable = _held_out(parts, data)
    _check_scores(scores, list(parts))
    found, gap = simplex.most_likely(scores)
    if gap > simplex.TOLERANCE:
        got = f"densities that leave {gap:.1g} nats a row to be gained"
        raise bad_value("the log scores", "such that weights can be found in float64", got, "Leave out outlying rows.")
    weights = pd.Series(found, index=pd.Index(parts, name="part"), name="weight")
    weights.attrs["gap"] = gap
    used = [parts[name] for name in parts if weights[name] > 0]
    owner = next((part for part in used if isinstance(part, Posterior)), None)  # whose problem stands for the stack's
    result, alike = _draws(used, found[found > 0])
    result.info["unreliable_rows"] = unreliable
    names = [f"{part.model_name} by {part.method_name}" for part in used] if origin is None else []
    method = Stacking(parts=tuple(parts), weights=tuple(float(w) for w in found), weighed_on=weighed_on)
    models = list(dict.fromkeys(part.attributes["model"] for part in used))
    return StackedPosterior(
        model=used[0].model if alike else tuple(part.model for part in used),
        method=method,
        data=first.data,
        seed=first.seed,
        standardize=first.standardize,
        timing=first.timing if origin is not None else _total(parts),
        problem=None if owner is None else owner.problem,  # type: ignore[arg-type]  # of Gaussian processes alone
        result=result,
        scaling=used[0].scaling if owner is None else owner.scaling,
        model_name=used[0].model_name if alike else " + ".join(dict.fromkeys(p.model_name for p in used)),
        method_name="stack of " + (", ".join(names) if origin is None else f"the {units(origin)} of {_name(origin)}"),
        x64=owner is None or owner.x64,
        attributes={**first.attributes, "model": ", ".join(models), "method": repr(method)},
        stream=first.stream if alike else None,
        parts=parts,
        weights=weights,
        log_scores=scores,
        origin=origin,
    )


# --- the parts --------------------------------------------------------------------------------------------------------


def _parts(posteriors: Any) -> tuple[dict[str, Any], Posterior | None]:
    """Parts by name, and the posterior that they are of where they are chains or members."""
    mend = "Pass {'nuts': posterior, 'map': other}, or one posterior of several chains or members."
    if isinstance(posteriors, Posterior):
        return _pieces(posteriors), posteriors
    if isinstance(posteriors, Mapping):
        parts = dict(posteriors)
    elif isinstance(posteriors, Sequence) and not isinstance(posteriors, str):
        parts = {}
        for one in posteriors:
            name = str(getattr(one, "method_name", type(one).__name__))
            count = sum(known == name or known.startswith(f"{name} ") for known in parts)
            parts[f"{name} {count + 1}" if count else name] = one
    else:
        raise bad_type("posteriors", "posteriors by name", type(posteriors).__name__, mend)
    if len(parts) < 2:
        raise bad_value("posteriors", "two or more", str(len(parts)), mend)
    for name, part in parts.items():
        if not isinstance(name, str) or not isinstance(part, (Posterior, GaussianProcess)):
            got = f"{type(part).__name__} under {name!r}"
            raise bad_type("posteriors", "posteriors by name", got, "zoo.fit and zoo.load return posteriors.")
        if isinstance(part, StackedPosterior):
            raise bad_value("posteriors", "unstacked", f"a stack under {name!r}", "Stack its parts with the others.")
    return parts, None


def _pieces(posterior: Posterior) -> dict[str, Any]:
    """The chains, modes or members of one posterior, each as a posterior."""
    if isinstance(posterior, StackedPosterior):
        raise bad_value("posteriors", "unstacked", "a stack", "Stack its parts with others.")
    axis = 1 if posterior.kind == "members" else 0
    count = posterior.result.positions.shape[axis]
    if count < 2:
        got = f"one of 1 {units(posterior)[:-1]}"
        raise bad_value("posteriors", "two or more, or one of several chains or members", got, "Pass {'a': …, 'b': …}.")
    unit = units(posterior)[:-1]

    def piece(i: int) -> Posterior:
        result = posterior.result
        stats = {name: np.take(value, [i], axis) for name, value in result.stats.items()}
        own = replace(result, positions=np.take(result.positions, [i], axis), stats=stats, state=None)
        return replace(posterior, result=own)

    return {f"{unit} {i}": piece(i) for i in range(count)}


def _name(posterior: Posterior) -> str:
    return f"{posterior.model_name} by {posterior.method_name}"


def _check_columns(parts: dict[str, Any]) -> None:
    name, first = next(iter(parts.items()))
    for other, part in parts.items():
        if part.data.feature_names != first.data.feature_names:
            got = f"{part.data.feature_names} under {other!r} and {first.data.feature_names} under {name!r}"
            raise bad_value("posteriors", "of the same columns in the same order", got, "Fit them to one table.")


def _check_families(parts: dict[str, Any]) -> None:
    names = list(parts)
    families = {name: stacked.family(part.predict(part.data.x[:1])) for name, part in parts.items()}
    first = parts[names[0]]
    for name, found in families.items():
        if found is not families[names[0]]:
            got = f"a {found.__name__} under {name!r} and a {families[names[0]].__name__} under {names[0]!r}"
            raise bad_value(
                "posteriors", "of one family of observations", got, "Compare them with zoo.compare instead."
            )
        if found not in stacked.LOCATION_SCALE and not stacked.same_scale(parts[name].scaling, first.scaling):
            got = f"{found.__name__}, which cannot be rescaled, under {name!r}"
            raise bad_value("posteriors", "of one scale of the target", got, "Fit all with standardize=False.")


def _draws(used: list[Any], shares: np.ndarray) -> tuple[Draws, bool]:
    """Draws in proportion to the weights, and whether they are of one model: where they are not, they have no sites."""
    first = used[0]
    available = [part.num_chains * part.num_draws for part in used]
    total = max(LEAST_DRAWS, sum(available))
    alike = all(isinstance(part, Posterior) and _same_problem(part, first) for part in used)
    positions = np.empty((1, total, 0))
    if alike:
        chosen = stacked.in_proportion(available, shares, total)
        positions = np.concatenate([part._flat[i] for part, i in zip(used, chosen, strict=True)])[None]
    complete = all(part.complete for part in used)
    return Draws(positions=positions, kind="independent", gradients=0, complete=complete), alike


def _same_problem(one: Any, other: Any) -> bool:
    return isinstance(other, Posterior) and (
        one.problem is other.problem
        or (
            one.model == other.model
            and one.problem.layout == other.problem.layout
            and (one.standardize, one.x64) == (other.standardize, other.x64)
            and one.data.sha256 == other.data.sha256
            and ROWS not in one.attributes
        )
    )


def _total(parts: dict[str, Any]) -> Timing:
    timings = [part.timing for part in parts.values()]
    return Timing(
        sum(t.compile_seconds for t in timings),
        sum(t.run_seconds for t in timings),
        sum(t.gradient_evaluations for t in timings),
    )


# --- the scores -------------------------------------------------------------------------------------------------------


def _held_out(parts: dict[str, Any], data: Any) -> tuple[np.ndarray, str, int]:
    """Log densities ``(n, K)`` of held-out rows, what they are, and how many cannot be relied on."""
    rows = {name: plots.matched(part, data) for name, part in parts.items()}
    known = [name for name, part in parts.items() if plots.same_rows(rows[name], part.data)]
    if known:
        log.warning(
            "stack: %s was fitted to the very rows that weights are found on, which prefer what fits too closely; "
            "pass held-out rows, or none for leave-one-out scores",
            ", ".join(known),
        )
    scores = [part.predict(rows[name].x).log_prob(rows[name].y) for name, part in parts.items()]
    one = next(iter(rows.values()))
    return np.stack(scores, axis=1), f"{len(one)} {'fitted' if known else 'held-out'} rows of {one.name}", 0


def _left_out(parts: dict[str, Any]) -> tuple[np.ndarray, str, int]:
    """As `_held_out`, of training rows left out one at a time."""
    name, first = next(iter(parts.items()))
    for other, part in parts.items():
        if part.kind != "markov":
            got = f"{other!r}, by {part.method_name}"
            raise bad_value("posteriors", "Markov chains where no data are given", got, "Pass held-out rows as data.")
        if not np.array_equal(part.data.y, first.data.y):
            got = f"other rows under {other!r} than under {name!r}"
            raise bad_value("posteriors", "fitted to the same rows where no data are given", got, "Pass held-out rows.")
    found = [loo(part) for part in parts.values()]
    high = np.stack([~(one.pareto_k.values <= PARETO_K) for one in found])
    unreliable = int(high.any(0).sum())
    if unreliable:
        log.warning(
            "stack: for %d of %d rows a Pareto k is above %.1f, and weights that rest on them cannot be relied on; "
            "pass held-out rows",
            *(unreliable, len(first.data), PARETO_K),
        )
    scores = np.stack([one.elpd_i.values for one in found], axis=1)
    return scores, f"{len(scores)} training rows, each left out in turn (PSIS-LOO)", unreliable


def _check_scores(scores: np.ndarray, names: list[str]) -> None:
    bad = np.isnan(scores) | (scores == np.inf)
    if bad.any():
        row, k = (int(i) for i in np.argwhere(bad)[0])
        got = f"{scores[row, k]} at row {row} under {names[k]!r}"
        raise bad_value("log scores", "finite", got, "Leave out that posterior, or that row.")
    hopeless = np.flatnonzero(np.isneginf(scores).all(1))
    if len(hopeless):
        got = f"minus infinity at row {hopeless[0]} under all of them"
        raise bad_value("log scores", "finite for one of the posteriors at each row", got, "Leave out that row.")
