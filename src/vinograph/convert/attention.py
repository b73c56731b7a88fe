"""Attention as diffusers' transformers have it, in one operation, which OpenVINO fuses."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from vinograph.convert.layers import Linear


class Attention(nn.Module):
    """Attention of x [b, m, width] to ``other`` [b, n, other_width] (arXiv 1706.03762, section 3.2).

    ``bias`` says whether queries, keys and values have one.
    """

    def __init__(self, width: int, heads: int, other_width: int, bias: bool = False) -> None:
        super().__init__()
        self.split = (heads, width // heads)
        self.to_q = Linear(width, width, bias=bias)
        self.to_k, self.to_v = (Linear(other_width, width, bias=bias) for _ in range(2))
        self.to_out = nn.ModuleList([Linear(width, width)])

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], *self.split).transpose(1, 2)

    def forward(self, x: Tensor, other: Tensor, scores_bias: Tensor | None = None) -> Tensor:
        """See the class; ``scores_bias`` [b, 1, 1, n] is added to the scores. Gives [b, m, width]."""
        queries, keys, values = (self._split(each) for each in (self.to_q(x), self.to_k(other), self.to_v(other)))
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=scores_bias)
        out: Tensor = self.to_out[0](attended.transpose(1, 2).flatten(2))
        return out
