"""The VAE's decoder, finished on latents as the transformer draws them.

As :mod:`training.sdxl.polish`; here a scene's latents are noised so far that its things stay where they are, and
drawn again from there.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from training.common import load
from training.pixart.config import SCHEDULER
from training.pixart.consistency import Guided, solve
from training.pixart.transformer import Batch, Pictures, load_model, load_pictures, to_device
from training.scenes import Scenes
from training.schedule import Schedule
from training.sdxl.polish import polish

START = 400
STEPS = 5
_DRAWN_AT_ONCE = 64


def draw(pictures: Pictures, work: Path, count: int, device: torch.device) -> Tensor:
    """The first pictures, noised and drawn again: latents [count, 4, 32, 32] (f16)."""
    torch.manual_seed(3)
    schedule, captions = Schedule(SCHEDULER), pictures.captions
    model = load_model(load(work / "transformer.pt"), work).to(device).eval()
    way = torch.linspace(START, START / STEPS, STEPS).round().long()
    drawn = []
    for picked in torch.split(torch.arange(count), _DRAWN_AT_ONCE):
        batch = Batch(
            clean=pictures.latents[picked].float(),
            ids=captions.ids[picked, 1].long(),  # captions of odd number say all
            mask=captions.mask[picked, 1].long(),
            labels=pictures.labels[picked],
            told=captions.said[picked, 1],
        )
        batch = to_device(batch, device)
        timesteps = torch.full((len(picked),), START, device=device)
        sample = schedule.noised(batch.clean, torch.randn_like(batch.clean), timesteps)
        guided = Guided(model, schedule, batch, (captions.empty_ids, captions.empty_mask))
        drawn.append(solve(guided, schedule, sample, way)[1].half().cpu())
    return torch.cat(drawn)


def train(data: Path, work: Path, minutes: float, device: torch.device, scenes: int = 3000) -> None:
    """Draws ``scenes`` of the training scenes again, then trains the decoder, from ``work/vae.pt``."""
    squares, originals = load_pictures(data, work, device)[0], Scenes(data, "train").images
    drawn = draw(squares, work, min(scenes, len(squares.latents)), device)
    polish(drawn, squares.latents, originals, work, minutes, device)
