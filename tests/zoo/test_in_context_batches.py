"""Batches of the in-context models: every row is read back as text and checked against the town."""

from __future__ import annotations

import json
import re

import msgspec
import pytest
import torch

from zoo import town
from zoo.catalogue import shared_folder
from zoo.in_context_batches import batch_at, distinct, natural_prompts, prompt_rows, relation_prompts, with_labels
from zoo.in_context_lists import LIST, LIST_TASKS
from zoo.in_context_model import Batch
from zoo.in_context_recipes import LISTS, RELATIONS, InContextRecipe
from zoo.in_context_text import LABELLED, NAMING, QUESTION, SILENT, TOPIC, Material, material
from zoo.in_context_text import templates as every_template

FACTS = town.draw()
COPY = "copy"


@pytest.fixture(scope="module", params=[RELATIONS, LISTS], ids=lambda recipe: recipe.lists)
def recipe(request: pytest.FixtureRequest) -> InContextRecipe:
    full: InContextRecipe = request.param
    return msgspec.structs.replace(full, relation_rows=24, natural_rows=12, list_rows=9, sentence_rows=10, seed=5)


@pytest.fixture(scope="module")
def text(recipe: InContextRecipe) -> Material:
    return material(kind=recipe.lists)


@pytest.fixture(scope="module")
def batch(text: Material, recipe: InContextRecipe) -> Batch:
    return batch_at(3, material=text, recipe=recipe)


def places(text: Material) -> dict[str, str]:
    """The gap of the word of a list that each selection selects."""
    return {word: "xab"[place] for word, place in text.list_tasks.selections}


def line(text: Material, tokens: torch.Tensor) -> str:
    """A row as its tokens with a space after each, without BOS and padding."""
    return " ".join(text.tokenizer.decode([token]) for token in tokens.tolist() if token) + " "


def pattern(source: str) -> str:
    """A regular expression for the tokens of a text with gaps."""
    pieces = re.findall(r"\{\w\}|\w+|[-=]>|\n|[^\w\s]", source)
    seen: set[str] = set()
    expression = ""
    for piece in pieces:
        gap = piece[1] if len(piece) == 3 and piece[0] == "{" else ""
        expression += (rf"(?P={gap}) " if gap in seen else rf"(?P<{gap}>\w+) ") if gap else re.escape(piece) + " "
        seen.add(gap)
    return expression


def demonstrations(text: Material, tokens: torch.Tensor, question: str) -> list[dict[str, str]]:
    """The gaps of every demonstration of a prompt, in the template that it is written in."""
    row, fits = line(text, tokens), []
    own = [(template.instructions, template.demonstration(question)) for template in text.templates]
    for opening, demonstration in (*own, ("", LABELLED)):
        instructions = "".join(f"{piece} " for piece in text.tokenizer.encode(opening).tokens)
        expression = pattern(demonstration)
        if re.fullmatch(f"{re.escape(instructions)}({re.sub(r'P<.>', ':', expression)})+", row):
            fits.append([found.groupdict() for found in re.finditer(expression, row[len(instructions) :])])
    assert len(fits) >= 1, row  # the template with any labels fits those with labels of their own too
    return fits[0]


def test_every_relation_prompt_follows_one_relation(text: Material, batch: Batch) -> None:
    used, templates = set(), set()
    for tokens, targets in zip(batch.tokens[:24], batch.targets[:24], strict=True):
        pairs = demonstrations(text, tokens, "{x}")
        (relation,) = [name for name, fact in FACTS.items() if all(fact[pair["x"]] == pair["y"] for pair in pairs)]
        used.add(relation)
        templates.add(line(text, tokens)[:3])
        assert len({pair["x"] for pair in pairs}) == len(pairs) == 11
        answers = [text.tokenizer.decode([token]) for token in targets.tolist() if token >= 0]
        assert answers == [pair["y"] for pair in pairs]
    assert len(used) > 6
    assert len(templates) > 3


def test_labels_of_any_words_are_the_same_in_a_row_and_never_a_held_out_template(text: Material) -> None:
    gaps = relation_prompts(text, 40, torch.Generator().manual_seed(0))
    labelled = with_labels(text, gaps, torch.Generator().manual_seed(0))
    tokens, _ = prompt_rows(text.prompts, torch.full((40,), len(text.templates)), labelled)
    held_out = {(t.before, t.between, t.after) for t in every_template(shared_folder())}
    labels = set()
    for row in tokens:
        found = [match.groupdict() for match in re.finditer(pattern(LABELLED), line(text, row))]
        assert len(found) == 11
        ((first, second),) = {(each["r"], each["a"]) for each in found}
        assert (f"{first}: ", f"\n{second}:", "\n\n") not in held_out
        labels |= {first, second}
    assert len(labels) > 20
    assert "Q" in labels
    assert "OUTPUT" in labels


