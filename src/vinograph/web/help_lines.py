"""One line of help under each control of the page, where the argument's own description is for programmers."""

from __future__ import annotations

from collections.abc import Mapping

_LINES: Mapping[str, str] = {
    "seed": "The same seed draws the same picture; empty draws a new one each time",
    "count": "Each has the next seed",
    "strength": "How much may change: low values stay close to the init image",
    "steps": "More steps take longer, and often show more detail",
    "decoder_steps": "Denoising steps of the second stage, which adds the detail",
    "guidance_scale": "How closely the picture follows the prompt; too much looks harsh",
    "decoder_guidance_scale": "The same for the second stage",
    "scheduler": "The sampler, by its name in AUTOMATIC1111, ComfyUI or diffusers",
    "decoder_scheduler": "The sampler of the second stage",
    "negative_prompt": "What should not be in the picture",
    "vae": "What turns latents into the picture: the full VAE, or a small quick one",
    "vae_tiling": "Decode in tiles, which saves memory in large pictures",
    "prompt_weighting": "How weights such as (word:1.2) in the prompt are read",
    "long_prompt": "Whether a prompt that is too long is cut off, or read in chunks",
    "hires": "Draw, enlarge by this factor, and draw from that again; 1 is off",
    "hires_steps": "Steps of the second drawing; empty: as many as of the first",
    "hires_strength": "How much the second drawing may change",
    "hires_upscaler": "What is enlarged: the picture (lanczos), or its latents",
    "resolution_binning": "Draw at the nearest size the model was trained on, then resize",
    "clean_caption": "Take addresses and markup out of the prompt",
}


def help_line(option: str, about: str) -> str:
    """The line for an option; made of its argument's description where none was written."""
    line = _LINES.get(option) or about.split(";")[0].strip()
    return line[:1].upper() + line[1:]
