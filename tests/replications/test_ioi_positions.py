"""Names in tokens, against the character offsets that the tokenizers library reports of every token.

The code finds names by their token; the library says which token covers a character, which is another way to it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from replications.indirect_object_identification import material, positions, templates
from replications.indirect_object_identification.drawing_prompts import (
    PromptError,
    Sentence,
    abc,
    random_names,
    swapped_order,
    swapped_roles,
)
from replications.indirect_object_identification.material import TemplateMaterial, material_for, model_for
from replications.indirect_object_identification.positions import IOIPrompts, name_token, tokenized
from tokenizers import Tokenizer as Fast
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

import interventions
from interventions import Model, as_prompts
from interventions.exactness import random_network
from zoo import ioi, words

PAPER, TINY = material._paper(), material._tiny()
SPLIT = ("Mary", "Christopher", "Samantha", "Timothy")  # names that no tokenizer below learns
N_WORDS = 2600


class Plain:
    """A tokenizer of the tokenizers library, as `interventions` wants one."""

    def __init__(self, fast: Fast) -> None:
        self.fast = fast

    def encode(self, text: str) -> list[int]:
        return list(self.fast.encode(text, add_special_tokens=False).ids)

    def decode(self, tokens: list[int]) -> str:
        return str(self.fast.decode(tokens, skip_special_tokens=False))


@cache
def corpus() -> list[str]:
    """Sentences of both tiers with remarks, of which tokenizers learn the words; without the names of `SPLIT`."""
    found = []
    for of in (PAPER, TINY):
        known = replace(of, names=tuple(name for name in of.names if name not in SPLIT))
        found += [each.text for part in material.PARTS for each in known.draw(600, 0, part=part)]
        found += [each.text for each in known.adversarial(200, 0).io_again]
    return found


@cache
def byte_level() -> Fast:
    """As GPT-2's and NeoX's: the blank belongs to the word that follows it."""
    fast = Fast(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=N_WORDS, initial_alphabet=alphabet, show_progress=False)
    fast.train_from_iterator(corpus(), trainer)
    return fast


@cache
def sentencepiece() -> Fast:
    """As Llama's: byte pairs, a mark for the blank, and one before any text."""
    fast = Fast(models.BPE(unk_token="<unk>"))
    fast.pre_tokenizer = pre_tokenizers.Metaspace()  # to learn pairs within words; Llama's tokenizer has none
    trainer = trainers.BpeTrainer(vocab_size=N_WORDS, special_tokens=["<unk>"], show_progress=False)
    fast.train_from_iterator([" ".join(re.findall(r"\w+|\W", text)) for text in corpus()], trainer)
    fast.pre_tokenizer = None
    fast.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    fast.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return fast


@cache
def metaspace_unigram() -> Fast:
    """As T5's or XLNet's: the likeliest pieces, here whole words, and letters for all others."""
    pieces = dict.fromkeys("▁" + word for text in corpus() for word in re.findall(r"\w+", text))
    letters = dict.fromkeys("▁.," + "".join(sorted({letter for text in (*corpus(), *SPLIT) for letter in text})))
    scores = [("<unk>", 0.0), *((piece, -5.0) for piece in pieces), *((letter, -9.0) for letter in letters)]
    fast = Fast(models.Unigram(list(dict(scores).items()), unk_id=0))
    fast.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(prepend_scheme="first"), pre_tokenizers.Punctuation()]
    )
    fast.decoder = decoders.Metaspace(prepend_scheme="first")
    return fast


@cache
def zoo_words() -> Fast:
    """The shipped models': words and marks; a blank is no token."""
    return words.build(corpus())


BUILD = {builder.__name__: builder for builder in (byte_level, sentencepiece, metaspace_unigram, zoo_words)}


@pytest.fixture(scope="module", params=BUILD)
def fast(request: pytest.FixtureRequest) -> Fast:
    return BUILD[request.param]()


def model_of(tokenizer: Any, *, bos: int | None = None, model_type: str = "gpt2") -> Model:
    """A model of which nothing is asked but its tokenizer and its type."""
    network: Any = SimpleNamespace(config=SimpleNamespace(model_type=model_type))
    return Model("some-model", network, tokenizer, bos)


def covering(fast: Fast, text: str, character: int) -> int:
    """The number of the token that has a character of the text, from 0."""
    offsets = fast.encode(text, add_special_tokens=False).offsets
    (found,) = (at for at, (begin, end) in enumerate(offsets) if begin <= character < end)
    return found


