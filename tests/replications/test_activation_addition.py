"""The replication of Turner et al. 2023: its measures on results made by hand, its stages against plain hooks."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from replications.activation_addition import claims, paper_material, setting, story_material
from replications.activation_addition.choice import choose
from replications.activation_addition.figures import FIGURES
from replications.activation_addition.material import MOOD, TOPIC, Material

import zoo
from interventions import ModelError, load
from reprise import Measurement, Result, Results
from reprise.claims import evaluate
from reprise.drawing import draw
from reprise.experiment import load_experiment
from reprise.models import ModelReference
from steering import SteeringError, Writing
from zoo import stories

from .activation_addition_runs import N_LAYERS, PAPER, ROOT, Plain, english_folder, few_latents, run, story_folder

FEW = setting.Trials(2, 2, None, (2.0, 8.0), (1.0, 4.0), n_random=1, texts=4, facts=4, new_tokens=8, temperature=0.0)
SAMPLED = dataclasses.replace(FEW, choosing=1, scoring=3, layers=2, facts=6, temperature=1.0, top_p=0.9)


def results(**by_stage: Result) -> Results:
    return Results("tiny", 0, {name: {"m": result} for name, result in by_stage.items()})


def measured(claim: str, of: Results) -> Measurement:
    found = claims.CLAIMS[claim](of)
    assert found is not None
    return found


# The choice


def cells(success: list[list[float]], loss: list[list[float]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two latents with these means, [latent, layer, coefficient, prompt, sample], and 10 tokens a completion."""
    one, other = np.array(success), np.array(loss)
    shares = np.stack([one - 0.05, one + 0.05])[..., None, None]
    losses = np.stack([other, other])[..., None, None] * 10
    return shares, losses, np.full_like(losses, 10.0)


PLAIN_TEXT = np.full((2, 1, 1), 10.0), np.full((2, 1, 1), 10.0)


def test_the_best_fluent_cell_is_chosen() -> None:
    success = [[0.1, 0.3, 0.9], [0.2, 0.5, 0.4]]
    losses = [[1.0, 1.1, 1.8], [1.0, 1.69, 1.7]]  # the limit is 1 + log 2 = 1.693
    assert choose(*cells(success, losses), *PLAIN_TEXT) == (1, 1, True)
    losses[0][2] = 1.6
    assert choose(*cells(success, losses), *PLAIN_TEXT) == (0, 2, True)


def test_where_no_cell_is_fluent_the_least_bad_is_chosen() -> None:
    losses = [[3.0, 4.0, 5.0], [6.0, 2.5, 4.0]]
    assert choose(*cells([[0.1, 0.3, 0.9], [0.2, 0.5, 0.4]], losses), *PLAIN_TEXT) == (1, 1, False)


def test_completions_that_show_nothing_do_not_count() -> None:
    shares, losses, tokens = cells([[0.5, 0.4]], [[1.0, 1.0]])
    shares = np.repeat(shares, 2, axis=3)
    shares[:, :, 0, 1] = np.nan
    shares[:, :, 1, 1] = 0.0
    assert choose(shares, np.repeat(losses, 2, axis=3), np.repeat(tokens, 2, axis=3), *PLAIN_TEXT)[:2] == (0, 0)


# Measures


def completions_of(front: dict[str, np.ndarray], kind: str = TOPIC, **more: np.ndarray) -> Results:
    """Conditions of the front way from shares [latent, prompt, sample]."""
    arrays = {f"front.{kind}.success": np.stack(list(front.values())), **more}
    return results(completions=Result(arrays, {"conditions": {"front": list(front)}}))


def test_topics_are_what_is_resampled_and_a_prompt_that_shows_none_is_left_out() -> None:
    vector = np.linspace(0.2, 0.9, 6)[:, None, None] + np.array([-0.1, 0.1])[None, :, None]
    plain = np.full((6, 2, 1), 0.1)
    vector[0, 0] = np.nan
    found = measured("topic-share-rises", completions_of({"unsteered": plain, "vector": vector}))
    expected = np.mean([0.3, *np.linspace(0.2, 0.9, 6)[1:]]) - 0.1
    assert (found.n, found.over) == (6, "topics")
    assert found.estimate == pytest.approx(expected)


