"""Couples each training picture with noise that determines what its caption leaves open.

A one-step model turns noise and a prompt into a picture at once. Where pictures and noise are
paired at random, the picture of least error is the mean of all pictures that the prompt allows: a
blur. So each training picture is paired with noise that encodes what its caption leaves open, such
as the side of the sun, the drift of the clouds, or a colour that the caption omits.

Sixteen orthogonal directions of noise space are reserved, one for each open question. The noise's
component along a direction is replaced by Φ⁻¹(u), with Φ the normal distribution and u uniform in
the answer's interval of quantiles. An interval is as wide as its answer is likely, so u is uniform
over [0, 1], and the noise remains standard normal: at inference any seed means a picture. It is a
coupling of noise and data as in Pooladian et al. (arXiv 2304.14772), known exactly here because the
pictures are rendered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.world import ATTRIBUTES
from training.world.render import Variation

ANSWERS = 16
"""Number of open questions: ten random choices of the renderer and six attributes."""

PERIOD = 2
"""A direction sums one channel at one offset within every square of this side.

Four channels give sixteen directions. None has a position in the picture, so a mean over the
feature map of the UNet's first level can read it.
"""


def _ranges(count: int) -> list[tuple[list[int], list[float]]]:
    """The values of each field of :class:`Variation`, and the bounds of their quantiles."""
    across = {1: 4, 2: 3, 3: 2}[count]
    values: list[Sequence[int]] = [(0, 1), (-4, 0, 4), range(-5, 6), range(3), range(3), (1, 0), range(-3, 4), range(3)]
    values += [range(-across, across + 1), range(-4, 5)]
    even = [(list(each), [i / len(each) for i in range(len(each) + 1)]) for each in values]
    even[5] = ([1, 0], [0.0, 0.4, 1.0])  # two of five scenes have an extra, such as a fence
    return even


def answers(labels: NDArray[np.int64], seeds: NDArray[np.int64]) -> Tensor:
    """Intervals of quantiles [n, 16, 2] of each picture's answers: ten choices, six attributes."""
    sizes = [len(each) for each in ATTRIBUTES.values()]
    out = np.empty((len(labels), ANSWERS, 2), np.float32)
    ranges = {count: _ranges(count) for count in (1, 2, 3)}
    for i, (row, seed) in enumerate(zip(labels, seeds, strict=True)):
        count = int(row[4]) + 1
        for k, (value, (values, bounds)) in enumerate(
            zip(astuple(Variation.of(int(seed), count)), ranges[count], strict=True)
        ):
            at = values.index(int(value))
            out[i, k] = bounds[at], bounds[at + 1]
        for k, (value, size) in enumerate(zip(row, sizes, strict=True), 10):
            out[i, k] = value / size, (value + 1) / size
    return torch.from_numpy(out)


def couple(noise: Tensor, intervals: Tensor, stated: Tensor) -> Tensor:
    """``noise`` [n, 4, h, w] with its reserved components set by ``intervals`` [n, 16, 2].

    Components are unchanged where ``stated`` [n, 16]: there the caption itself gives the answer.
    """
    low, high = intervals.unbind(dim=2)
    quantile = (low + (high - low) * torch.rand_like(low)).clamp(1e-4, 1 - 1e-4)
    targets: Tensor = torch.special.ndtri(quantile)
    n, channels, height, width = noise.shape
    change = torch.where(stated, 0.0, targets - components(noise))
    shift = change.reshape(n, channels, 1, PERIOD, 1, PERIOD) * (PERIOD / (height * width) ** 0.5)
    squares = noise.reshape(n, channels, height // PERIOD, PERIOD, width // PERIOD, PERIOD)
    coupled: Tensor = (squares + shift).reshape(noise.shape)
    return coupled


def components(noise: Tensor) -> Tensor:
    """The components [n, 16] of ``noise`` [n, 4, h, w] along the reserved directions."""
    n, channels, height, width = noise.shape
    squares = noise.reshape(n, channels, height // PERIOD, PERIOD, width // PERIOD, PERIOD)
    result: Tensor = squares.sum(dim=(2, 4)).flatten(1) * (PERIOD / (height * width) ** 0.5)
    return result
