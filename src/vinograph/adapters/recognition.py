"""Which model an adapter seems to be for, by its keys, its shapes and what it says of itself."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from vinograph.adapters.file import AdapterFile
from vinograph.adapters.model_weights import names_of
from vinograph.families import registry
from vinograph.families.adapters import AdapterNames

# Models that no family draws, by a pattern of keys that only their adapters have.
_FOREIGN: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (title, re.compile(pattern))
    for title, pattern in (
        ("Flux", r".*(single_blocks|single_transformer_blocks)[._]\d+.*"),
        ("Hunyuan Video", r".*double_blocks[._]\d+[._]img_attn_qkv.*refiner.*"),
        ("Flux", r".*double_blocks[._]\d+.*"),
        ("SD 3", r".*joint_blocks[._]\d+.*|.*transformer_blocks[._]\d+[._]attn[._]add_[qkv]_proj\b.*"),
        ("Wan", r".*blocks[._]\d+[._](cross|self)_attn[._][qkvo]\b.*"),
        ("Qwen-Image", r".*transformer_blocks[._]\d+[._]img_mlp.*"),
        ("Lumina or Z-Image", r".*layers[._]\d+[._]adaLN_modulation.*"),
    )
)
# Widths of the text that a UNet attends to.
_WIDTHS = {768: "SD 1.5", 1024: "SD 2", 1280: "SDXL's refiner"}
_CROSS_KEYS = re.compile(r".*attn2[._](?:processor\.)?to_[kv].*(lora_down|lora_A|lora\.down|hada_w1_b)\b.*")
# Models by what metadata call them.
_BASES: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (title, re.compile(pattern, re.IGNORECASE))
    for title, pattern in (
        ("SD 1.5", r"sd_v1\b.*|sd_1\.5.*|stable-diffusion-v1.*|.*stable-diffusion-v1-.*"),
        ("SD 2", r"sd_v2.*|sd_2.*|stable-diffusion-v2.*|.*stable-diffusion-2.*"),
        ("SD 3", r"sd3.*|stable-diffusion-3.*"),
        ("Flux", r".*flux.*"),
        ("Wan", r"wan.*"),
        ("Qwen-Image", r".*qwen.*"),
        ("Hunyuan Video", r".*hunyuan.*"),
    )
)
_BASE_KEYS = ("modelspec.architecture", "ss_base_model_version", "ss_sd_model_name")


def families_of(file: AdapterFile) -> list[str]:
    """The families whose adapters alone have keys as the file does."""
    return [name for name, names in _families().items() if _any(file.tensors, names.signs)]


def _families() -> dict[str, AdapterNames]:
    """The families that take adapters."""
    found = {name: names_of(name) for name in registry.FAMILIES}
    return {name: names for name, names in found.items() if names is not None}


def foreign_model(file: AdapterFile, used: Collection[str] = ()) -> str | None:
    """The model, of none of our families, that the file is surely for; None where it isn't sure.

    Tensors that are ``used`` show nothing: they fit the model at hand.
    """
    keys = file.tensors.keys() - set(used)
    for title, pattern in _FOREIGN:
        if any(pattern.fullmatch(key) for key in keys):
            return title
    for key in sorted(keys):
        shape = file.tensors[key].shape
        if _CROSS_KEYS.fullmatch(key) and len(shape) > 1 and shape[1] in _WIDTHS:
            return _WIDTHS[shape[1]]
    return None


def says_base(file: AdapterFile) -> str | None:
    """What the file calls the model that it was made for."""
    for name in _BASE_KEYS:
        if text := file.metadata.get(name):
            return text[:200]
    named = file.config.get("base_model_name_or_path")
    return named[:200] if isinstance(named, str) and named else None


def seems_for(file: AdapterFile) -> str | None:
    """The model that an adapter seems to be for; None where nothing shows it."""
    if (title := foreign_model(file)) is not None:
        return title
    if found := families_of(file):
        return " or ".join(_families()[name].title for name in found)
    if (base := says_base(file)) is not None:
        for names in _families().values():
            if re.fullmatch(names.bases, base, re.IGNORECASE):
                return names.title
        return next((title for title, pattern in _BASES if pattern.fullmatch(base)), base)
    return "SD 1.5 or SD 2" if _any(file.tensors, (r"lora_te_text_model_.+",)) else None


def _any(keys: Iterable[str], patterns: Iterable[str]) -> bool:
    compiled = [re.compile(pattern) for pattern in patterns]
    return any(pattern.fullmatch(key) for key in keys for pattern in compiled)
