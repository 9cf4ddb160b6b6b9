"""A stored result is whole or not there: after errors, kills, full disks and flipped bits."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reprise import Result, UserError, store
from reprise.store import Provenance

PROVENANCE = Provenance(
    commit="abc", packages={"numpy": "2"}, models={"m": "f"}, seed=0, device="cpu", dtype="float32", seconds=1.5
)


def write(path: Path, result: Result, key: str = "key") -> store.Stored:
    return store.write(path, result, key, PROVENANCE)


def read(path: Path) -> store.Stored:
    stored = store.read(path)
    assert stored is not None
    return stored


def assert_equal(one: Result, other: Result) -> None:
    assert one.facts == other.facts
    assert one.arrays.keys() == other.arrays.keys()
    for name, array in one.arrays.items():
        assert array.dtype == other.arrays[name].dtype
        np.testing.assert_array_equal(array, other.arrays[name], strict=True)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3),
        np.arange(6.0, dtype=np.float32).reshape(2, 3).T,
        np.array(3.5),
        np.zeros((0, 4), dtype=np.int64),
        np.array([True, False]),
        np.array([1, 2], dtype=">i4"),
        np.array([np.nan, np.inf, -0.0]),
        np.arange(10, dtype=np.float16)[::3],
    ],
    ids=["matrix", "transposed", "number", "empty", "bool", "big-endian", "not finite", "strided"],
)
def test_arrays_come_back_as_they_were(tmp_path: Path, array: np.ndarray[Any, Any]) -> None:
    written = write(tmp_path / "new" / "r.safetensors", Result({"a": array}))
    stored = read(tmp_path / "new" / "r.safetensors")
    np.testing.assert_array_equal(stored.result["a"], array, strict=array.dtype.isnative)
    assert_equal(stored.result, written.result)
    assert stored.sha256 == written.sha256 == stored.result.sha256()


def test_what_write_returns_is_what_read_returns(tmp_path: Path) -> None:
    facts = {"words": ("a", "ü\n"), "counts": {1: 2.5}, "none": None, "model": "x"}
    written = write(tmp_path / "r", Result({}, facts), "a key")
    stored = read(tmp_path / "r")
    assert written.result.facts == stored.result.facts == {**facts, "words": ["a", "ü\n"], "counts": {"1": 2.5}}
    assert (stored.key, stored.provenance) == ("a key", PROVENANCE)


def test_unknown_arrays_name_the_known_ones() -> None:
    with pytest.raises(KeyError, match=r"no array 'b'.*: a"):
        Result({"a": np.zeros(1)})["b"]


def test_the_hash_depends_on_names_types_shapes_values_and_facts() -> None:
    a = np.arange(6.0)
    results = [
        Result({"a": a}),
        Result({"b": a}),
        Result({"a": a.astype(np.float32)}),
        Result({"a": a.reshape(2, 3)}),
        Result({"a": a + 1e-9}),
        Result({"a": a}, {"n": 1}),
        Result({"a": a[:3], "b": a[3:]}),
    ]
    assert len({result.sha256() for result in results}) == len(results)
    assert Result({"a": a, "b": a}, {"x": 1, "y": 2}).sha256() == Result({"b": a, "a": a}, {"y": 2, "x": 1}).sha256()


def test_nothing_is_nothing(tmp_path: Path) -> None:
    assert store.read(tmp_path / "none") is None
    assert store.read(tmp_path) is None


def test_a_file_of_another_origin_is_no_result(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(2)}, tmp_path / "a")
    (tmp_path / "b").write_text("hello")
    (tmp_path / "c").touch()
    assert [store.read(tmp_path / name) for name in "abc"] == [None] * 3


def test_truncated_files_are_found_out(tmp_path: Path) -> None:
    path = tmp_path / "r"
    write(path, Result({"a": np.arange(8.0)}, {"n": 1}))
    whole = path.read_bytes()
    for length in range(0, len(whole), 3):
        path.write_bytes(whole[:length])
        assert store.read(path) is None
    path.write_bytes(whole + b"\0")
    assert store.read(path) is None


def test_a_flipped_bit_in_any_byte_is_found_out(tmp_path: Path) -> None:
    path = tmp_path / "r"
    result = Result({"a": np.arange(3.0)}, {"n": 1})
    write(path, result)
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    padding = header - len(whole[8:header].rstrip(b" ")) - 8
    for position in range(len(whole)):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << position % 8
        path.write_bytes(flipped)
        stored = store.read(path)
        if stored is not None:  # blanks in the header mean nothing
            assert header - padding <= position < header
            assert_equal(stored.result, result)


def test_an_error_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "text"
    store.write_text(path, "old")
    with pytest.raises(RuntimeError, match="in between"), store.atomic(path) as temporary:  # noqa: PT012
        temporary.write_text("new")
        raise RuntimeError("in between")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def full(*_: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("function", ["write_bytes", "replace"])
def test_a_full_disk_is_said_in_one_line_and_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    path = tmp_path / "r"
    write(path, Result({"a": np.zeros(2)}), "old")
    with monkeypatch.context() as patch, pytest.raises(UserError, match=r"No space left on device.*free some space"):  # noqa: PT012
        patch.setattr(Path, function, full)
        write(path, Result({"a": np.ones(2)}), "new")
    assert read(path).key == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_that_took_half_of_the_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[[Path, bytes], int] = Path.write_bytes

    def half(path: Path, content: bytes) -> int:
        real(path, content[: len(content) // 2])
        return full()

    with monkeypatch.context() as patch, pytest.raises(UserError, match="No space left"):  # noqa: PT012
        patch.setattr(Path, "write_bytes", half)
        write(tmp_path / "r", Result({"a": np.ones(2)}))
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file: cannot be written .*; choose another folder with --out"):
        write(tmp_path / "file" / "r", Result())


WRITER = """
import sys
from pathlib import Path
import numpy as np
from reprise import Result, store
from reprise.store import Provenance

provenance = Provenance(commit="", packages={}, models={}, seed=0, device="", dtype="", seconds=0.0)
number = 0
while True:
    number += 1
    store.write(Path(sys.argv[1]), Result({"a": np.full(200_000, number)}, {"number": number}), "key", provenance)
    print(number, flush=True)
"""


def test_a_kill_while_writing_leaves_a_whole_result(tmp_path: Path) -> None:
    path = tmp_path / "r"
    generator = np.random.default_rng(0)
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(generator.uniform(0, 0.1))
            process.send_signal(signal.SIGKILL)
            seen = int((process.stdout.read().split() or ["1"])[-1])
        result = read(path).result
        assert result.facts["number"] in (seen, seen + 1)
        assert (result["a"] == result.facts["number"]).all()
