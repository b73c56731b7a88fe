"""The forms in which PixArt is published, what the bundle says of each, and what is refused."""

from __future__ import annotations

import json
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
from tests.models.open_model import components, constants, networks, open_model, sums
from vinograph.convert import convert
from vinograph.errors import DamagedModelError, ModelError, RequestError
from vinograph.models.manifest import Manifest

TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"
TEXT_ENCODER = "text_encoder/model.safetensors"
FULL = {"vae_decoder", "vae_encoder"}
TINY = {"tiny_vae_decoder", "tiny_vae_encoder"}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> SavedPixArt:
    """For reading only."""
    return save_pixart(tmp_path_factory.mktemp("saved"), PIXART_TINY)


@pytest.fixture
def checkpoint(saved: SavedPixArt, tmp_path: Path) -> Path:
    """A copy to change."""
    return shutil.copytree(saved.home, tmp_path / "checkpoint")


def test_the_manifest(saved: SavedPixArt) -> None:
    manifest: Manifest = open_model(saved.home).manifest
    assert manifest.family == "pixart"
    assert manifest.config == {
        "latent_channels": 4,
        "vae_scale_factor": 8,
        "vae_scaling_factor": 0.18215,
        "vae_latents_mean": [],
        "vae_latents_std": [],
        "tiny_vae_scaling_factor": 1.0,
        "text_width": 8,
        "text_length": 120,
        "out_channels": 4,
        "sample_size": 16,
        "size_conditions": 0,
    }
    assert manifest.limits == {"size_multiple": 16, "minimum_size": 64, "maximum_size": 2048, "native_size": 128}
    assert manifest.scheduler["class"] == "DPMSolverMultistepScheduler"
    assert manifest.defaults["generate"]["height"] == manifest.defaults["generate"]["width"] == 128
    assert not manifest.defaults["generate"]["use_resolution_binning"]  # there is no table for such a model
    assert manifest.source.licence == "openrail++"
    assert components(open_model(saved.home)) == {"text_encoder", "transformer", *FULL}


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


def test_half_precision_and_shards(saved: SavedPixArt, tmp_path: Path) -> None:
    halves = save_pixart(tmp_path, PIXART_TINY, variant="fp16", shard="3KB").home
    assert len(list((halves / "text_encoder").glob("*-of-*.safetensors"))) > 1
    for (name, one), (other, two) in zip(
        sums(open_model(halves)).items(), sums(open_model(saved.home)).items(), strict=True
    ):
        assert name == other
        assert one == pytest.approx(two, rel=1e-3)


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


def test_a_tiny_vae(saved: SavedPixArt, checkpoint: Path) -> None:
    named = open_model(saved.home, tiny_vae=str(saved.tiny_vae))
    assert components(named) == {"text_encoder", "transformer", *FULL, *TINY}
    assert named.manifest.source.also == {"tiny_vae": "taesd"}
    shutil.copytree(saved.tiny_vae, checkpoint / "tiny_vae")
    beside = open_model(checkpoint)
    assert components(beside) == components(named)
    assert beside.manifest.source.also == {}


def test_a_tiny_vae_in_the_place_of_the_full_one(saved: SavedPixArt, checkpoint: Path) -> None:
    shutil.rmtree(checkpoint / "vae")
    shutil.copytree(saved.tiny_vae, checkpoint / "vae")
    edit_json(checkpoint / "model_index.json", vae=["diffusers", "AutoencoderTiny"])
    assert components(open_model(checkpoint)) == {"text_encoder", "transformer", *TINY}


def test_a_tiny_vae_that_is_none(saved: SavedPixArt, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"madebyollin/taesd\b"):
        open_model(saved.home, tiny_vae=str(tmp_path / "empty"))


@pytest.mark.parametrize("option", [{"prior": "x"}, {"image_encoder": Path("x")}])
def test_options_of_other_families(saved: SavedPixArt, option: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=r"not an option of pixart models; theirs: --tiny-vae"):
        open_model(saved.home, **option)


