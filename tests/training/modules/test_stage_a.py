import inspect
from dataclasses import asdict
from typing import Any

import pytest
import torch
from diffusers.pipelines.deprecated.wuerstchen.modeling_paella_vq_model import PaellaVQModel

from tests.training.modules.agreement import (
    assert_same,
    assert_same_gradients,
    exchange_weights,
    noise,
    published,
    randomise,
    shapes,
)
from training.wuerstchen.modules import StageA, StageAConfig
from training.wuerstchen.modules.stage_a import ROWS_AT_A_TIME, MixingBlock

SMALL: dict[str, Any] = {"embed_dim": 16, "bottleneck_blocks": 2, "num_vq_embeddings": 32}
CONFIGS = {
    "two levels": SMALL,
    "one level": SMALL | {"levels": 1, "bottleneck_blocks": 1},
    "three levels": SMALL | {"levels": 3, "embed_dim": 24, "latent_channels": 6},
    "patches of four": SMALL | {"up_down_scale_factor": 4, "bottleneck_blocks": 3},
    "four channels in, two out": SMALL | {"in_channels": 4, "out_channels": 2},
}


def pair(config: dict[str, Any]) -> tuple[StageA, PaellaVQModel]:
    ours, theirs = StageA.from_config(published(config)), PaellaVQModel(**config)
    exchange_weights(ours, theirs)
    return ours.eval(), theirs.eval()


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("size", [(32, 32), (32, 48)], ids=str)
def test_encode_decode_and_quantize_agree_with_diffusers(config: dict[str, Any], size: tuple[int, int]) -> None:
    ours, theirs = pair(config)
    pictures = noise(2, ours.config.in_channels, *size)
    with torch.no_grad():
        latents = theirs.encode(pictures).latents
        assert_same(ours.encode(pictures), latents)
        assert_same(ours.decode(latents), theirs.decode(latents).sample)
        assert_same(ours(pictures), theirs(pictures).sample)
        quantized = theirs.decode(latents, force_not_quantize=False).sample
        assert_same(ours.decode(ours.quantize(latents).latents), quantized)


def test_gradients_agree_with_diffusers() -> None:
    ours, theirs = (module.train() for module in pair(SMALL))
    pictures = noise(2, 3, 16, 24)
    ours(pictures).square().mean().backward()
    theirs(pictures).sample.square().mean().backward()
    assert_same_gradients(ours, theirs)


def test_quantization_losses_agree_with_diffusers() -> None:
    ours, theirs = pair(SMALL)
    latents = [noise(2, 4, 6, 5).requires_grad_() for _ in range(2)]
    rounded, expected_loss, (_, _, expected_indices) = theirs.vquantizer(latents[1])
    result = ours.quantize(latents[0])
    loss = result.codebook_loss + 0.25 * result.commitment_loss
    torch.autograd.backward(loss + result.latents.square().sum())
    torch.autograd.backward(expected_loss + rounded.square().sum())
    assert torch.equal(result.indices.flatten(), expected_indices)
    torch.testing.assert_close(loss, expected_loss)
    torch.testing.assert_close(latents[0].grad, latents[1].grad)
    torch.testing.assert_close(ours.vquantizer.embedding.weight.grad, theirs.vquantizer.embedding.weight.grad)


def test_quantize_finds_the_nearest_code_of_each_of_many_latents() -> None:
    stage_a = StageA.from_config(SMALL)
    randomise(stage_a)
    latents = noise(1, 4, 2, ROWS_AT_A_TIME)
    vectors = latents.permute(0, 2, 3, 1).reshape(-1, 4)
    distances = (vectors[:, None] - stage_a.vquantizer.embedding.weight[None]).square().sum(-1)
    indices = stage_a.quantize(latents).indices
    assert indices.shape == (1, 2, ROWS_AT_A_TIME)
    assert torch.equal(indices.flatten(), distances.argmin(1))


def test_published_names_and_shapes_are_those_of_diffusers() -> None:
    with torch.device("meta"):
        ours, theirs = StageA.from_config({}), PaellaVQModel()
    assert shapes(ours) == shapes(theirs)


def test_absent_keys_take_the_values_of_diffusers() -> None:
    parameters = inspect.signature(PaellaVQModel.__init__).parameters
    expected = {name: parameter.default for name, parameter in parameters.items() if name != "self"}
    assert asdict(StageAConfig()) == expected


def test_weights_start_as_published() -> None:
    stage_a = StageA.from_config(SMALL)
    for block in stage_a.modules():
        if isinstance(block, MixingBlock):
            assert not block.gammas.any()
            linear = block.channelwise[0]
            assert isinstance(linear, torch.nn.Linear)
            assert not linear.bias.any()
    assert float(stage_a.vquantizer.embedding.weight.detach().abs().max()) <= 1 / 32


def test_unknown_keys_are_named() -> None:
    with pytest.raises(
        ValueError, match="StageAConfig: unknown configuration keys colour, width; known are in_channels"
    ):
        StageA.from_config({"width": 3, "colour": 1})


def test_no_levels_are_refused() -> None:
    with pytest.raises(ValueError, match="levels is 0"):
        StageA.from_config({"levels": 0})
