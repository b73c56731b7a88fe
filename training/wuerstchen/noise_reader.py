"""Trains a reader of noised codes: which attributes a code seems to show, seen through its noise.

Open captions are completed with its guesses (:mod:`training.wuerstchen.open_captions`). It is
thrown away afterwards.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.loop import EMA, Log, Optimisers, RunningMeans, TimeBudget, learning_rate_factor, load, save
from training.losses import CLASSES, attribute_losses
from training.wuerstchen.noise_schedule import add_noise_at_random_times

BATCH_SIZE = 256
LEARNING_RATE = 2e-3
STATED_SHARE = 0.6
"""Share of attributes that the reader is told while it is trained."""


class NoiseReader(nn.Module):
    """A classifier of noised codes that is told some of the attributes."""

    def __init__(self, width: int = 96, hidden: int = 256) -> None:
        super().__init__()
        self.told = nn.Linear(sum(CLASSES) + 3, hidden)
        self.first = nn.Conv2d(16, width, 3, padding=1)
        self.modulation = nn.Linear(hidden, 2 * width)
        self.second = nn.Conv2d(width, 64, 3, padding=1)
        self.joined = nn.Linear(64 * 36, hidden)
        self.out = nn.Linear(hidden, sum(CLASSES))

    def forward(self, x: Tensor, alpha_cumprod: Tensor, labels: Tensor, stated: Tensor) -> Tensor:
        """Logits [n, sum of CLASSES] of noised codes ``x`` [n, 16, 6, 6] at ᾱ [n].

        ``labels`` [n, attributes] count where ``stated`` [n, attributes].
        """
        told = torch.cat(
            [F.one_hot(labels[:, i], count).float() * stated[:, i : i + 1].float() for i, count in enumerate(CLASSES)],
            dim=1,
        )
        level = torch.stack([alpha_cumprod.sqrt(), (1 - alpha_cumprod).sqrt(), alpha_cumprod.log() / 9], dim=1)
        condition = F.silu(self.told(torch.cat([told, level], dim=1)))
        scale, shift = self.modulation(condition)[:, :, None, None].chunk(2, dim=1)
        features = F.silu(self.first(x) * (1 + scale) + shift)
        logits: Tensor = self.out(F.silu(self.joined(F.silu(self.second(features)).flatten(1)) + condition))
        return logits


def guess(logits: Tensor, sharpness: float) -> Tensor:
    """A value of each attribute [n, attributes], drawn by the ``sharpness``-th power of its odds."""
    parts = torch.split(logits, CLASSES, dim=1)
    return torch.cat([torch.multinomial((part * sharpness).softmax(dim=1), 1) for part in parts], dim=1)


def train(codes: Tensor, labels: Tensor, work: Path, minutes: float, device: torch.device) -> NoiseReader:
    """The reader of ``codes`` [n, 16, 6, 6] by ``labels`` [n, attributes], frozen.

    It is loaded from ``work/noise_reader.pt``, and trained and stored there first if that file is
    missing.
    """
    path, reader = work / "noise_reader.pt", NoiseReader()
    if path.exists():
        reader.load_state_dict(load(path)["reader"])
        return reader.to(device).eval().requires_grad_(False)
    torch.manual_seed(3)
    reader.to(device)
    ema, optimisers = EMA({"reader": reader}, 0.998), Optimisers([reader], LEARNING_RATE)
    budget, log, means = TimeBudget(minutes), Log(work / "log.jsonl", "noise-reader"), RunningMeans()
    while not budget.done:
        picked = torch.randint(0, len(codes), (BATCH_SIZE,))
        x, _, _, alpha_cumprod = add_noise_at_random_times(codes[picked].to(device), 0.5)
        wanted = labels[picked].to(device)
        stated = torch.rand(wanted.shape, device=device) < STATED_SHARE
        losses = attribute_losses(reader(x, alpha_cumprod[:, 0, 0, 0], wanted, stated), wanted)
        loss = (losses * ~stated).sum(dim=1).mean()
        optimisers.step(loss, learning_rate_factor(budget))
        budget.count(BATCH_SIZE)
        ema.update()
        means.add(classification=loss)
        if budget.steps % 200 == 0 or budget.done:
            log.write(budget, **means.pop())
    save(path, {"reader": ema.state["reader"]})
    reader.load_state_dict(ema.state["reader"])
    return reader.eval().requires_grad_(False)
