"""Capturing and editing in runs of one's own, against transformers' own outputs and against plain hooks."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from interventions.attention import NAME
from interventions.contexts import Site, SiteEdit, captured, edited, values_of
from interventions.edits import Add, Apply, ProjectOut, Replace, Zero
from interventions.hooks import COMPONENTS, HEADS, IN_ATTENTION, Modules
from interventions.prompts import Prompts, as_prompts

from .conftest import NETWORKS, random_network, same_weights

TOKENS = torch.randint(1, 37, (2, 9), generator=torch.Generator().manual_seed(5))
LENGTH = TOKENS.shape[1]


def components(network: Any) -> list[str]:
    """Those that the network has."""
    return [name for name in COMPONENTS if name != "resid_mid" or not Modules(network).parallel]


def run(network: Any, tokens: Tensor = TOKENS, **options: Any) -> Any:
    with torch.no_grad():
        return network(tokens, use_cache=False, **options)


def traces(network: Any) -> list[Any]:
    """Attributes and hooks of every module (transformers keeps hooks of its own for output_hidden_states)."""
    return [(sorted(vars(m)), list(m._forward_hooks), list(m._forward_pre_hooks)) for m in network.modules()]


def close(actual: Tensor, expected: Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("name", NETWORKS)
def test_identity_edits_of_every_component_change_nothing(name: str) -> None:
    network = random_network(name)
    clean = run(network).logits
    for component in components(network):
        for head, position in ((None, None), (None, -2), (1, None), (1, -2)):
            if head is not None and component not in HEADS:
                continue
            edits: dict[Site, SiteEdit] = {Site(component, layer, head, position): lambda x: x for layer in range(3)}
            with edited(network, edits):
                logits = run(network).logits
            if component in IN_ATTENTION:  # computed by the engine, in another order
                close(logits, clean)
            else:
                assert torch.equal(logits, clean), (component, head, position)


@pytest.mark.parametrize("name", NETWORKS)
def test_captured_streams_and_patterns_are_those_that_transformers_gives(name: str) -> None:
    network = random_network(name)
    output = run(network, output_hidden_states=True, output_attentions=True)
    pre, post, patterns = ([Site(c, layer) for layer in range(3)] for c in ("resid_pre", "resid_post", "pattern"))
    with captured(network, [*pre, *post]) as seen:
        run(network)
    for layer in range(3):
        assert torch.equal(seen[pre[layer]][0], output.hidden_states[layer])
        if layer < 2:  # transformers gives the last one behind the final norm
            assert torch.equal(seen[post[layer]][0], output.hidden_states[layer + 1])
    with captured(network, patterns) as seen:
        run(network)
    for layer in range(3):
        close(seen[patterns[layer]][0].sum(dim=-1), torch.ones(2, LENGTH, 4))
        close(seen[patterns[layer]][0].transpose(1, 2), output.attentions[layer])


@pytest.mark.parametrize("name", NETWORKS)
def test_captured_components_add_up(name: str) -> None:
    network = random_network(name)
    names = [c for c in ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post") if c in components(network)]
    with captured(network, [Site(component, 1) for component in names]) as seen:
        run(network)
    of = {component: seen[Site(component, 1)][0] for component in names}
    if "resid_mid" in of:
        close(of["resid_pre"] + of["attn_out"], of["resid_mid"])
    close(of["resid_pre"] + of["attn_out"] + of["mlp_out"], of["resid_post"])


@pytest.mark.parametrize("name", NETWORKS)
def test_z_is_the_input_of_the_output_projection_and_pattern_times_v(name: str) -> None:
    network = random_network(name)
    modules, taken = Modules(network), []
    with modules.output_projection(1).register_forward_pre_hook(lambda module, args: taken.append(args[0])):
        run(network)
    with captured(network, [Site("z", 1), Site("z", 1, head=2, position=-3)]) as seen:
        run(network)
    assert torch.equal(seen[Site("z", 1)][0].flatten(2), taken[0])
    assert torch.equal(seen[Site("z", 1, head=2, position=-3)][0], taken[0].view(2, LENGTH, 4, -1)[:, -3, 2])
    with captured(network, [Site("pattern", 1), Site("v", 1), Site("q", 1), Site("k", 1)]) as seen:
        run(network)
    pattern, v = seen[Site("pattern", 1)][0], seen[Site("v", 1)][0]
    v = v.repeat_interleave(modules.n_heads // modules.n_kv_heads, dim=2)
    close(torch.einsum("bqhk,bkhd->bqhd", pattern, v).flatten(2), taken[0])


@pytest.mark.parametrize("name", NETWORKS)
def test_an_edit_of_one_head_equals_a_plain_hook(name: str) -> None:
    network = random_network(name)
    projection, vector = Modules(network).output_projection(1), torch.linspace(-1, 1, 8)

    def hook(module: Any, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        z = args[0].clone()
        z[:, 4, 16:24] += vector
        return (z,)

    with projection.register_forward_pre_hook(hook):
        expected = run(network).logits
    with edited(network, {Site("z", 1, head=2, position=4 - LENGTH): Add(vector)}):
        actual = run(network).logits
    assert (expected - run(network).logits).abs().max() > 1e-3
    close(actual, expected, atol=1e-6)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2"])
@pytest.mark.parametrize("component", COMPONENTS)
def test_every_kind_of_edit_puts_there_what_it_says(name: str, component: str) -> None:
    network = random_network(name)
    whole, place = Site(component, 1), Site(component, 1, position=-2)
    with captured(network, [whole]) as seen:
        run(network)
    clean = seen[whole][0]
    basis = torch.eye(clean.shape[-1])[:2]
    cases: list[tuple[SiteEdit, Tensor]] = [
        (Zero(), torch.zeros_like(clean)),
        (Add(basis[0]), clean + basis[0]),
        (ProjectOut(3.0 * basis), clean - clean * basis.sum(dim=0)),
        (Apply(lambda x: -x), -clean),
        (lambda x: 2 * x, 2 * clean),
        (basis[1], basis[1].expand_as(clean)),
    ]
    for edit, expected in cases:
        with captured(network, [whole, place], edits={whole: edit}) as seen:
            run(network)
        close(seen[whole][0], expected)
        with captured(network, [whole, place], edits={place: edit}) as seen:
            run(network)
        close(seen[place][0], expected[:, -2])
        close(seen[whole][0][:, -1], clean[:, -1])


def test_values_end_the_pass_where_all_are_seen() -> None:
    network = random_network("gpt2")
    entered: list[int] = []
    handles = [
        layer.mlp.register_forward_pre_hook(lambda _module, _args, at=at: entered.append(at))
        for at, layer in enumerate(network.transformer.h)
    ]
    values = values_of(network, Prompts(TOKENS), "z", [1, 0])
    for handle in handles:
        handle.remove()
    assert sorted(values) == [0, 1]
    assert entered == [0]  # of layer 1 nothing behind z, and layer 2 not at all


@pytest.mark.parametrize("name", NETWORKS)
def test_values_of_other_prompts_put_there_give_their_output(name: str) -> None:
    network, other = random_network(name), TOKENS.flip(0)
    values = values_of(network, as_prompts(other), "resid_post", [1, 2])
    with edited(network, {Site("resid_post", 2): values[2]}):
        close(run(network).logits, run(network, other).logits)


def test_edits_at_one_component_are_made_in_the_order_given() -> None:
    network, site = random_network("gpt2"), Site("resid_pre", 1)
    edits: dict[Site, SiteEdit] = {site: Zero(), Site("resid_pre", 1, position=-1): Add(torch.ones(32))}
    with captured(network, [site], edits=edits, device="cpu") as seen:
        run(network)
    assert seen[site][0][:, :-1].abs().max() == 0
    assert (seen[site][0][:, -1] == 1).all()


def test_edits_pass_gradients_and_write_into_no_tensor_of_the_caller() -> None:
    network = random_network("llama")
    embedded = network.get_input_embeddings()(TOKENS).detach()
    before, vector = embedded.clone(), torch.zeros(32, requires_grad=True)
    with edited(network, {Site("resid_pre", 0, position=-1): Add(vector + 1)}):
        network(inputs_embeds=embedded, use_cache=False).logits[:, -1, 3].sum().backward(inputs=[vector])
    assert vector.grad is not None
    assert vector.grad.abs().max() > 0
    assert torch.equal(embedded, before)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("component", COMPONENTS)
def test_nothing_is_left_after_the_context_nor_after_an_exception(name: str, component: str) -> None:
    network = random_network(name)
    if component not in components(network):
        pytest.skip("no such component")
    state = {key: value.clone() for key, value in network.state_dict().items()}
    clean, before = run(network).logits, traces(network)
    for error in (RuntimeError, KeyboardInterrupt):

        def fail(x: Tensor, error: type[BaseException] = error) -> Tensor:
            raise error

        with pytest.raises(error), edited(network, {Site(component, 1): fail}):
            run(network)
        assert network.config._attn_implementation == "eager" != NAME
        assert traces(network) == before
    assert same_weights(network, state)
    assert torch.equal(run(network).logits, clean)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("component", ["resid_post", "pattern"])
def test_generation_with_a_cache_equals_generation_without(name: str, component: str) -> None:
    network, site, third = random_network(name), Site(component, 1), Site(component, 1, position=-3)
    options = {"max_new_tokens": 4, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}
    clean = network.generate(TOKENS, **options)
    edits: dict[Site, SiteEdit] = {site: lambda x: -2.0 * x}
    with captured(network, [site, third], edits=edits) as seen:
        generated = network.generate(TOKENS, **options)
    with edited(network, edits):
        whole = run(network, generated.sequences).logits
    for step, logits in enumerate(generated.logits):
        close(logits, whole[:, LENGTH + step - 1], atol=1e-4)
    assert (generated.logits[0] - clean.logits[0]).abs().max() > 1e-2
    assert [x.shape[1] for x in seen[site]] == [LENGTH, 1, 1, 1]
    assert len(seen[third]) == 1  # later calls hold one token
    assert torch.equal(network.generate(TOKENS, **options).sequences, clean.sequences)


@pytest.mark.parametrize(
    ("site", "expected"),
    [
        (Site("mlp", 0), "component 'mlp': expected one of"),
        (Site("z", 3), "layer 3 does not exist"),
        (Site("k", 0, head=2), "head 2 does not exist: k has heads 0 to 1"),
        (Site("resid_pre", 0, head=0), "resid_pre has no heads"),
        (Site("z", 0, position=0), "position 0: expected -1 or less"),
    ],
)
def test_bad_sites_are_refused_before_anything_runs(site: Site, expected: str) -> None:
    network = random_network("llama")
    for context in (captured(network, [site]), edited(network, {site: Zero()})):
        with pytest.raises(ValueError, match=expected) as caught, context:
            pytest.fail("the body ran")
        assert "\n" not in str(caught.value)


def test_what_is_no_edit_does_not_fit_or_is_never_met_is_refused() -> None:
    network, site, far = random_network("llama"), Site("z", 1), Site("z", 1, position=-10)
    other: Any = Replace(as_prompts(TOKENS))
    with pytest.raises(TypeError, match=r"Replace is no edit for one run.*values_of"), edited(network, {site: other}):
        pytest.fail("the body ran")
    put = edited(network, {site: torch.zeros(3)})
    with pytest.raises(ValueError, match=r"gives shape \(3,\): expected \(2, 9, 4, 8\)"), put:
        run(network)
    with pytest.raises(ValueError, match=r"position -10 was in none of 1 passes"), edited(network, {far: Zero()}):
        run(network)
    second = edited(network, {Site("pattern", 1): Zero()})
    with captured(network, [Site("q", 1)]), pytest.raises(RuntimeError, match="already replaced"), second:
        pytest.fail("the body ran")


@pytest.mark.parametrize("name", ["gpt2", "gptj"])
def test_two_networks_at_once_keep_their_own_edits_and_one_refuses_a_second_context(name: str) -> None:
    network, other = random_network(name), copy.deepcopy(random_network(name))
    tokens = torch.randint(1, 37, (2, 6), generator=torch.Generator().manual_seed(0))
    site = Site("pattern", 1, head=1)
    with torch.no_grad():
        with edited(network, {site: Zero()}):
            alone = network(tokens).logits
        with edited(network, {site: Zero()}):
            with edited(other, {Site("q", 0): Apply(lambda x: 2 * x)}):
                both = network(tokens).logits
            after = network(tokens).logits
            with pytest.raises(RuntimeError, match="already replaced by another context"):
                values_of(network, Prompts(tokens), "pattern", [0])
            still = network(tokens).logits
    for logits in (both, after, still):
        assert torch.equal(logits, alone)
