"""A posterior held against a reference: how far its predictions are from those of a sampler that is exact in the limit.

Every other check asks a posterior about itself, and an approximation may pass them all and be far from the posterior
that it stands for. What a reference says is worth as much as the reference: whether it has converged is judged first,
and where nothing shows that it has, what follows is doubtful whatever the numbers are.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from bnn_zoo import methods
from bnn_zoo.errors import bad_type, bad_value
from bnn_zoo.inputs import default_names
from bnn_zoo.posterior import Posterior
from bnn_zoo.prediction import Prediction
from bnn_zoo.reports.comparison import distances
from bnn_zoo.reports.grading import Check, graded
from bnn_zoo.reports.mixing import RHAT, WHERE, chain_diagnostics

# Wasserstein-2 as a share of the predictive sd. Of two Normals of one mean it is the relative error of the sd: one
# that is a tenth too small turns a 90 % interval into one of 86 %, one that is three tenths too small into 75 %.
DISTANCE = (0.1, 0.3)
# Factor by which sds of f(x) differ, either way: 1.25 is what a reference of LEAST_ESS may show by chance (its sd is
# known to 7 %, three times that is 21 %); a factor of 2 is a wrong answer to what more data would teach.
RATIO = (1.25, 2.0)
# Of the reference, over all chains and at the worst input: its sd is then known to 1 / √200, 7 % of itself.
LEAST_ESS = 100

SHORT = methods.NUTS(num_warmup=300, num_samples=300, num_chains=4)  # reference="nuts"
LONGER = "Take a longer reference: reference=zoo.methods.NUTS(num_warmup=2000, num_samples=2000)."
CHAINS = "Take a reference of several chains: reference='nuts'."
NEARER = "Fit with 'nuts', or with a richer approximation, where these differences matter."


def reference_for(posterior: Posterior, reference: Any, progress: bool | str = True) -> Posterior:
    """Return the posterior that ``reference`` means, fitting it where it is a method.

    Parameters
    ----------
    posterior : Posterior
        What is judged.
    reference : Posterior, str or object
        A posterior of the same columns; ``"nuts"`` for a short run of NUTS; or a method, such as
        ``zoo.methods.NUTS(num_samples=2000)``. A method is run on the same model, data, scaling and precision, from
        the next seed: with the same one a sampler would repeat the very draws that it is to judge.
    progress : bool or str
        As `bnn_zoo.fit` takes it.

    Raises
    ------
    ZooTypeError, ZooValueError
        If it is none of these, or a posterior of other columns.
    """
    if not isinstance(reference, Posterior):
        from bnn_zoo.fitting import fit  # stands above the reports

        method = _method(reference)
        if posterior.num_rows != posterior.data.num_rows:
            got = f"one to be run, on rows of which the posterior has a sample, {posterior.data.num_rows} in number"
            raise bad_value("reference", "a posterior of all rows", got, "Fit it, and pass what was fitted.")
        return fit(
            posterior.model,
            method,
            posterior.data,
            seed=(posterior.seed + 1) % 2**64,
            standardize=posterior.standardize,
            progress=progress,
            precision="float64" if posterior.x64 else "float32",
            processes="alone",  # a report may be asked for on one process of several
        )
    _order(posterior, reference)
    return reference


def compared(
    posterior: Posterior, reference: Posterior, x: np.ndarray, points: pd.DataFrame
) -> tuple[pd.DataFrame, list[Check]]:
    """Return ``points`` with columns ``reference_mean`` and ``reference_sd``, and the checks against the reference.

    Both are compared as they predict, which for some methods is not by way of draws; see `Posterior.predict`.

    Raises
    ------
    ZooValueError
        If the reference has no doubt about f(x) at any of the inputs ``x``, as one network has none.
    """
    its_x = x[:, _order(posterior, reference)]
    one, other = posterior.predict(x), reference.predict(its_x)
    if not (other.epistemic_std > 0).any():
        got = f"none, by {reference.method_name}"
        raise bad_value("reference", "a posterior that has doubt about f(x)", got, "Pass reference='nuts'.")
    points = points.assign(reference_mean=other.mean, reference_sd=other.epistemic_std)
    inner = (points["where"] != "beyond").to_numpy()
    trust, doubt = _trust(reference, its_x[inner])
    near = posterior.predict(x[inner]), reference.predict(its_x[inner])
    found = [_distance(*near), _ratio(one, other, points["where"])]
    if doubt:
        found = [replace(c, status="doubtful", finding=f"{c.finding} {doubt}", mend=trust.mend) for c in found]
    context = _differences(posterior, reference)
    return points, [trust, *(replace(c, finding=c.finding + context) for c in found)]


# --- the reference ----------------------------------------------------------------------------------------------------


def _method(reference: Any) -> Any:
    mend = "Pass 'nuts', a posterior, or a method such as zoo.methods.NUTS(num_samples=2000)."
    if isinstance(reference, str):
        if reference != "nuts":
            raise bad_value("reference", "'nuts' where it is a name", repr(reference), mend)
        return SHORT
    if isinstance(reference, type):
        raise bad_type("reference", "an object, not a class", reference.__name__, f"Call it: {reference.__name__}().")
    if not hasattr(reference, "run"):
        raise bad_type("reference", "a posterior, a method or 'nuts'", type(reference).__name__, mend)
    return reference


def _order(posterior: Posterior, reference: Posterior) -> list[int]:
    """Where the reference's columns are among the posterior's: by name, or by position where one of them has none."""
    mine, its = posterior.data.feature_names, reference.data.feature_names
    mend = "Fit both to the same columns."
    if len(mine) != len(its):
        raise bad_value("reference", f"a posterior of {len(mine)} columns, as this one", f"one of {len(its)}", mend)
    if default_names(len(mine)) in (mine, its):
        return list(range(len(mine)))
    if missing := [name for name in mine if name not in its]:
        raise bad_value("reference", "a posterior of the same columns", f"one without {missing[0]!r}", mend)
    return [mine.index(name) for name in its]


def _trust(reference: Posterior, x: np.ndarray) -> tuple[Check, str]:
    """The check of the reference itself; and what is to be held against it, nothing where it has converged."""
    name, draws = "the reference", reference.num_chains * reference.num_draws
    who = f"The reference, {draws} draws by {reference.method_name}, is"
    if reference.kind != "markov":
        said = f"{who} no Markov chain: nothing here shows that it is the posterior."
        doubt = "The reference is no Markov chain, so this is no verdict."
        return Check(name, np.nan, "doubtful", said, CHAINS), doubt
    found = chain_diagnostics(reference.function_draws(x))
    rhat, ess = float(np.max(found["rhat"])), float(np.min(found["ess_bulk"]))
    if reference.num_chains == 1:
        said = f"{who} one chain, which cannot disagree with itself; bulk ESS of its f(x) is at least {ess:.0f}."
        return Check(name, rhat, "doubtful", said, CHAINS), "The reference is one chain, so this is no verdict."
    said = f"{who} such that R-hat of its f(x) is at most {rhat:.3f} and bulk ESS at least {ess:.0f}"
    if rhat <= RHAT[1] and ess >= LEAST_ESS:
        return Check(name, rhat, "passed", f"{said}."), ""
    said = f"{said}; up to {RHAT[1]} and from {LEAST_ESS} are wanted."
    doubt = f"The reference has not converged (R-hat {rhat:.3f}, bulk ESS {ess:.0f}), so this is no verdict."
    return Check(name, rhat, "doubtful", said, LONGER), doubt


def _differences(posterior: Posterior, reference: Posterior) -> str:
    """What else the two differ in, said because a distance is then not the approximation's alone."""
    other = ["of another model"] * (reference.attributes["model"] != posterior.attributes["model"])
    other += ["fitted to other rows"] * (reference.data.sha256 != posterior.data.sha256)
    return f" The reference is {' and '.join(other)}." if other else ""


