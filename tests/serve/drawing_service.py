"""What tests of the service that draws share: a small configuration, and a loop to run it in."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vinograph.serve.configuration import Configuration, Limits, ServedModel
from vinograph.serve.contract import Drawing, Drawn, Event, Progress, Waiting
from vinograph.serve.jobs import QueuedJob
from vinograph.serve.service import DrawingService

MODEL = "storybook-sdxl"
SMALL: dict[str, Any] = {"height": 64, "width": 64, "num_inference_steps": 2}
_MANY_STEPS = 1000
PATIENCE = 300.0
"""Seconds after which a test gives up waiting."""


def served(name: str = "small", source: str = MODEL, **fields: Any) -> ServedModel:
    """A model that draws small pictures in two steps, in a precision that gives the same each time."""
    return ServedModel(name, source, **{"precision": "f32", "defaults": SMALL, **fields})


def configuration(*models: ServedModel, **limits: Any) -> Configuration:
    """A configuration with a short queue."""
    return Configuration(models=models or (served(),), limits=Limits(**{"queue": 4, "steps": _MANY_STEPS, **limits}))


@asynccontextmanager
async def running(settings: Configuration, metrics: Any = None) -> AsyncIterator[DrawingService]:
    """A service within the block."""
    service = DrawingService(settings, metrics)
    await service.start()
    try:
        yield service
    finally:
        await service.close(0)


def drawing(prompt: str = "a red house", *, model: str = "", seed: int | None = 7, **arguments: Any) -> Drawing:
    """A drawing of one small picture."""
    own = {name: arguments.pop(name) for name in list(arguments) if name in Drawing.__dataclass_fields__}
    return Drawing(model, {"prompt": prompt, "seed": seed, **arguments}, **own)


def long_drawing(**fields: Any) -> Drawing:
    """A drawing that takes seconds."""
    return drawing(num_inference_steps=_MANY_STEPS, **fields)


async def soon(condition: Callable[[], object]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.005)


async def patiently(work: Awaitable[Any]) -> Any:
    """Wait for ``work``, though not forever."""
    async with asyncio.timeout(PATIENCE):
        return await work


async def followed(job: QueuedJob) -> list[Event]:
    """All events of a job."""
    return [event async for event in job.events()]


async def first_step(job: QueuedJob) -> Progress:
    """Wait until a job has done its first denoising step."""
    async with asyncio.timeout(PATIENCE):
        async for event in job.events():
            if isinstance(event, Progress) and event.stage == "unet":
                return event
    raise AssertionError("the job ended without a step")


def pixels(drawn: Drawn) -> list[NDArray[np.uint8]]:
    """The pictures that were drawn, decoded."""
    return [np.asarray(Image.open(io.BytesIO(each.data))) for each in drawn.pictures]


def places(events: Iterable[Event]) -> list[int]:
    """The places in the queue that events told of."""
    return [event.place for event in events if isinstance(event, Waiting)]
