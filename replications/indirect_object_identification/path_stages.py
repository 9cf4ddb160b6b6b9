"""Path patching backwards: from the logits to the heads that write them, to what these read, and so on.

    stage                from all heads at ...   into                                  found
    paths_to_logits      END                     the final stream                      movers, negative
    paths_to_queries     END                     queries of the movers                 inhibition
    paths_to_inhibition  the word r              keys, and values, of inhibition       duplicate, induction
    paths_to_induction   S1+1                    keys of the induction heads           previous

(Wang et al. 2022, section 3.) The sender's output is that of p_ABC, all other heads keep theirs, MLPs are computed
anew, and F = logit(IO) - logit(S) is measured when the receivers read the changed stream (`interventions.path_patch`).
As no other head moves, a sender that is changed at one word changes keys and values at that word alone.

Each step takes its receivers from the one before, by rules that know no head by name:

- found are the heads that lower F most: those whose mean effect is at least SHARE of the strongest one's, at most
  a twelfth of all heads (or LEAST). "negative" are those that raise F, by the same rule.
- r is the one of IO, S1, S1+1 and S2 that the inhibition heads attend to most from END.
- A head that is found at r is an induction head where it attends from r more to S1+1 than to S1, else a duplicate-token
  head; "other" where it attends to both of them less than to the average token.

For a model of GPT-2 small's shape that does the task (F > 0 on DOES of the prompts) the paper tier has a second
reading, `published.*`: the receivers are the published heads of each role, and r is S2. A step without receivers is not
run, and `why_not` among its facts says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from replications.indirect_object_identification import circuit
from replications.indirect_object_identification.circuit import Head
from replications.indirect_object_identification.grouping import (
    WORDS,
    Effects,
    Group,
    Progress,
    effects_by_prompt,
    groups_of,
)
from replications.indirect_object_identification.positions import IOIPrompts
from replications.indirect_object_identification.setting import Array, Setting, array, settle, stored

from interventions import FinalStream, HeadInputs, path_patch
from reprise import Job, Result

SHARE, LEAST, TWELFTH, DOES = 0.2, 3, 12, 0.9
PUBLISHED = "published."
Roles = Mapping[str, Sequence[Head]]
Projection = Literal["q", "k", "v"]
Into = Mapping[str, Projection]
"""What an array's name begins with, and whether it is the receivers' queries, keys or values that are patched."""
Sort = Callable[[Sequence[Head], str], Roles]
"""From the heads that are found, and the word at which they write, to their roles."""


@dataclass(frozen=True)
class Reading:
    """The heads that a step goes back from, and the word at which all others are patched."""

    heads: Sequence[Head]
    word: str

    @property
    def receivers(self) -> list[Head]:
        """Those that other heads come before."""
        return [head for head in self.heads if head[0] > 0]


def to_logits(job: Job) -> Result:
    """`effects` [prompt, layer, head] on F of what each head writes at END, read by the logits alone; `clean` is F."""
    setting = settle(job)
    found = paths(setting, *setting.pair(setting.trials.paths), FinalStream(), "END", job.progress)
    effects = array(found.effects)
    roles = {circuit.MOVERS: strongest([-effects]), circuit.NEGATIVE: strongest([effects])}
    arrays = {"clean": array(found.clean), "effects": effects}
    return Result(arrays, {**setting.facts(), "word": "END", "roles": listed(roles), "why_not": None})


def to_queries(job: Job) -> Result:
    """`effects` [prompt, layer, head] by way of the movers' queries at END."""
    setting = settle(job)
    own = Reading(heads_in(stored(job, "paths_to_logits"), circuit.MOVERS), "END")
    of_paper = Reading(published_heads(job, setting, circuit.MOVERS), "END")
    return _step(job, setting, circuit.MOVERS, own, of_paper, {"": "q"}, partial(_all_in, circuit.INHIBITION))


def to_inhibition(job: Job) -> Result:
    """`keys.effects` and `values.effects` [prompt, layer, head], by way of the inhibition heads' keys, values at r."""
    setting, attention = settle(job), stored(job, "attention")
    inhibition = heads_in(stored(job, "paths_to_queries"), circuit.INHIBITION)
    own = Reading(inhibition, read_from(attention, inhibition))
    of_paper = Reading(published_heads(job, setting, circuit.INHIBITION), "S2")
    into: Into = {"keys.": "k", "values.": "v"}
    return _step(job, setting, circuit.INHIBITION, own, of_paper, into, partial(early_roles, attention))


def to_induction(job: Job) -> Result:
    """`effects` [prompt, layer, head] by way of the induction heads' keys at S1+1."""
    setting = settle(job)
    own = Reading(heads_in(stored(job, "paths_to_inhibition"), circuit.INDUCTION), "S1+1")
    of_paper = Reading(published_heads(job, setting, circuit.INDUCTION), "S1+1")
    return _step(job, setting, circuit.INDUCTION, own, of_paper, {"": "k"}, partial(_all_in, circuit.PREVIOUS))


def roles_found(by_stage: Mapping[str, Result]) -> dict[str, list[list[int]]]:
    """Heads by role of all steps together, from their results by stage; roles without heads are left out."""
    steps = ("paths_to_logits", "paths_to_queries", "paths_to_inhibition", "paths_to_induction")
    found = {role: heads for step in steps for role, heads in by_stage[step].facts["roles"].items()}
    return {role: heads for role, heads in found.items() if heads}


