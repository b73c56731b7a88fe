"""The recipe of ``storybook-sdxl``, one stage at a time.

    python -m training.sdxl vae     --data DATA --work WORK --minutes 19
    python -m training.sdxl unet    --data DATA --work WORK --minutes 86
    python -m training.sdxl polish  --data DATA --work WORK --minutes 5
    python -m training.sdxl publish --work WORK --out training/checkpoints/storybook-sdxl

The UNet needs the VAE (it first draws altered scenes, encodes all, and trains a reader of latents), the polish both.
VAE and UNet go on from their checkpoints in WORK where they were interrupted. What each took: ``docs/storybook.md``.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

import torch

from training.common import pick_device

MINUTES = {"vae": 19.0, "unet": 86.0, "polish": 5.0}


def main() -> None:
    """Parse the command, and run the stage that it names."""
    parser = argparse.ArgumentParser(
        prog="python -m training.sdxl", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", choices=[*MINUTES, "publish"])
    parser.add_argument("--data", type=Path, help="the scenes, as `python -m training.world` writes them")
    parser.add_argument("--work", type=Path, required=True, help="checkpoints and the log")
    parser.add_argument("--out", type=Path, help="publish: the checkpoint's directory")
    parser.add_argument("--minutes", type=float, help="how long to train; by default what our own model took")
    parser.add_argument("--device", default="auto", help="auto is a GPU where there is one")
    parser.add_argument("--threads", type=int, help="processor threads; never more than cores")
    told = parser.parse_args()
    if told.threads:
        torch.set_num_threads(told.threads)
    if told.stage == "publish":
        if told.out is None:
            parser.error("publish needs --out")
        importlib.import_module("training.sdxl.publish").publish(told.work, told.out)
        return
    if told.data is None:
        parser.error(f"{told.stage} needs --data")
    stage = importlib.import_module(f"training.sdxl.{told.stage.replace('-', '_')}")
    stage.train(told.data, told.work, told.minutes or MINUTES[told.stage], pick_device(told.device))


if __name__ == "__main__":
    main()
