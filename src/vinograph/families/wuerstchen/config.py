"""Würstchen's configuration: what its drawing code needs to know of a model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from vinograph.errors import RequestError
from vinograph.families.contract import Array, ManifestEntries
from vinograph.images import Size
from vinograph.schedulers import WuerstchenSampler
from vinograph.schema import Divisor, Kind, Many, Real, Record, SchemaError, Whole

CONFIG_KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "prior_channels": Whole(1, 1024),
        "prior_text_width": Whole(1, 65_536),
        "resolution_multiple": Real(1, 4096),
        "latent_mean": Divisor(),
        "latent_std": Real(-1e6, 1e6),
        "latent_channels": Whole(1, 1024),
        "latent_dim_scale": Real(0.01, 1024),
        "scale_factor": Divisor(),
        "decoder_patch_size": Whole(1, 64),
        "decoder_level_count": Whole(1, 16),
        "effnet_levels": Many(Whole(0, 15), most=16),
    }
)
"""What a manifest's ``config`` has to hold."""
STAGE_SCHEDULER = Record({}, {"scaler": Real(1e-3, 1e3), "s": Real(0, 10)})
"""The two numbers of a stage's cosine schedule."""


@dataclass(frozen=True)
class WuerstchenConfig:
    """The configuration of one Würstchen model.

    Most numbers bear the names that diffusers gives them. The prior draws image embeddings of
    ``prior_channels`` that are ``resolution_multiple`` times smaller than the picture. The decoder
    draws latents of ``latent_channels`` that are ``latent_dim_scale`` times larger than the
    embeddings, and takes these at its ``effnet_levels``, the finest being 0. The VQGAN takes
    latents times ``scale_factor``.
    """

    prior_sampler: WuerstchenSampler
    decoder_sampler: WuerstchenSampler
    prior_channels: int
    prior_text_width: int
    resolution_multiple: float
    latent_mean: float
    latent_std: float
    latent_channels: int
    latent_dim_scale: float
    scale_factor: float
    decoder_patch_size: int
    decoder_level_count: int
    effnet_levels: tuple[int, ...]

    @classmethod
    def from_manifest(cls, entries: ManifestEntries) -> WuerstchenConfig:
        """Read it from a manifest.

        Raises:
            SchemaError: naming a value that is missing or makes no sense.
        """
        config, scheduler = entries.config, entries.scheduler
        Record(CONFIG_KINDS, open=True).check("config", config)
        for level in config["effnet_levels"]:
            if level >= config["decoder_level_count"]:
                raise SchemaError(f"config.effnet_levels has {level}; there are {config['decoder_level_count']} levels")
        Record({"prior": STAGE_SCHEDULER, "decoder": STAGE_SCHEDULER}).check("scheduler", scheduler)
        numbers = {name: config[name] for name in CONFIG_KINDS}
        return cls(
            prior_sampler=WuerstchenSampler(**scheduler["prior"]),
            decoder_sampler=WuerstchenSampler(**scheduler["decoder"]),
            **{**numbers, "effnet_levels": tuple(numbers["effnet_levels"])},
        )

    def embedding_shape(self, count: int, size: Size) -> tuple[int, int, int, int]:
        """Shape of the image embeddings of ``count`` pictures of ``size``."""
        height, width = (math.ceil(side / self.resolution_multiple) for side in size)
        return count, self.prior_channels, height, width

    def latent_shape(self, embeddings: tuple[int, ...]) -> tuple[int, int, int, int]:
        """Shape of the decoder's latents for image embeddings of the shape ``embeddings``.

        Raises:
            RequestError: the decoder takes no such embeddings.
        """
        if len(embeddings) != 4 or embeddings[1] != self.prior_channels:
            raise RequestError(
                f"image embeddings have shape {embeddings}; give [n, {self.prior_channels}, height, width]"
            )
        height, width = (int(side * self.latent_dim_scale) for side in embeddings[2:])
        multiple = self.decoder_patch_size * 2 ** (self.decoder_level_count - 1)
        if 0 in (height, width) or height % multiple or width % multiple:
            raise RequestError(
                f"image embeddings of {embeddings[2]}x{embeddings[3]} give latents of {height}x{width}, "
                f"which the decoder can't draw; give a grid whose sides are multiples of 3 (128 pixels each)"
            )
        return embeddings[0], self.latent_channels, height, width

    def to_embeddings(self, prior_latents: Array) -> Array:
        """Image embeddings of what the prior's sampler ends with."""
        return prior_latents * np.float32(self.latent_mean) - np.float32(self.latent_std)

    def to_prior_latents(self, embeddings: Array) -> Array:
        """The prior's latents of image embeddings: the inverse of :meth:`to_embeddings`."""
        return (embeddings + np.float32(self.latent_std)) / np.float32(self.latent_mean)
