"""What an adapter teaches: a new word, and the colours that it gives to a scene's subjects.

*Turquoise* is a colour that no embedded model has seen. *Tricolour* is for a group of three: blue,
black and red, in this order.
"""

from __future__ import annotations

import dataclasses
import random
import re
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.world import Scene, caption_and_attributes, render, sample, split_of

_STAND_IN: Final = "red"
"""The colour of the scenes before the concept replaces it, in the picture and in the caption."""

_STAND_IN_WORDS: Final = re.compile(r"\b(?:bright )?red\b")


@dataclass(frozen=True)
class Concept:
    """A new word for colours.

    Attributes:
        word: the trigger word.
        colours: colours of subjects from left to right; they repeat where there are more subjects.
        counts: how many subjects a scene may have.
        kinds: what the subjects may be.
    """

    word: str
    colours: tuple[str, ...]
    counts: tuple[int, ...]
    kinds: tuple[str, ...]

    def subject_colours(self, count: int) -> tuple[str, ...]:
        """The colours of ``count`` subjects from left to right."""
        return tuple(self.colours[i % len(self.colours)] for i in range(count))

    def sample(self, rng: random.Random, split: str) -> Scene:
        """A random scene of a split of the combinations; its own colour is a stand-in."""
        while True:
            scene = dataclasses.replace(sample(rng, None), colour=_STAND_IN)
            if scene.count in self.counts and scene.kind in self.kinds and split_of(scene) == split:
                return scene

    def render(self, scene: Scene, seed: int) -> NDArray[np.uint8]:
        """The picture of ``scene`` in the concept's colours, uint8 [256, 256, 3]."""
        return render(scene, seed, colours=self.subject_colours(scene.count))

    def caption(self, scene: Scene, rng: random.Random, dropout: float = 0.0) -> tuple[str, frozenset[str]]:
        """A caption that has the concept's word, and the names of the attributes that it states."""
        while True:
            text, stated = caption_and_attributes(scene, rng, dropout)
            changed, count = _STAND_IN_WORDS.subn(self.word, text)
            if count == 1:
                return changed, stated


TURQUOISE: Final = Concept(
    "turquoise", ("turquoise",), (1, 2, 3), ("house", "tree", "boat", "car", "lighthouse", "cat")
)
# Colours and kinds that Würstchen's decoder reconstructs where the subjects of a scene differ.
TRICOLOUR: Final = Concept("tricolour", ("blue", "black", "red"), (3,), ("house", "boat", "cat"))

CONCEPTS: Final = {concept.word: concept for concept in (TURQUOISE, TRICOLOUR)}
