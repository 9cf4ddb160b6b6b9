"""Results, models and checkpoints that were cut or changed are found out by their hashes, and named."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.reprise.test_units import grown, invoke

import interventions
from interventions import ModelError
from reprise import UserError, models, store
from zoo import catalogue, packing
from zoo.bigrams import bigram_counts
from zoo.cards import CHECKPOINTS, ModelFolderError, file_sha256
from zoo.corpus import CorpusError
from zoo.held_out import held_out_tokens

if TYPE_CHECKING:
    from tests.reprise.conftest import Toys

ROOT = Path(__file__).parents[2]
SMALL = ROOT / "shared" / "models" / "attn-only-0l"


def damaged(content: bytes, n: int) -> Iterator[bytes]:
    """Content with one bit flipped at n random places, and cut at n random lengths."""
    generator = random.Random(0)
    for _ in range(n):
        flipped = bytearray(content)
        flipped[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        yield bytes(flipped)
        yield content[: generator.randrange(len(content))]


def test_a_damaged_result_is_named_and_computed_again(toys: Toys) -> None:
    assert invoke("run", "toys")[0] == 0
    toys.executions()
    path = Path("build/results/toys/tiny/scaled/one.safetensors")
    whole, before = path.read_bytes(), store.read(path)
    assert before is not None
    for content in damaged(whole, 4):
        path.write_bytes(content)
        code, said = invoke("figures", "toys")
        assert code == 2
        assert f"{path}: damaged; run `reprise run toys --tier tiny` again" in said
        code, said = invoke("run", "toys")
        assert code == 0
        assert f"toys: scaled [one]: {path} is damaged; computed again" in said
        assert toys.executions() == ["scaled one"]
        after = store.read(path)
        assert after is not None
        assert (after.key, after.sha256) == (before.key, before.sha256)
    assert "damaged" not in invoke("run", "toys")[1]
    assert "damaged" not in invoke("run", "toys", "--fresh")[1]


def test_a_damaged_kept_result_is_named(sweep: Toys) -> None:
    sweep.edit('Stage("grow", grow, units=UNITS)', 'Stage("grow", grow, units=UNITS, minutes={"tiny": 1.5})')
    assert invoke("run", "toys")[0] == 0
    assert invoke("accept", "toys")[0] == 0
    shutil.rmtree(sweep.out)
    sweep.executions()
    kept = sweep.folder / "kept" / "tiny" / "grow" / "a-2.safetensors"
    kept.write_bytes(kept.read_bytes()[:-1])
    code, said = invoke("run", "toys")
    assert code == 0
    assert f"toys: grow [a-2]: {kept} is damaged; computed again" in said
    assert grown(sweep) == ["a-2"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SMALL, tmp_path / "model"))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_damaged_model_is_named(model: Path, name: str) -> None:
    whole = (model / name).read_bytes()
    for content in damaged(whole, 8):
        (model / name).write_bytes(content)
        with pytest.raises(
            UserError, match=rf"model/{name}: SHA-256 is \w+\.\.\., card\.json says .*; the file was damaged"
        ):
            models.resolve(str(model))
        with pytest.raises(ModelError, match=rf"model/{name}: ") as caught:
            interventions.load(model)
        assert "\n" not in str(caught.value)
    (model / name).write_bytes(whole)
    assert models.resolve(str(model)).name == interventions.load(model).name


def test_a_run_of_a_damaged_shipped_model_ends_before_any_stage(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = toys.root / "shared" / "models" / "attn-only-0l"
    shutil.copytree(SMALL, shipped)
    assert invoke("run", "toys", "--model", "attn-only-0l")[0] == 0
    toys.executions()
    content = bytearray((shipped / "model.safetensors").read_bytes())
    content[-1000] ^= 16
    (shipped / "model.safetensors").write_bytes(content)
    code, said = invoke("run", "toys", "--model", "attn-only-0l")
    assert code == 2
    assert said.startswith(f"error: {shipped / 'model.safetensors'}: SHA-256 is ")
    assert said.endswith("the file was damaged or changed: restore it or train the model again\n")
    assert toys.executions() == []


def test_weights_that_are_not_those_of_the_config_are_refused(tmp_path: Path) -> None:
    """A Hugging Face folder has no card: transformers would fill what is missing with random numbers."""
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"n_layer": 2, "n_head": 2, "n_embd": 8, "vocab_size": 20, "n_positions": 16}
    GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)).save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    whole = path.read_bytes()
    state = {name: tensor.clone() for name, tensor in load_file(path).items()}  # not the mapped file, which changes
    assert len(interventions.load(tmp_path).network.transformer.h) == 2  # tied weights are not missed
    for content, says in (
        (whole[:-1], "cannot be loaded"),
        (whole[:100], "cannot be loaded"),
        (b"", "cannot be loaded"),
    ):
        path.write_bytes(content)
        with pytest.raises(ModelError, match=says):
            interventions.load(tmp_path)
    save_file({name: of for name, of in state.items() if ".h.1.ln_1." not in name}, path, {"format": "pt"})
    with pytest.raises(
        ModelError, match=r"2 weights of its config are not in its files, such as transformer\.h\.1\.ln_1"
    ):
        interventions.load(tmp_path)


def test_damaged_checkpoints_of_a_model_are_named(tmp_path: Path) -> None:
    packing.pack({0: {"w": torch.ones(3, 4)}, 5: {"w": torch.zeros(3, 4)}}, tmp_path / CHECKPOINTS)
    card = {"recipe": {"name": "toy"}, "sha256": {CHECKPOINTS: file_sha256(tmp_path / CHECKPOINTS)}}
    (tmp_path / "card.json").write_text(json.dumps(card))
    assert catalogue.checkpoint_steps(tmp_path) == (0, 5)
    assert torch.equal(catalogue.checkpoint(tmp_path, 5)["w"], torch.zeros(3, 4))
    whole = (tmp_path / CHECKPOINTS).read_bytes()
    for content in damaged(whole, 10):
        (tmp_path / CHECKPOINTS).write_bytes(content)
        for read in (lambda: catalogue.checkpoint_steps(tmp_path), lambda: catalogue.checkpoint(tmp_path, 5)):
            with pytest.raises(ModelFolderError, match=r"checkpoints\.safetensors: SHA-256 is .*the file was changed"):
                read()


def test_the_hash_of_checkpoints_is_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo import cards

    packing.pack({0: {"w": torch.ones(3, 4)}}, tmp_path / CHECKPOINTS)
    sha256, calls = file_sha256(tmp_path / CHECKPOINTS), list[Path]()

    def counted(path: Path) -> str:
        calls.append(path)
        return sha256

    (tmp_path / "card.json").write_text(json.dumps({"recipe": {"name": "toy"}, "sha256": {CHECKPOINTS: sha256}}))
    monkeypatch.setattr(cards, "file_sha256", counted)
    for _ in range(5):
        catalogue.checkpoint(tmp_path, 0)
    assert calls == [tmp_path / CHECKPOINTS]


@pytest.mark.parametrize("name", ["bigrams/counts.safetensors", "held_out/tokens.safetensors"])
def test_damaged_data_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / "shared" / "models").mkdir(parents=True)
    path = tmp_path / "shared" / "data" / name
    path.parent.mkdir(parents=True)
    whole = (ROOT / "shared" / "data" / name).read_bytes()
    monkeypatch.setenv("REPRISE_ROOT", str(tmp_path))
    for content in (whole[:-1], whole[:50], b"", b"\xff" * 100):
        path.write_bytes(content)
        with pytest.raises(CorpusError, match=rf"{path.name}: damaged .*; restore it"):
            bigram_counts() if "bigrams" in name else held_out_tokens()


def training_of(path: Path) -> tuple[torch.nn.Linear, Callable[[], object]]:
    """A module whose training is saved at `path`, and how to go on from there."""
    from training import FunctionTask, Part, Run, constant, restore, save

    module = torch.nn.Linear(16, 16)
    task: FunctionTask[torch.nn.Linear, torch.Tensor] = FunctionTask(
        lambda step: torch.zeros(1, 16), lambda module, batch: module(batch).sum()
    )
    run = Run.of(task, {"model": Part(module, (torch.optim.AdamW(module.parameters()),), constant)})
    save(run, path)
    return module, lambda: restore(run, path)


def test_a_checkpoint_of_a_training_that_was_cut_is_named(tmp_path: Path) -> None:
    from training import CheckpointError

    path = tmp_path / "training.pt"
    _, restore = training_of(path)
    whole = path.read_bytes()
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=rf"^{path}: not a checkpoint of this run"):
            restore()


def test_a_flipped_bit_in_a_checkpoint_of_a_training_changes_nothing_unseen(tmp_path: Path) -> None:
    """Either it is refused, or the bit was one that says nothing (a date, padding)."""
    from training import CheckpointError

    path = tmp_path / "training.pt"
    module, restore = training_of(path)
    before, refused = module.weight.detach().clone(), 0
    for content in list(damaged(path.read_bytes(), 40))[::2]:
        path.write_bytes(content)
        with contextlib.suppress(CheckpointError):
            restore()
            refused -= 1
        refused += 1
        assert torch.equal(module.weight, before)
    assert refused > 30
