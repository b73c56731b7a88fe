"""Measures of how close one picture is to another."""

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
    """PSNR in decibels over two batches [n, height, width, 3], and their mean SSIM."""
    ones, theirs = (np.asarray(each, np.float64) / 255 for each in (pictures, others))
    similarities = [ssim(one, other) for one, other in zip(ones, theirs, strict=True)]
    return {"psnr": psnr(ones, theirs), "ssim": float(np.mean(similarities))}


def ssim(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Structural similarity (SSIM) of the luma of two pictures [height, width, 3] in [0, 1].

    It is equation 13 of Wang, Bovik, Sheikh and Simoncelli 2004, averaged by equation 17 over all
    Gaussian windows of 11 by 11 pixels, with a deviation of 1.5, that lie whole in the picture. So
    a picture must have 11 pixels in each direction.
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
    """Means weighted by the Gaussian window, one axis after the other, as it is separable."""
    offsets = np.arange(_WINDOW) - _WINDOW // 2
    weights = np.exp(-(offsets**2) / (2 * _SIGMA**2))
    weights /= weights.sum()
    for axis in (0, 1):
        values = np.apply_along_axis(np.convolve, axis, values, weights, "valid")
    return values
