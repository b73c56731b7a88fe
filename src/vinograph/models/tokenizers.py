"""The tokenizers of CLIP and T5, read from a checkpoint's files into the form of the Rust library.

A checkpoint has a ``tokenizer.json`` or the older files: ``vocab.json`` and ``merges.txt`` for CLIP
(byte-level byte pair encoding, arXiv 2103.00020, section 2.4), ``spiece.model`` for T5 (a unigram
model, arXiv 1804.10959). Text is normalized and split as transformers' tokenizers do, so the ids
are the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers as rust
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from vinograph.errors import DamagedModelError
from vinograph.models.sentencepiece import UNIGRAM, UNKNOWN, read_sentencepiece
from vinograph.panics import panics_raised
from vinograph.schema import Real, Record, Whole
from vinograph.strict_json import JsonError, parse_object, read_object

_FAST = "tokenizer.json"
_SETTINGS = "tokenizer_config.json"
_SETTINGS_FILES = (_SETTINGS, "special_tokens_map.json", "added_tokens.json")
_SPIECE = "spiece.model"
_LARGEST_FILE = 64_000_000  # bytes
_NO_LIMIT = 1_000_000_000  # transformers writes a larger length where a tokenizer has no limit
_LONGEST_MESSAGE = 500
_LONGEST_NUMBER = 40  # digits

# CLIP's own tokenizer splits text into words, contractions, single digits and runs of other
# characters.
_CLIP_PIECES = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_CLIP_START, _CLIP_END = "<|startoftext|>", "<|endoftext|>"
# T5's vocabulary begins with the special pieces for padding, the end and unknown text.
_T5_START = ("<pad>", "</s>", "<unk>")
_T5_UNKNOWN = 2
_T5_EXTRA_IDS = 100
_T5_SPACE = "▁"

_PADDING = Whole(0, 2**31)
_SETTINGS_SCHEMA = Record({}, {"extra_ids": Whole(0, 10_000), "model_max_length": Real(1, 1e31)}, open=True)


@dataclass(frozen=True)
class TokenizerData:
    """A tokenizer as JSON for the Rust library, its padding's id, and its limit of tokens."""

    content: str
    pad_id: int
    limit: int | None


@dataclass(frozen=True)
class TokenizerKind:
    """A kind of tokenizer.

    Attributes:
        name: names the kind in errors.
        files: the files of its older form.
        read: reads a folder with the files, given the tokenizer's settings.
        special: the default of each special token, by its role.
    """

    name: str
    files: tuple[str, ...]
    read: Callable[[Path, Mapping[str, Any]], rust.Tokenizer]
    special: Mapping[str, str]

    def files_of(self, listing: Collection[str]) -> list[str]:
        """The files of ``listing`` that such a tokenizer is read from, or those it should have."""
        settings = [name for name in _SETTINGS_FILES if name in listing]
        older = [name for name in self.files if name in listing]
        return [_FAST, *older, *settings] if _FAST in listing else [*self.files, *settings]


def read_tokenizer(folder: Path, kind: TokenizerKind) -> TokenizerData:
    """Read the tokenizer in ``folder``, without padding and truncation, which callers set.

    Raises:
        DamagedModelError: the files are not those of such a tokenizer.
    """
    try:
        with panics_raised():
            settings = _settings(folder)
            tokenizer = kind.read(folder, settings)
            special = {role: _added(settings.get(role, text)) for role, text in kind.special.items()}
            tokenizer.add_special_tokens([token for token in special.values() if token is not None])
            tokenizer.no_padding()
            tokenizer.no_truncation()
            pad = special["pad_token"]
            pad_id = None if pad is None else tokenizer.token_to_id(pad.content)
            if pad_id is None:
                raise ValueError("its padding is not among its tokens")
            _PADDING.check("its padding's id", pad_id)
            content = json.dumps(parse_object(tokenizer.to_str(), largest=_LARGEST_FILE), ensure_ascii=False)
    except MemoryError:
        raise
    except Exception as error:  # the Rust library raises errors of many types, even Exception itself
        message = str(error)[:_LONGEST_MESSAGE]
        raise DamagedModelError(f"{folder} does not hold a {kind.name} tokenizer: {message}") from error
    limit = settings.get("model_max_length", _NO_LIMIT)
    return TokenizerData(content + "\n", pad_id, int(limit) if limit < _NO_LIMIT else None)


def _settings(folder: Path) -> dict[str, Any]:
    """The settings of the newer file over those of the older one, which has special tokens only."""
    found: dict[str, Any] = {}
    for name in ("special_tokens_map.json", _SETTINGS):
        if (folder / name).is_file():
            found |= {key: value for key, value in _read(folder / name).items() if value is not None}
    _SETTINGS_SCHEMA.check(_SETTINGS, found)
    return found


