"""Fine-tunes the VAE's decoder on the latents that the UNet generates, for crisp pictures.

One-step latents are softer than the encoder's. The noise that they come from is coupled to a scene
(:mod:`training.sdxl.coupling`), and that scene is what they should decode to. Half of the training
pairs are of such latents, half of the encoder's own. A small patch discriminator adds an
adversarial loss (Isola et al., arXiv 1611.07004), because a reconstruction error alone leaves
blurred what it cannot predict. The encoder, and so the latent space, is unchanged.
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
    learning_rate_factor,
    load,
    move_module,
    save,
)
from training.losses import psnr
from training.scene_dataset import SceneDataset, images_to_tensor
from training.sdxl.config import GRID, unet, vae
from training.sdxl.text import text_encoders
from training.sdxl.unet import SCENES, CoupledDataset, Denoiser, load_dataset, make_batch, to_device
from training.sdxl.vae import decode, reconstruction_loss

BATCH_SIZE = 16
CROP_SIZE = 12
"""Side of a crop in latents: 96 pixels."""

LEARNING_RATE = 1e-3
ADVERSARIAL_WEIGHT = 0.02
_GENERATION_BATCH_SIZE = 64


class PatchDiscriminator(nn.Module):
    """A discriminator of rendered from decoded pictures, patch by patch."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inside, outside in ((3, 48), (48, 96), (96, 128)):
            layers += [nn.utils.parametrizations.spectral_norm(nn.Conv2d(inside, outside, 4, 2, 1)), nn.LeakyReLU(0.2)]
        self.net = nn.Sequential(*layers, nn.Conv2d(128, 1, 3, padding=1))

    def forward(self, pictures: Tensor) -> Tensor:
        """Logits [n, 1, h / 8, w / 8], high where a patch of ``pictures`` looks rendered."""
        logits: Tensor = self.net(pictures * 2 - 1)
        return logits


@torch.no_grad()
def generate(dataset: CoupledDataset, work: Path, count: int, device: torch.device) -> Tensor:
    """One-step latents [count, 4, 32, 32] (f16), from noise coupled to the first scenes."""
    torch.manual_seed(3)
    state = load(work / "unet.pt")
    text, network = text_encoders(work), unet()
    text.load_state_dict(state["text"])
    network.load_state_dict(state["unet"])
    model = Denoiser(text, network)
    move_module(model.eval(), device)
    generated = []
    for picked in torch.split(torch.arange(count), _GENERATION_BATCH_SIZE):
        last = torch.ones(len(picked), dtype=torch.bool)
        batch = to_device(make_batch(dataset, picked, last, caption_dropout=0.0), device)
        with autocast(device):
            generated.append(model(batch).half().cpu())
    return torch.cat(generated)


def train(data: Path, work: Path, minutes: float, device: torch.device, scenes: int = 6000) -> None:
    """Generate latents of ``scenes`` training scenes, then fine-tune the decoder on them."""
    dataset, images = load_dataset(data, work, device), SceneDataset(data, "train").images
    generated = generate(dataset, work, min(scenes, SCENES, len(images)), device)
    polish(generated, dataset.latents, images, work, minutes, device)


def polish(
    generated: Tensor, encoded: Tensor, images: np.ndarray, work: Path, minutes: float, device: torch.device
) -> None:
    """Fine-tune the decoder of ``work/vae.pt`` and write the VAE to ``work/polish.pt``.

    ``generated`` [count, 4, 32, 32] are latents that a denoiser generated for the first scenes,
    ``encoded`` [n, 4, 32, 32] those of the encoder, and ``images`` [n, 256, 256, 3] the scenes.
    """
    count = len(generated)
    torch.manual_seed(4)
    model, discriminator = vae(), PatchDiscriminator()
    model.load_state_dict(load(work / "vae.pt")["model"])
    model.requires_grad_(False)
    decoder = model.get_submodule("decoder").requires_grad_(True)
    move_module(model, device)
    move_module(discriminator, device)
    ema, optimisers = EMA({"model": model}, 0.998), Optimisers([decoder], LEARNING_RATE, 1e-4)
    discriminator_optimisers = Optimisers([discriminator], LEARNING_RATE, 0.0)
    budget, log, means = TimeBudget(minutes), Log(work / "log.jsonl", "polish"), RunningMeans()
    rng = np.random.default_rng(3)
    training_count = count - min(32, count // 4)
    validation = slice(training_count, count)
    log.write(budget, drawn=count, before=_evaluate(model, generated[validation], images[validation], device))
    while not budget.done:
        latents, targets = _pairs(encoded, generated, images, training_count, rng)
        latents, targets = channels_last(latents.to(device)), channels_last(targets.to(device))
        with autocast(device):
            pixels = decode(model, latents)
            adversarial = -discriminator(pixels).float().mean()
        # The adversarial loss fades in over the first 20% of the time: the discriminator has to
        # learn first.
        weight = ADVERSARIAL_WEIGHT * min(1.0, budget.fraction / 0.2)
        reconstruction = reconstruction_loss(pixels, targets)
        norm = optimisers.step(reconstruction + weight * adversarial, learning_rate_factor(budget))
        with autocast(device):
            real, fake = discriminator(targets).float(), discriminator(pixels.detach()).float()
        hinge = F.relu(1 - real).mean() + F.relu(1 + fake).mean()
        discriminator_optimisers.step(hinge, learning_rate_factor(budget))
        budget.count(BATCH_SIZE)
        ema.update()
        means.add(reconstruction=reconstruction, discriminator=hinge, adversarial=adversarial, gradient=norm)
        if budget.steps % 250 == 0 or budget.done:
            polished = vae()
            polished.load_state_dict(ema.state["model"])
            move_module(polished, device)
            after = _evaluate(polished, generated[validation], images[validation], device)
            log.write(budget, **means.pop(), after=after)
            save(work / "polish.pt", {"model": ema.state["model"]})


def _pairs(
    encoded: Tensor, generated: Tensor, images: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Crops of latents, alternately encoded and generated, and of the pictures to decode to."""
    picked = rng.integers(0, count, BATCH_SIZE)
    corners = rng.integers(0, GRID - CROP_SIZE + 1, (BATCH_SIZE, 2))
    crops = list(zip(picked, corners, range(BATCH_SIZE), strict=True))
    latents = [(generated if n % 2 else encoded)[i, :, y : y + CROP_SIZE, x : x + CROP_SIZE] for i, (y, x), n in crops]
    side = 8 * CROP_SIZE
    targets = [images[i, 8 * y : 8 * y + side, 8 * x : 8 * x + side] for i, (y, x), _ in crops]
    return torch.stack(latents).float(), images_to_tensor(np.stack(targets))


@torch.no_grad()
def _evaluate(model: nn.Module, latents: Tensor, images: np.ndarray, device: torch.device) -> float:
    """Mean PSNR in decibels of decoded ``latents`` against ``images``, their targets."""
    scores = []
    for start in range(0, len(latents), 8):
        with autocast(device):
            pixels = decode(model, channels_last(latents[start : start + 8].float().to(device)))
        scores.append(psnr(pixels, images_to_tensor(images[start : start + 8]).to(device)))
    return float(np.mean(scores))
