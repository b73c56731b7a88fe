"""What the page makes of a model: its controls, its size_choices, its lines of code."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.bundles import save_bundle, save_pixart_bundle, save_sdxl_bundle
from tests.web.blocks import gradio_block
from vinograph import Pipeline
from vinograph.arguments import Limits, check_size
from vinograph.families import registry
from vinograph.families.evaluation_request import EVALUATION_OPTIONS
from vinograph.web import snippets
from vinograph.web.controls import Controls, family_options, label, size_choices
from vinograph.web.model_pool import ModelPool

SOURCE = Path(__file__).parents[2] / "src" / "vinograph" / "web"
LIMITS = {"size_multiple": 8, "minimum_size": 64, "maximum_size": 512, "native_size": 256}

KINDS = {"wuerstchen": save_bundle, "sdxl": save_sdxl_bundle, "pixart": save_pixart_bundle}


@pytest.fixture(params=KINDS)
def pipe(request: pytest.FixtureRequest, tmp_path: Path) -> Pipeline:
    return Pipeline(KINDS[request.param](tmp_path / request.param))


@pytest.fixture
def controls() -> Controls:
    with gradio_block():
        return Controls()


def values_after(controls: Controls, pipe: Pipeline, **changes: Any) -> dict[Any, Any]:
    """The components' values for a model, with ``changes`` by option."""
    values: dict[Any, Any] = dict.fromkeys(controls.inputs)
    for component, update in controls.for_model(pipe).items():
        if component in values:
            values[component] = update.get("value")
    for name, value in changes.items():
        values[getattr(controls, name, None) or controls._options[name]] = value
    return values


class TestShapes:
    @pytest.mark.parametrize("step", [1, 8, 32, 128])
    def test_every_one_is_drawn_and_is_what_its_name_says(self, step: int) -> None:
        limits = {**LIMITS, "size_multiple": step, "minimum_size": max(64, step)}
        bounds = Limits(step, limits["minimum_size"], limits["maximum_size"])
        found = size_choices(limits)
        assert found[0] == ("Square, 256×256", "256x256")
        for name, value in found:
            for side in value.split("x"):
                assert check_size("width", int(side), bounds) == int(side)
            if match := re.search(r"(\d+):(\d+), (\d+)×(\d+)", name):
                across, down, width, height = map(int, match.groups())
                assert width / height == pytest.approx(across / down, rel=0.05)

    def test_a_coarse_grid_has_fewer(self) -> None:
        names = [name for name, _ in size_choices({**LIMITS, "size_multiple": 128, "minimum_size": 128})]
        assert names == [
            "Square, 256×256",
            "Landscape 3:2, 384×256",
            "Panorama 2:1, 256×128",
            "Portrait 2:3, 256×384",
            "Banner 1:2, 128×256",
        ]


class TestControls:
    def test_no_family_is_known_by_name(self) -> None:
        names = {name for each in map(registry.family, registry.FAMILIES) for name in (each.name, each.title)}
        for file in SOURCE.rglob("*.*"):
            if file.suffix in (".py", ".js", ".css"):
                text = file.read_text(encoding="utf-8")
                assert not [name for name in names if name.lower() in text.lower()], file

    def test_every_option_of_every_family_has_one(self) -> None:
        names = {name for each in map(registry.family, registry.FAMILIES) for name in each.options}
        assert set(family_options()) == names - {"mask", "extend", *EVALUATION_OPTIONS}

    def test_defaults_draw_the_default_picture(self, controls: Controls, pipe: Pipeline) -> None:
        arguments, errors = controls.read(pipe, values_after(controls, pipe))
        assert not errors
        takes = pipe.calls["generate"].takes
        assert arguments
        for argument, value in arguments.items():
            assert value == takes[argument] or (argument == "vae" and takes[argument] is None)

    def test_what_the_model_does_not_take_is_hidden(self, controls: Controls, pipe: Pipeline) -> None:
        updates = controls.for_model(pipe)
        for name, argument in family_options().items():
            component = controls._options[name]
            taken = pipe.options.get(name) in pipe.calls["generate"].takes
            has_choice = argument != "vae" or "tiny_vae_decoder" in pipe.model.manifest.components
            assert updates[component]["visible"] is (taken and has_choice), name

    def test_a_scheduler_can_be_chosen(self, controls: Controls, pipe: Pipeline) -> None:
        dropdown = controls._options["scheduler"]
        update = controls.for_model(pipe)[dropdown]
        offered = [value for _, value in update["choices"]]
        assert (update["value"], offered[0], "dpm++ 2m karras" in offered) == ("", "", True)
        arguments, errors = controls.read(pipe, values_after(controls, pipe, scheduler="dpm++ 2m karras"))
        assert not errors
        assert arguments["scheduler"] == "dpm++ 2m karras"

    def test_a_models_default_scheduler_is_chosen(self, controls: Controls, tmp_path: Path) -> None:
        pipe = Pipeline(save_sdxl_bundle(tmp_path / "lightning", defaults={"scheduler": "euler trailing"}))
        assert controls.for_model(pipe)[controls._options["scheduler"]]["value"] == "euler trailing"

    def test_a_picture_leaves_a_step_to_do(self, controls: Controls, tmp_path: Path) -> None:
        bundle = save_sdxl_bundle(tmp_path / "turbo", defaults={"num_inference_steps": 1, "strength": 0.3})
        updates = controls.for_model(Pipeline(bundle), init_image=True)
        assert updates[controls._options["steps"]]["value"] == 4
        assert updates[controls._options["strength"]]["value"] == 0.3

    def test_a_mask_brings_its_defaults(self, controls: Controls, tmp_path: Path) -> None:
        updates = controls.defaults_with(Pipeline(save_sdxl_bundle(tmp_path / "base")), "mask_image", 50)
        assert updates == {controls._options["strength"]: 0.9999, controls._options["guidance_scale"]: 7.5}
        own = save_sdxl_bundle(tmp_path / "own", defaults={"strength": 0.5, "guidance_scale": 0.0})
        assert controls.defaults_with(Pipeline(own), "mask_image", 50) == {}

    @pytest.mark.parametrize(("set_now", "then"), [(1, 4), (30, 30)])
    def test_steps_that_are_enough_stay(self, controls: Controls, tmp_path: Path, set_now: int, then: int) -> None:
        pipe = Pipeline(save_sdxl_bundle(tmp_path / "base", defaults={"strength": 0.3}))
        assert controls.with_init_image(pipe, True, set_now)[controls.steps]["value"] == then

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"size_choice": "custom", "width": 100, "height": 128}, "Width is 100; this model draws multiples of"),
            ({"size_choice": "custom", "width": None, "height": 128}, "Width is None"),
            ({"seed": "-3"}, "Seed is '-3'; give a whole number from 0 to"),
            ({"seed": "18446744073709551616"}, "give a whole number from 0 to"),
            ({"count": 0}, "Images is 0; give a whole number from 1"),
        ],
    )
    def test_what_cannot_be_drawn_is_refused(
        self, controls: Controls, tmp_path: Path, changes: dict[str, Any], words: str
    ) -> None:
        pipe = Pipeline(save_bundle(tmp_path / "tiny"))
        _, errors = controls.read(pipe, values_after(controls, pipe, **changes))
        (message,) = errors.values()
        assert words in message


