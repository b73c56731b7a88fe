"""Trains the tiny VAE, which encodes a picture as latents of 4×32×32 and decodes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from training.loop import (
    EMA,
    Log,
    Optimisers,
    RunningMeans,
    TimeBudget,
    autocast,
    channels_last,
    count_parameters,
    learning_rate_factor,
    load,
    move_module,
    restore,
    save,
)
from training.losses import detail_weight, edges, psnr
from training.scene_dataset import SceneDataset, images_to_tensor
from training.sdxl.config import vae

BATCH_SIZE = 16
CROP_SIZE = 96
LEARNING_RATE = 2e-3
LATENT_NOISE = 0.1


def encode(model: nn.Module, pictures: Tensor) -> Tensor:
    """Latents [n, 4, h, w] of ``pictures`` [n, 3, 8 h, 8 w] in [0, 1]."""
    latents: Tensor = model.get_submodule("encoder")(pictures * 2 - 1).float()
    return latents


def decode(model: nn.Module, latents: Tensor) -> Tensor:
    """Pictures [n, 3, 8 h, 8 w] of ``latents`` [n, 4, h, w]; values are not clamped to [0, 1]."""
    pictures: Tensor = model.get_submodule("decoder")(latents).float() / 2 + 0.5
    return pictures


def reconstruction_loss(reconstruction: Tensor, target: Tensor) -> Tensor:
    """L1, L2 and edge error of pictures, weighted towards detail: a cat's face is few pixels."""
    error, weight = reconstruction - target, detail_weight(target, 9)
    across, down = edges(error)
    pixels = (weight * (error.abs() + 2 * error.square())).mean()
    return pixels + 0.5 * ((weight[..., 1:] * across.abs()).mean() + (weight[..., 1:, :] * down.abs()).mean())


def load_vae(work: Path) -> nn.Module:
    """The VAE with the EMA weights of ``work/vae.pt``, frozen for inference."""
    model = vae()
    model.load_state_dict(load(work / "vae.pt")["model"])
    return model.eval().requires_grad_(False)


def train(data: Path, work: Path, minutes: float, device: torch.device) -> None:
    """Train the VAE; resumes from ``work/vae.pt`` if that exists."""
    torch.manual_seed(0)
    scenes, rng = SceneDataset(data, "train"), np.random.default_rng(0)
    validation = images_to_tensor(SceneDataset(data, "val").images[:32]).to(device)
    model = vae()
    move_module(model, device)
    ema, optimisers = EMA({"model": model}, 0.998), Optimisers([model], LEARNING_RATE, 1e-4)
    budget, log, means = TimeBudget(minutes), Log(work / "log.jsonl", "vae"), RunningMeans()
    path = work / "vae.pt"
    restore(path, {"model": model}, ema, optimisers, budget)
    log.write(budget, parameters=count_parameters(model), device=str(device))

    def losses(x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with autocast(device):
            latents = encode(model, x)
            reconstruction = decode(model, latents + noise)
        # Zero mean and unit variance in every channel take the place of a VAE's Kullback-Leibler
        # term.
        deviation, mean = latents.std(dim=(0, 2, 3)), latents.mean(dim=(0, 2, 3))
        moments = (deviation - 1).square().mean() + mean.square().mean()
        return reconstruction_loss(reconstruction, x), moments, deviation.mean()

    model.train()
    while not budget.done:
        x = channels_last(scenes.random_crops(BATCH_SIZE, CROP_SIZE, rng).to(device))
        shape = (BATCH_SIZE, 4, CROP_SIZE // 8, CROP_SIZE // 8)
        noise = torch.randn(shape, device=device) * torch.rand(BATCH_SIZE, 1, 1, 1, device=device) * LATENT_NOISE
        reconstruction, moments, deviation = losses(x, channels_last(noise))
        norm = optimisers.step(reconstruction + 0.02 * moments, learning_rate_factor(budget))
        budget.count(BATCH_SIZE)
        ema.update()
        means.add(reconstruction=reconstruction, deviation=deviation, gradient=norm)
        if budget.steps % 250 == 0 or budget.done:
            log.write(budget, **means.pop(), psnr=_evaluate(ema.state["model"], validation))
            save(path, ema.checkpoint(optimisers, budget))


@torch.no_grad()
def _evaluate(state: dict[str, Tensor], pictures: Tensor) -> float:
    """Mean PSNR in decibels of reconstructions of ``pictures``."""
    model = vae()
    model.load_state_dict(state)
    move_module(model.eval(), pictures.device)
    scores = []
    for x in torch.split(channels_last(pictures), 8):
        with autocast(pictures.device):
            scores.append(psnr(decode(model, encode(model, x)), x))
    return float(np.mean(scores))
