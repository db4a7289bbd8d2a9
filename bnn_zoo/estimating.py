"""What a fit will take, before it takes it: numbers kept, memory, gradients."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from html import escape
from typing import Any

import jax
import numpy as np

from bnn_zoo.engine import starts
from bnn_zoo.engine.compiled import compiled
from bnn_zoo.engine.density import Problem
from bnn_zoo.engine.kept import Keep
from bnn_zoo.engine.resources import SHARE, amount, available, duration
from bnn_zoo.errors import bad_value

log = logging.getLogger("bnn_zoo")

FEWEST = 100  # draws a chain, below which a chain is not thinned by itself
TRAINED = 30  # vectors of the weights that training a network holds: Adam's two moments, L-BFGS's twenty differences
CHAIN = 40  # likewise a chain: its state, the turning points of a tree, a chunk of draws
TIMED = 20  # gradients


@dataclass(frozen=True, repr=False)
class Estimate:
    """What a fit will take; made by `bnn_zoo.estimate`.

    Attributes
    ----------
    parameters : int
        p.
    rows, rows_a_gradient : int
        Of the data, and those that one gradient sees.
    chains, draws : int
        C and S.
    draw_bytes : int
        Of all draws, or of the functions kept in place of them, in memory or in the file.
    on_disk : bool
        Whether draws go to a file.
    work_bytes : int
        What is held beside them while the fit runs, about.
    available_bytes : int or None
        Memory that is free now; None where the system does not say.
    gradients : int
        Starts and warm-up included: at most, or about, where trajectories are as long as warm-up finds, or networks
        are trained until they are no longer better.
    at_most : bool
        Which of the two.
    seconds_a_gradient : float or None
        Measured here, one chain alone, where that was asked for.
    """

    parameters: int
    rows: int
    rows_a_gradient: int
    chains: int
    draws: int
    draw_bytes: int
    on_disk: bool
    work_bytes: int
    available_bytes: int | None
    gradients: int
    at_most: bool
    seconds_a_gradient: float | None = None

    @property
    def memory_bytes(self) -> int:
        """Memory that it will take."""
        return self.work_bytes + (0 if self.on_disk else self.draw_bytes)

    @property
    def fits(self) -> bool:
        """Whether that is at most 80 % of the memory that is free."""
        return self.available_bytes is None or self.memory_bytes <= SHARE * self.available_bytes

    def __repr__(self) -> str:
        where = "in a file" if self.on_disk else "in memory"
        free = "" if self.available_bytes is None else f" ({amount(self.available_bytes)} free)"
        fits = "" if self.fits else ": too much"
        cost = f"{'at most' if self.at_most else 'about'} {self.gradients:,}, of {self.rows_a_gradient:,} rows each"
        if self.seconds_a_gradient is not None:
            seconds = self.seconds_a_gradient * self.gradients
            cost += f", {1e6 * self.seconds_a_gradient:.3g} µs alone: {duration(seconds)} on one core"
        return (
            f"Estimate: {self.parameters:,} parameters, {self.rows:,} rows\n"
            f"  draws      {self.chains} × {self.draws:,}, {amount(self.draw_bytes)} {where}\n"
            f"  memory     {amount(self.memory_bytes)}{free}{fits}\n"
            f"  gradients  {cost}"
        )

    def _repr_html_(self) -> str:
        return f"<pre>{escape(repr(self))}</pre>"


def estimate(
    model: Any,
    method: Any,
    data: Any = None,
    *,
    standardize: bool | None = None,
    precision: str | None = None,
    keep: Any = "weights",
    at: Any = None,
    seconds: bool = False,
) -> Estimate:
    """Tell what `bnn_zoo.fit` would take with these arguments, without running it.

    Parameters
    ----------
    model, method, data, standardize, precision, keep, at
        As in `bnn_zoo.fit`.
    seconds : bool
        Compile one gradient, and time it.

    Returns
    -------
    Estimate
        Readable as it is. ``fit`` itself looks at the same numbers: it thins chains that would not fit, and says so,
        or refuses.

    Raises
    ------
    ZooTypeError, ZooValueError
        As `bnn_zoo.fit`.
    """
    from bnn_zoo.fitting import prepared

    ready = prepared(model, method, data, standardize, precision, keep, at)
    with jax.enable_x64(ready.x64):
        problem = ready.problem()
        found = of(ready.method, problem, ready.kept.keep)
        return replace(found, seconds_a_gradient=_timed(ready.method, problem)) if seconds else found


def of(method: Any, problem: Problem, keep: Keep) -> Estimate:
    """The estimate for a problem, by the settings of the method, whose names mean the same in all of them."""
    chains = _setting(method, "num_chains", "num_modes")
    members = _setting(method, "num_members", "num_restarts")
    draws = getattr(method, "num_samples", members)
    warmup, thinning = getattr(method, "num_warmup", None), getattr(method, "thinning", 1)
    each = problem.x.dtype.itemsize
    particles = getattr(method, "num_particles", 1)
    steps = sum(getattr(method, name, 0) for name in ("num_steps", "warm_steps", "polish_steps"))
    gradients, vectors = members * chains * particles * steps, members * chains * TRAINED
    if warmup is not None:  # a chain
        gradients = chains * method.gradients_an_iteration * (warmup + draws * thinning)
        if method.start != "prior":
            gradients += chains * (starts.WARM_START.num_steps + starts.WARM_START.polish_steps)
        vectors = chains * (CHAIN + (problem.size if getattr(method, "dense_mass", False) else 0))
    batch = getattr(method, "batch_size", None)
    return Estimate(
        parameters=problem.size,
        rows=int(problem.total_rows),
        rows_a_gradient=int(problem.total_rows) if batch is None else batch,
        chains=chains,
        draws=draws,
        draw_bytes=chains * draws * keep.width(problem) * each,
        on_disk=keep.folder is not None,
        work_bytes=each * vectors * problem.size,
        available_bytes=available(),
        gradients=gradients,
        at_most=not getattr(method, "finds_length", warmup is None),
    )


def within_memory(method: Any, method_name: str, problem: Problem, keep: Keep) -> Any:
    """Return ``method``, its chains thinned, with a warning, where their draws would not fit.

    Raises
    ------
    ZooValueError
        If it would not fit all the same.
    """
    found = of(method, problem, keep)
    if found.fits or found.available_bytes is None:
        return method
    free = f"{amount(found.available_bytes)} of memory are free"
    got = f"{found.chains} × {found.draws:,} draws of {found.parameters:,} parameters, {amount(found.memory_bytes)}"
    room = SHARE * found.available_bytes - found.work_bytes
    every = int(np.ceil(found.draw_bytes / room)) if room > 0 else 0
    can_thin = getattr(method, "keeps", False) and not hasattr(method, "samples_per_cycle")
    if can_thin and every and found.draws // every >= FEWEST:
        thinned = replace(method, num_samples=found.draws // every, thinning=method.thinning * every)
        said = f"thinning={thinned.thinning} and num_samples={thinned.num_samples} take their place"
        log.warning("%s would not fit, as %s: %s, for as many steps.", got, free, said)
        return thinned
    mend = "Ask for fewer draws or members, or a smaller model."
    fewer = int(room // (found.draw_bytes / found.draws))
    if hasattr(method, "num_samples") and fewer > 0:
        mend = f"Ask for num_samples={fewer} or fewer."
    if getattr(method, "keeps", False):
        mend = f"Keep them in a file, keep=pathlib.Path('folder'), or keep='functions'. {mend}"
    raise bad_value(f"the draws of method {method_name}", f"such as fit where {free}", got, mend)


def _setting(method: Any, *names: str) -> int:
    return next((getattr(method, name) for name in names if hasattr(method, name)), 1)


def _timed(method: Any, problem: Problem) -> float:
    """Seconds of a gradient of all rows, or of a batch, at a prior draw; the least of a few."""
    size = getattr(method, "batch_size", None)
    rows = problem.x, problem.y
    batch = None if size is None else tuple(a[:size] for a in rows)
    key = jax.random.PRNGKey(0)
    begin = compiled(_start, (), problem, key)
    z = begin(problem, key)
    program = compiled(_gradient, (), problem, z, batch)
    spent = []
    for _ in range(TIMED):
        clock = time.perf_counter()
        jax.block_until_ready(program(problem, z, batch))
        spent.append(time.perf_counter() - clock)
    return min(spent)


def _start(problem: Problem, key: jax.Array) -> jax.Array:
    return problem.prior_draw(key)


def _gradient(problem: Problem, z: jax.Array, batch: Any) -> jax.Array:
    return problem.grad_log_posterior(z, batch)
