"""The KL autoencoder's graphs compute what diffusers computes, and fit half precision."""

from __future__ import annotations

from typing import Any

import diffusers
import numpy as np
import openvino as ov
import pytest
import torch
from torch import Tensor, nn

from tests.checkpoints import randomise
from tests.networks.agreement import MemoryTensor, compiled, run, tensors_of
from vinograph.errors import DamagedModelError
from vinograph.networks.graph import Network, Port, Storage, Weights
from vinograph.networks.vae import (
    STREAM_SCALE,
    AutoencoderConfig,
    vae_decoder,
    vae_encoder,
    with_current_names,
)

LIBRARY: Any = diffusers  # its classes have no types
LARGEST_HALF = 65504.0
# Batch, height and width of the latents.
SIZES = [(1, 8, 8), (2, 5, 9), (3, 1, 4)]
KINDS: dict[str, dict[str, Any]] = {
    "published": {},
    "flat": {"block_out_channels": (8,), "layers_per_block": 1},
    "bare": {"use_quant_conv": False, "use_post_quant_conv": False, "mid_block_add_attention": False},
    "wide": {"latent_channels": 16, "block_out_channels": (4, 8, 8, 12)},
}


def published(kind: str = "published", encoder_stream: float = 1, decoder_stream: float = 1) -> Any:
    """diffusers' autoencoder with random weights and a residual stream of that scale."""
    settings = {"block_out_channels": (8, 8, 16), "layers_per_block": 2, "norm_num_groups": 4, **KINDS[kind]}
    levels = len(settings["block_out_channels"])
    types = {"down_block_types": ("DownEncoderBlock2D",) * levels, "up_block_types": ("UpDecoderBlock2D",) * levels}
    module = LIBRARY.AutoencoderKL(**settings, **types)
    randomise(module, torch.Generator().manual_seed(1))
    for name, parameter in module.named_parameters():
        if name.startswith(("encoder.conv_in", "decoder.conv_in")) or "conv2." in name or "to_out" in name:
            parameter.mul_(encoder_stream if name.startswith("encoder") else decoder_stream)
    return module


def config_of(module: Any) -> AutoencoderConfig:
    return AutoencoderConfig.from_mapping({key: each for key, each in module.config.items() if key[0] != "_"})


def networks_of(
    module: Any, tensors: dict[str, MemoryTensor] | None = None, storage: Storage | None = None
) -> tuple[Network, Network]:
    """The decoder and the encoder, of all tensors together."""
    config, weights = config_of(module), Weights(tensors or tensors_of(module), "the checkpoint", storage)
    decoder, encoder = vae_decoder(config, weights), vae_encoder(config, weights)
    weights.check_all_used()
    return decoder, encoder


def latents_of(module: Any, size: tuple[int, int, int]) -> Tensor:
    batch, height, width = size
    generator = torch.Generator().manual_seed(7)
    return 3 * torch.randn(batch, module.config.latent_channels, height, width, generator=generator)


def picture_of(module: Any, size: tuple[int, int, int]) -> Tensor:
    batch, height, width = size
    factor = 2 ** (len(module.config.block_out_channels) - 1)
    return 2 * torch.rand(batch, 3, factor * height, factor * width, generator=torch.Generator().manual_seed(7)) - 1


