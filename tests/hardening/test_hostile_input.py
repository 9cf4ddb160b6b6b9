"""Hostile paper.toml, task files and weights: an error of ours in one line, or success; nothing else, nowhere else.

2,450 cases, drawn by hypothesis from well-formed files: bytes that are cut, flipped and pasted, and values of the wrong
kind, size and content in the right places.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.reprise.conftest import PAPER
from tests.reprise.test_units import invoke

from function_vectors import TaskError, load_task
from function_vectors.templates import load_templates
from interventions import ModelError, folders, loading
from reprise import UserError, codeowners, paper, store
from reprise.report import build

TOML = PAPER.format(models="", at_least="0.0")
TASK = json.dumps([{"input": f"word {n}", "output": [f"drow {n}", "other"]} for n in range(6)], indent=1)
TEMPLATES = json.dumps([{"name": "arrow", "before": "", "between": "->", "after": "\n", "separator": ""}])
NASTY = (
    "",
    "\0",
    "\n",
    "\r",
    "\x1b[31m",
    "\u202e",
    "\ufeff",
    "\\ud800",
    "../../outside",
    "/outside",
    "~nobody/x",
    "[/red]",
    "{{ 7 * 7 }}",
    "<script>alert(1)</script>",
    "<!-- claims:end -->",
    "|",
    "a" * 5000,
    "9" * 5000,
    "-1",
    "nan",
    "inf",
    "1e999",
    "true",
    "[" * 3000,
    '{"a":' * 3000,
    "a = {b = " * 500,
    "[[claims]]\n",
    '"""',
    "'''",
)
cases = settings(deadline=None, derandomize=True, database=None)


@st.composite
def mutated(draw: st.DrawFn, content: bytes) -> bytes:
    """Well-formed content after up to four cuts, flips, deletions and insertions."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(("cut", "flip", "delete", "insert", "replace")))
        if kind == "cut":
            del data[place:]
        elif kind == "flip" and place < len(data):
            data[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == "delete":
            del data[place : place + draw(st.integers(1, 40))]
        else:
            new = draw(st.sampled_from(NASTY)).encode() if draw(st.booleans()) else draw(st.binary(max_size=12))
            data[place : place + (draw(st.integers(1, 20)) if kind == "replace" else 0)] = new
    return bytes(data)


# What UTF-8 can encode, named by category: hypothesis would try every character there is, which takes seconds.
characters = st.characters(exclude_categories=["Cs"])
texts = st.one_of(st.sampled_from(NASTY), st.text(characters, max_size=20))
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=6,
)


@contextmanager
def folder_watched() -> Iterator[Path]:
    """A folder to work in, two levels down; nothing may appear beside it."""
    with tempfile.TemporaryDirectory() as name:
        inside = Path(name) / "project" / "work"
        inside.mkdir(parents=True)
        yield inside
        assert [path.name for path in Path(name).iterdir()] == ["project"]
        assert [path.name for path in inside.parent.iterdir()] == ["work"]


def one_line(call: Callable[[], Any], *errors: type[Exception]) -> Any:
    """What the call returns, or None after an error of the given kinds, whose text has to be one line."""
    try:
        return call()
    except errors as error:
        said = str(error)
    assert said
    assert "\n" not in said
    return None


def toml(value: object) -> str:
    """A TOML value, or (where TOML has none like it) what is surely no TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(of)}" for key, of in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


@st.composite
def papers(draw: st.DrawFn) -> str:
    """The well-formed paper.toml with other values for some of its keys."""
    lines = TOML.splitlines()
    places = [number for number, line in enumerate(lines) if " = " in line and not line.startswith("accept")]
    for number in draw(st.lists(st.sampled_from(places), min_size=1, max_size=3)):
        key = lines[number].split(" = ")[0]
        lines[number] = f"{key} = {toml(draw(st.one_of(texts, texts.map(lambda text: [text]), values)))}"
    return "\n".join(lines)


