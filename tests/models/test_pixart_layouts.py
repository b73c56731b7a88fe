"""The forms in which PixArt is published, what the bundle says of each, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import openvino as ov
import pytest
import torch

from tests.checkpoints import (
    PIXART_256,
    PIXART_512,
    PIXART_LCM,
    PIXART_SIGMA,
    PIXART_TINY,
    PixArtShape,
    SavedPixArt,
    save_pixart,
)
from tests.convert.conftest import edit_json, edit_tensors
from tests.models.open_model import constants, networks, open_model, sums
from vinograph.convert import convert
from vinograph.errors import DamagedModelError, ModelError
from vinograph.models.manifest import Manifest

TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"
TEXT_ENCODER = "text_encoder/model.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> SavedPixArt:
    """For reading only."""
    return save_pixart(tmp_path_factory.mktemp("saved"), PIXART_TINY)


@pytest.fixture
def checkpoint(saved: SavedPixArt, tmp_path: Path) -> Path:
    """A copy to change."""
    return shutil.copytree(saved.home, tmp_path / "checkpoint")


@pytest.mark.parametrize(
    ("shape", "native", "length", "steps", "guidance", "scale", "conditioned"),
    [
        (PIXART_LCM, 1024, 120, 4, 0.0, 0.18215, 1),
        (PIXART_512, 512, 120, 20, 4.5, 0.18215, 0),
        (PIXART_256, 256, 120, 20, 4.5, 0.18215, 0),
        (PIXART_SIGMA, 1024, 300, 20, 4.5, 0.13025, 0),
        (PixArtShape(sigma=True, sample_size=256, size_conditions=False), 2048, 300, 20, 4.5, 0.13025, 0),
    ],
)
def test_what_its_kinds_differ_in(
    tmp_path: Path,
    shape: PixArtShape,
    native: int,
    length: int,
    steps: int,
    guidance: float,
    scale: float,
    conditioned: int,
) -> None:
    manifest: Manifest = open_model(save_pixart(tmp_path, shape).home).manifest
    generate = manifest.defaults["generate"]
    assert (generate["height"], generate["width"], manifest.limits["native_size"]) == (native, native, native)
    assert manifest.limits["maximum_size"] == (4096 if native == 2048 else 2048)
    assert generate["max_sequence_length"] == manifest.config["text_length"] == length
    assert (generate["num_inference_steps"], generate["guidance_scale"]) == (steps, guidance)
    assert manifest.config["vae_scaling_factor"] == scale
    assert manifest.config["size_conditions"] == conditioned
    assert generate["use_resolution_binning"]


def test_the_older_class_and_its_settings(checkpoint: Path) -> None:
    """As the α models are published: of a generic class, with an unused embedding of no text."""
    edit_json(checkpoint / "model_index.json", transformer=["diffusers", "Transformer2DModel"])
    settings = dict.fromkeys(("num_vector_embeds", "num_embeds_ada_norm"), None)
    edit_json(
        checkpoint / "transformer" / "config.json",
        _class_name="Transformer2DModel",
        double_self_attention=False,
        only_cross_attention=False,
        use_linear_projection=False,
        attention_type="default",
        **{**settings, "num_embeds_ada_norm": 1000},
    )
    before = sums(open_model(checkpoint))
    edit_tensors(
        checkpoint / TRANSFORMER,
        lambda tensors: tensors.update({"caption_projection.y_embedding": torch.ones(120, 8)}),
    )
    assert sums(open_model(checkpoint)) == before


@pytest.mark.parametrize("name", ["encoder.embed_tokens.weight", "shared.weight"])
def test_the_table_of_tokens_under_either_name(checkpoint: Path, name: str) -> None:
    before = sums(open_model(checkpoint))

    def rename(tensors: dict[str, Any]) -> None:
        (found,) = [each for each in ("encoder.embed_tokens.weight", "shared.weight") if each in tensors]
        tensors[name] = tensors.pop(found)

    edit_tensors(checkpoint / TEXT_ENCODER, rename)
    assert sums(open_model(checkpoint)) == before


def test_half_precision_stays_in_the_file(tmp_path: Path) -> None:
    """No matrix of the text encoder is copied: their bytes are those of the mapped file."""
    network = networks(open_model(save_pixart(tmp_path, PIXART_TINY, variant="fp16").home))["text_encoder"]
    maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    spans = [line.split()[0].split("-") for line in maps.splitlines() if line.endswith("model.fp16.safetensors")]
    matrices = [each for each in constants(network) if len(each.shape) > 1 and min(each.shape) > 1]
    stored = [each for each in matrices if "relative_attention" not in each.get_friendly_name()]
    assert stored
    for each in stored:
        assert each.get_output_element_type(0) == ov.Type.f16
        place = each.data.__array_interface__["data"][0]
        assert any(int(start, 16) <= place < int(end, 16) for start, end in spans), each


def test_parts_of_two_models(checkpoint: Path, tmp_path: Path) -> None:
    other = save_pixart(tmp_path, PIXART_256).home
    shutil.rmtree(checkpoint / "text_encoder")
    shutil.copytree(other / "text_encoder", checkpoint / "text_encoder")
    with pytest.raises(ModelError, match="text encoder gives 20, the transformer takes 8"):
        open_model(checkpoint)


def test_pickles(checkpoint: Path) -> None:
    (checkpoint / TEXT_ENCODER).rename(checkpoint / "text_encoder" / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickled"):
        open_model(checkpoint)


def test_a_damaged_tokenizer(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "tokenizer" / "tokenizer.json").write_text("{}")
    with pytest.raises(DamagedModelError, match="T5 tokenizer"):
        convert(checkpoint, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
