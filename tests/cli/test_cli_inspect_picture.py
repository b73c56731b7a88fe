"""`vinograph inspect PICTURE` shows how a picture was drawn; all formats hold enough to draw it again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from tests.bundles import save_sdxl_bundle
from tests.cli.conftest import Run


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle of SDXL."""
    folder = tmp_path_factory.mktemp("inspected")
    save_sdxl_bundle(folder / "tiny-sdxl")
    return folder


@pytest.fixture(autouse=True)
def _models(models: Path, _clean_place: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VINOGRAPH_MODELS", str(models))


DRAW = ("generate", 'a "red" häuschen <b> & fog', "-m", "tiny-sdxl", "--seed", 2**64 - 1, "--steps", 3)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp"])
def test_every_format_says_the_same(vinograph: Run, name: str) -> None:
    vinograph(*DRAW, "--negative-prompt", "rain", "-o", name)
    record = vinograph("inspect", name, "--json").record
    request = record["metadata"]["request"]
    assert (request["prompt"], request["seed"], request["num_inference_steps"]) == (DRAW[1], 2**64 - 1, 3)
    assert (record["file"], record["metadata"]["model"]) == (name, "tiny-sdxl")
    assert record["format"] == {"a.png": "PNG", "a.jpg": "JPEG", "a.webp": "WEBP"}[name]
    assert record["infotext"]["prompt"] == DRAW[1]
    assert record["infotext"]["fields"]["Steps"] == "3"
    assert record["parameters"].startswith(DRAW[1])
    lines = vinograph("inspect", name).out.splitlines()
    for begin, end in {
        "file": f"{name}  {record['width']}x{record['height']} {record['format']}",
        "model": "tiny-sdxl",
        "prompt": DRAW[1],
        "negative prompt": "rain",
        "seed": str(2**64 - 1),
        "num inference steps": "3",
    }.items():
        assert [each for each in lines if each.startswith(f"{begin}  ") and each.endswith(f" {end}")], begin


@pytest.mark.parametrize("name", ["a.jpg", "a.webp"])
def test_lossy_pictures_are_drawn_again_from_their_own_record(vinograph: Run, name: str) -> None:
    vinograph(*DRAW, "--hires", 2, "-o", "a.png")
    vinograph(*DRAW, "--hires", 2, "-o", name)
    Path("unknown").mkdir()
    done = vinograph("generate", "--again", name, "-o", "again.png")
    assert (done.code, "not followed" in done.err) == (0, False), done.err
    with Image.open("a.png") as one, Image.open("again.png") as other:
        assert np.array_equal(np.asarray(one), np.asarray(other))


def test_a_picture_of_a1111s(vinograph: Run) -> None:
    chunk = PngImagePlugin.PngInfo()
    chunk.add_text("parameters", "a house\nNegative prompt: fog\nSteps: 20, Sampler: Euler a, Seed: 5, Size: 8x8")
    Image.new("RGB", (8, 8)).save("a", "PNG", pnginfo=chunk)
    lines = [each.split(maxsplit=1) for each in vinograph("inspect", "a").out.splitlines()]
    assert ["prompt", "a house"] in lines
    assert ["Sampler", "Euler a"] in lines
    record = vinograph("inspect", "a", "--json").record
    assert (record["metadata"], record["infotext"]["negative_prompt"]) == (None, "fog")


@pytest.mark.parametrize("ending", ["png", "gif", "avif", "tiff"])
def test_a_picture_that_says_nothing(vinograph: Run, ending: str) -> None:
    Image.new("RGB", (8, 9)).save(f"a.{ending}")
    done = vinograph("inspect", f"a.{ending}")
    assert done.code == 0
    assert done.out.splitlines()[-1] == "the picture doesn't say how it was drawn"
    assert "8x9" in done.out
    assert vinograph("inspect", f"a.{ending}", "--json").record["metadata"] is None


def test_a_damaged_picture_is_refused(vinograph: Run) -> None:
    Image.effect_noise((64, 64), 50).save("a.png")
    Path("a.png").write_bytes(Path("a.png").read_bytes()[:1000])
    vinograph("inspect", "a.png").fails(2, "picture: a.png is damaged")


def test_formats_to_start_from(vinograph: Run) -> None:
    frames = [Image.new("RGB", (96, 64), name) for name in ("red", "blue")]
    for ending in ("avif", "tiff", "gif"):
        frames[0].save(f"a.{ending}", save_all=True, append_images=frames[1:])
        done = vinograph("generate", "a house", "-m", "tiny-sdxl", "-i", f"a.{ending}", "--json")
        assert done.code == 0, done.err
        assert done.record["warnings"] == [f"image: a.{ending} holds several pictures; the first is taken"]
