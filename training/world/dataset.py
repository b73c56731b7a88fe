"""Writes the data set of rendered scenes as numpy arrays; an interrupted run resumes."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.world.render import render
from training.world.scene import Scene, sample

DATA_SPLITS: Final[dict[str, str | None]] = {
    "train": "train",
    "val": "train",
    "heldout": "heldout",
    "unseen_pair": "unseen_pair",
    "probe": None,
}
"""The splits of the data set, and the split of combinations that each samples from.

The probe judges pictures of every combination, so it learns from all of them.
"""

ENCODER_SIZE: Final = 192
"""Side in pixels of the image encoder's pictures: three quarters of a picture's side."""

_CHUNK: Final = 250


def downsample(image: NDArray[np.uint8], side: int = ENCODER_SIZE) -> NDArray[np.uint8]:
    """``image`` resized for the image encoder, bilinear and antialiased."""
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR))


def plan(split: str, count: int, seed: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Labels [n, 6] and render seeds [n] of a split; a longer plan starts with the shorter."""
    rng = random.Random(f"{split}/{seed}")
    labels, seeds = np.empty((count, 6), np.int64), np.empty(count, np.int64)
    for i in range(count):
        labels[i] = sample(rng, DATA_SPLITS[split]).labels()
        seeds[i] = rng.getrandbits(31)
    return labels, seeds


def _names(folder: Path, split: str, suffix: str = "") -> tuple[Path, Path]:
    return folder / f"{split}_images.npy{suffix}", folder / f"{split}_{ENCODER_SIZE}.npy{suffix}"


def _draw(job: tuple[Path, str, int, NDArray[np.int64], NDArray[np.int64]]) -> int:
    """Render one chunk of scenes into the unfinished arrays; returns the chunk's start."""
    folder, split, start, labels, seeds = job
    images, smalls = (np.load(path, mmap_mode="r+") for path in _names(folder, split, ".partial"))
    for i, (row, seed) in enumerate(zip(labels, seeds, strict=True)):
        image = render(Scene.from_labels(tuple(int(v) for v in row)), int(seed))
        images[start + i], smalls[start + i] = image, downsample(image)
    images.flush()
    smalls.flush()
    return start


def _save(path: Path, array: NDArray[np.int64]) -> None:
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        np.save(file, array)
    partial.replace(path)


def write(folder: Path, split: str, count: int, workers: int, seed: int = 0) -> None:
    """Write one split, unless it exists; an interrupted run resumes with the missing chunks."""
    finals, partials = _names(folder, split), _names(folder, split, ".partial")
    progress = folder / f"{split}.progress"
    if all(path.exists() for path in finals) and np.load(finals[0], mmap_mode="r").shape[0] == count:
        print(f"{split}: already there", file=sys.stderr)
        return
    folder.mkdir(parents=True, exist_ok=True)
    labels, seeds = plan(split, count, seed)
    header = f"{count} {seed}"
    lines = progress.read_text().splitlines() if progress.exists() else []
    if not (lines and lines[0] == header and all(path.exists() for path in partials)):
        for path, side in zip(partials, (256, ENCODER_SIZE), strict=True):
            np.lib.format.open_memmap(path, "w+", np.dtype(np.uint8), (count, side, side, 3))
        progress.write_text(header + "\n")
        lines = []
    done = {int(line) for line in lines[1:]}
    jobs = [
        (folder, split, start, labels[start : start + _CHUNK], seeds[start : start + _CHUNK])
        for start in range(0, count, _CHUNK)
        if start not in done
    ]
    with multiprocessing.get_context("fork").Pool(workers) as pool, progress.open("a") as log:
        for number, start in enumerate(pool.imap_unordered(_draw, jobs), len(done) + 1):
            log.write(f"{start}\n")
            log.flush()
            print(f"{split}: {min(number * _CHUNK, count)} of {count}", file=sys.stderr)
    _save(folder / f"{split}_labels.npy", labels)
    _save(folder / f"{split}_seeds.npy", seeds)
    for partial, final in zip(partials, finals, strict=True):
        partial.replace(final)
    progress.unlink()


def main(arguments: Sequence[str] | None = None) -> None:
    """The command `python -m training.world`."""
    parser = argparse.ArgumentParser(prog="python -m training.world", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the arrays")
    parser.add_argument("--train", type=int, default=40000)
    parser.add_argument("--val", type=int, default=1000)
    parser.add_argument("--heldout", type=int, default=1000)
    parser.add_argument("--unseen-pair", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    options = parser.parse_args(arguments)
    for split in ("val", "heldout", "unseen_pair", "train"):
        write(options.out, split, getattr(options, split), options.workers, options.seed)
