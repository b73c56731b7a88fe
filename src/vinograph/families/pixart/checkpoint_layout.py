"""The layout of PixArt checkpoints such as PixArt-alpha/PixArt-XL-2-1024-MS."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from vinograph.models.checkpoint import Checkpoint, Subfolder
from vinograph.models.model_index import check_classes, require_parts
from vinograph.models.vae_layout import VAE_CLASSES, named_tiny_vae, vae_places
from vinograph.schedulers import SAMPLERS

# The most tokens of a prompt that each was trained with (arXiv 2310.00426, section 3.1; arXiv
# 2403.04692, section 2.1).
TEXT_LENGTHS: Mapping[str, int] = MappingProxyType({"PixArtAlphaPipeline": 120, "PixArtSigmaPipeline": 300})

SINGLE_FILES: Mapping[str, str] = MappingProxyType({})
"""Prefixes of tensors in single files that are opened: none, since the authors' are pickled."""

CLASSES: Mapping[str, set[tuple[str, str]]] = MappingProxyType(
    {
        # Of a whole T5ForConditionalGeneration, the encoder is used.
        "text_encoder": {("transformers", "T5EncoderModel"), ("transformers", "T5ForConditionalGeneration")},
        "tokenizer": {("transformers", "T5Tokenizer"), ("transformers", "T5TokenizerFast")},
        # The older name is of a class that was of many kinds; its configuration says which.
        "transformer": {("diffusers", "PixArtTransformer2DModel"), ("diffusers", "Transformer2DModel")},
        **VAE_CLASSES,
        "scheduler": {("diffusers", name) for name in SAMPLERS},
    }
)
_PARTS = ("text_encoder", "tokenizer", "transformer", "vae", "scheduler")


def find(checkpoint: Checkpoint, index: Mapping[str, Any], tiny_vae: str | None) -> dict[str, Subfolder]:
    """Find the place of every part; "vae" is the full VAE and "tiny_vae" the tiny one.

    Args:
        checkpoint: the checkpoint to convert.
        index: its model_index.json.
        tiny_vae: a checkpoint with a tiny VAE alone, in place of the one in the checkpoint's folder
            ``tiny_vae``.

    Raises:
        ModelError: a part is missing or of an unknown class.
    """
    check_classes(index, CLASSES, checkpoint.id)
    require_parts(index, _PARTS, checkpoint.id)
    places = {part: Subfolder(checkpoint, part) for part in _PARTS if part != "vae"} | vae_places(checkpoint, index)
    if tiny_vae is not None:
        places["tiny_vae"] = named_tiny_vae(tiny_vae)
    return places
