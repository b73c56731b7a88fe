"""The recipe of storybook-pixart runs end to end and publishes checkpoints that diffusers loads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import PixArtAlphaPipeline
from tokenizers import Tokenizer
from torch import Tensor

from tests.models.writing import write_tokenizer
from training.loop import load
from training.noise_schedule import NoiseSchedule
from training.pixart import consistency, polish, publish, transformer
from training.pixart.config import FRAMES, LCM_SCHEDULER, SCHEDULER
from training.pixart.frame_latents import load_frame
from training.pixart.text import UnigramTokenizer
from training.sdxl import vae
from training.world import caption, dataset, sample
from vinograph.families.pixart.aspect_ratios import ASPECT_RATIOS
from vinograph.models.tokenizers import T5

# diffusers' schedulers pass tensors to numpy in a way that numpy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CPU = torch.device("cpu")
BRIEFLY = 0.001  # minutes, enough for one step or a few


@pytest.fixture(scope="module", autouse=True)
def _small_batches() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vae, "BATCH_SIZE", 4)
        patch.setattr(transformer, "BATCH_SIZE", 4)
        patch.setattr(transformer, "SMALL_BATCH_SIZE", 4)
        patch.setattr(consistency, "TRAJECTORY_BATCHES", (1, 1))
        patch.setattr(consistency, "TRAJECTORIES_PER_BATCH", 2)
        yield


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working directory of a run in which every stage trained for a few steps."""
    data, work = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("work")
    for split, count in (("train", 12), ("val", 4), ("heldout", 2), ("unseen_pair", 2)):
        dataset.write(data, split, count, workers=1)
    (work / "data").symlink_to(data)
    vae.train(data, work, BRIEFLY, CPU)
    transformer.train(data, work, BRIEFLY, CPU, classifier_minutes=BRIEFLY)
    consistency.train(data, work, BRIEFLY, CPU)
    polish.train(data, work, BRIEFLY, CPU)
    publish.publish(work, work / "published")
    return work


@pytest.mark.parametrize(("suffix", "scheduler"), [("", SCHEDULER), ("-lcm", LCM_SCHEDULER)])
def test_diffusers_draws_a_picture_with_the_published_checkpoint(
    work: Path, suffix: str, scheduler: dict[str, object]
) -> None:
    published = work / f"published{suffix}"
    index = json.loads((published / "model_index.json").read_text())
    parts = {name for name, part in index.items() if isinstance(part, list)}
    assert parts == {path.name for path in published.iterdir() if path.is_dir()}
    pipe = PixArtAlphaPipeline.from_pretrained(published, dtype=torch.float32)
    assert type(pipe.scheduler).__name__ == scheduler["_class_name"]
    pipe.set_progress_bar_config(disable=True)
    picture = pipe(
        "a red house", num_inference_steps=2, height=128, width=64, use_resolution_binning=False, output_type="np"
    ).images[0]
    assert picture.shape == (128, 64, 3)
    assert np.isfinite(picture).all()


def test_a_stage_resumes_from_its_checkpoint(work: Path) -> None:
    before = load(work / "consistency.pt")["budget"]
    consistency.train(work / "data", work, 2 * BRIEFLY + before["seconds"] / 60, CPU)
    assert load(work / "consistency.pt")["budget"]["steps"] > before["steps"]


def test_the_consistency_model_keeps_the_text_encoder(work: Path) -> None:
    ours, theirs = (work / f"published{suffix}" / "text_encoder" / "model.safetensors" for suffix in ("", "-lcm"))
    assert ours.read_bytes() == theirs.read_bytes()


def test_every_training_frame_is_one_of_pixarts_aspect_ratios() -> None:
    assert {(height, width) for width, height in FRAMES} < set(ASPECT_RATIOS[32].values())


def test_encoding_a_frame_resumes_after_the_stored_latents(work: Path) -> None:
    fewer, _ = load_frame(FRAMES[0], 12, work, CPU, 1)
    more, labels = load_frame(FRAMES[0], 14, work, CPU, 1)
    assert torch.equal(fewer, more[:12])
    assert (len(more), len(labels)) == (14, 14)


def test_our_runtime_tokenizes_as_sentencepiece_does(work: Path, tmp_path: Path) -> None:
    import random

    rng = random.Random(4)
    tokenize = UnigramTokenizer(work / "tokenizer")
    texts = [caption(sample(rng, None), rng) for _ in range(200)]
    texts += ["A Red  House", "“It’s” (3) cats & 2 boats!", "", "zebra crossing", "漢字"]
    write_tokenizer(work / "tokenizer", tmp_path / "tokenizer.json", 120, T5)
    rust = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    ids, mask = tokenize(texts)
    for text, row, row_mask in zip(texts, ids, mask, strict=True):
        assert row[row_mask].tolist() == rust.encode(text).ids


def test_trajectories_are_those_of_diffusers_dpm_solver() -> None:
    """DPMSolverMultistepScheduler at the same timesteps gives the same samples."""
    from diffusers import DPMSolverMultistepScheduler

    def denoise(sample: Tensor, timestep: int) -> Tensor:
        return torch.tanh(sample * (1 - timestep / 2000))

    schedule = NoiseSchedule(SCHEDULER)
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    timesteps = consistency.solver_timesteps(schedule.last_timestep)
    points, ends = consistency.sample_trajectory(denoise, schedule, noise, timesteps)

    theirs = DPMSolverMultistepScheduler.from_config(dict(SCHEDULER))
    theirs.set_timesteps(len(timesteps))
    theirs.timesteps = timesteps
    alphas_cumprod = schedule.alphas_cumprod[timesteps].double()
    theirs.sigmas = torch.cat([((1 - alphas_cumprod) / alphas_cumprod).sqrt(), torch.zeros(1)]).float()
    sample = noise
    for timestep, point in zip(timesteps, points, strict=True):
        assert torch.allclose(sample, point, atol=1e-3)
        alpha_cumprod = schedule.alphas_cumprod[timestep]
        denoised = denoise(sample, int(timestep))
        velocity = (alpha_cumprod.sqrt() * sample - denoised) / (1 - alpha_cumprod).sqrt()
        sample = theirs.step(velocity, timestep, sample).prev_sample
    assert torch.allclose(sample, ends, atol=1e-3)
