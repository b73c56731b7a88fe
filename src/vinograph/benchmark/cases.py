"""The cases of a benchmark: models, and other systems that draw from the same checkpoint."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vinograph import folders
from vinograph.benchmark import processes
from vinograph.errors import RequestError
from vinograph.families.autoencoder import vae_names
from vinograph.families.registry import family
from vinograph.models import catalog
from vinograph.models.bundle import Bundle
from vinograph.models.manifest import Manifest
from vinograph.pipeline import Pipeline
from vinograph.request import GivenArguments, arguments_of, resolve

Arguments = Callable[[Pipeline], GivenArguments]
"""Gives the arguments of a model's drawing call that the user has set."""

_SDXL = ("sdxl",)


@dataclass(frozen=True)
class OtherSystem:
    """Another system to measure.

    Attributes:
        program: the system whose program draws, in its environment.
        families: those that it draws; None for all.
        preparer: the system whose program prepares files from the checkpoint, where it draws from such.
        variant: which of the program's ways this is, such as its weights; None for the usual one.
    """

    program: str
    families: tuple[str, ...] | None = None
    preparer: str | None = None
    variant: str | None = None

    @property
    def prepared(self) -> str:
        """A name for the files that its preparer makes."""
        return "-".join(filter(None, (self.preparer, self.variant)))


SYSTEMS: Mapping[str, OtherSystem] = {
    "diffusers": OtherSystem("diffusers"),
    "diffusers-compile": OtherSystem("diffusers", variant="compile"),
    "optimum-intel": OtherSystem("optimum-intel", _SDXL, "optimum-intel"),
    "optimum-intel-int8": OtherSystem("optimum-intel", _SDXL, "optimum-intel", "int8"),
    "openvino-genai": OtherSystem("openvino-genai", _SDXL, "optimum-intel"),
    "openvino-genai-int8": OtherSystem("openvino-genai", _SDXL, "optimum-intel", "int8"),
    "stable-diffusion.cpp": OtherSystem("stable-diffusion.cpp", _SDXL, "stable-diffusion.cpp", "f16"),
    "stable-diffusion.cpp-q8": OtherSystem("stable-diffusion.cpp", _SDXL, "stable-diffusion.cpp", "q8_0"),
    "notebook": OtherSystem("notebook", preparer="notebook"),
}
_NOT_COMPARED = ("prompt", "seed", "vae", "num_images_per_prompt", "output_type")


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """What to measure.

    Attributes:
        models: names, paths or hub ids of bundles or checkpoints.
        arguments: gives the arguments of a model's drawing call.
        against: names of :data:`SYSTEMS` to measure besides.
        reference: the model whose picture in f32 the others are compared with; default: the first.
        checkpoint: what other systems draw from; default: the first model, where it is a
            checkpoint.
        prior: the checkpoint of Würstchen's prior, where that is published apart.
        pythons: the interpreter of each system's environment; default: that of the system whose
            program it runs, else this one.
        prompts: what is drawn, each picture from the next.
        seed: the seed of each picture.
        runs: how many pictures after the first ones are spread over the rounds.
        rounds: how many processes each case has.
        counts: batch sizes, each a case of its own.
        device: where models compute, as :meth:`Pipeline.from_pretrained` takes it.
        precision: in what they compute, likewise.
        memory: what they keep in memory, likewise.
        sources: the other sources that the models are opened with, such as their ``base``.
        work: a folder that keeps what systems prepare from the checkpoint.
        compare: whether first pictures are compared with the reference.
        adherence: how many prompts the embedded models are judged by.
        tune: whether unknown settings of weights in int8 and int4 are measured first.
    """

    models: Sequence[str]
    arguments: Arguments
    against: Sequence[str] = ()
    reference: str | None = None
    checkpoint: Path | None = None
    prior: Path | None = None
    pythons: Mapping[str, str] = field(default_factory=dict)
    prompts: Sequence[str] = ()
    seed: int = 7
    runs: int = 5
    rounds: int = 2
    counts: Sequence[int] = (1,)
    device: str | Mapping[str, str] = "CPU"
    precision: str | Mapping[str, str] = "auto"
    memory: str = "auto"
    sources: Mapping[str, str] = field(default_factory=dict)
    work: Path | None = None
    compare: bool = True
    adherence: int = 50
    tune: bool = False

    def python(self, system: str) -> str:
        """The interpreter of a system's environment."""
        return self.pythons.get(system) or self.pythons.get(SYSTEMS[system].program, sys.executable)


