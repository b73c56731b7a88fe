"""The recipe of ``storybook-pixart`` and its consistency model, one stage at a time.

    python -m training.sdxl vae           --data DATA --work WORK --minutes 19
    python -m training.pixart transformer --data DATA --work WORK --minutes 78
    python -m training.pixart consistency --data DATA --work WORK --minutes 12
    python -m training.pixart polish      --data DATA --work WORK --minutes 5
    python -m training.pixart publish     --work WORK --out training/checkpoints/storybook-pixart

The autoencoder is that of ``storybook-sdxl``, as PixArt's is that of another model; the first stage is the same. The
transformer needs it (it first draws scenes in other frames, encodes all, and trains a reader of latents), the last two
need the transformer. Each goes on from its checkpoint in WORK where it was interrupted, but for the polish. What
each took: ``docs/storybook.md``.
"""

from __future__ import annotations

from training import recipe

MINUTES = {"transformer": 78.0, "consistency": 12.0, "polish": 5.0}

if __name__ == "__main__":
    recipe.main("training.pixart", __doc__, MINUTES)
