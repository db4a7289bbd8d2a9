"""Double descent: does test error peak where a network begins to interpolate, and does MultiSWAG's?

    python -m tests.benchmarks.descent [--seeds 5] [--modes 10] [--label-noise 0.5] [--out FOLDER] [--quick]

After Wilson & Izmailov (2020), Bayesian deep learning and a probabilistic perspective of generalization, section 7:
with corrupted training labels the test error of one network rises and falls again with its width, and MultiSWAG's is
said to fall only. Theirs are ResNet-18 on CIFAR; this is a regression, 300 rows of 15 inputs, whose target needs more
than a few units, with a fifth of the variance of the training targets noise (``--label-noise`` 0.5: its standard
deviation, where the target's is 1). Test targets have none, as their test labels. One hidden ReLU layer; the noise of
the model is fixed far below that of the data, so that the loss is the squared error and weight decay next to nothing.
The likelihood is therefore wrong on purpose, and its score (NLL) would say nothing.

``one network`` is what SWAG starts from: the end of Adam on batches, its rate decayed to zero. ``ensemble`` is the mean
prediction of as many of them as MultiSWAG has modes. ``SWAG`` is each mode of MultiSWAG on its own. One network's and
SWAG's errors are means over members and modes. Every seed is another data set with networks of its own; ± is a standard
error over seeds.

A peak is a width with higher error than some width on both sides. Its height is reported as two ratios, to the least
error among smaller and among larger widths; the three widths of a seed are those of the mean of all other seeds, so
that noise alone is as likely to lower the ratios as to raise them.

``--quick`` takes few widths, two seeds and short training: a trial of the command, not of the claim.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

import bnn_zoo as zoo
from bnn_zoo.reports.drawing import BLUE, GREEN, GREY, PURPLE, VERMILLION

ROWS, INPUTS, TEST_ROWS, UNITS = 300, 15, 2000, 6
WIDTHS = (1, 2, 4, 7, 10, 14, 18, 21, 25, 32, 45, 70, 120, 250)
QUICK_WIDTHS = (1, 10, 25, 45, 120)
BATCH = 30
ONE, ENSEMBLE, SWAG, MULTISWAG = METHODS = ("one network", "ensemble", "SWAG", "MultiSWAG")
COLOURS = {ONE: VERMILLION, ENSEMBLE: GREEN, SWAG: PURPLE, MULTISWAG: BLUE}
STYLES = {ONE: "-", ENSEMBLE: "--", SWAG: ":", MULTISWAG: "-"}
MARKERS = {ONE: "o", ENSEMBLE: "s", SWAG: "^", MULTISWAG: "D"}


@dataclass(frozen=True)
class Effort:
    """How long networks are trained, and how many."""

    modes: int = 10
    warm_steps: int = 10_000
    swag_steps: int = 4000


@dataclass(frozen=True)
class Peak:
    """The highest point of a curve that has lower ones on both sides, or what comes closest to one."""

    width: int
    rise: float  # over the least error at smaller widths
    fall: float  # over the least error at larger widths
    rise_error: float
    fall_error: float

    @property
    def told(self) -> bool:
        """Whether both ratios are above 1 by more than two standard errors."""
        return self.rise - 2 * self.rise_error > 1 and self.fall - 2 * self.fall_error > 1


def data(seed: int, label_noise: float) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Rows to train on, with noise, and to test on, without: a sum of absolute values of random projections."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(ROWS + TEST_ROWS, INPUTS))
    directions = generator.normal(size=(INPUTS, UNITS)) / np.sqrt(INPUTS)
    f = np.abs(x @ directions) @ generator.normal(size=UNITS)
    f = (f - f.mean()) / f.std()
    y = f[:ROWS] + label_noise * generator.normal(size=ROWS)
    return (x[:ROWS], y), (x[ROWS:], f[ROWS:])


def parameters(width: int) -> int:
    """Weights and biases of a network with one hidden layer."""
    return width * (INPUTS + 2) + 1


def rmse(f: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Root of the mean square error over the last axis."""
    return np.sqrt(np.mean((f - y) ** 2, axis=-1))


