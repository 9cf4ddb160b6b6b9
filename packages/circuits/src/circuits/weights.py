"""The weights of a model's heads, with its norms folded in, so that circuits are products of matrices.

    Norm(x) W + b = (x / s(x)) (C diag(g) W) + (beta W + b)
    s(x) = sqrt(mean((x C)^2) + eps),    C = I - 1 1^T / d_model for LayerNorm, I for RMSNorm

(Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", "Handling Layer Normalization".) The gain g
and the bias beta of the norm before the attention go into W_Q, W_K and W_V, those of the final norm into W_U. What
writes to the stream (W_E, W_pos, W_O, b_O) is multiplied by C from the right, which no reader can see. All of this is
exact: the model's logits and attention are those of these weights, up to one positive number s(x) per position and
norm, which is all that stays nonlinear. With grouped queries every query head has its own copy of the key and value
weights that it reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.bridge import Bridge
from circuits.head_outputs import Head, refuse_missing


@dataclass(frozen=True)
class Weights:
    """Folded weights, float32 whatever the dtype of the model. Vectors stand on the left: q = (x / s) W_Q + b_Q."""

    W_E: Float[Tensor, "d_vocab d_model"]
    W_pos: Float[Tensor, "n_ctx d_model"] | None  # None where positions enter by rotation
    W_Q: Float[Tensor, "layer head d_model d_head"]
    W_K: Float[Tensor, "layer head d_model d_head"]
    W_V: Float[Tensor, "layer head d_model d_head"]
    W_O: Float[Tensor, "layer head d_head d_model"]
    W_U: Float[Tensor, "d_model d_vocab_out"]
    b_Q: Float[Tensor, "layer head d_head"]
    b_K: Float[Tensor, "layer head d_head"]
    b_V: Float[Tensor, "layer head d_head"]
    b_O: Float[Tensor, "layer d_model"]
    b_U: Float[Tensor, " d_vocab_out"]
    rotary: bool
    centred: bool  # LayerNorm, that is C is not I
    eps: float

    @property
    def n_layers(self) -> int:
        return self.W_Q.shape[0]

    @property
    def n_heads(self) -> int:
        return self.W_Q.shape[1]

    @property
    def d_head(self) -> int:
        return self.W_Q.shape[-1]

    def check_heads(self, *heads: Head) -> None:
        """Refuse heads that the model does not have.

        Raises:
            ValueError: naming the first such head.
        """
        refuse_missing(heads, self.n_layers, self.n_heads)

    def scale(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch 1"]:
        """s(x), the norm's divisor, of vectors of the residual stream; the same for all norms of the model."""
        x = x.float()
        if self.centred:
            x = x - x.mean(dim=-1, keepdim=True)
        return (x.square().mean(dim=-1, keepdim=True) + self.eps).sqrt()


