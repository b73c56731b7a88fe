"""SDXL's models: checked against a checkpoint without loading it, then loaded and made graphs one by one."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from vinograph.bundle import Tensor
from vinograph.convert.assemble import Weights
from vinograph.convert.autoencoder import Autoencoder, AutoencoderDecoder, AutoencoderEncoder
from vinograph.convert.checkpoint import Place
from vinograph.convert.clip import ClipConfig, ClipHiddenStates
from vinograph.convert.export import Graph
from vinograph.convert.skeleton import Skeleton, skeleton
from vinograph.convert.tiny_autoencoder import TinyAutoencoder
from vinograph.convert.unet import UNet
from vinograph.convert.weights import Allowance
from vinograph.errors import ModelError

Graphs = Iterator[tuple[str, Graph]]

_IDS = {"input_ids": Tensor(("b", "n"), "i64")}
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
            tiny_vae=(
                skeleton(places["tiny_vae"], _DIFFUSERS, TinyAutoencoder.from_config, _NONE)
                if "tiny_vae" in places
                else None
            ),
        )
        models._check_together()
        return models

    @property
    def text_widths(self) -> list[int]:
        """The widths of the two encoders' hidden states, which the UNet takes joined."""
        return [each.module.config.hidden_size for each in (self.text_encoder, self.text_encoder_2)]

    @property
    def scale_factor(self) -> int:
        """How many times smaller than the picture its latents are, in each direction."""
        if self.vae is not None:
            return self.vae.module.config.scale_factor
        assert self.tiny_vae is not None
        return self.tiny_vae.module.config.decoder_scale_factor

    def _check_together(self) -> None:
        """The parts must fit each other: a tiny VAE may have been named that is another model's."""
        unet = self.unet.module.config
        pairs = [
            ("text encoders give", sum(self.text_widths), "UNet takes", unet.text_width),
            (
                "second text encoder pools to",
                self.text_encoder_2.module.config.projection_dim,
                "UNet takes",
                unet.pooled_width,
            ),
        ]
        if self.vae is not None:
            pairs.append(("UNet draws", 4, "VAE takes", self.vae.module.config.latent_channels))
        if self.tiny_vae is not None:
            tiny = self.tiny_vae.module.config
            pairs += [
                ("UNet draws", 4, "tiny VAE takes", tiny.latent_channels),
                ("latents are smaller by", self.scale_factor, "tiny VAE's are by", tiny.decoder_scale_factor),
                ("latents are smaller by", self.scale_factor, "tiny VAE's encoder's are by", tiny.encoder_scale_factor),
            ]
        for gives, width, takes, expected in pairs:
            if width != expected:
                raise ModelError(f"the parts don't fit together: the {gives} {width}, the {takes} {expected}")

    def weights(self, halve: bool) -> tuple[Weights, ...]:
        """What conversion goes through, in order. With ``halve``, matrices are read in half precision."""
        text, text_2 = self.text_encoder, self.text_encoder_2
        found = [
            Weights(("text_encoder",), text.records, partial(_text_graphs, "text_encoder", text, halve)),
            Weights(("text_encoder_2",), text_2.records, partial(_text_graphs, "text_encoder_2", text_2, halve)),
            Weights(("unet",), self.unet.records, partial(_unet_graphs, self.unet, halve)),
        ]
        if self.vae is not None:
            halves = ("vae_decoder", "vae_encoder")
            found.append(Weights(halves, self.vae.records, partial(_autoencoder_graphs, self.vae, halve)))
        if self.tiny_vae is not None:
            halves = ("tiny_vae_decoder", "tiny_vae_encoder")
            found.append(Weights(halves, self.tiny_vae.records, partial(_tiny_graphs, self.tiny_vae, halve)))
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


def _text_graphs(name: str, encoder: Skeleton[ClipHiddenStates], halve: bool, _: Collection[str]) -> Graphs:
    config, projects = encoder.module.config, encoder.module.text_projection is not None
    outputs = {"hidden_states": Tensor(("b", config.num_hidden_layers, "n", config.hidden_size), "f32")}
    if projects:
        outputs["text_embeds"] = Tensor(("b", config.projection_dim), "f32")
    yield name, Graph(encoder.load(halve), _IDS, outputs, _SIZES)


def _unet_graphs(unet: Skeleton[UNet], halve: bool, _: Collection[str]) -> Graphs:
    config = unet.module.config
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
    yield "unet", Graph(unet.load(halve), inputs, {"out_sample": latents}, _SIZES)


def _autoencoder_graphs(vae: Skeleton[Autoencoder], halve: bool, wanted: Collection[str]) -> Graphs:
    config, model = vae.module.config, vae.load(halve)
    latents = Tensor(("b", config.latent_channels, "h", "w"), "f32")
    parameters = Tensor(("b", 2 * config.latent_channels, "h", "w"), "f32")
    sizes = _picture_sizes(config.scale_factor)
    if "vae_decoder" in wanted:
        decoder = AutoencoderDecoder(model)
        yield "vae_decoder", Graph(decoder, {"latent_sample": latents}, {"sample": _PICTURE}, sizes, f16_safe=False)
    if "vae_encoder" in wanted:
        encoder = AutoencoderEncoder(model)
        graph = Graph(encoder, {"sample": _PICTURE}, {"latent_parameters": parameters}, sizes, f16_safe=False)
        yield "vae_encoder", graph


def _tiny_graphs(vae: Skeleton[TinyAutoencoder], halve: bool, wanted: Collection[str]) -> Graphs:
    config, model = vae.module.config, vae.load(halve)
    latents = Tensor(("b", config.latent_channels, "h", "w"), "f32")
    sizes = _picture_sizes(config.decoder_scale_factor)
    if "tiny_vae_decoder" in wanted:
        yield "tiny_vae_decoder", Graph(model.decoder, {"latent_sample": latents}, {"sample": _PICTURE}, sizes)
    if "tiny_vae_encoder" in wanted:
        yield "tiny_vae_encoder", Graph(model.encoder, {"sample": _PICTURE}, {"latents": latents}, sizes)


def _picture_sizes(scale_factor: int) -> dict[str, int]:
    return {**_SIZES, "height": _SIZES["h"] * scale_factor, "width": _SIZES["w"] * scale_factor}
