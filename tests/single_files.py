"""Small random SDXL models as single files, in the layout of the authors' code.

The names are written by the tables of ``benchmarks.single_file_layout``, which share nothing with
those that the package reads by.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from benchmarks.single_file_layout import TEXT_1, TEXT_2, UNET, VAE, ldm_unet, ldm_vae, open_clip
from tests.checkpoints import clip_tokenizer, randomise, write_card

LIBRARY: Any = diffusers
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
    vocabulary: int | None = None
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
        text_encoder=CLIPTextModel(_text_config(shape, tokenizer, 64, 2, "quick_gelu")),
        text_encoder_2=CLIPTextModelWithProjection(_text_config(shape, tokenizer_2, 128, 3, "gelu")),
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


def _text_config(
    shape: FileShape, tokenizer: CLIPTokenizer, width: int, layers: int, activation: str
) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=shape.vocabulary or len(tokenizer),
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
    found |= {TEXT_2 + name: tensor for name, tensor in open_clip(models.text_encoder_2.state_dict()).items()}
    if vae:
        found |= {VAE + name: tensor for name, tensor in ldm_vae(models.vae.state_dict()).items()}
    return found


def _with_prefix(name: str) -> str:
    return name if name.startswith("text_model.") else f"text_model.{name}"


def write(
    file: Path,
    tensors: dict[str, Tensor],
    dtype: torch.dtype = torch.float32,
    metadata: dict[str, str] | None = None,
) -> Path:
    """Write tensors as a safetensors file, floating-point ones as ``dtype``."""
    save_file({name: each.to(dtype).contiguous().clone() for name, each in tensors.items()}, file, metadata)
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