def paths(
    setting: Setting,
    clean: IOIPrompts,
    abc: IOIPrompts,
    receivers: FinalStream | HeadInputs,
    word: str,
    progress: Progress = lambda done, total: None,
) -> Effects:
    """Effects [prompt, layer, head] of every head that is before a receiver, patched at `word` alone; else 0."""

    def run(group: Group) -> Effects:
        found = path_patch(
            setting.model.network,
            group.of(clean),
            group.of(abc),
            group.metric(clean),
            receivers=receivers,
            positions=(group.at.get(word, -1),),
            batch_size=setting.trials.batch,
            recordings=setting.recordings,
        )
        return Effects(found.clean, found.effects)

    return effects_by_prompt(groups_of(clean, () if word == "END" else (word,)), run, progress)


def strongest(ways: Sequence[Array]) -> list[Head]:
    """The heads of largest mean effect by the rule above, the largest first.

    Args:
        ways: effects [prompt, layer, head] that are positive where they count; a head has the largest of its means.
    """
    mean = np.max([effects.mean(axis=0) for effects in ways], axis=0)
    n_heads, most = mean.shape[1], max(LEAST, mean.size // TWELFTH)
    order = np.argsort(-mean, axis=None, kind="stable")[:most].tolist()
    return [divmod(at, n_heads) for at in order if mean.flat[at] > 0 and mean.flat[at] >= SHARE * mean.max()]


def read_from(attention: Result, heads: Sequence[Head]) -> str:
    """The word among IO, S1, S1+1 and S2 that the heads attend to most from END, all heads together; S2 of no head."""
    end = WORDS.index("END")
    mean = attention["attention"].mean(axis=0)[:, :, end, :end]
    return WORDS[int(np.argmax(sum(mean[head] for head in heads)))] if heads else "S2"


def early_roles(attention: Result, heads: Sequence[Head], word: str) -> dict[str, list[Head]]:
    """Induction, duplicate-token and other heads, by what they attend to from `word`."""
    query, uniform = WORDS.index(word), attention["uniform"].mean(axis=0)
    mean = attention["attention"].mean(axis=0)
    roles: dict[str, list[Head]] = {circuit.INDUCTION: [], circuit.DUPLICATE: [], circuit.OTHER: []}
    for layer, head in heads:
        first, behind = (float(mean[layer, head, query, WORDS.index(key)]) for key in ("S1", "S1+1"))
        role = circuit.INDUCTION if behind > first else circuit.DUPLICATE
        roles[role if max(first, behind) >= uniform[query] else circuit.OTHER].append((layer, head))
    return roles


def published_heads(job: Job, setting: Setting, role: str) -> list[Head]:
    """The paper's heads where they can be asked about: at the paper tier, of a model of that shape that does it."""
    does = float((stored(job, "paths_to_logits")["clean"] > 0).mean()) >= DOES
    return list(setting.published.roles[role]) if setting.published is not None and does else []


def heads_in(result: Result, role: str) -> list[Head]:
    """The heads that a step found in a role."""
    return [(int(layer), int(head)) for layer, head in result.facts["roles"].get(role, ())]


def listed(roles: Roles) -> dict[str, list[list[int]]]:
    return {role: [list(head) for head in heads] for role, heads in roles.items()}


def whole_groups(heads: Sequence[Head], group: int) -> list[Head]:
    """The heads with all others of their groups, `group` heads each, which share keys and values."""
    members = {(layer, at) for layer, head in heads for at in range(head // group * group, (head // group + 1) * group)}
    return sorted(members)


def _step(job: Job, setting: Setting, role: str, own: Reading, of_paper: Reading, into: Into, sort: Sort) -> Result:
    """One step from receivers of a role; `of_paper` is the second reading, without heads where there is none."""
    readings = {"": own, **({PUBLISHED: of_paper} if of_paper.heads else {})}
    runs = sum(len(into) for reading in readings.values() if reading.receivers)
    arrays: dict[str, Array] = {}
    facts: dict[str, object] = setting.facts()
    done = 0
    for prefix, reading in readings.items():
        at_end = reading.word == "END"
        clean, abc = setting.pair(setting.trials.paths if at_end else setting.trials.inner_paths)
        effects: list[Array] = []
        for name, projection in into.items() if reading.receivers else ():
            inputs = HeadInputs(_receiving(setting, reading.receivers, projection), projection)
            found = paths(setting, clean, abc, inputs, reading.word, partial(_report, job, done, runs))
            effects.append(array(found.effects))
            arrays |= {f"{prefix}clean": array(found.clean), f"{prefix}{name}effects": effects[-1]}
            done += 1
        strong = strongest([-each for each in effects]) if effects else []
        why_not = f"{len(reading.heads)} {role} heads, none behind the first layer: no head comes before them"
        facts |= {
            f"{prefix}receivers": [list(head) for head in reading.receivers],
            f"{prefix}word": reading.word,
            f"{prefix}roles": listed(sort(strong, reading.word)),
            f"{prefix}why_not": None if reading.receivers else why_not,
        }
    return Result(arrays, facts)


def _report(job: Job, run: int, runs: int, done: int, total: int) -> None:
    job.progress(run * total + done, runs * total)


def _all_in(role: str, heads: Sequence[Head], word: str) -> Roles:
    return {role: heads}


def _receiving(setting: Setting, heads: Sequence[Head], projection: Projection) -> list[Head]:
    """The receivers; of keys and values with all heads that share them."""
    n_kv_heads = getattr(setting.model.network.config, "num_key_value_heads", None) or setting.n_heads
    return list(heads) if projection == "q" else whole_groups(heads, setting.n_heads // n_kv_heads)