def real(prompts: IOIPrompts, row: int) -> list[int]:
    return list(prompts.tokens[row, prompts.tokens.shape[1] - int(prompts.lengths[row]) :].tolist())


@pytest.mark.parametrize("tier", ["paper", "tiny"])
@pytest.mark.parametrize("bos", [None, 0])
def test_columns_are_those_of_the_tokens_that_cover_the_names(fast: Fast, tier: str, bos: int | None) -> None:
    model = model_of(Plain(fast), bos=bos)
    of = material_for(model, tier)
    for part in material.PARTS:
        sentences = of.draw(120, 7, part=part)
        found = tokenized(model, sentences)
        assert found.sentences == sentences
        assert len(found) == 120
        width = found.tokens.shape[1]
        assert len(set(found.lengths.tolist())) > 1
        assert width == max(found.lengths.tolist())
        for row, sentence in enumerate(sentences):
            ids = fast.encode(sentence.text, add_special_tokens=False).ids
            assert real(found, row) == ([] if bos is None else [bos]) + ids
            first = width - len(ids)
            for span in ("IO", "S1", "S2"):
                expected = first + covering(fast, sentence.text, sentence.spans[span])
                assert int(found.positions[span][row]) == expected
                assert fast.decode([int(found.tokens[row, expected])]).strip() == sentence.name_at(span)
            assert int(found.positions["S1+1"][row]) == int(found.positions["S1"][row]) + 1
            assert int(found.positions["END"][row]) == width - 1
            for name, answer in ((sentence.io, found.io), (sentence.subject, found.s)):
                assert [*ids, int(answer[row])] == fast.encode(f"{sentence.text} {name}", add_special_tokens=False).ids
        assert sorted(found.positions) == ["END", "IO", "S1", "S1+1", "S2"]


def test_the_word_behind_the_first_subject_is_found() -> None:
    model = model_of(Plain(zoo_words()))
    sentences = material_for(model, "paper").draw(60, 0, part="search")
    found = tokenized(model, sentences)
    for row, sentence in enumerate(sentences):
        behind = zoo_words().decode([int(found.tokens[row, found.positions["S1+1"][row]])])
        assert sentence.text.partition(sentence.subject)[2].split()[0] == behind
        assert (behind == "and") == (sentence.order == "BABA")


def test_prompts_are_the_engines(fast: Fast) -> None:
    model = model_of(Plain(fast))
    found = tokenized(model, material_for(model, "paper").draw(50, 0, part="scores"))
    expected = as_prompts([real(found, row) for row in range(50)])
    assert torch.equal(found.tokens, expected.tokens)
    assert torch.equal(found.prompts.tokens, expected.tokens)
    assert found.prompts.valid is not None
    assert expected.valid is not None
    assert torch.equal(found.prompts.valid, expected.valid)
    assert torch.equal(found.prompts.valid.sum(dim=1), found.lengths)


def test_the_text_sees_the_name_as_the_answer_has_it(fast: Fast) -> None:
    """S1, S2 and the answer S are one token, and so are IO and the answer IO: what is matched is what is copied."""
    model = model_of(Plain(fast))
    found = tokenized(model, material_for(model, "tiny").draw(100, 0, part="search"))

    def at(word: str) -> Tensor:
        return found.tokens.gather(1, found.positions[word][:, None])[:, 0]

    assert torch.equal(at("IO"), found.io)
    assert torch.equal(at("S1"), found.s)
    assert torch.equal(at("S2"), found.s)
    assert not bool((found.io == found.s).any())


@pytest.mark.parametrize("tier", ["paper", "tiny"])
def test_corrupted_sentences_align_token_by_token(fast: Fast, tier: str) -> None:
    model = model_of(Plain(fast), bos=0)
    sentences = material_for(model, tier).draw(90, 1, part="search")
    clean = tokenized(model, sentences)
    for corrupt in (abc, random_names, swapped_order, swapped_roles):
        other = tokenized(model, corrupt(sentences, 0))
        assert torch.equal(other.lengths, clean.lengths)
        names = torch.zeros_like(clean.tokens, dtype=torch.bool)
        for word in ("IO", "S1", "S2"):
            names.scatter_(1, clean.positions[word][:, None], True)
        assert torch.equal(other.tokens[~names], clean.tokens[~names])
        changed = set(((other.tokens != clean.tokens) & names).sum(dim=1).tolist())
        assert changed == {{abc: 3, random_names: 3, swapped_order: 2, swapped_roles: 1}[corrupt]}
        if corrupt in (abc, random_names):
            assert torch.equal(other.templates, clean.templates)
            assert other.layouts == clean.layouts
            assert all(torch.equal(other.positions[word], clean.positions[word]) for word in clean.positions)
        else:
            assert torch.equal(other.positions["IO"], clean.positions["S1"])
            assert torch.equal(other.positions["S1"], clean.positions["IO"])
            assert torch.equal(other.positions["S2"], clean.positions["S2"])


