"""Yacht and energy at two minutes of two cores: each sampler, from each start, with weights drawn centred and not.

    python -m tests.benchmarks.two_minutes [FOLDER] [--seconds 120] [--sets yacht energy] [--samplers nuts mclmc ...]
        [--starts prior map ensemble] [--weights non-centred centred] [--chains 4] [--to two_minutes.jsonl]

FOLDER holds ``NAME/data.txt`` of the UCI sets, as ``BNN_ZOO_DATA`` does; without either they are downloaded. Standard
split 0, 1×50 tanh, a half-Normal(3) scale of weights, 4 chains or as many as ``--chains`` says. All of a fit but its
compilation is in the budget: the training of starts, warm-up (a third of the rest) and sampling; 500 draws a chain are
kept (of more than 4 chains 50), and in NUTS as many as there is time for. Long runs can be made in pieces: each line
goes to a file, and what is there already is not run again.

``R-hat`` and ``ESS``: of f(x) at training, held-out and in-between inputs, in the median and the worst of them; ESS of
all draws of all chains. ``LL``: test log likelihood, of all chains and of the worst alone. A sampler for which float32
is too coarse, and which says so, runs in float64.
"""

from __future__ import annotations

import argparse
import json
import os
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pandas as pd

import bnn_zoo as zoo
from bnn_zoo.errors import ZooValueError
from bnn_zoo.reports import apart

SETS, SAMPLERS, STARTS = ("yacht", "energy"), ("nuts", "mclmc", "adjusted", "cyclical"), ("prior", "map", "ensemble")
WIDTH, SPREAD, CHAINS, KEPT, FEWER = 50, 3.0, 4, 500, 50
WHICH = ("set", "sampler", "start", "weights", "chains")
COLUMNS = [
    "LL",
    "worst chain",
    "R-hat",
    "worst R-hat",
    "ESS",
    "least ESS",
    "gradients",
    "seconds",
    "precision",
    "verdict",
]


def centred(x: jax.Array, y: jax.Array | None = None) -> None:
    """The zoo's `MLP` with a scale that has a prior, but for the weights, which are drawn as they are."""
    scale = numpyro.sample("weight_scale", dist.HalfNormal(SPREAD))
    h = x
    for layer, width in enumerate((WIDTH, 1)):
        inputs = h.shape[1]
        w = numpyro.sample(f"w_{layer}", dist.Normal(0, scale * inputs**-0.5).expand([inputs, width]).to_event(2))
        b = numpyro.sample(f"b_{layer}", dist.Normal(0, scale).expand([width]).to_event(1))
        h = h @ w + b[None, :]
        h = jnp.tanh(h) if layer == 0 else h
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    numpyro.sample("y", dist.Normal(h[:, 0], jnp.broadcast_to(noise, h[:, 0].shape)), obs=y)


MODELS = {
    "non-centred": zoo.models.MLP(
        hidden=(WIDTH,), activation="tanh", weight_scale=dist.HalfNormal(SPREAD), noise=dist.HalfNormal(1.0)
    ),
    "centred": centred,
}


