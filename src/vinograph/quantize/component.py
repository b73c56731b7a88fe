"""One component, quantized segment by segment."""

from __future__ import annotations

import contextlib
import gc
import io
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from vinograph.errors import ResourceError
from vinograph.families.recipes import Recipe
from vinograph.models.bundle import BundleWriter
from vinograph.quantize import segments as cutting
from vinograph.quantize.calibration import samples
from vinograph.quantize.layers import Kept, kept, with_activations, with_small_weights
from vinograph.quantize.segments import Segment
from vinograph.resources import cpu_count
from vinograph.runtime import ir
from vinograph.runtime.devices import core
from vinograph.runtime.pages import release_pages
from vinograph.runtime.precise import carry_over_marks


@dataclass(frozen=True)
class Work:
    """A component's way from ``source`` (.xml) to ``target``.

    What is made on the way lies in ``folder``: the samples that calibration kept, the values that pass from segment to
    segment, and the quantized segments. ``writer`` records which of these are done.
    """

    name: str
    source: Path
    target: Path
    folder: Path
    recipe: Recipe
    mode: str
    writer: BundleWriter

    @property
    def calibrated(self) -> bool:
        """Whether activations are quantized, which takes samples."""
        return self.recipe.activations and self.mode != "weights"

    @property
    def samples(self) -> int:
        """How many samples calibration kept."""
        return len(samples(self.folder))

    def step(self, index: int) -> str:
        """The name under which a segment is recorded as done."""
        return f"{self.name}, segment {index}"

    def value(self, sample: int, key: str) -> Path:
        """The file of one value of one sample."""
        return self.folder / "values" / str(sample) / f"{key}.npy"

    def part(self, index: int) -> Path:
        """The file (.xml) of a quantized segment."""
        return self.folder / f"segment-{index}.xml"

    def part_files(self, index: int) -> tuple[Path, Path]:
        """Both files of a quantized segment."""
        return self.part(index), self.part(index).with_suffix(".bin")


@dataclass(frozen=True)
class Plan:
    """The component's segments, the layers that stay out, and the bytes of values that pass from one to the next."""

    segments: list[Segment]
    out: Kept
    passing: int


def plan(work: Work) -> Plan:
    """How the component is to be quantized; for one that is calibrated, its samples are there."""
    out = kept(cutting.read(work.source), work.recipe, work.mode)
    if not work.calibrated:
        return Plan(cutting.segments(work.source, {}), out, 0)
    files = samples(work.folder)
    with np.load(files[0]) as first:
        shapes = cutting.node_shapes(work.source, {name: first[name].shape for name in first})
    found = cutting.segments(work.source, shapes)
    return Plan(found, out, cutting.passing_bytes(found, shapes) * len(files))


def quantize_component(work: Work, done: Callable[[], None]) -> None:
    """Write ``work.target`` and record that it is done. ``done`` is called after each segment.

    Raises:
        OSError: the disk is full.
        ResourceError: it has too little room, seen before.
    """
    planned = plan(work)
    found = planned.segments
    _check_space(work, planned)
    if not _can_go_on(work, found):
        work.writer.forget(work.step(index) for index in range(len(found)))
        if work.calibrated:
            _spread_samples(work)
    for index, segment in enumerate(found):
        if work.writer.done(work.step(index)) is None:
            _quantize_segment(work, index, segment, planned.out)
            work.writer.mark_done(work.step(index), True, work.part_files(index))
        _drop_values(work, found, index)
        done()
    joined = cutting.join(work.source, [(segment, work.part(index)) for index, segment in enumerate(found)])
    ir.save(joined, work.target)
    carry_over_marks(work.source, work.target)
    del joined
    gc.collect()
    work.writer.mark_done(work.name, True, (work.target, work.target.with_suffix(".bin")))
    shutil.rmtree(work.folder)


def _check_space(work: Work, planned: Plan) -> None:
    free = shutil.disk_usage(work.folder).free
    there = sum(file.stat().st_size for file in work.folder.rglob("*") if file.is_file())
    needed = planned.passing + work.source.with_suffix(".bin").stat().st_size
    if needed > free + there:
        raise ResourceError(
            f"to quantize {work.name} takes {needed / 1e9:.1f} GB on the disk of {work.writer.target.parent}, "
            f"which has {(free + there) / 1e9:.1f} GB free"
        )


def _can_go_on(work: Work, found: list[Segment]) -> bool:
    """Whether the values that the segments not yet done need are there, as they were recorded.

    Those that no later segment needs are deleted. So where a segment that was done is lost, all begins again.
    """
    waiting = [segment for index, segment in enumerate(found) if work.writer.done(work.step(index)) is None]
    if not work.calibrated:
        return True
    needed = {key for segment in waiting for key in segment.inputs}
    return all(work.writer.is_whole(work.value(sample, key)) for sample in range(work.samples) for key in needed)


def _spread_samples(work: Work) -> None:
    """Make of each sample's inputs the first values."""
    keys = cutting.input_keys(work.source)
    kept = []
    for index, file in enumerate(samples(work.folder)):
        with np.load(file) as inputs:
            kept += [_keep(work.value(index, keys[name]), inputs[name]) for name in inputs]
    work.writer.mark_done(f"{work.name}, samples", True, kept)


def _quantize_segment(work: Work, index: int, segment: Segment, out: Kept) -> None:
    model = cutting.cut_out(work.source, segment)
    if work.calibrated and segment.outputs:
        work.writer.mark_done(f"{work.step(index)}, values", True, _pass_on(work, segment, model))
    with _quietly():
        if work.calibrated:
            model = with_activations(model, out, range(work.samples), lambda sample: _values(work, sample, segment))
        model = with_small_weights(model, work.recipe.weights[work.mode], out)
    ir.save(model, work.part(index))
    del model
    gc.collect()
    release_pages(work.source.with_suffix(".bin"))


def _pass_on(work: Work, segment: Segment, model: ov.Model) -> list[Path]:
    """Compute from each sample's values those that later segments need, as before the segment is quantized.

    Returns their files.
    """
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": cpu_count(), "PERFORMANCE_HINT": "LATENCY"}
    compiled = core().compile_model(model, "CPU", settings)
    request = compiled.create_infer_request()
    kept = []
    for sample in range(work.samples):
        results = request.infer(_values(work, sample, segment), share_inputs=True, share_outputs=True)
        pairs = zip(segment.outputs, results.values(), strict=True)
        kept += [_keep(work.value(sample, key), value) for key, value in pairs]
    return kept


def _values(work: Work, sample: int, segment: Segment) -> dict[str, NDArray[Any]]:
    return {key: np.load(work.value(sample, key)) for key in segment.inputs}


def _keep(file: Path, value: NDArray[Any]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    np.save(file, value)
    return file


def _drop_values(work: Work, found: list[Segment], index: int) -> None:
    """Delete the values that no later segment needs."""
    needed = {key for segment in found[index + 1 :] for key in segment.inputs}
    for file in (work.folder / "values").glob("*/*.npy"):
        if file.name.removesuffix(".npy") not in needed:
            file.unlink()


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep NNCF's own bars off the standard output."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
