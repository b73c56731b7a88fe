"""Trains an adapter (LoRA) for a published picture-book model."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Final

import torch
from torch import nn

from training.loop import (
    EMA,
    Log,
    Optimisers,
    RunningMeans,
    TimeBudget,
    count_parameters,
    learning_rate_factor,
    restore,
    save,
)
from training.lora.concept import Concept
from training.lora.layers import add_adapters, write_adapter
from training.lora.lesson import Lesson
from training.lora.scenes import SCENES, load_scenes

BATCH_SIZES: Final = {"sdxl": 16, "pixart": 16, "wuerstchen": 32}
LEARNING_RATE: Final = 3e-3
RANK: Final = 8


def train(family: str, concept: Concept, out: Path, minutes: float, device: torch.device, scenes: int = SCENES) -> None:
    """Train for ``minutes`` and write the adapter to ``out``.

    An interrupted training resumes from the checkpoint next to ``out``, which is removed at the
    end.
    """
    torch.manual_seed(0)
    module = importlib.import_module(f"training.lora.{family}")
    lesson: Lesson = module.lesson(load_scenes(concept, scenes), device)
    shapes = {
        f"{prefix}.{path}": layer.weight.shape
        for prefix, network in lesson.networks.items()
        for path, layer in network.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
    }
    factors = {
        prefix: add_adapters(network, lesson.layers[prefix], RANK).to(device)
        for prefix, network in lesson.networks.items()
    }
    ema, optimisers = EMA(factors, 0.99), Optimisers(factors.values(), LEARNING_RATE, 0.0)
    path = out.with_suffix(".partial.pt")
    budget, log, means = TimeBudget(minutes), Log(out.with_suffix(".log.jsonl"), f"lora-{family}"), RunningMeans()
    restore(path, factors, ema, optimisers, budget)
    log.write(budget, parameters=count_parameters(*factors.values()), device=str(device))
    while not budget.done:
        loss = lesson.loss(BATCH_SIZES[family])
        norm = optimisers.step(loss, learning_rate_factor(budget))
        budget.count(BATCH_SIZES[family])
        ema.update()
        means.add(loss=loss, gradient=norm)
        if budget.steps % 50 == 0 or budget.done:
            log.write(budget, **means.pop())
            save(path, ema.checkpoint(optimisers, budget))
    write_adapter(out, ema.state, shapes, _about(family, concept, budget))
    path.unlink(missing_ok=True)


def _about(family: str, concept: Concept, budget: TimeBudget) -> dict[str, str]:
    """The adapter's metadata: trigger words, base model, and how long it was trained."""
    return {
        "modelspec.title": f"{concept.word} for storybook-{family}",
        "modelspec.trigger_phrase": concept.word,
        "ss_base_model_version": f"storybook-{family}",
        "ss_steps": str(budget.steps),
    }
