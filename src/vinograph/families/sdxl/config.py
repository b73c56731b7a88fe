"""SDXL's configuration: what its drawing code needs to know of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from vinograph.families.autoencoder import LATENT_KINDS, LatentConfig
from vinograph.families.contract import ManifestEntries, Outputs
from vinograph.families.latent import read_sampler
from vinograph.schedulers import Sampler
from vinograph.schema import Either, Kind, Many, Record, SchemaError, Whole

TEXT_ENCODERS = ("text_encoder", "text_encoder_2")
CONFIG_KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        **LATENT_KINDS,
        "text_widths": Many(Whole(1, 65_536), 2, 2),
        "pooled_width": Whole(1, 65_536),
        "force_zeros_for_empty_prompt": Whole(0, 1),
        "time_cond_width": Either(Whole(0, 0), Whole(4, 65_536)),
    }
)
"""What a manifest's ``config`` has to hold."""
_OTHERS: Mapping[str, Kind] = MappingProxyType({"unet_channels": Whole(1, 64)})
_LAYERS = Whole(1, 512)


@dataclass(frozen=True)
class SDXLConfig:
    """The configuration of one SDXL model.

    ``text_width`` is that of both text encoders' hidden states together, and ``text_layers`` the
    hidden states that both give. ``pooled_width`` is that of the second encoder's pooled text.
    Without a negative prompt, its embeddings are zeros where ``force_zeros_for_empty_prompt`` says
    so. ``time_cond_width`` is that of the guidance scale's embedding, 0 where the UNet takes none.
    ``unet_channels`` are those of the UNet's sample: the latents' own, or in a model for inpainting
    more.
    """

    sampler: Sampler
    scheduler: Mapping[str, Any]
    latents: LatentConfig
    text_width: int
    text_layers: int
    pooled_width: int
    force_zeros_for_empty_prompt: bool
    time_cond_width: int
    unet_channels: int

    @classmethod
    def from_manifest(cls, entries: ManifestEntries) -> SDXLConfig:
        """Read it from a manifest.

        Raises:
            SchemaError: naming a value that is missing or makes no sense.
            ModelError: there is no such scheduler.
        """
        config = entries.config
        Record(CONFIG_KINDS, _OTHERS, open=True).check("config", config)
        return cls(
            sampler=read_sampler(entries.scheduler),
            scheduler=entries.scheduler,
            latents=LatentConfig.from_mapping(config),
            text_width=sum(config["text_widths"]),
            text_layers=_text_layers(entries.outputs),
            pooled_width=config["pooled_width"],
            force_zeros_for_empty_prompt=bool(config["force_zeros_for_empty_prompt"]),
            time_cond_width=config["time_cond_width"],
            unet_channels=_unet_channels(config),
        )

    @property
    def inpaints(self) -> bool:
        """Whether the UNet takes a mask and a masked picture's latents, too, and can't do without."""
        return self.unet_channels > self.latents.channels

    @property
    def guides_itself(self) -> bool:
        """Whether the UNet takes the guidance scale as an input, instead of predicting twice."""
        return self.time_cond_width > 0


def _unet_channels(config: Mapping[str, Any]) -> int:
    """The channels of the UNet's sample; bundles of older versions have the latents' alone.

    Raises:
        SchemaError: it is neither their number nor that of inpainting.
    """
    latents = config["latent_channels"]
    known = (latents, 2 * latents + 1)
    found = int(config.get("unet_channels", latents))
    if found not in known:
        raise SchemaError(f"config.unet_channels is {found}; give {known[0]}, or {known[1]} of a model for inpainting")
    return found


def _text_layers(outputs: Outputs) -> int:
    """How many hidden states both text encoders give; 0 where the model has neither.

    Raises:
        SchemaError: one doesn't say.
    """
    found = []
    for name in TEXT_ENCODERS:
        if name in outputs:
            shape = outputs[name].get("hidden_states", ())
            layers = shape[1] if len(shape) > 1 else None
            _LAYERS.check(f"components.{name}.outputs.hidden_states.shape[1]", layers)
            found.append(int(layers or 0))
    return min(found, default=0)
