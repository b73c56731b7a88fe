"""Reading a sentencepiece model: its pieces with their scores, and its normalization of text.

The file is one message of protocol buffers. Only a few fields are read, so neither library is
needed. Their numbers are from
https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto, and the encoding
is https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

UNIGRAM = 1
UNKNOWN = 2
"""The type of the piece for text that no other piece covers."""

# Field numbers: of the model, of a piece, and of its trainer's and normalizer's settings; then wire
# types.
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_PIECE, _SCORE, _TYPE = 1, 2, 3
_NORMAL = 1
_MODEL_TYPE = 3
_BYTE_FALLBACK = 35
_CHARSMAP = 2
_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5


@dataclass(frozen=True)
class Piece:
    """A piece of text, the logarithm of its probability, and its type."""

    text: str
    score: float
    kind: int


@dataclass(frozen=True)
class SentencePiece:
    """The contents of a model; ``charsmap`` is its compiled normalization, which may be empty."""

    pieces: tuple[Piece, ...]
    model_type: int
    byte_fallback: bool
    charsmap: bytes


def read_sentencepiece(file: Path) -> SentencePiece:
    """Read a ``spiece.model``.

    Raises:
        ValueError: the file is no sentencepiece model.
    """
    pieces, charsmap = [], b""
    model_type, byte_fallback = UNIGRAM, False
    for field, value in _fields(file.read_bytes()):
        if field == _PIECES:
            pieces.append(_piece(_bytes(value)))
        elif field == _TRAINER:
            trainer = dict(_fields(_bytes(value)))
            model_type, byte_fallback = _int(trainer.get(_MODEL_TYPE, UNIGRAM)), bool(trainer.get(_BYTE_FALLBACK, 0))
        elif field == _NORMALIZER:
            charsmap = _bytes(dict(_fields(_bytes(value))).get(_CHARSMAP, b""))
    if not pieces:
        raise ValueError("it has no pieces")
    return SentencePiece(tuple(pieces), model_type, byte_fallback, charsmap)


def _piece(message: bytes) -> Piece:
    fields = dict(_fields(message))
    (score,) = struct.unpack("<f", _bytes(fields.get(_SCORE, b"\0\0\0\0")))
    return Piece(_bytes(fields.get(_PIECE, b"")).decode(), score, _int(fields.get(_TYPE, _NORMAL)))


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The numbers and values of a message's fields: integers, or the bytes of any other type."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        kind = key & 7
        if kind == _VARINT:
            value, position = _varint(message, position)
            yield key >> 3, value
            continue
        if kind == _LENGTH:
            size, position = _varint(message, position)
        elif kind in (_FOUR_BYTES, _EIGHT_BYTES):
            size = 4 if kind == _FOUR_BYTES else 8
        else:
            raise ValueError(f"a field is of the kind {kind}, which is unknown")
        if position + size > len(message):
            raise ValueError("it is cut short")
        yield key >> 3, message[position : position + size]
        position += size


def _varint(message: bytes, position: int) -> tuple[int, int]:
    """An integer of seven bits to a byte, and the position after it."""
    value = 0
    for index, byte in enumerate(message[position : position + 10]):
        value |= (byte & 127) << 7 * index
        if byte < 128:
            return value, position + index + 1
    raise ValueError("it is cut short, or no number ends where it should")


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError(f"a field holds {value} where bytes are expected")
    return value


def _int(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise ValueError("a field holds bytes where a number is expected")
    return value
