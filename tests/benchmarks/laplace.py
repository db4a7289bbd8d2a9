"""Laplace at weights already trained, and its prediction at 1,000 rows: the zoo against laplace-torch.

    python -m tests.benchmarks.laplace [--rounds 5] [--short] [--cores 2] [--hidden 50]

A tanh network on 500 rows of 8 features, with fixed noise and Normal weights. Timed is all that follows training: the
curvature, its factors, and mean and variance of the network linearised about its weights; the search for them is left
out on both sides. The zoo is in float64, as always here; laplace-torch has its defaults (curvlinops, all rows in one
batch), in float32 as PyTorch users have it, and in float64.

Cold is the first call of a structure in a process, compilation included, nothing taken from disk, and imports not; warm
another, on other targets and weights. Every side runs in a process of its own, on the same cores, sides interleaved.
Also printed is the largest relative difference of a predictive variance from laplace-torch's in float64: the rounding
of data to float32 in the zoo, but for "kron", where laplace-torch has biases apart from weights
(`tests/exact/test_laplace_torch.py`).
"""

from __future__ import annotations

import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks import sides
from tests.benchmarks.cold import data
from tests.benchmarks.rows import Row, command, parser

SIDES = ("zoo", "laplace-torch float32", "laplace-torch float64")
STRUCTURES = ("full", "kron", "diag", "last_layer")
NOISE, PRIOR_SD = 0.3, 0.5
NEW = np.random.default_rng(1).normal(size=(1000, 8))

Layers = list[tuple[np.ndarray, np.ndarray]]


def trained(hidden: tuple[int, ...]) -> Layers:
    """Weights ``(inputs, width)`` and biases of a network that fits the data."""
    import bnn_zoo as zoo

    method = zoo.methods.MAP(num_restarts=1, num_steps=2000, polish_steps=0)
    posterior = zoo.fit(model(hidden), method, data(), standardize=False, progress=False)
    draws = {name: np.asarray(value, float)[0, 0] for name, value in posterior.draws.items()}
    return [(draws[f"w_{i}"], draws[f"b_{i}"]) for i in range(len(hidden) + 1)]


def model(hidden: tuple[int, ...]) -> Any:
    """The zoo's model."""
    import bnn_zoo as zoo

    return zoo.models.MLP(
        hidden=hidden, activation="tanh", weight_scale=PRIOR_SD, bias_scale=PRIOR_SD, fan_in=False, noise=NOISE
    )


