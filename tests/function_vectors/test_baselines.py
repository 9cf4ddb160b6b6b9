"""Baselines against loops over prompts, and draws against what a draw must satisfy."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from function_vectors.baselines import layer_average, mean_differences, of_another_task, random_heads, random_vector
from function_vectors.engine import EngineRunner
from function_vectors.vectors import FunctionVector
from interventions import Prompts

from .conftest import NETWORKS, Plain, encoded, lists, random_network

CLEAN = encoded((7, 4, 6, 7, 5), seed=0)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_layer_average_is_that_of_a_loop_over_prompts(name: str) -> None:
    found = layer_average(EngineRunner(random_network(name), batch_size=2), CLEAN)
    plain = Plain(name)
    expected = torch.stack([plain.run(tokens).stream for tokens in lists(CLEAN)]).mean(dim=0)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)


def test_prompts_pass_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    last_stream = EngineRunner.last_stream

    def counted(self: EngineRunner, prompts: Prompts) -> Tensor:
        seen.append(len(prompts))
        return last_stream(self, prompts)

    monkeypatch.setattr(EngineRunner, "last_stream", counted)
    layer_average(EngineRunner(random_network("gpt2"), batch_size=3), CLEAN)
    assert seen == [3, 2]


def test_mean_differences_add_up_to_nothing() -> None:
    averages = dict(zip("abc", torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0)), strict=True))
    found = mean_differences(averages)
    torch.testing.assert_close(found["a"] + found["b"] + found["c"], torch.zeros(2, 4))
    torch.testing.assert_close(found["a"] - found["b"], averages["a"] - averages["b"])
    with pytest.raises(ValueError, match="layer averages of 1 tasks: expected at least 2"):
        mean_differences({"a": averages["a"]})


def test_random_heads_are_drawn_among_the_others_alike() -> None:
    chosen = ((0, 1), (1, 0))
    draws = [random_heads(2, n_layers=2, n_heads=3, exclude=chosen, seed=seed) for seed in range(300)]
    left = [(0, 0), (0, 2), (1, 1), (1, 2)]
    assert all(sorted(set(draw)) == list(draw) and set(draw) <= set(left) for draw in draws)
    counts = [sum(head in draw for draw in draws) for head in left]
    # Each is drawn in half of 300: within five standard deviations.
    assert all(abs(count - 150) < 5 * (300 / 4) ** 0.5 for count in counts)
    assert random_heads(2, n_layers=2, n_heads=3, exclude=chosen, seed=7) == draws[7]
    assert random_heads(4, n_layers=2, n_heads=3, exclude=chosen, seed=0) == tuple(left)
    with pytest.raises(ValueError, match="k=5 random heads: expected 1 to 4, the 6 heads of the model less those"):
        random_heads(5, n_layers=2, n_heads=3, exclude=chosen, seed=0)


def test_a_random_vector_has_the_norm_and_no_direction() -> None:
    vector = FunctionVector(3 * torch.ones(4000), "antonym", ((0, 1),), layer=2)
    drawn = random_vector(vector, seed=0)
    assert float(drawn.vector.norm()) == pytest.approx(float(vector.vector.norm()), rel=1e-5)
    # The cosine of a random direction has deviation 1 / sqrt(4000) = 0.016.
    assert abs(float(torch.cosine_similarity(drawn.vector, vector.vector, dim=0))) < 0.08
    assert torch.equal(drawn.vector, random_vector(vector, seed=0).vector)
    assert not torch.equal(drawn.vector, random_vector(vector, seed=1).vector)
    assert (drawn.task, drawn.heads, drawn.layer) == ("random vector of the norm of antonym", (), 2)


def test_every_task_gets_another_one() -> None:
    vectors = {name: FunctionVector(torch.zeros(2), name) for name in ("a", "b", "c")}
    assert [of_another_task(vectors, task).task for task in vectors] == ["b", "c", "a"]
    with pytest.raises(ValueError, match=r"task 'd' among \['a', 'b', 'c'\]: expected it and at least one other"):
        of_another_task(vectors, "d")
    with pytest.raises(ValueError, match=r"task 'a' among \['a'\]: expected it and at least one other"):
        of_another_task({"a": vectors["a"]}, "a")
