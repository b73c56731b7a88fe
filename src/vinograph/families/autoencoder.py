"""The VAEs of latent diffusion (Rombach et al., arXiv 2112.10752): pictures to latents and back.

A bundle may hold two. The encoder of the full one gives a distribution (Kingma and Welling, arXiv
1312.6114). The tiny one stands in for it at a small part of its cost. Both work on the latents that
the model denoises.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from vinograph.errors import ModelError, RequestError
from vinograph.families.contract import Array, Components, Output, Session
from vinograph.families.tiling import MAX_WHOLE_AREA, BlendedTiles, CutTiles, Tiles
from vinograph.images import Size
from vinograph.schema import Divisor, Kind, Many, Real, SchemaError, Whole

Draw = Callable[[tuple[int, ...]], Array]

LATENT_KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "latent_channels": Whole(1, 64),
        "vae_scale_factor": Whole(1, 256),
        "vae_scaling_factor": Divisor(),
        "vae_latents_mean": Many(Real(-1e6, 1e6)),
        "vae_latents_std": Many(Divisor()),
        "tiny_vae_scaling_factor": Divisor(),
    }
)
"""What a manifest's ``config`` has to hold of a family that denoises a VAE's latents."""

# The first is the one that "any VAE" stands for, where the model has it.
_PREFIXES = {"tiny": "tiny_vae", "full": "vae"}
_TILE_SIDES = {"full": 512, "tiny": 1024}  # pixels; the tiny VAE needs less memory
# Latents around a tile that the tiny VAE sees: 18.1 of them in TAESD's configuration, both ways.
_TINY_MARGIN = 24
_LOG_VARIANCE = (-30.0, 20.0)  # clipped as in diffusers, so that its exponential stays finite


@dataclass(frozen=True)
class LatentScaling:
    """The scaling of a VAE's latents to those that are denoised.

    ``mean`` is subtracted from them, and they are multiplied by ``factor`` over ``std``.

    ``mean`` and ``std`` have one number per channel, or none.
    """

    factor: float
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


@dataclass(frozen=True)
class LatentConfig:
    """The latents that a model denoises, and the scaling of each VAE's latents to them.

    ``scale_factor`` is how many times smaller than the picture they are, in each direction.
    """

    channels: int
    scale_factor: int
    vae: LatentScaling
    tiny_vae: LatentScaling

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any]) -> LatentConfig:
        """Read the numbers of a manifest's ``config`` that fit :data:`LATENT_KINDS`.

        Raises:
            SchemaError: naming two that do not fit each other.
        """
        channels, mean, std = (config[name] for name in ("latent_channels", "vae_latents_mean", "vae_latents_std"))
        if len(mean) != len(std) or len(mean) not in (0, channels):
            raise SchemaError(
                f"config.vae_latents_mean has {len(mean)} numbers and vae_latents_std {len(std)} "
                f"for {channels} channels; give as many, or none"
            )
        return cls(
            channels=channels,
            scale_factor=config["vae_scale_factor"],
            vae=LatentScaling(config["vae_scaling_factor"], tuple(mean), tuple(std)),
            tiny_vae=LatentScaling(config["tiny_vae_scaling_factor"]),
        )

    def shape(self, count: int, size: Size) -> tuple[int, int, int, int]:
        """Shape [count, channels, height, width] of the latents of pictures of ``size``."""
        return count, self.channels, size.height // self.scale_factor, size.width // self.scale_factor


class HasLatents(Protocol):
    """A family's configuration that says what the latents are."""

    @property
    def latents(self) -> LatentConfig:
        """The latents that the model denoises."""


