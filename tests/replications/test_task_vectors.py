"""The replication of Hendel et al. 2023: its measures on results made by hand, its stages against plain hooks."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from replications.task_vectors import bench, claims, experiment, prompts
from replications.task_vectors.drawing import wilson
from replications.task_vectors.figures import FIGURES
from replications.task_vectors.grouping import grouping, principal_components
from replications.task_vectors.prompts import Entry

import zoo
from function_vectors import ICLPrompt, Scores, Task, TaskError, load_task, load_tasks
from interventions import Tokenizer
from reprise import Job, Result, Results
from reprise.claims import evaluate
from reprise.drawing import draw
from reprise.experiment import load_experiment
from reprise.models import ModelReference
from reprise.paper import load
from reprise.plotting import house_style
from zoo import words

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "replications" / "task_vectors"
PAPER = load(FOLDER / "paper.toml")
SHOTS = 5
NAMES = tuple(f"w{number}" for number in range(30))
FEW = bench.Trials(shots=SHOTS, chosen_on=6, scored_on=12, conflict=4, vectors=6)
FEWEST = bench.Trials(shots=SHOTS, chosen_on=2, scored_on=4, conflict=2, vectors=3)
SIZES = {"llama": {"num_key_value_heads": 2, "head_dim": 8}, "gptj": {"rotary_dim": 4}}


class Words:
    """A tokenizer of single words, with a line break of its own."""

    def __init__(self, known: set[str]) -> None:
        self.words = sorted(known | {"->", "\n"})

    def encode(self, text: str) -> list[int]:
        return [self.words.index(word) for word in text.replace("\n", " \n ").split(" ") if word in self.words]

    def decode(self, tokens: list[int]) -> str:
        return " ".join(self.words[token] for token in tokens)


def results(**by_stage: Mapping[str, Result]) -> Results:
    return Results(tier="tiny", seed=0, by_stage=by_stage)


def measured(claim: str, of: Results) -> float:
    measurement = claims.CLAIMS[claim](of)
    assert measurement is not None
    return measurement.estimate


def share(p: float, n: int = 20) -> np.ndarray:
    """n prompts of which the share p is right."""
    return np.arange(n) < round(p * n)


def accuracy_of(by_layer: list[list[float]], in_context: list[float], layers: list[int]) -> Results:
    """Two primary tasks and a third that is none, from accuracies."""
    arrays = {
        "by_layer": np.stack([np.stack([share(p) for p in task], axis=1) for task in by_layer]),
        "in_context": np.stack([share(p) for p in in_context]),
        "zero_shot": np.stack([share(p) for p in (0.1, 0.2, 0.9)]),
    }
    return results(accuracy={"m": Result(arrays, {"primary": [True, True, False], "layers": layers})})


def test_the_share_of_in_context_learning_is_that_at_each_tasks_own_layer() -> None:
    of = accuracy_of([[0.1, 0.8, 0.3], [0.6, 0.9, 0.2], [1, 1, 1]], [1.0, 0.5, 1.0], [1, 0, 2])
    assert measured("share-of-in-context-learning", of) == pytest.approx((0.8 + 0.6) / (1.0 + 0.5))
    assert measured("zero-shot-baseline", of) == pytest.approx(0.15)
    assert measured("intermediate-layer-best", of) == pytest.approx(((0.8 - 0.3) + (0.6 - 0.6)) / 2)


def test_tasks_that_the_model_cannot_do_in_context_say_nothing() -> None:
    of = accuracy_of([[0.1, 0.8, 0.3], [0.6, 0.9, 0.2], [1, 1, 1]], [1.0, 0.0, 1.0], [1, 0, 2])
    assert claims.CLAIMS["share-of-in-context-learning"](of) is None


def test_a_conflict_is_read_at_the_layer_of_the_patched_task() -> None:
    patched = np.zeros((4, 10, 2))
    patched[0, :4, 0], patched[0, :, 1] = 1, 1  # a in b: .4 at layer 0, 1 at layer 1
    patched[1, :6, 1] = 1  # b in a: .6 at layer 1
    patched[2:] = 1  # not primary, and not of a kind that the paper has
    clean = np.stack([share(0.7, 10), share(0.9, 10), share(0.0, 10), share(0.0, 10)])
    facts = {
        "tasks": ["a", "b", "c", "d", "e", "f"],
        "kinds": ["algorithmic"] * 4 + ["translation"] * 2,
        "primary": [True, True, False, False, True, True],
        "pairs": [["a", "b"], ["b", "a"], ["c", "d"], ["e", "f"]],
        "layers": [0, 1, 1, 1],
    }
    of = results(conflict={"m": Result({"patched": patched, "clean_prompt": clean}, facts)})
    assert measured("conflict-patched-wins", of) == pytest.approx((0.4 + 0.6) / 2)
    assert measured("conflict-without-vector", of) == pytest.approx(0.8)


def test_groups_are_judged_on_vectors_that_did_not_choose_the_layer() -> None:
    nearest, within = np.zeros((2, 4, 3)), np.full((2, 4, 3), 0.9)
    nearest[:, :2, 1] = 1
    nearest[0, 2:, 1] = 1
    within[:, 2:, 1] = 0.1
    arrays = {"nearest": nearest, "within": within, "between": np.full((2, 4, 3), 0.4)}
    of = results(vectors={"m": Result(arrays, {"primary": [True, True], "layer": 1})})
    assert measured("same-task-nearest-centroid", of) == pytest.approx(0.5)
    assert measured("same-task-distance", of) == pytest.approx(0.25)


def test_a_relation_names_itself_when_its_word_is_the_likeliest_of_all_relations() -> None:
    logits = np.array([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [0.0, 1.0, 2.0], [0.0, 0.0, 5.0]])[:3]
    of = results(decoded={"m": Result({"names": logits}, {})})
    assert measured("decoded-tokens-name-the-task", of) == pytest.approx(2 / 3)


def test_several_models_are_not_pooled() -> None:
    result = Result({"zero_shot": np.ones((2, 4))}, {"primary": [True, True]})
    assert claims.CLAIMS["zero-shot-baseline"](results(accuracy={"a": result, "b": result})) is None


def test_grouping_is_what_loops_over_vectors_give() -> None:
    states = np.random.default_rng(0).normal(size=(3, 5, 4)) + np.array(
        [[[2, 0, 0, 0]], [[0, 1, 0, 0]], [[0, 0, 1, 1]]]
    )

    def cosine(u: np.ndarray, v: np.ndarray) -> float:
        return float(u @ v / np.sqrt((u @ u) * (v @ v)))

    found = grouping(states)
    for task in range(3):
        for at in range(5):
            mine = states[task, at]
            same = [1 - cosine(mine, states[task, b]) for b in range(5) if b != at]
            other = [1 - cosine(mine, states[b, c]) for b in range(3) if b != task for c in range(5)]
            centroids = [np.mean([states[b, c] for c in range(5) if (b, c) != (task, at)], axis=0) for b in range(3)]
            nearest = max(range(3), key=lambda b: cosine(mine, centroids[b]))
            assert found.within[task, at] == pytest.approx(np.mean(same))
            assert found.between[task, at] == pytest.approx(np.mean(other))
            assert found.nearest[task, at] == (nearest == task)
    assert 0 < found.nearest.mean() < 1


def test_equal_vectors_of_all_tasks_make_no_groups() -> None:
    states = np.repeat(np.random.default_rng(1).normal(size=(1, 6, 8)), 4, axis=0)
    assert grouping(states).nearest.mean() < 0.5
    with pytest.raises(ValueError, match="1 tasks with 6 vectors each: expected at least 2 of both"):
        grouping(states[:1])


def test_principal_components_keep_the_distances_of_what_lies_in_a_plane() -> None:
    generator = np.random.default_rng(2)
    plane = generator.normal(size=(3, 4, 2)) * np.array([3.0, 1.0])
    basis, _ = np.linalg.qr(generator.normal(size=(7, 2)))
    points, variance = principal_components(plane @ basis.T + 5)
    flat, expected = points.reshape(-1, 2), plane.reshape(-1, 2)
    np.testing.assert_allclose(
        np.linalg.norm(flat[:, None] - flat, axis=-1), np.linalg.norm(expected[:, None] - expected, axis=-1), atol=1e-9
    )
    assert variance.sum() == pytest.approx(1)
    assert variance[0] == pytest.approx(np.linalg.eigvalsh(np.cov(expected.T))[1] / np.trace(np.cov(expected.T)))


def test_wilsons_interval_is_that_of_the_scores() -> None:
    right = np.stack([share(0.0), share(0.35), share(1.0)])
    low, high = Scores(torch.tensor(right).T, ("task",), ((0, 1, 2),)).interval()
    mean = right.mean(axis=1)
    np.testing.assert_allclose(wilson(right.astype(float)), [mean - low.numpy(), high.numpy() - mean], atol=1e-4)


def relation(name: str, seed: int, folder: Path) -> None:
    """A task over NAMES with four answers, so that random predictions are right now and then."""
    outputs = random.Random(seed).choices(NAMES[:4], k=len(NAMES))
    pairs = [{"input": a, "output": b} for a, b in zip(NAMES, outputs, strict=True)]
    (folder / f"{name}.json").write_text(json.dumps(pairs))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two relations over the same 30 words, and a task that is too short to be shown."""
    folder = tmp_path_factory.mktemp("data")
    for seed, name in enumerate(("first", "second")):
        relation(name, seed, folder)
    (folder / "short.json").write_text(json.dumps([{"input": "w1", "output": "w2"}]))
    return folder


