"""PixArt checkpoints with a short name."""

from __future__ import annotations

from vinograph.families.known import Companion, KnownModel

# What the authors draw with when the model is distilled as a latent consistency model (arXiv
# 2310.04378).
CONSISTENCY_DEFAULTS = {"num_inference_steps": 4, "guidance_scale": 0.0}

# α's VAE is Stable Diffusion's, Σ's is SDXL's.
_ALPHA_TINY_VAE = Companion("tiny_vae", "madebyollin/taesd", "mit", "decodes at a small part of the full VAE's cost")
_SIGMA_TINY_VAE = Companion("tiny_vae", "madebyollin/taesdxl", "mit", "decodes at a small part of the full VAE's cost")
_LICENCE = "openrail++"
_DOWNLOAD = 21_800_000_000  # of which T5 is 19

KNOWN = (
    KnownModel(
        name="pixart-alpha",
        repository="PixArt-alpha/PixArt-XL-2-1024-MS",
        licence=_LICENCE,
        download=_DOWNLOAD,
        about="1024×1024 and 32 other aspect ratios in 20 guided steps; follows long prompts",
        companions=(_ALPHA_TINY_VAE,),
    ),
    KnownModel(
        name="pixart-alpha-lcm",
        repository="PixArt-alpha/PixArt-LCM-XL-2-1024-MS",
        licence=_LICENCE,
        download=_DOWNLOAD,
        about="the consistency model of PixArt-α: 1024×1024 in 4 steps",
        companions=(_ALPHA_TINY_VAE,),
        defaults=CONSISTENCY_DEFAULTS,
    ),
    KnownModel(
        name="pixart-alpha-512",
        repository="PixArt-alpha/PixArt-XL-2-512x512",
        licence=_LICENCE,
        download=_DOWNLOAD,
        about="PixArt-α at 512×512: a quarter of the work of each step",
        companions=(_ALPHA_TINY_VAE,),
    ),
    KnownModel(
        name="pixart-sigma",
        repository="PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",
        licence=_LICENCE,
        download=_DOWNLOAD,
        about="PixArt-α's successor: prompts of up to 300 tokens, finer detail",
        companions=(_SIGMA_TINY_VAE,),
    ),
)
