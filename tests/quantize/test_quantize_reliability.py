"""What `vinograph quantize` refuses and reports, and that it can be killed at any moment."""

from __future__ import annotations

import resource
import shutil
import subprocess
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.bundles import comparable
from tests.cli.conftest import WITHOUT_HEAVY, Run, command, files_here, in_process, running, wait_for
from tests.interruption import kill, kill_everywhere
from vinograph import Pipeline
from vinograph.families.sdxl.recipe import RECIPE
from vinograph.models.bundle import Bundle
from vinograph.pipeline import observe_inputs
from vinograph.quantize import calibration, component, quantize, segments, speed
from vinograph.quantize.segments import Segment
from vinograph.runtime.tuning import DEFAULT, TuningResult

Usage = namedtuple("Usage", "total used free")

SMALL_SEGMENTS = "import vinograph.quantize.segments as s; s.SEGMENT = 20_000"


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

    def test_prompts_for_a_mode_that_draws_none(self, vinograph: Run, sdxl: Bundle) -> None:
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


@pytest.mark.usefixtures("small_segments")
class TestTargets:
    @pytest.fixture
    def out(self, quantized: Callable[[Bundle, str], Bundle], sdxl: Bundle) -> Path:
        """A quantized bundle: ``out`` in the current folder."""
        return Path(shutil.copytree(quantized(sdxl, "weights").path, "out"))

    def test_a_bundle_that_is_quantized_already(self, vinograph: Run, out: Path) -> None:
        vinograph("quantize", out, "again", "--mode", "full").fails(2, "out", "quantized already", "mode weights")
        assert files_here() == ["out"]

    def test_a_target_that_exists(self, vinograph: Run, sdxl: Bundle, out: Path) -> None:
        before = comparable(out)
        vinograph("quantize", sdxl.path, out, "--mode", "weights").fails(2, "out exists", "--overwrite")
        assert comparable(out) == before
        assert vinograph("quantize", sdxl.path, out, "--mode", "weights", "--overwrite").code == 0
        assert comparable(out) == before

    def test_the_bundle_itself(self, vinograph: Run, sdxl: Bundle) -> None:
        shutil.copytree(sdxl.path, "bundle")
        done = vinograph("quantize", "bundle", "bundle", "--mode", "weights", "--overwrite")
        done.fails(2, "bundle to quantize itself")
        assert comparable(Path("bundle")) == comparable(sdxl.path)


