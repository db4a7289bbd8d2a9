"""Do chains agree on functions, and if not, why not?

Four answers lead to four mends. *One chain does not move*: the others may be right. *One chain stands apart*: likewise.
*Each chain mixes in a mode of its own and the modes disagree*: drawing longer mends nothing. *No chain mixes*: drawing
longer may. R-hat over all chains cannot tell these apart; the same diagnostics within each chain can.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from bnn_zoo.engine.resources import duration
from bnn_zoo.reports.grading import Check, graded

if TYPE_CHECKING:
    from bnn_zoo.posterior import Posterior

RHAT = (1.01, 1.05)  # Vehtari (2021) ask for 1.01; beyond 1.05 chains plainly disagree
ESS_PER_CHAIN = (100, 25)  # Vehtari (2021): 100 a chain, for the diagnostics themselves to be trusted
MCSE = (0.1, 0.25)  # Monte Carlo error of the mean of f(x), as a share of its posterior sd
STILL = 0.02  # of the others' spread: a chain that moves less than this stands still
TREND = 0.4  # rank correlation of R-hat with a feature from which on the feature is named
FEW = 3  # features whose values are all told of one input

SMOOTHER = {"relu": "activation='tanh', whose modes join more easily", "sin": "a smoother activation"}
PLACES = {
    "training": "at a training input",
    "between": "at a point between training inputs",
    "held-out": "at a held-out input",
}
WHERE = {
    "training": "at training inputs",
    "between": "between them",
    "held-out": "at held-out inputs",
    "beyond": "beyond the data",
}


def chain_diagnostics(values: np.ndarray) -> dict[str, np.ndarray]:
    """R-hat (rank-normalised, split), bulk and tail ESS, and MCSE of the mean, of ``values (C, S, k)``: ``(k,)`` each.

    By ArviZ's array interface (Vehtari 2021). A quantity that is constant over all draws has converged: R-hat 1, and
    as many effective draws as there are.
    """
    from arviz_stats.base import array_stats

    axes = {"chain_axis": 0, "draw_axis": 1}
    constant = np.ptp(values, axis=(0, 1)) == 0
    moving = values[:, :, ~constant]
    count = values.shape[0] * values.shape[1]
    out = {name: np.full(values.shape[2], fill) for name, fill in _CONSTANT.items()}
    out["ess_bulk"][:] = out["ess_tail"][:] = count
    if moving.shape[2]:
        found = {
            "rhat": rhat_of(moving) if values.shape[0] > 1 else np.nan,
            "ess_bulk": array_stats.ess(moving, **axes, method="bulk"),
            "ess_tail": array_stats.ess(moving, **axes, method="tail", prob=(0.05, 0.95)),
            "mcse": array_stats.mcse(moving, **axes),
        }
        for name, value in found.items():
            out[name][~constant] = value
    return out


def rhat_of(values: np.ndarray, method: str = "rank") -> np.ndarray:
    """ArviZ's R-hat ``(k,)`` of ``values (C, S, k)``; infinite where all chains stand still, each elsewhere."""
    from arviz_stats.base import array_stats

    with np.errstate(divide="ignore", invalid="ignore"):
        return array_stats.rhat(values, chain_axis=0, draw_axis=1, method=method)


_CONSTANT = {"rhat": 1.0, "ess_bulk": 0.0, "ess_tail": 0.0, "mcse": 0.0}


