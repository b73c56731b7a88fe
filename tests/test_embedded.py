"""The embedded picture-book models are whole and small, and follow their prompts."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.probe import adherence, predict
from training.world import ATTRIBUTES, Scene, full_caption, render, sample, stated_attributes
from vinograph import Pipeline
from vinograph.models import catalog
from vinograph.models.bundle import Bundle
from vinograph.runtime.devices import devices

ROOT = Path(__file__).parents[1]
# Where a processor computes in bf16, models do by default; then f32, whose pictures are compared with diffusers' in
# tests/parity, takes half as long again.
_COMPUTED = [each for each in ("f32", "bf16") if any(d.id == "CPU" and each in d.precisions for d in devices())]
PRECISIONS = [pytest.param(each, marks=pytest.mark.long) for each in _COMPUTED[:-1]] + _COMPUTED[-1:]
HELD_OUT = 16


@pytest.mark.parametrize("path", catalog.embedded(), ids=lambda path: path.name)
class TestBundle:
    def test_a_bundle_verifies(self, path: Path) -> None:
        bundle = Bundle.open(path)
        assert set(bundle.verify()) == set(bundle.manifest.files)

    def test_a_bundle_has_at_most_20_megabytes(self, path: Path) -> None:
        assert sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) <= 20_000_000

    def test_a_familys_bundles_have_at_most_20_megabytes_together(self, path: Path) -> None:
        family = Bundle.open(path).manifest.family
        siblings = [each for each in catalog.embedded() if Bundle.open(each).manifest.family == family]
        for folder in (path.parent, ROOT / "training" / "checkpoints"):
            files = [file for each in siblings for file in (folder / each.name).rglob("*") if file.is_file()]
            assert sum(file.stat().st_size for file in files) <= 20_000_000

    def test_a_familys_checkpoints_have_at_most_20_megabytes(self, path: Path) -> None:
        checkpoint = ROOT / "training" / "checkpoints" / path.name
        assert 0 < sum(file.stat().st_size for file in checkpoint.rglob("*") if file.is_file()) <= 20_000_000


def assert_follows_prompts(pipe: Pipeline, **options: Any) -> None:
    """Generate scenes of held-out combinations from captions that state every attribute."""
    rng = random.Random(41)
    prompts = [full_caption(sample(rng, "heldout"), rng) for _ in range(HELD_OUT)]
    drawn = np.concatenate(
        [
            pipe(prompts[start : start + 8], seed=start, output_type="np", **options).images
            for start in range(0, HELD_OUT, 8)
        ]
    )
    mean, whole, counts = adherence(predict(drawn), [stated_attributes(prompt) for prompt in prompts])
    assert mean >= 0.95, counts
    assert whole >= 0.85, counts


@pytest.mark.parametrize("precision", PRECISIONS)
class TestStorybookWuerstchen:
    def test_pictures_follow_the_prompts(self, precision: str) -> None:
        assert_follows_prompts(Pipeline.from_pretrained("storybook-wuerstchen", precision=precision))

    def test_a_reconstruction_keeps_the_scene(self, precision: str) -> None:
        rng = random.Random(43)
        scenes = [sample(rng, "heldout") for _ in range(8)]
        pipe = Pipeline.from_pretrained("storybook-wuerstchen", precision=precision)
        again = [
            pipe.reconstruct(render(scene, 8_000_000 + i), seed=i, output_type="np") for i, scene in enumerate(scenes)
        ]
        seen = predict(np.concatenate([each.images for each in again]))
        assert (seen == np.array([scene.labels() for scene in scenes])).mean() >= 0.95
        assert np.median([each.report["psnr"] for each in again]) > 20


def test_image_to_image_changes_what_the_prompt_states_and_keeps_the_rest() -> None:
    """A green house in a meadow becomes a red house in the same place."""
    scene = sample(random.Random(3), "train")
    scene = type(scene)("day", "meadow", "house", "green", 1, "middle")
    pipe = Pipeline.from_pretrained("storybook-wuerstchen")
    drawn = pipe(
        ["one red house in the middle, on a meadow, on a sunny day"] * 4,
        image=render(scene, 5),
        strength=0.8,
        seed=0,
        output_type="np",
    ).images
    seen = [
        dict(zip(ATTRIBUTES, (v[i] for v, i in zip(ATTRIBUTES.values(), row, strict=True)), strict=True))
        for row in predict(drawn)
    ]
    assert sum(each["colour"] == "red" for each in seen) >= 3
    assert sum(each["kind"] == "house" and each["ground"] == "meadow" for each in seen) >= 3


@pytest.mark.parametrize("precision", PRECISIONS)
class TestStorybookSdxl:
    @pytest.mark.parametrize("steps", [1, 4])
    def test_pictures_follow_the_prompts(self, precision: str, steps: int) -> None:
        pipe = Pipeline.from_pretrained("storybook-sdxl", precision=precision)
        assert_follows_prompts(pipe, num_inference_steps=steps)

    def test_seeds_vary_what_the_prompt_leaves_open(self, precision: str) -> None:
        pipe = Pipeline.from_pretrained("storybook-sdxl", precision=precision)
        drawn = pipe("a red house in a meadow at night", num_images_per_prompt=8, seed=0, output_type="np").images
        bright = drawn[:, :100].mean(axis=3) > 0.6
        left, right = bright[..., :128].sum(axis=(1, 2)), bright[..., 128:].sum(axis=(1, 2))
        assert 0 < (left > right).sum() < 8  # the moon is now on this side, now on that

    def test_image_to_image_changes_what_the_prompt_states_and_keeps_the_rest(self, precision: str) -> None:
        rng = random.Random(47)
        pipe = Pipeline.from_pretrained("storybook-sdxl", precision=precision)
        right = []
        for index in range(12):
            before = sample(rng, "heldout")
            after = dataclasses.replace(before, sky="night" if before.sky == "day" else "day")
            drawn = pipe(
                full_caption(after, rng),
                image=render(before, 7_000_000 + index),
                strength=0.5,
                num_inference_steps=2,
                seed=index,
                output_type="np",
            ).images
            right.append(predict(drawn)[0] == np.array(after.labels()))
        assert np.mean(right) >= 0.95, np.mean(right, axis=0)

    def test_a_reconstruction_keeps_the_scene(self, precision: str) -> None:
        rng = random.Random(43)
        scenes = [sample(rng, "heldout") for _ in range(8)]
        pipe = Pipeline.from_pretrained("storybook-sdxl", precision=precision)
        again = [pipe.reconstruct(render(scene, 8_000_000 + i), output_type="np") for i, scene in enumerate(scenes)]
        seen = predict(np.concatenate([each.images for each in again]))
        assert (seen == np.array([scene.labels() for scene in scenes])).mean() >= 0.98
        assert np.median([each.report["psnr"] for each in again]) > 24


@pytest.mark.parametrize("precision", PRECISIONS)
class TestStorybookPixart:
    @pytest.mark.parametrize(
        ("model", "steps"), [("storybook-pixart", 20), ("storybook-pixart-lcm", 4), ("storybook-pixart-lcm", 8)]
    )
    def test_pictures_follow_the_prompts(self, precision: str, model: str, steps: int) -> None:
        assert_follows_prompts(Pipeline.from_pretrained(model, precision=precision), num_inference_steps=steps)

    @pytest.mark.parametrize("model", ["storybook-pixart", "storybook-pixart-lcm"])
    def test_wide_and_tall_pictures_follow_the_prompts(self, precision: str, model: str) -> None:
        """The probe sees them squeezed into a square, and still classifies these frames."""
        rng = random.Random(53)
        prompts = [full_caption(sample(rng, "heldout"), rng) for _ in range(8)]
        pipe = Pipeline.from_pretrained(model, precision=precision)
        for width, height in ((288, 224), (224, 288)):
            drawn = pipe(prompts, width=width, height=height, seed=0, output_type="np").images
            assert drawn.shape == (8, height, width, 3)
            mean, _, counts = adherence(predict(drawn), [stated_attributes(prompt) for prompt in prompts])
            assert mean >= 0.93, counts

    def test_image_to_image_changes_what_the_prompt_states_and_keeps_the_place(self, precision: str) -> None:
        before = Scene("day", "meadow", "house", "green", 1, "middle")
        pipe = Pipeline.from_pretrained("storybook-pixart", precision=precision)
        drawn = pipe(
            ["one red house in the middle, on a meadow, at night"] * 4,
            image=render(before, 5),
            seed=0,
            output_type="np",
        ).images
        wanted = np.array(Scene("night", "meadow", "house", "red", 1, "middle").labels())
        assert (predict(drawn) == wanted).mean() >= 0.9

    def test_a_reconstruction_keeps_the_scene(self, precision: str) -> None:
        rng = random.Random(43)
        scenes = [sample(rng, "heldout") for _ in range(8)]
        pipe = Pipeline.from_pretrained("storybook-pixart", precision=precision)
        again = [pipe.reconstruct(render(scene, 8_000_000 + i), output_type="np") for i, scene in enumerate(scenes)]
        seen = predict(np.concatenate([each.images for each in again]))
        assert (seen == np.array([scene.labels() for scene in scenes])).mean() >= 0.98
