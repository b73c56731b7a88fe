"""Trains the UNet and its text encoders, with a last timestep for one-step inference.

A batch has two parts. The larger is at the last timestep: its input is noise that is coupled to the
scene (:mod:`training.sdxl.coupling`), and its target the scene's latents. There an auxiliary layer,
thrown away afterwards, has to recover what the noise encodes, at every position of the UNet's
middle block. The rest of the batch is at all other timesteps, with independent noise. In the middle
range of timesteps some of it starts from an altered scene, so that image to image follows the
prompt and leaves all else (:mod:`training.sdxl.alterations`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
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
    channels_last,
    count_parameters,
    learning_rate_factor,
    move_module,
    restore,
    save,
)
from training.losses import attribute_losses
from training.scene_dataset import SceneDataset
from training.sdxl import alterations, latents
from training.sdxl.config import SIZE, UNET, unet
from training.sdxl.coupling import ANSWERS, answers, components, couple
from training.sdxl.latent_classifier import LatentClassifier
from training.sdxl.latent_classifier import train as train_classifier
from training.sdxl.noise_schedule import LAST_TIMESTEP, NOISE_SCHEDULE
from training.sdxl.text import TextEncoders, text_encoders

BATCH_SIZE = 32
LEARNING_RATE = 2e-3
LAST_TIMESTEP_SHARE = 0.625
PARTIAL_CAPTION_SHARE = 0.85
"""Share of captions that may omit attributes."""

CAPTION_DROPOUT = 0.06
CLASSIFIER_WEIGHT = 0.02
COUPLING_WEIGHT = 0.3
CLASSIFIER_MINUTES = 2.5
SCENES = 24000
ALTERED_SCENES = 12000
ALTERED_START_SHARE = 0.5
ALTERED_TIMESTEPS = (250, 850)
"""The range of timesteps at which a sample may start from an altered scene.

