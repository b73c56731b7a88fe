"""The Gradio page as a part of the server: it draws with the server's models, in its queue."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import traceback
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from vinograph import web
from vinograph.errors import RequestError, VinographError
from vinograph.families.contract import Step
from vinograph.images import READABLE, read_picture
from vinograph.pipeline import Pipeline
from vinograph.result import Result
from vinograph.serve.contract import CancelledJobError, Drawing, Drawn, Encoding, Progress, Waiting
from vinograph.serve.jobs import QueuedJob
from vinograph.serve.offered_models import OfferedModels
from vinograph.serve.results import result_of
from vinograph.serve.service import DrawingService
from vinograph.web.jobs import DrawRequest, Job
from vinograph.web.model_pool import example_prompts


def open_page(service: DrawingService, folder: Path, gallery: Path | None = None) -> Any:
    """A :class:`vinograph.web.page.Page` that draws by ``service``; its pictures are kept in ``folder``.

    Call it in the event loop's thread.

    Raises:
        RequestError: gradio is not installed, or the ``gallery`` can't be written.
        ModelUnavailableError: the default model can't be opened.
    """
    web.check_installed()
    web.isolate_gradio(folder)
    with web.without_proxies():
        from vinograph.web.page import Page
    return Page(ServedModels(service.offered), ServedQueue(service, asyncio.get_running_loop()), folder, gallery)


class ServedModels:
    """The server's models as the page offers them: :class:`vinograph.web.model_pool.Models`."""

    def __init__(self, offered: OfferedModels) -> None:
        """Open the default model, by whose arguments the page is laid out."""
        self._offered = offered
        self.get(self.references[0])

    @property
    def references(self) -> list[str]:
        """The models' names; those that can't be opened are left out."""
        return [name for name, model in self._offered.by_name.items() if not model.problem]

    def get(self, reference: str) -> Pipeline:
        """The pipeline, to ask for its arguments and limits.

        Raises:
            RequestError: there is no such model.
            ModelUnavailableError: it can't be opened.
        """
        if reference not in self._offered.by_name:
            raise RequestError("choose a model")
        model = self._offered.by_name[reference]
        with model.lock:
            return model.pipeline()

    def examples(self, reference: str) -> tuple[str, ...]:
        """Example prompts for the model."""
        return example_prompts(self.get(reference))

    def source(self, reference: str) -> str:
        """The model's source in the configuration."""
        return self._offered.by_name[reference].served.source

    def device(self, reference: str) -> str | Mapping[str, str]:
        """The model's device in the configuration."""
        return self._offered.by_name[reference].served.device


class ServedQueue:
    """Hands the page's jobs to the service: a :class:`vinograph.web.jobs.Drawer`."""

    def __init__(self, service: DrawingService, loop: asyncio.AbstractEventLoop) -> None:
        """``loop`` is the event loop of the service."""
        self._service = service
        self._loop = loop
        self._queued: dict[Job, QueuedJob | None] = {}  # None until the service has taken it

    def add(self, job: Job) -> None:
        """Put a job at the end of the service's queue; any thread may."""
        self._run(self._follow(job))

    def stop(self, job: Job) -> None:
        """Stop a job after the step under way; any thread may."""
        job.stop()
        self._loop.call_soon_threadsafe(self._cancel, job)

    def end(self) -> None:
        """Stop all of the page's jobs."""
        for job in list(self._queued):
            self.stop(job)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop)

    def _cancel(self, job: Job) -> None:
        if (queued := self._queued.get(job)) is not None:
            queued.cancel()

    async def _follow(self, job: Job) -> None:
        """Draw a job's requests one after the other, and tell its page."""
        self._queued[job] = None
        try:
            for draw_request in job.draw_requests:
                if job.stopping.is_set():
                    break
                job.update(step=None, seconds_left=None, preview=None)
                job.update(results=(*job.status.results, await self._draw(job, draw_request)))
            job.update(stopped=len(job.status.results) < len(job.draw_requests), ended=True)
        except CancelledJobError:
            job.update(stopped=True, ended=True)
        except Exception as error:  # the page shows any error
            if not isinstance(error, VinographError):
                traceback.print_exception(error)
            job.update(error=error, ended=True)
        finally:
            del self._queued[job]

    async def _draw(self, job: Job, draw_request: DrawRequest) -> Result:
        pictures: dict[str, Any] = {
            name: await asyncio.to_thread(read_picture, file, formats=READABLE)
            for name, file in draw_request.input_files.items()
        }
        drawing = Drawing(
            model=draw_request.model,
            arguments={**draw_request.arguments, **pictures},
            call=draw_request.call,
            adapters=draw_request.adapters,
            encoding=Encoding("raw"),
            previews=True,
            client="the page",
        )
        queued = self._queued[job] = await self._service.submit(drawing)
        if job.stopping.is_set():
            queued.cancel()
        async for event in queued.events():
            match event:
                case Waiting(place):
                    job.update(place=place)
                case Progress():
                    _show(job, event)
                case Drawn():
                    return self._result(queued, event, pictures)
        raise AssertionError("events end with the pictures, or with an error")

    def _result(self, queued: QueuedJob, drawn: Drawn, pictures: Mapping[str, Any]) -> Result:
        """What the same call in Python would have returned, with the ``pictures`` in its request."""
        result, pipe = result_of(queued, drawn), self._service.offered.by_name[drawn.model].opened
        assert pipe is not None, "a model that has drawn is open"
        request = dataclasses.replace(result.request, **pictures)
        return dataclasses.replace(result, request=request, model=pipe.model.manifest.name)


def _show(job: Job, progress: Progress) -> None:
    """Tell the page of a step, and of its preview where there is one."""
    changes: dict[str, Any] = {
        "place": 0,
        "step": Step(progress.stage, progress.index, progress.total),
        "seconds_left": progress.seconds_left,
    }
    if progress.preview is not None:
        changes["preview"] = Image.open(io.BytesIO(progress.preview)).convert("RGB")
    job.update(**changes)