def within_chains(values: np.ndarray) -> dict[str, np.ndarray]:
    """The same of each chain for itself, over ``values (C, S, k)``.

    Returns
    -------
    dict of ndarray
        ``rhat_within (k,)``: between the halves of one chain, the median over chains, so that one bad chain does not
        make all look bad. ``ess_within (k,)``: bulk, the sum over chains: what there would be if all agreed.
        ``sd_within`` and ``sd_between (k,)``: the variance over all draws is the sum of their squares.
    """
    from arviz_stats.base import array_stats

    chains, draws = values.shape[:2]
    rhat, ess = np.ones((chains, values.shape[2])), np.full((chains, values.shape[2]), float(draws))
    for chain, its in enumerate(values):
        moving = np.ptp(its, axis=0) > 0
        if moving.any():
            halves = its[: 2 * (draws // 2), moving].reshape(2, draws // 2, -1)
            rhat[chain, moving] = rhat_of(halves, method="z_scale") if draws > 7 else np.nan
            ess[chain, moving] = array_stats.ess(its[None][:, :, moving], chain_axis=0, draw_axis=1, method="bulk")
    return {
        "rhat_within": np.median(rhat, axis=0),
        "ess_within": ess.sum(0),
        "sd_within": np.sqrt(values.var(1).mean(0)),
        "sd_between": values.mean(1).std(0),
    }


def judge(
    posterior: Posterior, functions: np.ndarray, points: pd.DataFrame, x: np.ndarray
) -> tuple[pd.DataFrame, list[Check]]:
    """Return ``points`` with the diagnostics of f(x), and the checks of them.

    ``functions (C, S, k)`` are the draws of f at ``x (k, d)``.
    """
    points = points.assign(**chain_diagnostics(functions))
    if posterior.num_chains > 1:
        points = points.assign(**within_chains(functions))
    inner = (points["where"] != "beyond").to_numpy()
    known = points[inner].reset_index(drop=True)
    cause = disagreement(posterior, functions[:, :, inner], known)
    checks = _rhat(posterior, points, x, inner, cause)
    checks += _effective(posterior, known, cause)
    checks += _scalar_sites(posterior, cause)
    return points, checks


# --- why chains disagree ----------------------------------------------------------------------------------------------


class Disagreement(NamedTuple):
    """Why chains disagree, in words, and what to do about it."""

    finding: str
    mend: str


def disagreement(posterior: Posterior, functions: np.ndarray, points: pd.DataFrame) -> Disagreement:
    """Tell a chain that stands still or apart, modes that differ, and chains that do not mix from one another."""
    chains = functions.shape[0]
    slow = Disagreement("", longer(posterior, float(points["ess_bulk"].min())))
    if chains == 1 or not points["rhat"].max() > RHAT[1]:
        return slow
    if (still := _still(functions)) is not None:
        moves = f"its f(x) varies {100 * still[1]:.2g} % as much as that of the others"
        return Disagreement(f"Chain {still[0]} does not move: {moves}.", _left_out(still[0]))
    if (odd := _apart(functions)) is not None:
        said = f"Chain {odd[0]} stands apart: the others agree among themselves (R-hat {odd[1]:.3f} at most)."
        return Disagreement(said, _left_out(odd[0]))
    within, between = points["sd_within"] ** 2, points["sd_between"] ** 2
    share = f"{100 * float((between / (within + between)).median()):.0f} % of the variance of f(x) lies between chains"
    rhat, ess = float(points["rhat_within"].median()), float(points["ess_within"].median())
    inside = f"R-hat within single chains {rhat:.2f} in the median"
    if rhat <= RHAT[1] and ess >= ESS_PER_CHAIN[1] * chains:
        said = f"Each chain mixes within a mode of its own ({inside}), and the modes disagree: {share}."
        mend = (
            "Drawing longer will not mend this: it would take the chains to change modes. Weigh the chains by "
            f"zoo.stack(posterior, data), or {_other_start(posterior)}."
        )
        return Disagreement(said, mend)
    said = f"No chain mixes: its own halves disagree as well ({inside}); {share}."
    return Disagreement(said, f"{slow.mend} Slow chains seldom gain in proportion: also {_other_start(posterior)}.")


def _still(functions: np.ndarray) -> tuple[int, float] | None:
    """The chain that hardly moves where the others do, and its spread as a share of theirs."""
    spread = np.median(functions.std(1), axis=1)
    chain = int(np.argmin(spread))
    others = float(np.median(np.delete(spread, chain)))
    share = float(spread[chain]) / others if others > 0 else 1.0
    return (chain, share) if share < STILL else None


def _apart(functions: np.ndarray) -> tuple[int, float] | None:
    """The one chain without which the others agree, and how well they do."""
    if len(functions) < 3:
        return None
    rhat = [float(np.max(chain_diagnostics(np.delete(functions, c, axis=0))["rhat"])) for c in range(len(functions))]
    chain = int(np.argmin(rhat))
    return (chain, rhat[chain]) if rhat[chain] <= RHAT[1] else None


def _left_out(chain: int) -> str:
    return (
        f"Fit again with another seed or start='ensemble'; zoo.stack(posterior, data) weighs chain {chain} by how well "
        "it predicts."
    )


def _other_start(posterior: Posterior) -> str:
    """What else there is to try, of what has not been."""
    tries = []
    if getattr(posterior.method, "start", "ensemble") != "ensemble":
        tries.append("take start='ensemble', which begins each chain at its own trained network")
    if (smoother := SMOOTHER.get(getattr(posterior.model, "activation", ""))) is not None:
        tries.append(f"try {smoother}")
    tries.append("give the noise and weight scales tighter priors")
    return ", or ".join(tries)


def longer(posterior: Posterior, ess: float = np.inf) -> str:
    """What more draws would take, in draws and in time, to have the effective ones that are wanted."""
    method, seconds = posterior.method, posterior.timing.run_seconds
    if hasattr(method, "batch_size"):
        mend = f"Double thinning (now {method.thinning}): a step moves little. About {duration(seconds)} more"
        return f"{mend}; nuts, where rows are few, moves further."
    wanted = ESS_PER_CHAIN[0] * posterior.num_chains
    factor = max(2.0, wanted / max(ess, 1.0))
    lengths = f"num_warmup (now {method.num_warmup}) and num_samples (now {posterior.num_draws})"
    if factor < 3:
        return f"Double {lengths}, about {duration(2 * seconds)}, or give the noise and weight scales tighter priors."
    return f"Take {lengths} about {factor:.0f} times as long, {duration(factor * seconds)} at the pace of this fit."


# --- checks -----------------------------------------------------------------------------------------------------------


def _rhat(
    posterior: Posterior, points: pd.DataFrame, x: np.ndarray, inner: np.ndarray, cause: Disagreement
) -> list[Check]:
    if posterior.num_chains == 1:
        said = "One chain cannot disagree with itself."
        return [Check("R-hat of f(x)", np.nan, "doubtful", said, "Use num_chains=4 or more.")]
    known, beyond = points[inner], points[~inner]
    worst = known.loc[known["rhat"].idxmax()]
    said = f"R-hat of f(x) is at most {worst['rhat']:.3f}"
    good = f"{said} (median {known['rhat'].median():.3f}): chains agree on the functions."
    there = f"{PLACES[worst['where']]}{_whereabouts(posterior, known['rhat'].to_numpy(), x[inner])}"
    medians = known.groupby("where", sort=False)["rhat"].median().items()
    typical = ", ".join(f"{value:.3f} {WHERE[str(where)]}" for where, value in medians)
    bad = (
        f"R-hat of f(x) reaches {worst['rhat']:.3f} {there}; its median is {typical}: chains "
        f"{how_far(worst['rhat'])}, and their means are {worst['sd_between']:.3g} apart (sd) at that input, where a "
        f"chain's own sd is {worst['sd_within']:.3g}."
    )
    checks = [graded("R-hat of f(x)", worst["rhat"], RHAT, good, f"{bad} {cause.finding}".rstrip(), cause.mend)]
    if len(beyond):
        reached = float(beyond["rhat"].max())
        said = f"beyond the data R-hat of f(x) is {'at most' if reached <= RHAT[1] else 'up to'} {reached:.3f}"
        # Where there are no data the functions of a network differ by much, and chains take longest to agree.
        limits = RHAT[1], np.inf
        bad = f"{said}: intervals there depend on the seed."
        checks.append(graded("R-hat beyond the data", reached, limits, f"{said}.", bad, cause.mend))
    return checks


def how_far(rhat: float) -> str:
    """How far chains of this R-hat are from agreeing."""
    return "have not quite come to agree" if rhat <= RHAT[1] else "disagree"


def _whereabouts(posterior: Posterior, rhat: np.ndarray, x: np.ndarray) -> str:
    """Where in x chains disagree most: by the feature that R-hat follows, or else the input itself."""
    from scipy.stats import rankdata

    names, worst = posterior.data.feature_names, x[int(np.argmax(rhat))]
    moving = np.flatnonzero(np.ptp(x, axis=0) > 0)
    ranks = rankdata(np.column_stack([rhat, x[:, moving]]), axis=0)
    trend = np.corrcoef(ranks.T)[0, 1:] if np.ptp(rhat) > 0 and len(moving) else np.zeros(1)
    strongest = int(np.argmax(np.abs(trend)))
    if len(rhat) >= 16 and abs(trend[strongest]) >= TREND:
        feature, size = int(moving[strongest]), "large" if trend[strongest] > 0 else "small"
        return f", and is highest where {names[feature]} is {size} ({worst[feature]:.4g} there)"
    if len(names) <= FEW:
        return " (" + ", ".join(f"{name} = {value:.4g}" for name, value in zip(names, worst, strict=True)) + ")"
    return ""


def _effective(posterior: Posterior, points: pd.DataFrame, cause: Disagreement) -> list[Check]:
    chains, count, checks = posterior.num_chains, posterior.num_chains * posterior.num_draws, []
    for name, words in (("ess_bulk", "bulk"), ("ess_tail", "tail")):
        least, alone = float(points[name].min()), ""
        if name == "ess_bulk" and chains > 1 and (apart := float(points["ess_within"].min())) > 2 * least:
            alone = f", though the chains taken alone have {apart:.0f}"
        good = f"{words} ESS of f(x) is at least {least:.0f} of {count} draws."
        bad = (
            f"{words} ESS of f(x) falls to {least:.0f} of {count} draws{alone}; {ESS_PER_CHAIN[0]} a chain are wanted."
        )
        limits = tuple(-limit * chains for limit in ESS_PER_CHAIN)
        checks.append(graded(f"{words} ESS of f(x)", -least, limits, good, bad, cause.mend, shown=least))
    share = float((points["mcse"] / points["sd"].where(points["sd"] > 0, np.inf)).max())
    error = "the Monte Carlo error of the mean of f(x)"
    good = f"{error} is at most {100 * share:.1f} % of its posterior sd."
    bad = f"{error} reaches {100 * share:.1f} % of its posterior sd."
    return [*checks, graded("MCSE of f(x)", share, MCSE, good, bad, cause.mend)]


def _scalar_sites(posterior: Posterior, cause: Disagreement) -> list[Check]:
    """Scalar sites (noise, shared scales) are identified, so their R-hat means something too."""
    scalars = posterior.scalars
    if not scalars or posterior.num_chains == 1:
        return []
    found = chain_diagnostics(np.stack(list(scalars.values()), axis=2).astype(float))
    worst = int(np.argmax(found["rhat"]))
    name, rhat = list(scalars)[worst], float(found["rhat"][worst])
    said = f"R-hat of the site {name!r} is {rhat:.3f}, bulk ESS {found['ess_bulk'][worst]:.0f}"
    return [graded("R-hat of scalar sites", rhat, RHAT, f"{said}.", f"{said}: chains {how_far(rhat)}.", cause.mend)]
