"""QK and OV circuits against what the model itself writes and attends to, with its biases and positions set to 0."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from circuits.bridge import record
from circuits.head_circuits import (
    effective_embedding,
    full_ov_circuit,
    full_qk_circuit,
    normalised_embedding,
    ov_circuit,
    qk_circuit,
)
from circuits.head_outputs import Head
from circuits.weights import read_weights

from .conftest import Case


@torch.no_grad()
def bare(model: Any, *, positions_only: bool = False) -> Any:
    """A copy without position embeddings and biases, evaluating."""
    model = copy.deepcopy(model).eval()
    for name, parameter in model.named_parameters():
        if name.startswith(("pos.", "transformer.wpe.")) or (name.endswith("bias") and not positions_only):
            parameter.zero_()
    return model


def divisor(model: Any, x: Tensor) -> Tensor:
    """s(x), written out again."""
    if not type(model.blocks[0].ln1).__name__.startswith("RMS") and not model.blocks[0].ln1.uses_rms_norm:
        return torch.sqrt(x.var(-1, unbiased=False, keepdim=True) + model.cfg.eps)
    return torch.sqrt((x * x).mean(-1, keepdim=True) + model.cfg.eps)


@torch.no_grad()
def written(model: Any, x: Tensor, head: Head) -> Tensor:
    """What `head` writes to the stream when each of the vectors x is a sequence of its own; [n, d_model]."""
    layer, at = head
    out: list[Tensor] = []

    def alone(z: Tensor, hook: Any) -> Tensor:
        kept = torch.zeros_like(z)
        width = model.cfg.d_head
        if z.ndim == 4:
            kept[:, :, at] = z[:, :, at]
        else:
            kept[:, :, at * width : (at + 1) * width] = z[:, :, at * width : (at + 1) * width]
        return kept

    hooks = [
        (f"blocks.{layer}.hook_resid_pre", lambda value, hook: x[:, None]),
        (f"blocks.{layer}.attn.hook_z", alone),
        (f"blocks.{layer}.hook_attn_out", lambda value, hook: out.append(value)),
    ]
    with model.hooks(fwd_hooks=hooks):
        model(torch.zeros(len(x), 1, dtype=torch.int64))
    return out[0][:, 0]


@torch.no_grad()
def odds(model: Any, query: Tensor, key: Tensor, head: Head) -> Tensor:
    """Log of the pattern from a query to a key, over that to itself, for streams that are single vectors; [n]."""
    layer, at = head
    x = torch.stack([key, query], dim=1)
    seen: list[Tensor] = []
    hooks = [
        (f"blocks.{layer}.hook_resid_pre", lambda value, hook: x),
        (f"blocks.{layer}.attn.hook_pattern", lambda value, hook: seen.append(value)),
    ]
    with model.hooks(fwd_hooks=hooks):
        model(torch.zeros(len(x), 2, dtype=torch.int64))
    return seen[0][:, at, 1, 0].log() - seen[0][:, at, 1, 1].log()


def logits(model: Any, x: Tensor) -> Tensor:
    """What x adds to the logits, times the final norm's divisor."""
    table: Tensor = model.unembed(model.ln_final(x[:, None]))[:, 0] * divisor(model, x)
    return table


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


def vectors(model: Any, n: int) -> Tensor:
    return torch.randn(n, model.cfg.d_model, generator=torch.Generator().manual_seed(5))


@torch.no_grad()
def check_ov(model: Any, head: Head) -> None:
    model = bare(model)
    weights, x = read_weights(model), vectors(model, 6)
    writes = written(model, x, head) * divisor(model, x)
    if weights.centred:  # no reader sees the mean
        writes = writes - writes.mean(-1, keepdim=True)
    close(x @ ov_circuit(weights, head).AB, writes)


@pytest.mark.parametrize("head", [(0, 2), (1, 0)])
def test_w_ov_is_what_a_head_writes(case: Case, head: Head) -> None:
    check_ov(case.bridge, head)


def test_w_ov_of_a_shipped_model(shipped: Any) -> None:
    check_ov(shipped("attn-only-2l"), (1, 5))


@torch.no_grad()
@pytest.mark.parametrize("heads", [(0, 1), [(0, 2), (1, 0), (1, 2)]])
def test_full_ov_is_what_attending_to_a_token_adds_to_the_logits(case: Case, heads: Any) -> None:
    model = bare(case.bridge)
    weights, E = read_weights(model), model.W_E
    several = [heads] if isinstance(heads, tuple) else heads
    theirs = sum(logits(model, written(model, E, head) * divisor(model, E)) for head in several)
    circuit = full_ov_circuit(weights, heads)
    assert circuit.mdim == len(several) * weights.d_head
    close(circuit.AB, torch.as_tensor(theirs))
    other = vectors(model, 7)
    close(
        full_ov_circuit(weights, several[:1], embedding=other).AB,
        logits(model, written(model, other, several[0]) * divisor(model, other)),
    )
    close(full_ov_circuit(read_weights(case.bridge), heads).AB, circuit.AB)  # biases and positions are left out


