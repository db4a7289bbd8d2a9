"""Names of files at the door: is there a folder to write in, is that a file at all?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from bnn_zoo.errors import bad_type, bad_value


def as_path(path: Any, argument: str = "path", example: str = "posterior.nc") -> Path:
    """Return ``path`` as a Path, ``~`` expanded.

    Raises
    ------
    ZooTypeError
        If it is no file name.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise bad_type(argument, "a file name", type(path).__name__, f"Pass a str such as {example!r}.")
    return Path(path).expanduser()


def writable_file(path: Any, example: str, argument: str = "path") -> Path:
    """Return ``path`` once a file can be written there, before any work whose result it is to hold.

    Raises
    ------
    ZooTypeError, ZooValueError
        If it is no file name, is a folder, or lies in a folder that does not exist.
    """
    target = as_path(path, argument, example)
    if target.is_dir():
        raise bad_value(argument, "a file", f"the folder {str(target)!r}", f"Add a file name, such as {example}.")
    if not target.parent.is_dir():
        mend = f"Make the folder first, pathlib.Path({str(target.parent)!r}).mkdir(parents=True)."
        raise bad_value(argument, "in a folder that exists", repr(str(target)), mend)
    return target
