"""``Task``: what sets the members of one training run apart, so that one loop trains them all.

A network of a plain fit maximises the log posterior. A member of an ensemble may see its own rows (bootstrap), its own
targets and its own prior (anchored), or inputs shifted against it (adversarial training).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import jax
import jax.numpy as jnp
from jax import lax

from bnn_zoo.engine.density import Batch, Problem


class Objective(Protocol):
    """What the training loop maximises: a pytree whose arrays have a leading member axis, as the loop holds it.

    The methods are called without that axis, one member each.
    """

    @property
    def rate(self) -> jax.Array | None:
        """Factor on the optimiser's updates, or None."""
        ...

    @property
    def random(self) -> bool:
        """Whether the objective is estimated with random numbers of its own, from a new key every step."""
        ...

    @property
    def shares_rows(self) -> bool:
        """Whether it sees all rows through densities of the problem alone, so that devices may share them."""
        ...

    def size(self, problem: Problem) -> int:
        """Length of the vector that is trained."""
        ...

    def objective(
        self,
        problem: Problem,
        z: jax.Array,
        where: jax.Array | None = None,
        key: jax.Array | None = None,
        step: jax.Array | None = None,
    ) -> jax.Array:
        """What is maximised, for all rows, estimated from the rows ``where``. Scalar."""
        ...

    def judge(self, problem: Problem, z: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Log posterior where training ended, and a vector whose norm is told: the objective's gradient.

        Both over all rows, and means of what they are over parts of them, where these are weighted as the whole.
        """
        ...


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Task:
    """A log posterior for every member, with a leading member axis; ``None`` where a member does as the problem says.

    Member m maximises, over the coordinates that it is free to move,

        log p(z) + tilt_m · z + Σ_i log p(y_mi | x_i, z),   i over rows_m.

    Attributes
    ----------
    rows : Array, optional
        ``(M, n)`` whole numbers: the rows that a member sees, with repetition.
    y : Array, optional
        ``(M, n)``: targets of all ``n`` rows as a member sees them.
    tilt : Array, optional
        ``(M, p)``: linear term, which moves a Normal prior's centre and leaves its covariance.
    free : Array, optional
        ``(M, p)`` Booleans: coordinates that are trained; the others stay where they begin.
    rate : Array, optional
        ``(M,)``: factor on the optimiser's updates, for a learning rate that is known only once data are.
    adversarial : float
        Half of the likelihood is taken at inputs moved by this share of their range, against the network
        (Lakshminarayanan 2017, section 2.3); 0 for none.
    """

    rows: jax.Array | None = None
    y: jax.Array | None = None
    tilt: jax.Array | None = None
    free: jax.Array | None = None
    rate: jax.Array | None = None
    adversarial: float = field(default=0.0, metadata={"static": True})

    @property
    def plain(self) -> bool:
        """Whether the objective is the log posterior itself."""
        return self.rows is None and self.y is None and self.tilt is None and self.free is None and not self.adversarial

    @property
    def random(self) -> bool:
        """Whether the objective is estimated with random numbers of its own."""
        return False

    @property
    def shares_rows(self) -> bool:
        """Whether devices may hold some of the rows each: not where a member has its own, or shifted ones."""
        return self.plain

    def size(self, problem: Problem) -> int:
        """Length of the vector that is trained."""
        return problem.size

    def judge(self, problem: Problem, z: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Log posterior of the problem at ``z (p,)``, and the gradient of what the member maximised."""
        value, gradient = jax.value_and_grad(problem.log_posterior)(z)
        if not self.plain:
            gradient = jax.grad(self.objective, argnums=1)(problem, z)
        return value, gradient

    def objective(
        self,
        problem: Problem,
        z: jax.Array,
        where: jax.Array | None = None,
        key: jax.Array | None = None,
        step: jax.Array | None = None,
    ) -> jax.Array:
        """Objective of one member (fields without their member axis) at ``z (p,)``, estimated from rows ``where``."""
        if self.plain:
            return problem.log_posterior(z, None if where is None else (problem.x[where], problem.y[where]))
        if self.free is not None:
            z = jnp.where(self.free, z, lax.stop_gradient(z))
        batch = self._batch(problem, where)
        if self.adversarial:
            likelihood = 0.5 * problem.log_likelihood(z, batch) + 0.5 * problem.log_likelihood(
                z, self._against(problem, z, batch)
            )
            value = problem.log_prior(z) + likelihood
        else:
            value = problem.log_posterior(z, batch)
        return value if self.tilt is None else value + self.tilt @ z

    def _batch(self, problem: Problem, where: jax.Array | None) -> Batch:
        if where is None:
            where = jnp.arange(problem.num_rows)
        rows = where if self.rows is None else self.rows[where]
        return problem.x[rows], (problem.y if self.y is None else self.y)[rows]

    def _against(self, problem: Problem, z: jax.Array, batch: Batch) -> Batch:
        """Inputs moved to where the likelihood is lower: x − ε range(x) sign(∂ log p(y | x) / ∂x)."""
        x, y = batch
        fixed = lax.stop_gradient(z)
        slope = jax.grad(lambda x: jnp.sum(problem.pointwise_log_likelihood(fixed, x, y)))(x)
        reach = self.adversarial * (jnp.max(problem.x, axis=0) - jnp.min(problem.x, axis=0))
        return x - reach[None, :] * jnp.sign(slope), y


PLAIN = Task()
