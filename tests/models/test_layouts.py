"""What holds of every family's published layout: what its manifest says, the forms of its files, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.checkpoints import split_tokenizer_files, write_card
from tests.convert.conftest import edit_json, edit_tensors
from tests.models.layouts import FULL_VAE, LAYOUTS, PIXART, SDXL, TINY_VAE, WUERSTCHEN, Layout, Saved
from tests.models.open_model import components, open_model, sums
from tests.models.writing import write_tokenizer
from vinograph.convert import convert
from vinograph.errors import DamagedModelError, ModelError, RequestError


def families(*layouts: Layout) -> pytest.MarkDecorator:
    """These alone."""
    return pytest.mark.parametrize("layout", layouts, ids=lambda layout: layout.family, indirect=True)


with_tiny_vae = families(SDXL, PIXART)
with_clip = families(WUERSTCHEN, SDXL)


@pytest.fixture(scope="module", params=LAYOUTS.values(), ids=list(LAYOUTS))
def layout(request: pytest.FixtureRequest) -> Layout:
    found: Layout = request.param
    return found


@pytest.fixture(scope="module")
def saved(layout: Layout, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """For reading only."""
    return layout.save(tmp_path_factory.mktemp("saved"))


@pytest.fixture
def checkpoint(saved: Saved, tmp_path: Path) -> Path:
    """A copy to change."""
    return shutil.copytree(saved.home, tmp_path / "checkpoint")


@pytest.fixture
def tiny_vae(saved: Saved, tmp_path: Path) -> Path:
    """A copy of the tiny VAE to change."""
    assert saved.tiny_vae is not None
    return shutil.copytree(saved.tiny_vae, tmp_path / saved.tiny_vae.name)


def of(layout: Layout, *values: Any) -> Any:
    """One set of parameters for a family's checkpoint."""
    shown = [str(each) for each in values[:2]]
    return pytest.param(layout, *values, id="-".join([layout.family, *shown]))


def test_the_manifest(layout: Layout, saved: Saved) -> None:
    opened = open_model(saved.home)
    manifest = opened.manifest
    assert manifest.family == layout.family
    assert components(opened) == layout.components
    assert manifest.config == layout.manifest["config"]
    assert manifest.limits == layout.manifest["limits"]
    assert layout.manifest["scheduler"].items() <= manifest.scheduler.items()
    assert layout.generate.items() <= manifest.defaults["generate"].items()
    assert manifest.source.licence == layout.licence


def test_the_bundle_says_the_same_and_brings_the_card_and_the_licence(
    layout: Layout, checkpoint: Path, tmp_path: Path
) -> None:
    write_card(checkpoint, "license: openrail++")
    opened, bundle = open_model(checkpoint).manifest, convert(checkpoint, tmp_path / "bundle")
    for field in ("family", "config", "limits", "scheduler", "defaults"):
        read, said = (
            json.dumps(getattr(each, field), default=dict, sort_keys=True) for each in (bundle.manifest, opened)
        )
        assert read == said
    assert bundle.manifest.components.keys() == layout.components
    assert {name for name, each in bundle.manifest.components.items() if not each.f16_safe} == layout.in_full_precision
    assert bundle.manifest.tools.keys() == {"vinograph", "openvino"}
    assert list(bundle.verify())
    assert "license: openrail++" in (bundle.path / "README.md").read_text()
    assert (bundle.path / "LICENSE").read_text() == "Use it as you like.\n"


