"""Small random SDXL models as single files, in the layout of the authors' code.

Names are written by a table of their own here, which is the inverse of what the package reads.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from tests.checkpoints import clip_tokenizer, randomise, write_card

LIBRARY: Any = diffusers
UNET, TEXT_1, TEXT_2, VAE = (
    "model.diffusion_model.",
    "conditioner.embedders.0.transformer.",
    "conditioner.embedders.1.model.",
    "first_stage_model.",
)
_TIME_WIDTH = 8
_POOLED = 64


@dataclass(frozen=True)
class FileShape:
    """The blocks of a small UNet; heads of 64 channels and norms of 32 groups are SDXL's own."""

    widths: tuple[int, ...] = (64, 128)
    depths: Any = (1, 2)
    up_depths: Any = None
    layers: int = 1
    middle: str | None = "UNetMidBlock2DCrossAttn"
    channels: int = 4
    seed: int = 0


SMALL = FileShape()
SSD = FileShape(depths=(1, (2, 1)), up_depths=((1, 2, 1), 1), layers=2, middle="UNetMidBlock2D")
"""As SSD-1B: depths that differ from layer to layer, and no attention in the middle."""
VEGA = FileShape(
    widths=(64, 64, 128), depths=(1, (1, 1), (2, 2)), up_depths=((2, 1, 2), (1, 1, 1), 1), layers=2, middle=None
)
"""As Segmind-Vega: no block in the middle."""


@dataclass(frozen=True)
class FileModels:
    """diffusers' models in f32."""

    text_encoder: CLIPTextModel
    text_encoder_2: CLIPTextModelWithProjection
    tokenizer: CLIPTokenizer
    tokenizer_2: CLIPTokenizer
    unet: Any
    vae: Any

    def pipeline(self, scheduler: Any = None) -> Any:
        """diffusers' pipeline of these models."""
        return LIBRARY.StableDiffusionXLPipeline(
            vae=self.vae,
            text_encoder=self.text_encoder,
            text_encoder_2=self.text_encoder_2,
            tokenizer=self.tokenizer,
            tokenizer_2=self.tokenizer_2,
            unet=self.unet,
            scheduler=scheduler or euler(),
            add_watermarker=False,
        )


def euler(**changes: Any) -> Any:
    """The scheduler of SDXL's base model."""
    settings = {
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "steps_offset": 1,
        "timestep_spacing": "leading",
    }
    return LIBRARY.EulerDiscreteScheduler(**{**settings, **changes})


@cache
def models_of(shape: FileShape = SMALL) -> FileModels:
    """Random models of that shape."""
    generator = torch.Generator().manual_seed(shape.seed)
    tokenizer, tokenizer_2 = clip_tokenizer(), clip_tokenizer(pad="!")
    levels = len(shape.widths)
    models = FileModels(
        text_encoder=CLIPTextModel(_text_config(tokenizer, 64, 2, "quick_gelu")),
        text_encoder_2=CLIPTextModelWithProjection(_text_config(tokenizer_2, 128, 3, "gelu")),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        unet=LIBRARY.UNet2DConditionModel(
            sample_size=128,
            in_channels=shape.channels,
            block_out_channels=shape.widths,
            down_block_types=("DownBlock2D", *["CrossAttnDownBlock2D"] * (levels - 1)),
            up_block_types=(*["CrossAttnUpBlock2D"] * (levels - 1), "UpBlock2D"),
            mid_block_type=shape.middle,
            layers_per_block=shape.layers,
            cross_attention_dim=192,
            transformer_layers_per_block=shape.depths,
            reverse_transformer_layers_per_block=shape.up_depths,
            attention_head_dim=tuple(width // 64 for width in shape.widths),
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=_TIME_WIDTH,
            projection_class_embeddings_input_dim=_POOLED + 6 * _TIME_WIDTH,
        ),
        vae=LIBRARY.AutoencoderKL(
            block_out_channels=(32, 32, 32, 64),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=1,
            scaling_factor=0.13025,
        ),
    )
    for model in (models.text_encoder, models.text_encoder_2, models.unet, models.vae):
        randomise(model, generator)
    models.vae.get_parameter("decoder.conv_out.weight").mul_(0.3)
    models.vae.get_parameter("decoder.conv_out.bias").mul_(0.5)
    return models


def _text_config(tokenizer: CLIPTokenizer, width: int, layers: int, activation: str) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        max_position_embeddings=77,
        hidden_act=activation,
        projection_dim=_POOLED,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=2,  # as in the published configurations
        pad_token_id=tokenizer.pad_token_id,
    )


def single_file_tensors(models: FileModels, *, vae: bool = True) -> dict[str, Tensor]:
    """The models' tensors under the authors' names."""
    found = {UNET + name: tensor for name, tensor in ldm_unet(models.unet).items()}
    found |= {TEXT_1 + _with_prefix(name): each for name, each in models.text_encoder.state_dict().items()}
    found |= {TEXT_2 + name: tensor for name, tensor in _open_clip(models.text_encoder_2.state_dict()).items()}
    if vae:
        found |= {VAE + name: tensor for name, tensor in ldm_vae(models.vae.state_dict()).items()}
    return found


def _with_prefix(name: str) -> str:
    return name if name.startswith("text_model.") else f"text_model.{name}"


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


def ldm_vae(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
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


def _open_clip(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
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
    return {**found, "logit_scale": torch.tensor(4.6)}


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


def write(file: Path, tensors: dict[str, Tensor], dtype: torch.dtype = torch.float32) -> Path:
    """Write tensors as a safetensors file, floating-point ones as ``dtype``."""
    save_file({name: each.to(dtype).contiguous().clone() for name, each in tensors.items()}, file)
    return file


def save_directory(home: Path, shape: FileShape = SMALL, scheduler: Any = None) -> Path:
    """The models as a directory in diffusers' layout, which is a base and a configuration."""
    models_of(shape).pipeline(scheduler).save_pretrained(home)
    write_card(home, "license: other", "license_name: sdxl-test")
    return home


def standard_vocabulary(folder: Path) -> Path:
    """A tokenizer of 49,408 entries: CLIP's letters and end, and made-up words in between."""
    folder.mkdir(parents=True)
    small: dict[str, int] = clip_tokenizer().get_vocab()
    letters = sorted(
        (token for token in small if len(token.removesuffix("</w>")) == 1), key=lambda each: (each != "!", small[each])
    )
    pairs = [f"{a} {b}" for a in letters for b in letters if "</w>" not in a]
    count = 49_408 - 2 - len(letters)
    merges = pairs[:count]
    tokens = [*letters, *(pair.replace(" ", "") for pair in merges), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 77}), encoding="utf-8")
    (folder / "special_tokens_map.json").write_text("{}", encoding="utf-8")
    return folder
