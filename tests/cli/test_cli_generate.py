"""`vinograph generate` and `vinograph reconstruct` with valid requests."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.bundles import save_bundle
from tests.cli.conftest import WITHOUT_HEAVY, Run, command, environment, files_here, in_process
from vinograph.images import read_metadata
from vinograph.models.bundle import Bundle


def pixels(file: str | Path) -> np.ndarray:
    with Image.open(file) as picture:
        return np.asarray(picture.convert("RGB"))


class TestOutput:
    def test_the_file_the_seed_and_the_seconds_are_printed(self, vinograph: Run, bundle: Bundle) -> None:
        done = vinograph("generate", "a red house", "--model", bundle.path, "--seed", 7)
        assert done.code == 0
        first, second = done.out.splitlines()
        assert first == "picture.png  seed 7"
        assert re.fullmatch(r"text \d+\.\d\d s, prior \d+\.\d\d s, decoder \d+\.\d\d s, vqgan \d+\.\d\d s", second)
        assert pixels("picture.png").shape == (128, 128, 3)
        assert files_here() == ["picture.png"]

    def test_an_existing_picture_is_replaced(self, vinograph: Run, bundle: Bundle) -> None:
        Path("house.png").write_text("not a picture")
        assert vinograph("generate", "a house", "--model", bundle.path, "--output", "house.png").code == 0
        assert pixels("house.png").shape == (128, 128, 3)

    @pytest.mark.parametrize(("name", "kind"), [("a.jpg", "JPEG"), ("a.JPEG", "JPEG"), ("a.webp", "WEBP")])
    def test_the_extension_chooses_the_format(self, vinograph: Run, bundle: Bundle, name: str, kind: str) -> None:
        assert vinograph("generate", "a house", "--model", bundle.path, "--output", name).code == 0
        with Image.open(name) as picture:
            assert picture.format == kind

    def test_several_pictures_are_numbered_and_reproducible_alone(self, vinograph: Run, bundle: Bundle) -> None:
        common = ("a house", "--model", bundle.path, "--precision", "f32")
        done = vinograph("generate", *common, "--seed", 7, "--count", 3, "--output", "a.png")
        assert done.out.splitlines()[:3] == ["a-1.png  seed 7", "a-2.png  seed 8", "a-3.png  seed 9"]
        assert files_here() == ["a-1.png", "a-2.png", "a-3.png"]
        vinograph("generate", *common, "--seed", 8, "--output", "alone.png")
        assert np.abs(pixels("alone.png").astype(int) - pixels("a-2.png")).max() <= 1

    def test_a_random_seed_is_reported(self, vinograph: Run, bundle: Bundle) -> None:
        done = vinograph("generate", "a house", "--model", bundle.path, "--output", "a.png", "--json")
        seed = done.record["images"][0]["seed"]
        vinograph("generate", "a house", "--model", bundle.path, "--output", "b.png", "--seed", seed)
        assert np.array_equal(pixels("a.png"), pixels("b.png"))

    def test_a_png_stores_its_request(self, vinograph: Run, bundle: Bundle) -> None:
        vinograph("generate", "a häuschen", "--model", bundle.path, "--seed", 7, "--steps", 2, "--count", 2)
        metadata = read_metadata(Path("picture-2.png"))
        assert metadata is not None
        assert metadata["model"] == "tiny"
        assert {"vinograph", "python"} <= metadata.keys()
        request = metadata["request"]
        assert (request["seed"], request["prior_num_inference_steps"]) == (8, 2)
        assert "a häuschen" in request["prompt"]

    def test_no_metadata_stores_no_request(self, vinograph: Run, bundle: Bundle) -> None:
        vinograph("generate", "a house", "--model", bundle.path, "--no-metadata")
        with Image.open("picture.png") as picture:
            assert picture.info == {}


class TestOptions:
    def test_every_option_reaches_the_family(self, vinograph: Run, bundle: Bundle) -> None:
        done = vinograph(
            *(
                "generate",
                "a house",
                "--model",
                bundle.path,
                "--size",
                "384x256",
                "--steps",
                5,
                "--guidance-scale",
                3.5,
            ),
            *("--negative-prompt", "a boat", "--seed", 2**64 - 1, "--count", 2, "--decoder-steps", 4),
            *("--decoder-guidance-scale", 1.5, "--device", "CPU", "--precision", "f32", "--json"),
        )
        assert done.code == 0, done.err
        request = done.record["request"]
        assert (request["width"], request["height"]) == (384, 256)
        assert (request["prior_num_inference_steps"], request["num_inference_steps"]) == (5, 4)
        assert (request["prior_guidance_scale"], request["decoder_guidance_scale"]) == (3.5, 1.5)
        assert request["negative_prompt"] == ["a boat"]
        assert [each["seed"] for each in done.record["images"]] == [2**64 - 1, 0]
        assert set(done.record["devices"].values()) == {"CPU f32"}
        assert pixels("picture-2.png").shape == (256, 384, 3)

    def test_precision_and_device_can_be_set_by_component(self, vinograph: Run, bundle: Bundle) -> None:
        options = ("--precision", "prior=f32,vqgan=f32", "--device", "prior=HETERO:CPU,decoder=CPU")
        done = vinograph("generate", "a house", "--model", bundle.path, *options, "--json")
        assert done.code == 0, done.err
        assert done.record["devices"]["prior"] == "CPU f32"
        assert done.record["devices"]["vqgan"] == "CPU f32"

    def test_another_prompt_gives_another_picture(self, vinograph: Run, bundle: Bundle) -> None:
        for file, text in {"a.png": "a red house", "b.png": "two blue boats"}.items():
            vinograph("generate", text, "--model", bundle.path, "--seed", 7, "--output", file)
        assert not np.array_equal(pixels("a.png"), pixels("b.png"))

    def test_image_to_image(self, vinograph: Run, bundle: Bundle) -> None:
        Image.new("RGB", (256, 128), "red").save("red.png")
        done = vinograph(
            *("generate", "a house", "--model", bundle.path, "--image", "red.png", "--strength", 0.5, "--steps", 4),
            "--json",
        )
        assert done.code == 0, done.err
        assert pixels("picture.png").shape == (128, 256, 3)
        assert done.record["request"]["strength"] == 0.5
        assert "prior 2/2" in done.err

    def test_a_model_in_the_models_folder_is_found_by_name(self, vinograph: Run, tmp_path: Path) -> None:
        save_bundle(tmp_path / "models" / "mine", name="mine")
        done = vinograph("generate", "a house", "--model", "mine", "--json")
        assert done.record["model"] == "mine"


class TestWarnings:
    def test_truncated_text_is_a_warning(self, vinograph: Run, bundle: Bundle) -> None:
        done = vinograph("generate", f"a red house {'on a hill ' * 20} at night", "--model", bundle.path, "--json")
        assert done.code == 0
        assert re.search(r"^warning: .*20 tokens; cut off: '.*at night'$", done.err, re.MULTILINE)
        assert len(done.record["warnings"]) == 1

    def test_an_ignored_negative_prompt_is_a_warning(self, vinograph: Run, bundle: Bundle) -> None:
        done = vinograph(
            *("generate", "a house", "--model", bundle.path, "--negative-prompt", "a boat", "--guidance-scale", 1)
        )
        assert done.code == 0
        assert "warning: the negative prompt was ignored" in done.err

    def test_a_resized_picture_is_a_warning(self, vinograph: Run, bundle: Bundle) -> None:
        Image.new("RGB", (300, 200), "red").save("red.png")
        done = vinograph("generate", "a house", "--model", bundle.path, "--image", "red.png")
        assert done.code == 0
        assert "warning: the picture was resized from 300x200 to " in done.err


class TestReport:
    def test_json_is_all_of_standard_output(self, vinograph: Run, bundle: Bundle) -> None:
        done = vinograph("generate", "a house", "--model", bundle.path, "--seed", 7, "--json")
        record = done.record
        computed = {"seconds", "devices", "settings", "report", "warnings"}
        assert record.keys() == {"model", "adapters", "images", "request", *computed}
        assert record["images"] == [{"file": "picture.png", "seed": 7}]
        assert record["seconds"].keys() == {"text", "prior", "decoder", "vqgan"}
        assert record["warnings"] == []
        assert "prior 4/4" in done.err

    def test_progress_is_plain_lines_without_a_terminal(self, vinograph: Run, bundle: Bundle) -> None:
        done = vinograph("generate", "a house", "--model", bundle.path, "--steps", 60, "--decoder-steps", 2)
        prior = [f"prior {index}/60" for index in range(10, 61, 10)]
        assert done.err.splitlines() == ["text 1/1", *prior, "decoder 1/2", "decoder 2/2", "vqgan 1/1"]

    def test_progress_is_bars_on_a_terminal(self, bundle: Bundle) -> None:
        reader, writer = pty.openpty()
        arguments = command("generate", "a house", "--model", bundle.path, "--seed", 7)
        env = environment(TERM="xterm-256color", COLUMNS="80")
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=writer, env=env) as process:
            os.close(writer)
            assert process.stdout is not None
            seen = b""
            while chunk := _read(reader):
                seen += chunk
            out = process.stdout.read()
        os.close(reader)
        assert process.returncode == 0
        assert out.startswith(b"picture.png  seed 7")
        assert "━".encode() in seen
        assert b"prior" in seen
        assert b"4/4" in seen
        assert seen.endswith(b"\x1b[?25h") or b"\x1b[?25h" in seen  # the cursor is back

    def test_generate_needs_no_heavy_packages(self, bundle: Bundle) -> None:
        done = in_process("generate", "a house", "--model", bundle.path, "--seed", 7, first=WITHOUT_HEAVY)
        assert done.code == 0, done.err
        assert done.out.startswith("picture.png  seed 7\n")
        assert done.err.splitlines()[-1] == "vqgan 1/1"


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux's error when the other side is closed
        return b""


class TestReconstruct:
    @pytest.fixture(autouse=True)
    def _picture(self) -> None:
        Image.linear_gradient("L").convert("RGB").save("gradient.png")

    def test_reconstruct_prints_compression_and_psnr(self, vinograph: Run, bundle: Bundle) -> None:
        done = vinograph("reconstruct", "gradient.png", "--model", bundle.path, "--seed", 7)
        assert done.code == 0, done.err
        lines = done.out.splitlines()
        assert lines[0] == "reconstruction.png  seed 7"
        assert re.fullmatch(r"PSNR \d+\.\d\d dB", lines[1])
        assert lines[2:4] == ["42.7 times smaller in each direction", "341 times fewer values"]
        assert pixels("reconstruction.png").shape == (256, 256, 3)

    def test_reconstruct_prints_json(self, vinograph: Run, bundle: Bundle) -> None:
        options = ("--decoder-steps", 5, "--size", "128x256", "--output", "a.webp", "--precision", "f32", "--json")
        done = vinograph("reconstruct", "gradient.png", "--model", bundle.path, *options)
        report = done.record["report"]
        assert report.keys() == {"psnr", "spatial_compression", "values_compression"}
        assert done.record["request"]["num_inference_steps"] == 5
        assert pixels("a.webp").shape == (256, 128, 3)
        assert "decoder 5/5" in done.err

    def test_options_of_generate_are_refused(self, vinograph: Run, bundle: Bundle) -> None:
        vinograph("reconstruct", "gradient.png", "--model", bundle.path, "--steps", 5).fails(2, "--steps")

    def test_a_bundle_without_an_image_encoder_is_refused(self, vinograph: Run, tmp_path: Path) -> None:
        save_bundle(tmp_path / "blind", image_encoder=False)
        vinograph("reconstruct", "gradient.png", "--model", "blind").fails(3, "image_encoder", "--image-encoder FILE")
