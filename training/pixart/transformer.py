"""The transformer and its T5: latent diffusion (Peebles and Xie, arXiv 2212.09748; Chen et al., arXiv 2310.00426).

As PixArt was, the model is trained on small pictures first, of which it sees many in the time of a few large ones. Then
a batch is of one frame, so that pictures of several shapes are learned side by side; and a reader of latents says what
the predicted ones show, and the loss asks that it be what the caption says.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.captions import Captions, load_captions
from training.common import (
    Budget,
    Ema,
    Log,
    Means,
    Optimisers,
    autocast,
    count_parameters,
    learning_rate,
    restore,
    save,
)
from training.losses import attribute_losses
from training.pixart import frames
from training.pixart.config import FRAMES, GRID, SCHEDULER, transformer
from training.pixart.text import Reader, TextEncoder, text_encoder
from training.scenes import Halves, Scenes
from training.schedule import Schedule
from training.sdxl import latents
from training.sdxl.reader import LatentReader
from training.sdxl.reader import train as train_reader

BATCH = 64
RATE = 2e-3
PARTIAL = 0.85
UNSAID = 0.1
READING = 0.02
READ_FROM = 250
SKEW = 1.6
READER_MINUTES = 2.5
SQUARES = 24000
OTHERS = 4000
SQUARE_SHARE = 0.6
WORKERS = 3
SMALL_SHARE = 0.3
SMALL_BATCH = 128


@dataclass(frozen=True)
class Pictures:
    """Latents of one frame, and what is known of them."""

    latents: Tensor
    labels: Tensor
    captions: Captions


@dataclass(frozen=True)
class Batch:
    """What one step sees. ``told`` says which attributes count when what was drawn is read."""

    clean: Tensor
    ids: Tensor
    mask: Tensor
    labels: Tensor
    told: Tensor


class Attention:
    """Attention by plain products, which for as few tokens is sooner on a processor than torch's fused one."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Hidden states [n, tokens, width]; the mask [n, 1, others] is added to the scores."""
        others = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        projected = attn.to_q(hidden_states), attn.to_k(others), attn.to_v(others)
        query, key, value = (each.unflatten(2, (attn.heads, -1)).transpose(1, 2) for each in projected)
        with torch.autocast(hidden_states.device.type, enabled=False):
            scores = (query * query.shape[3] ** -0.5) @ key.transpose(2, 3)
            if attention_mask is not None:
                scores = scores + attention_mask[:, None].to(scores.dtype)
            found = torch.softmax(scores, dim=3) @ value
        out: Tensor = attn.to_out[0](found.transpose(1, 2).flatten(2))
        return out


