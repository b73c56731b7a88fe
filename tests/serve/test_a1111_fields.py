"""A1111's fields are read as its own server reads them."""

from __future__ import annotations

from typing import Any

import pytest

from vinograph.errors import RequestError
from vinograph.serve.a1111_fields import IMG2IMG, TXT2IMG, number, read_fields, switch, whole, without_effect
from vinograph.serve.a1111_options import Options
from vinograph.serve.contract import Encoding


@pytest.mark.parametrize("value", [20, "20", " 20 ", 20.0, "20.0"])
def test_what_looks_like_a_whole_number_is_one(value: Any) -> None:
    found = whole("steps", value)
    assert (found, type(found)) == (20, int)


def test_a_seed_of_64_bits_keeps_all_of_them() -> None:
    assert whole("seed", str(2**64 - 1)) == 2**64 - 1


@pytest.mark.parametrize("value", [20.5, "many", "", True, [20], {}, "1e999", "nan", "9" * 41])
def test_other_values_are_no_whole_numbers(value: Any) -> None:
    with pytest.raises(RequestError, match=r"^steps is .*; give a whole number$"):
        whole("steps", value)


@pytest.mark.parametrize("value", ["inf", "nan", None, False, "seven", []])
def test_other_values_are_no_numbers(value: Any) -> None:
    with pytest.raises(RequestError, match=r"^cfg_scale is .*; give a number$"):
        number("cfg_scale", value)


def test_numbers_may_be_texts() -> None:
    assert number("cfg_scale", "7.5") == 7.5
    assert number("cfg_scale", 7) == 7.0


@pytest.mark.parametrize(("value", "meant"), [(1, True), ("True", True), ("off", False), (0, False), (False, False)])
def test_switches_may_be_numbers_and_words(value: Any, meant: bool) -> None:
    assert switch("enable_hr", value) is meant


@pytest.mark.parametrize("value", [2, "perhaps", [], 1.5])
def test_other_values_are_no_switches(value: Any) -> None:
    with pytest.raises(RequestError, match=r"enable_hr is .*; give true or false"):
        switch("enable_hr", value)


def test_null_and_nothing_mean_the_default_and_unknown_fields_are_passed_over() -> None:
    given = {"prompt": "a house", "seed": None, "steps": "8", "distilled_cfg_scale": 3.5, "cfg_scale": None}
    values = read_fields(given, TXT2IMG)
    assert values.keys() == TXT2IMG.keys()
    assert (values["prompt"], values["seed"], values["steps"], values["cfg_scale"]) == ("a house", -1, 8, None)
    assert (values["batch_size"], values["hr_scale"], values["send_images"]) == (1, 2.0, True)


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("prompt", 3, "a text"),
        ("override_settings", [], "an object"),
        ("init_images", "iVBOR", "a list"),
        ("resize_mode", 4, "one of 0, 1, 2, 3"),
        ("inpainting_fill", -1, "one of 0, 1, 2, 3"),
    ],
)
def test_a_value_of_another_type_is_an_error_that_names_the_field(name: str, value: Any, wanted: str) -> None:
    with pytest.raises(RequestError, match=f"^{name} is .*; give {wanted}$"):
        read_fields({name: value}, IMG2IMG)


def test_fields_that_do_nothing_are_named_where_they_were_set() -> None:
    values = read_fields({"restore_faces": True, "tiling": False, "script_name": "x/y/z plot", "eta": 1.0}, TXT2IMG)
    assert without_effect(values, TXT2IMG) == ["restore_faces", "script_name"]


class TestOptions:
    def test_all_options_can_be_sent_back(self) -> None:
        options = Options(model="storybook-sdxl", metadata=True, clip_skip=2)
        shown = options.shown("storybook-sdxl")
        assert options.changed(shown) == options
        assert shown["sd_model_checkpoint"] == "storybook-sdxl"
        assert shown["CLIP_stop_at_last_layers"] == 2

    def test_unknown_options_and_null_are_passed_over(self) -> None:
        assert Options().changed({"forge_preset": "xl", "sd_vae": None}) == Options()

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("sd_vae", "vae-ft-mse.safetensors"),
            ("sd_vae", ["full"]),
            ("CLIP_stop_at_last_layers", 0),
            ("CLIP_stop_at_last_layers", "two"),
            ("samples_format", "tiff"),
            ("samples_format", 1),
            ("jpeg_quality", 101),
            ("sd_model_checkpoint", 7),
        ],
    )
    def test_nonsense_is_an_error_that_names_the_option(self, name: str, value: Any) -> None:
        with pytest.raises(RequestError, match=f"^{name} is "):
            Options().changed({name: value})

    def test_they_say_how_pictures_are_encoded(self) -> None:
        assert Options().encoding == Encoding("png", None, False)
        changed = Options().changed({"samples_format": "JPG", "jpeg_quality": "70", "enable_pnginfo": 1})
        assert changed.encoding == Encoding("jpeg", 70, True)

    def test_words_for_the_models_own_vae_choose_none(self) -> None:
        assert [Options(vae=each).own_vae for each in ("Automatic", "None", "full")] == [None, None, "full"]
