"""How adapters of SDXL name its UNet and both text encoders.

kohya's scripts name the UNet's modules as latent diffusion's own code does (LDM): by a count of
blocks (``input_blocks.4.1``) instead of levels and layers (``down_blocks.1.attentions.0``). Which
block is which follows from the modules that the UNet has.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from vinograph.families.adapters import AdaptedPart, AdapterNames, Alias, with_prefix
from vinograph.families.sdxl.layout_ldm import ENDS, RESIDUAL, SHORTCUT

_RESIDUAL = {**RESIDUAL, **dict([SHORTCUT])}
_BLOCK = re.compile(
    r"(?P<block>(down|up)_blocks\.\d+|mid_block)\.(?P<kind>resnets|attentions|downsamplers|upsamplers)\.(?P<layer>\d+)"
    r"(?:\.(?P<rest>.+))?"
)
_CLIP_LAYER = re.compile(r"encoder\.layers\.(\d+)\.(.+)")


def unet_aliases(modules: Collection[str]) -> Iterator[tuple[str, Alias]]:
    """The UNet's modules with their names in LDM's layout."""
    blocks = _ldm_blocks(modules)
    for module in modules:
        if module in ENDS:
            yield module, Alias(ENDS[module])
        elif (found := _BLOCK.fullmatch(module)) and found["rest"]:
            place = blocks.get((found["block"], found["kind"], int(found["layer"])))
            rest = _RESIDUAL.get(found["rest"]) if found["kind"] == "resnets" else found["rest"]
            if found["kind"] == "downsamplers":
                rest = "op"
            if place and rest:
                yield module, Alias(f"{place}.{rest}")


def _ldm_blocks(modules: Collection[str]) -> dict[tuple[str, str, int], str]:
    """LDM's path of each residual block, transformer and sampler, by block, kind and layer.

    Each layer on the way down and each downsampler is one input block, after block 0, ``conv_in``.
    Each layer on the way up is one output block; an upsampler is the last module of the last of its
    level.
    """
    there = {(found["block"], found["kind"], int(found["layer"])) for found in map(_BLOCK.match, modules) if found}
    named: dict[tuple[str, str, int], str] = {
        ("mid_block", "resnets", 0): "middle_block.0",
        ("mid_block", "attentions", 0): "middle_block.1",
        ("mid_block", "resnets", 1): "middle_block.2",
    }
    for way, ldm, sampler, index in (
        ("down_blocks", "input_blocks", "downsamplers", 1),
        ("up_blocks", "output_blocks", "upsamplers", 0),
    ):
        level = 0
        while (f"{way}.{level}", "resnets", 0) in there:
            block, layer = f"{way}.{level}", 0
            while (block, "resnets", layer) in there:
                named[block, "resnets", layer] = f"{ldm}.{index}.0"
                named[block, "attentions", layer] = f"{ldm}.{index}.1"
                index, layer = index + 1, layer + 1
            if sampler == "downsamplers":
                named[block, sampler, 0] = f"{ldm}.{index}.0"
                index += (block, sampler, 0) in there
            else:
                has_text = (block, "attentions", layer - 1) in there
                named[block, sampler, 0] = f"{ldm}.{index - 1}.{2 if has_text else 1}"
            level += 1
    return named


def _last_clip_layer(modules: Collection[str]) -> set[str]:
    """The modules of the layer after the last: its output is none that SDXL takes.

    Text encoders in bundles come without it.
    """
    layers = [(int(found[1]), found[2]) for module in modules if (found := _CLIP_LAYER.fullmatch(module))]
    last = max((index for index, _ in layers), default=-1)
    return {f"encoder.layers.{last + 1}.{rest}" for _, rest in layers} | {"final_layer_norm"}


ADAPTERS = AdapterNames(
    title="SDXL",
    parts=(
        AdaptedPart(
            components=("unet",),
            dotted=("unet", "diffusion_model", "model.diffusion_model", ""),
            flat=("lora_unet", "lycoris"),
            aliases=unet_aliases,
        ),
        AdaptedPart(
            components=("text_encoder",),
            dotted=("text_encoder",),
            flat=("lora_te1",),
            aliases=with_prefix("text_model."),
            idle_modules=_last_clip_layer,
        ),
        AdaptedPart(
            components=("text_encoder_2",),
            dotted=("text_encoder_2",),
            flat=("lora_te2",),
            aliases=with_prefix("text_model."),
            idle_modules=_last_clip_layer,
        ),
    ),
    signs=(r"lora_te2_.+", r"text_encoder_2\..+", r"lora_unet_(input|output)_blocks_.+", r".*add_embedding[._].+"),
    bases=r".*(sdxl|stable-diffusion-xl|sd_xl).*",
)
