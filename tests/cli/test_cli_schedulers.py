"""`vinograph generate --scheduler`, and what is said of few-step models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.bundles import save_bundle, save_sdxl_bundle
from tests.cli.conftest import Run
from vinograph import Pipeline, RequestError
from vinograph.families.known import FEW_STEP
from vinograph.families.registry import family
from vinograph.models.bundle import Bundle

LIGHTNING = "SDXL-Lightning with 4 steps"
DMD2 = "DMD2 with 4 steps"


def distilled(folder: Path, title: str) -> Bundle:
    """A bundle as a checkpoint of that name gives it."""
    few = next(each for each in family("sdxl").few_step if each.title == title)
    defaults = {key: list(value) if key == "timesteps" else value for key, value in few.defaults.items()}
    config: dict[str, Any] = {FEW_STEP: title}
    return save_sdxl_bundle(folder, defaults=defaults, **config)


@pytest.fixture(scope="session")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return save_sdxl_bundle(tmp_path_factory.mktemp("sdxl") / "tiny-sdxl")


@pytest.fixture(scope="session")
def lightning(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return distilled(tmp_path_factory.mktemp("lightning") / "lightning", LIGHTNING)


@pytest.fixture(scope="session")
def dmd(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return distilled(tmp_path_factory.mktemp("dmd") / "dmd", DMD2)


class TestOption:
    def test_it_names_the_sampler(self, vinograph: Run, sdxl: Bundle) -> None:
        options = ("--model", sdxl.path, "--steps", 3, "--seed", 1, "--scheduler", "DPM++ 2M Karras", "--json")
        done = vinograph("generate", "a house", *options)
        assert done.code == 0, done.err
        assert done.record["request"]["scheduler"] == "DPM++ 2M Karras"

    def test_an_unknown_one_is_refused_with_close_names(self, vinograph: Run, sdxl: Bundle) -> None:
        given = ("--model", sdxl.path, "--scheduler", "dpm++ 2n karras")
        vinograph("generate", "a house", *given).fails(2, "scheduler is 'dpm++ 2n karras'", "'dpm++ 2m karras'")

    def test_one_that_does_not_fit_wuerstchen_is_refused(self, vinograph: Run, tmp_path: Path) -> None:
        bundle = save_bundle(tmp_path / "tiny")
        given = ("--model", bundle.path, "--scheduler", "heun")
        vinograph("generate", "a house", *given).fails(2, "whose time is continuous; give one of ddim")

    def test_both_stages_of_wuerstchen(self, vinograph: Run, tmp_path: Path) -> None:
        bundle = save_bundle(tmp_path / "tiny")
        options = ("--scheduler", "dpm++ 2m", "--decoder-scheduler", "euler", "--steps", 2, "--decoder-steps", 2)
        done = vinograph("generate", "a house", "--model", bundle.path, *options, "--json")
        assert done.code == 0, done.err
        request = done.record["request"]
        assert (request["scheduler"], request["decoder_scheduler"]) == ("dpm++ 2m", "euler")


class TestPipelinesDefault:
    def test_it_draws_as_the_argument_does(self, sdxl: Bundle) -> None:
        given: dict[str, Any] = {"seed": 1, "num_inference_steps": 3, "output_type": "np"}
        default = Pipeline.from_pretrained(sdxl.path, scheduler="heun")("a house", **given)
        named = Pipeline.from_pretrained(sdxl.path)("a house", scheduler="heun", **given)
        assert np.array_equal(default.images, named.images)
        assert default.request.scheduler == "heun"

    def test_the_argument_comes_first(self, sdxl: Bundle) -> None:
        pipe = Pipeline.from_pretrained(sdxl.path, scheduler={"_class_name": "DDIMScheduler", "clip_sample": False})
        assert pipe.calls["generate"].takes["scheduler"] == {"_class_name": "DDIMScheduler", "clip_sample": False}
        assert pipe("a", scheduler="euler a", num_inference_steps=1).request.scheduler == "euler a"

    @pytest.mark.parametrize("value", ["eular", 7, {"_class_name": "PNDMScheduler"}])
    def test_a_wrong_one_is_refused_when_the_model_is_opened(self, sdxl: Bundle, value: Any) -> None:
        with pytest.raises(RequestError, match="scheduler"):
            Pipeline.from_pretrained(sdxl.path, scheduler=value)


class TestFewSteps:
    def test_its_settings_are_no_contradiction(self, vinograph: Run, lightning: Bundle) -> None:
        done = vinograph("generate", "a house", "--model", lightning.path, "--json")
        assert done.code == 0, done.err
        request = done.record["request"]
        assert (request["num_inference_steps"], request["guidance_scale"]) == (4, 0.0)
        assert request["scheduler"] == "euler trailing"
        assert done.record["warnings"] == []

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (("--steps", 8), f"{LIGHTNING} was made for 4 steps; 8 may draw worse"),
            (("--guidance-scale", 7.5), f"{LIGHTNING} was made for no guidance; 7.5 is likely to draw harsh colours"),
            (("--scheduler", "dpm++ 2m karras"), "made for the scheduler euler trailing; with dpm++ 2m karras"),
            (("--scheduler", "euler leading"), "made for the scheduler euler trailing; with euler leading"),
        ],
    )
    def test_contradictions_are_warnings(
        self, vinograph: Run, lightning: Bundle, options: tuple[object, ...], words: str
    ) -> None:
        done = vinograph("generate", "a house", "--model", lightning.path, *options)
        assert done.code == 0
        assert words in " ".join(done.err.split())

    def test_other_calls_contradict_nothing(self, lightning: Bundle) -> None:
        assert Pipeline(lightning).encode(np.zeros((64, 64, 3), np.uint8)).warnings == ()

    def test_another_scheduler_that_fits_is_no_contradiction(self, lightning: Bundle) -> None:
        assert Pipeline(lightning)("a", scheduler="Euler SGM Uniform").warnings == ()

    @pytest.mark.parametrize(
        ("given", "timesteps"),
        [
            ({}, (999, 749, 499, 249)),
            ({"num_inference_steps": 4}, (999, 749, 499, 249)),
            ({"scheduler": "lcm"}, (999, 749, 499, 249)),
            ({"num_inference_steps": 8}, None),
            ({"scheduler": "euler trailing"}, None),
            ({"timesteps": [800, 400]}, (800, 400)),
        ],
    )
    def test_its_timesteps_are_for_its_own_steps(
        self, dmd: Bundle, given: dict[str, Any], timesteps: tuple[float, ...] | None
    ) -> None:
        assert Pipeline(dmd)("a", **given).request.timesteps == timesteps

    def test_an_adapter_is_known_by_its_name(self) -> None:
        found = family("sdxl").distilled_by_adapter("/loras/dmd2_sdxl_4step_lora_fp16.safetensors")
        assert found is not None
        assert found.title == DMD2
        assert family("sdxl").distilled_by_adapter("pixel-art-xl.safetensors") is None
        assert family("wuerstchen").distilled_by_adapter("dmd2_sdxl_4step_lora.safetensors") is None
