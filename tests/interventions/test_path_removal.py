"""Edits that take a path out, against path patching by hooks and against the circuits package, which shares no code."""

from __future__ import annotations

import copy
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

import circuits
from interventions.contexts import Site, edited
from interventions.edits import Replace, Zero
from interventions.losses import next_token_log_probs
from interventions.metrics import token_logit
from interventions.path_patching import path_patch
from interventions.path_removal import path_edits
from interventions.prompts import as_prompts
from interventions.receivers import HeadInputs
from interventions.views import bridge_view

from .conftest import NETWORKS, random_network, same_weights

Projection = Literal["q", "k", "v"]
GENERATOR = torch.Generator().manual_seed(0)
TOKENS, OTHERS = torch.randint(1, 37, (2, 3, 9), generator=GENERATOR)
INTO: tuple[Projection, ...] = ("q", "k", "v")


def logits(network: Any, edits: dict[Site, Tensor]) -> Tensor:
    with torch.no_grad(), edited(network, edits):
        result: Tensor = network(TOKENS, use_cache=False).logits
    return result


@pytest.mark.parametrize("into", INTO)
@pytest.mark.parametrize("name", NETWORKS)
def test_one_sender_is_the_path_that_path_patching_patches(name: str, into: Projection) -> None:
    network = random_network(name)
    receivers = HeadInputs([(1, 2), (1, 3), (2, 0), (2, 1)], into)
    edits = path_edits(network, as_prompts(TOKENS), [(0, 1)], receivers, Replace(as_prompts(OTHERS)))
    expected = path_patch(
        network,
        as_prompts(TOKENS),
        as_prompts(OTHERS),
        token_logit(torch.tensor([3, 5, 7])),
        receivers=receivers,
        senders=[(0, 1)],
        through_mlps=False,
        method="oracle",
    ).values[:, 0, 1]
    found = logits(network, edits)[torch.arange(3), -1, torch.tensor([3, 5, 7])]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("into", INTO)
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_several_senders_are_what_the_circuits_package_takes_out(name: str, into: Projection) -> None:
    """Receivers of one layer: of several, circuits reads the later ones from the stream of the edited pass."""
    network = random_network(name)
    senders, receivers = [(0, 1), (0, 3), (1, 0)], [(2, 2), (2, 3)]
    edits = path_edits(network, as_prompts(TOKENS), senders, HeadInputs(receivers, into))
    ours = next_token_log_probs(network, as_prompts(TOKENS), edits=dict(edits))
    bridge = bridge_view(copy.deepcopy(network), name).bridge
    theirs = circuits.path_ablated_log_probs(bridge, TOKENS, senders, receivers, into, circuits.ZeroAblation())
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    assert (ours - next_token_log_probs(network, as_prompts(TOKENS))).abs().max() > 1e-2


def test_only_the_receivers_are_edited_and_the_network_is_as_before() -> None:
    network = random_network("llama")
    before = {name: x.clone() for name, x in network.state_dict().items()}
    hooks = [(len(module._forward_pre_hooks), len(module._forward_hooks)) for module in network.modules()]
    edits = path_edits(network, as_prompts(TOKENS), [(0, 1)], HeadInputs([(2, 0), (2, 1)], "k"))
    assert {str(site): site.head for site in edits} == {"k of layer 2": 0}
    assert [x.shape for x in edits.values()] == [(3, 9, 8)]
    assert same_weights(network, before)
    assert hooks == [(len(module._forward_pre_hooks), len(module._forward_hooks)) for module in network.modules()]


@pytest.mark.parametrize(
    ("senders", "receivers", "message"),
    [
        (
            [(1, 0)],
            HeadInputs([(1, 1)], "q"),
            r"sender \(1, 0\): expected heads in layers before every",
        ),
        ([], HeadInputs([(1, 1)], "q"), "no sender: expected heads in layers before"),
        ([(0, 4)], HeadInputs([(1, 1)], "q"), r"sender \(0, 4\) does not exist"),
        ([(0, 0)], HeadInputs([(1, 1)], "k"), "share one k: expected all of them as receivers"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_runs(
    senders: list[tuple[int, int]], receivers: HeadInputs, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("interventions.path_removal.run_frozen", pytest.fail)
    with pytest.raises(ValueError, match=message):
        path_edits(random_network("llama"), as_prompts(TOKENS), senders, receivers, Zero())
