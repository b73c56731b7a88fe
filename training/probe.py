"""Trains the probe, a small classifier that measures whether pictures follow their prompts.

    python -m training.probe train --data FOLDER --out FILE

Training takes about fifteen minutes on two cores and 1 GB of memory; an interrupted training
resumes. The probe learns from scenes of all combinations, blurred, warped, noised, recoloured and
compressed as JPEG, so that it judges what a picture shows and not how sharp it is.
"""

from __future__ import annotations

import argparse
import io
import math
import multiprocessing
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from training.world.dataset import plan
from training.world.render import render
from training.world.scene import ATTRIBUTES, Scene

SIDE: Final = 96
"""Side in pixels of the probe's input; other pictures are resized to it."""

DEFAULT_PATH: Final = Path(__file__).parent / "checkpoints" / "probe.safetensors"

_SCENES: Final = 16000
_BATCH_SIZE: Final = 64
_LEARNING_RATE: Final = 2e-3


def _conv(inside: int, outside: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside), nn.ReLU(inplace=True)
    )


class Probe(nn.Module):
    """Convolutions over a picture and its coordinates, with one linear head per attribute."""

    def __init__(self) -> None:
        super().__init__()
        widths = ((5, 32, 2), (32, 48, 1), (48, 64, 2), (64, 96, 1), (96, 128, 2), (128, 128, 1), (128, 128, 2))
        self.features = nn.Sequential(*(_conv(*width) for width in widths))
        self.trunk = nn.Sequential(nn.Flatten(), nn.Linear(128 * 36, 192), nn.ReLU(inplace=True), nn.Dropout(0.2))
        self.heads = nn.ModuleDict({name: nn.Linear(192, len(values)) for name, values in ATTRIBUTES.items()})

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Logits [n, values] of each attribute for pictures ``pixels`` [n, 3, h, w] in [0, 1]."""
        hidden = self.hidden(pixels)
        return [head(hidden) for head in self.heads.values()]

    def hidden(self, pixels: Tensor) -> Tensor:
        """What the heads judge by, [n, 192], for pictures ``pixels`` [n, 3, h, w] in [0, 1]."""
        pixels = downsample(pixels)
        line = torch.linspace(-1, 1, SIDE, device=pixels.device, dtype=pixels.dtype)
        across = line.expand(len(pixels), 1, SIDE, SIDE)
        seen = torch.cat([pixels * 2 - 1, across, across.transpose(2, 3)], 1)
        return cast("Tensor", self.trunk(self.features(seen)))


def downsample(pixels: Tensor) -> Tensor:
    """``pixels`` [n, 3, h, w] resized to [n, 3, SIDE, SIDE] by averaging areas."""
    if pixels.shape[-2:] == (SIDE, SIDE):
        return pixels
    return F.interpolate(pixels, size=(SIDE, SIDE), mode="area")


@lru_cache(maxsize=4)
def load(path: Path = DEFAULT_PATH) -> Probe:
    """The trained probe with the weights at ``path``, in evaluation mode."""
    probe = Probe()
    state = {name: value.float() if value.is_floating_point() else value for name, value in load_file(path).items()}
    probe.load_state_dict(state)
    return probe.eval()


def predict(images: NDArray[Any], probe: Probe | None = None, batch: int = 64) -> NDArray[np.int64]:
    """The label vectors [n, 6] of ``images`` [n, h, w, 3], which are uint8 or floats in [0, 1]."""
    probe = load() if probe is None else probe
    probe.eval()
    out = [np.empty((0, len(ATTRIBUTES)), np.int64)]
    with torch.no_grad():
        for start in range(0, len(images), batch):
            pixels = _pixels(images[start : start + batch])
            out.append(torch.stack([logits.argmax(1) for logits in probe(pixels)], 1).numpy())
    return np.concatenate(out)


def features(images: NDArray[Any], probe: Probe | None = None, batch: int = 64) -> NDArray[np.float32]:
    """What the heads judge by, [n, 192], of ``images`` [n, h, w, 3], which are uint8 or floats in [0, 1]."""
    probe = load() if probe is None else probe
    probe.eval()
    with torch.no_grad():
        found = [probe.hidden(_pixels(images[start : start + batch])) for start in range(0, len(images), batch)]
    return torch.cat(found).numpy()


def _pixels(images: NDArray[Any]) -> Tensor:
    """``images`` [n, h, w, 3] as [n, 3, h, w] in [0, 1]."""
    scale = 255.0 if images.dtype == np.uint8 else 1.0
    return torch.from_numpy(np.ascontiguousarray(images).astype(np.float32)).permute(0, 3, 1, 2) / scale


def adherence(
    labels: NDArray[np.int64], expected: Sequence[Mapping[str, str]]
) -> tuple[float, float, dict[str, tuple[int, int]]]:
    """How much of what prompts state their pictures show.

    Args:
        labels: what the pictures show, [n, 6], as :func:`predict` gives it.
        expected: the attributes that each prompt states.

    Returns:
        The share of stated attributes that are found, the share of prompts whose attributes are all
        found, and for each attribute how often it is found and how often stated.
    """
    counts = dict.fromkeys(ATTRIBUTES, (0, 0))
    whole = 0
    for row, attributes in zip(labels, expected, strict=True):
        all_found = True
        for (name, values), index in zip(ATTRIBUTES.items(), row, strict=True):
            if name in attributes:
                found = values[int(index)] == attributes[name]
                counts[name] = (counts[name][0] + found, counts[name][1] + 1)
                all_found = all_found and found
        whole += all_found
    found_count, total = (sum(pair[i] for pair in counts.values()) for i in (0, 1))
    return found_count / max(total, 1), whole / max(len(expected), 1), counts


def degrade(pixels: Tensor, rng: torch.Generator) -> Tensor:
    """``pixels`` [n, 3, SIDE, SIDE] as an imperfect model or a compressed copy would show them."""
    n = len(pixels)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=rng)

    if uniform(1).item() < 0.6:
        pixels = _warp(pixels, uniform(n, 1, 1, 1) * 0.05, rng)
    roll = uniform(1).item()
    if roll < 0.75:
        if roll < 0.25:
            side = (32, 40, 48)[int(uniform(1).item() * 3)]
            soft = F.interpolate(F.interpolate(pixels, size=(side, side), mode="area"), size=SIDE, mode="bilinear")
        else:
            soft = blur(pixels, 0.4 + 1.4 * uniform(1).item())
        softness = uniform(n, 1, 1, 1)
        pixels = pixels * (1 - softness) + soft * softness
    # Saturation, brightness and a colour cast.
    grey = pixels.mean(1, keepdim=True)
    pixels = grey + (pixels - grey) * (0.82 + 0.36 * uniform(n, 1, 1, 1))
    pixels = pixels * (0.9 + 0.2 * uniform(n, 1, 1, 1)) + (uniform(n, 3, 1, 1) - 0.5) * 0.08
    # Fine and coarse noise.
    speckle = torch.randn(pixels.shape, generator=rng) * uniform(n, 1, 1, 1) * 0.08
    coarse = torch.randn((n, 3, SIDE // 4, SIDE // 4), generator=rng)
    stains = F.interpolate(coarse, size=SIDE, mode="bilinear") * uniform(n, 1, 1, 1) * 0.05
    pixels = (pixels + speckle + stains).clamp(0, 1)
    compressed = pixels.clone()
    for i in torch.nonzero(uniform(n) < 0.15).flatten().tolist():
        compressed[i] = jpeg(pixels[i], 25 + int(60 * uniform(1).item()))
    return compressed


def blur(pixels: Tensor, sigma: float) -> Tensor:
    """``pixels`` [n, 3, h, w] with a Gaussian blur of ``sigma`` pixels."""
    radius = max(1, math.ceil(2.5 * sigma))
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    padded = F.pad(pixels, (radius,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel, groups=3), kernel.transpose(2, 3), groups=3)


def jpeg(pixels: Tensor, quality: int) -> Tensor:
    """One picture ``pixels`` [3, h, w] after JPEG compression of ``quality``."""
    file = io.BytesIO()
    Image.fromarray((pixels.permute(1, 2, 0) * 255).round().byte().numpy()).save(file, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1).float() / 255


def _warp(pixels: Tensor, strength: Tensor, rng: torch.Generator) -> Tensor:
    """``pixels`` displaced by a smooth random field of ``strength`` [n, 1, 1, 1]."""
    n = len(pixels)
    displacement = F.interpolate(torch.randn((n, 2, 12, 12), generator=rng), size=SIDE, mode="bicubic")
    displacement = displacement * strength * 0.5
    line = (torch.arange(SIDE) + 0.5) / SIDE * 2 - 1
    across = line.expand(n, SIDE, SIDE)
    grid = torch.stack([across, across.transpose(1, 2)], -1) + displacement.permute(0, 2, 3, 1)
    return F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)


def _render(job: tuple[tuple[int, ...], int]) -> NDArray[np.uint8]:
    labels, seed = job
    pixels = torch.from_numpy(render(Scene.from_labels(labels), seed)).permute(2, 0, 1)[None].float()
    return downsample(pixels)[0].round().byte().numpy()


def load_scenes(folder: Path, count: int, workers: int) -> tuple[Tensor, Tensor]:
    """Scenes of all combinations, uint8 [count, 3, SIDE, SIDE], and their labels [count, 6].

    They are rendered once and stored in ``folder``.
    """
    labels, seeds = plan("probe", count)
    path = folder / f"probe_{SIDE}_{count}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        jobs = [(tuple(int(v) for v in row), int(seed)) for row, seed in zip(labels, seeds, strict=True)]
        pictures = np.empty((count, 3, SIDE, SIDE), np.uint8)
        with multiprocessing.get_context("spawn").Pool(workers, torch.set_num_threads, (1,)) as pool:
            for i, picture in enumerate(pool.imap(_render, jobs, chunksize=50)):
                pictures[i] = picture
                if (i + 1) % 2000 == 0:
                    print(f"rendered {i + 1} of {count}", file=sys.stderr)
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.save(file, pictures)
        partial.replace(path)
    return torch.from_numpy(np.load(path)), torch.from_numpy(labels)


def accuracy(
    probe: Probe, folder: Path, split: str, transform: Callable[[Tensor], Tensor] | None = None
) -> dict[str, float]:
    """The probe's accuracy on a split of the data set: per attribute, and for all six at once."""
    images = np.load(folder / f"{split}_images.npy", mmap_mode="r")
    labels = np.load(folder / f"{split}_labels.npy")
    batches = []
    for start in range(0, len(images), 100):
        pixels = torch.from_numpy(np.array(images[start : start + 100])).permute(0, 3, 1, 2).float() / 255
        pixels = pixels if transform is None else transform(pixels)
        batches.append(predict(pixels.permute(0, 2, 3, 1).numpy(), probe) == labels[start : start + 100])
    correct = np.concatenate(batches)
    return {**dict(zip(ATTRIBUTES, correct.mean(0).tolist(), strict=True)), "all": float(correct.all(1).mean())}


