"""A file of arrays that any netCDF reader opens, sealed so that reading it back trusts nothing.

::

    netCDF4 (HDF5)  |  index: JSON  |  tail: 64 bytes

HDF5 ignores what follows its own end. `read` ignores HDF5: it takes the arrays straight from the places that the index
names, after the SHA-256 of everything before has been found right. So no parser of a binary format meets a damaged or
hostile file; an array can be no larger than the file that holds it; there are no links, no compression, no code.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from bnn_zoo.errors import ZooValueError, bad_value

if TYPE_CHECKING:
    import xarray as xr

MAGIC = b"BNNZOO\r\n"
TAIL = struct.Struct("<8sIIQQ32s")  # magic, version, spare, length of body, length of index, SHA-256
VERSION = 1
MOST_INDEX = 16 * 2**20
DTYPES = ("bool", "int8", "uint8", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64")
REFIT = "Fit and save again, or take another copy."


@dataclass(frozen=True)
class Contents:
    """What a sealed file holds: what was written about the arrays, and the arrays by name."""

    header: dict[str, Any]
    arrays: dict[str, np.ndarray]


def write(path: Path, tree: xr.DataTree, paths: dict[str, str], header: dict[str, Any]) -> None:
    """Write ``tree`` to ``path``, and an index of those of its variables that `read` is to give back.

    Parameters
    ----------
    path : Path
        Replaced at once or not at all: a crash leaves the old file or the new one.
    tree : xarray.DataTree
        Groups of numeric arrays.
    paths : dict
        Name of each array in `Contents` to its path in the tree, ``"/group/variable"``.
    header : dict
        Plain JSON.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        tree.to_netcdf(scratch, engine="h5netcdf")
        index = {"header": header, "names": sorted(paths), "arrays": _places(scratch, paths)}
        text = json.dumps(index, allow_nan=False).encode()
        with scratch.open("r+b") as file:
            body = file.seek(0, os.SEEK_END)
            file.write(text)
            lead = TAIL.pack(MAGIC, VERSION, 0, body, len(text), b"")[:-32]
            file.write(lead)
            file.flush()
            file.write(_digest(file, body + len(text) + len(lead)))
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def read(path: Path) -> Contents:
    """Read what `write` wrote.

    Raises
    ------
    ZooValueError
        If the file is missing, cut short, changed, newer, or not one of ours.
    """
    shown = repr(str(path))
    if not path.is_file():
        got = f"the folder {shown}" if path.is_dir() else f"{shown}, which is not there"
        raise bad_value("path", "a saved posterior", got, "Check the name; posterior.save(path) writes one.")
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        body, length, digest = _tail(file, size, shown)
        if _digest(file, size - 32) != digest:
            raise damaged(shown, "its checksum does not match")
        file.seek(body)
        try:
            index = json.loads(file.read(length))
            header, places = dict(index["header"]), dict(index["arrays"])
            if index["names"] != sorted(places):
                raise ValueError("arrays are missing, or are there that should not be")
            arrays = {str(name): _array(file, place, body) for name, place in places.items()}
        except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
            raise damaged(shown, f"its index cannot be used, {type(error).__name__}: {error}") from error
    return Contents(header, arrays)


def damaged(shown: str, why: str) -> ZooValueError:
    """Return the error for a file that is one of ours, and not whole."""
    return bad_value("path", "a whole saved posterior", f"{shown}: {why}", REFIT)


def _tail(file: BinaryIO, size: int, shown: str) -> tuple[int, int, bytes]:
    """Lengths of body and index, and the checksum."""
    file.seek(max(0, size - TAIL.size))
    tail = file.read(TAIL.size)
    if len(tail) < TAIL.size or tail[: len(MAGIC)] != MAGIC:
        file.seek(0)
        ours = file.read(8) == b"\x89HDF\r\n\x1a\n"
        why = "cut short, or netCDF of another program" if ours else "a file of another kind"
        raise bad_value("path", "a whole saved posterior", f"{shown}, {why}", REFIT)
    _, version, _, body, length, digest = TAIL.unpack(tail)
    if version != VERSION:
        got = f"{shown}, of format {version} where this bnn_zoo reads {VERSION}"
        raise bad_value("path", "of a format that is known", got, "Install the bnn_zoo that wrote it, or a newer one.")
    if body + length + TAIL.size != size or length > MOST_INDEX:
        raise damaged(shown, "its parts do not add up to its length")
    return body, length, digest


def _digest(file: BinaryIO, length: int) -> bytes:
    """SHA-256 of the first ``length`` bytes."""
    digest = hashlib.sha256()
    file.seek(0)
    while length > 0:
        block = file.read(min(length, 2**20))
        if not block:
            break
        digest.update(block)
        length -= len(block)
    return digest.digest()


def _places(path: Path, paths: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Where in the file the bytes of each array lie: stored whole and uncompressed, they are in one piece."""
    import h5py

    found = {}
    with h5py.File(path, "r") as file:
        for name, place in paths.items():
            stored = file[place]
            dtype = np.dtype(bool) if stored.attrs.get("dtype") == "bool" else stored.dtype.newbyteorder("=")
            offset = stored.id.get_offset()
            if (offset is None and stored.size) or dtype.name not in DTYPES:
                raise AssertionError(f"{place} is not stored in one piece")
            found[name] = {"offset": int(offset or 0), "shape": list(stored.shape), "dtype": dtype.name}
    return found


def _array(file: BinaryIO, place: dict[str, Any], body: int) -> np.ndarray:
    """One array, once its place has been found to lie in the body."""
    if place["dtype"] not in DTYPES:
        raise ValueError(f"dtype {place['dtype']!r}")
    dtype, offset, shape = np.dtype(place["dtype"]).newbyteorder("<"), place["offset"], place["shape"]
    numbers = [offset, *shape]
    if len(shape) > 32 or any(type(number) is not int or not 0 <= number <= body for number in numbers):
        raise ValueError(f"an array of shape {str(shape)[:80]} at {str(offset)[:80]}")
    count = 1
    for length in shape:
        count *= length
    if offset + count * dtype.itemsize > body:
        raise ValueError(f"an array of shape {str(shape)[:80]}, larger than the file")
    file.seek(offset)
    raw = file.read(count * dtype.itemsize)
    if dtype.kind == "b" and set(raw) - {0, 1}:
        raise ValueError("a truth value that is neither 0 nor 1")
    return np.frombuffer(raw, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)
