"""Trains the image encoder, which encodes a picture as a code of 16×6×6 that Stage B can decode.

It is trained before Stage B, with a small decoder and a classifier of the scene's attributes, which
are thrown away afterwards. Both see the code through noise. This makes the code smooth, so that
Stage C can learn to generate it, and easy for Stage B. An encoder that is trained together with
Stage B gives a fragile code.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
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
    count_parameters,
    learning_rate_factor,
    load,
    move_module,
    restore,
    save,
)
from training.losses import CLASSES, attribute_loss, correct_attributes, detail_weight, edges
from training.scene_dataset import SceneDataset, images_to_tensor
from training.wuerstchen.config import EMBEDDING_SCALE, image_encoder
from training.wuerstchen.modules import ImageEncoder
from training.wuerstchen.modules.blocks import ResidualBlock

BATCH_SIZE = 32
LEARNING_RATE = 2e-3
CODE_NOISE = 0.5


def encode(encoder: ImageEncoder, pictures: Tensor) -> Tensor:
    """The codes z [n, 16, 6, 6], of unit variance, of ``pictures`` [n, 3, 192, 192] in [0, 1].

    They are what Stage C denoises. The encoder's own outputs, the image embeddings, are 42 z − 1.
    """
    z: Tensor = (encoder(pictures).float() + 1) / EMBEDDING_SCALE
    return z


class ThumbnailDecoder(nn.Module):
    """A decoder of codes to small pictures, used only while the encoder is trained."""

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
        """Pictures [n, 3, 96, 96] of codes ``z`` [n, 16, 6, 6]."""
        x: Tensor = self.end(self.middle(self.start(z)))
        return x


class CodeClassifier(nn.Module):
    """A classifier of codes, used only while the encoder and Stage C are trained."""

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
        """Logits [n, sum of CLASSES] of codes ``z`` [n, 16, 6, 6]."""
        logits: Tensor = self.net(z)
        return logits


def thumbnail_loss(thumbnail: Tensor, target: Tensor) -> Tensor:
    """L1, L2 and edge error of thumbnails, weighted towards detail."""
    error, weight = thumbnail.float() - target, detail_weight(target, 9)
    across, down = edges(error)
    return (weight * (error.abs() + 2 * error.square())).mean() + 0.3 * (across.abs().mean() + down.abs().mean())


@torch.no_grad()
def encode_all(encoder: ImageEncoder, images: np.ndarray, device: torch.device) -> Tensor:
    """The codes z [n, 16, 6, 6] of all ``images`` [n, 192, 192, 3], on the CPU."""
    encoder.eval()
    codes = []
    for start in range(0, len(images), 200):
        x = images_to_tensor(images[start : start + 200]).to(device)
        codes.append(encode(encoder, channels_last(x)).cpu())
    return torch.cat(codes).contiguous()


def load_encoder(work: Path) -> ImageEncoder:
    """The encoder with the EMA weights of ``work/image_encoder.pt``, frozen for inference."""
    encoder = image_encoder()
    encoder.load_state_dict(load(work / "image_encoder.pt")["encoder"])
    return encoder.eval().requires_grad_(False)


def train(data: Path, work: Path, minutes: float, device: torch.device) -> None:
    """Train the encoder, then encode every split to ``work/codes_<split>.pt``.

    Training resumes from ``work/image_encoder.pt`` if that exists.
    """
    torch.manual_seed(0)
    scenes, rng = SceneDataset(data, "train"), np.random.default_rng(1)
    val = SceneDataset(data, "val")
    pictures, picture_labels = images_to_tensor(val.small_images[:400]).to(device), val.labels[:400].to(device)
    modules: dict[str, nn.Module] = {
        "encoder": image_encoder(),
        "sketch": ThumbnailDecoder(),
        "reader": CodeClassifier(),
    }
    for module in modules.values():
        move_module(module, device)
    encoder, decoder, classifier = modules.values()
    ema, optimisers = EMA(modules, 0.998), Optimisers(modules.values(), LEARNING_RATE, 0.02)
    budget, log, means = TimeBudget(minutes), Log(work / "log.jsonl", "image-encoder"), RunningMeans()
    path = work / "image_encoder.pt"
    restore(path, modules, ema, optimisers, budget)
    log.write(budget, parameters=count_parameters(encoder), device=str(device))

    def losses(x: Tensor, noise: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        with autocast(device):
            noised = (encoder(x).float() + 1) / EMBEDDING_SCALE + noise
            thumbnail, logits = decoder(noised), classifier(noised)
        return thumbnail_loss(thumbnail, F.avg_pool2d(x, 2)), attribute_loss(logits, labels).mean()

    compiled = torch.compile(losses)
    encoder.train()
    # The residual blocks' norm has a form for training that torch.compile can't fuse; they have no
    # dropout.
    decoder.eval()
    while not budget.done:
        picked = np.sort(rng.integers(0, len(scenes), BATCH_SIZE))
        x = channels_last(images_to_tensor(scenes.small_images[picked]).to(device))
        noise = (
            torch.randn(BATCH_SIZE, 16, 6, 6, device=device)
            * torch.rand(BATCH_SIZE, 1, 1, 1, device=device)
            * CODE_NOISE
        )
        reconstruction, classification = compiled(x, noise, scenes.labels[picked].to(device))
        norm = optimisers.step(3 * reconstruction + 0.1 * classification, learning_rate_factor(budget), max_norm=2.0)
        budget.count(BATCH_SIZE)
        ema.update()
        means.add(reconstruction=reconstruction, classification=classification, gradient=norm)
        if budget.steps % 200 == 0 or budget.done:
            log.write(budget, **means.pop(), **_evaluate(ema.state, pictures, picture_labels))
            save(path, ema.checkpoint(optimisers, budget))
    trained = load_encoder(work)
    move_module(trained, device)
    for split in ("train", "val", "heldout", "unseen_pair"):
        z = encode_all(trained, SceneDataset(data, split).small_images, device)
        save(work / f"codes_{split}.pt", {"z": z})
        log.write(budget, split=split, mean=float(z.mean()), deviation=float(z.std()))


@torch.no_grad()
def _evaluate(state: dict[str, dict[str, Tensor]], pictures: Tensor, labels: Tensor) -> dict[str, float]:
    """Errors of thumbnails and of the classifier, and the code's smoothness and deviation."""
    encoder, decoder, classifier = image_encoder(), ThumbnailDecoder(), CodeClassifier()
    for name, module in (("encoder", encoder), ("sketch", decoder), ("reader", classifier)):
        module.load_state_dict(state[name])
        module.eval().to(pictures.device)
    z = torch.cat([encode(encoder, x) for x in torch.split(pictures, 100)])
    correct = correct_attributes(classifier(z + 0.25 * torch.randn_like(z)), labels).float()
    error = thumbnail_loss(decoder(z[:64]), F.avg_pool2d(pictures[:64], 2))
    neighbours = (z[..., 1:] - z[..., :-1]).square().mean() / 2
    return {
        "error": float(error),
        "accuracy": float(correct.mean()),
        "whole": float((correct.mean(1) == 1).float().mean()),
        "worst": float(correct.mean(0).min()),
        "neighbour_difference": float(neighbours),
        "deviation": float(z.std()),
    }
