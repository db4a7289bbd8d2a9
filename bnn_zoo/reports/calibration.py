"""Simulation-based calibration: is a method right on average over data sets that the model itself made?

Parameters are drawn from the prior and data from the parameters; the method is run on the data; where do the
parameters that made the data rank among its draws? If the method is exact the ranks are uniform (Talts 2018). Ranked
are f(x*), which is identified where weights are not, scalar sites such as the noise, and the log likelihood of the
data, which catches a posterior that forgets the data (Modrák 2023).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from scipy.special import ndtr

from bnn_zoo import methods, models
from bnn_zoo.datasets import Dataset
from bnn_zoo.engine import chains
from bnn_zoo.engine.checks import join
from bnn_zoo.engine.compiled import call, compiled
from bnn_zoo.engine.context import Context, Progress
from bnn_zoo.engine.density import Problem
from bnn_zoo.engine.draws import Draws
from bnn_zoo.engine.keys import seed_key
from bnn_zoo.engine.resources import available_cores
from bnn_zoo.engine.scaling import Scaling
from bnn_zoo.errors import bad_value, check_count
from bnn_zoo.inputs import as_matrix
from bnn_zoo.posterior import Posterior, Timing
from bnn_zoo.reports.uniformity import NUM_BINS, NUM_RANKS, Calibration, ranks_among

__all__ = ["Calibration", "sbc"]

PER_BATCH = 64
MOST_POINTS = 5
FEWEST = 3  # draws: with fewer there is next to nothing to rank among


def sbc(
    model: Any,
    method: Any,
    x: Any,
    *,
    num_simulations: int = 320,
    seed: int = 0,
    at: Any = None,
    truth: Any = None,
    kind: str | None = None,
    progress: bool = True,
) -> Calibration:
    """Check that ``method`` is calibrated on ``model`` at inputs like ``x``.

    A sampler whose ``start`` is ``"prior"`` (``mh``, ``hmc``, ``nuts`` and those of stochastic gradients) runs on many
    simulated data sets at once, under vmap, on all cores. Any other method runs on one after the other, as in
    `bnn_zoo.fit`, without compiling again; its cost is that of so many fits. Not in threads: methods trace the model
    as they run, and NumPyro's stack of effect handlers is one for all threads.

    Among what f(x*) is ranked is what the method itself predicts with: draws of the weights, as a rule; for ``laplace``
    the network made linear about the mode, and for ``dvi`` moments sent through the layers, both Normals, in which the
    rank is that of the true value's probability integral transform. To rank among the draws of such a method's weights,
    which is another approximation and mostly a worse one, ask for ``kind="monte_carlo"``.

    Parameters
    ----------
    model, method
        As for `bnn_zoo.fit`. Data are not standardised: the prior must mean what it says.
    x : array-like
        Inputs ``(n, d)`` of every simulated data set.
    num_simulations : int
        Data sets; 80 or more, for 5 in each bin.
    seed : int
        Repeats it.
    at : array-like or None
        Inputs ``(k, d)`` at which f is ranked; five rows of ``x`` by default.
    truth : str, Callable or None
        Model that makes the data, ``model`` itself by default. Another one shows what the check can see.
    kind : str or None
        Kind of prediction in which f(x*) is ranked, as in `bnn_zoo.Posterior.predict`; ``None``: the method's own best.

    Returns
    -------
    Calibration
        Ranks, p-values, coverage of central intervals, and a verdict. Scalar sites are ranked among draws, whatever the
        kind; the log likelihood is ranked for ``"monte_carlo"`` alone, as other kinds say nothing of it.

    Raises
    ------
    ZooTypeError, ZooValueError
        If there are too few data sets; of a method that gives one network (``map``, ``swa``), or two, in which nothing
        can be ranked; of chains and approximations with fewer than 63 draws. Members of an ensemble may be few: ranks
        are then as many as the members and one more.

    References
    ----------
    Talts et al. (2018), Validating Bayesian inference algorithms with simulation-based calibration; Modrák et al.
    (2023), for the log likelihood as a quantity.
    """
    check_count("num_simulations", num_simulations, 5 * NUM_BINS, "The test needs 5 data sets a bin, 80 in all.")
    inputs = as_matrix(x)
    points = (
        inputs[np.linspace(0, len(inputs) - 1, min(MOST_POINTS, len(inputs))).astype(int)]
        if at is None
        else as_matrix(at)
    )
    method = methods.registry.look_up(method)
    fitted = join(models.registry.look_up(model), inputs, np.zeros(len(inputs)))
    source = fitted if truth is None else join(models.registry.look_up(truth), inputs, np.zeros(len(inputs)))
    points = jnp.asarray(points, fitted.x.dtype)
    keys = np.asarray(jax.random.split(seed_key(seed), num_simulations))
    if _all_in_one_program(method, len(inputs)) and kind in (None, "monte_carlo"):
        return _side_by_side(method, fitted, source, points, keys, progress)
    return _one_by_one(method, fitted, source, points, keys, kind, progress)


# --- quantities -----------------------------------------------------------------------------------------------------


def _quantities(problem: Problem, z: jax.Array, points: jax.Array, shared: tuple[str, ...]) -> jax.Array:
    """Identified quantities of one draw: f at the points, shared scalar sites, log likelihood."""
    sites = problem.constrain(z)
    scalars = jnp.array([sites[name] for name in shared], z.dtype)
    return jnp.concatenate([problem.likelihood(z, points).location, scalars, problem.log_likelihood(z)[None]])


def _shared_scalars(fitted: Problem, source: Problem) -> tuple[str, ...]:
    shapes = [jax.eval_shape(p.constrain, jax.ShapeDtypeStruct((p.size,), p.x.dtype)) for p in (fitted, source)]
    return tuple(n for n in fitted.reported if all(n in s and s[n].shape == () for s in shapes))


def _names(points: jax.Array, shared: tuple[str, ...]) -> list[str]:
    return [f"f(x*[{i}])" for i in range(len(points))] + list(shared) + ["log likelihood"]


def _rank(true: jax.Array, draws: jax.Array, num_ranks: int = NUM_RANKS) -> jax.Array:
    """Rank, from 0, of each true value among ``num_ranks - 1`` draws spread evenly over all of ``draws (C × S, q)``."""
    spread = jnp.linspace(0, draws.shape[0] - 1, num_ranks - 1).astype(int)
    return jnp.sum(draws[spread] < true[None, :], axis=0)


# --- many at once ---------------------------------------------------------------------------------------------------


def _all_in_one_program(method: Any, num_rows: int) -> bool:
    """Whether a fit is nothing but chains from the prior; a batch of all rows or more is left to the method's ``run``.

    That refuses it where it cannot be.
    """
    batch = getattr(method, "batch_size", None)
    sampler = getattr(method, "start", None) == "prior" and callable(getattr(method, "kernel", None))
    return sampler and (batch is None or batch < num_rows)


def _side_by_side(
    method: Any, fitted: Problem, source: Problem, points: jax.Array, keys: np.ndarray, progress: bool
) -> Calibration:
    if method.num_chains * method.num_samples < NUM_RANKS - 1:
        raise bad_value("num_samples", f"at least {NUM_RANKS - 1} over all chains", method.num_samples, "Draw more.")
    shared = _shared_scalars(fitted, source)
    size = min(PER_BATCH, len(keys))
    short = -len(keys) % size
    batches = np.concatenate([keys, keys[:short]]).reshape(-1, size, 2)
    program = compiled(_simulate_batch, (method, shared), fitted, source, points, batches[0])
    x64 = jax.config.jax_enable_x64
    with Progress("calibration", len(keys), progress) as bar, ThreadPoolExecutor(available_cores()) as pool:

        def one(batch: np.ndarray) -> np.ndarray:
            with jax.enable_x64(x64):
                ranks = np.asarray(program(fitted, source, points, batch))
            bar.advance(size)
            return ranks

        ranks = np.concatenate(list(pool.map(one, batches)))
    return Calibration(pd.DataFrame(ranks[: len(keys)], columns=_names(points, shared)))


def _simulate_batch(
    method: Any, shared: tuple[str, ...], fitted: Problem, source: Problem, points: jax.Array, keys: jax.Array
) -> jax.Array:
    warmup = -(-method.num_warmup // method.thinning)
    total = warmup + method.num_samples

    def chain(problem: Problem, key: jax.Array) -> jax.Array:
        key_start, key_chain = jax.random.split(key)
        state = chains.begin(method, problem, problem.starts(key_start[None])[0][0], key_chain)
        _, positions, _ = chains.advance(method, total, problem, state, total, method.thinning)
        return positions[warmup:]

    def one(key: jax.Array) -> jax.Array:
        key_data, key_chains = jax.random.split(key)
        z, y = source.simulate(key_data)
        problem = replace(fitted, y=y)
        draws = jax.vmap(chain, in_axes=(None, 0))(problem, jax.random.split(key_chains, method.num_chains))
        values = jax.vmap(lambda z: _quantities(problem, z, points, shared))(draws.reshape(-1, problem.size))
        return _rank(_quantities(replace(source, y=y), z, points, shared), values)

    return jax.vmap(one)(keys)


# --- one after the other --------------------------------------------------------------------------------------------


def _one_by_one(
    method: Any,
    fitted: Problem,
    source: Problem,
    points: jax.Array,
    keys: np.ndarray,
    kind: str | None,
    progress: bool,
) -> Calibration:
    shared, ranks, found = _shared_scalars(fitted, source), [], "monte_carlo"
    num_ranks = NUM_RANKS
    with Progress("calibration", len(keys), progress) as bar:
        for key in keys:
            truth, y, key_run = call(_simulate, (shared,), source, points, key)
            problem = replace(fitted, y=jnp.asarray(y))
            result = method.run(problem, np.asarray(key_run), Context())
            positions = result.positions.reshape(-1, fitted.size)
            num_ranks = _check_draws(method, result)
            row = np.asarray(call(_ranks_of, (shared, num_ranks), problem, points, truth, positions))
            own, found = _own_ranks(method, problem, result, points, np.asarray(truth), kind, num_ranks)
            ranks.append(row if own is None else np.concatenate([own, row[len(points) : -1]]))
            bar.advance(1)
    names = _names(points, shared)
    return Calibration(pd.DataFrame(np.stack(ranks), columns=names[: len(ranks[0])]), num_ranks, found)


def _check_draws(method: Any, result: Draws) -> int:
    """How many ranks there are among the draws of one run; raises where they are too few."""
    count, name = result.positions.shape[0] * result.positions.shape[1], methods.registry.name_of(method)
    if count < FEWEST:
        got = f"{name!r}, which gives {count}"
        mend = "So few networks have no spread to rank in. Take 'laplace', 'ensemble' or 'nuts'."
        raise bad_value("method", f"one that gives {FEWEST} networks or more", got, mend)
    if result.kind != "members" and count < NUM_RANKS - 1:
        raise bad_value("method", f"one that gives {NUM_RANKS - 1} draws or more", f"{count}", "Draw more.")
    return ranks_among(count)


def _own_ranks(
    method: Any,
    problem: Problem,
    result: Draws,
    points: jax.Array,
    truth: np.ndarray,
    kind: str | None,
    num_ranks: int,
) -> tuple[np.ndarray | None, str]:
    """Ranks of f at the points in the Normals that the method predicts, or none if it predicts by its draws."""
    x, y = np.asarray(problem.x), np.asarray(problem.y)
    name = methods.registry.name_of(method)
    posterior = Posterior(
        model=problem.model,
        method=method,
        data=Dataset(x, y),
        seed=0,
        standardize=False,
        timing=Timing(0.0, 0.0, 0),
        problem=problem,
        result=result,
        scaling=Scaling.none(x.shape[1]),
        model_name="",
        method_name=name,
        x64=jax.config.jax_enable_x64,
    )
    kind = posterior._prediction_kind(kind)
    if kind == "monte_carlo":
        return None, kind
    prediction = posterior.predict(points, kind=kind)
    unit = ndtr((truth[: len(points)] - prediction.mean) / prediction.epistemic_std)
    return np.minimum((unit * num_ranks).astype(int), num_ranks - 1), kind


def _simulate(
    shared: tuple[str, ...], source: Problem, points: jax.Array, key: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    key_data, key_run = jax.random.split(key)
    z, y = source.simulate(key_data)
    return _quantities(replace(source, y=y), z, points, shared), y, key_run


def _ranks_of(
    shared: tuple[str, ...],
    num_ranks: int,
    problem: Problem,
    points: jax.Array,
    truth: jax.Array,
    positions: jax.Array,
) -> jax.Array:
    return _rank(truth, jax.vmap(lambda z: _quantities(problem, z, points, shared))(positions), num_ranks)
