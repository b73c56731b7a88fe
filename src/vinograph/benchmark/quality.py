"""How far one picture is from another."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vinograph.images import psnr

_WINDOW = 11
_SIGMA = 1.5
_K1, _K2 = 0.01, 0.03
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


def distance(pictures: NDArray[np.uint8], others: NDArray[np.uint8]) -> dict[str, float]:
    """PSNR in decibels (of all pictures together) and SSIM (their mean) of two batches [n, height, width, 3]."""
    ones, theirs = (np.asarray(each, np.float64) / 255 for each in (pictures, others))
    similarities = [ssim(one, other) for one, other in zip(ones, theirs, strict=True)]
    return {"psnr": psnr(ones, theirs), "ssim": float(np.mean(similarities))}


def ssim(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Structural similarity of two pictures [height, width, 3] in [0, 1], of their luma.

    Wang, Bovik, Sheikh and Simoncelli 2004, equation 13, in Gaussian windows of 11 by 11 with a deviation of 1.5 that
    lie whole in the picture; the mean over them is equation 17. A picture must be 11 pixels in each direction.
    """
    x, y = (np.asarray(each, np.float64) @ _LUMA for each in (one, other))
    mean_x, mean_y = _blurred(x), _blurred(y)
    variance_x, variance_y = _blurred(x * x) - mean_x**2, _blurred(y * y) - mean_y**2
    covariance = _blurred(x * y) - mean_x * mean_y
    c1, c2 = _K1**2, _K2**2
    above = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    below = (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    return float(np.mean(above / below))


def _blurred(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means weighted by the window, which is a product of one along each axis."""
    offsets = np.arange(_WINDOW) - _WINDOW // 2
    weights = np.exp(-(offsets**2) / (2 * _SIGMA**2))
    weights /= weights.sum()
    for axis in (0, 1):
        values = np.apply_along_axis(np.convolve, axis, values, weights, "valid")
    return values
