"""The image encoder: a picture to 6×6×16 numbers from which it can be drawn again.

It is trained before Stage B, with a small throw-away decoder and a throw-away classifier of the scene's
attributes, both of which see its code through noise. That makes a code that is smooth, so that Stage C can
learn to draw it, and that Stage B finds easy. Trained together with Stage B it comes out fragile.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
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
    count_parameters,
    learning_rate,
    load,
    place,
    restore,
    save,
)
from training.losses import CLASSES, attribute_loss, attributes_right, edges, subject_weight
from training.scenes import Scenes, as_pictures
from training.wuerstchen.config import image_encoder
from training.wuerstchen.modules import ImageEncoder
from training.wuerstchen.modules.blocks import ResidualBlock

BATCH = 32
RATE = 2e-3
NOISE = 0.5


def code(encoder: ImageEncoder, pictures: Tensor) -> Tensor:
    """The unit-variance z of pictures of 192×192: what Stage C denoises. Embeddings are 42 z − 1."""
    z: Tensor = (encoder(pictures).float() + 1) / 42
    return z


class Sketch(nn.Module):
    """z to a picture of 96×96. Thrown away after training."""

    def __init__(self, wide: int = 224, fine: int = 96) -> None:
        super().__init__()
        self.start = nn.Sequential(nn.Conv2d(16, wide, 3, padding=1), ResidualBlock(wide, 0, 3, 0.0))
        self.middle = nn.Sequential(
            nn.Conv2d(wide, 4 * wide, 1),
            nn.PixelShuffle(2),
            ResidualBlock(wide, 0, 3, 0.0),
            ResidualBlock(wide, 0, 3, 0.0),
        )
        self.end = nn.Sequential(
            nn.Conv2d(wide, 4 * fine, 1),
            nn.PixelShuffle(2),
            ResidualBlock(fine, 0, 3, 0.0),
            nn.Conv2d(fine, 48, 1),
            nn.PixelShuffle(4),
        )

    def forward(self, z: Tensor) -> Tensor:
        """[n, 16, 6, 6] -> [n, 3, 96, 96]."""
        x: Tensor = self.end(self.middle(self.start(z)))
        return x


class Reader(nn.Module):
    """Z to the logits of every attribute. Thrown away after Stage C's training."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(16, 128, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(128, 64, 3, padding=1),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(64 * 36, 192),
            nn.SiLU(),
            nn.Linear(192, sum(CLASSES)),
        )

    def forward(self, z: Tensor) -> Tensor:
        """[n, 16, 6, 6] -> [n, sum of classes]."""
        logits: Tensor = self.net(z)
        return logits


def sketch_loss(drawn: Tensor, target: Tensor) -> Tensor:
    """Error of a sketch, weighted on the subject."""
    error, weight = drawn.float() - target, subject_weight(target, 9)
    across, down = edges(error)
    return (weight * (error.abs() + 2 * error.square())).mean() + 0.3 * (across.abs().mean() + down.abs().mean())


@torch.no_grad()
def encode_all(encoder: ImageEncoder, small: np.ndarray, device: torch.device) -> Tensor:
    """The codes z of all pictures [n, 192, 192, 3], on the CPU."""
    encoder.eval()
    codes = []
    for start in range(0, len(small), 200):
        x = as_pictures(small[start : start + 200]).to(device)
        codes.append(code(encoder, channels_last(x)).cpu())
    return torch.cat(codes).contiguous()


def load_encoder(work: Path) -> ImageEncoder:
    """The trained encoder, for use."""
    encoder = image_encoder()
    encoder.load_state_dict(load(work / "image_encoder.pt")["encoder"])
    return encoder.eval().requires_grad_(False)


def train(data: Path, work: Path, minutes: float, device: torch.device) -> None:
    """Trains the encoder; goes on from `work/image_encoder.pt` where that is. Then encodes every split."""
    torch.manual_seed(0)
    scenes, rng = Scenes(data, "train"), np.random.default_rng(1)
    val = Scenes(data, "val")
    check, check_labels = as_pictures(val.small[:400]).to(device), val.labels[:400].to(device)
    modules: dict[str, nn.Module] = {"encoder": image_encoder(), "sketch": Sketch(), "reader": Reader()}
    for module in modules.values():
        place(module, device)
    encoder, sketch, reader = modules.values()
    ema, optimisers = Ema(modules, 0.998), Optimisers(modules.values(), RATE, 0.02)
    budget, log, means = Budget(minutes), Log(work / "log.jsonl", "image-encoder"), Means()
    path = work / "image_encoder.pt"
    restore(path, modules, ema, optimisers, budget)
    log.write(budget, parameters=count_parameters(encoder), device=str(device))

    def losses(x: Tensor, noise: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with autocast(device):
            z = (encoder(x).float() + 1) / 42
            seen = z + noise
            drawn, logits = sketch(seen), reader(seen)
        return sketch_loss(drawn, F.avg_pool2d(x, 2)), attribute_loss(logits, labels).mean(), z

    fast = torch.compile(losses)
    encoder.train()
    # The residual blocks' norm has a form for training that torch.compile can't fuse; they have no dropout.
    sketch.eval()
    while not budget.done:
        picked = np.sort(rng.integers(0, len(scenes), BATCH))
        x = channels_last(as_pictures(scenes.small[picked]).to(device))
        noise = torch.randn(BATCH, 16, 6, 6, device=device) * torch.rand(BATCH, 1, 1, 1, device=device) * NOISE
        drawing, reading, z = fast(x, noise, scenes.labels[picked].to(device))
        norm = optimisers.step(3 * drawing + 0.1 * reading, learning_rate(budget), clip=2.0)
        budget.count(BATCH)
        ema.update()
        means.add(drawing=drawing, reading=reading, gradient=norm)
        if budget.steps % 200 == 0 or budget.done:
            values = _evaluate(ema.state, check, check_labels)
            log.write(budget, **means.take(), **values)
            save(path, ema.checkpoint(optimisers, budget))
    final = load_encoder(work)
    place(final, device)
    for split in ("train", "val", "heldout", "unseen_pair"):
        z = encode_all(final, Scenes(data, split).small, device)
        save(work / f"codes_{split}.pt", {"z": z})
        log.write(budget, split=split, mean=float(z.mean()), deviation=float(z.std()))


@torch.no_grad()
def _evaluate(state: dict[str, dict[str, Tensor]], pictures: Tensor, labels: Tensor) -> dict[str, float]:
    encoder, sketch, reader = image_encoder(), Sketch(), Reader()
    for name, module in (("encoder", encoder), ("sketch", sketch), ("reader", reader)):
        module.load_state_dict(state[name])
        module.eval().to(pictures.device)
    z = torch.cat([code(encoder, x) for x in torch.split(pictures, 100)])
    right = attributes_right(reader(z + 0.25 * torch.randn_like(z)), labels).float()
    error = sketch_loss(sketch(z[:64]), F.avg_pool2d(pictures[:64], 2))
    smooth = (z[..., 1:] - z[..., :-1]).square().mean() / 2
    return {
        "error": float(error),
        "right": float(right.mean()),
        "all_right": float((right.mean(1) == 1).float().mean()),
        "worst": float(right.mean(0).min()),
        "unlike_neighbour": float(smooth),
        "std": float(z.std()),
    }