@dataclass(frozen=True)
class BenchmarkCase:
    """One model or one other system, drawing ``count`` pictures at once.

    ``system`` is "vinograph", or the program of the ``other`` system. ``settings`` are all arguments of
    the drawing call, and ``explicit`` the names of those that the user gave. ``size`` is the bytes on
    the disk, None where the files have still to be prepared.
    """

    name: str
    system: str
    python: str
    source: Path
    family: str
    count: int
    settings: Mapping[str, Any]
    explicit: Sequence[str]
    vae: str | None
    is_storybook: bool
    size: int | None
    other: OtherSystem | None = None

    @property
    def label(self) -> str:
        """The case's name on the progress display."""
        return self.name if self.count == 1 else f"{self.name} x{self.count}"

    def prepared(self, work: Path) -> Path | None:
        """The folder in ``work`` with its prepared files; None where it draws from ``source``."""
        if self.other is None or self.other.preparer is None:
            return None
        parts = [self.other.prepared, *(["tiny"] if self.vae == "tiny" else [])]
        if self.system == "notebook":  # some of its graphs are of one size
            parts.append(f"{self.settings['width']}x{self.settings['height']}")
        return work / "-".join(parts)

    def task(self, config: BenchmarkConfig, prompts: Sequence[str], work: Path, **changes: Any) -> dict[str, Any]:
        """The fields of the task that its process gets, with ``changes`` for this one."""
        ours = self.system == "vinograph"
        return {
            "source": str(self.source),
            "work": str((self.prepared(work) or work).resolve()),
            "prompts": list(prompts),
            "seed": config.seed,
            "settings": {**self.settings, **({"vae": self.vae} if ours and self.vae else {})},
            "explicit": list(self.explicit),
            "count": self.count,
            "vae": self.vae,
            "device": config.device,
            "precision": config.precision,
            "memory": config.memory,
            "sources": {name: _absolute(text) for name, text in config.sources.items()} if ours else {},
            "prior": None if config.prior is None else str(config.prior.resolve()),
            "variant": self.other and self.other.variant,
            **changes,
        }


def _absolute(source: str) -> str:
    """A source for another process: a path from the root, or a name as it is."""
    path = folders.expand(source)
    return str(path.absolute()) if folders.is_there(path) else source


def with_default_checkpoint(config: BenchmarkConfig) -> BenchmarkConfig:
    """``config`` with the default checkpoint: the first model, where it is a checkpoint.

    Raises:
        ModelError: the first model can't be used.
    """
    if not config.against or config.checkpoint is not None:
        return config
    first = catalog.find(config.models[0], config.sources)
    return dataclasses.replace(config, checkpoint=None if isinstance(first, Bundle) else first.path)


def cases(config: BenchmarkConfig) -> list[BenchmarkCase]:
    """A case for each model and then for each other system, with every count.

    Raises:
        RequestError: the config can't be measured.
        ModelError: a model can't be used.
    """
    _check(config)
    models = [_model_case(config, name, count) for name in config.models for count in config.counts]
    by_count = {each.count: each for each in reversed(models)}  # other systems draw what the first model does
    return models + [
        _system_case(config, system, by_count[count]) for system in config.against for count in config.counts
    ]


def reference(config: BenchmarkConfig, count: int) -> BenchmarkCase:
    """The case that draws the picture in f32 which the others are compared with."""
    return _model_case(config, config.reference or config.models[0], count)


def _check(config: BenchmarkConfig) -> None:
    for name in [*config.against, *config.pythons]:
        if name not in SYSTEMS:
            raise RequestError(f"there is no system {name!r} to compare with; there is {', '.join(SYSTEMS)}")
    if config.against and config.checkpoint is None:
        raise RequestError(
            f"--against {config.against[0]} needs --checkpoint: the directory that the bundle was converted from"
        )
    for option, folder in (("--checkpoint", config.checkpoint), ("--prior", config.prior)):
        if folder is not None and not (folder / "model_index.json").is_file():
            raise RequestError(f"{option} {folder} is no checkpoint: it has no model_index.json")
    for option, value in (("device", config.device), ("precision", config.precision)):
        if config.against and not isinstance(value, str):
            raise RequestError(f"--{option} names components, which {config.against[0]} has not; give one for all")
    if len(set(config.against)) < len(config.against) or len(set(config.models)) < len(config.models):
        raise RequestError("a bundle or a system was named twice")
    for system in config.against:
        check_environment(config, system)


