"""The models that the server offers, opened without their weights, to check what clients ask for."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
import traceback
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vinograph.adapters.file import folder, installed, locate
from vinograph.errors import RequestError, VinographError
from vinograph.pipeline import Pipeline, resolve_given, stream_given
from vinograph.request import GivenArguments, Request, arguments_of
from vinograph.serve import messages
from vinograph.serve.configuration import Configuration, Limits, ServedModel
from vinograph.serve.contract import Drawing, ModelInfo, ModelUnavailableError, UnknownModelError
from vinograph.serve.drawing_limits import check_drawing, check_limits, check_output
from vinograph.serve.jobs import CheckedDrawing
from vinograph.serve.queue_base import unavailable
from vinograph.serve.worker_models import open_served
from vinograph.values import clipped

_RETRY_SECONDS = 5.0  # after which a model that couldn't be opened is tried again


@dataclass
class OfferedModel:
    """A model of the configuration; :meth:`pipeline` opens it."""

    served: ServedModel
    problem: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)
    opened: Pipeline | None = None
    _tried: float = float("-inf")
    _described: Mapping[str, Any] = field(default_factory=dict)

    def pipeline(self) -> Pipeline:
        """The model's pipeline, which has loaded no weights.

        Raises:
            ModelUnavailableError: it can't be opened.
        """
        if self.opened is None and time.monotonic() - self._tried > _RETRY_SECONDS:
            try:
                self.opened = open_served(self.served)
                self._described, self.problem = _description(self.opened), ""
            except VinographError as error:
                self.problem, self._tried = str(error), time.monotonic()
            except Exception as error:  # a defect with one model leaves the others usable
                traceback.print_exception(error)
                self.problem, self._tried = f"a defect of Vinograph ({type(error).__name__})", time.monotonic()
        if self.opened is None:
            raise unavailable(self.served.name, self.problem)
        return self.opened

    def open(self) -> None:
        """Open the model; what is wrong with it is told to who asks for it."""
        with self.lock, contextlib.suppress(ModelUnavailableError):
            self.pipeline()

    def info(self, *, loaded: bool, problem: str) -> ModelInfo:
        """What clients are told of the model, as it is without adapters that they name."""
        nothing: Mapping[str, Any] = {"family": "", "takes": {}, "sizes": None, "created": 0}
        return ModelInfo(
            name=self.served.name,
            source=self.served.source,
            loaded=loaded,
            problem=self.problem or problem,
            **(self._described or nothing),
        )


def _description(pipe: Pipeline) -> Mapping[str, Any]:
    manifest = pipe.model.manifest
    return {
        "family": manifest.family,
        "takes": dict(pipe.calls["generate"].takes),
        "sizes": manifest.sizes,
        "created": int(pipe.model.path.stat().st_mtime),
        "components": tuple(manifest.components),
    }


class OfferedModels:
    """The models of a configuration, by all names that clients give them."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self.by_name = {served.name: OfferedModel(served) for served in configuration.models}

    @property
    def default(self) -> OfferedModel:
        """The model of requests that name none."""
        return self.by_name[self._configuration.models[0].name]

    def open_all(self) -> None:
        """Open all models."""
        for model in self.by_name.values():
            model.open()

    def named(self, name: str) -> OfferedModel:
        """The model that a client's name means.

        Raises:
            UnknownModelError: there is no such model, and names are strict.
        """
        known = self._configuration.aliases.get(name, name)
        if known in self.by_name:
            return self.by_name[known]
        if name and self._configuration.strict_models:
            raise UnknownModelError(f"there is no model {clipped(name)}; there is {', '.join(self.by_name)}")
        return self.default

    def check(self, model: OfferedModel, drawing: Drawing) -> CheckedDrawing:
        """Check a drawing as far as it can be without the model's weights.

        Raises:
            RequestError: an argument is wrong, or more than the server takes.
            ModelUnavailableError: the model can't be opened.
        """
        limits = self._configuration.limits
        check_drawing(drawing)
        with model.lock:
            pipe = model.pipeline()
            weights = drawing.adapters or model.served.adapters
            files = _files_of(weights, configured=not drawing.adapters)
            by_file = {files[name]: weight for name, weight in weights.items()}
            if dict(pipe.adapters) != by_file:
                pipe.set_adapters(by_file)
            return _checked(pipe, model.served.name, drawing, limits, weights, files)


def _checked(
    pipe: Pipeline,
    model: str,
    drawing: Drawing,
    limits: Limits,
    adapters: Mapping[str, float],
    files: Mapping[str, str],
) -> CheckedDrawing:
    request = resolve_given(pipe, drawing.call, GivenArguments(drawing.arguments, drawing.names))
    takes = pipe.calls[drawing.call].takes
    check_output(request, drawing.call, takes)
    check_limits(request, pipe.model.manifest.sizes, limits, drawing.names)
    variants = _variants(request, takes)
    first = GivenArguments({**drawing.arguments, **variants[0]}, drawing.names)
    stream_given(pipe, drawing.call, first).close()  # checks, too, and does nothing before its first step
    message = messages.Draw(
        job=uuid.uuid4().hex,
        model=model,
        call=drawing.call,
        arguments=drawing.arguments,
        names=drawing.names,
        variants=variants,
        adapters=adapters,
        adapter_files=files,
        encoding=drawing.encoding,
        previews=drawing.previews,
        partial_images=drawing.partial_images,
    )
    return CheckedDrawing(
        message.job, model, _without_pictures(request), adapters, messages.pack(message), drawing.partial_images
    )


def _without_pictures(request: Request) -> Request:
    """The request without what a record of it lacks, which may be large."""
    kept = {name: None for name, argument in arguments_of(type(request)).items() if not argument.recorded}
    return dataclasses.replace(request, **kept)


def _variants(request: Request, takes: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """What differs from picture to picture: the seed, and texts where there are several prompts."""
    if "seed" not in takes:
        return ({},)
    count = request.image_count
    per_prompt = [name for name, argument in arguments_of(type(request)).items() if argument.per_prompt]
    variants = []
    for index in range(count):
        variant: dict[str, Any] = {} if request.seeds is None else {"seed": request.seeds[index]}
        if "num_images_per_prompt" in takes:
            variant["num_images_per_prompt"] = 1
        for name in per_prompt:
            if texts := getattr(request, name):
                variant[name] = texts[index * len(texts) // count]
        variants.append(variant)
    return tuple(variants)


def _files_of(weights: Mapping[str, float], *, configured: bool) -> dict[str, str]:
    """The files of adapters, by the names that were given.

    A client names only what the folder of adapters has; the configuration may name any file.

    Raises:
        RequestError: there is no such adapter.
    """
    if configured:
        return {name: str(locate(name)) for name in weights}
    known = {file.stem: file for file in installed()}
    for name in weights:
        if name not in known:
            there = ", ".join(known) or "none"
            raise RequestError(f"there is no adapter {clipped(name)!r} in {folder()}; there is {there}")
    return {name: str(known[name]) for name in weights}


def adapter_paths() -> list[tuple[str, Path]]:
    """The names and files of the adapters that clients can name."""
    return [(file.stem, file) for file in installed()]
