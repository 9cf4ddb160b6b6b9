"""What the tests of the figures share: results of every stage made up for a model of any shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from replications.indirect_object_identification import circuit, discovery
from replications.indirect_object_identification.circuit import GPT2_SMALL, NAIVE_GPT2_SMALL, Circuit, Head
from replications.indirect_object_identification.cut_stages import CUTS
from replications.indirect_object_identification.measured_circuits import facts_of
from replications.indirect_object_identification.path_stages import PUBLISHED
from replications.indirect_object_identification.signal_stages import SIGNALS, weights_of

from reprise import Result, Results

WORDS = ["IO", "S1", "S1+1", "S2", "END"]
Array = NDArray[np.floating]


class Made:
    """Stages of a model of some shape, with effects planted at a circuit's heads; `published` as at the paper tier."""

    def __init__(self, shape: tuple[int, int], of: Circuit, *, published: bool = False, prompts: int = 12) -> None:
        self.shape, self.circuit, self.published, self.n = shape, of, published, prompts
        self.random = np.random.default_rng(0)
        self.size = shape[0] * shape[1]
        self.facts = {"n_layers": shape[0], "n_heads": shape[1]}

    def noise(self, *axes: int, mean: float = 0.0, spread: float = 1.0) -> Array:
        return self.random.normal(mean, spread, (self.n, *axes)).astype(np.float32)

    def effects(self, by_role: Mapping[str, float]) -> Array:
        """Small noise, and at the heads of roles what is asked for."""
        found = self.noise(*self.shape, spread=0.02)
        for role, value in by_role.items():
            for at, (layer, head) in enumerate(self.circuit.roles.get(role, ())):
                found[:, layer, head] += value / (1 + 0.3 * at)
        return found

    def heads(self, role: str) -> list[list[int]]:
        return [list(head) for head in self.circuit.roles.get(role, ())]

    def roles(self, *names: str) -> dict[str, list[list[int]]]:
        return {name: self.heads(name) for name in names}

    def results(self) -> Results:
        stages = {**self.task(), **self.search(), **self.paths(), **self.of_heads(), **self.found(), **self.judged()}
        return Results("paper" if self.published else "tiny", 0, {name: {"m": of} for name, of in stages.items()})

    def task(self) -> dict[str, Result]:
        arrays: dict[str, Array] = {"abc.logit_difference": self.noise()}
        for at, part in enumerate(("scores", "held_out")):
            n = 15 * self.n
            arrays[f"{part}.template"] = np.arange(n, dtype=np.float32) % 15 + (0 if self.published else 15 * at)
            arrays[f"{part}.order"] = np.arange(n, dtype=np.float32) // 15 % 2
            difference = self.random.normal(3.5, 1.5, n).astype(np.float32)
            arrays[f"{part}.logit_difference"] = difference
            arrays[f"{part}.correct"] = (difference > 0).astype(np.float32)
            arrays[f"{part}.probability"] = 1 / (1 + np.exp(-difference))
            arrays[f"{part}.first"] = (difference > 1).astype(np.float32)
        facts = {**self.facts, "parts": ["scores", "held_out"], "orders": ["ABBA", "BABA"]}
        kinds = {"plain": 3.5, "io_again": 0.8, "s_again": 4.0}
        text = "Then, Mary and John went to the store. {} had a good day. John gave a drink to"
        examples = {"plain": text.replace(" {} had a good day.", ""), "io_again": text.format("Mary")}
        examples["s_again"] = text.format("John")
        return {
            "performance": Result(arrays, facts),
            "cut": Result({name: self.noise(mean=3.0 / (1 + at)) for at, name in enumerate(("plain", *CUTS))}),
            "adversarial": Result(
                {kind: self.noise(mean=mean) for kind, mean in kinds.items()}, {"examples": examples}
            ),
        }

    def search(self) -> dict[str, Result]:
        clean = self.noise(mean=3.5)
        effects = self.effects({circuit.MOVERS: -1.4, circuit.NEGATIVE: 1.0, circuit.INHIBITION: -0.8})
        patched = {"clean": clean, "effects": effects}
        written = self.effects({circuit.MOVERS: 1.4, circuit.NEGATIVE: -1.0, circuit.BACKUP: 0.2})
        layers = self.noise(self.shape[0], spread=0.2)
        direct = {"heads": written, "attention": written.sum(axis=2), "mlps": layers, "rest": self.noise()}
        stream = -np.abs(self.noise(5, self.shape[0]))
        return {
            "attribution": Result({**direct, "total": clean}, self.facts),
            "stream": Result({"clean": clean, "effects": stream}, {**self.facts, "words": WORDS}),
            "heads": Result(
                {**patched, "everywhere.clean": clean, "everywhere.effects": effects + self.noise(*self.shape) / 9}
            ),
            "patterns": Result(patched, self.facts),
        }

    def paths(self) -> dict[str, Result]:
        c = circuit
        to_logits = self.effects({c.MOVERS: -1.3, c.NEGATIVE: 0.9, c.BACKUP: -0.1})
        found = {
            "paths_to_logits": Result(
                {"clean": self.noise(mean=3.5), "effects": to_logits},
                {**self.facts, "word": "END", "roles": self.roles(c.MOVERS, c.NEGATIVE), "why_not": None},
            )
        }
        steps: tuple[tuple[str, tuple[str, ...], str, str, tuple[str, ...]], ...] = (
            ("paths_to_queries", ("effects",), c.MOVERS, "END", (c.INHIBITION,)),
            ("paths_to_inhibition", ("keys.effects", "values.effects"), c.INHIBITION, "S2", (c.INDUCTION, c.DUPLICATE)),
            ("paths_to_induction", ("effects",), c.INDUCTION, "S1+1", (c.PREVIOUS,)),
        )
        for stage, names, receivers, word, sought in steps:
            arrays: dict[str, Array] = {}
            clean = self.noise(mean=3.5)
            facts: dict[str, Any] = dict(self.facts)
            for prefix in ("", PUBLISHED) if self.published else ("",):
                behind = [head for head in self.heads(receivers) if head[0] > 0]
                if behind:
                    arrays[f"{prefix}clean"] = clean
                    arrays |= {f"{prefix}{name}": self.effects(dict.fromkeys(sought, -0.4)) for name in names}
                roles = self.roles(*sought) if behind else {role: [] for role in sought}
                why_not = None if behind else f"0 {receivers} heads, none behind the first layer: no head comes before"
                facts |= {f"{prefix}receivers": behind, f"{prefix}word": word}
                facts |= {f"{prefix}roles": roles, f"{prefix}why_not": why_not}
            found[stage] = Result(arrays, facts)
        return found

    def of_heads(self) -> dict[str, Result]:
        attention = self.random.dirichlet(np.full(8, 0.4), (self.n, *self.shape, 5))[..., :5].astype(np.float32)
        projection = self.noise(*self.shape, 2)
        for layer, head in self.circuit.roles.get(circuit.MOVERS, ()):
            projection[:, layer, head] += 20 * attention[:, layer, head, 4, :2]
        uniform = np.full((self.n, 5), 0.1, dtype=np.float32)
        named = self.random.random((self.n, 3, *self.shape))
        inhibition = self.heads(circuit.INHIBITION)
        arrays: dict[str, Array] = {}
        for prefix in (("", PUBLISHED) if self.published else ("",)) if inhibition else ():
            design = np.array(list(SIGNALS), dtype=float)
            difference = (design @ [2.3, 1.0] + self.noise(len(SIGNALS))).astype(np.float32)
            arrays |= {f"{prefix}logit_difference": difference, f"{prefix}weights": weights_of(difference)}
        facts = {f"{prefix}heads": inhibition for prefix in ("", PUBLISHED)}
        scores = {
            name: np.abs(self.noise(*self.shape) / 4) for name in ("previous_token", "duplicate_token", "induction")
        }
        return {
            "attention": Result(
                {"attention": attention, "projection": projection, "uniform": uniform},
                {**self.facts, "words": WORDS, "names": ["IO", "S"]},
            ),
            "copying": Result({"top": (named > 0.6) * 1.0, "bottom": (named < 0.1) * 1.0}, {**self.facts, "k": 5}),
            "signals": Result(arrays, {**self.facts, **facts, "signals": [list(pair) for pair in SIGNALS]}),
            "early": Result(scores, {**self.facts, "length": 25}),
        }

    def found(self) -> dict[str, Result]:
        every: list[Head] = [divmod(int(at), self.shape[1]) for at in self.random.permutation(self.size)]
        mine = list(self.circuit.heads)
        order = [head for head in every if head not in mine] + mine
        start = min(self.size, 64)
        sizes = discovery.sizes_to_measure(self.size)
        curves: dict[str, Array] = {}
        for name in ("elimination", "grown", "attribution", "paths", "random"):
            few = [size for size in sizes if name != "grown" or size <= 8]
            kept = [min(1.0, size / (len(mine) if name != "random" else self.size)) for size in few]
            curves[f"curve.{name}"] = 3.5 * np.array(kept) + self.noise(len(few))
        one = {"precision": 0.6, "recall": 0.5}
        orders = dict.fromkeys(("elimination", "grown", "attribution", "paths", "random"), one)
        known = {"name": "published", "heads": listed(mine), "circuit": one, "orders": orders, "by_chance": 0.2}
        backward = {"order": listed(order[self.size - start :]), "sizes": list(range(start, 0, -1))}
        arrays = {**curves, "model": self.noise(mean=3.5), "random": self.noise(20)}
        facts = {**self.facts, "circuit": listed(mine), "sizes": sizes, "published": known if self.published else None}
        paths = np.abs(self.noise(*self.shape))[:5]
        return {
            "ranking": Result(
                {"attribution": self.effects(dict.fromkeys(circuit.ROLES, -0.5)), "paths": paths},
                {**self.facts, "orders": {"better": listed(order[::-1])}},
            ),
            "elimination": Result({}, {**self.facts, "floor": 0.9, "circuit": listed(mine), "backward": backward}),
            "discovery": Result(arrays, facts),
        }

    def judged(self) -> dict[str, Result]:
        naive = NAIVE_GPT2_SMALL if self.published else self.circuit.only(self.circuit.heads[::2])
        means = {"model": 3.5, "circuit": 3.2, "naive": 1.0, "everywhere": 3.1, "discovered": 3.3, "complement": 0.4}
        arrays = {name: self.noise(mean=mean) for name, mean in {**means, "nothing": 0.0}.items()}
        which = {"circuit": facts_of(self.circuit), "naive": facts_of(naive), "is_published": self.published}
        subsets: dict[str, Any] = {}
        pairs: dict[str, Array] = {}
        for name, of in {"circuit": self.circuit, "naive": naive}.items():
            kinds = ["nothing", *of.roles, *["random"] * 20, *["greedy"] * 3]
            lost = self.random.uniform(0, 3, len(kinds))
            subsets[name] = [[kind, []] for kind in kinds]
            pairs |= {name: self.noise(len(kinds)) - lost + 3.2, f"{name}.model": self.noise(len(kinds)) - lost + 3.4}
        heads = self.circuit.heads
        without = self.noise(len(heads), mean=3.0)
        direct = self.effects({circuit.MOVERS: 1.4, circuit.NEGATIVE: -1.0})
        grown = {"direct.before": direct, "direct.after": direct + self.effects({circuit.BACKUP: 0.4})}
        roles = [list(self.circuit.roles_of(head)) for head in heads]
        return {
            "faithfulness": Result({**arrays, "random": self.noise(20)}, {**self.facts, **which}),
            "completeness": Result(pairs, {**self.facts, "subsets": subsets}),
            "minimality": Result(
                {"without_k": without, "without_both": without - 0.4 + self.noise(len(heads), spread=0.3)},
                {**self.facts, "heads": listed(heads), "roles": roles},
            ),
            "backup": Result(
                {**grown, "before": self.noise(mean=3.5), "after": self.noise(mean=3.0)},
                {**self.facts, "movers": self.heads(circuit.MOVERS)},
            ),
        }


def listed(heads: Sequence[Head]) -> list[list[int]]:
    return [list(head) for head in heads]


def published() -> Results:
    """As GPT-2 small's at the paper tier."""
    return Made((12, 12), GPT2_SMALL, published=True).results()


def spread(shape: tuple[int, int], each: int = 1) -> Circuit:
    """A circuit with some heads in every role, as far as there are heads."""
    heads: list[Head] = [divmod(at, shape[1]) for at in range(shape[0] * shape[1])][::-1]
    roles = {role: tuple(heads[at * each : (at + 1) * each]) for at, role in enumerate(circuit.ROLES)}
    return Circuit("made up", {role: of for role, of in roles.items() if of})


def unfound(shape: tuple[int, int]) -> Results:
    """A model in which path patching finds no head."""
    return Made(shape, Circuit("made up", {circuit.OTHER: ((0, 0),)})).results()
