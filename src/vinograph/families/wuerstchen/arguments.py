"""The calls of Würstchen, and the arguments that they take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vinograph.families.contract import Call, DenoisingStage, Family
from vinograph.families.evaluation_request import EVALUATION_OPTIONS, EXTRAPOLATION, GUIDANCE_INTERVAL, SPEED
from vinograph.families.wuerstchen.config import WuerstchenConfig
from vinograph.families.wuerstchen.drawing import decoder_alone, encode_alone, generate, prior_alone, reconstruct
from vinograph.families.wuerstchen.known import SPEEDS
from vinograph.families.wuerstchen.request import WuerstchenRequest
from vinograph.schedulers import continuous_names

_COMMON: Mapping[str, Any] = {
    "num_images_per_prompt": 1,
    "seed": None,
    "generator": None,
    "output_type": "pil",
    "callback_on_step_end": None,
    "callback_on_step_end_tensor_inputs": None,
}
_TEXT: Mapping[str, Any] = {"prompt": None, "negative_prompt": None, "latents": None}
_EMBEDS: Mapping[str, Any] = {"prompt_embeds": None, "negative_prompt_embeds": None}
_TIMESTEPS = "a falling list of times in [0, 1]"
_NAMED_TIMESTEPS = ("spaced",)
_REMEDY = "convert the model again with all of its components (an image encoder comes with --image-encoder FILE)"
_STAGES = ("decoder", "vqgan", "text_encoder")
_DRAWING = ("prior", "prior_text", "prior_text_encoder", *_STAGES)

FAMILY = Family(
    name="wuerstchen",
    title="Würstchen",
    calls={
        "generate": Call(
            about="draw pictures from a text; with image, from a picture",
            takes={
                **_COMMON,
                **_TEXT,
                **_EMBEDS,
                "height": 512,
                "width": 512,
                "prior_num_inference_steps": 60,
                "prior_guidance_scale": 4.0,
                "scheduler": None,
                "prior_timesteps": None,
                "num_inference_steps": 12,
                "decoder_guidance_scale": 0.0,
                "decoder_scheduler": None,
                "decoder_timesteps": None,
                **SPEED,
                **GUIDANCE_INTERVAL,
                **EXTRAPOLATION,
                "image": None,
                "strength": 0.8,
                "prior_callback_on_step_end": None,
                "prior_callback_on_step_end_tensor_inputs": None,
            },
            positional=("prompt", "height", "width"),
            presets={"speed": SPEEDS},
            run=generate,
            components=_DRAWING,
            remedy=_REMEDY,
            custom_timesteps=_TIMESTEPS,
            named_timesteps=_NAMED_TIMESTEPS,
            steps="prior_num_inference_steps",
            choices=dict.fromkeys(("scheduler", "decoder_scheduler"), continuous_names()),
        ),
        "prior": Call(
            about="draw image embeddings from a text",
            takes={
                **_COMMON,
                **_TEXT,
                **_EMBEDS,
                "height": 1024,
                "width": 1024,
                "num_inference_steps": 60,
                "guidance_scale": 8.0,
                "scheduler": None,
                "timesteps": None,
                **GUIDANCE_INTERVAL,
                **EXTRAPOLATION,
            },
            positional=("prompt", "height", "width", "num_inference_steps"),
            run=prior_alone,
            components=("prior", "prior_text", "prior_text_encoder"),
            remedy=_REMEDY,
            custom_timesteps=_TIMESTEPS,
            named_timesteps=_NAMED_TIMESTEPS,
        ),
        "decoder": Call(
            about="draw pictures from image embeddings",
            takes={
                **_COMMON,
                **_TEXT,
                "image_embeddings": None,
                "num_inference_steps": 12,
                "guidance_scale": 0.0,
                "decoder_scheduler": None,
                "timesteps": None,
                **GUIDANCE_INTERVAL,
            },
            positional=("image_embeddings", "prompt", "num_inference_steps"),
            run=decoder_alone,
            components=_STAGES,
            remedy=_REMEDY,
            custom_timesteps=_TIMESTEPS,
            named_timesteps=_NAMED_TIMESTEPS,
        ),
        "encode": Call(
            about="encode a picture to what the model decodes: image embeddings, or latents",
            takes={"image": None, "height": None, "width": None},
            positional=("image",),
            run=encode_alone,
            components=("image_encoder",),
            remedy=_REMEDY,
        ),
        "reconstruct": Call(
            about="encode a picture and decode it again",
            takes={
                **_COMMON,
                "image": None,
                "height": None,
                "width": None,
                "num_inference_steps": 12,
                "decoder_scheduler": None,
                "timesteps": None,
            },
            positional=("image",),
            run=reconstruct,
            components=("image_encoder", *_STAGES),
            remedy=_REMEDY,
            custom_timesteps=_TIMESTEPS,
            named_timesteps=_NAMED_TIMESTEPS,
        ),
    },
    options={
        "steps": "prior_num_inference_steps",
        "guidance_scale": "prior_guidance_scale",
        "scheduler": "scheduler",
        "decoder_scheduler": "decoder_scheduler",
        "decoder_steps": "num_inference_steps",
        "decoder_guidance_scale": "decoder_guidance_scale",
        **EVALUATION_OPTIONS,
    },
    read_config=WuerstchenConfig.from_manifest,
    denoising=(
        DenoisingStage("prior", "prior_num_inference_steps", "prior_guidance_scale"),
        DenoisingStage("decoder", "num_inference_steps", "decoder_guidance_scale", extrapolated=False),
    ),
    tokenizers=("prior_tokenizer", "tokenizer"),
    request=WuerstchenRequest,
)