class TestFiles:
    """How weights and tokenizers lie in files changes nothing."""

    @with_tiny_vae
    @pytest.mark.parametrize("variant", [None, "fp16"])
    def test_several_with_an_index(self, layout: Layout, saved: Saved, tmp_path: Path, variant: str | None) -> None:
        sharded = layout.save(tmp_path / "sharded", shard=layout.shard, variant=variant).home
        for part in layout.denoisers:
            assert list((sharded / part).glob("diffusion_pytorch_model.safetensors.index*.json"))
            assert len(list((sharded / part).glob("*-of-*.safetensors"))) > 1
        whole, rounding = sums(open_model(saved.home)), 1e-3 if variant else 0
        assert sums(open_model(sharded)) == pytest.approx(whole, rel=rounding, abs=0)

    def test_the_fp16_variant_where_there_is_no_other(self, layout: Layout, saved: Saved, tmp_path: Path) -> None:
        halves = open_model(layout.save(tmp_path / "halved", variant="fp16").home)
        for plan in halves.components:
            assert {".fp16" in file.suffixes for file in plan.files} == {True}
        assert sums(halves) == pytest.approx(sums(open_model(saved.home)), rel=1e-3)

    @with_clip
    def test_the_names_of_older_text_encoders(self, layout: Layout, saved: Saved, checkpoint: Path) -> None:
        def rename(tensors: dict[str, torch.Tensor]) -> None:
            for name in [each for each in tensors if not each.startswith(("text_model.", "text_projection."))]:
                tensors[f"text_model.{name}"] = tensors.pop(name)
            tensors["text_model.embeddings.position_ids"] = torch.arange(77)[None]
            tensors.setdefault("text_projection.weight", torch.ones(4, 4))

        for part in layout.clip_encoders:
            edit_tensors(checkpoint / part / "model.safetensors", rename)
        assert sums(open_model(checkpoint)) == sums(open_model(saved.home))

    @with_clip
    def test_vocabulary_and_merges(self, layout: Layout, checkpoint: Path, tmp_path: Path) -> None:
        for part in layout.clip_tokenizers:
            plain, split = tmp_path / "plain.json", tmp_path / "split.json"
            before = write_tokenizer(checkpoint / part, plain, 77)
            split_tokenizer_files(checkpoint / part)
            assert write_tokenizer(checkpoint / part, split, 77) == before
            assert json.loads(split.read_text()) == json.loads(plain.read_text())
        opened = open_model(checkpoint)
        assert {checkpoint / part / "vocab.json" for part in layout.clip_tokenizers} <= {*opened.files}


class TestSettings:
    """What a checkpoint's own vinograph.json sets."""

    def write(self, checkpoint: Path, settings: object) -> None:
        (checkpoint / "vinograph.json").write_text(json.dumps(settings))

    def test_they_override(self, layout: Layout, checkpoint: Path) -> None:
        self.write(
            checkpoint,
            {
                "name": "storybook",
                "defaults": {"generate": {"height": 256, "num_inference_steps": 2}},
                "limits": {"maximum_size": 512},
            },
        )
        manifest = open_model(checkpoint).manifest
        assert (manifest.name, manifest.limits["maximum_size"]) == ("storybook", 512)
        assert manifest.limits["minimum_size"] == layout.manifest["limits"]["minimum_size"]
        own = {"height": 256, "num_inference_steps": 2}
        assert {**layout.generate, **own}.items() <= manifest.defaults["generate"].items()

    @pytest.mark.parametrize(
        "settings",
        [
            {"defaults": {"colour": 5}},
            {"defaults": {"generate": {"colour": 5}}},
            {"limits": {"maximum_size": "big"}},
            {"limits": []},
        ],
    )
    def test_they_make_no_sense(self, checkpoint: Path, settings: dict[str, object]) -> None:
        self.write(checkpoint, settings)
        with pytest.raises(ModelError, match=r"vinograph\.json"):
            open_model(checkpoint)


@with_tiny_vae
class TestTinyVae:
    """A tiny VAE: named, in the checkpoint's own folder, or in place of the full one."""

    def test_it_is_named(self, layout: Layout, saved: Saved, tiny_vae: Path) -> None:
        edit_json(tiny_vae / "config.json", scaling_factor=0.5)
        opened = open_model(saved.home, tiny_vae=str(tiny_vae))
        assert components(opened) == layout.components | TINY_VAE
        assert opened.manifest.config == {**layout.manifest["config"], "tiny_vae_scaling_factor": 0.5}
        assert opened.manifest.source.also == {"tiny_vae": tiny_vae.name}

    def test_it_is_in_the_checkpoint(self, layout: Layout, checkpoint: Path, tiny_vae: Path) -> None:
        shutil.copytree(tiny_vae, checkpoint / "tiny_vae")
        opened = open_model(checkpoint)
        assert components(opened) == layout.components | TINY_VAE
        assert opened.manifest.source.also == {}

    def test_it_is_the_only_one(self, layout: Layout, checkpoint: Path, tiny_vae: Path) -> None:
        shutil.rmtree(checkpoint / "vae")
        shutil.copytree(tiny_vae, checkpoint / "vae")
        edit_json(checkpoint / "model_index.json", vae=["diffusers", "AutoencoderTiny"])
        opened = open_model(checkpoint)
        assert components(opened) == layout.components - FULL_VAE | TINY_VAE
        assert opened.manifest.limits["size_multiple"] == layout.manifest["limits"]["size_multiple"]

    def test_it_is_nothing_of_the_kind(self, layout: Layout, saved: Saved, tmp_path: Path) -> None:
        (tmp_path / "nothing").mkdir()
        with pytest.raises(ModelError, match=rf"the tiny VAE .*nothing has no config\.json.*{layout.tiny_vae_id}\b"):
            open_model(saved.home, tiny_vae=str(tmp_path / "nothing"))
        with pytest.raises(RequestError, match="neither a directory here nor the id"):
            open_model(saved.home, tiny_vae="none here")

    def test_it_is_a_full_one(self, saved: Saved) -> None:
        with pytest.raises(ModelError, match=r"vae/config\.json describes no model that Vinograph has"):
            open_model(saved.home, tiny_vae=str(saved.home / "vae"))

    def test_its_scale_is_zero(self, saved: Saved, tiny_vae: Path) -> None:
        edit_json(tiny_vae / "config.json", scaling_factor=0)
        with pytest.raises(ModelError, match="scaling_factor is 0, by which latents can't be divided"):
            open_model(saved.home, tiny_vae=str(tiny_vae))

    def test_its_latents_are_of_another_size(self, saved: Saved, tmp_path: Path) -> None:
        import diffusers

        library: Any = diffusers
        other = library.AutoencoderTiny(
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            num_encoder_blocks=(1, 1),
            num_decoder_blocks=(1, 1),
        )
        other.save_pretrained(tmp_path / "other")
        with pytest.raises(ModelError, match="latents are smaller by 8, the tiny VAE's are by 2"):
            open_model(saved.home, tiny_vae=str(tmp_path / "other"))