@pytest.mark.parametrize("tier", ["paper", "tiny"])
def test_groups_are_of_one_template_and_order_and_align(fast: Fast, tier: str) -> None:
    model = model_of(Plain(fast))
    of = material_for(model, tier)
    sentences = of.draw(240, 1, part="search")
    found = tokenized(model, sentences)
    drawn = {word for group in (of.names, of.places, of.objects) for word in group}
    kinds: dict[int, set[tuple[int, str, int]]] = {}
    for row, sentence in enumerate(sentences):
        kind = (sentence.template, sentence.order, int(found.lengths[row]))
        kinds.setdefault(int(found.templates[row]), set()).add(kind)
    assert sorted(kinds) == list(range(len(found.layouts)))
    assert all(len(of_group) == 1 for of_group in kinds.values())
    assert len(set.union(*kinds.values())) == len(kinds)  # no words of these tiers differ in their number of tokens
    for group in kinds:
        rows = [row for row in range(240) if int(found.templates[row]) == group]
        for column in range(1, int(found.lengths[rows[0]]) + 1):
            pieces = {fast.decode([int(found.tokens[row, -column])]).strip() for row in rows}
            assert len(pieces) == 1 or pieces <= drawn
    again = tokenized(model, sentences[200:])
    assert [found.layouts[at] for at in found.templates[200:]] == [again.layouts[at] for at in again.templates]


def test_sentences_of_a_template_that_do_not_align_are_of_different_groups() -> None:
    model = model_of(Plain(zoo_words()))
    (first, *_) = (each for each in material_for(model, "paper").draw(30, 0, part="search") if " gave a" in each.text)
    later = replace(first, text=first.text.replace(" gave a", " gave a new"))
    shifted = {span: begin + len("So ") for span, begin in first.spans.items()}
    ahead = replace(first, text=f"So {first.text}", spans=shifted)
    found = tokenized(model, [first, later, ahead, first])
    assert found.lengths[1] == found.lengths[2] == found.lengths[0] + 1
    assert len(set(found.templates.tolist())) == 3
    assert found.templates[0] == found.templates[3]


def test_remarks_are_found_as_well(fast: Fast) -> None:
    model = model_of(Plain(fast))
    for tier in ("paper", "tiny"):
        found = material_for(model, tier).adversarial(60, 0)
        attack, control = tokenized(model, found.io_again), tokenized(model, found.s_again)
        assert torch.equal(attack.lengths, control.lengths)
        for row, sentence in enumerate(found.io_again):
            first = attack.tokens.shape[1] - int(attack.lengths[row])
            for span in ("IO", "S1", "S2", "EXTRA"):
                expected = first + covering(fast, sentence.text, sentence.spans[span])
                assert int(attack.positions[span][row]) == int(control.positions[span][row]) == expected
        assert torch.equal(attack.io, control.io)
        plain = tokenized(model, found.plain)
        assert torch.equal(plain.io, attack.io)
        assert torch.equal(plain.s, attack.s)
        assert "EXTRA" not in plain.positions


def test_a_bos_that_the_tokenizer_puts_itself_is_not_put_twice() -> None:
    class Beginning(Plain):
        def encode(self, text: str) -> list[int]:
            return [words.BOS_ID, *super().encode(text)]

    sentences = TINY.draw(20, 0, part="search")
    sentences = tuple(each for each in sentences if not {each.io, each.subject} & set(SPLIT))
    by_itself = tokenized(model_of(Beginning(zoo_words()), bos=words.BOS_ID), sentences)
    put = tokenized(model_of(Plain(zoo_words()), bos=words.BOS_ID), sentences)
    assert torch.equal(by_itself.tokens, put.tokens)
    assert all(torch.equal(by_itself.positions[word], put.positions[word]) for word in put.positions)
    assert put.tokens[0, -int(put.lengths[0])] == words.BOS_ID


