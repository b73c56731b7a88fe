"""`vinograph` with SDXL: the common commands, and the family's own options."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.bundles import save_sdxl_bundle
from tests.cli.conftest import WITHOUT_HEAVY, Outcome, Run, files_here, in_process, png_that_claims
from vinograph.images import read_metadata
from vinograph.models.bundle import Bundle


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


class TestDefaultSteps:
    """Default steps are raised where they would leave no step to do; given ones are not."""

    @pytest.mark.parametrize(("options", "steps"), [((), 2), (("--strength", 0.3), 4), (("--strength", 1), 1)])
    def test_default_steps_are_raised_for_a_low_strength(
        self, vinograph: Run, options: tuple[object, ...], steps: int
    ) -> None:
        done = vinograph(
            "generate", "a house", "--model", "storybook-sdxl", "--image", "start.png", *options, "--seed", 1, "--json"
        )
        assert done.code == 0, done.err
        assert done.record["request"]["num_inference_steps"] == steps
        assert "unet 1/1" in done.err

    def test_too_few_given_steps_are_refused(self, vinograph: Run) -> None:
        given = ("--model", "storybook-sdxl", "--image", "start.png", "--steps", 1)
        vinograph("generate", "a house", *given).fails(
            2, "1 steps at strength 0.5 leave none to do", "at least 2 steps"
        )


class TestGenerate:
    def test_common_and_own_options(self, vinograph: Run, sdxl: Bundle) -> None:
        options = ("--size", "128x64", "--steps", 3, "--guidance-scale", 2, "--negative-prompt", "blue", "--seed", 7)
        done = vinograph("generate", "a house", "--model", sdxl.path, *options, "--output", "a.png", "--json")
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
    def test_both_vaes(self, vinograph: Run, sdxl: Bundle, vae: str, decoder: str) -> None:
        done = vinograph("generate", "a house", "--model", sdxl.path, "--vae", vae, "--json")
        assert decoder in done.record["devices"]
        assert done.record["request"]["vae"] == vae

    def test_image_to_image(self, vinograph: Run, sdxl: Bundle) -> None:
        options = ("--image", "start.png", "--steps", 2, "--strength", 0.5, "--seed", 1)
        done = vinograph("generate", "a house", "--model", sdxl.path, *options)
        assert done.code == 0, done.err
        assert "unet 1/1" in done.err
        assert pixels("picture.png").shape == (72, 96, 3)

    def test_inpainting(self, vinograph: Run, sdxl: Bundle) -> None:
        options = ("--image", "start.png", "--steps", 2, "--strength", 1, "--seed", 1)
        for name, mask in (("drawn.png", ()), ("painted.png", ("--mask", "mask.png"))):
            done = vinograph("generate", "a house", "--model", sdxl.path, *options, *mask, "--output", name)
            assert done.code == 0, done.err
        assert vinograph("reconstruct", "start.png", "--model", sdxl.path, "--output", "kept.png").code == 0
        assert np.abs(pixels("painted.png")[:, :48] - pixels("kept.png")[:, :48]).max() <= 1
        assert np.abs(pixels("drawn.png")[:, :48] - pixels("kept.png")[:, :48]).max() > 1

    def test_several_pictures_are_numbered_and_reproducible_alone(self, vinograph: Run, sdxl: Bundle) -> None:
        options = ("generate", "a house", "--model", sdxl.path, "--image", "start.png", "--precision", "f32")
        done = vinograph(*options, "--seed", 7, "--count", 3, "--output", "a.png")
        assert done.out.splitlines()[:3] == ["a-1.png  seed 7", "a-2.png  seed 8", "a-3.png  seed 9"]
        vinograph(*options, "--seed", 8, "--output", "alone.png")
        assert np.abs(pixels("alone.png") - pixels("a-2.png")).max() <= 1
        assert np.abs(pixels("a-1.png") - pixels("a-2.png")).max() > 1

    def test_a_png_stores_its_request(self, vinograph: Run, sdxl: Bundle) -> None:
        options = ("--steps", 3, "--vae", "full", "--guidance-scale", 2.5, "--seed", 7, "--count", 2)
        vinograph("generate", "a häuschen", "--model", sdxl.path, *options)
        record = read_metadata(Path("picture-2.png"))
        assert record is not None
        assert record["model"] == "tiny-sdxl"
        request = record["request"]
        assert (request["seed"], request["num_images_per_prompt"]) == (8, 1)
        assert (request["num_inference_steps"], request["guidance_scale"], request["vae"]) == (3, 2.5, "full")
        assert (request["prompt"], request["width"], request["height"]) == ("a häuschen", 64, 64)
        vinograph("generate", "a häuschen", "--model", sdxl.path, *options[:-3], 8, "--output", "again.png")
        assert np.abs(pixels("again.png") - pixels("picture-2.png")).max() <= 1

    def test_a_picture_with_an_exif_orientation_is_rotated(self, vinograph: Run, sdxl: Bundle) -> None:
        """It gives the same result as the upright picture."""
        with Image.open("start.png") as upright:
            lying = upright.transpose(Image.Transpose.ROTATE_90)
        exif = Image.Exif()
        exif[0x0112] = 6  # EXIF: rotate by 90 degrees clockwise to display
        lying.save("lying.png", exif=exif)
        for name in ("start", "lying"):
            options = ("--image", f"{name}.png", "--seed", 1, "--output", f"{name}-drawn.png")
            assert vinograph("generate", "a house", "--model", sdxl.path, *options).code == 0
        assert pixels("lying-drawn.png").shape == (72, 96, 3)
        assert np.array_equal(pixels("lying-drawn.png"), pixels("start-drawn.png"))

    def test_a_resized_picture_is_a_warning(self, vinograph: Run, sdxl: Bundle) -> None:
        Image.new("RGB", (101, 67), "red").save("odd.png")
        done = vinograph("generate", "a house", "--model", sdxl.path, "--image", "odd.png")
        assert done.code == 0, done.err
        assert "warning: the picture was resized from 101x67 to 96x64" in done.err
        assert pixels("picture.png").shape == (64, 96, 3)

    def test_a_resized_mask_is_a_warning(self, vinograph: Run, sdxl: Bundle) -> None:
        Image.new("L", (40, 80), 255).save("tall.png")
        options = ("--image", "start.png", "--strength", 1)
        done = vinograph("generate", "a house", "--model", sdxl.path, *options, "--mask", "tall.png")
        assert done.code == 0, done.err
        assert "warning: the mask was resized from 40x80 to 96x72" in done.err
        done = vinograph("generate", "a house", "--model", sdxl.path, *options, "--mask", "mask.png")
        assert "resized" not in done.err

    def test_truncated_text_and_an_ignored_negative_prompt_are_warnings(self, vinograph: Run, sdxl: Bundle) -> None:
        text = f"a red house {'on a hill ' * 20} at night"
        options = ("--guidance-scale", 0, "--negative-prompt", "a boat", "--json")
        done = vinograph("generate", text, "--model", sdxl.path, *options)
        assert done.code == 0
        ignored, cut = done.record["warnings"]
        assert re.fullmatch(r".*20 tokens; cut off: '.*at night'", cut)
        assert "the negative prompt was ignored" in ignored
        assert f"warning: {cut}" in done.err

    def test_an_empty_prompt_works(self, vinograph: Run, sdxl: Bundle) -> None:
        for text, name in (("", "empty.png"), ("a house", "house.png")):
            options = ("--seed", 1, "--output", name)
            assert vinograph("generate", text, "--model", sdxl.path, *options).code == 0
        assert not np.array_equal(pixels("empty.png"), pixels("house.png"))

    def test_json_is_all_of_standard_output(self, vinograph: Run, sdxl: Bundle) -> None:
        options = ("--image", "start.png", "--mask", "mask.png", "--seed", 7, "--count", 2, "--json")
        done = vinograph("generate", "a house", "--model", sdxl.path, *options)
        record = done.record
        computed = {"seconds", "devices", "settings", "report", "warnings"}
        assert record.keys() == {"model", "adapters", "images", "request", *computed}
        assert record["images"] == [{"file": f"picture-{i}.png", "seed": 6 + i} for i in (1, 2)]
        assert record["seconds"].keys() == {"text", "vae encoder", "unet", "vae"}
        assert record["warnings"] == []
        assert (record["request"]["strength"], record["request"]["guidance_scale"]) == (0.9999, 7.5)

    def test_generate_needs_no_heavy_packages(self, sdxl: Bundle) -> None:
        options = ("--image", "start.png", "--mask", "mask.png", "--seed", 7)
        done = in_process("generate", "a house", "--model", sdxl.path, *options, first=WITHOUT_HEAVY)
        assert done.code == 0, done.err
        assert done.out.startswith("picture.png  seed 7\n")

    def test_help_names_an_options_family(self, vinograph: Run) -> None:
        done = vinograph("generate", "--help")
        assert "--vae full|tiny" in done.out
        assert "--mask FILE" in done.out
        assert "SDXL, PixArt: which VAE to use" in done.out


class TestRefusals:
    @pytest.fixture
    def refused(self, vinograph: Run, sdxl: Bundle) -> Run:
        """Run ``generate`` with options, and check that it leaves no file."""

        def run(*arguments: object) -> Outcome:
            before = files_here()
            done = vinograph("generate", "a house", "--model", sdxl.path, *arguments)
            assert files_here() == before
            return done

        return run

    def test_an_unknown_vae_is_refused(self, refused: Run) -> None:
        refused("--vae", "small").fails(2, "--vae is 'small'; give one of full, tiny")

    def test_a_vae_that_the_model_lacks_is_refused(self, vinograph: Run, tmp_path: Path) -> None:
        save_sdxl_bundle(tmp_path / "full", without=("tiny_vae_decoder", "tiny_vae_encoder"))
        vinograph("generate", "x", "--model", "full", "--vae", "tiny").fails(2, "vae is 'tiny'; this model has full")

    @pytest.mark.parametrize("kind", ["none", "text", "BMP", "cut", "bomb", "folder"])
    @pytest.mark.parametrize("option", ["--image", "--mask"])
    def test_files_that_are_no_pictures_are_refused(self, refused: Run, option: str, kind: str) -> None:
        """They are refused as image and as mask."""
        words = {"none": "there is no file bad.png", "folder": "there is no file bad.png", "cut": "bad.png"}
        words |= {"bomb": "64 megapixels"}
        if kind == "folder":
            Path("bad.png").mkdir()
        elif kind == "BMP":
            Image.new("L", (96, 72), 255).save("bad.png", "BMP")
        elif kind != "none":
            whole = Path("mask.png").read_bytes()
            Path("bad.png").write_bytes(
                {"text": b"hello", "cut": whole[:60], "bomb": png_that_claims(9000, 9000)}[kind]
            )
        given = ("--image", "bad.png") if option == "--image" else ("--image", "start.png", "--mask", "bad.png")
        done = refused(*given)
        done.fails(
            2,
            "mask" if option == "--mask" else "image",
            words.get(kind, "is not a PNG, JPEG, WebP, AVIF, TIFF or GIF picture"),
        )
        assert "unet" not in done.err, "the drawing had started"

    @pytest.mark.parametrize(("steps", "strength", "fewest"), [(3, 0.3, 4), (1, 0.5, 2), (2, 0.07, 15)])
    def test_a_strength_that_leaves_no_step_is_refused(
        self, refused: Run, vinograph: Run, sdxl: Bundle, steps: int, strength: float, fewest: int
    ) -> None:
        """The message names the fewest steps that work; one fewer is refused, too."""
        options = ("--image", "start.png", "--strength", strength, "--steps")
        words = (f"{steps} steps at strength {strength:g} leave none to do", f"give at least {fewest} steps")
        refused(*options, steps).fails(2, *words)
        refused(*options, fewest - 1).fails(2, f"give at least {fewest} steps")
        done = vinograph("generate", "a house", "--model", sdxl.path, *options, fewest)
        assert done.code == 0, done.err
        assert "unet 1/1" in done.err

    @pytest.mark.parametrize("strength", ["0.0009", "1e-9", "1e-320"])
    def test_a_strength_too_low_for_any_steps_is_refused(self, refused: Run, strength: str) -> None:
        options = ("--image", "start.png", "--steps", 4, "--strength", strength)
        refused(*options).fails(2, "4 steps at strength", "give a strength of at least 0.25")

    @pytest.mark.parametrize("given", ["0", "-0.5", "1.01", "nan", "inf", "half", ""])
    def test_a_wrong_strength_is_refused(self, refused: Run, given: str) -> None:
        options = ("--image", "start.png", "--strength", given)
        refused(*options).fails(2, f"--strength is {given}"[:12], "above 0 and up to 1")

    @pytest.mark.parametrize("option", [("--strength", "0.5"), ("--mask", "mask.png")])
    def test_options_that_need_a_picture_are_refused_without(self, refused: Run, option: tuple[str, str]) -> None:
        refused(*option).fails(2, f"{option[0]} needs --image: a picture to start from")

    @pytest.mark.parametrize("option", ["--steps", "--count"])
    @pytest.mark.parametrize("given", ["0", "-1", "1001", "two", "1.5"])
    def test_wrong_counts_are_refused(self, refused: Run, option: str, given: str) -> None:
        refused(option, given).fails(2, f"{option} is ", given, "from 1 to 1000")

    @pytest.mark.parametrize("given", ["nan", "inf", "-1", "strong"])
    def test_a_wrong_guidance_scale_is_refused(self, refused: Run, given: str) -> None:
        refused("--guidance-scale", given).fails(2, "--guidance-scale is ", given, "a number from 0 up")

    @pytest.mark.parametrize("given", ["-2", str(2**64), "1.5"])
    def test_a_wrong_seed_is_refused(self, refused: Run, given: str) -> None:
        refused("--seed", given).fails(2, "--seed is ", given, "from 0 to 18446744073709551615")

    @pytest.mark.parametrize(
        ("size", "words"),
        [
            ("0x64", ("the width is 0", "the nearest: 64")),
            ("64x-8", ("the height is -8", "the nearest: 64")),
            ("100x64", ("the width is 100", "multiples of 8 from 64 to 512", "96 and 104")),
            ("64x60", ("the height is 60", "the nearest: 64")),
            ("520x64", ("the width is 520", "the nearest: 512")),
        ],
    )
    def test_wrong_sizes_are_refused(self, refused: Run, size: str, words: tuple[str, ...]) -> None:
        refused("--size", size).fails(2, f"--size {size}", *words)

    @pytest.mark.parametrize("device", ["GPU.7", "unet=GPU.7", "HETERO:GPU.7,CPU"])
    def test_an_absent_device_is_refused(self, refused: Run, device: str) -> None:
        refused("--device", device).fails(2, "'GPU.7'", "there is CPU")

    def test_a_component_of_wuerstchen_is_refused(self, refused: Run) -> None:
        refused("--precision", "prior=f32").fails(2, "'prior'", "unet", "tiny_vae_decoder")

    def test_an_unwritable_output_is_refused(self, refused: Run) -> None:
        refused("--output", "no/such/a.png").fails(2, "there is no folder no/such")

    def test_an_option_of_wuerstchen_is_refused(self, refused: Run) -> None:
        own = ("--guidance-scale", "--image", "--mask", "--size", "--steps", "--strength", "--vae")
        refused("--decoder-steps", 3).fails(2, "--decoder-steps is not an option of tiny-sdxl", "sdxl", *own)

    @pytest.mark.parametrize("option", ["--vae", "--mask"])
    def test_its_own_options_are_refused_for_wuerstchen(self, vinograph: Run, bundle: Bundle, option: str) -> None:
        done = vinograph("generate", "a house", "--model", bundle.path, option, "full")
        done.fails(2, f"{option} is not an option of tiny", "wuerstchen", "--decoder-steps", "--steps")
        assert "--vae," not in done.err

    @pytest.mark.parametrize(
        ("stage", "options"),
        [
            ("text_encoder", ()),
            ("text_encoder_2", ()),
            ("unet", ()),
            ("tiny_vae_decoder", ()),
            ("vae_decoder", ("--vae", "full")),
            ("tiny_vae_encoder", ("--image", "start.png")),
            ("vae_encoder", ("--vae", "full", "--image", "start.png", "--mask", "mask.png")),
        ],
    )
    def test_a_stage_that_computes_nan_is_named(
        self, vinograph: Run, tmp_path: Path, stage: str, options: tuple[str, ...]
    ) -> None:
        save_sdxl_bundle(tmp_path / "broken", broken=stage)
        before = files_here()
        done = vinograph("generate", "a house", "--model", "broken", "--precision", "f32", *options)
        done.fails(1, f"the {stage} stage computed NaN or infinity in f32: ", "vinograph verify")
        assert files_here() == before


class TestReconstruct:
    @pytest.mark.parametrize("vae", ["full", "tiny"])
    def test_reconstruct_prints_compression_and_psnr(self, vinograph: Run, sdxl: Bundle, vae: str) -> None:
        done = vinograph("reconstruct", "start.png", "--model", sdxl.path, "--vae", vae)
        assert done.code == 0, done.err
        lines = done.out.splitlines()
        assert lines[0] == "reconstruction.png"
        assert lines[1].startswith("PSNR ")
        assert lines[2:4] == ["8.0 times smaller in each direction", "48 times fewer values"]
        assert pixels("reconstruction.png").shape == (72, 96, 3)

    def test_reconstruct_prints_json(self, vinograph: Run, sdxl: Bundle) -> None:
        record = vinograph("reconstruct", "start.png", "--model", sdxl.path, "--json").record
        assert record["images"] == [{"file": "reconstruction.png", "seed": None}]
        assert record["report"].keys() == {"psnr", "spatial_compression", "values_compression"}

    def test_a_vae_without_its_encoder_is_refused(self, vinograph: Run, tmp_path: Path) -> None:
        save_sdxl_bundle(tmp_path / "blind", without=("tiny_vae_encoder",))
        before = files_here()
        vinograph("reconstruct", "start.png", "--model", "blind").fails(3, "no tiny_vae_encoder", "convert")
        vinograph("generate", "x", "--image", "start.png", "--model", "blind").fails(3, "no tiny_vae_encoder")
        assert files_here() == before

    def test_a_vae_that_computes_nan_is_named(self, vinograph: Run, tmp_path: Path) -> None:
        save_sdxl_bundle(tmp_path / "broken", broken="vae_encoder")
        before = files_here()
        vinograph("reconstruct", "start.png", "--model", "broken", "--vae", "full").fails(1, "the vae_encoder stage")
        assert files_here() == before

    def test_reconstruct_takes_no_seed(self, vinograph: Run, sdxl: Bundle) -> None:
        done = vinograph("reconstruct", "start.png", "--model", sdxl.path, "--seed", 7)
        done.fails(2, "--seed is not an option of tiny-sdxl", "--size, --vae")


class TestDocumentation:
    """The commands in docs/sdxl.md work, with a bundle and pictures of the page's names."""

    TEXT = (Path(__file__).parents[2] / "docs" / "sdxl.md").read_text(encoding="utf-8")

    @pytest.fixture(autouse=True)
    def _as_on_the_page(self, sdxl: Bundle, tmp_path: Path) -> None:
        (tmp_path / "models").mkdir()
        (tmp_path / "models" / "sdxl-turbo").symlink_to(sdxl.path)
        (tmp_path / "models" / "sdxl").symlink_to(sdxl.path)
        save_sdxl_bundle(tmp_path / "path" / "to" / "inpainting", unet_channels=9)
        with Image.open("start.png") as picture:
            picture.save("photo.jpg")

    def test_the_pages_commands_work(self, vinograph: Run) -> None:
        lines = re.findall(r"^vinograph ((?:generate|reconstruct) .*)$", self.TEXT, flags=re.MULTILINE)
        assert len(lines) >= 4
        for line in lines:
            done = vinograph(*shlex.split(line))
            assert done.code == 0, (line, done.err)

    def test_the_pages_python_works(self) -> None:
        blocks = re.findall(r"^```python\n(.*?)^```$", self.TEXT, flags=re.MULTILINE | re.DOTALL)
        names: dict[str, Any] = {}
        for block in blocks:
            exec(block, names)
        assert pixels("lighthouse.png").shape == (512, 512, 3)
        latents = names["pipe"].encode("photo.jpg", vae="full").images
        assert latents.shape == (1, 4, 9, 12)
