from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from circuits import attention_patterns, reduce_patterns

if TYPE_CHECKING:
    from tests.circuits.conftest import Case


def test_patterns_equal_softmax_of_qk_scores(case: Case, tokens: Tensor) -> None:
    patterns = attention_patterns(case.bridge, tokens, batch_size=2)
    expected = case.run(tokens, None).patterns
    torch.testing.assert_close(patterns, expected, atol=2e-6, rtol=1e-4)
    assert expected.std() > 0.1  # the weights make heads choose, so that a transposed pattern would not pass


def test_reducer_sees_one_layer_of_one_batch_at_a_time(case: Case, tokens: Tensor) -> None:
    seen = []

    def diagonal(pattern: Tensor, chunk: Tensor) -> Tensor:
        seen.append((tuple(pattern.shape), len(chunk)))
        return pattern.diagonal(dim1=-2, dim2=-1)

    reduced = reduce_patterns(case.bridge, tokens, diagonal, batch_size=2)
    n_heads = case.bridge.cfg.n_heads
    sizes = [size for size in (2, 2, 1) for _ in range(case.bridge.cfg.n_layers)]
    assert seen == [((size, n_heads, 11, 11), size) for size in sizes]
    expected = case.run(tokens, None).patterns.diagonal(dim1=-2, dim2=-1).transpose(0, 1)
    torch.testing.assert_close(reduced, expected, atol=2e-6, rtol=1e-4)


def test_forward_pass_ends_at_the_last_pattern(case: Case, tokens: Tensor) -> None:
    unembeddings = []
    with case.bridge.hooks(fwd_hooks=[("unembed.hook_out", lambda logits, hook: unembeddings.append(logits))]):
        attention_patterns(case.bridge, tokens)
        assert unembeddings == []
        case.bridge(tokens)
    assert len(unembeddings) == 1


def test_model_is_as_before_also_after_an_exception(case: Case, tokens: Tensor) -> None:
    before = quiet_logits(case, tokens)
    case.bridge.train()

    def fails(pattern: Tensor, chunk: Tensor) -> Tensor:
        raise RuntimeError("the reducer fails")

    with pytest.raises(RuntimeError, match="the reducer fails"):
        reduce_patterns(case.bridge, tokens, fails)
    attention_patterns(case.bridge, tokens)
    assert not any(point.has_hooks() for point in case.bridge.hook_dict.values())
    assert case.bridge.training
    assert torch.is_grad_enabled()
    assert torch.equal(quiet_logits(case, tokens), before)


def test_hooks_of_the_caller_survive(case: Case, tokens: Tensor) -> None:
    calls = []
    with case.bridge.hooks(fwd_hooks=[("blocks.0.attn.hook_pattern", lambda pattern, hook: calls.append(1))]):
        attention_patterns(case.bridge, tokens)
        attention_patterns(case.bridge, tokens)
    assert len(calls) == 2


def test_batch_size_below_one_is_refused(native: Case, tokens: Tensor) -> None:
    with pytest.raises(ValueError, match="batch_size is 0: expected at least 1"):
        attention_patterns(native.bridge, tokens, batch_size=0)


def quiet_logits(case: Case, tokens: Tensor) -> Tensor:
    case.bridge.eval()
    with torch.no_grad():
        logits: Tensor = case.bridge(tokens)
    return logits
