"""`vinograph` with a model of another family: the same commands, and that family's own options."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.bundles import save_sdxl_bundle
from tests.cli.conftest import Outcome, Run, files_here
from vinograph.bundle import Bundle
from vinograph.images import read_metadata


@pytest.fixture(scope="session")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A whole SDXL bundle with both VAEs, for reading only."""
    return save_sdxl_bundle(tmp_path_factory.mktemp("sdxl") / "tiny-sdxl")


@pytest.fixture(autouse=True)
def _pictures(_clean_place: None) -> None:
    """A picture to start from, and a mask whose right half is white."""
    colours = np.random.RandomState(0).randint(0, 256, (18, 24, 3), np.uint8)
    Image.fromarray(colours).resize((96, 72)).save("start.png")
    mask = Image.new("L", (96, 72))
    mask.paste(255, (48, 0, 96, 72))
    mask.save("mask.png")


def pixels(file: str | Path) -> np.ndarray:
    with Image.open(file) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


class TestGenerate:
    def test_the_options_of_both_families(self, vinograph: Run, sdxl: Bundle) -> None:
        told = ("--size", "128x64", "--steps", 3, "--guidance-scale", 2, "--negative-prompt", "blue", "--seed", 7)
        done = vinograph("generate", "a house", "--model", sdxl.path, *told, "--output", "a.png", "--json")
        assert done.code == 0, done.err
        request = done.record["request"]
        assert (request["width"], request["height"], request["num_inference_steps"]) == (128, 64, 3)
        assert (request["guidance_scale"], request["negative_prompt"]) == (2.0, ["blue"])
        assert set(done.record["seconds"]) == {"text", "unet", "vae"}
        assert done.record["devices"].keys() == {"text_encoder", "text_encoder_2", "unet", "tiny_vae_decoder"}
        assert pixels("a.png").shape == (64, 128, 3)
        record = read_metadata(Path("a.png"))
        assert record is not None
        assert record["request"]["seed"] == 7

    @pytest.mark.parametrize(("vae", "decoder"), [("full", "vae_decoder"), ("tiny", "tiny_vae_decoder")])
    def test_vae(self, vinograph: Run, sdxl: Bundle, vae: str, decoder: str) -> None:
        done = vinograph("generate", "a house", "--model", sdxl.path, "--vae", vae, "--json")
        assert decoder in done.record["devices"]
        assert done.record["request"]["vae"] == vae

    def test_image_to_image(self, vinograph: Run, sdxl: Bundle) -> None:
        told = ("--image", "start.png", "--steps", 2, "--strength", 0.5, "--seed", 1)
        done = vinograph("generate", "a house", "--model", sdxl.path, *told)
        assert done.code == 0, done.err
        assert "unet 1/1" in done.err
        assert pixels("picture.png").shape == (72, 96, 3)

    def test_inpainting(self, vinograph: Run, sdxl: Bundle) -> None:
        told = ("--image", "start.png", "--steps", 2, "--strength", 1, "--seed", 1)
        for name, mask in (("drawn.png", ()), ("painted.png", ("--mask", "mask.png"))):
            done = vinograph("generate", "a house", "--model", sdxl.path, *told, *mask, "--output", name)
            assert done.code == 0, done.err
        assert vinograph("reconstruct", "start.png", "--model", sdxl.path, "--output", "kept.png").code == 0
        assert np.abs(pixels("painted.png")[:, :48] - pixels("kept.png")[:, :48]).max() <= 1
        assert np.abs(pixels("drawn.png")[:, :48] - pixels("kept.png")[:, :48]).max() > 1

    def test_help_says_whose_options_they_are(self, vinograph: Run) -> None:
        done = vinograph("generate", "--help")
        assert "--vae full|tiny" in done.out
        assert "--mask FILE" in done.out
        assert "SDXL: which VAE to use" in done.out