# --- the two checks ---------------------------------------------------------------------------------------------------


def _distance(one: Prediction, other: Prediction) -> Check:
    share = distances(one, other)[0] / float(other.std.mean())
    said = f"predictive distributions are {100 * share:.1f} % of the reference's sd away from it (Wasserstein-2)"
    return graded("distance from the reference", share, DISTANCE, f"{said}.", f"{said}.", NEARER)


def _ratio(one: Prediction, other: Prediction, where: pd.Series) -> Check:
    """Medians of the ratio of sds, by place: too wide among the data and too narrow between would cancel in one."""
    known = other.epistemic_std > 0
    ratios = pd.Series(one.epistemic_std[known] / other.epistemic_std[known])
    medians = ratios.groupby(where.to_numpy()[known], sort=False).median()
    judged = medians.drop("beyond", errors="ignore")  # told, and not judged: no two methods agree there
    with np.errstate(divide="ignore"):
        factors = np.abs(np.log(judged))
    worst = float(judged[factors.idxmax()])
    wide, narrow = ([WHERE[str(p)] for p in judged.index[off]] for off in (judged > RATIO[0], judged < 1 / RATIO[0]))
    if wide and narrow:
        verdict = f"under-confident {' and '.join(wide)}, over-confident {' and '.join(narrow)}"
    else:
        verdict = "over-confident" if worst < 1 else "under-confident"
    listed = ", ".join(f"{value:.2f} {WHERE[str(place)]}" for place, value in medians.items())
    said = f"the sd of f(x) over the reference's has the median {listed}"
    return graded(
        "epistemic sd against the reference",
        float(factors.max()),
        tuple(np.log(RATIO)),
        f"{said}.",
        f"{said}: {verdict}.",
        NEARER,
        shown=worst,
    )
