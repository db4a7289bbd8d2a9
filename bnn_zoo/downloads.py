"""Public files that the zoo reads but does not carry: taken from a folder, or downloaded once into the user's cache.

``uci-files.txt`` says of each file where it comes from and what the SHA-256 of its bytes is. Nothing is read unless its
hash is that one, wherever it was found. pooch downloads, tries again and keeps the cache; it is imported when a file is
first asked for.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from bnn_zoo.errors import ZooValueError, bad_value

FOLDER = "BNN_ZOO_DATA"
"""The environment variable that names a folder to read instead of the network."""

REGISTRY = Path(__file__).with_name("uci-files.txt")
TRIES = 3
# Seconds to wait for a connection, and for each piece of an answer: without a limit, a dead network hangs for good.
PATIENCE = (10, 30)


def find(path: str) -> Path:
    """Give a local copy of a registered file, its hash checked.

    With the environment variable ``BNN_ZOO_DATA`` set, it is ``path`` below that folder, and the network is left alone.
    Otherwise it is in the user's cache (``cache_folder()``), downloaded if it was not there or was damaged; on a
    terminal a progress bar on standard error shows how far the download is.

    Parameters
    ----------
    path : str
        As in ``uci-files.txt``: ``yacht/data.txt``.

    Raises
    ------
    ZooValueError
        The folder does not exist or lacks the file; the file has another hash than the registered one (both are
        named); no network, or a server that does not give the file (its address, and the way to do without it, are
        named); a cache that cannot be written.
    """
    files = _files()
    folder = _folder()
    return _download(files, path) if folder is None else _from_folder(files, path, folder)


def at_hand(path: str) -> bool:
    """Tell whether ``find(path)`` would do without the network; the hash is not checked."""
    return ((_folder() or cache_folder()) / path).is_file()


def cache_folder() -> Path:
    """Give the folder that downloads are kept in: the user's cache, as the operating system has it."""
    import pooch

    return Path(pooch.os_cache("bnn_zoo"))


def _files() -> Any:
    """Give what pooch knows after reading the registry: ``registry[path]`` is a hash, ``get_url(path)`` an address."""
    import pooch

    files = pooch.create(path=cache_folder(), base_url="", retry_if_failed=TRIES - 1)
    files.load_registry(REGISTRY)
    return files


def _folder() -> Path | None:
    """Give the folder that the environment names, if it names one."""
    named = os.environ.get(FOLDER)
    return Path(named).expanduser() if named else None


def _from_folder(files: Any, path: str, folder: Path) -> Path:
    import pooch

    if not folder.is_dir():
        mend = f"Correct that environment variable, or unset it to download into {cache_folder()}."
        raise bad_value(FOLDER, "a folder that exists", repr(str(folder)), mend)
    file = folder / path
    if not file.is_file():
        mend = f"Put {files.get_url(path)} there under that name, or unset the environment variable to download it."
        raise bad_value(FOLDER, f"a folder that holds {path}", f"{str(folder)!r}, which does not", mend)
    wanted, found = files.registry[path], pooch.file_hash(file)
    if found != wanted:
        mend = f"Copy {files.get_url(path)} there again, byte for byte (line ends too)."
        raise bad_value(str(file), f"the file with SHA-256 {wanted}", f"one with SHA-256 {found}", mend)
    return file


def _download(files: Any, path: str) -> Path:
    import pooch
    from requests.exceptions import RequestException  # what pooch downloads with

    # None for a program without a console.
    on_terminal = sys.stderr is not None and sys.stderr.isatty()
    try:
        # Before pooch does, which fails where two processes make the folder at the same time.
        (files.abspath / path).parent.mkdir(parents=True, exist_ok=True)
        downloader = pooch.HTTPDownloader(progressbar=on_terminal, timeout=PATIENCE)
        return Path(files.fetch(path, downloader=downloader))
    except RequestException as error:
        raise _no_answer(files, path, error) from error
    except ValueError as error:
        # pooch names both hashes in its first sentence, and has deleted what it got.
        got, mend = str(error).partition(". ")[0], f"A network's login page may be in the way. {_other_way(path)}"
        raise bad_value(path, f"the registered file at {files.get_url(path)}", got, mend) from error
    except OSError as error:
        mend = f"Make room there, or allow writing. {_other_way(path)}"
        raise bad_value("the cache", "a folder that can be written", f"{files.abspath} ({error})", mend) from error


def _no_answer(files: Any, path: str, error: Any) -> ZooValueError:
    # A response is false in the eyes of Python if it is an error.
    status = None if error.response is None else f"{error.response.status_code} {error.response.reason}"
    got = f"{status or f'no answer ({type(error).__name__})'} in {TRIES} tries"
    mend = f"Connect to the network and try again. {_other_way(path)}"
    return bad_value(path, f"downloaded from {files.get_url(path)}", got, mend)


def _other_way(path: str) -> str:
    return (
        f"Or fetch that address on another machine, and set the environment variable {FOLDER} to the folder where the "
        f"file lies as {path}."
    )
