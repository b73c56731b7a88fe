"""Wrong requests exit with 2 and one message that names the option, and leave no file."""

from __future__ import annotations

import json
import os
import struct
import sys
import zlib
from pathlib import Path
from types import MappingProxyType, ModuleType, SimpleNamespace
from typing import cast

import pytest
from PIL import Image

from tests.bundles import save_bundle
from tests.cli.conftest import Outcome, Run, files_here, in_process, png_that_claims
from vinograph.families import registry
from vinograph.families.contract import Call, Family
from vinograph.families.wuerstchen.arguments import FAMILY
from vinograph.models.bundle import Bundle


@pytest.fixture
def refused(vinograph: Run, bundle: Bundle) -> Run:
    """Run ``generate`` with the tiny bundle, and check that it leaves no new file."""

    def run(*arguments: object) -> Outcome:
        before = files_here()
        done = vinograph("generate", "a house", "--model", bundle.path, *arguments)
        assert files_here() == before
        assert "1/" not in done.err, "the drawing had started"
        return done

    return run


class TestPrompt:
    def test_an_empty_prompt_works(self, vinograph: Run, bundle: Bundle) -> None:
        assert vinograph("generate", "", "--model", bundle.path).code == 0
        assert Path("picture.png").exists()

    def test_a_prompt_that_is_no_text_is_refused(self, bundle: Bundle) -> None:
        done = in_process("generate", os.fsdecode(b"caf\xe9"), "--model", bundle.path)
        done.fails(2, "prompt", "not Unicode text")

    def test_a_missing_prompt_is_refused(self, vinograph: Run) -> None:
        vinograph("generate").fails(2, "there is no prompt", "--again FILE", "vinograph generate --help")


class TestSize:
    @pytest.mark.parametrize(
        ("size", "words"),
        [
            ("0x512", ("the width is 0", "128")),
            ("512x0", ("the height is 0", "128")),
            ("-128x128", ("the width is -128", "128")),
            ("1000x512", ("the width is 1000", "multiples of 128 from 128 to 2048", "896 and 1024")),
            ("512x1088", ("the height is 1088", "1024 and 1152")),
            ("4096x512", ("the width is 4096", "2048")),
            (f"128x{10**30}", ("the height is 1000", "2048")),
        ],
    )
    def test_an_unsupported_size_names_the_nearest(self, refused: Run, size: str, words: tuple[str, ...]) -> None:
        refused("--size", size).fails(2, f"--size {size}", *words)

    @pytest.mark.parametrize("size", ["512", "big", "512x", "1e3x512", "512.0x512", "512x512x3", "", "nanxnan"])
    def test_a_size_of_another_form_is_refused(self, refused: Run, size: str) -> None:
        refused("--size", size).fails(2, f"--size is {size!r}", "512x512")

    def test_a_size_with_too_many_digits_is_refused(self, refused: Run) -> None:
        refused("--size", f"{'9' * 5000}x128").fails(2, "--size")


class TestNumbers:
    @pytest.mark.parametrize("option", ["--steps", "--decoder-steps", "--count"])
    @pytest.mark.parametrize("given", ["0", "-1", "1001", "two", "1.5", "nan", "", "9" * 5000])
    def test_wrong_counts_are_refused(self, refused: Run, option: str, given: str) -> None:
        refused(option, given).fails(2, f"{option} is ", given[:100], "from 1 to 1000")

    @pytest.mark.parametrize("option", ["--guidance-scale", "--decoder-guidance-scale"])
    @pytest.mark.parametrize("given", ["nan", "inf", "-inf", "-1", "strong", ""])
    def test_wrong_guidance_scales_are_refused(self, refused: Run, option: str, given: str) -> None:
        refused(option, given).fails(2, f"{option} is ", given, "a number from 0 up")

    @pytest.mark.parametrize("given", ["0", "-0.5", "1.01", "nan", "inf", "half"])
    def test_a_wrong_strength_is_refused(self, refused: Run, given: str) -> None:
        Image.new("RGB", (128, 128)).save("start.png")
        refused("--image", "start.png", "--strength", given).fails(2, "--strength is ", "above 0 and up to 1")

    def test_a_strength_without_an_image_is_refused(self, refused: Run) -> None:
        refused("--strength", "0.5").fails(2, "--strength needs --image")

    @pytest.mark.parametrize("given", ["-2", str(2**64), "1.5", "lucky"])
    def test_a_wrong_seed_is_refused(self, refused: Run, given: str) -> None:
        refused("--seed", given).fails(2, "--seed is ", given, "from 0 to 18446744073709551615")

    def test_too_few_steps_for_the_strength_are_refused(self, refused: Run) -> None:
        Image.new("RGB", (128, 128)).save("start.png")
        options = ("--image", "start.png", "--steps", 2, "--strength", 0.3)
        refused(*options).fails(2, "2 steps at strength 0.3 leave none", "at least 4 steps")

    def test_a_wrong_number_for_reconstruct_is_refused(self, vinograph: Run, bundle: Bundle) -> None:
        Image.new("RGB", (128, 128)).save("start.png")
        done = vinograph("reconstruct", "start.png", "--model", bundle.path, "--decoder-steps", "0")
        done.fails(2, "--decoder-steps is 0")


