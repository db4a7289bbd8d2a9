"""Where chains begin: at draws from the prior, or at networks that have been trained first."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np

from bnn_zoo.engine import training
from bnn_zoo.engine.compiled import Request, call, runs_once
from bnn_zoo.engine.context import Context
from bnn_zoo.engine.density import Problem
from bnn_zoo.engine.schedules import Schedule
from bnn_zoo.errors import bad_value

STARTS = ("prior", "map", "ensemble")
WARM_START = Schedule(num_steps=5000, learning_rate=0.02)


@dataclass(frozen=True, eq=False)
class Start:
    """Positions ``(C, p)`` of chains, the gradients spent on them, and facts for the diagnosis."""

    positions: np.ndarray
    gradients: int = 0
    info: dict[str, Any] = field(default_factory=dict)


def positions(
    start: str, problem: Problem, key: jax.Array, num_chains: int, context: Context, batch_size: int | None = None
) -> Start:
    """Return one position a chain; what is trained is trained on batches where there is a ``batch_size``.

    ``"prior"``: independent prior draws. ``"ensemble"``: each chain at its own network, trained from its own prior
    draw. ``"map"``: every chain at the best of these, which hides from R-hat what the other modes hold.

    Raises
    ------
    ZooValueError
        If the log posterior is not finite at any of 100 prior draws.
    """
    kept = None if context.journal is None else context.journal.get("start")
    if context.hosts is not None and not context.hosts.everywhere("start kept", kept is not None):
        kept = None  # a process that trains them has to have the others' share
    if kept is not None:
        return Start(kept["positions"], int(kept["gradients"]), {"start": start})
    found = _make(start, problem, key, num_chains, context, batch_size)
    if context.journal is not None:
        context.journal.put("start", {"positions": found.positions, "gradients": np.asarray(found.gradients)})
    return found


def _make(
    start: str, problem: Problem, key: jax.Array, num_chains: int, context: Context, batch_size: int | None
) -> Start:
    z, value, key_train = call(prior_positions, (num_chains,), problem, key, watch=context.watch)
    value = np.asarray(value)
    if not np.isfinite(value).all():
        raise bad_value(
            "the model's log posterior",
            "finite somewhere under its own prior",
            f"no finite value in 100 prior draws (chain {int(np.flatnonzero(~np.isfinite(value))[0])})",
            "Check the scale of y against the prior, or fit with standardize=True.",
        )
    info = {"start": start}
    if start == "prior":
        return Start(np.asarray(z), info=info)
    trained = training.train(problem, z, key_train, _schedule(batch_size), context, "training starts")
    best = trained.positions[np.nanargmax(trained.log_posterior)]
    usable = np.isfinite(trained.log_posterior)
    if not usable.any():
        raise bad_value("start", "'prior' for this model", repr(start), "Training diverged from every prior draw.")
    own = np.where(usable[:, None], trained.positions, best)
    chosen = own if start == "ensemble" else np.broadcast_to(best, own.shape)
    return Start(np.ascontiguousarray(chosen), trained.gradients, info)


def requests(
    start: str, problem: Problem, num_chains: int, context: Context, batch_size: int | None = None
) -> list[Request]:
    """Programs that `positions` will call, to be compiled beside others."""
    key = jax.ShapeDtypeStruct((2,), np.uint32)
    own: list[Request] = [(prior_positions, (num_chains,), (problem, key))]
    if start == "prior":
        return own
    return own + training.requests(problem, num_chains, _schedule(batch_size), context)


def _schedule(batch_size: int | None) -> Schedule:
    return replace(WARM_START, batch_size=batch_size)


@runs_once
def prior_positions(num_chains: int, problem: Problem, key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Usable prior draws ``(C, p)``, their log posteriors ``(C,)``, and a key for what follows."""
    key_prior, key_train = jax.random.split(key)
    return *problem.starts(jax.random.split(key_prior, num_chains)), key_train


@runs_once
def prior_positions_and_keys(num_chains: int, num_keys: int, problem: Problem, key: jax.Array) -> tuple[jax.Array, ...]:
    """`prior_positions`, without the values, and ``num_keys`` keys made of the last."""
    z, _, key_next = prior_positions(num_chains, problem, key)
    return z, *jax.random.split(key_next, num_keys)
