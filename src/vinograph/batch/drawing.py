"""Draws one picture of a batch into its file. Whatever runs this has the rest."""

from __future__ import annotations

import hashlib
import io
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vinograph import a1111, picture_texts
from vinograph.batch.index import Outcome
from vinograph.batch.store import Store
from vinograph.errors import DamagedModelError, DeviceError, ModelError, ResourceError, VinographError
from vinograph.resources import explanation, shortage

if TYPE_CHECKING:
    from vinograph.pipeline import Pipeline
    from vinograph.result import Result

_CALL = "generate"


@dataclass(frozen=True)
class Drawing:
    """What all pictures of a batch are drawn with: see ``Pipeline.from_pretrained``."""

    model: str
    device: str | Mapping[str, str] = "CPU"
    precision: str | Mapping[str, str] = "auto"
    memory: str = "auto"
    adapters: Mapping[str, float] = field(default_factory=dict)
    embeddings: Mapping[str, Sequence[str]] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)

    def open(self) -> Pipeline:
        """Open the model; this reads no weights.

        Raises:
            VinographError: it can't be used.
        """
        from vinograph.pipeline import Pipeline

        return Pipeline.from_pretrained(
            self.model,
            device=self.device,
            precision=self.precision,
            memory=self.memory,
            adapters=self.adapters,
            embeddings=self.embeddings,
            vae=self.sources.get("vae"),
            base=self.sources.get("base"),
        )


@dataclass(frozen=True)
class Job:
    """A picture to draw."""

    key: str
    arguments: Mapping[str, Any]


class BatchStoppedError(Exception):
    """Somebody asked to stop; the picture under way isn't drawn."""


class WholeBatchError(Exception):
    """What fails isn't this picture: the model or the place for pictures can't be used."""


def draw_into(store: Store, pipe: Pipeline, job: Job, stopped: Callable[[], bool] = lambda: False) -> Outcome:
    """Draw a picture and write its file; what is wrong with the picture is in the outcome.

    Raises:
        WholeBatchError: no other picture can be drawn either; its cause says why.
        BatchStoppedError: ``stopped`` said so.
    """
    started = time.perf_counter()
    try:
        result = _drawn(pipe, job, stopped)
        content = _encoded(pipe, result)
    except (ModelError, DamagedModelError, DeviceError) as error:
        raise WholeBatchError from error
    except BatchStoppedError:
        raise
    except Exception as error:
        retry = isinstance(error, ResourceError) or shortage(error) is not None
        return Outcome(job.key, seconds=time.perf_counter() - started, error=_reason(error), retry=retry)
    try:
        store.write(job.key, content)
    except VinographError as error:
        raise WholeBatchError from error
    sha256 = hashlib.sha256(content).hexdigest()
    return Outcome(job.key, sha256, len(content), time.perf_counter() - started, warnings=result.warnings)


def _drawn(pipe: Pipeline, job: Job, stopped: Callable[[], bool]) -> Result:
    from vinograph.families.contract import Step
    from vinograph.pipeline import stream_given
    from vinograph.request import GivenArguments

    with closing(stream_given(pipe, _CALL, GivenArguments(job.arguments))) as stream:
        for each in stream:
            if not isinstance(each, Step):
                return each
            if stopped():
                raise BatchStoppedError
    raise AssertionError("a stream ends with its result")


def _encoded(pipe: Pipeline, result: Result) -> bytes:
    """The file, as ``vinograph generate`` writes it."""
    (picture,) = result.images
    metadata = result.metadata(0)
    parameters = a1111.parameters_text(metadata, pipe.options, pipe.model.manifest.scheduler)
    file = io.BytesIO()
    picture.save(file, "PNG", **picture_texts.save_options("PNG", metadata, parameters))
    return file.getvalue()


def _reason(error: Exception) -> str:
    """What the manifest says of an error; one that is a defect goes to the log, too."""
    if (short := explanation(error)) is not None:
        return short
    if isinstance(error, VinographError):
        return str(error)
    traceback.print_exception(error)
    return f"a defect of Vinograph: {type(error).__name__}: {error}"
