"""Bilinear interpolation of pictures and latents."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vinograph.families.contract import Array
from vinograph.images import Size

Taps = tuple[NDArray[np.int64], NDArray[np.int64], Array]


def resized_bilinearly(pictures: Array, size: Size) -> Array:
    """Resize ``pictures`` [n, channels, h, w] to ``size``, as torch's ``interpolate`` does.

    Each value is interpolated between the two nearest in each direction, also where the picture
    shrinks.
    """
    if pictures.shape[2:] == size:
        return pictures
    rows, columns = (_taps(old, new) for old, new in zip(pictures.shape[2:], size, strict=True))
    wide = _blended(pictures, columns, axis=3)
    return _blended(wide, rows, axis=2)


def _taps(old: int, new: int) -> Taps:
    """For each new place the two old ones that it lies between, and its weight for the second.

    torch computes the place in float32 by a fused multiply-add, which rounds product and difference
    once.
    """
    scale = np.float64(np.float32(old / new))
    place = np.maximum((scale * (np.arange(new) + 0.5) - 0.5).astype(np.float32), np.float32(0))
    first = np.minimum(place.astype(np.int64), old - 1)
    return first, np.minimum(first + 1, old - 1), np.clip(place - first.astype(np.float32), 0, 1).astype(np.float32)


def _blended(values: Array, taps: Taps, axis: int) -> Array:
    first, second, weight = taps
    shape = [1] * values.ndim
    shape[axis] = -1
    share = weight.reshape(shape)
    return np.asarray(np.take(values, first, axis) * (1 - share) + np.take(values, second, axis) * share, np.float32)
