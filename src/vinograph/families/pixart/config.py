"""PixArt's configuration: what its drawing code needs to know of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from vinograph.families.autoencoder import LATENT_KINDS, LatentConfig
from vinograph.families.contract import ManifestEntries
from vinograph.families.latent import read_sampler
from vinograph.schedulers import Sampler
from vinograph.schema import Kind, Record, Whole

CONFIG_KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        **LATENT_KINDS,
        "text_width": Whole(1, 65_536),
        "text_length": Whole(1, 512),
        "out_channels": Whole(1, 128),
        "sample_size": Whole(1, 8192),
        "size_conditions": Whole(0, 1),
    }
)
"""What a manifest's ``config`` has to hold."""


@dataclass(frozen=True)
class PixArtConfig:
    """The configuration of one PixArt model.

    ``text_width`` is that of the text encoder's hidden states, and ``text_length`` the most tokens
    that the model was trained with. ``sample_size`` is the side of the latents of a square picture
    of its native size. With ``size_conditions``, the transformer takes the picture's resolution and
    aspect ratio.
    """

    sampler: Sampler
    scheduler: Mapping[str, Any]
    latents: LatentConfig
    text_width: int
    text_length: int
    sample_size: int
    size_conditions: bool

    @classmethod
    def from_manifest(cls, entries: ManifestEntries) -> PixArtConfig:
        """Read it from a manifest.

        Raises:
            SchemaError: naming a value that is missing or makes no sense.
            ModelError: there is no such scheduler.
        """
        config = entries.config
        Record(CONFIG_KINDS, open=True).check("config", config)
        return cls(
            sampler=read_sampler(entries.scheduler),
            scheduler=entries.scheduler,
            latents=LatentConfig.from_mapping(config),
            text_width=config["text_width"],
            text_length=config["text_length"],
            sample_size=config["sample_size"],
            size_conditions=bool(config["size_conditions"]),
        )
