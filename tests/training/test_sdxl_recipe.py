"""The recipe of storybook-sdxl runs end to end and publishes a checkpoint that diffusers loads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline

from training.loop import load
from training.sdxl import alterations, latent_classifier, polish, publish, unet, vae
from training.sdxl.coupling import answers, couple
from training.sdxl.noise_schedule import LAST_TIMESTEP, NOISE_SCHEDULE
from training.world import ATTRIBUTES, Scene, dataset, render
from training.world.render import Variation

# diffusers' schedulers pass tensors to numpy in a way that numpy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CPU = torch.device("cpu")
BRIEFLY = 0.001  # minutes, enough for one step or a few


@pytest.fixture(scope="module", autouse=True)
def _small_batches() -> Iterator[None]:
    """A step of the recipe's own batches takes a gigabyte."""
    with pytest.MonkeyPatch.context() as patch:
        for stage, count in ((vae, 4), (latent_classifier, 16), (unet, 8), (polish, 4)):
            patch.setattr(stage, "BATCH_SIZE", count)
        yield


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working directory of a run in which every stage trained for a few steps."""
    data, work = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("work")
    for split, count in (("train", 12), ("val", 4), ("heldout", 2), ("unseen_pair", 2)):
        dataset.write(data, split, count, workers=1)
    (work / "data").symlink_to(data)
    vae.train(data, work, BRIEFLY, CPU)
    unet.train(data, work, BRIEFLY, CPU, classifier_minutes=BRIEFLY)
    polish.train(data, work, BRIEFLY, CPU)
    publish.publish(work, work / "published")
    return work


def test_diffusers_draws_a_picture_with_the_published_checkpoint(work: Path) -> None:
    published = work / "published"
    index = json.loads((published / "model_index.json").read_text())
    parts = {name for name, part in index.items() if isinstance(part, list) and part[0] is not None}
    assert parts == {path.name for path in published.iterdir() if path.is_dir()}
    pipe = StableDiffusionXLPipeline.from_pretrained(published, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    picture = pipe(
        "a red house", num_inference_steps=1, guidance_scale=0.0, height=64, width=64, output_type="np"
    ).images[0]
    assert picture.shape == (64, 64, 3)
    assert np.isfinite(picture).all()
    assert pipe.tokenizer.pad_token == "<|endoftext|>"
    assert pipe.tokenizer_2.pad_token == "!"


def test_a_stage_resumes_from_its_checkpoint(work: Path) -> None:
    before = load(work / "unet.pt")["budget"]
    unet.train(work / "data", work, 2 * BRIEFLY + before["seconds"] / 60, CPU, classifier_minutes=BRIEFLY)
    assert load(work / "unet.pt")["budget"]["steps"] > before["steps"]


def test_the_polish_changes_the_decoder_and_not_the_encoder(work: Path) -> None:
    before, after = load(work / "vae.pt")["model"], load(work / "polish.pt")["model"]
    same = {name: bool(torch.equal(value, after[name])) for name, value in before.items()}
    assert all(equal for name, equal in same.items() if name.startswith("encoder."))
    assert not all(equal for name, equal in same.items() if name.startswith("decoder."))


def test_the_log_has_lines_of_every_stage(work: Path) -> None:
    log = (work / "log.jsonl").read_text()
    for stage in ("vae", "classifier", "unet", "polish"):
        assert f'"stage": "{stage}"' in log


def _scenes(count: int) -> tuple[np.ndarray, np.ndarray]:
    return dataset.plan("train", count)


def test_coupled_noise_is_standard_normal_and_encodes_the_answers() -> None:
    torch.manual_seed(0)
    labels, seeds = _scenes(2000)
    intervals = answers(labels, seeds)
    noise = torch.randn(2000, 4, 32, 32)
    coupled = couple(noise, intervals, torch.zeros(2000, 16, dtype=torch.bool))
    parts = coupled.reshape(2000, 4, 16, 2, 16, 2).sum(dim=(2, 4)).flatten(1) / 16
    quantiles = torch.special.ndtr(parts)
    assert ((quantiles > intervals[..., 0] - 1e-3) & (quantiles < intervals[..., 1] + 1e-3)).all()
    assert parts.mean(dim=0).abs().max() < 0.1
    assert (parts.std(dim=0) - 1).abs().max() < 0.1
    # What is orthogonal to those sixteen directions doesn't change.
    rest = coupled - noise
    rest = rest - rest.reshape(2000, 4, 16, 2, 16, 2).mean(dim=(2, 4), keepdim=True).expand(
        -1, -1, 16, -1, 16, -1
    ).reshape(noise.shape)
    assert rest.abs().max() < 1e-5


def test_noise_is_unchanged_where_the_caption_states_everything() -> None:
    torch.manual_seed(0)
    labels, seeds = _scenes(50)
    noise = torch.randn(50, 4, 32, 32)
    assert torch.allclose(couple(noise, answers(labels, seeds), torch.ones(50, 16, dtype=torch.bool)), noise)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_an_answers_interval_is_as_wide_as_the_answer_is_likely(count: int) -> None:
    seeds = np.arange(500)
    labels = np.tile(np.array([[0, 0, 0, 0, count - 1, 0]]), (500, 1))
    widths = (answers(labels, seeds)[..., 1] - answers(labels, seeds)[..., 0])[:, :10]
    for k, values in enumerate(zip(*(field_values(Variation.of(int(seed), count)) for seed in seeds), strict=True)):
        shares = {value: values.count(value) / 500 for value in values}
        width_of = {value: float(widths[values.index(value), k]) for value in values}
        assert sum(width_of.values()) == pytest.approx(1, abs=1e-4)
        assert all(abs(shares[value] - width_of[value]) < 0.08 for value in values)


def field_values(variation: Variation) -> tuple[int, ...]:
    return tuple(int(getattr(variation, name)) for name in Variation.__slots__)


def test_altered_scenes_differ_in_sky_or_colour_alone(work: Path) -> None:
    before = np.load(work / "data" / "train_labels.npy")
    after = np.load(work / "altered_labels.npy")
    names = list(ATTRIBUTES)
    changed = {names[k] for k in np.flatnonzero((before != after).any(axis=0))}
    assert changed <= {"sky", "colour"}
    assert (before != after).any(axis=1).all()
    seeds, images = np.load(work / "data" / "train_seeds.npy"), np.load(work / "altered_images.npy")
    assert (images[3] == render(Scene.from_labels(tuple(int(v) for v in after[3])), int(seeds[3]))).all()


def test_alterations_stay_in_the_training_split() -> None:
    import random

    rng = random.Random(0)
    scene = Scene("day", "meadow", "house", "red", 1, "left")
    assert all(alterations.alter_within_training(scene, rng).colour != "purple" for _ in range(300))


def test_the_noise_schedule_is_that_of_diffusers_scheduler() -> None:
    from diffusers import EulerAncestralDiscreteScheduler

    from training.sdxl.config import SCHEDULER

    theirs = EulerAncestralDiscreteScheduler.from_config(dict(SCHEDULER))
    assert torch.allclose(NOISE_SCHEDULE.alphas_cumprod, theirs.alphas_cumprod, atol=1e-6)
    theirs.set_timesteps(1)
    sample = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)) * theirs.init_noise_sigma
    velocity = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    scaled = theirs.scale_model_input(sample, theirs.timesteps[0])
    stepped = theirs.step(velocity, theirs.timesteps[0], sample, generator=torch.Generator().manual_seed(2))
    last = torch.tensor([LAST_TIMESTEP])
    assert torch.allclose(NOISE_SCHEDULE.denoised_from_velocity(scaled, velocity, last), stepped.prev_sample, atol=1e-4)
    assert torch.allclose(NOISE_SCHEDULE.add_noise(sample, sample / theirs.init_noise_sigma, last), scaled, atol=1e-2)
