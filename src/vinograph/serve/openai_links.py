"""Pictures that wait to be fetched: the addresses of ``response_format=url``."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

LINKS_PATH = "/v1/images/files/"
"""Where the pictures are. Clients fetch them without a key, so these paths are free of one.

The name of a picture is its secret: 128 random bits.
"""
LIFETIME = 3600.0  # seconds, as OpenAI's
MOST_BYTES = 256_000_000
_SECRET_BYTES = 16


@dataclass(frozen=True)
class LinkedPicture:
    """A picture's file. It is there until ``expires``, in seconds of the clock."""

    data: bytes
    format: str
    expires: float


class PictureLinks:
    """Pictures by their secret names, in memory, for an hour.

    When they take more than ``most_bytes``, the oldest go first, and the newest always stays.
    """

    def __init__(self, most_bytes: int = MOST_BYTES, clock: Callable[[], float] = time.monotonic) -> None:
        self._most_bytes = most_bytes
        self._clock = clock
        self._pictures: OrderedDict[str, LinkedPicture] = OrderedDict()
        self._bytes = 0

    def add(self, data: bytes, picture_format: str) -> str:
        """Store a picture, and return its name, which ends as files of its format do."""
        name = f"{secrets.token_urlsafe(_SECRET_BYTES)}.{picture_format}"
        self._pictures[name] = LinkedPicture(data, picture_format, self._clock() + LIFETIME)
        self._bytes += len(data)
        self._drop_old()
        return name

    def get(self, name: str) -> LinkedPicture | None:
        """The picture of that name; None if there is none, or no longer."""
        self._drop_old()
        return self._pictures.get(name)

    def _drop_old(self) -> None:
        now = self._clock()
        while self._pictures:
            name, oldest = next(iter(self._pictures.items()))
            too_many = self._bytes > self._most_bytes and len(self._pictures) > 1
            if oldest.expires > now and not too_many:
                return
            del self._pictures[name]
            self._bytes -= len(oldest.data)
