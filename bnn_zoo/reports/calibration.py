"""Simulation-based calibration: is a method right on average over data sets that the model itself made?

Parameters are drawn from the prior and data from the parameters; the method is run on the data; where do the
parameters that made the data rank among its draws? If the method is exact the ranks are uniform (Talts 2018). Ranked
are f(x*), which is identified where weights are not, scalar sites such as the noise, and the log likelihood of the
data, which catches a posterior that forgets the data (Modrák 2023).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from scipy import stats

from bnn_zoo import methods, models
from bnn_zoo.engine import chains
from bnn_zoo.engine.checks import join
from bnn_zoo.engine.compiled import call, compiled
from bnn_zoo.engine.context import Context, Progress, available_cores
from bnn_zoo.engine.density import Problem
from bnn_zoo.engine.keys import seed_key
from bnn_zoo.errors import bad_value, check_count
from bnn_zoo.inputs import as_matrix

NUM_RANKS = 64
NUM_BINS = 16
PER_BATCH = 64
MOST_POINTS = 5


@dataclass(frozen=True, eq=False, repr=False)
class Calibration:
    """Ranks of the true values among thinned draws, and whether they are uniform.

    Attributes
    ----------
    ranks : pandas.DataFrame
        One row a simulated data set, one column a quantity; whole numbers from 0 to 63.
    """

    ranks: pd.DataFrame

    @property
    def table(self) -> pd.DataFrame:
        """One row a quantity: χ² statistic of 16 equal bins, its p-value, mean rank / 63 (1/2 is right), and a word.

        A mean rank away from 1/2 is a bias; ``"too narrow"`` and ``"too wide"`` say that true values fall outside, or
        inside, the middle of the draws too often.
        """
        rows = []
        for name in self.ranks.columns:
            ranks = self.ranks[name].to_numpy()
            counts = np.bincount(ranks * NUM_BINS // NUM_RANKS, minlength=NUM_BINS)
            chi2, p = stats.chisquare(counts)
            unit = (ranks + 0.5) / NUM_RANKS
            spread = float(np.mean(np.abs(unit - 0.5)))
            word = "uniform" if p > 0.01 else "too narrow" if spread > 0.25 else "too wide or biased"
            rows.append((name, chi2, p, unit.mean(), word))
        return pd.DataFrame(rows, columns=["quantity", "chi2", "p_value", "mean_rank", "ranks"]).set_index("quantity")

    @property
    def ok(self) -> bool:
        """Whether every quantity's p-value is above 0.01 divided by the number of quantities (Bonferroni)."""
        return bool((self.table["p_value"] > 0.01 / len(self.ranks.columns)).all())

    def __repr__(self) -> str:
        word = "calibrated" if self.ok else "NOT CALIBRATED"
        return f"Calibration over {len(self.ranks)} simulated data sets: {word}\n{self.table.round(4).to_string()}"


def sbc(
    model: Any,
    method: Any,
    x: Any,
    *,
    num_simulations: int = 320,
    seed: int = 0,
    at: Any = None,
    truth: Any = None,
    progress: bool = True,
) -> Calibration:
    """Check that ``method`` is calibrated on ``model`` at inputs like ``x``.

    A sampler whose ``start`` is ``"prior"`` runs on many simulated data sets at once, under vmap; any other method
    runs on one after the other, without compiling again.

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

    Returns
    -------
    Calibration
        Ranks, p-values and a verdict.

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
    if hasattr(method, "kernel") and method.start == "prior":
        names, ranks = _side_by_side(method, fitted, source, points, keys, progress)
    else:
        names, ranks = _one_by_one(method, fitted, source, points, keys, progress)
    return Calibration(pd.DataFrame(ranks, columns=names))


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


def _rank(true: jax.Array, draws: jax.Array) -> jax.Array:
    """Rank, 0 to 63, of each true value among 63 draws spread evenly over all of ``draws (chains × S, q)``."""
    spread = jnp.linspace(0, draws.shape[0] - 1, NUM_RANKS - 1).astype(int)
    return jnp.sum(draws[spread] < true[None, :], axis=0)


# --- many at once ---------------------------------------------------------------------------------------------------


def _side_by_side(
    method: Any, fitted: Problem, source: Problem, points: jax.Array, keys: np.ndarray, progress: bool
) -> tuple[list[str], np.ndarray]:
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
    return _names(points, shared), ranks[: len(keys)]


def _simulate_batch(
    method: Any, shared: tuple[str, ...], fitted: Problem, source: Problem, points: jax.Array, keys: jax.Array
) -> jax.Array:
    warmup = -(-method.num_warmup // method.thinning)
    total = warmup + method.num_samples

    def chain(problem: Problem, key: jax.Array) -> jax.Array:
        key_start, key_chain = jax.random.split(key)
        state = chains.begin(method, problem, problem.start(key_start)[0], key_chain)
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
    method: Any, fitted: Problem, source: Problem, points: jax.Array, keys: np.ndarray, progress: bool
) -> tuple[list[str], np.ndarray]:
    shared, ranks = _shared_scalars(fitted, source), []
    with Progress("calibration", len(keys), progress) as bar:
        for key in keys:
            truth, y, key_run = call(_simulate, (shared,), source, points, key)
            problem = replace(fitted, y=jnp.asarray(y))
            positions = method.run(problem, np.asarray(key_run), Context()).positions.reshape(-1, fitted.size)
            if len(positions) < NUM_RANKS - 1:
                raise bad_value(
                    "method", f"one that gives {NUM_RANKS - 1} draws or more", f"{len(positions)}", "Draw more."
                )
            ranks.append(np.asarray(call(_ranks_of, (shared,), problem, points, truth, positions)))
            bar.advance(1)
    return _names(points, shared), np.stack(ranks)


def _simulate(
    shared: tuple[str, ...], source: Problem, points: jax.Array, key: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    key_data, key_run = jax.random.split(key)
    z, y = source.simulate(key_data)
    return _quantities(replace(source, y=y), z, points, shared), y, key_run


def _ranks_of(
    shared: tuple[str, ...], problem: Problem, points: jax.Array, truth: jax.Array, positions: jax.Array
) -> jax.Array:
    return _rank(truth, jax.vmap(lambda z: _quantities(problem, z, points, shared))(positions))
