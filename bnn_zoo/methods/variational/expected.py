"""The evidence lower bound in closed form: what deterministic variational inference maximises.

ELBO = Σ_rows E_q[log p(y | x, z)] + E_q[log p(z)] + H(q), with q of independent Normals. The first term needs only the
mean and covariance of the network's outputs (`bnn_zoo.engine.moments`), the others only those of q.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import gammaln
from numpyro.distributions import ExpandedDistribution, Independent, Normal

from bnn_zoo.engine import curvature, moments
from bnn_zoo.engine.density import Batch, Problem
from bnn_zoo.engine.moments import Belief
from bnn_zoo.engine.propagation import Spread

ALPHA = 4.4798  # of the inverse-Gamma prior of a prior variance (Wu 2019, section 5)
LOG_2PI = float(np.log(2 * np.pi))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Expected:
    """The bound as an objective of `bnn_zoo.engine.training.train`, over ``(mean, log sd)`` of every coordinate.

    Weights and noise have a Normal factor each. Scales of weights that have priors are points: their density counts and
    their log sd does not.

    Attributes
    ----------
    full : bool
        Keep covariances between units.
    empirical : bool
        Set the prior variances of weights and biases, a layer each, to their best.
    """

    full: bool = field(default=True, metadata={"static": True})
    empirical: bool = field(default=False, metadata={"static": True})

    @property
    def rate(self) -> jax.Array | None:
        """None: the optimiser's updates are taken as they are."""
        return None

    @property
    def random(self) -> bool:
        """False: the bound takes no random numbers."""
        return False

    @property
    def shares_rows(self) -> bool:
        """No: moments of every row are sent through the network."""
        return False

    def size(self, problem: Problem) -> int:
        """Two numbers a coordinate."""
        return 2 * problem.size

    def objective(
        self,
        problem: Problem,
        z: jax.Array,
        where: jax.Array | None = None,
        key: jax.Array | None = None,
        step: jax.Array | None = None,
    ) -> jax.Array:
        """The bound for all rows, its first term estimated from the rows ``where``. Scalar."""
        batch = (problem.x, problem.y) if where is None else (problem.x[where], problem.y[where])
        belief, entropy = self.believed(problem, z)
        share = problem.total_rows / batch[1].shape[0]
        likelihood = share * expected_log_likelihood(problem, belief, batch, self.full)
        return likelihood + self.expected_log_prior(problem, belief) + entropy

    def judge(self, problem: Problem, z: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The bound, and its gradient, over all rows."""
        return jax.value_and_grad(lambda z: self.objective(problem, z))(z)

    def believed(self, problem: Problem, z: jax.Array) -> tuple[Belief, jax.Array]:
        """The Gaussian that ``z (2p,)`` stands for, and its entropy over the coordinates that vary."""
        mean, log_sd = jnp.split(z, 2)
        vary = jnp.asarray(moments.roles(problem) >= -1)
        var = jnp.where(vary, jnp.exp(2 * log_sd), 0.0)
        entropy = jnp.sum(jnp.where(vary, log_sd + 0.5 * (1 + LOG_2PI), 0.0))
        return Belief(mean, var, (None,) * len(curvature.layers_of(problem))), entropy

    def expected_log_prior(self, problem: Problem, belief: Belief) -> jax.Array:
        """E_q[log p(z)], with the prior of the prior variances where these are found."""
        role = moments.roles(problem)
        names = [slot.name for slot in problem.layout.slots if (role[slot.where] == -2).all()]
        found = problem.log_prior_of(belief.mean, tuple(names))
        if (role == -1).any():
            of_noise, weights = moments.over_noise(problem, belief, lambda z: problem.log_prior_of(z, (moments.NOISE,)))
            found += weights @ of_noise
        for square, variance in _squares(problem, belief):
            used = best_variance(square, variance) if self.empirical else variance
            found += -0.5 * jnp.sum(LOG_2PI + jnp.log(used) + square / used)
            if self.empirical:
                found += _log_inverse_gamma(used, variance)
        return found

    def prior_scales(self, problem: Problem, z: jax.Array) -> jax.Array:
        """``(2 L,)``: the standard deviations found for weights and biases of the layers."""
        belief, _ = self.believed(problem, z)
        return jnp.sqrt(jnp.stack([best_variance(*pair) for pair in _squares(problem, belief)]))

    def prior_change(self, problem: Problem, z: jax.Array, positions: jax.Array) -> jax.Array:
        """``(S,)``: log density of the prior that was found, over that of the model's, at ``positions (S, p)``.

        With the hyperprior's, as in the bound.
        """
        belief, _ = self.believed(problem, z)
        change = jnp.zeros(positions.shape[0], positions.dtype)
        parts = groups(problem), _squares(problem, belief), normal_priors(problem, belief.mean)
        for where, (square, prior), normal in zip(*parts, strict=True):
            assert normal is not None
            used, drawn = best_variance(square, prior), (positions[:, where] - normal[0][None]) ** 2
            change += 0.5 * jnp.sum(drawn * (1 / prior - 1 / used)[None] + jnp.log(prior / used)[None], axis=1)
            change += _log_inverse_gamma(used, prior)
        return change


def expected_log_likelihood(problem: Problem, belief: Belief, batch: Batch, full: bool) -> jax.Array:
    """Σ_rows E_q[log p(y | x, z)], for Normal outputs of the network. Scalar.

    With a noise of its own, −½ (log 2π + E[log σ²] + E[σ⁻²] ((y − m)² + s²)), m and s² the mean and variance of f. With
    outputs (f, l), l the log variance, of covariance S: −½ (log 2π + l̄ + e^{−l̄ + S_ll / 2} (S_ff + (y − m + S_fl)²))
    (Wu 2019, section 4), which is exact for jointly Normal outputs.
    """
    if not moments.architecture_of(problem).log_variance:  # type: ignore[union-attr]
        log_sigma, precision, _ = moments.noise_moments(problem, belief)

    def each(x: jax.Array, y: jax.Array) -> jax.Array:
        made = moments.outputs(problem, belief, x, full)
        if made.mean.shape[1] > 1:
            return two_outputs(made, y)
        assert made.var is not None
        squares = (y - made.mean[:, 0]) ** 2 + made.var[:, 0]
        return -0.5 * (LOG_2PI + 2 * log_sigma + precision * squares)

    return _sum_over_rows(each, *batch, moments.block_rows(problem, full, len(batch[1])))


def two_outputs(made: Spread, y: jax.Array) -> jax.Array:
    """``(rows,)``: E[log Normal(y; f, e^l)] for jointly Normal ``(f, l)``."""
    assert made.cov is not None
    m, l = made.mean[:, 0], made.mean[:, 1]
    s_ff, s_fl, s_ll = made.cov[:, 0, 0], made.cov[:, 0, 1], made.cov[:, 1, 1]
    return -0.5 * (LOG_2PI + l + jnp.exp(-l + 0.5 * s_ll) * (s_ff + (y - m + s_fl) ** 2))


def normal_priors(problem: Problem, z: jax.Array) -> list[tuple[jax.Array, jax.Array] | None]:
    """Of weights and biases, layer by layer, prior mean and sd of their coordinates; None where not Normal."""
    trace = problem._trace(z, problem.x[:1], problem.y[:1])
    found: list[tuple[jax.Array, jax.Array] | None] = []
    for layer in curvature.layers_of(problem):
        for name in (layer.weight, layer.bias):
            raw = name if any(slot.name == name for slot in problem.layout.slots) else f"{name}_decentered"
            fn: Any = trace[raw]["fn"]
            shape = tuple(fn.batch_shape) + tuple(fn.event_shape)
            while isinstance(fn, (Independent, ExpandedDistribution)):
                fn = fn.base_dist
            if not isinstance(fn, Normal):
                found.append(None)
                continue
            loc, scale = (jnp.broadcast_to(a, shape).reshape(-1) for a in (fn.loc, fn.scale))
            found.append((loc, scale))
    return found


def best_variance(square: jax.Array, prior: jax.Array) -> jax.Array:
    """s* = (S + 2β) / (k + 2α + 2), the prior variance at which E_q[log p(w | s)] + log p(s) is greatest.

    S sums E_q[w²] over the k weights; s is inverse-Gamma(α, β), with its mode β / (α + 1) at the model's own variance
    (Wu 2019, section 5, and the released code for β).
    """
    beta = (1 + ALPHA) * jnp.mean(prior)
    return (jnp.sum(square) + 2 * beta) / (square.shape[0] + 2 * ALPHA + 2)


def _log_inverse_gamma(s: jax.Array, prior: jax.Array) -> jax.Array:
    beta = (1 + ALPHA) * jnp.mean(prior)
    return ALPHA * jnp.log(beta) - gammaln(ALPHA) - (ALPHA + 1) * jnp.log(s) - beta / s


def _squares(problem: Problem, belief: Belief) -> list[tuple[jax.Array, jax.Array]]:
    """Of weights and biases, layer by layer, E_q[(z − m)²] and the prior variance of their coordinates, m its mean."""
    found = []
    for where, prior in zip(groups(problem), normal_priors(problem, belief.mean), strict=True):
        assert prior is not None
        loc, scale = prior
        found.append(((belief.mean[where] - loc) ** 2 + belief.var[where], scale**2))
    return found


def groups(problem: Problem) -> list[np.ndarray]:
    """Of weights and biases, layer by layer, the coordinates."""
    found = []
    for layer in curvature.layers_of(problem):
        index = curvature.coordinates(problem, layer)
        found += [index[:-1].reshape(-1), index[-1]]
    return found


def _sum_over_rows(function: Callable, x: jax.Array, y: jax.Array, rows: int) -> jax.Array:
    """Sum ``function(x, y)``, one value a row, over blocks of rows whose inner arrays are made again for a gradient."""
    total = x.shape[0]
    if total <= rows:
        return jnp.sum(function(x, y))
    blocks = -(-total // rows)
    spare = blocks * rows - total
    parts = (
        jnp.pad(x, ((0, spare), (0, 0)), mode="edge").reshape(blocks, rows, -1),
        jnp.pad(y, (0, spare), mode="edge").reshape(blocks, rows),
        (jnp.arange(blocks * rows) < total).reshape(blocks, rows),
    )

    @jax.checkpoint
    def part(x: jax.Array, y: jax.Array, counted: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(counted, function(x, y), 0.0))

    return lax.scan(lambda so_far, one: (so_far + part(*one), None), jnp.zeros((), x.dtype), parts)[0]
