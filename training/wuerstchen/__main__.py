"""The recipe of ``storybook-wuerstchen``, one stage at a time.

    python -m training.wuerstchen stage-a        --data DATA --work WORK --minutes 10
    python -m training.wuerstchen image-encoder  --data DATA --work WORK --minutes 11
    python -m training.wuerstchen stage-b        --data DATA --work WORK --minutes 67
    python -m training.wuerstchen stage-c        --data DATA --work WORK --minutes 79
    python -m training.wuerstchen polish         --data DATA --work WORK --minutes 4
    python -m training.wuerstchen publish        --work WORK --out training/checkpoints/storybook-wuerstchen

Stage B needs Stage A and the image encoder, Stage C the image encoder, the polish Stage B. Each stage goes on from its
checkpoint in WORK where it was interrupted. ``docs/storybook.md`` says what each took.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

import torch

from training.common import pick_device

MINUTES = {"stage-a": 10.0, "image-encoder": 11.0, "stage-b": 67.0, "stage-c": 79.0, "polish": 4.0}


def main() -> None:
    """Parse the command, and run the stage that it names."""
    parser = argparse.ArgumentParser(
        prog="python -m training.wuerstchen", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
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
        importlib.import_module("training.wuerstchen.publish").publish(told.work, told.out)
        return
    if told.data is None:
        parser.error(f"{told.stage} needs --data")
    stage = importlib.import_module(f"training.wuerstchen.{told.stage.replace('-', '_')}")
    stage.train(told.data, told.work, told.minutes or MINUTES[told.stage], pick_device(told.device))


if __name__ == "__main__":
    main()
