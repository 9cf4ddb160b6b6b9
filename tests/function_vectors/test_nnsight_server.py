"""Layers as a vLLM engine has them: tokens in one list, and a stream that is the sum of two tensors.

No engine runs here. A stand-in of its shape is traced in its place, and compared with the same arithmetic written out.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from function_vectors.nnsight_runner import NNsightRunner
from function_vectors.runners import StreamEdit, adding, replacing
from interventions import as_prompts

nnsight = pytest.importorskip("nnsight")

D_MODEL, D_VOCAB, N_LAYERS, N_HEADS = 8, 23, 3, 2
GENERATOR = torch.Generator().manual_seed(0)
ROWS = [[3, 5, 7, 2], [4, 1], [9, 8, 8]]
PROMPTS = as_prompts(ROWS)
VECTOR = torch.randn(D_MODEL, generator=GENERATOR)
STATES = torch.randn(3, N_LAYERS, D_MODEL, generator=GENERATOR)


class Attention(nn.Module):
    """The mean of the tokens so far, projected."""

    def __init__(self) -> None:
        super().__init__()
        self.o_proj = nn.Linear(D_MODEL, D_MODEL)

    def forward(self, x: Tensor) -> Tensor:
        written: Tensor = self.o_proj(x.cumsum(dim=0) / torch.arange(1, len(x) + 1)[:, None])
        return written


class Layer(nn.Module):
    """What is added to the stream, and the stream without it, both [pos, d_model]: the next layer adds them."""

    def __init__(self) -> None:
        super().__init__()
        self.self_attn, self.mlp = Attention(), nn.Linear(D_MODEL, D_MODEL)

    def forward(self, written: Tensor, stream: Tensor | None) -> tuple[Tensor, Tensor]:
        stream = written if stream is None else written + stream
        stream = stream + self.self_attn(stream)
        return self.mlp(stream).tanh(), stream


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Embedding(D_VOCAB, D_MODEL), nn.LayerNorm(D_MODEL)
        self.layers = nn.ModuleList(Layer() for _ in range(N_LAYERS))


class Served(nn.Module):
    """Tokens [pos] to the logits of the last one [1, d_vocab]."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.config = SimpleNamespace(model_type="llama", num_attention_heads=N_HEADS)
        self.model, self.lm_head = Inner(), nn.Linear(D_MODEL, D_VOCAB)

    def forward(self, tokens: Tensor) -> Tensor:
        written, stream = self.model.embed(tokens), None
        for layer in self.model.layers:
            written, stream = layer(written, stream)
        logits: Tensor = self.lm_head(self.model.norm((written + stream)[-1:]))
        return logits


@torch.no_grad()
def written_out(
    network: Any, tokens: list[int], edit: StreamEdit | None, prompt: int, at: int
) -> tuple[Tensor, Tensor]:
    """Logits and the stream behind every layer at the last token, the stream edited at one of them."""
    x, seen = network.model.embed(torch.tensor(tokens)), []
    for number, layer in enumerate(network.model.layers):
        x = x + layer.self_attn(x)
        x = x + layer.mlp(x).tanh()
        if edit is not None and number == at:
            values = edit.at(number, slice(prompt, prompt + 1))[0]
            x[-1] = values if edit.replace else x[-1] + values
        seen.append(x[-1].clone())
    return network.lm_head(network.model.norm(x[-1])), torch.stack(seen)


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Served:
    """Traced by `nnsight.NNsight` as by VLLM: a list of ids, and `.logits`."""
    trace = nnsight.NNsight.trace

    def served(self: Any, tokens: list[int], *, serve: str, temperature: float, max_tokens: int) -> Any:
        assert (serve, temperature, max_tokens) == ("here", 0.0, 1)
        return trace(self, torch.tensor(tokens))

    monkeypatch.setattr(nnsight.NNsight, "trace", served)
    monkeypatch.setattr(nnsight.NNsight, "logits", property(lambda self: self.output), raising=False)
    return Served().eval()


@pytest.mark.parametrize("edit", [adding(VECTOR), replacing(STATES), StreamEdit(STATES)])
def test_the_sum_of_both_tensors_is_edited(network: Served, edit: StreamEdit) -> None:
    found = NNsightRunner(nnsight.NNsight(network), serve="here").predictions_by_layer(PROMPTS, edit, [0, 1, 2])
    expected = [
        [int(written_out(network, row, edit, at, layer)[0].argmax()) for layer in range(N_LAYERS)]
        for at, row in enumerate(ROWS)
    ]
    assert found.tolist() == expected
    clean = NNsightRunner(nnsight.NNsight(network), serve="here").predictions(PROMPTS).tolist()
    assert clean == [int(written_out(network, row, None, 0, 0)[0].argmax()) for row in ROWS]
    assert expected != [[token] * N_LAYERS for token in clean]


def test_the_sum_of_both_tensors_is_read(network: Served) -> None:
    found = NNsightRunner(nnsight.NNsight(network), serve="here").last_stream(PROMPTS)
    expected = torch.stack([written_out(network, row, None, 0, 0)[1] for row in ROWS])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_z_is_read_without_a_batch(network: Served) -> None:
    found = NNsightRunner(nnsight.NNsight(network), serve="here").last_z(PROMPTS)
    assert found.shape == (len(ROWS), N_LAYERS, N_HEADS, D_MODEL // N_HEADS)
    first = torch.stack([network.model.embed(torch.tensor(row)).mean(dim=0) for row in ROWS])
    torch.testing.assert_close(found[:, 0].flatten(1), first, atol=1e-5, rtol=0)
