"""Numbers that a network is told, as vectors: sines and cosines of them, then two layers."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vinograph.convert.layers import Linear

_MAX_PERIOD = 10_000


def sinusoids(values: Tensor, width: int, freq_shift: float = 0, cosines_first: bool = True) -> Tensor:
    """Sines and cosines of ``values`` [n] at width // 2 frequencies (arXiv 1706.03762, section 3.5): [n, width]."""
    half = width // 2
    decay = -math.log(_MAX_PERIOD) * torch.arange(half, dtype=torch.float32) / (half - freq_shift)
    angles = values[:, None] * decay.exp()[None, :]
    waves = [angles.cos(), angles.sin()] if cosines_first else [angles.sin(), angles.cos()]
    both = torch.cat(waves, dim=-1)
    return F.pad(both, (0, 1)) if width % 2 else both


class TimeEmbedding(nn.Module):
    """Two linear layers with SiLU between; ``condition_width`` is that of what may be added in front."""

    def __init__(self, c_in: int, width: int, condition_width: int | None = None) -> None:
        super().__init__()
        self.linear_1 = Linear(c_in, width)
        if condition_width is not None:
            self.cond_proj = Linear(condition_width, c_in, bias=False)
        self.linear_2 = Linear(width, width)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """x [b, c_in], condition [b, condition_width] -> [b, width]."""
        if condition is not None:
            x = x + self.cond_proj(condition)
        out: Tensor = self.linear_2(F.silu(self.linear_1(x)))
        return out
