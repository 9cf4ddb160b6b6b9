"""Loading a model for analysis: a folder or a hub id becomes a network, its tokenizer, and views of the same weights.

Nothing is folded or centred: logits are those of the model as it was trained. A local folder needs no network.
"""

from __future__ import annotations

import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from interventions import folders
from interventions.errors import ModelError
from interventions.tokenizing import BytePairs, Tokenizer, Words

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedModel

    from interventions.views import BridgeView


@dataclass(frozen=True)
class Model:
    """A loaded model; `tokenizer` is None where there is none, `bos` where no token starts a sequence.

    `network` is a Hugging Face model (or `attention_only.AttentionOnlyNetwork`). `bridge` and `nnsight` are made when
    they are first asked for, over the same tensors (see `views`).
    """

    name: str
    network: PreTrainedModel
    tokenizer: Tokenizer | None
    bos: int | None

    @property
    def bridge(self) -> TransformerBridge:
        """The network as a TransformerLens bridge.

        Raises:
            ModelError: TransformerLens has none for this architecture.
        """
        self._bridge_view.refresh()
        return self._bridge_view.bridge

    @cached_property
    def nnsight(self) -> Any:
        """The network as an nnsight model; needs the optional nnsight.

        Raises:
            ModelError: nnsight is not installed.
        """
        from interventions.views import nnsight_view

        raw = self.tokenizer.transformers if isinstance(self.tokenizer, Words) else None
        return nnsight_view(self.network, raw, self.name)

    @cached_property
    def n_ctx(self) -> int:
        """The longest sequence that the model was made for, in tokens."""
        return self._size("max_position_embeddings")

    @property
    def d_vocab(self) -> int:
        return self._size("vocab_size")

    @cached_property
    def _bridge_view(self) -> BridgeView:
        from interventions.views import bridge_view

        return bridge_view(self.network, self.name)

    def _size(self, name: str) -> int:
        config = self.network.config
        size = getattr(config.get_text_config(), name, None)
        if size is None:
            raise ModelError(f"{self.name}: the config of {config.model_type} has no {name}; pass a length of your own")
        return int(size)


