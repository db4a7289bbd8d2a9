"""What stochastic gradient descent passes through at a high learning rate: its mean, and a Gaussian around it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from bnn_zoo.engine import training
from bnn_zoo.engine.compiled import Request, call
from bnn_zoo.engine.context import Context
from bnn_zoo.engine.density import Problem
from bnn_zoo.engine.draws import Draws
from bnn_zoo.engine.identity import settings
from bnn_zoo.engine.iterates import Iterates
from bnn_zoo.errors import check_count
from bnn_zoo.methods.ensembles.averaging import Averaged


@settings
class SWA(Averaged):
    """The mean of the networks that stochastic gradient descent passes through: one network, in the middle.

    Choose it for a point prediction that is often better than the last iterate's. Like `MAP` it has no uncertainty
    about the weights.

    Parameters
    ----------
    num_steps, learning_rate, momentum, decay, collect_every, warm_steps, warm_learning_rate, batch_size
        As in `SWAG`.

    Notes
    -----
    The mean is that of the unconstrained coordinates.

    References
    ----------
    Izmailov et al. (2018), Averaging weights leads to wider optima and better generalization, algorithm 1.
    """

    def run(self, problem: Problem, key: jax.Array, context: Context) -> Draws:
        """Train, and average."""
        found = self.collect(problem, key, context, 1, 0, "SWA")
        mean = found.iterates.mean
        lp, norm = training.judge(problem, mean, context)
        return Draws(
            positions=np.asarray(mean)[None],
            kind="members",
            stats={"lp": lp[None]},
            info={"gradient_norm": float(norm[0]), "learning_rate": found.rate, "losses": found.losses},
            gradients=found.gradients,
        )


@settings
class SWAG(Averaged):
    """A Gaussian around one trained network, with the spread of what stochastic gradient descent passes through.

    Choose it for a little uncertainty at the price of training. The spread is that of the optimiser's noise: it has to
    do with the posterior, but is not its width, and depends on learning rate and batch.

    Parameters
    ----------
    num_samples : int
        Draws from the Gaussian.
    rank : int
        K: how many of the last deviations from the running mean are kept.
    num_steps : int
        Steps of stochastic gradient descent, after the warm phase.
    learning_rate : float or None
        Of these steps, on the loss per row. ``None`` takes ``0.5 (1 - momentum) / curvature``, with the largest
        curvature of the loss where the warm phase ended: as fast as is safely stable, whatever the noise and the data.
    momentum : float
        Heavy-ball momentum; 0 for none.
    decay : str
        ``"constant"``, or ``"cyclical"``: down to a hundredth of the learning rate in every ``collect_every`` steps.
    collect_every : int or None
        Steps between two iterates that count. ``None``: an epoch, or less where fewer than 50 epochs are run.
    warm_steps, warm_learning_rate : int, float
        Adam's, with a cosine decay to zero, before.
    batch_size : int or None
        Rows a step, drawn without replacement each epoch; ``None`` takes a tenth of them, at most 128. The spread of
        the iterates comes from the batches being small.

    Notes
    -----
    With θ̄ the mean and Σ_diag the variances of the iterates, and D (p × K) the last K deviations, each from the mean as
    it was then, a draw is

        θ = θ̄ + (1 / √2) Σ_diag^{1/2} z₁ + (1 / √(2 (K − 1))) D z₂,   z₁ ~ N(0, I_p), z₂ ~ N(0, I_K)

    (equation 1), so that its covariance is ½ (Σ_diag + D Dᵀ / (K − 1)). Departures from the paper: the warm phase is
    Adam's; the prior stands in place of weight decay, and noise and scales are averaged too, in unconstrained
    coordinates; the learning rate comes from the curvature.

    References
    ----------
    Maddox et al. (2019), A simple baseline for Bayesian uncertainty in deep learning, algorithm 1 and equation 1.
    """

    num_samples: int = 1000
    rank: int = 20

    def __post_init__(self) -> None:
        Averaged.__post_init__(self)
        check_count("num_samples", self.num_samples)
        check_count("rank", self.rank, 2, "Two deviations are the least that have a spread.")

    def run(self, problem: Problem, key: jax.Array, context: Context) -> Draws:
        """Train, collect, and draw."""
        return self._run(problem, key, context, 1, "SWAG")

    def _run(self, problem: Problem, key: jax.Array, context: Context, num_modes: int, title: str) -> Draws:
        wanted = Iterates.shapes(num_modes, self.rank, problem.size, problem.x.dtype)
        ahead: list[Request] = [(_draw, (self.num_samples,), (problem, wanted, key))]
        found = self.collect(problem, key, context, num_modes, self.rank, title, ahead)
        moments = found.iterates
        positions, lp = call(_draw, (self.num_samples,), problem, moments, found.key, watch=context.watch)
        return Draws(
            positions=np.asarray(positions),
            kind="independent",
            stats={"lp": np.asarray(lp)},
            info={
                "learning_rate": found.rate,
                "iterates": int(moments.taken),
                "mean": np.asarray(moments.mean),
                "variance": np.asarray(moments.variance),
                "deviations": np.asarray(moments.deviations),
                "losses": found.losses,
            },
            gradients=found.gradients,
        )


@settings
class MultiSWAG(SWAG):
    """A mixture of SWAG's Gaussians, each around a network trained from its own prior draw, all trained at once.

    Choose it where networks that fit the data differ by more than one Gaussian holds: as `DeepEnsemble`, with a width
    to every member.

    Parameters
    ----------
    num_modes : int
        Gaussians, of equal weight; one chain of ``num_samples`` draws each.
    num_samples, rank, num_steps, learning_rate, momentum, decay, collect_every, warm_steps, warm_learning_rate
        As in `SWAG`.
    batch_size : int or None
        Likewise.

    References
    ----------
    Wilson & Izmailov (2020), Bayesian deep learning and a probabilistic perspective of generalization, section 4.
    """

    num_modes: int = 5
    num_samples: int = 200

    def __post_init__(self) -> None:
        SWAG.__post_init__(self)
        check_count("num_modes", self.num_modes)

    def run(self, problem: Problem, key: jax.Array, context: Context) -> Draws:
        """Train every mode, collect, and draw."""
        return self._run(problem, key, context, self.num_modes, "MultiSWAG")


# --- compiled programs ----------------------------------------------------------------------------------------------


def gaussian_draws(
    mean: jax.Array, variance: jax.Array, deviations: jax.Array, key: jax.Array, num_samples: int
) -> jax.Array:
    """Draws ``(S, p)`` by equation 1 of Maddox (2019), from ``(p,)``, ``(p,)`` and ``(K, p)``."""
    key_diagonal, key_rank = jax.random.split(key)
    rank = deviations.shape[0]
    z_1 = jax.random.normal(key_diagonal, (num_samples, mean.shape[0]), mean.dtype)
    z_2 = jax.random.normal(key_rank, (num_samples, rank), mean.dtype)
    diagonal = jnp.sqrt(0.5 * variance)[None, :] * z_1
    return mean[None, :] + diagonal + z_2 @ deviations / jnp.sqrt(2.0 * (rank - 1)).astype(mean.dtype)


def _draw(num_samples: int, problem: Problem, moments: Iterates, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Draws ``(M, S, p)`` of every mode, and their log posteriors ``(M, S)``."""

    def one(mode: tuple) -> tuple[jax.Array, jax.Array]:
        mean, variance, deviations, key = mode
        z = gaussian_draws(mean, variance, deviations, key, num_samples)
        return z, jax.lax.map(problem.log_posterior, z)

    keys = jax.random.split(key, moments.mean.shape[0])
    return jax.lax.map(one, (moments.mean, moments.variance, moments.deviations, keys))
