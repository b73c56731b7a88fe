"""The UNet and its text encoders: latent diffusion whose last timestep is learned for drawing in one step.

A batch has two parts. The larger is at the last timestep: noise that is coupled to the scene
(:mod:`training.sdxl.coupling`) in, the scene's latents out; a throw-away layer has to tell, from every position of the
UNet's middle, what the noise says. The rest is at all other timesteps, with any noise; of those in the middle, some
start from an altered scene, so that image to image follows the prompt and keeps the rest
(:mod:`training.sdxl.alterations`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
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
    channels_last,
    count_parameters,
    learning_rate,
    place,
    restore,
    save,
)
from training.losses import attribute_losses
from training.scenes import Scenes
from training.sdxl import alterations, latents
from training.sdxl.config import SIZE, UNET, unet
from training.sdxl.coupling import ANSWERS, answers, components, couple
from training.sdxl.diffusion import LAST, SCHEDULE
from training.sdxl.reader import LatentReader
from training.sdxl.reader import train as train_reader
from training.sdxl.text import TextEncoders, text_encoders

BATCH = 32
RATE = 2e-3
LAST_SHARE = 0.625
PARTIAL = 0.85
UNSAID = 0.06
READING = 0.02
HEARING = 0.3
READER_MINUTES = 2.5
SCENES = 24000
ALTERED = 12000
FROM_ANOTHER = 0.5
BETWEEN = (250, 850)


@dataclass(frozen=True)
class Pictures:
    """Latents and what is known of them. ``partner`` is the altered scene's index, or its original's."""

    latents: Tensor
    labels: Tensor
    captions: Captions
    intervals: Tensor
    partner: Tensor


@dataclass(frozen=True)
class Batch:
    """What one step sees. ``told`` says which attributes count when what was drawn is read."""

    sample: Tensor
    clean: Tensor
    timesteps: Tensor
    ids: Tensor
    mask: Tensor
    zeroed: Tensor
    time_ids: Tensor
    labels: Tensor
    told: Tensor


def load_pictures(data: Path, work: Path, device: torch.device) -> Pictures:
    """Training scenes and the altered ones, encoded."""
    scenes = Scenes(data, "train")
    count = min(SCENES, len(scenes))
    alterations.write(data, work, min(ALTERED, count))
    other = np.load(work / "altered_images.npy", mmap_mode="r")
    own = latents.encode(scenes.images[:count], work / "latents_train.pt", work, device)
    changed = latents.encode(other, work / "latents_altered.pt", work, device)
    labels = np.concatenate([scenes.labels.numpy()[:count], np.load(work / "altered_labels.npy")])
    seeds = np.load(data / "train_seeds.npy")[:count]
    seeds = np.concatenate([seeds, seeds[: len(other)]])
    partner = torch.full((len(labels),), -1)
    partner[: len(other)] = torch.arange(count, len(labels))
    partner[count:] = torch.arange(len(other))
    captions = load_captions(labels, work)
    return Pictures(torch.cat([own, changed]), torch.from_numpy(labels), captions, answers(labels, seeds), partner)


def draw_batch(pictures: Pictures, count: int) -> Batch:
    """A random batch on the CPU: its first part at the last timestep."""
    picked = torch.randint(0, len(pictures.latents), (count,))
    return batch_of(pictures, picked, torch.arange(count) < last_count(count), UNSAID)


def batch_of(pictures: Pictures, picked: Tensor, last: Tensor, unsaid_share: float) -> Batch:
    """These pictures [n] in noise: at the last timestep where ``last`` [n], else at any other."""
    count = len(picked)
    timesteps = torch.where(last, LAST, torch.randint(1, LAST, (count,)))
    # Captions of even number leave things unsaid.
    which = 2 * torch.randint(0, pictures.captions.ids.shape[1] // 2, (count,)) + (torch.rand(count) > PARTIAL).long()
    between = (timesteps >= BETWEEN[0]) & (timesteps < BETWEEN[1])
    changed = between & (pictures.partner[picked] >= 0) & (torch.rand(count) < FROM_ANOTHER)
    source = torch.where(changed, pictures.partner[picked], picked)
    # A change has to be said; captions of odd number say all.
    silent = (pictures.labels[picked] != pictures.labels[source]) & ~pictures.captions.said[picked, which]
    which = torch.where(silent.any(dim=1), which | 1, which)
    ids, mask = pictures.captions.ids[picked, which].long(), pictures.captions.mask[picked, which].long()
    said = pictures.captions.said[picked, which]
    unsaid = (torch.rand(count) < unsaid_share) & ~changed
    ids[unsaid], mask[unsaid] = pictures.captions.empty_ids.long(), pictures.captions.empty_mask.long()
    said = said & ~unsaid[:, None]
    clean = pictures.latents[picked].float()
    noise = torch.randn_like(clean)
    told = torch.cat([torch.zeros(count, pictures.intervals.shape[1] - said.shape[1], dtype=torch.bool), said], dim=1)
    coupled = couple(noise, pictures.intervals[picked], told)
    noise = torch.where(last[:, None, None, None], coupled, noise)
    return Batch(
        sample=SCHEDULE.noised(pictures.latents[source].float(), noise, timesteps),
        clean=clean,
        timesteps=timesteps,
        ids=ids,
        mask=mask,
        zeroed=unsaid & (torch.rand(count) < 0.5),
        time_ids=_time_ids(count),
        labels=pictures.labels[picked],
        told=(said & (timesteps >= BETWEEN[0])[:, None]) | last[:, None],
    )


def last_count(count: int) -> int:
    """How many of a batch are at the last timestep."""
    return int(count * LAST_SHARE)


def _time_ids(count: int) -> Tensor:
    """SDXL's size conditions. A few are any numbers, so that the UNet doesn't come to lean on ours."""
    own = torch.tensor([SIZE, SIZE, 0, 0, SIZE, SIZE]).expand(count, -1)
    other = torch.randint(64, 1025, (count, 6))
    other[:, 2:4] = torch.randint(0, 129, (count, 2))
    return torch.where(torch.rand(count, 1) < 0.2, other, own).float()


class Denoiser(nn.Module):
    """The UNet with its text encoders: a batch's sample to the clean latents that it predicts.

    ``middle`` is what the UNet's middle block made of the last batch, [n, channels, 8, 8].
    """

    def __init__(self, text: TextEncoders, network: nn.Module) -> None:
        super().__init__()
        self.text, self.network = text, network
        self.middle = torch.empty(0)
        network.get_submodule("mid_block").register_forward_hook(self._keep)

    def _keep(self, _block: nn.Module, _given: object, made: Tensor) -> None:
        self.middle = made

    def forward(self, batch: Batch) -> Tensor:
        """Clean latents [n, 4, 32, 32]."""
        states, pooled = self.text(batch.ids, batch.mask)
        states = torch.where(batch.zeroed[:, None, None], 0.0, states)
        pooled = torch.where(batch.zeroed[:, None], 0.0, pooled)
        velocity = predict(self.network, batch.sample, batch.timesteps, states, pooled, batch.time_ids)
        return SCHEDULE.clean_of(batch.sample, velocity, batch.timesteps)


def predict(
    network: nn.Module, sample: Tensor, timesteps: Tensor, states: Tensor, pooled: Tensor, time_ids: Tensor
) -> Tensor:
    """The UNet's velocity."""
    told = {"text_embeds": pooled, "time_ids": time_ids}
    out: Tensor = network(channels_last(sample), timesteps, states, added_cond_kwargs=told, return_dict=False)[0]
    return out.float()


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch where the modules are."""
    return Batch(**{name: value.to(device) for name, value in vars(batch).items()})


def losses(reader: LatentReader, batch: Batch, drawn: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Squared error at the last timestep, elsewhere (as a velocity's), and of what the reader reads."""
    error = (drawn - batch.clean).square().mean(dim=(1, 2, 3)) / (1 - SCHEDULE.share(batch.timesteps)[:, 0, 0, 0])
    first = last_count(len(error))
    reading = (attribute_losses(reader(drawn), batch.labels) * batch.told).sum(dim=1).mean()
    return error[:first].mean(), error[first:].mean(), reading


