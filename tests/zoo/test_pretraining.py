"""Training into a folder: what it leaves there, and that a kill at any moment changes nothing."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch
from safetensors.torch import load_file
from torch.optim import AdamW

from training import CheckpointError, Muon
from zoo import cards, packing, pretraining
from zoo.corpus import Corpus
from zoo.evaluation import evaluate
from zoo.model import AttentionOnly, AttentionOnlyConfig
from zoo.pretraining import optimizers, pretrain
from zoo.recipes import Recipe

Shape = Callable[[int], AttentionOnlyConfig]
SCRIPT = Path(__file__).with_name("kill_and_resume.py")
FILES = {
    "README.md",
    "card.json",
    "checkpoints.safetensors",
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "training_log.jsonl",
}


def tiny(config: AttentionOnlyConfig, steps: int = 6, n_checkpoints: int = 3) -> Recipe:
    return Recipe(
        name="tiny",
        config=config,
        tokens=steps * 4 * config.n_ctx,
        batch_size=4,
        warmup_steps=2,
        n_checkpoints=n_checkpoints,
        first_checkpoint=2,
    )


@pytest.fixture(scope="module")
def runs(source_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder of each run of `kill_and_resume.py`, by the moment of its kill."""
    folder = tmp_path_factory.mktemp("runs")
    command = [sys.executable, str(SCRIPT), str(source_folder), str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return {path.name: path for path in folder.iterdir()}


def log_without_seconds(folder: Path) -> list[dict[str, object]]:
    rows = [json.loads(line) for line in (folder / cards.LOG).read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def test_a_killed_run_that_is_resumed_equals_an_undisturbed_one(runs: dict[str, Path]) -> None:
    undisturbed = runs["undisturbed"]
    assert len(runs) == 16
    for moment, folder in runs.items():
        assert {path.name for path in folder.iterdir()} == FILES, moment
        for name in ("model.safetensors", "checkpoints.safetensors", "config.json", "tokenizer.json"):
            assert (folder / name).read_bytes() == (undisturbed / name).read_bytes(), (moment, name)
        assert log_without_seconds(folder) == log_without_seconds(undisturbed), moment
        card = msgspec.structs.replace(cards.verify(folder), seconds=0.0)
        assert card == msgspec.structs.replace(cards.verify(undisturbed), seconds=0.0), moment
    assert [row["step"] for row in log_without_seconds(undisturbed)] == [0, 5, 9, 17, 30]
    assert packing.packed_steps(undisturbed / cards.CHECKPOINTS) == (0, 5, 9, 17, 30)


def test_a_folder_holds_the_model_of_its_card(tmp_path: Path, corpus: Corpus, shape: Shape) -> None:
    recipe = tiny(shape(1))
    progress: list[tuple[int, int]] = []
    out = pretrain(
        recipe, tmp_path / "m", corpus=corpus, progress=lambda step, steps, _: progress.append((step, steps))
    )
    card = cards.verify(out)
    assert {path.name for path in out.iterdir()} == FILES
    assert progress == [(step, 6) for step in range(7)]
    assert (card.recipe, card.corpus.sha256, card.tokens_seen) == (recipe, corpus.sha256, 6 * 4 * 40)
    assert msgspec.json.decode((out / "config.json").read_bytes(), type=AttentionOnlyConfig) == recipe.config

    weights = {name: tensor.float() for name, tensor in load_file(out / cards.WEIGHTS).items()}
    model = AttentionOnly(recipe.config)
    model.load_state_dict(weights, strict=True)
    assert card.metrics == pytest.approx(evaluate(model, corpus.held_out))
    assert card.parameters == sum(tensor.numel() for tensor in weights.values())

    first, last = (packing.unpack(out / cards.CHECKPOINTS, step) for step in (0, 6))
    initial = AttentionOnly(recipe.config, recipe.seed).state_dict()
    for name, tensor in weights.items():
        for packed, exact in ((first[name], initial[name]), (last[name], tensor)):
            assert (packed - exact).abs().max() <= exact.abs().max() * (0.5 / 127 + 2**-10), name  # 8 bits, after 16
    assert not torch.equal(first["embed.weight"], last["embed.weight"])


def test_training_learns(tmp_path: Path, corpus: Corpus, shape: Shape) -> None:
    out = pretrain(tiny(shape(1), steps=40), tmp_path / "m", corpus=corpus)
    rows = [json.loads(line) for line in (out / cards.LOG).read_text().splitlines()]
    uniform = math.log(corpus.tokenizer.get_vocab_size())
    assert rows[0]["held_out_loss"] > uniform
    assert rows[-1]["held_out_loss"] < uniform - 1.0
    assert [row["tokens"] for row in rows] == [row["step"] * 4 * 40 for row in rows]


def test_a_recipe_without_checkpoints_keeps_none(tmp_path: Path, corpus: Corpus, shape: Shape) -> None:
    out = pretrain(tiny(shape(1), n_checkpoints=0), tmp_path / "m", corpus=corpus)
    assert {path.name for path in out.iterdir()} == FILES - {"checkpoints.safetensors"}
    assert cards.CHECKPOINTS not in cards.verify(out).sha256


def test_every_parameter_has_one_optimiser_and_the_right_one(shape: Shape) -> None:
    recipe = tiny(shape(2))
    model = AttentionOnly(recipe.config)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    muon, adamw = optimizers(model, recipe)
    assert isinstance(muon, Muon)
    assert isinstance(adamw, AdamW)
    groups = [group for optimizer in (muon, adamw) for group in optimizer.param_groups]
    found = [{names[id(parameter)] for parameter in group["params"]} for group in groups]
    assert found[0] == {f"blocks.{layer}.attn.{part}.weight" for layer in (0, 1) for part in "qkvo"}
    assert found[1] == {"embed.weight", "unembed.weight"}
    assert set.union(*found) == set(names.values())
    assert sum(len(group["params"]) for group in groups) == len(names)
    assert [group["weight_decay"] for group in groups] == [recipe.weight_decay, recipe.weight_decay, 0.0]
    assert [group["lr"] for group in groups] == [recipe.muon_learning_rate] + 2 * [recipe.learning_rate]


def test_a_model_without_attention_needs_no_muon(shape: Shape) -> None:
    recipe = tiny(shape(0))
    (adamw,) = optimizers(AttentionOnly(recipe.config), recipe)
    assert isinstance(adamw, AdamW)


def test_the_state_of_another_model_is_refused(
    tmp_path: Path, corpus: Corpus, shape: Shape, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pretraining, "CHECKPOINT_EVERY", 2)
    with pytest.raises(KeyboardInterrupt):
        pretrain(tiny(shape(1)), tmp_path, corpus=corpus, progress=stop)
    with pytest.raises(CheckpointError, match=r"training\.pt: not a checkpoint of this run .*; delete it"):
        pretrain(tiny(shape(2)), tmp_path, corpus=corpus)
