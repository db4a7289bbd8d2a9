"""A fit with a checkpoint, killed with SIGKILL at random moments and called again: does it end in the same draws?

    python -m tests.benchmarks.killed [--kills 20] [--method nuts]

Each round begins anew in an empty folder, is killed once, twice or three times, and is then left to end. Its draws are
compared with those of a fit that nobody killed, bit for bit.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

METHODS = ("nuts", "mh", "map")


def fit(method: str, folder: str | None, out: str) -> None:
    """Fit, by a method that takes some seconds, and write the draws."""
    import bnn_zoo as zoo

    methods = {
        "nuts": zoo.methods.NUTS(num_warmup=300, num_samples=400, num_chains=2),
        "mh": zoo.methods.MetropolisHastings(num_warmup=3000, num_samples=300, num_chains=2),
        "map": zoo.methods.MAP(num_steps=20_000, num_restarts=4),
    }
    model = zoo.models.MLP(hidden=(30,))
    posterior = zoo.fit(model, methods[method], "diabetes", checkpoint=folder, progress=False)
    np.savez(out, positions=posterior.result.positions, **posterior.stats)


def start(method: str, folder: str, out: str) -> subprocess.Popen:
    """Fit in a process of its own."""
    return subprocess.Popen([sys.executable, "-m", "tests.benchmarks.killed", "--fit", method, folder, out])


def same(one: Path, other: Path) -> bool:
    """Whether two files hold the same arrays, bit for bit."""
    with np.load(one) as first, np.load(other) as second:
        return sorted(first.files) == sorted(second.files) and all(
            np.array_equal(first[name], second[name]) for name in first.files
        )


def rounds(method: str, kills: int, seed: int = 0) -> list[tuple[list[float], int, bool]]:
    """Kill ``kills`` times in all; returns of each round when it was killed, entries found, and whether draws agree."""
    generator, found = np.random.default_rng(seed), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clock = time.perf_counter()
        assert start(method, str(folder / "whole"), str(folder / "whole.npz")).wait() == 0
        length = time.perf_counter() - clock
        while kills > 0:
            own, moments = folder / f"round{len(found)}", []
            for _ in range(min(int(generator.integers(1, 4)), kills)):
                process = start(method, str(own), str(folder / "again.npz"))
                moments.append(float(generator.uniform(0, 1.2 * length)))
                try:
                    process.wait(moments[-1])
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                kills -= 1
            entries = len(list(own.glob("*.npz"))) if own.exists() else 0
            (folder / "again.npz").unlink(missing_ok=True)
            assert start(method, str(own), str(folder / "again.npz")).wait() == 0
            found.append((moments, entries, same(folder / "whole.npz", folder / "again.npz")))
    return found


def main() -> None:
    """Print a line a round."""
    if sys.argv[1:2] == ["--fit"]:
        return fit(*sys.argv[2:5])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--method", choices=METHODS, default="nuts")
    arguments = parser.parse_args()
    found = rounds(arguments.method, arguments.kills)
    for moments, entries, agrees in found:
        when = ", ".join(f"{moment:.1f} s" for moment in moments)
        print(f"killed after {when}; {entries} entries; {'same draws' if agrees else 'OTHER DRAWS'}")
    print(f"{sum(agrees for _, _, agrees in found)} of {len(found)} rounds ended in the same draws")
    return None


if __name__ == "__main__":
    main()
