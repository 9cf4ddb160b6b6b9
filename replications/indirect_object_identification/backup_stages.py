"""Backup heads: what is left of the answer without the name movers, and which heads step in.

The movers are replaced at END by their mean over p_ABC, all other heads read and write as they then do (Wang et al.
2022, section 3.4). The direct effect of a head is what the logit difference loses if the final stream x alone is
without it, in the whole model and in the one without movers:

    direct(h) = F(x) - F(x - (out_h - mean out_h))        F(x) = (Norm(x) W_U)[IO] - (Norm(x) W_U)[S],  x at END

with out_h what h adds to the stream and the mean over p_ABC: path patching to the logits with MLPs held, and the mean
in place of a p_ABC prompt. Exact, the final norm is computed anew. A head takes over where its direct effect grows.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from replications.indirect_object_identification.ablation import Ablation
from replications.indirect_object_identification.circuit import MOVERS, Circuit, Nodes, published, whole, without
from replications.indirect_object_identification.grouping import Group, by_prompt, groups_of
from replications.indirect_object_identification.measured_circuits import ablation, found_roles, in_facts, nodes_of
from replications.indirect_object_identification.setting import SCORES, Setting, array, settle
from torch import Tensor

from interventions import Site, captured
from interventions.hooks import Modules
from interventions.network import inference, unembed_columns
from reprise import Job, Result


def backup(job: Job) -> Result:
    """F and the direct effect of every head without and with the movers knocked out.

    `before` and `after` [prompt] are F, `direct.before` and `direct.after` [prompt, layer, head]. The movers are those
    of the published circuit, or those that path patching found.
    """
    setting = settle(job)
    movers = movers_of(job, setting)
    prompts = ablation(job, setting, setting.trials.validated, SCORES)
    model = whole(setting.n_layers, setting.n_heads)
    nodes = nodes_of(setting, movers)
    arrays = {}
    for done, (name, left) in enumerate({"before": model, "after": without(model, movers.heads, nodes)}.items()):
        job.progress(done, 2)
        differences, direct = direct_effects(prompts, left)
        arrays[name], arrays[f"direct.{name}"] = array(differences), array(direct)
    return Result(arrays, {**setting.facts(), "movers": [list(head) for head in movers.heads]})


def movers_of(job: Job, setting: Setting) -> Circuit:
    """The name movers, at END."""
    known = published(setting.model.network.config) if setting.tier == "paper" else None
    heads = known[0].roles[MOVERS] if known is not None else in_facts(found_roles(job).get(MOVERS, ()))
    return Circuit("movers", {MOVERS: heads}, {MOVERS: ("END",)})


def direct_effects(
    prompts: Ablation, nodes: Nodes
) -> tuple[Float[Tensor, " prompt"], Float[Tensor, "prompt layer head"]]:
    """F and every head's direct effect on it, where all outside of `nodes` is ablated."""
    modules = Modules(prompts.network)
    n_layers, n_heads = nodes.shape

    def run(group: Group) -> Tensor:
        sites = [Site("z", layer, position=-1) for layer in range(n_layers)]
        final = Site("resid_post", n_layers - 1, position=-1)
        of = group.of(prompts.prompts)
        device = next(prompts.network.parameters()).device
        with captured(prompts.network, [*sites, final], edits=prompts.edits(nodes, group)) as seen:
            prompts.network(of.tokens.to(device), use_cache=False, logits_to_keep=1)
        stream = seen[final][0][:, None]
        means = [prompts.mean(layer, group)[:, -1] for layer in range(n_layers)]
        changes = [_without_each(modules, layer, seen[site][0], means[layer]) for layer, site in enumerate(sites)]
        streams = torch.cat([stream, stream + torch.cat(changes, dim=1)], dim=1)
        columns = torch.stack([prompts.prompts.io, prompts.prompts.s], dim=1)[group.rows].to(device)
        correct, wrong = unembed_columns(modules, modules.final_norm(streams), columns).unbind(dim=-1)
        difference = correct - wrong
        return torch.cat([difference[:, :1], difference[:, :1] - difference[:, 1:]], dim=1)

    with inference(prompts.network):
        rows = by_prompt(groups_of(prompts.prompts), run)
    return rows[:, 0], rows[:, 1:].view(-1, n_layers, n_heads)


def _without_each(
    modules: Modules, layer: int, z: Float[Tensor, "batch head d_head"], mean: Float[Tensor, "batch head d_head"]
) -> Float[Tensor, "batch head d_model"]:
    """What changes in the stream if one head's z is its mean, for each head."""
    n_heads = z.shape[1]
    one = torch.eye(n_heads, dtype=torch.bool, device=z.device)[None, :, :, None]
    changed = torch.where(one, mean.to(z)[:, None], z[:, None])
    row = modules.architecture
    behind = row.attention_out != row.attention  # a norm on what attention adds
    out: Tensor = modules.output_projection(layer)(torch.cat([z[:, None], changed], dim=1).flatten(2))
    if behind:
        out = modules.layers[layer].get_submodule(row.attention_out)(out)
    return out[:, 1:] - out[:, :1]
