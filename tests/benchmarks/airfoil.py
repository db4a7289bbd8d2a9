"""Airfoil by bde's own protocol: microcanonical ensembles of scikit-learn-contrib's bde, and ours, at the same cost.

    python -m venv bde && bde/bin/pip install -r tests/benchmarks/requirements-bde.txt
    python -m tests.benchmarks.airfoil [FOLDER] --bde bde/bin/python [--seeds 1] [--share 1.0] [--validate]

FOLDER holds ``airfoil/data.txt``, as ``BNN_ZOO_DATA`` does; without either it is downloaded. bde pins another BlackJAX
than the zoo, so it lives in an environment of its own. The protocol (``paper/scripts`` of bde 1.0): 80 % of rows for
training by ``train_test_split(random_state=0)``, inputs and target standardised by them, ten members of 4×16 ReLU with
mean and scale, 1,000 epochs, 50,000 steps of warm-up and 10,000 of sampling a member. ``--share`` shortens the last two
on both sides.

Its kernel is unadjusted MCLMC, without a preconditioner, whose step is found for an energy variance of 0.5 that falls
to 0.1; ours is told the same. With the zoo's own 5e-4, chains that are far from converging get less far in the same
time (``--energy-variance 5e-4 --first 5e-4``). Weights have each side's own prior: N(0, 1) in bde, N(0, 2 / fan-in) in
the zoo, which keeps the variance of a ReLU network's functions whatever its depth (He et al. 2015). What is set was
chosen without the test rows: ``--validate`` scores on a seventh of the training rows, held out, others at each seed.

bde runs first; the zoo then gets as many seconds of processor time, its own compilation and prediction included: a
short run tells what a step costs, and the rest is divided 5 to 1 between warm-up and sampling, as bde divides it, and
what is still left then goes into more draws.
``NLL`` is the mean of minus the log of a Normal with the predicted mean and total sd, as bde's scripts have it, on the
standardised target; ``mixture`` that of the mixture of Normals which the draws are. ``R-hat`` is that of f(x) at test
inputs, which bde does not say, and here is taken from its draws too.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tests.benchmarks import sides

MEMBERS, HIDDEN = 10, (16, 16, 16, 16)
WARMUP, STEPS, KEPT = 50_000, 10_000, 1000

BDE = """
import os, sys, json, time
folder, seed, warmup, thinning, cores = sys.argv[1], *map(int, sys.argv[2:])
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={cores}"
import numpy as np
from bde import BdeRegressor
from bde.loss.loss import GaussianNLL
data = np.load(folder + "/data.npz")
begin, clock = time.process_time(), time.perf_counter()
model = BdeRegressor(n_members=10, hidden_layers=[16, 16, 16, 16], loss=GaussianNLL(), epochs=1000,
                     validation_split=0.15, lr=1e-3, weight_decay=1e-4, warmup_steps=warmup, n_samples=1000,
                     n_thinning=thinning, patience=20, seed=seed)
model.fit(data["x"], data["y"])
mean, sd = model.predict(data["new"], mean_and_std=True)
print(json.dumps({"cpu": time.process_time() - begin, "seconds": time.perf_counter() - clock}))
raw = np.asarray(model.predict(data["new"], raw=True))
np.savez(folder + "/bde.npz", mean=np.ravel(mean), sd=np.ravel(sd), raw=raw)
"""


def protocol(held_out: int | None = None) -> dict[str, np.ndarray]:
    """Training and test rows, standardised by the former; or, of training rows alone, those that ``held_out`` draws."""
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import StandardScaler

    import bnn_zoo as zoo

    data = zoo.datasets.load("airfoil")
    x, new, y, there = train_test_split(data.x, data.y, test_size=0.2, random_state=0)
    if held_out is not None:
        x, new, y, there = train_test_split(x, y, test_size=0.15, random_state=held_out)
    of_x, of_y = StandardScaler().fit(x), StandardScaler().fit(y[:, None])
    return {
        "x": of_x.transform(x),
        "y": of_y.transform(y[:, None])[:, 0],
        "new": of_x.transform(new),
        "there": of_y.transform(there[:, None])[:, 0],
    }


def nll(mean: np.ndarray, sd: np.ndarray, y: np.ndarray) -> float:
    """As bde's scripts have it."""
    return float(np.mean(0.5 * (np.log(2 * np.pi * sd**2) + ((y - mean) / sd) ** 2)))


def scores(mean: np.ndarray, sd: np.ndarray, functions: np.ndarray, y: np.ndarray) -> sides.Run:
    """RMSE, NLL, and the median R-hat of ``functions (C, S, n)``."""
    from arviz_stats.base import array_stats

    rhat = array_stats.rhat(np.asarray(functions, float), chain_axis=0, draw_axis=1)
    return {"RMSE": float(np.sqrt(np.mean((mean - y) ** 2))), "NLL": nll(mean, sd, y), "R-hat": float(np.median(rhat))}


