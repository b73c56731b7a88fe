"""A model to a smaller, faster bundle, by NNCF.

A checkpoint is converted first, into the folder where the work is done. A family's ``recipe.py``
says how each component is quantized. :mod:`.calibration` draws to collect the inputs of components.
:mod:`.component` quantizes a component segment by segment, so that models of any size fit the
memory.

Modules that import NNCF are imported inside functions, so that a wrong call is refused at once.
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
from vinograph.convert import Job
from vinograph.convert.assemble import assemble, fingerprint, size_of
from vinograph.errors import NumericalError, RequestError, ResourceError
from vinograph.families import registry
from vinograph.families.recipes import MODES, Recipe
from vinograph.files import explained
from vinograph.models import catalog
from vinograph.models.bundle import Bundle, weights_of
from vinograph.models.bundle_writer import BundleWriter, check_target
from vinograph.models.checkpoint_model import CheckpointModel
from vinograph.models.manifest import MANIFEST_FILE, Component, Manifest, Quantization, Speed
from vinograph.models.model import Model
from vinograph.models.sources import NetworkSource
from vinograph.quantize import speed

Progress = Callable[[str, int, int], None]

_WORK = ".work"
_SOURCE = ".source"
_WEIGHTS = "f16"
"""How the weights of a checkpoint are stored when it is converted first, as by default."""
_CARD = "README.md"
_SPARE = 64_000_000
_ACTIVATIONS = {"weights": None, "mixed": "int8 convolutions", "full": "int8"}


@dataclass(frozen=True)
class _QuantizationJob:
    """One quantization, with the recipes of the components that it changes."""

    bundle: Bundle
    mode: str
    prompts: tuple[str, ...]
    recipes: Mapping[str, Recipe]
    progress: Progress

    @property
    def calibrated(self) -> list[str]:
        """The components whose activations are quantized."""
        return [name for name, recipe in self.recipes.items() if recipe.activations and self.mode != "weights"]

    @property
    def steps(self) -> dict[str, str]:
        """The denoisers, each with the argument that sets its number of steps."""
        return {name: recipe.steps for name, recipe in self.recipes.items() if recipe.steps is not None}


def quantize(
    source: str | Path,
    target: Path,
    *,
    mode: str,
    vae: str | None = None,
    base: str | None = None,
    prompts: Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Bundle:
    """Write a quantized copy of a model.

    Killed at any moment, the same call goes on where it stopped.

    Args:
        source: the model, a bundle or a published checkpoint, by its directory, its file, its name
            or its hub id. A checkpoint is converted first, with weights in f16.
        vae: SDXL: a full VAE in place of the source's own.
        base: SDXL: the model that has what a single file or a UNet alone lacks.
        target: the directory to write.
        mode: "weights" only stores weights in int8; "mixed" also computes convolutions with int8
            activations, and "full" linear layers, too.
        prompts: a text file with one prompt on each line, for calibration; None takes the package's
            own.
        overwrite: replace a bundle at ``target``, which stays until the new one is complete.
        progress: called with the name of a stage, the number of its finished steps, and the number
            of all.

    Raises:
        RequestError: an argument is wrong, NNCF isn't installed, the model is quantized already,
            ``target`` exists.
        ModelError: there is no such model, or it is none that Vinograph draws with.
        DamagedModelError: a file of the model is not what it should be.
        ResourceError: the disk is too small.
    """
    if mode not in MODES:
        raise RequestError(f"--mode is {mode!r}; give one of {', '.join(MODES)}")
    target = Path(target)
    check_target(target, overwrite)
    named = {name: given for name, given in (("vae", vae), ("base", base)) if given is not None}
    model = catalog.find(source, named)
    _check_source(model, target)
    recipes = _applicable_recipes(model)
    if prompts is not None and mode == "weights":
        raise RequestError("--prompts is for the modes mixed and full; weights alone are quantized without data")
    _require_nncf()
    from vinograph.quantize import calibration

    lines = calibration.read_prompts(calibration.PROMPTS if prompts is None else prompts)
    calibration_prompts = lines if mode != "weights" else ()
    writing = BundleWriter(target, _fingerprint(model, mode, calibration_prompts), overwrite)
    with _with_remedy(model), explained(target), writing as writer:
        _check_space(model, writer)
        bundle = _as_bundle(model, writer, progress or _silent)
        job = _QuantizationJob(bundle, mode, calibration_prompts, recipes, progress or _silent)
        count = _write_files(job, writer)
        job.progress("speed measured", 0, 1)
        given = speed.first_calls(bundle, job.steps)
        measured = speed.measure(bundle, writer.partial, given)
        job.progress("speed measured", 1, 1)
        manifest = _manifest(job, count, speed.speed_record(bundle, job.steps, measured))
        writer.keep_only({*bundle.manifest.files, _CARD})
        written = writer.finish(manifest)
    speed.remember(written, given, measured)
    return written


def _check_source(model: Model, target: Path) -> None:
    """Refuse a model that is quantized already, and one that would be overwritten."""
    if model.path.resolve() == target.resolve():
        raise RequestError(f"{target} is the bundle to quantize itself: name another place to write to")
    made = model.manifest.quantization
    if made:
        raise RequestError(
            f"{model.path} is quantized already (mode {made.mode}): give the bundle that conversion wrote"
        )


def _applicable_recipes(model: Model) -> dict[str, Recipe]:
    """The recipes of the model's components; those with low-bit weights stay as they are."""
    known: Mapping[str, Recipe] = registry.module(model.manifest.family, "recipe").RECIPE
    components = model.manifest.components
    recipes = {name: known[name] for name in components if name in known and not _has_low_bit_weights(components[name])}
    if not any(recipe.activations for recipe in recipes.values()):
        raise RequestError(f"{model.path} has low-bit weights already: give a model whose weights are in f16 or f32")
    return recipes


