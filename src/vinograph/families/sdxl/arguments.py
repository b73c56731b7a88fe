"""The calls of SDXL, and the arguments that they take."""

from __future__ import annotations

from vinograph import schedulers
from vinograph.families.contract import Call, DenoisingStage, Family, WordEmbeddings
from vinograph.families.evaluation_request import EVALUATION_OPTIONS, EXTRAPOLATION, GUIDANCE_INTERVAL, SPEED
from vinograph.families.hires import with_hires
from vinograph.families.latent_request import HIRES, HIRES_OPTIONS
from vinograph.families.outpainting import with_extension
from vinograph.families.sdxl.conditioning import CALLBACK_TENSORS
from vinograph.families.sdxl.config import SDXLConfig
from vinograph.families.sdxl.drawing import generate
from vinograph.families.sdxl.known import FEW_STEP_MODELS, SPEEDS
from vinograph.families.sdxl.request import SDXLRequest
from vinograph.families.vae_calls import VAE_CALLS

_EMBEDDINGS = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
_SIZES = ("original_size", "target_size", "negative_original_size", "negative_target_size")

FAMILY = Family(
    name="sdxl",
    title="SDXL",
    calls={
        "generate": Call(
            about="draw pictures from a text; with image, from a picture",
            takes={
                **dict.fromkeys(("prompt", "prompt_2", "negative_prompt", "negative_prompt_2"), None),
                "height": 1024,
                "width": 1024,
                "num_inference_steps": 50,
                **dict.fromkeys(("scheduler", "timesteps", "sigmas", "denoising_start", "denoising_end"), None),
                "guidance_scale": 5.0,
                "guidance_rescale": 0.0,
                "num_images_per_prompt": 1,
                "eta": 0.0,
                **dict.fromkeys(("seed", "generator", "latents", *_EMBEDDINGS, *_SIZES, "clip_skip"), None),
                "crops_coords_top_left": (0, 0),
                "negative_crops_coords_top_left": (0, 0),
                "prompt_weighting": "none",
                "long_prompt": "truncate",
                "image": None,
                "mask_image": None,
                "padding_mask_crop": None,
                "extend": None,
                "strength": 0.3,
                **SPEED,
                **GUIDANCE_INTERVAL,
                **EXTRAPOLATION,
                **HIRES,
                "vae": None,
                "vae_tiling": "auto",
                "output_type": "pil",
                "callback_on_step_end": None,
                "callback_on_step_end_tensor_inputs": None,
            },
            positional=(
                *("prompt", "prompt_2", "height", "width", "num_inference_steps", "timesteps", "sigmas"),
                *("denoising_end", "guidance_scale", "negative_prompt", "negative_prompt_2", "num_images_per_prompt"),
                *("eta", "generator", "latents", *_EMBEDDINGS),
            ),
            presets={"speed": SPEEDS},
            run=with_hires(with_extension(generate), excludes=["denoising_end"]),
            components=("text_encoder", "text_encoder_2", "unet"),
            conditional_defaults={
                "extend": {"strength": 0.85},
                "mask_image": {"strength": 0.9999, "guidance_scale": 7.5},
            },
            callback_tensors=("latents", *CALLBACK_TENSORS),
            steps="num_inference_steps",
            choices={"scheduler": schedulers.names()},
        ),
        **VAE_CALLS,
    },
    options={
        "steps": "num_inference_steps",
        "guidance_scale": "guidance_scale",
        "mask": "mask_image",
        "extend": "extend",
        "scheduler": "scheduler",
        "vae": "vae",
        "prompt_weighting": "prompt_weighting",
        "long_prompt": "long_prompt",
        "vae_tiling": "vae_tiling",
        **EVALUATION_OPTIONS,
        **HIRES_OPTIONS,
    },
    read_config=SDXLConfig.from_manifest,
    denoising=(DenoisingStage("unet", "num_inference_steps", "guidance_scale"),),
    tokenizers=("tokenizer", "tokenizer_2"),
    word_embeddings=(
        WordEmbeddings("clip_l", "text_encoder", "tokenizer"),
        WordEmbeddings("clip_g", "text_encoder_2", "tokenizer_2"),
    ),
    few_step=FEW_STEP_MODELS,
    request=SDXLRequest,
)
