"""What Würstchen's calls take, and the numbers of a manifest that they read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vinograph.families.contract import Call, Family
from vinograph.families.wuerstchen.drawing import decoder_alone, encode_alone, generate, prior_alone, reconstruct
from vinograph.families.wuerstchen.request import WuerstchenRequest
from vinograph.schema import Divisor, Many, Real, Record, SchemaError, Whole

STAGE_SCHEDULER = Record({}, {"scaler": Real(1e-3, 1e3), "s": Real(0, 10)})
"""The two numbers of a stage's cosine schedule."""


def check_config(config: Mapping[str, Any]) -> None:
    """Compare the numbers of a manifest with each other.

    Raises:
        SchemaError: naming two that do not fit.
    """
    for level in config["effnet_levels"]:
        if level >= config["decoder_level_count"]:
            raise SchemaError(f"config.effnet_levels has {level}; there are {config['decoder_level_count']} levels")


def check_scheduler(scheduler: Mapping[str, Any]) -> None:
    """Check the noise schedules of the two stages.

    Raises:
        SchemaError: naming a number that makes no sense.
    """
    Record({"prior": STAGE_SCHEDULER, "decoder": STAGE_SCHEDULER}).check("scheduler", scheduler)


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
                "prior_timesteps": None,
                "num_inference_steps": 12,
                "decoder_guidance_scale": 0.0,
                "decoder_timesteps": None,
                "image": None,
                "strength": 0.8,
                "prior_callback_on_step_end": None,
                "prior_callback_on_step_end_tensor_inputs": None,
            },
            positional=("prompt", "height", "width"),
            run=generate,
            components=_DRAWING,
            remedy=_REMEDY,
            custom_timesteps=_TIMESTEPS,
            named_timesteps=_NAMED_TIMESTEPS,
            steps="prior_num_inference_steps",
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
                "timesteps": None,
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
                "timesteps": None,
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
        "decoder_steps": "num_inference_steps",
        "decoder_guidance_scale": "decoder_guidance_scale",
    },
    config={
        "prior_channels": Whole(1, 1024),
        "prior_text_width": Whole(1, 65_536),
        "resolution_multiple": Real(1, 4096),
        "latent_mean": Divisor(),
        "latent_std": Real(-1e6, 1e6),
        "latent_channels": Whole(1, 1024),
        "latent_dim_scale": Real(0.01, 1024),
        "scale_factor": Divisor(),
        "decoder_patch_size": Whole(1, 64),
        "decoder_level_count": Whole(1, 16),
        "effnet_levels": Many(Whole(0, 15), most=16),
    },
    tokenizers=("prior_tokenizer", "tokenizer"),
    check_config=check_config,
    check_scheduler=check_scheduler,
    request=WuerstchenRequest,
)