class TestDevice:
    def test_an_absent_device_is_refused(self, refused: Run) -> None:
        refused("--device", "GPU.7").fails(2, "device 'GPU.7'", "there is CPU")

    @pytest.mark.parametrize(
        "device", ["prior=GPU.7,vqgan=CPU", "HETERO:GPU.7,CPU", "prior=HETERO:GPU.7,CPU,vqgan=CPU"]
    )
    def test_an_absent_device_among_others_is_refused(self, refused: Run, device: str) -> None:
        refused("--device", device).fails(2, "'GPU.7' is not on this machine", "there is CPU")

    def test_a_device_for_an_unknown_component_is_refused(self, refused: Run) -> None:
        refused("--device", "unet=CPU").fails(2, "'unet'", "prior", "vqgan")

    @pytest.mark.parametrize("device", ["", "cpu2", "CPU,", "CPU,vqgan=CPU", "prior="])
    def test_a_device_of_another_form_is_refused(self, refused: Run, device: str) -> None:
        refused("--device", device).fails(2)

    @pytest.mark.parametrize("precision", ["f64", "", "FP16", "prior=int8"])
    def test_an_unknown_precision_is_refused(self, refused: Run, precision: str) -> None:
        refused("--precision", precision).fails(2, "precision is", "auto, f32, bf16, f16")


