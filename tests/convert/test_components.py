"""Würstchen's components compute in f32 what diffusers' and transformers' models compute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import openvino as ov
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.checkpoints import (
    DEEP,
    SHALLOW,
    SMALL,
    TINY,
    WuerstchenModels,
    WuerstchenShape,
    save_wuerstchen,
    wuerstchen_models,
)
from tests.convert.conftest import once
from tests.convert.running import assert_equal, compile_all, run
from vinograph.convert import convert
from vinograph.families.wuerstchen import network_blocks
from vinograph.models.bundle import Bundle

# Batch, tokens, and the grid of the embeddings; 3 by 3 is a picture of 128 by 128.
SIZES = [(1, 20, 3, 3), (3, 7, 2, 5), (2, 1, 6, 1)]


@dataclass(frozen=True)
class Converted:
    """A bundle in f32, the models that it is made of, and its sessions."""

    bundle: Bundle
    models: WuerstchenModels
    shape: WuerstchenShape
    sessions: Mapping[str, ov.CompiledModel]

    def run(self, name: str, **inputs: Tensor) -> dict[str, Tensor]:
        """The outputs of a component."""
        component = self.bundle.manifest.components[name]
        assert inputs.keys() == component.inputs.keys()
        outputs = run(self.sessions[name], inputs)
        assert outputs.keys() == component.outputs.keys()
        return outputs


# The width from which on channels come last: never, in the deeper levels, everywhere.
@pytest.fixture(scope="module", params=[(SMALL, 1024), (DEEP, 20), (SHALLOW, 0)], ids=["small", "deep", "shallow"])
def converted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Converted:
    shape, channels_last_width = request.param

    def make(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(network_blocks, "CHANNELS_LAST_WIDTH", channels_last_width)
            convert(save_wuerstchen(folder, shape).decoder, folder / "bundle", weights="f32")

    folder = once(tmp_path_factory, f"components-{channels_last_width}", make)
    bundle = Bundle.open(folder / "bundle")
    return Converted(bundle, wuerstchen_models(shape), shape, compile_all(bundle))


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


def test_the_manifest_has_the_graphs_ports(converted: Converted) -> None:
    for name, component in converted.bundle.manifest.components.items():
        inputs, outputs = converted.sessions[name].inputs, converted.sessions[name].outputs
        for ports, declared in ((inputs, component.inputs), (outputs, component.outputs)):
            assert {port.get_any_name() for port in ports} == declared.keys()
            for port in ports:
                shape = declared[port.get_any_name()].shape
                sizes = [None if dimension.is_dynamic else dimension.get_length() for dimension in port.partial_shape]
                assert len(sizes) == len(shape)
                for size, expected in zip(sizes, shape, strict=True):
                    assert (
                        size == expected if isinstance(expected, int) and ports is inputs else size in (None, expected)
                    )


def test_attention_is_one_operation(converted: Converted) -> None:
    """The runtime fuses that operation, and no attention is left out."""
    core = ov.Core()
    for name, expected in (
        ("prior", converted.shape.prior_depth),
        ("decoder", len(converted.bundle.manifest.config["decoder_attention_widths"])),
        ("text_encoder", converted.shape.text_layers),
    ):
        kinds = [node.get_type_name() for node in core.read_model(converted.bundle.path / f"{name}.xml").get_ops()]
        assert kinds.count("ScaledDotProductAttention") == expected
        assert "Softmax" not in kinds


def test_weights_in_f16(undisturbed: Bundle) -> None:
    """Only weights are rounded: the timestep embedding, whose angles f16 would spoil, is exact."""
    converted = Converted(undisturbed, wuerstchen_models(TINY), TINY, compile_all(undisturbed))
    assert {component.weights for component in undisturbed.manifest.components.values()} == {"f16"}
    x, states = torch.randn(1, 16, 3, 3), torch.randn(1, 7, TINY.prior_text_width)
    text = converted.run("prior_text", hidden_states=states)
    for r in torch.tensor([[1.0], [0.731], [0.01]]):
        theirs = converted.models.prior(x, r, states)
        assert_equal(converted.run("prior", x=x, r=r, **text)["noise"], theirs, tolerance=5e-3)


def test_only_vectors_stay_in_f32(undisturbed: Bundle) -> None:
    core = ov.Core()
    for component in undisturbed.manifest.components.values():
        for node in core.read_model(undisturbed.path / component.file).get_ops():
            if node.get_type_name() == "Constant" and node.get_output_element_type(0) == ov.Type.f32:
                assert sum(size > 1 for size in node.shape) < 2, f"{component.file}: {node.shape}"
