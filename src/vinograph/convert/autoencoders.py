"""A checkpoint's autoencoders, full, tiny or both: checked, compared with the model, and made graphs one by one."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from vinograph.convert.assemble import Weights
from vinograph.convert.autoencoder import Autoencoder, AutoencoderConfig, AutoencoderDecoder, AutoencoderEncoder
from vinograph.convert.checkpoint import Place
from vinograph.convert.export import Graph
from vinograph.convert.skeleton import Skeleton, skeleton
from vinograph.convert.tiny_autoencoder import TinyAutoencoder, TinyAutoencoderConfig
from vinograph.convert.weights import Allowance
from vinograph.errors import ModelError
from vinograph.manifest import Tensor

Graphs = Iterator[tuple[str, Graph]]

DIFFUSERS_STEM = "diffusion_pytorch_model"
"""How diffusers names a model's weights."""
TRACED_SIZES: Mapping[str, int] = {"b": 2, "n": 5, "h": 4, "w": 6}
"""Any sizes do while tracing; small ones are quick."""

_PICTURE = Tensor(("b", 3, "height", "width"), "f32")
_OLDER_ATTENTION: Mapping[str, str] = {
    ".query.": ".to_q.",
    ".key.": ".to_k.",
    ".value.": ".to_v.",
    ".proj_attn.": ".to_out.0.",
}


@dataclass(frozen=True)
class Ports:
    """What a component takes and gives."""

    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]


@dataclass(frozen=True)
class AutoencoderConfigs:
    """Of the full autoencoder and the tiny one, of which one may be missing."""

    vae: AutoencoderConfig | None
    tiny_vae: TinyAutoencoderConfig | None

    @property
    def scale_factor(self) -> int:
        """How many times smaller than the picture its latents are, in each direction."""
        if self.vae is not None:
            return self.vae.scale_factor
        assert self.tiny_vae is not None
        return self.tiny_vae.decoder_scale_factor

    def check(self, network: str, channels: int = 4) -> None:
        """Compare them with each other, and with the latents of ``channels`` channels that a network draws.

        Raises:
            ModelError: naming two that don't fit.
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
        """What a manifest says of them. The numbers of one that isn't there change nothing."""
        vae, tiny = self.vae, self.tiny_vae
        return {
            "latent_channels": 4,
            "vae_scale_factor": self.scale_factor,
            "vae_scaling_factor": vae.scaling_factor if vae is not None else 1.0,
            "vae_latents_mean": list(vae.latents_mean or ()) if vae is not None else [],
            "vae_latents_std": list(vae.latents_std or ()) if vae is not None else [],
            "tiny_vae_scaling_factor": tiny.scaling_factor if tiny is not None else 1.0,
        }


def check_pairs(pairs: Collection[tuple[str, int, str, int]]) -> None:
    """Compare numbers of two parts each: what the one gives and how many, what the other takes and how many.

    Raises:
        ModelError: naming the first two that differ.
    """
    for gives, width, takes, expected in pairs:
        if width != expected:
            raise ModelError(f"the parts don't fit together: the {gives} {width}, the {takes} {expected}")


@dataclass(frozen=True)
class Autoencoders:
    """Those of a checkpoint; one may be missing."""

    vae: Skeleton[Autoencoder] | None
    tiny_vae: Skeleton[TinyAutoencoder] | None

    @classmethod
    def check(cls, places: Mapping[str, Place]) -> Autoencoders:
        """Read the configurations, and the headers of the weights, of what is at "vae" and "tiny_vae".

        Raises:
            ModelError: a configuration makes no sense, or isn't computed here; or weights are missing or pickled.
            DamagedModelError: a tensor is missing, too many, or of the wrong type or shape.
        """
        vae = (
            skeleton(places["vae"], DIFFUSERS_STEM, Autoencoder.from_config, Allowance(), _newer)
            if ("vae" in places)
            else None
        )
        return cls(vae, tiny_autoencoder(places["tiny_vae"]) if "tiny_vae" in places else None)

    @property
    def config(self) -> AutoencoderConfigs:
        """Their configurations."""
        return AutoencoderConfigs(
            vae=self.vae.module.config if self.vae is not None else None,
            tiny_vae=self.tiny_vae.module.config if self.tiny_vae is not None else None,
        )

    def weights(self, halve: bool) -> tuple[Weights, ...]:
        """What conversion goes through, in order. With ``halve``, matrices are read in half precision."""
        found = []
        if self.vae is not None:
            halves = ("vae_decoder", "vae_encoder")
            found.append(Weights(halves, self.vae.values, partial(_graphs, self.vae, halve)))
        if self.tiny_vae is not None:
            found.append(tiny_weights(self.tiny_vae, halve))
        return tuple(found)


