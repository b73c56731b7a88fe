"""Trains the consistency model, which jumps to where many sampling steps would lead.

A latent consistency model (Luo et al., arXiv 2310.04378) maps every point of a sampling trajectory
of the guided diffusion model, its teacher, to the trajectory's end (Song et al., arXiv 2303.01469).
Here the trajectories are sampled completely beforehand. The end of each is then a known target, and
consistency need not propagate from step to step. Some trajectories start from noise. Others start
where the sampler of a consistency model puts its next step: at a denoised end to which fresh noise
is added.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from training.loop import (
    EMA,
    Log,
    Optimisers,
    RunningMeans,
    TimeBudget,
    autocast,
    learning_rate_factor,
    load,
    restore,
    save,
)
from training.noise_schedule import NoiseSchedule
from training.pixart.config import SCHEDULER
from training.pixart.transformer import (
    Batch,
    Denoiser,
    LatentDataset,
    classifier_loss,
    load_datasets,
    load_model,
    predict_velocity,
    sample_batch,
    to_device,
)
from training.sdxl.latent_classifier import LatentClassifier
from training.sdxl.latent_classifier import train as train_classifier

LEARNING_RATE = 8e-4
GUIDANCE_SCALE = 3.0
SOLVER_STEPS = 12
TRAJECTORIES_PER_BATCH = 64
TRAJECTORY_BATCHES = (20, 3)
"""Number of batches of trajectories in the square frame, and in each other frame."""

RESTART_TIMESTEPS = (880, 100)
"""The highest and lowest timestep at which a trajectory starts from an end in fresh noise."""

CLASSIFIER_WEIGHT = 0.01
HUBER_C = 0.03


@dataclass(frozen=True)
class Trajectories:
    """A batch of sampling trajectories in one frame.

    ``points`` [steps, n, 4, h, w] are the samples at ``timesteps`` [steps], and ``ends`` [n, 4, h,
    w] the denoised latents that they lead to. Captions and labels are those of a :class:`Batch`.
    """

    points: Tensor
    timesteps: Tensor
    ends: Tensor
    ids: Tensor
    mask: Tensor
    labels: Tensor
    attribute_mask: Tensor


def solver_timesteps(first: int) -> Tensor:
    """At most SOLVER_STEPS timesteps, evenly spaced from ``first`` down, none of them 0."""
    count = max(4, round(SOLVER_STEPS * (first + 1) / 1000))
    return torch.linspace(first, (first + 1) / count - 1, count).round().long()


class GuidedTeacher:
    """The diffusion model's denoised latents for one batch of captions, with guidance."""

    @torch.no_grad()
    def __init__(self, teacher: Denoiser, schedule: NoiseSchedule, batch: Batch, empty: tuple[Tensor, Tensor]) -> None:
        """``empty`` is the empty caption: ids and mask [length]."""
        self._network, self._schedule = teacher.network, schedule
        count, length = batch.ids.shape
        ids, self._mask = (
            torch.cat([conditional, unconditional[:length].to(conditional).expand(count, -1)])
            for conditional, unconditional in zip((batch.ids, batch.mask), empty, strict=True)
        )
        with autocast(batch.ids.device):
            self._encoder_hidden_states = teacher.text(ids, self._mask)

    @torch.no_grad()
    def __call__(self, sample: Tensor, timestep: int) -> Tensor:
        """Denoised latents of ``sample`` [n, 4, h, w] at ``timestep``."""
        timesteps = torch.full((len(sample),), timestep, device=sample.device)
        with autocast(sample.device):
            velocity = predict_velocity(
                self._network, sample.repeat(2, 1, 1, 1), timesteps.repeat(2), self._encoder_hidden_states, self._mask
            )
        conditional, unconditional = velocity.chunk(2)
        guided = unconditional + GUIDANCE_SCALE * (conditional - unconditional)
        return self._schedule.denoised_from_velocity(sample, guided, timesteps)


def sample_trajectory(
    denoise: Callable[[Tensor, int], Tensor], schedule: NoiseSchedule, sample: Tensor, timesteps: Tensor
) -> tuple[Tensor, Tensor]:
    """Sample by DPM-Solver++ (2M) from ``sample`` [n, 4, h, w] over ``timesteps`` [steps].

    This is algorithm 2 of Lu et al., arXiv 2211.01095. ``denoise`` predicts the denoised latents of
    a sample at a timestep, as :class:`GuidedTeacher` does.

    Returns:
        The sample at every timestep [steps, n, 4, h, w], and the denoised latents [n, 4, h, w] of
        the last one.
    """
    alphas, sigmas = schedule.alphas_cumprod.sqrt(), (1 - schedule.alphas_cumprod).sqrt()
    log_snr = (alphas / sigmas).log()
    points, steps = [], timesteps.tolist()
    previous_denoised = denoised = denoise(sample, steps[0])
    for index, timestep in enumerate(steps):
        points.append(sample)
        if index:
            previous_denoised, denoised = denoised, denoise(sample, timestep)
        if index + 1 < len(steps):
            following = steps[index + 1]
            h = log_snr[following] - log_snr[timestep]
            # 1 / (2 r) of the paper; the first step is of first order.
            factor = 0.0 if index == 0 else float(h / (log_snr[timestep] - log_snr[steps[index - 1]]) / 2)
            extrapolated = denoised + factor * (denoised - previous_denoised)
            sample = sigmas[following] / sigmas[timestep] * sample - alphas[following] * torch.expm1(-h) * extrapolated
    return torch.stack(points), denoised