def sentence_of(
    first: str, second: str, text: str = "Then, {0} and {1} went to the store. {1} gave a drink to"
) -> Sentence:
    whole = text.format(first, second)
    spans = {"IO": whole.index(first), "S1": whole.index(second), "S2": whole.rindex(second)}
    return Sentence(whole, first, second, 0, "ABBA", spans)


@pytest.mark.parametrize("build", [byte_level, sentencepiece, metaspace_unigram], ids=lambda build: build.__name__)
def test_a_name_of_several_tokens_is_refused_by_name_and_tokens(build: Any) -> None:
    fast = build()
    pieces = fast.encode("Then, Amanda and Christopher", add_special_tokens=False)
    own = [token for token, (_, end) in zip(pieces.ids, pieces.offsets, strict=True) if end > len("Then, Amanda and ")]
    assert len(own) > 1
    shown = ", ".join(f"{token} {fast.decode([token])!r}" for token in own)
    message = (
        rf"^the name 'Christopher' behind a space has the tokens {re.escape(shown)}: expected one that reads as the "
        r"name; leave the name out, as material_for does, or take a model whose tokenizer has it whole$"
    )
    with pytest.raises(PromptError, match=message):
        tokenized(model_of(Plain(fast)), [sentence_of("Amanda", "Laura"), sentence_of("Christopher", "Laura")])
    assert len(tokenized(model_of(Plain(fast)), [sentence_of("Amanda", "Laura")])) == 1


def test_a_word_that_the_tokenizer_does_not_know_is_no_name() -> None:
    with pytest.raises(
        PromptError, match=r"^the name 'Mary' behind a space has the tokens 1 '<\|unknown\|>': expected"
    ):
        tokenized(model_of(Plain(zoo_words())), [sentence_of("Laura", "Mary")])


def test_a_tokenizer_that_merges_names_with_the_word_before_is_refused() -> None:
    vocabulary = {token: number for number, token in enumerate(["o", " ", "A", "o A", " A"])}
    merging = Plain(Fast(models.BPE(vocabulary, [(" ", "A"), ("o", " A")])))
    with pytest.raises(
        PromptError, match=r"'A' behind a space has the tokens none, merged with 'o' before it: expected"
    ):
        name_token(merging, "A", behind="o")


def test_a_name_with_which_the_text_begins_is_refused_where_it_is_another_token() -> None:
    begins = sentence_of("Amanda", "Laura", "{0} and {1} sat. {1} gave it to")
    model = model_of(Plain(byte_level()))
    wrong = (
        r"^sentence 1: 'Amanda' is 0 times token \d+ in 'Amanda and Laura sat.*', expected 1 times \(IO\); begin the"
    )
    with pytest.raises(PromptError, match=wrong):
        tokenized(model, [sentence_of("Amanda", "Laura"), begins])
    for build in (sentencepiece, zoo_words):
        found = tokenized(model_of(Plain(build())), [begins])
        assert int(found.positions["IO"][0]) == 0
    twice = sentence_of("Amanda", "Laura", "Amanda Amanda and {0} and {1} sat. {1} gave it to")
    with pytest.raises(
        PromptError, match=r"^sentence 0: 'Amanda' is 3 times token \d+ in .* let nothing else there be"
    ):
        tokenized(model_of(Plain(zoo_words())), [replace(twice, spans={**twice.spans, "IO": 18})])


def test_what_cannot_be_tokenized_is_refused() -> None:
    with pytest.raises(PromptError, match=r"^no sentences to tokenize: expected at least one$"):
        tokenized(model_of(Plain(zoo_words())), [])
    with pytest.raises(
        PromptError, match=r"^some-model has no tokenizer: expected one beside the weights; put its files"
    ):
        tokenized(model_of(None), [sentence_of("Amanda", "Laura")])


@pytest.mark.parametrize(("tier", "of"), [("paper", PAPER), ("tiny", TINY)])
def test_material_is_of_the_names_that_are_one_token(fast: Fast, tier: str, of: TemplateMaterial) -> None:
    found = material_for(model_of(Plain(fast)), tier)
    whole = {
        name
        for name in of.names
        if [fast.decode([token]).strip() for token in fast.encode(f"so {name}", add_special_tokens=False).ids][-1]
        == name
    }
    assert found.names == tuple(name for name in of.names if name in whole)
    assert not {*found.names} & {*SPLIT}
    assert len(found.names) >= 20
    assert found.templates == of.templates
    assert found.remarks == of.remarks
    for sentence in found.draw(200, 0, part="search"):
        assert {sentence.io, sentence.subject} <= {*found.names}
        assert sentence.pool == found.names


