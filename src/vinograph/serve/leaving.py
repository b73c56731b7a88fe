"""Clients that go away before they have their answer."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from starlette.requests import Request

from vinograph.serve.contract import Drawn, Job
from vinograph.serve.failures import CLIENT_CLOSED, HTTPFailure


async def drawn_unless_left(request: Request, job: Job, following: Coroutine[Any, Any, Drawn]) -> Drawn:
    """The end of ``following`` a job; the job is cancelled when its client goes away before.

    The request's body has to be read already.

    Raises:
        HTTPFailure: the client has gone.
        VinographError: the drawing failed.
    """
    drawing = asyncio.ensure_future(following)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({drawing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if drawing.done():
            return drawing.result()
        raise HTTPFailure(CLIENT_CLOSED, "the client went away", "client_closed")
    finally:
        leaving.cancel()
        if not drawing.done():  # also where this task itself is cancelled
            job.cancel()
            drawing.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
