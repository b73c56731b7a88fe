"""What holds of every component of every family's bundles: its ports, its operations, the storage of its weights."""

from __future__ import annotations

import openvino as ov
import pytest
import torch

from tests.convert.converted import CASES, FAMILIES, Converted
from tests.convert.running import assert_equal

# Batch, height and width of the latents. Odd ones are halved with a remainder, twice.
SIZES = [(1, 8, 8), (2, 9, 13), (3, 16, 5), (2, 10, 26)]


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def converted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Converted:
    family, shape = request.param
    return FAMILIES[family].open(tmp_path_factory, shape)


@pytest.fixture(params=FAMILIES)
def halved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Converted:
    """The smallest of each family, stored in f16."""
    return FAMILIES[request.param].open(tmp_path_factory, "tiny", "f16")


def test_the_manifest_has_the_graphs_ports(converted: Converted) -> None:
    for name, component in converted.bundle.manifest.components.items():
        session = converted.session(name)
        for ports, declared, settled in (
            (session.inputs, component.inputs, True),
            (session.outputs, component.outputs, converted.family.settled_outputs),
        ):
            assert {port.get_any_name() for port in ports} == declared.keys()
            for port in ports:
                for size, expected in zip(port.partial_shape, declared[port.get_any_name()].shape, strict=True):
                    if isinstance(expected, int):
                        assert size == expected or (size.is_dynamic and not settled)
                    else:
                        assert size.is_dynamic


def test_attention_is_one_operation(converted: Converted) -> None:
    """Which the runtime fuses; and no attention is left out."""
    for name, expected in converted.family.attentions(converted).items():
        kinds = converted.kinds(name)
        assert kinds.count("ScaledDotProductAttention") == expected
        assert "Softmax" not in kinds


@pytest.mark.parametrize("converted", [case for case in CASES if case[0] != "wuerstchen"], ids="-".join, indirect=True)
@pytest.mark.parametrize(("batch", "height", "width"), SIZES)
class TestVaes:
    """Both VAEs compute what diffusers' compute."""

    @pytest.fixture(autouse=True)
    def _seeded(self) -> None:
        torch.manual_seed(7)

    def test_the_full_one(self, converted: Converted, batch: int, height: int, width: int) -> None:
        latents, picture = 7 * torch.randn(batch, 4, height, width), 2 * torch.rand(batch, 3, 8 * height, 8 * width) - 1
        vae = converted.models.vae
        assert_equal(converted.run("vae_decoder", latent_sample=latents)["sample"], vae.decode(latents).sample)
        moments = converted.run("vae_encoder", sample=picture)["latent_parameters"]
        assert_equal(moments, vae.encode(picture).latent_dist.parameters)

    def test_the_tiny_one(self, converted: Converted, batch: int, height: int, width: int) -> None:
        latents, picture = 2 * torch.randn(batch, 4, height, width), 2 * torch.rand(batch, 3, 8 * height, 8 * width) - 1
        vae = converted.models.tiny_vae
        assert_equal(converted.run("tiny_vae_decoder", latent_sample=latents)["sample"], vae.decode(latents).sample)
        assert_equal(converted.run("tiny_vae_encoder", sample=picture)["latents"], vae.encode(picture).latents)


def test_only_vectors_stay_in_f32(halved: Converted) -> None:
    core = ov.Core()
    for component in halved.bundle.manifest.components.values():
        assert component.weights == "f16"
        for node in core.read_model(halved.bundle.path / component.file).get_ops():
            if node.get_type_name() == "Constant" and node.get_output_element_type(0) == ov.Type.f32:
                assert sum(size > 1 for size in node.shape) < 2, f"{component.file}: {node.shape}"
