"""The phases that SWA, SWAG and MultiSWAG share: train, then let SGD walk at a high rate and watch where it goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bnn_zoo.engine import training
from bnn_zoo.engine.compiled import Request, call, runs_once
from bnn_zoo.engine.context import Context
from bnn_zoo.engine.density import Problem
from bnn_zoo.engine.identity import settings
from bnn_zoo.engine.iterates import Iterates
from bnn_zoo.engine.schedules import Schedule
from bnn_zoo.engine.starts import prior_positions_and_keys
from bnn_zoo.engine.tasks import Task
from bnn_zoo.errors import bad_type, bad_value, check_choice, check_count, check_positive

POWER_STEPS = 20
CURVATURE_ROWS = 10_000
SHARE = 0.5  # of the inverse of the largest curvature; at 2 plain gradient descent diverges


@settings
class Averaged:
    """What the three have in common: a warm phase by Adam, then stochastic gradient descent, its iterates collected.

    The settings are explained in `bnn_zoo.methods.SWAG`.
    """

    num_steps: int = 4000
    learning_rate: float | None = None
    momentum: float = 0.9
    decay: str = "constant"
    collect_every: int | None = None
    warm_steps: int = 2000
    warm_learning_rate: float = 0.01
    batch_size: int | None = None

    def __post_init__(self) -> None:
        check_count("num_steps", self.num_steps)
        if self.learning_rate is not None:
            check_positive("learning_rate", self.learning_rate, "None takes one from the curvature of the loss.")
        if isinstance(self.momentum, bool) or not isinstance(self.momentum, (int, float)):
            raise bad_type("momentum", "a number", repr(self.momentum), "0.9 is usual; 0 for none.")
        if not 0 <= self.momentum < 1:
            raise bad_value("momentum", "from 0 to below 1", self.momentum, "0.9 is usual; 0 for none.")
        check_choice("decay", self.decay, ("constant", "cyclical"))
        check_count("warm_steps", self.warm_steps)
        check_positive("warm_learning_rate", self.warm_learning_rate, "0.01 is usual on standardised data.")
        for name in ("collect_every", "batch_size"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))

    @property
    def streams(self) -> bool:
        """It takes batches, whatever their size."""
        return True

    def _schedule(self, problem: Problem, rank: int) -> Schedule:
        num_rows = problem.num_rows
        size = self.batch_size or min(128, max(1, num_rows // 10))
        if size > num_rows:
            raise bad_value("batch_size", f"at most the {num_rows} rows", size, "None takes a tenth of them.")
        least = max(rank, 2)
        every = self.collect_every or max(1, min(int(problem.total_rows) // size, self.num_steps // max(2 * rank, 50)))
        if self.num_steps // every < least:
            got = f"{self.num_steps}, of which every {every}. is kept"
            mend = f"Give num_steps={least * every} or more."
            raise bad_value("num_steps", f"enough for {least} iterates", got, mend)
        return Schedule(
            num_steps=self.num_steps,
            learning_rate=1.0,  # the rate is part of the task: an array, so that another one compiles nothing
            batch_size=size,
            rule="sgd",
            momentum=float(self.momentum),
            decay=self.decay,
            low=0.01,
            collect_every=every,
            rank=rank,
        )

    def collect(
        self,
        problem: Problem,
        key: jax.Array,
        context: Context,
        num_modes: int,
        rank: int,
        title: str,
        ahead: Sequence[Request] = (),
    ) -> Collected:
        """Train ``num_modes`` networks and walk on from each, keeping the last ``rank`` deviations.

        All programs are compiled side by side, and those of ``ahead``, which come after, with them.

        Raises
        ------
        ZooValueError
            If the batch is larger than the data, the steps are too few for the rank, or training diverges.
        """
        schedule = self._schedule(problem, rank)
        warm = Schedule(
            num_steps=self.warm_steps, learning_rate=self.warm_learning_rate, batch_size=schedule.batch_size
        )
        shape = partial(jax.ShapeDtypeStruct, dtype=problem.x.dtype)
        own: list[Request] = [(prior_positions_and_keys, (num_modes, 4), (problem, key))]
        if self.learning_rate is None:
            own.append((_curvature, (), (problem, shape((num_modes, problem.size)), key)))
        own += training.requests(problem, num_modes, warm, context)
        rates: Any = shape((num_modes,))
        own += training.requests(problem, num_modes, schedule, context, Task(rate=rates))
        context.compile_together([*own, *ahead])
        begin = call(prior_positions_and_keys, (num_modes, 4), problem, key, watch=context.watch)
        z, key_warm, key_rate, key_sgd, key_draws = begin
        first = training.train(problem, z, key_warm, warm, context, f"{title} warm-up")
        if not np.isfinite(first.log_posterior).all():
            raise bad_value("warm_learning_rate", "small enough to train", self.warm_learning_rate, "Try a tenth.")
        if self.learning_rate is None:
            curvature = call(_curvature, (), problem, jnp.asarray(first.positions), key_rate, watch=context.watch)
            rate = np.asarray(SHARE * (1 - self.momentum) / np.asarray(curvature), first.positions.dtype)
        else:
            rate = np.full(num_modes, self.learning_rate, first.positions.dtype)
        task = Task(rate=jnp.asarray(rate))
        trained = training.train(problem, first.positions, key_sgd, schedule, context, title, task)
        assert trained.iterates is not None
        if not np.isfinite(np.asarray(trained.iterates.squares)).all():
            got = ", ".join(dict.fromkeys(f"{one:.3g}" for one in rate))
            raise bad_value("learning_rate", "small enough for gradient descent to stay", got, "Try a tenth of it.")
        return Collected(
            iterates=trained.iterates,
            rate=rate,
            losses=trained.losses,
            gradients=first.gradients + trained.gradients + (0 if self.learning_rate else 2 * POWER_STEPS * num_modes),
            key=key_draws,
        )


@dataclass(frozen=True, eq=False)
class Collected:
    """Moments of the iterates, the learning rate of each mode, the loss along the way, cost, and a key for draws."""

    iterates: Iterates
    rate: np.ndarray  # (M,)
    losses: np.ndarray
    gradients: int
    key: jax.Array


# --- compiled programs ----------------------------------------------------------------------------------------------


@runs_once
def _curvature(problem: Problem, z: jax.Array, key: jax.Array) -> jax.Array:
    """Largest curvature ``(M,)``, by absolute value, of the loss per row at ``z (M, p)``, by power iteration.

    On 10 000 rows drawn at random, where there are more.
    """
    key_rows, key_vector = jax.random.split(key)
    rows = problem.total_rows
    size = min(problem.num_rows, CURVATURE_ROWS)
    where = jax.random.choice(key_rows, problem.num_rows, (size,), replace=False)
    batch = (problem.x[where], problem.y[where])

    def one(z: jax.Array) -> jax.Array:
        slope = jax.grad(lambda z: -problem.log_posterior(z, batch) / rows)

        def body(_: jax.Array, carry: tuple) -> tuple:
            v, _ = carry
            image = jax.jvp(slope, (z,), (v,))[1]
            length = jnp.linalg.norm(image)
            return image / jnp.maximum(length, jnp.finfo(z.dtype).tiny), length

        v = jax.random.normal(key_vector, z.shape, z.dtype)
        return jax.lax.fori_loop(0, POWER_STEPS, body, (v / jnp.linalg.norm(v), jnp.zeros((), z.dtype)))[1]

    return jax.lax.map(one, z)
