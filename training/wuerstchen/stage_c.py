"""Stage C, the prior: from a caption to the code z of a picture, with its text encoder.

The prior has no positional encoding, and with the noise's error alone it learns *place* late. So what its clean
prediction shows is read by the classifier that was trained beside the image encoder, and the cross-entropy is added,
with a weight that falls to zero at the end.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from training.captions import hidden_states, load_captions, load_tokenizer, text_encoder
from training.common import (
    Budget,
    Ema,
    Log,
    Means,
    Optimisers,
    autocast,
    count_parameters,
    learning_rate,
    load,
    restore,
    save,
)
from training.losses import attribute_loss
from training.scenes import Scenes
from training.wuerstchen.config import PRIOR_TEXT, stage_c
from training.wuerstchen.diffusion import loss_weight, noised
from training.wuerstchen.image_encoder import Reader

BATCH = 64
RATE = 2e-3
UNSAID = 0.1
READING = 0.1


def train(data: Path, work: Path, minutes: float, device: torch.device) -> None:
    """Train Stage C on the codes that the image encoder left in ``work``; goes on from ``work/stage_c.pt``."""
    torch.manual_seed(0)
    codes = load(work / "codes_train.pt")["z"]
    labels = Scenes(data, "train").labels
    captions = load_captions(labels.numpy(), work)
    reader = Reader()
    reader.load_state_dict(load(work / "image_encoder.pt")["reader"])
    reader.to(device).eval().requires_grad_(False)
    modules: dict[str, nn.Module] = {
        "stage": stage_c(),
        "text": text_encoder(load_tokenizer(work), **PRIOR_TEXT),
    }
    for module in modules.values():
        module.to(device).train()
    stage, text = modules.values()
    ema, optimisers = Ema(modules, 0.999), Optimisers(modules.values(), RATE, 0.02)
    budget, log, means = Budget(minutes), Log(work / "log.jsonl", "stage-c"), Means()
    path = work / "stage_c.pt"
    restore(path, modules, ema, optimisers, budget)
    log.write(budget, parameters=count_parameters(stage), text=count_parameters(text), device=str(device))
    while not budget.done:
        picked = torch.randint(0, len(codes), (BATCH,))
        ids, mask, unsaid = captions.draw(picked, UNSAID)
        x, noise, times, share = noised(codes[picked].to(device), 0.5)
        with autocast(device):
            predicted = stage(x, times, hidden_states(text, ids.to(device), mask.to(device))).float()  # type: ignore[arg-type]
        error = (predicted - noise).square()
        drawing = (error * loss_weight(share)).mean()
        reading = _reading(reader, x, predicted, share, labels[picked].to(device), unsaid.to(device))
        weight = READING * min(1.0, (1 - budget.fraction) / 0.15)
        norm = optimisers.step(drawing + weight * reading, learning_rate(budget))
        budget.count(BATCH)
        ema.update()
        means.add(drawing=drawing, error=error.mean(), reading=reading, gradient=norm)
        if budget.steps % 200 == 0 or budget.done:
            log.write(budget, **means.take())
            save(path, ema.checkpoint(optimisers, budget))


def _reading(reader: Reader, x: Tensor, predicted: Tensor, share: Tensor, labels: Tensor, unsaid: Tensor) -> Tensor:
    """Cross-entropy of the attributes in the clean code that was predicted, where a caption told of them."""
    clean = ((x - (1 - share).sqrt() * predicted) / share.sqrt()).clamp(-4, 4)
    counted = ((share[:, 0, 0, 0] > 0.006) & ~unsaid).float()
    return (attribute_loss(reader(clean), labels) * counted).mean()
