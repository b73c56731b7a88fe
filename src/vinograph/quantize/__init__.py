"""A model -> a smaller, faster bundle, by NNCF.

A checkpoint is converted first, into the folder that the work is done in. A family's ``recipe.py`` says which
component takes what, :mod:`.calibration` draws to see what each is given, and :mod:`.component` quantizes it segment by
segment, so that memory bounds no model. Modules that import NNCF are imported inside functions, so that what can be
refused is refused at once.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vinograph import __version__
from vinograph.convert import Job as Conversion
from vinograph.convert.assemble import assemble, fingerprint, size_of
from vinograph.errors import NumericalError, RequestError, ResourceError
from vinograph.families import registry
from vinograph.families.recipes import MODES, Recipe
from vinograph.files import explained
from vinograph.models import catalog
from vinograph.models.bundle import Bundle, BundleWriter, check_target, weights_of
from vinograph.models.checkpoint_model import CheckpointModel
from vinograph.models.manifest import MANIFEST_FILE, Component, Manifest, Quantization
from vinograph.models.model import Model
from vinograph.models.sources import NetworkSource
from vinograph.quantize import speed

Progress = Callable[[str, int, int], None]

_WORK = ".work"
_SOURCE = ".source"
_WEIGHTS = "f16"
"""How a checkpoint is converted first, as ``convert`` does by default."""
_CARD = "README.md"
_SPARE = 64_000_000
_ACTIVATIONS = {"weights": None, "mixed": "int8 convolutions", "full": "int8"}


@dataclass(frozen=True)
class _Job:
    """One quantization: ``prompts`` to calibrate with, and the recipes of the components that are changed."""

    bundle: Bundle
    mode: str
    prompts: tuple[str, ...]
    chosen: Mapping[str, Recipe]
    progress: Progress

    @property
    def calibrated(self) -> list[str]:
        """The components whose activations are quantized."""
        return [name for name, recipe in self.chosen.items() if recipe.activations and self.mode != "weights"]

    @property
    def steps(self) -> dict[str, str]:
        """The denoisers, with the arguments of a drawing that set how often each is called."""
        return {name: recipe.steps for name, recipe in self.chosen.items() if recipe.steps is not None}


def quantize(
    source: str | Path,
    target: Path,
    *,
    mode: str,
    prompts: Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Bundle:
    """Write a quantized copy of a model. Killed at any moment, the same call goes on where it stopped.

    Args:
        source: the model: a bundle that conversion wrote, or a published checkpoint; its directory, a name, or a hub
            id. Of a checkpoint comes what comes of the bundle that it is converted to with weights in f16.
        target: the directory to write.
        mode: "weights" stores weights in int8 alone; "mixed" computes convolutions with int8 activations, too, and
            "full" linear layers as well.
        prompts: a text file with one prompt on each line, to calibrate with in place of the package's own.
        overwrite: replace a bundle at ``target``, which stays until the new one is whole.
        progress: called with the name of a stage, and how many of how many steps of it are done.

    Raises:
        RequestError: an argument is wrong, NNCF isn't installed, the model is quantized already, ``target`` exists.
        ModelError: there is no such model, or it is none that Vinograph draws with.
        DamagedModelError: a file of the model is not what it should be.
        ResourceError: the disk is too small.
    """
    if mode not in MODES:
        raise RequestError(f"--mode is {mode!r}; give one of {', '.join(MODES)}")
    target = Path(target)
    check_target(target, overwrite)
    model = catalog.find(source)
    _check_source(model, target)
    chosen = _chosen(model)
    if prompts is not None and mode == "weights":
        raise RequestError("--prompts is for the modes mixed and full; weights alone are quantized without data")
    _require_nncf()
    from vinograph.quantize import calibration

    told = calibration.read_prompts(calibration.PROMPTS if prompts is None else prompts)
    prompts_drawn = told if mode != "weights" else ()
    writing = BundleWriter(target, _fingerprint(model, mode, prompts_drawn), overwrite)
    with _blaming(model), explained(target), writing as writer:
        _check_space(model, writer)
        bundle = _as_bundle(model, writer, progress or _silent)
        job = _Job(bundle, mode, prompts_drawn, chosen, progress or _silent)
        count = _write_files(job, writer)
        job.progress("speed measured", 0, 1)
        given = speed.first_calls(bundle, job.steps)
        measured = speed.measure(bundle, writer.partial, given)
        job.progress("speed measured", 1, 1)
        made = Quantization(
            mode=mode,
            prompts=count,
            samples=calibration.SAMPLES if count else 0,
            tools=_tools(),
            speed=speed.told(bundle, job.steps, measured),
        )
        manifest = _manifest(job, made)
        writer.keep_only({*bundle.manifest.files, _CARD})
        written = writer.finish(manifest)
    speed.remember(written, given, measured)
    return written


def _check_source(model: Model, target: Path) -> None:
    if model.path.resolve() == target.resolve():
        raise RequestError(f"{target} is the bundle to quantize itself: name another place to write to")
    made = model.manifest.quantization
    if made:
        raise RequestError(
            f"{model.path} is quantized already (mode {made.mode}): give the bundle that conversion wrote"
        )


def _chosen(model: Model) -> dict[str, Recipe]:
    """The recipes of the model's components. What is stored in few bits already stays as it is."""
    known: Mapping[str, Recipe] = registry.module(model.manifest.family, "recipe").RECIPE
    components = model.manifest.components
    chosen = {name: known[name] for name in components if name in known and not _in_few_bits(components[name])}
    if not any(recipe.activations for recipe in chosen.values()):
        raise RequestError(f"{model.path} is stored in few bits already: give a model whose weights are in f16 or f32")
    return chosen


def _in_few_bits(component: Component) -> bool:
    return component.weights in ("int8", "int4")