def entries_of(data: Path, tokenizer: Tokenizer) -> tuple[list[Entry], dict[str, str]]:
    tasks = [(task, "data", True) for task in load_tasks(data).values()]
    return prompts.entries(tasks, tokenizer, shots=SHOTS, seed=0)


def test_what_gives_a_vector_never_holds_what_is_asked_for(data: Path) -> None:
    entries, skipped = entries_of(data, Words(set(NAMES)))
    assert [entry.name for entry in entries] == ["first", "second"]
    assert skipped["short"].startswith("1 of 1 pairs in the tokenizer's words, expected at least 18 for 5")
    template = prompts.template_of(ROOT)
    for entry in entries:
        parts = (entry.pool.pairs, entry.chosen_on.pairs, entry.scored_on.pairs)
        assert sorted(pair.input for part in parts for pair in part) == sorted(NAMES)
        shown = prompts.shown(entry, entry.scored_on, template, shots=SHOTS, n=20, seed=0)
        for at, prompt in enumerate(shown.in_context):
            dummies = shown.dummies[2 * at : 2 * at + 2]
            asked = {dummy.query for dummy in dummies}
            assert len(asked) == 2
            assert all(dummy.demonstrations == prompt.demonstrations for dummy in dummies)
            assert not asked & set(prompt.demonstrations)
            assert {*asked, *prompt.demonstrations} <= set(entry.pool.pairs)
            assert prompt.query in entry.scored_on.pairs
            assert shown.zero_shot[at].query == shown.shuffled[at].query == prompt.query
            lines = [f"{pair.input} -> {pair.output}\n" for pair in prompt.demonstrations]
            assert dummies[1].text == "".join(lines) + f"{dummies[1].query.input} ->"
            assert shown.zero_shot[at].text == f"{prompt.query.input} ->"


