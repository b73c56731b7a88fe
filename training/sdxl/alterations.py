"""Altered scenes: training scenes rendered again with another sky, another colour, or both.

From pairs of a scene and its alteration, the UNet learns image to image: to change what the prompt
changes, and to leave all else.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.world import ATTRIBUTES, Scene, render
from training.world.scene import split_of

CHANGES = (("sky",), ("colour",), ("sky", "colour"))
_CHUNK = 250


def alter(scene: Scene, rng: random.Random) -> Scene:
    """A scene that differs from ``scene`` in the sky, the colour, or both."""
    values: dict[str, Any] = {
        name: rng.choice([value for value in ATTRIBUTES[name] if value != getattr(scene, name)])
        for name in rng.choice(CHANGES)
    }
    return dataclasses.replace(scene, **values)


def alter_within_training(scene: Scene, rng: random.Random) -> Scene:
    """An alteration of ``scene`` that is in the training split."""
    while split_of(altered := alter(scene, rng)) != "train":
        pass
    return altered


def _render(job: tuple[Path, int, NDArray[np.int64], NDArray[np.int64]]) -> None:
    path, start, labels, seeds = job
    images = np.load(path, mmap_mode="r+")
    for i, (row, seed) in enumerate(zip(labels, seeds, strict=True)):
        images[start + i] = render(Scene.from_labels(tuple(int(v) for v in row)), int(seed))
    images.flush()


def write(data: Path, work: Path, count: int, workers: int | None = None) -> None:
    """Render alterations of the first ``count`` training scenes, unless they are there.

    They are written to ``altered_images.npy`` and ``altered_labels.npy`` in ``work``, in the order
    of the originals.
    """
    path = work / "altered_images.npy"
    if path.exists():
        return
    work.mkdir(parents=True, exist_ok=True)
    rng = random.Random("altered/0")
    originals = np.load(data / "train_labels.npy")[:count]
    seeds = np.load(data / "train_seeds.npy")[:count]
    scenes = [alter_within_training(Scene.from_labels(tuple(int(v) for v in row)), rng) for row in originals]
    labels = np.array([scene.labels() for scene in scenes], np.int64)
    partial = work / "altered_images.partial.npy"
    np.lib.format.open_memmap(partial, "w+", np.dtype(np.uint8), (len(labels), 256, 256, 3))
    jobs = [
        (partial, start, labels[start : start + _CHUNK], seeds[start : start + _CHUNK])
        for start in range(0, len(labels), _CHUNK)
    ]
    with multiprocessing.get_context("fork").Pool(workers or max(1, (os.cpu_count() or 2) - 1)) as pool:
        for _ in pool.imap_unordered(_render, jobs):
            pass
    np.save(work / "altered_labels.npy", labels)
    partial.replace(path)
