"""What Stage B's and Stage C's training share: noise, the loss's weight, and sampling."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from training.common import channels_last

_OFFSET = 0.008


def alpha_cumprod(t: Tensor) -> Tensor:
    """The share of the signal's variance at times ``t`` in [0, 1], as Würstchen's sampler has it."""
    start = math.cos(_OFFSET / (1 + _OFFSET) * math.pi / 2) ** 2
    return (torch.cos((t + _OFFSET) / (1 + _OFFSET) * math.pi / 2) ** 2 / start).clamp(1e-4, 0.9999)


def noised(clean: Tensor, power: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``clean`` [n, c, h, w] at random times: the noisy sample, its noise, the times [n], and ᾱ [n, 1, 1, 1].

    Times are drawn as U ** ``power``: below 1 the noisy end, where the sampler starts, is seen more often.
    """
    times = torch.rand(len(clean), device=clean.device) ** power
    share = alpha_cumprod(times)[:, None, None, None]
    noise = torch.randn_like(clean)
    return channels_last(share.sqrt() * clean + (1 - share).sqrt() * noise), noise, times, share


def loss_weight(share: Tensor) -> Tensor:
    """Weight of the noise's squared error. The sampler's first steps amplify errors, so they weigh more."""
    return (1 - share) * (1 + 0.15 / (share + 0.01))


@torch.no_grad()
def sample(predict: Callable[[Tensor, Tensor], Tensor], shape: tuple[int, ...], steps: int, seed: int) -> Tensor:
    """Ancestral DDPM sampling (arXiv 2006.11239) of latents, from t = 1 down in even steps."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator)
    times = torch.linspace(1.0, 0.0, steps + 1)
    for now, then in itertools.pairwise(times):
        share, following = alpha_cumprod(now), alpha_cumprod(then)
        alpha = share / following
        noise = predict(x, now.expand(shape[0]))
        x = (x - (1 - alpha) * noise / (1 - share).sqrt()) / alpha.sqrt()
        if then > 0:
            deviation = ((1 - alpha) * (1 - following) / (1 - share)).sqrt()
            x = x + deviation * torch.randn(shape, generator=generator)
    return x
