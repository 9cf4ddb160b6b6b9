from __future__ import annotations

import copy
from collections import Counter
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from circuits import (
    Ablation,
    Head,
    MeanAblation,
    ResampleAblation,
    ZeroAblation,
    ablate_heads,
    ablated_log_probs,
    ablation_scores,
    ablation_scores_by_sequence,
    mean_ablation,
    next_token_log_probs,
    resample_ablation,
)
from circuits.ablation import derangement
from circuits.head_outputs import head_outputs, per_head

if TYPE_CHECKING:
    from tests.circuits.conftest import Case

HEADS: list[Head] = [(0, 2), (1, 0), (1, 1)]


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=5e-5, rtol=1e-4)


def rows_of(case: Case, head: int) -> slice:
    d_head = case.bridge.cfg.d_head
    return slice(head * d_head, (head + 1) * d_head)


def with_edited_weights(case: Case, heads: list[Head], tokens: Tensor, mean: Tensor | None = None) -> Tensor:
    """Log-probs of the independent model with the heads' rows of W_O zeroed and, for means, mean W_O put in b_O."""
    kept = [tensor.clone() for tensor in (*case.output_weights, *case.output_biases)]
    try:
        for layer, head in heads:
            rows = case.output_weights[layer][rows_of(case, head)]
            if mean is not None:
                case.output_biases[layer] += mean[layer, head] @ rows
            rows.zero_()
        return case.run(tokens, None).log_probs
    finally:
        for tensor, was in zip((*case.output_weights, *case.output_biases), kept, strict=True):
            tensor.copy_(was)


def test_zero_ablation_equals_zeroed_rows_of_w_o(case: Case, tokens: Tensor) -> None:
    expected = with_edited_weights(case, HEADS, tokens)
    assert (expected - case.run(tokens, None).log_probs).abs().max() > 0.1
    close(ablated_log_probs(case.bridge, tokens, HEADS, ZeroAblation(), batch_size=2), expected)
    with ablate_heads(case.bridge, HEADS, ZeroAblation()):
        close(next_token_log_probs(case.bridge, tokens), expected)


def test_mean_ablation_equals_a_bias(case: Case, tokens: Tensor) -> None:
    reference = tokens.flip(0, 1)[:3]
    means = case.run(reference, None).z.mean(dim=(1, 2))
    how = mean_ablation(case.bridge, reference, batch_size=2)
    torch.testing.assert_close(how.z, means, atol=1e-5, rtol=1e-4)
    expected = with_edited_weights(case, HEADS, tokens, means)
    close(ablated_log_probs(case.bridge, tokens, HEADS, how, batch_size=2), expected)


def test_resample_ablation_equals_donors_z_by_plain_hooks(case: Case, tokens: Tensor) -> None:
    how = resample_ablation(tokens, seed=1)
    donors = case.run(how.donors, None).z

    def edit(layer: int, z: Tensor) -> Tensor:
        z = z.clone()
        for at, head in HEADS:
            if at == layer:
                z[:, :, head] = donors[layer, :, :, head]
        return z

    expected = case.run(tokens, edit).log_probs
    assert (expected - case.run(tokens, None).log_probs).abs().max() > 0.1
    close(ablated_log_probs(case.bridge, tokens, HEADS, how, batch_size=2), expected)
    with ablate_heads(case.bridge, HEADS, how):
        close(next_token_log_probs(case.bridge, tokens), expected)


def test_ablation_of_nothing_and_with_itself_changes_nothing(case: Case, tokens: Tensor) -> None:
    clean = next_token_log_probs(case.bridge, tokens)
    itself = ResampleAblation(tokens)
    assert torch.equal(ablated_log_probs(case.bridge, tokens, [], ZeroAblation()), clean)
    assert torch.equal(ablated_log_probs(case.bridge, tokens, [], itself), clean)
    assert torch.equal(ablated_log_probs(case.bridge, tokens, HEADS, itself), clean)
    assert torch.equal(
        ablation_scores(case.bridge, tokens, itself), torch.zeros(case.bridge.cfg.n_layers, case.bridge.cfg.n_heads)
    )


@pytest.mark.parametrize("kind", ["zero", "mean", "resample"])
def test_scores_are_the_increase_of_the_mean_loss(native: Case, tokens: Tensor, kind: str) -> None:
    kinds: dict[str, Ablation] = {
        "zero": ZeroAblation(),
        "mean": mean_ablation(native.bridge, tokens),
        "resample": resample_ablation(tokens, seed=2),
    }
    how, targets = kinds[kind], slice(4, None)
    clean = native.run(tokens, None)
    donors = native.run(how.donors, None).z if isinstance(how, ResampleAblation) else torch.zeros_like(clean.z)
    new_z = clean.z.mean(dim=(1, 2), keepdim=True).expand_as(clean.z) if isinstance(how, MeanAblation) else donors
    expected = torch.zeros(5, 3, 3)
    for layer in range(3):
        for head in range(3):

            def edit(at: int, z: Tensor, layer: int = layer, head: int = head) -> Tensor:
                chosen = torch.zeros(3, 1)
                chosen[head] = float(at == layer)
                return z * (1 - chosen) + new_z[at] * chosen

            expected[:, layer, head] = (clean.log_probs - native.run(tokens, edit).log_probs)[:, 4:].mean(1)
    by_sequence = ablation_scores_by_sequence(native.bridge, tokens, how, targets=targets, batch_size=2)
    close(by_sequence, expected)
    close(ablation_scores(native.bridge, tokens, how, targets=targets), expected.mean(0))


