"""Prompts to token ids, with what was cut off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer as RustTokenizer

from vinograph.errors import DamagedModelError


@dataclass(frozen=True)
class Tokens:
    """A batch of prompts: ``ids`` and ``mask`` are int64 [batch, max_length]; ``dropped`` is the text cut off each."""

    ids: NDArray[np.int64]
    mask: NDArray[np.int64]
    dropped: tuple[str, ...]


class Tokenizer:
    """A Rust tokenizer with the padding and the limit of its text encoder."""

    def __init__(self, file: Path, max_length: int, pad_id: int) -> None:
        """Load ``tokenizer.json``.

        Raises:
            DamagedModelError: the file is not a tokenizer.
        """
        try:
            self._tokenizer = RustTokenizer.from_file(str(file))
        except Exception as error:  # the library raises Exception itself
            raise DamagedModelError(f"{file} is not a tokenizer: {error}") from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.max_length = max_length
        self.pad_id = pad_id

    def __call__(self, prompts: Sequence[str]) -> Tokens:
        """Tokenize ``prompts``; each is cut to ``max_length`` tokens, its end-of-text token kept."""
        ids = np.full((len(prompts), self.max_length), self.pad_id, np.int64)
        mask = np.zeros((len(prompts), self.max_length), np.int64)
        dropped = []
        for row, prompt in enumerate(prompts):
            encoding = self._tokenizer.encode(prompt)
            tokens = list(encoding.ids)
            cut = ""
            if len(tokens) > self.max_length:
                cut = prompt[encoding.offsets[self.max_length - 1][0] :].strip()
                tokens = [*tokens[: self.max_length - 1], tokens[-1]]
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
            dropped.append(cut)
        return Tokens(ids, mask, tuple(dropped))
