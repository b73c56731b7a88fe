"""Publishes the trained model as two checkpoints in the layout of diffusers' PixArt-α pipeline."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from training.diffusers_layout import VERSION, write_card, write_json, write_model, write_settings
from training.loop import load
from training.pixart.config import LCM_SCHEDULER, SCHEDULER, SIZE, TRANSFORMER
from training.pixart.text import text_encoder
from training.sdxl.config import VAE

_WEIGHTS = "diffusion_pytorch_model"
_INDEX: Mapping[str, Any] = {
    "_class_name": "PixArtAlphaPipeline",
    "_diffusers_version": VERSION,
    "text_encoder": ["transformers", "T5EncoderModel"],
    "tokenizer": ["transformers", "T5Tokenizer"],
    "transformer": ["diffusers", "PixArtTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderTiny"],
}
_LIMITS: Mapping[str, int] = {"maximum_size": 512, "native_size": SIZE}
_CARD = """---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-image
---

# {name}

A small PixArt-α (five million parameters in all) that draws scenes of a picture-book world, 256×256, wider or taller:
one to three houses, trees, boats, cars, lighthouses or cats, in eight colours, by day, at sunset, at night or in a
storm, on a meadow, in the desert, in the snow or on the sea. It was trained from nothing on scenes rendered by
`training/world`, by the recipe in `training/pixart`, and draws nothing else.

{about}
"""
_ABOUT = "It takes about twenty steps. `storybook-pixart-lcm` draws in four."
_ABOUT_LCM = (
    "It is the consistency model of `storybook-pixart`, and draws in two to eight steps, without guidance or\n"
    "negative prompts."
)


def publish(work: Path, out: Path) -> None:
    """Write the checkpoints from ``work``: f16 safetensors, configurations, and the tokenizer.

    The diffusion model is written to the directory ``out``. Its consistency model, if it is
    trained, is written to the directory ``<out>-lcm`` next to it. A polished VAE takes precedence
    over the plain one.
    """
    state = load(work / "transformer.pt")
    defaults = {"num_inference_steps": 20, "guidance_scale": 3.0}
    _write(work, out, state, SCHEDULER, _ABOUT, defaults)
    if (work / "consistency.pt").exists():
        lcm = {**state, "transformer": load(work / "consistency.pt")["transformer"]}
        defaults = {"num_inference_steps": 4, "guidance_scale": 0.0}
        _write(work, out.with_name(f"{out.name}-lcm"), lcm, LCM_SCHEDULER, _ABOUT_LCM, defaults)


def _write(
    work: Path,
    out: Path,
    state: Mapping[str, Mapping[str, Tensor]],
    scheduler: Mapping[str, Any],
    about: str,
    defaults: Mapping[str, Any],
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    polished = work / "polish.pt"
    vae = load(polished if polished.exists() else work / "vae.pt")["model"]
    write_model(out / "vae", _WEIGHTS, {"_class_name": "AutoencoderTiny", "_diffusers_version": VERSION, **VAE}, vae)
    config = {"_class_name": "PixArtTransformer2DModel", "_diffusers_version": VERSION, **TRANSFORMER}
    write_model(out / "transformer", _WEIGHTS, config, state["transformer"])
    encoder = text_encoder(work)
    encoder.load_state_dict(state["text"])
    nn.Module.half(encoder)
    encoder.model.save_pretrained(out / "text_encoder")
    shutil.copytree(work / "tokenizer", out / "tokenizer", dirs_exist_ok=True)
    write_json(out / "scheduler" / "scheduler_config.json", {**scheduler, "_diffusers_version": VERSION})
    write_json(out / "model_index.json", {**_INDEX, "scheduler": ["diffusers", scheduler["_class_name"]]})
    sizes = {"height": SIZE, "width": SIZE}
    write_settings(
        out,
        {"name": out.name, "defaults": {"generate": {**sizes, **defaults, "strength": 0.6}}, "limits": dict(_LIMITS)},
    )
    write_card(out, _CARD.format(name=out.name, about=about))
