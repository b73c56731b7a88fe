"""The forms in which SDXL is published, what the bundle says of each, and what is refused."""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import openvino as ov
import pytest
import torch

from tests.checkpoints import SDXL_TINY, SavedSdxl, save_sdxl, split_tokenizer_files, write_card
from tests.convert.conftest import edit_json, edit_tensors
from tests.models.open_model import components, constants, networks, open_model, sums
from tests.models.writing import write_tokenizer
from vinograph.convert import convert
from vinograph.errors import DamagedModelError, ModelError, RequestError
from vinograph.models.manifest import Manifest
from vinograph.networks.graph import Storage
from vinograph.schedulers import SAMPLERS, settings

UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
TINY = {"tiny_vae_decoder", "tiny_vae_encoder"}
FULL = {"vae_decoder", "vae_encoder"}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> SavedSdxl:
    """For reading only."""
    return save_sdxl(tmp_path_factory.mktemp("saved"), SDXL_TINY)


@pytest.fixture
def checkpoint(saved: SavedSdxl, tmp_path: Path) -> Path:
    """A copy to change."""
    return shutil.copytree(saved.home, tmp_path / "checkpoint")


def test_the_manifest(saved: SavedSdxl) -> None:
    manifest: Manifest = open_model(saved.home).manifest
    assert manifest.family == "sdxl"
    assert manifest.config == {
        "latent_channels": 4,
        "vae_scale_factor": 8,
        "vae_scaling_factor": 0.13025,
        "vae_latents_mean": [],
        "vae_latents_std": [],
        "tiny_vae_scaling_factor": 1.0,
        "text_widths": [4, 4],
        "pooled_width": 4,
        "force_zeros_for_empty_prompt": 1,
        "time_cond_width": 0,
    }
    assert manifest.limits == {"size_multiple": 8, "minimum_size": 64, "maximum_size": 2048, "native_size": 64}
    assert manifest.scheduler["class"] == "EulerDiscreteScheduler"
    assert manifest.scheduler["timestep_spacing"] == "leading"
    generate = manifest.defaults["generate"]
    assert (generate["height"], generate["width"]) == (64, 64)
    assert (generate["num_inference_steps"], generate["guidance_scale"]) == (50, 5.0)
    assert manifest.source.licence == "sdxl-test"


def test_both_tokenizers_pad_as_their_files_say(saved: SavedSdxl, tmp_path: Path) -> None:
    first = write_tokenizer(saved.home / "tokenizer", tmp_path / "tokenizer.json", 77)
    second = write_tokenizer(saved.home / "tokenizer_2", tmp_path / "tokenizer_2.json", 77)
    assert (first.pad_id, first.max_length) == (saved.models.tokenizer.eos_token_id, 77)
    assert (second.pad_id, second.max_length) == (0, 77)


