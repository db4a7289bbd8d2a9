"""A folder in which a fit writes down how far it has come, so that one that is killed can go on.

Every entry is one file of arrays, written beside its place and moved there: it is whole or not there at all.
"""

from __future__ import annotations

import io
import json
import logging
import os
import re
import zipfile
from pathlib import Path

import numpy as np

from bnn_zoo.errors import bad_value

log = logging.getLogger("bnn_zoo")

SECONDS = 1.0  # between two entries of a chain or a training run, so that writing costs little
FORMAT = "bnn_zoo checkpoint 1"
OWN_FILE = "fit.json"


class Journal:
    """Entries of one fit.

    Parameters
    ----------
    folder : Path
        Made if need be. One that holds another fit's entries is refused.
    identity : dict of str
        What makes a fit the same fit: model, method, data, seed, versions.
    """

    def __init__(self, folder: Path, identity: dict[str, str]) -> None:
        self.folder = folder
        if folder.exists() and not folder.is_dir():
            raise bad_value("checkpoint", "a folder", f"the file {str(folder)!r}", "Give another name.")
        own = folder / OWN_FILE
        if own.exists():
            _check_same(own, identity)
        elif folder.exists() and any(not name.startswith(".") for name in os.listdir(folder)):
            got = f"{str(folder)!r}, which holds other files"
            raise bad_value("checkpoint", "an empty folder, or that of this fit", got, "Give another name.")
        else:
            folder.mkdir(parents=True, exist_ok=True)
            self._write(OWN_FILE, json.dumps({"format": FORMAT, **identity}, indent=1).encode())

    def put(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Write an entry, in place of an earlier one of that name."""
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        self._write(f"{name}.npz", buffer.getvalue())

    def get(self, name: str) -> dict[str, np.ndarray] | None:
        """Return an entry; ``None``, with a warning in the log, for one that is damaged."""
        path = self.folder / f"{name}.npz"
        if not path.exists():
            return None
        try:
            with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                return {key: file[key] for key in file.files}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            log.warning("checkpoint entry %s is damaged (%s); going on from the one before", path, error)
            return None

    def _write(self, name: str, data: bytes) -> None:
        scratch = self.folder / f".{name}.{os.getpid()}.part"
        with scratch.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, self.folder / name)


def entry_name(title: str) -> str:
    """Return ``title`` as the name of an entry."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _check_same(own: Path, identity: dict[str, str]) -> None:
    try:
        kept = dict(json.loads(own.read_text()))
    except (OSError, ValueError, TypeError) as error:
        mend = "Delete the folder, or give another name."
        raise bad_value("checkpoint", "readable", f"a damaged {str(own)!r} ({error})", mend) from error
    for name, value in {"format": FORMAT, **identity}.items():
        if kept.get(name) != value:
            got = f"the folder {str(own.parent)!r} of one whose {name} is {kept.get(name)!r}, where this has {value!r}"
            raise bad_value("checkpoint", "that of the same fit", got, "Give another folder, or delete that one.")
