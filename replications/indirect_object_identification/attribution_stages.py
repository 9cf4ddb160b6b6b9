"""Direct logit attribution at END, onto the direction of IO less that of S (Wang et al. 2022, section 3).

    logit(IO) - logit(S) = sum over components c of  c(END) . (W_U[IO] - W_U[S]) / s(x_L)  +  bias

with the final norm's gain in W_U and its divisor s at its real value: exact (`circuits.attribution`). Only the direct
path counts; a head that moves the difference through later ones has nothing here, which is what path patching is for.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from replications.indirect_object_identification.grouping import Group, by_prompt, groups_of
from replications.indirect_object_identification.positions import IOIPrompts
from replications.indirect_object_identification.setting import Setting, array, settle
from torch import Tensor

import circuits
from reprise import Job, Result


def attribution(job: Job) -> Result:
    """Logits of every prompt: `heads` [prompt, layer, head], `attention` and `mlps` [prompt, layer], `rest`, `total`.

    `attention` is the sum of a layer's heads, and layers without an MLP have 0 in `mlps`. `rest` is the embedding and
    what no component owns: output biases of attention, the final norm's bias and the unembedding's.
    """
    setting = settle(job)
    prompts = setting.clean(setting.trials.search)
    values, labels = attributed(setting, prompts, job)
    n_layers, n_heads = setting.n_layers, setting.n_heads
    place = {label: at for at, label in enumerate(labels)}
    heads = [place[f"L{layer}H{head}"] for layer in range(n_layers) for head in range(n_heads)]
    of_heads = values[:, heads].view(len(values), n_layers, n_heads)
    mlps = torch.zeros(len(values), n_layers)
    for layer in range(n_layers):
        if f"MLP{layer}" in place:
            mlps[:, layer] = values[:, place[f"MLP{layer}"]]
    arrays = {
        "heads": of_heads,
        "attention": of_heads.sum(dim=2),
        "mlps": mlps,
        "rest": values[:, place["embed"]] + values[:, -1],
        "total": values.sum(dim=1),
    }
    return Result({name: array(each) for name, each in arrays.items()}, setting.facts())


def attributed(
    setting: Setting, prompts: IOIPrompts, job: Job
) -> tuple[Float[Tensor, "prompt component_and_bias"], tuple[str, ...]]:
    """What each component adds at END, the bias last, and the components' labels.

    Raises:
        ValueError: the model's norms cannot be folded (see `circuits.read_weights`).
    """
    bridge = setting.model.bridge
    weights = circuits.read_weights(bridge)
    labels: list[str] = []

    def run(group: Group) -> Tensor:
        # Attribution is of next tokens: IO is put behind END, where it is read against S. Other columns are not used.
        io, s = (tokens[group.rows, None].cpu() for tokens in (prompts.io, prompts.s))
        tokens = torch.cat([group.of(prompts).tokens.cpu(), io], dim=1)
        against = tokens[:, 1:].clone()
        against[:, -1:] = s
        found = circuits.logit_attribution(
            bridge, tokens, against=against, weights=weights, batch_size=setting.trials.batch
        )
        labels[:] = found.labels
        return torch.cat([found.values[:, -1], found.bias[:, -1:]], dim=1)

    return by_prompt(groups_of(prompts), run, job.progress), tuple(labels)