Below it a sample shows its scene too clearly for the prompt to change it, above it hardly at all.
"""


@dataclass(frozen=True)
class CoupledDataset:
    """Latents [n, 4, h, w] of training scenes and alterations, with what noise is coupled to.

    ``intervals`` [n, 16, 2] are the answers to the open questions. ``partner`` [n] is the index of
    a scene's alteration or of an alteration's original, and −1 for scenes without one.
    """

    latents: Tensor
    labels: Tensor
    captions: Captions
    intervals: Tensor
    partner: Tensor


@dataclass(frozen=True)
class Batch:
    """What one training step sees.

    ``latents`` are the targets of ``sample``. ``zero_embeddings`` [n] are empty captions whose
    embeddings are zeroed, as SDXL does for an empty negative prompt. ``attribute_mask`` [n, 6] says
    which attributes the classifier counts.
    """

    sample: Tensor
    latents: Tensor
    timesteps: Tensor
    ids: Tensor
    mask: Tensor
    zero_embeddings: Tensor
    time_ids: Tensor
    labels: Tensor
    attribute_mask: Tensor


def load_dataset(data: Path, work: Path, device: torch.device) -> CoupledDataset:
    """The encoded training scenes, followed by their alterations, rendered if missing."""
    scenes = SceneDataset(data, "train")
    count = min(SCENES, len(scenes))
    alterations.write(data, work, min(ALTERED_SCENES, count))
    altered_images = np.load(work / "altered_images.npy", mmap_mode="r")
    originals = latents.encode_images(scenes.images[:count], work / "latents_train.pt", work, device)
    altered = latents.encode_images(altered_images, work / "latents_altered.pt", work, device)
    labels = np.concatenate([scenes.labels.numpy()[:count], np.load(work / "altered_labels.npy")])
    seeds = np.load(data / "train_seeds.npy")[:count]
    seeds = np.concatenate([seeds, seeds[: len(altered)]])
    partner = torch.full((len(labels),), -1)
    partner[: len(altered)] = torch.arange(count, len(labels))
    partner[count:] = torch.arange(len(altered))
    return CoupledDataset(
        latents=torch.cat([originals, altered]),
        labels=torch.from_numpy(labels),
        captions=load_captions(labels, work),
        intervals=answers(labels, seeds),
        partner=partner,
    )


def sample_batch(dataset: CoupledDataset, count: int) -> Batch:
    """A random batch on the CPU, the first :func:`last_count` samples at the last timestep."""
    picked = torch.randint(0, len(dataset.latents), (count,))
    return make_batch(dataset, picked, torch.arange(count) < last_count(count), CAPTION_DROPOUT)


def make_batch(dataset: CoupledDataset, picked: Tensor, last: Tensor, caption_dropout: float) -> Batch:
    """The scenes ``picked`` [n] with noise, at the last timestep where ``last`` [n]."""
    count, captions = len(picked), dataset.captions
    timesteps = torch.where(last, LAST_TIMESTEP, torch.randint(1, LAST_TIMESTEP, (count,)))
    # Captions of even number may omit attributes, those of odd number state all.
    number = 2 * torch.randint(0, captions.ids.shape[1] // 2, (count,))
    number += (torch.rand(count) > PARTIAL_CAPTION_SHARE).long()
    in_range = (timesteps >= ALTERED_TIMESTEPS[0]) & (timesteps < ALTERED_TIMESTEPS[1])
    altered = in_range & (dataset.partner[picked] >= 0) & (torch.rand(count) < ALTERED_START_SHARE)
    source = torch.where(altered, dataset.partner[picked], picked)
    # A caption has to state what it changes; where it does not, its neighbour that states all is
    # taken.
    unstated = (dataset.labels[picked] != dataset.labels[source]) & ~captions.stated[picked, number]
    number = torch.where(unstated.any(dim=1), number | 1, number)
    ids, mask = captions.ids[picked, number].long(), captions.mask[picked, number].long()
    dropped = (torch.rand(count) < caption_dropout) & ~altered
    ids[dropped], mask[dropped] = captions.empty_ids.long(), captions.empty_mask.long()
    stated = captions.stated[picked, number] & ~dropped[:, None]
    target = dataset.latents[picked].float()
    noise = torch.randn_like(target)
    # No caption answers the renderer's random choices, which come first.
    choices = torch.zeros(count, ANSWERS - stated.shape[1], dtype=torch.bool)
    coupled = couple(noise, dataset.intervals[picked], torch.cat([choices, stated], dim=1))
    noise = torch.where(last[:, None, None, None], coupled, noise)
    return Batch(
        sample=NOISE_SCHEDULE.add_noise(dataset.latents[source].float(), noise, timesteps),
        latents=target,
        timesteps=timesteps,
        ids=ids,
        mask=mask,
        zero_embeddings=dropped & (torch.rand(count) < 0.5),
        time_ids=_time_ids(count),
        labels=dataset.labels[picked],
        # At the last timestep the coupled noise determines even what the caption omits.
        attribute_mask=(stated & (timesteps >= ALTERED_TIMESTEPS[0])[:, None]) | last[:, None],
    )


def last_count(count: int) -> int:
    """How many samples of a batch of ``count`` are at the last timestep."""
    return int(count * LAST_TIMESTEP_SHARE)


def _time_ids(count: int) -> Tensor:
    """SDXL's size conditioning [n, 6]; a fifth is random, so that ours isn't the only one known."""
    own = torch.tensor([SIZE, SIZE, 0, 0, SIZE, SIZE]).expand(count, -1)
    other = torch.randint(64, 1025, (count, 6))
    other[:, 2:4] = torch.randint(0, 129, (count, 2))
    return torch.where(torch.rand(count, 1) < 0.2, other, own).float()


class Denoiser(nn.Module):
    """The UNet with its text encoders, which predicts a batch's denoised latents.

    ``middle`` is the output of the UNet's middle block for the last batch, [n, channels, 8, 8].
    """

    def __init__(self, text: TextEncoders, network: nn.Module) -> None:
        super().__init__()
        self.text, self.network = text, network
        self.middle = torch.empty(0)
        network.get_submodule("mid_block").register_forward_hook(self._store_middle)

    def _store_middle(self, _block: nn.Module, _inputs: object, output: Tensor) -> None:
        self.middle = output

    def forward(self, batch: Batch) -> Tensor:
        """Denoised latents [n, 4, 32, 32]."""
        encoder_hidden_states, pooled = self.text(batch.ids, batch.mask)
        encoder_hidden_states = torch.where(batch.zero_embeddings[:, None, None], 0.0, encoder_hidden_states)
        conditioning = {
            "text_embeds": torch.where(batch.zero_embeddings[:, None], 0.0, pooled),
            "time_ids": batch.time_ids,
        }
        velocity = self.network(
            channels_last(batch.sample),
            batch.timesteps,
            encoder_hidden_states,
            added_cond_kwargs=conditioning,
            return_dict=False,
        )[0].float()
        return NOISE_SCHEDULE.denoised_from_velocity(batch.sample, velocity, batch.timesteps)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on ``device``."""
    return Batch(**{name: value.to(device) for name, value in vars(batch).items()})