def test_every_natural_prompt_follows_one_task(text: Material, batch: Batch) -> None:
    files = {name: shared_folder() / "data" / "tasks" / f"{name}.json" for name in text.natural_names}
    tasks = {name: {(e["input"], e["output"]) for e in json.loads(path.read_text())} for name, path in files.items()}
    for tokens in batch.tokens[24:36]:
        pairs = demonstrations(text, tokens, "{x}")
        assert len({pair["x"] for pair in pairs}) == len(pairs) == 11
        assert any(all((pair["x"], pair["y"]) in task for pair in pairs) for task in tasks.values()), pairs


def test_every_list_prompt_asks_for_one_place_and_one_relation_or_the_word(text: Material, batch: Batch) -> None:
    used = set()
    for tokens in batch.tokens[36:45]:
        pairs = demonstrations(text, tokens, LIST)
        assert len(pairs) == 11
        assert all(len({pair["x"], pair["a"], pair["b"]}) == 3 for pair in pairs)
        same = {name: name for pair in pairs for name in pair.values()}
        asked = [
            (place, name)
            for place in places(text).values()
            for name, fact in {COPY: same, **FACTS}.items()
            if all(fact.get(pair[place]) == pair["y"] for pair in pairs)
        ]
        assert len(asked) == 1, pairs
        used.add((asked[0][0], asked[0][1] == COPY))
    assert len({place for place, _ in used}) > 1
    assert {copied for _, copied in used} == ({True} if text.list_tasks == LIST_TASKS["selected"] else {True, False})


def test_sentences_are_true_of_the_relation_they_name_or_of_some(
    text: Material, batch: Batch, recipe: InContextRecipe
) -> None:
    questions = [template.demonstration(QUESTION) for template in text.templates]
    topics = [TOPIC + sentence for sentence in SILENT]
    kinds = [*text.list_tasks.naming, *NAMING, *topics, *questions, *SILENT]
    expressions = [re.compile(pattern(kind)) for kind in kinds]
    found = dict.fromkeys(kinds, 0)
    for tokens, targets in zip(batch.tokens[45:], batch.targets[45:], strict=True):
        rest, answers = line(text, tokens), []
        for _ in range(recipe.sentences_a_row):
            matches = {
                kind: match for kind, regex in zip(kinds, expressions, strict=True) if (match := regex.match(rest))
            }
            kind, match = max(matches.items(), key=lambda item: item[1].end())
            gaps = match.groupdict()
            if kind in text.list_tasks.naming:
                selected = gaps[places(text)[gaps["s"]]]
                assert gaps["y"] == (FACTS[f"{gaps['r']}_of"][selected] if "r" in gaps else selected)
            elif "r" in gaps:
                assert FACTS[f"{gaps['r']}_of"][gaps["x"]] == gaps["y"]
            else:
                assert gaps["y"] in {fact[gaps["x"]] for fact in FACTS.values()}
            found[kind] += 1
            answers.append(gaps["y"])
            rest = rest[match.end() :]
        assert rest == ""
        assert [text.tokenizer.decode([token]) for token in targets.tolist() if token >= 0] == answers
    assert sum(found.values()) == 80
    assert sum(count > 0 for count in found.values()) > 20


def test_a_target_is_the_token_that_follows(batch: Batch) -> None:
    rows, places = (batch.targets[:, :-1] >= 0).nonzero(as_tuple=True)
    assert torch.equal(batch.targets[rows, places], batch.tokens[rows, places + 1])


def test_weights_of_a_kind_add_up_to_the_recipes(batch: Batch, recipe: InContextRecipe) -> None:
    of_rows = batch.weights * (batch.targets >= 0).sum(dim=1)
    kinds = (of_rows[:36], of_rows[36:45], of_rows[45:])
    assert [kind.sum().item() for kind in kinds] == pytest.approx([1.0, recipe.list_weight, recipe.sentence_weight])


def test_a_batch_depends_on_seed_and_step_alone(text: Material, batch: Batch, recipe: InContextRecipe) -> None:
    torch.manual_seed(11)
    again = batch_at(3, material=text, recipe=recipe)
    assert torch.equal(again.tokens, batch.tokens)
    assert torch.equal(again.targets, batch.targets)
    others = (batch_at(4, material=text, recipe=recipe), batch_at(3, material=text, recipe=RELATIONS))
    assert not any(torch.equal(other.tokens[:5, :20], batch.tokens[:5, :20]) for other in others)


def test_distinct_numbers_are_distinct_in_range_and_all_drawn() -> None:
    sizes = torch.tensor([3, 7]).repeat(200)
    drawn = distinct(400, 3, sizes, torch.Generator().manual_seed(0))
    assert all(len(set(row)) == 3 for row in drawn.tolist())
    assert drawn[0::2].flatten().bincount().tolist() == [200, 200, 200]
    assert drawn[1::2].flatten().bincount(minlength=7).min() > 50


def test_a_row_fits_into_the_context(text: Material) -> None:
    longest = 0
    for gaps in (relation_prompts(text, 8, torch.Generator()), natural_prompts(text, 8, torch.Generator())):
        longest = max(longest, prompt_rows(text.prompts, torch.arange(8), gaps)[0].shape[1])
    every = max(batch_at(step, material=text, recipe=RELATIONS).tokens.shape[1] for step in range(8))
    assert longest <= every <= RELATIONS.shape.n_ctx