ARGUMENTS = {"prompt": 'it\'s "red"', "width": 384, "height": 256, "num_images_per_prompt": 3, "seed": 1}


class TestSnippets:
    def test_only_what_differs_is_said(self, tiny: Pipeline) -> None:
        takes = tiny.calls["generate"].takes
        arguments = {**ARGUMENTS, "prior_num_inference_steps": takes["prior_num_inference_steps"]}
        reproduced = snippets.reproduction_arguments(tiny, "generate", arguments, 2)
        assert reproduced == {"prompt": ARGUMENTS["prompt"], "width": 384, "height": 256, "seed": 2}

    def test_devices_are_said(self, tiny: Pipeline) -> None:
        device = {"prior": "GPU", "decoder": "HETERO:GPU,CPU"}
        arguments = {"prompt": "a", "seed": 1}
        assert f"device={device!r}" in snippets.python("tiny", device, "generate", arguments, "a.png")
        words = shlex.split(snippets.shell(tiny, "tiny", device, "generate", arguments, "a.png"))
        assert words[words.index("--device") + 1] == "prior=GPU,decoder=HETERO:GPU,CPU"

    def test_a_prompt_that_looks_like_an_option(self, tiny: Pipeline) -> None:
        words = shlex.split(snippets.shell(tiny, "tiny", "CPU", "generate", {"prompt": "--a", "seed": 1}, "a.png"))
        assert words[-2:] == ["--", "--a"]


class TestModels:
    def test_a_damaged_one_is_left_out_and_reported(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("VINOGRAPH_MODELS", str(tmp_path))
        save_bundle(tmp_path / "whole")
        (save_bundle(tmp_path / "short").path / "prior.bin").write_bytes(b"")
        models = ModelPool({}, "CPU")
        assert "whole" in models.references
        assert "short" not in models.references
        (problem,) = models.problems
        assert "prior.bin" in problem

    def test_the_one_that_waited_longest_is_freed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("VINOGRAPH_MODELS", str(tmp_path))
        for name in ("one", "two", "three"):
            save_bundle(tmp_path / name)
        models = ModelPool({}, "CPU")
        drawn = [models.acquire(name) for name in ("one", "two", "one", "three")]
        assert models.get("one") is drawn[0]
        assert models.get("two") is not drawn[1]


def test_labels_are_for_people() -> None:
    assert [label(name) for name in ("vae", "decoder_guidance_scale", "steps")] == ["VAE", "Decoder guidance", "Steps"]


class TestDrawingTwice:
    """Hires: a factor, and what goes with it, generated from the request's declarations."""

    @pytest.fixture
    def sdxl(self, tmp_path: Path) -> Pipeline:
        return Pipeline(save_sdxl_bundle(tmp_path / "sdxl"))

    def test_the_least_factor_is_none(self, controls: Controls, sdxl: Pipeline) -> None:
        slider = controls._options["hires"]
        assert (slider.minimum, slider.maximum, slider.step) == (1.0, 4.0, 0.25)
        assert controls.for_model(sdxl)[slider]["value"] == 1.0
        arguments, errors = controls.read(sdxl, values_after(controls, sdxl, hires_strength=0.5, hires_steps="7"))
        assert not errors
        assert not [name for name in arguments if name.startswith("hires")]

    def test_a_factor_brings_what_goes_with_it(self, controls: Controls, sdxl: Pipeline) -> None:
        values = values_after(controls, sdxl, hires=1.5, hires_steps="7")
        arguments, errors = controls.read(sdxl, values)
        assert not errors
        found = {name: value for name, value in arguments.items() if name.startswith("hires")}
        assert found == {"hires": 1.5, "hires_steps": 7, "hires_strength": 0.35, "hires_upscaler": "lanczos"}
        _, errors = controls.read(sdxl, values_after(controls, sdxl, hires=1.5, hires_steps="many"))
        assert "Hires steps is 'many'" in errors[None]
