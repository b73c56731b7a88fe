"""PSNR and SSIM against hand-computed values and another way to write the formula."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from vinograph.benchmark.quality import distance, ssim


def grey(value: float, side: int = 16) -> NDArray[np.float64]:
    return np.full((side, side, 3), value)


def noisy(seed: int, side: int = 24) -> NDArray[np.float64]:
    return np.random.RandomState(seed).uniform(0, 1, (side, side, 3))


def test_equal_pictures() -> None:
    assert ssim(noisy(0), noisy(0)) == pytest.approx(1)
    measures = distance(np.zeros((1, 16, 16, 3), np.uint8), np.zeros((1, 16, 16, 3), np.uint8))
    assert measures == {"psnr": math.inf, "ssim": pytest.approx(1)}


def test_flat_pictures_differ_by_their_luminance_alone() -> None:
    """The second factor of the formula is one: (2·0.2·0.6 + 0.01²) / (0.2² + 0.6² + 0.01²)."""
    assert ssim(grey(0.2), grey(0.6)) == pytest.approx(0.2401 / 0.4001)


def test_a_picture_and_its_negative_about_the_same_mean() -> None:
    """The covariance is the negative of both variances: (-2v + 0.03²) / (2v + 0.03²)."""
    rows, columns = np.indices((40, 40))
    waves = 0.1 * np.sin(np.pi / 2 * (rows + columns))[..., None] * np.ones(3)
    assert ssim(0.5 + waves, 0.5 - waves) == pytest.approx((-2 * 0.005 + 9e-4) / (2 * 0.005 + 9e-4), abs=2e-3)


def test_every_window_as_the_paper_writes_it() -> None:
    """Equations 14 to 16: weighted sums over each window, of deviations from the mean."""
    luma = np.array([0.299, 0.587, 0.114])
    one, other = noisy(1), np.clip(noisy(1) + 0.3 * (noisy(2) - 0.5), 0, 1)
    x, y = one @ luma, other @ luma
    offsets = np.arange(11) - 5
    weights = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    weights /= weights.sum()
    found = []
    for row in range(24 - 10):
        for column in range(24 - 10):
            a, b = (each[row : row + 11, column : column + 11] for each in (x, y))
            mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
            var_a, var_b = (weights * (a - mean_a) ** 2).sum(), (weights * (b - mean_b) ** 2).sum()
            covariance = (weights * (a - mean_a) * (b - mean_b)).sum()
            luminance = (2 * mean_a * mean_b + 1e-4) / (mean_a**2 + mean_b**2 + 1e-4)
            found.append(luminance * (2 * covariance + 9e-4) / (var_a + var_b + 9e-4))
    assert ssim(one, other) == pytest.approx(np.mean(found))
    assert 0.5 < ssim(one, other) < 0.99


def test_psnr_is_of_the_whole_batch() -> None:
    """One picture of two is off by 51, a fifth of the range: the mean square is 0.02."""
    others = np.zeros((2, 16, 16, 3), np.uint8)
    pictures = others.copy()
    pictures[1] = 51
    assert distance(pictures, others)["psnr"] == pytest.approx(-10 * math.log10(0.02))
