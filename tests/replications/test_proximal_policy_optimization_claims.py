"""The measures of Schulman et al. 2017 on results made by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from replications.proximal_policy_optimization import claims, scores
from replications.proximal_policy_optimization.claims import CLAIMS
from replications.proximal_policy_optimization.scores import Sample
from replications.proximal_policy_optimization.setting import (
    ADAPTIVE,
    OBJECTIVES,
    PAPER_SCORES,
    SWEEPS,
    Unit,
    comparison_settings,
    seed_of,
    unit_of,
    units,
)

from reprise import Result, Results
from reprise.claims import evaluate
from reprise.measurement import judge
from reprise.paper import load

from .ppo_runs import results, run, sweep, untrained

ROOT = Path(__file__).resolve().parents[2]
PAPER = load(ROOT / "replications" / "proximal_policy_optimization" / "paper.toml")
PEAK = {"InvertedPendulum-v4": 1010.0, "Reacher-v4": -10.0, "HalfCheetah-v4": 700.0}
BOTTOM = {"InvertedPendulum-v4": 10.0, "Reacher-v4": -40.0, "HalfCheetah-v4": -300.0}
# shares of the way from the untrained policy to the best run, known in advance
SHARE = {
    "none": -0.5,
    "clip-0.1": 0.7,
    "clip-0.2": 0.9,
    "clip-0.3": 0.8,
    "adaptive-0.003": 0.5,
    "adaptive-0.01": 0.75,
    "adaptive-0.03": 0.6,
    "fixed-0.3": 0.4,
    "fixed-1": 0.65,
    "fixed-3": 0.6,
}


def planned(unit: Unit) -> Result:
    """Seeds 0.1 below, at and 0.1 above an objective's share, so that seed 2 of clipping at 0.2 is the best run."""
    share = SHARE[unit.objective] + 0.1 * (unit.seed - 1)
    low, high = BOTTOM[unit.environment], PEAK[unit.environment]
    wild = unit.objective == "none"
    kl = vars(OBJECTIVES[unit.objective]).get("target", 0.3 if wild else 0.01)
    return run(low + share * (high - low), kl=kl, outside=0.6 if wild else 0.1, seed=unit.seed)


def whole() -> Results:
    return results(train=sweep("tiny", planned), untrained=untrained("tiny"))


def test_normalisation_by_hand() -> None:
    """Two objectives, two environments, two seeds; the scale of each environment is untrained policy to best run."""
    raw = {"a": np.array([[0.0, 5.0], [-8.0, -6.0]]), "b": np.array([[10.0, 20.0], [-2.0, -10.0]])}
    found = scores.normalise(raw, np.array([0.0, -10.0]))
    np.testing.assert_allclose(found["a"], [[0.0, 0.25], [0.25, 0.5]])
    np.testing.assert_allclose(found["b"], [[0.5, 1.0], [1.0, 0.0]])


def test_a_score_is_the_mean_of_the_last_hundred_episodes() -> None:
    steps, returns = np.arange(1.0, 301.0), np.arange(300.0)
    assert scores.last_returns(steps, returns, 300, 1.0).tolist() == list(range(200, 300))
    assert scores.last_returns(steps, returns, 300, 0.1).tolist() == list(range(270, 300))
    with pytest.raises(ValueError, match=r"no episode ended in the last 10% of 4000 steps, of 300 that ended; train"):
        scores.last_returns(steps, returns, 4000, 0.1)


def test_scores_of_the_whole_sweep() -> None:
    of = whole()
    for objective, claim in (("none", "score-no-clipping"), ("clip-0.2", None), ("fixed-1", None)):
        measured = claims.score(objective)(of)
        assert measured is not None
        assert measured.estimate == pytest.approx(SHARE[objective], abs=1e-6)
        assert measured.n == 9
        # resampled seeds of each environment: no mean can leave the range of the seeds
        assert SHARE[objective] - 0.1 <= measured.low < measured.estimate < measured.high <= SHARE[objective] + 0.1
        assert claim is None or CLAIMS[claim](of) == measured


