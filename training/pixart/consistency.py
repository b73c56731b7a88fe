"""The consistency model: the transformer taught to jump to where many steps of the sampler would lead.

A latent consistency model (Luo et al., arXiv 2310.04378) maps any point of a trajectory of the guided diffusion model
to the trajectory's end (Song et al., arXiv 2303.01469). Here the trajectories are drawn beforehand, all the way, so
that the end of each is known and can be asked for directly; consistency need not be handed down from step to step.
Some begin with noise, others where the sampler of the consistency model comes by: at an end in fresh noise.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from training.common import Budget, Ema, Log, Means, Optimisers, autocast, learning_rate, load, restore, save
from training.pixart.config import SCHEDULER
from training.pixart.transformer import (
    Batch,
    Denoiser,
    Pictures,
    draw_batch,
    load_model,
    load_pictures,
    reading_loss,
    to_device,
    velocity,
)
from training.schedule import Schedule
from training.sdxl.reader import LatentReader
from training.sdxl.reader import train as train_reader

BATCH = 64
RATE = 8e-4
GUIDANCE = 3.0
STEPS = 12
AT_ONCE = 64
BATCHES = (20, 3)
"""Of trajectories: square ones, and those of each other frame."""

AGAIN_FROM = (880, 100)
"""Between these timesteps lies where a trajectory begins anew, from an end in fresh noise."""

READING = 0.01
HUBER = 0.03


@dataclass(frozen=True)
class Trajectories:
    """A batch of them, of one frame: ``points`` [steps, n, 4, h, w] at ``timesteps`` [steps], and their ``ends``."""

    points: Tensor
    timesteps: Tensor
    ends: Tensor
    ids: Tensor
    mask: Tensor
    labels: Tensor
    told: Tensor


def sampler_timesteps(first: int) -> Tensor:
    """STEPS timesteps from ``first`` on, evenly apart, none of them 0; fewer where the way is shorter."""
    count = max(4, round(STEPS * (first + 1) / 1000))
    return torch.linspace(first, (first + 1) / count - 1, count).round().long()


class Guided:
    """The clean latents that the teacher predicts for a batch's captions, under classifier-free guidance."""

    @torch.no_grad()
    def __init__(self, teacher: Denoiser, schedule: Schedule, batch: Batch, empty: tuple[Tensor, Tensor]) -> None:
        """``empty`` is the empty caption: ids and mask [length]."""
        self._network, self._schedule = teacher.network, schedule
        count, length = batch.ids.shape
        ids, self._mask = (
            torch.cat([told, nothing[:length].to(told).expand(count, -1)])
            for told, nothing in zip((batch.ids, batch.mask), empty, strict=True)
        )
        with autocast(batch.ids.device):
            self._states = teacher.text(ids, self._mask)

    @torch.no_grad()
    def __call__(self, sample: Tensor, timestep: int) -> Tensor:
        """Of ``sample`` [n, 4, h, w]."""
        now = torch.full((len(sample),), timestep, device=sample.device)
        with autocast(sample.device):
            predicted = velocity(self._network, sample.repeat(2, 1, 1, 1), now.repeat(2), self._states, self._mask)
        with_text, without = predicted.chunk(2)
        return self._schedule.clean_of(sample, without + GUIDANCE * (with_text - without), now)


def solve(
    guided: Callable[[Tensor, int], Tensor], schedule: Schedule, sample: Tensor, timesteps: Tensor
) -> tuple[Tensor, Tensor]:
    """Every point on the way [steps, n, 4, h, w], and the end: DPM-Solver++ (2M), Lu et al., arXiv 2211.01095.

    ``guided`` predicts clean latents from a sample at a timestep, as :class:`Guided` does.
    """
    alphas, sigmas = schedule.signal.sqrt(), (1 - schedule.signal).sqrt()
    logs = (alphas / sigmas).log()
    points, way = [], timesteps.tolist()
    before = clean = guided(sample, way[0])
    for index, at in enumerate(way):
        points.append(sample)
        if index:
            before, clean = clean, guided(sample, at)
        if index + 1 < len(way):
            to = way[index + 1]
            step = logs[to] - logs[at]
            lead = 0.0 if index == 0 else float(step / (logs[at] - logs[way[index - 1]]) / 2)
            ahead = clean + lead * (clean - before)
            sample = sigmas[to] / sigmas[at] * sample - alphas[to] * torch.expm1(-step) * ahead
    return torch.stack(points), clean


