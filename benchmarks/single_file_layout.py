"""The layout of SDXL's single files, written from diffusers' and transformers' modules.

The tables are the inverse of what the package reads, and share nothing with its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

UNET, TEXT_1, TEXT_2, VAE = (
    "model.diffusion_model.",
    "conditioner.embedders.0.transformer.",
    "conditioner.embedders.1.model.",
    "first_stage_model.",
)
"""What the file has in front of the names of each part's tensors."""


def ldm_unet(unet: Any) -> dict[str, Tensor]:
    """A UNet's tensors under LDM's names."""
    places = {
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "add_embedding.linear_1": "label_emb.0.0",
        "add_embedding.linear_2": "label_emb.0.2",
        "conv_in": "input_blocks.0.0",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
        "mid_block.resnets.0": "middle_block.0",
        "mid_block.attentions.0": "middle_block.1",
        "mid_block.resnets.1": "middle_block.2",
    }
    index = 0
    for level, block in enumerate(unet.down_blocks):
        for layer in range(len(block.resnets)):
            index += 1
            places[f"down_blocks.{level}.resnets.{layer}"] = f"input_blocks.{index}.0"
            places[f"down_blocks.{level}.attentions.{layer}"] = f"input_blocks.{index}.1"
        if block.downsamplers:
            index += 1
            places[f"down_blocks.{level}.downsamplers.0.conv"] = f"input_blocks.{index}.0.op"
    index = 0
    for turn, block in enumerate(unet.up_blocks):
        has_attention = hasattr(block, "attentions")
        for layer in range(len(block.resnets)):
            places[f"up_blocks.{turn}.resnets.{layer}"] = f"output_blocks.{index}.0"
            places[f"up_blocks.{turn}.attentions.{layer}"] = f"output_blocks.{index}.1"
            index += 1
        places[f"up_blocks.{turn}.upsamplers.0"] = f"output_blocks.{index - 1}.{2 if has_attention else 1}"
    return {_replaced(_replaced(name, places), _RESIDUAL): tensor for name, tensor in unet.state_dict().items()}


_RESIDUAL = {
    ".norm1.": ".in_layers.0.",
    ".conv1.": ".in_layers.2.",
    ".time_emb_proj.": ".emb_layers.1.",
    ".norm2.": ".out_layers.0.",
    ".conv2.": ".out_layers.3.",
    ".conv_shortcut.": ".skip_connection.",
}


def _replaced(name: str, table: dict[str, str]) -> str:
    if table is _RESIDUAL:
        if ".transformer_blocks." in name:
            return name
        for ours, theirs in table.items():
            name = name.replace(ours, theirs)
        return name
    start = next(each for each in sorted(table, key=len, reverse=True) if name.startswith(f"{each}."))
    return table[start] + name.removeprefix(start)


def ldm_vae(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A VAE's tensors under LDM's names; the attention's layers as 1×1 convolutions."""
    levels = 1 + max(int(match[1]) for name in tensors if (match := re.match(r"decoder\.up_blocks\.(\d+)", name)))
    found = {}
    for name, tensor in tensors.items():
        name = re.sub(r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2", name)
        name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", name)
        name = re.sub(r"up_blocks\.(\d+)\.resnets\.(\d+)", lambda m: f"up.{levels - 1 - int(m[1])}.block.{m[2]}", name)
        name = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", name)
        name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
        for ours, theirs in (
            ("group_norm", "norm"),
            ("to_q", "q"),
            ("to_k", "k"),
            ("to_v", "v"),
            ("to_out.0", "proj_out"),
        ):
            if f"mid_block.attentions.0.{ours}." in name and tensor.dim() == 2:
                tensor = tensor[:, :, None, None]
            name = name.replace(f"mid_block.attentions.0.{ours}.", f"mid.attn_1.{theirs}.")
        name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        found[name] = tensor
    return found


def open_clip(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A text encoder's tensors under OpenCLIP's names."""
    found = {}
    for name, tensor in tensors.items():
        short = name.removeprefix("text_model.")
        if short == "text_projection.weight":
            found["text_projection"] = tensor.T.contiguous()
        elif match := re.fullmatch(r"encoder\.layers\.(\d+)\.self_attn\.q_proj\.(weight|bias)", short):
            parts = [tensors[name.replace("q_proj", f"{letter}_proj")] for letter in "qkv"]
            found[f"transformer.resblocks.{match[1]}.attn.in_proj_{match[2]}"] = torch.cat(parts)
        elif ".k_proj." not in short and ".v_proj." not in short:
            for ours, theirs in _OPEN_CLIP:
                short = short.replace(ours, theirs)
            found[short] = tensor
    return {**found, "logit_scale": torch.full((1,), 4.6)}


_OPEN_CLIP = (
    ("encoder.layers.", "transformer.resblocks."),
    ("layer_norm1", "ln_1"),
    ("layer_norm2", "ln_2"),
    ("mlp.fc1", "mlp.c_fc"),
    ("mlp.fc2", "mlp.c_proj"),
    ("self_attn.out_proj", "attn.out_proj"),
    ("final_layer_norm", "ln_final"),
    ("embeddings.token_embedding", "token_embedding"),
    ("embeddings.position_embedding.weight", "positional_embedding"),
)