class TestFewSteps:
    """Whose defaults are few steps without guidance: the scheduler alone is no evidence of it."""

    @pytest.fixture
    def turbo(self, tmp_path: Path) -> Path:
        """Such as SDXL-Turbo by its name and its scheduler."""
        return save_sdxl(tmp_path / "turbo", replace(SDXL_TINY, turbo=True)).home

    @pytest.fixture
    def nameless(self, turbo: Path) -> Path:
        """Such as SDXL-Turbo by its scheduler alone."""
        return turbo.rename(turbo.with_name("mine"))

    def drawn(self, manifest: Manifest) -> tuple[Any, Any]:
        generate = manifest.defaults["generate"]
        return generate["num_inference_steps"], generate["guidance_scale"]

    def test_turbo_by_its_name(self, turbo: Path) -> None:
        manifest = open_model(turbo).manifest
        assert self.drawn(manifest) == (1, 0.0)
        (note,) = manifest.notes
        assert "1 step without guidance, as for SDXL-Turbo, by the scheduler and the name" in note

    def test_turbo_by_its_size(self, nameless: Path) -> None:
        edit_json(nameless / "unet" / "config.json", sample_size=64)
        manifest = open_model(nameless).manifest
        assert self.drawn(manifest) == (1, 0.0)
        assert "by the scheduler and the UNet's size of 512 pixels" in manifest.notes[0]

    def test_a_scheduler_alone(self, nameless: Path) -> None:
        manifest = open_model(nameless).manifest
        assert self.drawn(manifest) == (50, 5.0)
        assert "give --steps 1 --guidance-scale 0" in manifest.notes[0]

    @pytest.mark.parametrize(
        "change",
        [
            {"prediction_type": "v_prediction"},
            {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
            {"rescale_betas_zero_snr": True},
            {"timestep_spacing": "leading"},
        ],
        ids=str,
    )
    def test_another_prediction_or_spacing(self, turbo: Path, change: dict[str, object]) -> None:
        """A guided model with zero terminal SNR may be saved with Euler's ancestral steps."""
        edit_json(turbo / "scheduler" / "scheduler_config.json", **change)
        manifest = open_model(turbo).manifest
        assert self.drawn(manifest) == (50, 5.0)
        assert manifest.notes == ()

    def test_what_the_checkpoint_says_is_no_assumption(self, turbo: Path) -> None:
        settings = {"defaults": {"generate": {"num_inference_steps": 2, "guidance_scale": 0.0}}}
        (turbo / "vinograph.json").write_text(json.dumps(settings))
        manifest = open_model(turbo).manifest
        assert self.drawn(manifest) == (2, 0.0)
        assert manifest.notes == ()


class TestSchedulerClass:
    """The class is the one in model_index.json, the settings are the scheduler file's."""

    @pytest.mark.parametrize("named", SAMPLERS)
    @pytest.mark.parametrize("saved_as", SAMPLERS)
    def test_the_index_names_it(self, checkpoint: Path, named: str, saved_as: str) -> None:
        import diffusers

        library: Any = diffusers
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            getattr(library, saved_as)(
                beta_start=0.00085, beta_end=0.013, beta_schedule="scaled_linear", timestep_spacing="trailing"
            ).save_pretrained(checkpoint / "scheduler")
            theirs = getattr(library, named).from_pretrained(checkpoint / "scheduler")
        edit_json(checkpoint / "model_index.json", scheduler=["diffusers", named])
        ours = open_model(checkpoint).manifest.scheduler
        assert ours["class"] == named == type(theirs).__name__
        assert ours == settings({**theirs.config, "_class_name": named})

    def test_what_diffusers_notes_as_not_set_is_left_out(self, checkpoint: Path) -> None:
        file = checkpoint / "scheduler" / "scheduler_config.json"
        edit_json(file, beta_end=0.5, _use_default_values=["beta_end", "steps_offset"])
        assert open_model(checkpoint).manifest.scheduler["beta_end"] == 0.02

    def test_one_that_is_not_computed(self, checkpoint: Path) -> None:
        edit_json(checkpoint / "model_index.json", scheduler=["diffusers", "UniPCMultistepScheduler"])
        with pytest.raises(ModelError, match="UniPCMultistepScheduler"):
            open_model(checkpoint)


def test_a_consistency_model_says_how_wide_its_guidance_is(tmp_path: Path) -> None:
    saved = save_sdxl(tmp_path / "lcm", replace(SDXL_TINY, guidance_width=12))
    planned = open_model(saved.home)
    assert planned.manifest.config["time_cond_width"] == 12
    assert planned.manifest.scheduler["class"] == "LCMScheduler"
    generate = planned.manifest.defaults["generate"]
    assert (generate["num_inference_steps"], generate["guidance_scale"]) == (4, 8.0)


def test_one_that_is_told_no_guidance_has_none(checkpoint: Path) -> None:
    """As where an LCM-LoRA was fused into a checkpoint."""
    edit_json(checkpoint / "model_index.json", scheduler=["diffusers", "LCMScheduler"])
    generate = open_model(checkpoint).manifest.defaults["generate"]
    assert (generate["num_inference_steps"], generate["guidance_scale"]) == (4, 0.0)


@pytest.mark.parametrize("silent", ["missing", "null"])
def test_a_unet_that_does_not_say_its_size_draws_as_diffusers_has_it(checkpoint: Path, silent: str) -> None:
    file = checkpoint / "unet" / "config.json"
    edit_json(file, sample_size=None)
    if silent == "null":
        file.write_text(json.dumps({**json.loads(file.read_text()), "sample_size": None}))
    manifest = open_model(checkpoint).manifest
    assert (manifest.limits["native_size"], manifest.defaults["generate"]["height"]) == (1024, 1024)


@pytest.mark.parametrize("pipeline", ["StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLInpaintPipeline"])
def test_the_other_pipelines_of_the_same_parts(checkpoint: Path, pipeline: str) -> None:
    edit_json(checkpoint / "model_index.json", _class_name=pipeline)
    assert open_model(checkpoint).manifest.family == "sdxl"


def test_a_checkpoints_own_settings(checkpoint: Path) -> None:
    settings = {
        "name": "storybook",
        "defaults": {"generate": {"num_inference_steps": 2, "guidance_scale": 1.5}},
        "limits": {"maximum_size": 512},
    }
    (checkpoint / "vinograph.json").write_text(json.dumps(settings))
    manifest = open_model(checkpoint).manifest
    assert (manifest.name, manifest.limits["maximum_size"]) == ("storybook", 512)
    assert manifest.defaults["generate"]["num_inference_steps"] == 2
    assert manifest.defaults["generate"]["guidance_scale"] == 1.5


class TestFiles:
    """How weights lie in files changes nothing."""

    def test_several(self, saved: SavedSdxl, tmp_path: Path) -> None:
        sharded = save_sdxl(tmp_path / "sharded", SDXL_TINY, shard="30KB").home
        assert (sharded / "unet" / "diffusion_pytorch_model.safetensors.index.json").is_file()
        assert sums(open_model(sharded)) == sums(open_model(saved.home))

    def test_the_names_of_older_text_encoders(self, saved: SavedSdxl, checkpoint: Path) -> None:
        def rename(tensors: dict[str, torch.Tensor]) -> None:
            for name in [each for each in tensors if not each.startswith(("text_model.", "text_projection."))]:
                tensors[f"text_model.{name}"] = tensors.pop(name)
            tensors["text_model.embeddings.position_ids"] = torch.arange(77)[None]

        for part in ("text_encoder", "text_encoder_2"):
            edit_tensors(checkpoint / part / "model.safetensors", rename)
        assert sums(open_model(checkpoint)) == sums(open_model(saved.home))

    def test_the_names_of_older_vaes(self, saved: SavedSdxl, checkpoint: Path) -> None:
        def rename(tensors: dict[str, torch.Tensor]) -> None:
            for older, newer in (("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")):
                for name in [each for each in tensors if f".{newer}." in each]:
                    tensors[name.replace(f".{newer}.", f".{older}.")] = tensors.pop(name)

        edit_tensors(checkpoint / VAE, rename)
        assert sums(open_model(checkpoint)) == sums(open_model(saved.home))

    def test_vocabulary_and_merges(self, saved: SavedSdxl, checkpoint: Path) -> None:
        split_tokenizer_files(checkpoint / "tokenizer_2")
        planned = open_model(checkpoint)
        assert checkpoint / "tokenizer_2" / "vocab.json" in planned.files

    def test_networks_of_other_engines_beside_the_weights(self, checkpoint: Path) -> None:
        """As in SDXL base's repository: files of OpenVINO and ONNX are neither fetched nor read."""
        alone = {file.relative_to(checkpoint) for file in open_model(checkpoint).files}
        for part in ("text_encoder", "text_encoder_2", "unet", "vae_decoder", "vae_encoder"):
            (checkpoint / part).mkdir(exist_ok=True)
            for name in ("openvino_model.xml", "openvino_model.bin", "model.onnx"):
                (checkpoint / part / name).write_bytes(b"x")
        found = open_model(checkpoint)
        assert {file.relative_to(checkpoint) for file in found.files} == alone
        assert Path(UNET) in alone
        assert components(found) >= FULL | {"unet", "text_encoder", "text_encoder_2"}

    def test_matrices_are_halved_where_that_is_asked_for(self, saved: SavedSdxl) -> None:
        for halve, kind in ((True, ov.Type.f16), (False, ov.Type.f32)):
            for network in networks(open_model(saved.home), Storage(halve=halve)).values():
                nodes = constants(network)
                kinds = {node.get_output_element_type(0) for node in nodes if sum(size > 1 for size in node.shape) > 1}
                assert kinds == {kind}
                assert all(node.get_output_element_type(0) == ov.Type.f32 for node in nodes if len(node.shape) < 2)


def test_what_an_ip_adapter_would_need_is_left_out(saved: SavedSdxl, checkpoint: Path) -> None:
    """Its folders may be there or not."""
    edit_json(
        checkpoint / "model_index.json",
        image_encoder=["transformers", "CLIPVisionModelWithProjection"],
        feature_extractor=["transformers", "CLIPImageProcessor"],
    )
    (checkpoint / "image_encoder").mkdir()
    (checkpoint / "image_encoder" / "config.json").write_text("{}", encoding="utf-8")
    theirs = components(open_model(saved.home))
    planned = open_model(checkpoint)
    assert components(planned) == theirs
    assert not [file for file in planned.files if "image_encoder" in str(file)]


class TestTinyVae:
    """A tiny VAE: named, in the checkpoint's own folder, or in place of the full one."""

    def test_there_is_none(self, saved: SavedSdxl) -> None:
        assert components(open_model(saved.home)) == {"text_encoder", "text_encoder_2", "unet", *FULL}

    def test_it_is_named(self, saved: SavedSdxl, tmp_path: Path) -> None:
        named = shutil.copytree(saved.tiny_vae, tmp_path / "taesdxl")
        edit_json(named / "config.json", scaling_factor=0.5)
        planned = open_model(saved.home, tiny_vae=str(named))
        assert components(planned) >= TINY | FULL
        assert planned.manifest.config["tiny_vae_scaling_factor"] == 0.5
        assert planned.manifest.config["vae_scaling_factor"] == 0.13025
        assert planned.manifest.source.also == {"tiny_vae": "taesdxl"}

    def test_it_is_in_the_checkpoint(self, saved: SavedSdxl, checkpoint: Path) -> None:
        shutil.copytree(saved.tiny_vae, checkpoint / "tiny_vae")
        planned = open_model(checkpoint)
        assert components(planned) >= TINY | FULL
        assert planned.manifest.source.also == {}

    def test_it_is_the_only_one(self, saved: SavedSdxl, checkpoint: Path) -> None:
        shutil.rmtree(checkpoint / "vae")
        shutil.copytree(saved.tiny_vae, checkpoint / "vae")
        edit_json(checkpoint / "model_index.json", vae=["diffusers", "AutoencoderTiny"])
        planned = open_model(checkpoint)
        assert components(planned) == {"text_encoder", "text_encoder_2", "unet", *TINY}
        assert planned.manifest.limits["size_multiple"] == 8

    def test_it_is_nothing_of_the_kind(self, saved: SavedSdxl, tmp_path: Path) -> None:
        (tmp_path / "nothing").mkdir()
        with pytest.raises(ModelError, match=r"the tiny VAE .*nothing has no config\.json"):
            open_model(saved.home, tiny_vae=str(tmp_path / "nothing"))
        with pytest.raises(RequestError, match="neither a directory here nor the id"):
            open_model(saved.home, tiny_vae="none here")

    def test_it_is_a_full_one(self, saved: SavedSdxl) -> None:
        with pytest.raises(ModelError, match=r"vae/config\.json describes no model that Vinograph has"):
            open_model(saved.home, tiny_vae=str(saved.home / "vae"))

    def test_its_scale_is_zero(self, saved: SavedSdxl, tmp_path: Path) -> None:
        named = shutil.copytree(saved.tiny_vae, tmp_path / "taesdxl")
        edit_json(named / "config.json", scaling_factor=0)
        with pytest.raises(ModelError, match="scaling_factor is 0, by which latents can't be divided"):
            open_model(saved.home, tiny_vae=str(named))

    def test_its_latents_are_of_another_size(self, saved: SavedSdxl, tmp_path: Path) -> None:
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


class TestRefused:
    """What isn't computed is refused by name, before anything is written."""

    @pytest.mark.parametrize(
        ("part", "change", "message"),
        [
            ("unet", {"in_channels": 9}, "in_channels is 9; Vinograph computes 4 alone"),
            ("unet", {"in_channels": 8}, "in_channels is 8"),
            ("unet", {"addition_embed_type": "text"}, "addition_embed_type is 'text'"),
            ("unet", {"class_embed_type": "timestep"}, "class_embed_type is 'timestep'"),
            ("unet", {"only_cross_attention": True}, "only_cross_attention is True"),
            ("unet", {"resnet_time_scale_shift": "scale_shift"}, "resnet_time_scale_shift is 'scale_shift'"),
            ("unet", {"act_fn": "gelu"}, "act_fn is 'gelu'"),
            ("unet", {"dual_cross_attention": True}, "dual_cross_attention is True"),
            ("unet", {"colour": "red"}, "colour .here 'red'. is a setting that Vinograph doesn't know"),
            ("unet", {"mid_block_type": "UNetMidBlock2DSimpleCrossAttn"}, "mid_block_type is 'UNetMidBlock2DSimple"),
            (
                "unet",
                {"down_block_types": ["DownBlock2D", "AttnDownBlock2D"]},
                "down_block_types has 'AttnDownBlock2D'",
            ),
            ("unet", {"up_block_types": ["UpBlock2D"]}, "up_block_types has 1 entries for 2 levels"),
            ("unet", {"attention_head_dim": [1, 3]}, "attention_head_dim 3 does not divide"),
            ("unet", {"transformer_layers_per_block": [1, [1, 1]]}, "reverse_transformer_layers_per_block must be set"),
            ("unet", {"block_out_channels": [8, 2_000_000]}, "block_out_channels is 2000000, which is beyond"),
            ("unet", {"layers_per_block": 100_000}, "layers_per_block is 100000, which is beyond"),
            ("unet", {"sample_size": [8, 16]}, r"sample_size is \[8, 16\]; Vinograph draws with models of square"),
            ("unet", {"sample_size": [8, 8, 8]}, r"sample_size is \[8, 8, 8\], where a whole number should be"),
            ("unet", {"sample_size": ["8", "8"]}, "sample_size is '8', where a whole number should be"),
            ("unet", {"sample_size": 0}, "sample_size is 0"),
            ("unet", {"transformer_layers_per_block": [1] * 9}, "transformer_layers_per_block has 9 entries"),
            ("unet", {"layers_per_block": [1] * 9}, "layers_per_block has 9 entries"),
            (
                "unet",
                {"reverse_transformer_layers_per_block": [1] * 9},
                "reverse_transformer_layers_per_block has 9 entries",
            ),
            (
                "unet",
                {"attention_head_dim": "4"},
                "attention_head_dim is '4', where a whole number or a list .* should be",
            ),
            ("unet", {"use_linear_projection": 1}, "use_linear_projection is 1, where true or false should be"),
            ("vae", {"down_block_types": ["AttnDownEncoderBlock2D"] * 4}, "down_block_types has 'AttnDownEncoder"),
            ("vae", {"shift_factor": 0.1}, "shift_factor is 0.1"),
            ("vae", {"latents_mean": [1, 2, 3]}, "latents_mean has 3 numbers for 4 channels"),
            ("vae", {"act_fn": "relu"}, "act_fn is 'relu'"),
            ("vae", {"scaling_factor": "0.13025"}, "scaling_factor is '0.13025', where a number should be"),
            ("vae", {"scaling_factor": 0}, "scaling_factor is 0, by which latents can't be divided"),
            ("vae", {"scaling_factor": 1e-60}, "scaling_factor is 1e-60, by which"),
            ("vae", {"scaling_factor": float("-inf")}, "scaling_factor is -inf, where a number should be"),
            (
                "vae",
                {"latents_mean": [0, 0, 0, 0], "latents_std": [1, 1, 0.0, 1]},
                r"latents_std\[2\] is 0\.0, by which latents can't be divided",
            ),
            ("vae", {"block_out_channels": [], "down_block_types": [], "up_block_types": []}, "channels is empty"),
            ("text_encoder", {"hidden_act": "relu"}, "hidden_act is 'relu'"),
            ("text_encoder_2", {"eos_token_id": [2]}, "eos_token_id is .2., where a whole number should be"),
            ("scheduler", {"beta_schedule": "sigmoid"}, "sigmoid"),
        ],
    )
    def test_a_configuration(self, checkpoint: Path, part: str, change: dict[str, Any], message: str) -> None:
        file = "scheduler_config.json" if part == "scheduler" else "config.json"
        edit_json(checkpoint / part / file, **change)
        with pytest.raises(ModelError, match=message):
            open_model(checkpoint)

    @pytest.mark.parametrize(
        ("part", "entry"),
        [
            ("unet", ["diffusers", "UNet2DModel"]),
            ("vae", ["diffusers", "AutoencoderKLCogVideoX"]),
            ("text_encoder_2", ["transformers", "CLIPTextModel"]),
            ("scheduler", ["diffusers", "DEISMultistepScheduler"]),
            ("tokenizer", ["transformers", "AutoTokenizer"]),
            ("image_encoder", ["my_code", "CLIPVisionModelWithProjection"]),
            ("feature_extractor", ["transformers", "AutoImageProcessor"]),
            ("safety_checker", ["my_code", "Checker"]),
        ],
    )
    def test_a_class(self, checkpoint: Path, part: str, entry: list[str]) -> None:
        edit_json(checkpoint / "model_index.json", **{part: entry})
        with pytest.raises(ModelError, match=f"gives the part {part} the class"):
            open_model(checkpoint)

    def test_the_refiner(self, checkpoint: Path) -> None:
        edit_json(
            checkpoint / "model_index.json",
            _class_name="StableDiffusionXLImg2ImgPipeline",
            requires_aesthetics_score=True,
            text_encoder=[None, None],
        )
        with pytest.raises(ModelError, match="is a refiner"):
            open_model(checkpoint)

    def test_a_checkpoint_without_a_part(self, checkpoint: Path) -> None:
        edit_json(checkpoint / "model_index.json", text_encoder=[None, None])
        with pytest.raises(ModelError, match="names no text_encoder"):
            open_model(checkpoint)

    @pytest.mark.parametrize(
        ("part", "change", "message"),
        [
            ("unet", {"cross_attention_dim": 12}, DamagedModelError),
            ("text_encoder_2", {"projection_dim": 6}, DamagedModelError),
        ],
    )
    def test_weights_that_are_not_the_configurations(
        self, checkpoint: Path, part: str, change: dict[str, Any], message: type[Exception]
    ) -> None:
        edit_json(checkpoint / part / "config.json", **change)
        with pytest.raises(message, match="the configuration asks for"):
            open_model(checkpoint)

    def test_parts_of_different_models(self, checkpoint: Path, tmp_path: Path) -> None:
        other = save_sdxl(tmp_path / "other", replace(SDXL_TINY, text_widths=(8, 4))).home
        shutil.rmtree(checkpoint / "text_encoder")
        shutil.copytree(other / "text_encoder", checkpoint / "text_encoder")
        with pytest.raises(ModelError, match="text encoders give 12, the UNet takes 8"):
            open_model(checkpoint)

    def test_an_option_of_another_family(self, saved: SavedSdxl) -> None:
        with pytest.raises(RequestError, match="--prior is not an option of sdxl models; theirs: --tiny-vae"):
            open_model(saved.home, prior="x")


def test_the_card_and_the_licence_come_along(saved: SavedSdxl, tmp_path: Path) -> None:
    checkpoint = shutil.copytree(saved.home, tmp_path / "checkpoint")
    write_card(checkpoint, "license: openrail++")
    bundle = convert(checkpoint, tmp_path / "bundle")
    assert "license: openrail++" in (bundle.path / "README.md").read_text()
    assert (bundle.path / "LICENSE").read_text() == "Use it as you like.\n"
    assert {each.f16_safe for name, each in bundle.manifest.components.items() if name in FULL} == {False}
    assert all(each.f16_safe for name, each in bundle.manifest.components.items() if name not in FULL)
