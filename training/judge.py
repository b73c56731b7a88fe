"""The probe as a command, for ``vinograph benchmark``, which can't import it.

python -m training.judge prompts N         prints N held-out prompts as JSON
python -m training.judge judge N FOLDER    prints adherence of the pictures 0.npy, 1.npy, … as JSON
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import numpy as np

from training.probe import adherence, predict
from training.world import Scene, full_caption, sample, stated_attributes


def heldout_prompts(count: int, seed: int = 2024) -> list[tuple[Scene, str]]:
    """``count`` scenes of held-out combinations, each with a caption that states all attributes."""
    rng = random.Random(seed)
    scenes = [sample(rng, "heldout") for _ in range(count)]
    return [(scene, full_caption(scene, rng)) for scene in scenes]


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
