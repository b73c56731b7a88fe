"""Every network names the tensor that a checkpoint lacks or has too many of, and gives its constants the checkpoint's names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import openvino as ov
import pytest
import torch
from torch import nn

from tests.checkpoints import PIXART, SDXL, pixart_models, sdxl_models
from tests.networks import test_clip, test_image_encoder_graph, test_tiny_vae, test_vae, test_wuerstchen_graph
from tests.networks.agreement import MemoryTensor, tensors_of
from vinograph.errors import DamagedModelError
from vinograph.families.pixart.network import IGNORED as PIXART_IGNORED
from vinograph.families.pixart.network import pixart
from vinograph.families.pixart.network_config import TransformerConfig
from vinograph.families.sdxl.network import unet
from vinograph.families.sdxl.network_config import UNetConfig
from vinograph.families.wuerstchen.network_image_encoder import IGNORED as IMAGE_ENCODER_IGNORED
from vinograph.families.wuerstchen.network_image_encoder import image_encoder
from vinograph.networks import clip, t5, tiny_vae, vae
from vinograph.networks.graph import Network, Storage, Weights

Tensors = dict[str, MemoryTensor]


@dataclass(frozen=True)
class Case:
    """A checkpoint's module of random weights, the graphs that share its tensors, and tensors to try them with."""

    module: Callable[[], nn.Module]
    config: Callable[[Any], Any]
    graphs: tuple[Callable[[Any, Weights], Network], ...]
    lacking: tuple[str, ...]
    surplus: tuple[str, ...]
    misshapen: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    mistyped: str | None = None
    ignored: str = ""
    """Tensors that no graph takes, as a regular expression."""
    tied: str = ""
    """The second name of a tensor that has two."""
    name: Callable[[str], str] = str
    """The name in the graph of a tensor of the module."""

    def tensors(self, module: nn.Module) -> Tensors:
        """The module's tensors, under the graphs' names."""
        return {self.name(name): each for name, each in tensors_of(module).items()}

    def build(self, module: nn.Module, tensors: Tensors, storage: Storage | None = None) -> list[Network]:
        """The graphs over ``tensors``, of which none may be left."""
        weights = Weights(tensors, "the checkpoint", storage)
        networks = [graph(self.config(module), weights) for graph in self.graphs]
        weights.check_all_used(self.ignored)
        return networks


def settings_of(module: Any) -> dict[str, Any]:
    """The configuration of one of diffusers' modules."""
    return {key: each for key, each in module.config.items() if key[0] != "_"}


def clip_case(projects: bool, *graphs: Callable[[Any, Weights], Network]) -> Case:
    """CLIP's text encoder. The last layer is checked, too, where its hidden states are not wanted."""
    return Case(
        partial(test_clip.published, projects),
        test_clip.config,
        graphs,
        lacking=(
            "embeddings.token_embedding.weight",
            "encoder.layers.2.mlp.fc2.bias",
            "encoder.layers.2.self_attn.k_proj.weight",
            "encoder.layers.2.layer_norm2.weight",
            "final_layer_norm.bias",
        ),
        surplus=("encoder.layers.3.mlp.fc1.bias",),
        ignored=clip.IGNORED,
        name=clip.network_name,
    )


def wuerstchen_case(component: str, lacking: str, *surplus: str) -> Case:
    """A component of Würstchen's denoisers or of its VQGAN."""
    part = test_wuerstchen_graph.PARTS[component]
    return Case(
        partial(test_wuerstchen_graph.module_of, component),
        lambda module: module.config,
        (part.network,),
        lacking=(lacking,),
        surplus=surplus,
        ignored=part.ignored,
    )


