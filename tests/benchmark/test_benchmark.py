"""``vinograph benchmark`` as its user meets it: figures, failures, order, charts."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.benchmark.conftest import Measure
from tests.bundles import save_low_bit_bundle, save_sdxl_bundle
from tests.cli.conftest import Run, command, environment, in_process
from vinograph.benchmark import chart, shares
from vinograph.models.bundle import Bundle
from vinograph.runtime.cache import Cache

QUICK = ("--size", "64x64", "--adherence", 0)
DRAWS = """
import numpy as np
say('started', versions={'pretender': '1'})
say('imported')
say('opened', same_noise=True)
with open(os.environ['LOG'], 'a') as log:
    print(task['count'], *task['prompts'], sep='|', file=log)
for index, _ in enumerate(task['prompts']):
    file = f"{task['folder']}/{index}.npy"
    np.save(file, np.zeros((task['count'], 64, 64, 3), np.uint8))
    say('drawn', seconds=1.0 + index, cpu_steal=float(os.environ.get('CPU_STEAL', 0)), stages={'unet': 0.5 + index},
        computed={'all': os.environ.get('COMPUTED', 'CPU f32')}, file=file)
"""


class TestFigures:
    def test_all_that_is_measured_is_recorded(self, measure: Measure, sdxl: Bundle, tmp_path: Path) -> None:
        file = tmp_path / "all.json"
        record = measure(sdxl.path, *QUICK, "--runs", 3, "--seed", 9, "--steps", 2, "--output", file)
        assert json.loads(file.read_text()) == record
        assert set(record) == {*("vinograph", "date", "command", "machine", "config", "prepared", "references", "rows")}
        assert record["machine"]["cores"] >= 1
        assert {"processor", "memory", "system", "load_average"} < set(record["machine"])
        (row,) = record["rows"]
        assert (row["name"], row["system"], row["family"]) == ("tiny-sdxl", "vinograph", "sdxl")
        assert row["size"] == sdxl.size
        assert row["settings"]["num_inference_steps"] == 2
        assert (row["settings"]["width"], row["settings"]["height"]) == (64, 64)
        assert row["failure"] is None
        assert row["versions"]["openvino"]
        assert set(row["stages"]) == set(row["first_stages"]) == {"text", "unet", "vae"}
        assert row["peaks"]["resident"] >= row["peaks"]["anonymous"] > 0
        assert row["peaks"]["mapped"] > 0
        assert 0 < row["load"]["import"] < row["load"]["whole"] < row["first"]
        assert row["computed"].keys() == {"text_encoder", "text_encoder_2", "unet", "tiny_vae_decoder"}

    def test_medians_are_of_every_single_timing(self, measure: Measure, sdxl: Bundle) -> None:
        (row,) = measure(sdxl.path, *QUICK, "--runs", 3, "--count", 2, "--no-reference")["rows"]
        drawn = [[e for e in each["events"] if e["event"] == "drawn"] for each in row["processes"]]
        assert [len(each) for each in drawn] == [3, 2]
        later = [run for each in drawn for run in each[1:]]
        assert row["seconds"] == [run["seconds"] for run in later]
        assert row["seconds_per_picture"] == statistics.median(row["seconds"]) / 2
        assert row["pictures_per_minute"] == pytest.approx(60 / row["seconds_per_picture"])
        assert row["stages"]["unet"] == statistics.median(run["stages"]["unet"] for run in later)
        assert row["first"] == statistics.median(each[0]["at"] for each in drawn)
        assert row["ratio"] == 1

    def test_the_picture_is_compared_with_the_one_in_f32(self, measure: Measure, sdxl: Bundle) -> None:
        record = measure(sdxl.path, *QUICK, "--runs", 0, "--rounds", 1, "--precision", "f32")
        (row,) = record["rows"]
        assert row["psnr"] is None  # infinite: JSON has no number for it
        assert row["ssim"] == pytest.approx(1)
        assert [each["name"] for each in record["references"]] == ["tiny-sdxl"]
        assert row["seconds"] == []
        assert row["seconds_per_picture"] is None

    def test_another_familys_picture_is_not(self, measure: Measure, sdxl: Bundle, pixart: Bundle) -> None:
        rows = measure(sdxl.path, pixart.path, "--adherence", 0, "--runs", 1, "--rounds", 1, "--precision", "f32")[
            "rows"
        ]
        assert [each["ssim"] for each in rows] == [pytest.approx(1), None]
        assert set(rows[1]["stages"]) == {"text", "transformer", "vae"}

    def test_the_table_fits_a_hundred_columns(self, vinograph: Run, sdxl: Bundle, tmp_path: Path) -> None:
        long = tmp_path / ("a-bundle-of-a-long-name-" * 3)
        long.symlink_to(sdxl.path)
        done = vinograph("benchmark", sdxl.path, long, *QUICK, "--runs", 1, "--rounds", 1)
        assert done.code == 0, done.err
        lines = done.out.splitlines()
        assert max(map(len, lines)) <= 100
        assert lines[0].split() == [
            "size",
            "load",
            "first",
            "picture",
            "/min",
            "peak",
            "ratio",
            "PSNR",
            "SSIM",
            "asked",
        ]
        assert lines[1].startswith("tiny-sdxl")
        assert any(line.split() == ["seconds", "by", "stage", "text", "unet", "vae"] for line in lines)

    def test_adherence_of_an_embedded_model(self, measure: Measure) -> None:
        done = measure("storybook-sdxl", "--adherence", 4, "--runs", 0, "--rounds", 1, "--no-reference")
        (row,) = done["rows"]
        assert row["adherence"]["prompts"] == 4
        assert row["adherence"]["mean"] > 0.8

    def test_without_a_checkout_it_says_so(self, measure: Measure, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("vinograph.benchmark.adherence.checkout", lambda: None)
        (row,) = measure("storybook-sdxl", "--adherence", 4, "--runs", 0, "--rounds", 1, "--no-reference")["rows"]
        assert row["adherence"] is None
        assert row["notes"] == ["adherence needs a checkout of Vinograph: the probe is in its folder training"]


class TestOtherPrecisions:
    @pytest.mark.parametrize(
        ("computed", "name"),
        [("CPU bfloat16", "bf16"), ("CPU float16", "f16"), ("CPU float32", None), ("CPU f32", None)],
    )
    def test_what_the_distance_may_come_from_is_said(
        self,
        measure: Measure,
        sdxl: Bundle,
        pretender: Any,
        checkpoint: Path,
        monkeypatch: pytest.MonkeyPatch,
        computed: str,
        name: str | None,
    ) -> None:
        monkeypatch.setenv("LOG", "log")
        monkeypatch.setenv("COMPUTED", computed)
        against = ("--against", "diffusers", "--python", f"diffusers={pretender(DRAWS)}", "--checkpoint", checkpoint)
        ours, theirs = measure(sdxl.path, *QUICK, *against, "--runs", 0, "--rounds", 1)["rows"]
        assert theirs["psnr"] is not None
        about = [each for each in theirs["notes"] if "a picture in f32" in each]
        assert len(about) == (name is not None)
        if name is not None:
            assert about[0].startswith(f"it computed in {name}, ")
            assert "--precision f32" in about[0]
        assert not [each for each in ours["notes"] if "a picture in f32" in each]


class TestOthers:
    """Work that others had done meanwhile."""

    @pytest.mark.parametrize(("cpu_steal", "noted"), [("0.3", ["30%"]), ("0.01", [])])
    def test_others_had_the_processors(
        self,
        measure: Measure,
        sdxl: Bundle,
        pretender: Any,
        checkpoint: Path,
        monkeypatch: pytest.MonkeyPatch,
        cpu_steal: str,
        noted: list[str],
    ) -> None:
        monkeypatch.setenv("LOG", "log")
        monkeypatch.setenv("CPU_STEAL", cpu_steal)
        python = pretender(DRAWS)
        against = ("--against", "diffusers", "--python", f"diffusers={python}", "--checkpoint", checkpoint)
        ours, theirs = measure(sdxl.path, *QUICK, *against, "--runs", 1, "--rounds", 1, "--no-reference")["rows"]
        assert 0 <= ours["cpu_steal"][0] <= 1
        assert theirs["cpu_steal"] == [float(cpu_steal)]
        assert [each.partition(" had ")[2].partition(" of ")[0] for each in theirs["notes"]] == noted


class TestTune:
    def test_settings_are_measured_first_on_request(
        self, measure: Measure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In a process of its own, which no figure counts."""
        monkeypatch.setenv("VINOGRAPH_CACHE", str(tmp_path / "cache"))
        bundle = save_low_bit_bundle(tmp_path / "few")
        options = (*QUICK, "--runs", 0, "--rounds", 1, "--no-reference")
        plain = measure(bundle.path, *options)
        assert (plain["prepared"], Cache().settings()) == ({}, {})
        record = measure(bundle.path, *options, "--tune")
        (prepared,) = record["prepared"].values()
        assert prepared["failure"] is None
        assert [each["component"] for each in Cache().settings().values()] == ["unet"]
        assert len(record["rows"][0]["processes"]) == 1