def read_paper(content: bytes, thorough: bool) -> None:
    with folder_watched() as root, pytest.MonkeyPatch.context() as patch:
        patch.setenv("REPRISE_ROOT", str(root))
        file = root / "replications" / "toys" / "paper.toml"
        file.parent.mkdir(parents=True)
        file.write_bytes(content)
        found = one_line(lambda: paper.load(file), UserError)
        one_line(lambda: codeowners.render(root), UserError)
        if found is None or not thorough:
            return
        assert codeowners.render(root).count("\n") == 5
        for command in (("list",), ("list", "--json"), ("show", "toys"), ("show", "toys", "--json")):
            code, said = invoke(*command)
            assert code == 0, said
        build(root, (found,), root / "out")
        assert sorted(path.name for path in root.iterdir()) == ["out", "replications"]
        assert {path.name for path in (root / "out").iterdir()} == {"report", ".report.lock"}
        assert [path.name for path in (root / "out" / "report" / "papers").iterdir()] == ["toys.html"]


@settings(cases, max_examples=700)
@given(mutated(TOML.encode()))
def test_paper_files_of_damaged_text(content: bytes) -> None:
    read_paper(content, thorough=False)


@settings(cases, max_examples=250)
@given(papers())
def test_paper_files_with_other_values(text: str) -> None:
    read_paper(text.encode("utf-8", "surrogatepass"), thorough=True)


@settings(cases, max_examples=500)
@given(st.one_of(mutated(TASK.encode()), mutated(TEMPLATES.encode())))
def test_task_and_template_files_of_damaged_text(content: bytes) -> None:
    read_tasks(content)


pairs = st.dictionaries(st.one_of(st.just("input"), st.just("output"), texts), st.one_of(texts, values), max_size=3)


@settings(cases, max_examples=300)
@given(st.one_of(values, st.lists(st.one_of(pairs, values), max_size=4)))
def test_task_and_template_files_of_other_values(value: object) -> None:
    read_tasks(json.dumps(value).encode())


def read_tasks(content: bytes) -> None:
    with folder_watched() as folder:
        (folder / "task.json").write_bytes(content)
        task = one_line(lambda: load_task(folder / "task.json"), TaskError)
        one_line(lambda: load_templates(folder / "task.json"), TaskError)
        if task is not None:
            json.dumps([(pair.input, pair.output) for pair in task.pairs], ensure_ascii=False).encode()


def safetensors(header: object, data: bytes = b"\0" * 64, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


numbers = st.one_of(st.integers(-2, 70), st.sampled_from((2**31, 2**63, 2**64, 10**30, 1.5)), values)
tensors = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.one_of(
            st.sampled_from(("F32", "F64", "BF16", "F16", "F8_E4M3", "F8_E8M0", "F4", "U64", "C64")), values
        ),
        "shape": st.one_of(st.lists(numbers, max_size=3), values),
        "data_offsets": st.one_of(st.lists(numbers, max_size=3), values),
        "more": values,
    },
)
sound = st.sampled_from(("BF16", "F8_E4M3", "F8_E5M2", "F8_E8M0", "U16", "BOOL")).map(
    lambda kind: {"dtype": kind, "shape": [1 if kind in ("BF16", "U16") else 2], "data_offsets": [0, 2]}
)
headers = st.one_of(
    st.dictionaries(texts, st.one_of(tensors, values), max_size=3),
    st.fixed_dictionaries({"a": sound, "__metadata__": st.dictionaries(texts, st.one_of(texts, values), max_size=3)}),
    values,
)
lengths = st.one_of(st.none(), st.integers(0, 300), st.sampled_from((2**31, 2**40, 2**63, 2**64 - 1)))


def whole_result() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        of = store.Provenance(commit="", packages={}, models={}, seed=0, device="", dtype="", seconds=0.0)
        store.write(Path(folder) / "r", store.Result({"a": np.arange(4.0)}, {"n": [1]}), "key", of)
        return (Path(folder) / "r").read_bytes()