@dataclass(frozen=True)
class VAE:
    """A VAE of a model, which its ``name`` calls "full" or "tiny".

    ``mean`` and ``std`` [1, channels, 1, 1] are those of its latents before scaling. Pictures are
    ``scale_factor`` times as large as latents. ``tiling`` says when they are computed in tiles:
    "on", "off", or "auto", which is where they are large.
    """

    name: str
    decoder: Session
    encoder: Session | None
    factor: np.float32
    mean: Array | None
    std: Array | None
    scale_factor: int
    tiling: str

    @property
    def samples_posterior(self) -> bool:
        """Whether encoding takes noise: the full VAE gives a distribution to draw from."""
        return self.name == "full"

    def decode(self, latents: Array, fit: Callable[[Array], Array] | None = None) -> Array:
        """Decode ``latents`` [n, channels, h, w] to pictures [n, height, width, 3] in [0, 1].

        They are decoded one at a time, to bound memory. ``fit`` brings [1, 3, height, width] to
        another size before values beyond black and white are cut off.
        """
        if self.mean is None or self.std is None:
            unscaled = latents / self.factor
        else:
            unscaled = latents * self.std / self.factor + self.mean
        decoded = [self._decode_one(each[None]) for each in unscaled]
        fitted = decoded if fit is None else [fit(each) for each in decoded]
        pictures: Array = np.clip(np.concatenate(fitted) * 0.5 + 0.5, 0, 1).transpose(0, 2, 3, 1)
        return pictures

    def _decode_one(self, latents: Array) -> Array:
        tiles = self._tiles(Size(*latents.shape[2:]), of_latents=True)
        return self._run_decoder(latents) if tiles is None else tiles.compute(self._run_decoder, latents)

    def _run_decoder(self, latents: Array) -> Array:
        return self.decoder({"latent_sample": latents})["sample"]

    def _encode_one(self, picture: Array) -> Array:
        tiles = self._tiles(Size(*picture.shape[2:]), of_latents=False)
        return self._run_encoder(picture) if tiles is None else tiles.compute(self._run_encoder, picture)

    def _run_encoder(self, picture: Array) -> Array:
        assert self.encoder is not None
        return self.encoder({"sample": picture})["latent_parameters" if self.samples_posterior else "latents"]

    def _tiles(self, size: Size, *, of_latents: bool) -> Tiles | None:
        """Tiles of latents or pictures of ``size``, or None where they are computed in one piece."""
        factor = self.scale_factor
        unit = factor if of_latents else 1  # pixels
        area = size.height * size.width * unit**2
        side = _TILE_SIDES[self.name] // factor * factor // unit
        if not (self.tiling == "on" or (self.tiling == "auto" and area > MAX_WHOLE_AREA)) or max(size) <= side:
            return None
        scale = Fraction(factor) if of_latents else Fraction(1, factor)
        if self.name == "tiny":
            return CutTiles(side, scale, _TINY_MARGIN * factor // unit)
        return BlendedTiles(side, scale)

    def note_tiles(self, size: Size, done: str, out: Output) -> None:
        """Warn that pictures of ``size`` are ``done`` (decoded, encoded) in blended tiles unasked."""
        tiles = self._tiles(size, of_latents=False)
        if self.tiling != "auto" or not isinstance(tiles, BlendedTiles):
            return
        out.warnings.append(
            f"{size} is {done} in {tiles.count(size)} tiles of {tiles.side} pixels, which saves memory and may shift "
            "colours a little; with vae_tiling off it is done in one piece"
        )

    def prepare(self, components: Components[Any], latents: tuple[int, ...]) -> None:
        """Compile the decoder in the background for latents of the shape [n, channels, h, w]."""
        size = Size(*latents[2:])
        tiles = self._tiles(size, of_latents=True)
        largest = size if tiles is None else tiles.largest(size)
        components.prepare(f"{_PREFIXES[self.name]}_decoder", {"latent_sample": (1, latents[1], *largest)})

    def check_encoder(self) -> None:
        """Check that pictures can be encoded.

        Raises:
            ModelError: the bundle has no encoder.
        """
        if self.encoder is None:
            raise ModelError(f"this bundle has no {_PREFIXES[self.name]}_encoder: convert the model again")

    def encode(self, pictures: Array, draw: Draw | None = None) -> Array:
        """Encode ``pictures`` [n, 3, height, width] in [0, 1] to latents [n, channels, h, w].

        Pictures are encoded one at a time, to bound memory. The full VAE's latents are drawn from
        its distribution with the noise that ``draw`` returns for their shape. There are as many as
        it returns noise for: the pictures then repeat in their order. Without ``draw`` they are the
        distribution's mean. The tiny VAE's latents have no distribution.

        Raises:
            ModelError: the bundle has no encoder.
        """
        self.check_encoder()
        encoded = np.concatenate([self._encode_one(2 * each[None] - 1) for each in pictures])
        if not self.samples_posterior:
            return encoded * self.factor
        latents, log_variance = np.split(encoded, 2, axis=1)
        if draw is not None:
            noise = draw(latents.shape)
            repeats = (len(noise) // len(latents), 1, 1, 1)
            std = np.exp(0.5 * np.clip(log_variance, *_LOG_VARIANCE))
            latents = np.tile(latents, repeats) + np.tile(std, repeats) * noise
        if self.mean is None or self.std is None:
            return latents * self.factor
        return (latents - self.mean) * self.factor / self.std


def vae_names(components: Container[str]) -> list[str]:
    """Names of the VAEs that a model with these components has. The first stands for "any VAE"."""
    return [name for name, prefix in _PREFIXES.items() if f"{prefix}_decoder" in components]


def vae_of(components: Components[HasLatents], name: str | None, tiling: str | None = None) -> VAE:
    """The model's VAE called ``name``; None stands for the tiny one, if there is one.

    ``tiling`` says when it computes in tiles; None is "auto".

    Raises:
        RequestError: the bundle doesn't have it.
        ModelError: the bundle has none.
    """
    names = vae_names(components.sessions)
    if not names:
        raise ModelError("this bundle has no VAE: convert the model again")
    name = names[0] if name is None else name
    if name not in names:
        raise RequestError(f"vae is {name!r}; this model has {', '.join(names)}")
    prefix, latents = _PREFIXES[name], components.config.latents
    scaling = latents.vae if name == "full" else latents.tiny_vae
    return VAE(
        name=name,
        decoder=components.sessions[f"{prefix}_decoder"],
        encoder=components.sessions.get(f"{prefix}_encoder"),
        factor=np.float32(scaling.factor),
        mean=_per_channel(scaling.mean),
        std=_per_channel(scaling.std),
        scale_factor=latents.scale_factor,
        tiling=tiling or "auto",
    )


def _per_channel(values: tuple[float, ...]) -> Array | None:
    return np.array(values, np.float32).reshape(1, -1, 1, 1) if values else None
