"""Trains the diffusion transformer (arXiv 2212.09748) with its T5, as PixArt-α (arXiv 2310.00426).

As PixArt was, the model is trained on small pictures first, of which it sees many in the time of a
few large ones. Then each batch has one frame, so that the model learns pictures of several aspect
ratios. A frozen classifier of latents adds a loss: the attributes that it finds in the denoised
latents should be those that the caption states.
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
from training.loop import (
    EMA,
    Log,
    Optimisers,
    RunningMeans,
    TimeBudget,
    autocast,
    count_parameters,
    learning_rate_factor,
    restore,
    save,
)
from training.losses import attribute_losses
from training.noise_schedule import NoiseSchedule
from training.pixart import frame_latents
from training.pixart.config import FRAMES, GRID, SCHEDULER, transformer
from training.pixart.text import TextEncoder, UnigramTokenizer, text_encoder
from training.scene_dataset import HalfSizeImages, SceneDataset
from training.sdxl import latents
from training.sdxl.latent_classifier import LatentClassifier
from training.sdxl.latent_classifier import train as train_classifier

BATCH_SIZE = 64
LEARNING_RATE = 2e-3
PARTIAL_CAPTION_SHARE = 0.85
"""Share of captions that may omit attributes."""

CAPTION_DROPOUT = 0.1
CLASSIFIER_WEIGHT = 0.02
CLASSIFIER_MIN_TIMESTEP = 250
"""The classifier's loss counts from here on; below, samples show their attributes anyway."""

TIMESTEP_POWER = 1.6
CLASSIFIER_MINUTES = 2.5
SQUARE_SCENES = 24000
SCENES_PER_FRAME = 4000
SQUARE_SHARE = 0.6
WORKERS = 3
SMALL_PHASE = 0.3
"""Share of the training time that is spent on small pictures."""

SMALL_BATCH_SIZE = 128


@dataclass(frozen=True)
class LatentDataset:
    """Latents [n, 4, h, w] of scenes in one frame, their labels [n, 6] and captions."""

    latents: Tensor
    labels: Tensor
    captions: Captions


@dataclass(frozen=True)
class Batch:
    """What one training step sees.

    ``attribute_mask`` [n, 6] says which attributes the caption states, and so which the
    classifier's loss counts.
    """

    latents: Tensor
    ids: Tensor
    mask: Tensor
    labels: Tensor
    attribute_mask: Tensor


class UnfusedAttention:
    """An attention processor of plain matrix products.

    For as few tokens as ours it is faster on a CPU than torch's fused attention.
    """

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Attend from ``hidden_states`` [n, tokens, width]; scores are masked by [n, 1, keys]."""
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        projected = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        query, key, value = (each.unflatten(2, (attn.heads, -1)).transpose(1, 2) for each in projected)
        with torch.autocast(hidden_states.device.type, enabled=False):
            scores = (query * query.shape[3] ** -0.5) @ key.transpose(2, 3)
            if attention_mask is not None:
                scores = scores + attention_mask[:, None].to(scores.dtype)
            attended = torch.softmax(scores, dim=3) @ value
        out: Tensor = attn.to_out[0](attended.transpose(1, 2).flatten(2))
        return out


class Denoiser(nn.Module):
    """The transformer with its text encoder, which predicts the velocity of noised latents."""

    def __init__(self, text: TextEncoder, network: nn.Module) -> None:
        super().__init__()
        self.text, self.network = text, network
        network.set_attn_processor(UnfusedAttention())  # type: ignore[operator]

    def forward(self, sample: Tensor, timesteps: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Velocity [n, 4, h, w] of ``sample`` at ``timesteps`` [n], for captions [n, length]."""
        return predict_velocity(self.network, sample, timesteps, self.text(ids, mask), mask)


def predict_velocity(
    network: nn.Module, sample: Tensor, timesteps: Tensor, encoder_hidden_states: Tensor, mask: Tensor
) -> Tensor:
    """The transformer's velocity [n, 4, h, w] for the text encoder's hidden states."""
    out: Tensor = network(
        sample,
        encoder_hidden_states=encoder_hidden_states,
        timestep=timesteps,
        added_cond_kwargs={"resolution": None, "aspect_ratio": None},
        encoder_attention_mask=mask,
        return_dict=False,
    )[0]
    return out.float()


def load_small(squares: LatentDataset, data: Path, work: Path, device: torch.device) -> LatentDataset:
    """The dataset ``squares`` with its pictures encoded at half their size."""
    images = HalfSizeImages(SceneDataset(data, "train").images[: len(squares.latents)])
    return dataclasses.replace(squares, latents=latents.encode_images(images, work / "latents_small.pt", work, device))


def load_datasets(data: Path, work: Path, device: torch.device) -> list[LatentDataset]:
    """Encoded training scenes, one dataset per frame, the square one first."""
    scenes, tokenize = SceneDataset(data, "train"), UnigramTokenizer(work / "tokenizer")
    count = min(SQUARE_SCENES, len(scenes))
    labels = scenes.labels[:count]
    encoded = latents.encode_images(scenes.images[:count], work / "latents_train.pt", work, device)
    datasets = [LatentDataset(encoded, labels, load_captions(labels.numpy(), work, "captions", tokenize))]
    for size in FRAMES:
        encoded, labels = frame_latents.load_frame(size, min(SCENES_PER_FRAME, count), work, device, WORKERS)
        captions = load_captions(labels.numpy(), work, f"captions_{size[0]}x{size[1]}", tokenize)
        datasets.append(LatentDataset(encoded, labels, captions))
    return datasets


