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

from vinograph.errors import DamagedModelError, ModelError
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
    "a textual inversion", "Give the model that it was made for, and this file with it: --embedding FILE"
)
_SINGLE_FILE = UnusableFiles("a single-file checkpoint", "Give a model of a family that Vinograph draws with")
_READABLE_FILE = UnusableFiles(
    "a single-file checkpoint", "Give the file itself as the model, once it is on this disk: --model FILE"
)
_PART = UnusableFiles(
    "one part of a model alone, without its configuration",
    "Put it in its folder of a copy of a whole checkpoint, in place of the weights there, with the scheduler that it "
    "was made for. SDXL's UNet can also be drawn with as it is: --model FILE --base MODEL",
)
_VAE = UnusableFiles("a VAE alone", "Give the model, and this file with --vae FILE")
_TINY_VAE = UnusableFiles(
    "a tiny VAE alone", "Convert the model with it: vinograph convert MODEL BUNDLE --tiny-vae DIRECTORY"
)
_ENCODER = UnusableFiles("a text encoder alone", "Give the whole model that it is part of")
_UPSCALER = UnusableFiles("an upscaler", "Give a model that draws; upscalers can't be used")

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
    (re.compile(r"(first_stage_model\.|vae\.)?decoder\.mid(_block)?\..*"), _VAE),
    (re.compile(r"conv_norm_out\.weight|(post_)?quant_conv\.weight"), _PART),
    (re.compile(r"(taesd_)?decoder\.(layers\.)?\d+\.weight"), _TINY_VAE),
    (re.compile(r"(text_model\.|transformer\.resblocks\.|encoder\.block\.\d).*"), _ENCODER),
    (re.compile(r"(params_ema\.)?(conv_first|body\.0\.rdb1)\..*|model\.1\.sub\..*"), _UPSCALER),
)
# Other models, by a tensor that no other has, with or without what single files put in front.
_MODELS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(rf"(model\.diffusion_model\.)?({pattern})\..*"), model)
    for pattern, model in (
        (r"input_blocks\.1\.0\.time_stack", "Stable Video Diffusion"),
        ("joint_blocks", "Stable Diffusion 3"),
        ("(double|single)_blocks|single_transformer_blocks", "Flux or a relative of it"),
        ("cap_embedder", "Lumina"),
        ("txt_norm", "Qwen-Image"),
        ("text_embedding", "Wan"),
        ("clip_txt_mapper|effnet_mapper", "Stable Cascade"),
        ("y_embedder", "PixArt in its authors' layout"),
        ("input_blocks|time_embed", "Stable Diffusion 1 or 2"),
    )
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
    if folders := _folders(checkpoint):
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


def _first_kind(tensors: Collection[str]) -> UnusableFiles | None:
    return next((kind for pattern, kind in _TENSORS if any(map(pattern.fullmatch, tensors))), None)


def _of_tensors(tensors: Collection[str]) -> UnusableFiles | None:
    """The kind of a file with tensors of those names, None where it isn't known."""
    kind = _first_kind(tensors)
    if kind is _SINGLE_FILE or kind is None:
        models = (model for start, model in _single_files() if any(name.startswith(start) for name in tensors))
        others = (model for pattern, model in _MODELS if any(map(pattern.fullmatch, tensors)))
        model = next(models, None) or next(others, None)
        if model is None and kind is None:
            return None
        readable = _SINGLE_FILE if _reader(tensors) is None else _READABLE_FILE
        return dataclasses.replace(readable, name=f"{readable.name} of {model or 'another model'}")
    if kind is not _PART:
        return kind
    for family, networks in _networks():
        for network in networks.values():
            if network.tensor in tensors:
                return dataclasses.replace(_PART, name=f"{_PART.name} (the {network.folder}/ of {family})")
    return kind


def family_of_file(checkpoint: Checkpoint) -> str:
    """The family that opens a single file, by the names of its tensors.

    Raises:
        ModelError: none does; the message says what the file is, and what to do instead.
        DamagedModelError: its header is damaged.
    """
    tensors = _tensors_of_file(checkpoint)
    family = _reader(tensors)
    if family is not None and _first_kind(tensors) in (_SINGLE_FILE, _PART, _VAE, None):
        return family
    kind = _of_tensors(tensors)
    if kind is None:
        known = ", ".join(registry.FAMILIES)
        raise ModelError(
            f"{checkpoint.path} holds tensors of no model that is known here. Vinograph draws with {known}"
        )
    raise ModelError(f"{checkpoint.path} can't be drawn with: it is {kind.name}. {kind.advice}")


def _tensors_of_file(checkpoint: Checkpoint) -> Collection[str]:
    """The names of a single file's tensors."""
    assert checkpoint.file is not None
    try:
        return checkpoint.tensor_names(checkpoint.file)
    except DamagedModelError as error:
        if checkpoint.file.endswith(".safetensors"):
            raise
        raise ModelError(
            f"{checkpoint.path} is a file; a model is a .safetensors file, or a directory, of a bundle or in "
            "diffusers' layout"
        ) from error


def family_of_network(checkpoint: Checkpoint) -> str:
    """The family of a network that is published alone, by its configuration.

    Raises:
        ModelError: it is none of a family's own.
        DamagedModelError: its configuration is damaged.
    """
    folder = next((each for each in _folders(checkpoint)), None)
    if folder is not None:
        subfolder = Subfolder(checkpoint, folder)
        family, own = _owner(subfolder, subfolder.config().get("_class_name"))
        if own is not None:
            return family
    what = recognize(checkpoint) or "no network with its configuration"
    raise ModelError(f"{checkpoint.id} has no {INDEX_FILE}, and --base completes a UNet alone: it is {what}")


def _folders(checkpoint: Checkpoint) -> list[str]:
    """The folder of a network that is published alone: the top one, or the only one with a configuration."""
    if "config.json" in checkpoint.listing:
        return [""]
    found = [name.removesuffix("/config.json") for name in checkpoint.listing if name.endswith("/config.json")]
    return found if len(found) == 1 else []


def _reader(tensors: Collection[str]) -> str | None:
    """The family that opens a single file with tensors of those names."""
    for family in registry.FAMILIES:
        reads = getattr(registry.module(family, "checkpoint"), "reads_file", None)
        if reads is not None and reads(tensors):
            return family
    return None


def _single_files() -> Iterator[tuple[str, str]]:
    """How the names of tensors begin that only single files of one model have, and that model."""
    for family in registry.FAMILIES:
        yield from registry.module(family, "checkpoint").SINGLE_FILES.items()
    yield "cond_stage_model.", "Stable Diffusion 1 or 2"
