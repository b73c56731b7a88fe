"""Würstchen's graphs compute what the modules and the embedded bundle compute."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.checkpoints import DEEP, SHALLOW, SMALL, WuerstchenShape, wuerstchen_models
from tests.networks.agreement import tensors_of
from training.wuerstchen.modules import StageA, StageB, StageC
from vinograph.families.wuerstchen import network, network_blocks
from vinograph.families.wuerstchen.network import (
    attention_widths,
    decoder,
    decoder_text,
    effnet_levels,
    prior,
    prior_text,
    vqgan_decoder,
)
from vinograph.models import catalog
from vinograph.models.bundle import Bundle
from vinograph.models.safetensors import read_header
from vinograph.networks.graph import Network, Storage, Weights
from vinograph.networks.stored import StoredTensor

# Batch, tokens, height and width.
SIZES = [(3, 7, 2, 5), (2, 1, 6, 1)]
# A shape, the width from which on channels come last (never, in the deeper levels, everywhere), and the width up to
# which the text's layers are folded.
SHAPES = {"small": (SMALL, 1024, 512), "deep": (DEEP, 20, 0), "shallow": (SHALLOW, 0, 512)}
CHECKPOINT = Path(__file__).parents[2] / "training" / "checkpoints" / "storybook-wuerstchen"

Tensors = Mapping[str, StoredTensor]
Module = StageA | StageB | StageC


@dataclass(frozen=True)
class Part:
    """A component: its graph, the tensors that others use, and where they are saved."""

    network: Callable[[Any, Weights], Network]
    ignored: str
    kind: type[Module]
    folder: str

    def of(self, module: Module, tensors: Tensors, storage: Storage | None = None) -> Network:
        """The graph of a module's configuration over ``tensors``, all of which have to be used."""
        weights = Weights(tensors, "the checkpoint", storage)
        network = self.network(module.config, weights)
        weights.check_all_used(self.ignored)
        return network


PARTS = {
    "prior_text": Part(prior_text, network.PRIOR_TEXT_IGNORED, StageC, "prior_prior"),
    "prior": Part(prior, network.PRIOR_IGNORED, StageC, "prior_prior"),
    "decoder_text": Part(decoder_text, network.DECODER_TEXT_IGNORED, StageB, "decoder"),
    "decoder": Part(decoder, network.DECODER_IGNORED, StageB, "decoder"),
    "vqgan": Part(vqgan_decoder, network.VQGAN_DECODER_IGNORED, StageA, "vqgan"),
}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(7)


