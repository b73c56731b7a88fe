"""How noisy a discrete diffusion process is at each of its timesteps, and which of them a run visits.

ᾱ is the share of the signal's variance that is left, σ = √((1 - ᾱ) / ᾱ) the noise beside a signal of full size. Values
are float32, made by the operations of diffusers' schedulers in their order, so that they round alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Doubles = NDArray[np.float64]

_LEAST_ALPHA = 2.0**-24  # in place of 0, so that σ stays finite
_RHO = 7.0


def linspace(start: float, stop: float, count: int) -> Array:
    """``count`` float32 values from ``start`` to ``stop``, equal to ``torch.linspace`` to the last bit.

    torch steps up from the start in the first half and down from the end in the second, each value by one fused
    multiply-add: a float32 step, a product and a sum that are rounded once.
    """
    first, last = np.float32(start), np.float32(stop)
    step = np.float64((last - first) / np.float32(count - 1)) if count > 1 else 0.0
    index = np.arange(count)
    rising = np.float64(first) + step * index
    falling = np.float64(last) - step * (count - 1 - index)
    return np.where(index < max(count // 2, 1), rising, falling).astype(np.float32)


def betas(schedule: str, start: float, end: float, count: int) -> Array:
    """The noise that each of ``count`` timesteps adds.

    "linear" (arXiv 2006.11239), "scaled_linear" (linear in its root: latent diffusion, arXiv 2112.10752), or
    "squaredcos_cap_v2" (arXiv 2102.09672, equation 17, at most 0.999).
    """
    if schedule == "linear":
        return linspace(start, end, count)
    if schedule == "scaled_linear":
        return linspace(start**0.5, end**0.5, count) ** 2
    left = [math.cos((i / count + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(count + 1)]
    return np.array([min(1 - left[i + 1] / left[i], 0.999) for i in range(count)], np.float32)


def alphas_cumprod(noise: Array) -> Array:
    """ᾱ after each timestep. torch multiplies in double precision and rounds each product."""
    return np.cumprod((1 - noise).astype(np.float64)).astype(np.float32)


def with_no_signal_left(noise: Array) -> Array:
    """Betas under which the last timestep is noise alone (Lin et al., arXiv 2305.08891, algorithm 1)."""
    root = np.sqrt(alphas_cumprod(noise))
    first, last = root[0], root[-1]
    left = ((root - last) * (first / (first - last))) ** 2
    return 1 - np.concatenate([left[:1], left[1:] / left[:-1]])


def never_zero(left: Array) -> Array:
    """ᾱ with a last value that is all but zero."""
    return np.append(left[:-1], np.float32(_LEAST_ALPHA))


def sigmas_of(left: Array) -> Array:
    """σ for ᾱ."""
    return np.asarray(np.sqrt((1 - left) / left), np.float32)


def spaced(spacing: str, train: int, count: int, offset: int) -> Doubles:
    """``count`` of ``train`` timesteps, falling (arXiv 2305.08891, table 2); those of "linspace" are not whole.

    "trailing" counts down by ``train / count`` in floating point as diffusers does, which for a few counts from 61
    on ends in a step more, at -1.
    """
    if spacing == "linspace":
        return np.linspace(0, train - 1, count)[::-1]
    if spacing == "leading":
        return (np.arange(count) * (train // count))[::-1].astype(np.float64) + offset
    return np.arange(train, 0, -train / count).round() - 1


def karras(highest: float, lowest: float, count: int) -> Doubles:
    """σ that fall evenly in their seventh root (Karras et al., arXiv 2206.00364, equation 5)."""
    high, low = highest ** (1 / _RHO), lowest ** (1 / _RHO)
    return np.asarray((high + np.linspace(0, 1, count) * (low - high)) ** _RHO)


def exponential(highest: float, lowest: float, count: int) -> Doubles:
    """σ that fall evenly in their logarithm."""
    return np.asarray(np.exp(np.linspace(math.log(highest), math.log(lowest), count)))


def timesteps_of(sigmas: NDArray[np.floating], log_sigmas: Array) -> Doubles:
    """Where between the timesteps ``sigmas`` lie, by their logarithm; ``log_sigmas`` are those of all timesteps."""
    log_sigma = np.log(np.maximum(sigmas, 1e-10))
    low = np.clip(np.searchsorted(log_sigmas, log_sigma, side="right") - 1, 0, len(log_sigmas) - 2)
    below, above = log_sigmas[low], log_sigmas[low + 1]
    weight = np.clip((below - log_sigma) / (below - above), 0, 1)
    return np.asarray((1 - weight) * low + weight * (low + 1), np.float64)


def falling(values: Sequence[float] | Array) -> bool:
    """Whether each value is below the one before."""
    return bool(np.all(np.diff(values) < 0))