CONFIGURATIONS = [
    of(SDXL, "unet", {"in_channels": 5}, "in_channels is 5; known are 4, and 9 of inpainting models"),
    of(SDXL, "unet", {"in_channels": 8}, "in_channels is 8"),
    of(SDXL, "unet", {"addition_embed_type": "text"}, "addition_embed_type is 'text'"),
    of(SDXL, "unet", {"class_embed_type": "timestep"}, "class_embed_type is 'timestep'"),
    of(SDXL, "unet", {"only_cross_attention": True}, "only_cross_attention is True"),
    of(SDXL, "unet", {"resnet_time_scale_shift": "scale_shift"}, "resnet_time_scale_shift is 'scale_shift'"),
    of(SDXL, "unet", {"act_fn": "gelu"}, "act_fn is 'gelu'"),
    of(SDXL, "unet", {"dual_cross_attention": True}, "dual_cross_attention is True"),
    of(SDXL, "unet", {"colour": "red"}, "colour .here 'red'. is a setting that Vinograph doesn't know"),
    of(SDXL, "unet", {"mid_block_type": "UNetMidBlock2DSimpleCrossAttn"}, "mid_block_type is 'UNetMidBlock2DSimple"),
    of(
        SDXL, "unet", {"down_block_types": ["DownBlock2D", "AttnDownBlock2D"]}, "down_block_types has 'AttnDownBlock2D'"
    ),
    of(SDXL, "unet", {"up_block_types": ["UpBlock2D"]}, "up_block_types has 1 entries for 2 levels"),
    of(SDXL, "unet", {"attention_head_dim": [1, 3]}, "attention_head_dim 3 does not divide"),
    of(SDXL, "unet", {"transformer_layers_per_block": [1, [1, 1]]}, "reverse_transformer_layers_per_block must be set"),
    of(SDXL, "unet", {"block_out_channels": [8, 2_000_000]}, "block_out_channels is 2000000, which is beyond"),
    of(SDXL, "unet", {"layers_per_block": 100_000}, "layers_per_block is 100000, which is beyond"),
    of(SDXL, "unet", {"sample_size": [8, 16]}, r"sample_size is \[8, 16\]; Vinograph draws with models of square"),
    of(SDXL, "unet", {"sample_size": [8, 8, 8]}, r"sample_size is \[8, 8, 8\], where a whole number should be"),
    of(SDXL, "unet", {"sample_size": ["8", "8"]}, "sample_size is '8', where a whole number should be"),
    of(SDXL, "unet", {"sample_size": 0}, "sample_size is 0"),
    of(SDXL, "unet", {"transformer_layers_per_block": [1] * 9}, "transformer_layers_per_block has 9 entries"),
    of(SDXL, "unet", {"layers_per_block": [1] * 9}, "layers_per_block has 9 entries"),
    of(
        SDXL,
        "unet",
        {"reverse_transformer_layers_per_block": [1] * 9},
        "reverse_transformer_layers_per_block has 9 entries",
    ),
    of(
        SDXL,
        "unet",
        {"attention_head_dim": "4"},
        "attention_head_dim is '4', where a whole number or a list .* should be",
    ),
    of(SDXL, "unet", {"use_linear_projection": 1}, "use_linear_projection is 1, where true or false should be"),
    of(SDXL, "vae", {"down_block_types": ["AttnDownEncoderBlock2D"] * 4}, "down_block_types has 'AttnDownEncoder"),
    of(SDXL, "vae", {"shift_factor": 0.1}, "shift_factor is 0.1"),
    of(SDXL, "vae", {"latents_mean": [1, 2, 3]}, "latents_mean has 3 numbers for 4 channels"),
    of(SDXL, "vae", {"act_fn": "relu"}, "act_fn is 'relu'"),
    of(SDXL, "vae", {"scaling_factor": "0.13025"}, "scaling_factor is '0.13025', where a number should be"),
    of(SDXL, "vae", {"scaling_factor": 0}, "scaling_factor is 0, by which latents can't be divided"),
    of(SDXL, "vae", {"scaling_factor": 1e-60}, "scaling_factor is 1e-60, by which"),
    of(SDXL, "vae", {"scaling_factor": float("-inf")}, "scaling_factor is -inf, where a number should be"),
    of(
        SDXL,
        "vae",
        {"latents_mean": [0, 0, 0, 0], "latents_std": [1, 1, 0.0, 1]},
        r"latents_std\[2\] is 0\.0, by which latents can't be divided",
    ),
    of(SDXL, "vae", {"block_out_channels": [], "down_block_types": [], "up_block_types": []}, "channels is empty"),
    of(SDXL, "text_encoder", {"hidden_act": "relu"}, "hidden_act is 'relu'"),
    of(SDXL, "text_encoder_2", {"eos_token_id": [2]}, "eos_token_id is .2., where a whole number should be"),
    of(SDXL, "scheduler", {"beta_schedule": "sigmoid"}, "sigmoid"),
    of(PIXART, "transformer", {"norm_type": "layer_norm"}, "norm_type"),
    of(PIXART, "transformer", {"activation_fn": "geglu"}, "activation_fn"),
    of(PIXART, "transformer", {"norm_elementwise_affine": True}, "norm_elementwise_affine"),
    of(PIXART, "transformer", {"attention_type": "gated"}, "attention_type"),
    of(PIXART, "transformer", {"caption_channels": None}, "caption_channels"),
    of(PIXART, "transformer", {"cross_attention_dim": 12}, "cross_attention_dim"),
    of(PIXART, "transformer", {"out_channels": 6}, "out_channels"),
    of(PIXART, "transformer", {"in_channels": 8}, "in_channels"),
    of(PIXART, "transformer", {"interpolation_scale": -1}, "interpolation_scale"),
    of(PIXART, "transformer", {"use_additional_conditions": True}, "three conditions"),
    of(PIXART, "transformer", {"patch_size": 0}, "patch_size"),
    of(PIXART, "transformer", {"num_layers": 100_000}, "num_layers"),
    of(PIXART, "transformer", {"rope": True}, "rope"),
    of(PIXART, "text_encoder", {"feed_forward_proj": "relu"}, "gated-gelu"),
    of(PIXART, "text_encoder", {"relative_attention_num_buckets": 31}, "relative_attention_num_buckets"),
    of(PIXART, "text_encoder", {"relative_attention_max_distance": 5}, "relative_attention_max_distance"),
    of(PIXART, "text_encoder", {"num_layers": -1, "d_model": "wide"}, "text_encoder"),
]
CLASSES = [
    of(SDXL, "unet", ["diffusers", "UNet2DModel"]),
    of(SDXL, "vae", ["diffusers", "AutoencoderKLCogVideoX"]),
    of(SDXL, "text_encoder_2", ["transformers", "CLIPTextModel"]),
    of(SDXL, "scheduler", ["diffusers", "DEISMultistepScheduler"]),
    of(SDXL, "tokenizer", ["transformers", "AutoTokenizer"]),
    of(SDXL, "image_encoder", ["my_code", "CLIPVisionModelWithProjection"]),
    of(SDXL, "feature_extractor", ["transformers", "AutoImageProcessor"]),
    of(SDXL, "safety_checker", ["my_code", "Checker"]),
    of(PIXART, "text_encoder", ["transformers", "CLIPTextModel"]),
    of(PIXART, "text_encoder", ["evil", "T5EncoderModel"]),
    of(PIXART, "tokenizer", ["transformers", "CLIPTokenizer"]),
    of(PIXART, "transformer", ["diffusers", "SD3Transformer2DModel"]),
    of(PIXART, "scheduler", ["diffusers", "DDPMWuerstchenScheduler"]),
]


