"""Attention-only transformers as a Hugging Face network, so that the engine and transformers run them like any other.

    x_0 = W_E[t] + W_pos[i],   x_{l+1} = x_l + Attn_l(LN(x_l)),   logits = LN(x_L) W_U + b_U

(Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", with LayerNorm and biases). Modules are named
as in Llama, so that `architectures` has one row for both; files keep the parameter names of a TransformerLens bridge,
which `from_bridge` and `to_bridge` translate. Logits equal those of TransformerLens's native bridge up to rounding.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import DynamicCache
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils.output_capturing import capture_outputs

T = TypeVar("T")
_BRIDGE_TO_NETWORK = (
    (r"^embed\.", "model.embed_tokens."),
    (r"^pos_embed\.", "model.embed_positions."),
    (r"^blocks\.(\d+)\.ln1\.", r"model.layers.\1.input_layernorm."),
    (r"^blocks\.(\d+)\.attn\.([qkvo])\.", r"model.layers.\1.self_attn.\2_proj."),
    (r"^ln_final\.", "model.norm."),
    (r"^unembed\.", "lm_head."),
)
_NETWORK_TO_BRIDGE = (
    (r"^model\.embed_tokens\.", "embed."),
    (r"^model\.embed_positions\.", "pos_embed."),
    (r"^model\.layers\.(\d+)\.input_layernorm\.", r"blocks.\1.ln1."),
    (r"^model\.layers\.(\d+)\.self_attn\.([qkvo])_proj\.", r"blocks.\1.attn.\2."),
    (r"^model\.norm\.", "ln_final."),
    (r"^lm_head\.", "unembed."),
)


class AttentionOnlyConfig(PreTrainedConfig):  # type: ignore[misc]
    """Shape of an attention-only transformer, in the names that transformers uses."""

    model_type = "attention_only"

    vocab_size: int = 1
    hidden_size: int = 1
    num_hidden_layers: int = 0
    num_attention_heads: int = 1
    head_dim: int = 1
    max_position_embeddings: int = 1
    use_cache: bool = True
    bos_token_id: int | None = 0
    eos_token_id: int | None = None
    tie_word_embeddings: bool = False


class AttentionOnlyAttention(nn.Module):
    """Multi-head attention with biases, by whichever function the config names."""

    def __init__(self, config: AttentionOnlyConfig, layer_idx: int) -> None:
        super().__init__()
        width = config.num_attention_heads * config.head_dim
        self.config, self.layer_idx = config, layer_idx
        self.head_dim = config.head_dim
        self.scaling = config.head_dim**-0.5
        self.is_causal = True
        self.num_key_value_groups = 1
        self.q_proj = nn.Linear(config.hidden_size, width)
        self.k_proj = nn.Linear(config.hidden_size, width)
        self.v_proj = nn.Linear(config.hidden_size, width)
        self.o_proj = nn.Linear(width, config.hidden_size)

    def forward(
        self,
        hidden_states: Float[Tensor, "batch pos d_model"],
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        shape = (*hidden_states.shape[:-1], -1, self.head_dim)
        query, key, value = (
            projection(hidden_states).view(shape).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)
        attend: Callable[..., tuple[Tensor, Tensor | None]] = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, _eager
        )
        z, pattern = attend(self, query, key, value, attention_mask, dropout=0.0, scaling=self.scaling, **kwargs)
        return self.o_proj(z.reshape(*hidden_states.shape[:-1], -1)), pattern


class AttentionOnlyLayer(nn.Module):
    """x + Attn(LN(x))."""

    def __init__(self, config: AttentionOnlyConfig, layer_idx: int) -> None:
        super().__init__()
        self.input_layernorm = nn.LayerNorm(config.hidden_size)
        self.self_attn = AttentionOnlyAttention(config, layer_idx)

    def forward(
        self,
        hidden_states: Float[Tensor, "batch pos d_model"],
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> Float[Tensor, "batch pos d_model"]:
        written, _ = self.self_attn(
            self.input_layernorm(hidden_states),
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            **kwargs,
        )
        return hidden_states + cast(Tensor, written)


class AttentionOnlyPreTrained(PreTrainedModel):  # type: ignore[misc]
    """What transformers wants to know about the network and its inner model alike."""

    config_class = AttentionOnlyConfig
    config: AttentionOnlyConfig
    base_model_prefix = "model"
    _supports_sdpa = True
    _supports_attention_backend = True
    _can_record_outputs: Mapping[str, Any] = {"hidden_states": AttentionOnlyLayer, "attentions": AttentionOnlyAttention}


class AttentionOnlyModel(AttentionOnlyPreTrained):
    """From tokens to the stream behind the final norm."""

    def __init__(self, config: AttentionOnlyConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.embed_positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.layers = nn.ModuleList(AttentionOnlyLayer(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(config.hidden_size)
        self.post_init()

    @capture_outputs  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        x = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        use_cache = self.config.use_cache if use_cache is None else use_cache
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        if position_ids is None:
            past = 0 if past_key_values is None else past_key_values.get_seq_length()
            position_ids = past + torch.arange(x.shape[1], device=x.device)[None]
        x = x + self.embed_positions(position_ids)
        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=x,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            position_ids=position_ids,
        )
        for layer in self.layers:
            x = layer(x, attention_mask=mask, position_ids=position_ids, past_key_values=past_key_values, **kwargs)
        return BaseModelOutputWithPast(last_hidden_state=self.norm(x), past_key_values=past_key_values)


class AttentionOnlyNetwork(AttentionOnlyPreTrained, GenerationMixin):  # type: ignore[misc]
    """The transformer with its unembedding, which has a bias."""

    def __init__(self, config: AttentionOnlyConfig) -> None:
        super().__init__(config)
        self.model = AttentionOnlyModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        **kwargs: Any,
    ) -> Any:
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        return CausalLMOutputWithPast(
            logits=self.lm_head(outputs.last_hidden_state[:, -logits_to_keep:]),
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


def from_bridge(state: Mapping[str, T]) -> dict[str, T]:
    """A state under the parameter names of the network, from those of a bridge; other names stay."""
    return {_renamed(name, _BRIDGE_TO_NETWORK): value for name, value in state.items()}


def to_bridge(state: Mapping[str, T]) -> dict[str, T]:
    """A state under the parameter names of a bridge, from those of the network."""
    return {_renamed(name, _NETWORK_TO_BRIDGE): value for name, value in state.items()}


def _renamed(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        new, found = re.subn(pattern, replacement, name)
        if found:
            return new
    return name


def _eager(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float = 1.0,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    scores = query @ key.mT * scaling
    pattern = (scores if attention_mask is None else scores + attention_mask).softmax(dim=-1)
    return (pattern @ value).transpose(1, 2), pattern