def test_model_is_as_before_also_after_an_exception(case: Case, tokens: Tensor) -> None:
    case.bridge.eval()
    before = case.bridge(tokens)
    case.bridge.train()

    def fails_under_ablation() -> None:
        with ablate_heads(case.bridge, HEADS, ZeroAblation()):
            next_token_log_probs(case.bridge, tokens)
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fails_under_ablation()
    assert not any(point.has_hooks() for point in case.bridge.hook_dict.values())
    ablation_scores(case.bridge, tokens, resample_ablation(tokens, seed=0))
    assert not any(point.has_hooks() for point in case.bridge.hook_dict.values())
    assert case.bridge.training
    case.bridge.eval()
    assert torch.equal(case.bridge(tokens), before)


def test_gradients_flow_through_an_ablated_model(case: Case, tokens: Tensor) -> None:
    """Only the ablated head's z is cut from the graph: callers may train or attribute under ablation."""
    captured: list[Tensor] = []

    def keep(z: Tensor, hook: object) -> Tensor:
        z.retain_grad()
        captured.append(z)
        return z  # the hook point hands out a view, which is in the graph only when given back

    case.bridge.eval()
    name = "blocks.1.attn.hook_z"
    with case.bridge.hooks(fwd_hooks=[(name, keep)]), ablate_heads(case.bridge, [(1, 0)], ZeroAblation()):
        case.bridge(tokens).square().mean().backward()
    gradient = captured[0].grad
    assert gradient is not None
    gradient = per_head(gradient, case.bridge.cfg.n_heads)
    assert (gradient[:, :, 0] == 0).all()
    assert (gradient[:, :, 1] != 0).any()
    case.bridge.zero_grad()


def test_head_outputs_equal_the_oracle_s_z(case: Case, tokens: Tensor) -> None:
    expected = case.run(tokens, None).z
    for layer, z in head_outputs(case.bridge, tokens, [1, 0]).items():
        torch.testing.assert_close(z, expected[layer], atol=1e-5, rtol=1e-4)


def test_flat_z_is_split_into_heads() -> None:
    z = torch.arange(24.0).view(1, 2, 12)
    assert torch.equal(per_head(z, 3)[0, 1, 2], torch.tensor([20.0, 21.0, 22.0, 23.0]))
    assert per_head(z.view(1, 2, 3, 4), 3).shape == (1, 2, 3, 4)


def test_compatibility_mode_gives_the_same_ablation(tokens: Tensor, native: Case) -> None:
    """There a hook may be called once a name: permuting z twice would undo a resampling."""
    bridge = copy.deepcopy(native.bridge)
    how = resample_ablation(tokens, seed=3)
    expected = ablated_log_probs(native.bridge, tokens, [(0, 1)], how)
    bridge.enable_compatibility_mode()
    close(ablated_log_probs(bridge, tokens, [(0, 1)], how), expected)


def test_derangements_are_uniform_and_have_no_fixed_point() -> None:
    drawn = Counter(tuple(derangement(4, seed=seed).tolist()) for seed in range(1800))
    assert len(drawn) == 9  # of 4 things there are 9
    for permutation, times in drawn.items():
        assert sorted(permutation) == [0, 1, 2, 3]
        assert all(image != index for index, image in enumerate(permutation))
        assert abs(times - 200) < 5 * 200**0.5
    assert torch.equal(derangement(50, seed=1), derangement(50, seed=1))


def test_resampling_gives_each_sequence_another_one(tokens: Tensor) -> None:
    donors = resample_ablation(tokens, seed=0).donors
    assert not (donors == tokens).all(dim=1).any()
    assert sorted(donors.tolist()) == sorted(tokens.tolist())


@pytest.mark.parametrize("head", [(2, 0), (0, 7), (-1, 0), (0, -1)])
def test_heads_that_do_not_exist_are_refused(case: Case, tokens: Tensor, head: Head) -> None:
    last = case.bridge.cfg.n_heads - 1
    message = rf"head \({head[0]}, {head[1]}\) does not exist: expected .* layer 0 to 1 and head 0 to {last}"
    with pytest.raises(ValueError, match=message):
        ablated_log_probs(case.bridge, tokens, [(0, 0), head], ZeroAblation())
    with pytest.raises(ValueError, match=message), ablate_heads(case.bridge, [head], ZeroAblation()):
        pass


def test_wrong_shapes_are_refused(native: Case, tokens: Tensor) -> None:
    bridge, how = native.bridge, resample_ablation(tokens, seed=0)
    with pytest.raises(ValueError, match=r"donors have shape \(5, 11\): expected \(4, 11\), that of the tokens"):
        ablated_log_probs(bridge, tokens[:4], HEADS, how)
    with pytest.raises(ValueError, match=r"donors have shape \(5, 11\): expected \(5, 6\)"):
        ablation_scores(bridge, tokens[:, :6], how)
    with (
        pytest.raises(ValueError, match=r"the pass has 1 sequences of 11 tokens: expected 5 of 11"),
        ablate_heads(bridge, HEADS, how),
    ):
        bridge(tokens[:1])
    with pytest.raises(ValueError, match=r"mean z has shape \(1, 3, 4\): expected \(3, 3, 4\), .*mean_ablation"):
        ablated_log_probs(bridge, tokens, HEADS, MeanAblation(torch.zeros(1, 3, 4)))
    with pytest.raises(ValueError, match="leaves none of 10 columns: expected at least one"):
        ablation_scores(bridge, tokens, ZeroAblation(), targets=slice(10, None))
    with pytest.raises(ValueError, match="n=1: expected at least 2 sequences"):
        resample_ablation(tokens[:1], seed=0)
