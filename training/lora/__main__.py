"""Teaches a picture-book model a new word, by an adapter (LoRA).

    python -m training.lora sdxl       turquoise-sdxl.safetensors
    python -m training.lora pixart     turquoise-pixart.safetensors
    python -m training.lora wuerstchen tricolour-wuerstchen.safetensors

Training starts from the published checkpoint in ``training/checkpoints`` and needs no data set: the
scenes are rendered. It resumes from its checkpoint next to OUT after an interruption.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from training.loop import pick_device
from training.lora.concept import CONCEPTS
from training.lora.train import BATCH_SIZES, train

DEFAULTS = {"sdxl": ("turquoise", 10.0), "pixart": ("turquoise", 6.0), "wuerstchen": ("tricolour", 12.0)}
"""The concept that each family learns by default, and the minutes that it takes."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The command ``python -m training.lora``."""
    parser = argparse.ArgumentParser(
        prog="python -m training.lora", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("family", choices=list(BATCH_SIZES))
    parser.add_argument("out", type=Path, help="the adapter's .safetensors file")
    parser.add_argument("--concept", choices=list(CONCEPTS), help="the word to teach")
    parser.add_argument("--minutes", type=float, help="how long to train")
    parser.add_argument("--device", default="auto", help="auto is a GPU where there is one")
    parser.add_argument("--threads", type=int, help="CPU threads; at most the number of cores")
    options = parser.parse_args(arguments)
    if options.out.suffix != ".safetensors":
        parser.error(f"OUT has to end in .safetensors, but is {options.out}")
    if options.threads:
        torch.set_num_threads(options.threads)
    word, minutes = DEFAULTS[options.family]
    concept = CONCEPTS[options.concept or word]
    train(options.family, concept, options.out, options.minutes or minutes, pick_device(options.device))


if __name__ == "__main__":
    main()