class TestRefused:
    """What isn't computed is refused by name, before anything is written."""

    @pytest.mark.parametrize(("layout", "part", "change", "message"), CONFIGURATIONS, indirect=["layout"])
    def test_a_configuration(self, checkpoint: Path, part: str, change: dict[str, Any], message: str) -> None:
        file = "scheduler_config.json" if part == "scheduler" else "config.json"
        edit_json(checkpoint / part / file, **change)
        with pytest.raises(ModelError, match=message):
            open_model(checkpoint)

    @pytest.mark.parametrize(("layout", "part", "named"), CLASSES, indirect=["layout"])
    def test_a_class(self, checkpoint: Path, part: str, named: list[str]) -> None:
        edit_json(checkpoint / "model_index.json", **{part: named})
        with pytest.raises(ModelError, match=f"gives the part {part} the class {named[1]} of {named[0]}"):
            open_model(checkpoint)

    @pytest.mark.parametrize(
        ("layout", "part"),
        [of(layout, part) for layout in LAYOUTS.values() for part in layout.needed],
        indirect=["layout"],
    )
    @pytest.mark.parametrize("given", [None, [None, None]])
    def test_a_checkpoint_without_a_part(self, checkpoint: Path, part: str, given: Any) -> None:
        index = json.loads((checkpoint / "model_index.json").read_text()) | {part: given}
        (checkpoint / "model_index.json").write_text(json.dumps(index))
        with pytest.raises(ModelError, match=f"names no {part}"):
            open_model(checkpoint)

    @pytest.mark.parametrize(
        ("layout", "part", "change"),
        [
            of(SDXL, "unet", {"cross_attention_dim": 12}),
            of(SDXL, "text_encoder_2", {"projection_dim": 6}),
            of(PIXART, "text_encoder", {"d_ff": 32}),
        ],
        indirect=["layout"],
    )
    def test_weights_that_are_not_the_configurations(self, checkpoint: Path, part: str, change: dict[str, Any]) -> None:
        edit_json(checkpoint / part / "config.json", **change)
        with pytest.raises(DamagedModelError, match="the configuration asks for"):
            open_model(checkpoint)

    @pytest.mark.parametrize("part", ["denoiser", "text_encoder"])
    def test_tensors_that_are_missing_or_too_many(self, layout: Layout, checkpoint: Path, part: str) -> None:
        name = layout.denoisers[-1] if part == "denoiser" else part
        (file,) = (checkpoint / name).glob("*.safetensors")
        taken: dict[str, Any] = {}

        def drop(tensors: dict[str, Any]) -> None:
            last = sorted(tensors)[-1]
            taken[last] = tensors.pop(last)

        edit_tensors(file, drop)
        (tensor,) = taken
        with pytest.raises(DamagedModelError, match=rf"lacks the tensor {tensor}"):
            open_model(checkpoint)
        edit_tensors(file, lambda tensors: tensors.update({**taken, "another": torch.ones(2)}))
        with pytest.raises(DamagedModelError, match="another, which the model has no place for"):
            open_model(checkpoint)

    @pytest.mark.parametrize(
        ("layout", "option", "message"),
        [
            of(SDXL, {"prior": "x"}, "--prior is not an option of sdxl models; theirs: --tiny-vae"),
            of(PIXART, {"prior": "x"}, "--prior is not an option of pixart models; theirs: --tiny-vae"),
            of(PIXART, {"image_encoder": Path("x")}, "not an option of pixart models; theirs: --tiny-vae"),
            of(WUERSTCHEN, {"tiny_vae": "x"}, "--tiny-vae is not an option of wuerstchen models; theirs: --"),
        ],
        indirect=["layout"],
    )
    def test_an_option_of_another_family(self, saved: Saved, option: dict[str, Any], message: str) -> None:
        with pytest.raises(RequestError, match=message):
            open_model(saved.home, **option)

    @pytest.mark.parametrize("weights", ["bf16", "INT8", ""])
    def test_another_storage(self, saved: Saved, tmp_path: Path, weights: Any) -> None:
        with pytest.raises(RequestError, match="f16, f32"):
            convert(saved.home, tmp_path / "bundle", weights=weights)
