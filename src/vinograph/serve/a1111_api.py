"""The API of AUTOMATIC1111's web UI: ``/sdapi/v1/…``, as far as its clients call it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from vinograph.serve import a1111_listings as listings
from vinograph.serve.a1111_drawing import A1111Request, prepare
from vinograph.serve.a1111_fields import IMG2IMG, TXT2IMG, Field, read_fields, switch
from vinograph.serve.a1111_info import response
from vinograph.serve.a1111_options import Options
from vinograph.serve.a1111_png_info import png_info
from vinograph.serve.a1111_progress import Drawings, Tracked
from vinograph.serve.bodies import read_json
from vinograph.serve.configuration import Configuration
from vinograph.serve.contract import Drawn, ModelInfo, ModelUnavailableError, Service
from vinograph.serve.failures import HTTPFailure, failure_of
from vinograph.serve.leaving import drawn_unless_left

Endpoint = Callable[[Request], Awaitable[Response]]

_ROOT = "/sdapi/v1"


def routes(service: Service, configuration: Configuration) -> Sequence[BaseRoute]:
    """The routes of A1111's API; each call has options and drawings of its own."""
    return A1111API(service, configuration).routes()


def failure_response(failure: HTTPFailure) -> Response:
    """A failure in A1111's shape."""
    body = {"error": failure.code, "detail": failure.message, "body": "", "errors": failure.message}
    return JSONResponse(body, failure.status, headers=dict(failure.headers))


def _answering(endpoint: Callable[[Request], Awaitable[Any]]) -> Endpoint:
    """The endpoint, whose result is sent as JSON, and whose errors are sent in A1111's shape."""

    @functools.wraps(endpoint)
    async def answer(request: Request) -> Response:
        try:
            answered = await endpoint(request)
            return answered if isinstance(answered, Response) else JSONResponse(answered)
        except Exception as error:
            return failure_response(failure_of(error))

    return answer


