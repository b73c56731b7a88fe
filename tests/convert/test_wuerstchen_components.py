"""Every component of a Würstchen bundle computes what diffusers' or transformers' model computes, in f32, at any size."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.checkpoints import (
    WuerstchenShape,
)
from tests.convert.converted import WUERSTCHEN, Converted
from tests.convert.running import assert_equal

# Batch, tokens, and the grid of the embeddings; 3 by 3 is a picture of 128 by 128.
SIZES = [(1, 20, 3, 3), (3, 7, 2, 5), (2, 1, 6, 1)]


@pytest.fixture(scope="module", params=WUERSTCHEN.shapes)
def converted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Converted:
    return WUERSTCHEN.open(tmp_path_factory, request.param)


@pytest.fixture(scope="module")
def halved(tmp_path_factory: pytest.TempPathFactory) -> Converted:
    return WUERSTCHEN.open(tmp_path_factory, "tiny", "f16")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(7)


@pytest.mark.parametrize("name", ["prior_text_encoder", "text_encoder"])
@pytest.mark.parametrize(("batch", "tokens"), [(1, 20), (3, 7), (2, 1)])
def test_text_encoders(converted: Converted, name: str, batch: int, tokens: int) -> None:
    encoder = getattr(converted.models, name)
    ids = torch.randint(encoder.config.vocab_size, (batch, tokens))
    mask = torch.ones(batch, tokens, dtype=torch.int64)
    mask[0, max(tokens // 2, 1) :] = 0
    theirs = encoder(ids, attention_mask=mask).last_hidden_state
    assert_equal(converted.run(name, input_ids=ids, attention_mask=mask)["hidden_states"], theirs)


def test_text_encoders_take_the_longest_text(converted: Converted) -> None:
    length = converted.shape.text_length
    ids, mask = torch.randint(500, (1, length)), torch.ones(1, length, dtype=torch.int64)
    theirs = converted.models.text_encoder(ids, attention_mask=mask).last_hidden_state
    assert_equal(converted.run("text_encoder", input_ids=ids, attention_mask=mask)["hidden_states"], theirs)


@pytest.mark.parametrize(("batch", "tokens", "height", "width"), SIZES)
def test_prior(converted: Converted, batch: int, tokens: int, height: int, width: int) -> None:
    x, r = torch.randn(batch, 16, height, width), torch.rand(batch)
    states = torch.randn(batch, tokens, converted.shape.prior_text_width)
    text = converted.run("prior_text", hidden_states=states)
    assert text["keys"].shape == (batch, converted.shape.prior_depth, tokens, converted.shape.prior_width)
    assert_equal(converted.run("prior", x=x, r=r, **text)["noise"], converted.models.prior(x, r, states))


def effnet_maps(embeddings: Tensor, shape: WuerstchenShape, height: int, width: int) -> dict[str, Tensor]:
    """The image embeddings on each level's grid, resized as diffusers does in every step."""
    return {
        f"effnet_{level}": F.interpolate(
            embeddings,
            size=(height // shape.patch_size // 2**level, width // shape.patch_size // 2**level),
            mode="bicubic",
            antialias=True,
            align_corners=True,
        )
        for level, injects in enumerate(shape.decoder_injects)
        if injects
    }


@pytest.mark.parametrize(("batch", "tokens", "height", "width"), SIZES)
def test_decoder(converted: Converted, batch: int, tokens: int, height: int, width: int) -> None:
    embeddings, r = torch.randn(batch, 16, height, width), torch.rand(batch)
    multiple = converted.shape.patch_size * 2 ** (len(converted.shape.decoder_widths) - 1)
    x = torch.randn(batch, 4, 2 * height * multiple, 3 * width * multiple)
    states = torch.randn(batch, tokens, converted.shape.decoder_text_width)
    text = converted.run("decoder_text", hidden_states=states)
    maps = effnet_maps(embeddings, converted.shape, *x.shape[2:])
    theirs = converted.models.decoder(x, r, embeddings, states)
    assert_equal(converted.run("decoder", x=x, r=r, **maps, **text)["noise"], theirs)


def test_decoder_without_embeddings(converted: Converted) -> None:
    """Guidance draws its other half from embeddings of zero."""
    x, r = torch.randn(1, 4, 32, 48), torch.rand(1)
    states = torch.randn(1, 5, converted.shape.decoder_text_width)
    zeros = torch.zeros(1, 16, 2, 3)
    text = converted.run("decoder_text", hidden_states=states)
    maps = effnet_maps(zeros, converted.shape, 32, 48)
    theirs = converted.models.decoder(x, r, zeros, states)
    assert_equal(converted.run("decoder", x=x, r=r, **maps, **text)["noise"], theirs)


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 8, 8), (2, 5, 12)])
def test_vqgan(converted: Converted, batch: int, height: int, width: int) -> None:
    latents = torch.randn(batch, 4, height, width)
    image = converted.run("vqgan", latents=latents)["image"]
    assert_equal(image, converted.models.vqgan.decode(latents).sample)
    assert image.min() < 0 or image.max() > 1 or image.std() > 0.01


def test_weights_in_f16(halved: Converted) -> None:
    """Rounded weights, no more: the time's embedding, whose angles f16 would turn, must be exact."""
    x, states = torch.randn(1, 16, 3, 3), torch.randn(1, 7, halved.shape.prior_text_width)
    text = halved.run("prior_text", hidden_states=states)
    for r in torch.tensor([[1.0], [0.731], [0.01]]):
        theirs = halved.models.prior(x, r, states)
        assert_equal(halved.run("prior", x=x, r=r, **text)["noise"], theirs, tolerance=5e-3)
