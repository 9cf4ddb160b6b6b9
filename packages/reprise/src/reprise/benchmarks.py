"""Benchmarks that packages register under the entry point `reprise.benches`: every row measured in one run.

A replication has them too: the BENCHES of its bench.py, by name.

A bench is a function that returns its rows as (name, name of the row it is compared with or None, callable). Seconds
are the median of the repeats, taken round-robin over the rows so that a noisy moment hits all of them alike, after one
untimed call each; where a call takes less than two seconds it is made twice in its turn and the second counts, so that
caches and the allocator are as in a program that does this and nothing else. Memory is the peak that the untimed call
adds to the resident set, sampled every millisecond, with a C library that keeps nothing that was freed.

A row of names in place of a callable is these rows together: the sum of their seconds, and the largest peak.

A fourth entry may say more of a row's work, in numbers: "sampled", the share of the work that the callable does where
all of it would take too long (seconds are divided by it), and "flops", of the callable's own work. The rate of the row
named `PEAK`, a plain matrix product, is what the rates of all others are a share of.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from statistics import median
from typing import cast

import msgspec

from reprise import workspace
from reprise.errors import UserError

Work = Mapping[str, float]
Call = Callable[[], object] | tuple[str, ...]
Row = tuple[str, str | None, Call] | tuple[str, str | None, Call, Work]
Bench = Callable[[], Iterable[Row]]
PEAK = "matmul peak"
SHORT = 2.0  # seconds


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `reprise bench --json`; the field names are a contract.

    `ratio` is baseline seconds / seconds; `sampled` the share of the work that was timed, the seconds being for all of
    it; `gflops` a second and `share_of_peak` are there where a row says its FLOPs.
    """

    name: str
    seconds: float
    baseline: str | None
    ratio: float
    peak_mib: float
    repeats: int
    sampled: float = 1.0
    gflops: float | None = None
    share_of_peak: float | None = None


def names() -> tuple[str, ...]:
    """Of the packages, then of the papers."""
    return (*sorted(_of_packages()), *sorted(_of_replications()))


def find(name: str) -> Bench:
    """Raises UserError naming the benchmarks that there are."""
    if name in (known := _of_packages()):
        return cast(Bench, known[name].load())
    of_papers = _of_replications()
    if name not in of_papers:
        raise UserError(f"no benchmark {name!r}; there are: {', '.join(names()) or 'none'}")
    return of_papers[name]


def _of_packages() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group="reprise.benches")}


def _of_replications() -> dict[str, Bench]:
    """Of the project that we are in, if we are in one."""
    try:
        root = workspace.find_root()
    except UserError:
        return {}
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    found: dict[str, Bench] = {}
    for folder in workspace.folders(root):
        if (folder / "bench.py").exists():
            module = importlib.import_module(f"replications.{folder.name}.bench")
            found |= getattr(module, "BENCHES", {})
    return found


def run(name: str, repeats: int) -> tuple[Timing, ...]:
    """Measure a registered benchmark.

    Raises:
        UserError: if there is no such benchmark.
    """
    return measure(tuple(find(name)()), repeats)


def measure(rows: tuple[Row, ...], repeats: int) -> tuple[Timing, ...]:
    """Time the rows; see the module's docstring."""
    calls = {row[0]: row[2] for row in rows if not isinstance(row[2], tuple)}
    sums = {row[0]: row[2] for row in rows if isinstance(row[2], tuple)}
    work: dict[str, Work] = {row[0]: row[3] if len(row) == 4 else {} for row in rows}
    peaks = {
        name: work[name]["peak_mib"] if "peak_mib" in work[name] else peak_mib(call) for name, call in calls.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            took = _timed(call)
            seconds[name].append(_timed(call) if took < SHORT else took)
    timed = {name: median(values) for name, values in seconds.items()}
    whole = {name: value / work[name].get("sampled", 1.0) for name, value in timed.items()}
    whole |= {name: sum(whole[of] for of in parts) for name, parts in sums.items()}
    peaks |= {name: max(peaks[of] for of in parts) for name, parts in sums.items()}
    rates = {name: work[name]["flops"] / timed[name] / 1e9 for name in calls if "flops" in work[name]}
    return tuple(
        Timing(
            name=row[0],
            seconds=whole[row[0]],
            baseline=row[1],
            ratio=whole[row[1] or row[0]] / whole[row[0]],
            peak_mib=peaks[row[0]],
            repeats=repeats,
            sampled=work[row[0]].get("sampled", 1.0),
            gflops=rates.get(row[0]),
            share_of_peak=rates[row[0]] / rates[PEAK] if row[0] in rates and PEAK in rates else None,
        )
        for row in rows
    )


def _timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def peak_mib(call: Callable[[], object]) -> float:
    """How far the resident set rises above its start during one call, in MiB."""
    import psutil

    process = psutil.Process()
    before = peak = 0
    finished = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not finished.wait(0.001):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch, daemon=True)
    with _nothing_kept():
        before = peak = process.memory_info().rss
        watcher.start()
        try:
            call()
            peak = max(peak, process.memory_info().rss)
        finally:
            finished.set()
            watcher.join()
    return float(peak - before) / 2**20


@contextlib.contextmanager
def _nothing_kept() -> Iterator[None]:
    """Inside, freed memory goes back to the system at once: what the C library kept would hide what a row takes.

    Afterwards the allocator is as a long-lived process has it, which is faster. Another library than glibc stays as it
    is, and memory is then what the resident set shows.
    """
    mmap_threshold, trim_threshold = -3, -1  # malloc.h
    library = ctypes.CDLL(None)
    set_option = getattr(library, "mallopt", lambda option, value: 0)
    gc.collect()
    set_option(mmap_threshold, 2**18)
    set_option(trim_threshold, 0)
    getattr(library, "malloc_trim", lambda pad: 0)(0)
    try:
        yield
    finally:
        set_option(mmap_threshold, 2**25)
        set_option(trim_threshold, 2**26)