def test_few_latents_are_judged_over_prompts_and_one_prompt_over_completions() -> None:
    vector = np.array([[[0.9], [0.5], [0.7]], [[0.8], [0.4], [0.6]]])
    found = measured("mood-success", completions_of({"vector": vector}, MOOD))
    assert (found.n, found.over) == (3, "prompts")
    assert found.estimate == pytest.approx(0.65)
    assert found.low < found.estimate < found.high
    sampled = completions_of({"vector": np.array([[[1.0, 0.0, 1.0, np.nan]]])})
    found = measured("topic-share", sampled)
    assert (found.n, found.over) == (3, "completions")
    assert found.estimate == pytest.approx(2 / 3)
    assert claims.CLAIMS["topic-share"](completions_of({"vector": np.array([[[1.0, np.nan]]])})) is None


def test_a_control_is_compared_with_the_condition_that_its_claim_names() -> None:
    shares = {name: np.full((6, 1, 1), value) for name, value in zip("abcde", (0.1, 0.8, 0.15, 0.3, 0.6), strict=True)}
    names = ("unsteered", "vector", "random vectors", "last block", "prefix")
    of = completions_of(dict(zip(names, shares.values(), strict=True)))
    for claim, expected in {
        "topic-share": 0.8,
        "topic-share-unsteered": 0.1,
        "random-vector-does-nothing": 0.05,
        "early-layers-best": 0.5,
        "topic-against-prompt": 0.2,
    }.items():
        assert measured(claim, of).estimate == pytest.approx(expected), claim


def test_the_perplexity_quotient_pools_tokens() -> None:
    losses = np.array([[[20.0], [5.0]]] * 6)
    tokens = np.array([[[10.0], [10.0]]] * 6)
    plain = np.array([[[30.0], [0.0]]] * 6)
    plain_tokens = np.array([[[30.0], [0.0]]] * 6)
    facts = {"conditions": {"front": ["unsteered", "vector"]}}
    arrays = {"front.topic.losses": np.stack([plain, losses]), "front.topic.tokens": np.stack([plain_tokens, tokens])}
    found = measured("steered-text-fluent", results(completions=Result(arrays, facts)))
    assert found.estimate == pytest.approx(np.exp(25 / 20 - 30 / 30))


def test_the_strength_for_texts_is_chosen_on_one_half_and_judged_on_the_other() -> None:
    changes = np.zeros((6, 2, 3, 4))  # [topic, side, coefficient, text]
    changes[:, 0, 1, 0::2] = -0.5  # best where it is chosen,
    changes[:, 0, 1, 1::2] = -0.1  # less good where it is judged
    changes[:, 0, 2, 1::2] = -0.9
    changes[:, 1, 1, 1::2] = 0.02
    changes += np.linspace(-0.001, 0.001, 6)[:, None, None, None]
    of = results(perplexity=Result({"front": changes}, {}))
    assert measured("perplexity-falls-on-topic", of).estimate == pytest.approx(np.exp(-0.1))
    assert measured("perplexity-unchanged-elsewhere", of).estimate == pytest.approx(np.exp(0.02))
    assert measured("perplexity-falls-more-on-topic", of).estimate == pytest.approx(0.12)


def test_knowledge_is_kept_of_what_was_known() -> None:
    plain = np.array([1.0, 1.0, 0.0, 1.0])
    steered = np.array([[1.0, 0.0, 1.0, 1.0]] * 5 + [[1.0, 1.0, 1.0, 1.0]])
    of = results(knowledge=Result({"plain.right": plain, "front.right": steered}, {}))
    assert measured("questions-known", of).estimate == pytest.approx(0.75)
    assert measured("knowledge-kept", of).estimate == pytest.approx((5 * 2 / 3 + 1) / 6)
    none = results(knowledge=Result({"plain.right": 0 * plain, "front.right": steered}, {}))
    assert claims.CLAIMS["knowledge-kept"](none) is None


# The material


@pytest.fixture(scope="module")
def material() -> Material:
    return story_material.material(n_choosing=20, n_scoring=20, n_texts=6, n_facts=20, writing=Writing())


def test_prompts_show_nothing_and_are_longer_than_the_vectors(material: Material) -> None:
    group = material.groups[TOPIC]
    names = [
        {word for prompt in prompts for word in prompt.split() if word in stories.NAMES}
        for prompts in (group.choosing[0], group.scoring[0])
    ]
    assert names[0]
    assert not names[0] & names[1]
    contrasts = [latent.contrast for of in material.groups.values() for latent in of.latents]
    longest = max(len(text.split()) for contrast in contrasts for text in (contrast.positive, contrast.negative))
    for prompt in (*group.choosing[0], *group.scoring[0]):
        counts = stories.count(prompt)
        assert not counts.topics
        assert not counts.moods
        assert not counts.attitudes
        assert counts.grammatical == counts.sentences == 2
        assert len(prompt.split()) > longest, prompt


