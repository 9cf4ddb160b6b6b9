"""Circuits as data, ablation by template against hooks of plain torch, and the stages that validate a circuit."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from replications.indirect_object_identification import (
    adversarial_stages,
    backup_stages,
    circuit,
    discovery_stages,
    measured_circuits,
    validation_stages,
)
from replications.indirect_object_identification.ablation import Ablation, Means
from replications.indirect_object_identification.circuit import (
    GPT2_SMALL,
    NAIVE_GPT2_SMALL,
    Circuit,
    CircuitError,
    circuit_of_heads,
    whole,
    without,
)
from replications.indirect_object_identification.grouping import groups_of
from torch import Tensor

import interventions
from reprise import Result

from .ioi_circuit_runs import (
    ARCHITECTURES,
    FURTHER,
    N_HEADS,
    N_LAYERS,
    TRIALS,
    Runs,
    kind_of,
    last_logits,
    model_of,
    plain_difference,
    plain_means,
    prompts_of,
    replaced_z,
    tokens_of,
)

ALL = [(layer, head) for layer in range(N_LAYERS) for head in range(N_HEADS)]
SOME = Circuit(
    "some",
    {"movers": ((2, 1), (2, 3)), "induction": ((1, 0),), "other": ((0, 2),)},
    {"movers": ("END",), "induction": ("S2", "S1+1")},
)
KEPT: dict[tuple[int, int], tuple[str, ...] | None] = {
    (2, 1): ("END",),
    (2, 3): ("END",),
    (1, 0): ("S2", "S1+1"),
    (0, 2): None,
}


def ablation_of(kind: str, n: int) -> tuple[interventions.Model, Ablation, dict[Any, list[Tensor]]]:
    model = model_of(kind)
    prompts, abc = prompts_of(model, n)
    return model, Ablation(model.network, prompts, Means.over(model.network, [abc])), plain_means(model, abc)


def plain(model: interventions.Model, prompts: Any, means: Any, kept: Any) -> Tensor:
    rows = range(len(prompts.sentences))
    return torch.tensor([plain_difference(model, prompts, row, means[kind_of(prompts, row)], kept) for row in rows])


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_ablation_is_that_of_plain_hooks(kind: str) -> None:
    model, ablation, means = ablation_of(kind, 12)
    assert len({int(length) for length in ablation.prompts.lengths}) > 1
    nodes = SOME.nodes(N_LAYERS, N_HEADS)
    model_nodes = whole(N_LAYERS, N_HEADS)
    everything = dict.fromkeys(ALL)
    cases = [
        (model_nodes, everything),
        (nodes, KEPT),
        (torch.zeros_like(nodes), {}),
        (SOME.everywhere().nodes(N_LAYERS, N_HEADS), dict.fromkeys(KEPT)),
        (without(nodes, [(2, 1), (0, 2)], nodes), {(2, 3): ("END",), (1, 0): ("S2", "S1+1")}),
        (without(model_nodes, [(0, 2)], nodes), {head: None for head in ALL if head != (0, 2)}),
        (nodes, KEPT),
    ]
    measured = ablation.logit_differences([of for of, _ in cases])
    for at, (_, kept) in enumerate(cases):
        expected = plain(model, ablation.prompts, means, kept)
        assert torch.allclose(measured[:, at], expected, atol=2e-5)
        assert at == 0 or (measured[:, at] - measured[:, 0]).abs().max() > 0.01  # ablation has an effect


def test_the_model_without_some_nodes_loses_them_at_their_words_alone() -> None:
    model, ablation, means = ablation_of("gpt2", 4)
    setting: Any = SimpleNamespace(n_layers=N_LAYERS, n_heads=N_HEADS)
    measured = validation_stages.both(ablation, setting, [(SOME, [((2, 1), (1, 0))])])[0][1][:, 0]
    prompts = ablation.prompts
    for row in range(4):
        start = prompts.tokens.shape[1] - int(prompts.lengths[row])
        of = means[kind_of(prompts, row)]

        def edit(z: Tensor, head: int, words: tuple[str, ...], mean: Tensor, at: int = start, row: int = row) -> Tensor:
            z = z.clone()
            for word in words:
                place = int(prompts.positions[word][row]) - at
                z[:, place, head] = mean[place, head]
            return z

        edits = {
            2: lambda z, mean=of[2]: edit(z, 1, ("END",), mean),
            1: lambda z, mean=of[1]: edit(z, 0, ("S2", "S1+1"), mean),
        }
        with replaced_z(model, edits):
            logits = last_logits(model, tokens_of(prompts, row))
        assert float(logits[prompts.io[row]] - logits[prompts.s[row]]) == pytest.approx(float(measured[row]), abs=2e-5)


@pytest.mark.parametrize("kind", [*ARCHITECTURES, *FURTHER])
def test_random_circuits_in_one_pass_are_each_what_plain_hooks_give(kind: str) -> None:
    model, ablation, means = ablation_of(kind, 3)
    generator = torch.Generator().manual_seed(1)
    keep = torch.rand(10, N_LAYERS, N_HEADS, generator=generator) < 0.5
    keep[5:, 0] = keep[0, 0]  # so that some share the first layer, and some the second too
    keep[7:, 1] = keep[5, 1]
    sets = [[head for head in ALL if bool(keep[at][head])] for at in range(10)]
    nodes = [circuit_of_heads("random", heads).nodes(N_LAYERS, N_HEADS) for heads in sets]
    measured = ablation.logit_differences(nodes)
    for at, heads in enumerate(sets):
        expected = plain(model, ablation.prompts, means, dict.fromkeys(heads))
        assert torch.allclose(measured[:, at], expected, atol=2e-5)
    assert torch.allclose(ablation.logit_differences(nodes, budget=1), measured, atol=2e-5)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_edits_do_one_circuit_by_ordinary_hooks(kind: str) -> None:
    model, ablation, means = ablation_of(kind, 6)
    nodes = SOME.nodes(N_LAYERS, N_HEADS)
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    expected = plain(model, ablation.prompts, means, KEPT)
    for group in groups_of(ablation.prompts):
        with torch.no_grad(), interventions.edited(model.network, ablation.edits(nodes, group)):
            logits = model.network(group.of(ablation.prompts).tokens).logits[:, -1]
        rows = torch.arange(len(group.rows))
        found = logits[rows, ablation.prompts.io[group.rows]] - logits[rows, ablation.prompts.s[group.rows]]
        assert torch.allclose(found, expected[group.rows], atol=2e-5)
    ablation.logit_differences([nodes, torch.zeros_like(nodes)])
    assert all(torch.equal(before[name], tensor) for name, tensor in model.network.state_dict().items())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.network.modules())


@pytest.mark.parametrize("kind", ["gpt2", "mistral"])
def test_circuits_at_words_are_what_plain_hooks_give(kind: str) -> None:
    model, ablation, means = ablation_of(kind, 8)
    words = [("IO", "S1+1"), ("S2",), ("S2", "END"), ("END",)]
    roles = [Circuit("one", {"some": tuple(ALL[at : at + 6])}, {"some": of}) for at, of in enumerate(words)]
    nodes = [each.nodes(N_LAYERS, N_HEADS) for each in roles]
    measured = ablation.logit_differences([*nodes, whole(N_LAYERS, N_HEADS)])
    for at, of in enumerate(words):
        expected = plain(model, ablation.prompts, means, dict.fromkeys(ALL[at : at + 6], of))
        assert torch.allclose(measured[:, at], expected, atol=2e-5)


def test_means_are_over_prompts_of_one_layout() -> None:
    model = model_of("gpt2")
    _, abc = prompts_of(model, 80)
    found, expected = Means.over(model.network, [abc], batch=3), plain_means(model, abc)
    assert len(found.layouts) == len(expected) < 80
    places = found.of(abc)
    for row in range(80):
        length = int(abc.lengths[row])
        for layer, mean in enumerate(expected[kind_of(abc, row)]):
            assert torch.allclose(found.z[places[row], layer, -length:], mean, atol=2e-5)
    with pytest.raises(ValueError, match="means over no prompts: expected sentences of p_ABC; draw some"):
        Means.over(model.network, [])
    fewer = dataclasses.replace(found, layouts=found.layouts[:1], z=found.z[:1])
    with pytest.raises(ValueError, match=r"is laid out as none of the 1 layouts .* add its p_ABC sentence"):
        fewer.of(abc)


def test_the_published_circuit_is_the_papers() -> None:
    counts = {role: len(heads) for role, heads in GPT2_SMALL.roles.items()}
    assert counts == {
        "movers": 3,
        "negative": 2,
        "backup": 8,
        "inhibition": 4,
        "induction": 4,
        "duplicate": 3,
        "previous": 2,
    }
    assert len(GPT2_SMALL.heads) == 26
    assert GPT2_SMALL.source
    assert set(NAIVE_GPT2_SMALL.heads) < set(GPT2_SMALL.heads)
    assert not {"backup", "negative"} & NAIVE_GPT2_SMALL.roles.keys()
    nodes = GPT2_SMALL.nodes(12, 12)
    assert int(nodes[9, 9]) == 1 << circuit.WORDS.index("END")
    assert int(nodes[2, 2]) == 1 << circuit.WORDS.index("S1+1")
    assert int((nodes > 0).sum()) == 26

    class Config:
        model_type, num_hidden_layers, num_attention_heads, hidden_size = "gpt2", 12, 12, 768

    assert circuit.published(Config()) == (GPT2_SMALL, NAIVE_GPT2_SMALL)
    Config.num_hidden_layers = 24
    assert circuit.published(Config()) is None


def test_a_circuit_as_json(tmp_path: Path) -> None:
    path = tmp_path / "circuit.json"
    circuit.write(path, GPT2_SMALL)
    assert circuit.read(path) == GPT2_SMALL
    path.write_text('{"name": "mine", "roles": {"movers": {"heads": [[3, 1]]}}}')
    assert circuit.read(path) == Circuit("mine", {"movers": ((3, 1),)})
    for text in ("[1]", '{"name": "mine"}', '{"name": "mine", "roles": {"movers": {"heads": [[3]]}}}', "{"):
        path.write_text(text)
        with pytest.raises(CircuitError, match=r"circuit.json: no circuit \(.*\): expected \{\"name\""):
            circuit.read(path)
    with pytest.raises(CircuitError, match=r"nowhere.json: no circuit \(.*No such file"):
        circuit.read(tmp_path / "nowhere.json")


def test_circuits_that_cannot_be() -> None:
    with pytest.raises(CircuitError, match=r"head 12.0 of role 'movers' does not exist: expected layers 0 to 11 and"):
        Circuit("deep", {"movers": ((12, 0),)}).nodes(12, 12)
    with pytest.raises(CircuitError, match=r"role 'movers' at word 'LAST': expected one of IO, S1, S1\+1, S2, END"):
        Circuit("late", {"movers": ((1, 0),)}, {"movers": ("LAST",)})
    with pytest.raises(CircuitError, match="words of role 'negative', which it does not have: expected one of movers"):
        Circuit("none", {"movers": ((1, 0),)}, {"negative": ("END",)})


def test_sets_of_heads() -> None:
    assert SOME.heads == ((0, 2), (1, 0), (2, 1), (2, 3))
    assert SOME.roles_of((2, 3)) == ("movers",)
    two = Circuit("two", {"movers": ((1, 1),), "previous": ((1, 1),)}, {"movers": ("END",), "previous": ("S2",)})
    assert int(two.nodes(2, 2)[1, 1]) == (1 << 4) | (1 << 3)
    less = SOME.only([(2, 3), (0, 2)])
    assert (dict(less.roles), dict(less.words)) == ({"movers": ((2, 3),), "other": ((0, 2),)}, {"movers": ("END",)})
    assert circuit.overlap([(0, 0), (0, 1)], [(0, 1), (0, 2), (0, 3)]) == {"precision": 0.5, "recall": 1 / 3}
    assert circuit.overlap([], [(0, 1)]) == {"precision": 0.0, "recall": 0.0}
    roles = {"movers": [[2, 3], [9, 9]], "negative": [], "induction": [[1, 0], [2, 3]]}
    named = circuit.with_roles("found", [(2, 3), (1, 0), (0, 2)], roles)
    assert named.roles == {"movers": ((2, 3),), "induction": ((1, 0), (2, 3)), "other": ((0, 2),)}


ROLES = {"movers": [[2, 1], [1, 3]], "negative": [[2, 0]], "induction": [[1, 0]], "previous": [[0, 3]]}
FOUND = ((0, 1), (1, 0), (2, 0), (2, 1))


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    """Behind the stages that others need; the search's circuit is FOUND."""
    of = Runs(monkeypatch, model_of("gpt2"), ROLES)
    of("means", measured_circuits.means)
    of.done["elimination"] = Result({}, {"circuit": [list(head) for head in FOUND]})
    return of


