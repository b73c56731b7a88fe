"""Opens a model and runs the calls of its family."""

from __future__ import annotations

import dataclasses
import os
from collections import ChainMap
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from vinograph import vocabulary
from vinograph._calls import Calls
from vinograph.adapters.adaptation import NO_ADAPTERS, Adaptation, adapt
from vinograph.adapters.file import recorded_name
from vinograph.components import InputObserver, SessionPool, Tokenizers, per_component
from vinograph.errors import ModelError, RequestError
from vinograph.families.contract import Call, Components, Output, Step, Steps
from vinograph.families.known import FewStep
from vinograph.families.registry import family
from vinograph.images import to_pictures
from vinograph.models import catalog
from vinograph.models.model import Model
from vinograph.models.textual_inversion import Embeddings, files_of_words, with_embeddings
from vinograph.request import GivenArguments, Request, arguments_of, resolve
from vinograph.result import Result
from vinograph.runtime.devices import check_device, check_memory, check_precision
from vinograph.runtime.tuning import Measuring
from vinograph.used_files import UsedFile
from vinograph.values import clipped, reading, shown

_GENERATE = "generate"
_STREAM = "stream"
_SCHEDULER = "scheduler"
_NO_NAMES: Mapping[str, str] = MappingProxyType({})


class Pipeline(Calls):
    """A model that draws.

    Calling it draws; :meth:`stream` draws step by step. Every other call of the model's
    family is a method, such as ``pipe.reconstruct(...)``. :attr:`calls` lists all calls, with their
    arguments and the model's defaults.
    """

    def __init__(
        self,
        model: Model,
        device: str | Mapping[str, str] = "CPU",
        precision: str | Mapping[str, str] = "auto",
        memory: str = "auto",
        *,
        adapters: Mapping[str, float] | Mapping[Path, float] | None = None,
        scheduler: str | Mapping[str, Any] | None = None,
        tune: bool = False,
    ) -> None:
        """Use an opened model; :meth:`from_pretrained` finds one by name."""
        manifest = model.manifest
        self.model = model
        self._family = family(manifest.family)
        with reading("device", device):
            devices = per_component(device, manifest.components, "device", "CPU")
        with reading("precision", precision):
            precisions = per_component(precision, manifest.components, "precision", "auto")
        for each in set(devices.values()):
            check_device(each)
        for each in set(precisions.values()):
            check_precision(each)
        with reading("memory", memory):
            check_memory(memory)
        self._own_defaults = self._with_scheduler(scheduler)
        self._sessions = SessionPool(model, devices, precisions, memory, Measuring.of(tune))
        self._components: Components[Any] = Components(
            sessions=self._sessions,
            tokenizers=Tokenizers(model),
            config=manifest.family_config,
            sizes=manifest.sizes,
            prepare=self._sessions.prepare,
            release=self._sessions.release,
        )
        self._adaptation = NO_ADAPTERS
        self.set_adapters({} if adapters is None else adapters)

    @classmethod
    def from_pretrained(
        cls,
        model: str | os.PathLike[str],
        device: str | Mapping[str, str] = "CPU",
        precision: str | Mapping[str, str] = "auto",
        memory: str = "auto",
        *,
        adapters: Mapping[str, float] | Mapping[Path, float] | None = None,
        scheduler: str | Mapping[str, Any] | None = None,
        embeddings: Embeddings = (),
        vae: str | os.PathLike[str] | None = None,
        base: str | os.PathLike[str] | None = None,
        tune: bool = False,
    ) -> Pipeline:
        """Open a model.

        Args:
            model: the name of an embedded model, or of one in the models folder; the directory of a
                bundle or a checkpoint; a checkpoint in one file; or a hub id.
            device: a device string of OpenVINO's ("CPU", "GPU", "AUTO", "HETERO:GPU,CPU"), or a
                mapping from component to one. Components that it leaves out run on the CPU.
            precision: "auto", "f32", "bf16" or "f16", or a mapping from component to one of them.
                "auto" is the fastest that the device and the component support. On a CPU that is
                faster in f32 than in bf16, that is f32, if its weights take little of the memory.
            memory: "low" frees each large component as soon as a drawing no longer needs it; the
                next drawing loads it again. "auto" frees only components that take more than a
                quarter of the machine's memory.
            adapters: weights of adapters by their files, as :meth:`set_adapters` takes them.
            scheduler: the default of the argument of that name, in the calls that take it: a name
                such as "dpm++ 2m karras", or a mapping with a class under "_class_name" and its
                settings.
            embeddings: files of words that were learned by textual inversion, or a mapping from the
                word to its file or files. Without a mapping, the word is the one that the file
                names, else the file's name.
            vae: SDXL: a full VAE in place of the model's own: a file, a directory or a hub id.
            base: SDXL: the model that has what a single file or a UNet alone lacks.
            tune: measure which of OpenVINO's settings are the fastest for weights in int8 or int4,
                where that is not known yet for a drawing's size. The drawings that follow, also
                those of other processes, are computed in them. By default nothing is measured.

        Raises:
            RequestError: an adapter or an embedding was not made for this model, or there is no such
                scheduler.
            ModelError: there is no such model, or Vinograph doesn't support it.
            DamagedModelError: a file is missing or of the wrong size.
            DeviceError: this machine lacks a device.
        """
        opened = catalog.find(model, catalog.sources(vae=vae, base=base))
        model_with_words = with_embeddings(opened, embeddings)
        return cls(model_with_words, device, precision, memory, adapters=adapters, scheduler=scheduler, tune=tune)

    @property
    def adapters(self) -> Mapping[str, float]:
        """The adapters in use, with their weights."""
        return MappingProxyType(self._adaptation.weights)

    def set_adapters(self, adapters: Mapping[str, float] | Mapping[Path, float]) -> None:
        """Draw with these adapters (LoRA and its kin) from now on, in place of all others.

        Their differences are added to the model's weights when its components are next used, so
        that steps take no longer. The model isn't read again.

        Args:
            adapters: weights by file: a ``.safetensors`` file, a folder with one, or the name of
                a file in the folder of adapters. A weight is any number: 1 is full strength, 0 is
                off. ``{}`` removes all.

        Raises:
            RequestError: there is no such file, a weight is no number, an adapter is for another
                model, or a picture is being drawn.
            ModelError: a file is pickled, or this model can't be changed.
            DamagedModelError: a file is damaged.
        """
        use_adaptation(self, adapt(self.model, adapters))

    @property
    def calls(self) -> Mapping[str, Call]:
        """The model's calls, by name.

        ``pipe.calls["generate"].takes`` maps each argument to its default in this model, and
        ``positional`` lists the arguments that may be passed by position, in order.
        """
        sources = (self.model.manifest.defaults, self._adapters_defaults(), self._own_defaults)
        defaults = {name: ChainMap(*(each.get(name, {}) for each in reversed(sources))) for name in self._family.calls}
        return MappingProxyType({name: call.with_defaults(defaults[name]) for name, call in self._family.calls.items()})

    @property
    def options(self) -> Mapping[str, str]:
        """Command-line options, each with the argument of a drawing call that it sets."""
        return self._family.options

    def _used_files(self) -> tuple[UsedFile, ...]:
        adapters = (
            UsedFile(recorded_name(each.file.path), each.file.path, weight=each.weight)
            for each in self._adaptation.adapters
        )
        words = (UsedFile(file.name, file, word=word) for word, file in files_of_words(self.model))
        return (*adapters, *words)

    def _distilled_by(self) -> tuple[str, FewStep] | None:
        """The file name of the first adapter in use that is known to distil, and what to."""
        for each in self._adaptation.adapters:
            few_step = self._family.distilled_by_adapter(str(each.file.path))
            if each.weight and few_step is not None:
                return each.file.path.name, few_step
        return None

    def _adapters_defaults(self) -> dict[str, dict[str, Any]]:
        """Defaults that an adapter brings, by call."""
        found = self._distilled_by()
        return {} if found is None else {_GENERATE: found[1].defaults_for(self.model.manifest.scheduler)}

    def _few_step_warnings(self, request: Request, given: Collection[str]) -> list[str]:
        """What an adapter brought besides the ``given`` arguments, and what contradicts a distilled model."""
        adapter, scheduler = self._distilled_by(), self.model.manifest.scheduler
        few_step = self._family.distilled(self.model.manifest.config) if adapter is None else adapter[1]
        if few_step is None:
            return []
        assumed = [] if adapter is None or few_step.defaults.keys() <= {*given} else [few_step.note(adapter[0])]
        return [*assumed, *few_step.contradictions(request, scheduler)]

    def _with_scheduler(self, scheduler: str | Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
        """Defaults of the calls that take a ``scheduler``, which is checked here.

        They replace the model's defaults, also custom timesteps, which belong to its own scheduler.
        """
        if scheduler is None:
            return {}
        argument = arguments_of(self._family.request)[_SCHEDULER]
        checked = argument.check(_SCHEDULER, scheduler)
        return {
            name: {_SCHEDULER: checked, **{each: None for each in argument.replaces if each in call.takes}}
            for name, call in self._family.calls.items()
            if _SCHEDULER in call.takes
        }

    def __dir__(self) -> list[str]:
        """Attribute names, without the declared calls that the pipeline's family lacks."""
        declared = {name for name in vars(Calls) if not name.startswith("_")} - {_STREAM}
        return sorted({*super().__dir__(), *self._family.calls} - (declared - self._family.calls.keys()))

    if not TYPE_CHECKING:  # a type checker should report undeclared names

        def __getattr__(self, name: str) -> Callable[..., Any]:
            """Method for a call of the family that isn't declared in :class:`Calls`."""
            if not name.startswith("_") and self._makes(name):
                return lambda *positional, **named: self._dispatch(name, positional, named)
            raise AttributeError(f"{type(self).__name__} has no {name!r}")

    def _makes(self, call: str) -> bool:
        return call in self._family.calls

    def _dispatch(self, method: str, positional: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Run the declared ``method``: see :mod:`vinograph.dispatch`."""
        if method == _STREAM:
            call = named.pop("call", _GENERATE)
            return self._start(call, self._by_name(call, positional, named))
        return self._finish(_GENERATE if method == "__call__" else method, positional, named)

    def _finish(self, call: str, positional: tuple[Any, ...], named: dict[str, Any]) -> Any:
        arguments = self._by_name(call, positional, named)
        as_tuple = arguments.pop("return_dict", True) is False
        result: Result | None = None
        for each in self._start(call, arguments):
            if isinstance(each, Result):
                result = each
        assert result is not None
        images = result.image_embeddings if result.images is None else result.images
        return (images,) if as_tuple else result

    def _by_name(self, call: str, positional: tuple[Any, ...], named: Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(call, str) or not self._makes(call):
            raise RequestError(f"call is {shown(call)}; {self._family.title} does {', '.join(self._family.calls)}")
        definition = self.calls[call]
        missing = [each for each in definition.components if each not in self._sessions]
        if missing:
            raise ModelError(
                f"{self.model.manifest.name} has no {' and no '.join(missing)}, which {call} needs: {definition.remedy}"
            )
        if len(positional) > len(definition.positional):
            raise RequestError(f"{call} takes {', '.join(definition.positional)} by position; name the other arguments")
        arguments = dict(zip(definition.positional, positional, strict=False))
        if doubled := sorted(arguments.keys() & named.keys()):
            raise RequestError(f"{', '.join(doubled)} was given twice, by position and by name")
        return {**arguments, **named}

    def _start(
        self, call: str, arguments: Mapping[str, Any], names: Mapping[str, str] = _NO_NAMES
    ) -> Generator[Step | Result, None, None]:
        """Check the arguments now, and return the generator that does the work."""
        request = self._resolve(call, arguments, names)
        steps = self._family.calls[call].run(self._components, self._with_pipeline(request))
        warnings = self._few_step_warnings(request, arguments) if call == _GENERATE else []
        return self._stream(request, steps, [*self._unseen_words(request), *warnings])

    def _unseen_words(self, request: Request) -> list[str]:
        """A warning of words that the model has not seen; an adapter may have taught it any word."""
        words = [] if self._adaptation.adapters else self.model.manifest.vocabulary
        return vocabulary.warnings(request.prompt or (), words, [word for word, _ in files_of_words(self.model)])

    def _resolve(self, call: str, arguments: Mapping[str, Any], names: Mapping[str, str]) -> Request:
        title, limits = f"{self._family.title} ({call})", self.model.manifest.limits
        return resolve(arguments, self.calls[call], limits, title, self._family.request, names)

    def _stream(self, request: Request, steps: Steps, warnings: list[str]) -> Generator[Step | Result, None, None]:
        with self._sessions.drawing():
            output = yield from steps
        output.warnings[:0] = warnings
        self._sessions.store_compiled()
        yield self._result(request, output)

    def _with_pipeline(self, request: Request) -> Request:
        """The request with callbacks bound to this pipeline as first argument, as in diffusers."""
        bound: dict[str, Any] = {
            name: partial(getattr(request, name), self)
            for name, argument in arguments_of(type(request)).items()
            if argument.gets_pipeline and getattr(request, name) is not None
        }
        return dataclasses.replace(request, **bound)

    def _result(self, request: Request, output: Output) -> Result:
        images: Any = output.latents
        if output.images is not None:
            images = to_pictures(output.images) if request.output_type == "pil" else output.images
            height, width = output.images.shape[1:3]
            if not output.upscaled:
                request = dataclasses.replace(request, height=height, width=width)
        return Result(
            images=images,
            seeds=request.seeds,
            request=request,
            timings=MappingProxyType(output.timings),
            warnings=(*output.warnings, *self._adaptation.warnings, *self._sessions.take_warnings()),
            devices=MappingProxyType(self._sessions.devices_and_precisions()),
            settings=MappingProxyType(self._sessions.settings()),
            model=self.model.manifest.name,
            adapters=self.adapters,
            files=self._used_files(),
            image_embeddings=output.image_embeddings,
            report=MappingProxyType(output.report),
        )


def stream_given(pipe: Pipeline, call: str, given: GivenArguments) -> Generator[Step | Result, None, None]:
    """Run ``call`` like :meth:`Pipeline.stream`, with the caller's argument names in errors."""
    return pipe._start(call, pipe._by_name(call, (), given.values), given.names)


def resolve_given(pipe: Pipeline, call: str, given: GivenArguments) -> Request:
    """Check the arguments of ``call`` one by one, and complete them with its defaults.

    What the family itself refuses, such as pictures that don't fit together, :func:`stream_given`
    finds before it returns.
    """
    return pipe._resolve(call, pipe._by_name(call, (), given.values), given.names)


def replace_defaults(pipe: Pipeline, defaults: Mapping[str, Any]) -> None:
    """Have the pipeline's call ``generate`` use these defaults in place of the model's.

    Raises:
        RequestError: the call takes no argument of such a name.
    """
    takes = pipe.calls[_GENERATE].takes
    if unknown := [name for name in defaults if name not in takes]:
        raise RequestError(f"defaults name {clipped(unknown[0])}; {_GENERATE} takes {', '.join(sorted(takes))}")
    own = pipe._own_defaults
    pipe._own_defaults = {**own, _GENERATE: {**own.get(_GENERATE, {}), **defaults}}


def use_adaptation(pipe: Pipeline, adaptation: Adaptation) -> None:
    """Draw with adapters that were compared with the pipeline's model before.

    Raises:
        RequestError: a picture is being drawn.
    """
    pipe._sessions.adapt(adaptation)
    pipe._adaptation = adaptation
    pipe._components.cache.clear()


@contextmanager
def observe_inputs(pipe: Pipeline, observer: InputObserver) -> Iterator[None]:
    """Call ``observer`` before each run of a component, for drawings made within the block."""
    pipe._sessions.observer = observer
    try:
        yield
    finally:
        pipe._sessions.observer = None
