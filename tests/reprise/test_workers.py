"""Pools of processes, when they are interrupted."""

from __future__ import annotations

import multiprocessing
import threading
import time
from concurrent.futures import BrokenExecutor
from unittest.mock import Mock

import pytest

from reprise import UserError, workers
from reprise.run import Progress, Request


@pytest.mark.parametrize("stops", [False, True])
def test_an_interrupted_pool_leaves_no_process_and_no_thread(stops: bool) -> None:
    """A thread that is left meets the end of Python, which then tells of a closed file."""
    threads, begun = set(threading.enumerate()), time.monotonic()
    with pytest.raises(KeyboardInterrupt), workers.pool(2) as pool:  # noqa: PT012 (the interruption ends the block)
        running = [pool.processes.submit(time.sleep, 60) for _ in range(4)]
        while len(multiprocessing.active_children()) < 2:
            time.sleep(0.01)
        if stops:
            pool.stop()
        raise KeyboardInterrupt
    assert set(threading.enumerate()) <= threads
    assert multiprocessing.active_children() == []
    assert all(each.cancelled() or isinstance(each.exception(), BrokenExecutor) for each in running)
    assert time.monotonic() - begun < 30


def test_a_stopped_pool_takes_nothing_more() -> None:
    request, errand = Mock(Request, paper=Mock(slug="toys")), Mock(workers.Errand, turn=Mock())
    errand.turn.stage.name = "attention"
    with workers.pool(2) as pool:
        pool.stop()
        with pytest.raises(UserError, match="toys: interrupted before attention; run it again to go on"):
            pool.execute(request, [errand], Progress())
        assert multiprocessing.active_children() == []
