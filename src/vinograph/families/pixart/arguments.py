"""The calls of PixArt, and the arguments that they take."""

from __future__ import annotations

from vinograph import schedulers
from vinograph.families.contract import Call, DenoisingStage, Family
from vinograph.families.evaluation_request import EVALUATION_OPTIONS, EXTRAPOLATION, GUIDANCE_INTERVAL, SPEED
from vinograph.families.hires import with_hires
from vinograph.families.latent_request import HIRES, HIRES_OPTIONS
from vinograph.families.pixart.config import PixArtConfig
from vinograph.families.pixart.drawing import generate
from vinograph.families.pixart.known import FEW_STEP_MODELS, SPEEDS
from vinograph.families.pixart.request import PixArtRequest
from vinograph.families.vae_calls import VAE_CALLS

_EMBEDDINGS = (
    *("prompt_embeds", "prompt_attention_mask"),
    *("negative_prompt_embeds", "negative_prompt_attention_mask"),
)

FAMILY = Family(
    name="pixart",
    title="PixArt",
    calls={
        "generate": Call(
            about="draw pictures from a text; with image, from a picture",
            takes={
                "prompt": None,
                "negative_prompt": "",
                "num_inference_steps": 20,
                "scheduler": None,
                "timesteps": None,
                "sigmas": None,
                "guidance_scale": 4.5,
                "num_images_per_prompt": 1,
                "height": 1024,
                "width": 1024,
                "eta": 0.0,
                **dict.fromkeys(("seed", "generator", "latents", *_EMBEDDINGS)),
                "prompt_weighting": "none",
                "image": None,
                "strength": 0.6,
                **SPEED,
                **GUIDANCE_INTERVAL,
                **EXTRAPOLATION,
                **HIRES,
                "vae": None,
                "vae_tiling": "auto",
                "output_type": "pil",
                "callback": None,
                "callback_steps": 1,
                "clean_caption": True,
                "use_resolution_binning": True,
                "max_sequence_length": 120,
            },
            positional=(
                *("prompt", "negative_prompt", "num_inference_steps", "timesteps", "sigmas", "guidance_scale"),
                *("num_images_per_prompt", "height", "width", "eta", "generator", "latents", *_EMBEDDINGS),
                *("output_type", "return_dict", "callback", "callback_steps"),
                *("clean_caption", "use_resolution_binning", "max_sequence_length"),
            ),
            # At the larger size, binning would lead back to the size that was drawn first.
            presets={"speed": SPEEDS},
            run=with_hires(generate, second=[("use_resolution_binning", False)]),
            components=("text_encoder", "transformer"),
            any_size_with="use_resolution_binning",
            steps="num_inference_steps",
            choices={"scheduler": schedulers.names()},
        ),
        **VAE_CALLS,
    },
    options={
        "steps": "num_inference_steps",
        "guidance_scale": "guidance_scale",
        "scheduler": "scheduler",
        "vae": "vae",
        "prompt_weighting": "prompt_weighting",
        "vae_tiling": "vae_tiling",
        **EVALUATION_OPTIONS,
        **HIRES_OPTIONS,
        "resolution_binning": "use_resolution_binning",
        "clean_caption": "clean_caption",
    },
    read_config=PixArtConfig.from_manifest,
    denoising=(DenoisingStage("transformer", "num_inference_steps", "guidance_scale"),),
    tokenizers=("tokenizer",),
    few_step=FEW_STEP_MODELS,
    request=PixArtRequest,
)
