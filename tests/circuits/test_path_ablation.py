"""Path ablation against naive implementations, and against full ablation where the direct path is the only one."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from circuits.ablation import Ablation, ZeroAblation, ablate_heads, mean_ablation, resample_ablation
from circuits.detectors import head_scores_by_sequence
from circuits.head_outputs import Head, head_outputs
from circuits.losses import next_token_log_probs
from circuits.path_ablation import path_ablated, path_ablated_head_scores, path_ablated_log_probs
from circuits.tokens import repeated_random_tokens

from . import conftest
from .conftest import Case

INTO: tuple[Literal["q", "k", "v"], ...] = ("q", "k", "v")
SENDERS: list[Head] = [(0, 0), (0, 2)]
RECEIVERS: list[Head] = [(1, 1), (2, 0), (2, 2)]


def ablation(kind: str, case: Case, tokens: Tensor) -> Ablation:
    if kind == "zero":
        return ZeroAblation()
    return mean_ablation(case.bridge, tokens) if kind == "mean" else resample_ablation(tokens, seed=0)


def written(case: Case, tokens: Tensor, kind: str) -> Tensor:
    """What the senders write minus what they write when ablated."""
    z, weight = case.run(tokens, None).z[0], case.output_weights[0]
    total = torch.zeros(*tokens.shape, weight.shape[1])
    for _, head in SENDERS:
        ours = z[:, :, head]
        if kind == "mean":
            ours = ours - ours.mean(dim=(0, 1))
        if kind == "resample":
            how = resample_ablation(tokens, seed=0)
            ours = ours - case.run(how.donors, None).z[0][:, :, head]
        total = total + ours @ weight[4 * head : 4 * head + 4]
    return total


def native_z(model: Any, tokens: Tensor, removed: Tensor, into: str) -> dict[int, Tensor]:
    """z of layers 1 and 2, head by head; receivers read x - removed through `into`."""
    x, outputs = model.W_E[tokens] + model.W_pos[: tokens.shape[1]], {}
    for layer in range(3):
        norm, heads = model.blocks[layer].ln1, []
        for head in range(3):
            parts = {}
            for name in INTO:
                read = x - removed if (layer, head) in RECEIVERS and name == into else x
                read = torch.nn.functional.layer_norm(read, read.shape[-1:], norm.weight, norm.bias, 1e-5)
                W, b = getattr(model, f"W_{name.upper()}"), getattr(model, f"b_{name.upper()}")
                parts[name] = read @ W[layer, head] + b[layer, head]
            scores = parts["q"] @ parts["k"].mT / 2
            scores = scores.masked_fill(torch.ones_like(scores[0]).triu(1).bool(), -torch.inf)
            heads.append(scores.softmax(-1) @ parts["v"])
        outputs[layer] = torch.stack(heads, dim=2)
        x = x + sum(heads[head] @ model.W_O[layer, head] for head in range(3)) + model.b_O[layer]
    return outputs


def hugging_face_z(model: Any, case: Case, tokens: Tensor, removed: Tensor, into: str) -> dict[int, Tensor]:
    """The same: a pass in which a layer's q, k or v all come from x - removed gives the receivers' z, a pass without
    gives the others', with the z of the layers before fixed."""
    fixed: dict[int, Tensor] = {}
    for layer in (1, 2):
        z = case.run(tokens, fixed.get).z[layer].clone()
        part = INTO.index(into)
        inputs: dict[str, Tensor] = {}
        rows: Any = slice(None)
        if hasattr(model, "transformer"):
            block = model.transformer.h[layer]
            norm, project, rows = block.ln_1, block.attn.c_attn, slice(12 * part, 12 * part + 12)
        elif hasattr(model, "gpt_neox"):
            block = model.gpt_neox.layers[layer]
            norm, project = block.input_layernorm, block.attention.query_key_value
            rows = [12 * head + 4 * part + at for head in range(4) for at in range(4)]
        else:
            block = model.model.layers[layer]
            norm, project = block.input_layernorm, getattr(block.self_attn, f"{into}_proj")
        plain_norm, plain_project = copy.deepcopy(norm), copy.deepcopy(project)
        see = norm.register_forward_pre_hook(lambda module, args, inputs=inputs: inputs.update(x=args[0]))

        def edit(
            module: Any,
            args: Any,
            out: Tensor,
            inputs: Any = inputs,
            plain: Any = (plain_norm, plain_project),
            rows: Any = rows,
        ) -> Tensor:
            out = out.clone()
            out[..., rows] = plain[1](plain[0](inputs["x"] - removed))[..., rows]
            return out

        handle = project.register_forward_hook(edit)
        try:
            edited = case.run(tokens, fixed.get).z[layer]
        finally:
            see.remove()
            handle.remove()
        for head in [head for at, head in RECEIVERS if at == layer]:
            z[:, :, head] = edited[:, :, head]
        fixed[layer] = z
    return fixed


