"""Draws × inputs → what the model says of an observation, in blocks of rows, in bounded memory.

Whatever the number of rows and draws, no more than a block of rows times all draws is held at once (2²² numbers), and
moments come from one compiled loop over the blocks. Of draws that are many or wide, and may lie in a file, a piece of
2²⁶ numbers is taken at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from bnn_zoo.engine.compiled import Stopwatch, call
from bnn_zoo.engine.density import Problem
from bnn_zoo.engine.likelihood import Likelihood

MOST_NUMBERS = 2**22
MOST_WEIGHTS = 2**26  # of draws that a program is handed at a time
MOST_ROWS = 1024
AT_ONCE = 2**14


def block_rows(num_draws: int, num_rows: int) -> int:
    """Rows a block: a power of two, so that inputs of many lengths share a few compiled programs."""
    most = max(16, min(MOST_ROWS, _power_below(MOST_NUMBERS // num_draws)))
    return min(most, max(16, 1 << (num_rows - 1).bit_length()))


def moments(
    problem: Problem, positions: np.ndarray, x: np.ndarray, watch: Stopwatch | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean, variance between draws and mean variance within them, ``(m,)`` each, at the rows of ``x``.

    The variance between draws is the population's: together the two are the variance of the mixture.
    """
    padded, blocks = _blocks(problem, x, block_rows(len(positions), len(x)))
    whole: tuple = ()
    for piece in pieces(positions):
        out = call(_moments, (), problem, positions[piece], padded, blocks, watch=watch)
        mean, between, within = (np.asarray(a).reshape(-1)[: len(x)] for a in out)
        if whole:
            share = (piece.stop - piece.start) / piece.stop
            mean, between = _merged(whole[:2], (mean, between), share)
            within = whole[2] + share * (within - whole[2])
        whole = mean, between, within
    return whole