def load(path_or_id: str | Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Model:
    """Load a model folder (this project's own, hashes checked, or Hugging Face's), or a hub model by its id.

    For an id, `owner/model@revision` chooses a revision. Weights are read from safetensors alone, and code that comes
    with a model is never run: where a model needs its own, load it with transformers and `trust_remote_code=True`, and
    make a `Model` of it.

    Raises:
        ModelError: one line, for a folder without config or weights, a file whose hash is not the card's, weights that
            do not fit the config, code that would have to be run, an id that cannot be fetched, or a device that is
            not here.
    """
    _check_device(device)
    folder = Path(path_or_id).expanduser()
    if not folder.is_dir():
        return _load_hugging_face(str(path_or_id), str(path_or_id), device, dtype)
    config = folders.read_config(folder)
    folders.check_code(folder, config)
    folders.check_weights(folder)
    folders.check_hashes(folder)
    if config.get("model_type") == folders.ATTENTION_ONLY:
        return _load_attention_only(folder, config, device, dtype)
    return _load_hugging_face(folder.name, str(folder), device, dtype)


def _check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ModelError(
            f"device {device!r}: torch cannot use it here ({_shortened(error)}); expected cpu, or a cuda[:N] or mps "
            "that this machine has"
        ) from error


def set_weights(model: Model, state: Mapping[str, Tensor]) -> None:
    """Put other weights of the same architecture into a model, for example those of an earlier checkpoint.

    They are written in place, so that all views have them. Names are those of the bridge's or of the network's
    state_dict (a tied weight once is enough); after an error the model is as it was.

    Raises:
        ModelError: if names or shapes differ.
    """
    from interventions.attention_only import from_bridge

    attention_only = model.network.config.model_type == folders.ATTENTION_ONLY
    state = from_bridge(state) if attention_only else state
    direct = attention_only or state.keys() <= model.network.state_dict().keys()
    expected: dict[str, Tensor] = (model.network if direct else model.bridge).state_dict()
    # Checked before anything is written: load_state_dict itself would leave the model half changed.
    given = {expected[name].data_ptr() for name in state.keys() & expected.keys()}
    missing = [name for name, tensor in expected.items() if name not in state and tensor.data_ptr() not in given]
    if unlike := missing or sorted(state.keys() - expected.keys()):
        what = "missing" if missing else "unexpected"
        raise ModelError(f"{model.name}: weights do not fit ({len(unlike)} {what} names, such as {unlike[0]})")
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape:
            raise ModelError(
                f"{model.name}: weights do not fit ({name}: expected shape {tuple(expected[name].shape)}, got shape "
                f"{tuple(tensor.shape)}); pass those of a model with the same config"
            )
    with torch.no_grad():
        for name, tensor in state.items():
            expected[name].copy_(tensor)
    if not direct:
        model._bridge_view.publish()


def _load_attention_only(folder: Path, config: dict[str, Any], device: str, dtype: torch.dtype) -> Model:
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    from tokenizers import Tokenizer as FastTokenizer

    from interventions.attention_only import AttentionOnlyConfig, AttentionOnlyNetwork, from_bridge

    names = ("n_layers", "d_model", "n_heads", "d_head", "d_vocab", "n_ctx")
    try:
        n_layers, d_model, n_heads, d_head, d_vocab, n_ctx = (int(config[name]) for name in names)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ModelError(f"{folder / 'config.json'}: expected the integers {', '.join(names)} ({error!r})") from error
    try:
        state = {name: tensor.to(dtype) for name, tensor in load_file(folder / "model.safetensors", device).items()}
    except (SafetensorError, OSError, LookupError, ValueError, RuntimeError, TypeError, AttributeError) as error:
        raise ModelError(f"{folder / 'model.safetensors'}: cannot be read ({error}); restore the file") from error
    # Before a network is made of it, which for a damaged number might never end.
    if not 0 <= n_layers <= len(state) or not all(
        0 < size < 2**31 for size in (d_model, n_heads, d_head, d_vocab, n_ctx)
    ):
        raise ModelError(
            f"{folder / 'config.json'}: its sizes do not fit the {len(state)} tensors of model.safetensors"
        )
    shape = AttentionOnlyConfig(
        num_hidden_layers=n_layers,
        hidden_size=d_model,
        num_attention_heads=n_heads,
        head_dim=d_head,
        vocab_size=d_vocab,
        max_position_embeddings=n_ctx,
    )
    with torch.device("meta"):
        network = AttentionOnlyNetwork._from_config(shape)
    try:
        network.load_state_dict(from_bridge(state), assign=True)
    except RuntimeError as error:
        raise ModelError(f"{folder.name}: weights do not fit ({' '.join(str(error).split())[:200]})") from error
    tokenizer_file = folder / "tokenizer.json"
    try:
        tokenizer = BytePairs(FastTokenizer.from_file(str(tokenizer_file))) if tokenizer_file.exists() else None
    except Exception as error:  # the library raises nothing more special
        raise ModelError(f"{tokenizer_file}: cannot be read ({_shortened(error)}); restore the file") from error
    return Model(folder.name, network.eval(), tokenizer, bos=0)


@contextmanager
def _passing_bars() -> Iterator[None]:
    """Inside, transformers' progress bars vanish when they are full, and are only shown in a terminal."""
    from transformers.utils import logging

    before = logging.set_tqdm_hook(lambda bar, args, named: bar(*args, **{**named, "leave": False, "disable": None}))
    try:
        yield
    finally:
        logging.set_tqdm_hook(before)


def _load_hugging_face(name: str, path_or_id: str, device: str, dtype: torch.dtype) -> Model:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    local = Path(path_or_id).is_dir()
    identifier, _, revision = (path_or_id, "", "") if local else path_or_id.partition("@")
    options = {
        "revision": revision or "main",
        "trust_remote_code": False,
        "local_files_only": local or not _hub_answers(),
    }
    try:
        with _passing_bars():
            network, loaded = AutoModelForCausalLM.from_pretrained(
                identifier, dtype=dtype, use_safetensors=True, output_loading_info=True, **options
            )
    except MemoryError:
        raise
    except Exception as error:  # whatever the library stumbles over in a config or in weights that do not fit it
        _refuse_code(path_or_id, error)
        if local:
            raise ModelError(
                f"{path_or_id}: cannot be loaded ({_shortened(error)}); restore its config.json and *.safetensors"
            ) from error
        raise ModelError(
            f"{path_or_id}: expected a model folder, or the id of a hub model that is cached or can be fetched "
            f"({_shortened(error)}); give a folder, or connect to the hub"
        ) from error
    if missing := sorted(loaded["missing_keys"]):  # which the library has filled with random numbers
        raise ModelError(
            f"{path_or_id}: {len(missing)} weights of its config are not in its files, such as {missing[0]}; restore "
            "the files"
        )
    network = network.to(device).eval()
    try:
        tokenizer = AutoTokenizer.from_pretrained(identifier, **options)
    except Exception as error:  # a folder may have no tokenizer, or half of one
        _refuse_code(path_or_id, error)
        tokenizer = None
    if not tokenizer or not tokenizer.vocab_size:  # a folder without tokenizer files gives an empty one
        return Model(name, network, None, network.config.bos_token_id)
    return Model(name, network, Words(tokenizer), tokenizer.bos_token_id)


def _refuse_code(path_or_id: str, error: Exception) -> None:
    """Raise ModelError if this is how transformers says that it would have to run code that comes with the model."""
    if "trust_remote_code" in str(error):
        raise ModelError(
            f"{path_or_id}: needs code of its own (auto_map in its config), which is never run here; read that code, "
            "load the network with transformers and trust_remote_code=True, and make interventions.Model(name, "
            "network, tokenizer, bos) of it"
        ) from error


def _shortened(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__


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
