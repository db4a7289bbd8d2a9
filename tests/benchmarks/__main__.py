"""Every benchmark that needs no outside data, one after the other: ``make bench``.

Machine description first, so that a printed table can be judged. `starts` needs a folder of UCI sets:
run it by hand. `members` and `laplace` compare with PyTorch, and run where ``pip install 'bnn-zoo[bench]'`` has.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import subprocess
import sys

COMMANDS = (
    ("compilations",),
    ("cold", "--rounds", "5"),
    ("prediction",),
    ("scores",),
    ("sbc", "--simulations", "512"),
    ("descent", "--seeds", "3"),
    ("distill",),
    ("sparse", "--activation", "tanh"),
)

AGAINST_TORCH = (
    ("members", "--rounds", "5"),
    ("laplace", "--rounds", "5"),
)


def main() -> None:
    """Run each in a process of its own, so that none warms another up."""
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    has_torch = all(importlib.util.find_spec(name) for name in ("torch", "laplace"))
    for name, *arguments in COMMANDS + (AGAINST_TORCH if has_torch else ()):
        print(f"\n=== {name} {' '.join(arguments)}", flush=True)
        subprocess.run([sys.executable, "-m", f"tests.benchmarks.{name}", *arguments], check=True)


if __name__ == "__main__":
    main()