class TestOrder:
    @pytest.mark.parametrize(
        ("runs", "rounds", "wanted"), [(5, 2, [3, 2]), (0, 2, [0, 0]), (1, 3, [1, 0, 0]), (4, 1, [4])]
    )
    def test_runs_are_spread_over_rounds(self, runs: int, rounds: int, wanted: list[int]) -> None:
        assert shares(runs, rounds) == wanted

    def test_systems_take_turns(
        self, vinograph: Run, sdxl: Bundle, pretender: Any, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """And each picture of a process is of the next prompt."""
        monkeypatch.setenv("LOG", "log")
        python = pretender(DRAWS)
        against = ("--against", "diffusers", "--python", f"diffusers={python}", "--checkpoint", checkpoint)
        prompts = ("--prompt", "a", "--prompt", "b")
        done = vinograph(
            "benchmark", sdxl.path, *QUICK, *against, *prompts, "--runs", 3, "--count", 1, "--count", 2, "--json"
        )
        assert done.code == 0, done.err
        labels = [line.rsplit(" ", 1)[0] for line in done.err.splitlines()]
        turns = [label for index, label in enumerate(labels) if labels[index - 1 : index] != [label]]
        once = ["tiny-sdxl", "tiny-sdxl x2", "diffusers", "diffusers x2"]
        assert turns == [*once, *once, "the picture in f32"]
        assert Path("log").read_text().splitlines() == ["1|a|b|a", "2|a|b|a", "1|a|b", "2|a|b"]
        ours, theirs = (next(r for r in done.record["rows"] if r["name"] == n) for n in ("tiny-sdxl", "diffusers"))
        assert theirs["seconds"] == [2, 3, 2]
        assert (theirs["seconds_per_picture"], theirs["stages"]) == (2, {"unet": 1.5})
        assert theirs["ratio"] == pytest.approx(2 / ours["seconds_per_picture"])
        assert theirs["versions"] == {"pretender": "1"}
        assert theirs["ssim"] < 1


class TestFailures:
    def against(self, python: str, checkpoint: Path) -> tuple[object, ...]:
        against = ("--against", "diffusers", "--python", f"diffusers={python}", "--checkpoint", checkpoint)
        return (*QUICK, *against, "--runs", 1, "--rounds", 2, "--no-reference")

    def test_one_that_fails_has_a_row_that_says_so(
        self, vinograph: Run, sdxl: Bundle, pretender: Any, checkpoint: Path
    ) -> None:
        python = pretender("say('started', versions={})\nraise RuntimeError('no such luck')\n")
        done = vinograph("benchmark", sdxl.path, *self.against(python, checkpoint))
        assert done.code == 0
        assert "warning: diffusers: RuntimeError: no such luck" in done.err
        assert [line.split()[0] for line in done.out.splitlines()[1:3]] == ["tiny-sdxl", "diffusers"]

    def test_its_log_is_kept_and_it_is_not_tried_again(
        self, measure: Measure, sdxl: Bundle, pretender: Any, checkpoint: Path
    ) -> None:
        python = pretender("say('started', versions={})\nraise RuntimeError('no such luck')\n")
        ours, theirs = measure(sdxl.path, *self.against(python, checkpoint))["rows"]
        assert ours["failure"] is None
        assert len(ours["processes"]) == 2
        (process,) = theirs["processes"]
        assert "Traceback" in process["log"]
        assert theirs["seconds_per_picture"] is theirs["ratio"] is None

    def test_one_that_is_killed_says_at_how_much(
        self, measure: Measure, sdxl: Bundle, pretender: Any, checkpoint: Path
    ) -> None:
        python = pretender(
            "say('started', versions={})\nheld = b'x' * 300_000_000\ntime.sleep(0.2)\nos.kill(os.getpid(), signal.SIGKILL)\n"
        )
        _, theirs = measure(sdxl.path, *self.against(python, checkpoint))["rows"]
        assert theirs["failure"].startswith("killed at 0.3 GB")
        assert theirs["peaks"]["anonymous"] > 300_000_000

    def test_a_bundle_that_cannot_draw(self, measure: Measure, sdxl: Bundle, tmp_path: Path) -> None:
        broken = save_sdxl_bundle(tmp_path / "broken")
        xml = broken.path / "unet.xml"
        xml.write_text("x" * xml.stat().st_size)
        ours, theirs = measure(sdxl.path, broken.path, *QUICK, "--runs", 0, "--rounds", 1)["rows"]
        assert ours["failure"] is None
        assert "DamagedModelError" in theirs["failure"]

    def test_where_all_fail_the_exit_code_says_so(self, vinograph: Run, tmp_path: Path) -> None:
        broken = save_sdxl_bundle(tmp_path / "broken")
        xml = broken.path / "unet.xml"
        xml.write_text("x" * xml.stat().st_size)
        done = vinograph("benchmark", broken.path, *QUICK, "--runs", 0, "--rounds", 1, "--chart", "a.svg", "--json")
        assert done.code == 3
        assert "DamagedModelError" in done.record["rows"][0]["failure"]
        assert not Path("a.svg").exists()

    def test_ctrl_c_ends_the_children(self, sdxl: Bundle, pretender: Any, checkpoint: Path) -> None:
        python = pretender(
            "say('started', versions={})\nopen('number', 'w').write(str(os.getpid()))\nos.rename('number', 'ready')\n"
            "time.sleep(600)\n"
        )
        arguments = command("benchmark", sdxl.path, *self.against(python, checkpoint))
        with subprocess.Popen(
            arguments, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            while not Path("ready").exists() and process.poll() is None:
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (130, "")
        assert err.splitlines()[-1] == "interrupted"
        with pytest.raises(ProcessLookupError):
            os.kill(int(Path("ready").read_text()), 0)


class TestRefusals:
    """Before anything is measured."""

    def test_another_system_wants_the_checkpoint(self, vinograph: Run, sdxl: Bundle) -> None:
        vinograph("benchmark", sdxl.path, "--against", "diffusers").fails(2, "--against diffusers", "--checkpoint")

    def test_packages_that_are_missing(self, vinograph: Run, sdxl: Bundle, checkpoint: Path, tmp_path: Path) -> None:
        bare = tmp_path / "bare"
        bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n')
        bare.chmod(0o755)
        against = ("--against", "diffusers", "--checkpoint", checkpoint, "--python", f"diffusers={bare}")
        vinograph("benchmark", sdxl.path, *against).fails(
            2, f"{bare} -m pip install torch diffusers transformers", "--python diffusers=PATH"
        )

    def test_openvino_genai_draws_what_optimum_intel_exports(
        self, vinograph: Run, sdxl: Bundle, checkpoint: Path, pretender: Any
    ) -> None:
        against = (
            "--against",
            "openvino-genai",
            "--checkpoint",
            checkpoint,
            "--python",
            f"openvino-genai={pretender('')}",
        )
        vinograph("benchmark", sdxl.path, *against).fails(2, "optimum-intel", "--python optimum-intel=PATH")

    def test_a_family_that_a_system_does_not_draw(
        self, vinograph: Run, pixart: Bundle, checkpoint: Path, pretender: Any
    ) -> None:
        against = (
            "--against",
            "optimum-intel",
            "--checkpoint",
            checkpoint,
            "--python",
            f"optimum-intel={pretender('')}",
        )
        vinograph("benchmark", pixart.path, *against).fails(2, "optimum-intel", "pixart", "sdxl")

    @pytest.mark.parametrize(
        ("given", "words"),
        [
            (("--against", "fastsd"), ("fastsd", "openvino-genai")),
            (("--python", "diffusers"), ("--python", "NAME=VALUE")),
            (("--option", "vae"), ("--option", "NAME=VALUE")),
            (("--option", "depth=3"), ("depth", "it takes")),
            (("--option", "image=a.png"), ("--option image",)),
            (("--option", "vae=small"), ("vae",)),
            (("--size", "63x64"), ("--size", "64")),
            (("--steps", "0"), ("--steps",)),
            (("--count", "0"), ("--count",)),
            (("--seed", "-2"), ("--seed",)),
            (("--runs", "-1"), ("--runs",)),
            (("--rounds", "0"), ("--rounds",)),
            (("--precision", "int8"), ("precision", "bf16")),
            (("--memory", "none"), ("memory", "low")),
            (("--device", "TPU"), ("TPU", "CPU")),
            (("--checkpoint", "nowhere"), ("--checkpoint nowhere", "model_index.json")),
            (("--chart", "chart.pdf"), ("--chart", ".svg")),
            (("--chart", "nowhere/chart.svg"), ("--chart", "folder")),
            (("--output", "all.txt"), ("--output", ".json")),
        ],
        ids=" ".join,
    )
    def test_a_call_that_is_wrong(
        self, vinograph: Run, sdxl: Bundle, given: tuple[str, ...], words: tuple[str, ...]
    ) -> None:
        vinograph("benchmark", sdxl.path, *given).fails(2, *words)

    def test_a_bundle_that_is_not_there(self, vinograph: Run) -> None:
        vinograph("benchmark", "nobody").fails(3, "there is no model 'nobody'")

    def test_a_chart_without_matplotlib(self, sdxl: Bundle) -> None:
        done = in_process(
            "benchmark", sdxl.path, "--chart", "a.svg", first='import sys; sys.modules["matplotlib"] = None\n'
        )
        done.fails(2, 'pip install "vinograph[benchmark]"')

    def test_a_disk_that_is_full_when_all_is_measured(self, sdxl: Bundle) -> None:
        full = """
import errno, vinograph.files
def full(file, content, *, flush=False):
    raise OSError(errno.ENOSPC, "No space left on device")
vinograph.files.write_atomically = full
"""
        options = ("--runs", 0, "--rounds", 1, "--no-reference", "--output", "all.json")
        done = in_process("benchmark", sdxl.path, *QUICK, *options, first=full)
        assert (done.code, "all.json doesn't fit" in done.err) == (5, True)
        assert "tiny-sdxl" in done.out


def row(name: str, count: int, seconds: float) -> dict[str, Any]:
    """A row of figures that were made up."""
    stages = {"text": 0.25 * seconds, "unet": 0.75 * seconds}
    return {
        "name": name,
        "count": count,
        "failure": None,
        "stages": stages,
        "first_stages": stages,
        "first_drawing": seconds,
        "seconds_per_picture": seconds / count,
        "peaks": {"resident": 2_500_000_000},
    }


def record_of(*rows: dict[str, Any]) -> dict[str, Any]:
    machine = {"processor": "An abacus", "cores": 2}
    return {"machine": machine, "date": "2026-11-21T10:00:00+00:00", "rows": list(rows)}


class TestChart:
    def texts(self, record: dict[str, Any]) -> list[str]:
        root = ElementTree.fromstring(chart.draw(record, ".svg"))
        assert root.tag.endswith("}svg")
        return ["".join(each.itertext()).strip() for each in root.iter() if each.tag.endswith("}text")]

    def test_stages_and_memory(self) -> None:
        texts = self.texts(record_of(row("ours", 1, 1.5), row("theirs", 1, 3.25)))
        assert {"ours", "theirs", "text", "unet", "1.50 s", "3.25 s", "2.5", "seconds per picture"} <= set(texts)
        assert "An abacus, 2 cores, 2026-11-21" in texts

    def test_batches(self) -> None:
        texts = self.texts(record_of(row("ours", 1, 1.0), row("ours", 4, 2.0), row("theirs", 1, 3.0)))
        assert {"ours", "theirs", "1", "4", "pictures at once"} <= set(texts)

    def test_png_has_the_bars(self) -> None:
        data = chart.draw(record_of(row("ours", 1, 1.5)), ".png")
        Path("chart.png").write_bytes(data)
        with Image.open("chart.png") as picture:
            assert picture.format == "PNG"
            pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
        for colour in ((31, 119, 180), (255, 127, 14)):  # of the first stage and of the second
            assert (pixels == colour).all(1).sum() > 1000

    def test_by_the_command(self, vinograph: Run, sdxl: Bundle) -> None:
        options = ("--runs", 0, "--rounds", 1, "--no-reference", "--chart", "a.svg")
        done = vinograph("benchmark", sdxl.path, *QUICK, *options)
        assert done.code == 0, done.err
        assert "tiny-sdxl" in Path("a.svg").read_text()
        assert sorted(each.name for each in Path().iterdir()) == ["a.svg"]
