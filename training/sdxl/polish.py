"""Polish: the autoencoder's decoder learns what the UNet really draws, and to draw it crisp.

The latents of one step are softer than the encoder's. As the noise that they are drawn from is coupled to a scene
(:mod:`training.sdxl.coupling`), that scene is what they should decode to: pairs to go on training the decoder with,
half and half with the encoder's own latents. Besides its error, a small discriminator judges crops (Isola et al., 2017,
arXiv 1611.07004), for an error alone leaves soft what it can't know. The encoder, and with it the latent space, stays.
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
    learning_rate,
    load,
    place,
    save,
)
from training.losses import psnr
from training.scenes import Scenes, as_pictures
from training.sdxl.config import GRID, unet, vae
from training.sdxl.text import text_encoders
from training.sdxl.unet import SCENES, Denoiser, Pictures, batch_of, load_pictures, to_device
from training.sdxl.vae import decoded, drawing_loss

BATCH = 16
CROP = 12
RATE = 1e-3
JUDGING = 0.02
_DRAWN_AT_ONCE = 64


class Judge(nn.Module):
    """Real or drawn, for each patch of a picture: [n, 3, h, w] -> [n, 1, h / 8, w / 8]."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inside, outside in ((3, 48), (48, 96), (96, 128)):
            layers += [nn.utils.parametrizations.spectral_norm(nn.Conv2d(inside, outside, 4, 2, 1)), nn.LeakyReLU(0.2)]
        self.net = nn.Sequential(*layers, nn.Conv2d(128, 1, 3, padding=1))

    def forward(self, pictures: Tensor) -> Tensor:
        """Logits, high where a patch looks real."""
        logits: Tensor = self.net(pictures * 2 - 1)
        return logits


@torch.no_grad()
def draw(pictures: Pictures, work: Path, count: int, device: torch.device) -> Tensor:
    """What the UNet draws in one step from the noise of the first pictures: latents [count, 4, 32, 32] (f16)."""
    torch.manual_seed(3)
    state = load(work / "unet.pt")
    text, network = text_encoders(work), unet()
    text.load_state_dict(state["text"])
    network.load_state_dict(state["unet"])
    model = Denoiser(text, network)
    place(model.eval(), device)
    drawn = []
    for picked in torch.split(torch.arange(count), _DRAWN_AT_ONCE):
        batch = to_device(batch_of(pictures, picked, torch.ones(len(picked), dtype=torch.bool), 0.0), device)
        with autocast(device):
            drawn.append(model(batch).half().cpu())
    return torch.cat(drawn)


def train(data: Path, work: Path, minutes: float, device: torch.device, scenes: int = 6000) -> None:
    """Draws ``scenes`` of the training scenes in one step, then trains the decoder, from ``work/vae.pt``."""
    pictures, originals = load_pictures(data, work, device), Scenes(data, "train").images
    drawn = draw(pictures, work, min(scenes, SCENES, len(originals)), device)
    polish(drawn, pictures.latents, originals, work, minutes, device)


def polish(
    drawn: Tensor, encoded: Tensor, originals: np.ndarray, work: Path, minutes: float, device: torch.device
) -> None:
    """Trains the decoder of ``work/vae.pt`` to ``work/polish.pt``.

    ``drawn`` [count, 4, 32, 32] are the latents that a model drew for the first scenes, ``encoded`` what the encoder
    makes of them, and ``originals`` the scenes.
    """
    count = len(drawn)
    torch.manual_seed(4)
    model, judge = vae(), Judge()
    model.load_state_dict(load(work / "vae.pt")["model"])
    model.requires_grad_(False)
    decoder = model.get_submodule("decoder").requires_grad_(True)
    place(model, device)
    place(judge, device)
    ema, optimisers = Ema({"model": model}, 0.998), Optimisers([decoder], RATE, 1e-4)
    judging = Optimisers([judge], RATE, 0.0)
    budget, log, means = Budget(minutes), Log(work / "log.jsonl", "polish"), Means()
    rng = np.random.default_rng(3)
    kept_back = min(32, count // 4)
    held = slice(count - kept_back, count)
    log.write(budget, drawn=count, before=_evaluate(model, drawn[held], originals[held], device))
    while not budget.done:
        given, wanted = _pairs(encoded, drawn, originals, count - kept_back, rng)
        given, wanted = channels_last(given.to(device)), channels_last(wanted.to(device))
        with autocast(device):
            pixels = decoded(model, given)
            fooled = -judge(pixels).float().mean()
        share = JUDGING * min(1.0, budget.fraction / 0.2)  # the judge learns first
        error = drawing_loss(pixels, wanted)
        norm = optimisers.step(error + share * fooled, learning_rate(budget))
        with autocast(device):
            real, fake = judge(wanted).float(), judge(pixels.detach()).float()
        judged = F.relu(1 - real).mean() + F.relu(1 + fake).mean()
        judging.step(judged, learning_rate(budget))
        budget.count(BATCH)
        ema.update()
        means.add(error=error, judged=judged, fooled=fooled, gradient=norm)
        if budget.steps % 250 == 0 or budget.done:
            polished = vae()
            polished.load_state_dict(ema.state["model"])
            place(polished, device)
            log.write(budget, **means.take(), after=_evaluate(polished, drawn[held], originals[held], device))
            save(work / "polish.pt", {"model": ema.state["model"]})


def _pairs(
    encoded: Tensor, drawn: Tensor, originals: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Crops of latents, half of them drawn and half of them encoded, and of the pictures that they should give."""
    picked = rng.integers(0, count, BATCH)
    corners = rng.integers(0, GRID - CROP + 1, (BATCH, 2))
    places = list(zip(picked, corners, range(BATCH), strict=True))
    given = [(drawn if n % 2 else encoded)[i, :, y : y + CROP, x : x + CROP] for i, (y, x), n in places]
    side = 8 * CROP
    crops = [originals[i, 8 * y : 8 * y + side, 8 * x : 8 * x + side] for i, (y, x), _ in places]
    return torch.stack(given).float(), as_pictures(np.stack(crops))


@torch.no_grad()
def _evaluate(model: nn.Module, latents: Tensor, originals: np.ndarray, device: torch.device) -> float:
    """Decibels of what the decoder makes of drawn latents against the pictures that they are drawn for."""
    scores = []
    for start in range(0, len(latents), 8):
        with autocast(device):
            pixels = decoded(model, channels_last(latents[start : start + 8].float().to(device)))
        scores.append(psnr(pixels, as_pictures(originals[start : start + 8]).to(device)))
    return float(np.mean(scores))
