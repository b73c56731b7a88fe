"""Trains Stage B, the decoder, with its text encoder: it generates latents from a picture's code.

It trains on codes z of unit variance. The published pipeline gives the decoder embeddings 42 z − 1
instead, a scale that :func:`fold_embedding_scale` folds into the weights afterwards. If it trained
on embeddings, every optimiser step would change its response to the code too much.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
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
    channels_last,
    count_parameters,
    learning_rate_factor,
    load,
    move_module,
    restore,
    save,
)
from training.losses import detail_weight
from training.scene_dataset import SceneDataset, images_to_tensor
from training.wuerstchen.config import DECODER_TEXT, EMBEDDING_SCALE, stage_a, stage_b
from training.wuerstchen.noise_schedule import add_noise_at_random_times, loss_weight

BATCH_SIZE = 16
LEARNING_RATE = 1.6e-3
CAPTION_DROPOUT = 0.3
CODE_NOISE = 0.2
_CHUNK = 1000


def fold_embedding_scale(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the Stage B for embeddings 42 z − 1 that equals one for codes z."""
    folded = dict(state)
    for name in state:
        if name.startswith("effnet_mappers") and name.endswith("weight"):
            folded[name] = state[name] / EMBEDDING_SCALE
            bias = name.removesuffix("weight") + "bias"
            folded[bias] = state[bias] + folded[name].sum(dim=(1, 2, 3))
    return folded


def load_latents(data: Path, work: Path, count: int, device: torch.device) -> tuple[Tensor, float]:
    """Stage A's latents [n, 4, 64, 64] (f16) of unit variance, and their original deviation.

    They are stored in chunks in ``work/latents``, where an interrupted run resumes.
    """
    scenes, folder = SceneDataset(data, "train"), work / "latents"
    folder.mkdir(parents=True, exist_ok=True)
    model = stage_a()
    model.load_state_dict(load(work / "stage_a.pt")["model"])
    move_module(model.eval(), device)
    chunks: list[Tensor] = []
    for start in range(0, min(count, len(scenes)), _CHUNK):
        path = folder / f"{start // _CHUNK:02d}.pt"
        if not path.exists():
            save(path, {"latents": _encode(model, scenes.images[start : start + _CHUNK], device)})
        chunks.append(load(path)["latents"])
    scale = float(chunks[0].float().std())
    return torch.cat([(chunk.float() / scale).half() for chunk in chunks]), scale


@torch.no_grad()
def _encode(model: nn.Module, pictures: np.ndarray, device: torch.device) -> Tensor:
    """Stage A's latents (f16) of ``pictures`` [n, 256, 256, 3], on the CPU."""
    parts = []
    for start in range(0, len(pictures), 50):
        x = channels_last(images_to_tensor(pictures[start : start + 50]).to(device))
        with autocast(device):
            parts.append(model.encode(x).float().cpu().contiguous())  # type: ignore[operator]
    return torch.cat(parts).half()


def train(data: Path, work: Path, minutes: float, device: torch.device, scenes: int = 17000) -> None:
    """Train Stage B on ``scenes`` scenes; resumes from ``work/stage_b.pt`` if that exists."""
    torch.manual_seed(0)
    latents, scale = load_latents(data, work, scenes, device)
    codes = load(work / "codes_train.pt")["z"][: len(latents)]
    captions = load_captions(SceneDataset(data, "train").labels.numpy(), work)
    modules: dict[str, nn.Module] = {
        "stage": stage_b(),
        "text": text_encoder(load_tokenizer(work), **DECODER_TEXT),
    }
    for module in modules.values():
        move_module(module.train(), device)
    stage, text = modules.values()
    ema, optimisers = EMA(modules, 0.999), Optimisers(modules.values(), LEARNING_RATE, 0.01)
    budget, log, means = TimeBudget(minutes), Log(work / "log.jsonl", "stage-b"), RunningMeans()
    path = work / "stage_b.pt"
    restore(path, modules, ema, optimisers, budget)
    log.write(budget, parameters=count_parameters(stage), text=count_parameters(text), scale=scale, device=str(device))

    def losses(
        target: Tensor, noised: tuple[Tensor, Tensor, Tensor, Tensor], code: Tensor, ids: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        x, noise, times, alpha_cumprod = noised
        with autocast(device):
            predicted = stage(x, times, code, hidden_states(text, ids, mask))
        error = (predicted.float() - noise).square()
        return (error * loss_weight(alpha_cumprod) * detail_weight(target, 5)).mean(), error.mean()

    compiled = torch.compile(losses)
    while not budget.done:
        picked = torch.randint(0, len(latents), (BATCH_SIZE,))
        target = channels_last(latents[picked].float().to(device))
        ids, mask, _ = captions.sample(picked, CAPTION_DROPOUT)
        # Noise in the code makes Stage B robust to the imperfect codes that Stage C generates.
        code = codes[picked] + torch.randn(BATCH_SIZE, *codes.shape[1:]) * torch.rand(BATCH_SIZE, 1, 1, 1) * CODE_NOISE
        noised = add_noise_at_random_times(target, 0.6)
        loss, error = compiled(target, noised, code.to(device), ids.to(device), mask.to(device))
        norm = optimisers.step(loss, learning_rate_factor(budget))
        budget.count(BATCH_SIZE)
        ema.update()
        means.add(loss=loss, error=error, gradient=norm)
        if budget.steps % 200 == 0 or budget.done:
            log.write(budget, **means.pop())
            save(path, ema.checkpoint(optimisers, budget) | {"scale": torch.tensor(scale)})
