"""Assembling rows from patterns, against string replacement and a loop."""

from __future__ import annotations

import random

import pytest
import torch

from zoo import words
from zoo.segments import GAPS, NO_TARGET, assemble, compile_patterns

TEXTS = ["", "Q: {x}\nA: {y}\n", "The {r} of {x} is {y}.", "{a}, {b} {x} -> {y};", "no gap here."]
FILL = ["Ada", "Leo", "friend", "Kate", "Hugo", "Paul"]


def test_a_pattern_is_its_tokens_with_numbered_gaps() -> None:
    tokenizer = words.build([*TEXTS, *FILL])
    patterns = compile_patterns(["The {r} of {x} is {y}.", "{y}"], tokenizer)
    the, of, is_, stop = (tokenizer.token_to_id(text) for text in ("The", "of", "is", "."))
    assert patterns.ids[0].tolist() == [the, -3, of, -2, is_, -1, stop]
    assert patterns.ids[1, 0] == -1
    assert patterns.lengths.tolist() == [7, 1]


@pytest.mark.parametrize("seed", range(3))
def test_rows_are_the_filled_texts_one_after_another(seed: int) -> None:
    generator = random.Random(seed)
    tokenizer = words.build([*TEXTS, *FILL])
    chosen = [[generator.randrange(len(TEXTS)) for _ in range(4)] for _ in range(6)]
    filling = [[[generator.choice(FILL) for _ in GAPS] for _ in row] for row in chosen]
    ids = torch.tensor([[[tokenizer.token_to_id(word) for word in gaps] for gaps in row] for row in filling])
    tokens, targets = assemble(compile_patterns(TEXTS, tokenizer), torch.tensor(chosen), ids)

    expected_tokens, expected_targets = [], []
    for row, fillings in zip(chosen, filling, strict=True):
        line, answers = [words.BOS_ID], [NO_TARGET]
        for place, gaps in zip(row, fillings, strict=True):
            for piece in words.split(TEXTS[place].replace("{", " <").replace("}", "> ").replace("<", "gap_")):
                gap = piece.removeprefix("gap_") if piece.startswith("gap_") else ""
                if piece == ">":
                    continue
                (token,) = tokenizer.encode(gaps[GAPS.index(gap)] if gap else piece).ids
                line.append(token)
                answers.append(token if gap == "y" else NO_TARGET)
        expected_tokens.append(line)
        expected_targets.append([*answers[1:], NO_TARGET])
    width = max(map(len, expected_tokens))
    assert tokens.shape == targets.shape == (6, width)
    for number in range(6):
        missing = width - len(expected_tokens[number])
        assert tokens[number].tolist() == expected_tokens[number] + [words.BOS_ID] * missing, number
        assert targets[number].tolist() == expected_targets[number] + [NO_TARGET] * missing, number
