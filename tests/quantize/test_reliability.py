"""What `vinograph quantize` refuses, what it tells, and what one that is cut off leaves."""

from __future__ import annotations

import dataclasses
import resource
import shutil
import subprocess
from collections import namedtuple
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import WITHOUT_HEAVY, Run, command, files_here, in_process, running, wait_for
from vinograph import Pipeline
from vinograph.bundle import Bundle
from vinograph.pipeline import watched
from vinograph.quantize import calibration, speed
from vinograph.runtime.tuning import DEFAULT, Choice

Usage = namedtuple("Usage", "total used free")

SMALL_SEGMENTS = "import vinograph.quantize.segments as s; s.SEGMENT = 20_000"


def contents(directory: Path) -> dict[str, bytes | str]:
    """Every file's bytes, and what the manifest says but for the speed, which no two runs measure alike."""
    found: dict[str, bytes | str] = {each.name: each.read_bytes() for each in directory.iterdir()}
    manifest = Bundle.open(directory).manifest
    if manifest.quantization is not None:
        speed = dataclasses.replace(manifest.quantization.speed, denoisers={})
        made = dataclasses.replace(manifest.quantization, speed=speed)
        found["bundle.json"] = dataclasses.replace(manifest, quantization=made).to_json()
    return found


class TestRefused:
    """Nothing is left behind."""

    @pytest.fixture(autouse=True)
    def _nothing_left(self, tmp_path: Path) -> Iterator[None]:
        yield
        assert not [name for name in files_here() if name.startswith((".", "out"))]

    def test_an_unknown_mode(self, vinograph: Run, sdxl: Bundle) -> None:
        vinograph("quantize", sdxl.path, "out", "--mode", "int8").fails(2, "'int8'", "weights, mixed, full")

    def test_no_mode(self, vinograph: Run, sdxl: Bundle) -> None:
        vinograph("quantize", sdxl.path, "out").fails(2, "--mode", "vinograph quantize --help")

    def test_where_nncf_is_not_installed(self, sdxl: Bundle) -> None:
        done = in_process("quantize", sdxl.path, "out", "--mode", "full", first=WITHOUT_HEAVY + "\n")
        done.fails(2, "nncf", 'pip install "vinograph[quantize]"')

    def test_no_bundle(self, vinograph: Run) -> None:
        vinograph("quantize", "nowhere", "out", "--mode", "full").fails(3, "nowhere")

    def test_prompts_that_are_empty(self, vinograph: Run, sdxl: Bundle) -> None:
        Path("prompts.txt").write_text("\n  \n")
        done = vinograph("quantize", sdxl.path, "out", "--mode", "full", "--prompts", "prompts.txt")
        done.fails(2, "prompts.txt", "no prompts", "one on each line")

    def test_prompts_that_are_not_there(self, vinograph: Run, sdxl: Bundle) -> None:
        done = vinograph("quantize", sdxl.path, "out", "--mode", "full", "--prompts", "prompts.txt")
        done.fails(2, "prompts.txt")

    def test_prompts_that_are_no_text(self, vinograph: Run, sdxl: Bundle) -> None:
        Path("prompts.txt").write_bytes(b"\xff\xfe\x00house")
        done = vinograph("quantize", sdxl.path, "out", "--mode", "full", "--prompts", "prompts.txt")
        done.fails(2, "prompts.txt", "read")

    def test_prompts_where_none_are_drawn(self, vinograph: Run, sdxl: Bundle) -> None:
        Path("prompts.txt").write_text("a house\n")
        done = vinograph("quantize", sdxl.path, "out", "--mode", "weights", "--prompts", "prompts.txt")
        done.fails(2, "--prompts", "without data")

    def test_a_disk_that_is_too_small(self, vinograph: Run, sdxl: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9 - 1000, 1000))
        vinograph("quantize", sdxl.path, "out", "--mode", "full").fails(5, "GB", "free")

    def test_a_disk_that_is_full_after_all(self, vinograph: Run, sdxl: Bundle) -> None:
        """A limit on the size of files fails writes as a full disk does."""
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, before[1]))
        try:
            done = vinograph("quantize", sdxl.path, "out", "--mode", "weights")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        done.fails(5, "out", "free")


class TestTargets:
    @pytest.fixture
    def out(self, vinograph: Run, sdxl: Bundle) -> Path:
        """A quantized bundle: ``out`` in the current folder."""
        assert vinograph("quantize", sdxl.path, "out", "--mode", "weights").code == 0
        return Path("out")

    def test_one_that_is_quantized_already(self, vinograph: Run, out: Path) -> None:
        vinograph("quantize", out, "again", "--mode", "full").fails(2, "out", "quantized already", "mode weights")
        assert files_here() == ["out"]

    def test_one_that_exists(self, vinograph: Run, sdxl: Bundle, out: Path) -> None:
        before = contents(out)
        vinograph("quantize", sdxl.path, out, "--mode", "weights").fails(2, "out exists", "--overwrite")
        assert contents(out) == before
        assert vinograph("quantize", sdxl.path, out, "--mode", "weights", "--overwrite").code == 0
        assert contents(out) == before

    def test_the_bundle_itself(self, vinograph: Run, sdxl: Bundle) -> None:
        shutil.copytree(sdxl.path, "bundle")
        done = vinograph("quantize", "bundle", "bundle", "--mode", "weights", "--overwrite")
        done.fails(2, "bundle to quantize itself")
        assert contents(Path("bundle")) == contents(sdxl.path)


