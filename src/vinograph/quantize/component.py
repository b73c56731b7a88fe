"""Quantizing one component, segment by segment."""

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
from vinograph.models.bundle_writer import BundleWriter
from vinograph.quantize import segments
from vinograph.quantize.calibration import samples
from vinograph.quantize.layers import IgnoredLayers, compress_weights, ignored_layers, quantize_activations
from vinograph.quantize.segments import Segment
from vinograph.resources import cpu_count
from vinograph.runtime import ir
from vinograph.runtime.devices import core
from vinograph.runtime.pages import release_pages
from vinograph.runtime.precise import carry_over_marks


@dataclass(frozen=True)
class ComponentWork:
    """The work on one component, from ``source`` (.xml) to ``target``.

    ``folder`` holds what is made on the way: the samples of calibration, the values that pass from
    segment to segment, and the quantized segments. ``writer`` records which of these are done.
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
        """Whether activations are quantized, for which samples are needed."""
        return self.recipe.activations and self.mode != "weights"

    @property
    def samples(self) -> int:
        """The number of samples that calibration stored."""
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
class SegmentPlan:
    """A component's segments, its ignored layers, and the bytes of the values that pass.

    Values pass from segment to segment, for all samples.
    """

    segments: list[Segment]
    ignored: IgnoredLayers
    peak_boundary_bytes: int


def plan_segments(work: ComponentWork) -> SegmentPlan:
    """How the component is quantized. If it is calibrated, its samples have to be there."""
    ignored = ignored_layers(segments.read_graph(work.source), work.recipe, work.mode)
    if not work.calibrated:
        return SegmentPlan(segments.find_segments(work.source, {}), ignored, 0)
    files = samples(work.folder)
    with np.load(files[0]) as first:
        shapes = segments.node_shapes(work.source, {name: first[name].shape for name in first})
    found = segments.find_segments(work.source, shapes)
    return SegmentPlan(found, ignored, segments.peak_boundary_bytes(found, shapes) * len(files))


def quantize_component(work: ComponentWork, done: Callable[[], None]) -> None:
    """Write ``work.target`` and record that it is done. ``done`` is called after each segment.

    Raises:
        OSError: the disk is full.
        ResourceError: the disk has too little room, found before the work begins.
    """
    plan = plan_segments(work)
    found = plan.segments
    _check_space(work, plan)
    if not _can_resume(work, found):
        work.writer.forget(work.step(index) for index in range(len(found)))
        if work.calibrated:
            _save_inputs(work)
    for index, segment in enumerate(found):
        if work.writer.done(work.step(index)) is None:
            digest = _quantize_segment(work, index, segment, plan.ignored)
            graph, weights = work.part_files(index)
            work.writer.mark_done(work.step(index), True, (graph, weights), {weights: digest})
        _delete_values(work, found, index)
        done()
    joined = segments.join(work.source, [(segment, work.part(index)) for index, segment in enumerate(found)])
    weights = work.target.with_suffix(".bin")
    digest = ir.save(joined, work.target)
    carry_over_marks(work.source, work.target)
    del joined
    gc.collect()
    work.writer.mark_done(work.name, True, (work.target, weights), {weights: digest})
    shutil.rmtree(work.folder)


def _check_space(work: ComponentWork, plan: SegmentPlan) -> None:
    free = shutil.disk_usage(work.folder).free
    used = sum(file.stat().st_size for file in work.folder.rglob("*") if file.is_file())
    needed = plan.peak_boundary_bytes + work.source.with_suffix(".bin").stat().st_size
    if needed > free + used:
        raise ResourceError(
            f"to quantize {work.name} takes {needed / 1e9:.1f} GB on the disk of {work.writer.target.parent}, "
            f"which has {(free + used) / 1e9:.1f} GB free"
        )


def _can_resume(work: ComponentWork, found: list[Segment]) -> bool:
    """Whether the values that unfinished segments need are there, as they were recorded.

    Values that no later segment needs are deleted. So if a finished segment is lost, all begin
    again.
    """
    waiting = [segment for index, segment in enumerate(found) if work.writer.done(work.step(index)) is None]
    if not work.calibrated:
        return True
    needed = {key for segment in waiting for key in segment.inputs}
    return all(work.writer.is_whole(work.value(sample, key)) for sample in range(work.samples) for key in needed)


def _save_inputs(work: ComponentWork) -> None:
    """Store each sample's inputs as the values that the first segment takes."""
    keys = segments.input_value_keys(work.source)
    saved = []
    for index, file in enumerate(samples(work.folder)):
        with np.load(file) as inputs:
            saved += [_save_value(work.value(index, keys[name]), inputs[name]) for name in inputs]
    work.writer.mark_done(f"{work.name}, samples", True, saved)


def _quantize_segment(work: ComponentWork, index: int, segment: Segment, ignored: IgnoredLayers) -> str:
    """Write a quantized segment, after the values that the next ones need of it as it was.

    Returns the SHA-256 of its .bin file.
    """
    model = segments.cut_out(work.source, segment)
    if work.calibrated and segment.outputs:
        work.writer.mark_done(f"{work.step(index)}, values", True, _compute_values(work, segment, model))
    with _quietly():
        if work.calibrated:
            model = quantize_activations(
                model, ignored, range(work.samples), lambda sample: _load_values(work, sample, segment)
            )
        model = compress_weights(model, work.recipe.weights[work.mode], ignored)
    digest = ir.save(model, work.part(index))
    del model
    gc.collect()
    release_pages(work.source.with_suffix(".bin"))
    return digest


def _compute_values(work: ComponentWork, segment: Segment, model: ov.Model) -> list[Path]:
    """Compute and store the values that later segments need, before the segment is quantized.

    Returns their files.
    """
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": cpu_count(), "PERFORMANCE_HINT": "LATENCY"}
    compiled = core().compile_model(model, "CPU", settings)
    request = compiled.create_infer_request()
    saved = []
    for sample in range(work.samples):
        results = request.infer(_load_values(work, sample, segment), share_inputs=True, share_outputs=True)
        pairs = zip(segment.outputs, results.values(), strict=True)
        saved += [_save_value(work.value(sample, key), value) for key, value in pairs]
    return saved


def _load_values(work: ComponentWork, sample: int, segment: Segment) -> dict[str, NDArray[Any]]:
    """One sample's inputs of a segment, by their keys."""
    return {key: np.load(work.value(sample, key)) for key in segment.inputs}


def _save_value(file: Path, value: NDArray[Any]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    np.save(file, value)
    return file


def _delete_values(work: ComponentWork, found: list[Segment], index: int) -> None:
    """Delete the values that no later segment needs."""
    needed = {key for segment in found[index + 1 :] for key in segment.inputs}
    for file in (work.folder / "values").glob("*/*.npy"):
        if file.name.removesuffix(".npy") not in needed:
            file.unlink()


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep NNCF's progress bars off the standard output."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
