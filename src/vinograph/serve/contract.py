"""The contract between the HTTP APIs and the service that draws for them.

An API turns an HTTP request into a :class:`Drawing`, hands it to the :class:`Service`, and turns
the :class:`Event` objects of its :class:`Job` into a response. It knows nothing of the queue, of
processes, or of pipelines. All methods are called in the event loop's thread.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from vinograph.errors import VinographError

if TYPE_CHECKING:
    from vinograph.families.sizes import SizeLimits
from vinograph.used_files import UsedFile

PICTURE_FORMATS = ("png", "jpeg", "webp")


@dataclass(frozen=True)
class Encoding:
    """How pictures are encoded.

    ``format`` is "png", "jpeg" or "webp", or within this process "raw": the picture's RGB values, row
    by row. ``quality`` is from 0 to 100, for JPEG and WebP; None is the format's default. With ``metadata``
    a picture holds its request, including the prompt.
    """

    format: str = "png"
    quality: int | None = None
    metadata: bool = False


@dataclass(frozen=True)
class Drawing:
    """One drawing that a client asks for.

    Attributes:
        model: the name that the client gave; empty for the default model. Aliases are resolved by
            the service.
        arguments: arguments of the call, by the names of :class:`vinograph.request.Request`. Input
            pictures are PIL pictures. ``num_images_per_prompt`` pictures take the seeds seed,
            seed + 1, and so on; each is drawn alone.
        names: the client's names for arguments, for errors.
        call: the call of the model's pipeline.
        adapters: weights of adapters, by their names in the folder of adapters.
        encoding: how the pictures are encoded.
        previews: whether the client shows previews of the steps.
        partial_images: previews of each picture that are made in any case, spread evenly over the
            steps of the first stage that has previews.
        deadline: the most seconds from its submission to its end; None is the server's limit.
        client: who asks, for the log: an address.
    """

    model: str
    arguments: Mapping[str, Any]
    names: Mapping[str, str] = field(default_factory=dict)
    call: str = "generate"
    adapters: Mapping[str, float] = field(default_factory=dict)
    encoding: Encoding = field(default_factory=Encoding)
    previews: bool = False
    partial_images: int = 0
    deadline: float | None = None
    client: str = ""


@dataclass(frozen=True)
class Waiting:
    """The job waits: ``place`` jobs come before it; with none, its first step is under way."""

    place: int


@dataclass(frozen=True)
class Progress:
    """A step was done: ``index`` of ``total`` in ``stage``, counted from 1.

    ``picture`` is the number of the picture in the request, counted from 0.
    ``preview`` is a small PNG of the picture as predicted so far, where there is a new one.
    ``seconds_left`` is an estimate until the end of the job, None without a basis for one.
    """

    picture: int
    stage: str
    index: int
    total: int
    preview: bytes | None = None
    seconds_left: float | None = None


@dataclass(frozen=True)
class Picture:
    """A picture that was drawn.

    ``data`` are its file's bytes. ``seed`` is -1 if nothing was random. ``infotext`` is its request
    as AUTOMATIC1111 writes it.
    """

    data: bytes
    seed: int
    width: int
    height: int
    infotext: str


@dataclass(frozen=True)
class Drawn:
    """The end of a job: its pictures.

    ``request`` is the resolved request as in :meth:`vinograph.result.Result.metadata`, ``timings``
    are seconds by stage and ``waited`` are seconds in the queue. ``interrupted`` says that the job
    was told to end early; ``pictures`` are then those that were done. ``report`` are measurements
    of the call, such as a reconstruction's PSNR, and ``files`` those of adapters and learned words.
    ``settings`` are those of components with low-bit weights, as in the result.
    """

    pictures: tuple[Picture, ...]
    model: str
    request: Mapping[str, Any]
    timings: Mapping[str, float]
    warnings: tuple[str, ...]
    devices: Mapping[str, str]
    waited: float
    interrupted: bool = False
    report: Mapping[str, float] = field(default_factory=dict)
    files: tuple[UsedFile, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)


Event = Waiting | Progress | Drawn


class ServiceError(VinographError):
    """The service can't draw now, though the request is right."""


