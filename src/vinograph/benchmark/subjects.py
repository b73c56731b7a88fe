"""What is measured: models, and other systems that draw from the checkpoint that a bundle was converted from."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vinograph.benchmark import processes
from vinograph.errors import RequestError
from vinograph.families.autoencoder import autoencoders
from vinograph.families.registry import family
from vinograph.models import catalog
from vinograph.models.bundle import Bundle
from vinograph.models.manifest import Manifest
from vinograph.pipeline import Pipeline
from vinograph.request import GivenArguments, arguments_of, resolve

Arguments = Callable[[Pipeline], GivenArguments]
"""The arguments of a bundle's drawing call that were asked for."""

# The families that each system draws; None: all.
SYSTEMS: Mapping[str, tuple[str, ...] | None] = {
    "diffusers": None,
    "optimum-intel": ("sdxl",),
    "openvino-genai": ("sdxl",),
    "notebook": None,
}
# What draws from files that another step makes of the checkpoint: the system whose environment makes them.
PREPARED_BY: Mapping[str, str] = {
    "optimum-intel": "optimum-intel",
    "openvino-genai": "optimum-intel",
    "notebook": "notebook",
}
_OURS_ALONE = ("prompt", "seed", "vae", "num_images_per_prompt", "output_type")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What to measure.

    ``bundles`` are models: bundles or checkpoints, by names, paths or hub ids. ``against`` names :data:`SYSTEMS`, each
    run by its interpreter in ``pythons`` and drawing from ``checkpoint``, which is the first model where that is a
    checkpoint (and from ``prior``, where that is published apart). Each of ``counts`` is measured by
    itself. ``runs`` pictures after the first are spread over ``rounds`` processes. With ``compare``, the first
    picture is compared with the one that ``reference`` (default: the first bundle) draws in f32. ``adherence`` is how
    many prompts the embedded models are asked besides. ``work`` keeps what is made of the checkpoint.
    """

    bundles: Sequence[str]
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
    work: Path | None = None
    compare: bool = True
    adherence: int = 50

    def python(self, system: str) -> str:
        """The interpreter of a system's environment."""
        return self.pythons.get(system, sys.executable)


@dataclass(frozen=True)
class Subject:
    """One bundle, or one other system, drawing ``count`` pictures at once.

    ``size`` is the bytes on disk; None where they are of what will be made of the checkpoint.
    """

    name: str
    system: str
    python: str
    source: Path
    family: str
    count: int
    settings: Mapping[str, Any]
    told: Sequence[str]
    vae: str | None
    knows_the_world: bool
    size: int | None

    @property
    def label(self) -> str:
        """What people read of it while it is measured."""
        return self.name if self.count == 1 else f"{self.name} x{self.count}"

    def made(self, work: Path) -> Path | None:
        """Where in ``work`` lies what was made of the checkpoint for it; None: it draws from ``source`` itself."""
        if self.system not in PREPARED_BY:
            return None
        parts = [PREPARED_BY[self.system], *(["tiny"] if self.vae == "tiny" else [])]
        if self.system == "notebook":  # some of its graphs are of one size
            parts.append(f"{self.settings['width']}x{self.settings['height']}")
        return work / "-".join(parts)

    def task(self, asked: Asked, prompts: Sequence[str], work: Path, **changes: Any) -> dict[str, Any]:
        """What its process is told. ``changes`` is what this task has otherwise."""
        ours = self.system == "vinograph"
        return {
            "source": str(self.source),
            "work": str((self.made(work) or work).resolve()),
            "prompts": list(prompts),
            "seed": asked.seed,
            "settings": {**self.settings, **({"vae": self.vae} if ours and self.vae else {})},
            "told": list(self.told),
            "count": self.count,
            "vae": self.vae,
            "device": asked.device,
            "precision": asked.precision,
            "memory": asked.memory,
            "prior": None if asked.prior is None else str(asked.prior.resolve()),
            **changes,
        }


def complete(asked: Asked) -> Asked:
    """``asked``, with the first model as the checkpoint of other systems where it is one and no other was named.

    Raises:
        ModelError: it can't be used.
    """
    if not asked.against or asked.checkpoint is not None:
        return asked
    first = catalog.find(asked.bundles[0])
    return dataclasses.replace(asked, checkpoint=None if isinstance(first, Bundle) else first.path)


def subjects(asked: Asked) -> list[Subject]:
    """The bundles, then the other systems; for each, every count.

    Raises:
        RequestError: what was asked can't be measured.
        ModelError: a bundle can't be used.
    """
    _check(asked)
    bundles = [_of_bundle(asked, name, count) for name in asked.bundles for count in asked.counts]
    by_count = {each.count: each for each in reversed(bundles)}  # the first bundle is what the others are held against
    return bundles + [_of_system(asked, system, by_count[count]) for system in asked.against for count in asked.counts]


def reference(asked: Asked, count: int) -> Subject:
    """What draws the picture in f32 that the others' are compared with."""
    return _of_bundle(asked, asked.reference or asked.bundles[0], count)


