"""Strict JAX for all tests: silent broadcasting between ranks is an error, and warnings are (``pyproject.toml``)."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator

os.environ["MPLBACKEND"] = "Agg"  # before anything imports matplotlib

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")

# Compiling is most of what the tests do, and workers compile much the same: they share what they have compiled, for
# this run alone, so that every run begins from nothing. Workers and their own processes inherit the folder.
SHARED = None
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    SHARED = tempfile.mkdtemp(prefix="bnn_zoo_tests_")
    for setting, value in {
        "jax_compilation_cache_dir": SHARED,
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }.items():
        jax.config.update(setting, value)
        os.environ[setting.upper()] = str(value)


def pytest_unconfigure() -> None:
    """Leave nothing behind: called where the run began, and in workers, which have no folder of their own."""
    if SHARED is not None:
        shutil.rmtree(SHARED, ignore_errors=True)


COMPILED = "/jax/core/compile/backend_compile_duration"


class Compilations:
    """How often XLA compiled a program since the last `reset`, whoever asked for it."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, event: str, seconds: float, **_: object) -> None:
        self.count += event == COMPILED

    def reset(self) -> None:
        self.count = 0


@pytest.fixture(scope="session", autouse=True)
def heed_interrupts() -> None:
    """A shell starts what runs in the background with Ctrl-C ignored; tests of interrupts need it heard."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def compilations() -> Iterator[Compilations]:
    """Count XLA compilations for the length of a test.

    The count is first seen to move, so that a renamed event of another JAX fails rather than passes everything.
    """
    counter = Compilations()
    jax.monitoring.register_event_duration_secs_listener(counter)
    try:
        jax.jit(lambda a: a + 1).lower(1.0).compile()
        assert counter.count == 1, f"JAX no longer reports {COMPILED}"
        counter.reset()
        yield counter
    finally:
        jax.monitoring.unregister_event_duration_listener(counter)