@pytest.mark.parametrize(
    ("claim", "expected"),
    [
        ("clipping-beats-none", 0.9 + 0.5),
        ("penalties-beat-none", 0.4 + 0.5),
        ("clipping-against-penalties", 0.9 - 0.75),
        ("best-clipping", 0.9 - 0.8),
        ("adaptive-against-fixed", 0.75 - 0.65),
        ("half-cheetah-below-untrained", -0.5 * 1000),
        ("clipping-above-none-inverted-pendulum", 1.4 * 1000),
        ("clipping-above-none-half-cheetah", 1.4 * 1000),
        ("kl-larger-without", np.log10(0.3 / 0.01)),
        ("ratios-further-without", 0.5),
        ("adaptive-on-target", 1.0),
        ("adaptive-seldom-off", 0.0),
        ("value-explains-returns", 0.8),
    ],
)
def test_differences_by_hand(claim: str, expected: float) -> None:
    measured = CLAIMS[claim](whole())
    assert measured is not None
    assert measured.estimate == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert measured.low <= measured.estimate <= measured.high
    assert judge(measured, PAPER.claim(claim).accept["tiny"]) == "supported"


def test_a_sweep_in_part_gives_no_scores() -> None:
    """One run is missing: claims on scores are not run, those on pairs and on single environments are judged."""
    missing = Unit("Reacher-v4", "fixed-3", 1)
    made = sweep("tiny", lambda unit: None if unit == missing else planned(unit))
    of = results(train=made, untrained=untrained("tiny"))
    rows = {row.claim: row for row in evaluate(PAPER, CLAIMS, of)}
    for claim in ("score-no-clipping", "clipping-beats-none", "penalties-beat-none", "best-clipping"):
        assert rows[claim].verdict == "not run"
    for claim in ("half-cheetah-below-untrained", "kl-larger-without", "adaptive-on-target"):
        assert rows[claim].verdict == "supported"


def test_the_paper_tier_with_one_seed_of_three_environments() -> None:
    """Clipping and none on three environments: what can be judged is, and its interval says that it covers episodes."""
    chosen = ("InvertedPendulum-v4", "Hopper-v4", "HalfCheetah-v4")

    def some(unit: Unit) -> Result | None:
        if unit.environment not in chosen or unit.seed or unit.objective not in ("clip-0.2", "none"):
            return None
        return run(1000.0, kl=0.01) if unit.objective == "clip-0.2" else run(-500.0, kl=1.0, outside=0.9)

    of = results("paper", train=sweep("paper", some), untrained=untrained("paper"))
    rows = {row.claim: row for row in evaluate(PAPER, CLAIMS, of)}
    judged = {claim for claim, row in rows.items() if row.verdict != "not run"}
    assert judged == {
        "clipping-above-none-inverted-pendulum",
        "clipping-above-none-hopper",
        "clipping-above-none-half-cheetah",
        "half-cheetah-below-untrained",
        "kl-larger-without",
        "ratios-further-without",
        "value-explains-returns",
    }
    hopper = rows["clipping-above-none-hopper"]
    assert hopper.estimate == pytest.approx(1500, abs=1e-3)
    assert hopper.over == "episodes, of 1 seed"
    assert hopper.n == 50


def test_public_numbers_need_every_seed() -> None:
    def hopper(seeds: int) -> Results:
        made = sweep("paper", lambda unit: run(2400.0 + unit.seed) if unit.seed < seeds else None)
        return results("paper", train=made)

    assert CLAIMS["public-number-hopper"](hopper(2)) is None
    measured = CLAIMS["public-number-hopper"](hopper(3))
    assert measured is not None
    assert measured.estimate == pytest.approx(2401, abs=1e-3)
    assert measured.over == "episodes, of 3 seeds"


def test_every_cartpole_seed_has_to_pass() -> None:
    evaluations = [np.full(100, 500.0), np.full(100, 500.0), np.r_[np.full(50, 500.0), np.full(50, 440.0)]]
    of = results(
        cartpole={
            f"seed{seed}": Result({"evaluation": values, "last_returns": values, "evaluation_likeliest": values + 10})
            for seed, values in enumerate(evaluations)
        }
    )
    measured = CLAIMS["cartpole-solved"](of)
    assert measured is not None
    assert measured.estimate == pytest.approx(470)
    likeliest = CLAIMS["cartpole-solved-likeliest"](of)
    assert likeliest is not None
    assert likeliest.estimate == pytest.approx(480)
    assert measured.low > 460
    assert measured.high < 480
    pooled = CLAIMS["cartpole-public-number"](of)
    assert pooled is not None
    assert pooled.estimate == pytest.approx(490)
    assert pooled.low <= 475  # over seeds too: the weak one may be drawn twice
    two = {name: run for name, run in of.of("cartpole").items() if name != "seed1"}
    assert CLAIMS["cartpole-solved"](results(cartpole=two)) is None


def test_probes_count_by_training() -> None:
    of = results(
        probes={str(i): Result({"solved": np.array([True, True, i != 3], dtype=np.float32)}) for i in range(5)}
    )
    measured = CLAIMS["probes-solved"](of)
    assert measured is not None
    assert measured.estimate == pytest.approx(14 / 15)
    assert judge(measured, PAPER.claim("probes-solved").accept["tiny"]) == "inconclusive"


