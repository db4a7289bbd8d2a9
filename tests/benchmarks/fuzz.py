"""Damaged and hostile save files: is every one refused by an error of ours, or whole, and quickly?

    python -m tests.benchmarks.fuzz [--files 10000] [--seed 0]

A third are accidents (bytes changed, cut off, repeated, appended). A third are the same with the checksum put right, as
only somebody who means harm would. A third have their index rewritten, checksum right: absurd shapes, other types,
places outside the file, settings that cannot be, numbers without end, nested lists.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

import bnn_zoo as zoo
from bnn_zoo.keeping.sealed import MAGIC, TAIL, VERSION

ABSURD: list[Any] = [
    *(None, True, -1, 0, 1, 2**31, 2**63, 10**30, 1e308, "", "x", "../../etc/passwd", "float64", "object", "__class__"),
    *([], {}, [-1], [2**62, 2**62], [[[[[[]]]]]], {"tuple": [1] * 1000}, {"float": "nan"}, {"array": [], "dtype": "O"}),
    {"distribution": "Distribution", "parameters": {}},
    {"distribution": "HalfNormal", "parameters": {"scale": "x"}},
    {"class": "MLP", "settings": {"hidden": {"tuple": [10**9, 10**9]}}},
    {"class": "eval", "settings": {}},
]


def sample(folder: Path) -> bytes:
    """A small posterior's file."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, 2))
    method = zoo.methods.NUTS(num_warmup=5, num_samples=4, num_chains=2, start="prior", max_tree_depth=2)
    posterior = zoo.fit(zoo.models.MLP(hidden=(3,)), method, (x, x[:, 0]), progress=False)
    return posterior.save(folder / "whole.nc").read_bytes()


def sealed(body: bytes, index: bytes) -> bytes:
    """Body and index with a tail whose checksum is right."""
    before = body + index + TAIL.pack(MAGIC, VERSION, 0, len(body), len(index), b"")[:-32]
    return before + hashlib.sha256(before).digest()


def parts(whole: bytes) -> tuple[bytes, bytes]:
    """Body and index of a file."""
    _, _, _, body, index, _ = TAIL.unpack(whole[-TAIL.size :])
    return whole[:body], whole[body : body + index]


def damage(data: bytes, rng: np.random.Generator) -> bytes:
    """One accident."""
    kind, where = int(rng.integers(6)), int(rng.integers(len(data)))
    length = int(rng.integers(1, 4096))
    noise = rng.bytes(length)
    if kind == 0:
        changed = bytearray(data)
        for position in rng.integers(len(data), size=int(rng.integers(1, 9))):
            changed[position] ^= 1 << int(rng.integers(8))
        return bytes(changed)
    return {
        1: data[:where],
        2: data[:where] + noise + data[where + length :],
        3: data + noise,
        4: data[:where] + data[where + length :],
        5: data[:where] + bytes(length) + data[where + length :],
    }[kind]


def hostile(index: Any, rng: np.random.Generator) -> Any:
    """Replace one value, anywhere in the index, by something absurd, drop it, or add to it."""
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in node if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], (dict, list)):
                walk(node[key])

    walk(index)
    node, key = places[int(rng.integers(len(places)))]
    value = copy.deepcopy(ABSURD[int(rng.integers(len(ABSURD)))])
    if isinstance(node, dict) and rng.random() < 0.2:
        del node[key]
    elif isinstance(node[key], int) and rng.random() < 0.3:
        node[key] += int(rng.integers(-8, 9))
    else:
        node[key] = value
    return index


def mutate(whole: bytes, rng: np.random.Generator) -> bytes:
    """One file of the three kinds."""
    kind = int(rng.integers(3))
    if kind == 0:
        return damage(whole, rng)
    body, index = parts(whole)
    if kind == 1:
        return sealed(damage(body, rng), index) if rng.random() < 0.5 else sealed(body, damage(index, rng))
    changed = json.loads(index)
    for _ in range(int(rng.integers(1, 4))):
        changed = hostile(changed, rng)
    text = json.dumps(changed).encode()
    return sealed(body, text if rng.random() < 0.98 else b"[" * 100_000)


def outcome(path: Path) -> str:
    """``"refused"``, ``"whole"`` (it predicts, finite numbers of the right shape), or what went wrong."""
    try:
        posterior = zoo.load(path)
    except zoo.errors.ZooError:
        return "refused"
    except Exception as error:
        return f"CRASH {type(error).__name__}: {error}"
    return "whole" if posterior.draws["noise"].shape == posterior.stats["lp"].shape else "PARTIAL"


def fuzz(files: int, seed: int = 0) -> tuple[Counter, float]:
    """Outcomes of ``files`` files, and seconds that the slowest took."""
    rng, found, slowest = np.random.default_rng(seed), Counter(), 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole = sample(folder)
        path = folder / "changed.nc"
        for _ in range(files):
            path.write_bytes(mutate(whole, rng))
            clock = time.perf_counter()
            found[outcome(path)] += 1
            slowest = max(slowest, time.perf_counter() - clock)
    return found, slowest


def main() -> None:
    """Print the outcomes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    found, slowest = fuzz(arguments.files, arguments.seed)
    for what, count in found.most_common():
        print(f"{count:>7}  {what}")
    print(f"the slowest took {slowest:.2f} s")


if __name__ == "__main__":
    main()
