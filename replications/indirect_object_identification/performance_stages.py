"""How well the model does the task: what Wang et al. 2022 (section 2) report of GPT-2 small over 100,000 prompts.

    logit difference    logit(IO) - logit(S) at END
    correct             1 where IO is above S
    probability         p(IO) among all tokens
    first               1 where no token is above IO

of every prompt of p_IOI, on the part that scores are on and on the part that the model was not trained on; and the
logit difference on sentences of p_ABC, with the IO and S of the sentence that each was made from: what is left where
the prompt names neither.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from replications.indirect_object_identification.grouping import by_prompt, difference, groups_of, last_logits
from replications.indirect_object_identification.positions import IOIPrompts
from replications.indirect_object_identification.setting import HELD_OUT, SCORES, Array, Setting, array, settle
from torch import Tensor, nn

from reprise import Job, Result

COLUMNS = ("logit_difference", "correct", "probability", "first")
PARTS = (SCORES, HELD_OUT)


def performance(job: Job) -> Result:
    """`PART.COLUMN` [prompt] for the parts and columns above, `PART.template` and `PART.order` (an index into ORDERS).

    `abc.logit_difference` is of the first prompts of the part "scores", as many as patching has.
    """
    setting = settle(job)
    arrays: dict[str, Array] = {}
    total, done = len(PARTS) * setting.trials.performance, 0
    for part in PARTS:
        sentences = setting.sentences(setting.trials.performance, part)
        found = []
        for first in range(0, len(sentences), setting.trials.batch):
            some = setting.tokenized(sentences[first : first + setting.trials.batch])
            found.append(array(measured(setting.model.network, some)))
            done += len(some.sentences)
            job.progress(done, total)
        columns = np.concatenate(found)
        arrays |= {f"{part}.{name}": columns[:, at] for at, name in enumerate(COLUMNS)}
        arrays[f"{part}.template"] = np.array([sentence.template for sentence in sentences], dtype=np.float32)
        arrays[f"{part}.order"] = np.array([ORDERS.index(each.order) for each in sentences], dtype=np.float32)
    arrays["abc.logit_difference"] = array(unrelated(setting))
    return Result(arrays, {**setting.facts(), "parts": list(PARTS), "columns": list(COLUMNS), "orders": list(ORDERS)})


ORDERS = ("ABBA", "BABA")


def measured(network: nn.Module, prompts: IOIPrompts) -> Float[Tensor, "prompt column"]:
    """`COLUMNS` of every prompt."""
    return by_prompt(
        groups_of(prompts),
        lambda group: columns_of(
            last_logits(network, group.of(prompts)), prompts.io[group.rows], prompts.s[group.rows]
        ),
    )


def columns_of(logits: Float[Tensor, "row d_vocab"], io: Tensor, s: Tensor) -> Float[Tensor, "row column"]:
    """`COLUMNS` from the logits at END, and the tokens [row] of IO and S."""
    of_io, of_s = (logits.gather(1, tokens.to(logits.device)[:, None])[:, 0] for tokens in (io, s))
    probability = (of_io - logits.logsumexp(dim=1)).exp()
    first = (logits > of_io[:, None]).sum(dim=1) == 0
    return torch.stack([of_io - of_s, (of_io > of_s).float(), probability, first.float()], dim=1)


def unrelated(setting: Setting) -> Float[Tensor, " prompt"]:
    """logit(IO) - logit(S) on the p_ABC sentence of each prompt."""
    clean, abc = setting.pair(setting.trials.search, SCORES)
    return by_prompt(
        groups_of(clean),
        lambda group: difference(last_logits(setting.model.network, group.of(abc)), clean, group.rows),
    )
