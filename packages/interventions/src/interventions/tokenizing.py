"""Text to token ids and back, the same for tokenizers of transformers and of `tokenizers`."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Tokenizer(Protocol):
    """Text to token ids and back."""

    def encode(self, text: str) -> list[int]: ...

    def decode(self, tokens: list[int]) -> str: ...


class Words:
    """A transformers tokenizer with the two methods that this package promises: no special tokens are added."""

    def __init__(self, tokenizer: Any) -> None:
        self.transformers = tokenizer
        self._core = getattr(tokenizer, "backend_tokenizer", None)  # `tokenizers`, where that is what it is made of

    def encode(self, text: str) -> list[int]:
        # transformers' own call takes thrice as long as what it calls, and is needed only to undo what another caller
        # left there, such as truncation.
        if self._core is None or self._core.truncation is not None or self._core.padding is not None:
            return list(self.transformers.encode(text, add_special_tokens=False, verbose=False))
        return list(self._core.encode(text, add_special_tokens=False).ids)

    def decode(self, tokens: list[int]) -> str:
        return str(self.transformers.decode(tokens))


class BytePairs:
    """A `tokenizers` tokenizer with the two methods that this package promises."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text).ids)

    def decode(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=False))