@torch.no_grad()
def check_qk(model: Any, head: Head) -> None:
    model = bare(model)
    weights, d_head = read_weights(model), model.cfg.d_head
    query, key = vectors(model, 9)[:4], vectors(model, 9)[5:]
    s_q, s_k, W_QK = divisor(model, query), divisor(model, key), qk_circuit(weights, head).AB
    scores = ((query / s_q) @ W_QK * (key / s_k - query / s_q)).sum(-1) / d_head**0.5
    close(scores, odds(model, query, key, head))


@torch.no_grad()
def test_qk_is_the_attention_of_one_token_to_another(case: Case) -> None:
    if case.bridge.cfg.positional_embedding_type == "rotary":
        for circuit in (qk_circuit, full_qk_circuit):
            with pytest.raises(ValueError, match=r"rotary positions: .* with circuits\.decompose_attention_scores"):
                circuit(read_weights(case.bridge), (0, 0))
        return
    check_qk(case.bridge, (1, 2))
    model = bare(case.bridge)
    weights, E, s = read_weights(model), model.W_E, divisor(model, model.W_E)
    n = len(E)
    table = full_qk_circuit(weights, (0, 1)).AB / (s * s.T * weights.d_head**0.5)
    close(full_qk_circuit(weights, (0, 1), embedding=normalised_embedding(weights)).AB / weights.d_head**0.5, table)
    theirs = odds(model, E.repeat_interleave(n, 0), E.repeat(n, 1), (0, 1)).view(n, n)
    representable = theirs > -60  # beyond, the pattern underflows
    assert representable.float().mean() > 0.9
    close((table - table.diagonal()[:, None])[representable], theirs[representable])
    close(full_qk_circuit(read_weights(case.bridge), (0, 1)).AB, full_qk_circuit(weights, (0, 1)).AB)


def test_qk_of_a_shipped_model(shipped: Any) -> None:
    check_qk(shipped("attn-only-2l"), (1, 11))


@torch.no_grad()
def test_normalised_embedding_is_what_the_first_norm_passes_on(case: Case) -> None:
    model, norm = case.bridge, case.bridge.blocks[0].ln1
    ours = normalised_embedding(read_weights(model)) * norm.weight
    close(ours if getattr(norm, "bias", None) is None else ours + norm.bias, norm(model.W_E[None])[0])


@torch.no_grad()
def test_effective_embedding_is_the_stream_after_block_0_without_attention(case: Case) -> None:
    if case.bridge.cfg.attn_only:
        with pytest.raises(ValueError, match="no MLP in block 0: expected a model with MLPs"):
            effective_embedding(case.bridge)
        return
    model = bare(case.bridge, positions_only=True)
    tokens = torch.arange(model.cfg.d_vocab)[:, None]
    with model.hooks(fwd_hooks=[("blocks.0.hook_attn_out", lambda value, hook: torch.zeros_like(value))]):
        theirs = record(model, tokens, ["blocks.1.hook_resid_pre"])["blocks.1.hook_resid_pre"][:, 0]
    assert case.bridge.training
    close(effective_embedding(case.bridge, chunk=7), theirs)
    assert case.bridge.training
    assert (theirs - model.W_E).abs().max() > 0.1


def test_a_model_without_layers_has_no_effective_embedding(shipped: Any) -> None:
    with pytest.raises(ValueError, match="no MLP in block 0"):
        effective_embedding(shipped("attn-only-0l"))


def test_bad_heads_and_embeddings(native: Case) -> None:
    weights = read_weights(native.bridge)
    with pytest.raises(ValueError, match=r"head \(3, 0\) does not exist"):
        ov_circuit(weights, (3, 0))
    with pytest.raises(ValueError, match=r"head \(0, 3\) does not exist"):
        full_ov_circuit(weights, [(0, 0), (0, 3)])
    with pytest.raises(ValueError, match=r"head \(0, -1\) does not exist"):
        qk_circuit(weights, (0, -1))
    with pytest.raises(ValueError, match=r"heads are \[\]: expected at least one \(layer, head\), each given once"):
        full_ov_circuit(weights, [])
    with pytest.raises(ValueError, match="each given once"):
        full_ov_circuit(weights, [(0, 1), (0, 1)])
    with pytest.raises(ValueError, match=r"embedding has shape \(4, 5\): expected \[d_vocab, 12\]"):
        full_qk_circuit(weights, (0, 0), embedding=torch.ones(4, 5))