def draw_trajectories(
    teacher: Denoiser, pictures: Sequence[Pictures], work: Path, log: Log, device: torch.device
) -> list[Trajectories]:
    """Trajectories of every frame; kept in ``work/trajectories``, and gone on with where they end."""
    folder, schedule = work / "trajectories", Schedule(SCHEDULER)
    kinds = [0] * BATCHES[0] + [1 + index for index in range(len(pictures) - 1) for _ in range(BATCHES[1])]
    found: list[Trajectories] = []
    for number, kind in enumerate(kinds):
        for again in (False, True):
            path = folder / f"{number}{'b' if again else 'a'}.pt"
            if not path.exists():
                torch.manual_seed(2 * number + again)
                if again:
                    first = found[-1]
                    start = int(torch.randint(AGAIN_FROM[1], AGAIN_FROM[0], ()))
                    batch = Batch(clean=first.ends.float(), **_captions(first))
                else:
                    start, batch = schedule.last, draw_batch([pictures[kind]], AT_ONCE)
                batch, captions = to_device(batch, device), pictures[kind].captions
                guided = Guided(teacher, schedule, batch, (captions.empty_ids, captions.empty_mask))
                noise = torch.randn_like(batch.clean)
                sample = (
                    schedule.noised(batch.clean, noise, torch.full((AT_ONCE,), start, device=device))
                    if again
                    else noise
                )
                timesteps = sampler_timesteps(start)
                points, ends = solve(guided, schedule, sample, timesteps)
                parts = {"points": points.half(), "timesteps": timesteps, "ends": ends.half(), **_captions(batch)}
                save(path, {name: value.cpu() for name, value in parts.items()})
                if number % 10 == 0:
                    log.write(trajectories=number * AT_ONCE)
            found.append(Trajectories(**load(path)))
    return found


def _captions(of: Batch | Trajectories) -> dict[str, Tensor]:
    return {name: getattr(of, name) for name in ("ids", "mask", "labels", "told")}


def draw_points(trajectories: Sequence[Trajectories]) -> tuple[Batch, Tensor, Tensor]:
    """Random points of a random batch of trajectories [n, 4, h, w] and their timesteps; the batch has the ends."""
    chosen = random.choice(trajectories)
    count = chosen.points.shape[1]
    which = torch.randint(0, len(chosen.timesteps), (count,))
    batch = Batch(clean=chosen.ends.float(), **_captions(chosen))
    return batch, chosen.points[which, torch.arange(count)].float(), chosen.timesteps[which]


def losses(reader: LatentReader, batch: Batch, drawn: Tensor) -> tuple[Tensor, Tensor]:
    """The pseudo-Huber distance of what was ``drawn`` from the ends, and what the reader says of it."""
    distance = ((drawn - batch.clean).square() + HUBER**2).sqrt().mean() - HUBER
    return distance, reading_loss(reader, drawn, batch, torch.ones(len(drawn), dtype=torch.bool, device=drawn.device))


def train(data: Path, work: Path, minutes: float, device: torch.device, reader_minutes: float = 0.0) -> None:
    """Trains the consistency model from ``work/transformer.pt``; goes on from ``work/consistency.pt``."""
    torch.manual_seed(1)
    random.seed(1)
    log, schedule = Log(work / "log.jsonl", "consistency"), Schedule(SCHEDULER)
    kept = load(work / "transformer.pt")
    teacher = load_model(kept, work).to(device).eval().requires_grad_(False)
    pictures = load_pictures(data, work, device)
    reader = train_reader(pictures[0].latents, pictures[0].labels, work, reader_minutes, device)
    trajectories = draw_trajectories(teacher, pictures, work, log, device)
    student = load_model(kept, work).to(device)
    modules: dict[str, nn.Module] = {"transformer": student.network}
    student.text.requires_grad_(False)
    student.train()
    ema, optimisers = Ema(modules, 0.995), Optimisers(modules.values(), RATE, 0.0)
    budget, means = Budget(minutes), Means()
    path = work / "consistency.pt"
    restore(path, modules, ema, optimisers, budget)
    while not budget.done:
        batch, sample, timesteps = draw_points(trajectories)
        batch, sample, timesteps = to_device(batch, device), sample.to(device), timesteps.to(device)
        with autocast(device):
            predicted = student(sample, timesteps, batch.ids, batch.mask)
            drawn = schedule.clean_of(sample, predicted, timesteps)
            distance, reading = losses(reader, batch, drawn)
        norm = optimisers.step(distance + READING * reading, learning_rate(budget))
        budget.count(len(sample))
        ema.update()
        means.add(distance=distance, reading=reading, gradient=norm)
        if budget.steps % 100 == 0 or budget.done:
            log.write(budget, **means.take())
            save(path, ema.checkpoint(optimisers, budget))
