"""The configurations of SDXL's parts, which must fit each other."""

from __future__ import annotations

from dataclasses import dataclass

from vinograph.convert.autoencoder import AutoencoderConfig
from vinograph.convert.clip import ClipConfig
from vinograph.convert.tiny_autoencoder import TinyAutoencoderConfig
from vinograph.convert.unet_config import UNetConfig
from vinograph.errors import ModelError


@dataclass(frozen=True)
class SdxlConfig:
    """Of the two autoencoders one may be missing."""

    text_encoder: ClipConfig
    text_encoder_2: ClipConfig
    unet: UNetConfig
    vae: AutoencoderConfig | None
    tiny_vae: TinyAutoencoderConfig | None

    @property
    def text_widths(self) -> tuple[int, int]:
        """The widths of the two encoders' hidden states, which the UNet takes joined."""
        return self.text_encoder.hidden_size, self.text_encoder_2.hidden_size

    @property
    def scale_factor(self) -> int:
        """How many times smaller than the picture its latents are, in each direction."""
        if self.vae is not None:
            return self.vae.scale_factor
        assert self.tiny_vae is not None
        return self.tiny_vae.decoder_scale_factor

    def check_together(self) -> None:
        """Compare the parts with each other: a tiny VAE may have been named that is another model's.

        Raises:
            ModelError: naming two that don't fit.
        """
        pairs = [
            ("text encoders give", sum(self.text_widths), "UNet takes", self.unet.text_width),
            ("second text encoder pools to", self.text_encoder_2.projection_dim, "UNet takes", self.unet.pooled_width),
        ]
        if self.vae is not None:
            pairs.append(("UNet draws", 4, "VAE takes", self.vae.latent_channels))
        if self.tiny_vae is not None:
            tiny = self.tiny_vae
            pairs += [
                ("UNet draws", 4, "tiny VAE takes", tiny.latent_channels),
                ("latents are smaller by", self.scale_factor, "tiny VAE's are by", tiny.decoder_scale_factor),
                ("latents are smaller by", self.scale_factor, "tiny VAE's encoder's are by", tiny.encoder_scale_factor),
            ]
        for gives, width, takes, expected in pairs:
            if width != expected:
                raise ModelError(f"the parts don't fit together: the {gives} {width}, the {takes} {expected}")
