"""What is read from weights alone: bigrams, copying, skip-trigrams, composition."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from replications.transformer_circuits import prompts
from replications.transformer_circuits.models import array, facts, load, roles, skipped
from torch import Tensor

import circuits
import zoo
from circuits import Weights
from interventions import Model
from reprise import Job, Result

POSITIONS = slice(1, 127, 5)  # at which the bigram table of the zero-layer model is read
RARE_SOURCE = 100  # occurrences in the corpus below which a token's successors say too little
TRIGRAMS, CONTEXTS, FILLER = 10, 16, 24


def bigrams(job: Job) -> Result:
    """Corpus bigrams against the zero-layer model's table, and against token frequencies, for every token."""
    model = load(job)
    if model.bridge.cfg.n_layers:
        return skipped(model)
    counts = zoo.bigram_counts().double()
    tokens = (counts.sum(dim=1) >= RARE_SOURCE).nonzero().flatten()
    corpus = counts[tokens] / counts[tokens].sum(dim=1, keepdim=True)
    table = bigram_table(circuits.read_weights(model.bridge))[tokens].double()
    frequency = (counts.sum(dim=0) + 1) / (counts.sum() + counts.shape[1])
    shown = counts[tokens].sum(dim=1).argsort(descending=True)
    seen = (counts[tokens] >= 20).nonzero()
    seen = seen[torch.randperm(len(seen), generator=torch.Generator().manual_seed(job.seed))[:4000]]
    sources, successors = seen.unbind(dim=1)
    return Result(
        {
            "weight": array(counts[tokens].sum(dim=1) / counts.sum()),
            "divergence": array(divergence(corpus, table)),
            "divergence_of_frequency": array(divergence(corpus, frequency.expand_as(corpus))),
            "corpus": array(corpus[sources, successors]),
            "model": array(table[sources, successors]),
        },
        {**facts(model), "examples": examples(model, tokens[shown[:12]], corpus[shown[:12]], table[shown[:12]])},
    )


def bigram_table(weights: Weights) -> Float[Tensor, "d_vocab d_vocab"]:
    """p(b | a) of a zero-layer model, averaged over positions: softmax(LN(W_E[a] + W_pos[i]) W_U + b_U)."""
    assert weights.W_pos is not None
    table = torch.zeros(len(weights.W_E), len(weights.b_U))
    positions = weights.W_pos[POSITIONS]
    for position in positions:
        x = weights.W_E + position
        table += (x / weights.scale(x) @ weights.W_U + weights.b_U).softmax(dim=-1)
    return table / len(positions)


def divergence(corpus: Float[Tensor, "a b"], model: Float[Tensor, "a b"]) -> Float[Tensor, " a"]:
    """KL(corpus || model) of every row, in nats."""
    return torch.where(corpus > 0, corpus * (corpus.clamp(min=1e-300).log() - model.log()), 0).sum(dim=1)


def examples(model: Model, tokens: Tensor, corpus: Tensor, table: Tensor) -> list[list[str]]:
    """Rows (token, its commonest successor in the corpus, that of the model), as text."""
    return [
        [text(model, int(token)), text(model, int(theirs.argmax())), text(model, int(ours.argmax()))]
        for token, theirs, ours in zip(tokens, corpus, table, strict=True)
    ]


def copying(job: Job) -> Result:
    """Every head's copying score, eigenvalues and copying accuracy; accuracy of all induction heads together."""
    model = load(job)
    if not model.bridge.cfg.n_layers:
        return skipped(model)
    weights, tokens = circuits.read_weights(model.bridge), prompts.common_tokens(model, job.model.location)
    eigenvalues = circuits.ov_eigenvalues(weights)
    arrays = {
        "score": array(circuits.copying_scores(weights)),
        "accuracy": array(circuits.copying_accuracy(weights, tokens=tokens)),
        "real": array(eigenvalues.real),
        "imaginary": array(eigenvalues.imag),
    }
    heads = roles(job)
    if heads:
        arrays["sum_accuracy"] = array(circuits.copying_accuracy_of_sum(weights, heads.induction, tokens=tokens))
    return Result(arrays, {**facts(model), "induction": [list(head) for head in heads.induction] if heads else []})