@pytest.fixture(params=SHAPES)
def shape(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> WuerstchenShape:
    found, channels_last_width, folded_width = SHAPES[request.param]
    monkeypatch.setattr(network_blocks, "CHANNELS_LAST_WIDTH", channels_last_width)
    monkeypatch.setattr(network_blocks, "FOLDED_WIDTH", folded_width)
    return found


def run(network: Network, *inputs: Mapping[str, Any], precision: str = "f32") -> list[dict[str, NDArray[np.float32]]]:
    """What a graph gives for each of the inputs."""
    settings = {"INFERENCE_PRECISION_HINT": precision, "NUM_STREAMS": 1}
    compiled = ov.Core().compile_model(network.model, "CPU", settings)
    given = ({name: np.asarray(each) for name, each in named.items()} for named in inputs)
    return [{name: np.array(results[name]) for name in network.outputs} for results in map(compiled, given)]


def module_of(name: str, shape: WuerstchenShape = SMALL) -> Module:
    """The module that a component is compared with, with random weights."""
    models, kind = wuerstchen_models(shape), PARTS[name].kind
    theirs: Any = {StageA: models.vqgan, StageB: models.decoder, StageC: models.prior}[kind]
    module = kind.from_config(dict(theirs.config))
    module.load_state_dict(theirs.state_dict(), strict=True)
    return module.eval().requires_grad_(False)


def inputs_of(network: Network, batch: int, tokens: int, height: int, width: int) -> dict[str, Tensor]:
    """Random inputs: a timestep, so many tokens, and latents whose coarsest level has that size."""
    levels = [int(name.removeprefix("effnet_")) for name in network.inputs if name.startswith("effnet_")]
    times = {f"{side}_{level}": size << (3 - level) for level in levels for side, size in (("H", height), ("W", width))}
    sizes = {"b": batch, "n": tokens, "h": height, "w": width, "H": 16 * height, "W": 16 * width, **times}
    return {
        name: (torch.rand if name == "r" else torch.randn)(
            [size if isinstance(size, int) else sizes[size] for size in port.shape]
        )
        for name, port in network.inputs.items()
    }


def assert_close(found: NDArray[np.float32], expected: Tensor, *, rounded: bool = False) -> None:
    """Compare up to the rounding of f32, or of f16 where weights are ``rounded`` to it."""
    atol, rtol = (1e-3, 1e-3) if rounded else (2e-5, 2e-4)
    torch.testing.assert_close(torch.from_numpy(found), expected, atol=atol, rtol=rtol)


def expect_prior(module: Module, text: Network, network: Network, *, rounded: bool = False) -> None:
    """Compare a prior's graphs with the module at several sizes."""
    assert isinstance(module, StageC)
    cases = [
        (torch.randn(batch, 16, height, width), torch.rand(batch), torch.randn(batch, tokens, module.config.c_cond))
        for batch, tokens, height, width in SIZES
    ]
    texts = run(text, *({"hidden_states": states} for _, _, states in cases))
    found = run(network, *({"x": x, "r": r, **each} for (x, r, _), each in zip(cases, texts, strict=True)))
    for case, result in zip(cases, found, strict=True):
        assert_close(result["noise"], module(*case), rounded=rounded)


def expect_decoder(module: Module, text: Network | None, network: Network, *, rounded: bool = False) -> None:
    """Compare a decoder's graphs with the module at several sizes."""
    assert isinstance(module, StageB)
    config = module.config
    multiple = config.patch_size * 2 ** (len(config.c_hidden) - 1)
    cases = [
        (
            torch.randn(batch, 4, height * multiple, width * multiple),
            torch.rand(batch),
            torch.randn(batch, 16, height + 1, width),
            torch.randn(batch, tokens, config.clip_embd),
        )
        for batch, tokens, height, width in SIZES
    ]
    texts = [{} for _ in cases] if text is None else run(text, *({"hidden_states": case[3]} for case in cases))
    inputs = []
    for (x, r, effnet, _), each in zip(cases, texts, strict=True):
        maps = enumerate(module.resized_embeddings(effnet, *x.shape[2:]))
        inputs.append({"x": x, "r": r, **{f"effnet_{k}": found for k, found in maps if found is not None}, **each})
    for case, result in zip(cases, run(network, *inputs), strict=True):
        assert_close(result["noise"], module(*case), rounded=rounded)


def expect_vqgan(module: Module, network: Network) -> None:
    """Compare a VQGAN's graph with the module at several sizes."""
    assert isinstance(module, StageA)
    cases = [torch.randn(batch, 4, height, width) for batch, _, height, width in SIZES]
    for latents, result in zip(cases, run(network, *({"latents": each} for each in cases)), strict=True):
        assert_close(result["image"], module.decode(latents))


class TestModules:
    def test_the_prior(self, shape: WuerstchenShape) -> None:
        module = module_of("prior", shape)
        text, network = (PARTS[name].of(module, tensors_of(module)) for name in ("prior_text", "prior"))
        expect_prior(module, text, network)

    def test_the_decoder(self, shape: WuerstchenShape) -> None:
        module = module_of("decoder", shape)
        text, network = (PARTS[name].of(module, tensors_of(module)) for name in ("decoder_text", "decoder"))
        expect_decoder(module, text, network)

    def test_the_vqgan(self, shape: WuerstchenShape) -> None:
        module = module_of("vqgan", shape)
        expect_vqgan(module, PARTS["vqgan"].of(module, tensors_of(module)))


def test_a_decoder_without_attention_takes_no_text() -> None:
    config = dict(wuerstchen_models(SMALL).decoder.config) | {"level_config": ["CT", "C", "TC"], "kernel_size": 5}
    module = StageB.from_config(config).eval().requires_grad_(False)
    tensors = tensors_of(randomised(module))
    network = PARTS["decoder"].of(module, tensors)
    expect_decoder(module, None, network)
    assert list(network.inputs) == ["x", "r", "effnet_1", "effnet_2"]


def randomised(module: StageB) -> StageB:
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return module


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
class TestWeightsInHalfPrecision:
    """The modules get the same weights; folded f16 weights are rounded again."""

    def test_the_prior(self, dtype: torch.dtype) -> None:
        module = module_of("prior")
        text, network = self.halved(module, dtype, "prior_text", "prior")
        expect_prior(module, text, network, rounded=dtype == torch.float16)

    def test_the_decoder(self, dtype: torch.dtype) -> None:
        module = module_of("decoder")
        text, network = self.halved(module, dtype, "decoder_text", "decoder")
        expect_decoder(module, text, network, rounded=dtype == torch.float16)

    def test_the_vqgan(self, dtype: torch.dtype) -> None:
        module = module_of("vqgan")
        (network,) = self.halved(module, dtype, "vqgan")
        expect_vqgan(module, network)

    @staticmethod
    def halved(module: Module, dtype: torch.dtype, *names: str) -> list[Network]:
        """The networks over the module's weights, which are rounded to ``dtype``."""
        tensors = tensors_of(module, dtype)
        module.load_state_dict({name: each.tensor.float() for name, each in tensors.items()})
        networks = [PARTS[name].of(module, tensors) for name in names]
        for each in networks:
            stored = {node.get_output_element_type(0).get_type_name() for node in each.model.get_ops()}
            assert ("f16" if dtype == torch.float16 else "bf16") in stored
        return networks


class TestConstants:
    @pytest.mark.parametrize("name", PARTS)
    def test_constants_have_the_checkpoints_names(self, name: str) -> None:
        module = module_of(name)
        tensors = tensors_of(module)
        network = PARTS[name].of(module, tensors)
        nodes = [node.get_friendly_name() for node in network.model.get_ops()]
        assert len(set(nodes)) == len(nodes)
        constants = {
            re.sub(r"gammas\.\d$", "gammas", node.get_friendly_name())
            for node in network.model.get_ops()
            if node.get_type_name() == "Constant"
        }
        used = {each for each in tensors if not re.fullmatch(PARTS[name].ignored, each)}
        folded = {each for each in used if re.search(r"kv_mapper|effnet_mappers|\.beta$", each)}
        assert used - folded <= constants

    def test_the_graphs_of_a_checkpoint_use_all_of_it(self) -> None:
        for pair in (("prior_text", "prior"), ("decoder_text", "decoder")):
            module = module_of(pair[0])
            weights = Weights(tensors_of(module), "the checkpoint")
            for name in pair:
                PARTS[name].network(module.config, weights)
            weights.check_all_used()

    @pytest.mark.parametrize("name", PARTS)
    def test_graphs_are_the_same_again(self, name: str) -> None:
        module = module_of(name)
        first, second = (stored(PARTS[name].of(module, tensors_of(module, torch.float16))) for _ in range(2))
        assert first == second

    def test_folded_weights_are_allocated_by_the_storage(self) -> None:
        module = module_of("decoder")
        for name, count in (("decoder_text", 12), ("decoder", 6)):
            allocated: list[NDArray[Any]] = []

            def allocate(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
                allocated.append(np.empty(shape, dtype))  # noqa: B023
                return allocated[-1]  # noqa: B023

            network = PARTS[name].of(module, tensors_of(module, torch.float16), Storage(allocate=allocate))
            assert [each.dtype for each in allocated] == [np.float16] * count
            held = {node.data.ctypes.data for node in network.model.get_ops() if node.get_type_name() == "Constant"}
            assert {each.ctypes.data for each in allocated} <= held

    def test_products_do_not_depend_on_the_order_of_their_sums(self) -> None:
        """That order depends on the number of threads and the processor."""
        generator = np.random.default_rng(0)
        matrix, other = (generator.standard_normal((300, 300)).astype(np.float16).astype(np.float32) for _ in range(2))
        order = generator.permutation(300)
        product = network_blocks._multiplied([matrix], other)
        assert np.array_equal(product, network_blocks._multiplied([matrix[:7, order], matrix[7:, order]], other[order]))
        assert np.array_equal(product[:, 3], network_blocks._multiplied([matrix], other[:, 3]))
        assert not np.array_equal(matrix @ other, matrix[:, order] @ other[order])


def stored(network: Network) -> list[tuple[str, str, bytes]]:
    return [
        (node.get_friendly_name(), node.get_output_element_type(0).get_type_name(), node.data.tobytes())
        for node in network.model.get_ordered_ops()
        if node.get_type_name() == "Constant"
    ]


def test_times_are_exact_in_half_precision() -> None:
    """bf16 can't tell 9970 from 9990, which would be another timestep."""
    module = module_of("prior")
    network = PARTS["prior"].of(module, tensors_of(module))
    inputs = inputs_of(network, 1, 5, 4, 4)
    near, later = ({**inputs, "r": torch.tensor([time])} for time in (0.997, 0.999))
    halved, full = (run(network, near, later, precision=each) for each in ("bf16", "f32"))
    moved, should = (noise["noise"] - before["noise"] for before, noise in (halved, full))
    assert (moved * should).sum() / ((moved**2).sum() ** 0.5 * (should**2).sum() ** 0.5) > 0.5


@pytest.mark.parametrize("name", PARTS)
class TestTheTrainedModel:
    def test_it_has_the_embedded_components_ports(self, name: str) -> None:
        network, component = trained(name), Bundle.open(embedded()).manifest.components[name]
        assert network.f16_safe == component.f16_safe
        for ours, theirs in ((network.inputs, component.inputs), (network.outputs, component.outputs)):
            assert {port: (each.shape, each.dtype) for port, each in ours.items()} == {
                port: (each.shape, each.dtype) for port, each in theirs.items()
            }
        for ports, declared in ((network.model.inputs, network.inputs), (network.model.outputs, network.outputs)):
            assert [port.get_any_name() for port in ports] == list(declared)

    def test_it_computes_what_the_embedded_bundle_does(self, name: str) -> None:
        """Except for f16 rounding of folded products, such as those of the VQGAN's branches."""
        network = trained(name)
        component = ov.Core().compile_model(embedded() / f"{name}.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        assert [port.get_any_name() for port in component.inputs] == list(network.inputs)
        assert [port.get_any_name() for port in component.outputs] == list(network.outputs)
        inputs = inputs_of(network, 2, 7, 3, 5)
        expected = component({key: each.numpy() for key, each in inputs.items()})
        (found,) = run(network, inputs)
        for port, values in found.items():
            difference = np.abs(values - expected[port]).max() / np.abs(expected[port]).max()
            assert difference < (5e-4 if name == "vqgan" else 1e-4)


def embedded() -> Path:
    (path,) = (path for path in catalog.embedded() if path.name == CHECKPOINT.name)
    return path


def trained(name: str) -> Network:
    part = PARTS[name]
    config = json.loads((CHECKPOINT / part.folder / "config.json").read_text(encoding="utf-8"))
    with torch.device("meta"):
        module = part.kind.from_config(config)
    file = CHECKPOINT / part.folder / "diffusion_pytorch_model.safetensors"
    return part.of(module, read_header(file))


def test_the_configuration_tells_what_a_family_calculates_with() -> None:
    module = module_of("decoder", SHALLOW)
    assert isinstance(module, StageB)
    assert effnet_levels(module.config) == [0, 1]
    assert attention_widths(module.config) == [16, 16, 16, 16]
