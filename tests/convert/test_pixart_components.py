"""PixArt's components compute in f32 what diffusers' and transformers' models compute."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from tests.checkpoints import (
    PixArtModels,
    PixArtShape,
)
from tests.convert.converted import PIXART, Converted
from tests.convert.running import assert_equal

# Batch, height and width of the latents: small ones, the extremes of the trained aspect ratios, the
# model's own.
SIZES = [(1, 8, 8), (2, 10, 26), (3, 32, 10), (1, 64, 16), (1, 16, 64), (1, 128, 32), (1, 32, 32)]


@pytest.fixture(scope="module", params=PIXART.shapes)
def converted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Converted:
    return PIXART.open(tmp_path_factory, request.param)


@pytest.fixture(scope="module")
def halved(tmp_path_factory: pytest.TempPathFactory) -> Converted:
    return PIXART.open(tmp_path_factory, "tiny", "f16")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(7)


def transformer_inputs(shape: PixArtShape, batch: int, height: int, width: int, tokens: int = 7) -> dict[str, Tensor]:
    mask = (torch.arange(tokens)[None] <= torch.randint(tokens, (batch, 1))).to(torch.int64)
    inputs = {
        "sample": torch.randn(batch, 4, height, width),
        "timestep": torch.rand(batch) * 999,
        "encoder_hidden_states": torch.randn(batch, tokens, shape.text_width),
        "encoder_attention_mask": mask,
    }
    if shape.conditioned:
        inputs["resolution"] = torch.tensor([[8.0 * height, 8.0 * width]]).repeat(batch, 1)
        inputs["aspect_ratio"] = torch.full((batch, 1), height / width)
    return inputs


def of_diffusers(models: PixArtModels, inputs: Mapping[str, Tensor]) -> Tensor:
    """The output of diffusers' transformer for our transformer's inputs."""
    conditions = {name: inputs.get(name) for name in ("resolution", "aspect_ratio")}
    model_output: Tensor = models.transformer(
        inputs["sample"],
        encoder_hidden_states=inputs["encoder_hidden_states"],
        encoder_attention_mask=inputs["encoder_attention_mask"],
        timestep=inputs["timestep"],
        added_cond_kwargs=conditions,
    ).sample
    return model_output


@pytest.mark.parametrize(("batch", "height", "width"), SIZES)
def test_transformer(converted: Converted, batch: int, height: int, width: int) -> None:
    inputs = transformer_inputs(converted.shape, batch, height, width)
    assert_equal(converted.run("transformer", **inputs)["out_sample"], of_diffusers(converted.models, inputs))


def test_every_input_changes_the_transformers_output(converted: Converted) -> None:
    """Each input changes the output by far more than rounding does."""
    inputs = transformer_inputs(converted.shape, 1, 8, 12)
    inputs["encoder_attention_mask"] = torch.tensor([[1, 1, 1, 1, 1, 0, 0]])
    before = converted.run("transformer", **inputs)["out_sample"]
    changes = {
        "timestep": inputs["timestep"] / 2,
        "encoder_hidden_states": -inputs["encoder_hidden_states"],
        "encoder_attention_mask": torch.tensor([[1, 0, 1, 1, 1, 0, 0]]),
    }
    if converted.shape.conditioned:
        changes |= {"resolution": inputs["resolution"] + 100, "aspect_ratio": inputs["aspect_ratio"] * 2}
    for name, value in changes.items():
        after = converted.run("transformer", **{**inputs, name: value})["out_sample"]
        assert (after - before).abs().max() > 1e-4 * before.abs().max(), name


def test_masked_text_changes_nothing(converted: Converted) -> None:
    inputs = transformer_inputs(converted.shape, 1, 8, 12)
    real = {name: inputs[name][:, :3] for name in ("encoder_hidden_states", "encoder_attention_mask")}
    real["encoder_attention_mask"] = torch.ones(1, 3, dtype=torch.int64)
    inputs["encoder_attention_mask"] = torch.tensor([[1, 1, 1, 0, 0, 0, 0]])
    padded = converted.run("transformer", **inputs)["out_sample"]
    assert_equal(converted.run("transformer", **{**inputs, **real})["out_sample"], padded)


@pytest.mark.parametrize(("batch", "tokens", "real"), [(1, 1, 1), (2, 7, 3), (1, 120, 20), (1, 300, 300), (3, 65, 64)])
def test_text_encoder(converted: Converted, batch: int, tokens: int, real: int) -> None:
    encoder = converted.models.text_encoder
    ids = torch.randint(encoder.config.vocab_size, (batch, tokens))
    mask = (torch.arange(tokens) < real).to(torch.int64).repeat(batch, 1)
    mask[0] = 1  # texts of different lengths
    theirs = encoder(ids, attention_mask=mask).last_hidden_state
    assert_equal(converted.run("text_encoder", input_ids=ids, attention_mask=mask)["hidden_states"], theirs)


def test_padding_can_be_left_out(converted: Converted) -> None:
    """The padding that diffusers adds changes nothing."""
    ids = torch.randint(3, 60, (1, 120))
    mask = (torch.arange(120) < 17).to(torch.int64)[None]
    padded = converted.models.text_encoder(ids, attention_mask=mask).last_hidden_state[:, :17]
    alone = converted.run("text_encoder", input_ids=ids[:, :17], attention_mask=mask[:, :17])["hidden_states"]
    assert_equal(alone, padded)


def test_where_half_precision_would_overflow(converted: Converted) -> None:
    safe = {name: component.f16_safe for name, component in converted.bundle.manifest.components.items()}
    assert not safe["text_encoder"]
    assert not safe["vae_decoder"]
    assert safe["transformer"]


def test_weights_in_f16(halved: Converted) -> None:
    """Rounded weights, no more: the time's embedding, whose angles f16 would turn, must be exact."""
    for time in (999.0, 501.3, 1.0):
        inputs = {**transformer_inputs(halved.shape, 2, 8, 12), "timestep": torch.full((2,), time)}
        ours = halved.run("transformer", **inputs)["out_sample"]
        assert_equal(ours, of_diffusers(halved.models, inputs), tolerance=5e-3)
    ids = torch.randint(3, 60, (2, 30))
    ours = halved.run("text_encoder", input_ids=ids, attention_mask=torch.ones_like(ids))["hidden_states"]
    assert_equal(ours, halved.models.text_encoder(ids).last_hidden_state, tolerance=5e-3)