def test_places_and_objects_that_are_longer_than_most_are_left_out() -> None:
    class Spelling(Plain):
        def encode(self, text: str) -> list[int]:
            rest = text.replace("restaurant", "store store").replace("kiss", "ring ring ring")
            return super().encode(rest)

    found = material_for(model_of(Spelling(zoo_words())), "paper")
    assert found.places == tuple(place for place in templates.PLACES if place != "restaurant")
    assert found.objects == tuple(thing for thing in templates.OBJECTS if thing != "kiss")


def known(names: Sequence[str]) -> Plain:
    return Plain(words.build([f"gave it to {name}" for name in names]))


def test_a_tokenizer_with_too_few_names_is_refused() -> None:
    assert len(material_for(model_of(known(PAPER.names[:20])), "paper").names) == 20
    message = (
        r"^some-model: its tokenizer has one token for 19 of 100 names, expected at least 20; take a model of English "
        r"text, or --tier tiny for one of the zoo \(first: the name 'Bryan' behind a space has the tokens 1 '"
    )
    assert PAPER.names[19] == "Bryan"
    with pytest.raises(PromptError, match=message):
        material_for(model_of(known(PAPER.names[:19])), "paper")


def test_an_unknown_tier_is_refused() -> None:
    with pytest.raises(PromptError, match=r"^tier 'huge': expected tiny or paper$"):
        material_for(model_of(Plain(zoo_words())), "huge")


def test_gpt2_reads_the_papers_prompts_without_bos() -> None:
    gpt2, llama = model_of(Plain(byte_level()), bos=5), model_of(Plain(sentencepiece()), bos=5, model_type="llama")
    assert model_for(gpt2, "paper").bos is None
    assert model_for(gpt2, "paper").tokenizer is gpt2.tokenizer
    assert model_for(gpt2, "tiny") is gpt2
    assert model_for(llama, "paper") is llama


@pytest.mark.parametrize(
    ("name", "build", "tier"),
    [
        ("gpt2", byte_level, "paper"),
        ("llama", sentencepiece, "paper"),
        ("gpt_neox", byte_level, "paper"),
        ("gpt2", zoo_words, "tiny"),
    ],
)
def test_models_in_folders_are_asked_as_they_are(name: str, build: Any, tier: str, tmp_path: Path) -> None:
    """Loaded as `reprise` does it, with a tokenizer of transformers that puts BOS by itself when it is asked to."""
    fast = Fast.from_str(build().to_str())
    fast.add_special_tokens(["<s>"])
    bos = fast.token_to_id("<s>")
    fast.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", bos)])
    network: Any = random_network(name, seed=0)
    network.resize_token_embeddings(fast.get_vocab_size())
    network.save_pretrained(tmp_path)
    PreTrainedTokenizerFast(tokenizer_object=fast, bos_token="<s>").save_pretrained(tmp_path)
    model = model_for(interventions.load(tmp_path), tier)
    assert model.bos == (None if name == "gpt2" and tier == "paper" else bos)
    sentences = material_for(model, tier).draw(12, 0, part="scores")
    found = tokenized(model, sentences)
    for row, sentence in enumerate(sentences):
        ids = build().encode(sentence.text, add_special_tokens=False).ids
        assert real(found, row) == ([] if model.bos is None else [bos]) + ids
    last = interventions.logit_difference(correct=found.io, wrong=found.s)
    with torch.no_grad():
        one = model.network(torch.tensor([real(found, 0)])).logits[0, -1]
    effects = interventions.sweep(
        model.network, found.prompts, interventions.Zero(), last, component="z", over=("layer",), positions=(-1,)
    )
    assert effects.clean[0].item() == pytest.approx(float(one[found.io[0]] - one[found.s[0]]), abs=1e-4)


def test_what_a_name_stands_behind_does_not_matter(fast: Fast) -> None:
    tokenizer = Plain(fast)
    of = material_for(model_of(tokenizer), "tiny")
    sentences = of.draw(30, 0, part="search")
    for name in of.names[:10]:
        assert {name_token(tokenizer, name, behind=each.text) for each in sentences} == {name_token(tokenizer, name)}
    assert positions.BEHIND.endswith(" to")
    assert of.names == tuple(name for name in ioi.NAMES if name in of.names)
