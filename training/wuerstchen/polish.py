"""Polish: Stage A's decoder learns what Stage B really draws.

Stage B's latents are not quite the encoder's. The VQGAN's decoder goes on training on pairs of what Stage B drew from a
picture's code and the picture itself, so that it draws clean edges from them. The encoder, and with it the latents
that Stage B was trained on, stays as it is.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.captions import hidden_states, load_captions, load_tokenizer, text_encoder
from training.common import (
    Budget,
    Ema,
    Log,
    Means,
    Optimisers,
    autocast,
    channels_last,
    learning_rate,
    load,
    place,
    restore,
    save,
)
from training.losses import picture_loss, psnr
from training.scenes import Scenes, as_pictures
from training.wuerstchen.config import DECODER_TEXT, stage_a, stage_b
from training.wuerstchen.diffusion import sample
from training.wuerstchen.stage_a import train_with_fast_padding

BATCH = 16
CROP = 24
RATE = 1e-3
STEPS = 12
_DRAWN_AT_ONCE = 32


@torch.no_grad()
def draw(data: Path, work: Path, count: int, device: torch.device) -> Tensor:
    """Stage B's latents [count, 4, 64, 64] (f16, as the decoder gets them) of the first scenes, at most all; kept."""
    path = work / "drawn.pt"
    kept = load(path)["latents"] if path.exists() else torch.empty(0, 4, 64, 64, dtype=torch.half)
    state = load(work / "stage_b.pt")
    stage, text = stage_b(), text_encoder(load_tokenizer(work), **DECODER_TEXT)
    stage.load_state_dict(state["stage"])
    text.load_state_dict(state["text"])
    for module in (stage, text):
        place(module.eval(), device)
    codes = load(work / "codes_train.pt")["z"]
    captions = load_captions(Scenes(data, "train").labels.numpy(), work)
    count = min(count, len(codes))
    while len(kept) < count:
        picked = torch.arange(len(kept), min(len(kept) + _DRAWN_AT_ONCE, count))
        ids, mask, _ = captions.draw(picked, 0.3)
        told = (codes[picked] + 0.1 * torch.randn_like(codes[picked])).to(device)

        def predict(x: Tensor, times: Tensor, told: Tensor = told, ids: Tensor = ids, mask: Tensor = mask) -> Tensor:
            with autocast(device):
                states = hidden_states(text, ids.to(device), mask.to(device))
                noise: Tensor = stage(x.to(device), times.to(device), told, states)
            return noise.float().cpu()

        latents = sample(predict, (len(picked), 4, 64, 64), STEPS, seed=len(kept)) * float(state["scale"])
        kept = torch.cat([kept, latents.half()])
        if len(kept) % (8 * _DRAWN_AT_ONCE) == 0 or len(kept) == count:
            save(path, {"latents": kept})
    return kept[:count]


def train(data: Path, work: Path, minutes: float, device: torch.device, scenes: int = 1024) -> None:
    """Draw ``scenes`` by Stage B, then train Stage A's decoder on them; goes on from ``work/polish.pt``."""
    torch.manual_seed(0)
    latents, pictures = draw(data, work, scenes, device), Scenes(data, "train").images
    model = stage_a()
    model.load_state_dict(load(work / "stage_a.pt")["model"])
    train_with_fast_padding(model)
    place(model, device)
    for part in (model.in_block, model.down_blocks, model.vquantizer):
        part.requires_grad_(False)
    model.eval()
    ema, optimisers = Ema({"model": model}, 0.998), Optimisers([model], RATE, 1e-4)
    budget, log, means = Budget(minutes), Log(work / "log.jsonl", "polish"), Means()
    path, rng = work / "polish.pt", np.random.default_rng(3)
    restore(path, {"model": model}, ema, optimisers, budget)
    kept_back = min(64, len(latents) // 4)
    held = slice(len(latents) - kept_back, len(latents))
    log.write(budget, drawn=len(latents), before=_evaluate(model, latents[held], pictures[held], device))

    def loss_of(given: Tensor, wanted: Tensor) -> Tensor:
        with autocast(device):
            drawn = model.decode(given)
        return picture_loss(drawn, wanted)

    fast = torch.compile(loss_of)
    while not budget.done:
        picked = rng.integers(0, len(latents) - kept_back, BATCH)
        corners = rng.integers(0, latents.shape[2] - CROP + 1, (BATCH, 2))
        places = list(zip(picked, corners, strict=True))
        given = torch.stack([latents[i, :, y : y + CROP, x : x + CROP] for i, (y, x) in places]).float()
        side = 4 * CROP
        crops = [pictures[i, 4 * y : 4 * y + side, 4 * x : 4 * x + side] for i, (y, x) in places]
        loss = fast(channels_last(given.to(device)), channels_last(as_pictures(np.stack(crops)).to(device)))
        norm = optimisers.step(loss, learning_rate(budget))
        budget.count(BATCH)
        ema.update()
        means.add(loss=loss, gradient=norm)
        if budget.steps % 500 == 0 or budget.done:
            model_ema = stage_a()
            model_ema.load_state_dict(ema.state["model"])
            after = _evaluate(model_ema.eval(), latents[held], pictures[held], device)
            log.write(budget, **means.take(), after=after)
            save(path, ema.checkpoint(optimisers, budget))


@torch.no_grad()
def _evaluate(model: torch.nn.Module, latents: Tensor, pictures: np.ndarray, device: torch.device) -> float:
    """Decibels of what the decoder makes of drawn latents against the pictures they were drawn for."""
    model.to(device)
    scores = []
    for start in range(0, len(latents), 16):
        with autocast(device):
            drawn = model.decode(latents[start : start + 16].float().to(device))  # type: ignore[operator]
        scores.append(psnr(drawn.float(), as_pictures(pictures[start : start + 16]).to(device)))
    return float(np.mean(scores))