def train(folder: Path, out: Path, steps: int, threads: int, count: int = _SCENES) -> Probe:
    """Train a probe and write it to ``out``; an interrupted training resumes."""
    torch.set_num_threads(threads)
    pictures, labels = load_scenes(folder, count, threads)
    torch.manual_seed(0)
    probe = Probe()
    probe.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(probe.parameters(), _LEARNING_RATE, weight_decay=0.02)
    checkpoint, step = out.with_suffix(".partial.pt"), 0
    out.parent.mkdir(parents=True, exist_ok=True)
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        probe.load_state_dict(state["probe"])
        optimizer.load_state_dict(state["optimizer"])
        step = int(state["step"])
    while step < steps:
        # A generator per step, so that a resumed training sees what an uninterrupted one would.
        rng = torch.Generator().manual_seed(step)
        cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = _LEARNING_RATE * min(1.0, (step + 1) / 100) * (0.01 + 0.99 * cosine)
        picked = torch.randint(len(pictures), (_BATCH_SIZE,), generator=rng)
        loss = _loss(probe, pictures[picked].float() / 255, labels[picked], rng)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(probe.parameters(), 5.0)
        optimizer.step()
        step += 1
        if step % 250 == 0 or step == steps:
            print(f"step {step} of {steps}, loss {loss.item():.3f}", file=sys.stderr)
            partial = checkpoint.with_suffix(".tmp")
            torch.save({"probe": probe.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, partial)
            partial.replace(checkpoint)
    halves = {n: (v.half() if v.is_floating_point() else v).contiguous() for n, v in probe.state_dict().items()}
    temporary = out.with_suffix(".tmp")
    save_file(halves, temporary, metadata={"format": "pt"})
    temporary.replace(out)
    checkpoint.unlink(missing_ok=True)
    return probe


def _loss(probe: Probe, pixels: Tensor, labels: Tensor, rng: torch.Generator) -> Tensor:
    """The cross-entropy of all attributes on a batch [n, 3, SIDE, SIDE], mostly degraded."""
    undegraded = len(pixels) // 8
    pixels[undegraded:] = degrade(pixels[undegraded:], rng)
    probe.train()
    with torch.autocast("cpu", torch.bfloat16):
        logits = probe(pixels.contiguous(memory_format=torch.channels_last))
    losses = [F.cross_entropy(each.float(), labels[:, i], label_smoothing=0.02) for i, each in enumerate(logits)]
    return torch.stack(losses).sum()


def main(arguments: Sequence[str] | None = None) -> None:
    """The command `python -m training.probe`."""
    parser = argparse.ArgumentParser(prog="python -m training.probe", description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (("train", "train a probe and measure it"), ("judge", "measure a probe's accuracy")):
        command = commands.add_parser(name, help=text)
        command.add_argument(
            "--data", type=Path, required=True, help="the data set that `python -m training.world` wrote"
        )
        command.add_argument("--out", type=Path, default=DEFAULT_PATH, help="the probe's weights")
        command.add_argument("--threads", type=int, default=2)
        if name == "train":
            command.add_argument("--steps", type=int, default=2500)
    options = parser.parse_args(arguments)
    if options.command == "train":
        train(options.data, options.out, options.steps, options.threads)
    torch.set_num_threads(options.threads)
    load.cache_clear()
    probe = load(options.out)
    rng = torch.Generator().manual_seed(1)
    transforms: dict[str, Callable[[Tensor], Tensor] | None] = {
        "clean": None,
        "blurred and noisy": lambda x: (blur(x, 2.5) + torch.randn(x.shape, generator=rng) * 0.05).clamp(0, 1),
        "degraded": lambda x: degrade(downsample(x), rng),
    }
    for split in ("val", "heldout", "unseen_pair"):
        for title, transform in transforms.items():
            accuracies = accuracy(probe, options.data, split, transform)
            print(f"{split}, {title}: " + ", ".join(f"{name} {each:.4f}" for name, each in accuracies.items()))


if __name__ == "__main__":
    main()