class TestReports:
    def test_drawings_know_the_fastest_setting_at_once(
        self, vinograph: Run, sdxl: Bundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The setting measured by quantization is in the cache, for the bundle's size."""
        monkeypatch.setenv("VINOGRAPH_CACHE", "cache")
        assert vinograph("quantize", sdxl.path, "out", "--mode", "weights").code == 0
        settings = vinograph("cache", "--json").record["settings"]
        (found,) = [each for each in settings if each["component"] == "unet" and each["setting"]]
        with observe_inputs(pipe := Pipeline.from_pretrained("out"), lambda name, given: seen.update({name: given})):
            seen: dict[str, Any] = {}
            pipe("a red house", seed=1, output_type="latent")
        shapes = {name: "x".join(map(str, value.shape)) for name, value in seen["unet"].items()}
        assert found["shapes"] == ", ".join(f"{name} {shape}" for name, shape in sorted(shapes.items()))

    def test_quantize_and_inspect_report_it(self, vinograph: Run, sdxl: Bundle) -> None:
        Path("prompts.txt").write_text("a red house\ntwo cats\n")
        done = vinograph("quantize", sdxl.path, "out", "--mode", "mixed", "--prompts", "prompts.txt", "--json")
        assert done.code == 0, done.err
        assert done.record["components"]["unet"] == {"weights": "int8", "activations": "int8 convolutions"}
        assert done.record["quantization"]["prompts"] == 2
        assert "pictures to calibrate with 4/4" in done.err
        assert "segments quantized 3/3" in done.err
        report = vinograph("inspect", "out").out
        assert "mode mixed, calibrated on 16 samples of 2 prompts, by nncf " in " ".join(report.split())
        assert "int8, activations int8 convolutions" in report
        inspected = vinograph("inspect", "out", "--json").record["quantization"]
        assert done.record["quantization"] == {**inspected, "ratio": done.record["quantization"]["ratio"]}

    @pytest.mark.parametrize(("before", "after"), [(2.0, 1.0), (1.0, 2.0)])
    def test_the_report_says_whether_it_is_faster(
        self, vinograph: Run, sdxl: Bundle, monkeypatch: pytest.MonkeyPatch, before: float, after: float
    ) -> None:
        """quantize warns where it isn't, and inspect reports it."""
        monkeypatch.setattr(
            speed, "measure", lambda *_: {"unet": (before, TuningResult(DEFAULT, {DEFAULT: after}, 0.0))}
        )
        done = vinograph("quantize", sdxl.path, "out", "--mode", "weights")
        report = vinograph("inspect", "out").out
        for each in (done.out, report):
            assert f"unet {before:.3g} s before, {after:.3g} s now ({before / after:.2f}×)" in " ".join(each.split())
            assert ("NOT faster than before" in each) == (after > before)
        assert ("warning: on this machine it isn't faster" in done.err) == (after > before)

    def test_the_quantized_bundle_draws(self, vinograph: Run, sdxl: Bundle) -> None:
        done = vinograph("quantize", sdxl.path, "out", "--mode", "weights")
        assert done.code == 0, done.err
        assert "draw with it: vinograph generate PROMPT --model" in done.out
        assert vinograph("generate", "a red house", "--model", "out", "--seed", 7).code == 0
        assert Path("picture.png").is_file()


class FakePipeline:
    """It "draws" in one step, in which the UNet is given what its inputs' names say."""

    def __init__(self) -> None:
        self.options = {"steps": "num_inference_steps"}
        self.calls = {"generate": SimpleNamespace(takes={"num_inference_steps": 1})}
        self.notes: list[Callable[[str, dict[str, Any]], None]] = []

    def __call__(self, prompt: str, **options: Any) -> None:
        for note in self.notes:
            note("unet", UNET_INPUTS)


UNET_INPUTS = {
    "timestep": np.zeros(1, np.float32),
    "sample": np.zeros((1, 4, 8, 8), np.float32),
    "encoder_hidden_states": np.zeros((1, 77, 24), np.float32),
    "text_embeds": np.zeros((1, 16), np.float32),
    "time_ids": np.zeros((1, 6), np.float32),
}


def _compute_values(work: component.ComponentWork, segment: Segment, model: object) -> list[Path]:
    """Values of no meaning under the right names."""
    return [
        component._save_value(work.value(sample, key), np.full(4, sample, np.float32))
        for sample in range(work.samples)
        for key in segment.outputs
    ]


def quantizing(source: Path) -> AbstractContextManager[subprocess.Popen[str]]:
    """A quantization in a process of its own, killed at the end of the block if it still runs."""
    arguments = command("quantize", source, "out", "--mode", "full", first=SMALL_SEGMENTS + "\n", warnings="default")
    return running(arguments)


@pytest.mark.usefixtures("small_segments")
class TestCutOff:
    def test_killed_and_run_again(
        self,
        vinograph: Run,
        sdxl: Bundle,
        quantized: Callable[[Bundle, str], Bundle],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Killed in calibration and among segments, it ends with an undisturbed run's bytes."""
        undisturbed = comparable(quantized(sdxl, "full").path)
        for line in ("pictures to calibrate with 2/", "segments quantized 2/"):
            with quantizing(sdxl.path) as process:
                wait_for(process, line)
                process.kill()
            assert not Path("out").exists()
        monkeypatch.setattr(calibration, "observe_inputs", None)  # drawing again would fail
        done = vinograph("quantize", sdxl.path, "out", "--mode", "full")
        assert done.code == 0, done.err
        assert comparable(Path("out")) == undisturbed
        assert files_here() == ["out"]

    @pytest.mark.usefixtures("_cheap")
    @pytest.mark.parametrize("every", [24, pytest.param(1, marks=pytest.mark.long)])
    def test_killed_at_any_moment(self, sdxl: Bundle, tmp_path: Path, every: int) -> None:
        """Killed before any operation on the disk or within a write, it ends as if undisturbed."""
        undisturbed = comparable(quantize(sdxl.path, tmp_path / "out", mode="full").path)

        def folder(name: str) -> Path:
            (tmp_path / name).mkdir()
            return tmp_path / name

        def run(place: Path) -> None:
            if not (place / "out").exists():
                quantize(sdxl.path, place / "out", mode="full")

        def check(place: Path, how: str) -> None:
            assert comparable(place / "out") == undisturbed, how
            assert {each.name for each in place.iterdir()} <= {"out", ".out.lock"}, how

        names = kill_everywhere(folder, run, check, every)
        assert {"write unet.xml", "write segment-1.xml", "rmdir unet", "unlink 0.npz"} <= set(names)

    @pytest.fixture
    def _cheap(self, small_segments: None, monkeypatch: pytest.MonkeyPatch) -> None:
        """A quick quantization that writes what a real one writes, in the same order.

        It has one component in two segments, and one sample. Graphs stay as they are, and nothing
        is measured.
        """
        result = TuningResult(DEFAULT, {DEFAULT: 1.0}, 0.0)
        monkeypatch.setattr(calibration, "SAMPLES", 1)
        monkeypatch.setattr(segments, "SEGMENT", 110_000)
        monkeypatch.setattr("vinograph.quantize._applicable_recipes", lambda _: {"unet": RECIPE["unet"]})
        monkeypatch.setattr(component, "quantize_activations", lambda model, *_: model)
        monkeypatch.setattr(component, "compress_weights", lambda model, *_: model)
        monkeypatch.setattr(component, "_compute_values", _compute_values)
        monkeypatch.setattr(calibration, "Pipeline", lambda *_, **__: FakePipeline())
        monkeypatch.setattr(calibration, "observe_inputs", lambda pipe, note: nullcontext(pipe.notes.append(note)))
        monkeypatch.setattr(speed, "first_calls", lambda *_: {})
        monkeypatch.setattr(speed, "measure", lambda *_: {"unet": (1.0, result)})
        monkeypatch.setattr(speed, "remember", lambda *_: None)

    @pytest.mark.usefixtures("_cheap")
    @pytest.mark.parametrize("lost", ["segment-0.bin", "values/0", "0.npz"])
    def test_finished_work_that_is_lost_is_done_again(self, sdxl: Bundle, tmp_path: Path, lost: str) -> None:
        undisturbed = comparable(quantize(sdxl.path, tmp_path / "out", mode="full").path)
        place = tmp_path / "killed"
        place.mkdir()
        kill(place, lambda place: quantize(sdxl.path, place / "out", mode="full"), before="write segment-1.xml")
        found = place / ".out.partial" / ".work" / "unet" / lost
        shutil.rmtree(found) if found.is_dir() else found.write_bytes(found.read_bytes()[:-1])
        assert comparable(quantize(sdxl.path, place / "out", mode="full").path) == undisturbed

    def test_two_into_one_place(self, vinograph: Run, sdxl: Bundle) -> None:
        with quantizing(sdxl.path) as process:
            wait_for(process, "pictures to calibrate with")
            vinograph("quantize", sdxl.path, "out", "--mode", "full").fails(2, "is writing", "out")
