"""The replication of Todd et al. 2024: its measures on results made by hand, and its stages on small models."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from replications.function_vectors import claims, intervals, measures, prompts, score_stages, setting, vector_stages
from replications.function_vectors.figures import FIGURES
from replications.function_vectors.vectors import AVERAGE, DIFFERENCES, VECTOR

import zoo
from function_vectors import Pair, Task, TaskError, load_task, load_templates
from reprise import Job, Result, Results, bootstrap
from reprise.claims import evaluate
from reprise.models import ModelReference
from reprise.plotting import house_style
from zoo import words
from zoo.in_context_text import SILENT

from .function_vector_runs import DATA, FAILED, FEW, PAPER, PASSED, gate_result, job, measured, results, run


def test_the_effect_of_few_heads() -> None:
    effects = np.zeros((3, 2, 4))
    effects[:, 1, 3], effects[:, 0, 0], effects[:, 0, 1], effects[:, 1, 1] = 0.6, 0.2, 0.2, -5
    gate = gate_result({"a": PASSED, "n": FAILED})
    of = results(effects=Result({"effects": effects}), gate=gate)
    assert measured("few-heads-carry", of).estimate == pytest.approx(0.8)  # two of eight heads
    right = np.array([[0, 1, 1, 1], [0, 0, 1, 1]], dtype=float)
    heads = Result({"zero_shot.largest": right}, {"ks": [1, 2, 4, 8], "n_heads": 8})
    assert measured("few-heads-suffice", results(heads=heads, gate=gate)).estimate == pytest.approx(0.5)


def layers_result(**arrays: list[list[float]]) -> Result:
    names = {"vector": VECTOR, "average": AVERAGE, "a": DIFFERENCES[0], "b": DIFFERENCES[1], "c": DIFFERENCES[2]}
    found = {}
    for key, values in arrays.items():
        condition, _, label = key.rpartition("__")
        found[f"{condition}.{names.get(label, label)}"] = np.array(values, dtype=float)
    return Result(found, {"layer": 1})


def test_baselines_are_compared_in_the_layer_that_is_best_for_them_on_other_queries() -> None:
    nothing = [[0.0, 0.0], [0.0, 0.0]]
    layers = layers_result(
        chosen__vector=[[0, 1], [0, 1]],
        chosen__a=nothing,
        chosen__b=[[1, 0], [1, 0]],
        chosen__c=[[0, 1], [0, 0]],
        zero_shot__vector=[[0, 1], [0, 1]],
        zero_shot__a=[[1, 1], [1, 1]],  # better where it counts, but not where it was chosen
        zero_shot__b=[[1, 1], [0, 1]],
        zero_shot__c=nothing,
    )
    gate = gate_result({"a": PASSED, "n": PASSED}, in_context=[1, 0, 1, 1])
    difference = measured("beats-mean-difference", results(layers=layers, gate=gate))
    assert (difference.estimate, difference.n, difference.over) == (0.5, 2, "queries of 1 tasks")


def test_the_paper_tier_counts_queries_that_are_answered_with_examples() -> None:
    gate = gate_result(
        {"a": PASSED, "b": PASSED, "n": PASSED},
        task=[0, 0, 1, 1, 0, 0, 1, 1, 2, 2],
        fold=[0, 0, 0, 0, 1, 1, 1, 1, 0, 0],  # the gate alone has a second fold
        in_context=[1, 1, 0, 1, 0, 0, 0, 0, 1, 1],
    )
    layers = layers_result(zero_shot__vector=[[0, 1], [0, 1], [0, 0], [0, 0]])
    assert measured("zero-shot-with-vector", results(layers=layers, gate=gate)).estimate == 0.5
    at_paper = measured("zero-shot-with-vector", results("paper", layers=layers, gate=gate))
    assert (at_paper.estimate, at_paper.n) == (pytest.approx(2 / 3), 3)


def test_portability_leaves_the_first_template_out_and_tells_trained_from_held_out() -> None:
    facts: dict[str, Any] = {"trained": [True, True, True, False, False]}
    vector = np.array([[1.0], [0.6], [0.4], [0.2], [0.0]])
    of = results(
        templates=Result({"vector": vector, "plain": np.zeros((5, 1))}, facts), gate=gate_result({"a": PASSED, "n": []})
    )
    assert measured("portable", of).estimate == pytest.approx(0.5)
    assert measured("portable-held-out", of).estimate == pytest.approx(0.1)
    facts["trained"] = None
    assert measured("portable", of).estimate == pytest.approx(0.3)


def test_bands_are_bootstrap_intervals() -> None:
    values = np.random.default_rng(3).random((30, 2))
    centre, low, high = intervals.band(values, seed=5)
    for column in range(2):
        expected = bootstrap(np.mean, values[:, column], over="", seed=5)
        assert centre[column] == pytest.approx(expected.estimate)
        assert low[column] == pytest.approx(expected.low)
        assert high[column] == pytest.approx(expected.high)


def test_lists_ask_for_the_same_words_in_four_ways() -> None:
    task = Task("f", tuple(Pair(f"w{i}", f"W{i}") for i in range(6)))
    tasks = prompts.list_tasks(task, n=40, seed=1)
    lists = [pair.input.split(", ") for pair in tasks["first_copy"].pairs]
    assert len({tuple(words) for words in lists}) == 40
    answers = {part: [pair.output for pair in of.pairs] for part, of in tasks.items()}
    assert answers["first_copy"] == [words[0] for words in lists]
    assert answers["last_copy"] == [words[2] for words in lists]
    assert answers["first_f"] == [words[0].upper() for words in lists]
    assert answers["last_f"] == [words[2].upper() for words in lists]


NOBODY = ModelReference("nobody", "folder", "nowhere", "0" * 64)


def test_the_tasks_of_each_tier_and_of_a_folder(tmp_path: Path) -> None:
    tiny, paper = (setting.tasks_of(job(NOBODY, tier)) for tier in ("tiny", "paper"))
    assert sorted(tiny.primary) == sorted(path.stem for path in (DATA / "town").glob("*.json"))
    assert tuple(paper.primary) == setting.SIX
    assert set(paper.natural) == set(tiny.natural) - set(setting.SIX)
    shutil.copy(DATA / "tasks" / "antonym.json", tmp_path)
    given = setting.tasks_of(job(NOBODY, "paper", data=tmp_path))
    assert (list(given.primary), dict(given.natural)) == (["antonym"], {})
    (tmp_path / "short.json").write_text('[{"input": "a", "output": "b"}]')
    with pytest.raises(TaskError, match=r"short\.json:1: the last of 1 pairs, expected at least 22"):
        setting.tasks_of(job(NOBODY, "paper", data=tmp_path))


def tokenizer_folder(folder: Path) -> None:
    """A byte-level tokenizer of 500 tokens, so that many answers have several."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator([path.read_text() for path in (DATA / "tasks").glob("*.json")], trainer)
    words.save(tokenizer, folder, n_ctx=256)


