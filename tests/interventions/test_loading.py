"""Loading, against the plain-torch network and against transformers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor

import interventions
from interventions import ModelError, loading, tokenizing
from interventions.hooks import Modules
from zoo.model import AttentionOnly


@pytest.fixture(scope="module")
def gpt2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import GPT2Config, GPT2LMHeadModel

    path = tmp_path_factory.mktemp("hub") / "gpt2-small-random"
    torch.manual_seed(0)
    config = GPT2Config(n_layer=2, n_head=2, n_embd=16, vocab_size=300, n_positions=32)
    GPT2LMHeadModel(config).save_pretrained(path)
    return path


def test_an_attention_only_folder_has_the_logits_of_plain_torch(
    folder: Path, network: AttentionOnly, tokens: Tensor
) -> None:
    model = interventions.load(folder)
    assert (model.name, model.bos, model.n_ctx, model.d_vocab) == ("toy", 0, 32, 300)
    with torch.no_grad():
        torch.testing.assert_close(model.bridge(tokens), network(tokens), rtol=0, atol=1e-5)


def test_the_tokenizer_is_that_of_the_folder(folder: Path) -> None:
    model = interventions.load(folder)
    assert model.tokenizer is not None
    text = "def double(number):"
    assert model.tokenizer.encode(text) == Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids
    assert model.tokenizer.decode(model.tokenizer.encode(text)) == text


def test_a_transformers_tokenizer_adds_nothing_and_cuts_nothing() -> None:
    """Whatever another caller has it do: truncation stays in it behind the call."""
    from tokenizers import models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.WordLevel({"[UNK]": 0, "[BOS]": 1, "a": 2, "b": 3}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing(single="[BOS] $A", special_tokens=[("[BOS]", 1)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="[BOS]")
    words = tokenizing.Words(tokenizer)
    assert words.encode("a b c [BOS] a") == [2, 3, 0, 1, 2]
    assert tokenizer("a b a b", truncation=True, max_length=3)["input_ids"] == [1, 2, 3]
    assert words.encode("a b a b") == [2, 3, 2, 3]


def test_set_weights_puts_another_checkpoint_in_and_the_first_back(
    folder: Path, network: AttentionOnly, tokens: Tensor
) -> None:
    model = interventions.load(folder)
    other = AttentionOnly(network.config, seed=4)
    with torch.no_grad():
        before = model.bridge(tokens)
        interventions.set_weights(model, other.state_dict())
        torch.testing.assert_close(model.bridge(tokens), other(tokens), rtol=0, atol=1e-5)
        interventions.set_weights(model, network.state_dict())
        assert torch.equal(model.bridge(tokens), before)


def test_weights_of_another_shape_are_refused(folder: Path, network: AttentionOnly) -> None:
    model = interventions.load(folder)
    state = {**network.state_dict(), "embed.weight": torch.zeros(3, 3)}
    with pytest.raises(ModelError, match=r"toy: weights do not fit .*embed.*shape"):
        interventions.set_weights(model, state)


def test_a_hugging_face_folder_has_the_logits_of_transformers(gpt2_folder: Path, tokens: Tensor) -> None:
    from transformers import GPT2LMHeadModel

    model = interventions.load(gpt2_folder)
    reference = GPT2LMHeadModel.from_pretrained(gpt2_folder).eval()
    with torch.no_grad():
        torch.testing.assert_close(model.bridge(tokens), reference(tokens).logits, rtol=0, atol=1e-4)
    assert model.tokenizer is None


def test_no_bar_stays_where_nobody_watches(gpt2_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from transformers import GPT2LMHeadModel

    interventions.load(gpt2_folder)
    assert capfd.readouterr() == ("", "")
    GPT2LMHeadModel.from_pretrained(gpt2_folder)
    assert "Loading weights" in capfd.readouterr().err  # theirs is as it was


def test_the_dtype_is_the_one_asked_for(folder: Path, gpt2_folder: Path, tokens: Tensor) -> None:
    for path in (folder, gpt2_folder):
        assert interventions.load(path, dtype=torch.bfloat16).bridge(tokens).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        ("no config", r"config\.json: no such file"),
        ("config is no json", r"config\.json: cannot be read as JSON"),
        ("config is a list", r"config\.json: expected a JSON object"),
        ("config lacks a key", r"config\.json: expected the integers n_layers"),
        ("no weights", r"no \*\.safetensors"),
        ("pickled weights only", r"no \*\.safetensors"),
        ("a bit of the weights flipped", r"model\.safetensors: SHA-256 is"),
        ("weights truncated, no card", r"model\.safetensors: cannot be read"),
        ("a listed file is missing", r"tokenizer\.json: missing"),
        ("card is no card", r"card\.json: not a model card"),
    ],
)
def test_a_bad_folder_gives_one_clear_line(folder: Path, damage: str, expected: str) -> None:
    config, weights, card = folder / "config.json", folder / "model.safetensors", folder / "card.json"
    content = bytearray(weights.read_bytes())
    if "config" in damage:
        card.unlink()
    match damage:
        case "no config":
            config.unlink()
        case "config is no json":
            config.write_text("{")
        case "config is a list":
            config.write_text("[]")
        case "config lacks a key":
            config.write_text(json.dumps({"model_type": "attention_only", "n_layers": 2}))
        case "no weights":
            weights.unlink()
        case "pickled weights only":
            weights.rename(folder / "pytorch_model.bin")
        case "a bit of the weights flipped":
            content[-5] ^= 1
            weights.write_bytes(content)
        case "weights truncated, no card":
            card.unlink()
            weights.write_bytes(content[: len(content) // 2])
        case "a listed file is missing":
            (folder / "tokenizer.json").unlink()
        case "card is no card":
            card.write_text("{}")
    with pytest.raises(ModelError, match=expected) as caught:
        interventions.load(folder)
    assert "\n" not in str(caught.value)


def test_an_id_that_cannot_be_fetched_gives_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_hub_answers", lambda: False)
    with pytest.raises(ModelError, match=re.escape("nobody/nothing: expected a model folder, or the id")) as caught:
        interventions.load("nobody/nothing")
    assert "\n" not in str(caught.value)


def test_an_architecture_without_a_bridge_is_named(tmp_path: Path) -> None:
    from transformers import CTRLConfig, CTRLLMHeadModel

    CTRLLMHeadModel(CTRLConfig(n_layer=1, n_head=2, n_embd=16, dff=16, vocab_size=50)).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="no bridge for CTRLLMHeadModel"):
        _ = interventions.load(tmp_path).bridge


def test_networks_that_cannot_be_branched_load_and_are_refused_by_the_engine(tmp_path: Path) -> None:
    import transformers

    mamba = transformers.MambaConfig(hidden_size=16, num_hidden_layers=1, vocab_size=50, state_size=4)
    transformers.MambaForCausalLM(mamba).save_pretrained(tmp_path)
    state_space = interventions.load(tmp_path)
    assert state_space.d_vocab == 50
    with pytest.raises(ModelError, match=r"config of mamba has no max_position_embeddings"):
        _ = state_space.n_ctx
    t5 = transformers.T5Config(d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=4, vocab_size=50)
    quantised = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_layer=1, n_head=2, n_embd=16, vocab_size=50))
    quantised.config.quantization_config = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    for network, expected in (
        (state_space.network, "mamba: no such row"),
        (transformers.T5ForConditionalGeneration(t5), "t5: expected a decoder, got an encoder-decoder"),
        (quantised, "gpt2: quantised weights"),
    ):
        with pytest.raises(ModelError, match=expected) as caught:
            Modules(network)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("device", ["banana", "cuda:99"])
def test_a_device_that_is_not_here_is_no_fault_of_the_model(device: str) -> None:
    with pytest.raises(ModelError, match=f"^device '{device}': torch cannot use it here .*expected cpu, or a cuda"):
        loading.load("no/such-model", device=device)
