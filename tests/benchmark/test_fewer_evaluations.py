"""The measurement of fewer evaluations: its figures on sets whose answer is known, and a run that goes on."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

from benchmarks.fewer_evaluations import frechet_distance, main, psnrs, sharpness
from training.probe import features
from training.world import render, sample


class TestFigures:
    def test_the_distance_of_normal_distributions(self) -> None:
        rng = np.random.default_rng(0)
        one = rng.normal(0, 1, (200_000, 2))
        other = rng.normal(0, 1, (200_000, 2)) * [2, 3] + [1, 0]
        # |m - m'|² + Σ (σ - σ')² where the covariances are diagonal
        assert frechet_distance(one, other) == pytest.approx(1 + 1 + 4, rel=0.02)
        assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)
        assert frechet_distance(one, other) == pytest.approx(frechet_distance(other, one))

    def test_fewer_pictures_than_features(self) -> None:
        rng = np.random.default_rng(1)
        one, other = rng.normal(0, 1, (20, 64)), rng.normal(0, 1, (20, 64))
        assert frechet_distance(one, one) == pytest.approx(0, abs=1e-4)
        assert frechet_distance(one, other + 5) > frechet_distance(one, other) > 1

    def test_sharpness_and_psnr(self) -> None:
        rng = np.random.default_rng(2)
        sharp = rng.integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
        smooth = np.stack([np.asarray(Image.fromarray(each).resize((8, 8)).resize((32, 32))) for each in sharp])
        assert (sharpness(smooth) < sharpness(sharp) / 4).all()
        assert (psnrs(sharp, sharp) == 100).all()
        off_by_one = np.clip(sharp.astype(int) + np.where(sharp == 255, -1, 1), 0, 255).astype(np.uint8)
        np.testing.assert_allclose(psnrs(sharp, off_by_one), 20 * np.log10(255), rtol=1e-6)

    def test_features_tell_scenes_apart(self) -> None:
        rng = Random(0)
        scenes = [sample(rng, "train") for _ in range(4)]
        found = features(np.stack([render(scene, 1) for scene in scenes]))
        again = features(np.stack([render(scene, 2) for scene in scenes]))
        assert found.shape == (4, 192)
        apart = np.linalg.norm(found[:, None] - again[None], axis=2)
        assert (apart.argmin(1) == np.arange(4)).all()


class TestRun:
    def test_it_measures_writes_a_sheet_and_goes_on(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        base = json.dumps({"num_inference_steps": 6, "guidance_scale": 2.0, "width": 128, "height": 128})
        command = ["storybook-sdxl", "--out", str(tmp_path / "out"), "--pictures", "2", "--base", base]
        setting = ["--setting", '{"guidance_interval": [0.0, 0.5], "extrapolation_interval": 2}']
        main([*command, *setting])
        assert "| guidance_interval [0.0, 0.5] extrapolation_interval 2 | 8 | 33% |" in capsys.readouterr().out
        figures = json.loads((tmp_path / "out" / "figures.json").read_text())["settings"]
        assert (figures["default"]["rows"], figures["default"]["psnr"]) == (12, 100)
        assert figures["default"]["distance"] == pytest.approx(0, abs=1e-3)
        with Image.open(tmp_path / "out" / "sheet.png") as sheet:
            assert sheet.height > 3 * 128
        stored = sorted((tmp_path / "out").rglob("*.npz"))
        times = [each.stat().st_mtime_ns for each in stored]
        main([*command, *setting])
        assert [each.stat().st_mtime_ns for each in stored] == times
        with pytest.raises(SystemExit, match="holds another measurement"):
            main([*command[:-1], "{}", *setting])
