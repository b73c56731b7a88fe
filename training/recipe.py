"""The command of a recipe: one stage of it at a time."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping
from pathlib import Path

import torch

from training.common import pick_device


def main(package: str, about: str | None, minutes: Mapping[str, float]) -> None:
    """Parse the command, and run the stage that it names.

    Stages are modules of ``package`` with ``train``, and ``minutes`` says how long each trains unless told; its module
    ``publish`` writes the checkpoint. ``about`` is the help.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {package}", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", choices=[*minutes, "publish"])
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
        importlib.import_module(f"{package}.publish").publish(told.work, told.out)
        return
    if told.data is None:
        parser.error(f"{told.stage} needs --data")
    stage = importlib.import_module(f"{package}.{told.stage.replace('-', '_')}")
    stage.train(told.data, told.work, told.minutes or minutes[told.stage], pick_device(told.device))
