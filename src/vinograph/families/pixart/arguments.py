"""What PixArt's calls take, and the numbers of a manifest that they read."""

from __future__ import annotations

from vinograph.families.checks import AUTOENCODERS, check_sampler, check_vaes
from vinograph.families.contract import Call, Family
from vinograph.families.latent import SOURCE, encode_alone, reconstruct
from vinograph.families.pixart.drawing import generate
from vinograph.families.pixart.request import PixArtRequest
from vinograph.schema import Whole

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
                "timesteps": None,
                "sigmas": None,
                "guidance_scale": 4.5,
                "num_images_per_prompt": 1,
                "height": 1024,
                "width": 1024,
                "eta": 0.0,
                **dict.fromkeys(("seed", "generator", "latents", *_EMBEDDINGS)),
                "image": None,
                "strength": 0.6,
                "vae": None,
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
            run=generate,
            components=("text_encoder", "transformer"),
            any_size_with="use_resolution_binning",
            steps="num_inference_steps",
        ),
        "encode": Call(
            about="encode a picture to what the model decodes: image embeddings, or latents",
            takes=SOURCE,
            positional=("image",),
            run=encode_alone,
        ),
        "reconstruct": Call(
            about="encode a picture and decode it again",
            takes={**SOURCE, "output_type": "pil"},
            positional=("image",),
            run=reconstruct,
            output_types=("pil", "np"),
        ),
    },
    options={
        "steps": "num_inference_steps",
        "guidance_scale": "guidance_scale",
        "vae": "vae",
        "resolution_binning": "use_resolution_binning",
        "clean_caption": "clean_caption",
    },
    config={
        **AUTOENCODERS,
        "text_width": Whole(1, 65_536),
        "text_length": Whole(1, 512),
        "out_channels": Whole(1, 128),
        "sample_size": Whole(1, 8192),
        "size_conditions": Whole(0, 1),
    },
    tokenizers=("tokenizer",),
    check_config=check_vaes,
    check_scheduler=check_sampler,
    request=PixArtRequest,
)
