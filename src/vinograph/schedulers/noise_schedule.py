"""Noise schedules of discrete diffusion, and the timesteps that a run takes from them.

ᾱ (``alpha_cumprod``) is the signal's share of the sample's variance. σ = √((1 - ᾱ) / ᾱ) is the
noise's deviation where the signal has its full size. Values are float32. They are computed by the
operations of diffusers' schedulers in the same order, so that they round alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Doubles = NDArray[np.float64]

_FINAL_ALPHA_CUMPROD = 2.0**-24  # diffusers' stand-in for 0, which keeps σ finite
_RHO = 7.0  # the exponent that Karras et al. recommend
_LOWEST_SIGMA = 1e-10  # in place of 0, which has no logarithm
_BETA_SHAPE = 0.6  # both parameters of the beta distribution that Lee et al. recommend

# The noise levels that Sabour et al. (arXiv 2404.14507) tuned for ten steps of SDXL, in the digits
# that they published. The last one is where the tenth step would end; sampling ends at 0 instead.
ALIGN_YOUR_STEPS = (
    *(14.6146412293, 6.3184485287, 3.7681790315, 2.1811480769, 1.3405244945, 0.8620721141),
    *(0.5550693289, 0.3798540708, 0.2332364134, 0.1114188177, 0.0291671582),
)


def linspace(start: float, stop: float, count: int) -> Array:
    """Evenly spaced float32 values, equal to those of ``torch.linspace`` to the last bit.

    torch steps up from the start in the first half and down from the end in the second. Each value
    is one fused multiply-add: a float32 step, a product and a sum that are rounded once.
    """
    first, last = np.float32(start), np.float32(stop)
    step = np.float64((last - first) / np.float32(count - 1)) if count > 1 else 0.0
    index = np.arange(count)
    rising = np.float64(first) + step * index
    falling = np.float64(last) - step * (count - 1 - index)
    return np.where(index < max(count // 2, 1), rising, falling).astype(np.float32)


def betas(beta_schedule: str, beta_start: float, beta_end: float, num_train_timesteps: int) -> Array:
    """β of each training timestep [num_train_timesteps]: the variance of the noise that it adds.

    "linear" is that of Ho et al. (arXiv 2006.11239). "scaled_linear" is linear in √β, as in latent
    diffusion (arXiv 2112.10752). "squaredcos_cap_v2" is the cosine schedule (arXiv 2102.09672,
    equation 17), with β at most 0.999.
    """
    if beta_schedule == "linear":
        return linspace(beta_start, beta_end, num_train_timesteps)
    if beta_schedule == "scaled_linear":
        return linspace(beta_start**0.5, beta_end**0.5, num_train_timesteps) ** 2
    times = [index / num_train_timesteps for index in range(num_train_timesteps + 1)]
    alpha_bar = [math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2 for t in times]
    return np.array([min(1 - alpha_bar[i + 1] / alpha_bar[i], 0.999) for i in range(num_train_timesteps)], np.float32)


def alphas_cumprod(betas: Array) -> Array:
    """ᾱ after each training timestep: the cumulative product of 1 - β.

    torch multiplies in double precision and rounds each product.
    """
    return np.cumprod((1 - betas).astype(np.float64)).astype(np.float32)


def rescale_zero_terminal_snr(betas: Array) -> Array:
    """Betas whose last timestep is noise alone (Lin et al., arXiv 2305.08891, algorithm 1)."""
    root = np.sqrt(alphas_cumprod(betas))
    first, last = root[0], root[-1]
    alpha_cumprod = ((root - last) * (first / (first - last))) ** 2
    return 1 - np.concatenate([alpha_cumprod[:1], alpha_cumprod[1:] / alpha_cumprod[:-1]])


def clamp_final_alpha(alphas_cumprod: Array) -> Array:
    """ᾱ whose last value is 2⁻²⁴ in place of zero."""
    return np.append(alphas_cumprod[:-1], np.float32(_FINAL_ALPHA_CUMPROD))


def sigmas_from_alphas_cumprod(alphas_cumprod: Array) -> Array:
    """σ = √((1 - ᾱ) / ᾱ)."""
    return np.asarray(np.sqrt((1 - alphas_cumprod) / alphas_cumprod), np.float32)


def spaced_timesteps(spacing: str, num_train_timesteps: int, count: int, steps_offset: int) -> Doubles:
    """About ``count`` of the training timesteps, falling (arXiv 2305.08891, table 2).

    Those of "linspace" are not whole. "trailing" counts down by ``num_train_timesteps / count`` in
    floating point, as diffusers does. For a few counts from 61 on that ends in one step more, at
    -1.
    """
    if spacing == "linspace":
        return np.linspace(0, num_train_timesteps - 1, count)[::-1]
    if spacing == "leading":
        return (np.arange(count) * (num_train_timesteps // count))[::-1].astype(np.float64) + steps_offset
    return np.arange(num_train_timesteps, 0, -num_train_timesteps / count).round() - 1


def karras_sigmas(sigma_max: float, sigma_min: float, count: int) -> Doubles:
    """``count`` σ, falling evenly in σ^(1/ρ) (Karras et al., arXiv 2206.00364, equation 5)."""
    high, low = sigma_max ** (1 / _RHO), sigma_min ** (1 / _RHO)
    return np.asarray((high + np.linspace(0, 1, count) * (low - high)) ** _RHO)


def exponential_sigmas(sigma_max: float, sigma_min: float, count: int) -> Doubles:
    """``count`` σ, falling evenly in log σ."""
    return np.asarray(np.exp(np.linspace(math.log(sigma_max), math.log(sigma_min), count)))


def beta_sigmas(sigma_max: float, sigma_min: float, count: int) -> Doubles:
    """``count`` σ, falling by the quantiles of a beta distribution (Lee et al., arXiv 2407.12173).

    It is dense at both ends and sparse between them.
    """
    quantiles = np.array([_beta_quantile(share) for share in 1 - np.linspace(0, 1, count)])
    return np.asarray(sigma_min + quantiles * (sigma_max - sigma_min))


def _beta_quantile(share: float) -> float:
    """x at which the symmetric beta distribution of the shape ``_BETA_SHAPE`` has the ``share`` below it."""
    if share in (0.0, 1.0):
        return share
    if share > 0.5:
        return 1 - _beta_quantile(1 - share)
    low, high = 0.0, 0.5
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if _beta_share(middle) < share else (low, middle)
    return middle


def _beta_share(x: float) -> float:
    """The share of the beta distribution below ``x``, up to 0.5: its incomplete beta function.

    By the hypergeometric series xᵃ (1 - x)ᵇ / a B(a, b) · Σ (a + b)ₙ / (a + 1)ₙ xⁿ (DLMF 8.17.8),
    whose terms shrink by half at least.
    """
    a = _BETA_SHAPE
    total = term = 1.0
    order = 0
    while term > total * 2.0**-56:
        term *= (2 * a + order) / (a + 1 + order) * x
        total, order = total + term, order + 1
    scale = math.exp(math.lgamma(2 * a) - 2 * math.lgamma(a))
    return float(scale * (x * (1 - x)) ** a / a * total)


def align_your_steps_sigmas(count: int) -> Doubles:
    """``count`` σ of the tuned noise levels for SDXL, which are interpolated in log σ."""
    places = np.linspace(0, 1, len(ALIGN_YOUR_STEPS))
    log_sigmas = np.interp(np.linspace(0, 1, count + 1), places, np.log(ALIGN_YOUR_STEPS))
    return np.asarray(np.exp(log_sigmas[:-1]))


def sigma_to_t(sigmas: NDArray[np.floating], log_sigmas: Array) -> Doubles:
    """The fractional training timestep of each σ, interpolated in log σ.

    ``log_sigmas`` [num_train_timesteps] are those of all training timesteps. k-diffusion's function
    of that name.
    """
    log_sigma = np.log(np.maximum(sigmas, _LOWEST_SIGMA))
    low = np.clip(np.searchsorted(log_sigmas, log_sigma, side="right") - 1, 0, len(log_sigmas) - 2)
    below, above = log_sigmas[low], log_sigmas[low + 1]
    weight = np.clip((below - log_sigma) / (below - above), 0, 1)
    return np.asarray((1 - weight) * low + weight * (low + 1), np.float64)


def is_decreasing(values: Sequence[float] | Array) -> bool:
    """Whether each value is below the one before it."""
    return bool(np.all(np.diff(values) < 0))
