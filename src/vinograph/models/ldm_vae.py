"""The KL autoencoder in files of latent diffusion's own layout (LDM), or without a configuration.

In LDM's layout, the levels of the decoder are counted from the finest, against the order in which
they are computed, and the attention's layers are 1×1 convolutions.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from vinograph.models.file_shapes import FileShapes
from vinograph.models.parts import CheckpointTensor, Part
from vinograph.models.tensor_views import without_ones
from vinograph.networks.vae import AutoencoderConfig, with_current_names

_NORM_GROUPS = 32
_BLOCK = re.compile(r"(encoder|decoder)\.(down|up)\.(\d{1,3})\.(block\.(\d{1,3})|downsample|upsample)\.(.+)")
_MIDDLE = re.compile(r"(encoder|decoder)\.mid\.(block_([12])|attn_1)\.(.+)")
_NORM = re.compile(r"(encoder|decoder)\.norm_out\.(.+)")
_ATTENTION: Mapping[str, str] = {
    "norm": "group_norm",
    "q": "to_q",
    "k": "to_k",
    "v": "to_v",
    "proj_out": "to_out.0",
}


def is_ldm_vae(names: Collection[str]) -> bool:
    """Whether tensors of those names are of a KL autoencoder in LDM's layout."""
    return "decoder.mid.block_1.conv1.weight" in names


def vae_part(
    tensors: Mapping[str, CheckpointTensor], origin: str, scaling_factor: float, prefix: str = ""
) -> Part[AutoencoderConfig]:
    """The KL autoencoder of tensors with LDM's names or diffusers', and its concluded configuration.

    ``scaling_factor`` is the one of the family, as no file has it.

    Raises:
        DamagedModelError: a tensor is missing, or of another shape.
        ModelError: no such autoencoder is computed here.
    """
    if is_ldm_vae(tensors):
        levels = FileShapes(tensors, origin, prefix).count(r"decoder\.up\.(\d{1,3})\.block\.0\.conv1\.weight")
        tensors = dict(_renamed(name, tensor, levels) for name, tensor in tensors.items())
    else:
        tensors = with_current_names(tensors, origin)
    tensors = {name: _as_matrix(name, tensor) for name, tensor in tensors.items()}
    return Part(_config(FileShapes(tensors, origin, prefix), scaling_factor), tensors, origin)


def _config(shapes: FileShapes, scaling_factor: float) -> AutoencoderConfig:
    levels = shapes.count(r"encoder\.down_blocks\.(\d{1,3})\.resnets\.0\.conv1\.weight")
    widths = [shapes.size(f"encoder.down_blocks.{level}.resnets.0.conv1.weight", 0, 4) for level in range(levels)]
    concluded = {
        "block_out_channels": widths,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "layers_per_block": shapes.count(r"encoder\.down_blocks\.0\.resnets\.(\d{1,3})\.conv1\.weight"),
        "latent_channels": shapes.size("decoder.conv_in.weight", 1, 4),
        "norm_num_groups": _NORM_GROUPS,
        "scaling_factor": scaling_factor,
        "use_quant_conv": "quant_conv.weight" in shapes,
        "use_post_quant_conv": "post_quant_conv.weight" in shapes,
        "mid_block_add_attention": "decoder.mid_block.attentions.0.to_q.weight" in shapes,
    }
    return shapes.parse(AutoencoderConfig.from_mapping, concluded)


def _as_matrix(name: str, tensor: CheckpointTensor) -> CheckpointTensor:
    """The tensor, as a matrix where it is a convolution in the attention's place."""
    is_attention = ".attentions.0.to_" in name and name.endswith(".weight")
    return without_ones(name, tensor) if is_attention and len(tensor.shape) > 2 else tensor


def _renamed(name: str, tensor: CheckpointTensor, levels: int) -> tuple[str, CheckpointTensor]:
    """The tensor under diffusers' name. Names that nothing is known of stay as they are."""
    if match := _BLOCK.fullmatch(name):
        half, way, level, module, block, rest = match.groups()
        index = int(level) if way == "down" else levels - 1 - int(level)
        place = f"{half}.{way}_blocks.{index}"
        if block is None:
            return f"{place}.{module}rs.0.{rest}", tensor
        return f"{place}.resnets.{block}.{_shortcut(rest)}", tensor
    if match := _MIDDLE.fullmatch(name):
        half, module, number, rest = match.groups()
        if number is not None:
            return f"{half}.mid_block.resnets.{int(number) - 1}.{_shortcut(rest)}", tensor
        layer, dot, end = rest.rpartition(".")
        return f"{half}.mid_block.attentions.0.{_ATTENTION.get(layer, layer)}{dot}{end}", tensor
    if match := _NORM.fullmatch(name):
        return f"{match[1]}.conv_norm_out.{match[2]}", tensor
    return name, tensor


def _shortcut(name: str) -> str:
    return name.replace("nin_shortcut", "conv_shortcut")
