"""A student against its teacher: score, epistemic sd in and out of distribution, seconds a prediction.

    python -m tests.benchmarks.distill [--data synthetic diabetes] [--draws 500] [--rounds 9]

The teacher is NUTS, 4 chains, on a network of 50 ReLU units; the student that of `zoo.distill` as it comes. Asked of
it: a log score within 0.05 of the teacher's on held-out rows, epistemic sds that correlate above 0.9 in and out of
distribution, and predictions at least 100 times faster. Out of distribution are the held-out rows moved by 2 and 3 sds
of every input, in a direction of their own or in all the same, and by 3 sds of one input; none of this is how the
student's inputs were made. A difference of scores is paired over rows, ± its standard error. Seconds are medians of
warm predictions of 10,000 rows, checks and scaling included; sides are interleaved.
"""

from __future__ import annotations

import argparse
import os
import platform
import time

import numpy as np

import bnn_zoo as zoo

ROWS = 10_000


def data(name: str) -> tuple[zoo.Dataset, zoo.Dataset]:
    """Training and test rows."""
    if name != "synthetic":
        return zoo.datasets.load(name).split(test_size=0.2, seed=0)
    generator = np.random.default_rng(0)
    x = generator.normal(size=(1500, 8))
    y = np.sin(x[:, 0]) + 0.5 * x[:, 1] * x[:, 2] + 0.3 * generator.normal(size=1500)
    return zoo.Dataset(x, y, name=name).split(test_size=1000, seed=0)


def places(train: zoo.Dataset, test: zoo.Dataset) -> dict[str, np.ndarray]:
    """Inputs in and out of distribution."""
    unit, signs = train.x.std(0), np.random.default_rng(3).choice([-1, 1], test.x.shape)
    one = np.eye(test.x.shape[1])[0]
    found = {"held-out rows": test.x}
    found |= {f"moved by {k} sds, own direction": test.x + k * unit * signs for k in (2, 3)}
    found |= {f"moved by {k} sds, same direction": test.x + k * unit for k in (2, 3)}
    return found | {"moved by 3 sds, first input": test.x + 3 * unit * one}


def seconds(posteriors: list[zoo.Posterior], x: np.ndarray, rounds: int) -> np.ndarray:
    """Median seconds of a warm prediction, each of rows of its own: posteriors remember what they said of the last."""
    taken = np.empty((rounds, len(posteriors)))
    generator = np.random.default_rng(0)
    for turn in range(-1, rounds):
        rows = x[generator.integers(0, len(x), ROWS)]
        for which, posterior in enumerate(posteriors):
            clock = time.perf_counter()
            posterior.predict(rows)
            if turn >= 0:
                taken[turn, which] = time.perf_counter() - clock
    return np.median(taken, axis=0)


def judge(name: str, draws: int, rounds: int) -> None:
    """Fit, distil and print."""
    train, test = data(name)
    nuts = zoo.methods.NUTS(num_warmup=draws, num_samples=draws, num_chains=4)
    teacher = zoo.fit(zoo.models.MLP(hidden=(50,)), nuts, train, progress=False)
    clock = time.perf_counter()
    student = zoo.distill(teacher, progress=False)
    took = time.perf_counter() - clock
    print(f"\n{name}: {train.x.shape[0]} rows of {train.x.shape[1]} inputs; teacher {teacher.timing.run_seconds:.0f} s")
    print(f"student: {student.model}, {took:.0f} s, teacher asked and judged included")
    said, learnt = (one.predict(test.x).log_prob(test.y) for one in (teacher, student))
    gap = said - learnt
    error = gap.std(ddof=1) / np.sqrt(len(gap))
    print(f"NLL of teacher {-said.mean():.4f}, of student {-learnt.mean():.4f}: {gap.mean():+.4f} ± {error:.4f}")
    print(f"{'epistemic sd':<36}{'correlation':>12}{'ratio':>8}{'mean off by':>13}")
    for place, x in places(train, test).items():
        theirs, ours = teacher.predict(x), student.predict(x)
        found = np.corrcoef(theirs.epistemic_std, ours.epistemic_std)[0, 1]
        ratio = np.exp(np.log(ours.epistemic_std / theirs.epistemic_std).mean())
        off = np.sqrt(np.mean((ours.mean - theirs.mean) ** 2 / theirs.std**2))
        print(f"{place:<36}{found:>12.3f}{ratio:>8.3f}{off:>10.3f} sd")
    slow, fast = seconds([teacher, student], test.x, rounds)
    print(f"{ROWS:,} rows: teacher {slow:.3f} s, student {1e3 * fast:.1f} ms, {slow / fast:.0f} times faster")
    print(student.diagnose())


def main() -> None:
    """Print a table a data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["synthetic", "diabetes"])
    parser.add_argument("--draws", type=int, default=500, help="of each of 4 chains, and warm-up")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    print(f"{platform.platform()}, {os.cpu_count()} cores")
    for name in options.data:
        judge(name, options.draws, options.rounds)


if __name__ == "__main__":
    main()
