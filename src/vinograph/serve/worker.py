"""The process that draws: ``python -m vinograph.serve.worker SOCKET``.

Its main thread draws one job after the other. A second thread reads messages, so that a job is
stopped after the step under way. The process ends when the server's end of the socket is closed,
however that came about.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import queue
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any, Protocol

from vinograph.errors import DamagedModelError, ModelError, RequestError, ResourceError, VinographError
from vinograph.serve import messages
from vinograph.serve.messages import Draw, Drawings, EncodedPicture, SentError, Settings
from vinograph.serve.partial_images import is_due

if TYPE_CHECKING:
    from PIL import Image

    from vinograph.pipeline import Pipeline
    from vinograph.result import Result

NICENESS = 5  # below the server's own, so that it answers while a picture is drawn
_OPENING = (ModelError, DamagedModelError)  # also found while drawing, where weights are read


class Channel:
    """The process's end of the socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._sending = threading.Lock()

    def send(self, message: Any) -> None:
        """Send a message; any thread may."""
        with self._sending:
            self._connection.sendall(messages.pack(message))

    def receive(self) -> Any:
        """Wait for a message.

        Raises:
            EOFError: the other end is closed.
        """
        return messages.unpack(self._exactly(messages.SIZE.unpack(self._exactly(messages.SIZE.size))[0]))

    def _exactly(self, size: int) -> bytearray:
        content = bytearray(size)
        rest = memoryview(content)
        while rest:
            count = self._connection.recv_into(rest)
            if not count:
                raise EOFError
            rest = rest[count:]
        return content


class Inbox:
    """Takes messages as they come: jobs to draw, and what changes the one under way."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._jobs: queue.SimpleQueue[Draw | None] = queue.SimpleQueue()
        self._stopped: set[str] = set()
        self._previews_until = 0.0
        self._ending = False
        threading.Thread(target=self._read, name="messages", daemon=True).start()

    def next_job(self) -> Draw | None:
        """Wait for a job; None where the process shall end."""
        return self._jobs.get()

    @property
    def waiting(self) -> bool:
        """Whether there is a job to draw, or the end to come."""
        return not self._jobs.empty()

    def is_stopped(self, job: str) -> bool:
        """Whether the job under way shall end."""
        return self._ending or job in self._stopped

    def forget_stops(self) -> None:
        """The job under way has ended; the server sends the next one after the answer."""
        self._stopped.clear()

    @property
    def previews_wanted(self) -> bool:
        """Whether somebody looks at previews."""
        return time.monotonic() < self._previews_until

    def _read(self) -> None:
        try:
            while True:
                self._take(self._channel.receive())
        except (EOFError, OSError):  # the server has ended, and nobody wants what is drawn
            os._exit(0)

    def _take(self, message: Any) -> None:
        match message:
            case Draw():
                self._jobs.put(message)
            case messages.Stop(job):
                self._stopped.add(job)
            case messages.ShowPreviews(seconds):
                self._previews_until = time.monotonic() + seconds
            case messages.End():
                self._ending = True
                self._jobs.put(None)


class Sender(Protocol):
    """Where messages to the server go."""

    def send(self, message: Any) -> None:
        """Send a message; any thread may."""
        ...


class Orders(Protocol):
    """What the server wants of the job under way, besides its drawing."""

    @property
    def waiting(self) -> bool:
        """Whether something else is to be done."""
        ...

    @property
    def previews_wanted(self) -> bool:
        """Whether somebody looks at previews."""
        ...

    def is_stopped(self, job: str) -> bool:
        """Whether the job under way shall end."""
        ...

    def forget_stops(self) -> None:
        """The job under way has ended."""
        ...


class Worker:
    """Draws jobs."""

    def __init__(self, settings: Settings, inbox: Orders, channel: Sender, *, in_parts: bool = False) -> None:
        """With ``in_parts``, each drawing of a job is sent when it is done, and not with the job's end."""
        from vinograph.serve.worker_models import WorkerModels

        self._in_parts = in_parts
        self._inbox = inbox
        self._channel = channel
        models = {model.name: model for model in settings.models}
        self._models = WorkerModels(models, settings.loaded_models, settings.memory)
        self._loaded: tuple[str, ...] = ()
        self._last_timings: dict[tuple[str, str], Mapping[str, float]] = {}

    def preload(self, name: str) -> None:
        """Load a model and compile it, as far as no job comes meanwhile."""
        try:
            self._warm_up(self._models.get(name))
        except Exception as error:  # the server tells whoever asks for the model
            self._channel.send(messages.Preloaded(name, SentError.of(_explained(error))))
        else:
            self._tell_loaded()
            self._channel.send(messages.Preloaded(name))

    def _warm_up(self, pipe: Pipeline) -> None:
        """Make the smallest drawing of the model's default size, which compiles all components."""
        from vinograph.pipeline import stream_given
        from vinograph.request import GivenArguments

        takes = pipe.calls["generate"].takes
        steps = {name: 1 for option, name in pipe.options.items() if option.endswith("steps") and takes.get(name)}
        try:
            with closing(stream_given(pipe, "generate", GivenArguments({"prompt": "", **steps}))) as stream:
                for _ in stream:
                    if self._inbox.waiting:
                        return
        except RequestError:  # a model that wants more than a prompt is compiled when it is used
            return

    def _tell_loaded(self) -> None:
        if self._models.loaded != self._loaded:
            self._loaded = self._models.loaded
            self._channel.send(messages.Loaded(self._loaded))

    def answer(self, job: Draw) -> None:
        """Draw a job, and send what comes of it."""
        try:
            answer: Any = self._draw(job)
        except Exception as error:  # whoever waits for the job gets it, and the next one is drawn
            explained = _explained(error)
            if isinstance(explained, ResourceError):
                self._models.clear()
            answer = messages.Failed(job.job, SentError.of(explained), opening=isinstance(explained, _OPENING))
        self._models.trim()
        self._tell_loaded()
        self._inbox.forget_stops()
        self._channel.send(answer)

    def _draw(self, job: Draw) -> messages.Ended:
        if self._inbox.is_stopped(job.job):
            return messages.Ended(job.job, Drawings(), complete=False)
        pipe = self._models.get(job.model)
        self._tell_loaded()
        wanted = {job.adapter_files[name]: weight for name, weight in job.adapters.items()}
        if dict(pipe.adapters) != wanted:
            pipe.set_adapters(wanted)
        parts: list[Drawings] = []
        for index in range(len(job.variants)):
            result = self._draw_variant(pipe, job, index)
            if result is None:
                break
            parts.append(_part(result, self._encoded(pipe, job, result)))
            if self._in_parts:
                self._channel.send(messages.PartDone(job.job, parts[-1]))
        complete = len(parts) == len(job.variants)
        return messages.Ended(job.job, Drawings() if self._in_parts else messages.together(parts), complete)

    def _draw_variant(self, pipe: Pipeline, job: Draw, index: int) -> Result | None:
        """One drawing of a job; None where the job was stopped."""
        from vinograph.families.contract import Step
        from vinograph.pipeline import stream_given
        from vinograph.request import GivenArguments

        reporter = _Reporter(self._channel, self._inbox, job, index, self._last_timings.get((job.model, job.call), {}))
        given = GivenArguments({**job.arguments, **job.variants[index]}, job.names)
        with closing(stream_given(pipe, job.call, given)) as stream:
            for each in stream:
                if not isinstance(each, Step):
                    self._last_timings[job.model, job.call] = each.timings
                    return each
                if self._inbox.is_stopped(job.job):
                    return None
                reporter.report(each)
        raise AssertionError("a stream ends with its result")

    def _encoded(self, pipe: Pipeline, job: Draw, result: Result) -> list[EncodedPicture]:
        from vinograph import a1111
        from vinograph.serve.encoding import encode

        if not isinstance(result.images, list):
            raise RequestError(f"{job.call} gives no pictures, and the server answers with pictures alone")
        encoded = []
        for index, picture in enumerate(result.images):
            metadata = result.metadata(index)
            infotext = a1111.parameters_text(metadata, pipe.options, pipe.model.manifest.scheduler)
            texts = (metadata, infotext) if job.encoding.metadata else (None, None)
            data = encode(picture, job.encoding, *texts)
            seed = -1 if result.seeds is None else result.seeds[index]
            encoded.append(EncodedPicture(data, seed, picture.width, picture.height, infotext))
        return encoded


