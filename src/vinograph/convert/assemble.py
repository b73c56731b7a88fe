"""Writes an opened checkpoint as a bundle: components, tokenizers, licence, card, manifest."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import shutil
from collections.abc import Collection, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from vinograph import __version__
from vinograph.errors import DamagedModelError, ModelError, ResourceError
from vinograph.models.bundle import Bundle, called, weights_of
from vinograph.models.bundle_writer import BundleWriter
from vinograph.models.checkpoint_model import OpenedCheckpoint
from vinograph.models.manifest import MANIFEST_FILE, Component, Manifest, TokenizerFile, component_of
from vinograph.models.tokenizers import TokenizerData

if TYPE_CHECKING:
    from vinograph.convert import Job
    from vinograph.models.parts import ComponentPlan

# Compressed components are briefly on the disk twice; even then int4 takes less than f16.
BYTES = {"f32": 4, "f16": 2, "int8": 2, "int4": 2}
"""Bytes of disk space per weight, by how weights are stored."""
_SPARE = 64_000_000
_AT_ONCE = 2  # components written at the same time


def assemble(opened: OpenedCheckpoint, job: Job) -> Bundle:
    """Write the bundle, and resume an interrupted conversion of the same files.

    Raises:
        RequestError: another conversion is writing the target.
        ModelError: the manifest would be invalid; nothing is written then.
        DamagedModelError: a tokenizer's files are damaged; nothing is written then.
        ResourceError: the disk has too little space for the bundle, as checked before the work.
        OSError: the disk became full; the partial bundle is deleted then.
    """
    # Refuse invalid tokenizers and manifests before anything is written.
    tokenizers = {name: each.read() for name, each in opened.tokenizers.items()}
    dataclasses.replace(opened.manifest, tools=_tools()).check_before_writing(f"its {MANIFEST_FILE}")
    with BundleWriter(job.target, fingerprint(opened, job.weights), job.overwrite) as writer:
        try:
            _check_space(opened, job, writer)
            return _write_bundle(opened, job, writer, tokenizers)
        except (ModelError, DamagedModelError):  # the next try would fail in the same way
            shutil.rmtree(writer.partial, ignore_errors=True)
            raise


def _write_bundle(
    opened: OpenedCheckpoint, job: Job, writer: BundleWriter, read: Mapping[str, tuple[TokenizerData, int]]
) -> Bundle:
    tokenizers = {}
    for name, (data, length) in read.items():
        (writer.partial / f"{name}.json").write_text(data.content, encoding="utf-8")
        tokenizers[name] = TokenizerFile(f"{name}.json", length, data.pad_id)
    components = _write_components(opened, job, writer)
    manifest = dataclasses.replace(opened.manifest, components=components, tokenizers=tokenizers, tools=_tools())
    card = _card(called(manifest, job.target.absolute().name))
    (writer.partial / "README.md").write_text(card, encoding="utf-8")
    if opened.licence_file is not None:
        shutil.copyfile(opened.licence_file, writer.partial / "LICENSE")
    writer.keep_only(_names(manifest, licence=opened.licence_file is not None))
    return writer.finish(manifest)


def _write_components(opened: OpenedCheckpoint, job: Job, writer: BundleWriter) -> dict[str, Component]:
    """Write the missing components, two at a time, the largest first.

    Computing the weights of one, copying those of another and hashing keep two cores busy. After an
    error, the components in progress are finished; after Ctrl-C, they are not.
    """
    done = {plan.name: record for plan in opened.components if (record := writer.done(plan.name)) is not None}
    written = {name: component_of(record) for name, record in done.items()}
    futures: dict[str, Future[Component]] = {}
    stopped = Event()
    with ThreadPoolExecutor(_AT_ONCE, "components") as threads:
        try:
            for number, plan in enumerate(sorted(opened.components, key=lambda plan: -plan.size), 1):
                if plan.name not in written:
                    _wait_for_free_thread(futures.values())
                    job.progress(plan.name, number, len(opened.components))
                    futures[plan.name] = threads.submit(_write_component, plan, job, writer, stopped)
            written |= {name: future.result() for name, future in futures.items()}
        except KeyboardInterrupt:
            stopped.set()
            raise
    return {plan.name: written[plan.name] for plan in opened.components}


def _wait_for_free_thread(futures: Collection[Future[Component]]) -> None:
    """Wait until a thread is free. Raises the error of a component that failed."""
    running = [future for future in futures if not future.done()]
    if len(running) == _AT_ONCE:
        wait(running, return_when=FIRST_COMPLETED)
    for future in futures:
        if future.done():
            future.result()


def _write_component(plan: ComponentPlan, job: Job, writer: BundleWriter, stopped: Event) -> Component:
    from vinograph.convert.writing import write_component

    graph, weights = _files(plan.name, writer.partial)
    component, digest = write_component(plan, graph, job.weights, stopped)
    writer.mark_done(plan.name, dataclasses.asdict(component), (graph, weights), {weights: digest})
    return component


def _files(name: str, directory: Path) -> tuple[Path, Path]:
    return directory / f"{name}.xml", directory / f"{name}.bin"


def fingerprint(opened: OpenedCheckpoint, weights: str) -> str:
    """Identity of a conversion: its files by size and time, its options and its tools' versions."""
    stats = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in opened.files]
    return json.dumps([stats, weights, opened.manifest.to_json(), _tools()])


