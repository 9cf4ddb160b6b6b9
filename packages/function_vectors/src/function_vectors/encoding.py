"""From prompts to tokens, and the tokens of their answers as they follow them.

    prompt = encode(text),    whole = encode(text + " " + output),    answer = whole[len(prompt):]

What a tokenizer makes of " Paris" alone is not what follows the prompt: SentencePiece puts a blank of its own before
any text, so that there " Paris" has two. Hence the two are encoded together. That is right as long as the prompt's
tokens begin the whole's; a tokenizer that merges across the border has no answer tokens to speak of, and is refused.

Todd et al. 2024 score the answer's first token. It need not tell answers apart: a tokenizer that splits off every digit
begins all numbers with the same blank. `answer_set` shows it, and `require_single_token` refuses it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from function_vectors.errors import EncodingError
from function_vectors.icl import ICLPrompt
from function_vectors.tasks import Task
from interventions import Prompts, Tokenizer, as_prompts


@dataclass(frozen=True)
class Encoded:
    """Prompts ending in the last token before the answer, and the tokens of each right answer."""

    prompts: Prompts
    answers: tuple[tuple[int, ...], ...]

    @property
    def first(self) -> Int[Tensor, " prompt"]:
        """The first token of every answer."""
        return torch.tensor([answer[0] for answer in self.answers], device=self.prompts.tokens.device)

    @property
    def last_tokens(self) -> Int[Tensor, " prompt"]:
        """The last token of every prompt."""
        return self.prompts.tokens[:, -1]


def encode(tokenizer: Tokenizer, prompts: Sequence[ICLPrompt], *, bos: int | None, n_ctx: int | None = None) -> Encoded:
    """The tokens of prompts and of their answers, on the CPU.

    Args:
        bos: the token that begins every sequence; put first, unless the tokenizer has put it there itself.
        n_ctx: the longest sequence that the model takes, in tokens.

    Raises:
        EncodingError: there is no prompt; the tokenizer merges across the border of a prompt and its answer, has no
            token for an answer, or the same tokens for two; or a prompt with its answer (whose last token is never
            read) is longer than `n_ctx`.
    """
    if not prompts:
        raise EncodingError("no prompts to encode: expected at least one")
    rows, answers = [], []
    for number, prompt in enumerate(prompts):
        row, answer = _following(tokenizer, prompt.text, prompt.query.output, where=f"prompt {number}")
        if bos is not None and row[:1] != [bos]:
            row = [bos, *row]
        if n_ctx is not None and len(row) + len(answer) - 1 > n_ctx:
            raise EncodingError(
                f"prompt {number}: {len(row)} tokens and an answer of {len(answer)} do not fit into n_ctx={n_ctx}; use "
                f"fewer shots than {len(prompt.demonstrations)}, or a shorter template"
            )
        rows.append(row)
        answers.append(answer)
    _check_distinct([prompt.query.output for prompt in prompts], answers)
    return Encoded(as_prompts(rows), tuple(answers))


def answer_set(tokenizer: Tokenizer, task: Task) -> Int[Tensor, " token"]:
    """The distinct first tokens of the task's outputs, sorted, each as it follows the input that it belongs to.

    Raises:
        EncodingError: as for `encode`.
    """
    answers = [_following(tokenizer, pair.input, pair.output, where=f"task {task.name}")[1] for pair in task.pairs]
    _check_distinct([pair.output for pair in task.pairs], answers)
    return torch.tensor(sorted({answer[0] for answer in answers}))


def require_single_token(encoded: Encoded, tokenizer: Tokenizer) -> None:
    """Check that every answer is one token, for metrics that read one.

    Raises:
        EncodingError: naming the first answer that is split, and into what.
    """
    for number, answer in enumerate(encoded.answers):
        if len(answer) > 1:
            pieces = [tokenizer.decode([token]) for token in answer]
            raise EncodingError(
                f"prompt {number}: the answer {tokenizer.decode(list(answer)).strip()!r} is {len(answer)} tokens "
                f"({', '.join(map(repr, pieces))}), expected 1; score the whole answer, or leave that pair out"
            )


def _following(tokenizer: Tokenizer, text: str, output: str, *, where: str) -> tuple[list[int], tuple[int, ...]]:
    """The tokens of `text`, and those that `" " + output` adds to it."""
    start, whole = list(tokenizer.encode(text)), list(tokenizer.encode(f"{text} {output}"))
    if whole[: len(start)] != start:
        raise EncodingError(
            f"{where}: the tokenizer merges {text[-20:]!r} with the answer {' ' + output!r}, so that the answer has no "
            f"tokens of its own; use a template whose text ends in a sign such as ':'"
        )
    if len(whole) == len(start):
        raise EncodingError(f"{where}: the tokenizer has no token for the answer {' ' + output!r}; leave that pair out")
    return start, tuple(whole[len(start) :])


def _check_distinct(outputs: Sequence[str], answers: Sequence[tuple[int, ...]]) -> None:
    """Two outputs with the same tokens: words that the tokenizer does not know, or a case that it does not keep."""
    written: dict[tuple[int, ...], str] = {}
    for output, answer in zip(outputs, answers, strict=True):
        if written.setdefault(answer, output) != output:
            raise EncodingError(
                f"the answers {written[answer]!r} and {output!r} have the same tokens {list(answer)}: the tokenizer "
                f"cannot tell them apart; use words of its vocabulary"
            )
