"""A tokenizer read and written to a file, as whoever draws with it reads it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from vinograph.models.tokenizers import CLIP, TokenizerKind, read_tokenizer


@dataclass(frozen=True)
class Written:
    """What is known of a tokenizer beside its file."""

    max_length: int
    pad_id: int


def files_of(listing: Collection[str], kind: TokenizerKind = CLIP) -> list[str]:
    """The files of a tokenizer among ``listing``."""
    return kind.files_of(listing)


def write_tokenizer(folder: Path, file: Path, text_length: int, kind: TokenizerKind = CLIP) -> Written:
    """Read the tokenizer in ``folder``, with at most ``text_length`` tokens, and write it."""
    data = read_tokenizer(folder, kind)
    file.write_text(data.content, encoding="utf-8")
    return Written(text_length if data.limit is None else min(data.limit, text_length), data.pad_id)
