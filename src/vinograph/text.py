"""Tokenizes prompts, and reports the text that was cut off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding
from tokenizers import Tokenizer as RustTokenizer

from vinograph.errors import DamagedModelError
from vinograph.panics import panics_raised


@dataclass(frozen=True)
class Tokens:
    """Token ids of a batch of prompts.

    ``ids`` and ``mask`` are int64 [batch, max_length]; ``dropped`` is the text cut off each prompt.
    """

    ids: NDArray[np.int64]
    mask: NDArray[np.int64]
    dropped: tuple[str, ...]


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
            encoding = self._encode(prompt)
            tokens = list(encoding.ids)
            cut = ""
            if len(tokens) > most:
                cut = prompt[encoding.offsets[most - 1][0] :].strip()
                tokens = [*tokens[: most - 1], tokens[-1]]
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
            dropped.append(cut)
        return Tokens(ids, mask, tuple(dropped))

    def _encode(self, prompt: str) -> Encoding:
        try:
            with panics_raised():
                return self._tokenizer.encode(prompt)
        except MemoryError:
            raise
        except Exception as error:
            raise DamagedModelError(f"{self._origin} tokenizes no prompt: {error}") from error
