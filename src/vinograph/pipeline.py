"""Opens a model and drives its family."""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vinograph.arguments import reading, shown
from vinograph.components import SessionPool, Tokenizers, Watch
from vinograph.errors import ModelError, RequestError
from vinograph.families.contract import Call, Components, Output, Step, Steps
from vinograph.families.registry import family
from vinograph.images import to_pictures
from vinograph.models import catalog
from vinograph.models.model import Model
from vinograph.request import Request, fields_of, resolve
from vinograph.runtime.devices import check_device, check_memory, check_precision

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Result:
    """What a call drew.

    ``images`` are PIL pictures (``output_type="pil"``), an array [n, height, width, 3] in [0, 1] ("np"), or the last
    stage's latents ("latent"). ``timings`` are seconds of wall clock per stage. ``devices`` says for each
    component that ran on which devices and in which precision it did. ``report`` holds figures that the call
    measures, such as a reconstruction's PSNR.
    """

    images: Any
    seeds: tuple[int, ...] | None
    request: Request
    timings: Mapping[str, float]
    warnings: tuple[str, ...]
    devices: Mapping[str, str]
    model: str
    image_embeddings: Array | None = field(default=None, repr=False)
    report: Mapping[str, float] = field(default_factory=dict)

    def metadata(self, index: int) -> dict[str, Any]:
        """What the file of picture ``index`` carries: how to draw it again, alone."""
        from vinograph import __version__

        record = {**self.request.record(), "seed": None if self.seeds is None else self.seeds[index]}
        for name, field_ in fields_of(type(self.request)).items():
            if field_.metadata["each"] and (texts := record.get(name)):
                record[name] = texts[index * len(texts) // self.request.image_count]
        if "num_images_per_prompt" in record:
            record["num_images_per_prompt"] = 1
        return {"model": self.model, "request": record, "vinograph": __version__, "python": platform.python_version()}


class Pipeline:
    """A model that draws.

    Calling it draws; :meth:`stream` does so step by step. What else a family does is a method of its own, such as
    ``pipe.prior(...)``, ``pipe.decoder(...)``, ``pipe.encode(...)`` and ``pipe.reconstruct(...)`` of Würstchen;
    :attr:`calls` names them and what each takes.
    """

    def __init__(
        self,
        model: Model,
        device: str | Mapping[str, str] = "CPU",
        precision: str | Mapping[str, str] = "auto",
        memory: str = "auto",
    ) -> None:
        """Use an opened model; :meth:`from_pretrained` finds one by name."""
        manifest = model.manifest
        self.model = model
        self._family = family(manifest.family)
        with reading("device", device):
            devices = _per_component(device, manifest.components, "device", "CPU")
        with reading("precision", precision):
            precisions = _per_component(precision, manifest.components, "precision", "auto")
        for each in set(devices.values()):
            check_device(each)
        for each in set(precisions.values()):
            check_precision(each)
        with reading("memory", memory):
            check_memory(memory)
        self._sessions = SessionPool(model, devices, precisions, memory)
        self._components: Components[Any] = Components(
            sessions=self._sessions,
            tokenizers=Tokenizers(model),
            config=manifest.family_config,
            sizes=manifest.sizes,
            prepare=self._sessions.prepare,
            release=self._sessions.release,
        )

    @classmethod
    def from_pretrained(
        cls,
        model: str | os.PathLike[str],
        device: str | Mapping[str, str] = "CPU",
        precision: str | Mapping[str, str] = "auto",
        memory: str = "auto",
    ) -> Pipeline:
        """Open a model: an embedded one's name, a bundle's or a checkpoint's directory, or a hub id.

        ``device`` is a device string of OpenVINO's ("CPU", "GPU", "AUTO", "HETERO:GPU,CPU"), or a mapping from
        component to one; ``precision`` ("auto", "f32", "bf16", "f16") likewise. Components that a mapping leaves out
        run on the CPU, in "auto": what the device does best and the component stands.
        ``memory`` "low" frees each large component as soon as a drawing is done with it; the next drawing then loads
        it again. In "auto" that happens to those whose weights take more than a quarter of the machine's memory.

        Raises:
            ModelError: there is no such model, or it is none that Vinograph draws with.
            DamagedModelError: a file is missing or of the wrong size.
            DeviceError: a device is not on this machine.
        """
        return cls(catalog.find(model), device, precision, memory)

    @property
    def calls(self) -> Mapping[str, Call]:
        """What the family does: each call's arguments with this model's defaults."""
        told = self.model.manifest.defaults
        return MappingProxyType(
            {name: _with_defaults(call, told.get(name, {})) for name, call in self._family.calls.items()}
        )

    @property
    def options(self) -> Mapping[str, str]:
        """The argument of a drawing call that each option of the command line sets."""
        return self._family.options

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Draw. The arguments are those of the family's diffusers pipeline, and ``seed=``.

        Returns:
            A :class:`Result`, or a tuple with its images alone where ``return_dict=False``.

        Raises:
            RequestError: an argument is not one that the family takes, or is out of range.
            NumericalError: a stage computed NaN or infinity.
        """
        return self._finish("generate", args, kwargs)

    def stream(self, *args: Any, call: str = "generate", **kwargs: Any) -> Generator[Step | Result, None, None]:
        """Draw step by step: yields each :class:`Step` when it is done, and the :class:`Result` at the end.

        Closing the generator stops the work after the step under way. Arguments are checked before it returns.
        ``call`` names another of :attr:`calls`, such as "reconstruct".
        """
        return self._start(call, self._by_name(call, args, kwargs))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """The family's other calls."""
        if not name.startswith("_") and name in self._family.calls:
            return partial(self._call_by_name, name)
        raise AttributeError(f"{type(self).__name__} has no {name!r}")

    def _call_by_name(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return self._finish(name, args, kwargs)

    def _finish(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = self._by_name(name, args, kwargs)
        as_tuple = given.pop("return_dict", True) is False
        result: Result | None = None
        for each in self._start(name, given):
            if isinstance(each, Result):
                result = each
        assert result is not None
        images = result.image_embeddings if result.images is None else result.images
        return (images,) if as_tuple else result

    def _by_name(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(name, str) or name not in self._family.calls:
            raise RequestError(f"call is {shown(name)}; {self._family.title} does {', '.join(self._family.calls)}")
        call = self.calls[name]
        missing = [each for each in call.components if each not in self._sessions]
        if missing:
            raise ModelError(
                f"{self.model.manifest.name} has no {' and no '.join(missing)}, which {name} needs: {call.remedy}"
            )
        if len(args) > len(call.positional):
            raise RequestError(f"{name} takes {', '.join(call.positional)} by position; name the other arguments")
        given = dict(zip(call.positional, args, strict=False))
        if doubled := sorted(given.keys() & kwargs.keys()):
            raise RequestError(f"{', '.join(doubled)} was given twice, by position and by name")
        return {**given, **kwargs}

    def _resolve(self, name: str, given: Mapping[str, Any]) -> Request:
        call = self.calls[name]
        what = f"{self._family.title} ({name})"
        limits = {**self.model.manifest.limits, **call.limits}
        return resolve(given, call.takes, limits, what, call.beside, call.steps, self._family.request)

    def _start(self, name: str, given: Mapping[str, Any]) -> Generator[Step | Result, None, None]:
        """Check all that ``given`` decides, and return the generator that does the work."""
        request = self._resolve(name, given)
        return self._stream(request, self._family.calls[name].run(self._components, self._with_pipeline(request)))

    def _stream(self, request: Request, steps: Steps) -> Generator[Step | Result, None, None]:
        with self._sessions.drawing():
            output = yield from steps
        self._sessions.keep()
        yield self._result(request, output)

    def _with_pipeline(self, request: Request) -> Request:
        """Callbacks get this pipeline as their first argument, as in diffusers."""
        names = ("callback_on_step_end", "prior_callback_on_step_end")
        bound: dict[str, Any] = {
            n: partial(getattr(request, n), self) for n in names if getattr(request, n) is not None
        }
        return dataclasses.replace(request, **bound)

    def _result(self, request: Request, output: Output) -> Result:
        images: Any = output.latents
        if output.images is not None:
            images = to_pictures(output.images) if request.output_type == "pil" else output.images
            height, width = output.images.shape[1:3]
            request = dataclasses.replace(request, height=height, width=width)
        return Result(
            images=images,
            seeds=request.seeds,
            request=request,
            timings=MappingProxyType(output.timings),
            warnings=(*output.warnings, *self._sessions.surprises()),
            devices=MappingProxyType(self._sessions.what_ran()),
            model=self.model.manifest.name,
            image_embeddings=output.image_embeddings,
            report=MappingProxyType(output.report),
        )


@contextmanager
def watched(pipe: Pipeline, watch: Watch) -> Iterator[None]:
    """Have ``watch`` called before each run of a component, in drawings that begin and end in the block."""
    pipe._sessions.watch = watch
    try:
        yield
    finally:
        pipe._sessions.watch = None


def _with_defaults(call: Call, told: Mapping[str, Any]) -> Call:
    """``call`` as a model does it: what it has told is its default, also beside an argument that changes others."""
    takes = MappingProxyType({**call.takes, **told})
    beside = {
        argument: {key: value for key, value in others.items() if takes[key] == call.takes[key]}
        for argument, others in call.beside.items()
    }
    return dataclasses.replace(call, takes=takes, beside=beside)


def _per_component(told: str | Mapping[str, str], names: Mapping[str, Any], what: str, default: str) -> dict[str, str]:
    if isinstance(told, str):
        return dict.fromkeys(names, told)
    if not isinstance(told, Mapping) or not all(isinstance(each, str) for each in told.values()):
        raise RequestError(f"{what} is {shown(told)}; give a text, or a mapping from component to one")
    for name in told:
        if name not in names:
            raise RequestError(f"{what} names the component {shown(name)}; this model has {', '.join(names)}")
    return {name: told.get(name, default) for name in names}
