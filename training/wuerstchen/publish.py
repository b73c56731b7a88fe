"""Publishes the trained model in the layout of diffusers' combined Würstchen pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import CLIPTextModel

from training import tokenizer
from training.captions import load_tokenizer, text_encoder
from training.diffusers_layout import VERSION, write_card, write_json, write_model, write_settings
from training.loop import load
from training.wuerstchen.config import DECODER_TEXT, IMAGE_ENCODER, PRIOR_TEXT, SIZE, STAGE_A, STAGE_B, STAGE_C
from training.wuerstchen.stage_b import fold_embedding_scale

_LIBRARY = "wuerstchen"
_WEIGHTS = "diffusion_pytorch_model"
_INDEX: Mapping[str, Any] = {
    "_class_name": "WuerstchenCombinedPipeline",
    "_diffusers_version": VERSION,
    "decoder": [_LIBRARY, "WuerstchenDiffNeXt"],
    "prior_prior": [_LIBRARY, "WuerstchenPrior"],
    "prior_scheduler": ["diffusers", "DDPMWuerstchenScheduler"],
    "prior_text_encoder": ["transformers", "CLIPTextModel"],
    "prior_tokenizer": ["transformers", "CLIPTokenizerFast"],
    "scheduler": ["diffusers", "DDPMWuerstchenScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizerFast"],
    "vqgan": [_LIBRARY, "PaellaVQModel"],
}
_SCHEDULER: Mapping[str, Any] = {
    "_class_name": "DDPMWuerstchenScheduler",
    "_diffusers_version": VERSION,
    "s": 0.008,
    "scaler": 1.0,
}
_SIZE: Mapping[str, Any] = {"height": SIZE, "width": SIZE}
SETTINGS: Mapping[str, Any] = {
    "name": "storybook-wuerstchen",
    "defaults": {
        "generate": {
            **_SIZE,
            "prior_num_inference_steps": 30,
            "prior_guidance_scale": 3.0,
            "num_inference_steps": 12,
        },
        "prior": {**_SIZE, "num_inference_steps": 30, "guidance_scale": 3.0},
    },
    "limits": {"maximum_size": 512, "native_size": SIZE},
}
_CARD = """---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-image
---

# storybook-wuerstchen

A small Würstchen (ten million parameters in all) that draws 256×256 scenes of a picture-book world: one to three
houses, trees, boats, cars, lighthouses or cats, in eight colours, by day, at sunset, at night or in a storm, on a
meadow, in the desert, in the snow or on the sea. It was trained from nothing on scenes rendered by
`training/world`, by the recipe in `training/wuerstchen`, and draws nothing else.

`image_encoder/` is not part of the published layout: it is the small EfficientNetV2 whose embeddings the prior draws.
"""


def publish(work: Path, out: Path) -> None:
    """Write the checkpoint to ``out``: f16 safetensors, configurations, tokenizers.

    A polished Stage A takes precedence over the plain one. If ``work`` has only a Stage C that was
    continued from the checkpoint in ``out``, then that checkpoint's prior is replaced.
    """
    out.mkdir(parents=True, exist_ok=True)
    state_c = load(work / "stage_c.pt")
    write_model(out / "prior_prior", _WEIGHTS, {"_class_name": "WuerstchenPrior", **STAGE_C}, state_c["stage"])
    _write_text_encoder(work, out / "prior_text_encoder", PRIOR_TEXT, state_c["text"])
    if (work / "stage_b.pt").exists() or not (out / "decoder").exists():
        _publish_decoder(work, out)
    for prefix in ("prior_", ""):
        tokenizer.write(out / f"{prefix}tokenizer")
        write_json(out / f"{prefix}scheduler" / "scheduler_config.json", _SCHEDULER)
    write_json(out / "model_index.json", _INDEX)
    write_settings(out, SETTINGS)
    write_card(out, _CARD)


def _publish_decoder(work: Path, out: Path) -> None:
    """Write Stages A and B, the decoder's text encoder and the image encoder."""
    state_b, polished = load(work / "stage_b.pt"), work / "polish.pt"
    state_a = load(polished if polished.exists() else work / "stage_a.pt")["model"]
    config_a = {**STAGE_A, "scale_factor": float(state_b["scale"])}
    write_model(out / "vqgan", _WEIGHTS, {"_class_name": "PaellaVQModel", **config_a}, state_a)
    decoder = {"_class_name": "WuerstchenDiffNeXt", **STAGE_B}
    write_model(out / "decoder", _WEIGHTS, decoder, fold_embedding_scale(state_b["stage"]))
    write_model(out / "image_encoder", "model", IMAGE_ENCODER, load(work / "image_encoder.pt")["encoder"])
    _write_text_encoder(work, out / "text_encoder", DECODER_TEXT, state_b["text"])


def _write_text_encoder(work: Path, folder: Path, sizes: Mapping[str, int], state: Mapping[str, Tensor]) -> None:
    encoder: CLIPTextModel = text_encoder(load_tokenizer(work), **sizes)
    encoder.load_state_dict(state)
    nn.Module.half(encoder)
    encoder.save_pretrained(folder)
