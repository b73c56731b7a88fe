"""Trains a classifier of latents, which adds a loss to the denoiser's training."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.loop import (
    EMA,
    Log,
    Optimisers,
    RunningMeans,
    TimeBudget,
    autocast,
    channels_last,
    learning_rate_factor,
    load,
    move_module,
    save,
)
from training.losses import CLASSES, attribute_loss, correct_attributes

BATCH_SIZE = 64
LEARNING_RATE = 2e-3


class LatentClassifier(nn.Module):
    """A convolutional classifier of a scene's attributes by its latents and their coordinates."""

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
        """Logits [n, sum of CLASSES] of ``latents`` [n, 4, 32, 32]."""
        line = torch.linspace(-1, 1, latents.shape[-1], device=latents.device, dtype=latents.dtype)
        across = line.expand(len(latents), 1, len(line), len(line))
        logits: Tensor = self.net(torch.cat([latents, across, across.transpose(2, 3)], 1))
        return logits


def degrade(latents: Tensor) -> Tensor:
    """``latents`` as an unfinished model predicts them: blurred, faint or noisy."""
    n = len(latents)
    blurred = F.avg_pool2d(F.pad(latents, (1, 1, 1, 1), mode="replicate"), 3, 1)
    latents = torch.lerp(latents, blurred, torch.rand(n, 1, 1, 1))
    return latents * (0.7 + 0.4 * torch.rand(n, 1, 1, 1)) + torch.randn_like(latents) * torch.rand(n, 1, 1, 1) * 0.6


def train(latents: Tensor, labels: Tensor, work: Path, minutes: float, device: torch.device) -> LatentClassifier:
    """The classifier of ``latents`` [n, 4, 32, 32] by ``labels`` [n, 6], frozen.

    It is loaded from ``work/classifier.pt``, and trained and stored there first if that file is
    missing.
    """
    path, classifier = work / "classifier.pt", LatentClassifier()
    if path.exists():
        classifier.load_state_dict(load(path)["classifier"])
        return classifier.to(device).eval().requires_grad_(False)
    torch.manual_seed(2)
    move_module(classifier, device)
    ema, optimisers = EMA({"classifier": classifier}, 0.998), Optimisers([classifier], LEARNING_RATE)
    budget, log, means = TimeBudget(minutes), Log(work / "log.jsonl", "classifier"), RunningMeans()
    training_count = len(latents) - min(1000, len(latents) // 10)
    while not budget.done:
        picked = torch.randint(0, training_count, (BATCH_SIZE,))
        with autocast(device):
            logits = classifier(channels_last(degrade(latents[picked].float()).to(device)))
        loss = attribute_loss(logits, labels[picked].to(device)).mean()
        optimisers.step(loss, learning_rate_factor(budget))
        budget.count(BATCH_SIZE)
        ema.update()
        means.add(classification=loss)
        if budget.steps % 500 == 0 or budget.done:
            log.write(budget, **means.pop())
    classifier.load_state_dict(ema.state["classifier"])
    classifier.eval().requires_grad_(False)
    logits = classifier(latents[training_count:].float().to(device))
    correct = correct_attributes(logits, labels[training_count:].to(device))
    log.write(budget, attributes=float(correct.float().mean()), whole=float(correct.all(dim=1).float().mean()))
    save(path, {"classifier": classifier.state_dict()})
    return classifier
