"""SDXL's components compute in f32 what diffusers' and transformers' models compute."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
import torch
from torch import Tensor

from tests.checkpoints import (
    SDXL_TINY,
    SdxlModels,
    save_sdxl,
    unet_inputs,
)
from tests.convert.converted import SDXL, Converted
from tests.convert.running import assert_equal
from vinograph.convert import convert

# Batch, height and width of the latents. Odd ones are halved with a remainder, twice.
SIZES = [(1, 8, 8), (2, 9, 13), (3, 16, 5)]


@pytest.fixture(scope="module", params=SDXL.shapes)
def converted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Converted:
    return SDXL.open(tmp_path_factory, request.param)


@pytest.fixture(scope="module")
def halved(tmp_path_factory: pytest.TempPathFactory) -> Converted:
    return SDXL.open(tmp_path_factory, "tiny", "f16")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(7)


def of_diffusers(models: SdxlModels, inputs: Mapping[str, Tensor]) -> Tensor:
    """The output of diffusers' UNet for our UNet's inputs."""
    conditions = {name: inputs[name] for name in ("text_embeds", "time_ids")}
    model_output: Tensor = models.unet(
        inputs["sample"],
        inputs["timestep"],
        inputs["encoder_hidden_states"],
        timestep_cond=inputs.get("timestep_cond"),
        added_cond_kwargs=conditions,
    ).sample
    return model_output


@pytest.mark.parametrize(("batch", "height", "width"), SIZES)
def test_unet(converted: Converted, batch: int, height: int, width: int) -> None:
    inputs = unet_inputs(converted.shape, batch, height, width)
    assert_equal(converted.run("unet", **inputs)["out_sample"], of_diffusers(converted.models, inputs))


@pytest.mark.parametrize("name", ["text_encoder", "text_encoder_2"])
@pytest.mark.parametrize(("batch", "tokens"), [(1, 77), (3, 7), (2, 1)])
def test_text_encoders(converted: Converted, name: str, batch: int, tokens: int) -> None:
    encoder, tokenizer = getattr(converted.models, name), converted.models.tokenizer
    ids = torch.randint(encoder.config.vocab_size - 2, (batch, tokens))
    ids[:, tokens // 2] = tokenizer.eos_token_id
    ids[0, tokens // 2 :] = tokenizer.eos_token_id  # as the first tokenizer pads
    theirs = encoder(ids, output_hidden_states=True)
    ours = converted.run(name, input_ids=ids)
    assert_equal(ours["hidden_states"], torch.stack(theirs.hidden_states[:-1], dim=1))
    if name == "text_encoder_2":
        assert_equal(ours["text_embeds"], theirs.text_embeds)


def test_a_text_without_an_end(converted: Converted) -> None:
    ids = torch.randint(500, (2, 9))
    theirs = converted.models.text_encoder_2(ids)
    assert_equal(converted.run("text_encoder_2", input_ids=ids)["text_embeds"], theirs.text_embeds)


def test_weights_in_f16(halved: Converted) -> None:
    """Rounded weights, no more: the time's embedding, whose angles f16 would turn, must be exact."""
    for time in (999.0, 501.3, 1.0):
        inputs = {**unet_inputs(halved.shape, 2, 8, 8), "timestep": torch.full((2,), time)}
        assert_equal(halved.run("unet", **inputs)["out_sample"], of_diffusers(halved.models, inputs), tolerance=5e-3)
    latents = 7 * torch.randn(1, 4, 5, 6)
    decoded = halved.run("vae_decoder", latent_sample=latents)["sample"]
    assert_equal(decoded, halved.models.vae.decode(latents).sample, tolerance=5e-3)


def test_files_in_half_precision_give_the_same_graphs(
    halved: Converted, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    """SDXL-Turbo is published so, in several files. Only vectors, rounded there, differ."""
    saved = save_sdxl(tmp_path, SDXL_TINY, variant="fp16", shard="30KB")
    assert len(list((saved.home / "unet").glob("*.fp16-0000?-of-*.safetensors"))) > 1
    bundle = convert(saved.home, tmp_path / "bundle")
    core = ov.Core()
    for name in bundle.manifest.components:
        ours, theirs = (
            [
                node.data
                for node in core.read_model(each.path / f"{name}.xml").get_ordered_ops()
                if node.get_type_name() == "Constant" and node.get_output_element_type(0) == ov.Type.f16
            ]
            for each in (bundle, halved.bundle)
        )
        assert len(ours) == len(theirs) > 0
        for one, other in zip(ours, theirs, strict=True):
            if name.startswith("vae_"):  # scaled weights below 2^-14 are multiples of 2^-24, rounded twice here
                np.testing.assert_allclose(one, other, rtol=2**-11, atol=2**-24)
            else:
                assert one.tobytes() == other.tobytes()


def test_f32_leaves_weights_as_the_checkpoint_has_them(tmp_path: Path) -> None:
    saved = save_sdxl(tmp_path, SDXL_TINY, variant="fp16")
    components = convert(saved.home, tmp_path / "bundle", weights="f32").manifest.components
    assert {component.weights for component in components.values()} == {"f16"}