class A1111API:
    """The endpoints, with the options that clients set and the drawings that they wait for."""

    def __init__(self, service: Service, configuration: Configuration) -> None:
        self._service = service
        self._limits = configuration.limits
        self._options = Options(metadata=configuration.metadata)
        self._drawings = Drawings()

    def routes(self) -> list[Route]:
        """A route for each endpoint."""
        posts: Mapping[str, Callable[[Request], Awaitable[Any]]] = {
            "txt2img": self.txt2img,
            "img2img": self.img2img,
            "options": self.set_options,
            "interrupt": self.interrupt,
            "skip": self.skip,
            "png-info": self.png_info,
            **dict.fromkeys(("refresh-checkpoints", "refresh-loras", "refresh-vae"), self.refresh),
            **dict.fromkeys(("unload-checkpoint", "reload-checkpoint"), self.manage_memory),
        }
        gets: Mapping[str, Callable[[Request], Awaitable[Any]]] = {
            "options": self.options,
            "progress": self.progress,
            "sd-models": self.models,
            "loras": self.loras,
            "memory": self.memory,
            **{name: self._of_model(of_model) for name, of_model in _OF_MODEL.items()},
            **{name: self._fixed(value) for name, value in _FIXED.items()},
        }
        return [
            *(Route(f"{_ROOT}/{name}", _answering(each), methods=["POST"]) for name, each in posts.items()),
            *(Route(f"{_ROOT}/{name}", _answering(each), methods=["GET"]) for name, each in gets.items()),
            Route("/internal/ping", _answering(self._fixed({})), methods=["GET"]),
        ]

    async def txt2img(self, request: Request) -> Response:
        """Draw from a text."""
        return await self._draw(request, TXT2IMG)

    async def img2img(self, request: Request) -> Response:
        """Draw from a picture, also within a mask."""
        return await self._draw(request, IMG2IMG)

    async def _draw(self, request: Request, fields: Mapping[str, Field]) -> Response:
        values = read_fields(await read_json(request, self._limits), fields)
        override = values["override_settings"]
        options = self._options.changed(override)
        asked = A1111Request(values, fields, options, await self._model(options), _address(request))
        prepared = await prepare(asked, await self._service.adapters(), self._limits)
        job = await self._service.submit(prepared.drawing)
        if not values["override_settings_restore_afterwards"]:
            self._options = self._options.changed(override)
        with self._drawings.tracking(job, asked.client, prepared.pictures) as tracked:
            # A request may wait for long, and its pictures are in the queue already.
            asked, notes = asked.without_pictures(), prepared.notes
            del values, prepared
            drawn = await drawn_unless_left(request, tracked.job, _follow(tracked))
            # Megabytes of text, which would keep other requests waiting.
            return await asyncio.to_thread(lambda: JSONResponse(response(asked, notes, drawn, tracked)))

    async def options(self, _: Request) -> dict[str, Any]:
        """Options in effect."""
        return self._options.shown((await self._service.find(self._options.model)).name)

    async def set_options(self, request: Request) -> None:
        """Change options for all requests that come after this one."""
        settings = await read_json(request, self._limits)
        await self._service.find(self._options.changed(settings).model)
        self._options = self._options.changed(settings)  # others may have changed some meanwhile

    async def progress(self, request: Request) -> dict[str, Any]:
        """How far the client's drawing is."""
        skip = switch("skip_current_image", request.query_params.get("skip_current_image", "false"))
        return self._drawings.progress(_address(request), with_picture=self._options.previews and not skip)

    async def interrupt(self, request: Request) -> dict[str, Any]:
        """End the client's drawing after the step under way."""
        self._drawings.interrupt(_address(request))
        return {}

    async def skip(self, request: Request) -> None:
        """End the client's drawing after the step under way: what is left of it is skipped, too."""
        self._drawings.interrupt(_address(request))

    async def png_info(self, request: Request) -> dict[str, Any]:
        """Texts in a picture that say how it was drawn."""
        body = await read_json(request, self._limits)
        return await asyncio.to_thread(png_info, body.get("image"), self._limits)

    async def refresh(self, _: Request) -> None:
        """Nothing to do: folders are read again whenever they are listed."""

    async def manage_memory(self, _: Request) -> dict[str, Any]:
        """Nothing to do: the server loads and unloads models by use and memory."""
        return {}

    async def models(self, _: Request) -> list[dict[str, Any]]:
        """Models that the server offers."""
        return listings.models(await self._service.models())

    async def loras(self, _: Request) -> list[dict[str, Any]]:
        """Adapters that a prompt can name."""
        return listings.loras(await self._service.adapters())

    async def memory(self, _: Request) -> dict[str, Any]:
        """Memory of the machine."""
        return listings.memory()

    async def _model(self, options: Options) -> ModelInfo:
        """The model that the options name.

        Raises:
            ModelUnavailableError: it couldn't be opened, so that nothing is known of what it takes.
        """
        model = await self._service.find(options.model)
        if not model.family:
            raise ModelUnavailableError(f"the model {model.name} can't be used: {model.problem}")
        return model

    def _of_model(self, listing: Callable[[ModelInfo], Any]) -> Callable[[Request], Awaitable[Any]]:
        async def of_model(_: Request) -> Any:
            return listing(await self._model(self._options))

        return of_model

    @staticmethod
    def _fixed(value: Any) -> Callable[[Request], Awaitable[Any]]:
        async def fixed(_: Request) -> Any:
            return value

        return fixed


_OF_MODEL: Mapping[str, Callable[[ModelInfo], Any]] = {
    "samplers": listings.samplers,
    "schedulers": listings.schedulers,
    "sd-vae": listings.vaes,
    "sd-modules": listings.vaes,
    "upscalers": listings.upscalers,
    "latent-upscale-modes": listings.latent_upscale_modes,
}
_FIXED: Mapping[str, Any] = {
    **{name: [] for name in ("hypernetworks", "face-restorers", "realesrgan-models", "prompt-styles")},
    **{name: [] for name in ("script-info", "extensions")},
    "embeddings": {"loaded": {}, "skipped": {}},
    "scripts": {"txt2img": [], "img2img": []},
    "cmd-flags": {"api": True, "nowebui": True},
}


def _address(request: Request) -> str:
    """The address that asks."""
    return request.client.host if request.client else ""


async def _follow(tracked: Tracked) -> Drawn:
    async for event in tracked.job.events():
        tracked.note(event)
        if isinstance(event, Drawn):
            return event
    return await tracked.job.result()
