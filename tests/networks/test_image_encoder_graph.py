"""The graph of Würstchen's image encoder computes what its PyTorch module computes."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tests.networks import storybook
from tests.networks.agreement import MemoryTensor, run, tensors_of
from tests.training.modules.agreement import randomise
from tests.training.modules.test_image_encoder import PUBLISHED_SHAPES, SMALL
from training.wuerstchen.modules import ImageEncoder, ImageEncoderConfig
from vinograph.families.wuerstchen.network_image_encoder import IGNORED, image_encoder
from vinograph.networks.graph import Network, Storage, Weights

# Batch, height and width of pictures; odd ones are halved with a remainder, five times.
SIZES = [(1, 32, 32), (2, 65, 97), (3, 64, 160)]


def module_of(config: ImageEncoderConfig = SMALL) -> ImageEncoder:
    module = ImageEncoder(config).eval().requires_grad_(False)
    randomise(module)
    return module


def network_of(
    module: ImageEncoder, tensors: dict[str, MemoryTensor] | None = None, storage: Storage | None = None
) -> Network:
    weights = Weights(tensors_of(module) if tensors is None else tensors, "the checkpoint", storage)
    network = image_encoder(module.config, weights)
    weights.check_all_used(IGNORED)
    return network


def pictures(batch: int, height: int, width: int) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(height))


def assert_close(found: Any, expected: Tensor) -> None:
    torch.testing.assert_close(torch.from_numpy(found), expected, atol=2e-5, rtol=2e-4)


def rounded(module: ImageEncoder, dtype: torch.dtype) -> ImageEncoder:
    """The module with its tensors in ``dtype``, computing in f32."""
    module = copy.deepcopy(module)
    module.load_state_dict({name: each.to(dtype).to(each.dtype) for name, each in module.state_dict().items()})
    return module


def folded_in_half(module: ImageEncoder) -> ImageEncoder:
    """The module with batch norms folded by PyTorch and matrices then rounded to f16."""
    module = copy.deepcopy(module)
    for parent in module.modules():
        if isinstance(parent, nn.Sequential) and len(parent) > 1 and isinstance(parent[1], nn.BatchNorm2d):
            convolution = parent[0]
            assert isinstance(convolution, nn.Conv2d)
            parent[0], parent[1] = fuse_conv_bn_eval(convolution, parent[1]), nn.Identity()
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight.data = layer.weight.half().float()
    return module


def test_it_computes_what_the_module_computes() -> None:
    module = module_of()
    network = network_of(module)
    for size in SIZES:
        image = pictures(*size)
        assert_close(run(network, {"image": image})[0], module(image))


class TestWeightsInHalfPrecision:
    def test_those_in_bf16_are_folded_in_f32(self) -> None:
        module, image = module_of(), pictures(*SIZES[1])
        network = network_of(module, tensors_of(module, torch.bfloat16))
        assert_close(run(network, {"image": image})[0], rounded(module, torch.bfloat16)(image))

    @pytest.mark.parametrize("halve", [False, True], ids=["stored so", "asked for"])
    def test_those_in_f16_are_folded_in_f32_and_are_f16_again(self, halve: bool) -> None:
        module, image = module_of(), pictures(*SIZES[1])
        if halve:
            network = network_of(module, storage=Storage(halve=True))
        else:
            network = network_of(module, tensors_of(module, torch.float16))
            module = rounded(module, torch.float16)
        assert_close(run(network, {"image": image})[0], folded_in_half(module)(image))
        kinds = {each.get_friendly_name(): each.get_output_element_type(0) for each in network.model.get_ops()}
        assert kinds["backbone.0.0.weight"].get_type_name() == "f16"
        assert kinds["backbone.0.1.bias"].get_type_name() == "f32"


def test_every_constant_has_the_checkpoints_name() -> None:
    """Batch norms are in the convolutions' weights, and in a bias under their own name."""
    module = module_of()
    nodes = network_of(module).model.get_ops()
    names = {node.get_friendly_name() for node in nodes if node.get_type_name() == "Constant"}
    norms = {name for name, each in module.named_modules() if isinstance(each, nn.BatchNorm2d)}
    within = {f"{norm}.{part}" for norm in norms for part in ("weight", "running_mean", "running_var")}
    counters = {f"{norm}.num_batches_tracked" for norm in norms}
    assert module.state_dict().keys() - within - counters <= names


@dataclass(frozen=True)
class Zeros:
    """A tensor of nothing but zeros."""

    shape: tuple[int, ...]
    dtype: str = "F16"

    def array(self) -> NDArray[Any]:
        return np.zeros(self.shape, np.float16)


def test_the_published_encoder_has_a_place_for_each_of_its_tensors() -> None:
    shapes = json.loads(PUBLISHED_SHAPES.read_text())
    weights = Weights({name: Zeros(tuple(shape)) for name, shape in shapes.items()}, "the checkpoint")
    network = image_encoder(ImageEncoderConfig(), weights)
    weights.check_all_used(IGNORED)
    assert network.outputs["embeddings"].shape == ("b", 16, "h", "w")


def test_counters_of_batch_norms_may_be_absent() -> None:
    module, image = module_of(), pictures(*SIZES[0])
    tensors = {name: each for name, each in tensors_of(module).items() if not name.endswith("num_batches_tracked")}
    assert len(tensors) < len(tensors_of(module))
    np.testing.assert_array_equal(
        run(network_of(module, tensors), {"image": image})[0], run(network_of(module), {"image": image})[0]
    )


def test_the_trained_encoder_computes_what_its_bundle_does() -> None:
    name, component = "storybook-wuerstchen", "image_encoder"
    weights = Weights(storybook.tensors_in(name, component), "the checkpoint")
    with torch.device("meta"):
        config = ImageEncoder.from_config(storybook.config_of(name, component)).config
    network = image_encoder(config, weights)
    weights.check_all_used(IGNORED)
    inputs = {"image": pictures(2, 97, 192).numpy()}
    np.testing.assert_array_equal(run(network, inputs), storybook.run_bundled(name, component, inputs))
