"""How many threads NumPy's and SciPy's linear algebra take: one, for matrices whose factors take milliseconds.

OpenBLAS parks its own threads beside XLA's. To wake them, on cores that XLA has just used, takes longer than the work
itself: 240 ms were measured for a Cholesky factor of 500 rows that one thread makes in 2 ms.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

MOST_ROWS = 1500  # beyond, threads pay


def one_thread(rows: int) -> AbstractContextManager[Any]:
    """Keep the linear algebra of a block to one thread, if its matrices have so few rows."""
    return nullcontext() if rows > MOST_ROWS else _controller().limit(limits=1, user_api="blas")


@cache
def _controller() -> Any:
    import scipy.linalg  # noqa: F401  its library is one of those that are kept to one thread
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
