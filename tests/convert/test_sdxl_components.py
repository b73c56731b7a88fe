"""SDXL's components compute in f32 what diffusers' and transformers' models compute."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
import torch
from torch import Tensor

from tests.checkpoints import (
    SDXL,
    SDXL_LCM,
    SDXL_TINY,
    SDXL_TURBO,
    SdxlModels,
    SdxlShape,
    save_sdxl,
    sdxl_models,
    unet_inputs,
)
from tests.convert.conftest import once
from tests.convert.running import assert_equal, compile_all, run
from vinograph.convert import convert
from vinograph.models.bundle import Bundle

# Batch, height and width of the latents. Odd ones are halved with a remainder, twice.
SIZES = [(1, 8, 8), (2, 9, 13), (3, 16, 5)]
SHAPES = {"base": SDXL, "turbo": SDXL_TURBO, "lcm": SDXL_LCM}


@dataclass(frozen=True)
class Converted:
    """A bundle, the models that it is made of, and its sessions."""

    bundle: Bundle
    models: SdxlModels
    shape: SdxlShape
    sessions: Mapping[str, ov.CompiledModel]

    def run(self, name: str, **inputs: Tensor) -> dict[str, Tensor]:
        """The outputs of a component."""
        component = self.bundle.manifest.components[name]
        assert inputs.keys() == component.inputs.keys()
        outputs = run(self.sessions[name], inputs)
        assert outputs.keys() == component.outputs.keys()
        return outputs


def _converted(tmp_path_factory: pytest.TempPathFactory, name: str, shape: SdxlShape, weights: str) -> Converted:
    def make(folder: Path) -> None:
        saved = save_sdxl(folder, shape)
        convert(saved.home, folder / "bundle", tiny_vae=str(saved.tiny_vae), weights=weights)  # type: ignore[arg-type]

    bundle = Bundle.open(once(tmp_path_factory, f"sdxl-{name}-{weights}", make) / "bundle")
    return Converted(bundle, sdxl_models(shape), shape, compile_all(bundle))


@pytest.fixture(scope="module", params=SHAPES)
def converted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Converted:
    return _converted(tmp_path_factory, request.param, SHAPES[request.param], "f32")


@pytest.fixture(scope="module")
def halved(tmp_path_factory: pytest.TempPathFactory) -> Converted:
    return _converted(tmp_path_factory, "tiny", SDXL_TINY, "f16")


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


@pytest.mark.parametrize(("batch", "height", "width"), SIZES)
def test_vae(converted: Converted, batch: int, height: int, width: int) -> None:
    latents, picture = 7 * torch.randn(batch, 4, height, width), 2 * torch.rand(batch, 3, 8 * height, 8 * width) - 1
    vae = converted.models.vae
    assert_equal(converted.run("vae_decoder", latent_sample=latents)["sample"], vae.decode(latents).sample)
    moments = converted.run("vae_encoder", sample=picture)["latent_parameters"]
    assert_equal(moments, vae.encode(picture).latent_dist.parameters)


@pytest.mark.parametrize(("batch", "height", "width"), SIZES)
def test_tiny_vae(converted: Converted, batch: int, height: int, width: int) -> None:
    latents, picture = 2 * torch.randn(batch, 4, height, width), 2 * torch.rand(batch, 3, 8 * height, 8 * width) - 1
    vae = converted.models.tiny_vae
    assert_equal(converted.run("tiny_vae_decoder", latent_sample=latents)["sample"], vae.decode(latents).sample)
    assert_equal(converted.run("tiny_vae_encoder", sample=picture)["latents"], vae.encode(picture).latents)


def test_the_manifest_has_the_graphs_ports(converted: Converted) -> None:
    for name, component in converted.bundle.manifest.components.items():
        session = converted.sessions[name]
        for ports, declared in ((session.inputs, component.inputs), (session.outputs, component.outputs)):
            assert {port.get_any_name() for port in ports} == declared.keys()
            for port in ports:
                for size, declared_size in zip(port.partial_shape, declared[port.get_any_name()].shape, strict=True):
                    if isinstance(declared_size, int):
                        assert size == declared_size
                    else:
                        assert size.is_dynamic


def test_attention_is_one_operation(converted: Converted) -> None:
    """The runtime fuses that operation, and no attention is left out."""
    core = ov.Core()
    blocks = Counter(type(each).__name__ for each in converted.models.unet.modules())["BasicTransformerBlock"]
    for name, expected in (
        ("unet", 2 * blocks),
        ("vae_decoder", 1),
        ("vae_encoder", 1),
        ("text_encoder", converted.shape.text_layers - 1),  # the hidden states of the last layer are not wanted
        ("text_encoder_2", converted.shape.text_layers + 1),
    ):
        kinds = [node.get_type_name() for node in core.read_model(converted.bundle.path / f"{name}.xml").get_ops()]
        assert kinds.count("ScaledDotProductAttention") == expected
        assert "Softmax" not in kinds


def test_weights_in_f16(halved: Converted) -> None:
    """Only weights are rounded: the timestep embedding, whose angles f16 would spoil, is exact."""
    assert {component.weights for component in halved.bundle.manifest.components.values()} == {"f16"}
    for time in (999.0, 501.3, 1.0):
        inputs = {**unet_inputs(halved.shape, 2, 8, 8), "timestep": torch.full((2,), time)}
        assert_equal(halved.run("unet", **inputs)["out_sample"], of_diffusers(halved.models, inputs), tolerance=5e-3)
    latents = 7 * torch.randn(1, 4, 5, 6)
    decoded = halved.run("vae_decoder", latent_sample=latents)["sample"]
    assert_equal(decoded, halved.models.vae.decode(latents).sample, tolerance=5e-3)


def test_only_vectors_stay_in_f32(halved: Converted) -> None:
    core = ov.Core()
    for component in halved.bundle.manifest.components.values():
        for node in core.read_model(halved.bundle.path / component.file).get_ops():
            if node.get_type_name() == "Constant" and node.get_output_element_type(0) == ov.Type.f32:
                assert sum(size > 1 for size in node.shape) < 2, f"{component.file}: {node.shape}"


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
