"""The table of speed in README.md, from a file that `python -m tests.benchmarks --to FILE` has written.

    python -m tests.benchmarks.readme [tests/benchmarks/results/cpu.json]

Replaces what is between ``<!-- table: bench -->`` and ``<!-- end -->``; `tests/pages/test_documents.py` holds README.md
to the file that is committed.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from tests.benchmarks.rows import Row, markdown

ROOT = Path(__file__).parents[2]
COMMITTED = Path(__file__).parent / "results" / "cpu.json"
BLOCK = re.compile(r"(?<=<!-- table: bench -->\n).*?(?=\n<!-- end -->)", flags=re.DOTALL)


def block(bench: dict[str, Any]) -> str:
    """What the numbers are of, and the numbers."""
    return f"{caption(bench)}\n\n{markdown(Row(**row) for rows in bench['rows'].values() for row in rows)}"


def caption(bench: dict[str, Any]) -> str:
    """One line: machine, day, versions, and the command that made the file."""
    machine = bench["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    short = "" if bench["mode"] == "full" else f" BENCH_ARGS=--{bench['mode']}"
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_GiB']:g} GiB; {machine['platform']}; "
        f"{machine['date']}; Python {machine['python']}, {versions}. `make bench{short}`"
    )


def main() -> None:
    """Rewrite the block."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, default=COMMITTED)
    made = block(json.loads(parser.parse_args().file.read_text()))
    readme = ROOT / "README.md"
    readme.write_text(BLOCK.sub(lambda _: made, readme.read_text()))


if __name__ == "__main__":
    main()
