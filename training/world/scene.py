"""A picture-book scene: its six attributes, and which of their combinations are trained on."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from typing import Final

ATTRIBUTES: Final[dict[str, tuple[str, ...]]] = {
    "sky": ("day", "sunset", "night", "storm"),
    "ground": ("meadow", "desert", "snow", "sea"),
    "kind": ("house", "tree", "boat", "car", "lighthouse", "cat"),
    "colour": ("red", "blue", "green", "yellow", "purple", "orange", "white", "black"),
    "count": ("1", "2", "3"),
    "place": ("left", "middle", "right"),
}
"""The values of every attribute, in the order of a label vector."""

UNSEEN_PAIRS: Final = frozenset({("house", "purple"), ("tree", "blue"), ("cat", "yellow"), ("car", "orange")})
"""Pairs of kind and colour that no training picture shows."""

SPLITS: Final = ("train", "heldout", "unseen_pair")


@dataclass(frozen=True, slots=True)
class Scene:
    """One scene; every field is a value of ``ATTRIBUTES``, but ``count`` as a number."""

    sky: str
    ground: str
    kind: str
    colour: str
    count: int
    place: str

    def __post_init__(self) -> None:
        for (name, values), value in zip(ATTRIBUTES.items(), self.values, strict=True):
            if str(value) not in values:
                raise ValueError(f"{name} can't be {value!r}; it is one of {', '.join(values)}")

    @property
    def values(self) -> tuple[str | int, ...]:
        """Its fields; ``dataclasses.astuple`` copies each deeply, which takes longer than all else about a scene."""
        return self.sky, self.ground, self.kind, self.colour, self.count, self.place

    def labels(self) -> tuple[int, ...]:
        """The label vector: indices into the values of ``ATTRIBUTES``, in their order."""
        values = zip(ATTRIBUTES.values(), self.values, strict=True)
        return tuple(options.index(str(value)) for options, value in values)

    @classmethod
    def from_labels(cls, labels: tuple[int, ...]) -> Scene:
        """The scene of a label vector, the inverse of :meth:`labels`."""
        sky, ground, kind, colour, count, place = (
            options[index] for options, index in zip(ATTRIBUTES.values(), labels, strict=True)
        )
        return cls(sky, ground, kind, colour, int(count), place)


def split_of(scene: Scene) -> str:
    """A scene's split: ``unseen_pair``, ``heldout`` (a tenth of the others) or ``train``."""
    if (scene.kind, scene.colour) in UNSEEN_PAIRS:
        return "unseen_pair"
    key = "/".join(str(value) for value in scene.values)
    return "heldout" if int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) % 10 == 0 else "train"


def sample(rng: random.Random, split: str | None = "train") -> Scene:
    """A uniformly random scene of ``split``, or of all combinations if it is None."""
    if split is not None and split not in SPLITS:
        raise ValueError(f"no split {split!r}; there are {', '.join(SPLITS)}")
    while True:
        scene = Scene.from_labels(tuple(rng.randrange(len(values)) for values in ATTRIBUTES.values()))
        if split is None or split_of(scene) == split:
            return scene