def scored(runs: Runs) -> Any:
    return runs.setting.clean(TRIALS.validated, "scores")


def test_the_stage_of_means_is_over_all_prompts_that_are_ablated_and_more(runs: Runs) -> None:
    expected, of = runs.plain_means(), runs.done["means"]
    assert of.facts["over"] == TRIALS.means
    assert len(of.facts["layouts"]) == len(expected)
    for (template, order, length, names), z in zip(of.facts["layouts"], of["z"], strict=True):
        at = dict(names)
        mean = expected[template, order, length, (at["IO"], at["S1"], at["S2"])]
        for layer in range(N_LAYERS):
            assert np.allclose(z[layer, -length:], mean[layer], atol=2e-5)


def test_faithfulness_of_the_circuit_the_naive_one_and_controls(runs: Runs) -> None:
    found, means, prompts = runs("faithfulness", validation_stages.faithfulness), runs.plain_means(), scored(runs)
    paths_alone = ((2, 1), (1, 3), (1, 0), (0, 3))
    kept = {
        "model": ALL,
        "circuit": FOUND,
        "naive": paths_alone,
        "everywhere": FOUND,
        "discovered": FOUND,
        "complement": [head for head in ALL if head not in FOUND],
        "nothing": [],
    }
    for name, heads in kept.items():
        expected = plain(runs.model, prompts, means, dict.fromkeys(heads))
        assert np.allclose(found[name], expected, atol=2e-5), name
    assert found["random"].shape == (TRIALS.validated, 2)
    assert not found.facts["is_published"]
    assert found.facts["naive"]["heads"] == [[0, 3], [1, 0], [1, 3], [2, 1]]
    assert found.facts["circuit"]["roles"] == {
        "movers": [[2, 1]],
        "negative": [[2, 0]],
        "induction": [[1, 0]],
        "other": [[0, 1]],
    }