def _tools() -> dict[str, str]:
    return {"vinograph": __version__, "openvino": importlib.metadata.version("openvino")}


def space_needed(sizes: Collection[int]) -> int:
    """Upper bound of the disk space in bytes for writing components of these sizes.

    Folding adds and removes some weights; a margin of a tenth covers the additions. While a
    component is written, its converted weights are also in a scratch file.
    """
    return int(1.1 * (sum(sizes) + sum(sorted(sizes)[-_AT_ONCE:]))) + _SPARE


def _check_space(opened: OpenedCheckpoint, job: Job, writer: BundleWriter) -> None:
    pending = [plan for plan in opened.components if writer.done(plan.name) is None]
    needed = space_needed([_size(plan, job.weights) for plan in pending])
    free = shutil.disk_usage(writer.partial).free
    if needed > free:
        shutil.rmtree(writer.partial, ignore_errors=True)
        raise ResourceError(
            f"the bundle needs {needed / 1e9:.1f} GB on the disk of {job.target.parent}, "
            f"which has {free / 1e9:.1f} GB free"
        )


def size_of(opened: OpenedCheckpoint, weights: str) -> int:
    """Estimated size of the bundle in bytes."""
    return int(1.1 * sum(_size(plan, weights) for plan in opened.components))


def _size(plan: ComponentPlan, weights: str) -> int:
    """Bytes of a component's weights, without those that folding adds."""
    return plan.size if plan.is_ir else plan.values * BYTES[weights]


def _names(manifest: Manifest, licence: bool) -> set[str]:
    """Names of the bundle's files."""
    graphs = {component.file for component in manifest.components.values()}
    names = graphs | {weights_of(file) for file in graphs}
    names |= {each.file for each in manifest.tokenizers.values()} | {"README.md"}
    return names | {"LICENSE"} if licence else names


def _card(manifest: Manifest) -> str:
    """The bundle's model card."""
    source = manifest.source
    lines = ["---", "library_name: openvino", "pipeline_tag: text-to-image", "tags:", "- vinograph"]
    lines += [f"license: {source.licence}"] if source.licence else []
    revision = f" at {source.revision}" if source.revision else ""
    others = "".join(f", with the {part} of `{origin}`" for part, origin in source.also.items())
    precision = ", ".join(sorted({component.weights for component in manifest.components.values()}))
    lines += [
        "---",
        "",
        f"# {manifest.name}",
        "",
        f"`{source.id}`{revision}{others}, converted to OpenVINO IR by Vinograph {manifest.tools['vinograph']} "
        f"(weights stored as {precision}).",
        "",
        f"Licence: {source.licence or 'as the source has it; its model card names none'}.",
        "",
        "```",
        "pip install vinograph",
        'vinograph generate "a red house on a snowy hill at night" --model . --output picture.png',
        "```",
        "",
    ]
    return "\n".join(lines)
