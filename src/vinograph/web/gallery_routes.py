"""The gallery's addresses: its list, its pictures, and what the page may change in it.

Pictures are named by identifiers, never by paths. Changes are posted as JSON, which no other site's
form can send without the browser asking first.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import parse_qsl

from starlette.responses import JSONResponse, Response, StreamingResponse

from vinograph.errors import RequestError, ResourceError
from vinograph.web.gallery_index import GalleryEntry
from vinograph.web.gallery_store import GalleryStore, Listing

PREFIX = "/gallery/"
_IDENTIFIER = re.compile("[0-9a-f]{32}")
_KEY = re.compile(r"\d{1,20}-[0-9a-f]{32}")
_LONGEST_SEARCH = 200  # characters
_LONGEST_QUERY = 2000
_MOST_AT_ONCE = 1000  # pictures of one request to delete
_PIECE = 1 << 16
_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
# The address of a picture changes with its file, so that a browser may keep what it has.
_KEPT = {"X-Content-Type-Options": "nosniff", "Cache-Control": "private, max-age=86400, immutable"}
_FRESH = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}


class Answer(NamedTuple):
    """A status and the reason, where a request isn't answered with what it asks for."""

    status: int
    reason: str


def picture_address(entry: GalleryEntry) -> str:
    """The address of a picture's file, as the page's links have it."""
    return f"gallery/picture/{entry.identifier}"


def identifier_in(address: Any) -> str | None:
    """The identifier in an address of :func:`picture_address`; None in any other value."""
    name = address.removeprefix("gallery/picture/") if isinstance(address, str) else ""
    return name if _IDENTIFIER.fullmatch(name) else None


class GalleryRoutes:
    """Answers requests below ``/gallery/``, whose origin the guard has checked."""

    def __init__(self, store: GalleryStore) -> None:
        self._store = store
        self._changes: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
            "delete": self._delete,
            "favourite": self._favourite,
        }

    async def get(self, path: str, query: str) -> Response | Answer:
        """The list, a picture or a thumbnail."""
        what, _, name = path.removeprefix(PREFIX).partition("/")
        if path == f"{PREFIX}list":
            return await asyncio.to_thread(self._list, query)
        if what in ("picture", "thumbnail") and _IDENTIFIER.fullmatch(name):
            return await asyncio.to_thread(self._picture, what, name)
        return Answer(404, "the page has nothing there")

    def changes(self, path: str) -> bool:
        """Whether a post to ``path`` changes the gallery."""
        return path.removeprefix(PREFIX) in self._changes

    async def post(self, path: str, value: Mapping[str, Any]) -> Response | Answer:
        """Change the gallery as the JSON of a post says."""
        change = self._changes[path.removeprefix(PREFIX)]
        try:
            return JSONResponse(await asyncio.to_thread(change, value), headers=_FRESH)
        except ResourceError as error:
            return Answer(507, str(error))
        except RequestError as error:
            return Answer(400, str(error))

    def _list(self, query: str) -> Response | Answer:
        try:
            given = dict(parse_qsl(query[:_LONGEST_QUERY], keep_blank_values=True, errors="strict"))
        except ValueError:
            return Answer(400, "the search can't be read")
        search, after = given.get("search", ""), given.get("after", "")
        if len(search) > _LONGEST_SEARCH or (after and not _KEY.fullmatch(after)):
            return Answer(400, f"a search has at most {_LONGEST_SEARCH} characters")
        listing = self._store.list(search, favourites=given.get("favourites") == "1", after=after)
        return JSONResponse(_as_json(listing), headers=_FRESH)

    def _picture(self, what: str, identifier: str) -> Response | Answer:
        try:
            entry = self._store.get(identifier)
            if what == "thumbnail":
                return Response(self._store.thumbnail(entry), media_type="image/webp", headers=_KEPT)
            stream = self._store.open(entry)
        except RequestError as error:
            return Answer(404, str(error))
        headers = {**_KEPT, "Content-Length": str(entry.bytes)}
        return StreamingResponse(_pieces(stream, entry.bytes), media_type=_TYPES[entry.kind], headers=headers)

    def _delete(self, value: Mapping[str, Any]) -> dict[str, Any]:
        names = value.get("pictures")
        if not isinstance(names, list) or len(names) > _MOST_AT_ONCE:
            raise RequestError(f"pictures is a list of at most {_MOST_AT_ONCE} identifiers")
        done, problems = self._store.delete([_identifier(each) for each in names])
        return {"deleted": done, "problems": problems}

    def _favourite(self, value: Mapping[str, Any]) -> dict[str, Any]:
        favourite = value.get("favourite")
        if not isinstance(favourite, bool):
            raise RequestError("favourite is true or false")
        self._store.set_favourite(_identifier(value.get("picture")), favourite)
        return {"favourite": favourite}


def _identifier(value: Any) -> str:
    if not isinstance(value, str) or _IDENTIFIER.fullmatch(value) is None:
        raise RequestError("a picture is named by its identifier")
    return value


def _pieces(stream: BinaryIO, length: int) -> Iterator[bytes]:
    """The file's content, no longer than it was when it was listed."""
    with stream:
        while length > 0 and (piece := stream.read(min(_PIECE, length))):
            length -= len(piece)
            yield piece


def _as_json(listing: Listing) -> dict[str, Any]:
    """A listing as the page's script reads it."""
    pictures = [
        {
            "id": each.identifier,
            "key": f"{each.modified}-{each.identifier}",
            "name": each.name,
            "prompt": each.prompt,
            "model": each.model,
            "seed": each.seed,
            "width": each.size[0],
            "height": each.size[1],
            "favourite": each.place in listing.favourites,
        }
        for each in listing.entries
    ]
    return {"pictures": pictures, "found": listing.found, "total": listing.total, "notes": list(listing.notes)}
