"""Fewer evaluations on the command line: the options, the metadata, `--again`, and what `inspect` shows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.bundles import save_bundle, save_pixart_bundle, save_sdxl_bundle
from tests.cli.conftest import Run
from vinograph.families import registry
from vinograph.images import read_metadata

MAKE = {"sdxl": save_sdxl_bundle, "pixart": save_pixart_bundle, "wuerstchen": save_bundle}
EACH = pytest.mark.parametrize("model", MAKE)


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluations")
    for name, make in MAKE.items():
        make(folder / f"saved-{name}").path.rename(folder / name)
    return folder


@pytest.fixture(autouse=True)
def _models(bundles: Path, _clean_place: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VINOGRAPH_MODELS", str(bundles))


def pixels(file: str) -> np.ndarray:
    with Image.open(file) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def request_of(file: str) -> dict[str, object]:
    return dict((read_metadata(Path(file)) or {})["request"])


@EACH
class TestGenerate:
    def test_a_picture_says_what_it_was_drawn_with_and_is_drawn_again(self, vinograph: Run, model: str) -> None:
        options = ("--guidance-interval", "0,0.5", "--extrapolation-interval", 2, "--extrapolation-order", 2)
        common = ("--size", "256x128", "--steps", 8, "--guidance-scale", 3)
        done = vinograph("generate", "a house", "--model", model, "--seed", 1, *common, *options, "--output", "a.png")
        assert done.code == 0, done.err
        request = request_of("a.png")
        assert request["guidance_interval"] == [0.0, 0.5]
        assert (request["extrapolation_interval"], request["extrapolation_order"]) == (2, 2)
        done = vinograph("generate", "--again", "a.png", "--model", model, "--output", "b.png")
        assert done.code == 0, done.err
        assert np.array_equal(pixels("a.png"), pixels("b.png"))

    def test_a_speed_fills_in_what_is_open(self, vinograph: Run, model: str) -> None:
        speed = registry.family(model).calls["generate"].presets["speed"]["fast"]
        common = ("--model", model, "--size", "256x128", "--seed", 1, "--guidance-scale", 3, "--speed", "fast")
        assert vinograph("generate", "a house", *common, "--output", "a.png").code == 0
        request = request_of("a.png")
        assert json.loads(json.dumps(dict(speed))).items() <= request.items()
        assert "speed" not in request
        done = vinograph("generate", "a house", *common, "--guidance-interval", "0,0.9", "--output", "b.png")
        assert done.code == 0, done.err
        assert {**request, "guidance_interval": [0.0, 0.9]} == request_of("b.png")
        done = vinograph("generate", "--again", "a.png", "--model", model, "--output", "c.png")
        assert done.code == 0, done.err
        assert np.array_equal(pixels("a.png"), pixels("c.png"))

    @pytest.mark.parametrize(
        ("option", "value", "said"),
        [
            ("--guidance-interval", "0.8,0.2", "--guidance-interval is '0.8,0.2'; give two fractions of the steps"),
            ("--guidance-interval", "0.01,0.02", "in which none of the 3 steps begins; give a wider one"),
            ("--extrapolation-interval", "0", "--extrapolation-interval is 0; give a whole number from 1 to 100"),
            ("--extrapolation-order", "2", "--extrapolation-order needs --extrapolation-interval: "),
            ("--speed", "warp", "--speed is 'warp'; give one of balanced, fast"),
        ],
    )
    def test_bad_values(self, vinograph: Run, model: str, option: str, value: str, said: str) -> None:
        common = ("--size", "256x128", "--steps", 3, "--guidance-scale", 3)
        vinograph("generate", "a house", "--model", model, *common, option, value).fails(2, said)


class TestInspect:
    def test_it_shows_what_each_speed_saves(self, vinograph: Run) -> None:
        found = json.loads(vinograph("inspect", "storybook-pixart", "--json").out)["speeds"]
        for name in ("balanced", "fast"):
            presets = registry.family("pixart").calls["generate"].presets["speed"]
            assert found[name]["arguments"] == json.loads(json.dumps(dict(presets[name])))
        assert found["balanced"]["saved"] == {"transformer": pytest.approx(0.55)}  # 9 of 20 steps
        assert found["fast"]["saved"] == {"transformer": pytest.approx(0.6)}  # two of these have one row
        assert "of the transformer's evaluations" in vinograph("inspect", "storybook-pixart").out

    def test_few_steps_leave_nothing_to_save(self, vinograph: Run) -> None:
        found = json.loads(vinograph("inspect", "storybook-sdxl", "--json").out)["speeds"]
        assert found["fast"]["saved"] == {"unet": 0.0}