def assert_agree(found: np.ndarray[Any, Any], expected: Tensor, share: float = 1e-5) -> None:
    """Compare up to the order of sums: ``share`` is a share of the largest value."""
    torch.testing.assert_close(torch.from_numpy(found), expected, atol=share * float(expected.abs().max()), rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_it_computes_what_diffusers_computes(kind: str) -> None:
    module = published(kind)
    decode, encode = map(compiled, networks_of(module))
    for size in SIZES:
        latents, picture = latents_of(module, size), picture_of(module, size)
        assert_agree(decode({"latent_sample": latents})[0], module.decode(latents).sample)
        assert_agree(encode({"sample": picture})[0], module.encode(picture).latent_dist.parameters)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_may_be_in_half_precision(dtype: torch.dtype) -> None:
    """Scaling by a power of two is exact in bf16, and costs small f16 weights their last bits."""
    module = published()
    decoder, encoder = networks_of(module, tensors_of(module, dtype))
    module.load_state_dict({name: each.to(dtype).float() for name, each in module.state_dict().items()})
    latents, picture = latents_of(module, SIZES[1]), picture_of(module, SIZES[1])
    # Scaled weights below 2^-14 are multiples of 2^-24 in f16.
    share = 1e-5 if dtype == torch.bfloat16 else 1e-4
    assert_agree(run(decoder, {"latent_sample": latents})[0], module.decode(latents).sample, share)
    assert_agree(run(encoder, {"sample": picture})[0], module.encode(picture).latent_dist.parameters, share)


def test_ports_are_those_of_bundles() -> None:
    decoder, encoder = networks_of(published())
    picture = Port(("b", 3, "height", "width"))
    assert decoder.inputs == {"latent_sample": Port(("b", 4, "h", "w"))}
    assert decoder.outputs == {"sample": picture}
    assert encoder.inputs == {"sample": picture}
    assert encoder.outputs == {"latent_parameters": Port(("b", 8, "h", "w"))}
    for network in (decoder, encoder):
        assert not network.f16_safe
        kinds = [node.get_type_name() for node in network.model.get_ops()]
        assert kinds.count("ScaledDotProductAttention") == 1


class TestScaledStream:
    """With SDXL's weights, feature maps exceed a million, and half precision ends at 65504."""

    @staticmethod
    def module() -> Any:
        return published(encoder_stream=2.5e5, decoder_stream=7e4)

    @staticmethod
    def largest(network: Network, inputs: dict[str, Tensor]) -> dict[str, float]:
        """The largest value that each operation gives, by its name."""
        nodes = [node for node in network.model.get_ordered_ops() if node.get_output_element_type(0) == ov.Type.f32]
        nodes = [node for node in nodes if node.get_type_name() not in ("Constant", "Convert", "Parameter", "Result")]
        every = ov.Model([node.output(0) for node in nodes], network.model.get_parameters(), "every")
        compiled = ov.Core().compile_model(every, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        results = compiled({name: each.numpy() for name, each in inputs.items()})
        largest = [float(np.abs(results[index]).max()) for index in range(len(nodes))]
        return dict(zip([node.get_friendly_name() for node in nodes], largest, strict=True))

    def test_nothing_overflows_half_precision(self) -> None:
        module = self.module()
        plain: list[float] = []
        for each in module.modules():
            if isinstance(each, nn.Conv2d | nn.Linear):
                each.register_forward_hook(lambda _m, _i, output: plain.append(float(output.abs().max())))
        decoder, encoder = networks_of(module)
        latents, picture = latents_of(module, SIZES[1]), picture_of(module, SIZES[1])
        for network, name, sample, half in (
            (decoder, "latent_sample", latents, module.decode),
            (encoder, "sample", picture, module.encode),
        ):
            plain.clear()
            half(sample)
            assert max(plain) > 1e6
            largest = self.largest(network, {name: sample})
            assert max(largest.values()) < LARGEST_HALF / 2, max(largest, key=lambda key: largest[key])

    def test_results_are_not_scaled(self) -> None:
        module = self.module()
        decoder, encoder = networks_of(module)
        latents, picture = latents_of(module, SIZES[1]), picture_of(module, SIZES[1])
        assert_agree(run(decoder, {"latent_sample": latents})[0], module.decode(latents).sample)
        assert_agree(run(encoder, {"sample": picture})[0], module.encode(picture).latent_dist.parameters)

    def test_all_that_adds_to_the_stream_is_scaled_exactly(self) -> None:
        """A layer that isn't scaled would be found here."""
        module = published()
        seen: dict[str, float] = {}
        for name, each in module.named_modules():
            if isinstance(each, nn.Conv2d | nn.Linear):
                each.register_forward_hook(
                    lambda _m, _i, output, name=name: seen.update({name: float(output.abs().max())})
                )
        latents, picture = latents_of(module, SIZES[1]), picture_of(module, SIZES[1])
        module.decode(latents)
        module.encode(picture)
        ends = ("conv_in", "conv1", "conv2", "conv_shortcut", "to_out.0", "samplers.0.conv")
        scaled = {name for name in seen if name.endswith(ends)}
        assert len(scaled) > 30
        compared = 0
        samples = ({"latent_sample": latents}, {"sample": picture})
        for network, inputs in zip(networks_of(module), samples, strict=True):
            found = self.largest(network, inputs)
            for name, added in self.additions(network).items():
                factor = STREAM_SCALE if name in scaled else 1
                assert found[added] == pytest.approx(seen[name] * factor, rel=1e-4), name
                compared += 1
        assert compared == len(seen)

    @staticmethod
    def additions(network: Network) -> dict[str, str]:
        """The name of the addition of a layer's bias, by the name of the layer."""
        return {
            node.input_value(0).get_node().get_friendly_name(): node.get_friendly_name()
            for node in network.model.get_ops()
            if node.get_type_name() == "Add" and node.input_value(1).get_node().get_type_name() == "Constant"
        }


def older_names(tensors: dict[str, MemoryTensor]) -> dict[str, MemoryTensor]:
    older = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    renamed = {}
    for name, tensor in tensors.items():
        for current, old in older.items():
            name = name.replace(current, old)
        renamed[name] = tensor
    return renamed


class TestOlderNames:
    def test_attention_may_have_them(self) -> None:
        tensors = tensors_of(published())
        older = older_names(tensors)
        assert "decoder.mid_block.attentions.0.proj_attn.weight" in older
        assert with_current_names(older, "the checkpoint") == tensors
        assert with_current_names(tensors, "the checkpoint") == tensors

    def test_both_names_of_one_tensor_are_too_many(self) -> None:
        tensors = tensors_of(published())
        with pytest.raises(DamagedModelError, match=r"the checkpoint has the tensor \S*to_q\.weight twice"):
            with_current_names(older_names(tensors) | tensors, "the checkpoint")
