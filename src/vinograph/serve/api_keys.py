"""API keys: reading them, and recognizing them in a request's headers."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from vinograph.errors import RequestError
from vinograph.values import shown

_KEY = re.compile(r"[!-+\x2d-~]{1,200}")  # printable ASCII without spaces and commas, which part several keys
_KEY_RULE = "a key has 1 to 200 letters, digits and other characters of ASCII but spaces and commas"
_LARGEST_FILE = 1_000_000  # bytes


def check_key(key: str, where: str) -> None:
    """Refuse what can't be sent as a key. The message doesn't hold it.

    Raises:
        RequestError: it is empty, or has a space, a comma, or a character beyond ASCII.
    """
    if not _KEY.fullmatch(key):
        raise RequestError(f"{where} holds what is no API key: {_KEY_RULE}")


def read_keys(file: Path, where: str) -> list[str]:
    """Read a file with a key on each line; empty lines, and those that begin with #, are passed over.

    Raises:
        RequestError: the file can't be read, or holds no key.
    """
    try:
        with file.open("rb") as stream:
            lines = stream.read(_LARGEST_FILE).decode("utf-8").splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise RequestError(f"{where}: the API keys in {shown(str(file))} can't be read: {reason}") from error
    keys = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    for key in keys:
        check_key(key, f"{where}: {shown(str(file))}")
    if not keys:
        raise RequestError(f"{where}: {shown(str(file))} holds no API key; write one on each line")
    return keys


class Keys:
    """Recognizes keys in constant time: neither the first wrong character nor the length shows."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = [_digest(key.encode()) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def admit(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether headers, their names in lower case, hold a key.

        It is in ``Authorization: Bearer``, in ``x-api-key``, or the password of HTTP Basic. A key
        that is a name and a password, with a colon between them, is compared with both.
        """
        return any([self._is_key(each) for each in _presented(headers)])  # noqa: C419 - all are compared

    def _is_key(self, presented: bytes) -> bool:
        digest = _digest(presented)
        return any([hmac.compare_digest(digest, each) for each in self._digests])  # noqa: C419


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _presented(headers: Mapping[bytes, bytes]) -> list[bytes]:
    found = [headers[b"x-api-key"].strip()] if b"x-api-key" in headers else []
    scheme, _, value = headers.get(b"authorization", b"").strip().partition(b" ")
    if scheme.lower() == b"bearer":
        found.append(value.strip())
    elif scheme.lower() == b"basic":
        try:
            both = base64.b64decode(value.strip(), validate=True)
        except (binascii.Error, ValueError):
            return found
        found += [both, both.partition(b":")[2]]
    return found
