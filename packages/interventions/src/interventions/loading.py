"""Loading a model for analysis: a folder or a hub id becomes a TransformerLens bridge and its tokenizer.

Nothing is folded or centred: logits are those of the model as it was trained. A local folder needs no network.
"""

from __future__ import annotations

import socket
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from interventions import folders
from interventions.errors import ModelError

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


@runtime_checkable
class Tokenizer(Protocol):
    """Text to token ids and back."""

    def encode(self, text: str) -> list[int]: ...

    def decode(self, tokens: list[int]) -> str: ...


@dataclass(frozen=True)
class Model:
    """A loaded model; `tokenizer` is None where there is none, `bos` where no token starts a sequence."""

    name: str
    bridge: TransformerBridge
    tokenizer: Tokenizer | None
    bos: int | None

    @property
    def n_ctx(self) -> int:
        return int(self.bridge.cfg.n_ctx)

    @property
    def d_vocab(self) -> int:
        return int(self.bridge.cfg.d_vocab)


def load(path_or_id: str | Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Model:
    """Load a model folder, or a model of the Hugging Face hub by its id.

    Folders are this project's own (attention-only, hashes checked) or Hugging Face's. For an id, `owner/model@revision`
    chooses a revision.

    Raises:
        ModelError: one line, for a folder without config or weights, a file whose hash is not the card's, weights that
            do not fit the config, an unknown architecture, or an id that cannot be fetched.
    """
    folder = Path(path_or_id).expanduser()
    if not folder.is_dir():
        return _load_hugging_face(str(path_or_id), str(path_or_id), device, dtype)
    config = folders.read_config(folder)
    folders.check_weights(folder)
    folders.check_hashes(folder)
    if config.get("model_type") == folders.ATTENTION_ONLY:
        return _load_attention_only(folder, config, device, dtype)
    return _load_hugging_face(folder.name, str(folder), device, dtype)


def set_weights(model: Model, state: dict[str, Tensor]) -> None:
    """Put other weights of the same architecture into a model, for example those of an earlier checkpoint.

    Raises:
        ModelError: if names or shapes differ.
    """
    reference = next(iter(model.bridge.parameters()))
    state = {name: tensor.to(device=reference.device, dtype=reference.dtype) for name, tensor in state.items()}
    try:
        model.bridge.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(f"{model.name}: weights do not fit ({' '.join(str(error).split())[:200]})") from error


def _load_attention_only(folder: Path, config: dict[str, Any], device: str, dtype: torch.dtype) -> Model:
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    from tokenizers import Tokenizer as FastTokenizer
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge import TransformerBridge

    shape_names = ("n_layers", "d_model", "n_heads", "d_head", "d_vocab", "n_ctx")
    try:
        shape = {name: int(config[name]) for name in shape_names}
    except (KeyError, TypeError, ValueError) as error:
        expected = ", ".join(shape_names)
        raise ModelError(f"{folder / 'config.json'}: expected the integers {expected} ({error!r})") from error
    bridge = TransformerBridge.boot_native(
        TransformerBridgeConfig(
            **shape,
            attn_only=True,
            act_fn="relu",
            normalization_type="LN",
            init_weights=False,
            device=device,
            dtype=dtype,
        )
    )
    if next(bridge.parameters()).dtype != dtype:
        bridge.to(dtype)
    tokenizer_file = folder / "tokenizer.json"
    tokenizer = _BytePairs(FastTokenizer.from_file(str(tokenizer_file))) if tokenizer_file.exists() else None
    model = Model(folder.name, bridge.eval(), tokenizer, bos=0)
    try:
        set_weights(model, load_file(folder / "model.safetensors"))
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{folder / 'model.safetensors'}: cannot be read ({error}); restore the file") from error
    return model


def _load_hugging_face(name: str, path_or_id: str, device: str, dtype: torch.dtype) -> Model:
    from transformer_lens.model_bridge.sources import build_bridge_from_module
    from transformers import AutoModelForCausalLM, AutoTokenizer

    local = Path(path_or_id).is_dir()
    identifier, _, revision = (path_or_id, "", "") if local else path_or_id.partition("@")
    options = {
        "revision": revision or "main",
        "trust_remote_code": False,
        "local_files_only": local or not _hub_answers(),
    }
    try:
        # TransformerLens reads attention patterns, which only the eager implementation computes.
        network = AutoModelForCausalLM.from_pretrained(
            identifier, dtype=dtype, attn_implementation="eager", use_safetensors=True, **options
        )
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{path_or_id}: expected a model folder, or the id of a hub model that is cached or can be fetched "
            f"({' '.join(str(error).split())[:160]})"
        ) from error
    try:
        bridge = build_bridge_from_module(network.to(device), type(network).__name__, hf_config=network.config)
    except (ValueError, KeyError, NotImplementedError) as error:
        kind = type(network).__name__
        raise ModelError(f"{path_or_id}: TransformerLens has no bridge for {kind} ({error})") from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(identifier, **options)
    except (OSError, ValueError, KeyError):
        tokenizer = None
    if not tokenizer or not tokenizer.vocab_size:  # a folder without tokenizer files gives an empty one
        return Model(name, bridge.eval(), None, network.config.bos_token_id)
    return Model(name, bridge.eval(), _Words(tokenizer), tokenizer.bos_token_id)


def _hub_answers(timeout: float = 5.0) -> bool:
    """Whether the hub can be reached: without this question a wrong id costs half a minute of retries."""
    from huggingface_hub import constants

    if urllib.request.getproxies():
        return True
    address = urllib.parse.urlsplit(constants.ENDPOINT)
    try:
        with socket.create_connection((address.hostname or "", address.port or 443), timeout):
            return True
    except OSError:
        return False


class _Words:
    """A transformers tokenizer with the two methods that this package promises: no special tokens are added."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False, verbose=False))

    def decode(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens))


class _BytePairs:
    """A `tokenizers` tokenizer with the two methods that this package promises."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text).ids)

    def decode(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=False))
