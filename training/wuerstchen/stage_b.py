"""Stage B, the decoder: from the code of a picture to its latents, with a text encoder.

It trains on codes z of unit variance. The published pipeline hands the decoder embeddings 42 z − 1, which
:func:`for_embeddings` folds into the weights. Trained on embeddings themselves, each step of the optimiser would shake
the code.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.captions import hidden_states, load_captions, load_tokenizer, text_encoder
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
    load,
    place,
    restore,
    save,
)
from training.scenes import Scenes, as_pictures
from training.wuerstchen.config import DECODER_TEXT, EMBEDDING_SCALE, stage_a, stage_b
from training.wuerstchen.diffusion import loss_weight, noised

BATCH = 16
RATE = 1.6e-3
UNSAID = 0.3
CODE_NOISE = 0.2
_CHUNK = 1000


def for_embeddings(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a Stage B that takes embeddings e = 42 z − 1, from those of one that takes codes z; exact."""
    folded = dict(state)
    for name in state:
        if name.startswith("effnet_mappers") and name.endswith("weight"):
            folded[name] = state[name] / EMBEDDING_SCALE
            bias = name.removesuffix("weight") + "bias"
            folded[bias] = state[bias] + folded[name].sum(dim=(1, 2, 3))
    return folded


def load_latents(data: Path, work: Path, count: int, device: torch.device) -> tuple[Tensor, float]:
    """Stage A's latents of the first ``count`` scenes, of unit variance (f16), and what they were divided by."""
    scenes, folder = Scenes(data, "train"), work / "latents"
    folder.mkdir(parents=True, exist_ok=True)
    model = stage_a()
    model.load_state_dict(load(work / "stage_a.pt")["model"])
    place(model.eval(), device)
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
    parts = []
    for start in range(0, len(pictures), 50):
        x = channels_last(as_pictures(pictures[start : start + 50]).to(device))
        with autocast(device):
            parts.append(model.encode(x).float().cpu().contiguous())  # type: ignore[operator]
    return torch.cat(parts).half()


def _detail(latents: Tensor) -> Tensor:
    """Weight [n, 1, h, w] of mean 1: high where there is detail, which is where the subject is."""
    detail = (latents - F.avg_pool2d(latents, 5, 1, 2)).abs().mean(dim=1, keepdim=True)
    detail = F.avg_pool2d(detail, 5, 1, 2)
    return 0.4 + 0.6 * detail / detail.mean(dim=(1, 2, 3), keepdim=True)


def train(data: Path, work: Path, minutes: float, device: torch.device, scenes: int = 17000) -> None:
    """Train Stage B on the codes and latents of the first ``scenes``; goes on from ``work/stage_b.pt``."""
    torch.manual_seed(0)
    latents, scale = load_latents(data, work, scenes, device)
    codes = load(work / "codes_train.pt")["z"][: len(latents)]
    captions = load_captions(Scenes(data, "train").labels.numpy(), work)
    modules: dict[str, nn.Module] = {
        "stage": stage_b(),
        "text": text_encoder(load_tokenizer(work), **DECODER_TEXT),
    }
    for module in modules.values():
        place(module.train(), device)
    stage, text = modules.values()
    ema, optimisers = Ema(modules, 0.999), Optimisers(modules.values(), RATE, 0.01)
    budget, log, means = Budget(minutes), Log(work / "log.jsonl", "stage-b"), Means()
    path = work / "stage_b.pt"
    restore(path, modules, ema, optimisers, budget)
    log.write(budget, parameters=count_parameters(stage), text=count_parameters(text), scale=scale, device=str(device))

    def losses(
        clean: Tensor, x: Tensor, noise: Tensor, times: Tensor, share: Tensor, told: Tensor, ids: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        with autocast(device):
            predicted = stage(x, times, told, hidden_states(text, ids, mask))  # type: ignore[arg-type]
        error = (predicted.float() - noise).square()
        return (error * loss_weight(share) * _detail(clean)).mean(), error.mean()

    fast = torch.compile(losses)
    while not budget.done:
        picked = torch.randint(0, len(latents), (BATCH,))
        clean = channels_last(latents[picked].float().to(device))
        ids, mask, _ = captions.draw(picked, UNSAID)
        told = codes[picked] + torch.randn(BATCH, *codes.shape[1:]) * torch.rand(BATCH, 1, 1, 1) * CODE_NOISE
        x, noise, times, share = noised(clean, 0.6)
        drawing, error = fast(clean, x, noise, times, share, told.to(device), ids.to(device), mask.to(device))
        norm = optimisers.step(drawing, learning_rate(budget))
        budget.count(BATCH)
        ema.update()
        means.add(drawing=drawing, error=error, gradient=norm)
        if budget.steps % 200 == 0 or budget.done:
            log.write(budget, **means.take())
            save(path, ema.checkpoint(optimisers, budget) | {"scale": torch.tensor(scale)})