def test_a_contrast_differs_in_the_word_of_its_latent_alone(material: Material) -> None:
    for kind, group in material.groups.items():
        for latent in group.latents:
            pair = [latent.contrast.positive.split(), latent.contrast.negative.split()]
            assert [a for a, b in zip(*pair, strict=True) if a != b] == [latent.name]
            assert latent.other != latent.contrast
            assert latent.name in latent.prefix
            assert kind == (TOPIC if latent.name in stories.TOPICS else MOOD)
    assert story_material.NO_TOPIC not in stories.topic_words()


def test_metrics_are_shares_of_the_latents_own_words(material: Material) -> None:
    of = {latent.name: latent.metric for group in material.groups.values() for latent in group.latents}
    text = "the sailor rowed and the farmer smiled . anna smiled and ben wept ."
    assert of["sea"](text) == pytest.approx(2 / 3)
    assert of["farm"](text) == pytest.approx(1 / 3)
    assert of["happy"](text) == pytest.approx(2 / 3)
    assert of["sad"](text) == pytest.approx(1 / 3)
    assert np.isnan(of["sea"]("anna met ben ."))
    assert np.isnan(of["sad"]("anna met ben ."))


def test_texts_are_about_their_topic_and_the_others_are_not(material: Material) -> None:
    for topic, (on, off) in material.texts.items():
        assert len(on) == len(off) == 6
        assert stories.total(map(stories.count, on)).topic_share(topic) > 0.6
        assert stories.total(map(stories.count, off)).topic_share(topic) < 0.2


def test_questions_are_answered_from_the_words_of_their_story(material: Material) -> None:
    lexicons = {**stories.mood_words(), **stories.attitude_words()}
    asked = re.compile(r"(?:is the story|is \w+) (\w+) (?:or (\w+) )?\? (\( A \) (\w+) \( B \) (\w+) )?answer :")
    answers = set()
    for form, questions in material.facts.items():
        for each in questions:
            story, question = each.prompt.rsplit(" is ", 1)
            found = asked.match("is " + question)
            assert found is not None, each.prompt
            value, other, options, a, b = found.groups()
            shown = [lexicons.get(word) for word in story.split()]
            holds = shown.count(value) > shown.count(stories.contraries()[value])
            said = (value if holds else other) if other else ("yes" if holds else "no")
            assert (options is not None) == ("A or B" in form)
            assert (other is not None) == form.startswith("which")
            assert each.answer == " " + ("AB"[[a, b].index(said)] if options else said), each.prompt
            answers.add(each.answer)
    assert {" A", " B", " yes", " no"} < answers


def test_sentiment_is_the_majority_of_its_words() -> None:
    love, hate = paper_material.sentiment(positive=True), paper_material.sentiment(positive=False)
    assert (love("a Wonderful, kind fool"), hate("a Wonderful, kind fool")) == (1.0, 0.0)
    assert np.isnan(love("a kind fool"))
    assert np.isnan(hate("I love you, I hate you"))
    assert not paper_material.POSITIVE & paper_material.NEGATIVE


def test_wedding_texts_have_wedding_words_and_the_others_none() -> None:
    assert len(paper_material.ON_TOPIC) == len(paper_material.OFF_TOPIC) == 16
    about = set(paper_material.WEDDING_WORDS) | {"vows", "bridesmaid", "couple", "newlyweds", "ceremony", "proposed"}
    for text in paper_material.ON_TOPIC:
        assert about & set(re.findall(r"\w+", text.lower())), text
    for text in paper_material.OFF_TOPIC:
        assert not about & set(re.findall(r"\w+", text.lower())), text


def test_layers_are_evenly_spread_and_the_papers_best_is_among_them() -> None:
    assert setting.swept(4, None) == (0, 1, 2, 3)
    assert setting.swept(3, 16) == (0, 1, 2)
    assert setting.swept(48, 16) == tuple(range(0, 48, 3))


# The stages, against plain hooks


@pytest.fixture(scope="module")
def story_model(tmp_path_factory: pytest.TempPathFactory) -> ModelReference:
    return story_folder(tmp_path_factory.mktemp("models") / "stories")


@pytest.fixture(scope="module")
def english_model(tmp_path_factory: pytest.TempPathFactory) -> ModelReference:
    return english_folder(tmp_path_factory.mktemp("models") / "english")


