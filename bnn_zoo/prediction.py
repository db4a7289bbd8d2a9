"""``Prediction``: what a posterior says of new observations, in the user's units."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from html import escape
from typing import Protocol

import jax
import numpy as np
from numpyro.distributions import Normal

from bnn_zoo.engine import linearized, mixture, moments, predictive
from bnn_zoo.engine.compiled import call
from bnn_zoo.engine.density import Problem
from bnn_zoo.engine.gaussian import Gaussian
from bnn_zoo.engine.keys import seed_key
from bnn_zoo.engine.likelihood import Likelihood
from bnn_zoo.engine.scaling import Scaling
from bnn_zoo.errors import bad_value, check_between, check_count
from bnn_zoo.inputs import as_targets

MOST_SHOWN = 8  # rows in a notebook
MOST_REMEMBERED = 2**20  # quantiles

# Kinds of prediction, and what to say where a posterior does not have one.
REASONS = {
    "monte_carlo": "A point fit has one network; use kind='plug_in'.",
    "plug_in": "There is no one best network among draws; fit with method 'map' for a point prediction.",
    "linearized": "Only a Laplace approximation of a Normal likelihood has it.",
    "moments": "Only a Gaussian of independent layers has it, of a dense network whose scales are fixed; try 'dvi'.",
}


class Components(Protocol):
    """Where a prediction's components come from."""

    @property
    def scaling(self) -> Scaling:
        """To the user's units."""
        ...

    @property
    def num_draws(self) -> int:
        """Components of the mixture."""
        ...

    @property
    def is_normal(self) -> bool:
        """Whether they are Normals."""
        ...

    def blocks(self, rows: int | None = None) -> Iterator[tuple[slice, Likelihood]]:
        """Slices of rows and their components ``(T, rows)``, the last block padded; ``rows`` a block where given."""
        ...

    def sample(self, num: int, seed: int, rows: int) -> np.ndarray:
        """``(num, rows)`` observations in the user's units."""
        ...


@dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """Predictive distribution at ``n`` inputs: an equal mixture, over draws, of the model's observation distribution.

    Where the network was made linear about a mode, moments were sent through it, or it was distilled, there is one
    component, a Normal. Where posteriors were stacked, the mixture is one of theirs, weighted.

    Moments are computed at once, in one compiled loop in bounded memory. Quantiles, densities and scores are exact for
    the mixture, not sampled, and computed a block of rows at a time when asked for.

    Attributes
    ----------
    mean : ndarray
        ``(n,)``, in the units of the target, like all that follow.
    std : ndarray
        ``(n,)``: ``std² = epistemic_std² + aleatoric_std²``.
    epistemic_std : ndarray
        ``(n,)``: standard deviation of f(x) between draws, what more data would shrink.
    aleatoric_std : ndarray
        ``(n,)``: root of the mean noise variance, what more data would not shrink.
    kind : str
        How it was made: ``"monte_carlo"`` over draws, ``"plug_in"`` at one network, ``"linearized"`` about one, by
        ``"moments"`` sent through it, ``"exact"`` for an infinite one, or ``"stacked"`` from several predictions.
    """

    mean: np.ndarray
    epistemic_std: np.ndarray
    aleatoric_std: np.ndarray
    kind: str
    _source: Components = field(repr=False)
    _last: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict, repr=False)
    _quantiles: dict[float, np.ndarray] = field(default_factory=dict, repr=False)

    @property
    def std(self) -> np.ndarray:
        """Standard deviation ``(n,)`` of an observation."""
        return np.hypot(self.epistemic_std, self.aleatoric_std)

    @property
    def is_normal(self) -> bool:
        """Whether this is a mixture of Normals, for which every quantity has a closed form or an exact root."""
        return self._source.is_normal

    def __len__(self) -> int:
        return len(self.mean)

    def copy(self) -> Prediction:
        """The same, with moments of its own to write in; what has been computed of it is shared."""
        return replace(
            self,
            mean=self.mean.copy(),
            epistemic_std=self.epistemic_std.copy(),
            aleatoric_std=self.aleatoric_std.copy(),
        )

    def __repr__(self) -> str:
        def middle(a: np.ndarray) -> str:
            return f"{np.median(a):.4g}"

        return (
            f"Prediction(n={len(self)}, kind={self.kind!r}, draws={self._source.num_draws}: median mean "
            f"{middle(self.mean)}, epistemic_std {middle(self.epistemic_std)}, "
            f"aleatoric_std {middle(self.aleatoric_std)})"
        )

    def _repr_html_(self) -> str:
        """The first rows with their 90 % intervals, as a notebook shows them."""
        import pandas as pd

        some = min(len(self), MOST_SHOWN)
        columns = {"mean": self.mean, "std": self.std, "epistemic_std": self.epistemic_std}
        table = pd.DataFrame({**columns, "aleatoric_std": self.aleatoric_std}).head(some)
        _, parts = next(iter(self._source.blocks()))  # the first block holds them: no need to look at all rows
        ends = mixture.evaluate("quantile", parts, np.array([0.05, 0.95]))[:, :some]
        table["5 %"], table["95 %"] = self._source.scaling.from_model(ends)
        left = f"<p>… {len(self) - some} more rows</p>" if some < len(self) else ""
        return f"<p>{escape(repr(self))}</p>{table.to_html(float_format='{:.4g}'.format)}{left}"

    def quantile(self, q: float | list[float] | np.ndarray) -> np.ndarray:
        """Return quantiles ``(len(q), n)``, by root finding on the mixture's distribution function.

        Raises
        ------
        ZooValueError
            Unless every level lies strictly between 0 and 1.
        """
        levels = np.atleast_1d(np.asarray(q, np.float64))
        if levels.ndim != 1 or not ((levels > 0) & (levels < 1)).all():
            raise bad_value("q", "one or more levels strictly between 0 and 1", repr(q), "0.5 is the median.")
        wanted = [round(float(level), 12) for level in levels]
        missing = [level for level in dict.fromkeys(wanted) if level not in self._quantiles]
        if missing:
            found = np.empty((len(missing), len(self)))
            for where, parts in self._source.blocks():
                found[:, where] = mixture.evaluate("quantile", parts, np.array(missing))[:, : where.stop - where.start]
            known = self._quantiles | dict(zip(missing, self._source.scaling.from_model(found), strict=True))
            if len(known) * len(self) <= MOST_REMEMBERED:  # scores and plots ask for the same few levels
                self._quantiles.update(known)
        else:
            known = self._quantiles
        return np.stack([known[level] for level in wanted])

    def interval(self, prob: float = 0.9) -> np.ndarray:
        """Return the central interval ``(n, 2)`` that holds an observation with probability ``prob``."""
        check_between("prob", prob, 0, 1, "0.9 is usual.")
        return self.quantile([0.5 - prob / 2, 0.5 + prob / 2]).T

    def cdf(self, y: object) -> np.ndarray:
        """Return P(Y ≤ y) of each row ``(n,)``: the probability integral transform of ``y (n,)``."""
        return self._rowwise("cdf", y)

    def log_prob(self, y: object) -> np.ndarray:
        """Return the log predictive density ``(n,)`` at ``y (n,)``, per unit of the target."""
        return self._rowwise("log_prob", y) + self._source.scaling.log_jacobian

    def crps(self, y: object) -> np.ndarray:
        """Return the continuous ranked probability score ``(n,)``, in units of the target; less is better."""
        return self._rowwise("crps", y) * self._source.scaling.y_scale

    def sample(self, num: int = 1, seed: int = 0) -> np.ndarray:
        """Return ``(num, n)`` observations; one row of it is one joint draw, from one network.

        Draws of the posterior are used without replacement until all have been used: in a random order, or, where
        ``num`` is the number of draws, in theirs.
        """
        check_count("num", num)
        return self._source.sample(num, seed, len(self))

    def _rowwise(self, name: str, y: object) -> np.ndarray:
        targets = self._source.scaling.targets(as_targets(y, len(self)))
        # Scores, paired differences and plots ask for the same rows in turn: the network runs once for each quantity.
        if name in self._last and np.array_equal(self._last[name][0], targets):
            return self._last[name][1].copy()
        out = np.empty(len(self))
        for where, parts in self._source.blocks():
            count = where.stop - where.start
            # The last block is padded: give its spare rows a target that is as good as any.
            block = np.zeros(next(iter(parts.parameters.values())).shape[1])
            block[:count] = targets[where]
            out[where] = mixture.evaluate(name, parts, block)[:count]
        self._last[name] = targets, out.copy()
        return out