@pytest.mark.parametrize("name", ["native", "gpt2", "llama", "neox"])
@torch.no_grad()
def test_receivers_read_the_stream_without_the_senders(
    name: str, tokens: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In llama 2 query heads share a key and a value, and receivers are parts of groups."""
    monkeypatch.setattr(conftest, "N_LAYERS", 3)
    model = None if name == "native" else getattr(conftest, name)()
    case = conftest.native_case(3) if model is None else conftest.hugging_face_case(model)
    for into, kind in zip(INTO * 2, ("zero", "mean", "resample", "resample", "zero", "mean"), strict=True):
        removed = written(case, tokens, kind)
        if model is None:
            expected = native_z(case.bridge, tokens, removed, into)
        else:
            expected = hugging_face_z(model, case, tokens, removed, into)
        how = ablation(kind, case, tokens)
        with path_ablated(case.bridge, tokens, SENDERS, RECEIVERS, into, how):
            ours = head_outputs(case.bridge, tokens, [1, 2])
        clean = case.run(tokens, None)
        for layer in (1, 2):
            torch.testing.assert_close(ours[layer], expected[layer], rtol=1e-3, atol=1e-4)
            assert (ours[layer] - clean.z[layer]).abs().max() > 0.01
        log_probs = case.run(tokens, expected.get).log_probs
        pass_by_pass = path_ablated_log_probs(case.bridge, tokens, SENDERS, RECEIVERS, into, how, batch_size=2)
        torch.testing.assert_close(pass_by_pass, log_probs, rtol=1e-3, atol=1e-4)


def test_all_inputs_of_a_layer_together_are_full_ablation(case: Case, tokens: Tensor) -> None:
    """Where nothing lies between sender and receivers; GPT-NeoX's first MLP runs beside the attention."""
    if case.bridge.cfg.architecture in ("GPT2LMHeadModel", "LlamaForCausalLM"):
        pytest.skip("an MLP lies between layer 0 and layer 1")
    receivers = [(1, head) for head in range(case.bridge.cfg.n_heads)]
    how = mean_ablation(case.bridge, tokens)
    with ExitStack() as paths:
        for into in INTO:
            paths.enter_context(path_ablated(case.bridge, tokens, [(0, 1)], receivers, into, how))
        ours = head_outputs(case.bridge, tokens, [1])[1]
    with ablate_heads(case.bridge, [(0, 1)], how):
        theirs = head_outputs(case.bridge, tokens, [1])[1]
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
    assert (theirs - case.run(tokens, None).z[1]).abs().max() > 0.01


@torch.no_grad()
def test_contexts_nest_where_heads_share_keys_and_values(tokens: Tensor) -> None:
    """Heads 1 and 2 belong to different groups of two, of which heads 0 and 3 are not to notice anything."""
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge import TransformerBridge

    shape = {"n_heads": 4, "n_key_value_heads": 2, "d_head": 4, "d_model": 16, "d_vocab": conftest.D_VOCAB, "n_ctx": 24}
    config = TransformerBridgeConfig(
        n_layers=2, attn_only=True, act_fn="relu", normalization_type="LN", seed=0, init_weights=True, **shape
    )
    model: Any = TransformerBridge.boot_native(config)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    clean = head_outputs(model, tokens, [1])[1]
    with ExitStack() as paths:
        for into in ("q", "v", "k"):
            paths.enter_context(path_ablated(model, tokens, [(0, 1)], [(1, 1), (1, 2)], into, ZeroAblation()))
        ours = head_outputs(model, tokens, [1])[1]
    with ablate_heads(model, [(0, 1)], ZeroAblation()):
        ablated = head_outputs(model, tokens, [1])[1]
    assert torch.equal(ours[:, :, [0, 3]], clean[:, :, [0, 3]])
    torch.testing.assert_close(ours[:, :, [1, 2]], ablated[:, :, [1, 2]], rtol=1e-3, atol=1e-4)
    assert (ablated - clean).abs().amax(dim=(0, 1, 3)).min() > 0.01


def test_the_model_is_afterwards_as_before(case: Case, tokens: Tensor) -> None:
    model, senders, receivers = case.bridge, [(0, 1)], [(1, 0)]
    before, training = next_token_log_probs(model, tokens), model.training
    for into in INTO:
        with path_ablated(model, tokens, senders, receivers, into, ZeroAblation()):
            assert not torch.equal(next_token_log_probs(model, tokens), before)
        with pytest.raises(RuntimeError), path_ablated(model, tokens, senders, receivers, into, ZeroAblation()):
            raise RuntimeError
        with path_ablated(model, tokens, senders, receivers, into, ZeroAblation()):
            for others in (tokens.flip(0), tokens[:2]):
                with pytest.raises(ValueError, match=r"the pass has other tokens \(shape \(\d, 11\)\): expected those"):
                    next_token_log_probs(model, others)
        assert torch.equal(next_token_log_probs(model, tokens), before)
        assert model.training == training


def test_no_senders_change_nothing_and_repeated_heads_count_once(native: Case, tokens: Tensor) -> None:
    def ours(senders: list[Head], receivers: list[Head]) -> Tensor:
        return path_ablated_log_probs(native.bridge, tokens, senders, receivers, "k", ZeroAblation())

    torch.testing.assert_close(ours([], [(1, 0)]), native.run(tokens, None).log_probs, rtol=1e-4, atol=1e-4)
    assert torch.equal(ours([(0, 1)] * 2, [(1, 0)] * 2), ours([(0, 1)], [(1, 0)]))


def test_induction_needs_the_previous_token_head_in_its_keys(shipped: Any) -> None:
    model = shipped("attn-only-2l")
    tokens = repeated_random_tokens(4, 40, 1024, seed=0, bos=0)
    receivers: list[Head] = [(1, head) for head in (0, 2, 3, 4, 5, 7, 11)]
    how, heads = mean_ablation(model, tokens), [head for _, head in receivers]
    clean = head_scores_by_sequence(model, tokens)["induction"][:, 1, heads].mean(dim=0)
    scores = {into: path_ablated_head_scores(model, tokens, [(0, 6)], receivers, into, how) for into in INTO}
    mean = {into: scores[into]["induction"][:, 1, heads].mean(dim=0) for into in INTO}
    assert (mean["k"] < 0.25 * clean).all()
    assert (mean["q"] > 0.5 * clean).all()
    assert mean["k"].mean() < 0.15 * clean.mean()
    assert mean["q"].mean() > 0.65 * clean.mean()
    torch.testing.assert_close(mean["v"], clean)  # patterns do not read values
    assert scores["k"]["induction"].shape == (4, 2, 12)


def test_bad_input_is_refused(native: Case, tokens: Tensor) -> None:
    def enter(senders: list[Head], receivers: list[Head], how: Ablation | None = None) -> None:
        with path_ablated(native.bridge, tokens, senders, receivers, "q", how or ZeroAblation()):
            pass

    with pytest.raises(ValueError, match=r"sender \(1, 0\) is not before receiver \(1, 2\): expected every sender"):
        enter([(0, 0), (1, 0)], [(2, 0), (1, 2)])
    with pytest.raises(ValueError, match=r"head \(3, 0\) does not exist"):
        enter([(0, 0)], [(3, 0)])
    with pytest.raises(ValueError, match=r"donors have shape \(4, 11\): expected \(5, 11\)"):
        enter([(0, 0)], [(1, 0)], resample_ablation(tokens[:4], seed=0))
