"""OpenAI's images API: ``/v1/images/…`` and ``/v1/models``."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from vinograph.errors import RequestError
from vinograph.serve.configuration import Configuration
from vinograph.serve.contract import Drawn, Service
from vinograph.serve.failures import HTTPFailure, failure_of
from vinograph.serve.leaving import drawn_unless_left
from vinograph.serve.logs import event
from vinograph.serve.openai_body import Body, decode_picture, read_fields, read_fields_and_pictures
from vinograph.serve.openai_fields import IMAGE, MASK, MASK_ARGUMENT
from vinograph.serve.openai_links import LIFETIME, LINKS_PATH, PictureLinks
from vinograph.serve.openai_replies import check_drawn, failure_response, images_response, model_object
from vinograph.serve.openai_request import OWN_HEADERS, Asked, RequestReader, with_pictures
from vinograph.serve.openai_stream import EventStream

__all__ = ["LINKS_PATH", "failure_response", "routes"]

_LINK = "openai-picture"
_ANY_PROMPT = ""  # of a variation

Endpoint = Callable[[Request], Awaitable[Response]]


def routes(service: Service, configuration: Configuration) -> Sequence[BaseRoute]:
    """The routes of the API. Those under :data:`LINKS_PATH` have to answer without a key."""
    api = ImagesAPI(service, configuration)
    return [
        Route("/v1/images/generations", _answered(api.generations), methods=["POST"]),
        Route("/v1/images/edits", _answered(api.edits), methods=["POST"]),
        Route("/v1/images/variations", _answered(api.variations), methods=["POST"]),
        Route(f"{LINKS_PATH}{{name}}", _answered(api.linked_picture), methods=["GET"], name=_LINK),
        Route("/v1/models", _answered(api.models), methods=["GET"]),
        Route("/v1/models/{name:path}", _answered(api.model), methods=["GET"]),
    ]


def _answered(endpoint: Endpoint) -> Endpoint:
    """The endpoint, with an error as a response in OpenAI's shape."""

    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except Exception as error:  # a defect is logged by failure_of
            return failure_response(failure_of(error))

    return answer


class ImagesAPI:
    """The endpoints, and the pictures that wait to be fetched."""

    def __init__(self, service: Service, configuration: Configuration) -> None:
        self._service = service
        self._configuration = configuration
        self._links = PictureLinks()

    async def generations(self, request: Request) -> Response:
        """Draw pictures from a text."""
        body = await read_fields(request, self._configuration.limits)
        asked = (await self._reader(body, request)).read(body)
        return await self._draw(request, asked, "image_generation")

    async def edits(self, request: Request) -> Response:
        """Draw a part of a picture anew, or all of it, from a text."""
        return await self._draw(request, await self._from_picture(request, None), "image_edit")

    async def variations(self, request: Request) -> Response:
        """Draw pictures that resemble a picture."""
        return await self._draw(request, await self._from_picture(request, _ANY_PROMPT), "image_edit")

    async def models(self, _: Request) -> Response:
        """List the models."""
        return JSONResponse({"object": "list", "data": [model_object(each) for each in await self._service.models()]})

    async def model(self, request: Request) -> Response:
        """Describe the model that a name means."""
        return JSONResponse(model_object(await self._service.find(request.path_params["name"])))

    async def linked_picture(self, request: Request) -> Response:
        """Answer with a picture that was drawn within the last hour."""
        picture = self._links.get(request.path_params["name"])
        if picture is None:
            raise HTTPFailure(404, "there is no such picture, or no longer", "not_found")
        headers = {"Cache-Control": f"private, max-age={LIFETIME:.0f}", "X-Content-Type-Options": "nosniff"}
        return Response(picture.data, media_type=f"image/{picture.format}", headers=headers)

    async def _from_picture(self, request: Request, prompt: str | None) -> Asked:
        limits = self._configuration.limits
        body = await read_fields_and_pictures(request, limits)
        reader = await self._reader(body, request, prompt)
        asked = reader.read(body)
        for name, argument in ((IMAGE, IMAGE), (MASK, MASK_ARGUMENT)):
            if body.pictures.get(name) and argument not in reader.model.takes:
                raise HTTPFailure(400, f"{name} was sent, and {reader.model.name} takes none", "invalid_value", name)
        with _param_named((IMAGE, MASK)):
            image = await asyncio.to_thread(decode_picture, body, IMAGE, limits)
            mask = await asyncio.to_thread(decode_picture, body, MASK, limits)
        if image is None:
            raise HTTPFailure(400, "image is missing; send a picture's file", "missing_required_parameter", IMAGE)
        return with_pictures(asked, image, mask)

    async def _reader(self, body: Body, request: Request, prompt: str | None = None) -> RequestReader:
        name = body.fields.get("model", "")
        model = await self._service.find(name if isinstance(name, str) else "")
        client = "" if request.client is None else request.client.host
        return RequestReader(model, self._configuration, prompt, client)

    async def _draw(self, request: Request, asked: Asked, events: str) -> Response:
        if asked.headers:
            changes = {name.removeprefix(OWN_HEADERS): value for name, value in asked.headers.items()}
            event("drawn otherwise than asked", **changes)
        with _param_named(asked.field_names):
            job = await self._service.submit(asked.drawing)
            asked = asked.without_pictures()  # while it waits, the queue alone holds them
            if asked.reply.stream:
                return EventStream(job, asked, events)
            drawn = await drawn_unless_left(request, job, job.result())
        check_drawn(drawn)
        links = self._link(request, asked, drawn) if asked.reply.linked else ()
        body = await asyncio.to_thread(images_response, asked, drawn, links)
        return Response(body, media_type="application/json", headers=asked.headers)

    def _link(self, request: Request, asked: Asked, drawn: Drawn) -> tuple[str, ...]:
        names = [self._links.add(each.data, asked.drawing.encoding.format) for each in drawn.pictures]
        return tuple(str(request.url_for(_LINK, name=name)) for name in names)


@contextmanager
def _param_named(names: Collection[str]) -> Iterator[None]:
    """Add the field to an error about a request: the one of ``names`` that its message begins with."""
    try:
        yield
    except RequestError as error:
        failure, first = failure_of(error), re.match(r"\w+", str(error))
        if first is None or first[0] not in names:
            raise
        raise HTTPFailure(failure.status, failure.message, failure.code, first[0], failure.headers) from error
