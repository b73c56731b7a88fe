"""Würstchen's own sampler: ancestral DDPM steps over continuous time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vinograph.errors import RequestError
from vinograph.schedulers.noise_schedule import linspace
from vinograph.schedulers.sampler import DrawNoise, StepOutput

Array = NDArray[np.float32]


@dataclass(frozen=True)
class TimeStep:
    """What the step from ``times[index]`` to the next of ``times`` needs.

    Attributes:
        sample: the noisy sample, of any shape.
        model_output: the noise that the model predicted in it.
        draw_noise: gives normal noise of a shape.
        state: the ``state`` of the step before; None in the first one.
    """

    times: Array
    index: int
    sample: Array
    model_output: Array
    draw_noise: DrawNoise
    state: Any = None


@dataclass(frozen=True)
class WuerstchenSampler:
    """Ancestral DDPM sampling over continuous time t in [0, 1], with the cosine noise schedule.

    Ho et al. (arXiv 2006.11239), equations 6 and 7, with ᾱ(t) of Nichol and Dhariwal (arXiv
    2102.09672), equation 17, as Würstchen's authors use it (arXiv 2306.00637). Samples are arrays
    of any shape.

    Attributes:
        scaler: warps time. Above 1, steps dwell near t = 0 (``1 - (1 - t) ** scaler``); below 1,
            near t = 1.
        s: the offset of the cosine schedule, which keeps the noise near t = 0 from vanishing.
    """

    scaler: float = 1.0
    s: float = 0.008

    def timesteps(self, num_inference_steps: int) -> Array:
        """Times from 1 down to 0, [num_inference_steps + 1]. The last is where sampling ends."""
        return linspace(1.0, 0.0, num_inference_steps + 1)

    def alpha_cumprod(self, t: np.float32) -> np.float32:
        """ᾱ at time ``t``: the signal's share of the variance, kept between 0.0001 and 0.9999."""
        if self.scaler > 1:
            t = np.float32(1) - (np.float32(1) - t) ** np.float32(self.scaler)
        elif self.scaler < 1:
            t = t ** np.float32(self.scaler)
        s = np.float32(self.s)
        half_pi = np.float32(np.pi * 0.5)
        start = np.cos(s / (1 + s) * half_pi) ** 2
        return np.float32(np.clip(np.cos((t + s) / (1 + s) * half_pi) ** 2 / start, 1e-4, 0.9999))

    def time_of(self, alpha_cumprod: np.float32) -> np.float32:
        """The time at which ᾱ is ``alpha_cumprod``: the inverse of :meth:`alpha_cumprod`."""
        s = float(self.s)
        start = np.cos(s / (1 + s) * np.pi / 2) ** 2
        angle = np.arccos(np.sqrt(np.float64(alpha_cumprod) * start))
        t = float(np.clip(angle * 2 / np.pi * (1 + s) - s, 0, 1))
        if self.scaler > 1:
            return np.float32(1 - (1 - t) ** (1 / self.scaler))
        return np.float32(t ** (1 / self.scaler))

    def advance(self, inputs: TimeStep) -> StepOutput:
        """Do one step.

        Noise is drawn also for the last one, which doesn't use it: diffusers' generators move on
        alike.
        """
        sample, model_output, index = inputs.sample, inputs.model_output, inputs.index
        t, following = inputs.times[index], inputs.times[index + 1]
        denoised = self.predict_denoised(sample, model_output, t)
        noise = inputs.draw_noise(sample.shape)
        return StepOutput(self.step(sample, model_output, t, following, noise), denoised)

    def step(self, sample: Array, model_output: Array, t: np.float32, previous_t: np.float32, noise: Array) -> Array:
        """From ``sample`` at time ``t`` to the earlier time ``previous_t``.

        ``model_output`` is the noise that the model predicts in the sample. ``noise`` is fresh
        normal noise, of which the last step, to time 0, takes none.
        """
        alpha_cumprod, previous_alpha_cumprod = self.alpha_cumprod(t), self.alpha_cumprod(previous_t)
        alpha = alpha_cumprod / previous_alpha_cumprod
        mean = np.sqrt(1 / alpha) * (sample - (1 - alpha) * model_output / np.sqrt(1 - alpha_cumprod))
        if previous_t == 0:
            return np.asarray(mean, np.float32)
        variance = (1 - alpha) * (1 - previous_alpha_cumprod) / (1 - alpha_cumprod)
        return np.asarray(mean + np.sqrt(variance) * noise, np.float32)

    def predict_denoised(self, sample: Array, model_output: Array, t: np.float32) -> Array:
        """The sample without the noise that the model predicts in it: (xₜ - √(1 - ᾱ) ε) / √ᾱ."""
        alpha_cumprod = self.alpha_cumprod(t)
        denoised = (sample - np.sqrt(1 - alpha_cumprod) * model_output) / np.sqrt(alpha_cumprod)
        return np.asarray(denoised, np.float32)

    def add_noise(self, original: Array, noise: Array, t: np.float32) -> Array:
        """√ᾱ ``original`` + √(1 - ᾱ) ``noise``, at time ``t``."""
        alpha_cumprod = self.alpha_cumprod(t)
        return np.asarray(np.sqrt(alpha_cumprod) * original + np.sqrt(1 - alpha_cumprod) * noise, np.float32)


def custom_timesteps(values: Sequence[float], name: str) -> Array:
    """A caller's times for the continuous sampler, checked: at least two, falling, within [0, 1].

    Raises:
        RequestError: naming the argument ``name`` and what would do.
    """
    times = np.asarray(values, np.float32)
    if times.ndim != 1 or times.size < 2:
        raise RequestError(f"{name} needs at least two times, from the first step's down to where sampling ends")
    if not np.all((times >= 0) & (times <= 1)) or not np.all(np.diff(times) < 0):
        raise RequestError(f"{name} has to fall from at most 1 to at least 0, each time below the one before")
    return times
