"""Values that the controls are set to, from the browser's storage and from pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.web.blocks import gradio_block
from vinograph import Pipeline
from vinograph.web.controls import Controls
from vinograph.web.remembered import Remembered, read_remembered
from vinograph.web.restored_controls import restored, settings_of


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return Pipeline.from_pretrained("storybook-sdxl")


@pytest.fixture(scope="module")
def controls() -> Controls:
    with gradio_block():
        return Controls()


def set_to(controls: Controls, pipe: Pipeline, values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The values of the controls by name, and what is left out."""
    found = restored(controls, pipe, controls.for_model(pipe), values)
    names = {**controls.options, "size_choice": controls.size_choice, "width": controls.width}
    return {name: (found.updates.get(each) or {}).get("value") for name, each in names.items()}, found.left_out


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 4),
        ("steps", 90),
        ("guidance_scale", 2.5),
        ("guidance_scale", 40.0),
        ("count", 8),
        ("scheduler", "dpm++ 2m karras"),
        ("scheduler", ""),
        ("seed", ""),
        ("hires", 1),
        ("hires", 2),
        ("hires_steps", "12"),
        ("prompt_weighting", "a1111"),
        ("vae_tiling", "on"),
        ("negative_prompt", "fog"),
    ],
)
def test_what_fits(controls: Controls, pipe: Pipeline, name: str, value: Any) -> None:
    values, left_out = set_to(controls, pipe, {name: value})
    assert values[name] == value
    assert not left_out


def test_a_slider_reaches_what_it_is_set_to(controls: Controls, pipe: Pipeline) -> None:
    found = restored(controls, pipe, controls.for_model(pipe), {"steps": 90})
    assert found.updates[controls.steps]["maximum"] == 90


@pytest.mark.parametrize("value", ["DPM++ 2M Karras", "dpmpp_2m_karras", {"class": "DPMSolverMultistepScheduler"}])
def test_a_scheduler_by_another_name(controls: Controls, pipe: Pipeline, value: Any) -> None:
    values, left_out = set_to(controls, pipe, {"scheduler": value})
    assert left_out or values["scheduler"].startswith("dpm++ 2m")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("steps", 0, "Steps 0"),
        ("steps", "4", "Steps 4"),
        ("steps", True, "Steps True"),
        ("steps", 10**9, "Steps 1000000000"),
        ("guidance_scale", float("inf"), "Guidance inf"),
        ("guidance_scale", -1.0, "Guidance -1.0"),
        ("count", 9, "Images 9"),
        ("scheduler", "none", "Scheduler none"),
        ("scheduler", 5, "Scheduler 5"),
        ("seed", "x", "Seed x"),
        ("seed", 2**64, f"Seed {2**64}"),
        ("hires", 100, "Hires 100"),
        ("vae_tiling", "x", "VAE tiling x"),
        ("vae_tiling", [], "VAE tiling []"),
        ("negative_prompt", 5, "Negative prompt 5"),
        ("decoder_steps", 5, "Decoder steps 5"),
        ("nothing", 5, "Nothing 5"),
        ("size", "1x1", "Size 1x1"),
        ("size", "x", "Size x"),
        ("size", None, "Size None"),
        ("size", "256x999999", "Size 256x999999"),
    ],
)
def test_what_does_not_fit_keeps_its_default(
    controls: Controls, pipe: Pipeline, name: str, value: Any, said: str
) -> None:
    values, left_out = set_to(controls, pipe, {name: value})
    assert left_out == [said]
    assert values == set_to(controls, pipe, {})[0]


def test_a_negative_prompt_shows_with_guidance(controls: Controls, pipe: Pipeline) -> None:
    for scale, visible in ((2.5, True), (0.0, False)):
        values = {"guidance_scale": scale, "negative_prompt": "fog"}
        found = restored(controls, pipe, controls.for_model(pipe), values)
        assert found.updates[controls.negative_prompt]["visible"] is visible


def test_a_size_with_a_name_and_one_without(controls: Controls, pipe: Pipeline) -> None:
    assert set_to(controls, pipe, {"size": "256x256"})[0]["size_choice"] == "256x256"
    custom = set_to(controls, pipe, {"size": "328x256"})[0]
    assert (custom["size_choice"], custom["width"]) == ("custom", 328)


def test_the_settings_of_a_pictures_arguments(pipe: Pipeline, controls: Controls) -> None:
    request = pipe("a red house", seed=3, num_inference_steps=2).metadata(0)["request"]
    values, others = settings_of(controls, pipe, request)
    assert not others
    assert (values["seed"], values["steps"], values["size"]) == (3, 2, "256x256")
    assert settings_of(controls, pipe, {"clip_skip": 2})[1] == ["clip_skip 2"]


@pytest.mark.parametrize("text", [None, "", "{", "[]", "null", '{"a":' * 100, "x" * 300_000, '{"values": NaN}'])
def test_nothing_is_remembered_of_nonsense(text: str | None) -> None:
    assert read_remembered(text) == Remembered()


def test_what_a_browser_sends() -> None:
    text = (
        '{"model": "m", "prompt": "p", "values": {"adapters": "a:1", "size_choice": "custom", "width": 320,'
        ' "height": 256, "steps": 3}}'
    )
    assert read_remembered(text) == Remembered("m", "p", "a:1", {"steps": 3, "size": "320x256"})
    other = read_remembered('{"values": {"size_choice": "init image", "width": "x", "height": -1}, "prompt": 3}')
    assert other == Remembered()
