"""The tables of README.md that are made of files which benchmarks have written.

    python -m tests.benchmarks.readme

Replaces what is between ``<!-- table: NAME -->`` and ``<!-- end -->`` for ``bench``, from what
`python -m tests.benchmarks --to FILE` has written, and ``two_minutes``, from what `tests.benchmarks.two_minutes` has;
`tests/pages/test_documents.py` holds README.md to the files that are committed.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from tests.benchmarks import two_minutes
from tests.benchmarks.rows import Row, markdown

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results"


def tables() -> dict[str, str]:
    """Tables by name, as README.md should have them."""
    return {
        "bench": block(json.loads((RESULTS / "cpu.json").read_text())),
        "two_minutes": two_minutes.markdown(two_minutes.kept_in(RESULTS / "two_minutes.jsonl")),
    }


def block(bench: dict[str, Any]) -> str:
    """What the numbers of ``make bench`` are of, and the numbers."""
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


def put(name: str, table: str, text: str) -> str:
    """Return ``text`` with ``table`` in the place of its name."""
    place = re.compile(rf"(?<=<!-- table: {name} -->\n).*?(?=\n<!-- end -->)", flags=re.DOTALL)
    return place.sub(lambda _: table, text)


def main() -> None:
    """Rewrite the tables."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    readme = ROOT / "README.md"
    text = readme.read_text()
    for name, table in tables().items():
        text = put(name, table, text)
    readme.write_text(text)


if __name__ == "__main__":
    main()
