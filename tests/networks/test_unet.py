"""SDXL's graph computes what diffusers' UNet computes, at any size."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.checkpoints import SDXL, SDXL_LCM, SDXL_TURBO, SdxlShape, sdxl_models, unet_inputs
from tests.networks.agreement import MemoryTensor, run, tensors_of
from vinograph.families.sdxl.network import unet
from vinograph.families.sdxl.network_config import UNetConfig
from vinograph.networks.graph import Network, Storage, Weights

# Batch, height and width of the latents. Odd ones are halved with a remainder, twice.
SIZES = [(1, 8, 8), (2, 9, 13), (3, 16, 5)]
SHAPES = {"base": SDXL, "turbo": SDXL_TURBO, "lcm": SDXL_LCM}


def inputs_of(shape: SdxlShape, batch: int, height: int, width: int) -> dict[str, Tensor]:
    torch.manual_seed(7)
    return unet_inputs(shape, batch, height, width)


def published(shape: SdxlShape) -> torch.nn.Module:
    module: torch.nn.Module = sdxl_models(shape).unet
    return module


def network_of(module: torch.nn.Module, tensors: dict[str, MemoryTensor], storage: Storage | None = None) -> Network:
    weights = Weights(tensors, "the checkpoint", storage)
    network = unet(UNetConfig.from_mapping(module.config), weights)  # type: ignore[arg-type]
    weights.check_all_used()
    return network


def expected_of(module: torch.nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    added = {name: inputs[name] for name in ("text_embeds", "time_ids")}
    rest = {name: each for name, each in inputs.items() if name not in added}
    with torch.no_grad():
        out: Tensor = module(**rest, added_cond_kwargs=added).sample
    return out


@pytest.mark.parametrize("name", SHAPES)
def test_it_computes_what_diffusers_computes(name: str) -> None:
    module = published(SHAPES[name])
    network = network_of(module, tensors_of(module))
    for size in SIZES:
        inputs = inputs_of(SHAPES[name], *size)
        (found,) = run(network, inputs)
        torch.testing.assert_close(torch.from_numpy(found), expected_of(module, inputs), atol=2e-5, rtol=2e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_in_half_precision_are_used_as_they_are(dtype: torch.dtype) -> None:
    module = published(SDXL)
    halved = {name: each.to(dtype).float() for name, each in module.state_dict().items()}
    network = network_of(module, tensors_of(module, dtype))
    module.load_state_dict(halved)
    inputs = inputs_of(SDXL, *SIZES[1])
    (found,) = run(network, inputs)
    torch.testing.assert_close(torch.from_numpy(found), expected_of(module, inputs), atol=2e-5, rtol=2e-4)
    stored = {node.get_output_element_type(0).get_type_name() for node in network.model.get_ops()}
    assert ("f16" if dtype == torch.float16 else "bf16") in stored


def test_times_are_exact_in_half_precision() -> None:
    """In bf16, 999 is 1000, which would be another timestep."""
    module = published(SDXL)
    network = network_of(module, tensors_of(module))
    inputs = inputs_of(SDXL, 1, 8, 8)
    apart = [run(network, {**inputs, "timestep": torch.tensor([time])}, "bf16")[0] for time in (997.0, 999.0)]
    near = [run(network, {**inputs, "timestep": torch.tensor([time])}, "f32")[0] for time in (997.0, 999.0)]
    moved, should = apart[1] - apart[0], near[1] - near[0]
    assert abs(moved).max() > 0
    assert (moved * should).sum() / ((moved**2).sum() ** 0.5 * (should**2).sum() ** 0.5) > 0.5
