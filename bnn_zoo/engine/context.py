"""How a fit runs, as opposed to what it computes: progress, cores, devices, hosts, stopwatch. Draws depend on none."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from jax.sharding import Mesh

from bnn_zoo.engine.compiled import Request, Stopwatch, compile_together
from bnn_zoo.engine.hosts import Hosts
from bnn_zoo.engine.journal import Journal
from bnn_zoo.engine.kept import IN_MEMORY, Keep

log = logging.getLogger("bnn_zoo")

CHAIN_METHODS = ("auto", "threads", "vectorized", "sharded")
PROGRESS = (True, False, "always")


@dataclass(frozen=True)
class Context:
    """Handed to ``Method.run`` beside the problem and the key."""

    progress: bool | str = False
    chain_method: str = "auto"
    watch: Stopwatch = field(default_factory=Stopwatch)
    journal: Journal | None = None
    mesh: Mesh | None = None  # of this process's devices; None: all of them, as they are of use
    hosts: Hosts | None = None  # that share this fit; None where one process makes all of it
    keep: Keep = IN_MEMORY  # of the draws of chains
    ahead: tuple[Request, ...] = ()  # programs that are called when the method has run
    told: dict[str, None] = field(default_factory=dict)  # in order

    def compile_together(self, requests: list[Request]) -> list[Callable]:
        """Compile the method's programs at once, and beside them those that come after."""
        return compile_together(requests, self.watch, self.ahead)

    def tell(self, line: str) -> None:
        """Note where something runs, and why; the first, which is what was asked to be fitted, is logged."""
        if not self.told:
            log.info("%s", line)
        self.told[line] = None


class Progress:
    """One bar for all chains or members, safe from threads; silent where nobody looks, unless ``show="always"``."""

    def __init__(self, title: str, total: int, show: bool | str) -> None:
        self._lock = threading.Lock()
        self._bar = _bar(title, total, always=show == "always") if show else None

    def advance(self, steps: int, **notes: str) -> None:
        """Count ``steps`` more and show ``notes`` beside the bar."""
        if self._bar is None:
            return
        with self._lock:
            if notes:
                self._bar.set_postfix(notes, refresh=False)
            self._bar.update(steps)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()


def _bar(title: str, total: int, *, always: bool) -> Any:
    from tqdm import tqdm

    options: dict[str, Any] = {"desc": title, "total": total, "unit": "it", "leave": False, "mininterval": 0.2}
    shell = sys.modules.get("IPython")
    in_notebook = shell is not None and type(shell.get_ipython()).__name__ == "ZMQInteractiveShell"
    if in_notebook:
        return tqdm(**options, file=sys.stdout)
    return tqdm(**options, disable=False if always else None)
