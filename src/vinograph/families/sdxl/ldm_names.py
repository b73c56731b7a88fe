"""The names of SDXL's UNet in latent diffusion's own layout (LDM), beside those of diffusers.

Single files and kohya's adapters name the UNet's modules as the authors' code does: by a count of
blocks (``input_blocks.4.1``) instead of levels and layers (``down_blocks.1.attentions.0``). Which
block is which follows from the UNet's configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from vinograph.families.sdxl.layout_ldm import ENDS, RESIDUAL, SHORTCUT
from vinograph.families.sdxl.network_config import (
    DOWN_TEXT,
    MIDDLE,
    MIDDLE_TEXT,
    UP_TEXT,
    UNetConfig,
    transformer_depths,
)


def ldm_modules(config: UNetConfig) -> Mapping[str, str]:
    """The path of each of the UNet's modules in LDM's layout, by its path in diffusers'.

    A transformer (``down_blocks.1.attentions.0``) is one entry, since its modules have the same
    names within it in both layouts. All other entries are single layers with weights
    (``down_blocks.1.resnets.0.conv1``). The one layer that LDM has no name for is
    ``time_embedding.cond_proj``.
    """
    blocks = (*_down_blocks(config), *_middle_block(config), *_up_blocks(config))
    return MappingProxyType({**ENDS, **dict(blocks)})


def ldm_to_diffusers(config: UNetConfig) -> Callable[[str], str | None]:
    """A function that returns diffusers' name of a module or a tensor, given LDM's.

    Names are those within the UNet: the ``model.diffusion_model.`` that files put in front is
    removed before. Names that the UNet doesn't have give None.
    """
    modules = {ldm: ours for ours, ldm in ldm_modules(config).items()}

    def diffusers_name(name: str) -> str | None:
        module, rest = name, ""
        while module:
            if module in modules:
                return modules[module] + rest
            module, dot, last = module.rpartition(".")
            rest = f"{dot}{last}{rest}"
        return None

    return diffusers_name


def _down_blocks(config: UNetConfig) -> Iterator[tuple[str, str]]:
    """The levels on the way down. Block 0 is ``conv_in``; each layer and downsampler is one more."""
    index, width = 1, config.block_out_channels[0]
    for level, channels in enumerate(config.block_out_channels):
        block, count = f"down_blocks.{level}", config.layers[level]
        depths = transformer_depths(config.down_block_types[level] == DOWN_TEXT, config.depths[level], count)
        for layer, depth in enumerate(depths):
            yield from _residual(f"{block}.resnets.{layer}", f"input_blocks.{index}.0", shortcut=width != channels)
            if depth:
                yield f"{block}.attentions.{layer}", f"input_blocks.{index}.1"
            index, width = index + 1, channels
        if level < len(config.block_out_channels) - 1:
            yield f"{block}.downsamplers.0.conv", f"input_blocks.{index}.0.op"
            index += 1


def _middle_block(config: UNetConfig) -> Iterator[tuple[str, str]]:
    if config.mid_block_type in (MIDDLE, MIDDLE_TEXT):
        yield from _residual("mid_block.resnets.0", "middle_block.0", shortcut=False)
    if config.mid_block_type == MIDDLE_TEXT:
        yield "mid_block.attentions.0", "middle_block.1"
        yield from _residual("mid_block.resnets.1", "middle_block.2", shortcut=False)


def _up_blocks(config: UNetConfig) -> Iterator[tuple[str, str]]:
    """The levels on the way up. An upsampler is the last module of its level's last block."""
    levels = len(config.block_out_channels)
    skips, width, index = _skip_widths(config), config.block_out_channels[-1], 0
    for turn in range(levels):
        level = levels - 1 - turn
        block, channels, count = f"up_blocks.{turn}", config.block_out_channels[level], config.layers[level] + 1
        depths = transformer_depths(config.up_block_types[turn] == UP_TEXT, config.up_depths[turn], count)
        for layer, depth in enumerate(depths):
            shortcut = width + skips.pop() != channels
            yield from _residual(f"{block}.resnets.{layer}", f"output_blocks.{index}.0", shortcut=shortcut)
            if depth:
                yield f"{block}.attentions.{layer}", f"output_blocks.{index}.1"
            index, width = index + 1, channels
        if level > 0:
            yield f"{block}.upsamplers.0.conv", f"output_blocks.{index - 1}.{2 if depths[-1] else 1}.conv"


def _residual(ours: str, ldm: str, *, shortcut: bool) -> Iterator[tuple[str, str]]:
    """The layers of a residual block. It has a ``shortcut`` where its channels change."""
    for name, other in (*RESIDUAL.items(), *((SHORTCUT,) if shortcut else ())):
        yield f"{ours}.{name}", f"{ldm}.{other}"


def _skip_widths(config: UNetConfig) -> list[int]:
    """Channels of each skip in the order of the way down: conv_in's, each layer's, downsampler's."""
    widths = [config.block_out_channels[0]]
    for level, channels in enumerate(config.block_out_channels):
        is_last = level == len(config.block_out_channels) - 1
        widths += [channels] * (config.layers[level] + (not is_last))
    return widths
