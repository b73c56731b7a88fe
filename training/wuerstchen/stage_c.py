"""Trains Stage C, the prior, with its text encoder: it generates a picture's code z from a caption.

The prior has no positional encoding, and from the noise's error alone it learns the attribute
*place* late. So the classifier that was trained with the image encoder classifies the denoised
code, and its cross-entropy is added to the loss, with a weight that falls to zero at the end.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from training.captions import hidden_states, load_captions, load_tokenizer, text_encoder
from training.loop import (
    EMA,
    Log,
    Optimisers,
    RunningMeans,
    TimeBudget,
    autocast,
    count_parameters,
    learning_rate_factor,
    load,
    restore,
    save,
)
from training.losses import attribute_loss
from training.scene_dataset import SceneDataset
from training.wuerstchen.config import PRIOR_TEXT, stage_c
from training.wuerstchen.image_encoder import CodeClassifier
from training.wuerstchen.noise_schedule import add_noise_at_random_times, loss_weight

BATCH_SIZE = 64
LEARNING_RATE = 2e-3
CAPTION_DROPOUT = 0.1
CLASSIFIER_WEIGHT = 0.1


def train(data: Path, work: Path, minutes: float, device: torch.device) -> None:
    """Train Stage C on the encoder's codes; resumes from ``work/stage_c.pt`` if that exists."""
    torch.manual_seed(0)
    codes = load(work / "codes_train.pt")["z"]
    labels = SceneDataset(data, "train").labels
    captions = load_captions(labels.numpy(), work)
    classifier = CodeClassifier()
    classifier.load_state_dict(load(work / "image_encoder.pt")["reader"])
    classifier.to(device).eval().requires_grad_(False)
    modules: dict[str, nn.Module] = {
        "stage": stage_c(),
        "text": text_encoder(load_tokenizer(work), **PRIOR_TEXT),
    }
    for module in modules.values():
        module.to(device).train()
    stage, text = modules.values()
    ema, optimisers = EMA(modules, 0.999), Optimisers(modules.values(), LEARNING_RATE, 0.02)
    budget, log, means = TimeBudget(minutes), Log(work / "log.jsonl", "stage-c"), RunningMeans()
    path = work / "stage_c.pt"
    restore(path, modules, ema, optimisers, budget)
    log.write(budget, parameters=count_parameters(stage), text=count_parameters(text), device=str(device))
    while not budget.done:
        picked = torch.randint(0, len(codes), (BATCH_SIZE,))
        ids, mask, dropped = captions.sample(picked, CAPTION_DROPOUT)
        x, noise, times, alpha_cumprod = add_noise_at_random_times(codes[picked].to(device), 0.5)
        with autocast(device):
            predicted = stage(x, times, hidden_states(text, ids.to(device), mask.to(device))).float()
        error = (predicted - noise).square()
        loss = (error * loss_weight(alpha_cumprod)).mean()
        # Below ᾱ = 0.006 the denoised code is too uncertain to be classified; an empty caption
        # states nothing.
        counted = (alpha_cumprod[:, 0, 0, 0] > 0.006) & ~dropped.to(device)
        denoised = (x - (1 - alpha_cumprod).sqrt() * predicted) / alpha_cumprod.sqrt()
        classification = _classifier_loss(classifier, denoised, labels[picked].to(device), counted)
        weight = CLASSIFIER_WEIGHT * min(1.0, (1 - budget.fraction) / 0.15)
        norm = optimisers.step(loss + weight * classification, learning_rate_factor(budget))
        budget.count(BATCH_SIZE)
        ema.update()
        means.add(loss=loss, error=error.mean(), classification=classification, gradient=norm)
        if budget.steps % 200 == 0 or budget.done:
            log.write(budget, **means.pop())
            save(path, ema.checkpoint(optimisers, budget))


def _classifier_loss(classifier: CodeClassifier, denoised: Tensor, labels: Tensor, counted: Tensor) -> Tensor:
    """Mean cross-entropy of the attributes in ``denoised`` codes where ``counted`` [n]."""
    # Codes have unit variance; predictions far beyond are noise that the division by √ᾱ amplified.
    return (attribute_loss(classifier(denoised.clamp(-4, 4)), labels) * counted.float()).mean()
