"""BLAS is held to one thread for large batches, and has its own number back afterwards."""

from __future__ import annotations

from training.rl.blas import SMALL, one_thread


def threads() -> list[int]:
    from threadpoolctl import threadpool_info

    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


def test_large_batches_use_one_thread_and_small_ones_are_left_alone() -> None:
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=2, user_api="blas"):
        before = threads()
        assert set(before) == {2}
        with one_thread(SMALL + 1):
            assert set(threads()) == {1}
        assert threads() == before
        with one_thread(SMALL):
            assert threads() == before
        try:
            with one_thread(SMALL + 1):
                raise RuntimeError
        except RuntimeError:
            assert threads() == before
