"""What heads do that path patching finds: where they attend, what they write and copy, and what on random tokens.

    attention     A[q, k] between the five words
    projection    z W_O . W_U[name] at END, of the names IO and S
    copying       a name's stream x after the first block, read through the head:  o = (Norm(x) W_V + b_V) W_O,
                  1 where the name is among the five highest logits of o ("top"), or of -o ("bottom")
    early         previous-token, duplicate-token and induction scores on repeated random tokens (`circuits.detectors`)

(Wang et al. 2022, section 3.) Logits of o are those that the final norm and the unembedding make of it; a projection
has the final norm's gain in W_U and is not divided by its divisor. The stream of copying is that at the names of p_IOI
sentences, for all heads, also those of the first layer, which read the stream before it.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from replications.indirect_object_identification.grouping import WORDS, Group, by_prompt, groups_of
from replications.indirect_object_identification.positions import IOIPrompts
from replications.indirect_object_identification.setting import Setting, array, settle
from torch import Tensor

import circuits
from circuits import Weights
from interventions import Site, captured, values_of
from reprise import Job, Result

NAMES, NAMED = ("IO", "S"), ("IO", "S1", "S2")
TOP = 5
DETECTORS = ("previous_token", "duplicate_token", "induction")


def attention(job: Job) -> Result:
    """Of every head: `attention` [prompt, layer, head, query word, key word], `projection` [prompt, layer, head, name].

    `uniform` [prompt, word] is what a head that attends to all tokens alike would have on each.
    """
    setting = settle(job)
    prompts = setting.clean(setting.trials.search)
    weights = circuits.read_weights(setting.model.bridge)
    seen = by_prompt(groups_of(prompts, WORDS), lambda group: looked(setting, prompts, group, weights), job.progress)
    n = len(WORDS) ** 2
    end = prompts.tokens.shape[1]
    places = torch.stack([prompts.lengths - end + prompts.positions[word] + 1 for word in WORDS], dim=1)
    return Result(
        {
            "attention": array(seen[..., :n].unflatten(-1, (len(WORDS), -1))),  # type: ignore[no-untyped-call]
            "projection": array(seen[..., n:]),
            "uniform": array(1 / places),
        },
        {**setting.facts(), "words": list(WORDS), "names": list(NAMES)},
    )


def copying(job: Job) -> Result:
    """`top` and `bottom` [prompt, named word, layer, head]: 1 where the name is among the highest or lowest logits."""
    setting = settle(job)
    prompts = setting.clean(setting.trials.copied)
    weights = circuits.read_weights(setting.model.bridge)
    streams, tokens = named_streams(setting, prompts)
    hits = []
    for layer in range(setting.n_layers):
        job.progress(layer, setting.n_layers)
        hits.append(copied(weights, layer, streams.flatten(0, 1), tokens.flatten()))
    by_layer = torch.stack(hits, dim=2).view(2, *tokens.shape, setting.n_layers, setting.n_heads)
    facts = {**setting.facts(), "words": list(NAMED), "k": TOP}
    return Result({"top": array(by_layer[0]), "bottom": array(by_layer[1])}, facts)


def early(job: Job) -> Result:
    """Scores [sequence, layer, head] of `DETECTORS` on random tokens, twice over."""
    setting = settle(job)
    model, trials = setting.model, setting.trials
    length = min(trials.segment, (model.n_ctx - (model.bos is not None)) // 2)
    tokens = circuits.repeated_random_tokens(trials.repeated, length, model.d_vocab, seed=setting.seed, bos=model.bos)
    scores = circuits.head_scores_by_sequence(
        model.bridge,
        tokens,
        detectors={name: circuits.DETECTORS[name] for name in DETECTORS},
        batch_size=trials.batch,
    )
    return Result({name: array(each) for name, each in scores.items()}, {**setting.facts(), "length": length})


def looked(
    setting: Setting, prompts: IOIPrompts, group: Group, weights: Weights
) -> Float[Tensor, "row layer head attention_and_projection"]:
    """Attention from every word to every word, query by query, and the projections; in one pass."""
    layers = range(setting.n_layers)
    patterns = {layer: Site("pattern", layer) for layer in layers}
    outputs = {layer: Site("z", layer, position=-1) for layer in layers}
    network = setting.model.network
    tokens = group.of(prompts).tokens.to(network.device)
    with torch.no_grad(), captured(network, [*patterns.values(), *outputs.values()]) as seen:
        network.base_model(tokens, use_cache=False)
    at = torch.tensor([group.at[word] for word in WORDS], device=tokens.device) + group.length
    names = torch.stack([prompts.io[group.rows], prompts.s[group.rows]], dim=1).to(weights.W_U.device)
    directions = weights.W_U.T[names]  # [row, name, d_model]
    found = []
    for layer in layers:
        pattern = seen[patterns[layer]][0][:, at][..., at]  # [row, query, head, key]
        z = seen[outputs[layer]][0].float()
        read = torch.einsum("rnm,hdm->rnhd", directions, weights.W_O[layer])
        projection = torch.einsum("rhd,rnhd->rhn", z, read)
        found.append(torch.cat([pattern.transpose(1, 2).flatten(2).float(), projection], dim=2))
    return torch.stack(found, dim=1)


def named_streams(
    setting: Setting, prompts: IOIPrompts
) -> tuple[Float[Tensor, "prompt named d_model"], Int[Tensor, "prompt named"]]:
    """The stream after the first block at the words that are names, and these names' tokens."""

    def run(group: Group) -> Tensor:
        stream = values_of(setting.model.network, group.of(prompts), "resid_post", [0])[0]
        return stream[:, [group.at[word] for word in NAMED]]

    tokens = torch.stack([prompts.io, prompts.s, prompts.s], dim=1)
    return by_prompt(groups_of(prompts, NAMED), run), tokens


def copied(
    weights: Weights, layer: int, streams: Float[Tensor, "row d_model"], tokens: Int[Tensor, " row"]
) -> Bool[Tensor, "sign row head"]:
    """Whether a row's token is among the `TOP` highest logits of o, and of -o, for every head of a layer."""
    streams, own = streams.to(weights.W_U.device), tokens.to(weights.W_U.device)[:, None]
    values = torch.einsum("rm,hmd->hrd", streams / weights.scale(streams), weights.W_V[layer])
    outputs = (values + weights.b_V[layer][:, None]) @ weights.W_O[layer]
    found = []
    for output in outputs:
        logits = output / weights.scale(output) @ weights.W_U
        signed = (logits + weights.b_U, weights.b_U - logits)
        found.append(torch.stack([(each > each.gather(1, own)).sum(dim=1) < TOP for each in signed]))
    return torch.stack(found, dim=2)
