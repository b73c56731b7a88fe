"""`vinograph` with PixArt: the same commands, and that family's own options."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.bundles import save_pixart_bundle
from tests.cli.conftest import WITHOUT_HEAVY, Run, files_here, in_process
from vinograph.bundle import Bundle
from vinograph.images import read_metadata


@pytest.fixture(scope="session")
def pixart(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A whole PixArt bundle with both VAEs, for reading only."""
    return save_pixart_bundle(tmp_path_factory.mktemp("pixart") / "tiny-pixart")


@pytest.fixture(autouse=True)
def _picture(_clean_place: None) -> None:
    """A picture to start from."""
    colours = np.random.RandomState(0).randint(0, 256, (16, 20, 3), np.uint8)
    Image.fromarray(colours).resize((320, 256)).save("start.png")


def size(file: str) -> tuple[int, int]:
    with Image.open(file) as picture:
        return picture.size


class TestGenerate:
    def test_a_size_between_the_trained_ones(self, vinograph: Run, pixart: Bundle) -> None:
        told = ("--size", "301x177", "--steps", 2, "--guidance-scale", 3, "--negative-prompt", "blue", "--seed", 7)
        done = vinograph("generate", "a house", "--model", pixart.path, *told, "--json")
        assert done.code == 0, done.err
        request = done.record["request"]
        assert (request["width"], request["height"], request["num_inference_steps"]) == (301, 177, 2)
        assert (request["guidance_scale"], request["negative_prompt"]) == (3.0, ["blue"])
        assert set(done.record["seconds"]) == {"text", "transformer", "vae"}
        assert done.record["devices"].keys() == {"text_encoder", "transformer", "tiny_vae_decoder"}
        (warning,) = done.record["warnings"]
        assert warning == "drawn at 320x192, the nearest size that the model was trained on, and resized to 301x177"
        assert size("picture.png") == (301, 177)
        record = read_metadata(Path("picture.png"))
        assert record is not None
        assert (record["request"]["seed"], record["request"]["use_resolution_binning"]) == (7, True)

    def test_a_size_as_it_is(self, vinograph: Run, pixart: Bundle) -> None:
        told = ("--size", "304x176", "--resolution-binning", "off")
        done = vinograph("generate", "a house", "--model", pixart.path, *told)
        assert done.code == 0, done.err
        assert "warning" not in done.err
        assert size("picture.png") == (304, 176)

    def test_a_prompt_as_it_is(self, vinograph: Run, pixart: Bundle) -> None:
        drawn = []
        for clean in ("on", "off"):
            told = ("--seed", 1, "--clean-caption", clean, "--output", f"{clean}.png")
            assert vinograph("generate", "a house @night", "--model", pixart.path, *told).code == 0
            with Image.open(f"{clean}.png") as picture:
                drawn.append(np.asarray(picture))
        assert not np.array_equal(drawn[0], drawn[1])

    def test_image_to_image(self, vinograph: Run, pixart: Bundle) -> None:
        told = ("--image", "start.png", "--steps", 4, "--strength", 0.5, "--seed", 1)
        done = vinograph("generate", "a house", "--model", pixart.path, *told)
        assert done.code == 0, done.err
        assert "transformer 2/2" in done.err
        assert size("picture.png") == (320, 256)

    def test_little_memory(self, vinograph: Run, pixart: Bundle) -> None:
        for memory in ("low", "auto"):
            told = ("--memory", memory, "--seed", 1, "--output", f"{memory}.png")
            assert vinograph("generate", "a house", "--model", pixart.path, *told).code == 0
        with Image.open("low.png") as low, Image.open("auto.png") as usual:
            assert np.array_equal(np.asarray(low), np.asarray(usual))

    def test_reconstruct(self, vinograph: Run, pixart: Bundle) -> None:
        done = vinograph("reconstruct", "start.png", "--model", pixart.path, "--output", "again.png")
        assert done.code == 0, done.err
        assert "8.0 times smaller in each direction" in done.out
        assert size("again.png") == (320, 256)

    def test_none_of_the_heavy_packages(self, pixart: Bundle) -> None:
        done = in_process("generate", "a house", "--model", pixart.path, "--seed", 7, first=WITHOUT_HEAVY)
        assert done.code == 0, done.err
        assert done.out.startswith("picture.png  seed 7\n")


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (("--resolution-binning", "perhaps"), "--resolution-binning is 'perhaps'; give on or off"),
        (("--clean-caption", "1"), "--clean-caption is '1'; give on or off"),
        (("--memory", "little"), "memory is 'little'; give one of auto, low"),
        (("--size", "9x256"), "this model draws whole numbers from 64 to 512"),
        (("--size", "300x256", "--resolution-binning", "off"), "multiples of 16 from 64 to 512"),
        (("--mask", "start.png"), "--mask is not an option of tiny-pixart"),
        (("--decoder-steps", 3), "--decoder-steps is not an option of tiny-pixart"),
        (("--steps", 0), "--steps is 0"),
        (("--image", "start.png", "--strength", 0.1), "leave none to do"),
    ],
    ids=str,
)
def test_what_is_refused(vinograph: Run, pixart: Bundle, told: tuple[object, ...], words: str) -> None:
    before = files_here()
    vinograph("generate", "a house", "--model", pixart.path, *told).fails(2, words)
    assert files_here() == before
