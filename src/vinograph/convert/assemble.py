"""From a family's plan to a bundle: disk space, components one by one, tokenizers, licence, card, manifest."""

from __future__ import annotations

import dataclasses
import gc
import importlib.metadata
import json
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vinograph import __version__
from vinograph.bundle import Bundle, BundleWriter
from vinograph.convert.tokenizer import CLIP, Kind, PreparedTokenizer, prepare_tokenizer
from vinograph.errors import DamagedModelError, ModelError, ResourceError
from vinograph.manifest import MANIFEST_FILE, Component, Manifest, Tensor

if TYPE_CHECKING:
    from vinograph.convert import Job
    from vinograph.convert.export import ExportedGraph, Graph

# What is compressed lies on the disk twice for a while; int4 then needs less than f16.
_BYTES = {"f32": 4, "f16": 2, "int8": 2, "int4": 2}
_SPARE = 64_000_000


@dataclass(frozen=True)
class Weights:
    """One set of weights and the components that are made of it.

    ``graphs`` loads the weights and yields the components that it is given, in the order of ``components``. It keeps
    no hold of what it has yielded. ``values`` is how many numbers there are, ``item_size`` the bytes of each where
    they are stored as they came. ``scratch`` is how many bytes lie on the disk beside the bundle meanwhile.
    """

    components: tuple[str, ...]
    values: int
    graphs: Callable[[Collection[str]], Iterator[tuple[str, Graph | ExportedGraph]]]
    item_size: int | None = None
    scratch: int = 0


@dataclass(frozen=True)
class TokenizerPlan:
    """The folder of a tokenizer's files, the most tokens that its text encoder takes, and what kind it is."""

    folder: Path
    text_length: int
    kind: Kind = CLIP


@dataclass(frozen=True)
class Plan:
    """What a family's converter has found and checked. ``files`` are all that the result depends on."""

    weights: tuple[Weights, ...]
    tokenizers: Mapping[str, TokenizerPlan]
    manifest: Manifest
    files: tuple[Path, ...]
    licence_file: Path | None


def assemble(plan: Plan, job: Job) -> Bundle:
    """Write the bundle, or what an interrupted conversion of the same files hasn't written yet.

    Raises:
        RequestError: another conversion is writing the target.
        ModelError: the manifest would say what no reader takes; nothing is written then.
        DamagedModelError: a tokenizer's files are not what they should be; nothing is written then.
        ResourceError: the disk has too little room, seen before the work starts.
        OSError: the disk is full after all; nothing of the bundle is left then.
    """
    # What can be refused is refused before anything is written.
    prepared = {
        name: prepare_tokenizer(each.folder, each.text_length, each.kind) for name, each in plan.tokenizers.items()
    }
    dataclasses.replace(plan.manifest, tools=_tools()).check_before_writing(f"its {MANIFEST_FILE}")
    with BundleWriter(job.target, _fingerprint(plan, job), job.overwrite) as writer:
        try:
            _check_space(plan, job, writer)
            return _write(plan, job, writer, prepared)
        except (ModelError, DamagedModelError):  # the next try would meet the same
            shutil.rmtree(writer.partial, ignore_errors=True)
            raise


def _write(plan: Plan, job: Job, writer: BundleWriter, prepared: Mapping[str, PreparedTokenizer]) -> Bundle:
    tokenizers = {name: each.write(writer.partial / f"{name}.json") for name, each in prepared.items()}
    components = _write_components(plan, job, writer)
    manifest = dataclasses.replace(plan.manifest, components=components, tokenizers=tokenizers, tools=_tools())
    (writer.partial / "README.md").write_text(_card(manifest), encoding="utf-8")
    if plan.licence_file is not None:
        shutil.copyfile(plan.licence_file, writer.partial / "LICENSE")
    writer.keep_only(_names(manifest, licence=plan.licence_file is not None))
    return writer.finish(manifest)


def _write_components(plan: Plan, job: Job, writer: BundleWriter) -> dict[str, Component]:
    from vinograph.convert.export import export

    names = [name for weights in plan.weights for name in weights.components]
    for weights in plan.weights:
        wanted = [name for name in weights.components if writer.done(name) is None]
        if not wanted:
            continue
        job.progress(wanted[0], names.index(wanted[0]) + 1, len(names))
        with _collected_afterwards():
            for name, graph in weights.graphs(wanted):
                if name != wanted[0]:
                    job.progress(name, names.index(name) + 1, len(names))
                component = export(graph, writer.partial / f"{name}.xml", job.weights)
                writer.mark_done(name, dataclasses.asdict(component), _files(name, writer.partial))
                del graph
    return {name: _component(writer.done(name)) for name in names}


@contextmanager
def _collected_afterwards() -> Iterator[None]:
    """Free what is made within: a traced module and what traced it refer to each other, and may hold gigabytes."""
    gc.freeze()  # what was there before need not be looked at
    try:
        yield
    finally:
        gc.collect()
        gc.unfreeze()


def _files(name: str, directory: Path) -> tuple[Path, Path]:
    return directory / f"{name}.xml", directory / f"{name}.bin"


def _component(record: Any) -> Component:
    sides = {
        side: {name: Tensor(tuple(each["shape"]), each["dtype"]) for name, each in record[side].items()}
        for side in ("inputs", "outputs")
    }
    return Component(**{**record, **sides})


def _fingerprint(plan: Plan, job: Job) -> str:
    """What the bundle depends on: the files by size and time, the options, the versions of the tools."""
    stats = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in plan.files]
    return json.dumps([stats, job.weights, plan.manifest.to_json(), _tools()])


def _tools() -> dict[str, str]:
    versions = {name: importlib.metadata.version(name) for name in ("openvino", "torch")}
    return {"vinograph": __version__, **versions}


def _check_space(plan: Plan, job: Job, writer: BundleWriter) -> None:
    """Folding adds and removes some weights; a tenth more covers what it adds."""
    size = sum(
        weights.values * (weights.item_size or _BYTES[job.weights]) + weights.scratch
        for weights in plan.weights
        if any(writer.done(name) is None for name in weights.components)
    )
    needed = int(size * 1.1) + _SPARE
    free = shutil.disk_usage(writer.partial).free
    if needed > free:
        shutil.rmtree(writer.partial, ignore_errors=True)
        raise ResourceError(
            f"the bundle needs {needed / 1e9:.1f} GB on the disk of {job.target.parent}, "
            f"which has {free / 1e9:.1f} GB free"
        )


def _names(manifest: Manifest, licence: bool) -> set[str]:
    """The names of the bundle's files."""
    graphs = {component.file for component in manifest.components.values()}
    names = graphs | {file.removesuffix(".xml") + ".bin" for file in graphs}
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