def test_in_a_conflict_both_prompts_ask_for_the_same_and_neither_shows_it(data: Path) -> None:
    entries, _ = entries_of(data, Words(set(NAMES)))
    assert [(a.name, b.name) for a, b in prompts.conflicting(entries)] == [("first", "second"), ("second", "first")]
    template = prompts.template_of(ROOT)
    patched, prompt = entries
    ours, theirs = prompts.shared_queries(patched, prompt)
    kept = [
        prompts.shown(entry, queries, template, shots=SHOTS, n=25, seed=3)
        for entry, queries in ((patched, ours), (prompt, theirs))
    ]
    for a, b in zip(kept[0].zero_shot, kept[1].zero_shot, strict=True):
        assert a.query.input == b.query.input
        assert a.query.output != b.query.output
        used = {pair.input for entry in entries for pair in entry.pool.pairs}
        assert a.query.input not in used | {pair.input for pair in patched.chosen_on.pairs}


def test_words_that_the_tokenizer_lacks_are_left_out(data: Path) -> None:
    with pytest.raises(TaskError, match=r"no task can be shown: first has \d+ of 30 pairs in the tokenizer's words"):
        entries_of(data, Words(set(NAMES[:10])))


@pytest.fixture(scope="module", params=["llama", "gptj"])
def reference(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModelReference:
    """A random network in a Hugging Face folder, with a tokenizer that has every word of the tasks."""
    from transformers import AutoConfig, AutoModelForCausalLM

    name = request.param
    folder = tmp_path_factory.mktemp("models") / name
    tasks = [load_task(ROOT / path) for path in prompts.DATA if "/tasks/" in path]
    texts = [text for task in tasks for pair in task.pairs for text in (pair.input, pair.output)]
    tokenizer = words.build([*NAMES, "->\n", *texts])
    vocabulary = {"vocab_size": tokenizer.get_vocab_size(), "bos_token_id": 0, "eos_token_id": 0}
    shape = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 128}
    other = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 128}
    config = AutoConfig.for_model(name, **(other if name == "gptj" else shape), **vocabulary, **SIZES[name])
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
        # so that the answers of the small tasks come out, and there is something to compare
        output = network.get_output_embeddings()
        output.weight[[token for word in NAMES[:4] for token in tokenizer.encode(word).ids]] *= 10
    network.save_pretrained(folder)
    words.save(tokenizer, folder, n_ctx=128)
    return ModelReference(name, "folder", str(folder), "0" * 64)