def test_the_adaptive_target_is_read_from_the_objective() -> None:
    """Divergences of three times the target in a quarter of the late updates, whatever came before."""
    quotients = np.ones(20)
    quotients[:10], quotients[15:] = 50.0, 3.0

    def off(unit: Unit) -> Result:
        result = planned(unit)
        if unit.objective not in ADAPTIVE:
            return result
        target = vars(OBJECTIVES[unit.objective])["target"]
        return Result({**result.arrays, "kl": (target * quotients).astype(np.float32)})

    of = results(train=sweep("tiny", off))
    median, far = CLAIMS["adaptive-on-target"](of), CLAIMS["adaptive-seldom-off"](of)
    assert median is not None
    assert far is not None
    assert median.estimate == pytest.approx(2.0)  # half of the late updates at 1, half at 3
    assert far.estimate == pytest.approx(0.5)
    assert median.n == 27


def test_seeds_are_drawn_before_episodes() -> None:
    """With constant episodes the interval of a difference comes from the seeds alone; with one seed it has no width."""
    three = Sample([np.full(10, value) for value in (0.0, 1.0, 2.0)])
    measured = scores.over_episodes(Sample.mean, three, seed=0)
    assert (measured.low, measured.estimate, measured.high) == pytest.approx((0.0, 1.0, 2.0), abs=0.35)
    alone = scores.over_episodes(Sample.mean, Sample([np.full(10, 4.0)]), seed=0)
    assert (alone.low, alone.high, alone.over) == (4.0, 4.0, "episodes, of 1 seed")
    both = scores.over_episodes(lambda a, b: a.mean() - b.mean(), three, Sample([np.full(10, 4.0)]), seed=0)
    assert both.over == "episodes, of 3 and 1 seeds"
    assert both.estimate == pytest.approx(-3.0)


def test_the_first_update_is_read_at_its_place() -> None:
    along = np.array([0.0, 0.5, 1.0, 1.5])
    runs = {
        f"seed{seed}": Result(
            {"along": along, "clipped": np.array([0.0, 0.1, 0.2, 0.1]) if seed else along, "kl": along**2 / 50}
        )
        for seed in range(2)
    }
    place = CLAIMS["first-update-at-the-maximum"](results(first_update=runs))
    divergence = CLAIMS["first-update-divergence"](results(first_update=runs))
    assert place is not None
    assert divergence is not None
    assert place.estimate == pytest.approx(1.25)
    assert divergence.estimate == pytest.approx(0.02)


def test_every_objective_of_table_one_has_its_claim() -> None:
    """The paper's numbers in paper.toml are those that the figure shows."""
    of = {row.paper_value for row in PAPER.claims if row.id.startswith("score-")}
    assert of == set(PAPER_SCORES.values())
    assert list(PAPER_SCORES) == list(OBJECTIVES)
    for claim in PAPER.claims:
        if claim.id.startswith("score-") and claim.id != "score-no-clipping":
            accept = claim.accept["paper"]
            assert claim.paper_value is not None
            assert (accept.at_least + accept.at_most) / 2 == pytest.approx(claim.paper_value)


def test_units_and_settings_are_those_of_the_paper() -> None:
    names = [unit.name for unit in units("paper")]
    assert len(names) == len(set(names)) == 11 * 7 * 3
    assert units("paper")[0].name == "InvertedPendulum-v4.clip-0.2.seed0"
    assert unit_of("paper", "Hopper-v4.adaptive-0.01.seed2") == Unit("Hopper-v4", "adaptive-0.01", 2)
    assert seed_of("Hopper-v4.adaptive-0.01.seed2") == 2
    with pytest.raises(ValueError, match=r"no run 'Ant' in tier 'tiny'; runs are, for example, 'Inverted"):
        unit_of("tiny", "Ant")
    for tier, sweep_of in SWEEPS.items():  # Table 3
        settings = comparison_settings(tier, "clip-0.3")
        assert (settings.horizon * settings.environments, settings.epochs) == (2048, 10)
        assert settings.horizon * settings.environments // settings.minibatches == 64
        assert (settings.learning_rate, settings.gamma, settings.gae_lambda) == (3e-4, 0.99, 0.95)
        assert (settings.hidden, settings.entropy_coefficient, settings.shared_encoder) == ((64, 64), 0.0, False)
        assert settings.objective == OBJECTIVES["clip-0.3"]
        assert settings.total_steps == sweep_of.steps