def bde(python: str, data: dict[str, np.ndarray], seed: int, share: float, folder: Path) -> sides.Run:
    """In its own environment."""
    np.savez(folder / "data.npz", **data)
    lengths = [str(round(share * WARMUP)), str(max(1, round(share * STEPS / KEPT)))]
    command = [python, "-W", "ignore", "-c", BDE, str(folder), str(seed), *lengths, str(sides.cores())]
    out = subprocess.run(command, capture_output=True, text=True, check=False)
    if out.returncode:
        sys.exit(f"bde failed:\n{out.stderr}")
    made = np.load(folder / "bde.npz")
    functions = made["raw"][..., 0].reshape(MEMBERS, -1, len(data["new"]))
    found = json.loads(out.stdout.splitlines()[-1])
    return found | scores(made["mean"], made["sd"], functions, data["there"])


def zoo_side(name: str, data: dict[str, np.ndarray], seed: int, budget: float, settings: dict[str, Any]) -> sides.Run:
    """Ours, in at most ``budget`` seconds of processor time."""
    import bnn_zoo as zoo

    begin, clock = time.process_time(), time.perf_counter()
    model = zoo.models.HeteroscedasticMLP(hidden=HIDDEN, weight_scale=settings["weight_scale"])

    errors = {"energy_variance": settings["energy_variance"], "first_energy_variance": settings["first"]}
    kind = {"adjusted": True} if name == "adjusted" else errors

    def fit(warmup: int, steps: int) -> zoo.Posterior:
        kept = min(KEPT, steps)
        method = zoo.methods.MCLMC(
            num_warmup=warmup,
            num_samples=kept,
            thinning=steps // kept,
            num_chains=MEMBERS,
            preconditioned=settings["preconditioned"],
            **kind,
        )
        return zoo.fit(model, method, (data["x"], data["y"]), seed=seed, standardize=False, progress=False)

    short = fit(500, 200)
    before = time.process_time()
    short.resume(300, progress=False)
    a_step = (time.process_time() - before) / 300
    # The starts are trained once more, which costs no more than all of the first fit did; predictions come after.
    starts = before - begin - 700 * a_step
    steps = max(2000, int((0.97 * budget - (time.process_time() - begin) - starts) / a_step))
    posterior = fit(steps * 5 // 6, steps // 6)
    # What compiling took the first time is left, and goes into more draws.
    a_draw = a_step * posterior.method.thinning
    more = int((0.98 * budget - (time.process_time() - begin)) / a_draw)
    if more > 0:
        posterior = posterior.resume(more, progress=False)
        steps += more * posterior.method.thinning
    prediction = posterior.predict(data["new"])
    found = {"cpu": time.process_time() - begin, "seconds": time.perf_counter() - clock, "steps": float(steps)}
    functions = posterior.function_draws(data["new"])
    found |= scores(prediction.mean, prediction.std, functions, data["there"])
    found["mixture"] = -float(prediction.log_prob(data["there"]).mean())
    found["verdict"] = posterior.diagnose().verdict  # type: ignore[assignment]
    return found


def main() -> None:
    """Run both sides for each seed and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--bde", help="a Python that has bde")
    parser.add_argument("--budget", type=float, help="seconds of processor time for the zoo, without running bde")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--methods", nargs="+", default=["mclmc"], choices=["mclmc", "adjusted"])
    parser.add_argument("--energy-variance", type=float, default=0.1, help="as bde has it in the end; ours is 5e-4")
    parser.add_argument("--first", type=float, default=0.5, help="that of the first steps, as bde has it")
    parser.add_argument("--weight-scale", type=float, default=2**0.5, help="prior sd of weights, times fan-in^-1/2")
    parser.add_argument("--preconditioned", action="store_true", help="as MCLMC is by default")
    parser.add_argument("--validate", action="store_true", help="score on training rows that are held out")
    given = parser.parse_args()
    if given.folder:
        os.environ["BNN_ZOO_DATA"] = given.folder
    if not given.bde and not given.budget:
        sys.exit("Name a Python that has bde with --bde, or processor seconds with --budget.")

    def show(side: str, seed: int, found: sides.Run) -> None:
        shown = ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in found.items())
        print(f"{side:<10} seed {seed}: {shown}", flush=True)

    for seed in range(given.seeds):
        data = protocol(seed if given.validate else None)
        budget = given.budget
        if given.bde:
            with TemporaryDirectory() as folder:
                found = bde(given.bde, data, seed, given.share, Path(folder))
            show("bde", seed, found)
            budget = found["cpu"]
        for name in given.methods:
            show(name, seed, zoo_side(name, data, seed, budget, vars(given)))


if __name__ == "__main__":
    main()
