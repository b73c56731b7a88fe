"""The recipe of ``storybook-sdxl``, one stage at a time.

    python -m training.sdxl vae     --data DATA --work WORK --minutes 19
    python -m training.sdxl unet    --data DATA --work WORK --minutes 86
    python -m training.sdxl polish  --data DATA --work WORK --minutes 5
    python -m training.sdxl publish --work WORK --out training/checkpoints/storybook-sdxl

The UNet needs the VAE (it first draws altered scenes, encodes all, and trains a reader of latents), the polish both.
VAE and UNet go on from their checkpoints in WORK where they were interrupted. What each took: ``docs/storybook.md``.
"""

from __future__ import annotations

from training import recipe

MINUTES = {"vae": 19.0, "unet": 86.0, "polish": 5.0}

if __name__ == "__main__":
    recipe.main("training.sdxl", __doc__, MINUTES)