def _read(file: Path) -> dict[str, Any]:
    """Read a tokenizer's JSON file, in which 31 digits may stand for a length without a limit."""
    try:
        return read_object(file, largest=_LARGEST_FILE, digits=_LONGEST_NUMBER)
    except JsonError as error:
        raise ValueError(f"{file.name} can't be read: {error}") from error


def _added(token: Any) -> rust.AddedToken | None:
    """A special token, from its text or from an object that also says how it is matched."""
    if token is None:
        return None
    if isinstance(token, str):
        return rust.AddedToken(token, special=True, normalized=False)
    if not isinstance(token, dict) or not isinstance(token.get("content"), str):
        raise ValueError("a special token has no text")
    flags = {key: bool(token[key]) for key in ("lstrip", "rstrip", "single_word", "normalized") if key in token}
    return rust.AddedToken(token["content"], special=True, **flags)


def _text(token: Any) -> str:
    return str(token["content"] if isinstance(token, dict) else token)


def _clip(folder: Path, settings: Mapping[str, Any]) -> rust.Tokenizer:
    if (folder / _FAST).is_file():
        return _fast(folder / _FAST)
    vocabulary = _read(folder / "vocab.json")
    lines = _content(folder / "merges.txt").splitlines()
    pairs = [_pair(line) for line in lines if line.strip() and not line.startswith("#version")]
    tokenizer = rust.Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=pairs,
            continuing_subword_prefix="",
            end_of_word_suffix="</w>",
            fuse_unk=False,
            unk_token=_text(settings.get("unk_token", _CLIP_END)),
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(rust.Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    pieces = pre_tokenizers.Split(rust.Regex(_CLIP_PIECES), behavior="removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pieces, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    start, end = (_text(settings.get(*each)) for each in (("bos_token", _CLIP_START), ("eos_token", _CLIP_END)))
    tokenizer.post_processor = processors.RobertaProcessing(
        (end, vocabulary[end]), (start, vocabulary[start]), trim_offsets=False, add_prefix_space=False
    )
    return tokenizer


def _fast(file: Path) -> rust.Tokenizer:
    """A tokenizer that is in the library's form already."""
    _read(file)  # checks the depth of the JSON, which the library reads without a limit
    return rust.Tokenizer.from_str(_content(file))


def _pair(line: str) -> tuple[str, str]:
    first, second = line.split()
    return first, second


def _t5(folder: Path, settings: Mapping[str, Any]) -> rust.Tokenizer:
    if (folder / _FAST).is_file():
        return _fast(folder / _FAST)
    model = read_sentencepiece(folder / _SPIECE)
    if model.model_type != UNIGRAM or model.byte_fallback:
        raise ValueError("it is not a unigram model without fallback to bytes, as T5's is")
    start = tuple(piece.text for piece in model.pieces[: len(_T5_START)])
    if start != _T5_START or model.pieces[_T5_UNKNOWN].kind != UNKNOWN:
        raise ValueError(f"its first pieces are {', '.join(start)}, not {', '.join(_T5_START)}")
    extra = settings.get("extra_ids", _T5_EXTRA_IDS)
    vocabulary = [(piece.text, piece.score) for piece in model.pieces]
    vocabulary += [(f"<extra_id_{index}>", 0.0) for index in reversed(range(extra))]
    tokenizer = rust.Tokenizer(models.Unigram(vocabulary, unk_id=_T5_UNKNOWN, byte_fallback=False))
    if model.charsmap:
        tokenizer.normalizer = normalizers.Precompiled(model.charsmap)
    spaces = pre_tokenizers.Metaspace(replacement=_T5_SPACE, prepend_scheme="always", split=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), spaces])
    tokenizer.decoder = decoders.Metaspace(replacement=_T5_SPACE, prepend_scheme="always", split=True)
    end = _T5_START[1]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=["$A", end], pair=["$A", end, "$B", end], special_tokens=[(end, _T5_START.index(end))]
    )
    extra_tokens = [f"<extra_id_{index}>" for index in range(extra)]
    tokenizer.add_special_tokens([rust.AddedToken(each, special=True, normalized=False) for each in extra_tokens])
    return tokenizer


def _content(file: Path) -> str:
    size = file.stat().st_size
    if size > _LARGEST_FILE:
        raise ValueError(f"{file.name} has {size:,} bytes, over the limit of {_LARGEST_FILE:,}")
    return file.read_text(encoding="utf-8")


CLIP = TokenizerKind(
    "CLIP",
    ("vocab.json", "merges.txt"),
    _clip,
    {"bos_token": _CLIP_START, "eos_token": _CLIP_END, "unk_token": _CLIP_END, "pad_token": _CLIP_END},
)
T5 = TokenizerKind("T5", (_SPIECE,), _t5, dict(zip(("pad_token", "eos_token", "unk_token"), _T5_START, strict=True)))