def _has_low_bit_weights(component: Component) -> bool:
    return component.weights in ("int8", "int4")


def _fingerprint(model: Model, mode: str, prompts: tuple[str, ...]) -> str:
    """A hash of everything that the result depends on."""
    source = fingerprint(model.opened, _WEIGHTS) if isinstance(model, CheckpointModel) else model.manifest.to_json()
    return hashlib.sha256(json.dumps([source, mode, prompts, _tools()]).encode()).hexdigest()


@contextmanager
def _with_remedy(model: Model) -> Iterator[None]:
    """If a converted checkpoint computes NaN, say what to do about the checkpoint.

    Raises:
        NumericalError: the model computes NaN or infinity.
    """
    try:
        yield
    except NumericalError as error:
        if isinstance(model, Bundle):
            raise
        raise NumericalError(error.stage, error.precision, NetworkSource.remedy) from error


def _as_bundle(model: Model, writer: BundleWriter, progress: Progress) -> Bundle:
    """The bundle to quantize: the model itself, or a checkpoint's conversion.

    The conversion is in the folder that is being written, until the end. An interrupted
    quantization is not converted again.
    """
    if isinstance(model, Bundle):
        return model
    assert isinstance(model, CheckpointModel)
    total = len(model.opened.components)
    place = writer.partial / _SOURCE / model.manifest.family
    if (place / MANIFEST_FILE).is_file():
        return Bundle.open(place)
    # Without a record, the folder would count as another quantization's.
    writer.mark_done("begun", True)
    progress("components converted", 0, total)
    conversion = Job(
        place, _WEIGHTS, False, lambda _, number, total: progress("components converted", number - 1, total)
    )
    made = assemble(model.opened, conversion)
    progress("components converted", total, total)
    return made


def _require_nncf() -> None:
    if importlib.util.find_spec("nncf") is None:
        raise RequestError('quantization needs nncf: pip install "vinograph[quantize]"')


def _silent(stage: str, done: int, total: int) -> None:
    """Ignore the progress."""


def _tools() -> dict[str, str]:
    return {"vinograph": __version__, **{name: importlib.metadata.version(name) for name in ("nncf", "openvino")}}


