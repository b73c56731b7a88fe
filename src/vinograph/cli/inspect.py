"""The read-only commands ``inspect``, ``verify``, ``models`` and ``devices``."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vinograph.cli import completion, options, output, progress
from vinograph.cli.inspect_picture import inspect_picture, is_picture
from vinograph.cli.options import MODEL_HELP, AsJson
from vinograph.errors import VinographError
from vinograph.families import registry
from vinograph.families.evaluations import rows_of
from vinograph.models import catalog
from vinograph.models.bundle import Bundle
from vinograph.models.manifest import Component, Quantization, Speed, Tensor

if TYPE_CHECKING:
    from vinograph.families.known import Companion
    from vinograph.models.model import Model

_MODELS = completion.completing(completion.models)
Reference = Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP, autocompletion=_MODELS)]
ModelOrPicture = Annotated[
    str,
    typer.Argument(
        metavar="MODEL|PICTURE", help=f"{MODEL_HELP}; or a picture, to show how it was drawn", autocompletion=_MODELS
    ),
]

_WIDTH = 140  # of the components' table in a pipe: a component may have many inputs


def inspect(model: ModelOrPicture, vae: options.Vae = None, base: options.Base = None, as_json: AsJson = False) -> None:
    """Describe a model, or show how a picture was drawn.

    Of a model, shows its family, source and licence, its components with their inputs and outputs,
    its defaults and limits. Of a picture, shows the request that its file holds, else the text
    "parameters" that A1111 and others write.
    """
    if is_picture(model):
        inspect_picture(model, as_json=as_json)
        return
    opened = catalog.find(model, options.named_sources(vae, base))
    if as_json:
        record = {"path": str(opened.path), "size": opened.size, "speeds": _speeds(opened)}
        output.print_json({**record, **json.loads(opened.manifest.to_json())})
        return
    output.table([], _summary(opened))
    output.say("")
    rows = [_component_row(opened, name, each) for name, each in opened.manifest.components.items()]
    output.table(["component", "weights", "size", "inputs", "outputs"], rows, width=_WIDTH)
    for name, each in opened.manifest.tokenizers.items():
        output.say(f"{name}: {each.max_length} tokens")
    for line in _speeds_lines(opened):
        output.say(line)
    for call, defaults in opened.manifest.defaults.items():
        if defaults:
            output.say(f"defaults of {call}: {_pairs(defaults)}")
    output.say(f"limits: {_pairs(opened.manifest.limits)}")
    for note in opened.manifest.notes:
        output.say(note)


def verify(model: Reference, vae: options.Vae = None, base: options.Base = None, as_json: AsJson = False) -> None:
    """Check every file of a model.

    Files of a bundle, and of a checkpoint in the hub's cache, are compared with their hashes. Other
    checkpoints have no hashes: every file is read, and every tensor's name, type, shape and size is
    compared with the model's. The exit code is 4 if a file is damaged.
    """
    opened = catalog.find(model, options.named_sources(vae, base))
    files, total = [], len(opened.files)
    with progress.items("checking") as show:
        for name in opened.verify():
            files.append(name)
            show(name, len(files), total)
    unknown = total - len(opened.hashed_files)
    if as_json:
        record = {"path": str(opened.path), "files": files, "without_hash": unknown, "size": opened.size, "whole": True}
        output.print_json(record)
        return
    output.say(f"{opened.path} is whole: {len(files)} files, {output.size(opened.size)}")
    if unknown:
        output.say(
            f"{unknown} of them have no hash to compare with, as a bundle's do: that they fit the model was checked, "
            "not what numbers they hold"
        )


def models(as_json: AsJson = False) -> None:
    """List the models on this machine, and published ones that can be fetched by name.

    The models on this machine are the embedded ones and the bundles in the models folder:
    $VINOGRAPH_MODELS, or ~/.local/share/vinograph/models. `vinograph pull NAME` fetches a published
    one from the hub.
    """
    places = {"embedded": catalog.embedded(), "models folder": catalog.installed()}
    records = [_model_record(path, place) for place, paths in places.items() for path in paths]
    known = _known_records({each["name"] for each in records})
    if as_json:
        output.print_json({"models": records, "models_folder": str(catalog.models_folder()), "known": known})
        return
    if records:
        output.table(["name", "family", "size", "where", "path"], [_model_row(each) for each in records])
    else:
        output.say(f"there are none: no model is embedded, and {catalog.models_folder()} has no bundle")
    if to_fetch := [each for each in known if not each["here"]]:
        output.say("not here, to be fetched by: vinograph pull NAME")
        output.table(["name", "family", "download", "licence", "for"], [_known_row(each) for each in to_fetch])
    for each in records:
        if each["problem"]:
            output.warn(str(each["problem"]))


def devices(as_json: AsJson = False) -> None:
    """List OpenVINO's devices on this machine."""
    from vinograph.runtime.devices import devices as find_devices

    available = find_devices()
    if as_json:
        output.print_json({"devices": [dataclasses.asdict(each) for each in available]})
        return
    output.table(
        ["device", "name", "precisions"], [[each.id, each.name, ", ".join(each.precisions)] for each in available]
    )


