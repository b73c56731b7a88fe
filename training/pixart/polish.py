"""Fine-tunes the VAE's decoder on latents that the transformer generates.

This is :mod:`training.sdxl.polish` with other latents. A scene's latents are noised only so far
that its contents stay in place, and denoised again from there.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from training.loop import load
from training.noise_schedule import NoiseSchedule
from training.pixart.config import SCHEDULER
from training.pixart.consistency import GuidedTeacher, sample_trajectory
from training.pixart.transformer import Batch, LatentDataset, load_datasets, load_model, to_device
from training.scene_dataset import SceneDataset
from training.sdxl.polish import polish

START_TIMESTEP = 400
INFERENCE_STEPS = 5
_BATCH_SIZE = 64


def generate(dataset: LatentDataset, work: Path, count: int, device: torch.device) -> Tensor:
    """The first latents of ``dataset``, noised and denoised again: [count, 4, 32, 32] (f16)."""
    torch.manual_seed(3)
    schedule, captions = NoiseSchedule(SCHEDULER), dataset.captions
    model = load_model(load(work / "transformer.pt"), work).to(device).eval()
    steps = torch.linspace(START_TIMESTEP, START_TIMESTEP / INFERENCE_STEPS, INFERENCE_STEPS).round().long()
    generated = []
    for picked in torch.split(torch.arange(count), _BATCH_SIZE):
        batch = Batch(
            latents=dataset.latents[picked].float(),
            ids=captions.ids[picked, 1].long(),  # captions of odd number state all attributes
            mask=captions.mask[picked, 1].long(),
            labels=dataset.labels[picked],
            attribute_mask=captions.stated[picked, 1],
        )
        batch = to_device(batch, device)
        timesteps = torch.full((len(picked),), START_TIMESTEP, device=device)
        sample = schedule.add_noise(batch.latents, torch.randn_like(batch.latents), timesteps)
        denoise = GuidedTeacher(model, schedule, batch, (captions.empty_ids, captions.empty_mask))
        generated.append(sample_trajectory(denoise, schedule, sample, steps)[1].half().cpu())
    return torch.cat(generated)


def train(data: Path, work: Path, minutes: float, device: torch.device, scenes: int = 3000) -> None:
    """Generate latents of ``scenes`` training scenes, then fine-tune the decoder on them."""
    squares, images = load_datasets(data, work, device)[0], SceneDataset(data, "train").images
    generated = generate(squares, work, min(scenes, len(squares.latents)), device)
    polish(generated, squares.latents, images, work, minutes, device)
