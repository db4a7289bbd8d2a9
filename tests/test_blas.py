"""Small matrices are factorised by one thread, and the setting is as it was afterwards."""

from __future__ import annotations

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from bnn_zoo.engine.blas import MOST_ROWS, one_thread


def threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


@pytest.mark.parametrize(("rows", "inside"), [(10, {1}), (MOST_ROWS + 1, {2})])
def test_small_matrices_take_one_thread(rows, inside):
    import scipy.linalg  # noqa: F401

    with threadpool_limits(limits=2, user_api="blas"):
        with one_thread(rows):
            assert threads() == inside
        assert threads() == {2}
