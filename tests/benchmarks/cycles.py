"""Do cycles of long and short steps find modes that plain SGLD of the same number of gradients does not?

    python -m tests.benchmarks.cycles [--seeds 3] [--part angles waves network] [--plot cycles.png]

**angles**: y = x₁ cos a + x₂ sin a + x₃ cos b + x₄ sin b + ε determines two angles but for whole turns, so the
posterior has a mode every 2π in both, of known weight by the Normal(0, 6) prior, and barriers of 20 nats between; 100
rows, batches of 10. The mode of a draw is the nearest. ``modes``: distinct ones in a chain's draws, mean over chains
and seeds, beside how many hold 99 % of the mass; ``in all``: in all four chains together; ``off``: total variation
between visits of all chains and the true weights; ``temperature``: mean of (a − mode)² and (b − mode)² over what the
exact posterior has within a mode, 1 where draws are as wide as they should be.

**waves**: two clusters of inputs as in `between`, and two units sin(wx + b) with w ~ Normal(0, 6²), of which the data
leave several frequencies open: functions that agree on the clusters and not in the gap. ``functions``: clusters, by
single link at a distance of 0.3 in root mean square over the gap, of what a chain's last draws of every cycle say there
(of twenty parts of SGLD's chain), mean over chains; ``in all``: of all four chains; ``rmse``: of the mean on the data,
whose noise is 0.1.

**network**: two clusters of inputs as in `between`, 1×20 tanh network, 40 rows, batches of 10, and f(x) in the gap.
``between``: share of the variance of f(x), within a chain, that lies between its cycles, median over x (SGLD is cut
into equally many parts); ``R-hat``: between the cycles of a chain, median over x; ``functions``: clusters of the cycle
means of a chain by single link, at half of NUTS's mean sd of f(x) in root mean square over x; ``sd / NUTS``: ratio of
sds over all chains, mean over x, and ``one chain``: the same for a single chain, mean over chains; ``data``: that of
all chains at inputs among the data; ``temperature``: from the statistics of the draws. Means over seeds.

All begin at trained networks, one a chain. ``found`` are default step sizes; others are a multiple of those found,
``step`` is that at the beginning of a cycle. The plot is that of Zhang et al. (2020, figure 1), of real runs.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd

import bnn_zoo as zoo
from bnn_zoo.errors import ZooValueError
from bnn_zoo.reports.drawing import GREY, SMALL, describe
from tests.benchmarks import between

STEPS, CYCLES = 100_000, 20
PRIOR, NOISE, TRUTH = 6.0, np.sqrt(10.0), np.array([1.0, -2.0])
TURN = 2 * np.pi


def angles(x: jax.Array, y: jax.Array | None = None) -> None:
    """Two angles that are known but for whole turns."""
    angle = numpyro.sample("angle", dist.Normal(0.0, PRIOR).expand([2]).to_event(1))
    f = x @ jnp.stack([jnp.cos(angle[0]), jnp.sin(angle[0]), jnp.cos(angle[1]), jnp.sin(angle[1])])
    numpyro.sample("y", dist.Normal(f, NOISE), obs=y)


def angle_data(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """One hundred rows whose columns are orthonormal, and targets whose noise is orthogonal to them.

    So the best angles are the true ones, and the barriers between turns are 2 × 100 / NOISE² nats, whatever the seed.
    """
    rng = np.random.default_rng(seed)
    x, _ = np.linalg.qr(rng.normal(size=(100, 4)))
    x *= np.sqrt(len(x))
    noise = NOISE * rng.normal(size=len(x))
    noise -= x @ (x.T @ noise) / len(x)
    features = np.array([np.cos(TRUTH[0]), np.sin(TRUTH[0]), np.cos(TRUTH[1]), np.sin(TRUTH[1])])
    return x, x @ features + noise


def mode_weights() -> np.ndarray:
    """Weights ``(15, 15)`` of the modes, -7 to 7 turns away, from the exact density of each angle on a grid."""
    found = []
    for truth in TRUTH:
        offset = np.linspace(-np.pi, np.pi, 2001)
        at = truth + TURN * np.arange(-7, 8)[:, None] + offset
        mass = np.exp(-(at**2) / (2 * PRIOR**2) - 100 / NOISE**2 * (1 - np.cos(offset))).sum(1)
        found.append(mass / mass.sum())
    return np.multiply.outer(*found)


def exact_variance() -> float:
    """Variance of an angle within a mode (the prior, 400 times as wide, aside)."""
    offset = np.linspace(-np.pi, np.pi, 2001)
    mass = np.exp(-100 / NOISE**2 * (1 - np.cos(offset)))
    return float(mass @ offset**2 / mass.sum())


def lengths(cycles: int, samples: int) -> tuple[dict, dict]:
    """Settings of plain and of cyclical chains of `STEPS` steps, with equally many draws."""
    common = {"num_warmup": STEPS // 10, "num_samples": cycles * samples}
    plain = common | {"thinning": STEPS // (cycles * samples)}
    return plain, common | {"samples_per_cycle": samples, "thinning": STEPS // (5 * cycles * samples)}


def first_step(posterior: zoo.Posterior) -> float:
    """Median over chains of the step size at the beginning of a cycle, or of a plain chain."""
    step = float(np.median(posterior.stats["step_size"][:, 0]))
    if "cycle" not in posterior.stats:
        return step
    course = posterior.method.settled().rule.course
    return step / float(course.factor(0, iterations(posterior)[0]))


def iterations(posterior: zoo.Posterior) -> np.ndarray:
    """Steps of sampling and exploration before each draw of a cyclical chain."""
    course = posterior.method.settled().rule.course
    cycle, within = np.divmod(np.arange(1, posterior.num_draws + 1) * posterior.method.thinning - 1, course.sampled)
    return cycle * course.cycle_steps + course.explored + within


def run_all(
    model: Any, data: tuple, seed: int, batch_size: int, cycles: int, samples: int, times: tuple[float, ...]
) -> dict[str, zoo.Posterior]:
    """SGLD and cyclical SGLD with steps found, and cyclical SGLD at multiples of these."""
    plain, cyclical = lengths(cycles, samples)

    def fit(method: object) -> zoo.Posterior:
        return zoo.fit(model, method, data, seed=seed, standardize=False, progress=False)

    found = {
        "SGLD, found": fit(zoo.methods.SGLD(batch_size=batch_size, **plain)),
        "cyclical, found": fit(zoo.methods.CyclicalSGLD(batch_size=batch_size, **cyclical)),
    }
    step = first_step(found["cyclical, found"])
    for factor in times:
        method = replace(found["cyclical, found"].method, step_size=factor * step)
        try:
            found[f"cyclical, {factor:g} times"] = fit(method)
        except ZooValueError as error:
            print(f"seed {seed}, {factor:g} times the step found ({factor * step:.1e}): {error}", flush=True)
    return found


# --- angles -----------------------------------------------------------------------------------------------------------


def turns_of(posterior: zoo.Posterior) -> tuple[np.ndarray, np.ndarray]:
    """Whole turns ``(C, S, 2)`` of every draw, and what is left."""
    angle = posterior.draws["angle"] - TRUTH
    turns = np.rint(angle / TURN).astype(int)
    return turns, angle - TURN * turns


def judge_angles(posterior: zoo.Posterior) -> dict[str, float]:
    """Which modes its draws are at."""
    turns, rest = turns_of(posterior)
    visits = np.zeros((15, 15))
    inside = (np.abs(turns) <= 7).all(2)
    np.add.at(visits, tuple((turns[inside] + 7).T), 1 / inside.size)
    return {
        "modes": float(np.mean([len(np.unique(chain, axis=0)) for chain in turns])),
        "in all": float(len(np.unique(turns.reshape(-1, 2), axis=0))),
        "off": 0.5 * float(np.abs(visits - mode_weights()).sum() + 1 - visits.sum()),
        "temperature": float(np.mean(rest**2)) / exact_variance(),
    }


# --- waves ------------------------------------------------------------------------------------------------------------


def judge_waves(posterior: zoo.Posterior) -> dict[str, float]:
    """How many functions its chains have been at."""
    from scipy.cluster.hierarchy import fcluster, linkage

    f = posterior.function_draws(WAVE_GAP)
    last = f.reshape(len(f), CYCLES, -1, f.shape[2])[:, :, -5:].mean(2)

    def count(functions: np.ndarray) -> float:
        return float(fcluster(linkage(functions, "single"), 0.3 * np.sqrt(f.shape[2]), "distance").max())

    return {
        "functions": float(np.mean([count(chain) for chain in last])),
        "most": max(count(chain) for chain in last),
        "in all": count(last.reshape(-1, f.shape[2])),
        "rmse": float(posterior.evaluate(posterior.data.x, posterior.data.y)["rmse"]),
        "temperature": float(posterior.stats["temperature"].mean()),
    }


# --- network ----------------------------------------------------------------------------------------------------------


def judge_network(posterior: zoo.Posterior, reference: zoo.Posterior, cycles: int) -> dict[str, float]:
    """How much its cycles differ in the gap."""
    from arviz_stats.base import array_stats
    from scipy.cluster.hierarchy import fcluster, linkage

    f = posterior.function_draws(between.GAP)
    sd = reference.predict(between.GAP).epistemic_std
    parts = f.reshape(len(f), cycles, -1, f.shape[2])
    share = parts.mean(2).var(1) / f.var(1)
    rhat = [array_stats.rhat(chain, chain_axis=0, draw_axis=1) for chain in parts]
    limit = 0.5 * sd.mean() * np.sqrt(f.shape[2])
    clusters = [fcluster(linkage(chain.mean(1), "single"), limit, "distance").max() for chain in parts]
    among = posterior.predict(between.AMONG).epistemic_std / reference.predict(between.AMONG).epistemic_std
    return {
        "between": float(np.median(share)),
        "R-hat": float(np.median(rhat)),
        "functions": float(np.mean(clusters)),
        "sd / NUTS": float(np.mean(f.std((0, 1)) / sd)),
        "one chain": float(np.mean(f.std(1) / sd)),
        "data": float(np.mean(among)),
        "temperature": float(posterior.stats["temperature"].mean()),
    }


# --- output -----------------------------------------------------------------------------------------------------------


def tell(posterior: zoo.Posterior) -> dict[str, float]:
    """What is asked of both."""
    return {"step": first_step(posterior), "seconds": posterior.timing.run_seconds}


def show(rows: list[dict]) -> None:
    """Print means over seeds."""
    table = pd.DataFrame(rows).groupby("method", sort=False).mean()
    table["step"] = table["step"].map("{:.1e}".format)
    print(table.to_string(float_format="%.2f"), flush=True)


def plot(posterior: zoo.Posterior, network: zoo.Posterior | None, path: Path) -> Path:
    """Draw step size and loss of the first chain, its draws by cycle, and those of the network."""
    import matplotlib.pyplot as plt
    from matplotlib import colormaps

    course, at = posterior.method.settled().rule.course, iterations(posterior)
    shown = min(8, CYCLES)
    some = at < shown * course.cycle_steps
    positions = jnp.asarray(posterior.result.positions[0][some])
    loss = -np.asarray(jax.vmap(posterior.problem.log_posterior)(positions))
    cycle = posterior.stats["cycle"][0][some]
    colour = colormaps["viridis"](np.linspace(0, 0.9, shown))
    figure, axes = plt.subplot_mosaic(
        "aa\nbb\ncd" if network is not None else "aa\nbb\ncc",
        figsize=(4.8, 5.4),
        height_ratios=[1, 1, 2.2],
        layout="constrained",
    )
    every = np.arange(shown * course.cycle_steps)
    size = first_step(posterior) * np.asarray(course.factor(0, every % course.cycle_steps))
    axes["a"].plot(every, size, color=GREY, linewidth=1)
    axes["b"].sharex(axes["a"])
    for c in range(shown):
        mine = cycle == c
        span = c * course.cycle_steps + course.explored, (c + 1) * course.cycle_steps
        axes["a"].plot(every[slice(*span)], size[slice(*span)], color=colour[c], linewidth=2.5)
        axes["b"].plot(at[some][mine], loss[mine], ".", color=colour[c], markersize=2)
        axes["c"].plot(*posterior.draws["angle"][0][some][mine].T / TURN, ".", color=colour[c], markersize=3)
    turns = turns_of(posterior)[0][0][some]
    low, high = turns.min(0) - 1, turns.max(0) + 2
    grid = [(TRUTH[i] + TURN * np.arange(low[i], high[i])) / TURN for i in range(2)]
    axes["c"].plot(*(g.ravel() for g in np.meshgrid(*grid)), "+", color=GREY, markersize=4, zorder=0)
    axes["c"].set_aspect("equal", adjustable="datalim")
    describe(axes["a"], "", "step size")
    describe(axes["b"], "iteration", "−log posterior")
    describe(axes["c"], "angle a, in turns", "angle b, in turns", "draws by cycle (+ modes)")
    axes["a"].tick_params(labelbottom=False)
    if network is not None:
        x = np.linspace(-2, 2, 121)[:, None]
        f, number = network.function_draws(x)[0], network.stats["cycle"][0]
        for c in range(shown):
            axes["d"].plot(x[:, 0], f[number == c][-1], color=colour[c], linewidth=1)
        axes["d"].plot(*network.data.x.T, network.data.y, ".", color=GREY, markersize=2)
        describe(axes["d"], "x", "f(x)", "network: last draw by cycle")
    for axis in axes.values():
        axis.tick_params(labelsize=SMALL - 1)
        axis.xaxis.label.set_fontsize(SMALL)
        axis.yaxis.label.set_fontsize(SMALL)
    figure.savefig(path, dpi=200)
    return path


def main() -> None:
    """Run both parts over seeds, print tables and plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--plot", help="file to draw, of seed 0")
    arguments = parser.parse_args()
    drawn: dict[str, zoo.Posterior] = {}
    if "angles" in arguments.part:
        rows = []
        for seed in range(arguments.seeds):
            found = run_all(angles, angle_data(seed), seed, 10, CYCLES, 50, ANGLE_TIMES)
            rows += [{"method": name} | judge_angles(one) | tell(one) for name, one in found.items()]
            if seed == 0:
                drawn["angles"] = found[f"cyclical, {ANGLE_SHOWN:g} times"]
        mass = np.sort(mode_weights(), axis=None)[::-1].cumsum()
        print(f"angles: 99 % of the mass is in {np.searchsorted(mass, 0.99) + 1} modes; {CYCLES} cycles a chain")
        show(rows)
    if "waves" in arguments.part:
        rows = []
        for seed in range(arguments.seeds):
            found = run_all(WAVES, between.data(seed), seed, 10, CYCLES, 50, WAVE_TIMES)
            rows += [{"method": name} | judge_waves(one) | tell(one) for name, one in found.items()]
        print(f"waves: {CYCLES} cycles a chain")
        show(rows)
    if "network" in arguments.part:
        rows = []
        for seed in range(arguments.seeds):
            reference = between.fit(zoo.methods.NUTS(num_warmup=500, num_samples=500), seed)
            rhat = reference.diagnose().inner.rhat
            print(f"seed {seed}: NUTS, R-hat of f(x) {rhat.median():.3f} in the median, {rhat.max():.3f} at most")
            found = run_all(between.MODEL, between.data(seed), seed, 10, CYCLES // 2, 50, NETWORK_TIMES)
            rows += [
                {"method": name} | judge_network(one, reference, CYCLES // 2) | tell(one) for name, one in found.items()
            ]
            print(pd.DataFrame(rows[-len(found) :]).to_string(float_format="%.3g"), flush=True)
            if seed == 0:
                drawn["network"] = found.get(f"cyclical, {NETWORK_SHOWN:g} times", found["cyclical, found"])
        show(rows)
    if arguments.plot and "angles" in drawn:
        print("plot:", plot(drawn["angles"], drawn.get("network"), Path(arguments.plot)))


PARTS = ["angles", "waves", "network"]
WAVES = zoo.models.MLP(hidden=(2,), activation="sin", weight_scale=6.0, bias_scale=3.0, noise=between.NOISE)
WAVE_GAP = np.linspace(-0.8, 0.8, 17)[:, None]
WAVE_TIMES = (5.0, 10.0)
ANGLE_TIMES, ANGLE_SHOWN = (3.0, 5.0, 7.0), 5.0
NETWORK_TIMES, NETWORK_SHOWN = (3.0, 5.0), 3.0

if __name__ == "__main__":
    main()
