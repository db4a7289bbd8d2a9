"""Every benchmark that needs no outside data, one after the other: ``make bench``.

Machine description first, so that a printed table can be judged. `starts` needs a folder of UCI sets:
run it by hand.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys

COMMANDS = (
    ("compilations",),
    ("cold", "--rounds", "5"),
    ("prediction",),
    ("sbc", "--simulations", "512"),
)


def main() -> None:
    """Run each in a process of its own, so that none warms another up."""
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    for name, *arguments in COMMANDS:
        print(f"\n=== {name} {' '.join(arguments)}", flush=True)
        subprocess.run([sys.executable, "-m", f"tests.benchmarks.{name}", *arguments], check=True)


if __name__ == "__main__":
    main()
