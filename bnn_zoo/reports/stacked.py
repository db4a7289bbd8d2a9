"""Several posteriors as one: a weighted mixture of their predictive distributions, with the names a posterior has.

A little past 300 lines, as the mixture of predictions stands beside the posterior that it is the prediction of.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import pandas as pd
from numpyro import distributions as dist

from bnn_zoo.engine import predictive
from bnn_zoo.engine.identity import settings
from bnn_zoo.engine.keys import seed_key
from bnn_zoo.engine.likelihood import Likelihood
from bnn_zoo.engine.scaling import Scaling
from bnn_zoo.errors import ZooValueError, bad_value
from bnn_zoo.inputs import as_inputs
from bnn_zoo.posterior import Posterior
from bnn_zoo.prediction import Components, Prediction

if TYPE_CHECKING:
    from pathlib import Path

    from bnn_zoo.engine.density import Problem
    from bnn_zoo.reports.convergence import Diagnosis

# Families whose components can be given on another scale than that of the model.
LOCATION_SCALE = (dist.Normal, dist.StudentT, dist.Laplace, dist.Cauchy, dist.Logistic, dist.Gumbel)


@settings
class Stacking:
    """What stands for the method of a stack: what was weighed, on what, and the weights that were found."""

    parts: tuple[str, ...]
    weights: tuple[float, ...]
    weighed_on: str


@dataclass(frozen=True, eq=False, repr=False)
class StackedPosterior(Posterior):
    """A weighted mixture of posteriors, `parts`; made by `bnn_zoo.stack`.

    `predict` is the weighted mixture itself, all of its quantities exact. What is given draw by draw (`function_draws`,
    `log_likelihood`, `draws`, `idata`) has T draws, 1,000 or as many as the parts have together, each part's as often
    as its weight says to within one draw, so that plain averages over draws are those of the stack to 1 / T.

    Attributes
    ----------
    parts : dict of str to Posterior
        What was stacked: posteriors, or the chains or members of one.
    weights : pandas.Series
        One weight a part, of sum 1. ``weights.attrs``: ``gap``, a bound in nats a row on what other weights could gain
        on the rows that they were found on.
    log_scores : ndarray
        ``(n, K)``: log density of those rows under each part.
    origin : Posterior, optional
        The one posterior whose chains or members are the parts.
    """

    parts: dict[str, Any] = field(default_factory=dict)
    weights: pd.Series = field(default_factory=pd.Series)
    log_scores: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    origin: Posterior | None = None

    # --- predictions ------------------------------------------------------------------------------------------------

    def predict(self, x: Any, *, kind: str | None = None) -> Prediction:
        """Return the weighted mixture of the parts' predictive distributions at ``x (n, d)``.

        Parameters
        ----------
        x : array-like
            Inputs ``(n, d)``; a pandas frame is matched by column name.
        kind : str or None
            As `Posterior.predict` takes it, of every part; ``None``: each part's own best.

        Raises
        ------
        ZooValueError
            If ``x`` does not fit, or a part does not have that kind.
        """
        x = as_inputs(x, self.data.feature_names)
        return mixed([part.predict(x, kind=kind) for part in self._used.values()], self._shares)

    def function_draws(self, x: Any) -> np.ndarray:
        """Return f(x) of draws from the parts in proportion to their weights, ``(1, T, n)``, in units of the target."""
        x = as_inputs(x, self.data.feature_names)
        return self._in_proportion({name: part.function_draws(x) for name, part in self._used.items()})

    def log_likelihood(self, x: Any, y: Any) -> np.ndarray:
        """Return the log density of each row under the same draws as those of `function_draws`, ``(1, T, n)``."""
        x = as_inputs(x, self.data.feature_names)
        return self._in_proportion({name: part.log_likelihood(x, y) for name, part in self._used.items()})

    @cached_property
    def draws(self) -> dict[str, np.ndarray]:
        """Sites as ``(1, T, *site)``, drawn as `function_draws` are.

        Of parts that differ in model or data, weights mean different things; there are only the sites that all have in
        the units of the target, such as the noise.
        """
        if self.alike:
            return super().draws
        # A fixed noise is declared so too, and is no site; a Gaussian process has no draws, and declares nothing.
        known = [set(getattr(part.model, "sites_in_target_units", ())) for part in self._used.values()]
        shared = set.intersection(*known) if all(isinstance(p, Posterior) for p in self._used.values()) else set()
        found = {name: part.draws for name, part in self._used.items()} if shared else {}
        names = [site for site in sorted(shared) if all(np.ndim(d.get(site)) == 2 for d in found.values())]
        return {site: self._in_proportion({part: d[site] for part, d in found.items()}) for site in names}

    @cached_property
    def scalars(self) -> dict[str, np.ndarray]:
        """Those of `draws` that are one number a draw, ``(1, T)`` each."""
        return {name: value for name, value in self.draws.items() if value.ndim == 2}

    @property
    def alike(self) -> bool:
        """Whether all parts are of one model, data and scaling, so that their weights may be looked at together."""
        return self.result.positions.shape[2] > 0

    @cached_property
    def idata(self) -> Any:
        """ArviZ 1.x ``DataTree`` of the draws in proportion to the weights; see `Posterior.idata`."""
        self._check_networks("idata")
        return super().idata

    @property
    def whole_problem(self) -> Problem:
        """Model and all rows, where the parts share both."""
        if not self.alike:
            raise self._lacks("whole_problem", "parts of one model and data")
        return super().whole_problem

    # --- judgement --------------------------------------------------------------------------------------------------

    def diagnose(self, x: Any = None, *, reference: Any = None) -> Diagnosis:
        """Return a verdict: what was stacked and what that gained, and the verdict on each part that counts.

        ``x`` and ``reference`` are as in `Posterior.diagnose`; a reference to be run must be of parts of one model.
        """
        from bnn_zoo.reports.verdict_of_stacks import diagnose

        if reference is not None and not isinstance(reference, Posterior) and not self.alike:
            raise self._lacks("a reference to be run", "parts of one model and data; or pass a posterior")
        return diagnose(self, None if x is None else as_inputs(x, self.data.feature_names), reference)

    def report(self, path: Any, test: Any = None) -> Any:
        """Write one self-contained HTML page; see `Posterior.report`."""
        self._check_networks("report")
        return super().report(path, test)

    # --- what parts must do for themselves --------------------------------------------------------------------------

    def resume(self, num_samples: int, *, progress: bool | str = True) -> Posterior:
        """Refused: parts go on, a stack does not."""
        raise bad_value("resume", "asked of one posterior", "a stack", "Resume its parts, and stack them again.")

    def save(self, path: Any, *, pointwise: bool | None = None) -> Path:
        """Refused: a file holds one posterior."""
        raise bad_value("save", "asked of one posterior", "a stack", "Save its parts; load and stack them again.")

    def __repr__(self) -> str:
        listed = "\n".join(f"  {weight:7.4f}  {name}" for name, weight in self.weights.items())
        return (
            f"StackedPosterior of {len(self.parts)} parts, weighed on {self.method.weighed_on}\n{listed}\n"
            f"  of {self.attributes['model']}\n  on {self.data!r}"
        )

    # --- inner ------------------------------------------------------------------------------------------------------

    @property
    def _flat(self) -> np.ndarray:
        if not self.alike:
            raise self._lacks("weights of a network", "parts of one model and data")
        return super()._flat

    def _check_networks(self, what: str) -> None:
        if self.problem is None:
            raise bad_value(what, "asked of networks", "Gaussian processes alone", "Use predict, evaluate and compare.")

    def _lacks(self, what: str, rule: str) -> ZooValueError:
        got = f"parts of different ones: {', '.join(self.parts)}"
        return bad_value(what, f"asked of {rule}", got, "Ask each part.")

    @cached_property
    def _used(self) -> dict[str, Any]:
        return {name: part for name, part in self.parts.items() if self.weights[name] > 0}

    @property
    def _shares(self) -> np.ndarray:
        return self.weights[list(self._used)].to_numpy()

    def _in_proportion(self, values: dict[str, np.ndarray]) -> np.ndarray:
        """Of values ``(C, S, ...)`` of each part, those of the draws that stand for the stack: ``(1, T, ...)``."""
        flat = [v.reshape(-1, *v.shape[2:]) for v in values.values()]
        chosen = in_proportion([len(v) for v in flat], self._shares, self.num_draws)
        return np.concatenate([v[index] for v, index in zip(flat, chosen, strict=True)])[None]


def units(posterior: Posterior) -> str:
    """What one posterior is made of."""
    return {"markov": "chains", "independent": "modes", "members": "members"}[posterior.kind]


def in_proportion(available: list[int], shares: np.ndarray, total: int) -> list[np.ndarray]:
    """Choose ``total`` draws from parts that have ``available`` ones, in proportion to their shares within one draw.

    Draws of a part are taken evenly; where more are wanted than there are, each as often as any other, within one.
    """
    counts = np.floor(total * shares).astype(int)
    left_over = np.argsort(counts - total * shares, kind="stable")
    counts[left_over[: total - counts.sum()]] += 1
    return [np.arange(count) * have // max(count, 1) for have, count in zip(available, counts, strict=True)]


# --- the mixture ------------------------------------------------------------------------------------------------------


def mixed(predictions: list[Prediction], shares: np.ndarray) -> Prediction:
    """Return the mixture of predictive distributions at the same inputs, with these weights.

    Its variance is the mean of the variances plus the variance of the means. The latter is doubt about which part is
    right, and counts as epistemic.
    """
    mean, epistemic, aleatoric = (
        np.stack([getattr(one, name) for one in predictions]) for name in ("mean", "epistemic_std", "aleatoric_std")
    )
    centre = shares @ mean
    return Prediction(
        mean=centre,
        epistemic_std=np.sqrt(shares @ (epistemic**2 + (mean - centre[None]) ** 2)),
        aleatoric_std=np.sqrt(shares @ aleatoric**2),
        kind="stacked",
        _source=Mixed(tuple(one._source for one in predictions), shares, len(centre)),
    )


@dataclass(frozen=True, eq=False)
class Mixed:
    """Components of several predictions, each with its prediction's weight over its number of components."""

    sources: tuple[Components, ...]
    shares: np.ndarray
    num_rows: int

    @property
    def scaling(self) -> Scaling:
        """The first one's; the others' components are brought to it."""
        return self.sources[0].scaling

    @property
    def num_draws(self) -> int:
        """Components of the mixture."""
        return sum(source.num_draws for source in self.sources)

    @property
    def is_normal(self) -> bool:
        """Whether all are Normals."""
        return all(source.is_normal for source in self.sources)

    def blocks(self, rows: int | None = None) -> Iterator[tuple[slice, Likelihood]]:
        """Slices of rows and their components ``(T, rows)``, the last block padded."""
        rows = rows or predictive.block_rows(self.num_draws, self.num_rows)
        for found in zip(*(source.blocks(rows) for source in self.sources), strict=True):
            parts = [self._on_scale(one, source.scaling) for (_, one), source in zip(found, self.sources, strict=True)]
            names = parts[0].parameters
            joined: dict = {name: np.concatenate([part.parameters[name] for part in parts]) for name in names}
            counts = [len(next(iter(part.parameters.values()))) for part in parts]
            weights: Any = np.repeat(self.shares / counts, counts)
            yield found[0][0], Likelihood(joined, parts[0].family, weights)

    def sample(self, num: int, seed: int, rows: int) -> np.ndarray:
        """``(num, rows)`` observations in the user's units; one row is one joint draw, from one network of one part.

        How many come from each part is its weight times ``num``, rounded up or down at random so as to be right on
        average.
        """
        seed_key(seed)
        state = np.random.SeedSequence(int(seed)).generate_state(len(self.sources) + 1)
        generator = np.random.default_rng(state[0])
        edges = np.append(0.0, np.cumsum(self.shares))
        edges[-1] = 1.0  # but for rounding
        counts = np.diff(np.floor(edges * num + generator.uniform())).astype(int)
        drawn = [
            # As many as there can be at most: another seed then compiles nothing.
            source.sample(int(np.ceil(num * share)) + 1, int(one), rows)[:count]
            for source, share, one, count in zip(self.sources, self.shares, state[1:], counts, strict=True)
            if count
        ]
        return generator.permutation(np.concatenate(drawn))

    def _on_scale(self, part: Likelihood, own: Scaling) -> Likelihood:
        wide = jax.tree.map(lambda a: np.asarray(a, np.float64), part)
        if same_scale(own, self.scaling):
            return wide
        factor = own.y_scale / self.scaling.y_scale
        moved = {
            "loc": wide.parameters["loc"] * factor + (own.y_centre - self.scaling.y_centre) / self.scaling.y_scale,
            "scale": wide.parameters["scale"] * factor,
        }
        return replace(wide, parameters=wide.parameters | moved)


def same_scale(one: Scaling, other: Scaling) -> bool:
    """Whether targets are centred and scaled alike."""
    return one.y_centre == other.y_centre and one.y_scale == other.y_scale


def family(prediction: Prediction) -> Any:
    """Family of a prediction's components."""
    return next(prediction._source.blocks())[1].family
