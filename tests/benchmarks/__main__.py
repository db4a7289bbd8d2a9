"""Every benchmark of speed and memory, one table, one file: ``make bench``.

    python -m tests.benchmarks [--short] [--rounds N] [--only NAME ...] [--to bench_output/bench.json]

Each runs in a process of its own, one after the other, so that none warms another up; nothing else should run on the
machine. The table is printed at the end and written, with what the machine is and what is installed, after each of
them: an interrupt loses nothing, and ``--only`` replaces the rows of those that it names in a file that is there. One
that fails is named in the file and does not keep the others from running; the exit status is then 1.

``--short`` is to see that all of it works, in under five minutes: small shares of the work, one round, and neither the
largest rows, weights and sets nor the guides and kernels that compile for long.

Those that need another machine, hours, or are not of speed are run by hand: `airfoil`, `two_minutes`, `starts`,
`yacht`, `million`, `streaming`, `devices`, `descent`, `between`, `sharpen`, `stochastic`, `cycles`, `distill`,
`matching`, `width`, `sparse`, `complexity`, `diagnosing`, `scores`, `sbc`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tests.benchmarks.rows import Row, show

NAMES = (
    "compilations",
    "leapfrog",
    "cold",
    "members",
    "swag",
    "laplace",
    "svi",
    "steps",
    "prediction",
    "microcanonical",
    "growth",
)
LIBRARIES = ("jax", "numpyro", "blackjax", "optax", "numpy", "torch", "laplace-torch", "posteriors", "bayesian-torch")


def machine() -> dict[str, Any]:
    """What the numbers are of."""
    found = {}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "platform": platform.platform(),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_GiB": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
        "versions": found,
        "commit": commit(),
    }


def processor() -> str:
    """Its name, as Linux has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def commit() -> str | None:
    """Of the working tree, where git knows."""
    out = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return out.stdout.strip() or None


def run(name: str, rounds: int | None, short: bool) -> list[dict[str, Any]] | None:
    """Rows of one benchmark; None if it failed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.json"
        command = [sys.executable, "-W", "ignore", "-m", f"tests.benchmarks.{name}", "--rows", str(path)]
        command += ["--short"] * short + ([] if rounds is None else ["--rounds", str(rounds)])
        print(f"\n=== {' '.join(command[3:])}", flush=True)
        begin = time.perf_counter()
        done = subprocess.run(command, check=False)
        print(f"{time.perf_counter() - begin:.0f} s")
        return json.loads(path.read_text()) if done.returncode == 0 and path.exists() else None


def main() -> None:
    """Run what is asked for, and leave with 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--rounds", type=int, help="in place of each benchmark's own number; 1 where short")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME")
    parser.add_argument("--to", type=Path, default=Path("bench_output/bench.json"))
    given = parser.parse_args()
    given.to.parent.mkdir(parents=True, exist_ok=True)
    found = {"machine": machine(), "mode": "short" if given.short else "full", "rows": {}, "failed": []}
    if given.to.exists() and tuple(given.only) != NAMES:
        before = json.loads(given.to.read_text())
        if before["mode"] != found["mode"]:
            sys.exit(f"{given.to} should be of a {found['mode']} run; it is of a {before['mode']} one. Name another.")
        found |= {name: before[name] for name in ("rows", "failed")}
    for name in given.only:
        rows = run(name, given.rounds or (1 if given.short else None), given.short)
        found["rows"].pop(name, None)
        found["failed"] = [other for other in found["failed"] if other != name]
        if rows is None:
            found["failed"].append(name)
            print(f"{name} failed", flush=True)
        else:
            found["rows"][name] = rows
        found["rows"] = {known: found["rows"][known] for known in NAMES if known in found["rows"]}
        given.to.write_text(json.dumps(found, indent=1) + "\n")
    print(f"\n{show(Row(**row) for rows in found['rows'].values() for row in rows)}\n\nwritten to {given.to}")
    failed = [name for name in given.only if name in found["failed"]]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
