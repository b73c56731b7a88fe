"""The probe as a command, for what can't import it: ``vinograph benchmark``.

python -m training.judge prompts N           held-out prompts, as JSON
python -m training.judge judge N FOLDER      adherence of the pictures 0.npy, 1.npy, … of those prompts, as JSON
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
    """Scenes of held-out combinations, each with a caption that states all six attributes."""
    rng = random.Random(seed)
    scenes = [sample(rng, "heldout") for _ in range(count)]
    return [(scene, full_caption(scene, rng)) for scene in scenes]


def main() -> None:
    """Print what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["prompts", "judge"])
    parser.add_argument("count", type=int)
    parser.add_argument("folder", type=Path, nargs="?")
    arguments = parser.parse_args()
    asked = [text for _, text in heldout_prompts(arguments.count)]
    if arguments.what == "prompts":
        print(json.dumps(asked))
        return
    pictures = np.concatenate([np.load(arguments.folder / f"{index}.npy")[:1] for index in range(len(asked))])
    mean, whole, _ = adherence(predict(pictures), [stated_attributes(text) for text in asked])
    print(json.dumps({"prompts": len(asked), "mean": mean, "whole": whole}))


if __name__ == "__main__":
    main()
