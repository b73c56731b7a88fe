"""The messages between the server and a process that draws, and how they travel.

Both ends hold one end of a pair of sockets. A message is pickled, with its size in front: each end
trusts the other, as it started it or was started by it.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vinograph.serve.configuration import ServedModel
from vinograph.serve.contract import Encoding
from vinograph.used_files import UsedFile

SIZE = struct.Struct("<Q")
"""A message's size in bytes, which precedes it."""


@dataclass(frozen=True)
class Settings:
    """The first message to the process: what it draws with.

    ``preload`` names the model to load at once; None for none. ``loaded_models`` and ``memory`` are
    as in :class:`vinograph.serve.configuration.Limits`.
    """

    models: tuple[ServedModel, ...]
    preload: str | None
    loaded_models: int
    memory: int | None


@dataclass(frozen=True)
class Draw:
    """Draw a job: ``arguments`` with each of ``variants`` make one drawing.

    ``adapters`` are weights by name, and ``adapter_files`` the files of these names.
    """

    job: str
    model: str
    call: str
    arguments: Mapping[str, Any]
    names: Mapping[str, str]
    variants: tuple[Mapping[str, Any], ...]
    adapters: Mapping[str, float]
    adapter_files: Mapping[str, str]
    encoding: Encoding
    previews: bool
    partial_images: int


@dataclass(frozen=True)
class Stop:
    """End a job after the step under way; the drawings that are done are returned."""

    job: str


@dataclass(frozen=True)
class ShowPreviews:
    """Send previews of the job under way for some ``seconds``: somebody looks at them."""

    seconds: float


@dataclass(frozen=True)
class End:
    """End the process after the step under way."""


@dataclass(frozen=True)
class Started:
    """The process takes jobs."""


@dataclass(frozen=True)
class Loaded:
    """The models that have their weights in memory now, by name."""

    models: tuple[str, ...]


@dataclass(frozen=True)
class Preloaded:
    """The end of loading a model ahead of its first use; ``error`` says why it failed."""

    model: str
    error: SentError | None = None


@dataclass(frozen=True)
class StepDone:
    """A step was done; the fields are as in :class:`vinograph.serve.contract.Progress`."""

    job: str
    picture: int
    stage: str
    index: int
    total: int
    preview: bytes | None
    seconds_left: float | None


@dataclass(frozen=True)
class EncodedPicture:
    """A picture of a job; the fields are as in :class:`vinograph.serve.contract.Picture`."""

    data: bytes
    seed: int
    width: int
    height: int
    infotext: str


@dataclass(frozen=True)
class Drawings:
    """What a job's drawings gave together.

    ``request`` is the record of the first, and ``timings`` are the sums of all.
    """

    pictures: tuple[EncodedPicture, ...] = ()
    request: Mapping[str, Any] = field(default_factory=dict)
    timings: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    devices: Mapping[str, str] = field(default_factory=dict)
    report: Mapping[str, float] = field(default_factory=dict)
    files: tuple[UsedFile, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)


def together(parts: Sequence[Drawings]) -> Drawings:
    """The drawings of a job's parts, as one."""
    if not parts:
        return Drawings()
    timings: dict[str, float] = {}
    for part in parts:
        for stage, seconds in part.timings.items():
            timings[stage] = timings.get(stage, 0.0) + seconds
    return Drawings(
        pictures=tuple(picture for part in parts for picture in part.pictures),
        request=parts[0].request,
        timings=timings,
        warnings=tuple(dict.fromkeys(line for part in parts for line in part.warnings)),
        devices=parts[-1].devices,
        report=parts[-1].report,
        files=parts[0].files,
        settings=parts[-1].settings,
    )


@dataclass(frozen=True)
class PartDone:
    """One of a job's drawings is done, sent where the process was told to send each by itself."""

    job: str
    drawings: Drawings


@dataclass(frozen=True)
class Ended:
    """A job is done, or it was stopped before it was ``complete``."""

    job: str
    drawings: Drawings
    complete: bool


@dataclass(frozen=True)
class Failed:
    """A job failed. ``opening`` says that its model couldn't be opened or loaded."""

    job: str
    error: SentError
    opening: bool = False


class WorkerDefectError(Exception):
    """A defect of Vinograph ended a drawing; the log has the details."""


@dataclass(frozen=True)
class SentError:
    """An exception on its way, whose class may have a constructor of any signature."""

    kind: type[Exception]
    arguments: tuple[Any, ...]
    attributes: Mapping[str, Any]

    @classmethod
    def of(cls, error: Exception) -> SentError:
        """The error to send."""
        return cls(type(error), error.args, dict(vars(error)))

    def rebuilt(self) -> Exception:
        """The error, with its message and attributes."""
        error = self.kind.__new__(self.kind, *self.arguments)
        error.__dict__.update(self.attributes)
        return error


def pack(message: Any) -> bytes:
    """The message as it is sent: its size, then itself."""
    buffer = io.BytesIO(bytes(SIZE.size))
    buffer.seek(SIZE.size)
    pickle.dump(message, buffer, protocol=pickle.HIGHEST_PROTOCOL)
    SIZE.pack_into(buffer.getbuffer(), 0, buffer.tell() - SIZE.size)
    return buffer.getvalue()


def unpack(content: bytes | bytearray | memoryview) -> Any:
    """The message of the bytes after its size."""
    return pickle.loads(content)
