"""SDXL's models: checked against a checkpoint without loading it, then loaded and made graphs one by one."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from vinograph.bundle import Tensor
from vinograph.convert.assemble import Weights
from vinograph.convert.autoencoder import Autoencoder, AutoencoderConfig, AutoencoderDecoder, AutoencoderEncoder
from vinograph.convert.checkpoint import Place
from vinograph.convert.clip import ClipConfig, ClipHiddenStates
from vinograph.convert.export import Graph
from vinograph.convert.sdxl_config import SdxlConfig
from vinograph.convert.skeleton import Skeleton, skeleton
from vinograph.convert.tiny_autoencoder import TinyAutoencoder, TinyAutoencoderConfig
from vinograph.convert.unet import UNet
from vinograph.convert.unet_config import UNetConfig
from vinograph.convert.weights import Allowance

Graphs = Iterator[tuple[str, Graph]]

# Any sizes do while tracing; small ones are quick.
_SIZES = {"b": 2, "n": 5, "h": 3, "w": 4}
_PICTURE = Tensor(("b", 3, "height", "width"), "f32")

_DIFFUSERS = "diffusion_pytorch_model"
_NONE = Allowance()
# What text encoders of either class hold besides, none of which their hidden states depend on.
_TEXT_ENCODER = Allowance(unused=frozenset({"embeddings.position_ids", "text_projection.weight", "logit_scale"}))
_OLDER_PREFIX = "text_model."
_OLDER_ATTENTION: Mapping[str, str] = {
    ".query.": ".to_q.",
    ".key.": ".to_k.",
    ".value.": ".to_v.",
    ".proj_attn.": ".to_out.0.",
}


@dataclass(frozen=True)
class Models:
    """All models of a checkpoint, fit to be converted; of the two autoencoders one may be missing."""

    text_encoder: Skeleton[ClipHiddenStates]
    text_encoder_2: Skeleton[ClipHiddenStates]
    unet: Skeleton[UNet]
    vae: Skeleton[Autoencoder] | None
    tiny_vae: Skeleton[TinyAutoencoder] | None

    @classmethod
    def check(cls, places: Mapping[str, Place]) -> Models:
        """Read the configurations, and the headers of the weights.

        Raises:
            ModelError: a configuration makes no sense, or isn't computed here; or weights are missing or pickled.
            DamagedModelError: a tensor is missing, too many, or of the wrong type or shape.
        """
        models = cls(
            text_encoder=_text_encoder(places["text_encoder"], projects=False),
            text_encoder_2=_text_encoder(places["text_encoder_2"], projects=True),
            unet=skeleton(places["unet"], _DIFFUSERS, UNet.from_config, _NONE),
            vae=_autoencoder(places["vae"]) if "vae" in places else None,
            tiny_vae=tiny_autoencoder(places["tiny_vae"]) if "tiny_vae" in places else None,
        )
        models.config.check_together()
        return models

    @property
    def grid_multiple(self) -> int:
        """Latents of any size can be drawn."""
        return 1

    @property
    def config(self) -> SdxlConfig:
        """The parts' configurations."""
        return SdxlConfig(
            text_encoder=self.text_encoder.module.config,
            text_encoder_2=self.text_encoder_2.module.config,
            unet=self.unet.module.config,
            vae=self.vae.module.config if self.vae is not None else None,
            tiny_vae=self.tiny_vae.module.config if self.tiny_vae is not None else None,
        )

    def weights(self, halve: bool) -> tuple[Weights, ...]:
        """What conversion goes through, in order. With ``halve``, matrices are read in half precision."""
        text, text_2 = self.text_encoder, self.text_encoder_2
        found = [
            Weights(("text_encoder",), text.values, partial(_text_graphs, "text_encoder", text, halve)),
            Weights(("text_encoder_2",), text_2.values, partial(_text_graphs, "text_encoder_2", text_2, halve)),
            Weights(("unet",), self.unet.values, partial(_unet_graphs, self.unet, halve)),
        ]
        if self.vae is not None:
            halves = ("vae_decoder", "vae_encoder")
            found.append(Weights(halves, self.vae.values, partial(_autoencoder_graphs, self.vae, halve)))
        if self.tiny_vae is not None:
            found.append(tiny_weights(self.tiny_vae, halve))
        return tuple(found)


def _text_encoder(place: Place, projects: bool) -> Skeleton[ClipHiddenStates]:
    def build(config: Mapping[str, Any]) -> ClipHiddenStates:
        return ClipHiddenStates(ClipConfig.from_mapping(config), projects)

    return skeleton(place, "model", build, _TEXT_ENCODER, lambda name: name.removeprefix(_OLDER_PREFIX))


def _autoencoder(place: Place) -> Skeleton[Autoencoder]:
    def rename(name: str) -> str:
        for older, newer in _OLDER_ATTENTION.items():
            name = name.replace(older, newer)
        return name

    return skeleton(place, _DIFFUSERS, Autoencoder.from_config, _NONE, rename)


def tiny_autoencoder(place: Place) -> Skeleton[TinyAutoencoder]:
    """The tiny VAE in ``place``, checked. Raises what :meth:`Models.check` does."""
    return skeleton(place, _DIFFUSERS, TinyAutoencoder.from_config, _NONE)


def tiny_weights(vae: Skeleton[TinyAutoencoder], halve: bool) -> Weights:
    """The two components of a tiny VAE."""
    return Weights(("tiny_vae_decoder", "tiny_vae_encoder"), vae.values, partial(_tiny_graphs, vae, halve))


@dataclass(frozen=True)
class Ports:
    """What a component takes and gives."""

    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]


def text_ports(config: ClipConfig, projects: bool) -> Ports:
    """A text encoder's; with ``projects`` it gives the pooled text too."""
    outputs = {"hidden_states": Tensor(("b", config.num_hidden_layers, "n", config.hidden_size), "f32")}
    if projects:
        outputs["text_embeds"] = Tensor(("b", config.projection_dim), "f32")
    return Ports({"input_ids": Tensor(("b", "n"), "i64")}, outputs)


def unet_ports(config: UNetConfig) -> Ports:
    """The UNet's."""
    latents = Tensor(("b", 4, "h", "w"), "f32")
    inputs = {
        "sample": latents,
        "timestep": Tensor(("b",), "f32"),
        "encoder_hidden_states": Tensor(("b", "n", config.text_width), "f32"),
        "text_embeds": Tensor(("b", config.pooled_width), "f32"),
        "time_ids": Tensor(("b", 6), "f32"),
    }
    if config.time_cond_proj_dim is not None:
        inputs["timestep_cond"] = Tensor(("b", config.time_cond_proj_dim), "f32")
    return Ports(inputs, {"out_sample": latents})


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


def _text_graphs(name: str, encoder: Skeleton[ClipHiddenStates], halve: bool, _: Collection[str]) -> Graphs:
    ports = text_ports(encoder.module.config, encoder.module.text_projection is not None)
    yield name, Graph(encoder.load(halve), ports.inputs, ports.outputs, _SIZES)


def _unet_graphs(unet: Skeleton[UNet], halve: bool, _: Collection[str]) -> Graphs:
    ports = unet_ports(unet.module.config)
    yield "unet", Graph(unet.load(halve), ports.inputs, ports.outputs, _SIZES)


def _autoencoder_graphs(vae: Skeleton[Autoencoder], halve: bool, wanted: Collection[str]) -> Graphs:
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
    return {**_SIZES, "height": _SIZES["h"] * scale_factor, "width": _SIZES["w"] * scale_factor}
