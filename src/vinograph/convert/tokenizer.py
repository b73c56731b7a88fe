"""Tokenizers: a checkpoint's files to one `tokenizer.json` for the Rust library."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vinograph.convert.sentencepiece import UNIGRAM, UNKNOWN, read_sentencepiece
from vinograph.errors import DamagedModelError
from vinograph.manifest import TokenizerFile

_FAST = "tokenizer.json"
_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_SPIECE = "spiece.model"
# Where T5's special pieces are: padding, the end, what is unknown.
_T5_START = ("<pad>", "</s>", "<unk>")
_T5_EXTRA_IDS = 100


@dataclass(frozen=True)
class Kind:
    """A kind of tokenizer: its name, the files of its older form, and how transformers' object is made of a folder."""

    name: str
    files: tuple[str, ...]
    load: Callable[[Path], Any]


def _clip(folder: Path) -> Any:
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(folder, local_files_only=True)


def _t5(folder: Path) -> Any:
    from transformers import T5Tokenizer

    if (folder / _FAST).is_file():
        return T5Tokenizer.from_pretrained(folder, local_files_only=True)
    model = read_sentencepiece(folder / _SPIECE)
    if model.model_type != UNIGRAM or model.byte_fallback:
        raise ValueError("it is not a unigram model without fallback to bytes, as T5's is")
    start = tuple(piece.text for piece in model.pieces[: len(_T5_START)])
    if start != _T5_START or model.pieces[2].kind != UNKNOWN:
        raise ValueError(f"its first pieces are {', '.join(start)}, not {', '.join(_T5_START)}")
    settings = folder / "tokenizer_config.json"
    told = json.loads(settings.read_text(encoding="utf-8")) if settings.is_file() else {}
    extra = int(told.get("extra_ids", _T5_EXTRA_IDS))
    vocabulary = [(piece.text, piece.score) for piece in model.pieces]
    vocabulary += [(f"<extra_id_{index}>", 0.0) for index in reversed(range(extra))]
    limit = {"model_max_length": told["model_max_length"]} if "model_max_length" in told else {}
    return T5Tokenizer(vocabulary, _spm_precompiled_charsmap=model.charsmap or None, extra_ids=extra, **limit)


CLIP = Kind("CLIP", ("vocab.json", "merges.txt"), _clip)
T5 = Kind("T5", (_SPIECE,), _t5)


def files_of(listing: Collection[str], kind: Kind = CLIP) -> list[str]:
    """The files among ``listing`` that a tokenizer is read from, or the names of those that it should have."""
    known = [name for name in (_FAST, *kind.files, *_SETTINGS) if name in listing]
    return known if _FAST in known else [*kind.files, *(name for name in known if name in _SETTINGS)]


def write_tokenizer(folder: Path, file: Path, text_length: int, kind: Kind = CLIP) -> TokenizerFile:
    """Write the tokenizer in ``folder`` to ``file``, without padding or truncation: the runtime does both.

    ``text_length`` is the most tokens that the text encoder takes, for a configuration that doesn't say.

    Raises:
        DamagedModelError: the files are not those of such a tokenizer.
    """
    try:
        tokenizer = kind.load(folder)
        backend = json.loads(tokenizer.backend_tokenizer.to_str())
        pad_id, limit = int(tokenizer.pad_token_id), int(tokenizer.model_max_length)
    except Exception as error:  # the libraries raise many kinds, Exception itself among them
        raise DamagedModelError(f"{folder} does not hold a {kind.name} tokenizer: {error}") from error
    backend["padding"] = backend["truncation"] = None
    file.write_text(json.dumps(backend, ensure_ascii=False, sort_keys=False) + "\n", encoding="utf-8")
    return TokenizerFile(file.name, min(limit, text_length), pad_id)
