"""The recipe of ``storybook-sdxl``, one stage at a time.

    python -m training.sdxl vae     --data DATA --work WORK --minutes 19
    python -m training.sdxl unet    --data DATA --work WORK --minutes 86
    python -m training.sdxl polish  --data DATA --work WORK --minutes 5
    python -m training.sdxl publish --work WORK --out training/checkpoints/storybook-sdxl

The UNet's stage needs the VAE: it renders altered scenes, encodes all, and trains a classifier of
latents. The polish needs both. VAE and UNet resume from their checkpoints in WORK after an
interruption. What each took is in ``docs/storybook.md``.
"""

from __future__ import annotations

from training import command

MINUTES = {"vae": 19.0, "unet": 86.0, "polish": 5.0}

if __name__ == "__main__":
    command.main("training.sdxl", __doc__, MINUTES)
