"""Where a prediction's components come from: draws, a linearised network, moments sent through one, a student."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import jax
import numpy as np
from numpyro.distributions import Normal

from bnn_zoo.engine import linearized, moments, predictive
from bnn_zoo.engine.compiled import call
from bnn_zoo.engine.density import Problem
from bnn_zoo.engine.gaussian import Gaussian
from bnn_zoo.engine.keys import seed_key
from bnn_zoo.engine.likelihood import Likelihood
from bnn_zoo.engine.scaling import Scaling
from bnn_zoo.errors import bad_value
from bnn_zoo.prediction import Prediction

# Kinds of prediction, and what to say where a posterior does not have one.
REASONS = {
    "monte_carlo": "A point fit has one network; use kind='plug_in'.",
    "plug_in": "There is no one best network among draws; fit with method 'map' for a point prediction.",
    "linearized": "Only a Laplace approximation of a Normal likelihood has it.",
    "moments": "Only a Gaussian of independent layers has it, of a dense network whose scales are fixed; try 'dvi'.",
}


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
class OneNormal:
    """One Normal a row, in place of a mixture: ``mean`` and ``std (n,)`` on the model's scale."""

    num_draws: ClassVar[int] = 1
    is_normal: ClassVar[bool] = True

    mean: np.ndarray
    std: np.ndarray

    def blocks(self, rows: int | None = None) -> Iterator[tuple[slice, Likelihood]]:
        """Slices of rows and their one component ``(1, rows)``, the last block padded."""
        rows = rows or predictive.block_rows(1, len(self.mean))
        for begin in range(0, len(self.mean), rows):
            where = slice(begin, min(begin + rows, len(self.mean)))
            spare = (0, rows - (where.stop - begin))
            parameters: dict = {
                "loc": np.pad(self.mean[where], spare)[None],
                "scale": np.pad(self.std[where], spare, constant_values=1.0)[None],
            }
            yield where, Likelihood(parameters, Normal)


@dataclass(frozen=True, eq=False)
class Linearized(OneNormal):
    """Of a network made linear about its mode, in float64."""

    problem: Problem
    mode: np.ndarray
    positions: np.ndarray
    x: np.ndarray
    scaling: Scaling
    noise: np.ndarray

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
    epistemic = np.sqrt(variance)
    return Prediction(
        mean=scaling.from_model(mean),
        epistemic_std=epistemic * scaling.y_scale,
        aleatoric_std=noise * scaling.y_scale,
        kind="linearized",
        _source=Linearized(mean, np.hypot(epistemic, noise), problem, gaussian.mode, positions, x, scaling, noise),
    )


@dataclass(frozen=True, eq=False)
class Propagated(OneNormal):
    """Of moments that were sent through the network; joint draws are those of the ``network``."""

    network: Source

    @property
    def scaling(self) -> Scaling:
        """To the user's units."""
        return self.network.scaling

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
        _source=Propagated(mean, np.sqrt(variance + noise), network),
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