def sample_trajectories(
    teacher: Denoiser, datasets: Sequence[LatentDataset], work: Path, log: Log, device: torch.device
) -> list[Trajectories]:
    """Trajectories of the teacher in every frame, stored in ``work/trajectories``.

    Every batch that starts from noise (``<number>a.pt``) is followed by one that restarts from its
    ends (``<number>b.pt``).
    """
    schedule = NoiseSchedule(SCHEDULER)
    frames = [0] * TRAJECTORY_BATCHES[0]
    frames += [index for index in range(1, len(datasets)) for _ in range(TRAJECTORY_BATCHES[1])]
    batches: list[Trajectories] = []
    for number, frame in enumerate(frames):
        for restart in (False, True):
            path = work / "trajectories" / f"{number}{'b' if restart else 'a'}.pt"
            if not path.exists():
                torch.manual_seed(2 * number + restart)
                ends = batches[-1] if restart else None
                save(path, _sample_batch_of_trajectories(teacher, datasets[frame], schedule, ends, device))
                if number % 10 == 0:
                    log.write(trajectories=number * TRAJECTORIES_PER_BATCH)
            batches.append(Trajectories(**load(path)))
    return batches


def _sample_batch_of_trajectories(
    teacher: Denoiser,
    dataset: LatentDataset,
    schedule: NoiseSchedule,
    restart_from: Trajectories | None,
    device: torch.device,
) -> dict[str, Tensor]:
    """Fields of new :class:`Trajectories`, from noise or from the ends of ``restart_from``."""
    if restart_from is None:
        start, batch = schedule.last_timestep, sample_batch([dataset], TRAJECTORIES_PER_BATCH)
    else:
        start = int(torch.randint(RESTART_TIMESTEPS[1], RESTART_TIMESTEPS[0], ()))
        batch = Batch(latents=restart_from.ends.float(), **_captions(restart_from))
    batch, captions = to_device(batch, device), dataset.captions
    denoise = GuidedTeacher(teacher, schedule, batch, (captions.empty_ids, captions.empty_mask))
    sample = torch.randn_like(batch.latents)
    if restart_from is not None:
        timesteps = torch.full((TRAJECTORIES_PER_BATCH,), start, device=device)
        sample = schedule.add_noise(batch.latents, sample, timesteps)
    timesteps = solver_timesteps(start)
    points, ends = sample_trajectory(denoise, schedule, sample, timesteps)
    fields = {"points": points.half(), "timesteps": timesteps, "ends": ends.half(), **_captions(batch)}
    return {name: value.cpu() for name, value in fields.items()}


def _captions(batch: Batch | Trajectories) -> dict[str, Tensor]:
    """The fields that a batch and its trajectories share."""
    return {name: getattr(batch, name) for name in ("ids", "mask", "labels", "attribute_mask")}


def sample_points(trajectories: Sequence[Trajectories]) -> tuple[Batch, Tensor, Tensor]:
    """Random points [n, 4, h, w] of a random batch of trajectories, and their timesteps [n].

    The latents of the returned :class:`Batch` are the ends of the trajectories.
    """
    chosen = random.choice(trajectories)
    count = chosen.points.shape[1]
    which = torch.randint(0, len(chosen.timesteps), (count,))
    batch = Batch(latents=chosen.ends.float(), **_captions(chosen))
    return batch, chosen.points[which, torch.arange(count)].float(), chosen.timesteps[which]


def losses(classifier: LatentClassifier, batch: Batch, denoised: Tensor) -> tuple[Tensor, Tensor]:
    """The pseudo-Huber distance of ``denoised`` from the ends, and the classifier's loss.

    The pseudo-Huber metric is that of Song and Dhariwal, arXiv 2310.14189.
    """
    distance = ((denoised - batch.latents).square() + HUBER_C**2).sqrt().mean() - HUBER_C
    everywhere = torch.ones(len(denoised), dtype=torch.bool, device=denoised.device)
    return distance, classifier_loss(classifier, denoised, batch, everywhere)


def train(data: Path, work: Path, minutes: float, device: torch.device, classifier_minutes: float = 0.0) -> None:
    """Train the consistency model; resumes from ``work/consistency.pt`` if that exists."""
    torch.manual_seed(1)
    random.seed(1)
    log, schedule = Log(work / "log.jsonl", "consistency"), NoiseSchedule(SCHEDULER)
    checkpoint = load(work / "transformer.pt")
    teacher = load_model(checkpoint, work).to(device).eval().requires_grad_(False)
    datasets = load_datasets(data, work, device)
    classifier = train_classifier(datasets[0].latents, datasets[0].labels, work, classifier_minutes, device)
    trajectories = sample_trajectories(teacher, datasets, work, log, device)
    student = load_model(checkpoint, work).to(device)
    modules: dict[str, nn.Module] = {"transformer": student.network}
    student.text.requires_grad_(False)
    student.train()
    ema, optimisers = EMA(modules, 0.995), Optimisers(modules.values(), LEARNING_RATE, 0.0)
    budget, means = TimeBudget(minutes), RunningMeans()
    path = work / "consistency.pt"
    restore(path, modules, ema, optimisers, budget)
    while not budget.done:
        batch, sample, timesteps = sample_points(trajectories)
        batch, sample, timesteps = to_device(batch, device), sample.to(device), timesteps.to(device)
        with autocast(device):
            velocity = student(sample, timesteps, batch.ids, batch.mask)
            denoised = schedule.denoised_from_velocity(sample, velocity, timesteps)
            distance, classification = losses(classifier, batch, denoised)
        norm = optimisers.step(distance + CLASSIFIER_WEIGHT * classification, learning_rate_factor(budget))
        budget.count(len(sample))
        ema.update()
        means.add(distance=distance, classification=classification, gradient=norm)
        if budget.steps % 100 == 0 or budget.done:
            log.write(budget, **means.pop())
            save(path, ema.checkpoint(optimisers, budget))
