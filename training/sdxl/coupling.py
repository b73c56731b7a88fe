"""Noise that says what a caption leaves open.

A one-step model turns noise and a prompt into a picture at once. Where pictures and noise are paired at random, the
picture of least error is the mean of all that the prompt allows: a blur. So each training picture is paired with noise
that determines what its caption leaves open (on which side the sun stands, how far the clouds have drifted, which
colour where none is said). Some directions of noise space are set aside, one for each open question; the component
along it is set to a quantile of the answer. As answers are evenly spread and their quantiles normal, the noise remains
standard normal: any seed means a picture. It is a coupling of noise and data as in Pooladian et al., 2023
(arXiv 2304.14772), known here exactly, since we drew the pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.world import ATTRIBUTES
from training.world.render import Chance

ANSWERS = 16
"""Open questions: ten of chance, and the six attributes where the caption doesn't tell."""

PERIOD = 2
"""A direction is one channel's entries at one offset within every square of this side: four channels have sixteen.

It has no place, and a mean over all positions of what the UNet's first level hands down reads it.
"""


def _ranges(count: int) -> list[tuple[list[int], list[float]]]:
    """For each field of :class:`Chance`: its values in order, and the probability below each, and 1."""
    across = {1: 4, 2: 3, 3: 2}[count]
    values: list[Sequence[int]] = [(0, 1), (-4, 0, 4), range(-5, 6), range(3), range(3), (1, 0), range(-3, 4), range(3)]
    values += [range(-across, across + 1), range(-4, 5)]
    even = [(list(each), [i / len(each) for i in range(len(each) + 1)]) for each in values]
    even[5] = ([1, 0], [0.0, 0.4, 1.0])  # a fence or the like is drawn in two scenes of five
    return even


def answers(labels: NDArray[np.int64], seeds: NDArray[np.int64]) -> Tensor:
    """For each picture, the interval of quantiles [n, 16, 2] of each answer: ten of chance, six of the attributes."""
    sizes = [len(each) for each in ATTRIBUTES.values()]
    out = np.empty((len(labels), ANSWERS, 2), np.float32)
    ranges = {count: _ranges(count) for count in (1, 2, 3)}
    for i, (row, seed) in enumerate(zip(labels, seeds, strict=True)):
        count = int(row[4]) + 1
        for k, (value, (values, bounds)) in enumerate(
            zip(astuple(Chance.of(int(seed), count)), ranges[count], strict=True)
        ):
            at = values.index(int(value))
            out[i, k] = bounds[at], bounds[at + 1]
        for k, (value, size) in enumerate(zip(row, sizes, strict=True), 10):
            out[i, k] = value / size, (value + 1) / size
    return torch.from_numpy(out)


def couple(noise: Tensor, intervals: Tensor, said: Tensor) -> Tensor:
    """``noise`` [n, 4, h, w] with the answers' components in place.

    ``intervals`` [n, 16, 2] are the answers; where ``said`` [n, 16] the caption tells, and the noise is left as it is.
    """
    low, high = intervals.unbind(dim=2)
    quantile = (low + (high - low) * torch.rand_like(low)).clamp(1e-4, 1 - 1e-4)
    wanted: Tensor = torch.special.ndtri(quantile)
    n, channels, height, width = noise.shape
    change = torch.where(said, 0.0, wanted - components(noise))
    shift = change.reshape(n, channels, 1, PERIOD, 1, PERIOD) * (PERIOD / (height * width) ** 0.5)
    squares = noise.reshape(n, channels, height // PERIOD, PERIOD, width // PERIOD, PERIOD)
    coupled: Tensor = (squares + shift).reshape(noise.shape)
    return coupled


def components(noise: Tensor) -> Tensor:
    """The components [n, 16] of ``noise`` [n, 4, h, w] along the directions that are set aside."""
    n, channels, height, width = noise.shape
    squares = noise.reshape(n, channels, height // PERIOD, PERIOD, width // PERIOD, PERIOD)
    found: Tensor = squares.sum(dim=(2, 4)).flatten(1) * (PERIOD / (height * width) ** 0.5)
    return found
