"""Streams a drawing as server-sent events, as OpenAI's API does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from vinograph.serve.contract import Drawn, Event, Job, Progress, Waiting
from vinograph.serve.failures import failure_of
from vinograph.serve.openai_replies import (
    appearance,
    as_json,
    check_drawn,
    error_object,
    now,
    provenance,
    usage,
    with_picture,
)
from vinograph.serve.openai_request import Asked
from vinograph.serve.partial_images import partial_images_until

_KEEP_ALIVE = 15.0  # seconds without an event; proxies drop a connection after 60


class EventStream(StreamingResponse):
    """The events of a job, which is cancelled when its client goes away."""

    media_type = "text/event-stream"

    def __init__(self, job: Job, asked: Asked, prefix: str) -> None:
        """``prefix`` is what the events' names begin with: "image_generation" or "image_edit"."""
        headers = {**asked.headers, "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(_messages(job, asked, prefix), headers=headers)
        self._job = job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events until the last one, or until the client goes away."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._job.cancel()


@dataclass
class PartialImages:
    """Chooses the previews that are sent: ``count`` of each picture, spread evenly over its steps.

    The steps are those of the first stage that shows previews.
    """

    count: int
    _picture: int = -1
    _stage: str = ""
    _passed: int = 0
    _sent: int = 0

    def chosen(self, progress: Progress) -> int | None:
        """The number of the partial picture that this step's preview is, counted from 0; None if none."""
        if progress.preview is None:
            return None
        if progress.picture != self._picture:
            self._picture, self._stage, self._passed, self._sent = progress.picture, progress.stage, 0, 0
        passed = partial_images_until(progress.index, progress.total, self.count)
        if progress.stage != self._stage or passed <= self._passed:
            return None
        self._passed = passed
        self._sent += 1
        return self._sent - 1


async def _messages(job: Job, asked: Asked, prefix: str) -> AsyncIterator[bytes]:
    partial_images = PartialImages(asked.reply.partial_images)
    try:
        async for event in _with_pauses(job.events()):
            match event:
                case None:
                    yield _comment("keep-alive")
                case Waiting(place):
                    yield _comment(f"waiting: {place} before this one")
                case Progress():
                    index = partial_images.chosen(event)
                    if index is not None and event.preview is not None:
                        yield _partial(f"{prefix}.partial_image", event.preview, index, asked)
                case Drawn():
                    check_drawn(event)
                    for each in _completed(f"{prefix}.completed", event, asked):
                        yield each
    except Exception as error:  # the status was sent already: the failure has to be an event
        failure = error_object(failure_of(error))
        yield _message("error", as_json({"type": "error", "error": failure}))


async def _with_pauses(events: AsyncIterator[Event]) -> AsyncIterator[Event | None]:
    """The events, with None for every pause after which a connection might seem dead."""
    following: asyncio.Future[Event] | None = None
    try:
        while True:
            following = asyncio.ensure_future(anext(events)) if following is None else following
            done, _ = await asyncio.wait({following}, timeout=_KEEP_ALIVE)
            if not done:
                yield None
                continue
            try:
                event = following.result()
            except StopAsyncIteration:
                return
            following = None
            yield event
    finally:
        if following is not None:
            following.cancel()


def _partial(name: str, preview: bytes, index: int, asked: Asked) -> bytes:
    fields = {"type": name, "partial_image_index": index, "created_at": now(), **appearance(asked, asked.size)}
    return _message(name, with_picture({**fields, "output_format": "png"}, preview))


def _completed(name: str, drawn: Drawn, asked: Asked) -> Iterator[bytes]:
    for picture in drawn.pictures:
        fields: Mapping[str, Any] = {
            "type": name,
            "created_at": now(),
            **appearance(asked, f"{picture.width}x{picture.height}"),
            "usage": usage(asked, (picture,)),
            "seed": picture.seed,
            **provenance(drawn),
        }
        yield _message(name, with_picture(fields, picture.data))


def _message(name: str, data: bytes) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"


def _comment(text: str) -> bytes:
    return f": {text}\n\n".encode()
