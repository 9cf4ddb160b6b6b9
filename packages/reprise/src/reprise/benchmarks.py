"""Benchmarks that packages register under the entry point `reprise.benches`: every row measured in one run.

A bench is a function that returns its rows as (name, name of the row it is compared with or None, callable). Seconds
are the median of the repeats, taken round-robin over the rows so that a noisy moment hits all of them alike, after one
untimed call each; memory is the peak that this first call adds to the resident set, sampled every millisecond.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from importlib.metadata import entry_points
from statistics import median
from typing import cast

import msgspec

from reprise.errors import UserError

Row = tuple[str, str | None, Callable[[], object]]
Bench = Callable[[], Iterable[Row]]


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `reprise bench --json`; the field names are a contract. `ratio` is baseline seconds / seconds."""

    name: str
    seconds: float
    baseline: str | None
    ratio: float
    peak_mib: float
    repeats: int


def find(name: str) -> Bench:
    """Raises UserError naming the benchmarks that there are."""
    known = {entry.name: entry for entry in entry_points(group="reprise.benches")}
    if name not in known:
        raise UserError(f"no benchmark {name!r}; there are: {', '.join(sorted(known)) or 'none'}")
    return cast(Bench, known[name].load())


def run(name: str, repeats: int) -> tuple[Timing, ...]:
    """Measure a registered benchmark.

    Raises:
        UserError: if there is no such benchmark.
    """
    return measure(tuple(find(name)()), repeats)


def measure(rows: tuple[Row, ...], repeats: int) -> tuple[Timing, ...]:
    """Time the rows; see the module's docstring."""
    peaks = {name: peak_mib(call) for name, _, call in rows}
    seconds: dict[str, list[float]] = {name: [] for name, _, _ in rows}
    for _ in range(repeats):
        for name, _, call in rows:
            started = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - started)
    medians = {name: median(values) for name, values in seconds.items()}
    return tuple(
        Timing(
            name=name,
            seconds=medians[name],
            baseline=baseline,
            ratio=medians[baseline or name] / medians[name],
            peak_mib=peaks[name],
            repeats=repeats,
        )
        for name, baseline, _ in rows
    )


def peak_mib(call: Callable[[], object]) -> float:
    """How far the resident set rises above its start during one call, in MiB."""
    import psutil

    process = psutil.Process()
    before = peak = process.memory_info().rss
    finished = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not finished.wait(0.001):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        call()
        peak = max(peak, process.memory_info().rss)
    finally:
        finished.set()
        watcher.join()
    return float(peak - before) / 2**20
