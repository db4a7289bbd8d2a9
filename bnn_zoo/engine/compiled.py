"""Compile once: programs ahead of time, kept by what they compute, with the seconds it took.

A program is a plain function of this package plus static settings plus arrays. Its key is the function, the
fingerprint of the settings, and the structure and shapes of the arrays: data are arguments and never constants, so a
second fit of the same shapes compiles nothing. Compiled programs are called from many threads.
"""

from __future__ import annotations

import gc
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from bnn_zoo.engine.disk_cache import compile_kept
from bnn_zoo.engine.identity import fingerprint
from bnn_zoo.engine.resources import available_cores

CAPACITY = 256
CAPACITY_TRACED = 8

Request = tuple[Callable, tuple, tuple]  # a function, its static settings, its arguments

_programs: OrderedDict[Any, Any] = OrderedDict()
_shapes: OrderedDict[Any, Any] = OrderedDict()
_traced: OrderedDict[Any, Any] = OrderedDict()  # what was traced for its shapes, until it is compiled
_lock = threading.Lock()
_tracing = threading.Lock()


QUICK_TO_COMPILE = {"xla_backend_optimization_level": 0}
_once: set[Callable] = set()


def runs_once(function: Callable) -> Callable:
    """Mark a program that a fit calls once, so that compiling it quickly beats running it quickly."""
    _once.add(function)
    return function


MOST_FROZEN = 2000  # objects: the interpreter's own are some hundred


@contextmanager
def sparing_old_objects() -> Iterator[None]:
    """Leave out of the garbage collector's rounds what was there before, while programs are traced.

    Tracing makes so many objects that the collector goes its rounds over everything that has been imported, a tenth of
    a second each, of which a first fit has several. Where objects are frozen already, by somebody else or from here,
    nothing is done.
    """
    if not gc.isenabled() or gc.get_freeze_count() >= MOST_FROZEN:
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@dataclass
class Stopwatch:
    """Seconds spent compiling and in all, for ``posterior.timing``."""

    compile_seconds: float = 0.0
    total_seconds: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add_compile(self, seconds: float) -> None:
        """Add seconds of compilation; safe from threads."""
        with self._lock:
            self.compile_seconds += seconds

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the seconds of the block."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.total_seconds += time.perf_counter() - begin

    @property
    def run_seconds(self) -> float:
        """Seconds not spent compiling."""
        return max(0.0, self.total_seconds - self.compile_seconds)


def compiled(function: Callable, static: tuple, *args: Any, watch: Stopwatch | None = None) -> Callable:
    """Return ``function(*static, *args)`` compiled for arguments like ``args``; call it with the arrays alone.

    ``args`` may hold `jax.ShapeDtypeStruct` in place of arrays. ``static`` is closed over, so it must be settings:
    anything that `fingerprint` tells apart.
    """
    key = _key(function, static, args)
    found = _find(key)
    if found is not None:
        return found
    begin = time.perf_counter()
    with sparing_old_objects():
        program = _keep(key, _compile(function, _lower(key, function, static, args)))
    if watch is not None:
        watch.add_compile(time.perf_counter() - begin)
    return program


def call(function: Callable, static: tuple, *args: Any, watch: Stopwatch | None = None) -> Any:
    """Compile if need be, and call."""
    return compiled(function, static, *args, watch=watch)(*args)


