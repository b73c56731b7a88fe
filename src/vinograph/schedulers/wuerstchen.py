"""Würstchen's sampler, over continuous time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vinograph.errors import RequestError
from vinograph.schedulers.levels import linspace

Array = NDArray[np.float32]


@dataclass(frozen=True)
class WuerstchenSampler:
    """Ancestral DDPM sampling over continuous time with cosine alphas.

    Ho et al., 2020 (arXiv 2006.11239), equations 6 and 7, with ᾱ(t) of Nichol and Dhariwal, 2021
    (arXiv 2102.09672), equation 17, as Würstchen's authors use it (arXiv 2306.00637). ``scaler`` warps time:
    above one it dwells near t = 0 (``1 - (1 - t) ** scaler``), below one near t = 1.
    """

    scaler: float = 1.0
    s: float = 0.008

    def timesteps(self, count: int) -> Array:
        """``count`` steps: ``count + 1`` times from 1 down to 0. The last is where sampling ends."""
        return linspace(1.0, 0.0, count + 1)

    def alpha_cumprod(self, t: np.float32) -> np.float32:
        """ᾱ at time ``t`` in [0, 1]: the share of the signal's variance, kept within 1e-4 and 0.9999."""
        if self.scaler > 1:
            t = np.float32(1) - (np.float32(1) - t) ** np.float32(self.scaler)
        elif self.scaler < 1:
            t = t ** np.float32(self.scaler)
        s = np.float32(self.s)
        half_pi = np.float32(np.pi * 0.5)
        start = np.cos(s / (1 + s) * half_pi) ** 2
        return np.float32(np.clip(np.cos((t + s) / (1 + s) * half_pi) ** 2 / start, 1e-4, 0.9999))

    def step(self, sample: Array, predicted: Array, t: np.float32, previous: np.float32, noise: Array) -> Array:
        """From ``sample`` at time ``t`` to ``previous`` (the earlier time), by the noise ``predicted`` in it."""
        now, then = self.alpha_cumprod(t), self.alpha_cumprod(previous)
        alpha = now / then
        mean = np.sqrt(1 / alpha) * (sample - (1 - alpha) * predicted / np.sqrt(1 - now))
        if previous == 0:
            return np.asarray(mean, np.float32)
        return np.asarray(mean + np.sqrt((1 - alpha) * (1 - then) / (1 - now)) * noise, np.float32)

    def predict_clean(self, sample: Array, predicted: Array, t: np.float32) -> Array:
        """What ``sample`` would be without the noise ``predicted`` in it."""
        now = self.alpha_cumprod(t)
        return np.asarray((sample - np.sqrt(1 - now) * predicted) / np.sqrt(now), np.float32)

    def add_noise(self, clean: Array, noise: Array, t: np.float32) -> Array:
        """``clean`` as it would be met at time ``t``."""
        now = self.alpha_cumprod(t)
        return np.asarray(np.sqrt(now) * clean + np.sqrt(1 - now) * noise, np.float32)


def custom_timesteps(values: Sequence[float], name: str) -> Array:
    """Check times that a caller gave for the continuous samplers: falling, within [0, 1], at least two.

    Raises:
        RequestError: naming the argument ``name`` and what would do.
    """
    times = np.asarray(values, np.float32)
    if times.ndim != 1 or times.size < 2:
        raise RequestError(f"{name} needs at least two times, from the first step's down to where sampling ends")
    if not np.all((times >= 0) & (times <= 1)) or not np.all(np.diff(times) < 0):
        raise RequestError(f"{name} has to fall from at most 1 to at least 0, each time below the one before")
    return times