CASES = {
    "vae": Case(
        test_vae.published,
        test_vae.config_of,
        (vae.vae_decoder, vae.vae_encoder),
        lacking=("decoder.mid_block.attentions.0.to_k.bias", "quant_conv.weight"),
        surplus=("decoder.extra.weight", "extra.weight"),
        misshapen={"encoder.conv_in.weight": (1, 3, 3, 3)},
        mistyped="encoder.conv_in.bias",
    ),
    "tiny vae": Case(
        test_tiny_vae.published,
        test_tiny_vae.config_of,
        (tiny_vae.tiny_vae_decoder, tiny_vae.tiny_vae_encoder),
        lacking=("decoder.layers.0.weight", "encoder.layers.1.conv.4.bias"),
        surplus=("decoder.layers.1.weight", "extra.weight"),
        misshapen={"encoder.layers.0.weight": (1, 3, 3, 3)},
    ),
    "t5": Case(
        lambda: pixart_models(PIXART).text_encoder,
        lambda module: t5.T5Config.from_mapping(module.config.to_dict()),
        (t5.t5_encoder,),
        lacking=(
            "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
            "encoder.block.2.layer.1.DenseReluDense.wi_1.weight",
        ),
        # As that of a version of T5 whose layers aren't gated.
        surplus=("encoder.block.0.layer.1.DenseReluDense.wi.weight",),
        ignored=t5.IGNORED,
        tied="encoder.embed_tokens.weight",
    ),
    "clip": clip_case(False, clip.clip_text_encoder),
    "clip with a projection": clip_case(True, clip.clip_text_encoder),
    "clip's layers": clip_case(False, partial(clip.clip_hidden_states, projects=False)),
    "clip's layers with a projection": clip_case(True, partial(clip.clip_hidden_states, projects=True)),
    "image encoder": Case(
        test_image_encoder_graph.module_of,
        lambda module: module.config,
        (image_encoder,),
        lacking=("backbone.0.0.weight", "backbone.3.1.block.1.fc2.bias", "mapper.1.running_var"),
        surplus=("backbone.6.0.weight",),
        ignored=IMAGE_ENCODER_IGNORED,
    ),
    "unet": Case(
        lambda: sdxl_models(SDXL).unet,
        lambda module: UNetConfig.from_mapping(module.config),
        (unet,),
        lacking=("mid_block.attentions.0.proj_in.weight",),
        surplus=("mid_block.extra.weight",),
        misshapen={"conv_in.weight": (1, 4, 3, 3)},
        mistyped="conv_in.bias",
    ),
    "pixart": Case(
        lambda: pixart_models(PIXART).transformer,
        lambda module: TransformerConfig.from_mapping(settings_of(module)),
        (pixart,),
        lacking=("transformer_blocks.1.scale_shift_table",),
        surplus=("transformer_blocks.2.extra",),
        misshapen={"scale_shift_table": (3, 24)},
        ignored=PIXART_IGNORED,
    ),
    "prior_text": wuerstchen_case("prior_text", "blocks.2.kv_mapper.1.weight", "blocks.0.attention.extra.weight"),
    "prior": wuerstchen_case("prior", "blocks.0.channelwise.2.beta", "blocks.99.depthwise.weight"),
    "decoder_text": wuerstchen_case("decoder_text", "down_blocks.1.3.attention.to_v.bias", "seq_norm.weight"),
    "decoder": wuerstchen_case(
        "decoder", "effnet_mappers.4.weight", "down_blocks.0.0.extra.weight", "effnet_mappers.0.weight"
    ),
    "vqgan": wuerstchen_case("vqgan", "up_blocks.1.gammas", "up_blocks.99.weight"),
}


def each(tensors: Callable[[Case], tuple[str, ...]]) -> list[Any]:
    """Each case with each of those tensors."""
    return [pytest.param(case, name, id=f"{key}-{name}") for key, case in CASES.items() for name in tensors(case)]


@pytest.mark.parametrize(("case", "name"), each(lambda case: case.lacking))
def test_a_missing_tensor_or_one_of_another_rank_is_named(case: Case, name: str) -> None:
    module = case.module()
    tensors = case.tensors(module)
    with pytest.raises(DamagedModelError, match=rf"{re.escape(name)} has the shape \[3, 5\]"):
        case.build(module, tensors | {name: MemoryTensor(torch.zeros(3, 5))})
    del tensors[name]
    with pytest.raises(DamagedModelError, match=f"lacks the tensor {re.escape(name)}, of shape "):
        case.build(module, tensors)


