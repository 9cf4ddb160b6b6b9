"""`reprise steer`, from a model folder to what is printed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from interventions import Model, load
from reprise.cli import main
from steering.command import _words, steer
from steering.controls import PREFIX, RANDOM, controls
from steering.errors import SteeringError
from steering.extraction import ContrastPair, activation_addition, contrastive
from steering.generation import generate
from steering.outcomes import Writing, contains
from steering.positions import AfterPrompt, Everywhere, First, Positions, PromptOnly
from steering.steering import Steer
from steering.vector_files import load_vector, save_vector

from .measure_models import write_folder

Call = Callable[..., tuple[int, str, str]]
CONTRAST = ("--positive", "love", "--negative", "hate", "--layer", "1", "--coefficient", "3")
PROMPT = ("--prompt", "the king saw", "--max-new-tokens", "6")
PAIRS = [{"positive": "the sea was red", "negative": "the sea was blue"}, {"positive": "a red", "negative": "a blue"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("models") / "toy")


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return load(folder)


@pytest.fixture
def call(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """`reprise steer --model FOLDER`, in this process."""

    def call(*arguments: str, model: str = str(folder)) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["reprise", "steer", "--model", model, *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main()
        captured = capfd.readouterr()
        return int(exit_.value.code or 0), captured.out, captured.err

    return call


def test_plain_and_steered_text_stand_side_by_side(call: Call, model: Model) -> None:
    prompts = ("the king saw", "she was")
    code, out, err = call(*CONTRAST, *PROMPT, "--prompt", prompts[1], "--json")
    assert (code, err) == (0, "")
    shown = json.loads(out)
    vector = activation_addition(model, "love", "hate", layers=1)
    plain = generate(model, prompts, max_new_tokens=6)
    steered = generate(model, prompts, steers=[Steer(vector, 3.0)], max_new_tokens=6)
    assert plain.texts != steered.texts
    assert [row["prompt"] for row in shown["completions"]] == list(prompts)
    assert [row["plain"] for row in shown["completions"]] == list(plain.texts)
    assert [row["steered"] for row in shown["completions"]] == list(steered.texts)
    assert all(row["steered perplexity"] > 1 for row in shown["completions"])
    norm = float(vector.directions[1].norm(dim=-1).max())
    expected = {"vector": vector.name, "layer": 1, "at": "resid_pre", "coefficient": 3.0, "saved": None}
    assert shown["vector"] == [{**expected, "norm": pytest.approx(norm)}]
    code, out, err = call(*CONTRAST, *PROMPT)
    assert (code, err) == (0, "")
    assert plain.texts[0].strip() in out
    assert steered.texts[0].strip() in out


def test_a_vector_of_pairs_acts_from_the_prompts_last_token_on(folder: Path, model: Model, tmp_path: Path) -> None:
    file = tmp_path / "pairs.json"
    file.write_text(json.dumps(PAIRS))
    found = steer(str(folder), ["the king saw"], 4.0, [1], pairs=file, max_new_tokens=6)
    vector = contrastive(model, [ContrastPair(**pair) for pair in PAIRS], layers=1)
    expected = generate(model, ["the king saw"], steers=[Steer(vector, 4.0, positions=AfterPrompt())], max_new_tokens=6)
    assert found["completions"][0]["steered"] == expected.texts[0]
    assert found["vector"][0]["vector"] == "mean difference of pairs.json"


def test_a_saved_vector_does_the_same(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "love.safetensors"
    prompts = ["the king saw", "she was"]
    made = steer(str(folder), prompts, 3.0, [1], positive="love", negative="hate", save=file, max_new_tokens=6)
    assert made["vector"][0]["saved"] == str(file)
    again = steer(str(folder), prompts, 3.0, vector=file, max_new_tokens=6)
    assert again["completions"] == made["completions"]
    assert load_vector(file).layers == (1,)


def test_a_gguf_vector_is_read(folder: Path, model: Model, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    from steering.gguf_files import write_gguf

    vector = contrastive(model, [ContrastPair(**pair) for pair in PAIRS], layers=1)
    write_gguf(tmp_path / "red.gguf", vector)
    found = steer(str(folder), ["she was"], 4.0, vector=tmp_path / "red.gguf", max_new_tokens=6)
    expected = generate(model, ["she was"], steers=[Steer(vector, 4.0)], max_new_tokens=6)
    assert found["completions"][0]["steered"] == expected.texts[0]


@pytest.mark.parametrize(
    ("name", "positions"),
    [
        ("everywhere", Everywhere()),
        ("after-prompt", AfterPrompt()),
        ("prompt", PromptOnly(keep_last=False)),
        ("prompt-only", PromptOnly()),
        ("first:2", First(2)),
    ],
)
def test_positions_and_operations_have_names(
    folder: Path, model: Model, tmp_path: Path, name: str, positions: Positions
) -> None:
    vector = contrastive(model, [ContrastPair(**pair) for pair in PAIRS], layers=1)
    save_vector(tmp_path / "v.safetensors", vector)
    options: dict[str, Any] = {"operation": "norm_preserving", "temperature": 1.0, "samples": 2, "seed": 3}
    file = tmp_path / "v.safetensors"
    found = steer(str(folder), ["she was a"], 5.0, vector=file, positions=name, max_new_tokens=5, **options)
    acting = Steer(vector, 5.0, positions=positions, operation="norm_preserving")
    expected = generate(model, ["she was a"] * 2, steers=[acting], max_new_tokens=5, temperature=1.0, seed=3)
    assert [row["steered"] for row in found["completions"]] == list(expected.texts)


def test_controls_are_those_of_the_package(call: Call, model: Model, tmp_path: Path) -> None:
    words, other = tmp_path / "words.txt", tmp_path / "other.safetensors"
    words.write_text("sea\nred, war\n")
    save_vector(other, activation_addition(model, "king", "queen", layers=1))
    sampled = ("--temperature", "1", "--seed", "2")
    options = ("--controls", "--words", str(words), "--prefix", "the sea , ", "--other", str(other), *sampled)
    code, out, err = call(*CONTRAST, *PROMPT, *options, "--json")
    assert (code, err) == (0, "")
    shown = json.loads(out)["controls"]
    table = controls(
        model,
        activation_addition(model, "love", "hate", layers=1),
        ["the king saw"],
        contains(["sea", "red", "war"]),
        layer=1,
        coefficient=3.0,
        others=[load_vector(other)],
        prefix="the sea , ",
        writing=Writing(max_new_tokens=6, temperature=1.0, samples=16, seed=2),
        seed=2,
    )
    assert [row["condition"] for row in shown] == [row.name for row in table.rows]
    for row in shown:
        assert row["success"] == pytest.approx(asdict(table.interval(row["condition"])))
        assert row["vector - this"] == pytest.approx(asdict(table.over(row["condition"])))
    assert {RANDOM, PREFIX} <= {row["condition"] for row in shown}
    assert len({row["success"]["estimate"] for row in shown}) > 2
    assert len(json.loads(out)["completions"]) == 1
    code, out, _ = call(*CONTRAST, *PROMPT, "--controls", "--words", "sea,red")
    assert code == 0
    assert "random vectors" in out


BAD: dict[str, tuple[tuple[str, ...], str]] = {
    "an empty contrast": (("--positive", "", "--negative", "hate", *CONTRAST[4:]), "text '' has no tokens in toy"),
    "identical texts": (("--positive", "love", "--negative", "love", *CONTRAST[4:]), "have the same tokens in toy"),
    "a layer beyond the model": ((*CONTRAST[:5], "7", *CONTRAST[6:]), "layers [7]: expected some of 0 to 2"),
    "a coefficient that is no number": ((*CONTRAST[:-1], "nan"), "coefficient nan: expected a finite number"),
    "no coefficient": (CONTRAST[:-2], "--coefficient"),
    "no layer": ((*CONTRAST[:4], *CONTRAST[6:]), "no --layer: expected the layer in which the vector is to act"),
    "half a contrast": ((*CONTRAST[:2], *CONTRAST[4:]), "expected --positive and --negative, or --pairs, or --vector"),
    "two sources": ((*CONTRAST, "--vector", "v.safetensors"), "or --vector, and one of these alone"),
    "no source": (CONTRAST[4:], "expected --positive and --negative"),
    "no such pairs": (("--pairs", "nowhere.json", *CONTRAST[4:]), "nowhere.json"),
    "no such vector": (("--vector", "nowhere.safetensors", "--coefficient", "1"), "nowhere.safetensors: no such file"),
    "unknown positions": ((*CONTRAST, "--positions", "first:x"), "no positions 'first:x': expected everywhere"),
    "an unknown operation": ((*CONTRAST, "--operation", "multiply"), "'multiply': expected one of add"),
    "an unknown dtype": ((*CONTRAST, "--dtype", "int8"), "dtype 'int8': expected one of float32"),
    "controls without words": ((*CONTRAST, "--controls"), "--controls: expected --words"),
    "no words": ((*CONTRAST, "--controls", "--words", ","), "no words: expected at least one"),
    "greedy samples": ((*CONTRAST, "--samples", "3"), "samples=3, temperature=0: expected 1 greedy completion"),
    "a folder that cannot be written to": ((*CONTRAST, "--save", "no/where.safetensors"), "no/where.safetensors"),
    "too many tokens": ((*CONTRAST, "--max-new-tokens", "100"), "do not fit into n_ctx=64"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_one_line(call: Call, name: str) -> None:
    arguments, part = BAD[name]
    code, out, err = call(*PROMPT, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("error: ")
    assert part in err


def test_a_model_that_cannot_be_loaded_gets_one_line(call: Call, tmp_path: Path) -> None:
    code, out, err = call(*CONTRAST, *PROMPT, model=str(tmp_path))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "config.json" in err


def test_words_are_given_or_read(tmp_path: Path) -> None:
    file = tmp_path / "words"
    file.write_text("sea\nred, war\n")
    assert _words(str(file)) == ["sea", "red", " war", ""]
    many = [f"word{at}" for at in range(200)]
    assert _words(",".join(many)) == many, "more than a file's name may have"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(SteeringError, match=r"words: .*: expected words in UTF-8"):
        _words(str(file))


def test_pairs_that_are_none_are_refused(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "pairs.json"
    file.write_text('[{"positive": "love"}]')
    with pytest.raises(SteeringError, match=r"pairs.json: .*negative.*: expected a JSON list of objects"):
        steer(str(folder), ["she was"], 1.0, [1], pairs=file)
