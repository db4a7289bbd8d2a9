"""Several processes, one fit: the same script on each, its own share of the chains or members, all of the draws.

Chains do not see each other, so nothing crosses from process to process while they run. What each has made is exchanged
at the end (and where starts have been trained) through the key-value store of JAX's coordination service: not by
collectives of the devices, which would have to wait, all the while spinning or up to their own time-out, for the
slowest chain. Every process posts what it has, or that it failed, under the number of the exchange, and reads what the
others posted: so all of them go through the same exchanges, and an error on one is an error on all.

A process that dies without a word is found by the coordination service, by a heartbeat that stays out, and the others
are then ended by it (``heartbeat_timeout_seconds`` of `jax.distributed.initialize`: 100 seconds).
"""

from __future__ import annotations

import io
import itertools
import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from bnn_zoo.errors import ProcessError, bad_value

log = logging.getLogger("bnn_zoo")

CHUNK_BYTES = 2**20  # of a message to the coordination service
SLICE_MS = 2000  # of waiting, so that a Ctrl-C is heard
PATIENCE = 60.0  # seconds after which it is said who is waited for
OPENING, CLOSING = "opening", "closing"

_numbers = itertools.count()
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Hosts:
    """Process ``rank``, counted from 0, of ``size`` that make one fit: as each of them sees itself."""

    rank: int
    size: int

    def share(self, num: int) -> slice:
        """Return which of ``num`` chains or members are this process's; some processes may have one more."""
        return slice(num * self.rank // self.size, num * (self.rank + 1) // self.size)

    def check_enough(self, argument: str, num: int) -> None:
        """Raise unless there is a chain for every process.

        Raises
        ------
        ZooValueError
            Naming both numbers.
        """
        if num < self.size:
            mend = "Give more, start fewer processes, or fit on each alone with processes='alone'."
            raise bad_value(argument, f"at least the {self.size} processes that share them", num, mend)

    # --- exchanges --------------------------------------------------------------------------------------------------

    def exchange(self, name: str, own: Arrays) -> list[Arrays]:
        """Return what every process, in the order of their numbers, has for ``name``.

        Raises
        ------
        ProcessError
            If another process failed, is somewhere else in the script, or is gone.
        """
        number = next(_numbers)
        self._post(number, {"name": name}, own)
        found = [own if rank == self.rank else self._read(number, rank, name) for rank in range(self.size)]
        # Whoever posts under a number has read all there was under the one before.
        _client().key_value_delete(f"{_folder(number - 1)}/{self.rank}/")
        return found

    def gather(self, name: str, tree: Any) -> Any:
        """Return a tree of arrays with the shares of all processes, joined along the leading axis."""
        leaves, structure = jax.tree.flatten(tree)
        shares = self.exchange(name, {str(i): np.asarray(leaf) for i, leaf in enumerate(leaves)})
        return jax.tree.unflatten(structure, [np.concatenate([s[str(i)] for s in shares]) for i in range(len(leaves))])

    def total(self, name: str, number: int) -> int:
        """Return the sum of a whole number over processes."""
        return sum(int(share["0"]) for share in self.exchange(name, {"0": np.asarray(number)}))

    def everywhere(self, name: str, here: bool) -> bool:
        """Return whether all processes say yes."""
        return self.total(name, int(here)) == self.size

    @contextmanager
    def together(self, identity: dict[str, str]) -> Iterator[None]:
        """Make a block end on all processes or on none: an error in it on one is raised on the others too.

        Raises
        ------
        ProcessError
            If another process failed.
        ZooValueError
            If processes are not about the same fit; ``identity`` says what that is.
        """
        try:
            self._check_same(identity)
            yield
            self.exchange(CLOSING, {})
        except ProcessError:  # the others have seen what this one has, and have left as well
            raise
        except BaseException as error:
            self._post(next(_numbers), {"failed": f"{type(error).__name__}: {error}"[:500]}, {})
            raise

    def _check_same(self, identity: dict[str, str]) -> None:
        text = np.frombuffer(json.dumps(identity).encode(), np.uint8)
        for rank, share in enumerate(self.exchange(OPENING, {"0": text})):
            its = json.loads(share["0"].tobytes())
            for name, value in identity.items():
                if its.get(name) != value:
                    got = f"{value!r} in process {self.rank} and {its.get(name)!r} in process {rank}"
                    mend = "Run the same script, or fit on each alone with processes='alone'."
                    raise bad_value(name, "the same in all processes that share a fit", got, mend)

    # --- the key-value store ----------------------------------------------------------------------------------------

    def _post(self, number: int, header: dict[str, Any], arrays: Arrays) -> None:
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        data, folder = buffer.getvalue(), f"{_folder(number)}/{self.rank}"
        chunks = [data[i : i + CHUNK_BYTES] for i in range(0, len(data), CHUNK_BYTES)]
        for i, chunk in enumerate(chunks):
            _client().key_value_set_bytes(f"{folder}/{i}", chunk)
        # Last, so that it is there only when all is.
        _client().key_value_set(f"{folder}/header", json.dumps({**header, "chunks": len(chunks)}))

    def _read(self, number: int, rank: int, name: str) -> Arrays:
        folder = f"{_folder(number)}/{rank}"
        header = json.loads(self._wait_for(f"{folder}/header", rank))
        mend = "The fit is given up on all processes: mend that one and start them again."
        if "failed" in header:
            raise ProcessError(f"process {rank} should finish its share of the fit; got {header['failed']}. {mend}")
        if header["name"] != name:
            got = f"process {rank} at {header['name']!r}, where this one is at {name!r}"
            raise ProcessError(f"processes should make the same fits in the same order; got {got}. {mend}")
        chunks = [_client().blocking_key_value_get_bytes(f"{folder}/{i}", 60_000) for i in range(header["chunks"])]
        with np.load(io.BytesIO(b"".join(chunks)), allow_pickle=False) as file:
            return {key: file[key] for key in file.files}

    def _wait_for(self, key: str, rank: int) -> str:
        since, said = time.monotonic(), False
        while True:
            try:
                return _client().blocking_key_value_get(key, SLICE_MS)
            except jax.errors.JaxRuntimeError as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise ProcessError(
                        f"process {rank} should be there; got {str(error)[:300]}. Start again."
                    ) from error
            if not said and time.monotonic() - since > PATIENCE:
                said = True
                log.info("process %d has waited a minute for process %d", self.rank, rank)


def present() -> Hosts | None:
    """Return the processes of `jax.distributed.initialize`, or None where this is the only one."""
    return Hosts(jax.process_index(), jax.process_count()) if jax.process_count() > 1 else None


def _folder(number: int) -> str:
    return f"bnn_zoo/{number}"


def _client() -> Any:
    # JAX has no public name for the client of the service that it starts; multihost_utils uses it by this one.
    from jax._src import distributed

    client = distributed.global_state.client
    if client is None:
        mend = "Call jax.distributed.initialize() first, or fit with processes='alone'."
        raise bad_value("the processes", "joined by jax.distributed", "processes without its service", mend)
    return client
