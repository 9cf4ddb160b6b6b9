"""The claims of Wang et al. 2022: what each measures, on results made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from replications.indirect_object_identification import claims, measures
from replications.indirect_object_identification.circuit import GPT2_SMALL
from replications.indirect_object_identification.grouping import WORDS
from replications.indirect_object_identification.measured_circuits import PATHS

from reprise import Result, Results
from reprise.claims import check

from .ioi_claim_runs import PAPER, estimate, heads, measured, results, steps

LOGITS, QUERIES, INHIBITION, INDUCTION = PATHS
READ = {  # in the paper itself
    "logit-difference": 3.56,
    "io-above-s": 0.993,
    "p-io": 0.49,
    "circuit-size": 26,
    "faithfulness": 0.87,
    "backup-cost": 0.05,
    "largest-incompleteness": 3.09,
    "adversarial": 0.234,
}


def column(*values: float) -> Any:
    return np.array(values, dtype=np.float32)


def test_every_claim_has_a_measure_and_says_how_its_number_is_known() -> None:
    for tier in ("tiny", "paper"):
        check(PAPER, claims.CLAIMS, tier)
    read = {claim.id: claim.paper_value for claim in PAPER.claims if claim.provenance == "read"}
    assert read == READ
    second_hand = {claim.id for claim in PAPER.claims if claim.provenance == "second-hand"}
    assert second_hand == {"roles-recall", "roles-precision", "backup-published", "precision", "recall"}


def test_a_share_is_a_quotient_of_means_and_prompts_are_resampled_whole() -> None:
    of = results()
    quotient = measures.share(of, column(1, 0), column(1, 3))
    assert quotient is None  # 2 +- 1.4: nothing to be a share of
    whole = column(1, 3, 2, 2, 1, 3)
    found = measures.share(of, column(1, 0, 0, 0, 1, 0), whole)
    assert found is not None
    assert found.estimate == pytest.approx(2 / 12)  # a mean of quotients would be 1/3
    assert found.low < found.estimate < found.high
    together = measures.share(of, whole / 4, whole)
    assert together is not None
    assert together.low == pytest.approx(0.25)
    assert together.high == pytest.approx(0.25)
    assert measures.share(of, whole, whole - whole.mean()) is None
    assert measures.share(of, -whole, -whole) is None


def performance(**columns: list[float]) -> Results:
    return results(performance=Result({name.replace("__", "."): column(*of) for name, of in columns.items()}))


def test_the_task() -> None:
    of = performance(
        scores__logit_difference=[1, 2, 6],
        scores__correct=[1, 1, 0],
        scores__probability=[0.5, 0.25, 0.75],
        held_out__correct=[1, 1, 1, 0, 1, 1],
        held_out__template=[7, 7, 9, 9, 9, 8],
        abc__logit_difference=[-1, 1.5],
    )
    assert estimate("logit-difference", of) == 3
    assert estimate("io-above-s", of) == pytest.approx(2 / 3)
    assert estimate("p-io", of) == 0.5
    assert estimate("held-out-templates", of) == pytest.approx(5 / 6)
    worst = measured("held-out-worst-template", of)
    assert worst.estimate == pytest.approx(2 / 3)
    assert worst.n == 3
    assert worst.over == "prompts of template 9"
    assert estimate("no-preference-without-names", of) == 0.25


def test_what_is_left_without_attention() -> None:
    plain = column(4, 5, 6)
    arrays = {"plain": plain, "s1": column(1, 1, 1), "s1_and_next": column(0, 0, -3), "io": plain}
    of = results(cut=Result(arrays))
    assert estimate("needs-repetition", of) == pytest.approx(0.2)
    assert estimate("needs-repetition-and-next", of) == pytest.approx(-0.2)
    assert estimate("other-name-control", of) == 1


def test_who_writes_the_answer() -> None:
    by_head = heads((4, 2), {(3, 0): 4, (3, 1): 2, (2, 0): 1, (0, 0): 1, (1, 0): -9})
    arrays = {"heads": by_head, "attention": by_head.sum(axis=2), "total": column(-2, -2)}
    of = results(attribution=Result(arrays))
    assert estimate("few-heads-write", of) == pytest.approx(7 / 8)
    assert estimate("written-late", of) == pytest.approx((6 * 1 + 0.75 + 0.25) / 8)
    assert claims.CLAIMS["heads-not-mlps"](of) is None
    arrays["total"] = column(-2, -2) * -1
    assert estimate("heads-not-mlps", results(attribution=Result(arrays))) == pytest.approx(-0.5)


def test_the_stream_is_followed_from_s2_to_end() -> None:
    effects = np.zeros((2, len(WORDS), 8), dtype=np.float32)
    effects[:, WORDS.index("S2")] = -np.arange(8, 0, -1)
    effects[:, WORDS.index("END")] = -(np.arange(8) ** 2)
    effects[:, WORDS.index("IO")] = -100
    of = results(stream=Result({"effects": effects, "clean": column(10, 10)}))
    assert estimate("stream-leaves-s2", of) == pytest.approx((8 - 1) / 10)
    assert estimate("stream-arrives-at-end", of) == pytest.approx((49 - 4) / 10)  # a quarter of 8 layers is 2


@pytest.mark.parametrize(("tier", "expected"), [("tiny", (5 + 3) / 10), ("paper", 5 / 10)])
def test_few_heads_matter_at_end(tier: str, expected: float) -> None:
    """A quarter of 8 heads is two, a twentieth is none: then one."""
    effects = heads((2, 4), {(0, 1): 5, (1, 3): -3, (1, 0): 1, (1, 1): -1})
    assert estimate("few-heads-at-end", results(tier, heads=Result({"effects": effects}))) == pytest.approx(expected)


def test_what_movers_write_and_whether_by_where_they_look() -> None:
    found = steps(movers=[(1, 0), (1, 2)], negative=[(0, 1)])
    effects = heads((2, 4), {(1, 0): -3, (1, 2): -1, (0, 1): 0.5, (0, 0): 7})
    found[LOGITS] = Result({"effects": effects, "clean": column(8, 8)}, found[LOGITS].facts)
    patterns, at_end = (heads((2, 4), {(1, 0): value, (1, 2): value, (0, 0): -9}) for value in (-1, -4))
    of = results(**found, patterns=Result({"effects": patterns}), heads=Result({"effects": at_end}))
    direct = measured("movers-direct", of)
    assert direct.estimate == pytest.approx(4 / 8)
    assert direct.over == "prompts (1.0, 1.2)"
    assert estimate("negative-movers", of) == pytest.approx(0.5 / 8)
    assert estimate("movers-by-attention", of) == pytest.approx(0.25)
    found[LOGITS] = Result(found[LOGITS].arrays, {"roles": {}})
    without = results(**found, patterns=Result({"effects": patterns}), heads=Result({"effects": at_end}))
    assert (estimate("movers-direct", without), estimate("negative-movers", without)) == (0, 0)
    assert claims.CLAIMS["movers-by-attention"](without) is None


def chain(prefix: str, by_step: dict[str, dict[str, Any]], roles: dict[str, dict[str, Any]]) -> Results:
    """Steps of path patching with F = 10, and with a first reading that would give something else."""
    found = steps(published=bool(prefix))
    for stage, effects in by_step.items():
        arrays = {f"{prefix}{name}": values for name, values in effects.items()}
        clean = column(10, 10)
        others = {name: values + 1 for name, values in effects.items()} if prefix else {}
        facts = {**found[stage].facts, "roles": roles.get(stage, {})}
        found[stage] = Result({**others, **arrays, "clean": 3 * clean, f"{prefix}clean": clean}, facts)
    return results("paper" if prefix else "tiny", **found)


def test_the_chain_of_the_heads_that_were_found() -> None:
    of = chain(
        "",
        {
            QUERIES: {"effects": heads((3, 4), {(1, 1): -2, (0, 2): -1, (0, 0): -5})},
            INHIBITION: {
                "keys.effects": heads((3, 4), {(0, 0): -1, (0, 3): -0.5, (0, 1): -9}),
                "values.effects": heads((3, 4), {(0, 0): -3, (0, 3): -1, (1, 0): -2}),
            },
            INDUCTION: {"effects": heads((3, 4), {(0, 2): -0.5})},
        },
        {
            QUERIES: {"inhibition": [[1, 1], [0, 2]]},
            INHIBITION: {"induction": [[1, 0]], "duplicate": [[0, 0]], "other": [[0, 3]]},
            INDUCTION: {"previous": [[0, 2]]},
        },
    )
    queries = measured("inhibition-through-queries", of)
    assert queries.estimate == pytest.approx(0.3)
    assert queries.over == "prompts (0.2, 1.1)"
    assert estimate("early-through-inhibition", of) == pytest.approx((1 + 0.5 + 3 + 1 + 2) / 10)
    assert estimate("values-not-keys", of) == pytest.approx((6 - 1.5) / 10)
    assert estimate("previous-through-induction", of) == pytest.approx(0.05)
    assert claims.CLAIMS["roles-recall"](of) is None
    assert claims.CLAIMS["roles-precision"](of) is None


def test_the_chain_of_the_published_heads() -> None:
    shape = (12, 12)
    ours = {head: -1.0 for role in GPT2_SMALL.roles.values() for head in role}
    of = chain(
        "published.",
        {
            QUERIES: {"effects": heads(shape, ours)},
            INHIBITION: {"keys.effects": heads(shape, ours) / 4, "values.effects": heads(shape, ours)},
            INDUCTION: {"effects": heads(shape, ours)},
        },
        {QUERIES: {"inhibition": [[0, 0]]}},
    )
    assert estimate("inhibition-through-queries", of) == pytest.approx(4 / 10)
    assert measured("inhibition-through-queries", of).over == "prompts (7.3, 7.9, 8.6, 8.10)"
    early = measured("early-through-inhibition", of)
    assert early.estimate == pytest.approx(7 * 1.25 / 10)
    assert early.over == "prompts (7 heads)"
    assert estimate("values-not-keys", of) == pytest.approx(7 * 0.75 / 10)
    assert estimate("previous-through-induction", of) == pytest.approx(0.2)


def test_a_step_that_was_not_run_is_not_judged() -> None:
    of = results(**steps())
    for claim in ("inhibition-through-queries", "early-through-inhibition", "previous-through-induction"):
        assert claims.CLAIMS[claim](of) is None


def test_early_heads_that_are_not_there_do_nothing_where_path_patching_came_so_far() -> None:
    scores = np.full((4, 2, 2), 0.3, dtype=np.float32)
    early = Result({"induction": scores, "previous_token": scores, "duplicate_token": scores})
    claimed = ("previous-through-induction", "early-induction", "early-previous", "early-duplicate")
    inhibition = Result({}, {"roles": {"inhibition": [[1, 0]]}})
    reached = results(**{**steps(movers=[(1, 1)]), QUERIES: inhibition}, early=early)
    for claim in claimed:
        found = measured(claim, reached)
        assert (found.estimate, found.low, found.high) == (0.0, 0.0, 0.0)
        assert found.over.endswith("(no such head)")
        assert claims.CLAIMS[claim](results(**steps(movers=[(1, 1)]), early=early)) is None


def test_roles_found_against_the_published_ones() -> None:
    """Each step's reading from the published heads behind it counts; 18 heads are published in these roles."""
    found = steps(published=True, movers=[(9, 9), (9, 6), (1, 1)], negative=[(10, 0)])
    for stage, roles in {
        QUERIES: {"inhibition": [[7, 3], [7, 9], [8, 6], [8, 10]]},
        INHIBITION: {"induction": [[5, 5]], "duplicate": [[5, 8]], "other": [[3, 0]]},
        INDUCTION: {},
    }.items():
        found[stage] = Result(
            {}, {"roles": {"previous": [[2, 2]]}, "published.receivers": [], "published.roles": roles}
        )
    of = results("paper", **found)
    recall, precision = measured("roles-recall", of), measured("roles-precision", of)
    assert recall.estimate == pytest.approx(7 / 18)
    assert recall.n == 18
    assert precision.estimate == pytest.approx(7 / 10)
    assert precision.n == 10