def hearing_loss(head: nn.Module, middle: Tensor, batch: Batch) -> Tensor:
    """Squared error of what ``head`` finds at every position of the UNet's middle, of what the noise says.

    Of the part at the last timestep alone. Without it the UNet takes long to notice that the noise says anything.
    """
    first = last_count(len(batch.sample))
    wanted = components(batch.sample[:first] / (1 - SCHEDULE.signal[LAST]).sqrt())
    error: Tensor = head(middle[:first]).float() - wanted[:, :, None, None]
    return error.square().mean()


def train(data: Path, work: Path, minutes: float, device: torch.device, reader_minutes: float = READER_MINUTES) -> None:
    """Trains UNet and text encoders; goes on from ``work/unet.pt`` where that is."""
    torch.manual_seed(0)
    pictures = load_pictures(data, work, device)
    reader = train_reader(pictures.latents, pictures.labels, work, reader_minutes, device)
    text, network, head = text_encoders(work), unet(), nn.Conv2d(UNET["block_out_channels"][-1], ANSWERS, 1)
    modules: dict[str, nn.Module] = {"text": text, "unet": network, "head": head}
    model = Denoiser(text, network)
    for each in (model, head):
        place(each, device)
    model.train()
    ema, optimisers = Ema(modules, 0.995), Optimisers(modules.values(), RATE, 0.02)
    budget, log, means = Budget(minutes), Log(work / "log.jsonl", "unet"), Means()
    path = work / "unet.pt"
    restore(path, modules, ema, optimisers, budget)
    log.write(budget, unet=count_parameters(network), text=count_parameters(text), device=str(device))
    while not budget.done:
        batch = to_device(draw_batch(pictures, BATCH), device)
        with autocast(device):
            drawn = model(batch)
            last, others, reading = losses(reader, batch, drawn)
            hearing = hearing_loss(head, model.middle, batch)
        helped = min(1.0, (1 - budget.fraction) / 0.15) * (READING * reading + HEARING * hearing)
        norm = optimisers.step(last + others + helped, learning_rate(budget))
        budget.count(BATCH)
        ema.update()
        means.add(last=last, others=others, reading=reading, hearing=hearing, gradient=norm)
        if budget.steps % 200 == 0 or budget.done:
            log.write(budget, **means.take())
            save(path, ema.checkpoint(optimisers, budget))
