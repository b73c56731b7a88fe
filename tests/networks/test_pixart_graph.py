"""PixArt's graph computes what diffusers' transformer computes, at any size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import openvino as ov
import pytest
import torch
from torch import Tensor

from tests.checkpoints import (
    PIXART,
    PIXART_256,
    PIXART_512,
    PIXART_LCM,
    PIXART_SIGMA,
    PIXART_TINY,
    PixArtShape,
    pixart_models,
)
from tests.networks import storybook
from tests.networks.agreement import MemoryTensor, compiled, run, tensors_of
from vinograph.families.pixart.network import IGNORED, pixart
from vinograph.families.pixart.network_config import TransformerConfig
from vinograph.networks.graph import Network, Port, Storage, Weights

# Batch, height and width of the latents: square, wide, high, the extremes of the trained aspect
# ratios, an odd grid.
SIZES = [(1, 8, 8), (2, 10, 26), (3, 32, 10), (1, 64, 16), (1, 16, 64), (1, 2, 14)]
SHAPES = {
    "1024": PIXART,
    "lcm": PIXART_LCM,
    "512": PIXART_512,
    "256": PIXART_256,
    "sigma": PIXART_SIGMA,
    "unlearned variance": PIXART_TINY,
}


def inputs_of(shape: PixArtShape, batch: int, height: int, width: int, tokens: int = 7) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(7)
    real = torch.randint(1, tokens + 1, (batch, 1), generator=generator)
    inputs = {
        "sample": torch.randn(batch, 4, height, width, generator=generator),
        "timestep": torch.rand(batch, generator=generator) * 999,
        "encoder_hidden_states": torch.randn(batch, tokens, shape.text_width, generator=generator),
        "encoder_attention_mask": (torch.arange(tokens)[None] < real).to(torch.int64),
    }
    if shape.conditioned:
        inputs["resolution"] = torch.tensor([[8.0 * height, 8.0 * width]]).repeat(batch, 1)
        inputs["aspect_ratio"] = torch.full((batch, 1), height / width)
    return inputs


def published(shape: PixArtShape) -> torch.nn.Module:
    module: torch.nn.Module = pixart_models(shape).transformer
    return module


def config_of(module: torch.nn.Module) -> TransformerConfig:
    settings = module.config
    return TransformerConfig.from_mapping({key: each for key, each in settings.items() if key[0] != "_"})  # type: ignore


def network_of(
    module: torch.nn.Module,
    tensors: dict[str, MemoryTensor] | None = None,
    storage: Storage | None = None,
    config: TransformerConfig | None = None,
) -> Network:
    weights = Weights(tensors or tensors_of(module), "the checkpoint", storage)
    network = pixart(config or config_of(module), weights)
    weights.check_all_used(IGNORED)
    return network


def expected_of(module: torch.nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    conditions = {name: inputs.get(name) for name in ("resolution", "aspect_ratio")}
    rest = {name: each for name, each in inputs.items() if name not in (*conditions, "sample")}
    with torch.no_grad():
        out: Tensor = module(inputs["sample"], **rest, added_cond_kwargs=conditions).sample
    return out


def computed(network: Network, inputs: dict[str, Tensor], precision: str = "f32") -> Tensor:
    return torch.from_numpy(run(network, inputs, precision)[0])


@pytest.mark.parametrize("name", SHAPES)
def test_it_computes_what_diffusers_computes(name: str) -> None:
    module = published(SHAPES[name])
    run_graph = compiled(network_of(module))
    for size in SIZES:
        inputs = inputs_of(SHAPES[name], *size)
        found = torch.from_numpy(run_graph(inputs)[0])
        torch.testing.assert_close(found, expected_of(module, inputs), atol=2e-5, rtol=2e-4)


def test_every_input_changes_the_prediction() -> None:
    """Otherwise the agreement would say little."""
    run_graph = compiled(network_of(published(PIXART)))
    inputs = inputs_of(PIXART, 1, 8, 12)
    inputs["encoder_attention_mask"] = torch.tensor([[1, 1, 1, 1, 1, 0, 0]])
    before = run_graph(inputs)[0]
    changes = {
        "timestep": inputs["timestep"] / 2,
        "encoder_hidden_states": -inputs["encoder_hidden_states"],
        "encoder_attention_mask": torch.tensor([[1, 0, 1, 1, 1, 0, 0]]),
        "resolution": inputs["resolution"] + 100,
        "aspect_ratio": inputs["aspect_ratio"] * 2,
    }
    for name, value in changes.items():
        moved = np.abs(run_graph({**inputs, name: value})[0] - before).max()
        assert moved > 1e-4 * np.abs(before).max(), name


def test_masked_tokens_change_nothing() -> None:
    network = network_of(published(PIXART_512))
    inputs = inputs_of(PIXART_512, 1, 8, 12)
    inputs["encoder_attention_mask"] = torch.tensor([[1, 1, 1, 0, 0, 0, 0]])
    shorter = {**inputs}
    for name in ("encoder_hidden_states", "encoder_attention_mask"):
        shorter[name] = inputs[name][:, :3]
    torch.testing.assert_close(computed(network, shorter), computed(network, inputs), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_in_half_precision_are_used_as_they_are(dtype: torch.dtype) -> None:
    module = published(PIXART)
    network = network_of(module, tensors_of(module, dtype))
    module.load_state_dict({name: each.to(dtype).float() for name, each in module.state_dict().items()})
    inputs = inputs_of(PIXART, *SIZES[1])
    torch.testing.assert_close(computed(network, inputs), expected_of(module, inputs), atol=2e-5, rtol=2e-4)
    stored = {node.get_output_element_type(0).get_type_name() for node in network.model.get_ops()}
    assert ("f16" if dtype == torch.float16 else "bf16") in stored


@pytest.mark.parametrize("bundle", ["storybook-pixart", "storybook-pixart-lcm"])
def test_the_trained_model_computes_what_its_bundle_computes(bundle: str) -> None:
    config = TransformerConfig.from_mapping(storybook.config_of(bundle, "transformer"))
    weights = Weights(storybook.tensors_in(bundle, "transformer"), "the checkpoint")
    network = pixart(config, weights)
    weights.check_all_used(IGNORED)
    shape = PixArtShape(sample_size=config.sample_size, text_width=config.text_width)
    inputs = inputs_of(shape, 2, 32, 20)
    (expected,) = storybook.run_bundled(bundle, "transformer", {name: each.numpy() for name, each in inputs.items()})
    np.testing.assert_allclose(computed(network, inputs).numpy(), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


class TestFullPrecision:
    """In bf16, 999 is 1000 and 54.1 is 54, whose sines differ."""

    @pytest.mark.parametrize("name", SHAPES)
    def test_the_angles_of_sines_and_cosines_are_marked(self, name: str) -> None:
        network = network_of(published(SHAPES[name]))
        waiting = [node for node in network.model.get_ops() if node.get_type_name() in ("Sin", "Cos")]
        assert len(waiting) == (10 if SHAPES[name].conditioned else 6)
        while waiting:
            node = waiting.pop()
            if node.get_type_name() in ("Constant", "Parameter") or node.get_output_element_type(0) != ov.Type.f32:
                continue
            assert any(key.startswith(("precise", "DisablePrecision")) for key in node.get_rt_info()), node
            waiting += [source.get_node() for source in node.input_values()]

    def test_positions_and_times_are_right_in_half_precision(self) -> None:
        """Without blocks, the output depends on patches and the timestep embedding alone."""
        shape = PixArtShape(sample_size=256, size_conditions=False, interpolation_scale=1, heads=4, layers=0)
        module = published(shape)
        config = replace(config_of(published(replace(shape, layers=1))), num_layers=0)
        network = network_of(module, config=config)
        inputs = inputs_of(shape, 1, 160, 4)
        inputs["sample"] *= 0.01
        expected = expected_of(module, inputs)
        found = computed(network, inputs, "bf16")
        assert (found - expected).square().mean().sqrt() < 0.06 * expected.std()


@pytest.mark.parametrize("shape", [PIXART, PIXART_512, PIXART_TINY])
def test_ports_are_those_of_bundles(shape: PixArtShape) -> None:
    network = network_of(published(shape))
    expected = {
        "sample": Port(("b", 4, "h", "w")),
        "timestep": Port(("b",)),
        "encoder_hidden_states": Port(("b", "n", shape.text_width)),
        "encoder_attention_mask": Port(("b", "n"), "i64"),
    }
    if shape.conditioned:
        expected |= {"resolution": Port(("b", 2)), "aspect_ratio": Port(("b", 1))}
    assert list(network.inputs.items()) == list(expected.items())
    assert [port.get_any_name() for port in network.model.inputs] == list(expected)
    assert network.outputs == {"out_sample": Port(("b", shape.out_channels, "h", "w"))}
    assert network.model.output(0).get_partial_shape()[1] == shape.out_channels
    assert network.f16_safe
    kinds = [node.get_type_name() for node in network.model.get_ops()]
    assert kinds.count("ScaledDotProductAttention") == 2 * shape.layers
    assert "Softmax" not in kinds


def test_tensors_that_are_ignored_may_be_there() -> None:
    module = published(PIXART)
    extra = {
        name: MemoryTensor(torch.zeros(120, 20)) for name in ("caption_projection.y_embedding", "pos_embed.pos_embed")
    }
    network_of(module, tensors_of(module) | extra)


def test_the_42_blocks_of_sigma_900m() -> None:
    """PixArt-Σ-900M has the published Σ's configuration, but for the number of blocks."""
    shape = replace(PIXART_SIGMA, layers=42)
    module = published(shape)
    network = network_of(module, tensors_of(module))
    inputs = inputs_of(shape, 1, 8, 8)
    (found,) = run(network, inputs)
    torch.testing.assert_close(torch.from_numpy(found), expected_of(module, inputs), atol=1e-4, rtol=1e-3)
