"""Tokenizers: a checkpoint's files to one `tokenizer.json` for the Rust library."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vinograph import strict_json
from vinograph.convert.sentencepiece import UNIGRAM, UNKNOWN, read_sentencepiece
from vinograph.errors import DamagedModelError
from vinograph.manifest import TokenizerFile
from vinograph.panics import panics_raised
from vinograph.schema import Maybe, Named, Real, Record, Whole

_FAST = "tokenizer.json"
_CONFIG = "tokenizer_config.json"
_SETTINGS = (_CONFIG, "special_tokens_map.json", "added_tokens.json")
_SPIECE = "spiece.model"
# Where T5's special pieces are: padding, the end, what is unknown.
_T5_START = ("<pad>", "</s>", "<unk>")
_T5_EXTRA_IDS = 100

_LARGEST = 32_000_000  # bytes of a file; the largest vocabularies have half of that
_DIGITS = 32
_LONGEST_MESSAGE = 500
_LENGTH, _PADDING = Whole(1, 65_536), Whole(0, 2**31)
_TOKENS = Named(Record({}, open=True), most=100_000)
_SCHEMA = Record(
    {},
    {
        "extra_ids": Whole(0, 1000),
        "model_max_length": Maybe(Real(1, 1e31)),
        "added_tokens_decoder": _TOKENS,
    },
    open=True,
)


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
    settings = _settings(folder)
    extra = settings.get("extra_ids", _T5_EXTRA_IDS)
    vocabulary = [(piece.text, piece.score) for piece in model.pieces]
    vocabulary += [(f"<extra_id_{index}>", 0.0) for index in reversed(range(extra))]
    limit = {"model_max_length": settings["model_max_length"]} if "model_max_length" in settings else {}
    return T5Tokenizer(vocabulary, _spm_precompiled_charsmap=model.charsmap or None, extra_ids=extra, **limit)


def _settings(folder: Path) -> dict[str, Any]:
    """What the folder's tokenizer_config.json says; empty where there is none."""
    file = folder / _CONFIG
    return _read(file) if file.is_file() else {}


def _read(file: Path) -> dict[str, Any]:
    """A JSON file of a tokenizer. transformers writes a length of 31 digits where there is no limit."""
    try:
        return strict_json.read_object(file, largest=_LARGEST, digits=_DIGITS)
    except strict_json.JsonError as error:
        raise ValueError(f"{file.name} can't be read: {error}") from error


def _check_files(folder: Path) -> None:
    """Check what transformers would read in good faith: depth, size, and numbers that become loops.

    Raises:
        ValueError: naming the file.
    """
    for name in (_FAST, "vocab.json", *_SETTINGS):
        if (folder / name).is_file():
            content = _read(folder / name)
            if name == _CONFIG:
                _SCHEMA.check(name, content)
    for name in ("merges.txt", _SPIECE):
        if (folder / name).is_file() and (folder / name).stat().st_size > _LARGEST:
            raise ValueError(f"{name} has {(folder / name).stat().st_size:,} bytes, over the limit of {_LARGEST:,}")


CLIP = Kind("CLIP", ("vocab.json", "merges.txt"), _clip)
T5 = Kind("T5", (_SPIECE,), _t5)


def files_of(listing: Collection[str], kind: Kind = CLIP) -> list[str]:
    """The files among ``listing`` that a tokenizer is read from, or the names of those that it should have."""
    known = [name for name in (_FAST, *kind.files, *_SETTINGS) if name in listing]
    return known if _FAST in known else [*kind.files, *(name for name in known if name in _SETTINGS)]


@dataclass(frozen=True)
class PreparedTokenizer:
    """The contents of a bundle's file of a tokenizer, its length and its padding."""

    content: str
    max_length: int
    pad_id: int

    def write(self, file: Path) -> TokenizerFile:
        """Write ``file``."""
        file.write_text(self.content, encoding="utf-8")
        return TokenizerFile(file.name, self.max_length, self.pad_id)


def prepare_tokenizer(folder: Path, text_length: int, kind: Kind = CLIP) -> PreparedTokenizer:
    """The tokenizer in ``folder`` as a bundle has it: without padding or truncation, since the runtime does both.

    ``text_length`` is the most tokens that the text encoder takes, for a configuration that doesn't say.

    Raises:
        DamagedModelError: the files are not those of such a tokenizer.
    """
    try:
        _check_files(folder)
        with panics_raised():
            tokenizer = kind.load(folder)
            backend = json.loads(tokenizer.backend_tokenizer.to_str())
        pad_id, limit = int(tokenizer.pad_token_id), int(min(tokenizer.model_max_length, text_length))
        _LENGTH.check("model_max_length", limit)
        _PADDING.check("the padding's id", pad_id)
    except MemoryError:
        raise
    except Exception as error:  # the libraries raise many kinds, Exception itself among them
        message = str(error)[:_LONGEST_MESSAGE]
        raise DamagedModelError(f"{folder} does not hold a {kind.name} tokenizer: {message}") from error
    backend["padding"] = backend["truncation"] = None
    return PreparedTokenizer(json.dumps(backend, ensure_ascii=False, sort_keys=False) + "\n", limit, pad_id)


def write_tokenizer(folder: Path, file: Path, text_length: int, kind: Kind = CLIP) -> TokenizerFile:
    """Write the tokenizer in ``folder`` to ``file``. Arguments and errors are :func:`prepare_tokenizer`'s."""
    return prepare_tokenizer(folder, text_length, kind).write(file)