def _check(asked: Asked) -> None:
    for name in [*asked.against, *asked.pythons]:
        if name not in SYSTEMS:
            raise RequestError(f"there is no system {name!r} to compare with; there is {', '.join(SYSTEMS)}")
    if asked.against and asked.checkpoint is None:
        raise RequestError(
            f"--against {asked.against[0]} needs --checkpoint: the directory that the bundle was converted from"
        )
    for option, folder in (("--checkpoint", asked.checkpoint), ("--prior", asked.prior)):
        if folder is not None and not (folder / "model_index.json").is_file():
            raise RequestError(f"{option} {folder} is no checkpoint: it has no model_index.json")
    for what, told in (("device", asked.device), ("precision", asked.precision)):
        if asked.against and not isinstance(told, str):
            raise RequestError(f"--{what} names components, which {asked.against[0]} has not; give one for all")
    if len(set(asked.against)) < len(asked.against) or len(set(asked.bundles)) < len(asked.bundles):
        raise RequestError("a bundle or a system was named twice")
    for system in asked.against:
        check_environment(asked, system)


def check_environment(asked: Asked, system: str) -> None:
    """Check that a system's interpreter is there and has its packages, and that of what prepares its files.

    Raises:
        RequestError: naming what to install.
    """
    maker = PREPARED_BY.get(system)
    wanted = [(system, maker == system), *([(maker, True)] if maker not in (None, system) else [])]
    for name, prepares in wanted:
        assert name is not None
        python = asked.python(name)
        if shutil.which(python) is None:
            raise RequestError(f"--python {name}={python}: there is no such interpreter")
        outcome = processes.run(python, ["check", name, *(["preparing"] if prepares else [])])
        if outcome.failure is not None:
            raise RequestError(f"--python {name}={python} is no Python that runs: {outcome.failure}")
        if missing := outcome.told("checked")[0]["missing"]:
            raise RequestError(
                f"{system} needs {', '.join(missing)}: {python} -m pip install {' '.join(missing)}; "
                f"or name another environment's interpreter by --python {name}=PATH"
            )


def _of_bundle(asked: Asked, name: str, count: int) -> Subject:
    pipe = Pipeline.from_pretrained(name, asked.device, asked.precision, asked.memory)
    manifest = pipe.model.manifest
    settings, told = _settings(pipe, asked.arguments(pipe), count)
    return Subject(
        name=Path(name).name,
        system="vinograph",
        python=sys.executable,
        source=pipe.model.path.resolve(),
        family=manifest.family,
        count=count,
        settings=settings,
        told=told,
        vae=_vae(pipe, settings),
        knows_the_world=_knows_the_world(manifest),
        size=pipe.model.size,
    )


def _settings(pipe: Pipeline, arguments: GivenArguments, count: int) -> tuple[dict[str, Any], list[str]]:
    """The arguments of the call in full, and the names of those that were asked for.

    Raises:
        RequestError: one of them is not what the call takes, or not for a benchmark to choose.
    """
    call, manifest = pipe.calls["generate"], pipe.model.manifest
    kind = family(manifest.family).request
    known = arguments_of(kind)
    for name in arguments.values:
        if name in known and (not known[name].recorded or name in ("prompt", "output_type")):
            raise RequestError(f"--option {name}: a benchmark draws from a text alone, and keeps the pictures")
    given = {**arguments.values, "prompt": "", "num_images_per_prompt": count}
    request = resolve(given, call, manifest.limits, manifest.name, kind, arguments.names)
    settings = {name: value for name, value in request.record().items() if name not in _OURS_ALONE or name == "vae"}
    for name, value in settings.items():
        if known[name].per_prompt:
            settings[name] = value[0]
    return settings, [name for name in arguments.values if name not in _OURS_ALONE]


def _vae(pipe: Pipeline, settings: dict[str, Any]) -> str | None:
    """Which VAE decodes. The others' calls don't take it as an argument."""
    told: str | None = settings.pop("vae", None)
    there = autoencoders(pipe.model.manifest.components)
    return told or (there[0] if there else None)


def _knows_the_world(manifest: Manifest) -> bool:
    """Whether it is one of the embedded models, however its weights are stored."""
    return manifest.name in {each.name for each in catalog.embedded()}


def _of_system(asked: Asked, system: str, like: Subject) -> Subject:
    """Another system that draws what the bundle ``like`` does.

    Raises:
        RequestError: it doesn't draw models of that family.
    """
    families = SYSTEMS[system]
    if families is not None and like.family not in families:
        raise RequestError(f"{system} draws no models of the family {like.family}, only of {', '.join(families)}")
    assert asked.checkpoint is not None
    return Subject(
        name=system,
        system=system,
        python=asked.python(system),
        source=asked.checkpoint.resolve(),
        family=like.family,
        count=like.count,
        settings=like.settings,
        told=like.told,
        vae=like.vae,
        knows_the_world=like.knows_the_world,
        size=None if system in PREPARED_BY else sum(map(bytes_below, filter(None, (asked.checkpoint, asked.prior)))),
    )


def bytes_below(folder: Path) -> int:
    """The bytes of all files in a folder."""
    return sum(each.stat().st_size for each in folder.rglob("*") if each.is_file())