@pytest.mark.parametrize("weights", ["bf16", "INT8", ""])
def test_other_storage(saved: SavedPixArt, tmp_path: Path, weights: str) -> None:
    with pytest.raises(RequestError, match="f16, f32"):
        convert(saved.home, tmp_path / "bundle", weights=weights)  # type: ignore[arg-type]


@pytest.mark.parametrize("part", ["text_encoder", "tokenizer", "transformer", "vae", "scheduler"])
@pytest.mark.parametrize("given", [None, [None, None]])
def test_a_part_that_is_not_there(checkpoint: Path, part: str, given: Any) -> None:
    index = json.loads((checkpoint / "model_index.json").read_text()) | {part: given}
    (checkpoint / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=f"names no {part}"):
        open_model(checkpoint)


@pytest.mark.parametrize(
    ("part", "named"),
    [
        ("text_encoder", ["transformers", "CLIPTextModel"]),
        ("text_encoder", ["evil", "T5EncoderModel"]),
        ("tokenizer", ["transformers", "CLIPTokenizer"]),
        ("transformer", ["diffusers", "SD3Transformer2DModel"]),
        ("scheduler", ["diffusers", "DDPMWuerstchenScheduler"]),
    ],
)
def test_classes_that_we_do_not_have(checkpoint: Path, part: str, named: list[str]) -> None:
    edit_json(checkpoint / "model_index.json", **{part: named})
    with pytest.raises(ModelError, match=f"gives the part {part} the class {named[1]} of {named[0]}"):
        open_model(checkpoint)


@pytest.mark.parametrize(
    ("folder", "changes", "message"),
    [
        ("transformer", {"norm_type": "layer_norm"}, "norm_type"),
        ("transformer", {"activation_fn": "geglu"}, "activation_fn"),
        ("transformer", {"norm_elementwise_affine": True}, "norm_elementwise_affine"),
        ("transformer", {"attention_type": "gated"}, "attention_type"),
        ("transformer", {"caption_channels": None}, "caption_channels"),
        ("transformer", {"cross_attention_dim": 12}, "cross_attention_dim"),
        ("transformer", {"out_channels": 6}, "out_channels"),
        ("transformer", {"in_channels": 8}, "in_channels"),
        ("transformer", {"interpolation_scale": -1}, "interpolation_scale"),
        ("transformer", {"use_additional_conditions": True}, "three conditions"),
        ("transformer", {"patch_size": 0}, "patch_size"),
        ("transformer", {"num_layers": 100_000}, "num_layers"),
        ("transformer", {"rope": True}, "rope"),
        ("text_encoder", {"feed_forward_proj": "relu"}, "gated-gelu"),
        ("text_encoder", {"relative_attention_num_buckets": 31}, "relative_attention_num_buckets"),
        ("text_encoder", {"relative_attention_max_distance": 5}, "relative_attention_max_distance"),
        ("text_encoder", {"num_layers": -1, "d_model": "wide"}, "text_encoder"),
    ],
)
def test_configurations_that_are_not_computed(
    checkpoint: Path, folder: str, changes: dict[str, Any], message: str
) -> None:
    edit_json(checkpoint / folder / "config.json", **changes)
    with pytest.raises(ModelError, match=message):
        open_model(checkpoint)


@pytest.mark.parametrize("file", [TRANSFORMER, TEXT_ENCODER])
def test_tensors_that_are_missing_or_too_many(checkpoint: Path, file: str) -> None:
    kept: dict[str, Any] = {}

    def drop(tensors: dict[str, Any]) -> None:
        name = sorted(tensors)[-1]
        kept[name] = tensors.pop(name)

    edit_tensors(checkpoint / file, drop)
    (name,) = kept
    with pytest.raises(DamagedModelError, match=rf"lacks the tensor {name}"):
        open_model(checkpoint)
    edit_tensors(checkpoint / file, lambda tensors: tensors.update({**kept, "another": torch.ones(2)}))
    with pytest.raises(DamagedModelError, match="another, which the model has no place for"):
        open_model(checkpoint)


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
