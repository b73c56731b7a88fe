"""The published layout of each family, as its smallest checkpoint has it, and what opening that has to say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.checkpoints import PIXART_TINY, SDXL_TINY, save_pixart, save_sdxl, save_wuerstchen
from tests.checkpoints import TINY as WUERSTCHEN_TINY

FULL_VAE = frozenset({"vae_decoder", "vae_encoder"})
TINY_VAE = frozenset({"tiny_vae_decoder", "tiny_vae_encoder"})


@dataclass(frozen=True)
class Saved:
    """A checkpoint's directory, and a tiny VAE of its latents where the family has one."""

    home: Path
    tiny_vae: Path | None = None


@dataclass(frozen=True)
class Layout:
    """A family's checkpoint. ``save`` writes it into a folder; its options are those of `tests.checkpoints`.

    ``manifest`` is what its manifest has to hold, field by field; ``generate`` are defaults of that call.
    """

    family: str
    save: Callable[..., Saved]
    components: frozenset[str]
    in_full_precision: frozenset[str]
    denoisers: tuple[str, ...]
    manifest: Mapping[str, Mapping[str, Any]]
    generate: Mapping[str, Any]
    licence: str
    needed: tuple[str, ...] = ()
    """The parts that model_index.json has to name."""
    clip_encoders: tuple[str, ...] = ()
    tiny_vae_id: str = ""
    shard: str = "30KB"
    """A size of file of which every part of weights takes several."""

    @property
    def clip_tokenizers(self) -> tuple[str, ...]:
        """The folders of the CLIP encoders' tokenizers."""
        return tuple(name.replace("text_encoder", "tokenizer") for name in self.clip_encoders)


def _wuerstchen(folder: Path, **options: Any) -> Saved:
    return Saved(save_wuerstchen(folder, WUERSTCHEN_TINY, **options).decoder)


def _with_tiny_vae(save: Callable[..., Any], shape: Any, folder: Path, **options: Any) -> Saved:
    saved = save(folder, shape, **options)
    return Saved(saved.home, saved.tiny_vae)


WUERSTCHEN = Layout(
    "wuerstchen",
    _wuerstchen,
    components=frozenset(
        ("prior_text_encoder", "prior_text", "prior", "text_encoder", "decoder_text", "decoder", "vqgan")
    ),
    in_full_precision=frozenset({"decoder"}),
    denoisers=("prior_prior", "decoder"),
    manifest={
        "config": {
            "prior_channels": 16,
            "latent_channels": 4,
            "resolution_multiple": 42.67,
            "latent_dim_scale": 10.67,
            "latent_mean": 42.0,
            "latent_std": 1.0,
            "scale_factor": 0.3764,
            "decoder_patch_size": WUERSTCHEN_TINY.patch_size,
            "decoder_level_count": 1,
            "effnet_levels": [0],
            "prior_text_width": WUERSTCHEN_TINY.prior_text_width,
            "decoder_text_width": WUERSTCHEN_TINY.decoder_text_width,
            "prior_attention": 1,
            "decoder_attention_widths": [8, 8],
        },
        "limits": {"size_multiple": 128, "minimum_size": 128, "maximum_size": 2048, "native_size": 1024},
        "scheduler": {"prior": {"scaler": 1.0, "s": 0.008}, "decoder": {"scaler": 1.0, "s": 0.008}},
    },
    generate={"prior_num_inference_steps": 60, "num_inference_steps": 12},
    licence="mit",
    clip_encoders=("prior_text_encoder", "text_encoder"),
)
SDXL = Layout(
    "sdxl",
    partial(_with_tiny_vae, save_sdxl, SDXL_TINY),
    components=FULL_VAE | {"text_encoder", "text_encoder_2", "unet"},
    in_full_precision=FULL_VAE,
    needed=("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "unet", "vae", "scheduler"),
    denoisers=("unet",),
    manifest={
        "config": {
            "latent_channels": 4,
            "vae_scale_factor": 8,
            "vae_scaling_factor": 0.13025,
            "vae_latents_mean": [],
            "vae_latents_std": [],
            "tiny_vae_scaling_factor": 1.0,
            "text_widths": [4, 4],
            "pooled_width": 4,
            "force_zeros_for_empty_prompt": 1,
            "time_cond_width": 0,
            "unet_channels": 4,
        },
        "limits": {"size_multiple": 8, "minimum_size": 64, "maximum_size": 2048, "native_size": 64},
        "scheduler": {"class": "EulerDiscreteScheduler", "timestep_spacing": "leading"},
    },
    generate={"height": 64, "width": 64, "num_inference_steps": 50, "guidance_scale": 5.0},
    licence="sdxl-test",
    clip_encoders=("text_encoder", "text_encoder_2"),
    tiny_vae_id="madebyollin/taesdxl",
)
PIXART = Layout(
    "pixart",
    partial(_with_tiny_vae, save_pixart, PIXART_TINY),
    components=FULL_VAE | {"text_encoder", "transformer"},
    in_full_precision=FULL_VAE | {"text_encoder"},
    needed=("text_encoder", "tokenizer", "transformer", "vae", "scheduler"),
    denoisers=("transformer",),
    manifest={
        "config": {
            "latent_channels": 4,
            "vae_scale_factor": 8,
            "vae_scaling_factor": 0.18215,
            "vae_latents_mean": [],
            "vae_latents_std": [],
            "tiny_vae_scaling_factor": 1.0,
            "text_width": 8,
            "text_length": 120,
            "out_channels": 4,
            "sample_size": 16,
            "size_conditions": 0,
        },
        "limits": {"size_multiple": 16, "minimum_size": 64, "maximum_size": 2048, "native_size": 128},
        "scheduler": {"class": "DPMSolverMultistepScheduler"},
    },
    # There is no table of trained aspect ratios for so small a model.
    generate={"height": 128, "width": 128, "use_resolution_binning": False},
    licence="openrail++",
    tiny_vae_id="madebyollin/taesd",
    shard="3KB",
)
LAYOUTS = {layout.family: layout for layout in (WUERSTCHEN, SDXL, PIXART)}
