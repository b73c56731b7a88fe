"""The tiny autoencoder: pictures to 32×32×4 latents, and back. Its latents are what the UNet draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from training.common import (
    Budget,
    Ema,
    Log,
    Means,
    Optimisers,
    autocast,
    channels_last,
    count_parameters,
    learning_rate,
    load,
    place,
    restore,
    save,
)
from training.losses import edges, psnr, subject_weight
from training.scenes import Scenes, as_pictures
from training.sdxl.config import vae

BATCH = 16
CROP = 96
RATE = 2e-3
NOISE = 0.1


def encoded(model: nn.Module, pictures: Tensor) -> Tensor:
    """The latents [n, 4, h, w] of pictures in [0, 1]."""
    latents: Tensor = model.get_submodule("encoder")(pictures * 2 - 1).float()
    return latents


def decoded(model: nn.Module, latents: Tensor) -> Tensor:
    """Pictures in [0, 1], not clamped, of latents."""
    pictures: Tensor = model.get_submodule("decoder")(latents).float() / 2 + 0.5
    return pictures


def drawing_loss(drawn: Tensor, picture: Tensor) -> Tensor:
    """Absolute, squared and edge error, weighted on the details: a cat's face is few pixels."""
    error, weight = drawn - picture, subject_weight(picture, 9)
    across, down = edges(error)
    fields = (weight * (error.abs() + 2 * error.square())).mean()
    return fields + 0.5 * ((weight[..., 1:] * across.abs()).mean() + (weight[..., 1:, :] * down.abs()).mean())


def load_vae(work: Path) -> nn.Module:
    """The trained autoencoder, for use."""
    model = vae()
    model.load_state_dict(load(work / "vae.pt")["model"])
    return model.eval().requires_grad_(False)


def train(data: Path, work: Path, minutes: float, device: torch.device) -> None:
    """Trains the autoencoder; goes on from ``work/vae.pt`` where that is."""
    torch.manual_seed(0)
    scenes, rng = Scenes(data, "train"), np.random.default_rng(0)
    check = as_pictures(Scenes(data, "val").images[:32]).to(device)
    model = vae()
    place(model, device)
    ema, optimisers = Ema({"model": model}, 0.998), Optimisers([model], RATE, 1e-4)
    budget, log, means = Budget(minutes), Log(work / "log.jsonl", "vae"), Means()
    path = work / "vae.pt"
    restore(path, {"model": model}, ema, optimisers, budget)
    log.write(budget, parameters=count_parameters(model), device=str(device))

    def losses(x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with autocast(device):
            latents = encoded(model, x)
            drawn = decoded(model, latents + noise)
        # Unit variance in every channel, so that no divergence has to hold the latents in place.
        spread, centre = latents.std(dim=(0, 2, 3)), latents.mean(dim=(0, 2, 3))
        return drawing_loss(drawn, x), (spread - 1).square().mean() + centre.square().mean(), spread.mean()

    model.train()
    while not budget.done:
        x = channels_last(scenes.crops(BATCH, CROP, rng).to(device))
        shape = (BATCH, 4, CROP // 8, CROP // 8)
        noise = torch.randn(shape, device=device) * torch.rand(BATCH, 1, 1, 1, device=device) * NOISE
        drawing, shape_loss, spread = losses(x, channels_last(noise))
        norm = optimisers.step(drawing + 0.02 * shape_loss, learning_rate(budget))
        budget.count(BATCH)
        ema.update()
        means.add(drawing=drawing, spread=spread, gradient=norm)
        if budget.steps % 250 == 0 or budget.done:
            log.write(budget, **means.take(), psnr=_evaluate(ema.state["model"], check))
            save(path, ema.checkpoint(optimisers, budget))


@torch.no_grad()
def _evaluate(state: dict[str, Tensor], pictures: Tensor) -> float:
    """Decibels of reconstructions of whole pictures."""
    model = vae()
    model.load_state_dict(state)
    place(model.eval(), pictures.device)
    scores = []
    for x in torch.split(channels_last(pictures), 8):
        with autocast(pictures.device):
            scores.append(psnr(decoded(model, encoded(model, x)), x))
    return float(np.mean(scores))