def _summary(model: Model) -> list[list[str]]:
    manifest = model.manifest
    revision = f" at {manifest.source.revision}" if manifest.source.revision else ""
    also = "".join(f", {name}: {each}" for name, each in manifest.source.also.items())
    return [
        ["name", manifest.name],
        ["family", manifest.family],
        ["path", str(model.path)],
        ["source", f"{manifest.source.id}{revision}{also}"],
        ["licence", manifest.source.licence or "not stated"],
        *(_how_written(model) if manifest.files else [["size", f"{output.size(model.size)} of weights, as published"]]),
        *(_how_quantized(manifest.quantization) if manifest.quantization else []),
    ]


def _how_written(model: Model) -> list[list[str]]:
    manifest = model.manifest
    return [
        ["size", f"{output.size(model.size)} in {len(manifest.files)} files"],
        ["written by", ", ".join(f"{name} {version}" for name, version in manifest.tools.items())],
        ["format", str(manifest.format_version)],
    ]


def _how_quantized(quantization: Quantization) -> list[list[str]]:
    tools = ", ".join(f"{name} {version}" for name, version in quantization.tools.items())
    calibrated = (
        f", calibrated on {quantization.samples} samples of {quantization.prompts} prompts"
        if quantization.prompts
        else ""
    )
    return [
        ["quantized", f"mode {quantization.mode}{calibrated}, by {tools}"],
        ["speed", describe_speed(quantization.speed)],
    ]


def describe_speed(speed: Speed) -> str:
    """Text on how quantization changed the speed, and on which processor."""
    each = ", ".join(
        f"{name} {denoiser.before:.3g} s before, {denoiser.after:.3g} s now ({denoiser.ratio:.2f}×)"
        for name, denoiser in speed.denoisers.items()
    )
    ratio = (
        f"{speed.ratio:.2f}× as fast as before" if speed.ratio > 1 else f"NOT faster than before ({speed.ratio:.2f}×)"
    )
    return f"{ratio}, on {speed.cores} cores of {speed.processor}: {each}"


def _speeds(model: Model) -> dict[str, dict[str, Any]]:
    """What each speed of "generate" stands for, and the share of each denoiser's evaluations that it saves."""
    family = registry.family(model.manifest.family)
    call = family.calls["generate"]
    defaults = {**call.takes, **model.manifest.defaults.get("generate", {})}
    before = {stage.denoiser: rows_of(stage, defaults) for stage in family.denoising}
    found = {}
    for name, arguments in call.presets.get("speed", {}).items():
        after = {stage.denoiser: rows_of(stage, {**defaults, **arguments}) for stage in family.denoising}
        saved = {denoiser: 1 - rows / before[denoiser] for denoiser, rows in after.items()}
        found[name] = {"arguments": dict(arguments), "saved": saved}
    return found


def _speeds_lines(model: Model) -> list[str]:
    return [
        f"speed {name}: {_pairs(each['arguments'])}; saves "
        + ", ".join(f"{share:.0%} of the {denoiser}'s evaluations" for denoiser, share in each["saved"].items())
        for name, each in _speeds(model).items()
    ]


def _component_row(model: Model, name: str, component: Component) -> list[str]:
    activations = f", activations {component.activations}" if component.activations else ""
    precision = f"{component.weights}{activations}{'' if component.f16_safe else ' (no f16 arithmetic)'}"
    return [
        name,
        precision,
        output.size(model.weights_size(name)),
        _tensors(component.inputs),
        _tensors(component.outputs),
    ]


def _tensors(tensors: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{name}:{each.dtype}[{','.join(map(str, each.shape))}]" for name, each in tensors.items())


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _model_record(path: Path, place: str) -> dict[str, Any]:
    record: dict[str, Any] = {"name": path.name, "where": place, "path": str(path), "problem": None}
    try:
        bundle = Bundle.open(path)
    except VinographError as error:
        return {**record, "family": None, "size": None, "problem": str(error)}
    return {**record, "family": bundle.manifest.family, "size": bundle.size}


def _known_records(here: Collection[str]) -> list[dict[str, Any]]:
    """Records of the published models known by name; ``here`` names those on this machine."""
    return [
        {
            "name": name,
            "family": family,
            "repository": known.repository,
            "licence": known.licence,
            "download": known.download,
            "about": known.about,
            "companions": [_companion_record(each) for each in known.companions],
            "here": name in here,
        }
        for name, (family, known) in registry.known_models().items()
    ]


def _companion_record(companion: Companion) -> dict[str, Any]:
    return {
        "name": companion.name,
        "repository": companion.repository,
        "licence": companion.licence,
        "about": companion.about,
        "optional": companion.optional,
    }


def _known_row(record: Mapping[str, Any]) -> list[str]:
    return [record["name"], record["family"], output.size(record["download"]), record["licence"], record["about"]]


def _model_row(record: Mapping[str, Any]) -> list[str]:
    size = "damaged" if record["problem"] else output.size(record["size"])
    return [record["name"], record["family"] or "", size, record["where"], record["path"]]