def sample_batch(datasets: Sequence[LatentDataset], count: int) -> Batch:
    """A random batch of ``count`` scenes in one frame, on the CPU; the first frame is square."""
    square = random.random() < SQUARE_SHARE or len(datasets) == 1
    chosen = datasets[0] if square else random.choice(datasets[1:])
    captions = chosen.captions
    picked = torch.randint(0, len(chosen.latents), (count,))
    # Captions of even number may omit attributes, those of odd number state all.
    number = 2 * torch.randint(0, captions.ids.shape[1] // 2, (count,))
    number += (torch.rand(count) > PARTIAL_CAPTION_SHARE).long()
    ids, mask = captions.ids[picked, number].long(), captions.mask[picked, number].long()
    dropped = torch.rand(count) < CAPTION_DROPOUT
    ids[dropped], mask[dropped] = captions.empty_ids.long(), captions.empty_mask.long()
    longest = int(mask.sum(dim=1).max())
    return Batch(
        latents=chosen.latents[picked].float(),
        ids=ids[:, :longest],
        mask=mask[:, :longest],
        labels=chosen.labels[picked],
        attribute_mask=captions.stated[picked, number] & ~dropped[:, None],
    )


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on ``device``."""
    return Batch(**{name: value.to(device) for name, value in vars(batch).items()})


def sample_timesteps(count: int, last_timestep: int) -> Tensor:
    """Random timesteps [count], stratified over their distribution so that batches differ less.

    Late timesteps are rarer: with the linear betas, half of all timesteps are almost pure noise.
    """
    quantiles = (torch.arange(count) + torch.rand(count)) / count
    return (quantiles**TIMESTEP_POWER * (last_timestep + 1)).long().clamp(max=last_timestep)


def classifier_loss(classifier: LatentClassifier, denoised: Tensor, batch: Batch, counted: Tensor) -> Tensor:
    """Mean cross-entropy of the stated attributes in ``denoised`` latents where ``counted`` [n].

    It is 0 for other frames than the square one, which is all that the classifier knows.
    """
    if denoised.shape[2:] != (GRID, GRID):
        return torch.zeros((), device=denoised.device)
    counts = batch.attribute_mask & counted[:, None]
    return (attribute_losses(classifier(denoised), batch.labels) * counts).sum(dim=1).mean()


def losses(
    model: Denoiser, classifier: LatentClassifier, schedule: NoiseSchedule, batch: Batch
) -> tuple[Tensor, Tensor]:
    """The squared error of the velocity at random timesteps, and the classifier's loss."""
    count, device = len(batch.latents), batch.latents.device
    timesteps = sample_timesteps(count, schedule.last_timestep).to(device)
    noise = torch.randn_like(batch.latents)
    sample = schedule.add_noise(batch.latents, noise, timesteps)
    with autocast(device):
        velocity = model(sample, timesteps, batch.ids, batch.mask)
        denoised = schedule.denoised_from_velocity(sample, velocity, timesteps)
        classification = classifier_loss(classifier, denoised, batch, timesteps >= CLASSIFIER_MIN_TIMESTEP)
    target = schedule.velocity(batch.latents, noise, timesteps)
    return (velocity - target).square().mean(), classification


def train(
    data: Path, work: Path, minutes: float, device: torch.device, classifier_minutes: float = CLASSIFIER_MINUTES
) -> None:
    """Train transformer and text encoder; resumes from ``work/transformer.pt`` if that exists."""
    torch.manual_seed(0)
    random.seed(0)
    datasets = load_datasets(data, work, device)
    small_dataset = load_small(datasets[0], data, work, device)
    classifier = train_classifier(datasets[0].latents, datasets[0].labels, work, classifier_minutes, device)
    schedule = NoiseSchedule(SCHEDULER)
    model = Denoiser(text_encoder(work), transformer())
    modules: dict[str, nn.Module] = {"text": model.text, "transformer": model.network}
    model.to(device).train()
    ema, optimisers = EMA(modules, 0.997), Optimisers(modules.values(), LEARNING_RATE, 0.02)
    budget, log, means = TimeBudget(minutes), Log(work / "log.jsonl", "transformer"), RunningMeans()
    path = work / "transformer.pt"
    restore(path, modules, ema, optimisers, budget)
    counts = {name: count_parameters(module) for name, module in modules.items()}
    log.write(budget, **counts, device=str(device))
    while not budget.done:
        small = budget.fraction < SMALL_PHASE
        count = SMALL_BATCH_SIZE if small else BATCH_SIZE
        batch = to_device(sample_batch([small_dataset] if small else datasets, count), device)
        error, classification = losses(model, classifier, schedule, batch)
        # The classifier's loss fades out over the last 15% of the time, so that the plain objective
        # has the last word.
        weight = CLASSIFIER_WEIGHT * min(1.0, (1 - budget.fraction) / 0.15)
        norm = optimisers.step(error + weight * classification, learning_rate_factor(budget))
        budget.count(count)
        ema.update()
        means.add(error=error, classification=classification, gradient=norm)
        if budget.steps % 200 == 0 or budget.done:
            log.write(budget, **means.pop())
            save(path, ema.checkpoint(optimisers, budget))


def load_model(state: dict[str, dict[str, Tensor]], work: Path) -> Denoiser:
    """The model with the EMA weights of the checkpoint ``state``, for the tokenizer in ``work``."""
    model = Denoiser(text_encoder(work), transformer())
    model.text.load_state_dict(state["text"])
    model.network.load_state_dict(state["transformer"])
    return model
