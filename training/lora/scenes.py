"""The scenes that an adapter is trained on: half show the new concept, half are ordinary ones.

The ordinary scenes keep the model from drawing the concept, or forgetting a colour, where the word
is absent.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.captions import ATTRIBUTE_DROPOUT, PER_SCENE, Captions, Tokenize
from training.lora.concept import Concept
from training.world import ATTRIBUTES, caption_and_attributes, render, sample

SCENES: Final = 320


@dataclass(frozen=True)
class Scenes:
    """Rendered scenes with captions.

    ``pictures`` are uint8 [n, 256, 256, 3], ``labels`` [n, 6] and ``seeds`` [n] those of the
    renderer. ``captions`` holds PER_SCENE texts of each scene one after the other, and the
    attributes that each states.
    """

    pictures: NDArray[np.uint8]
    labels: NDArray[np.int64]
    seeds: NDArray[np.int64]
    captions: list[tuple[str, frozenset[str]]]

    def encode_captions(self, tokenize: Tokenize) -> Captions:
        """The captions as token ids, with the empty caption."""
        shape = (len(self.labels), PER_SCENE, -1)
        ids, mask = tokenize([text for text, _ in self.captions])
        stated = torch.tensor([[name in names for name in ATTRIBUTES] for _, names in self.captions])
        empty_ids, empty_mask = tokenize([""])
        return Captions(ids.view(shape), mask.view(shape), stated.view(shape), empty_ids[0], empty_mask[0])


def load_scenes(concept: Concept, count: int = SCENES) -> Scenes:
    """Render ``count`` scenes, every other one of the concept; each call gives the same ones."""
    rng = random.Random(f"lora/{concept.word}")
    pictures, labels, seeds, captions = [], [], [], list[tuple[str, frozenset[str]]]()
    for index in range(count):
        ours, seed = index % 2 == 0, rng.getrandbits(31)
        scene = concept.sample(rng, "train") if ours else sample(rng, "train")
        write = concept.caption if ours else caption_and_attributes
        pictures.append(concept.render(scene, seed) if ours else render(scene, seed))
        captions += [write(scene, rng, dropout) for dropout in (ATTRIBUTE_DROPOUT, 0.0) * (PER_SCENE // 2)]
        labels.append(scene.labels())
        seeds.append(seed)
    return Scenes(np.stack(pictures), np.array(labels, np.int64), np.array(seeds, np.int64), captions)


def pick(count: int, scenes: int) -> Tensor:
    """Indices of ``count`` random scenes."""
    return torch.randint(0, scenes, (count,))