@dataclass(frozen=True, eq=False)
class Source:
    """Where a prediction's components come from, recomputed a block of rows at a time."""

    problem: Problem
    positions: np.ndarray
    x: np.ndarray
    scaling: Scaling
    x64: bool
    _only: list[tuple[slice, Likelihood]] = field(default_factory=list, repr=False)

    @property
    def num_draws(self) -> int:
        """Components of the mixture."""
        return len(self.positions)

    @property
    def is_normal(self) -> bool:
        """Whether the model observes a Normal."""
        with jax.enable_x64(self.x64):
            z = jax.ShapeDtypeStruct((self.problem.size,), self.problem.x.dtype)
            return jax.eval_shape(self.problem.likelihood, z, self.problem.x).is_normal

    def blocks(self, rows: int | None = None) -> Iterator[tuple[slice, Likelihood]]:
        """Slices of rows and their components ``(T, rows)``, the last block padded."""
        if rows is None and self._only:
            yield self._only[0]
            return
        parts = predictive.padded_components(self.problem, self.positions, self.x, rows)
        while True:
            with jax.enable_x64(self.x64):
                try:
                    where, block = next(parts)
                except StopIteration:
                    return
            if rows is None and where == slice(0, len(self.x)):
                self._only.append((where, block))  # no larger than any block, and asked for again and again
            yield where, block

    def predict(self, kind: str) -> Prediction:
        """Return the moments and, behind them, all the rest."""
        with jax.enable_x64(self.x64):
            mean, between, within = predictive.moments(self.problem, self.positions, self.x)
        scale = self.scaling.y_scale
        return Prediction(
            mean=self.scaling.from_model(mean),
            epistemic_std=np.sqrt(between.astype(np.float64)) * scale,
            aleatoric_std=np.sqrt(within.astype(np.float64)) * scale,
            kind=kind,
            _source=self,
        )

    def sample(self, num: int, seed: int, rows: int) -> np.ndarray:
        """``(num, rows)`` observations in the user's units."""
        key = seed_key(seed)
        generator = np.random.default_rng(int(seed))
        which = _in_turn(generator, num, self.num_draws)
        chosen = Source(self.problem, self.positions[which], self.x, self.scaling, self.x64)
        out = np.empty((num, rows))
        for block, (where, parts) in enumerate(chosen.blocks()):
            with jax.enable_x64(self.x64):
                noisy = call(_sample, (), parts, key, np.uint32(block))
            out[:, where] = np.asarray(noisy)[:, : where.stop - where.start]
        return self.scaling.from_model(out)


@dataclass(frozen=True, eq=False)
class Linearized:
    """One Normal a row, of a network made linear about its mode; as `Source`, on the model's scale and in float64."""

    problem: Problem
    mode: np.ndarray
    positions: np.ndarray
    x: np.ndarray
    scaling: Scaling
    mean: np.ndarray
    variance: np.ndarray
    noise: np.ndarray
    num_draws: int = 1
    is_normal: bool = True

    def blocks(self, rows: int | None = None) -> Iterator[tuple[slice, Likelihood]]:
        """Slices of rows and their one component ``(1, rows)``, the last block padded."""
        return one_normal(self.mean, np.hypot(np.sqrt(self.variance), self.noise), rows)

    def sample(self, num: int, seed: int, rows: int) -> np.ndarray:
        """``(num, rows)`` observations in the user's units: joint functions f(x; m) + J (z − m), and noise."""
        generator = np.random.default_rng(int(seed))
        which = _in_turn(generator, num, len(self.positions))
        f = linearized.functions(self.problem, self.mode, self.positions[which], self.x)
        return self.scaling.from_model(f + self.noise * generator.standard_normal((num, rows)))


