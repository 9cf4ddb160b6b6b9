"""Timings against callables whose cost is known."""

from __future__ import annotations

import time
from importlib.metadata import EntryPoint

import msgspec
import numpy as np
import pytest

from reprise import UserError, benchmarks
from reprise.benchmarks import Row, measure, peak_mib


class Sleeper:
    """Sleeps for a given time at each call, in turn."""

    def __init__(self, *seconds: float) -> None:
        self.seconds = iter(seconds)

    def __call__(self) -> None:
        time.sleep(next(self.seconds))


def test_seconds_are_the_median_of_the_timed_calls() -> None:
    """The first call is for the memory; of each pair that follows, both short, the second counts."""
    (row,) = measure((("slow", None, Sleeper(1.0, 0.5, 0.05, 0.5, 0.4, 0.5, 0.05)),), repeats=3)
    assert 0.05 <= row.seconds < 0.3
    assert (row.name, row.baseline, row.ratio, row.repeats) == ("slow", None, 1.0, 3)


def test_the_ratio_is_how_often_faster_than_the_baseline() -> None:
    rows = measure((("fast", "slow", Sleeper(*[0.05] * 7)), ("slow", None, Sleeper(*[0.2] * 7))), repeats=3)
    fast, slow = rows
    assert fast.ratio == slow.seconds / fast.seconds
    assert 2.0 < fast.ratio <= 4.2


def test_a_sampled_row_stands_for_all_of_its_work_and_rates_are_a_share_of_the_peak() -> None:
    rows: tuple[Row, ...] = (
        (benchmarks.PEAK, None, Sleeper(*[0.1] * 9), {"flops": 1e9}),
        ("loop", None, Sleeper(*[0.1] * 9), {"sampled": 0.25, "flops": 0.5e9}),
        ("ours", "loop", Sleeper(*[0.1] * 9)),
    )
    peak, loop, ours = measure(rows, repeats=3)
    assert loop.sampled == 0.25
    assert 0.4 <= loop.seconds < 0.6
    assert 3.2 < ours.ratio < 4.8
    assert peak.share_of_peak == 1.0
    assert loop.share_of_peak == pytest.approx(0.5, rel=0.2)
    assert ours.gflops is None


def test_rows_are_timed_in_turn() -> None:
    called: list[str] = []
    rows: tuple[Row, ...] = (("a", None, lambda: called.append("a")), ("b", "a", lambda: called.append("b")))
    measure(rows, repeats=2)
    assert called == ["a", "b", *"aabb", *"aabb"]


def test_a_long_call_is_made_once_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmarks, "SHORT", 0.1)
    (row,) = measure((("long", None, Sleeper(0.0, 0.2, 0.25)),), repeats=2)
    assert row.seconds == pytest.approx(0.225, abs=0.03)


def test_peak_memory_sees_what_a_call_allocates_and_frees() -> None:
    def allocate() -> float:
        return float(np.ones(100 * 2**20 // 8).sum())

    assert 95 <= peak_mib(allocate) <= 125
    assert peak_mib(lambda: None) < 5


def test_an_error_in_a_call_comes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        peak_mib(lambda: 1 / 0)


def test_benchmarks_are_found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("toy", "tests_of_benchmarks:bench", "reprise.benches")
    monkeypatch.setattr(benchmarks, "entry_points", lambda group: (entry,) if group == "reprise.benches" else ())
    monkeypatch.setattr(EntryPoint, "load", lambda self: lambda: [("row", None, lambda: None)])
    assert benchmarks.names() == ("toy", *benchmarks._of_replications())
    (row,) = benchmarks.run("toy", repeats=1)
    fields = {"name", "seconds", "baseline", "ratio", "peak_mib", "repeats", "sampled", "gflops", "share_of_peak"}
    assert msgspec.to_builtins(row).keys() == fields
    with pytest.raises(UserError, match="no benchmark 'other'; there are: toy"):
        benchmarks.run("other", repeats=1)


def test_rows_together_are_their_sum_each_scaled_to_all_of_its_work() -> None:
    rows: tuple[Row, ...] = (
        ("a", None, Sleeper(*[0.1] * 5), {"sampled": 0.5}),
        ("b", None, Sleeper(*[0.3] * 5), {"peak_mib": 7.0}),
        ("both", None, ("a", "b")),
        ("twice", "both", ("b", "b")),
    )
    a, b, both, twice = measure(rows, repeats=1)
    assert both.seconds == a.seconds + b.seconds
    assert both.peak_mib == max(a.peak_mib, b.peak_mib)
    assert (twice.baseline, twice.ratio) == ("both", both.seconds / twice.seconds)
