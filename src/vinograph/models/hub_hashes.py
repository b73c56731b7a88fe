"""The hub's hashes of the files in its cache, which are the names of the files' blobs.

The hash of a large file is the SHA-256 of its bytes, that of a small one git's: the SHA-1 of a
short header and the bytes. Mirrors of the hub may give the SHA-1 of the bytes alone.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from vinograph.files import digest_of

_SHA256, _SHA1 = 64, 40  # digits
_MODELS = "models--"


@dataclass(frozen=True)
class HubHash:
    """A file's hash in hexadecimal (SHA-256, git's or SHA-1), and the id of its repository."""

    value: str
    repository: str

    def fits(self, file: Path) -> bool:
        """Whether the file has this hash."""
        if len(self.value) == _SHA256:
            return digest_of(file, hashlib.sha256()) == self.value
        header = b"blob %d\0" % file.stat().st_size
        sha1s = (hashlib.sha1(start, usedforsecurity=False) for start in (header, b""))
        return any(digest_of(file, sha1) == self.value for sha1 in sha1s)


def hub_hash(file: Path) -> HubHash | None:
    """The hub's hash of ``file``, where it links into the blobs of the hub's cache; else None."""
    stored = file.resolve()
    home = stored.parent.parent.name
    in_cache = stored.parent.name == "blobs" and home.startswith(_MODELS)
    known = in_cache and len(stored.name) in (_SHA256, _SHA1) and re.fullmatch(r"[0-9a-f]+", stored.name)
    return HubHash(stored.name, home.removeprefix(_MODELS).replace("--", "/", 1)) if known else None