def losses(classifier: LatentClassifier, batch: Batch, denoised: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Squared errors at the last timestep and at the others, and the classifier's loss.

    Dividing the latents' error by 1 − ᾱ makes it that of the velocity.
    """
    alpha_cumprod = NOISE_SCHEDULE.alpha_cumprod(batch.timesteps)[:, 0, 0, 0]
    error = (denoised - batch.latents).square().mean(dim=(1, 2, 3)) / (1 - alpha_cumprod)
    first = last_count(len(error))
    classification = (attribute_losses(classifier(denoised), batch.labels) * batch.attribute_mask).sum(dim=1).mean()
    return error[:first].mean(), error[first:].mean(), classification


def coupling_loss(head: nn.Module, middle: Tensor, batch: Batch) -> Tensor:
    """Squared error of the noise's reserved components, predicted from the middle block.

    It counts every position, and only samples at the last timestep. Without this loss, the UNet
    takes long to notice that the noise is informative.
    """
    first = last_count(len(batch.sample))
    targets = components(batch.sample[:first] / (1 - NOISE_SCHEDULE.alphas_cumprod[LAST_TIMESTEP]).sqrt())
    error: Tensor = head(middle[:first]).float() - targets[:, :, None, None]
    return error.square().mean()


def train(
    data: Path, work: Path, minutes: float, device: torch.device, classifier_minutes: float = CLASSIFIER_MINUTES
) -> None:
    """Train the UNet and its text encoders; resumes from ``work/unet.pt`` if that exists."""
    torch.manual_seed(0)
    dataset = load_dataset(data, work, device)
    classifier = train_classifier(dataset.latents, dataset.labels, work, classifier_minutes, device)
    text, network, head = text_encoders(work), unet(), nn.Conv2d(UNET["block_out_channels"][-1], ANSWERS, 1)
    modules: dict[str, nn.Module] = {"text": text, "unet": network, "head": head}
    model = Denoiser(text, network)
    for each in (model, head):
        move_module(each, device)
    model.train()
    ema, optimisers = EMA(modules, 0.995), Optimisers(modules.values(), LEARNING_RATE, 0.02)
    budget, log, means = TimeBudget(minutes), Log(work / "log.jsonl", "unet"), RunningMeans()
    path = work / "unet.pt"
    restore(path, modules, ema, optimisers, budget)
    log.write(budget, unet=count_parameters(network), text=count_parameters(text), device=str(device))
    while not budget.done:
        batch = to_device(sample_batch(dataset, BATCH_SIZE), device)
        with autocast(device):
            denoised = model(batch)
            last, others, classification = losses(classifier, batch, denoised)
            coupling = coupling_loss(head, model.middle, batch)
        # The auxiliary losses fade out over the last 15% of the time, so that the plain objective
        # has the last word.
        fade = min(1.0, (1 - budget.fraction) / 0.15)
        auxiliary = fade * (CLASSIFIER_WEIGHT * classification + COUPLING_WEIGHT * coupling)
        norm = optimisers.step(last + others + auxiliary, learning_rate_factor(budget))
        budget.count(BATCH_SIZE)
        ema.update()
        means.add(last=last, others=others, classification=classification, coupling=coupling, gradient=norm)
        if budget.steps % 200 == 0 or budget.done:
            log.write(budget, **means.pop())
            save(path, ema.checkpoint(optimisers, budget))