def random_model(kind: str, folder: Path) -> ModelReference:
    import transformers

    shape = {"vocab_size": 500, "bos_token_id": 0, "eos_token_id": 0}
    usual = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    torch.manual_seed(0)
    if kind == "gptj":
        config = transformers.GPTJConfig(n_layer=2, n_head=2, n_embd=16, rotary_dim=4, n_positions=256, **shape)
        network = transformers.GPTJForCausalLM(config)
    elif kind == "gpt_neox":
        config = transformers.GPTNeoXConfig(max_position_embeddings=256, **usual, **shape)
        network = transformers.GPTNeoXForCausalLM(config)
    else:
        config = transformers.LlamaConfig(max_position_embeddings=256, num_key_value_heads=1, **usual, **shape)
        network = transformers.LlamaForCausalLM(config)
    network.save_pretrained(folder)
    tokenizer_folder(folder)
    return ModelReference(folder.name, "folder", str(folder), "1" * 64)


@pytest.mark.parametrize(
    ("kind", "primary"), [("gptj", setting.SIX), ("gpt_neox", ("antonym", "capitalize")), ("llama", None)]
)
def test_the_paper_tier_runs_on_hugging_face_folders(
    kind: str, primary: tuple[str, ...] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The paper's six tasks, two of them, and a folder of data in which the gate has all tasks."""
    monkeypatch.setitem(setting.TRIALS, "paper", FEW)
    monkeypatch.setattr(setting, "HEADS_OF_PAPER", {("gptj", 2): 2})
    monkeypatch.setattr(setting, "SIX", primary)
    monkeypatch.setattr(vector_stages, "DOES", 0.0)
    data = tmp_path / "root" / "shared" / "data"
    (data / "tasks").mkdir(parents=True)
    names = [*(primary or ("antonym", "singular_plural")), "synonym", "landmark_country"]
    for name in names:
        shutil.copy(DATA / "tasks" / f"{name}.json", data / "tasks")
    every = json.loads((DATA / "templates.json").read_text())
    (data / "templates.json").write_text(json.dumps(every[:4]))
    of = run(
        random_model(kind, tmp_path / kind),
        "paper",
        root=tmp_path / "root",
        data=None if primary else data / "tasks",
    )
    means, gate, selected = (of.of(stage)[kind] for stage in ("means", "gate", "selection"))
    assert means.facts["groups"].count("primary") == len(primary or names)
    assert sorted(gate.facts["tasks"]) == sorted(names)
    assert selected.facts["k_from_paper"] is (kind == "gptj")
    assert selected.facts["k"] == 2 or kind != "gptj"
    assert set(of.of("composition")[kind].facts["tasks"]) == set(vector_stages.COMPOSED) & set(names)
    rows = {row.claim: row for row in evaluate(PAPER, claims.CLAIMS, of)}
    assert set(rows) == {claim.id for claim in PAPER.claims if "paper" in claim.accept}
    # Random models show nothing of what the paper claims.
    for claim in ("gate-in-context", "gate-answer-set", "gate-per-task"):
        assert rows[claim].verdict == "refuted"
    # A second computation of what the package judged.
    assert rows["gate-passed"].estimate == np.mean([row[-1] for row in gate.facts["together"]])
    assert rows["gate-passed"].verdict != "supported"
    with house_style():
        drawn = {name: draw(of) for name, draw in FIGURES.items()}
    plt.close("all")
    assert all(figure is not None for figure in drawn.values())


def test_the_stages_find_what_plain_hooks_find_on_the_shipped_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mean z, the vector and its effect, one prompt at a time, from the network's own modules."""
    monkeypatch.setitem(setting.TRIALS, "tiny", FEW)
    for name in ("friend_of", "teacher_of"):
        shutil.copy(DATA / "town" / f"{name}.json", tmp_path)
    folder = zoo.folder("relations-4l")
    reference = ModelReference("relations-4l", "shipped", str(folder), "2" * 64)
    of = run(reference, "tiny", data=tmp_path, only=("means", "effects", "selection", "layers"))
    means, selected, layers = (of.of(stage)["relations-4l"] for stage in ("means", "selection", "layers"))
    plain = setting.settle(job(reference, "tiny", data=tmp_path))
    network: Any = plain.backed.model.network
    task = plain.tasks["teacher_of"]
    assert {pair.input for pair in task.chosen_on.pairs}.isdisjoint(pair.input for pair in task.scored_on.pairs)
    seen: list[torch.Tensor] = []
    hooks = [
        block.attn.c_proj.register_forward_pre_hook(lambda _, args: seen.append(args[0][0, -1]))
        for block in network.transformer.h
    ]
    with torch.no_grad():
        for row in plain.prompts.encoded(task.chosen_on, shots=2, n=4).prompts.tokens:
            network(row[None])
    for hook in hooks:
        hook.remove()
    z = torch.stack(seen).view(4, 4, 4, 32).mean(dim=0)
    torch.testing.assert_close(torch.from_numpy(means["z"][1]), z, rtol=1e-4, atol=1e-5)
    vector = torch.zeros(128)
    for layer, head in selected.facts["order"][: selected.facts["k"]]:
        rows = network.transformer.h[layer].attn.c_proj.weight[32 * head : 32 * head + 32]
        vector += z[layer, head] @ rows.detach()
    block = network.transformer.h[selected.facts["layer"]]
    hook = block.register_forward_hook(
        lambda _, __, output: output + vector * (torch.arange(output.shape[1]) == output.shape[1] - 1)[:, None]
    )
    zero_shot = plain.prompts.encoded(task.scored_on, shots=0)
    with torch.no_grad():
        found = [int(network(row[None]).logits[0, -1].argmax()) for row in zero_shot.prompts.tokens]
    hook.remove()
    expected = np.array(found) == zero_shot.first.numpy()
    own = layers["zero_shot.task"] == 1
    assert (layers[f"zero_shot.{VECTOR}"][own][:, selected.facts["layer"]] == expected).all()
    assert expected.any()


def test_the_model_for_lists_is_measured_for_composition_alone_beside_another_model() -> None:
    called = []

    def stage(job: Job) -> Result:
        called.append(job.model.name)
        return Result({}, {"done": True})

    main, lists = (ModelReference(name, "shipped", name, "2" * 64) for name in ("relations-4l", setting.LISTS_MODEL))
    both, alone = job(main, "tiny"), job(lists, "tiny")
    both = replace(both, models=(main, lists))
    assert setting.main_model_only(stage)(replace(both, one_model=main)).facts == {"done": True}
    assert "composition" in setting.main_model_only(stage)(replace(both, one_model=lists)).facts["left_out"]
    assert setting.main_model_only(stage)(alone).facts == {"done": True}
    assert called == ["relations-4l", setting.LISTS_MODEL]
    stages = (score_stages.layers, score_stages.heads, score_stages.table, vector_stages.decoding)
    for left_out in (*stages, vector_stages.templates):
        assert left_out(replace(both, one_model=lists)).arrays == {}
    first, second = Result({}, {"of": 1}), Result({}, {"of": 2})
    found = {"relations-4l": first, setting.LISTS_MODEL: second}
    assert measures.of_lists(Results("tiny", 0, {"composition": found})) is second
    assert measures.of_lists(Results("tiny", 0, {"composition": {"a": first}})) is first


def test_sentences_name_no_relation_and_end_before_the_answer() -> None:
    import interventions

    model = interventions.load(zoo.folder("relations-4l"))
    assert model.tokenizer is not None
    templates = load_templates(DATA / "templates.json")
    prompter = prompts.Prompter(model.tokenizer, model.bos, model.n_ctx, templates, scored=3, seed=0)
    task = load_task(DATA / "town" / "friend_of.json")
    encoded = prompter.sentences(task)
    texts = [model.tokenizer.decode(row.tolist()) for row in encoded.prompts.tokens]
    answers = [model.tokenizer.decode([token]) for token in encoded.first.tolist()]
    zero_shot = prompter.encoded(task, shots=0)
    assert torch.equal(encoded.first, zero_shot.first.repeat(len(SILENT)))
    known = {pair.input: pair.output for pair in task.pairs}
    for text, answer in zip(texts, answers, strict=True):
        assert "friend" not in text
        assert answer not in text.split()
        assert [known[word] for word in text.split() if word in known] == [answer]


def test_the_tiny_tier_is_of_a_shipped_model() -> None:
    assert set(PAPER.tier("tiny").models) <= set(zoo.NAMES)
