"""The probe classifies pictures that it hasn't seen, sharp or not."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from training.probe import DEFAULT_PATH, adherence, blur, degrade, downsample, load, predict, train
from training.world import ATTRIBUTES, render, sample


@pytest.fixture(scope="module")
def scenes() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pictures and labels of scenes of every combination, with seeds that training doesn't use."""
    rng = random.Random("unseen by the probe")
    drawn = [sample(rng, None) for _ in range(300)]
    pictures = np.stack([render(scene, rng.randrange(2**40, 2**41)) for scene in drawn])
    return pictures, np.array([scene.labels() for scene in drawn], np.int64)


def test_the_probe_is_small() -> None:
    assert DEFAULT_PATH.stat().st_size < 5_000_000
    assert sum(parameter.numel() for parameter in load().parameters()) < 2_000_000


def test_it_classifies_unseen_scenes(scenes: tuple[NDArray[np.uint8], NDArray[np.int64]]) -> None:
    pictures, labels = scenes
    right = predict(pictures) == labels
    assert dict(zip(ATTRIBUTES, right.mean(0) >= 0.99, strict=True)) == dict.fromkeys(ATTRIBUTES, True)
    assert right.all(1).mean() >= 0.99


def test_it_classifies_blurred_and_noisy_scenes(scenes: tuple[NDArray[np.uint8], NDArray[np.int64]]) -> None:
    pictures, labels = scenes
    generator, found = torch.Generator().manual_seed(0), []
    for start in range(0, len(pictures), 50):  # all at once would take a gigabyte
        some = torch.from_numpy(pictures[start : start + 50])
        pixels = blur(some.permute(0, 3, 1, 2).float() / 255, 2.5)
        pixels = (pixels + torch.randn(pixels.shape, generator=generator) * 0.05).clamp(0, 1)
        found.append(predict(pixels.permute(0, 2, 3, 1).numpy()))
    assert (np.concatenate(found) == labels).mean(0).min() >= 0.99


def test_bytes_and_floats_are_classified_alike(scenes: tuple[NDArray[np.uint8], NDArray[np.int64]]) -> None:
    pictures = scenes[0][:20]
    assert np.array_equal(predict(pictures), predict(pictures.astype(np.float32) / 255))
    assert predict(pictures[:0]).shape == (0, 6)


def test_adherence_counts_only_the_attributes_that_prompts_state() -> None:
    labels = np.array([[0, 1, 2, 3, 0, 0], [2, 0, 5, 7, 1, 2]])
    expected = [{"sky": "day", "kind": "boat", "colour": "red"}, {"kind": "cat", "count": "2"}]
    mean, whole, counts = adherence(labels, expected)
    assert (mean, whole) == (4 / 5, 1 / 2)
    assert counts["kind"] == (2, 2)
    assert counts["colour"] == (0, 1)
    assert counts["ground"] == (0, 0)


def test_degrading_is_repeatable_and_stays_in_range() -> None:
    pixels = torch.rand((4, 3, 96, 96), generator=torch.Generator().manual_seed(0))
    for seed in range(6):
        first, second = (degrade(pixels, torch.Generator().manual_seed(seed)) for _ in range(2))
        assert torch.equal(first, second)
        assert first.min() >= 0
        assert first.max() <= 1
        assert first.shape == pixels.shape


def test_an_interrupted_training_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, threads = tmp_path / "probe.safetensors", torch.get_num_threads()

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    try:
        with monkeypatch.context() as patch:
            patch.setattr("training.probe.save_file", stop)
            with pytest.raises(KeyboardInterrupt):
                train(tmp_path, out, steps=2, threads=1, count=8)
        saved = torch.load(tmp_path / "probe.partial.pt", weights_only=True)
        train(tmp_path, out, steps=2, threads=1, count=8)
    finally:
        torch.set_num_threads(threads)
    assert saved["step"] == 2
    assert torch.allclose(load(out).state_dict()["heads.sky.weight"], saved["probe"]["heads.sky.weight"], atol=1e-3)
    assert predict(np.zeros((1, 256, 256, 3), np.uint8), load(out)).shape == (1, 6)
    assert not list(tmp_path.glob("*.partial*"))


def test_downsampling_averages() -> None:
    pixels = torch.arange(4.0).reshape(1, 1, 2, 2).repeat_interleave(96, 2).repeat_interleave(96, 3)
    assert torch.equal(downsample(pixels)[..., ::48, ::48].flatten(), torch.arange(4.0))
