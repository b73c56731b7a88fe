"""PyTorch's layers for weights stored in half precision: they compute in the type of their input.

A trace of one has the stored weight and its conversion side by side, which is how OpenVINO's graphs hold compressed
weights. So a model that is read in half precision is never held in single precision.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Linear(nn.Linear):
    """x [..., in_features] -> [..., out_features]."""

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return F.linear(x, self.weight.to(x.dtype), self.bias)


class Conv2d(nn.Conv2d):
    """x [batch, in_channels, height, width] -> [batch, out_channels, …]; zeros are what lies outside."""

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        out: Tensor = self._conv_forward(x, self.weight.to(x.dtype), self.bias)
        return out


class Embedding(nn.Embedding):
    """Indices [...] int64 -> rows of the table [..., embedding_dim], f32."""

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return F.embedding(x, self.weight.to(torch.float32))


class GroupNorm(nn.GroupNorm):
    """x [batch, channels, …] -> the same. That there is more than one value to a group is not checked, as by PyTorch's.

    PyTorch warns of that check when it is traced.
    """

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)
