"""The configurations of SDXL's networks, which must fit each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from vinograph.families.sdxl.network_config import UNetConfig
from vinograph.models.autoencoders import AutoencoderConfigs, check_pairs
from vinograph.networks.clip import ClipConfig


class VaeFacts(Protocol):
    """What a manifest says of the VAEs."""

    @property
    def scale_factor(self) -> int:
        """How many times smaller than the picture the latents are, in each direction."""

    def numbers(self) -> dict[str, Any]:
        """The manifest's numbers for the autoencoders."""


class ModelFacts(Protocol):
    """What a manifest says of the networks."""

    @property
    def unet(self) -> UNetConfig:
        """The UNet's configuration."""

    @property
    def text_widths(self) -> tuple[int, int]:
        """The widths of the two encoders' hidden states, which the UNet takes joined."""

    @property
    def autoencoders(self) -> VaeFacts:
        """What it says of the VAEs."""


@dataclass(frozen=True)
class NetworkConfigs:
    """The configurations of a checkpoint's networks."""

    text_encoder: ClipConfig
    text_encoder_2: ClipConfig
    unet: UNetConfig
    autoencoders: AutoencoderConfigs

    @property
    def text_widths(self) -> tuple[int, int]:
        """The widths of the two encoders' hidden states, which the UNet takes joined."""
        return self.text_encoder.hidden_size, self.text_encoder_2.hidden_size

    def check_together(self) -> None:
        """Compare the parts with each other: a tiny VAE that was named may be another model's.

        Raises:
            ModelError: naming two that don't fit.
        """
        encoder_2, unet = self.text_encoder_2, self.unet
        check_pairs(
            [
                ("text encoders give", sum(self.text_widths), "UNet takes", unet.text_width),
                ("second text encoder pools to", encoder_2.projection_dim, "UNet takes", unet.pooled_width),
            ]
        )
        self.autoencoders.check("UNet")
