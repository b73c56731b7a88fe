"""The autoencoders of latent diffusion (Rombach et al., arXiv 2112.10752): pictures to latents and back.

A bundle may hold two: the full one, whose encoder gives a distribution (Kingma and Welling, arXiv 1312.6114), and a
tiny one that stands in for it at a small part of its cost. Both work on the latents that the model draws.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass

import numpy as np

from vinograph.errors import ModelError, RequestError
from vinograph.families.contract import Array, Parts, Session

Draw = Callable[[tuple[int, ...]], Array]

_PREFIXES = {"tiny": "tiny_vae", "full": "vae"}
_LOG_VARIANCE = (-30.0, 20.0)


@dataclass(frozen=True)
class Autoencoder:
    """One of the two, by ``name``. ``mean`` and ``deviation`` [1, channels, 1, 1] are of its latents before scaling."""

    name: str
    decoder: Session
    encoder: Session | None
    scale: np.float32
    mean: Array | None
    deviation: Array | None

    @property
    def draws(self) -> bool:
        """Whether encoding takes noise."""
        return self.name == "full"

    def decode(self, latents: Array, fit: Callable[[Array], Array] | None = None) -> Array:
        """Pictures [n, height, width, 3] in [0, 1] of ``latents`` [n, channels, h, w].

        One at a time, to bound memory. ``fit`` brings [1, 3, height, width] to another size before values beyond
        black and white are cut off.
        """
        if self.mean is None or self.deviation is None:
            plain = latents / self.scale
        else:
            plain = latents * self.deviation / self.scale + self.mean
        decoded = [self.decoder({"latent_sample": each[None]})["sample"] for each in plain]
        fitted = decoded if fit is None else [fit(each) for each in decoded]
        pictures: Array = np.clip(np.concatenate(fitted) * 0.5 + 0.5, 0, 1).transpose(0, 2, 3, 1)
        return pictures

    def prepare(self, parts: Parts, latents: tuple[int, ...]) -> None:
        """Have the decoder compiled for latents of the shape [n, channels, h, w], beside the work at hand."""
        parts.prepare(f"{_PREFIXES[self.name]}_decoder", {"latent_sample": (1, *latents[1:])})

    def check_encoder(self) -> None:
        """Check that pictures can be encoded.

        Raises:
            ModelError: the bundle has no encoder.
        """
        if self.encoder is None:
            raise ModelError(f"this bundle has no {_PREFIXES[self.name]}_encoder: convert the model again")

    def encode(self, pictures: Array, draw: Draw | None = None) -> Array:
        """Latents [n, channels, h, w] of ``pictures`` [n, 3, height, width] in [0, 1], encoded one at a time.

        There are as many, or as many as ``draw`` gives noise for: the pictures then come again and again.
        The full VAE's are drawn from its distribution with the noise that ``draw`` returns for their shape; without
        it they are the distribution's mean. The tiny one's are what they are.

        Raises:
            ModelError: the bundle has no encoder.
        """
        self.check_encoder()
        assert self.encoder is not None
        output = "latent_parameters" if self.draws else "latents"
        encoded = np.concatenate([self.encoder({"sample": 2 * each[None] - 1})[output] for each in pictures])
        if not self.draws:
            return encoded * self.scale
        mean, log_variance = np.split(encoded, 2, axis=1)
        if draw is not None:
            noise = draw(mean.shape)
            times = (len(noise) // len(mean), 1, 1, 1)
            deviation = np.exp(0.5 * np.clip(log_variance, *_LOG_VARIANCE))
            mean = np.tile(mean, times) + np.tile(deviation, times) * noise
        if self.mean is None or self.deviation is None:
            return mean * self.scale
        return (mean - self.mean) * self.scale / self.deviation


def autoencoders(components: Container[str]) -> list[str]:
    """The names of those that a model with these components has, the one that stands for "any" first."""
    return [each for each, prefix in _PREFIXES.items() if f"{prefix}_decoder" in components]


def autoencoder(parts: Parts, name: str | None) -> Autoencoder:
    """The one of that ``name``, "full" or "tiny"; None: the tiny one where there is one.

    Raises:
        RequestError: the bundle doesn't have it.
        ModelError: the bundle has none.
    """
    there = autoencoders(parts.sessions)
    if not there:
        raise ModelError("this bundle has no VAE: convert the model again")
    name = there[0] if name is None else name
    if name not in there:
        raise RequestError(f"vae is {name!r}; this model has {', '.join(there)}")
    prefix, config = _PREFIXES[name], parts.config
    mean, deviation = (config[f"vae_latents_{each}"] if name == "full" else () for each in ("mean", "std"))
    return Autoencoder(
        name=name,
        decoder=parts.sessions[f"{prefix}_decoder"],
        encoder=parts.sessions.get(f"{prefix}_encoder"),
        scale=np.float32(config[f"{prefix}_scaling_factor"]),
        mean=np.array(mean, np.float32).reshape(1, -1, 1, 1) if mean and deviation else None,
        deviation=np.array(deviation, np.float32).reshape(1, -1, 1, 1) if mean and deviation else None,
    )
