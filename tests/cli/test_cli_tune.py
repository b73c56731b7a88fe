"""``vinograph tune`` measures settings and keeps them; drawings use what is kept, and measure only with ``--tune``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.bundles import save_low_bit_bundle, save_sdxl_bundle
from tests.cli.conftest import Run, in_process
from vinograph import Pipeline, resources
from vinograph import tune as tuning_of_models
from vinograph.models.bundle import Bundle
from vinograph.request import GivenArguments
from vinograph.runtime import tuning
from vinograph.runtime.cache import Cache
from vinograph.runtime.sessions import Session
from vinograph.runtime.tuning import DEFAULT, Setting, TuningResult
from vinograph.tune import TuningRequest, first_calls

Draw = Callable[..., dict[str, Any]]
UNMEASURED = {"unet": "groups as by default (not measured)"}
ROUNDED_NOWHERE = {"unet": "activations not rounded (measured)"}


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VINOGRAPH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def model(tmp_path: Path) -> Bundle:
    """A model whose UNet has weights in int8."""
    return save_low_bit_bundle(tmp_path / "few")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The components that were measured; without rounding of activations each is the fastest."""
    names: list[str] = []

    def find(session: Session, inputs: Any) -> TuningResult:
        names.append(session.name)
        seconds = {DEFAULT: 1.0, Setting(64): 0.4, Setting(0): 0.5}
        assert all(session.time_call(inputs, setting) for setting in seconds)
        return TuningResult(Setting(0), seconds, 3.0)

    monkeypatch.setattr(Session, "find_fastest_setting", find)
    return names


@pytest.fixture
def draw(vinograph: Run, model: Bundle) -> Draw:
    """Draw a picture, and return what ``--json`` reports."""

    def run(name: str, *options: object) -> dict[str, Any]:
        line = ("generate", "a red house", "--model", model.path, "--size", "64x64", "--seed", 7, "--precision", "f32")
        done = vinograph(*line, "--output", name, "--json", *options)
        assert done.code == 0, done.err
        return done.record

    return run


class TestDrawings:
    def test_they_measure_nothing_unless_asked(self, draw: Draw, measured: list[str]) -> None:
        """The first, the second and the third picture of a seed are the same."""
        for name in ("1.png", "2.png", "3.png"):
            assert draw(name)["settings"] == UNMEASURED
        assert len({Path(name).read_bytes() for name in ("1.png", "2.png", "3.png")}) == 1
        assert measured == []
        assert Cache().settings() == {}

    def test_tune_measures_once(self, draw: Draw, measured: list[str]) -> None:
        first = draw("1.png", "--tune")
        assert first["settings"] == ROUNDED_NOWHERE
        assert first["warnings"] == [
            "it was measured which settings are the fastest for unet, which took 3.0 s: activations not rounded"
        ]
        second = draw("2.png", "--tune")
        assert (second["settings"], second["warnings"]) == (ROUNDED_NOWHERE, [])
        assert measured == ["unet"]
        assert Path("1.png").read_bytes() == Path("2.png").read_bytes()

    def test_a_new_process_uses_what_is_kept_and_says_so(
        self, vinograph: Run, draw: Draw, model: Bundle, measured: list[str]
    ) -> None:
        draw("before.png")
        assert vinograph("tune", model.path, "--size", "64x64", "--precision", "f32").code == 0
        line = ("generate", "a red house", "--model", model.path, "--size", "64x64", "--seed", 7, "--precision", "f32")
        for name in ("1.png", "2.png"):
            done = in_process(*line, "--output", name, "--json")
            assert done.code == 0, done.err
            assert done.record["settings"] == ROUNDED_NOWHERE
            assert done.record["devices"]["unet"] == "CPU f32, activations not rounded"
        assert Path("1.png").read_bytes() == Path("2.png").read_bytes() != Path("before.png").read_bytes()
        assert json.loads(Image.open("1.png").text["vinograph"])["settings"] == ROUNDED_NOWHERE  # type: ignore[attr-defined]
        assert "unet: activations not rounded (measured)" in vinograph("inspect", "1.png").out
        assert measured == ["unet"]

    def test_another_setting_than_that_of_a_picture_is_said(
        self, vinograph: Run, draw: Draw, model: Bundle, measured: list[str]
    ) -> None:
        draw("before.png")
        same = ("generate", "--again", "before.png", "--model", model.path, "--precision", "f32", "--json")
        assert vinograph(*same, "--output", "same.png").record["warnings"] == []
        draw("tuned.png", "--tune")
        (warning,) = vinograph(*same, "--output", "other.png").record["warnings"]
        assert warning == (
            "before.png was computed in other settings, so that pixels differ: unet in groups as by default "
            "(not measured) then, in activations not rounded (measured) now. `vinograph tune` measures settings, "
            "and `vinograph cache --clear` forgets them"
        )
        assert Path("other.png").read_bytes() == Path("tuned.png").read_bytes() != Path("before.png").read_bytes()

    def test_reconstruct_takes_it_too(self, vinograph: Run, model: Bundle, measured: list[str]) -> None:
        Image.new("RGB", (64, 64)).save("picture.png")
        done = vinograph("reconstruct", "picture.png", "--model", model.path, "--tune", "--json")
        assert done.code == 0, done.err
        assert (done.record["settings"], measured) == ({}, [])

    def test_without_low_bit_weights_there_are_no_settings(self, vinograph: Run, tmp_path: Path) -> None:
        bundle = save_sdxl_bundle(tmp_path / "f16")
        done = vinograph("generate", "a", "--model", bundle.path, "--size", "64x64", "--tune", "--output", "a.png")
        assert done.code == 0, done.err
        assert "settings" not in json.loads(Image.open("a.png").text["vinograph"])  # type: ignore[attr-defined]