def _fingerprint(model: Model, mode: str, prompts: tuple[str, ...]) -> str:
    """What the result depends on."""
    source = fingerprint(model.opened, _WEIGHTS) if isinstance(model, CheckpointModel) else model.manifest.to_json()
    return hashlib.sha256(json.dumps([source, mode, prompts, _tools()]).encode()).hexdigest()


@contextmanager
def _blaming(model: Model) -> Iterator[None]:
    """Say of a checkpoint that computes NaN what to do about it, not about what it was converted to.

    Raises:
        NumericalError: it computes NaN or infinity.
    """
    try:
        yield
    except NumericalError as error:
        if isinstance(model, Bundle):
            raise
        raise NumericalError(error.stage, error.precision, NetworkSource.remedy) from error


def _as_bundle(model: Model, writer: BundleWriter, progress: Progress) -> Bundle:
    """The bundle to quantize: the model itself, or what conversion makes of a checkpoint.

    That lies in the folder that is being written until the end. What an interrupted quantization has converted is not
    converted again.
    """
    if isinstance(model, Bundle):
        return model
    assert isinstance(model, CheckpointModel)
    total = len(model.opened.components)
    place = writer.partial / _SOURCE / model.manifest.family
    if (place / MANIFEST_FILE).is_file():
        return Bundle.open(place)
    writer.mark_done("begun", True)  # or what is converted would count as of another quantization
    progress("components converted", 0, total)
    conversion = Conversion(
        place, _WEIGHTS, False, lambda _, number, total: progress("components converted", number - 1, total)
    )
    made = assemble(model.opened, conversion)
    progress("components converted", total, total)
    return made


def _require_nncf() -> None:
    if importlib.util.find_spec("nncf") is None:
        raise RequestError('quantization needs nncf: pip install "vinograph[quantize]"')


def _silent(stage: str, done: int, total: int) -> None:
    """Progress that nobody asked for."""


def _tools() -> dict[str, str]:
    return {"vinograph": __version__, **{name: importlib.metadata.version(name) for name in ("nncf", "openvino")}}


def _write_files(job: _Job, writer: BundleWriter) -> int:
    """Write all files but the manifest; returns how many prompts were calibrated with."""
    from vinograph.quantize import calibration

    _copy(job, writer.partial)
    work_folder = writer.partial / _WORK
    count = 0
    if job.calibrated:
        count = calibration.collect(job.bundle, job.calibrated, job.prompts, work_folder, writer, job.progress)
    _quantize_components(job, writer, work_folder)
    _write_card(job, writer.partial)
    return count


def _manifest(job: _Job, made: Quantization) -> Manifest:
    manifest = job.bundle.manifest
    components = {name: _described(job, name, each) for name, each in manifest.components.items()}
    return dataclasses.replace(manifest, components=components, quantization=made)


def _quantize_components(job: _Job, writer: BundleWriter, folder: Path) -> None:
    from vinograph.quantize.component import Work, plan, quantize_component

    works = [
        Work(
            name=name,
            source=job.bundle.path / job.bundle.manifest.components[name].file,
            target=writer.partial / job.bundle.manifest.components[name].file,
            folder=folder / name,
            recipe=recipe,
            mode=job.mode,
            writer=writer,
        )
        for name, recipe in job.chosen.items()
    ]
    waiting = [work for work in works if writer.done(work.name) is None]
    for work in works:
        if work not in waiting:  # killed while it was deleted
            shutil.rmtree(work.folder, ignore_errors=True)
    total = sum(len(plan(work).segments) for work in waiting)
    finished = 0
    for work in waiting:
        job.progress("segments quantized", finished, total)

        def step() -> None:
            nonlocal finished
            finished += 1
            job.progress("segments quantized", finished, total)

        work.folder.mkdir(parents=True, exist_ok=True)
        quantize_component(work, step)


def _described(job: _Job, name: str, component: Component) -> Component:
    recipe = job.chosen.get(name)
    if recipe is None:
        return component
    activations = _ACTIVATIONS[job.mode] if recipe.activations else None
    return dataclasses.replace(component, weights=recipe.weights[job.mode], activations=activations)


def _copy(job: _Job, folder: Path) -> None:
    """Copy every file of the bundle but those of the components that change."""
    changed = {job.bundle.manifest.components[name].file for name in job.chosen}
    changed |= {weights_of(name) for name in changed}
    for name in job.bundle.manifest.files:
        if name not in changed:
            place = folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(job.bundle.path / name, place)


def _write_card(job: _Job, folder: Path) -> None:
    """Add to the other bundle's model card how this one was made of it."""
    card = job.bundle.path / _CARD
    text = card.read_text(encoding="utf-8") if card.exists() else f"# {job.bundle.manifest.name}\n"
    told = f"Quantized by Vinograph {__version__} with NNCF {_tools()['nncf']}, mode `{job.mode}`."
    (folder / _CARD).write_text(f"{text.rstrip()}\n\n{told}\n", encoding="utf-8")


def _check_space(model: Model, writer: BundleWriter) -> None:
    """Segments and what is joined of them lie on the disk beside each other for a while.

    So does what is converted of a checkpoint, to the end.
    """
    size = 2 * size_of(model.opened, _WEIGHTS) if isinstance(model, CheckpointModel) else model.size
    needed = size + _SPARE
    free = shutil.disk_usage(writer.partial).free
    there = sum(file.stat().st_size for file in writer.partial.rglob("*") if file.is_file())
    if needed > free + there:
        shutil.rmtree(writer.partial, ignore_errors=True)
        raise ResourceError(
            f"the bundle needs {needed / 1e9:.1f} GB on the disk of {writer.target.parent}, "
            f"which has {(free + there) / 1e9:.1f} GB free"
        )