class _Reporter:
    """Tells the server of the steps of one drawing."""

    def __init__(
        self, channel: Sender, inbox: Orders, job: Draw, picture: int, last_timings: Mapping[str, float]
    ) -> None:
        from vinograph.web.step_progress import PreviewThrottle, RemainingTime

        self._channel = channel
        self._inbox = inbox
        self._job = job
        self._picture = picture
        self._after = (len(job.variants) - picture - 1) * sum(last_timings.values())
        self._remaining = RemainingTime(last_timings)
        self._previews = PreviewThrottle()
        self._previewed_stage: str | None = None

    def report(self, step: Any) -> None:
        """Send a step, with a preview where one is wanted and it is time for it."""
        from vinograph.serve.encoding import encode_preview

        left = self._remaining.after(step)
        preview = self._preview(step)
        self._channel.send(
            messages.StepDone(
                job=self._job.job,
                picture=self._picture,
                stage=step.stage,
                index=step.index,
                total=step.total,
                preview=None if preview is None else encode_preview(preview),
                seconds_left=None if left is None else left + self._after,
            )
        )

    def _preview(self, step: Any) -> Image.Image | None:
        if self._previewed_stage in (None, step.stage) and is_due(step.index, step.total, self._job.partial_images):
            preview: Image.Image | None = step.preview()
            if preview is not None:
                self._previewed_stage = step.stage
            return preview
        wanted = self._job.previews or self._inbox.previews_wanted
        return self._previews.of(step) if wanted else None


def _part(result: Result, pictures: list[EncodedPicture]) -> Drawings:
    return Drawings(
        pictures=tuple(pictures),
        request=result.metadata(0)["request"],
        timings=dict(result.timings),
        warnings=tuple(result.warnings),
        devices=dict(result.devices),
        report=dict(result.report),
        files=result.files,
        settings=dict(result.settings),
    )


def _explained(error: Exception) -> Exception:
    """What the server is told of an error; one that is a defect goes to the log."""
    from vinograph.resources import explanation

    if (short := explanation(error)) is not None:
        return ResourceError(short)
    if isinstance(error, VinographError):
        return error
    traceback.print_exception(error)
    sys.stderr.flush()
    return messages.WorkerDefectError(f"a defect of Vinograph stopped the drawing ({type(error).__name__})")


def _prepare_process() -> None:
    """Leave signals and the standard output to the server."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.dup2(2, 1)  # nothing that a library prints is taken for the server's output
    faulthandler.enable()


def main() -> int:
    """Draw until the server says that it is enough."""
    _prepare_process()
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    try:
        settings: Settings = channel.receive()
    except EOFError:
        return 0
    inbox = Inbox(channel)
    worker = Worker(settings, inbox, channel)
    channel.send(messages.Started())
    if settings.preload is not None:
        worker.preload(settings.preload)  # at the server's own priority: it can't answer with pictures before
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    while (job := inbox.next_job()) is not None:
        worker.answer(job)
        del job  # its pictures, while the next one is awaited
    return 0


if __name__ == "__main__":
    sys.exit(main())