def run_stages(
    reference: ModelReference, monkeypatch: pytest.MonkeyPatch, data: Path | None, trials: bench.Trials = FEW
) -> Results:
    tier = "paper"
    monkeypatch.setattr(bench, "TRIALS", {tier: trials})
    job = Job(
        root=ROOT,
        tier=tier,
        seed=0,
        device="cpu",
        dtype="float32",
        models=(reference,),
        inputs=Results(tier, 0, {}),
        one_model=reference,
        data=data,
    )
    done: dict[str, dict[str, Result]] = {}
    for stage in experiment.STAGES:
        needed = {name: done[name] for name in stage.needs}
        done[stage.name] = {reference.name: stage.function(dataclasses.replace(job, inputs=Results(tier, 0, needed)))}
    return Results(tier, 0, done)


class Plain:
    """The model by plain hooks, one prompt at a time."""

    def __init__(self, reference: ModelReference) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.network: Any = AutoModelForCausalLM.from_pretrained(reference.location).eval()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(reference.location)
        self.blocks = self.network.transformer.h if reference.name == "gptj" else self.network.model.layers

    @torch.no_grad()
    def run(self, text: str, layer: int = 0, state: torch.Tensor | None = None) -> tuple[int, torch.Tensor]:
        """The most likely token, and the stream [layer, d_model] at the last token, with a state put in."""
        seen: list[torch.Tensor] = []

        def hook(at: int, output: Any) -> Any:
            value = (output[0] if isinstance(output, tuple) else output).clone()
            if state is not None and at == layer:
                value[0, -1] = state
            seen.append(value[0, -1])
            return (value, *output[1:]) if isinstance(output, tuple) else value

        handles = [
            block.register_forward_hook(lambda module, args, output, at=at: hook(at, output))
            for at, block in enumerate(self.blocks)
        ]
        tokens = [0, *self.tokenizer.encode(text, add_special_tokens=False)]
        logits = self.network(torch.tensor([tokens])).logits[0, -1]
        for handle in handles:
            handle.remove()
        return int(logits.argmax()), torch.stack(seen)

    def answer(self, output: str) -> int:
        return int(self.tokenizer.encode(output, add_special_tokens=False)[0])

    def patched(self, shown: list[ICLPrompt], states: list[torch.Tensor]) -> np.ndarray:
        """Predictions [prompt, layer]."""
        return np.array(
            [
                [self.run(prompt.text, layer, state[layer])[0] for layer in range(len(self.blocks))]
                for prompt, state in zip(shown, states, strict=True)
            ]
        )


