"""Adversarial prompts: how often S comes above IO where a remark names IO again (Wang et al. 2022, section 4.4).

    "John and Mary went to the store. Mary had a good day. John gave a bottle of milk to"

The same sentences without the remark, and with the same remark about S, stand beside it (`remarks`).
"""

from __future__ import annotations

from replications.indirect_object_identification.drawing_prompts import Sentence
from replications.indirect_object_identification.grouping import by_prompt, difference, groups_of, last_logits
from replications.indirect_object_identification.setting import Setting, array, settle
from torch import Tensor

from interventions.network import inference
from reprise import Job, Result

KINDS = ("plain", "io_again", "s_again")


def adversarial(job: Job) -> Result:
    """logit(IO) - logit(S) of every sentence, [prompt], as `plain`, `io_again` and `s_again`; row by row the same one.

    The facts' `examples` are the first sentence of each kind.
    """
    setting = settle(job)
    drawn = setting.material.adversarial(setting.trials.adversarial, setting.seed)
    kinds = {name: getattr(drawn, name) for name in KINDS}
    arrays = {}
    for done, (name, sentences) in enumerate(kinds.items()):
        job.progress(done, len(kinds))
        arrays[name] = array(differences(setting, sentences))
    return Result(arrays, {**setting.facts(), "examples": {name: of[0].text for name, of in kinds.items()}})


def differences(setting: Setting, sentences: tuple[Sentence, ...]) -> Tensor:
    """logit(IO) - logit(S) of every sentence."""
    prompts, network = setting.tokenized(sentences), setting.model.network
    with inference(network):
        return by_prompt(
            groups_of(prompts),
            lambda group: difference(last_logits(network, group.of(prompts)), prompts, group.rows),
        )
