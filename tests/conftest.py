"""Strict JAX for all tests: silent broadcasting between ranks is an error, and warnings are (``pyproject.toml``)."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

os.environ["MPLBACKEND"] = "Agg"  # before anything imports matplotlib

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")

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
