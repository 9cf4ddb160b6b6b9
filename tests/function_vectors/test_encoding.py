"""Tokens of prompts and answers, against the character offsets that the tokenizers library reports.

An answer's tokens are those that reach beyond the prompt's text: the library says so of each token, which is another
way to the same tokens than the code's comparison of two encodings.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest
import torch
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Fast

from function_vectors.encoding import Encoded, answer_set, encode, require_single_token
from function_vectors.errors import EncodingError
from function_vectors.icl import ICLPrompt, icl_prompts
from function_vectors.tasks import Pair, Task, load_task, load_tasks
from function_vectors.templates import Template, load_templates
from interventions import as_prompts

TEMPLATES = load_templates(Path("shared/data/templates.json"))
TASKS = load_tasks(
    Path("shared/data/tasks"), ["country_capital", "english_french", "choose_last_of_3", "word_to_number"]
)
PAPER = TEMPLATES[0]


class Plain:
    """A tokenizer of the tokenizers library, as `interventions` wants one."""

    def __init__(self, fast: Fast) -> None:
        self.fast = fast

    def encode(self, text: str) -> list[int]:
        return list(self.fast.encode(text, add_special_tokens=False).ids)

    def decode(self, tokens: list[int]) -> str:
        return str(self.fast.decode(tokens))


class Letters:
    """Every letter is a token, and what is not a letter is none."""

    def encode(self, text: str) -> list[int]:
        return [ord(letter) for letter in text if letter.isalpha()]

    def decode(self, tokens: list[int]) -> str:
        return "".join(map(chr, tokens))


@cache
def corpus() -> list[str]:
    """Prompts with their answers, of which tokenizers learn most words and leave some in pieces."""
    return [
        prompt.text + " " + prompt.query.output
        for task in TASKS.values()
        for template in TEMPLATES
        for prompt in icl_prompts(task, template, shots=0, n=len(task.pairs), seed=0)
    ]


@cache
def byte_level() -> Fast:
    """As GPT-2's: the blank belongs to the word that follows it."""
    fast = Fast(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    fast.train_from_iterator(
        corpus(), trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    )
    return fast


@cache
def sentencepiece() -> Fast:
    """As Llama's: byte pairs that never cross from word to word, a mark for the blank, and one before any text."""
    fast = Fast(models.BPE(unk_token="<unk>"))
    fast.pre_tokenizer = pre_tokenizers.Metaspace()  # to learn pairs within words; Llama's tokenizer has none
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=["<unk>"], show_progress=False)
    fast.train_from_iterator(corpus(), trainer)
    fast.pre_tokenizer = None
    fast.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    fast.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return fast


@cache
def metaspace_unigram() -> Fast:
    """As T5's or XLNet's: the likeliest pieces, every digit apart."""
    fast = Fast(models.Unigram())
    fast.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(prepend_scheme="first"), pre_tokenizers.Digits(individual_digits=True)]
    )
    fast.decoder = decoders.Metaspace(prepend_scheme="first")
    trainer = trainers.UnigramTrainer(vocab_size=400, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False)
    fast.train_from_iterator(corpus(), trainer)
    return fast


@cache
def word_level() -> Fast:
    """Words, signs and line ends; a blank is no token."""
    fast = Fast(models.WordLevel(unk_token="<unk>"))
    fast.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n|[\w-]+|[^\w\s]"), behavior="removed", invert=True)
    fast.train_from_iterator(corpus(), trainers.WordLevelTrainer(special_tokens=["<unk>"], show_progress=False))
    return fast


BUILD = {builder.__name__: builder for builder in (byte_level, sentencepiece, metaspace_unigram, word_level)}


@pytest.fixture(scope="module", params=BUILD)
def tokenizer(request: pytest.FixtureRequest) -> Plain:
    return Plain(BUILD[request.param]())


def prompt_of(text: str, output: str, demonstrations: Sequence[Pair] = ()) -> ICLPrompt:
    return ICLPrompt(text, tuple(demonstrations), Pair("x", output))


