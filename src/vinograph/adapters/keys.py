"""The keys of adapter files, taken apart: which module is meant, and which of its tensors it is.

LoRA's tensors have names by kohya's scripts (``lora_down.weight``), PEFT (``lora_A.weight``) and
older versions of diffusers (``lora_linear_layer.down.weight``). LyCORIS has names for further kinds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

# The role of a tensor by how its key ends. The first pattern that fits counts.
_ROLES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(rf"(.+?)\.{ending}"), role)
    for ending, role in (
        (r"(?:lora_down|lora_A(?:\.\w+)?|lora_linear_layer\.down|lora\.down)\.weight", "down"),
        (r"(?:lora_up|lora_B(?:\.\w+)?|lora_linear_layer\.up|lora\.up)\.weight", "up"),
        (r"lora_mid\.weight", "mid"),
        (r"(?:lora_up|lora_B(?:\.\w+)?)\.bias", "up_bias"),
        (r"lora_embedding_A(?:\.\w+)?", "embedding_down"),
        (r"lora_embedding_B(?:\.\w+)?", "embedding_up"),
        (r"alpha", "alpha"),
        (r"dora_scale", "magnitude"),
        (r"lora_magnitude_vector(?:\.\w+)?(?:\.weight)?", "row_magnitude"),
        *((name, name) for name in ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2")),
        *((name, name) for name in ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b")),
        (r"lokr_t2", "lokr_t2"),
        *((name, name) for name in ("diff", "diff_b", "w_norm", "b_norm", "set_weight")),
        (r"modules_to_save(?:\.\w+)?\.weight", "set_weight"),
        (r"modules_to_save(?:\.\w+)?\.bias", "set_bias"),
    )
)
# Kinds of adapters whose tensors are recognized, but not computed.
_OTHER_KINDS: Mapping[str, re.Pattern[str]] = MappingProxyType(
    {
        "OFT": re.compile(r"(.+?)\.(?:oft_\w+)(?:\.\w+)*"),
        "BOFT": re.compile(r"(.+?)\.(?:boft_\w+)(?:\.\w+)*"),
        "IA³": re.compile(r"(.+?)\.(?:ia3_l|on_input)(?:\.\w+)*"),
        "GLoRA": re.compile(r"(.+?)\.[ab][12]\.weight"),
        "VeRA": re.compile(r"(.+?)\.vera_\w+(?:\.\w+)*"),
    }
)
_PEFT_PREFIX = re.compile(r"^(?:base_model\.model\.)+")
# Attention processors of older versions of diffusers, in UNets and in text encoders.
_PROCESSOR = re.compile(r"\.processor\.(to_[qkv]|to_out)_lora\.")
_TEXT_PROCESSOR = re.compile(r"\.self_attn\.(?:processor\.)?to_([qkv]|out)_lora\.")


class Key(NamedTuple):
    """A key taken apart: the module's ``path`` as the file has it, and the tensor's ``role``."""

    path: str
    role: str


def parse(key: str) -> Key | None:
    """Take a key apart; None where its ending is that of no tensor of an adapter."""
    plain = _PEFT_PREFIX.sub("", key)
    plain = _TEXT_PROCESSOR.sub(lambda found: f".self_attn.{found[1]}_proj.lora.", plain)
    plain = _PROCESSOR.sub(lambda found: f".{found[1].replace('to_out', 'to_out.0')}.lora.", plain)
    for pattern, role in _ROLES:
        if found := pattern.fullmatch(plain):
            return Key(found[1], role)
    return None


def other_kind(key: str) -> str | None:
    """The kind of adapter that a key is of, if it is known and isn't computed here."""
    return next((kind for kind, pattern in _OTHER_KINDS.items() if pattern.fullmatch(key)), None)


def whole_weight(key: str) -> Key | None:
    """A key that names a whole weight or bias, as files with retrained layers have them."""
    path, _, last = _PEFT_PREFIX.sub("", key).rpartition(".")
    roles = {"weight": "set_weight", "bias": "set_bias"}
    return Key(path, roles[last]) if path and last in roles else None
