"""SDXL's UNet in a file without a configuration, under LDM's names or diffusers'.

Levels, layers and depths follow from the names of its tensors, and widths from their shapes. What
does not is the same in all that was made from SDXL's code: 64 channels for each attention head, 32
groups in each norm, and the order of sines and cosines.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from vinograph.errors import DamagedModelError, ModelError
from vinograph.families.sdxl.ldm_names import ldm_to_diffusers
from vinograph.families.sdxl.network_config import DOWN, DOWN_TEXT, MIDDLE, MIDDLE_TEXT, UP, UP_TEXT, UNetConfig
from vinograph.models.file_shapes import FileShapes
from vinograph.models.parts import CheckpointTensor, Part
from vinograph.schema import label

LDM_PREFIX = "model.diffusion_model."
_HEAD_WIDTH = 64
_NORM_GROUPS = 32
_SIZES = 6  # numbers of the size conditioning, each of which is embedded
_DEPTHS = r"(.+)\.transformer_blocks\.(\d{1,3})\.norm1\.weight"
_MATRIX = 2  # dimensions


@dataclass(frozen=True)
class _Structure:
    """The blocks of a UNet: widths of the levels, and depths of the transformers after each layer.

    ``middle`` is the depth in the middle; 0 where there is a residual block alone, and None where
    there is nothing. ``up`` has the coarsest level first.
    """

    widths: list[int]
    down: list[list[int]]
    middle: int | None
    up: list[list[int]]
    text_layer: str | None  # the name of a layer that takes the text
    linear: bool


def is_ldm_unet(names: Collection[str]) -> bool:
    """Whether tensors of those names are of an SDXL UNet in LDM's layout."""
    return "input_blocks.0.0.weight" in names and "label_emb.0.0.weight" in names


def is_diffusers_unet(names: Collection[str]) -> bool:
    """Whether tensors of those names are of an SDXL UNet in diffusers' layout."""
    return "conv_in.weight" in names and "add_embedding.linear_1.weight" in names


def unet_part(
    tensors: Mapping[str, CheckpointTensor], origin: str, pooled_width: int, sample_size: int
) -> Part[UNetConfig]:
    """The UNet of a file, with its concluded configuration.

    Args:
        tensors: its tensors, without :data:`LDM_PREFIX`.
        origin: the file, for errors.
        pooled_width: width of the pooled text that the second text encoder gives.
        sample_size: height and width of the latents that it was trained on, which no file says.

    Raises:
        DamagedModelError: a tensor is missing, unknown, or of another shape.
        ModelError: it is a UNet that Vinograph doesn't compute.
    """
    if not is_ldm_unet(tensors):
        shapes = FileShapes(tensors, origin)
        return Part(
            _config(shapes, _diffusers_structure(shapes), _DIFFUSERS, pooled_width, sample_size), tensors, origin
        )
    shapes = FileShapes(tensors, origin, LDM_PREFIX)
    config = _config(shapes, _ldm_structure(shapes), _LDM, pooled_width, sample_size)
    return Part(config, _renamed(tensors, config, origin), origin)


@dataclass(frozen=True)
class _Names:
    """The names of the layers that tell widths."""

    first: str
    time: str
    sizes: str
    guidance: str | None = None


_LDM = _Names("input_blocks.0.0.weight", "time_embed.0.weight", "label_emb.0.0.weight")
_DIFFUSERS = _Names(
    "conv_in.weight",
    "time_embedding.linear_1.weight",
    "add_embedding.linear_1.weight",
    "time_embedding.cond_proj.weight",
)


