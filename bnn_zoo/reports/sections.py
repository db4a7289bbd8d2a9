"""Which plots a page shows, section by section: those that mean something for the posterior at hand."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial

import numpy as np

from bnn_zoo.datasets import Dataset
from bnn_zoo.posterior import Posterior
from bnn_zoo.reports import plots
from bnn_zoo.reports.pictures import Picture

QUANTILES = (0.05, 0.35, 0.65, 0.95)
AVERAGED = (10, 100)  # rows that a partial dependence is averaged over: the fewer, the larger the network
MOST_WORK = 10**6  # weights times these rows
MOST_DRAWS = 100  # by which features are put in order
MOST_FEATURES = 6  # whose partial dependence a page has room for


def gallery(posterior: Posterior, data: Dataset) -> list[Picture]:
    """List the plots that mean something for this posterior, those of predictions on ``data``."""
    parts = (predictions(posterior, data), calibration(posterior, data), course(posterior), parameters(posterior))
    return [picture for part in parts for picture in part]


def predictions(posterior: Posterior, data: Dataset) -> list[Picture]:
    """What it predicts, and how that depends on each feature."""
    one = data.num_features == 1
    rows = f"{len(data)} rows of {data.name}"
    bands = "The inner band is doubt about the function, the outer one adds the noise of an observation."
    if posterior.num_chains * posterior.num_draws == 1 and not posterior.tells_epistemic:
        bands = "The band is noise alone, as there is one network."
    title = "Observed against predicted"
    caption = f"Each of {rows}, with its central 90 % interval; crosses lie outside theirs."
    if one:
        title = "Predictions"
        caption = f"Predictive mean and 90 % intervals over {data.feature_names[0]}, with {rows}. {bands}"
    anywhere = posterior.kept.inputs is None  # or at the inputs alone whose functions were kept
    found = []
    if anywhere or not one:
        found.append(Picture("predictive", title, caption, lambda: plots.predictive(posterior, data)))
    if anywhere and not one and not posterior.tells_epistemic:
        features = most_used(posterior)
        caption = (
            "Mean of f over the rows, with one feature set to each value of the axis: what the fit makes of that "
            "feature alone, with its doubt. Combinations of features that never occur are among those averaged over."
        )
        few, many = AVERAGED
        num_rows = int(np.clip(MOST_WORK / posterior.problem.size, few, many))
        draw = partial(plots.partial_dependence, posterior, features, num_rows=num_rows)
        found.append(Picture("dependence", "Partial dependence", caption, draw))
    return found


def calibration(posterior: Posterior, data: Dataset) -> list[Picture]:
    """Whether its intervals are right."""
    rows = f"{len(data)} rows of {data.name}"
    shares = (
        f"Share of {rows} inside central intervals of every level. On the diagonal intervals are right; below it they "
        "are too narrow."
    )
    pit = (
        "Where observations fall within their predictive distributions, less what is right. Outside the band, "
        "predictions are biased or of the wrong width."
    )
    found = [
        Picture("calibration", "Calibration of intervals", shares, lambda: plots.calibration(posterior, data)),
        Picture("pit", "Probability integral transform", pit, lambda: plots.pit(posterior, data)),
    ]
    if len(data) >= 10:
        caption = (
            "Error of what is left when the rows of largest predictive sd are put aside. It should fall, at best as "
            "fast as when rows are put aside by their error."
        )
        draw = partial(plots.sparsification, posterior, data)
        found.append(Picture("sparsification", "Does doubt go with error?", caption, draw))
    return found


def course(posterior: Posterior) -> list[Picture]:
    """How the draws came about."""
    found, info = [], posterior.result.info
    if posterior.kind == "markov":
        caption = "f(x) along each chain, where chains agree least. They should overlap, and none should drift."
        found.append(Picture("traces", "Traces", caption, lambda: plots.traces(posterior)))
    if posterior.kind == "markov" and posterior.num_chains > 1:
        caption = "Ranks of f(x) by chain. Flat, within the grey band of chance, is right."
        found.append(Picture("ranks", "Ranks", caption, lambda: plots.ranks(posterior)))
    if "energy" in posterior.stats:
        caption = "Energies, and their changes from draw to draw. The two should be about as wide."
        found.append(Picture("energy", "Energy", caption, lambda: plots.energy(posterior)))
    if "cycle" in posterior.stats:
        caption = "Step size, log density and draws over the cycles of one chain."
        found.append(Picture("cycles", "Cycles", caption, lambda: plots.cycles(posterior)))
    if "elbo" in info:
        caption = "The bound while training, of all rows. It should have levelled off."
        found.append(Picture("bound", "Bound", caption, lambda: plots.bound(posterior)))
    elif len(info.get("losses", ())):
        caption = "Minus log posterior per row while training. It should have levelled off."
        found.append(Picture("losses", "Training", caption, lambda: plots.losses(posterior)))
    return found


def parameters(posterior: Posterior) -> list[Picture]:
    """What has been learnt about functions and scales, beside what the prior said."""
    found = []
    if posterior.kept.inputs is None and not posterior.tells_epistemic:
        feature = None if posterior.data.num_features == 1 else most_used(posterior)[0]
        along = "" if feature is None else f", along {feature}, the others at their medians"
        caption = f"Functions drawn from the prior and from the posterior, in the units of the target{along}."
        draw = partial(plots.prior_and_posterior, posterior, feature=feature)
        found.append(Picture("prior", "Prior and posterior functions", caption, draw))
    if plots.has_relevance(posterior):
        caption = "Scale of the weights that leave each feature: the larger, the more the network uses it."
        found.append(Picture("relevance", "Relevance of features", caption, lambda: plots.relevance(posterior)))
    for site in plots.scalar_sites(posterior):
        caption = f"Posterior of {site}, by chain, with its prior where that is known."
        draw = partial(plots.noise, posterior, site=site)
        # Sites of a foreign model may have any name, with slashes or brackets: not so files, nor ids.
        found.append(Picture(f"site_{re.sub(r'[^A-Za-z0-9_]', '_', site)}", f"Posterior of {site}", caption, draw))
    return found


def most_used(posterior: Posterior) -> list[str]:
    """Name the features along which the mean of f varies most, the most first and at most six: a page has no room.

    A feature is set to four quantiles of its own in the same 32 rows, and the means over these rows are compared.
    """
    data = posterior.data
    rows = data.x[np.random.default_rng(0).permutation(len(data))[:32]]
    x = np.tile(rows, (data.num_features, len(QUANTILES), 1, 1))
    for feature, values in enumerate(np.quantile(data.x, QUANTILES, axis=0).T):
        x[feature, :, :, feature] = values[:, None]
    few = _thinned(posterior)
    mean = few.predict(x.reshape(-1, data.num_features)).mean.reshape(x.shape[:3]).mean(2)
    order = np.argsort(-np.ptp(mean, axis=1), kind="stable")
    return [data.feature_names[i] for i in order[:MOST_FEATURES]]


def _thinned(posterior: Posterior) -> Posterior:
    """The same with a hundred draws or so: enough to tell a feature that matters from one that does not."""
    step = -(-posterior.num_chains * posterior.num_draws // MOST_DRAWS)
    if step == 1 or type(posterior) is not Posterior:
        return posterior
    result = posterior.result
    stats = {name: value[:, ::step] for name, value in result.stats.items()}
    return replace(posterior, result=replace(result, positions=result.positions[:, ::step], stats=stats))
