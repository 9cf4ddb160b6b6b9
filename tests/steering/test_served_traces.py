"""A stream as a vLLM engine has it: tokens in one list, and layers that leave the sum of two tensors to the next one.

No engine runs here. A stand-in of its shape is traced in its place, and compared with the same arithmetic written out.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from interventions.backends import Traced
from steering.steering import Operation, Steer
from steering.traced_passes import ServedPasses
from steering.vectors import Component, ModelIdentity, SteeringVector

from .exchange_models import operated

nnsight = pytest.importorskip("nnsight")

D_MODEL, D_VOCAB, N_LAYERS = 8, 23, 3
ROWS = [[3, 5, 7, 2], [4, 1], [9, 8, 8]]
LETTERS = torch.tensor([[1, 2], [3, 4], [0, 5]])


class Layer(nn.Module):
    """What is added to the stream, and the stream without it, both [pos, d_model]: the next layer adds them."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.mlp = nn.Linear(D_MODEL, D_MODEL), nn.Linear(D_MODEL, D_MODEL)

    def forward(self, positions: Tensor, written: Tensor, stream: Tensor | None) -> tuple[Tensor, Tensor]:
        stream = written if stream is None else written + stream
        stream = stream + self.attention(stream.cumsum(dim=0) / (positions[:, None] + 1))
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
        text = SimpleNamespace(num_hidden_layers=N_LAYERS, hidden_size=D_MODEL)
        self.config = SimpleNamespace(model_type="llama", num_attention_heads=2, get_text_config=lambda: text)
        self.model, self.lm_head = Inner(), nn.Linear(D_MODEL, D_VOCAB)

    def forward(self, tokens: Tensor) -> Tensor:
        positions, written, stream = torch.arange(len(tokens)), self.model.embed(tokens), None
        for layer in self.model.layers:
            written, stream = layer(positions, written, stream)
        logits: Tensor = self.lm_head(self.model.norm((written + stream)[-1:]))
        return logits


@torch.no_grad()
def written_out(network: Any, tokens: list[int], edits: dict[tuple[str, int], Any]) -> tuple[Tensor, Tensor]:
    """Log-probabilities behind the last token, and what goes into each layer and out of the last."""
    x, seen = network.model.embed(torch.tensor(tokens)), []
    for at, layer in enumerate(network.model.layers):
        x = edits.get(("resid_pre", at), lambda x: x)(x)
        seen.append(x.clone())
        x = x + layer.attention(x.cumsum(dim=0) / torch.arange(1, len(x) + 1)[:, None])
        x = x + layer.mlp(x).tanh()
        x = edits.get(("resid_post", at), lambda x: x)(x)
    return network.lm_head(network.model.norm(x[-1])).log_softmax(dim=-1), torch.stack([*seen, x])


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> ServedPasses:
    """Traced by `nnsight.NNsight` as by VLLM: a list of ids, and `.logits`."""
    trace, network = nnsight.NNsight.trace, Served().eval()

    def served(self: Any, tokens: list[int], *, serve: str, temperature: float, max_tokens: int) -> Any:
        assert (serve, temperature, max_tokens) == ("here", 0.0, 1)
        return trace(self, torch.tensor(tokens))

    monkeypatch.setattr(nnsight.NNsight, "trace", served)
    monkeypatch.setattr(nnsight.NNsight, "logits", property(lambda self: self.output), raising=False)
    model: Any = network
    return ServedPasses(Traced("served", model, None, None, nnsight.NNsight(network), serve="here"))


def vector(component: Component, layers: tuple[int, ...], n_positions: int | None = None) -> SteeringVector:
    generator = torch.Generator().manual_seed(1)
    shape = (D_MODEL,) if n_positions is None else (n_positions, D_MODEL)
    directions = {layer: torch.randn(shape, generator=generator) for layer in layers}
    return SteeringVector(directions, "v", ModelIdentity("m", "llama", N_LAYERS, D_MODEL), component)


@pytest.mark.parametrize("operation", ["add", "project_out", "clamp", "norm_preserving"])
@pytest.mark.parametrize("component", ["resid_pre", "resid_post"])
def test_the_sum_of_both_tensors_is_written(passes: ServedPasses, component: Component, operation: Operation) -> None:
    ours = vector(component, (0, 1, 2))

    def write(direction: Tensor) -> Any:
        return lambda x: torch.stack([operated(row, direction, 0.7, operation) for row in x])

    edits: dict[tuple[str, int], Any] = {
        (component, layer): write(direction) for layer, direction in ours.directions.items()
    }
    found = passes.behind(ROWS, LETTERS, [Steer(ours, 0.7, operation=operation)])
    expected = [written_out(passes.model.network, row, edits)[0] for row in ROWS]
    torch.testing.assert_close(found, torch.stack(expected).gather(1, LETTERS), atol=1e-5, rtol=0)
    plain = passes.behind(ROWS, LETTERS, [])
    assert float((found - plain).abs().max()) > 0.01
    unsteered = torch.stack([written_out(passes.model.network, row, {})[0] for row in ROWS])
    torch.testing.assert_close(plain, unsteered.gather(1, LETTERS), atol=1e-5, rtol=0)


def test_a_direction_for_each_position_counts_real_tokens(passes: ServedPasses) -> None:
    ours = vector("resid_pre", (1,), n_positions=2)

    def write(x: Tensor) -> Tensor:
        return torch.cat([x[:2] + ours.directions[1], x[2:]])

    found = passes.losses(ROWS, [2, 1, 0], [Steer(ours)])
    for row, losses, count in zip(ROWS, found, (2, 1, 0), strict=True):
        for at, loss in zip(range(len(row) - count, len(row)), losses, strict=True):
            before = row[:at] if at > 1 else row[:1]
            cut = {("resid_pre", 1): lambda x: write(x) if len(x) > 1 else x + ours.directions[1][:1]}
            expected = -written_out(passes.model.network, before, cut)[0][row[at]]
            torch.testing.assert_close(loss, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("component", ["resid_pre", "resid_post"])
def test_the_sum_of_both_tensors_is_read(passes: ServedPasses, component: Component) -> None:
    streams = [written_out(passes.model.network, row, {})[1] for row in ROWS]
    first = int(component == "resid_post")
    for read in (-1, "mean"):
        found = passes.streams(ROWS, component, (2, 0), read)
        of = [x[:, -1] if read == -1 else x.mean(dim=1) for x in streams]
        expected = torch.stack([x[[2 + first, first]] for x in of])
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    whole = passes.streams([ROWS[0]], component, (1,), None)
    torch.testing.assert_close(whole[0], streams[0][[1 + first]], atol=1e-5, rtol=0)