def chains(sampler: str, start: str, number: int, warmup: int, kept: int, thinning: int) -> Any:
    """The method, with lengths."""
    lengths = {"num_warmup": warmup, "num_samples": kept, "thinning": thinning, "num_chains": number, "start": start}
    if sampler == "nuts":
        return zoo.methods.NUTS(**lengths)
    if sampler == "cyclical":
        # Five cycles at the step that is found, half of each sampling.
        return zoo.methods.CyclicalSGHMC(**lengths, samples_per_cycle=max(kept // 5, 4), exploration=0.5)
    return zoo.methods.MCLMC(**lengths, adjusted=sampler == "adjusted")


def run(name: str, sampler: str, start: str, weights: str, number: int, seconds: float) -> dict[str, Any]:
    """One fit; in float64 where float32 is refused, and what it is refused for where that is too."""
    row = {"set": name, "sampler": sampler, "start": start, "weights": weights, "chains": number}
    train, test = zoo.datasets.load(name, split=0)
    for precision in ("float32", "float64"):
        try:
            posterior = timed(train, sampler, start, weights, number, seconds, precision)
        except ZooValueError as error:
            refusal = str(error)
        else:
            return row | {"precision": precision} | figures(posterior, test)
    return row | dict.fromkeys(COLUMNS, float("nan")) | {"precision": precision, "verdict": "refused: " + refusal}


def timed(
    train: zoo.Dataset, sampler: str, start: str, weights: str, number: int, seconds: float, precision: str
) -> zoo.Posterior:
    """As many iterations as there is time for."""

    def fit(warmup: int, kept: int, thinning: int = 1) -> zoo.Posterior:
        method = chains(sampler, start, number, warmup, kept, thinning)
        return zoo.fit(MODELS[weights], method, train, standardize=True, precision=precision, progress=False)

    with suppress(ZooValueError):  # compiles; of so short a warm-up no more is asked
        fit(20, 20)
    share = min(1.0, CHAINS / number)  # of the lengths of first looks: those of more chains are as much work
    if sampler == "nuts":
        look = max(10, int(50 * share))
        short = fit(look, look)
        warmup = max(int(100 * share), int(look * seconds / 3 / short.timing.run_seconds))
        posterior = fit(min(warmup, 2000), 20)
        while (left := seconds - posterior.timing.run_seconds) > 0.03 * seconds:
            # Draws of a warmed-up chain cost what they cost: at most a fifth of what is left before looking again.
            before = posterior.timing.run_seconds
            look = max(2, int(10 * share))
            posterior = posterior.resume(look, progress=False)
            a_draw = (posterior.timing.run_seconds - before) / look
            more = int(min(left - look * a_draw, 0.2 * seconds) / a_draw)
            if more > 0:
                posterior = posterior.resume(more, progress=False)
    else:
        short = fit(max(200, int(5000 * share)), max(20, int(100 * share)), 10)
        before, look = short.timing.run_seconds, max(100, int(200 * share))
        a_step = (short.resume(look, progress=False).timing.run_seconds - before) / (10 * look)
        steps = int((seconds - (before - 10 * look * a_step)) / a_step)
        kept = KEPT if number <= CHAINS else FEWER
        posterior = fit(steps // 3, kept, max(1, 2 * steps // 3 // kept))
    return posterior


def figures(posterior: zoo.Posterior, test: zoo.Dataset) -> dict[str, Any]:
    """What is said of a fit."""
    diagnosis = posterior.diagnose(test.x)
    points = diagnosis.inner
    return {
        "LL": -float(posterior.evaluate(test.x, test.y)["nll"]),
        "worst chain": -float(max(apart.nll_of_chains(posterior, test))),
        "R-hat": float(points.rhat.median()),
        "worst R-hat": float(points.rhat.max()),
        "ESS": float(points.ess_bulk.median()),
        "least ESS": float(points.ess_bulk.min()),
        "draws": posterior.num_chains * posterior.num_draws,
        "gradients": posterior.timing.gradient_evaluations,
        "seconds": posterior.timing.run_seconds,
        "verdict": diagnosis.verdict,
        "checks": {check.name: check.status for check in diagnosis.checks},
    }


def table(rows: list[dict[str, Any]]) -> str:
    """All fits of a set, the most effective draws first."""
    frame = pd.DataFrame(rows).sort_values(["set", "ESS"], ascending=[True, False])
    nuts = frame[(frame[[*WHICH[1:]]] == ["nuts", "prior", "non-centred", CHAINS]).all(axis=1)]
    over = frame["set"].map(dict(zip(nuts["set"], nuts["ESS"], strict=True)))
    frame["of NUTS's ESS"] = frame["ESS"] / over
    columns = [*WHICH, *COLUMNS, "of NUTS's ESS"]
    return frame[columns].to_string(index=False, float_format="%.3g")


def markdown(rows: list[dict[str, Any]]) -> str:
    """The same for README.md: a line for each sampler, start and number of chains, with both ways to draw weights."""
    head = ["set", "sampler", "start", "chains", *("LL (worst chain)", "R-hat (worst)", "ESS") * len(MODELS)]
    found = {tuple(row[name] for name in WHICH): row for row in rows}
    numbers = sorted({row["chains"] for row in rows})
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, number, sampler, start in product(SETS, numbers, SAMPLERS, STARTS):
        fits = [found.get((name, sampler, start, weights, number)) for weights in MODELS]
        if number == CHAINS or any(fits):
            cells = [cell for fit in fits for cell in _cells(fit)]
            lines.append("| " + " | ".join([name, f"`{sampler}`", f'`"{start}"`', str(number), *cells]) + " |")
    return "\n".join(lines)


def _cells(row: dict[str, Any] | None) -> list[str]:
    if row is None or row["verdict"].startswith("refused"):
        return ["not run" if row is None else "refused", "", ""]
    return [
        f"{row['LL']:.2f} ({row['worst chain']:.2f})",
        f"{row['R-hat']:.2f} ({row['worst R-hat']:.2f})",
        f"{row['ESS']:.0f}",
    ]


def kept_in(file: Path) -> list[dict[str, Any]]:
    """Fits that were made before."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def main() -> None:
    """Run what is not in the file, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--samplers", nargs="+", default=SAMPLERS)
    parser.add_argument("--starts", nargs="+", default=STARTS)
    parser.add_argument("--weights", nargs="+", default=list(MODELS))
    parser.add_argument("--chains", nargs="+", type=int, default=[CHAINS])
    parser.add_argument("--to", type=Path, default=Path("bench_output/two_minutes.jsonl"))
    given = parser.parse_args()
    if given.folder:
        os.environ["BNN_ZOO_DATA"] = given.folder
    given.to.parent.mkdir(parents=True, exist_ok=True)
    rows = kept_in(given.to)
    done = {tuple(row[name] for name in WHICH) for row in rows}
    for one in product(given.sets, given.samplers, given.starts, given.weights, given.chains):
        if one in done:
            continue
        rows.append(run(*one, given.seconds))
        with given.to.open("a") as file:
            file.write(json.dumps(rows[-1]) + "\n")
        print({k: v for k, v in rows[-1].items() if k != "checks"}, flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
