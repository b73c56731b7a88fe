"""`python -m training.wuerstchen COMMAND`: the recipe of `storybook-wuerstchen`, one stage at a time."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from training.common import pick_device


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.wuerstchen")
    parser.add_argument("command")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int)
    o = parser.parse_args()
    if o.threads:
        torch.set_num_threads(o.threads)
    import importlib

    importlib.import_module(f"training.wuerstchen.{o.command.replace('-', '_')}").train(
        o.data, o.work, o.minutes, pick_device(o.device)
    )


main()
