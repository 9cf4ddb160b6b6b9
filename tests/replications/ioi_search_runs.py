"""What the tests of the search share: folders of small random models that read words, and passes with plain hooks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from replications.indirect_object_identification import material, positions, templates
from replications.indirect_object_identification.positions import IOIPrompts
from replications.indirect_object_identification.setting import Trials
from torch import Tensor

from reprise import Job, Result, Results
from reprise.models import ModelReference
from zoo import ioi, words

KINDS = ("gpt2", "llama", "gpt_neox")
N_LAYERS, N_HEADS, D_HEAD = 3, 4, 8
FEW = Trials(
    performance=4,
    search=4,
    paths=4,
    inner_paths=3,
    everywhere=2,
    copied=4,
    signals=4,
    repeated=3,
    segment=6,
    validated=4,
    means=8,
    subsets=2,
    adversarial=4,
    batch=4,
)
LAYERS = {"gpt2": "transformer.h", "llama": "model.layers", "gpt_neox": "gpt_neox.layers"}
PROJECTIONS = {"gpt2": "attn.c_proj", "llama": "self_attn.o_proj", "gpt_neox": "attention.dense"}
MLPS = {"gpt2": "mlp", "llama": "mlp", "gpt_neox": "mlp"}
NORMS = {"gpt2": "transformer.ln_f", "llama": "model.norm", "gpt_neox": "gpt_neox.final_layer_norm"}


def tokenizer() -> Any:
    """One token for every word of both tiers."""
    texts = [*templates.TEMPLATES, *templates.REMARKS, *(each.text for each in ioi.TEMPLATES), *material.TINY_REMARKS]
    known = (*templates.NAMES, *templates.PLACES, *templates.OBJECTS, *ioi.NAMES, *ioi.PLACES, *ioi.OBJECTS)
    return words.build([*(re.sub(r"\{\w\}", " ", text) for text in texts), positions.BEHIND, *known])


def write(folder: Path, kind: str) -> ModelReference:
    """A folder with a random model of which every head matters; Llama with grouped queries."""
    import transformers

    of_words = tokenizer()
    width = N_HEADS * D_HEAD
    common = {"vocab_size": of_words.get_vocab_size(), "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
    wide = {
        "hidden_size": width,
        "intermediate_size": 40,
        "num_hidden_layers": N_LAYERS,
        "num_attention_heads": N_HEADS,
        "max_position_embeddings": 64,
    }
    settings: dict[str, dict[str, Any]] = {
        "gpt2": {"n_layer": N_LAYERS, "n_head": N_HEADS, "n_embd": width, "n_positions": 64},
        "llama": {**wide, "num_key_value_heads": 2, "head_dim": D_HEAD},
        "gpt_neox": wide,
    }
    config = transformers.AutoConfig.for_model(kind, **settings[kind], **common)
    network = transformers.AutoModelForCausalLM.from_config(config)
    generator = torch.Generator().manual_seed(KINDS.index(kind))
    with torch.no_grad():
        for parameter in network.parameters():
            noise = 0.3 * torch.randn(parameter.shape, generator=generator)
            parameter.copy_(parameter + noise if parameter.ndim == 1 else noise)
    network.save_pretrained(folder)
    words.save(of_words, folder, n_ctx=64)
    return ModelReference(kind, "folder", str(folder), "0" * 64)


def job(reference: ModelReference, tier: str, **needs: Result) -> Job:
    inputs = Results(tier, 0, {name: {reference.name: result} for name, result in needs.items()})
    root = Path(__file__).resolve().parents[2]
    return Job(root, tier, 0, "cpu", "float32", models=(reference,), inputs=inputs, one_model=reference)


@cache
def eager(location: str) -> Any:
    """The same network, which gives its attention patterns."""
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(location, attn_implementation="eager").eval()


class Plain:
    """One prompt at a time through a network, by hooks of plain torch."""

    def __init__(self, reference: ModelReference) -> None:
        self.kind, self.network = reference.name, eager(reference.location)

    def layer(self, layer: int) -> Any:
        return self.network.get_submodule(LAYERS[self.kind])[layer]

    def projection(self, layer: int) -> Any:
        return self.layer(layer).get_submodule(PROJECTIONS[self.kind])

    def mlp(self, layer: int) -> Any:
        return self.layer(layer).get_submodule(MLPS[self.kind])

    def final_norm(self) -> Any:
        return self.network.get_submodule(NORMS[self.kind])

    def run(self, tokens: Tensor, **options: Any) -> Any:
        with torch.no_grad():
            return self.network(tokens, use_cache=False, **options)

    def difference(self, prompts: IOIPrompts, row: int, tokens: Tensor | None = None) -> float:
        """logit(IO) - logit(S), of other tokens than the prompt's where they are given."""
        logits = self.run(row_of(prompts, row) if tokens is None else tokens).logits[0, -1]
        return float(logits[prompts.io[row]] - logits[prompts.s[row]])

    def z(self, tokens: Tensor) -> list[Tensor]:
        """z of every layer, [1, pos, head, d_head]."""
        found: dict[int, Tensor] = {}
        with self.z_edited({layer: keep(found, layer) for layer in range(N_LAYERS)}):
            self.run(tokens)
        return [found[layer] for layer in range(N_LAYERS)]

    def stream(self, layer: int, tokens: Tensor) -> Tensor:
        """The stream before a layer, [1, pos, d_model]."""
        found: dict[int, Tensor] = {}
        with self.stream_edited(layer, keep(found, layer)):
            self.run(tokens)
        return found[layer]

    def written(self, tokens: Tensor) -> dict[str, Tensor]:
        """At the last token, [d_model]: what MLPs write ("mlp0", ...), and the stream before the final norm ("end")."""
        found: dict[str, Tensor] = {}

        def see(name: str) -> Any:
            return lambda module, args, output: found.update({name: output[0, -1]})

        made = [self.mlp(layer).register_forward_hook(see(f"mlp{layer}")) for layer in range(N_LAYERS)]
        end = self.final_norm().register_forward_pre_hook(lambda module, args: found.update(end=args[0][0, -1]))
        with hooks([*made, end]):
            self.run(tokens)
        return found

    def values(self, tokens: Tensor) -> list[Tensor]:
        """What each query head of every layer reads at each token, [pos, head, d_head]."""
        found: dict[int, Tensor] = {}

        def see(layer: int) -> Any:
            def hook(module: Any, args: Any, output: Tensor) -> None:
                if self.kind == "gpt2":  # queries, keys and values one behind the other
                    found[layer] = output[0, :, -N_HEADS * D_HEAD :].view(-1, N_HEADS, D_HEAD)
                elif self.kind == "gpt_neox":  # head by head
                    found[layer] = output[0].view(-1, N_HEADS, 3, D_HEAD)[:, :, 2]
                else:  # two query heads share the values of one
                    found[layer] = output[0].view(-1, 2, D_HEAD).repeat_interleave(2, dim=1)

            return hook

        path = {"gpt2": "attn.c_attn", "llama": "self_attn.v_proj", "gpt_neox": "attention.query_key_value"}[self.kind]
        with hooks(
            self.layer(layer).get_submodule(path).register_forward_hook(see(layer)) for layer in range(N_LAYERS)
        ):
            self.run(tokens)
        return [found[layer] for layer in range(N_LAYERS)]

    @contextmanager
    def projections_edited(self, into: str, edits: Mapping[int, Callable[[Tensor], Tensor | None]]) -> Iterator[None]:
        """Inside, queries "q", keys "k" or values "v" [1, pos, head, d_head], before rotation, are edited by layer."""
        separate, at = self.kind == "llama", "qkv".index(into)
        path = {"gpt2": "attn.c_attn", "llama": f"self_attn.{into}_proj", "gpt_neox": "attention.query_key_value"}

        def behind(edit: Callable[[Tensor], Tensor | None]) -> Any:
            def hook(module: Any, args: Any, output: Tensor) -> Tensor:
                parts = output.view(*output.shape[:2], -1, D_HEAD).clone()
                if separate:
                    mine = parts
                elif self.kind == "gpt2":
                    mine = parts[:, :, at * N_HEADS : (at + 1) * N_HEADS]
                else:
                    mine = parts[:, :, at::3]
                new = edit(mine)
                if new is not None:
                    mine.copy_(new)
                return parts.view(output.shape)

            return hook

        with hooks(
            self.layer(layer).get_submodule(path[self.kind]).register_forward_hook(behind(edit))
            for layer, edit in edits.items()
        ):
            yield

    def path_difference(
        self,
        prompts: IOIPrompts,
        row: int,
        z: tuple[list[Tensor], list[Tensor]],
        sender: tuple[int, int],
        column: int,
        receivers: Sequence[tuple[int, int]] = (),
        into: str = "q",
    ) -> float:
        """logit(IO) - logit(S) with the path from a sender, changed at one token, to receivers or to the logits.

        Args:
            z: of the prompt, and of the prompt that the sender's output is of.
            receivers: heads as the projection counts them (key-value heads for "k" and "v"); none for the logits.
        """
        own, changed = z
        held = {layer: put(own[layer], slice(None), list(range(N_HEADS))) for layer in range(N_LAYERS)}
        layer, head = sender
        held[layer] = lambda x: put(changed[layer], [column], head)(own[layer])
        seen: dict[int, Tensor] = {}
        layers = sorted({layer for layer, _ in receivers})
        with self.z_edited(held), self.projections_edited(into, {layer: keep(seen, layer) for layer in layers}):
            direct = self.difference(prompts, row)
        if not receivers:
            return direct
        edits = {
            layer: put(seen[layer], slice(None), [head for at, head in receivers if at == layer]) for layer in layers
        }
        with self.projections_edited(into, edits):
            return self.difference(prompts, row)

    @contextmanager
    def z_edited(self, edits: Mapping[int, Callable[[Tensor], Tensor | None]]) -> Iterator[None]:
        """Inside, z of a layer becomes what its edit makes of it, or stays where that is None."""

        def before(edit: Callable[[Tensor], Tensor | None]) -> Any:
            def hook(module: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
                z = args[0].view(*args[0].shape[:2], N_HEADS, D_HEAD)
                new = edit(z)
                return ((z if new is None else new).reshape(args[0].shape), *args[1:])

            return hook

        with hooks(self.projection(layer).register_forward_pre_hook(before(edit)) for layer, edit in edits.items()):
            yield

    @contextmanager
    def stream_edited(self, layer: int, edit: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
        """Inside, the stream before a layer becomes what the edit makes of it."""

        def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            stream = args[0] if args else kwargs["hidden_states"]
            new = edit(stream)
            new = stream if new is None else new
            return ((new, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": new})

        with hooks([self.layer(layer).register_forward_pre_hook(hook, with_kwargs=True)]):
            yield


@contextmanager
def hooks(handles: Any) -> Iterator[None]:
    made = list(handles)
    try:
        yield
    finally:
        for handle in made:
            handle.remove()


def keep(found: dict[int, Tensor], layer: int) -> Callable[[Tensor], None]:
    """No edit: it sees the activation."""

    def see(x: Tensor) -> None:
        found[layer] = x.clone()

    return see


def put(new: Tensor, positions: Sequence[int] | slice, head: int | list[int]) -> Callable[[Tensor], Tensor]:
    """An edit of z or of a projection: heads at some positions from `new`."""

    def edit(z: Tensor) -> Tensor:
        z = z.clone()
        z[:, positions, head] = new[:, positions, head]
        return z

    return edit


def row_of(prompts: IOIPrompts, row: int) -> Tensor:
    """A prompt without its padding, [1, pos]."""
    return prompts.tokens[row : row + 1, -int(prompts.lengths[row]) :]


def place(prompts: IOIPrompts, row: int, word: str) -> int:
    """Where a word stands in `row_of`."""
    return int(prompts.positions[word][row]) - (prompts.tokens.shape[1] - int(prompts.lengths[row]))