def errors(width: int, seed: int, label_noise: float, effort: Effort) -> dict[str, float]:
    """Test error of every method, and the training error of one network, on one data set."""
    train, (x, f) = data(seed, label_noise)
    model = zoo.models.MLP(hidden=(width,), noise=0.01)
    ensemble = zoo.methods.DeepEnsemble(
        num_members=effort.modes, num_steps=effort.warm_steps, batch_size=BATCH, polish_steps=0
    )
    swag = zoo.methods.MultiSWAG(
        num_modes=effort.modes,
        num_samples=30,
        num_steps=effort.swag_steps,
        warm_steps=effort.warm_steps,
        batch_size=BATCH,
    )
    networks = zoo.fit(model, ensemble, train, seed=seed, progress=False)
    mixture = zoo.fit(model, swag, train, seed=seed, progress=False)
    return {
        "train RMSE": float(rmse(networks.function_draws(train[0]), train[1]).mean()),
        ONE: float(rmse(networks.function_draws(x), f).mean()),
        ENSEMBLE: float(rmse(networks.predict(x).mean, f)),
        SWAG: float(rmse(mixture.function_draws(x).mean(axis=1), f).mean()),
        MULTISWAG: float(rmse(mixture.predict(x).mean, f)),
    }


def highest(curve: np.ndarray) -> tuple[int, int, int]:
    """Return the index of the peak of a curve, and of the least values to its left and to its right.

    The peak is where the smaller of the two ratios is largest, so that a curve that begins high has none there.
    """
    best = max(range(1, len(curve) - 1), key=lambda k: curve[k] / max(curve[:k].min(), curve[k + 1 :].min()))
    return best, int(np.argmin(curve[:best])), best + 1 + int(np.argmin(curve[best + 1 :]))


def peak(curves: np.ndarray, widths: tuple[int, ...]) -> Peak:
    """Find the peak of ``curves (seeds, widths)``, each seed judged at the widths that all other seeds point to."""
    ratios = []
    for seed, curve in enumerate(curves):
        top, left, right = highest(np.delete(curves, seed, axis=0).mean(axis=0))
        ratios.append((curve[top] / curve[left], curve[top] / curve[right]))
    mean, error = np.mean(ratios, axis=0), standard_error(np.asarray(ratios))
    return Peak(widths[highest(curves.mean(axis=0))[0]], *mean.tolist(), *error.tolist())


def standard_error(values: np.ndarray) -> np.ndarray:
    """Of the mean over the first axis."""
    return np.std(values, axis=0, ddof=1) / np.sqrt(len(values))


def sentence(method: str, found: Peak) -> str:
    """Say what the numbers say of one method."""
    heights = (
        f"{found.rise:.2f} ± {found.rise_error:.2f} times the least error at smaller widths, "
        f"{found.fall:.2f} ± {found.fall_error:.2f} times that at larger ones"
    )
    where = f"width {found.width} ({parameters(found.width) / ROWS:.2g} parameters a row)"
    if found.told:
        return f"{method}: peaks at {where}: {heights}."
    return f"{method}: no peak that two standard errors tell from none; the nearest to one, at {where}, is {heights}."


def table(curves: dict[str, np.ndarray], widths: tuple[int, ...]) -> pd.DataFrame:
    """Return means over seeds, one row a width, with standard errors of the test errors."""
    count = np.array([parameters(width) for width in widths])
    columns = {
        "width": widths,
        "parameters": count,
        "per row": [f"{share:.2f}" for share in count / ROWS],
        "train RMSE": [f"{value:.4f}" for value in curves["train RMSE"].mean(axis=0)],
    }
    for method in METHODS:
        pairs = zip(curves[method].mean(axis=0), standard_error(curves[method]), strict=True)
        columns[method] = [f"{mean:.3f} ± {error:.3f}" for mean, error in pairs]
    return pd.DataFrame(columns)


