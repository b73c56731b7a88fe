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

from tests.checkpoints import SDXL_TINY, SavedSdxl, save_sdxl
from tests.convert.conftest import edit_json, edit_tensors
from tests.models.open_model import components, constants, networks, open_model, sums
from tests.models.writing import write_tokenizer
from vinograph.errors import ModelError
from vinograph.models.manifest import Manifest
from vinograph.networks.graph import Storage
from vinograph.schedulers import SAMPLERS, read_scheduler_config

UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
FULL = {"vae_decoder", "vae_encoder"}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> SavedSdxl:
    """For reading only."""
    return save_sdxl(tmp_path_factory.mktemp("saved"), SDXL_TINY)


@pytest.fixture
def checkpoint(saved: SavedSdxl, tmp_path: Path) -> Path:
    """A copy to change."""
    return shutil.copytree(saved.home, tmp_path / "checkpoint")


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
        assert manifest.config["few_step"] == "SDXL-Turbo"

    @pytest.mark.parametrize(
        ("name", "drawn", "scheduler"),
        [
            ("sdxl_lightning_4step_unet", (4, 0.0), "euler trailing"),
            ("Hyper-SDXL-1step-Unet", (1, 0.0), "lcm"),
            ("dmd2_sdxl_4step_unet_fp16", (4, 0.0), "lcm"),
            ("lcm-sdxl", (50, 5.0), None),  # whose UNet would take the guidance scale
        ],
    )
    def test_a_few_step_model_by_its_name(
        self, turbo: Path, name: str, drawn: tuple[int, float], scheduler: str | None
    ) -> None:
        manifest = open_model(turbo.rename(turbo.with_name(name))).manifest
        assert self.drawn(manifest) == drawn
        assert manifest.defaults["generate"].get("scheduler") == scheduler
        assert ("by the name" in manifest.notes[0]) is (scheduler is not None)
        again = Manifest.from_json(manifest.to_json(), "a manifest")
        assert again.defaults == json.loads(json.dumps(manifest.defaults))

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
        assert "the name says that the model was distilled (turbo), but not to how many steps" in manifest.notes[0]

    def test_what_the_checkpoint_says_is_no_assumption(self, turbo: Path) -> None:
        settings = {"defaults": {"generate": {"num_inference_steps": 2, "guidance_scale": 0.0}}}
        (turbo / "vinograph.json").write_text(json.dumps(settings))
        manifest = open_model(turbo).manifest
        assert self.drawn(manifest) == (2, 0.0)
        assert manifest.notes == ()


class TestSchedulerClass:
    """The class is the one in model_index.json, the settings are the scheduler file's."""

    # diffusers' class of one of the others needs a package of its own, and those of EDM take no
    # other class's file, in which no σ is set.
    CLASSES = tuple(
        name for name, each in SAMPLERS.items() if name != "DPMSolverSDEScheduler" and not each.preconditioned
    )

    @pytest.mark.parametrize("named", CLASSES)
    @pytest.mark.parametrize("saved_as", ["EulerDiscreteScheduler", "DPMSolverMultistepScheduler", "DDIMScheduler"])
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
        ours = dict(open_model(checkpoint).manifest.scheduler)
        assert ours.pop("published")["beta_end"] == 0.013
        assert ours["class"] == named == type(theirs).__name__
        assert ours == read_scheduler_config({**theirs.config, "_class_name": named})

    def test_what_diffusers_notes_as_not_set_is_left_out(self, checkpoint: Path) -> None:
        file = checkpoint / "scheduler" / "scheduler_config.json"
        edit_json(file, beta_end=0.5, _use_default_values=["beta_end", "steps_offset"])
        assert open_model(checkpoint).manifest.scheduler["beta_end"] == 0.02

    def test_one_that_is_not_computed(self, checkpoint: Path) -> None:
        edit_json(checkpoint / "model_index.json", scheduler=["diffusers", "PNDMScheduler"])
        with pytest.raises(ModelError, match="PNDMScheduler"):
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


class TestFiles:
    """How weights lie in files changes nothing."""

    def test_the_names_of_older_vaes(self, saved: SavedSdxl, checkpoint: Path) -> None:
        def rename(tensors: dict[str, torch.Tensor]) -> None:
            for older, newer in (("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")):
                for name in [each for each in tensors if f".{newer}." in each]:
                    tensors[name.replace(f".{newer}.", f".{older}.")] = tensors.pop(name)

        edit_tensors(checkpoint / VAE, rename)
        assert sums(open_model(checkpoint)) == sums(open_model(saved.home))

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


class TestRefused:
    """What isn't computed is refused by name, before anything is written."""

    def test_the_refiner(self, checkpoint: Path) -> None:
        edit_json(
            checkpoint / "model_index.json",
            _class_name="StableDiffusionXLImg2ImgPipeline",
            requires_aesthetics_score=True,
            text_encoder=[None, None],
        )
        with pytest.raises(ModelError, match="is a refiner"):
            open_model(checkpoint)

    def test_parts_of_different_models(self, checkpoint: Path, tmp_path: Path) -> None:
        other = save_sdxl(tmp_path / "other", replace(SDXL_TINY, text_widths=(8, 4))).home
        shutil.rmtree(checkpoint / "text_encoder")
        shutil.copytree(other / "text_encoder", checkpoint / "text_encoder")
        with pytest.raises(ModelError, match="text encoders give 12, the UNet takes 8"):
            open_model(checkpoint)