@settings(cases, max_examples=400)
@given(st.one_of(st.builds(safetensors, headers, st.binary(max_size=64), lengths), mutated(whole_result())))
def test_stored_results_of_any_bytes(content: bytes) -> None:
    with folder_watched() as folder:
        (folder / "r").write_bytes(content)
        stored = store.read(folder / "r")
        assert stored is None or stored.result.facts == {"n": [1]}


PROVENANCE = {"commit": "", "packages": {}, "models": {}, "seed": 0, "device": "", "dtype": "", "seconds": 0.0}


@settings(cases, max_examples=100)
@given(values, st.one_of(st.just(PROVENANCE), values))
def test_stored_results_that_lie_about_what_they_hold(facts: object, provenance: object) -> None:
    """All hashes are right, as somebody who wants to do harm would have them."""
    from safetensors.numpy import save

    arrays = {"a": np.zeros(1)}
    metadata = {"facts": json.dumps(facts), "key": "k", "provenance": json.dumps(provenance), "sha256": ""}
    try:
        metadata["sha256"] = store.Result(arrays, msgspec.json.decode(metadata["facts"])).sha256()
    except (msgspec.MsgspecError, ValueError, OverflowError):  # a number that JSON has not
        return
    metadata["header_sha256"] = store._header_sha256(metadata)
    with folder_watched() as folder:
        (folder / "r").write_bytes(save(arrays, metadata))
        stored = store.read(folder / "r")
        assert stored is None or isinstance(stored.result.facts, dict)


CONFIG = {
    "model_type": "attention_only",
    "n_layers": 0,
    "d_model": 1,
    "n_heads": 1,
    "d_head": 1,
    "d_vocab": 2,
    "n_ctx": 1,
}


@settings(cases, max_examples=200)
@given(
    st.builds(safetensors, headers, st.binary(max_size=64), lengths),
    st.dictionaries(st.sampled_from(list(CONFIG)[1:]), numbers, max_size=2),
    st.one_of(st.none(), st.binary(max_size=20), values.map(lambda value: json.dumps(value).encode())),
)
def test_model_folders_of_any_bytes(content: bytes, sizes: dict[str, object], card: bytes | None) -> None:
    with folder_watched() as folder:
        (folder / "config.json").write_text(json.dumps({**CONFIG, **sizes}))
        (folder / "model.safetensors").write_bytes(content)
        if card is not None:
            (folder / "card.json").write_bytes(card)
            (folder / "tokenizer.json").write_bytes(card)
        one_line(lambda: loading.load(folder), ModelError)


@pytest.mark.parametrize("sizes", [{"n_layers": 3000}, {"n_layers": -1}, {"n_heads": 0}, {"d_vocab": 10**30}])
def test_sizes_that_no_weights_can_have(tmp_path: Path, sizes: dict[str, int]) -> None:
    """They are refused before a network is made of them, which for many layers would take for ever."""
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, **sizes}))
    (tmp_path / "model.safetensors").write_bytes(
        safetensors({"a": {"dtype": "F32", "shape": [16], "data_offsets": [0, 64]}})
    )
    with pytest.raises(ModelError, match=r"config\.json: its sizes do not fit the 1 tensors of model\.safetensors"):
        loading.load(tmp_path)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "9" * 5000, '"\\ud800"', "\ufeff{}", "NaN", ""])
def test_configs_that_are_no_json(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match=r"config\.json: ") as caught:
        folders.read_config(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a" * 5000, "~nobody-at-all/x", "a\0b", "..", "//", "-", "[/red]", "a\nb"])
def test_names_of_models_that_are_none(toys: Any, name: str) -> None:
    code, said = invoke("run", "toys", "--model", name)
    assert code == 2
    assert said.startswith("error: ")
    assert said.count("\n") == 1