class UnknownModelError(ServiceError):
    """The server offers no model of that name."""


class ModelUnavailableError(ServiceError):
    """The model can't be loaded; the message says why."""


class QueueFullError(ServiceError):
    """As many requests wait as the queue takes."""

    def __init__(self, message: str, retry_after: int) -> None:
        """``retry_after`` are seconds after which a place may be free."""
        self.retry_after = retry_after
        super().__init__(message)


class DrainingError(ServiceError):
    """The server ends, and takes no new work."""


class DeadlineError(ServiceError):
    """The drawing took longer than the deadline."""


class WorkerLostError(ServiceError):
    """The process that drew has ended; another has taken its place."""


class CancelledJobError(ServiceError):
    """The job was cancelled before it was done."""


class Job(Protocol):
    """A drawing in the queue, being drawn, or done."""

    @property
    def id(self) -> str:
        """An identifier that no other job has."""
        ...

    @property
    def latest(self) -> Event:
        """The latest event; for who joins late, such as a progress route."""
        ...

    @property
    def latest_preview(self) -> bytes | None:
        """The latest preview, a PNG."""
        ...

    def events(self) -> AsyncIterator[Event]:
        """Yield events as they come; :class:`Drawn` is the last.

        A slow reader gets the latest of each kind and not all of them, so that nothing piles up.

        Raises:
            ServiceError: the job failed: lost, late or cancelled.
            VinographError: the drawing failed.
        """
        ...

    async def result(self) -> Drawn:
        """Wait for the end.

        Raises:
            ServiceError: as in :meth:`events`.
            VinographError: the drawing failed.
        """
        ...

    def cancel(self) -> None:
        """Drop the job, as nobody wants its pictures.

        It leaves the queue, or stops after the step under way.
        """
        ...

    def interrupt(self) -> None:
        """End the job after the step under way; its result is the pictures that are done."""
        ...


@dataclass(frozen=True)
class ModelInfo:
    """A model that the server offers.

    ``takes`` maps the arguments of its call ``generate`` to their defaults, which include those of
    the configuration. ``problem`` says why it can't be used, empty if it can. ``sizes`` are in
    pixels. ``created`` is in seconds since 1970. ``components`` are the names of its networks. A
    model that couldn't be opened has no family.
    """

    name: str
    source: str
    family: str
    loaded: bool
    created: int
    takes: Mapping[str, Any]
    sizes: SizeLimits | None
    problem: str = ""
    components: tuple[str, ...] = ()


@dataclass(frozen=True)
class AdapterInfo:
    """An adapter in the folder of adapters; its name is its path in there without the ending."""

    name: str
    path: Path


class Service(Protocol):
    """Draws for all APIs: one drawing at a time per device, in the order of arrival."""

    async def submit(self, drawing: Drawing) -> Job:
        """Check a drawing and put it into the queue. Nothing large is allocated for the check.

        Raises:
            RequestError: an argument is wrong.
            UnknownModelError: there is no such model, and names are strict.
            ModelUnavailableError: the model can't be loaded.
            QueueFullError: too many wait already.
            DrainingError: the server is about to end.
        """
        ...

    async def find(self, name: str) -> ModelInfo:
        """The model that a client's name means; unknown names mean the default model unless strict.

        Raises:
            UnknownModelError: there is no such model.
        """
        ...

    async def models(self) -> Sequence[ModelInfo]:
        """All models, the default one first."""
        ...

    async def adapters(self) -> Sequence[AdapterInfo]:
        """The adapters that a request can name."""
        ...

    @property
    def running(self) -> Job | None:
        """The job that is being drawn."""
        ...

    @property
    def waiting(self) -> Sequence[Job]:
        """The jobs in the queue, the next one first."""
        ...

    @property
    def ready(self) -> bool:
        """Whether the default model is loaded and new work is taken."""
        ...
