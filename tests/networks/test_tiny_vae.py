"""The tiny autoencoder's graphs compute what diffusers and the embedded bundles compute."""

from __future__ import annotations

from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from torch import Tensor

from tests.checkpoints import randomise
from tests.networks import storybook
from tests.networks.agreement import MemoryTensor, Run, compiled, run, tensors_of
from vinograph.networks.graph import Network, Port, Storage, Weights
from vinograph.networks.tiny_vae import (
    TinyAutoencoderConfig,
    tiny_vae_decoder,
    tiny_vae_encoder,
)

LIBRARY: Any = diffusers  # its classes have no types
# Batch, height and width of the latents.
SIZES = [(1, 8, 8), (2, 5, 9), (3, 1, 4)]
KINDS: dict[str, dict[str, Any]] = {
    "taesd": {},
    "silu": {"act_fn": "silu", "num_encoder_blocks": (2, 0, 1), "num_decoder_blocks": (0, 1, 2)},
    "gelu": {"act_fn": "gelu", "latent_channels": 16, "num_encoder_blocks": (1,), "num_decoder_blocks": (2,)},
    "mish": {"act_fn": "mish", "upsampling_scaling_factor": 3},
}


def published(kind: str = "taesd") -> Any:
    """diffusers' tiny autoencoder of random weights."""
    settings = {"num_encoder_blocks": (1, 2, 1, 1), "num_decoder_blocks": (1, 1, 2, 1), **KINDS[kind]}
    widths = {
        f"{half}_block_out_channels": (width,) * len(settings[f"num_{half}_blocks"])
        for half, width in (("encoder", 8), ("decoder", 12))
    }
    module = LIBRARY.AutoencoderTiny(**settings, **widths)
    randomise(module, torch.Generator().manual_seed(1))
    return module


def config_of(module: Any) -> TinyAutoencoderConfig:
    return TinyAutoencoderConfig.from_mapping({key: each for key, each in module.config.items() if key[0] != "_"})


def networks_of(
    module: Any, tensors: dict[str, MemoryTensor] | None = None, storage: Storage | None = None
) -> tuple[Network, Network]:
    """The decoder and the encoder, of all tensors together."""
    config, weights = config_of(module), Weights(tensors or tensors_of(module), "the checkpoint", storage)
    decoder, encoder = tiny_vae_decoder(config, weights), tiny_vae_encoder(config, weights)
    weights.check_all_used()
    return decoder, encoder


def latents_of(size: tuple[int, int, int], channels: int = 4) -> Tensor:
    batch, height, width = size
    return 3 * torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(7))


def picture_of(size: tuple[int, int, int]) -> Tensor:
    batch, height, width = size
    return 2 * torch.rand(batch, 3, 8 * height, 8 * width, generator=torch.Generator().manual_seed(7)) - 1


def assert_computes(decode: Run, encode: Run, module: Any, size: tuple[int, int, int]) -> None:
    latents, picture = latents_of(size, module.config.latent_channels), picture_of(size)
    for found, expected in (
        (decode({"latent_sample": latents})[0], module.decode(latents).sample),
        (encode({"sample": picture})[0], module.encode(picture).latents),
    ):
        torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-5 * float(expected.abs().max()), rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_it_computes_what_diffusers_computes(kind: str) -> None:
    module = published(kind)
    decode, encode = map(compiled, networks_of(module))
    for size in SIZES:
        assert_computes(decode, encode, module, size)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_in_half_precision_are_used_as_they_are(dtype: torch.dtype) -> None:
    module = published()
    networks = networks_of(module, tensors_of(module, dtype))
    module.load_state_dict({name: each.to(dtype).float() for name, each in module.state_dict().items()})
    assert_computes(compiled(networks[0]), compiled(networks[1]), module, SIZES[1])
    for network in networks:
        stored = {node.get_output_element_type(0).get_type_name() for node in network.model.get_ops()}
        assert ("f16" if dtype == torch.float16 else "bf16") in stored


@pytest.mark.parametrize("half", ["decoder", "encoder"])
def test_the_trained_model_computes_what_its_bundle_computes(half: str) -> None:
    config = TinyAutoencoderConfig.from_mapping(storybook.config_of("storybook-sdxl", "vae"))
    build = tiny_vae_decoder if half == "decoder" else tiny_vae_encoder
    network = build(config, Weights(storybook.tensors_in("storybook-sdxl", "vae"), "the checkpoint"))
    inputs = {"latent_sample": latents_of(SIZES[1])} if half == "decoder" else {"sample": picture_of(SIZES[1])}
    given = {name: each.numpy() for name, each in inputs.items()}
    (expected,) = storybook.run_bundled("storybook-sdxl", f"tiny_vae_{half}", given)
    np.testing.assert_allclose(run(network, inputs)[0], expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_ports_are_those_of_bundles() -> None:
    decoder, encoder = networks_of(published())
    latents, picture = Port(("b", 4, "h", "w")), Port(("b", 3, "height", "width"))
    assert decoder.inputs == {"latent_sample": latents}
    assert decoder.outputs == {"sample": picture}
    assert encoder.inputs == {"sample": picture}
    assert encoder.outputs == {"latents": latents}
    assert decoder.f16_safe
    assert encoder.f16_safe