def tiny_autoencoder(place: Place) -> Skeleton[TinyAutoencoder]:
    """The tiny VAE in ``place``, checked. Raises what :meth:`Autoencoders.check` does."""
    return skeleton(place, DIFFUSERS_STEM, TinyAutoencoder.from_config, Allowance())


def tiny_weights(vae: Skeleton[TinyAutoencoder], halve: bool) -> Weights:
    """The two components of a tiny VAE."""
    return Weights(("tiny_vae_decoder", "tiny_vae_encoder"), vae.values, partial(_tiny_graphs, vae, halve))


def decoder_ports(config: AutoencoderConfig | TinyAutoencoderConfig) -> Ports:
    """Of the decoder of either autoencoder."""
    latents = Tensor(("b", config.latent_channels, "h", "w"), "f32")
    return Ports({"latent_sample": latents}, {"sample": _PICTURE})


def encoder_ports(config: AutoencoderConfig) -> Ports:
    """The encoder's, which gives a mean and a log variance for every number of the latents."""
    parameters = Tensor(("b", 2 * config.latent_channels, "h", "w"), "f32")
    return Ports({"sample": _PICTURE}, {"latent_parameters": parameters})


def tiny_encoder_ports(config: TinyAutoencoderConfig) -> Ports:
    """The tiny encoder's, which gives latents."""
    return Ports({"sample": _PICTURE}, {"latents": Tensor(("b", config.latent_channels, "h", "w"), "f32")})


def _newer(name: str) -> str:
    """The name of a tensor of attention today."""
    for older, newer in _OLDER_ATTENTION.items():
        name = name.replace(older, newer)
    return name


def _graphs(vae: Skeleton[Autoencoder], halve: bool, wanted: Collection[str]) -> Graphs:
    config, model = vae.module.config, vae.load(halve)
    sizes = _picture_sizes(config.scale_factor)
    if "vae_decoder" in wanted:
        ports = decoder_ports(config)
        yield "vae_decoder", Graph(AutoencoderDecoder(model), ports.inputs, ports.outputs, sizes, f16_safe=False)
    if "vae_encoder" in wanted:
        ports = encoder_ports(config)
        yield "vae_encoder", Graph(AutoencoderEncoder(model), ports.inputs, ports.outputs, sizes, f16_safe=False)


def _tiny_graphs(vae: Skeleton[TinyAutoencoder], halve: bool, wanted: Collection[str]) -> Graphs:
    config, model = vae.module.config, vae.load(halve)
    sizes = _picture_sizes(config.decoder_scale_factor)
    if "tiny_vae_decoder" in wanted:
        ports = decoder_ports(config)
        yield "tiny_vae_decoder", Graph(model.decoder, ports.inputs, ports.outputs, sizes)
    if "tiny_vae_encoder" in wanted:
        ports = tiny_encoder_ports(config)
        yield "tiny_vae_encoder", Graph(model.encoder, ports.inputs, ports.outputs, sizes)


def _picture_sizes(scale_factor: int) -> dict[str, int]:
    side = {"height": TRACED_SIZES["h"] * scale_factor, "width": TRACED_SIZES["w"] * scale_factor}
    return {**TRACED_SIZES, **side}
