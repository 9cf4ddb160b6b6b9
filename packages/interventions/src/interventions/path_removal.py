"""What heads read when an earlier head's output is taken out of one of their inputs, as edits of a run of one's own.

    x'_l = x_l + sum_{senders s before l} (attn_out(z'_s) - attn_out(z_s)),    q'_r = W_Q norm(x'_l)   (or k', v')

for every receiver r of layer l, with x and z of the clean run, and z' what an edit makes of z: 0, a mean, another
prompt's. Everything else, the receivers' other two inputs included, reads x. This is the path of `path_patch` with
`through_mlps=False` (Wang et al. 2022, arXiv 2211.00593, section 3.1), for several senders together and for any
measurement: the values are put at their sites by `captured`, `edited` or `next_token_log_probs`. Exact.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from interventions.contexts import Site
from interventions.edits import Edit, Zero
from interventions.frozen import run_frozen
from interventions.hooks import Modules
from interventions.network import inference
from interventions.prompts import Prompts
from interventions.receivers import Head, HeadInputs, Into, checked
from interventions.sources import check_edit, prepare, settled
from interventions.sweeps import Cell


def path_edits(
    network: nn.Module, prompts: Prompts, senders: Sequence[Head], receivers: HeadInputs, edit: Edit | None = None
) -> dict[Site, Tensor]:
    """The receivers' q, k or v [batch, pos, d_head] when the senders' outputs reach them edited, by site.

    They are edits for runs on the same prompts. A receiver's site counts key-value heads for k and v.

    Args:
        edit: of the senders' z, at all positions; Zero by default.

    Raises:
        ValueError: before anything runs, a head does not exist, a part of a group as receiver of keys or values, a
            sender that is not before every receiver, an edit that does not fit the prompts.
    """
    modules = Modules(network)
    edit = Zero() if edit is None else edit
    into = Into.of(modules, receivers)
    chosen = {checked(modules, head, "sender") for head in senders}
    late = [head for head in sorted(chosen) if head[0] >= into.layers[0]]
    if not chosen or late:
        what = f"sender {late[0]}" if late else "no sender"
        raise ValueError(f"{what}: expected heads in layers before every receiver, below {into.layers[0]}")
    layers = sorted({layer for layer, _ in chosen})
    check_edit(modules, prompts, edit, "z", layers, range(-prompts.length, 0))
    everywhere = tuple(range(prompts.length))
    cells = [
        Cell(index, at, tuple(sorted(head for layer, head in chosen if layer == at)), everywhere)
        for index, at in enumerate(layers)
    ]
    found: dict[Site, Tensor] = {}
    with inference(network):
        settled_edit = settled(modules, edit, "z", layers)
        edited = prepare(modules, slice(0, len(prompts)), settled_edit, "z", layers)
        frozen = run_frozen(modules, prompts, 0, edited, through_mlps=False)
        change = torch.cat([frozen.change([cell], cell.layer) for cell in cells], dim=1).sum(dim=1, keepdim=True)
        assert into.projection is not None
        for layer, heads in into.heads.items():
            new = frozen.projected(layer, into.projection, frozen.clean[layer][:, None] + change)[:, 0]
            found |= {Site(into.projection, layer, head=head): new[:, :, head].clone() for head in heads}
    return found
