"""CLIP's tokenizers: a checkpoint's files to one `tokenizer.json` for the Rust library."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from vinograph.bundle import TokenizerFile
from vinograph.errors import DamagedModelError

_FAST, _SLOW = ("tokenizer.json",), ("vocab.json", "merges.txt")
_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


def files_of(listing: Collection[str]) -> list[str]:
    """The files among ``listing`` that a tokenizer is read from, or the names of those that it should have."""
    known = [name for name in (*_FAST, *_SLOW, *_SETTINGS) if name in listing]
    return known if "tokenizer.json" in known else [*_SLOW, *(name for name in known if name in _SETTINGS)]


def write_tokenizer(folder: Path, file: Path, text_length: int) -> TokenizerFile:
    """Write the tokenizer in ``folder`` to ``file``, without padding or truncation: the runtime does both.

    ``text_length`` is the most tokens that the text encoder takes, for a configuration that doesn't say.

    Raises:
        DamagedModelError: the files are not those of a CLIP tokenizer.
    """
    from transformers import CLIPTokenizer

    try:
        tokenizer: Any = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        backend = json.loads(tokenizer.backend_tokenizer.to_str())
        pad_id, limit = int(tokenizer.pad_token_id), int(tokenizer.model_max_length)
    except Exception as error:  # the libraries raise many kinds, Exception itself among them
        raise DamagedModelError(f"{folder} does not hold a CLIP tokenizer: {error}") from error
    backend["padding"] = backend["truncation"] = None
    file.write_text(json.dumps(backend, ensure_ascii=False, sort_keys=False) + "\n", encoding="utf-8")
    return TokenizerFile(file.name, min(limit, text_length), pad_id)