class TestTune:
    def test_what_it_shows(self, vinograph: Run, model: Bundle, measured: list[str], tmp_path: Path) -> None:
        done = vinograph("tune", model.path, "--size", "64x64")
        assert done.code == 0, done.err
        lines = [" ".join(line.split()) for line in done.out.splitlines()]
        assert lines[:4] == [
            "component setting a call",
            "unet groups as by default 1 s",
            "groups of 64 400 ms fastest",
            "activations not rounded 500 ms kept",
        ]
        assert lines[4].startswith(f"kept in {tmp_path / 'cache'}: drawings of about this size on ")
        assert "activations not rounded" in vinograph("cache").out
        assert vinograph("cache", "--clear", "--json").record["settings"] == []
        assert measured == ["unet"]

    def test_what_json_has(self, vinograph: Run, model: Bundle, measured: list[str]) -> None:
        record = vinograph("tune", model.path, "--json", "--count", 2).record
        native = model.manifest.limits["native_size"] // 8
        (found,) = record["components"]
        assert found["component"] == "unet"
        assert found["shapes"]["sample"] == [4, 4, native, native]  # with guidance
        assert found["seconds"] == {"groups as by default": 1, "groups of 64": 0.4, "activations not rounded": 0.5}
        assert (found["fastest"], found["kept"]) == ("groups of 64", "activations not rounded")
        assert (record["model"], record["warnings"], measured) == (str(model.path), [], ["unet"])

    def test_it_measures_again_and_replaces(
        self, vinograph: Run, model: Bundle, measured: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert vinograph("tune", model.path, "--size", "64x64").code == 0
        result = TuningResult(Setting(128), {DEFAULT: 1.0, Setting(128): 0.5}, 1.0)
        monkeypatch.setattr(Session, "find_fastest_setting", lambda *_: result)
        assert vinograph("tune", model.path, "--size", "64x64").code == 0
        (record,) = Cache().settings().values()
        assert record["setting"] == "groups of 128"
        assert measured == ["unet"]

    def test_a_real_measurement(self, vinograph: Run, model: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its calls are so short that nothing but the default is tried; else all groups are."""
        short = vinograph("tune", model.path, "--size", "64x64")
        assert "kept: too short a call to gain by another" in short.out
        monkeypatch.setattr(tuning, "SHORTEST_CALL", 0.0)
        (found,) = vinograph("tune", model.path, "--size", "64x64", "--json").record["components"]
        assert {"groups of 64", "activations not rounded"} <= found["seconds"].keys()

    def test_for_a_process_with_fewer_threads(self, model: Bundle) -> None:
        done = in_process("tune", model.path, "--size", "64x64", "--threads", 1, "--json")
        assert done.code == 0, done.err
        assert done.record["cores"] == 1

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (("--component", "vae_decoder"), ("component is vae_decoder", "are unet")),
            (("--threads", "0"), ("--threads is '0'", "above 0")),
            (("--threads", "1000000"), ("--threads is 1000000", "give at most")),
            (("--size", "63x64"), ("--size 63x64",)),
            (("--option", "guidance"), ("--option is 'guidance'",)),
            (("--option", "strenght=1"), ("strenght",)),
            (("--precision", "f64"), ("f64",)),
        ],
    )
    def test_wrong_options(
        self, vinograph: Run, model: Bundle, measured: list[str], options: tuple[str, ...], words: tuple[str, ...]
    ) -> None:
        vinograph("tune", model.path, *options).fails(2, *words)
        assert measured == []

    def test_a_model_with_nothing_to_measure(self, vinograph: Run, tmp_path: Path) -> None:
        bundle = save_sdxl_bundle(tmp_path / "f16")
        vinograph("tune", bundle.path).fails(2, "f16 has no weights in int8 or int4", "vinograph quantize")

    def test_a_cache_that_cannot_be_written(self, vinograph: Run, model: Bundle, measured: list[str]) -> None:
        Path("cache").write_text("a file is in the way")
        vinograph("tune", model.path).fails(2, "measured settings can't be kept in", "VINOGRAPH_CACHE")
        assert measured == []

    def test_the_default_number_of_processors_is_left(self) -> None:
        assert resources._processors is None


class TestFirstCalls:
    def test_inputs_of_sizes_that_are_not_near_are_measured_each(
        self, model: Bundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Guidance doubles the rows, which is near."""
        pipe = Pipeline(model)
        given = GivenArguments({"width": 64, "height": 64, "num_inference_steps": 4, "guidance_scale": 5.0})
        assert len(first_calls(pipe, ["unet"], given)["unet"]) == 1
        monkeypatch.setattr(tuning, "NEAR_SIZES", 1)
        changed = GivenArguments({**given.values, "guidance_interval": (0.0, 0.5)})
        sizes = [len(each["sample"]) for each in first_calls(pipe, ["unet"], changed)["unet"]]
        assert sizes == [1]  # each half by itself, so that one graph serves

    def test_components_that_only_the_vae_needs(self, model: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
        """Latents alone are drawn unless a VAE is to be measured."""
        drawn: list[str] = []
        plain = first_calls

        def note(pipe: Pipeline, names: Any, given: GivenArguments, output_type: str = "latent") -> Any:
            drawn.append(output_type)
            return plain(pipe, names, given, output_type)

        monkeypatch.setattr(tuning_of_models, "first_calls", note)
        request = TuningRequest(lambda _: GivenArguments({"width": 64, "height": 64}))
        assert tuning_of_models._inputs(Pipeline(model), ["unet"], request).keys() == {"unet"}
        assert drawn == ["latent"]
        seen = tuning_of_models._inputs(Pipeline(model), ["unet", "tiny_vae_decoder", "vae_encoder"], request)
        assert seen.keys() == {"unet", "tiny_vae_decoder"}
        assert drawn == ["latent", "latent", "np"]

    def test_progress_and_what_is_kept(self, model: Bundle, measured: list[str], tmp_path: Path) -> None:
        shown: list[Any] = []
        cache = Cache(tmp_path / "elsewhere")
        request = TuningRequest(lambda _: GivenArguments({"width": 64, "height": 64}), "f32")
        (found,) = tuning_of_models.tune(model, request, lambda *each: shown.append(each), cache)
        assert shown == [("the inputs", 0, 1), ("unet", 0, 1), ("all", 1, 1)]
        assert (found.fastest, found.result.setting) == (Setting(64), Setting(0))
        assert len(cache.settings()) == len(measured) == 1
