"""Tokenizes prompts, and reports the text that was cut off."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding
from tokenizers import Tokenizer as RustTokenizer

from vinograph.errors import DamagedModelError
from vinograph.panics import panics_raised

FIRST_LEARNED_ID = 1 << 20
"""The id of the first vector that was learned by textual inversion, beyond every vocabulary."""


@dataclass(frozen=True)
class Tokens:
    """Token ids of a batch of prompts.

    ``ids`` and ``mask`` are int64 [batch, max_length]; ``dropped`` is the text cut off each prompt.
    """

    ids: NDArray[np.int64]
    mask: NDArray[np.int64]
    dropped: tuple[str, ...]


@dataclass(frozen=True)
class Token:
    """A word or a piece of one: its ids, and where it begins in its text.

    It has one id, or those of all vectors of a word that was learned by textual inversion.
    """

    ids: tuple[int, ...]
    begin: int

    @property
    def is_learned(self) -> bool:
        """Whether it is a word that was learned by textual inversion."""
        return self.ids[0] >= FIRST_LEARNED_ID


class Tokenizer:
    """A Rust tokenizer with the padding and the maximum length of its text encoder."""

    def __init__(self, file: Path, max_length: int, pad_id: int) -> None:
        """Load ``tokenizer.json``.

        Raises:
            DamagedModelError: the file is not a tokenizer.
        """
        try:
            with panics_raised():
                tokenizer = RustTokenizer.from_file(str(file))
        except Exception as error:  # the library raises Exception itself
            raise DamagedModelError(f"{file} is not a tokenizer: {error}") from error
        self._use(tokenizer, str(file), max_length, pad_id)

    @classmethod
    def from_content(cls, content: str, origin: str, max_length: int, pad_id: int) -> Tokenizer:
        """A tokenizer from the content of a ``tokenizer.json``; ``origin`` names it in errors.

        Raises:
            DamagedModelError: it is not a tokenizer.
        """
        instance = cls.__new__(cls)
        try:
            with panics_raised():
                tokenizer = RustTokenizer.from_str(content)
        except Exception as error:  # the library raises Exception itself
            raise DamagedModelError(f"{origin} holds no tokenizer: {error}") from error
        instance._use(tokenizer, origin, max_length, pad_id)
        return instance

    def _use(self, tokenizer: RustTokenizer, origin: str, max_length: int, pad_id: int) -> None:
        self._tokenizer = tokenizer
        self._origin = origin
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.max_length = max_length
        self.pad_id = pad_id
        self._words: tuple[tuple[int, ...], ...] = ()  # the ids of each group of the pattern
        self._pattern: re.Pattern[str] | None = None

    def add_words(self, words: Mapping[str, Sequence[int]]) -> None:
        """Let each of ``words`` become the ids given for it, wherever it stands alone in a text.

        Capitals don't matter. A word that begins or ends with a sign, such as ``<cat>``, is found
        next to letters, too. Of several that begin in one place, the longest is taken.
        """
        ordered = sorted(words, key=len, reverse=True)
        self._words = tuple(tuple(words[each]) for each in ordered)
        self._pattern = re.compile("|".join(f"({_alone(each)})" for each in ordered), re.IGNORECASE)

    def tokens(self, text: str) -> list[Token]:
        """All tokens of ``text``, without those that mark its start and end.

        Raises:
            DamagedModelError: the tokenizer was loaded, but fails on a text.
        """
        if self._pattern is None:
            return self._plain_tokens(text, 0)
        found: list[Token] = []
        begin = 0
        for match in self._pattern.finditer(text):
            found += self._plain_tokens(text[begin : match.start()], begin)
            found.append(Token(self._words[(match.lastindex or 1) - 1], match.start()))
            begin = match.end()
        return found + self._plain_tokens(text[begin:], begin)

    def _plain_tokens(self, text: str, begin: int) -> list[Token]:
        if not text:
            return []
        encoding = self._encode(text, special=False)
        return [Token((own,), begin + at) for own, (at, _) in zip(encoding.ids, encoding.offsets, strict=True)]

    @property
    def marks(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The ids that stand before and after every text: a start, if there is one, and an end."""
        ids = tuple(self._encode("").ids)
        return ids[:-1], ids[-1:]

    def id_of(self, piece: str) -> int | None:
        """The id of a piece of the vocabulary; None where it has none."""
        found = self._tokenizer.token_to_id(piece)
        return None if found is None else int(found)

    def __call__(self, prompts: Sequence[str], max_length: int | None = None) -> Tokens:
        """Tokenize ``prompts``, cutting each to ``max_length`` tokens including the end token.

        ``max_length`` defaults to the tokenizer's own.

        Raises:
            DamagedModelError: the tokenizer was loaded, but fails on a prompt.
        """
        most = self.max_length if max_length is None else max_length
        ids = np.full((len(prompts), most), self.pad_id, np.int64)
        mask = np.zeros((len(prompts), most), np.int64)
        dropped = []
        for row, prompt in enumerate(prompts):
            tokens, begins = self._with_marks(prompt)
            cut = ""
            if len(tokens) > most:
                cut = prompt[begins[most - 1] :].strip()
                tokens = [*tokens[: most - 1], tokens[-1]]
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
            dropped.append(cut)
        return Tokens(ids, mask, tuple(dropped))

    def _with_marks(self, prompt: str) -> tuple[list[int], list[int]]:
        """The ids of a prompt with those of its start and end, and where each one's token begins."""
        if self._pattern is None:
            encoding = self._encode(prompt)
            return list(encoding.ids), [begin for begin, _ in encoding.offsets]
        start, end = self.marks
        pairs = [(own, token.begin) for token in self.tokens(prompt) for own in token.ids]
        ids = [*start, *(own for own, _ in pairs), *end]
        return ids, [*(0 for _ in start), *(at for _, at in pairs), *(len(prompt) for _ in end)]

    def _encode(self, prompt: str, *, special: bool = True) -> Encoding:
        try:
            with panics_raised():
                return self._tokenizer.encode(prompt, add_special_tokens=special)
        except MemoryError:
            raise
        except Exception as error:
            raise DamagedModelError(f"{self._origin} tokenizes no prompt: {error}") from error


def _alone(word: str) -> str:
    """The pattern of a word that isn't part of a longer one."""
    before = r"(?<!\w)" if re.match(r"\w", word) else ""
    after = r"(?!\w)" if re.search(r"\w\Z", word) else ""
    return f"{before}{re.escape(word)}{after}"