def linearized_at(
    problem: Problem, gaussian: Gaussian, positions: np.ndarray, x: np.ndarray, scaling: Scaling
) -> Prediction:
    """Return the prediction at ``x``: mean and variance of f in closed form, and the noise at the mode."""
    mean, variance, noise = linearized.moments(problem, gaussian, x)
    return Prediction(
        mean=scaling.from_model(mean),
        epistemic_std=np.sqrt(variance) * scaling.y_scale,
        aleatoric_std=noise * scaling.y_scale,
        kind="linearized",
        _source=Linearized(problem, gaussian.mode, positions, x, scaling, mean, variance, noise),
    )


@dataclass(frozen=True, eq=False)
class Propagated:
    """One Normal a row, of moments that were sent through the network; joint draws are those of the ``network``."""

    network: Source
    mean: np.ndarray
    std: np.ndarray
    num_draws: int = 1
    is_normal: bool = True

    @property
    def scaling(self) -> Scaling:
        """To the user's units."""
        return self.network.scaling

    def blocks(self, rows: int | None = None) -> Iterator[tuple[slice, Likelihood]]:
        """Slices of rows and their one component ``(1, rows)``, the last block padded."""
        return one_normal(self.mean, self.std, rows)

    def sample(self, num: int, seed: int, rows: int) -> np.ndarray:
        """``(num, rows)`` observations in the user's units, one network a row."""
        return self.network.sample(num, seed, rows)


def propagated_at(network: Source, gaussian: Gaussian, full: bool) -> Prediction:
    """Return the prediction by moments of a Gaussian over the weights, sent through the network layer by layer."""
    mean, variance, noise = moments.predict(network.problem, gaussian, network.x, full)
    scale = network.scaling.y_scale
    return Prediction(
        mean=network.scaling.from_model(mean),
        epistemic_std=np.sqrt(variance) * scale,
        aleatoric_std=np.sqrt(noise) * scale,
        kind="moments",
        _source=Propagated(network, mean, np.sqrt(variance + noise)),
    )


def distilled_at(network: Source) -> Prediction:
    """Return the prediction of a student, whose outputs are the mean and the logs of both variances, in one pass."""
    with jax.enable_x64(network.x64):
        mean, aleatoric, epistemic = predictive.outputs(network.problem, network.positions[0], network.x)
    scale = network.scaling.y_scale
    return Prediction(
        mean=network.scaling.from_model(mean),
        epistemic_std=np.exp(0.5 * epistemic.astype(np.float64)) * scale,
        aleatoric_std=np.exp(0.5 * aleatoric.astype(np.float64)) * scale,
        kind="plug_in",
        _source=network,
    )


def one_normal(mean: np.ndarray, std: np.ndarray, rows: int | None = None) -> Iterator[tuple[slice, Likelihood]]:
    """Blocks of rows with one Normal each, ``(1, rows)``, the last one padded."""
    rows = rows or predictive.block_rows(1, len(mean))
    for begin in range(0, len(mean), rows):
        where = slice(begin, min(begin + rows, len(mean)))
        spare = (0, rows - (where.stop - begin))
        parameters: dict = {
            "loc": np.pad(mean[where], spare)[None],
            "scale": np.pad(std[where], spare, constant_values=1.0)[None],
        }
        yield where, Likelihood(parameters, Normal)


def choose_kind(kind: str | None, own: list[str], method_name: str) -> str:
    """Return the kind of prediction asked for, of those that a posterior has; its first where none is.

    Raises
    ------
    ZooValueError
        If it is unknown, or not one of ``own``.
    """
    if kind is None:
        return own[0]
    if kind in own:
        return kind
    if kind not in REASONS:
        raise bad_value("kind", "one of " + ", ".join(map(repr, REASONS)), repr(kind), "None picks.")
    raise bad_value("kind", f"{' or '.join(map(repr, own))} for method {method_name}", repr(kind), REASONS[kind])


def _in_turn(generator: np.random.Generator, num: int, available: int) -> np.ndarray:
    """Choose ``num`` draws of ``available`` without replacement, round after round; in order where it is all of them.

    A tree for ArviZ has a row of observations beside each draw, and what reads both takes them for a pair.
    """
    if num == available:
        return np.arange(available)
    rounds = -(-num // available)
    return np.concatenate([generator.permutation(available) for _ in range(rounds)])[:num]


def _sample(parts: Likelihood, key: jax.Array, block: jax.Array) -> jax.Array:
    return parts.sample(jax.random.fold_in(key, block))