class TestWhatIsRefused:
    @pytest.fixture
    def refused(self, vinograph: Run, sdxl: Bundle) -> Run:
        """``generate`` with options that leave no file."""

        def run(*arguments: object) -> Outcome:
            before = files_here()
            done = vinograph("generate", "a house", "--model", sdxl.path, *arguments)
            assert files_here() == before
            return done

        return run

    def test_another_vae(self, refused: Run) -> None:
        refused("--vae", "small").fails(2, "--vae is 'small'; give one of full, tiny")

    def test_a_vae_that_the_model_lacks(self, vinograph: Run, tmp_path: Path) -> None:
        save_sdxl_bundle(tmp_path / "full", without=("tiny_vae_decoder", "tiny_vae_encoder"))
        vinograph("generate", "x", "--model", "full", "--vae", "tiny").fails(2, "vae is 'tiny'; this model has full")

    def test_a_mask_without_a_picture(self, refused: Run) -> None:
        refused("--mask", "mask.png").fails(2, "mask_image needs image")

    def test_a_mask_that_is_not_there(self, refused: Run) -> None:
        refused("--image", "start.png", "--mask", "no.png").fails(2, "mask_image: there is no file no.png")

    def test_steps_that_leave_none(self, refused: Run) -> None:
        told = ("--image", "start.png", "--steps", 3, "--strength", 0.3)
        refused(*told).fails(2, "3 steps at strength 0.3 leave none to do; give at least 4 steps")

    def test_a_size(self, refused: Run) -> None:
        refused("--size", "100x64").fails(2, "the width is 100", "96 and 104")

    def test_an_option_of_wuerstchen(self, refused: Run) -> None:
        own = ("--guidance-scale", "--image", "--mask", "--size", "--steps", "--strength", "--vae")
        refused("--decoder-steps", 3).fails(2, "--decoder-steps is not an option of tiny-sdxl", "sdxl", *own)

    @pytest.mark.parametrize("option", ["--vae", "--mask"])
    def test_its_own_of_wuerstchen(self, vinograph: Run, bundle: Bundle, option: str) -> None:
        done = vinograph("generate", "a house", "--model", bundle.path, option, "full")
        done.fails(2, f"{option} is not an option of tiny", "wuerstchen", "--decoder-steps", "--steps")
        assert "--vae," not in done.err

    @pytest.mark.parametrize("stage", ["unet", "tiny_vae_decoder"])
    def test_a_stage_that_computes_no_numbers(self, vinograph: Run, tmp_path: Path, stage: str) -> None:
        save_sdxl_bundle(tmp_path / "broken", broken=stage)
        before = files_here()
        done = vinograph("generate", "a house", "--model", "broken", "--precision", "f32")
        done.fails(1, f"the {stage} stage computed NaN or infinity in f32")
        assert files_here() == before


class TestReconstruct:
    @pytest.mark.parametrize("vae", ["full", "tiny"])
    def test_what_it_costs(self, vinograph: Run, sdxl: Bundle, vae: str) -> None:
        done = vinograph("reconstruct", "start.png", "--model", sdxl.path, "--vae", vae)
        assert done.code == 0, done.err
        lines = done.out.splitlines()
        assert lines[0] == "reconstruction.png"
        assert lines[1].startswith("PSNR ")
        assert lines[2:4] == ["8.0 times smaller in each direction", "48 times fewer values"]
        assert pixels("reconstruction.png").shape == (72, 96, 3)

    def test_json(self, vinograph: Run, sdxl: Bundle) -> None:
        record = vinograph("reconstruct", "start.png", "--model", sdxl.path, "--json").record
        assert record["images"] == [{"file": "reconstruction.png", "seed": None}]
        assert record["report"].keys() == {"psnr", "spatial_compression", "values_compression"}

    def test_it_draws_nothing(self, vinograph: Run, sdxl: Bundle) -> None:
        done = vinograph("reconstruct", "start.png", "--model", sdxl.path, "--seed", 7)
        done.fails(2, "--seed is not an option of tiny-sdxl", "--size, --vae")
