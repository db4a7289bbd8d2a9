"""Particles that follow the posterior's gradient together, and push each other apart."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from bnn_zoo.engine import training
from bnn_zoo.engine.compiled import call
from bnn_zoo.engine.context import Context
from bnn_zoo.engine.density import Problem
from bnn_zoo.engine.draws import Draws
from bnn_zoo.engine.identity import settings
from bnn_zoo.engine.schedules import Schedule
from bnn_zoo.engine.starts import prior_positions
from bnn_zoo.errors import bad_value, check_choice, check_count, check_positive
from bnn_zoo.methods.ensembles.trained import Batched, check_batch

KERNELS = ("rbf", "linear")


@settings
class SVGD(Batched):
    """Stein variational gradient descent: networks moved together, so that as a group they look like the posterior.

    Choose it as an ensemble whose members are kept from meeting. In few dimensions the particles are a good sample;
    with many more weights than particles the repulsion of ``"rbf"`` is too weak to hold them apart, the spread falls
    far short of the posterior's, and what is left is close to a plain ensemble.

    Parameters
    ----------
    num_members : int
        Particles, M: at least 2.
    num_steps, learning_rate, batch_size
        Adam's, with a cosine decay to zero; ``batch_size=None`` takes all rows. All particles see the same batch.
    kernel : str
        ``"rbf"``: k(x, x') = exp(-‖x - x'‖² / h), where h = med² / log M with the median distance of two particles,
        anew every step. ``"linear"``: k(x, x') = x·x' + 1, which finds the mean and the covariance of a Gaussian
        posterior exactly where M > p, and knows no more than these of any other.

    Notes
    -----
    Each particle z_i, from its own prior draw, goes along (algorithm 1, equation 8)

        φ(z_i) = 1/M Σ_j [ k(z_j, z_i) ∇ log p(z_j | y) + ∇_{z_j} k(z_j, z_i) ],

    the steepest descent of the Kullback-Leibler divergence within the kernel's function space. The gradient of a batch
    is scaled to all rows. Departs from the paper, which steps by AdaGrad, in stepping by Adam.

    At rest the two terms cancel at every particle. ``result.info["stein_residual"]`` is ‖φ‖ over the sum of their
    norms, on all rows, at the end: 0 at rest, at most 1.

    References
    ----------
    Liu & Wang (2016), Stein variational gradient descent. Liu & Wang (2018), Stein variational gradient descent as
    moment matching, theorem 3.3, for the linear kernel. Ba et al. (2022), Understanding the variance collapse of SVGD
    in high dimensions.
    """

    num_members: int = 20
    num_steps: int = 4000
    learning_rate: float = 0.01
    batch_size: int | None = None
    kernel: str = "rbf"

    def __post_init__(self) -> None:
        check_count("num_members", self.num_members, 2, "One particle alone is 'map'.")
        check_count("num_steps", self.num_steps)
        check_positive("learning_rate", self.learning_rate, "0.01 is usual on standardised data.")
        if self.batch_size is not None:
            check_count("batch_size", self.batch_size)
        check_choice("kernel", self.kernel, KERNELS)

    def run(self, problem: Problem, key: jax.Array, context: Context) -> Draws:
        """Move all particles."""
        check_batch(self, problem)
        schedule = Schedule(num_steps=self.num_steps, learning_rate=self.learning_rate, batch_size=self.batch_size)
        z, _, key_train = call(prior_positions, (self.num_members,), problem, key, watch=context.watch)
        task = Particles(num=self.num_members, kernel=self.kernel)
        start = np.asarray(z).reshape(1, -1)
        trained = training.train(problem, start, key_train, schedule, context, "SVGD", task)
        found = trained.positions.reshape(self.num_members, problem.size)
        if not np.isfinite(found).all():
            raise bad_value("learning_rate", "small enough to train", self.learning_rate, "Try a tenth of it.")
        lp, _ = training.judge(problem, jax.device_put(found), context)
        return Draws(
            positions=found[None],
            kind="members",
            stats={"lp": lp[None]},
            info={"stein_residual": float(trained.gradient_norm[0]), "losses": trained.losses},
            gradients=trained.gradients * self.num_members,
        )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Particles:
    """Stein's direction as an objective: particles see each other, so the training loop has them as one member.

    Its value is the mean log posterior of the particles, and its gradient in them, by design, φ.
    """

    num: int = field(metadata={"static": True})
    kernel: str = field(metadata={"static": True})

    @property
    def rate(self) -> jax.Array | None:
        """Factor on the optimiser's updates: none."""
        return None

    @property
    def random(self) -> bool:
        """No random numbers of its own."""
        return False

    @property
    def shares_rows(self) -> bool:
        """Whether devices may hold some of the rows each: what is asked of them is the log posterior."""
        return True

    def size(self, problem: Problem) -> int:
        """Length of the vector that is trained: all particles, one behind the other."""
        return self.num * problem.size

    def objective(
        self,
        problem: Problem,
        z: jax.Array,
        where: jax.Array | None = None,
        key: jax.Array | None = None,
        step: jax.Array | None = None,
    ) -> jax.Array:
        """Mean log posterior, with the gradient φ."""
        value, drive, repulsion = self._parts(problem, z, where)
        pull = (drive + repulsion).reshape(-1) @ z
        return value + pull - lax.stop_gradient(pull)

    def judge(self, problem: Problem, z: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean log posterior, and how far the two terms of φ are from cancelling: of norm 0 at rest, at most 1."""
        value, drive, repulsion = self._parts(problem, z, None)
        norm = jnp.linalg.norm
        return value, (drive + repulsion).reshape(-1) / (norm(drive) + norm(repulsion))

    def _parts(self, problem: Problem, z: jax.Array, where: jax.Array | None) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Mean log posterior and the two terms of φ, ``(M, p)``, none of them to be differentiated."""
        particles = lax.stop_gradient(z).reshape(self.num, problem.size)
        batch = None if where is None else (problem.x[where], problem.y[where])
        values, slopes = jax.vmap(jax.value_and_grad(lambda z: problem.log_posterior(z, batch)))(particles)
        return jnp.mean(values), *stein(particles, slopes, self.kernel)


def stein(particles: jax.Array, slopes: jax.Array, kernel: str) -> tuple[jax.Array, jax.Array]:
    """The two terms of φ at every particle, ``(M, p)`` each: along the slopes, and away from the other particles."""
    num = particles.shape[0]
    if kernel == "linear":
        weights = particles @ particles.T + 1.0
        return weights @ slopes / num, particles
    # About the mean, where squares and differences lose least to rounding; and no array is M × M × p.
    centred = particles - jnp.mean(particles, axis=0, keepdims=True)
    squares = jnp.sum(centred**2, axis=1)
    apart = jnp.maximum(squares[:, None] + squares[None, :] - 2.0 * centred @ centred.T, 0.0)
    median = jnp.median(jnp.sqrt(apart[np.triu_indices(num, 1)]))
    # Particles that have all become one have no scale, and go on together.
    scale = jnp.where(median > 0, median**2 / math.log(num), 1.0)
    weights = jnp.exp(-apart / scale)
    # Σ_j ∇_{z_j} k(z_j, z_i) = 2/h Σ_j k_ij (z_i - z_j).
    away = jnp.sum(weights, axis=1)[:, None] * centred - weights @ centred
    return weights @ slopes / num, 2.0 / scale * away / num