class TestTold:
    def test_drawings_know_the_fastest_setting_at_once(
        self, vinograph: Run, sdxl: Bundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What was measured at the end of quantization is what the cache has of the denoiser, at the bundle's size."""
        monkeypatch.setenv("VINOGRAPH_CACHE", "cache")
        assert vinograph("quantize", sdxl.path, "out", "--mode", "weights").code == 0
        settings = vinograph("cache", "--json").record["settings"]
        (found,) = [each for each in settings if each["component"] == "unet" and each["setting"]]
        with watched(pipe := Pipeline.from_pretrained("out"), lambda name, given: seen.update({name: given})):
            seen: dict[str, Any] = {}
            pipe("a red house", seed=1, output_type="latent")
        shapes = {name: "x".join(map(str, value.shape)) for name, value in seen["unet"].items()}
        assert found["shapes"] == ", ".join(f"{name} {shape}" for name, shape in sorted(shapes.items()))

    def test_by_quantize_and_inspect(self, vinograph: Run, sdxl: Bundle) -> None:
        Path("prompts.txt").write_text("a red house\ntwo cats\n")
        done = vinograph("quantize", sdxl.path, "out", "--mode", "mixed", "--prompts", "prompts.txt", "--json")
        assert done.code == 0, done.err
        assert done.record["components"]["unet"] == {"weights": "int8", "activations": "int8 convolutions"}
        assert done.record["quantization"]["prompts"] == 2
        assert "pictures to calibrate with 4/4" in done.err
        assert "segments quantized 3/3" in done.err
        told = vinograph("inspect", "out").out
        assert "mode mixed, calibrated on 16 samples of 2 prompts, by nncf " in " ".join(told.split())
        assert "int8, activations int8 convolutions" in told
        asked = vinograph("inspect", "out", "--json").record["quantization"]
        assert done.record["quantization"] == {**asked, "ratio": done.record["quantization"]["ratio"]}

    @pytest.mark.parametrize(("before", "after"), [(2.0, 1.0), (1.0, 2.0)])
    def test_whether_it_is_faster(
        self, vinograph: Run, sdxl: Bundle, monkeypatch: pytest.MonkeyPatch, before: float, after: float
    ) -> None:
        """By quantize, which warns where it isn't, and by inspect."""
        monkeypatch.setattr(speed, "measure", lambda *_: {"unet": (before, Choice(DEFAULT, {DEFAULT: after}, 0.0))})
        done = vinograph("quantize", sdxl.path, "out", "--mode", "weights")
        told = vinograph("inspect", "out").out
        for each in (done.out, told):
            assert f"unet {before:.3g} s before, {after:.3g} s now ({before / after:.2f}×)" in " ".join(each.split())
            assert ("NOT faster than before" in each) == (after > before)
        assert ("warning: on this machine it isn't faster" in done.err) == (after > before)

    def test_what_comes_out_draws(self, vinograph: Run, sdxl: Bundle) -> None:
        done = vinograph("quantize", sdxl.path, "out", "--mode", "weights")
        assert done.code == 0, done.err
        assert "draw with it: vinograph generate PROMPT --model" in done.out
        assert vinograph("generate", "a red house", "--model", "out", "--seed", 7).code == 0
        assert Path("picture.png").is_file()


def quantizing(source: Path) -> AbstractContextManager[subprocess.Popen[str]]:
    """A quantization in a process of its own, killed at the end of the block if it still runs."""
    arguments = command("quantize", source, "out", "--mode", "full", first=SMALL_SEGMENTS + "\n", warnings="default")
    return running(arguments)


@pytest.mark.usefixtures("small_segments")
class TestCutOff:
    def test_killed_and_run_again(self, vinograph: Run, sdxl: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
        """Twice: among the pictures, and among the segments. What comes out has the bytes of an undisturbed one."""
        assert vinograph("quantize", sdxl.path, "undisturbed", "--mode", "full").code == 0
        for line in ("pictures to calibrate with 2/", "segments quantized 2/"):
            with quantizing(sdxl.path) as process:
                wait_for(process, line)
                process.kill()
            assert not Path("out").exists()
        monkeypatch.setattr(calibration, "watched", None)  # drawing again would fail
        done = vinograph("quantize", sdxl.path, "out", "--mode", "full")
        assert done.code == 0, done.err
        assert contents(Path("out")) == contents(Path("undisturbed"))
        assert files_here() == ["out", "undisturbed"]

    def test_two_into_one_place(self, vinograph: Run, sdxl: Bundle) -> None:
        with quantizing(sdxl.path) as process:
            wait_for(process, "pictures to calibrate with")
            vinograph("quantize", sdxl.path, "out", "--mode", "full").fails(2, "is writing", "out")