class Zoo:
    """What `Laplace.run` does after its search, and then `Posterior.predict`."""

    def __init__(self, hidden: tuple[int, ...]) -> None:
        import jax

        jax.devices()
        self.model = model(hidden)

    def __call__(self, structure: str, layers: Layers, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The variance of f at the new rows."""
        import jax

        import bnn_zoo as zoo
        from bnn_zoo.engine import curvature, linearized
        from bnn_zoo.engine.checks import join
        from bnn_zoo.engine.compiled import Stopwatch
        from bnn_zoo.engine.training import Trained

        method = zoo.methods.Laplace(covariance=structure)
        problem = join(self.model, x.astype(np.float32), y.astype(np.float32))
        z = np.empty(problem.size)
        slots = {slot.name: slot.where for slot in problem.layout.slots}
        for i, (w, b) in enumerate(layers):
            z[slots[f"w_{i}"]], z[slots[f"b_{i}"]] = w.reshape(-1), b
        mode = Trained(z[None], np.zeros(1), np.zeros(1), np.zeros((0, 1)), 0)
        with jax.enable_x64(True):
            wide = curvature.wide(problem)
            gaussian = method._approximate(wide, mode, curvature.layers_of(wide), Stopwatch())
        return linearized.moments(problem, gaussian, NEW)[1]


class Torch:
    """``Laplace(...).fit(loader)`` and ``la(x)``."""

    def __init__(self, hidden: tuple[int, ...], dtype: str) -> None:
        import laplace  # noqa: F401
        import torch

        torch.set_num_threads(sides.cores())
        torch.set_default_dtype(getattr(torch, dtype))
        self.hidden = hidden

    def __call__(self, structure: str, layers: Layers, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The variance of f at the new rows."""
        import torch
        from laplace import Laplace
        from torch import nn
        from torch.utils.data import DataLoader, TensorDataset

        parts: list[nn.Module] = []
        for w, b in layers:
            parts += [nn.Linear(*w.shape), nn.Tanh()]
            parts[-2].weight.data, parts[-2].bias.data = tensor(w.T), tensor(b)
        last = structure == "last_layer"
        la = Laplace(
            nn.Sequential(*parts[:-1]),
            "regression",
            subset_of_weights="last_layer" if last else "all",
            hessian_structure="full" if last else structure,
            sigma_noise=NOISE,
            prior_precision=PRIOR_SD**-2,
        )
        la.fit(DataLoader(TensorDataset(tensor(x), tensor(y[:, None])), batch_size=len(x)))
        with torch.no_grad():
            return la(tensor(NEW), pred_type="glm")[1].numpy().reshape(-1)


def tensor(a: np.ndarray) -> Any:
    """In PyTorch's default type."""
    import torch

    return torch.tensor(np.ascontiguousarray(a), dtype=torch.get_default_dtype())


def one(side: str, hidden: tuple[int, ...], folder: Path) -> sides.Run:
    """Every structure twice in this process, on two tasks."""
    from bnn_zoo.engine import compiled

    x, y = data()
    with np.load(folder / "weights.npz") as file:
        layers = [(file[f"w_{i}"], file[f"b_{i}"]) for i in range(len(hidden) + 1)]
    others = [(0.9 * w, 1.1 * b) for w, b in layers]
    run = Zoo(hidden) if side == "zoo" else Torch(hidden, side.split()[1])
    found: sides.Run = {}
    for structure in STRUCTURES:
        compiled.clear()
        variances: list[np.ndarray] = []
        for call, weights, targets in (("first", layers, y), ("second", others, -y)):
            found[f"{structure} {call}"] = sides.timed(
                lambda w=weights, t=targets, s=structure, to=variances: to.append(run(s, w, x, t))
            )
        np.save(folder / f"{side} {structure}.npy", variances[0])
    return found


def measure(rounds: int, short: bool, hidden: tuple[int, ...] = (50,)) -> list[Row]:
    """Interleave the sides."""
    peers = sides.installed("torch", "laplace")
    hidden = (10,) if short else hidden
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = {
            f"{kind}_{i}": a for i, pair in enumerate(trained(hidden)) for kind, a in zip("wb", pair, strict=True)
        }
        np.savez(folder / "weights.npz", **weights)
        settings = ("--folder", name, "--hidden", *map(str, hidden))
        found = sides.interleaved("tests.benchmarks.laplace", SIDES if peers else SIDES[:1], rounds, *settings)
        variances = {path.stem: np.load(path) for path in folder.glob("*.npy")}
    if not peers:
        return []
    apart = {s: np.max(np.abs(variances[f"zoo {s}"] / variances[f"{SIDES[2]} {s}"] - 1)) for s in STRUCTURES}
    print("variances apart by at most", ", ".join(f"{structure} {value:.0e}" for structure, value in apart.items()))
    return [
        Row(
            f"Laplace and prediction, {structure}",
            "laplace-torch in float32",
            state,
            "ms",
            *([1e3 * value for value in sides.each(found[side], f"{structure} {call}")] for side in SIDES[:2]),
            asked={"full": 20, "kron": 12}.get(structure) if state == "warm" else None,
        )
        for state, call in (("warm", "second"), ("cold", "first"))
        for structure in STRUCTURES
    ]


def main() -> None:
    """Run one side, or all of them in turn."""
    asks = parser(__doc__, 5)
    asks.add_argument("--cores", type=int, default=sides.cores())
    asks.add_argument("--hidden", type=int, nargs="+", default=[50])
    asks.add_argument("--folder", type=Path)
    asks.add_argument("--side", choices=SIDES)
    given = asks.parse_args()
    if given.side:
        print(json.dumps(one(given.side, tuple(given.hidden), given.folder)))
        return
    sides.use_cores(given.cores)
    command(__doc__, partial(measure, hidden=tuple(given.hidden)), 5, given)


if __name__ == "__main__":
    main()
