"""The replication of He et al. 2016: its measures on results made by hand."""

from __future__ import annotations

import math
import statistics
from pathlib import Path

import numpy as np
import pytest
from replications.residual_networks import claims
from replications.residual_networks.figures import FIGURES
from replications.residual_networks.setting import DEPTHS, KINDS, UNITS, Unit

from reprise import Measurement, Results
from reprise.claims import committed, evaluate
from reprise.paper import load
from reprise.plotting import house_style
from reprise.readme import claim_tables
from reprise.tables import insert

from .residual_network_runs import results, run

ROOT = Path(__file__).resolve().parents[2]
PAPER = load(ROOT / "replications" / "residual_networks" / "paper.toml")


def measured(claim: str, of: Results) -> Measurement:
    found = claims.CLAIMS[claim](of)
    assert found is not None
    return found


def test_an_interval_is_students() -> None:
    """Four values against the formula with the tables' t of 3 degrees of freedom."""
    values = [1.0, 2.0, 4.0, 9.0]
    found = claims.over_seeds(values)
    assert found is not None
    reach = 3.182446 * statistics.stdev(values) / 2
    assert (found.estimate, found.n) == (4.0, 4)
    assert (found.low, found.high) == pytest.approx((4 - reach, 4 + reach), rel=1e-3)
    ratio = claims.over_seeds([math.exp(value) for value in values], logarithm=True)
    assert ratio is not None
    assert (math.log(ratio.estimate), math.log(ratio.low)) == pytest.approx((4.0, 4 - reach), rel=1e-3)
    assert claims.over_seeds([1.0]) is None


def test_the_table_of_student_covers_its_share() -> None:
    """Of intervals from normal samples, 95 % hold the true mean, whatever the number of seeds."""
    generator = np.random.default_rng(0)
    for n in (2, 3, 5, 10):
        samples = generator.normal(7.0, 2.0, (4000, n))
        reach = claims.STUDENT[n - 2] * samples.std(axis=1, ddof=1) / math.sqrt(n)
        assert np.mean(abs(samples.mean(axis=1) - 7.0) <= reach) == pytest.approx(0.95, abs=0.012)


def test_differences_are_taken_seed_by_seed() -> None:
    """Seeds differ by far more than the networks: the difference is certain; a seed without a twin is left."""
    ends = {0: 0.10, 1: 0.30, 2: 0.60, 3: 0.05}
    runs = [run(Unit("plain", 20, seed), training_error=end) for seed, end in ends.items()]
    runs += [run(Unit("plain", 56, seed), training_error=ends[seed] + 0.07) for seed in (2, 0, 1)]
    found = measured("plain-training-error-rises", results(*runs))
    assert found.n == 3
    assert (found.estimate, found.low, found.high) == pytest.approx((7.0, 7.0, 7.0), abs=1e-3)


def test_each_error_claim_compares_what_it_says() -> None:
    ends = {("plain", 20): (0.01, 0.05), ("plain", 56): (0.30, 0.40), ("residual", 20): (0.02, 0.06)}
    ends[("residual", 56)] = (0.015, 0.045)
    runs = [
        run(Unit(*network, seed), training_error=train, test_error=test)
        for network, (train, test) in ends.items()
        for seed in (0, 1)
    ]
    of = results(*runs)
    expected = {
        "plain-training-error-rises": 29.0,
        "plain-test-error-rises": 35.0,
        "residual-training-error-does-not-rise": -0.5,
        "residual-gains-from-depth": -1.5,
        "residual-beats-plain": 35.5,
        "residual-56-test-error": 4.5,
        "plain-20-test-error": 5.0,
        "plain-56-test-error": 40.0,
    }
    for claim, value in expected.items():
        assert measured(claim, of).estimate == pytest.approx(value, abs=1e-3), claim


@pytest.mark.parametrize(
    ("errors", "share"), [((1, 2, 3, 4), 1.0), ((4, 3, 2, 1), 0.0), ((1, 1, 1, 1), 0.5), ((1, 3, 2, 4), 5 / 6)]
)
def test_the_rise_with_depth_counts_pairs(errors: tuple[int, ...], share: float) -> None:
    runs = [
        run(Unit("plain", depth, seed), training_error=error / 100)
        for depth, error in zip((20, 32, 44, 56), errors, strict=True)
        for seed in (0, 1)
    ]
    assert measured("plain-training-error-rises-steadily", results(*runs)).estimate == pytest.approx(share)