def test_the_stages_are_what_plain_hooks_give(story_model: ModelReference, monkeypatch: pytest.MonkeyPatch) -> None:
    few_latents(monkeypatch, 2)
    of = run(story_model, "tiny", FEW, monkeypatch)
    found = {stage: of.of(stage)[story_model.name] for stage in ("choose", "completions", "perplexity", "knowledge")}
    plain = Plain(story_model)
    material = story_material.material(
        n_choosing=2, n_scoring=2, n_texts=4, n_facts=4, writing=Writing(8, batch_size=64), seed=0
    )
    chosen = found["completions"].facts["chosen"]
    different = 0
    for kind in (TOPIC, MOOD):
        group = material.groups[kind]
        for at, latent in enumerate(group.latents[:2]):
            rows = plain.contrast(latent.contrast.positive, latent.contrast.negative)
            mean = torch.stack([layer[layer.any(dim=1)].mean(dim=0, keepdim=True) for layer in rows])
            for way, vectors in (("front", rows), ("everywhere", mean)):
                cell = {"layer": 1, "rows": 8.0 * vectors[1], "everywhere": way == "everywhere"}
                texts = [plain.write(prompt, 8, **cell) for prompt in group.choosing[at]]
                shares = found["choose"][f"{way}.{kind}.success"][at, 1, 1, :, 0]
                np.testing.assert_allclose(shares, [latent.metric(text) for text in texts])
                layer, coefficient = chosen[way][kind]["layer"], chosen[way][kind]["coefficient"]
                later = found["choose"].facts["chosen_later"][way][kind]
                assert later["layer"] >= 1
                steers = {
                    "unsteered": {},
                    "vector": {"layer": layer, "rows": coefficient * vectors[layer]},
                    "later layer": {"layer": later["layer"], "rows": later["coefficient"] * vectors[later["layer"]]},
                    "last block": {"layer": N_LAYERS - 1, "rows": coefficient * vectors[N_LAYERS - 1]},
                }
                for name, steer in steers.items():
                    if steer:
                        steer["everywhere"] = way == "everywhere"
                    texts = [plain.write(prompt, 8, **steer) for prompt in group.scoring[at]]
                    place = found["completions"].facts["conditions"][way].index(name)
                    shares = found["completions"][f"{way}.{kind}.success"][place, at, :, 0]
                    np.testing.assert_allclose(shares, [latent.metric(text) for text in texts], err_msg=name)
                    losses = found["completions"][f"{way}.{kind}.losses"][place, at, :, 0]
                    expected = [
                        plain.losses([*plain.tokens(prompt), *plain.tokens(text)[1:]], len(plain.tokens(prompt)))
                        for prompt, text in zip(group.scoring[at], texts, strict=True)
                    ]
                    np.testing.assert_allclose(losses, [float(each.sum()) for each in expected], rtol=1e-4)
                    quoted = [
                        each["steered"]
                        for each in found["completions"].facts["examples"]
                        if (each["way"], each["latent"]) == (way, latent.name)
                    ]
                    if name == "vector":
                        assert [text.split() for text in quoted] == [text.split() for text in texts]
                    different += name == "unsteered" and [text.split() for text in quoted] != [
                        text.split() for text in texts
                    ]
    assert different >= 4
    check_texts(found["perplexity"], plain, material, chosen)
    check_questions(found["knowledge"], plain, material, chosen)


def check_texts(found: Result, plain: Plain, material: Material, chosen: dict) -> None:  # type: ignore[type-arg]
    skip = 7  # the BOS and the six words of a header
    assert found.facts["skip"] == skip
    for at, latent in enumerate(material.groups[TOPIC].latents[:2]):
        rows = plain.contrast(latent.contrast.positive, latent.contrast.negative)
        layer = chosen["front"][TOPIC]["layer"]
        for side, texts in enumerate(material.texts[latent.name]):
            for place, text in enumerate(texts):
                tokens = plain.tokens(text)
                without = plain.losses(tokens, skip + 1).mean()
                for strength, coefficient in enumerate((1.0, 4.0)):
                    steered = plain.losses(tokens, skip + 1, layer=layer, rows=coefficient * rows[layer]).mean()
                    value = found["front"][at, side, strength, place]
                    assert value == pytest.approx(float(steered - without), abs=1e-4)
                before = plain.tokens(latent.prefix)
                named = plain.losses([*before, *tokens[1:]], len(before) + skip).mean()
                assert found["named"][at, side, place] == pytest.approx(float(named - without), abs=1e-4)
    assert float(np.abs(found["front"]).max()) > 0.01