def test_the_published_circuit_is_judged_at_the_paper_tier(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured_circuits, "published", lambda config: (SOME, SOME.only([(2, 1)])))
    runs.setting = dataclasses.replace(runs.setting, tier="paper")
    monkeypatch.setitem(measured_circuits.EFFORT, "paper", measured_circuits.EFFORT["tiny"])
    found, means, prompts = runs("faithfulness", validation_stages.faithfulness), runs.plain_means(), scored(runs)
    assert np.allclose(found["circuit"], plain(runs.model, prompts, means, KEPT), atol=2e-5)
    assert np.allclose(found["naive"], plain(runs.model, prompts, means, {(2, 1): ("END",)}), atol=2e-5)
    assert np.allclose(found["everywhere"], plain(runs.model, prompts, means, dict.fromkeys(KEPT)), atol=2e-5)
    assert found.facts["is_published"]


def test_completeness_of_subsets(runs: Runs) -> None:
    found, means, prompts = runs("completeness", validation_stages.completeness), runs.plain_means(), scored(runs)
    subsets = found.facts["subsets"]["circuit"]
    kinds = [kind for kind, _ in subsets]
    assert kinds == ["nothing", "movers", "negative", "induction", "other", *["random"] * 3, "greedy"]
    for at, (_, heads) in enumerate(subsets):
        k = {tuple(head) for head in heads}
        assert k <= set(FOUND)
        of_circuit = plain(runs.model, prompts, means, dict.fromkeys(set(FOUND) - k))
        of_model = plain(runs.model, prompts, means, dict.fromkeys(set(ALL) - k))
        assert np.allclose(found["circuit"][:, at], of_circuit, atol=2e-5)
        assert np.allclose(found["circuit.model"][:, at], of_model, atol=2e-5)
    assert found["naive"].shape == found["naive.model"].shape == (16, len(found.facts["subsets"]["naive"]))