def _write_files(job: _QuantizationJob, writer: BundleWriter) -> int:
    """Write all files but the manifest. Returns the number of prompts of the calibration."""
    from vinograph.quantize import calibration

    _copy(job, writer.partial)
    work_folder = writer.partial / _WORK
    count = 0
    if job.calibrated:
        count = calibration.collect_samples(job.bundle, job.calibrated, job.prompts, work_folder, writer, job.progress)
    _quantize_components(job, writer, work_folder)
    _write_card(job, writer)
    return count


def _manifest(job: _QuantizationJob, prompt_count: int, measured: Speed) -> Manifest:
    """The source's manifest, with what quantization changes."""
    from vinograph.quantize.calibration import SAMPLES

    samples = SAMPLES if prompt_count else 0
    quantization = Quantization(job.mode, prompt_count, samples, _tools(), measured)
    manifest = job.bundle.manifest
    components = {name: _described(job, name, each) for name, each in manifest.components.items()}
    return dataclasses.replace(manifest, components=components, quantization=quantization)


def _quantize_components(job: _QuantizationJob, writer: BundleWriter, folder: Path) -> None:
    """Quantize the components that aren't done yet, one after another."""
    from vinograph.quantize.component import ComponentWork, plan_segments, quantize_component

    works = [
        ComponentWork(
            name=name,
            source=job.bundle.path / job.bundle.manifest.components[name].file,
            target=writer.partial / job.bundle.manifest.components[name].file,
            folder=folder / name,
            recipe=recipe,
            mode=job.mode,
            writer=writer,
        )
        for name, recipe in job.recipes.items()
    ]
    waiting = [work for work in works if writer.done(work.name) is None]
    for work in works:
        if work not in waiting:  # the last run was killed while it deleted the folder
            shutil.rmtree(work.folder, ignore_errors=True)
    total = sum(len(plan_segments(work).segments) for work in waiting)
    finished = 0
    for work in waiting:
        job.progress("segments quantized", finished, total)

        def step() -> None:
            nonlocal finished
            finished += 1
            job.progress("segments quantized", finished, total)

        work.folder.mkdir(parents=True, exist_ok=True)
        quantize_component(work, step)


def _described(job: _QuantizationJob, name: str, component: Component) -> Component:
    """A component as the manifest describes it when it is quantized."""
    recipe = job.recipes.get(name)
    if recipe is None:
        return component
    activations = _ACTIVATIONS[job.mode] if recipe.activations else None
    return dataclasses.replace(component, weights=recipe.weights[job.mode], activations=activations)


def _copy(job: _QuantizationJob, folder: Path) -> None:
    """Copy the bundle's files, except those of components that change."""
    changed = {job.bundle.manifest.components[name].file for name in job.recipes}
    changed |= {weights_of(name) for name in changed}
    for name in job.bundle.manifest.files:
        if name not in changed:
            place = folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(job.bundle.path / name, place)


def _write_card(job: _QuantizationJob, writer: BundleWriter) -> None:
    """Write the source's model card under the new name, with a line that says how it was made."""
    card = job.bundle.path / _CARD
    old, new = (f"# {name}\n" for name in (job.bundle.manifest.name, writer.target.absolute().name))
    text = card.read_text(encoding="utf-8").replace(old, new, 1) if card.exists() else new
    note = f"Quantized by Vinograph {__version__} with NNCF {_tools()['nncf']}, mode `{job.mode}`."
    (writer.partial / _CARD).write_text(f"{text.rstrip()}\n\n{note}\n", encoding="utf-8")


def _check_space(model: Model, writer: BundleWriter) -> None:
    """Check that the disk has room for the segments and for the bundle that they are joined to.

    A checkpoint's conversion is there as well, until the end.

    Raises:
        ResourceError: there is too little room.
    """
    size = 2 * size_of(model.opened, _WEIGHTS) if isinstance(model, CheckpointModel) else model.size
    needed = size + _SPARE
    free = shutil.disk_usage(writer.partial).free
    used = sum(file.stat().st_size for file in writer.partial.rglob("*") if file.is_file())
    if needed > free + used:
        shutil.rmtree(writer.partial, ignore_errors=True)
        raise ResourceError(
            f"the bundle needs {needed / 1e9:.1f} GB on the disk of {writer.target.parent}, "
            f"which has {(free + used) / 1e9:.1f} GB free"
        )