@pytest.mark.parametrize(("tier", "depth"), [("tiny", 8), ("paper", 20)])
def test_shallow_twins_are_those_of_the_tiers_smallest_depth(tier: str, depth: int) -> None:
    runs = [
        run(Unit(kind, each, seed), test_error=error if each == depth else 0.9, early_loss=loss)
        for kind, error, loss in (("plain", 0.03, 0.8), ("residual", 0.02, 0.5))
        for each in (depth, 56)
        for seed in (0, 1)
    ]
    of = results(*runs, tier=tier)
    assert measured("shallow-twins-comparable", of).estimate == pytest.approx(1.0, abs=1e-3)
    assert measured("shallow-residual-converges-faster", of).estimate == pytest.approx(0.3, abs=1e-5)


def test_gradients_are_compared_between_layers() -> None:
    """Norms that grow by a factor at each of 54 steps back: at the start 1.1, in training 1.02 or its inverse."""
    runs = [run(Unit("plain", 56, seed), signals=(1.1, 1.02, 1.02, 1.02, 1.02)) for seed in (0, 1)]
    of = results(*runs)
    assert measured("plain-gradients-healthy-at-start", of).estimate == pytest.approx(1.1**54, rel=1e-4)
    assert measured("plain-gradients-healthy-in-training", of).estimate == pytest.approx(1.02**54, rel=1e-4)
    assert measured("plain-gradients-do-not-vanish", of).estimate == pytest.approx(1.02**54, rel=1e-4)
    vanishing = results(*(run(Unit("plain", 56, seed), signals=[0.9] * 5) for seed in (0, 1)))
    assert measured("plain-gradients-do-not-vanish", vanishing).estimate == pytest.approx(0.9**54, rel=1e-4)
    assert measured("plain-gradients-healthy-in-training", vanishing).estimate == pytest.approx(0.9**-54, rel=1e-4)


def test_a_dead_layer_counts_as_vanishing_and_not_as_a_failure() -> None:
    dead = [run(Unit("plain", 56, seed)) for seed in (0, 1)]
    for each in dead:
        each["signal_gradients"][:, :20] = 0
    rows = {row.claim: row for row in evaluate(PAPER, claims.CLAIMS, results(*dead))}
    assert rows["plain-gradients-do-not-vanish"].verdict == "refuted"
    assert rows["plain-gradients-healthy-in-training"].verdict == "refuted"


def test_responses_are_compared_as_ratios() -> None:
    sizes = {("plain", 20): 1.0, ("plain", 56): 0.8, ("residual", 20): 0.6, ("residual", 56): 0.4}
    sizes[("residual", 110)] = 0.3
    of = results(*(run(Unit(*key, seed), responses=size) for key, size in sizes.items() for seed in (0, 1)))
    expected = {"smaller-20": 0.6, "smaller-56": 0.5, "fall-with-depth": 2 / 3, "fall-with-depth-110": 0.75}
    for claim, value in expected.items():
        assert measured(f"responses-{claim}", of).estimate == pytest.approx(value, rel=1e-5)


def test_a_sweep_that_ran_in_part_leaves_claims_not_run() -> None:
    of = results(run(Unit("plain", 20, 0)), run(Unit("plain", 20, 1)), run(Unit("plain", 56, 0)))
    rows = {row.claim: row.verdict for row in evaluate(PAPER, claims.CLAIMS, of)}
    assert set(rows.values()) == {"not run"}
    with house_style():
        drawn = {name: draw(of) for name, draw in FIGURES.items()}
        assert all(figure is not None for figure in drawn.values())
        assert all(draw(results()) is None for draw in FIGURES.values())


def test_the_sweeps_are_those_of_the_paper() -> None:
    names = {tier: [Unit.parse(name) for name in units] for tier, units in UNITS.items()}
    assert all(unit.name in UNITS[tier] for tier, units in names.items() for unit in units)
    assert len(names["tiny"]) == len(KINDS) * len(DEPTHS["tiny"]) * 5
    assert sum(unit.kind == "residual" and unit.depth == 110 for unit in names["paper"]) == 5
    with pytest.raises(ValueError, match="'plain-56': expected a run's name, for example plain-56-seed0"):
        Unit.parse("plain-56")


def test_every_claim_has_a_measure() -> None:
    assert set(claims.CLAIMS) == {claim.id for claim in PAPER.claims}


def test_the_committed_verdicts_are_those_of_the_claims() -> None:
    rows = committed(ROOT, PAPER, "tiny")
    assert [row.claim for row in rows] == [claim.id for claim in PAPER.claims if "tiny" in claim.accept]
    assert all(row.verdict != "not run" for row in rows)


def test_the_readme_table_is_the_committed_verdicts() -> None:
    path = ROOT / "replications" / "residual_networks" / "README.md"
    assert path.read_text() == insert(path, claim_tables(ROOT)[path]), f"{path}: run `reprise accept residual_networks`"