def check_environment(config: BenchmarkConfig, system: str) -> None:
    """Check the interpreter of a system, and that of the system which prepares its files.

    Raises:
        RequestError: the interpreter or a package is missing; the message says what to install.
    """
    other = SYSTEMS[system]
    wanted = [(system, other.program, other.preparer == other.program)]
    if other.preparer is not None and other.preparer != other.program:
        wanted.append((other.preparer, other.preparer, True))
    for name, program, prepares in wanted:
        python = config.python(name)
        if shutil.which(python) is None:
            raise RequestError(f"--python {name}={python}: there is no such interpreter")
        outcome = processes.run(python, ["check", program, *(["preparing"] if prepares else [])])
        if outcome.failure is not None:
            raise RequestError(f"--python {name}={python} is no Python that runs: {outcome.failure}")
        if missing := outcome.events_named("checked")[0]["missing"]:
            raise RequestError(
                f"{system} needs {', '.join(missing)}: {python} -m pip install {' '.join(missing)}; "
                f"or name another environment's interpreter by --python {name}=PATH"
            )


def _model_case(config: BenchmarkConfig, name: str, count: int) -> BenchmarkCase:
    vae, base = (config.sources.get(each) for each in ("vae", "base"))
    pipe = Pipeline.from_pretrained(name, config.device, config.precision, config.memory, vae=vae, base=base)
    manifest = pipe.model.manifest
    settings, explicit = _settings(pipe, config.arguments(pipe), count)
    return BenchmarkCase(
        name=Path(name).name,
        system="vinograph",
        python=sys.executable,
        source=pipe.model.path.absolute(),  # resolved, a file of the hub's cache would lose its name
        family=manifest.family,
        count=count,
        settings=settings,
        explicit=explicit,
        vae=_vae(pipe, settings),
        is_storybook=_is_storybook(manifest),
        size=pipe.model.size,
    )


def _settings(pipe: Pipeline, arguments: GivenArguments, count: int) -> tuple[dict[str, Any], list[str]]:
    """All arguments of the call, and the names of those that the user gave.

    Raises:
        RequestError: an argument is not one that the call takes, or that a benchmark can set.
    """
    call, manifest = pipe.calls["generate"], pipe.model.manifest
    kind = family(manifest.family).request
    known = arguments_of(kind)
    for name in arguments.values:
        if name in known and (not known[name].recorded or name in ("prompt", "output_type")):
            raise RequestError(f"--option {name}: a benchmark draws from a text alone, and keeps the pictures")
    given = {**arguments.values, "prompt": "", "num_images_per_prompt": count}
    request = resolve(given, call, manifest.limits, manifest.name, kind, arguments.names)
    settings = {name: value for name, value in request.record().items() if name not in _NOT_COMPARED or name == "vae"}
    for name, value in settings.items():
        if known[name].per_prompt:
            settings[name] = value[0]
    return settings, [name for name in arguments.values if name not in _NOT_COMPARED]


def _vae(pipe: Pipeline, settings: dict[str, Any]) -> str | None:
    """Which VAE decodes. It is taken out of the settings, as other calls have no such argument."""
    chosen: str | None = settings.pop("vae", None)
    available = vae_names(pipe.model.manifest.components)
    return chosen or (available[0] if available else None)


def _is_storybook(manifest: Manifest) -> bool:
    """Whether a model is one of the embedded ones, however its weights are stored."""
    return manifest.name in {each.name for each in catalog.embedded()}


def _system_case(config: BenchmarkConfig, system: str, like: BenchmarkCase) -> BenchmarkCase:
    """The case of another system that draws what the model of the case ``like`` does.

    Raises:
        RequestError: the system doesn't draw models of that family.
    """
    other = SYSTEMS[system]
    if other.families is not None and like.family not in other.families:
        raise RequestError(f"{system} draws no models of the family {like.family}, only of {', '.join(other.families)}")
    assert config.checkpoint is not None
    return BenchmarkCase(
        name=system,
        system=other.program,
        python=config.python(system),
        source=config.checkpoint.resolve(),
        family=like.family,
        count=like.count,
        settings=like.settings,
        explicit=like.explicit,
        vae=like.vae,
        is_storybook=like.is_storybook,
        size=None if other.preparer else sum(map(folder_size, filter(None, (config.checkpoint, config.prior)))),
        other=other,
    )


def folder_size(folder: Path) -> int:
    """The bytes of all files in a folder, at any depth."""
    return sum(each.stat().st_size for each in folder.rglob("*") if each.is_file())