class TestOptionsOfOtherFamilies:
    @pytest.fixture(autouse=True)
    def _another_family(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Register a second family with options that Würstchen doesn't have."""
        takes = {"prompt": None, "num_inference_steps": 20, "guidance_scale": 5.0, "output_type": "pil"}
        run = FAMILY.calls["generate"].run
        call = Call(about="text to image", takes=MappingProxyType(takes), positional=("prompt",), run=run)
        options = {"steps": "num_inference_steps", "refiner_steps": "num_inference_steps"}
        other = Family("other", "Other", {"generate": call}, options)
        monkeypatch.setattr(registry, "FAMILIES", {**registry.FAMILIES, "other": "tests.other"})
        arguments = cast("ModuleType", SimpleNamespace(FAMILY=other))
        monkeypatch.setitem(sys.modules, "tests.other.arguments", arguments)

    def test_help_names_an_options_family(self, vinograph: Run) -> None:
        done = vinograph("generate", "--help")
        assert done.code == 0
        assert "--refiner-steps N" in done.out
        assert "Other: denoising steps" in done.out
        assert "--decoder-steps N" in done.out

    def test_a_model_names_its_own_options(self, refused: Run) -> None:
        own = ("--size", "--steps", "--guidance-scale", "--decoder-steps", "--decoder-guidance-scale", "--strength")
        refused("--refiner-steps", 3).fails(2, "--refiner-steps is not an option of tiny", "wuerstchen", *own)

    def test_the_other_family_names_its_own_options(self, vinograph: Run, tmp_path: Path) -> None:
        whole = save_bundle(tmp_path / "other")
        manifest = json.loads((whole.path / "bundle.json").read_text())
        (whole.path / "bundle.json").write_text(json.dumps({**manifest, "family": "other", "defaults": {}}))
        done = vinograph("generate", "a house", "--model", "other", "--decoder-steps", 3)
        done.fails(2, "--decoder-steps is not an option", "other", "--steps")
        done = vinograph("reconstruct", "a.png", "--model", "other")
        done.fails(2, "other can't reconstruct", "generate")

    def test_an_option_of_no_family_is_refused(self, refused: Run) -> None:
        refused("--sharpness", 3).fails(2, "--sharpness", "vinograph generate --help")


class TestOutput:
    @pytest.mark.parametrize("name", ["picture", "picture.gif", "picture.png.txt", ".png", ""])
    def test_an_unknown_extension_is_refused(self, refused: Run, name: str) -> None:
        refused("--output", name).fails(2, "output", ".png, .jpg, .jpeg, .webp")

    def test_a_directory_as_output_is_refused(self, refused: Run) -> None:
        Path("house.png").mkdir()
        refused("--output", "house.png").fails(2, "output house.png is a directory")

    def test_a_directory_as_one_of_several_outputs_is_refused(self, refused: Run) -> None:
        Path("a-2.png").mkdir()
        refused("--count", 3, "--output", "a.png").fails(2, "output a-2.png is a directory")

    def test_a_missing_folder_is_refused(self, refused: Run) -> None:
        refused("--output", "no/such/a.png").fails(2, "there is no folder no/such")

    def test_a_file_as_folder_is_refused(self, refused: Run) -> None:
        Path("file").write_text("x")
        refused("--output", "file/a.png").fails(2, "there is no folder file")

    def test_an_output_name_too_long_is_refused(self, refused: Run) -> None:
        refused("--output", "a" * 300 + ".png").fails(2, "File name too long")

    def test_the_output_is_checked_before_the_model(self, vinograph: Run) -> None:
        vinograph("generate", "x", "--model", "no/such", "--output", "a.gif").fails(2, "output a.gif")
        vinograph("reconstruct", "x.png", "--model", "no/such", "--output", "a.gif").fails(2, "output a.gif")

    def test_an_unwritable_folder_is_refused(self, refused: Run) -> None:
        refused("--output", "/proc/a.png").fails(2, "output /proc/a.png can't be written")


class TestInputPicture:
    @pytest.fixture(params=["generate", "reconstruct"])
    def with_picture(self, request: pytest.FixtureRequest, vinograph: Run, bundle: Bundle) -> Run:
        """Run either command with an image, and check that it leaves no file."""
        given = {"generate": ("generate", "a house", "--image"), "reconstruct": ("reconstruct",)}[request.param]

        def run(file: object) -> Outcome:
            before = files_here()
            done = vinograph(*given, file, "--model", bundle.path)
            assert files_here() == before
            return done

        return run

    def test_a_missing_image_is_refused(self, with_picture: Run) -> None:
        with_picture("no.png").fails(2, "image", "there is no file no.png")

    @pytest.mark.parametrize("kind", ["BMP", "ICO"])
    def test_an_unsupported_format_is_refused(self, with_picture: Run, kind: str) -> None:
        Image.new("RGB", (128, 128)).save("a.png", kind)
        with_picture("a.png").fails(2, "a.png is not a PNG, JPEG, WebP, AVIF, TIFF or GIF picture")

    @pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"\x80\x04pickle"])
    def test_a_file_that_is_no_image_is_refused(self, with_picture: Run, content: bytes) -> None:
        Path("a.png").write_bytes(content)
        with_picture("a.png").fails(2, "a.png is not a PNG, JPEG, WebP, AVIF, TIFF or GIF picture")

    def test_a_directory_as_image_is_refused(self, with_picture: Run) -> None:
        Path("a.png").mkdir()
        with_picture("a.png").fails(2, "there is no file a.png")

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
    def test_a_truncated_image_is_refused(self, with_picture: Run, kind: str) -> None:
        Image.effect_noise((128, 128), 50).convert("RGB").save("a.png", kind)
        content = Path("a.png").read_bytes()
        Path("a.png").write_bytes(content[: len(content) // 2])
        with_picture("a.png").fails(2, "a.png")

    def test_an_image_name_too_long_is_refused(self, with_picture: Run) -> None:
        with_picture("a" * 300).fails(2, "there is no file aaa")
        with_picture("\ud800.png").fails(2, "there is no file")

    @pytest.mark.parametrize("mode", ["L", "P", "RGB"])
    def test_excess_transparency_entries_are_ignored(self, vinograph: Run, bundle: Bundle, mode: str) -> None:
        """Transparency is dropped, so the image can be used."""
        Image.effect_noise((128, 128), 50).convert(mode).save("a.png")
        content = Path("a.png").read_bytes()
        chunk = b"tRNS" + bytes(300)
        at = content.index(b"IDAT") - 4
        longer = struct.pack(">I", 300) + chunk + struct.pack(">I", zlib.crc32(chunk))
        Path("a.png").write_bytes(content[:at] + longer + content[at:])
        done = vinograph("reconstruct", "a.png", "--model", bundle.path)
        assert done.code == 0, done.err

    @pytest.mark.parametrize("size", [(8001, 8000), (50_000, 50_000), (2**31 - 1, 2**31 - 1)])
    def test_an_image_too_large_is_not_decoded(self, with_picture: Run, size: tuple[int, int]) -> None:
        Path("a.png").write_bytes(png_that_claims(*size))
        with_picture("a.png").fails(2, "a.png", "64 megapixels")


class TestNumericalErrors:
    @pytest.mark.parametrize("stage", ["prior_text_encoder", "prior", "decoder", "vqgan"])
    def test_nan_names_the_stage_and_the_precision(self, vinograph: Run, tmp_path: Path, stage: str) -> None:
        save_bundle(tmp_path / "broken", broken=stage)
        done = vinograph("generate", "a house", "--model", "broken", "--precision", "f32")
        done.fails(1, f"the {stage} stage computed NaN or infinity in f32: ", "vinograph verify")
        assert files_here() == ["broken"]

    def test_nan_suggests_another_precision(self, vinograph: Run, tmp_path: Path) -> None:
        save_bundle(tmp_path / "broken", broken="decoder")
        done = vinograph("generate", "a house", "--model", "broken", "--precision", "bf16")
        done.fails(1, "the decoder stage computed NaN or infinity in ")
        assert ("try precision f32" in done.err) == ("infinity in bf16" in done.err)

    def test_nan_in_reconstruct_names_the_stage(self, vinograph: Run, tmp_path: Path) -> None:
        save_bundle(tmp_path / "broken", broken="image_encoder")
        Image.new("RGB", (128, 128)).save("start.png")
        vinograph("reconstruct", "start.png", "--model", "broken").fails(1, "the image_encoder stage computed NaN")
        assert files_here() == ["broken", "start.png"]