@torch.no_grad()
def read_weights(model: Bridge) -> Weights:
    """Copy the weights out of a bridge and fold its norms into them; later changes of the model do not show.

    Raises:
        ValueError: the model is not of the kind x <- x + Attention(Norm(x)) [+ MLP], logits = Norm(x) W_U + b_U: its
            norms are of another kind or stand after the attention, queries or keys have norms of their own, attention
            scores or logits are soft-capped, or residual contributions are scaled.
    """
    bridge: Any = model
    _check_standard(bridge)
    blocks, final = list(bridge.blocks), bridge.ln_final
    centred, eps = not getattr(final, "uses_rms_norm", False), float(bridge.cfg.eps)
    for name, norm in [*((f"blocks.{at}.ln1", block.ln1) for at, block in enumerate(blocks)), ("ln_final", final)]:
        _check_norm(name, norm, centred, eps)

    def per_query_head(weight: Tensor) -> Tensor:
        return weight.float().repeat_interleave(bridge.cfg.n_heads // weight.shape[1], dim=1)

    def bias_of(name: str, like: Tensor) -> Tensor:
        """Stacked over layers; zeros where the projection has none, for which the bridge has no tensor."""
        if all(getattr(block.attn, f"b_{name}", None) is None for block in blocks):
            return torch.zeros_like(like, dtype=torch.float32)
        stacked: Tensor = getattr(bridge, f"b_{name}")
        return stacked

    def written(weight: Tensor) -> Tensor:
        weight = weight.float()
        return weight - weight.mean(dim=-1, keepdim=True) if centred else weight.clone()

    if blocks:
        gains = torch.stack([_gain(block.ln1) for block in blocks])[:, None, :, None]
        betas = torch.stack([_beta(block.ln1) for block in blocks])
        read, biases = {}, {}
        for name in "QKV":
            weight = per_query_head(getattr(bridge, f"W_{name}"))
            read[name] = _centre_rows(gains * weight, centred)
            bias = per_query_head(bias_of(name, getattr(bridge, f"W_{name}")[:, :, 0]))
            biases[name] = bias + torch.einsum("lm,lhmd->lhd", betas, weight)
        W_O, b_O = written(bridge.W_O), written(bias_of("O", bridge.W_O[:, 0, 0]))
    else:
        d_model, heads, d_head = bridge.cfg.d_model, bridge.cfg.n_heads, bridge.cfg.d_head
        like = bridge.W_E.float()
        read = {name: like.new_zeros(0, heads, d_model, d_head) for name in "QKV"}
        biases = {name: like.new_zeros(0, heads, d_head) for name in "QKV"}
        W_O, b_O = like.new_zeros(0, heads, d_head, d_model), like.new_zeros(0, d_model)
    rotary = bridge.cfg.positional_embedding_type == "rotary"
    W_U = bridge.W_U.float()
    return Weights(
        W_E=written(bridge.W_E),
        W_pos=None if rotary else written(bridge.W_pos),
        **{f"W_{name}": weight for name, weight in read.items()},
        **{f"b_{name}": bias for name, bias in biases.items()},
        W_O=W_O,
        b_O=b_O,
        W_U=_centre_rows(_gain(final)[:, None] * W_U, centred),
        b_U=bridge.b_U.float() + _beta(final) @ W_U,
        rotary=rotary,
        centred=centred,
        eps=eps,
    )


def _centre_rows(weight: Float[Tensor, "... d_model out"], centred: bool) -> Float[Tensor, "... d_model out"]:
    """C W: the mean of a vector of the stream adds nothing."""
    return weight - weight.mean(dim=-2, keepdim=True) if centred else weight.clone()


def _gain(norm: Any) -> Float[Tensor, " d_model"]:
    gain: Tensor = norm.weight.float()
    return gain + 1 if norm.uses_weight_offset else gain


def _beta(norm: Any) -> Float[Tensor, " d_model"]:
    beta = getattr(norm, "bias", None)
    return torch.zeros_like(_gain(norm)) if beta is None else beta.float()


def _check_norm(name: str, norm: Any, centred: bool, eps: float) -> None:
    """Compare the norm that will be folded with the norm that the model runs, on one made-up vector."""
    if not all(hasattr(norm, part) for part in ("uses_rms_norm", "uses_weight_offset", "weight")):
        raise ValueError(f"{name} is a {type(norm).__name__}: expected LayerNorm or RMSNorm, which can be folded")
    gain = _gain(norm)
    x = torch.linspace(-1, 2, len(gain), device=gain.device).square()
    y = x - x.mean() if centred else x
    ours = y / (y.square().mean() + eps).sqrt() * gain + _beta(norm)
    theirs = norm(x.to(norm.weight.dtype)[None, None])[0, 0].float()
    tolerance = 1e-4 if norm.weight.dtype == torch.float32 else 0.05
    if not torch.allclose(ours, theirs, rtol=tolerance, atol=tolerance):
        kind = "LayerNorm" if centred else "RMSNorm"
        raise ValueError(
            f"{name} is no {kind} with eps {eps}: it differs by {float((ours - theirs).abs().max()):.1e} on a test "
            f"vector; expected all norms of the model to be of one kind, which can be folded"
        )


def _check_standard(model: Any) -> None:
    """Refuse architectures whose attention or residual stream the equations above do not describe."""
    cfg, blocks = model.cfg, list(model.blocks)
    reasons = []
    if cfg.positional_embedding_type not in ("standard", "rotary"):
        reasons.append(f"positions are {cfg.positional_embedding_type!r}, not learned embeddings or rotary")
    for name in ("attn_scores_soft_cap", "output_logits_soft_cap"):
        if getattr(cfg, name, -1.0) not in (None, -1.0, 0.0):
            reasons.append(f"{name} is {getattr(cfg, name)}")
    for block in blocks:
        parts = dict(block.named_children())
        reasons += [f"a block has {part}" for part in ("ln1_post", "ln2_post") if part in parts]
        if "attn" not in parts:
            reasons.append("a block has no attention")
        else:
            inside = dict(parts["attn"].named_children())
            reasons += [f"attention has {part}" for part in ("q_norm", "k_norm") if part in inside]
        if getattr(block, "residual_contribution_scale", 1.0) != 1.0:
            reasons.append("residual contributions are scaled")
    if reasons:
        raise ValueError(
            f"{getattr(cfg, 'architecture', None) or type(model).__name__}: {reasons[0]}; expected pre-norm blocks "
            f"x + Attention(Norm(x)) [+ MLP], as in GPT-2, Llama or GPT-NeoX"
        )
