"""The recipe of ``storybook-pixart`` and its consistency model, one stage at a time.

    python -m training.sdxl vae           --data DATA --work WORK --minutes 19
    python -m training.pixart transformer --data DATA --work WORK --minutes 78
    python -m training.pixart consistency --data DATA --work WORK --minutes 12
    python -m training.pixart polish      --data DATA --work WORK --minutes 5
    python -m training.pixart publish     --work WORK --out training/checkpoints/storybook-pixart

The VAE is that of ``storybook-sdxl``, as PixArt's own is that of Stable Diffusion, so the first
stage is that recipe's. The transformer's stage needs it: it renders scenes in other frames, encodes
all, and trains a classifier of latents. The consistency model and the polish need the transformer.
Every stage but the polish resumes from its checkpoint in WORK after an interruption. What each took
is in ``docs/storybook.md``.
"""

from __future__ import annotations

from training import command

MINUTES = {"transformer": 78.0, "consistency": 12.0, "polish": 5.0}

if __name__ == "__main__":
    command.main("training.pixart", __doc__, MINUTES)
