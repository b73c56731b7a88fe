"""The command line of a recipe, which trains one stage at a time or publishes the result."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping
from pathlib import Path

import torch

from training.loop import pick_device


def main(package: str, about: str | None, minutes: Mapping[str, float]) -> None:
    """Parse the command line and run the stage that it names.

    A stage is a module of ``package`` with a function ``train``, and ``minutes`` has the default
    budget of each. The module ``publish`` of the package writes the checkpoint. ``about`` is the
    help text.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {package}", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", choices=[*minutes, "publish"])
    parser.add_argument("--data", type=Path, help="the data set that `python -m training.world` wrote")
    parser.add_argument("--work", type=Path, required=True, help="folder of the stages' checkpoints and the log")
    parser.add_argument("--out", type=Path, help="publish: directory of the published checkpoint")
    parser.add_argument("--minutes", type=float, help="how long to train; default: as long as the embedded model did")
    parser.add_argument("--device", default="auto", help="auto is a GPU where there is one")
    parser.add_argument("--threads", type=int, help="CPU threads; at most the number of cores")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.stage == "publish":
        if options.out is None:
            parser.error("publish needs --out")
        importlib.import_module(f"{package}.publish").publish(options.work, options.out)
        return
    if options.data is None:
        parser.error(f"{options.stage} needs --data")
    stage = importlib.import_module(f"{package}.{options.stage.replace('-', '_')}")
    stage.train(options.data, options.work, options.minutes or minutes[options.stage], pick_device(options.device))