@pytest.mark.parametrize("claim", [claim.id for claim in PAPER.claims])
def test_what_may_not_be_run_says_so(claim: str) -> None:
    """A model whose F is 0, and of which no head has a role."""
    entry = PAPER.claim(claim)
    measurement = claims.CLAIMS[claim](nothing_found())
    assert (measurement is None) == ("Not run" in entry.note)


def nothing_found() -> Results:
    """Results of a model that knows nothing, F being -1 and 1 in turns, with empty roles and circuits of one head."""
    f, shape = column(-1, 1), (2, 2)
    none, names = heads(shape, {}), ("logit_difference", "correct", "probability")
    effects = Result({"clean": f, "effects": none})
    every = np.zeros((2, 2, 2, len(WORDS), len(WORDS)), dtype=np.float32)
    circuits = dict.fromkeys(("model", "circuit", "naive", "complement"), f)
    subsets = [["nothing", []], ["random", []], ["greedy", []]]
    columns = {f"{part}.{name}": f for part in ("scores", "held_out") for name in names}
    columns |= {"abc.logit_difference": f, "held_out.template": column(3, 3)}
    return results(
        **{**steps(), LOGITS: Result(effects.arrays, {"roles": {}})},
        performance=Result(columns),
        cut=Result(dict.fromkeys(("plain", "s1", "s1_and_next", "io"), f)),
        attribution=Result({"heads": none, "attention": none.sum(axis=2), "total": f}),
        stream=Result({"clean": f, "effects": np.zeros((2, len(WORDS), 2))}),
        heads=effects,
        patterns=effects,
        attention=Result({"attention": every, "projection": every[..., 0, :2]}),
        copying=Result({name: np.zeros((2, 3, 2, 2)) for name in ("top", "bottom")}),
        signals=Result(),
        early=Result(dict.fromkeys(("previous_token", "duplicate_token", "induction"), none)),
        discovery=Result(
            {**circuits, "random": np.stack([f, f], axis=1), "curve.elimination": none[0], "curve.grown": none[0]},
            {"circuit": [[0, 0]], "n_layers": 2, "n_heads": 2, "sizes": [0, 1], "published": None},
        ),
        faithfulness=Result(circuits, {"is_published": False}),
        completeness=Result(
            {name: np.zeros((2, 3)) for name in ("circuit", "circuit.model", "naive", "naive.model")},
            {"subsets": {"circuit": subsets, "naive": subsets}},
        ),
        minimality=Result({name: np.zeros((2, 1)) for name in ("without_k", "without_both")}, {"heads": [[0, 0]]}),
        backup=Result({"before": f, "after": f, "direct.before": none, "direct.after": none}, {"movers": []}),
        adversarial=Result({"io_again": f, "s_again": f}),
    )
