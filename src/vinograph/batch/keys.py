"""Names every picture by what it is drawn from, so that equal pictures have one file.

The key is a hash of the arguments, the seed among them, of the contents of the pictures that they
name, of the model and its adapters, of the device and the precision, and of Vinograph's version.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from vinograph.models.model import Model

_LENGTH = 32  # hexadecimal digits: 128 bits
_SAMPLES, _SAMPLE_SIZE = 64, 1 << 12
_REMEMBERED = 1 << 14


class Keys:
    """Makes keys of pictures that are drawn in the same way."""

    def __init__(self, drawing: Mapping[str, Any], images: Sequence[str] = ()) -> None:
        """``drawing`` is what all have in common; the arguments in ``images`` name files."""
        self._common = hashlib.sha256(canonical(drawing) + b"\n")
        self._images = images

    def of(self, arguments: Mapping[str, Any]) -> str:
        """The key of a picture.

        Raises:
            OSError: a file that it is drawn from can't be read.
        """
        named = {name: contents(Path(arguments[name])) for name in self._images if name in arguments}
        digest = self._common.copy()
        digest.update(canonical({**arguments, **named}))
        return digest.hexdigest()[:_LENGTH]


def canonical(values: Any) -> bytes:
    """Values as bytes that are the same for equal ones."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=True, default=repr).encode()


def derived_seed(texts: Mapping[str, Any]) -> int:
    """A seed of 32 bits that depends on texts alone."""
    return int.from_bytes(hashlib.sha256(b"seed" + canonical(texts)).digest()[:4])


def contents(file: Path) -> str:
    """The SHA-256 of a file's bytes.

    Raises:
        OSError: it can't be read.
    """
    status = file.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is no file", str(file))
    return _contents(file, status.st_size, status.st_mtime_ns)


@lru_cache(_REMEMBERED)
def _contents(file: Path, _size: int, _changed: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def identity(model: Model) -> str:
    """A hash of a model that is the same on every machine.

    A bundle's manifest has the hashes of its files. The files of a checkpoint may be large: their
    sizes and samples of their bytes count.
    """
    digest = hashlib.sha256(model.manifest.to_json().encode())
    if not model.manifest.files:
        for name in sorted(model.files):
            digest.update(canonical(name))
            for sample in _sampled(model.path / name):
                digest.update(sample)
    return digest.hexdigest()


def _sampled(file: Path) -> Iterable[bytes]:
    """The size of a file, and parts of it that lie evenly."""
    with file.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        yield str(size).encode()
        for index in range(_SAMPLES):
            stream.seek(size * index // _SAMPLES)
            yield stream.read(_SAMPLE_SIZE)
