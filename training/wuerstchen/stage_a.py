"""Stage A: pictures to latents of a quarter of the side, and back."""

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
    place,
    restore,
    save,
)
from training.losses import picture_loss, psnr
from training.scenes import Scenes, as_pictures
from training.wuerstchen.config import stage_a
from training.wuerstchen.modules import StageA
from training.wuerstchen.modules.stage_a import MixingBlock

BATCH = 16
CROP = 96
RATE = 3e-3
CODEBOOK_FROM = 200
LATENT_NOISE = 0.12


class _Pad(nn.Module):
    """`ReplicationPad2d(1)`, in operations that torch.compile fuses (its own gradient has other strides)."""

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x[..., :1], x, x[..., -1:]], dim=-1)
        return torch.cat([x[..., :1, :], x, x[..., -1:, :]], dim=-2)


def train_with_fast_padding(model: StageA) -> None:
    """Give the blocks a padding whose gradient is cheap; it computes the same, and has no weights."""
    for block in model.modules():
        if isinstance(block, MixingBlock):
            block.depthwise[0] = _Pad()


def _open_branches(model: StageA) -> None:
    """Residual branches start at 0.3 where the architecture has 0, so that they learn from the first step."""
    for name, parameter in model.named_parameters():
        if name.endswith("gammas"):
            parameter.data[2] = parameter.data[5] = 0.3


@torch.no_grad()
def _evaluate(state: dict[str, Tensor], pictures: Tensor) -> dict[str, float]:
    model = stage_a()
    model.load_state_dict(state)
    place(model.eval(), pictures.device)
    plain, rounded, noisy = [], [], []
    for x in torch.split(pictures, 16):
        with autocast(pictures.device):
            latents = model.encode(x)
            deviation = latents.float().std()
            plain.append(psnr(model.decode(latents).float(), x))
            noisy.append(psnr(model.decode(latents + 0.1 * deviation * torch.randn_like(latents)).float(), x))
            rounded.append(psnr(model.decode(model.quantize(latents.float()).latents).float(), x))
    return {"psnr": float(np.mean(plain)), "quantized": float(np.mean(rounded)), "noisy": float(np.mean(noisy))}


def train(data: Path, work: Path, minutes: float, device: torch.device) -> None:
    """Trains Stage A; goes on from `work/stage_a.pt` where that is."""
    torch.manual_seed(0)
    scenes, rng = Scenes(data, "train"), np.random.default_rng(0)
    check = as_pictures(Scenes(data, "val").images[:48]).to(device, memory_format=torch.channels_last)
    model = stage_a()
    train_with_fast_padding(model)
    _open_branches(model)
    place(model, device)
    ema, optimisers = Ema({"model": model}, 0.998), Optimisers([model], RATE, 1e-4)
    budget, log, means = Budget(minutes), Log(work / "log.jsonl", "stage-a"), Means()
    path = work / "stage_a.pt"
    restore(path, {"model": model}, ema, optimisers, budget)
    log.write(budget, parameters=count_parameters(model), device=str(device))

    def reconstruct(x: Tensor, keep: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        with autocast(device):
            latents = model.encode(x).float()
            quantized = model.quantize(latents)
            # Half of the pictures go through the codebook, the others through a little noise.
            given = torch.where(keep, latents + noise, quantized.latents)
            drawn = model.decode(given)
        books = quantized.codebook_loss + 0.25 * quantized.commitment_loss
        return picture_loss(drawn, x) + 0.1 * books, latents

    def plain(x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        with autocast(device):
            latents = model.encode(x).float()
            drawn = model.decode(latents + noise)
        return picture_loss(drawn, x), latents

    fast_reconstruct, fast_plain = torch.compile(reconstruct), torch.compile(plain)
    model.train()
    while not budget.done:
        x = channels_last(scenes.crops(BATCH, CROP, rng).to(device))
        shape = (BATCH, 4, CROP // 4, CROP // 4)
        noise = torch.randn(shape, device=device) * torch.rand(BATCH, 1, 1, 1, device=device) * LATENT_NOISE
        if budget.steps < CODEBOOK_FROM:
            loss, latents = fast_plain(x, noise)
        else:
            if budget.steps == CODEBOOK_FROM:
                with torch.no_grad():
                    vectors = fast_plain(x, noise)[1].permute(0, 2, 3, 1).reshape(-1, 4)
                    codes = model.vquantizer.embedding.weight
                    codes.copy_(vectors[torch.randperm(len(vectors))[: len(codes)]])
                    codes.add_(0.01 * torch.randn_like(codes))
            keep = torch.rand(BATCH, 1, 1, 1, device=device) < 0.75
            loss, latents = fast_reconstruct(x, keep, noise)
        norm = optimisers.step(loss, learning_rate(budget))
        budget.count(BATCH)
        ema.update()
        means.add(loss=loss, gradient=norm, spread=latents.std())
        if budget.steps % 500 == 0 or budget.done:
            log.write(budget, **means.take(), **_evaluate(ema.state["model"], check))
            save(path, ema.checkpoint(optimisers, budget))