def skip_trigrams(job: Job) -> Result:
    """The strongest skip-trigrams of every head of a one-layer model, and what their sources do to its predictions."""
    model = load(job)
    if model.bridge.cfg.n_layers != 1:
        return skipped(model)
    weights, common = circuits.read_weights(model.bridge), prompts.common_tokens(model, job.model.location)
    found = [
        (head, trigram)
        for head in range(weights.n_heads)
        for trigram in circuits.top_skip_trigrams(weights, (0, head), n=TRIGRAMS, tokens=common)
    ]
    trigrams = [trigram for _, trigram in found]
    with_source, without = prompts.skip_trigram_contexts(
        trigrams, common, contexts=CONTEXTS, length=FILLER, seed=job.seed
    )
    output = torch.tensor([trigram.output for trigram in trigrams]).repeat_interleave(CONTEXTS)[:, None]
    sides = [
        circuits.next_token_log_probs(model.bridge, torch.cat([tokens, output], dim=1), batch_size=64)[:, -1]
        for tokens in (with_source, without)
    ]
    rows = [
        [head, text(model, one.source), text(model, one.destination), text(model, one.output)] for head, one in found
    ]
    gain = (sides[0] - sides[1]).view(len(trigrams), CONTEXTS).mean(dim=1)
    copies = [one.source == one.output for one in trigrams]
    return Result({"gain": array(gain), "copies": np.array(copies, dtype=np.float32)}, {**facts(model), "rows": rows})


def composition(job: Job) -> Result:
    """Composition of every pair of heads with its chance level; the diagonal of the full K-composition circuit."""
    model, heads = load(job), roles(job)
    if heads is None:
        return skipped(model)
    weights = circuits.read_weights(model.bridge)
    scores = circuits.composition_scores(weights)
    chance = circuits.composition_baseline(weights, seed=job.seed)
    arrays = {"q": array(scores.q), "k": array(scores.k), "v": array(scores.v)}
    if model.bridge.cfg.attn_only:
        common = prompts.common_tokens(model, job.model.location)
        layer = heads.previous[0]
        arrays["diagonal"] = np.stack(
            [diagonal(weights, (layer, head), heads.induction, common) for head in range(weights.n_heads)]
        )
        circuit = k_composition(weights, heads.previous, heads.induction)
        shown = common[:: max(1, len(common) // 48)][:48]
        arrays["corner"] = array(circuit.A[shown] @ circuit.B[:, shown])
    return Result(
        arrays,
        {
            **facts(model),
            "chance": float(chance.mean),
            "chance_std": float(chance.std),
            "previous": list(heads.previous),
            "induction": [list(head) for head in heads.induction],
        },
    )


def k_composition(
    weights: Weights, earlier: circuits.Head, later: tuple[circuits.Head, ...]
) -> circuits.FactoredMatrix:
    """The full K-composition circuit summed over later heads, factored."""
    each = [circuits.k_composition_circuit(weights, earlier, head) for head in later]
    return circuits.factored(torch.cat([one.A for one in each], dim=1), torch.cat([one.B for one in each], dim=0))


def diagonal(weights: Weights, earlier: circuits.Head, later: tuple[circuits.Head, ...], tokens: Tensor) -> np.ndarray:
    """Whether each token's row of the summed circuit has its maximum on the diagonal."""
    top = circuits.diagonal_in_top(k_composition(weights, earlier, later), (1,), rows=tokens)
    return array(top[:, 0])


def text(model: Model, token: int) -> str:
    return model.tokenizer.decode([token]) if model.tokenizer else str(token)
