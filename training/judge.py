"""The probe as a command, for ``vinograph benchmark``, which can't import it.

python -m training.judge prompts N         prints N held-out prompts as JSON
python -m training.judge judge N FOLDER    prints adherence of the pictures 0.npy, 1.npy, … as JSON
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from training.probe import adherence, predict
from training.world import ATTRIBUTES, Scene, caption_of, full_caption, sample, stated_attributes

OPEN: Final = ("sky", "ground", "colour", "place")
"""The attributes that a prompt of :func:`open_prompts` may leave open."""


def heldout_prompts(count: int, seed: int = 2024) -> list[tuple[Scene, str]]:
    """``count`` scenes of held-out combinations, each with a caption that states all attributes."""
    rng = random.Random(seed)
    scenes = [sample(rng, "heldout") for _ in range(count)]
    return [(scene, full_caption(scene, rng)) for scene in scenes]


def open_prompts(count: int, numbers: Sequence[int] = (1, 2), seed: int = 2025) -> list[tuple[Scene, str]]:
    """``count`` scenes of held-out combinations, each with a caption that leaves attributes open.

    How many it leaves open is one of ``numbers``, from 1 to 4. The kind and the count are always
    stated.
    """
    rng = random.Random(seed)
    prompts = []
    for _ in range(count):
        scene = sample(rng, "heldout")
        left_open = rng.sample(OPEN, rng.choice(numbers))
        prompts.append((scene, caption_of(scene, set(ATTRIBUTES) - set(left_open), rng)))
    return prompts


def main() -> None:
    """The command ``python -m training.judge``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["prompts", "judge"])
    parser.add_argument("count", type=int)
    parser.add_argument("folder", type=Path, nargs="?")
    arguments = parser.parse_args()
    prompts = [text for _, text in heldout_prompts(arguments.count)]
    if arguments.what == "prompts":
        print(json.dumps(prompts))
        return
    pictures = np.concatenate([np.load(arguments.folder / f"{index}.npy")[:1] for index in range(len(prompts))])
    mean, whole, _ = adherence(predict(pictures), [stated_attributes(text) for text in prompts])
    print(json.dumps({"prompts": len(prompts), "mean": mean, "whole": whole}))


if __name__ == "__main__":
    main()