def beyond(fast: Fast, prompt: ICLPrompt) -> tuple[int, ...]:
    """The tokens of the prompt with its answer that reach beyond the prompt."""
    whole = fast.encode(f"{prompt.text} {prompt.query.output}", add_special_tokens=False)
    return tuple(token for token, (_, end) in zip(whole.ids, whole.offsets, strict=True) if end > len(prompt.text))


def rows(encoded: Encoded) -> list[list[int]]:
    """The prompts' tokens without padding."""
    valid = encoded.prompts.valid
    real = torch.ones_like(encoded.prompts.tokens, dtype=torch.bool) if valid is None else valid
    return [row[keep].tolist() for row, keep in zip(encoded.prompts.tokens, real, strict=True)]


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.name)
def test_an_answer_is_what_reaches_beyond_its_prompt(tokenizer: Plain, template: Template) -> None:
    for task in TASKS.values():
        prompts = icl_prompts(task, template, shots=3, n=25, seed=1)
        encoded = encode(tokenizer, prompts, bos=None)
        assert list(encoded.answers) == [beyond(tokenizer.fast, prompt) for prompt in prompts]
        assert rows(encoded) == [tokenizer.encode(prompt.text) for prompt in prompts]
        decoded = [tokenizer.decode(list(answer)).strip() for answer in encoded.answers]
        assert decoded == [prompt.query.output for prompt in prompts]


def test_the_tokenizers_are_as_different_as_they_should_be() -> None:
    """That the answer alone will not do, and that there are answers of one token and of several."""
    byte, llama, unigram, word = (Plain(build()) for build in BUILD.values())
    prompt = prompt_of("Q: Italy\nA:", "Rome")
    whole = f"{prompt.text} Rome"
    assert llama.encode(" Rome") != list(beyond(llama.fast, prompt))
    assert byte.encode(" Rome") == list(beyond(byte.fast, prompt))
    assert byte.encode("Rome") != list(beyond(byte.fast, prompt))
    assert llama.fast.encode(whole).tokens[0] == "▁Q:"
    assert unigram.fast.encode("A: 41").tokens[-3:] == ["▁", "4", "1"]
    assert word.fast.encode(whole).tokens == ["Q", ":", "Italy", "\n", "A", ":", "Rome"]
    for tokenizer in (byte, llama, unigram):
        prompts = icl_prompts(TASKS["country_capital"], PAPER, shots=0, n=60, seed=0)
        sizes = {len(answer) for answer in encode(tokenizer, prompts, bos=None).answers}
        assert len(sizes) > 1


@pytest.mark.parametrize("name", TASKS)
def test_the_answer_set_is_that_of_the_prompts(tokenizer: Plain, name: str) -> None:
    task = TASKS[name]
    prompts = icl_prompts(task, PAPER, shots=2, n=len(task.pairs), seed=0)
    asked = encode(tokenizer, prompts, bos=None)
    assert answer_set(tokenizer, task).tolist() == sorted(set(asked.first.tolist()))


def test_a_tokenizer_that_splits_digits_begins_all_numbers_alike() -> None:
    numbers = load_task(Path("shared/data/tasks/word_to_number.json"))
    assert len(answer_set(Plain(metaspace_unigram()), numbers)) == 1
    assert len(answer_set(Plain(word_level()), numbers)) == 51


def test_prompts_end_together_and_begin_with_bos() -> None:
    prompts = [prompt_of("ab", "xy"), prompt_of("abc", "z")]
    a, b, c, x, y, z = map(ord, "abcxyz")
    encoded = encode(Letters(), prompts, bos=7)
    expected = as_prompts([[7, a, b], [7, a, b, c]])
    assert torch.equal(encoded.prompts.tokens, expected.tokens)
    assert encoded.prompts.valid is not None
    assert expected.valid is not None
    assert torch.equal(encoded.prompts.valid, expected.valid)
    assert encoded.answers == ((x, y), (z,))
    assert encoded.first.tolist() == [x, z]
    assert encoded.last_tokens.tolist() == [b, c]
    assert rows(encode(Letters(), prompts, bos=None)) == [[a, b], [a, b, c]]


