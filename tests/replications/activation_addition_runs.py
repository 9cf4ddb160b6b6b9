"""What the tests of this replication share: small random models on disk, and its stages run without the store."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from replications.activation_addition import experiment, paper_material, setting, story_material
from replications.activation_addition.material import Group, Material
from torch import Tensor

from reprise import Job, Result, Results
from reprise.models import ModelReference
from reprise.paper import load
from zoo import stories, words

ROOT = Path(__file__).resolve().parents[2]
PAPER = load(ROOT / "replications" / "activation_addition" / "paper.toml")
N_LAYERS = 3


def write_network(folder: Path, d_vocab: int) -> None:
    """A GPT-2 of 3 layers whose weights are so large that what is added to its stream is seen in its tokens."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=d_vocab,
        n_embd=32,
        n_layer=N_LAYERS,
        n_head=4,
        n_positions=192,
        bos_token_id=0,
        eos_token_id=0,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    network = GPT2LMHeadModel(config)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.25)
    network.save_pretrained(folder)


def story_folder(folder: Path) -> ModelReference:
    """With the tokenizer of the stories, a token a word."""
    tokenizer = stories.vocabulary()
    write_network(folder, tokenizer.get_vocab_size())
    words.save(tokenizer, folder, n_ctx=192)
    return ModelReference(folder.name, "folder", str(folder), "0" * 64)


def english_folder(folder: Path) -> ModelReference:
    """With byte pairs of the paper tier's texts, as GPT-2 has them: spaces belong to the word behind them."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    tokenizer = ByteLevelBPETokenizer()
    texts = [*paper_material.ON_TOPIC, *paper_material.OFF_TOPIC, " weddings weddings weddings football Love Hate"]
    tokenizer.train_from_iterator(
        texts, vocab_size=600, min_frequency=1, special_tokens=["<|endoftext|>"], show_progress=False
    )
    write_network(folder, tokenizer.get_vocab_size())
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer._tokenizer, bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    ).save_pretrained(folder)
    return ModelReference(folder.name, "folder", str(folder), "0" * 64)


def run(reference: ModelReference, tier: str, trials: setting.Trials, monkeypatch: pytest.MonkeyPatch) -> Results:
    monkeypatch.setattr(setting, "TRIALS", {tier: trials})
    done: dict[str, dict[str, Result]] = {}
    for stage in experiment.STAGES:
        needed = Results(tier, 0, {name: done[name] for name in stage.needs})
        job = Job(ROOT, tier, 0, "cpu", "float32", models=(reference,), inputs=needed, one_model=reference)
        done[stage.name] = {reference.name: stage.function(job)}
    return Results(tier, 0, done)


def few_latents(monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    """Let the tiny tier have so many topics and moods alone."""
    whole = story_material.material

    def fewer(**options: Any) -> Material:
        found = whole(**options)
        groups = {
            kind: Group(group.latents[:n], group.choosing[:n], group.scoring[:n], group.samples)
            for kind, group in found.groups.items()
        }
        return dataclasses.replace(found, groups=groups)

    monkeypatch.setattr(story_material, "material", fewer)


class Plain:
    """The model in plain transformers: one text at a time, no cache, and hooks written by hand."""

    def __init__(self, reference: ModelReference) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.network: Any = AutoModelForCausalLM.from_pretrained(reference.location).eval()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(reference.location)

    def tokens(self, text: str) -> list[int]:
        return [0, *self.tokenizer.encode(text, add_special_tokens=False)]

    @torch.no_grad()
    def run(
        self,
        tokens: Sequence[int],
        layer: int = 0,
        rows: Tensor | None = None,
        everywhere: bool = False,
        length: int = 0,
    ) -> tuple[Tensor, Tensor]:
        """Logits [pos, d_vocab], and what goes into each block [layer, pos, d_model].

        Args:
            rows: added in front of `layer` at the first positions, of the first `length` less one; or its only row at
                all positions.
        """
        seen: list[Tensor] = []

        def hook(at: int, x: Tensor) -> Tensor:
            x = x.clone()
            if rows is not None and at == layer:
                n = x.shape[1] if everywhere else min(len(rows), length - 1)
                x[0, :n] += rows[:1].expand(n, -1) if everywhere else rows[:n]
            seen.append(x[0])
            return x

        handles = [
            block.register_forward_pre_hook(lambda module, inputs, at=at: (hook(at, inputs[0]), *inputs[1:]))
            for at, block in enumerate(self.network.transformer.h)
        ]
        logits = self.network(torch.tensor([list(tokens)])).logits[0]
        for handle in handles:
            handle.remove()
        return logits, torch.stack(seen)

    def contrast(self, positive: str, negative: str) -> Tensor:
        """[layer, pos, d_model] of two texts of equally many tokens."""
        return self.run(self.tokens(positive))[1] - self.run(self.tokens(negative))[1]

    def write(self, text: str, n: int, **steer: Any) -> str:
        """n greedy tokens, or up to the end of the text."""
        tokens = self.tokens(text)
        new: list[int] = []
        for _ in range(n):
            following = int(self.run([*tokens, *new], length=len(tokens), **steer)[0][-1].argmax())
            if following == 0:
                break
            new.append(following)
        return str(self.tokenizer.decode(new))

    def losses(self, tokens: Sequence[int], start: int, **steer: Any) -> Tensor:
        """-log p of the tokens from `start` on."""
        log_p = self.run(tokens, length=len(tokens), **steer)[0].log_softmax(dim=-1)
        return torch.stack([-log_p[at - 1, tokens[at]] for at in range(start, len(tokens))])