@pytest.mark.parametrize(("case", "name"), each(lambda case: case.surplus))
def test_so_is_one_too_many(case: Case, name: str) -> None:
    module = case.module()
    tensors = case.tensors(module) | {name: MemoryTensor(torch.zeros(2, 2))}
    with pytest.raises(DamagedModelError, match=f"has the tensor {re.escape(name)}, which"):
        case.build(module, tensors)


@pytest.mark.parametrize(("case", "name"), each(lambda case: tuple(case.misshapen)))
def test_and_one_of_another_shape(case: Case, name: str) -> None:
    module, shape = case.module(), case.misshapen[name]
    wrong = case.tensors(module) | {name: MemoryTensor(torch.zeros(shape))}
    with pytest.raises(DamagedModelError, match=re.escape(f"{name} has the shape {[*shape]}")):
        case.build(module, wrong)


@pytest.mark.parametrize(("case", "name"), each(lambda case: (case.mistyped,) if case.mistyped else ()))
def test_and_one_of_another_type(case: Case, name: str) -> None:
    module = case.module()
    tensors = case.tensors(module)
    whole = MemoryTensor(torch.zeros(tensors[name].shape, dtype=torch.int64))
    with pytest.raises(DamagedModelError, match=rf"{re.escape(name)} is of the type I64"):
        case.build(module, tensors | {name: whole})


@pytest.mark.parametrize(
    ("case", "graph", "ignored", "surplus"),
    [
        ("vae", vae.vae_decoder, vae.DECODER_IGNORED, ("extra.weight", "decoder.extra.weight")),
        ("vae", vae.vae_encoder, vae.ENCODER_IGNORED, ("extra.weight", "encoder.extra.weight")),
        ("tiny vae", tiny_vae.tiny_vae_decoder, tiny_vae.DECODER_IGNORED, ("extra.weight",)),
        ("tiny vae", tiny_vae.tiny_vae_encoder, tiny_vae.ENCODER_IGNORED, ("extra.weight",)),
    ],
)
def test_half_an_autoencoder_alone_ignores_the_others_tensors_and_no_more(
    case: str, graph: Callable[[Any, Weights], Network], ignored: str, surplus: tuple[str, ...]
) -> None:
    module = CASES[case].module()
    config, tensors = CASES[case].config(module), tensors_of(module)
    weights = Weights(tensors, "the checkpoint")
    graph(config, weights)
    weights.check_all_used(ignored)
    with pytest.raises(DamagedModelError):
        weights.check_all_used()
    for name in surplus:
        weights = Weights(tensors | {name: MemoryTensor(torch.zeros(2, 2))}, "the checkpoint")
        graph(config, weights)
        with pytest.raises(DamagedModelError, match=f"has the tensor {re.escape(name)}"):
            weights.check_all_used(ignored)


def constants(network: Network) -> list[ov.Node]:
    return [node for node in network.model.get_ops() if node.get_type_name() == "Constant"]


# Würstchen's networks fold some of their tensors into others, which is tested with them.
@pytest.mark.parametrize(
    "name",
    ["vae", "tiny vae", "t5", "clip", "clip with a projection", "clip's layers with a projection", "unet", "pixart"],
)
def test_every_constant_bears_the_checkpoints_name(name: str) -> None:
    case = CASES[name]
    module = case.module()
    tensors = case.tensors(module)
    names = {node.get_friendly_name() for network in case.build(module, tensors) for node in constants(network)}
    assert {each for each in tensors if each != case.tied and not re.fullmatch(case.ignored, each)} <= names


@pytest.mark.parametrize("name", CASES)
def test_matrices_are_held_in_half_precision_where_that_is_asked_for(name: str) -> None:
    case = CASES[name]
    module = case.module()
    for network in case.build(module, case.tensors(module), Storage(halve=True)):
        for node in constants(network):
            if node.get_output_element_type(0) == ov.Type.f32:
                assert sum(size > 1 for size in node.shape) < 2, node.get_friendly_name()
