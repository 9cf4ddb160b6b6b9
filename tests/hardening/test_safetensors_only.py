"""Weights come from safetensors and no code comes with them: pickles beside are never opened, remote code never run."""

from __future__ import annotations

import ast
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import interventions
from interventions import ModelError
from reprise import UserError, models

ROOT = Path(__file__).parents[2]
PICKLES = (
    "pytorch_model.bin",
    "model.bin",
    "model.pt",
    "model.pth",
    "model.ckpt",
    "tokenizer.pkl",
    "training_args.bin",
)


class Evil:
    """Unpickled, it writes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "code-was-run"


@pytest.fixture
def gpt2(tmp_path: Path, mark: Path) -> Path:
    """A small GPT-2, with pickles and modules beside that leave the mark when they are opened."""
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = tmp_path / "gpt2"
    sizes = {"n_layer": 1, "n_head": 2, "n_embd": 8, "vocab_size": 20, "n_positions": 16}
    GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)).save_pretrained(folder)
    for name in PICKLES:
        (folder / name).write_bytes(pickle.dumps(Evil(mark)))
    for name in ("configuration_evil.py", "modeling_evil.py", "conftest.py", "__init__.py"):
        (folder / name).write_text(f"import pathlib\npathlib.Path({str(mark)!r}).touch()\nclass Evil: ...\n")
    return folder


def change(folder: Path, **keys: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


AUTO_MAP = {
    "AutoConfig": "configuration_evil.Evil",
    "AutoModelForCausalLM": "modeling_evil.Evil",
    "AutoTokenizer": ["modeling_evil.Evil", None],
}


def test_the_pickle_of_this_test_would_leave_its_mark(gpt2: Path, mark: Path) -> None:
    pickle.loads((gpt2 / PICKLES[0]).read_bytes())
    assert mark.exists()


def test_pickles_beside_the_weights_are_not_opened(gpt2: Path, mark: Path) -> None:
    models.resolve(str(gpt2))
    assert interventions.load(gpt2).d_vocab == 20
    assert not mark.exists()


@pytest.mark.parametrize("left", [(), ("other.safetensors",)])
def test_weights_that_are_pickled_alone_are_refused(gpt2: Path, mark: Path, left: tuple[str, ...]) -> None:
    weights = gpt2 / "model.safetensors"
    for name in left:
        (gpt2 / name).write_bytes(weights.read_bytes())
    weights.unlink()
    with pytest.raises(ModelError, match=r"safetensors") as caught:
        interventions.load(gpt2)
    assert "\n" not in str(caught.value)
    if left:  # sound weights, which would do no harm
        state = load_file(gpt2 / left[0])
        torch.save({**state, "lm_head.weight": state["transformer.wte.weight"]}, gpt2 / "pytorch_model.bin")
        with pytest.raises(ModelError, match=r"no file named model\.safetensors"):
            interventions.load(gpt2)
    else:
        with pytest.raises(UserError, match=r"no \*\.safetensors; weights are loaded from safetensors alone"):
            models.resolve(str(gpt2))
    assert not mark.exists()


@pytest.mark.parametrize("index", ["pytorch_model.bin.index.json", "model.safetensors.index.json"])
def test_an_index_that_names_pickles_is_refused(gpt2: Path, mark: Path, index: str) -> None:
    (gpt2 / "model.safetensors").rename(gpt2 / "other.safetensors")
    names = json.dumps({"metadata": {}, "weight_map": {"transformer.wte.weight": "pytorch_model.bin"}})
    (gpt2 / index).write_text(names)
    with pytest.raises(ModelError) as caught:
        interventions.load(gpt2)
    assert "\n" not in str(caught.value)
    assert not mark.exists()


def test_a_model_that_needs_its_own_code_is_refused(gpt2: Path, mark: Path) -> None:
    change(gpt2, model_type="evil", auto_map=AUTO_MAP)
    with pytest.raises(
        ModelError, match=r"needs code of its own \(auto_map in its config\), which is never run"
    ) as caught:
        interventions.load(gpt2)
    assert "trust_remote_code=True, and make interventions.Model(name, network, tokenizer, bos)" in str(caught.value)
    assert not mark.exists()


def test_a_model_that_transformers_knows_is_loaded_without_the_code_beside(gpt2: Path, mark: Path) -> None:
    change(gpt2, auto_map=AUTO_MAP)
    (gpt2 / "tokenizer_config.json").write_text(json.dumps({"auto_map": AUTO_MAP, "tokenizer_class": "Evil"}))
    model = interventions.load(gpt2)
    assert type(model.network).__module__ == "transformers.models.gpt2.modeling_gpt2"
    assert not mark.exists()


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_a_kernel_from_a_hub_is_refused(gpt2: Path, key: str) -> None:
    change(gpt2, **{key: "kernels-community/evil"})
    with pytest.raises(ModelError, match=rf"config\.json: {key} is 'kernels-community/evil', code from elsewhere"):
        interventions.load(gpt2)


def test_a_network_of_ones_own_becomes_a_model_as_the_error_says(gpt2: Path) -> None:
    network = interventions.load(gpt2).network
    model = interventions.Model("mine", network, None, 0)
    assert (model.n_ctx, model.d_vocab) == (16, 20)


def test_nothing_of_ours_unpickles_but_where_it_is_known_to_be_safe() -> None:
    """`torch.load` has weights_only=True everywhere, and trust_remote_code is nowhere but False."""
    calls = 0
    for path in (*ROOT.glob("packages/*/src/**/*.py"), *ROOT.glob("replications/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert called not in ("pickle.load", "pickle.loads", "joblib.load", "dill.load", "dill.loads"), path
            assert keywords.get("trust_remote_code", "False") == "False", path
            assert keywords.get("allow_pickle", "False") == "False", path
            if called == "torch.load":
                calls += 1
                assert keywords["weights_only"] == "True", path
    assert calls


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path, mark: Path) -> None:
    from training import CheckpointError, FunctionTask, Part, Run, constant, restore

    module = torch.nn.Linear(2, 2)
    task: FunctionTask[torch.nn.Linear, torch.Tensor] = FunctionTask(
        lambda step: torch.zeros(1, 2), lambda module, batch: module(batch).sum()
    )
    run = Run.of(task, {"model": Part(module, (torch.optim.AdamW(module.parameters()),), constant)})
    path = tmp_path / "training.pt"
    path.write_bytes(pickle.dumps(Evil(mark)))
    with pytest.raises(CheckpointError, match=r"training\.pt: not a checkpoint of this run"):
        restore(run, path)
    torch.save({"format": 2, "parts": Evil(mark)}, path)
    with pytest.raises(CheckpointError, match=r"training\.pt: not a checkpoint of this run"):
        restore(run, path)
    assert not mark.exists()