class Denoiser(nn.Module):
    """The transformer with its text encoder: latents in noise to the velocity that it predicts."""

    def __init__(self, text: TextEncoder, network: nn.Module) -> None:
        super().__init__()
        self.text, self.network = text, network
        network.set_attn_processor(Attention())  # type: ignore[operator]

    def forward(self, sample: Tensor, timesteps: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Velocity [n, 4, h, w]."""
        return velocity(self.network, sample, timesteps, self.text(ids, mask), mask)


def velocity(network: nn.Module, sample: Tensor, timesteps: Tensor, states: Tensor, mask: Tensor) -> Tensor:
    """What the transformer predicts."""
    out: Tensor = network(
        sample,
        encoder_hidden_states=states,
        timestep=timesteps,
        added_cond_kwargs={"resolution": None, "aspect_ratio": None},
        encoder_attention_mask=mask,
        return_dict=False,
    )[0]
    return out.float()


def load_small(squares: Pictures, data: Path, work: Path, device: torch.device) -> Pictures:
    """The square scenes at half their size."""
    images = Halves(Scenes(data, "train").images[: len(squares.latents)])
    return dataclasses.replace(squares, latents=latents.encode(images, work / "latents_small.pt", work, device))


def load_pictures(data: Path, work: Path, device: torch.device) -> list[Pictures]:
    """Training scenes, the square ones first."""
    scenes, read = Scenes(data, "train"), Reader(work / "tokenizer")
    count = min(SQUARES, len(scenes))
    labels = scenes.labels[:count]
    encoded = latents.encode(scenes.images[:count], work / "latents_train.pt", work, device)
    found = [Pictures(encoded, labels, load_captions(labels.numpy(), work, "captions", read))]
    for size in FRAMES:
        encoded, labels = frames.latents(size, min(OTHERS, count), work, device, WORKERS)
        captions = load_captions(labels.numpy(), work, f"captions_{size[0]}x{size[1]}", read)
        found.append(Pictures(encoded, labels, captions))
    return found


def draw_batch(pictures: Sequence[Pictures], count: int) -> Batch:
    """A random batch of one frame, on the CPU."""
    square = random.random() < SQUARE_SHARE or len(pictures) == 1
    chosen = pictures[0] if square else random.choice(pictures[1:])
    picked = torch.randint(0, len(chosen.latents), (count,))
    # Captions of even number leave things unsaid.
    which = 2 * torch.randint(0, chosen.captions.ids.shape[1] // 2, (count,)) + (torch.rand(count) > PARTIAL).long()
    ids, mask = chosen.captions.ids[picked, which].long(), chosen.captions.mask[picked, which].long()
    unsaid = torch.rand(count) < UNSAID
    ids[unsaid], mask[unsaid] = chosen.captions.empty_ids.long(), chosen.captions.empty_mask.long()
    longest = int(mask.sum(dim=1).max())
    return Batch(
        clean=chosen.latents[picked].float(),
        ids=ids[:, :longest],
        mask=mask[:, :longest],
        labels=chosen.labels[picked],
        told=chosen.captions.said[picked, which] & ~unsaid[:, None],
    )


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch where the modules are."""
    return Batch(**{name: value.to(device) for name, value in vars(batch).items()})


def draw_timesteps(count: int, last: int) -> Tensor:
    """Timesteps [count], fewer of the late ones, of which half are all but noise; spread evenly over their order."""
    quantiles = (torch.arange(count) + torch.rand(count)) / count
    return (quantiles**SKEW * (last + 1)).long().clamp(max=last)


def reading_loss(reader: LatentReader, clean: Tensor, batch: Batch, counts: Tensor) -> Tensor:
    """Cross-entropy of what the reader finds in ``clean`` where ``counts`` [n]; 0 in frames that it can't read."""
    if clean.shape[2:] != (GRID, GRID):
        return torch.zeros((), device=clean.device)
    return (attribute_losses(reader(clean), batch.labels) * (batch.told & counts[:, None])).sum(dim=1).mean()


def train(data: Path, work: Path, minutes: float, device: torch.device, reader_minutes: float = READER_MINUTES) -> None:
    """Trains transformer and text encoder; goes on from ``work/transformer.pt`` where that is."""
    torch.manual_seed(0)
    random.seed(0)
    pictures = load_pictures(data, work, device)
    little = load_small(pictures[0], data, work, device)
    reader = train_reader(pictures[0].latents, pictures[0].labels, work, reader_minutes, device)
    schedule = Schedule(SCHEDULER)
    model = Denoiser(text_encoder(work), transformer())
    modules: dict[str, nn.Module] = {"text": model.text, "transformer": model.network}
    model.to(device).train()
    ema, optimisers = Ema(modules, 0.997), Optimisers(modules.values(), RATE, 0.02)
    budget, log, means = Budget(minutes), Log(work / "log.jsonl", "transformer"), Means()
    path = work / "transformer.pt"
    restore(path, modules, ema, optimisers, budget)
    counts = {name: count_parameters(module) for name, module in modules.items()}
    log.write(budget, **counts, device=str(device))
    while not budget.done:
        small = budget.fraction < SMALL_SHARE
        count = SMALL_BATCH if small else BATCH
        batch = to_device(draw_batch([little] if small else pictures, count), device)
        timesteps, noise = draw_timesteps(count, schedule.last).to(device), torch.randn_like(batch.clean)
        sample = schedule.noised(batch.clean, noise, timesteps)
        with autocast(device):
            predicted = model(sample, timesteps, batch.ids, batch.mask)
            clean = schedule.clean_of(sample, predicted, timesteps)
            reading = reading_loss(reader, clean, batch, timesteps >= READ_FROM)
        share = schedule.share(timesteps)
        error = (predicted - (share.sqrt() * noise - (1 - share).sqrt() * batch.clean)).square().mean()
        helped = READING * min(1.0, (1 - budget.fraction) / 0.15)
        norm = optimisers.step(error + helped * reading, learning_rate(budget))
        budget.count(count)
        ema.update()
        means.add(error=error, reading=reading, gradient=norm)
        if budget.steps % 200 == 0 or budget.done:
            log.write(budget, **means.take())
            save(path, ema.checkpoint(optimisers, budget))


def load_model(state: dict[str, dict[str, Tensor]], work: Path) -> Denoiser:
    """The model of a checkpoint, for use."""
    model = Denoiser(text_encoder(work), transformer())
    model.text.load_state_dict(state["text"])
    model.network.load_state_dict(state["transformer"])
    return model