def test_the_stages_are_what_plain_hooks_give(
    reference: ModelReference, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = run_stages(reference, monkeypatch, data)
    found = {stage: of.of(stage)[reference.name] for stage in ("accuracy", "conflict", "vectors")}
    plain, template = Plain(reference), prompts.template_of(ROOT)
    entries, _ = entries_of(data, bench_tokenizer(plain))
    assert found["accuracy"].facts["tasks"] == ["first", "second"]
    assert "short" in found["accuracy"].facts["skipped"]
    some_right = False
    for at, entry in enumerate(entries):
        shown = prompts.shown(entry, entry.scored_on, template, shots=SHOTS, n=FEW.scored_on, seed=0)
        answers = np.array([plain.answer(prompt.query.output) for prompt in shown.in_context])
        streams = [plain.run(dummy.text)[1] for dummy in shown.dummies]
        states = [(a + b) / 2 for a, b in zip(streams[::2], streams[1::2], strict=True)]
        expected = {
            "by_layer": plain.patched(shown.zero_shot, states) == answers[:, None],
            "in_context": np.array([plain.run(prompt.text)[0] for prompt in shown.in_context]) == answers,
            "shuffled": np.array([plain.run(prompt.text)[0] for prompt in shown.shuffled]) == answers,
            "zero_shot": np.array([plain.run(prompt.text)[0] for prompt in shown.zero_shot]) == answers,
        }
        asked = np.array([plain.answer(dummy.query.output) for dummy in shown.dummies[::2]])
        expected["dummy"] = plain.patched(shown.zero_shot, streams[::2]) == asked[:, None]
        for name, right in expected.items():
            np.testing.assert_array_equal(found["accuracy"][name][at], right, err_msg=name)
            some_right |= bool(right.any())
    assert some_right
    patched, prompt = entries
    ours, theirs = prompts.shared_queries(patched, prompt)
    of_patched, of_prompt = (
        prompts.shown(entry, queries, template, shots=SHOTS, n=FEW.conflict, seed=0)
        for entry, queries in ((patched, ours), (prompt, theirs))
    )
    streams = [plain.run(dummy.text)[1] for dummy in of_patched.dummies]
    states = [(a + b) / 2 for a, b in zip(streams[::2], streams[1::2], strict=True)]
    out = plain.patched(of_prompt.in_context, states)
    for name, shown in (("patched", of_patched), ("prompt", of_prompt)):
        answers = np.array([plain.answer(each.query.output) for each in shown.zero_shot])
        np.testing.assert_array_equal(found["conflict"][name][0], out == answers[:, None])
    kept = found["vectors"]
    assert kept["states"].shape == (2, FEW.vectors, 32)
    np.testing.assert_array_equal(kept["nearest"][:, :, 1], grouping_at(reference, plain, entries, 1))


def bench_tokenizer(plain: Plain) -> Tokenizer:
    """The model's tokenizer as the package has it."""
    from interventions.tokenizing import Words

    return Words(plain.tokenizer)


def grouping_at(reference: ModelReference, plain: Plain, entries: list[Entry], layer: int) -> np.ndarray:
    from function_vectors import icl_prompts

    template = prompts.template_of(ROOT)
    shown = [icl_prompts(entry.task, template, shots=SHOTS, n=FEW.vectors, seed=0) for entry in entries]
    states = [[plain.run(prompt.text)[1][layer].numpy() for prompt in of] for of in shown]
    return grouping(np.array(states)).nearest


def test_the_paper_tier_runs_on_its_own_tasks(
    reference: ModelReference, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    of = run_stages(reference, monkeypatch, None, FEWEST)
    facts = of.of("accuracy")[reference.name].facts
    assert set(facts["kinds"]) == set(prompts.KINDS)
    assert all(facts["primary"])
    rows = {row.claim: row for row in evaluate(PAPER, claims.CLAIMS, of)}
    assert set(rows) == {claim.id for claim in PAPER.claims if "paper" in claim.accept}
    # a random model shows nothing of what the paper claims
    assert rows["zero-shot-baseline"].verdict == "supported"
    assert rows["zero-shot-baseline"].n == len(facts["tasks"])
    assert rows["conflict-patched-wins"].verdict == rows["conflict-without-vector"].verdict == "refuted"
    drawn = draw(FIGURES, of, tmp_path)
    assert [figure.name for figure in drawn] == list(FIGURES)


def test_a_single_task_is_judged_over_its_prompts(
    reference: ModelReference, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    relation("alone", 5, tmp_path / "data")
    of = run_stages(reference, monkeypatch, tmp_path / "data")
    rows = {row.claim: row for row in evaluate(PAPER, claims.CLAIMS, of)}
    assert (rows["zero-shot-baseline"].n, rows["zero-shot-baseline"].over) == (FEW.scored_on, "prompts")
    assert rows["conflict-patched-wins"].verdict == rows["same-task-distance"].verdict == "not run"
    with house_style():
        drawn = [name for name, figure in FIGURES.items() if figure(of) is not None]
    assert drawn == [name for name in FIGURES if name not in ("conflicting", "robustness")]


def test_where_no_layer_helps_there_is_no_best_one() -> None:
    task = Task("t", ())
    entries = [Entry(task, "k", primary, task, task, task) for primary in (True, False)]

    def layers(*accuracy: float) -> Scores:
        return Scores(torch.tensor(np.stack([share(p) for p in accuracy], axis=1)), ("layer",), ((0, 1, 2),))

    def best(primary: Scores) -> int | None:
        without = [Scores(torch.tensor(share(0.2)))] * 2
        return experiment.best_layer(entries, {"chosen_on": [primary, layers(0, 0, 1)], "chosen_on_zero_shot": without})

    assert best(layers(0.1, 0.6, 0.5)) == 1
    assert best(layers(0.1, 0.2, 0.0)) is None


def test_the_experiment_takes_data_and_names_shipped_files_and_models() -> None:
    assert load_experiment(FOLDER).takes_data
    assert all((ROOT / path).exists() for path in prompts.DATA)
    assert set(PAPER.tier("tiny").models) <= set(zoo.NAMES)