def compile_together(
    requests: list[Request], watch: Stopwatch | None = None, also: tuple[Request, ...] = ()
) -> list[Callable]:
    """Compile several programs at once: XLA lets go of the interpreter lock, so two take little longer than one.

    Each request is ``(function, static, args)``. Tracing is done one after the other, as NumPyro's stack of effect
    handlers is shared by all threads, and while what was traced before is being compiled, or loaded from disk, a core
    each. What takes longest goes first, then what has been traced already, then ``also``, which are small programs that
    somebody else will call (what is wrong with one is for its caller to hear).
    """
    keys = [_key(*request) for request in requests]
    missing = [i for i, key in enumerate(keys) if _find(key) is None]
    begin = time.perf_counter()
    if missing:
        slow = [i for i in missing if requests[i][0] not in _once]
        traced = [i for i in missing if i not in slow and _find(keys[i], _traced) is not None]
        with sparing_old_objects(), ThreadPoolExecutor(available_cores()) as pool:

            def submit(key: tuple, request: Request) -> Future:
                return pool.submit(_compile, request[0], _lower(key, *request))

            programs = {keys[i]: submit(keys[i], requests[i]) for i in slow + traced}
            others = {}
            for request in also:
                with suppress(Exception):
                    if _find(key := _key(*request)) is None:
                        others[key] = submit(key, request)
            programs |= {keys[i]: submit(keys[i], requests[i]) for i in missing if i not in slow + traced}
            for key, program in programs.items():
                _keep(key, program.result())
            for key, program in others.items():
                with suppress(Exception):
                    _keep(key, program.result())
        if watch is not None:
            watch.add_compile(time.perf_counter() - begin)
    return [_programs[key] for key in keys]


def shapes_of(function: Callable, static: tuple, *args: Any, watch: Stopwatch | None = None) -> Any:
    """Shapes of what ``function(*static, *args)`` gives, as `jax.ShapeDtypeStruct`, for programs that begin with it.

    It is traced for that only once: what was traced is kept for compiling it.
    """
    key = _key(function, static, args)
    found = _find(key, _shapes)
    if found is not None:
        return found
    begin = time.perf_counter()
    with sparing_old_objects():
        traced = _trace(function, static, args)
    if watch is not None:
        watch.add_compile(time.perf_counter() - begin)
    with _lock:
        _put(_shapes, key, traced.out_info, CAPACITY)
        _put(_traced, key, traced, CAPACITY_TRACED)
    return traced.out_info


def clear() -> None:
    """Forget every compiled program (for benchmarks of cold starts)."""
    with _lock:
        for kept in (_programs, _shapes, _traced):
            kept.clear()


def _key(function: Callable, static: tuple, args: tuple) -> tuple:
    leaves, structure = jax.tree_util.tree_flatten(args)
    shapes = tuple(_shape(leaf) for leaf in leaves)
    flags = (jax.config.jax_enable_x64, jax.config.jax_default_matmul_precision, jax.config.jax_numpy_rank_promotion)
    return function, fingerprint(static), structure, shapes, flags


def _find(key: tuple, kept: OrderedDict = _programs) -> Any:
    with _lock:
        if key in kept:
            kept.move_to_end(key)
        return kept.get(key)


def _keep(key: tuple, program: Callable) -> Callable:
    with _lock:
        _put(_programs, key, program, CAPACITY)
    return program


def _put(kept: OrderedDict, key: tuple, value: Any, capacity: int) -> None:
    """Keep ``value``, and no more than ``capacity`` in all; under the lock."""
    kept[key] = value
    while len(kept) > capacity:
        kept.popitem(last=False)


def _lower(key: tuple, function: Callable, static: tuple, args: tuple) -> Any:
    with _lock:
        traced = _traced.pop(key, None)
    traced = _trace(function, static, args) if traced is None else traced
    with _tracing:
        return traced.lower()


def _trace(function: Callable, static: tuple, args: tuple) -> Any:
    def closed(*arrays: Any) -> Any:
        return function(*static, *arrays)

    closed.__name__ = _name(function)
    with _tracing:
        return jax.jit(closed).trace(*args)


def _name(function: Callable) -> str:
    return getattr(function, "__name__", "program")


def _shape(leaf: Any) -> tuple:
    if isinstance(leaf, (jax.Array, jax.ShapeDtypeStruct)):
        sharding = leaf.sharding if isinstance(leaf, jax.Array) and getattr(leaf, "committed", False) else None
        return leaf.shape, str(leaf.dtype), sharding
    array = np.asarray(leaf)
    return array.shape, str(array.dtype), "weak" if type(leaf) in (int, float, bool) else None


def _compile(function: Callable, lowered: Any) -> Callable:
    options = QUICK_TO_COMPILE if function in _once else None
    return compile_kept(lambda: lowered.compile(compiler_options=options), _name(function))
