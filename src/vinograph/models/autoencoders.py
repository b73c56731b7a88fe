"""The full and the tiny autoencoder of a checkpoint, which are compared with the denoiser."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from vinograph.errors import ModelError
from vinograph.models.checkpoint import Subfolder
from vinograph.models.parts import DIFFUSERS_STEM, ComponentPlan, Part, plan_component, read_part
from vinograph.networks import tiny_vae, vae
from vinograph.networks.tiny_vae import TinyAutoencoderConfig
from vinograph.networks.vae import AutoencoderConfig


@dataclass(frozen=True)
class AutoencoderConfigs:
    """The configurations of the full and the tiny autoencoder, of which one may be missing."""

    vae: AutoencoderConfig | None
    tiny_vae: TinyAutoencoderConfig | None

    @property
    def scale_factor(self) -> int:
        """How many times smaller than the picture the latents are, in each direction."""
        if self.vae is not None:
            return self.vae.scale_factor
        assert self.tiny_vae is not None
        return self.tiny_vae.decoder_scale_factor

    def check(self, network: str, channels: int = 4) -> None:
        """Compare the autoencoders with each other and with the latents that ``network`` draws.

        Raises:
            ModelError: two parts don't fit together; the message names them.
        """
        pairs = []
        if self.vae is not None:
            pairs.append((f"{network} draws", channels, "VAE takes", self.vae.latent_channels))
        if self.tiny_vae is not None:
            tiny, smaller = self.tiny_vae, self.scale_factor
            pairs += [
                (f"{network} draws", channels, "tiny VAE takes", tiny.latent_channels),
                ("latents are smaller by", smaller, "tiny VAE's are by", tiny.decoder_scale_factor),
                ("latents are smaller by", smaller, "tiny VAE's encoder's are by", tiny.encoder_scale_factor),
            ]
        check_pairs(pairs)

    def numbers(self) -> dict[str, Any]:
        """The manifest's numbers for the autoencoders; those of a missing one have no effect."""
        vae, tiny = self.vae, self.tiny_vae
        return {
            "latent_channels": 4,
            "vae_scale_factor": self.scale_factor,
            "vae_scaling_factor": vae.scaling_factor if vae is not None else 1.0,
            "vae_latents_mean": list(vae.latents_mean or ()) if vae is not None else [],
            "vae_latents_std": list(vae.latents_std or ()) if vae is not None else [],
            "tiny_vae_scaling_factor": tiny.scaling_factor if tiny is not None else 1.0,
        }


def check_pairs(pairs: Collection[tuple[str, int, str, int]], unit: str = "") -> None:
    """Compare a number of one part with that of another, for each pair.

    Args:
        pairs: what the one part gives, how many, what the other takes, and how many.
        unit: what the numbers count, after a space.

    Raises:
        ModelError: two numbers differ; the message names the first such parts.
    """
    for gives, width, takes, expected in pairs:
        if width != expected:
            raise ModelError(f"the parts don't fit together: the {gives} {width}{unit}, the {takes} {expected}")


@dataclass(frozen=True)
class Autoencoders:
    """The full autoencoder of a checkpoint and its tiny one; one of the two may be missing."""

    vae: Part[AutoencoderConfig] | None
    tiny_vae: Part[TinyAutoencoderConfig] | None

    @classmethod
    def read(cls, subfolders: Mapping[str, Subfolder]) -> Autoencoders:
        """Read what is at "vae" and "tiny_vae". Raises what :func:`read_part` does."""
        return cls(
            full_autoencoder(subfolders["vae"]) if "vae" in subfolders else None,
            tiny_autoencoder(subfolders["tiny_vae"]) if "tiny_vae" in subfolders else None,
        )

    @property
    def config(self) -> AutoencoderConfigs:
        """The configurations of both."""
        return AutoencoderConfigs(
            vae=self.vae.config if self.vae is not None else None,
            tiny_vae=self.tiny_vae.config if self.tiny_vae is not None else None,
        )

    def plans(self) -> tuple[ComponentPlan, ...]:
        """Plan the components of both. Raises what :func:`plan_component` does."""
        found = []
        if self.vae is not None:
            found.append(plan_component("vae_decoder", self.vae, vae.vae_decoder, vae.DECODER_IGNORED))
            found.append(plan_component("vae_encoder", self.vae, vae.vae_encoder, vae.ENCODER_IGNORED))
        if self.tiny_vae is not None:
            found += tiny_plans(self.tiny_vae)
        return tuple(found)


def full_autoencoder(subfolder: Subfolder) -> Part[AutoencoderConfig]:
    """Read the KL autoencoder in ``subfolder``. Raises what :func:`read_part` does."""
    part = read_part(subfolder, DIFFUSERS_STEM, AutoencoderConfig.from_mapping)
    return dataclasses.replace(part, tensors=vae.with_current_names(part.tensors, part.origin))


def tiny_autoencoder(subfolder: Subfolder) -> Part[TinyAutoencoderConfig]:
    """Read the tiny VAE in ``subfolder``. Raises what :func:`read_part` does."""
    return read_part(subfolder, DIFFUSERS_STEM, TinyAutoencoderConfig.from_mapping)


def tiny_plans(part: Part[TinyAutoencoderConfig]) -> tuple[ComponentPlan, ComponentPlan]:
    """Plan the two components of a tiny VAE. Raises what :func:`plan_component` does."""
    return (
        plan_component("tiny_vae_decoder", part, tiny_vae.tiny_vae_decoder, tiny_vae.DECODER_IGNORED),
        plan_component("tiny_vae_encoder", part, tiny_vae.tiny_vae_encoder, tiny_vae.ENCODER_IGNORED),
    )
