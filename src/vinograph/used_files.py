"""The files of adapters and learned words that a picture was drawn with, as its metadata name them.

A picture may be shown to anybody. So its metadata have names of files without their folders, and
the beginning of each file's SHA-256, by which another file of the same name can be told.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

_DIGITS = 10  # of the hash: as many as AUTOMATIC1111 shows of a file's


@dataclass(frozen=True)
class UsedFile:
    """A file that changed a model: an adapter with a ``weight``, or one of a learned ``word``.

    ``name`` is the file's, or that of its folder where all such files are named alike.
    """

    name: str
    path: Path
    weight: float | None = None
    word: str | None = None


def record(files: Iterable[UsedFile]) -> dict[str, Any]:
    """The entries of a picture's metadata: weights and words by the files' names, and their hashes.

    Of two files of the same name the later has a number.
    """
    adapters, embeddings, hashes = dict[str, float](), dict[str, str](), dict[str, str]()
    for each in files:
        name, number = each.name, 2
        while name in {**adapters, **embeddings}:
            name, number = f"{each.name} ({number})", number + 1
        if each.weight is not None:
            adapters[name] = each.weight
        else:
            embeddings[name] = each.word or ""
        if (found := short_hash(each.path)) is not None:
            hashes[name] = found
    entries = {"adapters": adapters, "embeddings": embeddings, "file_hashes": hashes}
    return {entry: value for entry, value in entries.items() if value}


def short_hash(path: Path) -> str | None:
    """The first digits of a file's SHA-256; None where it can't be read any more."""
    try:
        stat = path.stat()
        return _hash(path, stat.st_size, stat.st_mtime_ns)
    except OSError:
        return None


@lru_cache(maxsize=64)
def _hash(path: Path, _size: int, _time: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:_DIGITS]
