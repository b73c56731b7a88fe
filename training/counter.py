"""Trains the counter, a small classifier that counts the subjects of a picture, also beyond three.

    python -m training.counter [--out FILE]

The probe knows one, two and three subjects, as the world has them: it takes four for three. So the
counter learns from scenes with one to five subjects, in the world's arrangements and in others, in
one colour and in several. It starts from the probe's weights. Training takes about eight minutes on
two cores.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import random
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from training.probe import SIDE, Probe, degrade, downsample
from training.probe import load as load_probe
from training.world import ATTRIBUTES, Scene, render, sample

DEFAULT_PATH: Final = Path(__file__).parent / "checkpoints" / "counter.safetensors"
MOST: Final = 5
"""The largest number that the counter tells from others; it takes more for this one."""

_SCENES: Final = 6000
_BATCH_SIZE: Final = 64
_LEARNING_RATE: Final = 1e-3
_ARRANGEMENTS: Final = {1: ((2, 3), (92, 124)), 2: ((2, 3, 4), (64, 90)), 3: ((2, 3, 4, 5), (48, 68))}
"""For the size of one, two and three subjects: other numbers, and the distances between them."""

_MARGIN: Final = 18


class Counter(nn.Module):
    """The probe's features with a head of its own."""

    def __init__(self) -> None:
        super().__init__()
        probe = Probe()
        self.features, self.trunk, self.head = probe.features, probe.trunk, nn.Linear(192, MOST)

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits [n, MOST] of the counts from 1 in pictures ``pixels`` [n, 3, h, w] in [0, 1]."""
        pixels = downsample(pixels)
        line = torch.linspace(-1, 1, SIDE, device=pixels.device, dtype=pixels.dtype)
        across = line.expand(len(pixels), 1, SIDE, SIDE)
        features = self.features(torch.cat([pixels * 2 - 1, across, across.transpose(2, 3)], 1))
        logits: Tensor = self.head(self.trunk(features))
        return logits


@lru_cache(maxsize=1)
def load(path: Path = DEFAULT_PATH) -> Counter:
    """The trained counter with the weights at ``path``, in evaluation mode."""
    counter = Counter()
    counter.load_state_dict({key: value.float() for key, value in load_file(path).items()}, strict=True)
    return counter.eval()


@torch.no_grad()
def count(images: NDArray[Any], counter: Counter | None = None, batch: int = 64) -> NDArray[np.int64]:
    """How many subjects each of ``images`` uint8 [n, h, w, 3] shows: from 1 to MOST."""
    counter = load() if counter is None else counter
    parts = [np.empty(0, np.int64)]
    for start in range(0, len(images), batch):
        pixels = torch.from_numpy(np.array(images[start : start + batch])).permute(0, 3, 1, 2).float() / 255
        parts.append(counter(pixels).argmax(1).numpy() + 1)
    return np.concatenate(parts)


def arrangement(scene: Scene, rng: random.Random) -> list[float] | None:
    """Where subjects of the scene's size stand in an arrangement that the world doesn't have.

    It is None for the scene's own, in two of five cases.
    """
    if rng.random() < 0.4:
        return None
    numbers, distances = _ARRANGEMENTS[scene.count]
    number, distance = rng.choice(numbers), rng.uniform(*distances)
    room = max(0.0, 256 - 2 * _MARGIN - (number - 1) * distance)
    first = _MARGIN + rng.random() * room
    if room == 0.0:
        distance = (256 - 2 * _MARGIN) / (number - 1)
    return [first + i * distance for i in range(number)]


def example(index: int) -> tuple[NDArray[np.uint8], int]:
    """Picture ``index``, uint8 [3, SIDE, SIDE], and how many subjects it shows."""
    rng = random.Random(f"counter/{index}")
    scene = sample(rng, None)
    columns = arrangement(scene, rng)
    number = scene.count if columns is None else len(columns)
    mixed = [rng.choice(ATTRIBUTES["colour"]) for _ in range(number)]
    picture = render(scene, rng.getrandbits(31), colours=mixed if rng.random() < 0.4 else None, columns=columns)
    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None].float()
    small: NDArray[np.uint8] = downsample(pixels)[0].round().byte().numpy()
    return small, number


def load_examples(indices: range, workers: int) -> tuple[Tensor, Tensor]:
    """Pictures uint8 [n, 3, SIDE, SIDE] and the numbers of their subjects [n]."""
    with multiprocessing.get_context("spawn").Pool(workers, torch.set_num_threads, (1,)) as pool:
        pictures, numbers = zip(*pool.imap(example, indices, chunksize=50), strict=True)
    return torch.from_numpy(np.stack(pictures)), torch.tensor(numbers)


def train(out: Path, steps: int, threads: int, scenes: int = _SCENES) -> Counter:
    """Train a counter, print its accuracy on unseen pictures, and write it to ``out``."""
    torch.set_num_threads(threads)
    pictures, numbers = load_examples(range(scenes + scenes // 10), threads)
    torch.manual_seed(0)
    counter, probe = Counter(), load_probe()
    counter.features.load_state_dict(probe.features.state_dict())
    counter.trunk.load_state_dict(probe.trunk.state_dict())
    counter.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(counter.parameters(), _LEARNING_RATE, weight_decay=0.02)
    rng = torch.Generator().manual_seed(0)
    for step in range(steps):
        for group in optimizer.param_groups:
            cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
            group["lr"] = _LEARNING_RATE * min(1.0, (step + 1) / 50) * (0.01 + 0.99 * cosine)
        picked = torch.randint(scenes, (_BATCH_SIZE,), generator=rng)
        pixels = pictures[picked].float() / 255
        pixels[8:] = degrade(pixels[8:], rng)
        counter.train()
        with torch.autocast("cpu", torch.bfloat16):
            logits = counter(pixels.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits.float(), numbers[picked] - 1, label_smoothing=0.02)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(counter.parameters(), 5.0)
        optimizer.step()
        if (step + 1) % 100 == 0:
            print(f"step {step + 1} of {steps}, loss {loss.item():.3f}", flush=True)
    unseen = pictures[scenes:].permute(0, 2, 3, 1).numpy()
    correct = count(unseen, counter.eval()) == numbers[scenes:].numpy()
    print(f"right in {correct.mean():.1%} of {len(correct)} unseen pictures")
    state = counter.state_dict()
    halves = {key: (value.half() if value.is_floating_point() else value).contiguous() for key, value in state.items()}
    save_file(halves, out, metadata={"format": "pt"})
    return counter


def main() -> None:
    """The command ``python -m training.counter``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=DEFAULT_PATH, help="the counter's weights")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    train(options.out, options.steps, options.threads)


if __name__ == "__main__":
    main()
