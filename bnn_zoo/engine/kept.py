"""What is kept of the draws of chains: weights in memory, weights in a file, or functions in place of weights.

A run has one array for all of its draws, ``(C, S, q)``, which chains fill as they go: in memory, or mapped from a file
of NumPy's, of which the system holds in memory what it has room for. With functions in place of weights q is not the
number p of weights, but that of what the model says of an observation at chosen inputs, and of scalar sites; of the
weights the moments are kept, as sums that run along (Welford 1962).

Functions that were kept are read like any posterior: `FunctionTable` is a NumPyro program whose latent sites they are.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax import lax
from numpyro import distributions
from numpyro.distributions import constraints

from bnn_zoo.engine.checks import join
from bnn_zoo.engine.compiled import call
from bnn_zoo.engine.density import Problem
from bnn_zoo.engine.hosts import Hosts
from bnn_zoo.engine.identity import settings
from bnn_zoo.errors import bad_value

MEND = "Fit with keep='weights', or with keep=pathlib.Path('folder') where they are too many for memory."
AT_ONCE = 2**14  # inputs times draws
MOMENTS = ("moments_taken", "moments_mean", "moments_squares")  # of the weights of each chain, in ``Draws.info``


class Moments(NamedTuple):
    """Running moments of one chain's sites, laid end to end."""

    taken: Any
    mean: Any  # (P,)
    squares: Any  # (P,), about the mean


@dataclass(frozen=True, eq=False)
class Keep:
    """What to keep, and where.

    Attributes
    ----------
    folder : Path, optional
        Where the draws go to a file; to memory where there is none.
    at : ndarray, optional
        Inputs ``(K, d)`` on the model's scale whose functions are kept in place of weights.
    """

    folder: Path | None = None
    at: np.ndarray | None = None

    def width(self, problem: Problem) -> int:
        """Numbers q a draw."""
        if self.at is None:
            return problem.size
        scalars, parameters, _ = contents(problem)
        return len(scalars) + len(parameters) * len(self.at)

    def room(
        self, shape: tuple[int, int, int], dtype: Any, before: np.ndarray | None = None, hosts: Hosts | None = None
    ) -> np.ndarray:
        """Return an array for draws ``(C, S, q)``, which begins with those of ``before``.

        Of several processes the first makes the file, and all of them write their chains into it.
        """
        if self.folder is None:
            room = np.empty(shape, dtype)
        elif hosts is None:
            room = _mapped(_free_name(self.folder), shape, dtype)
        else:
            room = _mapped_together(self.folder, shape, dtype, hosts)
        if before is not None and (hosts is None or hosts.rank == 0 or self.folder is None):
            for chain in range(shape[0]):  # rather than all of a file at once
                room[chain, : before.shape[1]] = before[chain]
        return room

    def fresh(self, problem: Problem, like: Any) -> Moments | None:
        """Moments of nothing, for a chain with numbers of the type of ``like``."""
        if self.at is None:
            return None
        size = sum(int(np.prod(shape)) for shape in site_shapes(problem).values())
        return Moments(np.zeros((), like.dtype), np.zeros(size, like.dtype), np.zeros(size, like.dtype))

    def digest(
        self, problem: Problem, positions: jax.Array, count: int, seen: Moments | None
    ) -> tuple[np.ndarray, Moments | None]:
        """Return what is kept, ``(count, q)``, of one chain's ``positions``, of which ``count`` are draws."""
        if self.at is None:
            return np.asarray(positions)[:count], None
        values, seen = call(_digest, (), problem, self.at, positions, np.int32(count), seen)
        return np.asarray(values)[:count], jax.tree.map(np.asarray, seen)


IN_MEMORY = Keep()


