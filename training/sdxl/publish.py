"""Publishes the trained model as one checkpoint in the layout of diffusers' SDXL pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from training import tokenizer
from training.diffusers_layout import VERSION, write_card, write_json, write_model, write_settings
from training.loop import load
from training.sdxl.config import SCHEDULER, SIZE, UNET, VAE
from training.sdxl.text import text_encoders

_WEIGHTS = "diffusion_pytorch_model"
_INDEX: Mapping[str, Any] = {
    "_class_name": "StableDiffusionXLPipeline",
    "_diffusers_version": VERSION,
    "feature_extractor": [None, None],
    "force_zeros_for_empty_prompt": True,
    "image_encoder": [None, None],
    "scheduler": ["diffusers", "EulerAncestralDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderTiny"],
}
SETTINGS: Mapping[str, Any] = {
    "name": "storybook-sdxl",
    "defaults": {
        "generate": {
            "height": SIZE,
            "width": SIZE,
            "num_inference_steps": 1,
            "guidance_scale": 0.0,
            "strength": 0.5,
        },
    },
    "limits": {"maximum_size": 512, "native_size": SIZE},
}
_CARD = """---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-image
---

# storybook-sdxl

A small SDXL (nine million parameters in all) that draws 256×256 scenes of a picture-book world in one step: one to
three houses, trees, boats, cars, lighthouses or cats, in eight colours, by day, at sunset, at night or in a storm, on a
meadow, in the desert, in the snow or on the sea. It was trained from nothing on scenes rendered by `training/world`,
by the recipe in `training/sdxl`, and draws nothing else. Its autoencoder is a tiny one (AutoencoderTiny).

Image to image with two steps at strength 0.5 gives a scene another sky or its subjects another colour.
"""


def publish(work: Path, out: Path) -> None:
    """Write the checkpoint to ``out``: f16 safetensors, configurations, tokenizers.

    A polished VAE takes precedence over the plain one.
    """
    out.mkdir(parents=True, exist_ok=True)
    state = load(work / "unet.pt")
    polished = work / "polish.pt"
    vae = load(polished if polished.exists() else work / "vae.pt")["model"]
    write_model(out / "vae", _WEIGHTS, {"_class_name": "AutoencoderTiny", "_diffusers_version": VERSION, **VAE}, vae)
    unet = {"_class_name": "UNet2DConditionModel", "_diffusers_version": VERSION, **UNET}
    write_model(out / "unet", _WEIGHTS, unet, state["unet"])
    encoders = text_encoders(work)
    encoders.load_state_dict(state["text"])
    nn.Module.half(encoders)
    encoders.first.save_pretrained(out / "text_encoder")
    encoders.second.save_pretrained(out / "text_encoder_2")
    tokenizer.write(out / "tokenizer")
    tokenizer.write(out / "tokenizer_2", pad="!")
    write_json(out / "scheduler" / "scheduler_config.json", {**SCHEDULER, "_diffusers_version": VERSION})
    write_json(out / "model_index.json", _INDEX)
    write_settings(out, SETTINGS)
    write_card(out, _CARD)