def check_questions(found: Result, plain: Plain, material: Material, chosen: dict) -> None:  # type: ignore[type-arg]
    questions = [question for of in material.facts.values() for question in of]
    for at, latent in enumerate(material.groups[TOPIC].latents[:2]):
        rows = plain.contrast(latent.contrast.positive, latent.contrast.negative)
        layer, coefficient = chosen["front"][TOPIC]["layer"], chosen["front"][TOPIC]["coefficient"]
        for place, question in enumerate(questions):
            tokens = plain.tokens(question.prompt)
            answer = plain.tokens(question.answer)[1]
            steer = {"layer": layer, "rows": coefficient * rows[layer]}
            for name, options in (("plain", {}), ("front", steer)):
                logits = plain.run(tokens, length=len(tokens), **options)[0][-1]
                value = found["plain.log_p"][place] if name == "plain" else found["front.log_p"][at, place]
                assert value == pytest.approx(float(logits.log_softmax(dim=-1)[answer]), abs=1e-4)


def test_the_front_way_touches_nothing_that_a_token_is_predicted_from(
    story_model: ModelReference, monkeypatch: pytest.MonkeyPatch
) -> None:
    few_latents(monkeypatch, 1)
    result = run(story_model, "tiny", FEW, monkeypatch).of("completions")[story_model.name]
    names = result.facts["conditions"]["front"]
    of = [result["front.topic.success"][names.index(name)] for name in ("vector", "prompt only")]
    np.testing.assert_array_equal(*of)
    everywhere = result.facts["conditions"]["everywhere"]
    assert {"last layer", "logit bias, unembedded"} <= set(everywhere) - set(names)


def test_every_claim_and_figure_of_the_paper_tier_on_a_random_model(
    english_model: ModelReference, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    of = run(english_model, "paper", SAMPLED, monkeypatch)
    facts = of.of("completions")[english_model.name].facts
    assert facts["latents"] == {"topic": ["weddings"], "mood": ["love", "hate"]}
    assert of.of("choose")[english_model.name].facts["layers"] == [0, 1]
    rows = {row.claim: row for row in evaluate(PAPER, claims.CLAIMS, of)}
    assert set(rows) == {claim.id for claim in PAPER.claims if "paper" in claim.accept}
    # a random model shows nothing of what the paper claims
    assert (rows["topic-share"].verdict, rows["topic-share"].n, rows["topic-share"].over) == (
        "refuted",
        3,
        "completions",
    )
    assert rows["topic-share-unsteered"].verdict == "supported"
    assert rows["questions-known"].verdict == "refuted"
    drawn = draw(FIGURES, of, tmp_path)
    assert [figure.name for figure in drawn] == list(FIGURES)


def test_every_figure_of_the_tiny_tier_is_drawn(
    story_model: ModelReference, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    few_latents(monkeypatch, 2)
    of = run(story_model, "tiny", dataclasses.replace(FEW, layers=1), monkeypatch)
    rows = evaluate(PAPER, claims.CLAIMS, of)
    assert {row.claim for row in rows} == set(claims.CLAIMS)
    drawn = draw(FIGURES, of, tmp_path)
    assert [figure.name for figure in drawn] == list(FIGURES)
    assert all((tmp_path / f"{name}.svg").stat().st_size > 1000 for name in FIGURES)


# Bad input


def test_the_tiny_tier_refuses_a_model_that_does_not_read_stories(
    english_model: ModelReference, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = (
        r"english: its tokenizer makes \[.*\] of '\w+': expected one token for each word of the little stories, as "
    )
    with pytest.raises(ModelError, match=message + "stories-4l has; for other models take --tier paper"):
        run(english_model, "tiny", FEW, monkeypatch)


def test_the_paper_tier_refuses_a_tokenizer_that_drops_spaces(
    story_model: ModelReference, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SteeringError, match="text ' ' has no tokens in stories: expected at least one"):
        run(story_model, "paper", SAMPLED, monkeypatch)


def test_a_model_without_a_tokenizer_is_refused(
    story_model: ModelReference, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("config.json", "model.safetensors", "generation_config.json"):
        (tmp_path / name).write_bytes((Path(story_model.location) / name).read_bytes())
    bare = dataclasses.replace(story_model, name="bare", location=str(tmp_path))
    assert load(tmp_path).tokenizer is None
    with pytest.raises(ModelError, match=r"bare: no tokenizer; steering begins with two texts, put tokenizer\.json"):
        run(bare, "paper", SAMPLED, monkeypatch)


def test_the_experiment_names_files_and_models_that_there_are() -> None:
    experiment = load_experiment(ROOT / "replications" / "activation_addition")
    assert not experiment.takes_data
    assert all((ROOT / path).exists() for path in paper_material.DATA)
    assert set(PAPER.tier("tiny").models) <= set(zoo.NAMES)