def pieces(positions: np.ndarray) -> list[slice]:
    """Slices of draws ``(T, p)``, of about equal length, that are taken at a time; one, as a rule."""
    count = max(1, -(-positions.size // MOST_WEIGHTS))
    ends = np.linspace(0, len(positions), min(count, len(positions)) + 1).round().astype(int)
    return [slice(int(a), int(b)) for a, b in pairwise(ends)]


def _joined(positions: np.ndarray, run: Callable) -> Any:
    """What ``run`` makes of draws, a piece at a time, as arrays whose first axis is that of draws."""
    found = [jax.tree.map(np.asarray, run(positions[piece])) for piece in pieces(positions)]
    return found[0] if len(found) == 1 else jax.tree.map(lambda *each: np.concatenate(each), *found)


def outputs(problem: Problem, z: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the outputs ``(k, m)`` of the one network at ``z (p,)``, of a model that names them."""
    padded, blocks = _blocks(problem, x, block_rows(1, len(x)))
    out = np.asarray(call(_outputs, (), problem, z, padded, blocks))
    return out.reshape(len(out), -1)[:, : len(x)]


def components(problem: Problem, positions: np.ndarray, x: np.ndarray) -> Iterator[tuple[slice, Likelihood]]:
    """Yield, a block of rows at a time, its slice and the likelihood's parameters ``(T, rows)`` as NumPy arrays."""
    for where, block in _row_blocks(problem, x, block_rows(len(positions), len(x))):
        made = _joined(positions, lambda some, block=block: call(_components, (), problem, some, block))
        count = where.stop - where.start
        yield where, jax.tree.map(lambda a, count=count: np.asarray(a)[:, :count], made)


def padded_components(
    problem: Problem, positions: np.ndarray, x: np.ndarray, rows: int | None = None
) -> Iterator[tuple[slice, Likelihood]]:
    """As `components`, with the last block left at full length, so that what follows compiles for one shape."""
    for where, block in _row_blocks(problem, x, rows or block_rows(len(positions), len(x))):
        if positions.size <= MOST_WEIGHTS:
            yield where, call(_components, (), problem, positions, block)
        else:
            yield where, _joined(positions, lambda some, block=block: call(_components, (), problem, some, block))


def locations(problem: Problem, positions: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return f(x) of each draw, ``(T, m)``, on the model's scale."""
    out = np.empty((len(positions), len(x)), problem.x.dtype)
    rows = block_rows(len(positions), len(x))
    for piece in pieces(positions):  # outside: a piece is read once
        for where, block in _row_blocks(problem, x, rows):
            made = np.asarray(call(_locations, (), problem, positions[piece], block))
            out[piece, where] = made[:, : where.stop - where.start]
    return out


def pointwise(problem: Problem, positions: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the log likelihood of each row under each draw, ``(T, m)``, on the model's scale."""
    out = np.empty((len(positions), len(x)), np.float64)
    rows = block_rows(len(positions), len(x))
    for piece in pieces(positions):
        for where, block in _row_blocks(problem, x, rows):
            target = np.zeros(rows, problem.y.dtype)
            target[: where.stop - where.start] = y[where]
            made = np.asarray(call(_pointwise, (), problem, positions[piece], block, target))
            out[piece, where] = made[:, : where.stop - where.start]
    return out


def sites(problem: Problem, positions: np.ndarray, watch: Stopwatch | None = None) -> dict[str, np.ndarray]:
    """Return the sites that a user reads, ``(T, *site)`` each."""
    return _joined(positions, lambda some: call(_sites, (), problem, some, watch=watch))


def scalar_names(problem: Problem) -> tuple[str, ...]:
    """Name the sites of one number a draw, of those that a user reads."""
    shapes = jax.eval_shape(problem.constrain, jax.ShapeDtypeStruct((problem.size,), problem.x.dtype))
    return tuple(name for name, site in shapes.items() if site.shape == ())


def scalars(problem: Problem, positions: np.ndarray) -> dict[str, np.ndarray]:
    """Return these alone, ``(T,)`` each: weights of all draws, of which there may be many, are not made."""
    names = scalar_names(problem)
    found = _joined(positions, lambda some: call(_scalars, (names,), problem, some)) if names else ()
    return dict(zip(names, found, strict=True))


def site_sizes(problem: Problem, positions: np.ndarray) -> dict[str, np.ndarray]:
    """Return the root mean square of all entries of each site, ``(T,)``, without the sites of all draws at once."""
    return _joined(positions, lambda some: call(_site_sizes, (), problem, some))


def site_moments(problem: Problem, positions: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return mean and sd of each site over the draws of each chain of ``positions (C, S, p)``: ``(C, *site)`` both."""
    found: dict[str, tuple[list, list]] = {}
    for chain in positions:
        whole: dict[str, tuple] = {}
        for piece in pieces(chain):
            new, count = call(_site_moments, (), problem, chain[piece]), piece.stop - piece.start
            whole = new if not piece.start else {n: _merged(whole[n], new[n], count / piece.stop) for n in new}
        for name, (mean, variance) in whole.items():
            means, sds = found.setdefault(name, ([], []))
            means.append(np.asarray(mean))
            sds.append(np.sqrt(np.asarray(variance)))
    return {name: (np.stack(means), np.stack(sds)) for name, (means, sds) in found.items()}


def _merged(old: tuple, new: tuple, share: float) -> tuple:
    """Mean and variance of two parts, ``share`` of which is the new one (Chan et al. 1983)."""
    off = new[0] - old[0]
    mean = old[0] + share * off
    return mean, old[1] + share * (new[1] - old[1]) + share * (1 - share) * off**2


def _blocks(problem: Problem, x: np.ndarray, rows: int) -> tuple[np.ndarray, np.int32]:
    """``x`` in blocks ``(room, rows, d)``, room for a power of two of them, and how many of these are used."""
    blocks = -(-len(x) // rows)
    room = 1 << (blocks - 1).bit_length()
    padded = np.zeros((room * rows, x.shape[1]), problem.x.dtype)
    padded[: len(x)] = x
    return padded.reshape(room, rows, -1), np.int32(blocks)


def _row_blocks(problem: Problem, x: np.ndarray, rows: int) -> Iterator[tuple[slice, np.ndarray]]:
    for begin in range(0, len(x), rows):
        where = slice(begin, min(begin + rows, len(x)))
        block = np.zeros((rows, x.shape[1]), problem.x.dtype)
        block[: where.stop - begin] = x[where]
        yield where, block


def _power_below(number: int) -> int:
    return 1 << max(0, number.bit_length() - 1)


# --- compiled programs ----------------------------------------------------------------------------------------------


def _at_once(x: jax.Array) -> int:
    """Draws evaluated side by side: as many as keep the hidden activations of a block small."""
    return max(1, AT_ONCE // x.shape[0])


def _components(problem: Problem, positions: jax.Array, x: jax.Array) -> Likelihood:
    return lax.map(lambda z: problem.likelihood(z, x), positions, batch_size=_at_once(x))


def _locations(problem: Problem, positions: jax.Array, x: jax.Array) -> jax.Array:
    return lax.map(lambda z: problem.likelihood(z, x).location, positions, batch_size=_at_once(x))


def _pointwise(problem: Problem, positions: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    each = partial(problem.pointwise_log_likelihood, x=x, y=y)
    return lax.map(each, positions, batch_size=_at_once(x))


def _sites(problem: Problem, positions: jax.Array) -> dict[str, jax.Array]:
    return lax.map(problem.constrain, positions, batch_size=64)


def _scalars(names: tuple[str, ...], problem: Problem, positions: jax.Array) -> tuple[jax.Array, ...]:
    def one(z: jax.Array) -> tuple[jax.Array, ...]:
        made = problem.constrain(z)
        return tuple(made[name] for name in names)

    return lax.map(one, positions, batch_size=64)


def _site_sizes(problem: Problem, positions: jax.Array) -> dict[str, jax.Array]:
    def one(z: jax.Array) -> dict[str, jax.Array]:
        return {name: jnp.sqrt(jnp.mean(jnp.square(site))) for name, site in problem.constrain(z).items()}

    return lax.map(one, positions, batch_size=64)


def _site_moments(problem: Problem, positions: jax.Array) -> dict[str, tuple[jax.Array, jax.Array]]:
    sites = jax.eval_shape(problem.constrain, positions[0])
    none = {name: (jnp.zeros(site.shape, site.dtype),) * 2 for name, site in sites.items()}

    def add(i: jax.Array, seen: dict) -> dict:
        value = problem.constrain(positions[i])
        off = {name: value[name] - seen[name][0] for name in seen}
        mean = {name: seen[name][0] + off[name] / (i + 1) for name in seen}
        return {name: (mean[name], seen[name][1] + off[name] * (value[name] - mean[name])) for name in seen}

    seen = lax.fori_loop(0, len(positions), add, none)
    return {name: (mean, squares / len(positions)) for name, (mean, squares) in seen.items()}


def _moments(
    problem: Problem, positions: jax.Array, x: jax.Array, num_blocks: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    def one(z: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        likelihood = problem.likelihood(z, x)
        return likelihood.location if likelihood.is_normal else likelihood.whole.mean, likelihood.variance

    def block(i: jax.Array, out: tuple) -> tuple:
        mean, within = lax.map(lambda z: one(z, x[i]), positions, batch_size=_at_once(x[0]))
        values = jnp.mean(mean, axis=0), jnp.var(mean, axis=0), jnp.mean(within, axis=0)
        return tuple(array.at[i].set(value) for array, value in zip(out, values, strict=True))

    blank = jnp.zeros(x.shape[:2], x.dtype)
    return lax.fori_loop(0, num_blocks, block, (blank, blank, blank))


def _outputs(problem: Problem, z: jax.Array, x: jax.Array, num_blocks: jax.Array) -> jax.Array:
    width = jax.eval_shape(problem.outputs, z, x[0]).shape[1]

    def block(i: jax.Array, out: jax.Array) -> jax.Array:
        return out.at[:, i].set(problem.outputs(z, x[i]).T)

    return lax.fori_loop(0, num_blocks, block, jnp.zeros((width, *x.shape[:2]), x.dtype))