def test_a_bos_that_the_tokenizer_puts_itself_is_not_put_twice() -> None:
    class Beginning(Letters):
        def encode(self, text: str) -> list[int]:
            return [7, *super().encode(text)]

    encoded = encode(Beginning(), [prompt_of("ab", "x")], bos=7)
    assert rows(encoded) == [[7, ord("a"), ord("b")]]
    assert encoded.answers == ((ord("x"),),)


def test_a_prompt_and_its_answer_fit_the_context() -> None:
    demonstrations = [Pair("a", "b"), Pair("b", "c")]
    prompts = [prompt_of("ab", "x"), prompt_of("abcd", "xyz", demonstrations)]
    assert (
        len(encode(Letters(), prompts, bos=7, n_ctx=7).answers) == 2
    )  # bos, four letters, and all but the last of three
    with pytest.raises(
        EncodingError,
        match=r"^prompt 1: 5 tokens and an answer of 3 do not fit into n_ctx=6; use fewer shots than 2, or a short",
    ):
        encode(Letters(), prompts, bos=7, n_ctx=6)
    assert len(encode(Letters(), prompts, bos=None, n_ctx=6).answers) == 2


def test_a_tokenizer_that_merges_across_the_border_is_refused() -> None:
    vocabulary = {token: number for number, token in enumerate(["A", ":", " ", "x", ": "])}
    merging = Plain(Fast(models.BPE(vocabulary, [(":", " ")])))
    with pytest.raises(EncodingError, match=re.escape("prompt 0: the tokenizer merges 'A:' with the answer ' x'")):
        encode(merging, [prompt_of("A:", "x")], bos=None)
    with pytest.raises(EncodingError, match=r"use a template whose text ends in a sign such as ':'"):
        encode(merging, [prompt_of("A:", "x")], bos=None)
    assert encode(merging, [prompt_of("A", "x")], bos=None).answers == ((2, 3),)
    with pytest.raises(EncodingError, match=r"^task odd: the tokenizer merges"):
        answer_set(merging, Task("odd", (Pair("A:", "x"),)))


def test_an_answer_without_tokens_is_refused() -> None:
    with pytest.raises(EncodingError, match=r"^prompt 1: the tokenizer has no token for the answer ' 12'; leave that"):
        encode(Letters(), [prompt_of("ab", "x"), prompt_of("ab", "12")], bos=None)


def test_answers_that_the_tokenizer_cannot_tell_apart_are_refused() -> None:
    words = Plain(word_level())
    known, unknown = [prompt_of("Q: Italy\nA:", name) for name in ("Rome", "Rome", "Paris")], ["Brigadoon", "Erewhon"]
    assert len(encode(words, known, bos=None).answers) == 3
    message = re.escape(
        "the answers 'Brigadoon' and 'Erewhon' have the same tokens [0]: the tokenizer cannot tell them"
    )
    with pytest.raises(EncodingError, match=message):
        encode(words, [*known, *(prompt_of("Q: Italy\nA:", name) for name in unknown)], bos=None)
    with pytest.raises(EncodingError, match=message):
        answer_set(words, Task("places", tuple(Pair(f"in {name}", name) for name in unknown)))


def test_an_answer_of_several_tokens_is_named_where_one_is_needed() -> None:
    fine, split = prompt_of("ab", "x"), prompt_of("ab", "yz")
    require_single_token(encode(Letters(), [fine, fine], bos=None), Letters())
    with pytest.raises(
        EncodingError,
        match=r"^prompt 1: the answer 'yz' is 2 tokens \('y', 'z'\), expected 1; score the whole answer, or leave that",
    ):
        require_single_token(encode(Letters(), [fine, split, split], bos=None), Letters())


def test_no_prompts_are_refused() -> None:
    with pytest.raises(EncodingError, match="no prompts to encode: expected at least one"):
        encode(Letters(), [], bos=None)


def test_every_shipped_task_can_be_asked_for_with_every_kind_of_tokenizer(tokenizer: Plain) -> None:
    prompts = [
        icl_prompts(task, PAPER, shots=10, n=2, seed=0) for task in load_tasks(Path("shared/data/tasks")).values()
    ]
    for prompt in itertools.chain(*prompts):
        assert encode(tokenizer, [prompt], bos=None).answers == (beyond(tokenizer.fast, prompt),)
