"""Recognizing what files without a model_index.json are, so that the refusal can say it.

Names of files are looked at first, then configurations, then the headers of safetensors files. No
weights are read or fetched.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vinograph.errors import ModelError
from vinograph.families import registry
from vinograph.models.checkpoint import INDEX_FILE, Checkpoint, Subfolder
from vinograph.models.parts import OwnNetwork, parse_config
from vinograph.schema import label

_ADAPTER_CONFIG = "adapter_config.json"
_UNNAMED = "network"
_MOST_FILES = 8  # the headers of so many are looked at


@dataclass(frozen=True)
class UnusableFiles:
    """A kind of files that are no whole checkpoint, and the advice what to do about them."""

    name: str
    advice: str


_LORA = UnusableFiles(
    "a LoRA adapter", "Give the model that it was made for with --model, and this with --adapter FILE:WEIGHT"
)
_CONTROLNET = UnusableFiles("a ControlNet", "Give the model that it steers; ControlNets can't be used")
_T2I_ADAPTER = UnusableFiles("a T2I-Adapter", "Give the model that it steers; T2I-Adapters can't be used")
_IP_ADAPTER = UnusableFiles("an IP-Adapter", "Give the model that it was made for; IP-Adapters can't be used")
_MOTION = UnusableFiles("a motion adapter", "Give the model that it was made for; films can't be drawn")
_EMBEDDING = UnusableFiles(
    "a textual inversion", "Give the model that it was made for; embeddings of words can't be used"
)
_SINGLE_FILE = UnusableFiles(
    "a single-file checkpoint",
    "Give the model in diffusers' layout, with a model_index.json: look for such a repository, or write one with "
    "diffusers: StableDiffusionXLPipeline.from_single_file(FILE).save_pretrained(DIRECTORY)",
)
_PART = UnusableFiles(
    "one part of a model alone, without its configuration",
    "Put it in its folder of a copy of a whole checkpoint, in place of the weights there, with the scheduler that it "
    "was made for",
)

# Files that are recognized by their name, in any folder.
_FILES: tuple[tuple[re.Pattern[str], UnusableFiles], ...] = (
    (re.compile(r"pytorch_lora_weights\b.*\.(safetensors|bin)"), _LORA),
    (re.compile(r"learned_embeds\b.*\.(safetensors|bin)"), _EMBEDDING),
    (re.compile(r"ip[-_]?adapter.*\.(safetensors|bin)"), _IP_ADAPTER),
)
# Configurations that are recognized by the class that they name.
_CLASSES: tuple[tuple[re.Pattern[str], UnusableFiles], ...] = (
    (re.compile(r"\w*ControlNet\w*"), _CONTROLNET),
    (re.compile(r"T2IAdapter|MultiAdapter"), _T2I_ADAPTER),
    (re.compile(r"MotionAdapter"), _MOTION),
)
# Files that are recognized by the name of a tensor. A ControlNet may be stored as a LoRA, so it
# comes first.
_TENSORS: tuple[tuple[re.Pattern[str], UnusableFiles], ...] = (
    (re.compile(r"(control_model|controlnet_\w+|input_hint_block)\..*|lllite_.*"), _CONTROLNET),
    (re.compile(r"(image_proj|image_proj_model|ip_adapter)\..*"), _IP_ADAPTER),
    (re.compile(r"adapter\.(body|conv_in)\..*|body\.\d+\.(resnets|block\d|in_conv)\b.*"), _T2I_ADAPTER),
    (
        re.compile(
            r".*[._](lora_(down|up|mid|A|B|linear_layer)|lora\.(down|up)|hada_w\d_[ab]|lokr_w\d(_[ab])?|dora_scale)\b.*"
        ),
        _LORA,
    ),
    (re.compile(r".*\bmotion_modules\..*"), _MOTION),
    (re.compile(r"emb_params|clip_[lg]|<.+>"), _EMBEDDING),
    (re.compile(r"model\.diffusion_model\..*"), _SINGLE_FILE),
    (re.compile(r"conv_norm_out\.weight|(post_)?quant_conv\.weight"), _PART),
)


def is_published(listing: Collection[str]) -> bool:
    """Whether the names of files are those of something published for models, whole or not."""
    names = {name.rpartition("/")[2] for name in listing}
    known = any(name.endswith(".safetensors") or _kind_of(name, _FILES) is not None for name in names)
    return known or not names.isdisjoint({INDEX_FILE, "config.json", _ADAPTER_CONFIG})


def recognize(checkpoint: Checkpoint) -> str | None:
    """Say what a checkpoint without a model_index.json is, with advice; None where it isn't known.

    Of a repository that is only partly in the hub's cache, only files that no whole model has are
    recognized.

    Raises:
        ModelError: the hub stopped answering, or a file can't be read.
        DamagedModelError: a configuration or a header is damaged.
    """
    if _ADAPTER_CONFIG in checkpoint.listing:
        return _peft_adapter(checkpoint)
    if "config.json" in checkpoint.listing:
        return _lone_network(Subfolder(checkpoint, ""))
    if checkpoint.is_cache_only:
        return None
    for name in sorted(checkpoint.listing):
        if (kind := _kind_of(name.rpartition("/")[2], _FILES)) is not None:
            return f"{kind.name} ({label(name)}). {kind.advice}"
    folders = [name.removesuffix("/config.json") for name in checkpoint.listing if name.endswith("/config.json")]
    if len(folders) == 1:
        return _lone_network(Subfolder(checkpoint, folders[0]))
    return _by_headers(checkpoint)


def _kind_of(name: str, known: tuple[tuple[re.Pattern[str], UnusableFiles], ...]) -> UnusableFiles | None:
    return next((kind for pattern, kind in known if pattern.fullmatch(name)), None)


def _peft_adapter(checkpoint: Checkpoint) -> str:
    config = checkpoint.read_json(_ADAPTER_CONFIG)
    base, method = config.get("base_model_name_or_path"), config.get("peft_type", "LORA")
    kind = _LORA.name if method == "LORA" else f"an adapter of the kind {label(method)}"
    return f"{kind}{f' of {label(base)}' if base else ''} ({_ADAPTER_CONFIG}). {_LORA.advice}"


def _lone_network(subfolder: Subfolder) -> str:
    """Describe a network that is published alone, by its configuration."""
    config = subfolder.config()
    architectures = config.get("architectures")
    named = architectures[0] if isinstance(architectures, list) and architectures else _UNNAMED
    name = config.get("_class_name") or named
    if (kind := _kind_of(str(name), _CLASSES)) is not None:
        return f"{kind.name} ({label(name)}). {kind.advice}"
    if name != _UNNAMED and not _is_part(name):
        return f"a {label(name)}, which is no part of a model that Vinograph draws with"
    family, own = _owner(subfolder, name)
    belongs = "" if own is None else f". By its configuration it is the {own.folder}/ of a checkpoint of {family}"
    return f"one part of a model alone ({label(name)}); {_advice(subfolder, name, own)}{belongs}"


def _is_part(name: Any) -> bool:
    """Whether the models of any family have a part of that class."""
    tables = [registry.module(family, "checkpoint").CLASSES for family in registry.FAMILIES]
    return any(name == known for table in tables for classes in table.values() for _, known in classes)


def _owner(subfolder: Subfolder, name: Any) -> tuple[str, OwnNetwork | None]:
    """The one family that has a network of the class ``name``, and that network; else "" and None.

    Raises:
        ModelError: families have such a network, but none with this configuration.
    """
    refusal = None
    for family, networks in _networks():
        own = networks.get(name) if isinstance(name, str) else None
        if own is not None:
            try:
                parse_config(subfolder, own.parse)
            except ModelError as error:
                refusal = error
            else:
                return family, own
    if refusal is None:
        return "", None
    raise ModelError(
        f"{subfolder.checkpoint.id} has no {INDEX_FILE}: it is one part of a model alone ({label(name)}), and of none "
        f"that Vinograph draws with: {refusal}"
    ) from refusal


def _networks() -> Iterator[tuple[str, Mapping[str, OwnNetwork]]]:
    """Each family with the networks that only it has, by class."""
    for family in registry.FAMILIES:
        yield family, registry.module(family, "checkpoint").NETWORKS


def _advice(subfolder: Subfolder, name: Any, own: OwnNetwork | None) -> str:
    if subfolder.folder:
        return (
            f"put its {subfolder.folder}/ into a copy of a whole checkpoint of the same kind, in place of the one there"
        )
    option = "--tiny-vae" if name == "AutoencoderTiny" else own.option if own is not None else None
    if option is not None:
        return f"convert a whole checkpoint and name this one with {option} {subfolder.checkpoint.id}"
    return "put it in its folder of a copy of a whole checkpoint, with the scheduler that it was made for"


def _by_headers(checkpoint: Checkpoint) -> str | None:
    """Describe files without any configuration, by the names of their tensors."""
    files = [name for name in checkpoint.listing if name.endswith(".safetensors")]
    files.sort(key=lambda name: (name.count("/"), name))
    found: dict[str, UnusableFiles] = {}
    for name in files[:_MOST_FILES]:
        if (kind := _of_tensors(checkpoint.tensor_names(name))) is not None:
            found[name] = kind
    if not found:
        return None
    described = "; ".join(f"{kind.name} ({label(name)})" for name, kind in found.items())
    more = f"; and {len(files) - _MOST_FILES} more files" if len(files) > _MOST_FILES else ""
    advice = ". ".join(dict.fromkeys(kind.advice for kind in found.values()))
    return f"{described}{more}. {advice}"


def _of_tensors(tensors: Collection[str]) -> UnusableFiles | None:
    """The kind of a file with tensors of those names, None where it isn't known."""
    kind = next((kind for pattern, kind in _TENSORS if any(map(pattern.fullmatch, tensors))), None)
    if kind is _SINGLE_FILE:
        models = (model for start, model in _single_files() if any(name.startswith(start) for name in tensors))
        model = next(models, "another model")
        return dataclasses.replace(kind, name=f"{kind.name} of {model}")
    if kind is not None and kind is not _PART:
        return kind
    for family, networks in _networks():
        for network in networks.values():
            if network.tensor in tensors:
                return dataclasses.replace(_PART, name=f"{_PART.name} (the {network.folder}/ of {family})")
    return kind


def _single_files() -> Iterator[tuple[str, str]]:
    """How the names of tensors begin that only single files of one model have, and that model."""
    for family in registry.FAMILIES:
        yield from registry.module(family, "checkpoint").SINGLE_FILES.items()
    yield "cond_stage_model.", "Stable Diffusion 1 or 2"
