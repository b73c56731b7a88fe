"""SDXL's models: checked against a checkpoint without loading it, then loaded and made graphs one by one."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from vinograph.convert.assemble import Weights
from vinograph.convert.autoencoders import DIFFUSERS_STEM, TRACED_SIZES, Autoencoders, Graphs, Ports
from vinograph.convert.checkpoint import Place
from vinograph.convert.clip import ClipConfig, ClipHiddenStates
from vinograph.convert.export import Graph
from vinograph.convert.sdxl_config import SdxlConfig
from vinograph.convert.skeleton import Skeleton, skeleton
from vinograph.convert.unet import UNet
from vinograph.convert.unet_config import UNetConfig
from vinograph.convert.weights import Allowance
from vinograph.manifest import Tensor

_NONE = Allowance()
# What text encoders of either class hold besides, none of which their hidden states depend on.
_TEXT_ENCODER = Allowance(unused=frozenset({"embeddings.position_ids", "text_projection.weight", "logit_scale"}))
_OLDER_PREFIX = "text_model."


@dataclass(frozen=True)
class Models:
    """All models of a checkpoint, fit to be converted; of the two autoencoders one may be missing."""

    text_encoder: Skeleton[ClipHiddenStates]
    text_encoder_2: Skeleton[ClipHiddenStates]
    unet: Skeleton[UNet]
    autoencoders: Autoencoders

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
            unet=skeleton(places["unet"], DIFFUSERS_STEM, UNet.from_config, _NONE),
            autoencoders=Autoencoders.check(places),
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
            autoencoders=self.autoencoders.config,
        )

    def weights(self, halve: bool) -> tuple[Weights, ...]:
        """What conversion goes through, in order. With ``halve``, matrices are read in half precision."""
        text, text_2 = self.text_encoder, self.text_encoder_2
        return (
            Weights(("text_encoder",), text.values, partial(_text_graphs, "text_encoder", text, halve)),
            Weights(("text_encoder_2",), text_2.values, partial(_text_graphs, "text_encoder_2", text_2, halve)),
            Weights(("unet",), self.unet.values, partial(_unet_graphs, self.unet, halve)),
            *self.autoencoders.weights(halve),
        )


def _text_encoder(place: Place, projects: bool) -> Skeleton[ClipHiddenStates]:
    def build(config: Mapping[str, Any]) -> ClipHiddenStates:
        return ClipHiddenStates(ClipConfig.from_mapping(config), projects)

    return skeleton(place, "model", build, _TEXT_ENCODER, lambda name: name.removeprefix(_OLDER_PREFIX))


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


def _text_graphs(name: str, encoder: Skeleton[ClipHiddenStates], halve: bool, _: Collection[str]) -> Graphs:
    ports = text_ports(encoder.module.config, encoder.module.text_projection is not None)
    yield name, Graph(encoder.load(halve), ports.inputs, ports.outputs, TRACED_SIZES)


def _unet_graphs(unet: Skeleton[UNet], halve: bool, _: Collection[str]) -> Graphs:
    ports = unet_ports(unet.module.config)
    yield "unet", Graph(unet.load(halve), ports.inputs, ports.outputs, TRACED_SIZES)
