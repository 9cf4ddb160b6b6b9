"""The stages of Rimsky et al. 2024 on small random models, against plain hooks that share no code with the packages."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from replications.contrastive_activation_addition import (
    claims,
    data_files,
    experiment,
    extraction_stages,
    reading_stages,
    setting,
    stories,
)
from replications.contrastive_activation_addition.behaviours import Asked, Behaviour
from replications.contrastive_activation_addition.choice_stages import constant
from replications.contrastive_activation_addition.data_files import DataError, Template
from replications.contrastive_activation_addition.figures import FIGURES
from replications.contrastive_activation_addition.setting import Trials
from torch import Tensor

import interventions
import zoo
from reprise import Job, Result, Results
from reprise.claims import evaluate
from reprise.drawing import draw
from reprise.experiment import load_experiment
from reprise.models import ModelReference
from reprise.paper import load
from zoo import words
from zoo.stories import vocabulary

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "replications" / "contrastive_activation_addition"
PAPER = load(FOLDER / "paper.toml")
N_LAYERS, D_MODEL = 3, 32
FEW = Trials(
    extracted_from=6,
    chosen_on=3,
    scored_on=3,
    gated_on=4,
    unrelated=4,
    multipliers=(-1.0, 1.0, 2.0),
    open_multipliers=(-1.0, 1.0),
    reading_multipliers=(-1.0, 1.0, 2.0),
    random=2,
    pictured=16,
    prompts=3,
    samples=1,
    new_tokens=4,
    temperature=0.0,
    pairs_of_layers_up_to=8,
    batch=8,
)


def questions(name: str, n: int) -> list[dict[str, str]]:
    return [
        {
            "question": f"{name} w{number} ?\n\nChoices:\n(A) yes w{number % 5}\n(B) no w{number % 7}",
            "answer_matching_behavior": "(A)" if number % 3 else "(B)",
            "answer_not_matching_behavior": "(B)" if number % 3 else "(A)",
        }
        for number in range(n)
    ]


FILES: dict[str, Any] = {
    "corrigible": questions("corrigible", 16),
    "sycophancy": questions("sycophancy", 14),
    "sycophancy.open": {"questions": ["w1 w2 ?", "w3 ?"], "matching": ["w1", "yes"], "contrary": ["w2", "no"]},
    "unrelated/mmlu": questions("mmlu", 6),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("questions")
    for name, content in FILES.items():
        path = folder / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    return folder


def saved(folder: Path, config: Any, tokenizer: Any) -> ModelReference:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.25)
    network.save_pretrained(folder)
    words.save(tokenizer, folder, n_ctx=192)
    return ModelReference(folder.name, "folder", str(folder), "0" * 64)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> ModelReference:
    """A random Llama with grouped queries, whose name says that it is a chat model."""
    from transformers import LlamaConfig

    texts = [Template.of("chat").prompt(entry["question"]) + " (A" for entry in questions("q", 16)]
    tokenizer = words.build([*texts, "corrigible sycophancy mmlu B"])
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=D_MODEL,
        intermediate_size=48,
        num_hidden_layers=N_LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=192,
        bos_token_id=0,
        eos_token_id=0,
    )
    return saved(tmp_path_factory.mktemp("models") / "llama-chat", config, tokenizer)


@pytest.fixture(scope="module")
def storyteller(tmp_path_factory: pytest.TempPathFactory) -> ModelReference:
    """A random GPT-2 with the words of the stories."""
    from transformers import GPT2Config

    tokenizer = vocabulary()
    sizes = {"n_embd": D_MODEL, "n_layer": N_LAYERS, "n_head": 4, "n_positions": 192}
    config = GPT2Config(vocab_size=tokenizer.get_vocab_size(), bos_token_id=0, eos_token_id=0, **sizes)
    return saved(tmp_path_factory.mktemp("models") / "stories", config, tokenizer)


def run(reference: ModelReference, tier: str, data: Path | None, monkeypatch: pytest.MonkeyPatch) -> Results:
    monkeypatch.setattr(setting, "TRIALS", {tier: FEW})
    monkeypatch.setattr(stories, "BEHAVIOURS", ("kind", "happy"))
    done: dict[str, dict[str, Result]] = {}
    for stage in experiment.STAGES:
        inputs = Results(tier, 0, {name: done[name] for name in stage.needs})
        done[stage.name] = {reference.name: stage.function(job(reference, tier, data, inputs))}
    return Results(tier, 0, done)


def job(reference: ModelReference, tier: str, data: Path | None, inputs: Results | None = None) -> Job:
    return Job(
        ROOT, tier, 0, "cpu", "float32", (reference,), inputs or Results(tier, 0, {}), one_model=reference, data=data
    )


class Plain:
    """The model by plain hooks, one text at a time, without padding or cache."""

    def __init__(self, reference: ModelReference) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.network: Any = AutoModelForCausalLM.from_pretrained(reference.location).eval()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(reference.location)
        self.blocks = self.network.transformer.h if hasattr(self.network, "transformer") else self.network.model.layers

    def tokens(self, text: str) -> list[int]:
        return [0, *self.tokenizer.encode(text, add_special_tokens=False)]

    @torch.no_grad()
    def run(
        self, tokens: list[int], added: Tensor | None = None, layer: int = 0, places: slice = slice(None)
    ) -> tuple[Tensor, Tensor]:
        """The logits behind the last token, and the stream behind each layer there."""
        seen: list[Tensor] = []

        def hook(at: int) -> Callable[[Any, Any, Any], Any]:
            def write(module: Any, args: Any, output: Any) -> Any:
                x = (output[0] if isinstance(output, tuple) else output).clone()
                if added is not None and at == layer:
                    x[0, places] += added
                seen.append(x[0, -1])
                return (x, *output[1:]) if isinstance(output, tuple) else x

            return write

        handles = [block.register_forward_hook(hook(at)) for at, block in enumerate(self.blocks)]
        logits = self.network(torch.tensor([tokens]), use_cache=False).logits[0, -1]
        for handle in handles:
            handle.remove()
        return logits, torch.stack(seen)

    def p_match(self, asked: Asked, added: Tensor | None = None, layer: int = 0, *, everywhere: bool = False) -> float:
        """The vector acts from the last token of the prompt on, the opening included; or at all tokens."""
        start = 0 if everywhere else len(self.tokens(asked.prompt)) - 1
        logits, _ = self.run(self.tokens(asked.prompt + asked.opening), added, layer, slice(start, None))
        pair = logits[[self.tokens(letter)[1] for letter in asked.letters]].double().softmax(dim=0)
        return float(pair[asked.matching])

    def vectors(self, behaviours: Sequence[Behaviour]) -> Tensor:
        """Mean differences at the letter [behaviour, layer, d_model], with the mean of their norms in each layer."""
        means = []
        for behaviour in behaviours:
            states = [
                [self.run(self.tokens(asked.question.text + letter))[1] for letter in asked.letters]
                for asked in behaviour.extracted_from
            ]
            both = [(s[a.matching] - s[1 - a.matching]) for a, s in zip(behaviour.extracted_from, states, strict=True)]
            means.append(torch.stack(both).double().mean(dim=0))
        raw = torch.stack(means)
        norms = raw.norm(dim=-1, keepdim=True)
        scaled: Tensor = raw / norms * norms.mean(dim=0)
        return scaled.float()

    def other_reading(self, behaviour: Behaviour, reading: str) -> Tensor:
        """The direction [layer, d_model] of the word behind the letter, or of what the texts show, before scaling."""
        sides: list[list[Tensor]] = [[], []]
        for asked in behaviour.extracted_from:
            if reading == "text" and asked.right is not None:
                sides[int(asked.right != asked.matching)].append(self.run(self.tokens(asked.prompt))[1])
            if reading == "option":
                says = [text.split(" ( B ) ") for text in [asked.prompt.split("( A ) ")[1].removesuffix(" answer :")]]
                for at, word in enumerate(says[0]):
                    text = f"{asked.question.text}{asked.letters[at]} ) {word}"
                    sides[int(at != asked.matching)].append(self.run(self.tokens(text))[1])
        one, other = (torch.stack(side).double().mean(dim=0) for side in sides)
        return one - other

    def greedy(self, prompt: str, n: int, added: Tensor, layer: int) -> list[int]:
        tokens = self.tokens(prompt)
        start = len(tokens)
        for _ in range(n):
            tokens.append(int(self.run(tokens, added, layer, slice(start - 1, None))[0].argmax()))
        return tokens[start:]


def of_tiny() -> tuple[Behaviour, ...]:
    return stories.behaviours(extracted_from=6, chosen_on=3, scored_on=3, gated_on=4, prompts=3, seed=0)


@pytest.mark.parametrize("which", ["llama", "storyteller"])
def test_the_stages_are_what_plain_hooks_give(
    which: str, data: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    reference = request.getfixturevalue(which)
    tier, folder = ("paper", data) if which == "llama" else ("tiny", None)
    found = run(reference, tier, folder, monkeypatch)
    of = {stage.name: found.of(stage.name)[reference.name] for stage in experiment.STAGES}
    plain, layer = Plain(reference), of["sweep"].facts["layer"]
    if folder is None:
        every = of_tiny()
    else:
        model, counts = interventions.load(reference.location), {"chosen_on": 3, "scored_on": 3}
        every = data_files.behaviours(folder, model, Template.of(reference.name), seed=0, **counts)
    assert of["sweep"].facts["behaviours"] == [behaviour.name for behaviour in every]

    vectors = plain.vectors(every)
    np.testing.assert_allclose(of["extraction"]["vectors/letter"], vectors, atol=2e-5, rtol=1e-4)
    unit = vectors.double() / vectors.double().norm(dim=-1, keepdim=True)
    np.testing.assert_allclose(of["extraction"]["between_layers"][1], unit[1] @ unit[1].T, atol=1e-4)
    np.testing.assert_allclose(of["extraction"]["between_behaviours"][2], unit[:, 2] @ unit[:, 2].T, atol=1e-4)

    at, behaviour = 1, every[1]
    name, asked = behaviour.name, behaviour.scored_on
    np.testing.assert_allclose(of["sweep"][f"plain/{name}"], [plain.p_match(each) for each in asked], atol=1e-4)
    for where in range(N_LAYERS):
        for place, multiplier in enumerate(FEW.multipliers):
            expected = [plain.p_match(each, multiplier * vectors[at, where], where) for each in asked]
            np.testing.assert_allclose(of["sweep"][f"p/{name}"][where, place], expected, atol=2e-4)
    effects = np.array(
        [
            np.mean(
                [
                    np.mean([plain.p_match(q, sign * vectors[b, where], where) * sign for q in one.chosen_on])
                    for b, one in enumerate(every)
                    for sign in (1.0, -1.0)
                ]
            )
            for where in range(N_LAYERS)
        ]
    )
    assert layer == effects.argmax()

    controls, first = of["controls"], every[0]
    expected = [plain.p_match(each, vectors[1, layer], layer) for each in first.scored_on]
    np.testing.assert_allclose(controls[f"another/{first.name}"][0, 1], expected, atol=2e-4)
    expected = [plain.p_match(each, -vectors[0, layer], N_LAYERS - 1) for each in first.scored_on]
    np.testing.assert_allclose(controls[f"last_layer/{first.name}"][0, 0], expected, atol=2e-4)
    assert controls[f"random/{first.name}"].shape == (2, 2, len(first.scored_on))

    transferred = of["transfer"][f"effect/{name}"]
    expected = [
        plain.p_match(each, vectors[at, 0], 2) - plain.p_match(each, -vectors[at, 0], 2) for each in behaviour.chosen_on
    ]
    np.testing.assert_allclose(transferred[0, 2], expected, atol=2e-4)

    ended = behaviour.open_ended
    assert ended is not None
    texts = of["open_ended"].facts["texts"][name]["+1"]
    for prompt, text in zip(ended.prompts, texts, strict=False):
        tokens = plain.greedy(prompt, FEW.new_tokens, vectors[at, layer], layer)
        cut = tokens[: tokens.index(0)] if 0 in tokens else tokens
        assert plain.tokens(text)[1:] == cut


def test_other_readings_and_places_are_what_plain_hooks_give(
    storyteller: ModelReference, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setting, "TRIALS", {"tiny": FEW})
    monkeypatch.setattr(stories, "BEHAVIOURS", ("kind", "happy"))
    extracted = extraction_stages.extraction(job(storyteller, "tiny", None))
    inputs = Results("tiny", 0, {"extraction": {storyteller.name: extracted}})
    found = reading_stages.readings(job(storyteller, "tiny", None, inputs))
    plain, (kind, happy) = Plain(storyteller), of_tiny()[:: len(of_tiny()) - 1]
    assert found.facts["readings"] == ["letter", "option", "text"]
    norms_of = [np.linalg.norm(extracted[f"vectors/{kind}"][0], axis=-1) for kind in found.facts["readings"]]
    longest = torch.tensor(np.max(norms_of, axis=0)).float()
    for reading in ("option", "text"):
        raw = torch.stack([plain.other_reading(behaviour, reading) for behaviour in (kind, happy)])
        norms = raw.norm(dim=-1, keepdim=True)
        vectors = (raw / norms * norms.mean(dim=0)).float()
        np.testing.assert_allclose(extracted[f"vectors/{reading}"], vectors, atol=3e-5, rtol=1e-4)
        vectors = vectors / vectors.norm(dim=-1, keepdim=True) * longest[None, :, None]
        for layer in range(N_LAYERS):
            up, down = (
                [plain.p_match(each, sign * vectors[1, layer], layer, everywhere=True) for each in happy.chosen_on]
                for sign in (1, -1)
            )
            effect = found[f"effect/{reading}/everywhere/happy"][layer]
            np.testing.assert_allclose(effect, np.array(up) - np.array(down), atol=2e-4)
    means = {
        (reading, positions, layer): np.mean(
            [found[f"effect/{reading}/{positions}/{name}"][layer].mean() for name in ("kind", "happy")]
        )
        for reading in ("letter", "option", "text")
        for positions in ("after the prompt", "everywhere")
        for layer in range(N_LAYERS)
    }
    best = (found.facts["reading"], found.facts["positions"], found.facts["at"])
    assert means[best] == max(means.values())
    at = FEW.multipliers.index(2.0)
    vector = torch.tensor(extracted[f"vectors/{best[0]}"][0, best[2]])
    vector = vector / vector.norm() * longest[best[2]]
    expected = [plain.p_match(each, 2 * vector, best[2], everywhere=best[1] == "everywhere") for each in kind.scored_on]
    np.testing.assert_allclose(found["p/kind"][0, at], expected, atol=3e-4)


@pytest.mark.parametrize("which", ["llama", "storyteller"])
def test_every_claim_is_judged_and_every_figure_is_drawn(
    which: str, data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    reference = request.getfixturevalue(which)
    tier = "paper" if which == "llama" else "tiny"
    of = run(reference, tier, data if tier == "paper" else None, monkeypatch)
    rows = {row.claim: row for row in evaluate(PAPER, claims.CLAIMS, of)}
    assert set(rows) == {claim.id for claim in PAPER.claims if tier in claim.accept}
    not_run = {name for name, row in rows.items() if row.verdict == "not run"}
    if tier == "tiny":
        assert not_run <= {
            "gate-header",
            "transfers",
            "steers-undecided",
            *(name for name in rows if "open-ended" in name or name.startswith("repeated-")),
        }
        # a random model answers nothing, and its vectors do nothing that a random vector would not
        assert rows["gate-behaviour"].verdict == rows["gate-form"].verdict == "refuted"
        assert "behaviours fail the gate" in str(rows["steers"].over)
        assert rows["every-behaviour"].verdict != "supported"
    else:
        numbers = {name for name, row in rows.items() if row.paper_value is not None} - {"every-behaviour"}
        single = {name for name in rows if name.startswith("open-ended")}  # of one behaviour alone there are questions
        assert numbers <= not_run <= numbers | single | {"transfers"}
    drawn = draw(FIGURES, of, tmp_path)
    assert [figure.name for figure in drawn] == [name for name in FIGURES if tier == "tiny" or name != "gate"]


def test_a_folder_with_one_behaviour_and_nothing_else_is_judged_over_its_items(
    llama: ModelReference, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / "refusal.json").write_text(json.dumps(questions("sycophancy", 16)))
    of = run(llama, "paper", folder, monkeypatch)
    rows = {row.claim: row for row in evaluate(PAPER, claims.CLAIMS, of)}
    assert (rows["steers"].n, rows["steers"].over) == (3, "items")
    assert {rows[name].verdict for name in ("behaviours-differ", "unrelated-change", "open-ended")} == {"not run"}
    drawn = [figure.name for figure in draw(FIGURES, of, tmp_path / "figures")]
    absent = {"gate", "off_target", "texts"}
    assert drawn == [name for name in FIGURES if name not in absent and "open_ended" not in name]


def test_a_constant_on_the_logits_is_the_mean_change_that_the_vector_makes() -> None:
    asked = [Asked(str(n), "p", " (", ("A", "B"), 0 if n % 2 else 1) for n in range(6)]
    generator = np.random.default_rng(0)
    before, after = generator.normal(size=6), generator.normal(size=6)  # logit(A) - logit(B)

    def p(logits: np.ndarray) -> np.ndarray:
        signs = np.array([1 if each.matching == 0 else -1 for each in asked])
        return np.asarray(1 / (1 + np.exp(-signs * logits)))

    np.testing.assert_allclose(constant(p(before), p(after), asked), p(before + np.mean(after - before)), atol=1e-9)


def test_the_paper_tier_says_that_it_needs_questions(llama: ModelReference) -> None:
    with pytest.raises(DataError, match=r"the paper tier asks the questions of a folder: expected --data FOLDER"):
        setting.settle(job(llama, "paper", None))


def test_a_question_file_at_fault_ends_the_run_before_anything_is_computed(
    llama: ModelReference, tmp_path: Path
) -> None:
    (tmp_path / "refusal.json").write_text(json.dumps([*questions("mmlu", 9), {"question": "why ?"}]))
    with pytest.raises(DataError, match=r"refusal\.json, entry 9: no text under 'answer_matching_behavior'"):
        experiment.STAGES[0].function(job(llama, "paper", tmp_path))


def test_the_experiment_takes_data_and_names_a_model_of_the_zoo() -> None:
    assert load_experiment(FOLDER).takes_data
    assert set(PAPER.tier("tiny").models) <= set(zoo.NAMES)


def test_behaviours_come_by_name_and_unrelated_questions_no_more_than_asked_for(
    llama: ModelReference, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setting, "TRIALS", {"paper": dataclasses.replace(FEW, unrelated=3)})
    settled = setting.settle(job(llama, "paper", data))
    assert settled.names == ["corrigible", "sycophancy"]
    assert len(settled.unrelated) == 3
    assert all(each.right == each.matching for each in settled.unrelated)
