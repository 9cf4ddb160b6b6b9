"""A model without its weights: config, tokenizer, and the modules by shape alone (torch's meta device).

For a model whose forward passes somebody else computes: prompts are made here, and the module tree says what there is
to read and write. `filled` gives some of its modules weights that were brought here.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from interventions import folders
from interventions.errors import ModelError
from interventions.loading import Model, _hub_answers, _refuse_code, _shortened
from interventions.tokenizing import Words


def load_skeleton(path_or_id: str | Path) -> Model:
    """A model as `interventions.load` gives it, in float32 on the meta device; no weights are read or fetched.

    Raises:
        ModelError: one line, for a config that cannot be read, this project's attention-only format, code that would
            have to be run, or an id that cannot be fetched.
    """
    from transformers import AutoConfig, AutoTokenizer

    folder = Path(path_or_id).expanduser()
    local = folder.is_dir()
    name = folder.name if local else str(path_or_id)
    if local:
        config = folders.read_config(folder)
        folders.check_code(folder, config)
        if config.get("model_type") == folders.ATTENTION_ONLY:
            raise ModelError(f"{name}: a model of this project's own format, which no other program loads; use `load`")
    identifier, _, revision = (str(folder), "", "") if local else name.partition("@")
    options = {
        "revision": revision or "main",
        "trust_remote_code": False,
        "local_files_only": local or not _hub_answers(),
    }
    try:
        found = AutoConfig.from_pretrained(identifier, **options)
        network: Any = skeleton_of(found)
    except Exception as error:  # whatever the library stumbles over in a config
        _refuse_code(str(path_or_id), error)
        raise ModelError(
            f"{path_or_id}: expected a model folder, or the id of a hub model whose config is cached or can be fetched "
            f"({_shortened(error)})"
        ) from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(identifier, **options)
    except Exception as error:  # a folder may have no tokenizer, or half of one
        _refuse_code(str(path_or_id), error)
        tokenizer = None
    if not tokenizer or not tokenizer.vocab_size:
        return Model(name, network, None, found.bos_token_id)
    return Model(name, network, Words(tokenizer), tokenizer.bos_token_id)


def skeleton_of(config: Any) -> nn.Module:
    """The network of a transformers config, in float32 and evaluation mode, on the meta device."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        network: nn.Module = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return network.eval()


def filled(network: nn.Module, weights: Mapping[str, Mapping[str, Tensor]]) -> nn.Module:
    """A network whose modules at some paths have weights, by their names in the module; the others stay without.

    Rows beyond those of the network (a vocabulary that was padded) are left out.

    Raises:
        ValueError: weights that are missing, or are of another shape: those of another model, or a part of them.
    """
    found = copy.deepcopy(network)
    for path, given in weights.items():
        expected = dict(network.get_submodule(path).named_parameters())
        fitting = {}
        for name, parameter in expected.items():
            value = given[name][: len(parameter)] if name in given else None
            if value is None or value.shape != parameter.shape:
                what = "nothing" if value is None else f"a tensor of shape {tuple(given[name].shape)}"
                raise ValueError(
                    f"{path}.{name}: expected a tensor of shape {tuple(parameter.shape)}, received {what}; are these "
                    "the weights of the same model, whole?"
                )
            fitting[name] = nn.Parameter(value.to(parameter.dtype), requires_grad=False)
        parent, _, child = path.rpartition(".")
        module = copy.deepcopy(network.get_submodule(path))
        for name, parameter in fitting.items():
            inner, _, last = name.rpartition(".")
            setattr(module.get_submodule(inner), last, parameter)
        setattr(found.get_submodule(parent), child, module)
    return found
