"""stable-diffusion.cpp as a system to compare with: what its package is asked for.

It draws models of the published sizes alone, so that a package that records its calls stands in for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.benchmark.conftest import Measure
from tests.checkpoints import SDXL_TINY, save_sdxl

_PACKAGE = """
import json, pathlib
from PIL import Image

class StableDiffusion:
    def __init__(self, **opened):
        opened["files"] = [str(pathlib.Path(opened[name]).resolve()) for name in ("model_path", "taesd_path")]
        self.opened = opened

    def generate_image(self, **asked):
        with open(RECORD, "a") as record:
            print(json.dumps({**self.opened, **asked}), file=record)
        return [Image.new("RGB", (asked["width"], asked["height"]), "red")] * asked["batch_count"]
"""
ONCE = ("--size", "64x64", "--steps", 2, "--adherence", 0, "--runs", 0, "--rounds", 1, "--no-reference")


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the package that stands in for it writes what it is asked for."""
    folder, file = tmp_path / "packages", tmp_path / "asked.jsonl"
    (folder / "stable_diffusion_cpp").mkdir(parents=True)
    (folder / "stable_diffusion_cpp" / "__init__.py").write_text(f"RECORD = {str(file)!r}\n{_PACKAGE}")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return file


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint with single files beside its components."""
    home = save_sdxl(tmp_path, replace(SDXL_TINY, tiny_vae=True)).home
    for name in ("sd_xl_turbo_1.0.safetensors", "sd_xl_turbo_1.0_fp16.safetensors"):
        (home / name).write_bytes(b"weights")
    return home


def set_scheduler(checkpoint: Path, name: str, spacing: str) -> None:
    file = checkpoint / "scheduler" / "scheduler_config.json"
    config: Mapping[str, Any] = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "_class_name": name, "timestep_spacing": spacing}))


def test_it_draws_from_the_checkpoints_files(measure: Measure, checkpoint: Path, record: Path) -> None:
    set_scheduler(checkpoint, "EulerAncestralDiscreteScheduler", "trailing")
    both = ("--against", "stable-diffusion.cpp", "--against", "stable-diffusion.cpp-q8")
    rows = measure(checkpoint, *both, *ONCE, "--option", "guidance_scale=2.5", "--count", 2)["rows"]
    assert [(each["name"], each["system"], each["failure"]) for each in rows[1:]] == [
        ("stable-diffusion.cpp", "stable-diffusion.cpp", None),
        ("stable-diffusion.cpp-q8", "stable-diffusion.cpp", None),
    ]
    assert [each["computed"] for each in rows[1:]] == [{"all": "CPU f16"}, {"all": "CPU q8_0"}]
    asked = [json.loads(line) for line in record.read_text().splitlines()]
    assert [each["wtype"] for each in asked] == ["f16", "q8_0"]
    first = asked[0]
    tiny_vae = checkpoint / "tiny_vae" / "diffusion_pytorch_model.safetensors"
    assert first["files"] == [str(checkpoint / "sd_xl_turbo_1.0_fp16.safetensors"), str(tiny_vae)]
    assert (first["sample_method"], first["scheduler"]) == ("euler_a", "sgm_uniform")
    assert (first["width"], first["height"], first["sample_steps"], first["batch_count"]) == (64, 64, 2, 2)
    assert (first["cfg_scale"], first["seed"], first["rng_type"]) == (2.5, 7, "cpu")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--precision", "f32"), "computes in the types of its weights"),
        (("--option", "guidance_rescale=0.5"), "takes no guidance_rescale"),
    ],
)
def test_what_it_does_not_do_is_said(
    measure: Measure, checkpoint: Path, record: Path, options: tuple[str, ...], words: str
) -> None:
    set_scheduler(checkpoint, "EulerDiscreteScheduler", "leading")
    rows = measure(checkpoint, "--against", "stable-diffusion.cpp", *ONCE, *options)["rows"]
    assert words in rows[1]["failure"]
    assert not record.exists()


def test_without_a_single_file(measure: Measure, checkpoint: Path, record: Path) -> None:
    for file in checkpoint.glob("*.safetensors"):
        file.unlink()
    rows = measure(checkpoint, "--against", "stable-diffusion.cpp", *ONCE)["rows"]
    assert f"put the checkpoint's own into {checkpoint}" in rows[1]["failure"]


def test_a_scheduler_without_a_counterpart(measure: Measure, checkpoint: Path, record: Path) -> None:
    set_scheduler(checkpoint, "DDIMScheduler", "leading")
    rows = measure(checkpoint, "--against", "stable-diffusion.cpp", *ONCE)["rows"]
    assert "DDIMScheduler is none of those that are compared" in rows[1]["failure"]
