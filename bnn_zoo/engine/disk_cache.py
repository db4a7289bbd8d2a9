"""Compiled programs kept between processes: JAX's persistent cache, in a folder of our own, for our programs alone.

JAX's settings for it belong to the whole process. They are set while a program of this package is being compiled, and
put back right after it, so that what else a process compiles is cached, or not, as its owner has said. An owner who
has named a folder for JAX (``jax_compilation_cache_dir``) or turned its cache off (``jax_enable_compilation_cache``) is
left alone altogether: our programs then go where theirs go.

JAX loads what it finds in the folder without a question, as it would load code: only its owner may write there.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import jax
from jax.experimental.compilation_cache.compilation_cache import reset_cache

from bnn_zoo.errors import bad_type

log = logging.getLogger("bnn_zoo")

VARIABLE = "BNN_ZOO_COMPILE_CACHE"
OFF = ("off", "0", "false", "no")
MOST_BYTES = 2**30  # beyond, the programs that were used least recently are removed
SETTINGS = {  # every program, however quickly compiled: a fit has many small ones
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": 0,
    "jax_raise_persistent_cache_errors": True,  # rather than a warning for each program, which `compiled_once` mends
}

_lock = threading.Lock()
_inside = 0
_before: dict[str, Any] = {}
_chosen: Path | None = None
_known = False


def compile_cache(where: bool | str | os.PathLike = True) -> Path | None:
    """Choose where compiled programs are kept between processes, from now on and for this process.

    A first fit in a new process then loads its programs instead of compiling them. Without a call it is as the
    environment variable ``BNN_ZOO_COMPILE_CACHE`` says, ``off`` or a folder, and else the user's cache folder. Beyond
    1 GiB, the programs used least recently are removed when a process ends. JAX's own settings, where they name a
    folder or turn its cache off, go before this one.

    Parameters
    ----------
    where : bool or path-like
        ``True`` for the user's cache folder, ``False`` for not at all, or a folder, which is made. JAX runs what it
        finds there, so nobody else should be able to write to it.

    Returns
    -------
    Path or None
        The folder; ``None`` where nothing is kept, because it was turned off or cannot be written.

    Raises
    ------
    ZooTypeError
        If ``where`` is neither.
    """
    global _chosen, _known
    if not isinstance(where, (bool, str, os.PathLike)):
        raise bad_type("where", "True, False or a folder", repr(where), "False turns the cache off.")
    with _lock:
        _chosen, _known = (_usable(_standard() if where is True else Path(where)) if where is not False else None), True
    return _chosen


def compile_kept(compile_program: Callable[[], Any], name: str) -> Any:
    """Call ``compile_program``, which compiles the program ``name``, with the cache in place around it."""
    try:
        with _in_place() as folder:
            return compile_program()
    except Exception as error:
        if folder is None:
            raise
        with _switched({"jax_enable_compilation_cache": False}):
            program = compile_program()  # raises again what is not the cache's fault
        # An entry that a killed process left half-written is never written again unless it is removed.
        _remove(folder.glob(f"jit_{name}-*"))
        log.warning("the program %s kept in %s could not be used (%s), and was compiled anew", name, folder, error)
        return program


@contextmanager
def _in_place() -> Iterator[Path | None]:
    """JAX's cache in our folder, where its owner has not said otherwise; the folder, or None."""
    global _inside
    with _lock:
        if _inside == 0:
            _before.clear()
            folder = _folder() if jax.config.jax_compilation_cache_dir is None else None
            if folder is not None and jax.config.jax_enable_compilation_cache:
                wanted = {"jax_compilation_cache_dir": str(folder), **SETTINGS}
                _before.update({name: getattr(jax.config, name) for name in wanted})
                _set(wanted)
        _inside += 1
        ours = Path(jax.config.jax_compilation_cache_dir) if _before else None
    try:
        yield ours
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0 and _before:
                _set(_before)
                reset_cache()  # JAX would go on using the folder that it has opened


@contextmanager
def _switched(settings: dict[str, Any]) -> Iterator[None]:
    with _lock:
        before = {name: getattr(jax.config, name) for name in settings}
        _set(settings)
        reset_cache()
    try:
        yield
    finally:
        with _lock:
            _set(before)
            reset_cache()


def _set(settings: dict[str, Any]) -> None:
    for name, value in settings.items():
        jax.config.update(name, value)


def _folder() -> Path | None:
    """The folder in use; looked for once a process."""
    global _chosen, _known
    if not _known:
        named = os.environ.get(VARIABLE, "")
        _chosen = None if named.lower() in OFF else _usable(Path(named).expanduser() if named else _standard())
        _known = True
    return _chosen


def _standard() -> Path:
    import platformdirs

    return Path(platformdirs.user_cache_dir("bnn_zoo")) / "compiled"


def _usable(folder: Path) -> Path | None:
    """The folder, made, and to be tidied in the end; None, with a word about it, where it cannot be written."""
    folder = folder.expanduser().absolute()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(f"no permission to write in {folder}")
    except OSError as error:
        log.warning("compiled programs are not kept: %s. %s=off silences this.", error, VARIABLE)
        return None
    # When nobody waits any more: to look at a thousand programs takes a first fit 0.1 seconds, as every look lets go of
    # the interpreter lock, which the thread that traces gives back late.
    atexit.unregister(_tidy_at_exit)
    atexit.register(_tidy_at_exit, folder)
    return folder


def _tidy_at_exit(folder: Path) -> None:
    with suppress(OSError):  # of a folder that has gone
        _tidy(folder, MOST_BYTES)


def _tidy(folder: Path, most_bytes: int) -> None:
    """Remove what was used least recently until the rest is of three quarters of the size allowed."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith("jit_"):
                continue
            try:
                seen = entry.stat()
            except OSError:  # another process tidies as well
                continue
            found.append((max(seen.st_atime, seen.st_mtime), seen.st_size, entry.path))
    total = sum(size for _, size, _ in found)
    if total <= most_bytes:
        return
    for _, size, name in sorted(found):
        if total <= 0.75 * most_bytes:
            return
        _remove([Path(name)])
        total -= size


def _remove(paths: Any) -> None:
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            log.info("%s could not be removed: %s", path, error)
