"""Trains Stage A, the VQGAN, which encodes pictures as latents of a quarter of their side."""

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
    move_module,
    restore,
    save,
)
from training.losses import image_loss, psnr
from training.scene_dataset import SceneDataset, images_to_tensor
from training.wuerstchen.config import stage_a
from training.wuerstchen.modules import StageA
from training.wuerstchen.modules.stage_a import MixingBlock

BATCH_SIZE = 16
CROP_SIZE = 96
LEARNING_RATE = 3e-3
CODEBOOK_START = 200
"""The step at which the codebook starts from latents of a batch; before, nothing is quantized."""

LATENT_NOISE = 0.12


class _Pad(nn.Module):
    """``ReplicationPad2d(1)`` in operations that torch.compile fuses, gradient included."""

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x[..., :1], x, x[..., -1:]], dim=-1)
        return torch.cat([x[..., :1, :], x, x[..., -1:, :]], dim=-2)


def train_with_fast_padding(model: StageA) -> None:
    """Replace the blocks' padding by an equal one whose gradient is cheaper."""
    for block in model.modules():
        if isinstance(block, MixingBlock):
            block.depthwise[0] = _Pad()


def _open_branches(model: StageA) -> None:
    """Start residual branches at 0.3 instead of the published 0, so that they learn at once."""
    for name, parameter in model.named_parameters():
        if name.endswith("gammas"):
            parameter.data[2] = parameter.data[5] = 0.3


@torch.no_grad()
def _start_codebook(codes: Tensor, latents: Tensor) -> None:
    """Set ``codes`` [n, 4] to random vectors of ``latents`` [batch, 4, h, w], slightly noised."""
    vectors = latents.permute(0, 2, 3, 1).reshape(-1, 4)
    codes.copy_(vectors[torch.randperm(len(vectors))[: len(codes)]])
    codes.add_(0.01 * torch.randn_like(codes))


@torch.no_grad()
def _evaluate(state: dict[str, Tensor], pictures: Tensor) -> dict[str, float]:
    """Mean PSNR in decibels of pictures from plain, quantized and noisy latents."""
    model = stage_a()
    model.load_state_dict(state)
    move_module(model.eval(), pictures.device)
    plain, quantized, noisy = [], [], []
    for x in torch.split(pictures, 16):
        with autocast(pictures.device):
            latents = model.encode(x)
            deviation = latents.float().std()
            plain.append(psnr(model.decode(latents).float(), x))
            noisy.append(psnr(model.decode(latents + 0.1 * deviation * torch.randn_like(latents)).float(), x))
            quantized.append(psnr(model.decode(model.quantize(latents.float()).latents).float(), x))
    return {"psnr": float(np.mean(plain)), "quantized": float(np.mean(quantized)), "noisy": float(np.mean(noisy))}


def train(data: Path, work: Path, minutes: float, device: torch.device) -> None:
    """Train Stage A; resumes from ``work/stage_a.pt`` if that exists."""
    torch.manual_seed(0)
    scenes, rng = SceneDataset(data, "train"), np.random.default_rng(0)
    validation = images_to_tensor(SceneDataset(data, "val").images[:48]).to(device, memory_format=torch.channels_last)
    model = stage_a()
    train_with_fast_padding(model)
    _open_branches(model)
    move_module(model, device)
    ema, optimisers = EMA({"model": model}, 0.998), Optimisers([model], LEARNING_RATE, 1e-4)
    budget, log, means = TimeBudget(minutes), Log(work / "log.jsonl", "stage-a"), RunningMeans()
    path = work / "stage_a.pt"
    restore(path, {"model": model}, ema, optimisers, budget)
    log.write(budget, parameters=count_parameters(model), device=str(device))

    def reconstruct(x: Tensor, keep: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        with autocast(device):
            latents = model.encode(x).float()
            quantized = model.quantize(latents)
            # A quarter of the pictures go through the codebook, the others through a little noise.
            reconstruction = model.decode(torch.where(keep, latents + noise, quantized.latents))
        codebook_loss = quantized.codebook_loss + 0.25 * quantized.commitment_loss
        return image_loss(reconstruction, x) + 0.1 * codebook_loss, latents

    def reconstruct_unquantized(x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        with autocast(device):
            latents = model.encode(x).float()
            reconstruction = model.decode(latents + noise)
        return image_loss(reconstruction, x), latents

    compiled, compiled_unquantized = torch.compile(reconstruct), torch.compile(reconstruct_unquantized)
    model.train()
    while not budget.done:
        x = channels_last(scenes.random_crops(BATCH_SIZE, CROP_SIZE, rng).to(device))
        shape = (BATCH_SIZE, 4, CROP_SIZE // 4, CROP_SIZE // 4)
        noise = torch.randn(shape, device=device) * torch.rand(BATCH_SIZE, 1, 1, 1, device=device) * LATENT_NOISE
        if budget.steps < CODEBOOK_START:
            loss, latents = compiled_unquantized(x, noise)
        else:
            if budget.steps == CODEBOOK_START:
                with torch.no_grad():
                    _start_codebook(model.vquantizer.embedding.weight, compiled_unquantized(x, noise)[1])
            keep = torch.rand(BATCH_SIZE, 1, 1, 1, device=device) < 0.75
            loss, latents = compiled(x, keep, noise)
        norm = optimisers.step(loss, learning_rate_factor(budget))
        budget.count(BATCH_SIZE)
        ema.update()
        means.add(loss=loss, gradient=norm, deviation=latents.std())
        if budget.steps % 500 == 0 or budget.done:
            log.write(budget, **means.pop(), **_evaluate(ema.state["model"], validation))
            save(path, ema.checkpoint(optimisers, budget))
