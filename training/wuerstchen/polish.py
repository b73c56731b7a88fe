"""Fine-tunes Stage A's decoder on the latents that Stage B generates.

Stage B's latents are not quite the encoder's. So the VQGAN's decoder trains further on pairs of the
latents that Stage B generates from a picture's code and the picture itself, until it decodes them
with clean edges. The encoder, and so the latents that Stage B was trained on, is unchanged.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPTextModel

from training.captions import hidden_states, load_captions, load_tokenizer, text_encoder
from training.loop import (
    EMA,
    Log,
    Optimisers,
    RunningMeans,
    TimeBudget,
    autocast,
    channels_last,
    learning_rate_factor,
    load,
    move_module,
    restore,
    save,
)
from training.losses import image_loss, psnr
from training.scene_dataset import SceneDataset, images_to_tensor
from training.wuerstchen.config import DECODER_TEXT, stage_a, stage_b
from training.wuerstchen.modules import StageA, StageB
from training.wuerstchen.noise_schedule import sample
from training.wuerstchen.stage_a import train_with_fast_padding

BATCH_SIZE = 16
CROP_SIZE = 24
"""Side of a crop in latents: 96 pixels."""

LEARNING_RATE = 1e-3
INFERENCE_STEPS = 12
CAPTION_DROPOUT = 0.3
CODE_NOISE = 0.1
_GENERATION_BATCH_SIZE = 32


@torch.no_grad()
def generate(data: Path, work: Path, count: int, device: torch.device) -> Tensor:
    """Stage B's latents [count, 4, 64, 64] (f16, on the decoder's scale) of the first scenes.

    They are stored in ``work/drawn.pt``, where an interrupted run resumes.
    """
    path = work / "drawn.pt"
    generated = load(path)["latents"] if path.exists() else torch.empty(0, 4, 64, 64, dtype=torch.half)
    state = load(work / "stage_b.pt")
    stage, text = stage_b(), text_encoder(load_tokenizer(work), **DECODER_TEXT)
    stage.load_state_dict(state["stage"])
    text.load_state_dict(state["text"])
    for module in (stage, text):
        move_module(module.eval(), device)
    codes = load(work / "codes_train.pt")["z"]
    captions = load_captions(SceneDataset(data, "train").labels.numpy(), work)
    count = min(count, len(codes))
    while len(generated) < count:
        picked = torch.arange(len(generated), min(len(generated) + _GENERATION_BATCH_SIZE, count))
        ids, mask, _ = captions.sample(picked, CAPTION_DROPOUT)
        noised_codes = (codes[picked] + CODE_NOISE * torch.randn_like(codes[picked])).to(device)
        predict_noise = partial(_predict_noise, stage, text, noised_codes, ids.to(device), mask.to(device))
        latents = sample(predict_noise, (len(picked), 4, 64, 64), INFERENCE_STEPS, seed=len(generated))
        generated = torch.cat([generated, (latents * float(state["scale"])).half()])
        if len(generated) % (8 * _GENERATION_BATCH_SIZE) == 0 or len(generated) == count:
            save(path, {"latents": generated})
    return generated[:count]


def _predict_noise(
    stage: StageB, text: CLIPTextModel, codes: Tensor, ids: Tensor, mask: Tensor, x: Tensor, times: Tensor
) -> Tensor:
    """Stage B's prediction of the noise in ``x`` at ``times`` [n], on the CPU."""
    with autocast(codes.device):
        noise = stage(x.to(codes.device), times.to(codes.device), codes, hidden_states(text, ids, mask))
    assert isinstance(noise, Tensor)
    return noise.float().cpu()


def train(data: Path, work: Path, minutes: float, device: torch.device, scenes: int = 1024) -> None:
    """Generate latents of ``scenes`` scenes by Stage B, then fine-tune Stage A's decoder on them.

    Training resumes from ``work/polish.pt`` if that exists.
    """
    torch.manual_seed(0)
    generated, pictures = generate(data, work, scenes, device), SceneDataset(data, "train").images
    model = stage_a()
    model.load_state_dict(load(work / "stage_a.pt")["model"])
    train_with_fast_padding(model)
    move_module(model, device)
    for part in (model.in_block, model.down_blocks, model.vquantizer):
        part.requires_grad_(False)
    model.eval()
    ema, optimisers = EMA({"model": model}, 0.998), Optimisers([model], LEARNING_RATE, 1e-4)
    budget, log, means = TimeBudget(minutes), Log(work / "log.jsonl", "polish"), RunningMeans()
    path, rng = work / "polish.pt", np.random.default_rng(3)
    restore(path, {"model": model}, ema, optimisers, budget)
    training_count = len(generated) - min(64, len(generated) // 4)
    validation = slice(training_count, len(generated))
    before = _evaluate(model, generated[validation], pictures[validation], device)
    log.write(budget, drawn=len(generated), before=before)

    def decoding_loss(latents: Tensor, targets: Tensor) -> Tensor:
        with autocast(device):
            decoded = model.decode(latents)
        return image_loss(decoded, targets)

    compiled = torch.compile(decoding_loss)
    while not budget.done:
        latents, targets = _crops(generated, pictures, training_count, rng)
        loss = compiled(channels_last(latents.to(device)), channels_last(targets.to(device)))
        norm = optimisers.step(loss, learning_rate_factor(budget))
        budget.count(BATCH_SIZE)
        ema.update()
        means.add(loss=loss, gradient=norm)
        if budget.steps % 500 == 0 or budget.done:
            polished = stage_a()
            polished.load_state_dict(ema.state["model"])
            after = _evaluate(polished.eval(), generated[validation], pictures[validation], device)
            log.write(budget, **means.pop(), after=after)
            save(path, ema.checkpoint(optimisers, budget))


def _crops(generated: Tensor, pictures: np.ndarray, count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A batch of crops of generated latents, and of the pictures to decode them to."""
    picked = rng.integers(0, count, BATCH_SIZE)
    corners = rng.integers(0, generated.shape[2] - CROP_SIZE + 1, (BATCH_SIZE, 2))
    crops = list(zip(picked, corners, strict=True))
    latents = torch.stack([generated[i, :, y : y + CROP_SIZE, x : x + CROP_SIZE] for i, (y, x) in crops]).float()
    side = 4 * CROP_SIZE
    targets = [pictures[i, 4 * y : 4 * y + side, 4 * x : 4 * x + side] for i, (y, x) in crops]
    return latents, images_to_tensor(np.stack(targets))


@torch.no_grad()
def _evaluate(model: StageA, latents: Tensor, pictures: np.ndarray, device: torch.device) -> float:
    """Mean PSNR in decibels of decoded ``latents`` against ``pictures``, their targets."""
    model.to(device)
    scores = []
    for start in range(0, len(latents), 16):
        with autocast(device):
            decoded = model.decode(latents[start : start + 16].float().to(device))
        scores.append(psnr(decoded.float(), images_to_tensor(pictures[start : start + 16]).to(device)))
    return float(np.mean(scores))