def test_the_greedy_subset_is_the_largest_gap_on_the_way(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    worth = {(0, 1): 0.5, (1, 0): -3.0, (2, 0): 1.0, (2, 1): 2.0}

    def planted(prompts: Any, setting: Any, asked: Any) -> list[tuple[Tensor, Tensor]]:
        worths = [[[sum(worth.get(head, 0.0) for head in heads) for heads in subsets]] * 4 for _, subsets in asked]
        return [(torch.tensor(each) + 1, torch.ones(4, len(each[0]))) for each in worths]

    monkeypatch.setattr(validation_stages, "both", planted)
    every = dataclasses.replace(measured_circuits.EFFORT["tiny"], greedy_among=4, greedy_steps=4)
    monkeypatch.setitem(measured_circuits.EFFORT, "tiny", every)
    found = runs("completeness", validation_stages.completeness).facts["subsets"]["circuit"][-1]
    assert found == ["greedy", [[1, 0]]]  # |-3|; with any other head the sum is smaller


def test_minimality_takes_the_subset_that_shows_a_head_most(runs: Runs) -> None:
    found, means, prompts = runs("minimality", validation_stages.minimality), runs.plain_means(), scored(runs)
    assert [tuple(head) for head in found.facts["heads"]] == sorted(FOUND)
    searched = runs.setting.clean(8, "search")

    def change(of: Any, head: tuple[int, int], k: set[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        left = set(FOUND) - k
        return (
            plain(runs.model, of, means, dict.fromkeys(left)),
            plain(runs.model, of, means, dict.fromkeys(left - {head})),
        )

    movers = {(2, 1)}
    for at, (head, subset) in enumerate(zip(sorted(FOUND), found.facts["subsets"], strict=True)):
        k = {tuple(other) for other in subset}
        before, after = change(prompts, head, k)
        assert np.allclose(found["without_k"][:, at], before, atol=2e-5)
        assert np.allclose(found["without_both"][:, at], after, atol=2e-5)
        options: list[set[tuple[int, int]]] = [set(), movers - {head}]  # no role has two heads here
        shown = [abs(float((pair[0] - pair[1]).mean())) for pair in (change(searched, head, each) for each in options)]
        assert k == options[int(np.argmax(shown))]


def test_the_subsets_among_which_minimality_chooses() -> None:
    options = dict(validation_stages.options_of(GPT2_SMALL, (9, 0)))
    others = tuple(head for head in GPT2_SMALL.roles["backup"] if head != (9, 0))
    assert options["nothing"] == ()
    assert options["rest of its role"] == others
    assert options["movers"] == GPT2_SMALL.roles["movers"]
    assert set(options["both"]) == {*others, *GPT2_SMALL.roles["movers"]}
    of_mover = dict(validation_stages.options_of(GPT2_SMALL, (9, 9)))
    assert of_mover == {"nothing": (), "rest of its role": ((9, 6), (10, 0))}


def test_direct_effects_before_and_after_the_movers_are_knocked_out(runs: Runs) -> None:
    found, means, prompts = runs("backup", backup_stages.backup), runs.plain_means(), scored(runs)
    network: Any = runs.model.network
    assert found.facts["movers"] == [[1, 3], [2, 1]]
    for row, (name, knocked_out) in itertools.product(range(0, 16, 5), (("before", []), ("after", [(2, 1), (1, 3)]))):
        of = means[kind_of(prompts, row)]
        z: dict[int, Tensor] = {}

        def edit(x: Tensor, at: int, of: Any = of, heads: Any = knocked_out, z: Any = z) -> Tensor:
            x = x.clone()
            for layer, head in heads:
                if layer == at:
                    x[:, -1, head] = of[at][-1, head]
            z[at] = x[0, -1]
            return x

        stream: list[Tensor] = []
        handle = network.transformer.h[-1].register_forward_hook(
            lambda module, args, output, seen=stream: seen.append(output[0] if isinstance(output, tuple) else output)
        )
        with replaced_z(runs.model, {layer: lambda x, at=layer: edit(x, at) for layer in range(N_LAYERS)}):
            logits = last_logits(runs.model, tokens_of(prompts, row))
        handle.remove()
        io, s = int(prompts.io[row]), int(prompts.s[row])
        assert found[name][row] == pytest.approx(float(logits[io] - logits[s]), abs=2e-5)
        for layer, head in ALL:
            weight = network.transformer.h[layer].attn.c_proj.weight.view(N_HEADS, 8, -1)[head]
            changed = stream[0][0, -1] - (z[layer][head] - of[layer][-1, head]) @ weight
            new = network.lm_head(network.transformer.ln_f(changed)).detach()
            direct = float(logits[io] - logits[s] - new[io] + new[s])
            assert found[f"direct.{name}"][row, layer, head] == pytest.approx(direct, abs=5e-5)


@pytest.mark.parametrize("kind", ["llama", "gpt_neox"])
def test_a_head_of_the_last_layer_has_its_direct_effect_alone(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where MLPs are not behind it: NeoX's are beside attention; of Llama the last MLP is made silent."""
    model = model_of(kind)
    network: Any = model.network
    if kind == "llama":
        monkeypatch.setattr(network.model.layers[-1].mlp, "forward", torch.zeros_like)
    runs = Runs(monkeypatch, model, ROLES)
    runs("means", measured_circuits.means)
    found, means, prompts = runs("backup", backup_stages.backup), runs.plain_means(), scored(runs)
    for head in range(N_HEADS):
        # Everywhere or at END alone is the same in the last layer.
        expected = plain(model, prompts, means, {other: None for other in ALL if other != (N_LAYERS - 1, head)})
        direct = found["before"] - expected.numpy()
        assert np.allclose(found["direct.before"][:, -1, head], direct, atol=5e-5)


def test_adversarial_sentences_beside_plain_ones(runs: Runs) -> None:
    found = runs("adversarial", adversarial_stages.adversarial)
    drawn = runs.setting.material.adversarial(TRIALS.adversarial, 0)
    for name, sentences in (("plain", drawn.plain), ("io_again", drawn.io_again), ("s_again", drawn.s_again)):
        prompts = runs.setting.tokenized(sentences)
        for row in range(len(sentences)):
            logits = last_logits(runs.model, tokens_of(prompts, row))
            difference = float(logits[prompts.io[row]] - logits[prompts.s[row]])
            assert found[name][row] == pytest.approx(difference, abs=2e-5)
        assert found.facts["examples"][name] == sentences[0].text


def test_the_search_that_the_stages_rest_on_runs_before_them(runs: Runs) -> None:
    del runs.done["elimination"]
    runs("ranking", discovery_stages.ranking)
    runs("elimination", discovery_stages.elimination)
    found = runs("faithfulness", validation_stages.faithfulness)
    assert found.facts["circuit"]["heads"] == sorted(runs.done["elimination"].facts["circuit"])
