"""A service that answers as a test says, for what the real one does only rarely."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from vinograph import Pipeline
from vinograph.serve.contract import AdapterInfo, Drawing, Drawn, Event, Job, ModelInfo, Picture, UnknownModelError


def described(name: str) -> ModelInfo:
    """What the service says of an embedded model."""
    pipe = Pipeline.from_pretrained(name)
    manifest = pipe.model.manifest
    return ModelInfo(name, name, manifest.family, True, 1_700_000_000, pipe.calls["generate"].takes, manifest.sizes)


def drawn(*data: bytes) -> Drawn:
    """The end of a job with pictures of these bytes."""
    pictures = tuple(Picture(each, 7 + index, 256, 256, "") for index, each in enumerate(data))
    return Drawn(pictures, "storybook-sdxl", {}, {}, (), {}, 0.0)


@dataclass
class ScriptedJob:
    """Yields events, or raises an error; it waits where the script has None."""

    script: Sequence[Event | Exception | None]
    id: str = "1"
    cancelled: threading.Event = field(default_factory=threading.Event)
    latest_preview: bytes | None = None

    @property
    def latest(self) -> Event:
        """The first event."""
        assert isinstance(self.script[0], Event)
        return self.script[0]

    async def events(self) -> AsyncIterator[Event]:
        """Yield the script."""
        for each in self.script:
            if each is None:
                await asyncio.sleep(60)
            elif isinstance(each, Exception):
                raise each
            else:
                yield each

    async def result(self) -> Drawn:
        """The last event."""
        async for each in self.events():
            if isinstance(each, Drawn):
                return each
        raise AssertionError("the script has no end")

    def cancel(self) -> None:
        """Note it."""
        self.cancelled.set()

    def interrupt(self) -> None:
        """Do nothing."""


@dataclass
class ScriptedService:
    """Answers each drawing by the next of ``answers``, and keeps what was submitted."""

    answers: list[Callable[[], Job]]
    info: ModelInfo
    submitted: list[Drawing] = field(default_factory=list)
    running: Job | None = None
    waiting: Sequence[Job] = ()
    ready: bool = True
    under_way_count: int = 0
    worker_memory: int = 0

    async def submit(self, drawing: Drawing) -> Job:
        """The next answer."""
        self.submitted.append(drawing)
        return self.answers.pop(0)()

    async def find(self, name: str) -> ModelInfo:
        """The only model."""
        if name == "unknown":
            raise UnknownModelError("there is no model unknown")
        return self.info

    async def models(self) -> Sequence[ModelInfo]:
        """The only model."""
        return (self.info,)

    async def adapters(self) -> Sequence[AdapterInfo]:
        """None."""
        return ()