def _digest(
    problem: Problem, at: jax.Array, positions: jax.Array, count: jax.Array, seen: Moments
) -> tuple[jax.Array, Moments]:
    scalars, parameters, _ = contents(problem)

    def one(z: jax.Array) -> jax.Array:
        sites, said = problem.constrain(z), problem.likelihood(z, at).parameters
        found = [jnp.reshape(sites[name], (1,)) for name in scalars] + [said[name] for name in parameters]
        return jnp.concatenate([value.astype(z.dtype) for value in found])

    def add(i: jax.Array, seen: Moments) -> Moments:
        sites = problem.constrain(positions[i])
        value = jnp.concatenate([jnp.ravel(sites[name]).astype(positions.dtype) for name in sorted(sites)])
        off = value - seen.mean
        mean = seen.mean + off / (seen.taken + 1)
        return Moments(seen.taken + 1, mean, seen.squares + off * (value - mean))

    values = lax.map(one, positions, batch_size=max(1, AT_ONCE // len(at)))
    return values, lax.fori_loop(0, count, add, seen)


# --- functions that were kept, as a model -----------------------------------------------------------------------------


def contents(problem: Problem) -> tuple[tuple[str, ...], tuple[str, ...], str]:
    """Name the scalar sites of a model, the parameters of what it observes, and their family."""
    z = jax.ShapeDtypeStruct((problem.size,), problem.x.dtype)
    said = jax.eval_shape(problem.likelihood, z, problem.x)
    scalars = tuple(name for name, shape in site_shapes(problem).items() if shape == ())
    return scalars, tuple(sorted(said.parameters)), said.family.__name__


def site_shapes(problem: Problem) -> dict[str, tuple[int, ...]]:
    """Shapes of the sites that a user reads, in the order in which moments have them, which is that of their names."""
    z = jax.ShapeDtypeStruct((problem.size,), problem.x.dtype)
    sites = jax.eval_shape(problem.constrain, z)
    return {name: tuple(sites[name].shape) for name in sorted(sites)}


def site_moments(problem: Problem, info: dict[str, Any]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return mean and sd of each site of each chain, ``(C, *site)`` both, of the moments that a run kept."""
    taken, mean, squares = (np.asarray(info[name], np.float64) for name in MOMENTS)
    both = mean, np.sqrt(squares / np.maximum(taken, 1)[:, None])
    found, begin = {}, 0
    for name, shape in site_shapes(problem).items():
        here = slice(begin, begin := begin + int(np.prod(shape)))
        first, second = (a[:, here].reshape(-1, *shape) for a in both)
        found[name] = first, second
    return found


class Known(distributions.Distribution):
    """What is read from a table: it has values, and neither a density nor anything to draw."""

    support = constraints.real

    def sample(self, key: jax.Array, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        """Return the shape; nobody asks for the values."""
        return jnp.zeros(sample_shape + self.batch_shape)

    def log_prob(self, value: jax.Array) -> jax.Array:
        """Refuse."""
        raise bad_value(
            "the log posterior",
            "asked of draws of the weights",
            "functions that were kept in place of them",
            MEND,
        )


@settings
class FunctionTable:
    """What a model said at ``count`` inputs, as a model: its own inputs ``(n, 1)`` are places among these."""

    count: int
    scalars: tuple[str, ...]
    parameters: tuple[str, ...]
    family: str
    observed: str

    def __call__(self, x: jax.Array, y: jax.Array | None = None) -> None:
        """Read what was said at the places ``x``."""
        for name in self.scalars:
            numpyro.sample(name, Known())
        where = x[:, 0].astype(jnp.int32)
        said = {name: numpyro.sample(f"{name}_at", Known((self.count,)))[where] for name in self.parameters}
        numpyro.sample(self.observed, getattr(distributions, self.family)(**said), obs=y)


def table(problem: Problem, count: int, places: np.ndarray, y: np.ndarray) -> Problem:
    """Return the problem of functions kept at ``count`` inputs, with the targets ``y`` at some ``places`` of these.

    Raises
    ------
    ZooValueError
        If the model observes a family that has no name in NumPyro.
    """
    scalars, parameters, family = contents(problem)
    if not hasattr(distributions, family):
        mend = "Fit with keep='weights'."
        raise bad_value(
            "keep", "'weights' for a family of distributions of one's own", f"'functions' of {family}", mend
        )
    model = FunctionTable(count=count, scalars=scalars, parameters=parameters, family=family, observed=problem.observed)
    joined = join(model, np.asarray(places, float)[:, None], y, problem.x.dtype)
    return replace(joined, reported=scalars)


# --- files ------------------------------------------------------------------------------------------------------------


def _free_name(folder: Path) -> Path:
    """A file in ``folder`` that is not there yet: draws of an earlier fit are never written over."""
    folder.mkdir(parents=True, exist_ok=True)
    number = 0
    while True:
        path = folder / f"draws-{number:03d}.npy"
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            return path
        except FileExistsError:
            number += 1


def _mapped(path: Path, shape: tuple[int, ...], dtype: Any, mode: Any = "w+") -> np.ndarray:
    made = np.lib.format.open_memmap(path, mode, None if mode == "r+" else dtype, None if mode == "r+" else shape)
    return np.asarray(made)  # a plain array, whose base is the map


def _mapped_together(folder: Path, shape: tuple[int, ...], dtype: Any, hosts: Hosts) -> np.ndarray:
    name = ""
    if hosts.rank == 0:
        path = _free_name(folder)
        room, name = _mapped(path, shape, dtype), path.name
    told = hosts.exchange("file of draws", {"name": np.frombuffer(name.encode(), np.uint8)})[0]["name"]
    if hosts.rank == 0:
        return room
    path = folder / told.tobytes().decode()
    try:
        return _mapped(path, shape, dtype, "r+")
    except OSError as error:
        mend = "Give a folder of a file system that all processes share."
        raise bad_value("keep", "a folder that all processes see", f"{str(folder)!r} ({error})", mend) from error


def flush(positions: np.ndarray) -> None:
    """See to it that draws in a file are there, for other processes to read."""
    base: Any = positions
    while base is not None and not isinstance(base, np.memmap):
        base = getattr(base, "base", None)
    if base is not None:
        base.flush()