def draw(curves: dict[str, np.ndarray], widths: tuple[int, ...], title: str, path: Path) -> None:
    """Save test error of every method, and training error of one network, against parameters per row."""
    from matplotlib.figure import Figure

    share = np.array([parameters(width) for width in widths]) / ROWS
    figure = Figure(figsize=(6.4, 6.2), layout="constrained")
    test, train = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    for method in METHODS:
        mean, error = curves[method].mean(axis=0), standard_error(curves[method])
        colour = COLOURS[method]
        test.fill_between(share, mean - error, mean + error, color=colour, alpha=0.2, linewidth=0)
        test.plot(
            share, mean, color=colour, linestyle=STYLES[method], marker=MARKERS[method], markersize=4, label=method
        )
    fitted, error = curves["train RMSE"].mean(axis=0), standard_error(curves["train RMSE"])
    train.fill_between(share, fitted - error, fitted + error, color=VERMILLION, alpha=0.2, linewidth=0)
    train.plot(share, fitted, color=VERMILLION, marker="o", markersize=4)
    for ax in (test, train):
        ax.axvline(1, color=GREY, linestyle=(0, (2, 2)), linewidth=1, zorder=0)
        ax.spines[["top", "right"]].set_visible(False)
        ax.set_ylim(bottom=0)
    test.annotate("parameters = rows", (1, 0), (4, 6), textcoords="offset points", color=GREY, fontsize=9)
    test.set_title(title, fontsize=10)
    test.set_ylabel("test RMSE (target's sd = 1)")
    test.legend(frameon=False, loc="upper right")
    train.set_ylabel("train RMSE,\none network")
    train.set_xlabel("parameters / training rows")
    train.set_xscale("log")
    ticks = [tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10) if share[0] <= tick <= share[-1]]
    train.set_xticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    train.minorticks_off()
    widest = test.secondary_xaxis("top")
    shown = [0]
    for i in range(1, len(widths)):
        if share[i] > 1.35 * share[shown[-1]]:  # further left, labels would touch
            shown.append(i)
    widest.set_xscale("log")
    widest.set_xticks(share[shown], labels=[str(widths[i]) for i in shown])
    widest.minorticks_off()
    widest.set_xlabel("width")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def measure(
    widths: tuple[int, ...], seeds: int, label_noise: float, effort: Effort, say: Callable[[str], None]
) -> dict[str, np.ndarray]:
    """Fit every width on every data set; errors ``(seeds, widths)`` by name."""
    rows = []
    for width in widths:  # the outer loop, as seeds share a width's compiled programs
        clock = time.perf_counter()
        rows.append([errors(width, seed, label_noise, effort) for seed in range(seeds)])
        say(f"width {width}: {time.perf_counter() - clock:.0f} s")
    return {name: np.array([[one[name] for one in row] for row in rows]).T for name in rows[0][0]}


def main() -> None:
    """Measure, print the table and what it says, and save the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--modes", type=int, default=10)
    parser.add_argument("--label-noise", type=float, default=0.5)
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()), help="where descent.png is saved")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    if arguments.seeds < 2:
        parser.error("--seeds should be 2 or more: a standard error needs two.")
    seeds, effort, widths = arguments.seeds, Effort(arguments.modes), WIDTHS
    if arguments.quick:
        seeds, effort, widths = 2, Effort(3, 2000, 1500), QUICK_WIDTHS
    start = time.perf_counter()
    curves = measure(widths, seeds, arguments.label_noise, effort, lambda line: print(line, flush=True))
    print(f"\n{ROWS} rows, {INPUTS} inputs, noise {arguments.label_noise:g}, {effort}, {seeds} seeds")
    print(table(curves, widths).to_string(index=False), end="\n\n")
    found = {method: peak(curves[method], widths) for method in METHODS}
    for method in METHODS:
        print(sentence(method, found[method]))
    at = widths.index(found[ONE].width)
    there = ", ".join(f"{method} {curves[method][:, at].mean():.2f}" for method in METHODS)
    print(f"Where one network's is highest, at width {widths[at]}: {there}.")
    last = ", ".join(f"{method} {curves[method][:, -1].mean():.2f}" for method in METHODS)
    print(f"At the largest width, {widths[-1]}: {last}.")
    path = arguments.out / "descent.png"
    title = f"Noise of sd {arguments.label_noise:g} on training targets; {effort.modes} modes, {seeds} data sets"
    draw(curves, widths, title, path)
    wall, cpu = time.perf_counter() - start, time.process_time()  # CPU too, as others may use the machine
    print(f"{path}; {wall:.0f} s, {cpu:.0f} of CPU, on {os.cpu_count()} cores, {platform.platform()}")


if __name__ == "__main__":
    main()