def _config(shapes: FileShapes, found: _Structure, names: _Names, pooled_width: int, sample_size: int) -> UNetConfig:
    channels = shapes.size(names.first, 1, 4)
    first_width, time_width = (shapes.size(names.time, dimension, 2) for dimension in (1, 0))
    concluded = {
        "sample_size": sample_size,
        "in_channels": channels,
        "block_out_channels": found.widths,
        "attention_head_dim": [width // _HEAD_WIDTH for width in found.widths],
        "norm_num_groups": _NORM_GROUPS,
        "use_linear_projection": found.linear,
        "cross_attention_dim": shapes.size(found.text_layer, 1, 2) if found.text_layer is not None else 1,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": _size_width(shapes, names.sizes, pooled_width),
        "projection_class_embeddings_input_dim": shapes.size(names.sizes, 1, 2),
        "time_embedding_dim": None if time_width == 4 * first_width else time_width,
        **_blocks(found),
    }
    if names.guidance is not None and names.guidance in shapes:
        concluded["time_cond_proj_dim"] = shapes.size(names.guidance, 1, 2)
    return shapes.parse(UNetConfig.from_mapping, concluded)


def _size_width(shapes: FileShapes, name: str, pooled_width: int) -> int:
    """Width of the embedding of each number of the size conditioning."""
    together = shapes.size(name, 1, 2)
    if together <= pooled_width or (together - pooled_width) % _SIZES:
        raise ModelError(
            f"the parts don't fit together: the second text encoder pools to {pooled_width}, the UNet takes {together} "
            f"numbers for the pooled text and {_SIZES} sizes"
        )
    return (together - pooled_width) // _SIZES


def _blocks(found: _Structure) -> dict[str, Any]:
    """The keys of the configuration that describe the blocks."""
    down = [_depth(level) for level in found.down]
    if found.middle and not any(found.down[-1]):
        down[-1] = found.middle  # by diffusers' rule the middle is as deep as the coarsest level
    up = [_depth(level) for level in found.up]
    middle = MIDDLE_TEXT if found.middle else None if found.middle is None else MIDDLE
    return {
        "down_block_types": [DOWN_TEXT if any(level) else DOWN for level in found.down],
        "up_block_types": [UP_TEXT if any(level) else UP for level in found.up],
        "mid_block_type": middle,
        "layers_per_block": [len(level) for level in found.down],
        "transformer_layers_per_block": down,
        "reverse_transformer_layers_per_block": up,
    }


def _depth(level: list[int]) -> int | list[int]:
    """One depth for all layers of a level, or one for each."""
    return level if len(set(level)) != 1 else level[0]


def _ldm_structure(shapes: FileShapes) -> _Structure:
    depths = shapes.counts(_DEPTHS)
    widths, down = _ldm_way_down(shapes, depths)
    up: list[list[int]] = []
    index = 0
    for _ in widths:
        level: list[int] = []
        up.append(level)
        while f"output_blocks.{index}.0.in_layers.2.weight" in shapes:
            level.append(depths[f"output_blocks.{index}.1"])
            index += 1
            if any(f"output_blocks.{index - 1}.{place}.conv.weight" in shapes for place in (1, 2)):
                break
    middle = depths["middle_block.1"] if "middle_block.0.in_layers.2.weight" in shapes else None
    return _Structure(widths, down, middle, up, *_text_layer(shapes, depths))


def _ldm_way_down(shapes: FileShapes, depths: Mapping[str, int]) -> tuple[list[int], list[list[int]]]:
    """The widths of the levels, and the depths of their transformers."""
    widths: list[int] = []
    down: list[list[int]] = [[]]
    index = 1
    while True:
        if f"input_blocks.{index}.0.op.weight" in shapes:
            down.append([])
        elif (name := f"input_blocks.{index}.0.in_layers.2.weight") in shapes:
            if not down[-1]:
                widths.append(shapes.size(name, 0, 4))
            down[-1].append(depths[f"input_blocks.{index}.1"])
        else:
            break
        index += 1
    if len(widths) != len(down):
        raise DamagedModelError(
            f"{shapes.origin} lacks the tensor {LDM_PREFIX}input_blocks.{index}.0.in_layers.2.weight"
        )
    return widths, down


def _diffusers_structure(shapes: FileShapes) -> _Structure:
    depths = shapes.counts(_DEPTHS)
    layers = {
        way: shapes.counts(rf"({way}_blocks\.\d{{1,3}})\.resnets\.(\d{{1,3}})\.conv1\.weight") for way in ("down", "up")
    }
    levels = len(layers["down"])
    down, up = (
        [
            [
                depths[f"{way}_blocks.{level}.attentions.{layer}"]
                for layer in range(layers[way][f"{way}_blocks.{level}"])
            ]
            for level in range(levels)
        ]
        for way in ("down", "up")
    )
    widths = [shapes.size(f"down_blocks.{level}.resnets.0.conv1.weight", 0, 4) for level in range(levels)]
    middle = depths["mid_block.attentions.0"] if "mid_block.resnets.0.conv1.weight" in shapes else None
    return _Structure(widths, down, middle, up, *_text_layer(shapes, depths))


def _text_layer(shapes: FileShapes, depths: Mapping[str, int]) -> tuple[str | None, bool]:
    """The name of a layer that takes the text, and whether transformers begin with a linear layer."""
    place = next((place for place, depth in depths.items() if depth), None)
    if place is None:
        return None, False
    linear = shapes.dimensions(f"{place}.proj_in.weight") == _MATRIX
    return f"{place}.transformer_blocks.0.attn2.to_k.weight", linear


def _renamed(tensors: Mapping[str, CheckpointTensor], config: UNetConfig, origin: str) -> dict[str, CheckpointTensor]:
    """The tensors under diffusers' names.

    Raises:
        DamagedModelError: the UNet has no place for one.
    """
    rename = ldm_to_diffusers(config)
    found: dict[str, CheckpointTensor] = {}
    for name, tensor in tensors.items():
        ours = rename(name)
        if ours is None:
            raise DamagedModelError(
                f"{origin} has the tensor {label(LDM_PREFIX + name)}, which the model has no place for"
            )
        found[ours] = tensor
    return found
