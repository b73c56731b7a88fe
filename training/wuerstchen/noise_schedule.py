"""The continuous cosine noise schedule of Stages B and C, its loss weighting, and a sampler.

The schedule is that of Nichol and Dhariwal (arXiv 2102.09672, equation 17), with times from 0
(clean) to 1 (noise).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from training.loop import channels_last

_OFFSET = 0.008


def cosine_alpha_cumprod(times: Tensor) -> Tensor:
    """ᾱ at ``times`` in [0, 1], with the clamping of Würstchen's scheduler."""
    start = math.cos(_OFFSET / (1 + _OFFSET) * math.pi / 2) ** 2
    return (torch.cos((times + _OFFSET) / (1 + _OFFSET) * math.pi / 2) ** 2 / start).clamp(1e-4, 0.9999)


def add_noise_at_random_times(latents: Tensor, power: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``latents`` [n, c, h, w] noised at random times, the noise, times [n], ᾱ [n, 1, 1, 1].

    Times are U ** ``power`` with U uniform: a power below 1 makes the noisy end, where the sampler
    starts, more frequent.
    """
    times = torch.rand(len(latents), device=latents.device) ** power
    alpha_cumprod = cosine_alpha_cumprod(times)[:, None, None, None]
    noise = torch.randn_like(latents)
    return (
        channels_last(alpha_cumprod.sqrt() * latents + (1 - alpha_cumprod).sqrt() * noise),
        noise,
        times,
        alpha_cumprod,
    )


def loss_weight(alpha_cumprod: Tensor) -> Tensor:
    """Loss weighting at ᾱ; the sampler's first steps amplify errors, so they weigh more."""
    return (1 - alpha_cumprod) * (1 + 0.15 / (alpha_cumprod + 0.01))


@torch.no_grad()
def sample(predict_noise: Callable[[Tensor, Tensor], Tensor], shape: tuple[int, ...], steps: int, seed: int) -> Tensor:
    """Latents of ``shape`` by ancestral DDPM sampling (arXiv 2006.11239) in even steps.

    ``predict_noise`` is given a sample and times [n].
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator)
    times = torch.linspace(1.0, 0.0, steps + 1)
    for time, next_time in itertools.pairwise(times):
        alpha_cumprod, next_alpha_cumprod = cosine_alpha_cumprod(time), cosine_alpha_cumprod(next_time)
        alpha = alpha_cumprod / next_alpha_cumprod
        noise = predict_noise(x, time.expand(shape[0]))
        x = (x - (1 - alpha) * noise / (1 - alpha_cumprod).sqrt()) / alpha.sqrt()
        if next_time > 0:
            deviation = ((1 - alpha) * (1 - next_alpha_cumprod) / (1 - alpha_cumprod)).sqrt()
            x = x + deviation * torch.randn(shape, generator=generator)
    return x
