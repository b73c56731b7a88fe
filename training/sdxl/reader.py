"""Latents to a scene's attributes: a classifier that says, while the UNet learns, what its latents show."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.common import (
    Budget,
    Ema,
    Log,
    Means,
    Optimisers,
    autocast,
    channels_last,
    learning_rate,
    load,
    place,
    save,
)
from training.losses import CLASSES, attribute_loss, attributes_right

BATCH = 64
RATE = 2e-3


class LatentReader(nn.Module):
    """[n, 4, 32, 32] -> logits [n, sum of classes]."""

    def __init__(self) -> None:
        super().__init__()
        widths = ((6, 48, 1), (48, 64, 2), (64, 96, 1), (96, 128, 2), (128, 128, 2))
        layers: list[nn.Module] = []
        for inside, outside, stride in widths:
            layers += [nn.Conv2d(inside, outside, 3, stride, 1), nn.GroupNorm(8, outside), nn.SiLU()]
        self.net = nn.Sequential(
            *layers, nn.Flatten(), nn.Linear(128 * 16, 192), nn.SiLU(), nn.Linear(192, sum(CLASSES))
        )

    def forward(self, latents: Tensor) -> Tensor:
        """Logits of all attributes."""
        line = torch.linspace(-1, 1, latents.shape[-1], device=latents.device, dtype=latents.dtype)
        across = line.expand(len(latents), 1, len(line), len(line))
        logits: Tensor = self.net(torch.cat([latents, across, across.transpose(2, 3)], 1))
        return logits


def worn(latents: Tensor) -> Tensor:
    """Latents as an unfinished model draws them: blurred, faint or noisy."""
    n = len(latents)
    soft = F.avg_pool2d(F.pad(latents, (1, 1, 1, 1), mode="replicate"), 3, 1)
    latents = torch.lerp(latents, soft, torch.rand(n, 1, 1, 1))
    return latents * (0.7 + 0.4 * torch.rand(n, 1, 1, 1)) + torch.randn_like(latents) * torch.rand(n, 1, 1, 1) * 0.6


def train(latents: Tensor, labels: Tensor, work: Path, minutes: float, device: torch.device) -> LatentReader:
    """The reader of these latents; from ``work/reader.pt`` where it is trained already."""
    path, reader = work / "reader.pt", LatentReader()
    if path.exists():
        reader.load_state_dict(load(path)["reader"])
        return reader.to(device).eval().requires_grad_(False)
    torch.manual_seed(2)
    place(reader, device)
    ema, optimisers = Ema({"reader": reader}, 0.998), Optimisers([reader], RATE)
    budget, log, means = Budget(minutes), Log(work / "log.jsonl", "reader"), Means()
    held = len(latents) - min(1000, len(latents) // 10)
    while not budget.done:
        picked = torch.randint(0, held, (BATCH,))
        with autocast(device):
            logits = reader(channels_last(worn(latents[picked].float()).to(device)))
        loss = attribute_loss(logits, labels[picked].to(device)).mean()
        optimisers.step(loss, learning_rate(budget))
        budget.count(BATCH)
        ema.update()
        means.add(reading=loss)
        if budget.steps % 500 == 0 or budget.done:
            log.write(budget, **means.take())
    reader.load_state_dict(ema.state["reader"])
    reader.eval().requires_grad_(False)
    right = attributes_right(reader(latents[held:].float().to(device)), labels[held:].to(device))
    log.write(budget, attributes=float(right.float().mean()), whole=float(right.all(dim=1).float().mean()))
    save(path, {"reader": reader.state_dict()})
    return reader
