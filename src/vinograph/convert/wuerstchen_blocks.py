"""The blocks of Würstchen's inference graphs, folded and in the layout that OpenVINO runs fastest.

Each takes over the weights of the block of `vinograph.modules` that it is made from. With ``channels_last`` its
feature maps are [batch, height, width, channels] and the layers between channels are linear; without, they are
[batch, channels, height, width] and those layers are 1×1 convolutions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vinograph.modules.blocks import NORM_EPS, AttentionBlock, GlobalResponseNorm, ResidualBlock, TimestepBlock
from vinograph.modules.stage_a import MixingBlock


def to_channels_last(x: Tensor) -> Tensor:
    """[batch, channels, height, width] -> [batch, height, width, channels]."""
    return x.permute(0, 2, 3, 1)


def to_channels_first(x: Tensor) -> Tensor:
    """[batch, height, width, channels] -> [batch, channels, height, width]."""
    return x.permute(0, 3, 1, 2)


def linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """The linear layer of ``weight`` [out, in] and ``bias`` [out], which it shares."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.weight, layer.bias = (nn.Parameter(each, requires_grad=False) for each in (weight, bias))
    return layer


def pointwise(layer: nn.Linear) -> nn.Conv2d:
    """``layer`` as a 1×1 convolution that shares its weights."""
    convolution = nn.Conv2d(layer.in_features, layer.out_features, kernel_size=1, device="meta")
    convolution.weight = nn.Parameter(layer.weight.detach()[:, :, None, None], requires_grad=False)
    convolution.bias = nn.Parameter(layer.bias.detach(), requires_grad=False)
    return convolution


def channel_norm(x: Tensor, channels: int) -> Tensor:
    """Layer norm of ``x`` over that dimension, without parameters."""
    if channels == x.dim() - 1:
        return F.layer_norm(x, (x.shape[-1],), eps=NORM_EPS)
    centred = x - x.mean(dim=channels, keepdim=True)
    return centred * torch.rsqrt(centred.square().mean(dim=channels, keepdim=True) + NORM_EPS)


class ResidualGraph(nn.Module):
    """A `ResidualBlock`; the maps joined to its own come as arguments.

    With ``mapper`` the last of them is the image embedding itself, before that convolution, which is folded into the
    layer after it. Global response norm's shift is folded into the bias of the last layer.
    """

    def __init__(self, block: ResidualBlock, mapper: nn.Conv2d | None, channels_last: bool) -> None:
        super().__init__()
        expand, _, response, _, contract = block.channelwise
        assert isinstance(expand, nn.Linear)
        assert isinstance(response, GlobalResponseNorm)
        assert isinstance(contract, nn.Linear)
        shift = response.beta.flatten()
        if mapper is not None:
            expand = _fold_mapper(expand, mapper)
        contract = linear(contract.weight, contract.bias + contract.weight @ shift)
        del block.channelwise

        self.channels = 3 if channels_last else 1
        self.space = (1, 2) if channels_last else (2, 3)
        self.depthwise = block.depthwise
        self.gamma = nn.Parameter(
            response.gamma if channels_last else response.gamma.permute(0, 3, 1, 2), requires_grad=False
        )
        self.expand: nn.Module = expand if channels_last else pointwise(expand)
        self.contract: nn.Module = contract if channels_last else pointwise(contract)

    def forward(self, x: Tensor, *joined: Tensor) -> Tensor:
        """Maps of the same size -> the shape of x."""
        hidden = self.depthwise(x) if self.channels == 1 else to_channels_last(self.depthwise(to_channels_first(x)))
        hidden = channel_norm(hidden, self.channels)
        if joined:
            hidden = torch.cat([hidden, *joined], dim=self.channels)
        hidden = F.gelu(self.expand(hidden))
        energy = torch.linalg.vector_norm(hidden, dim=self.space, keepdim=True)
        scale = 1 + self.gamma * (energy / (energy.mean(dim=self.channels, keepdim=True) + NORM_EPS))
        out: Tensor = x + self.contract(hidden * scale)
        return out


def _fold_mapper(expand: nn.Linear, mapper: nn.Conv2d) -> nn.Linear:
    """`expand` of [rest, mapper(embedding)] as one layer of [rest, embedding]."""
    assert mapper.bias is not None
    direct, mapped = expand.weight[:, : -mapper.out_channels], expand.weight[:, -mapper.out_channels :]
    weight = torch.cat([direct, mapped @ mapper.weight.flatten(1)], dim=1)
    return linear(weight, expand.bias + mapped @ mapper.bias)


class TimestepGraph(nn.Module):
    """A `TimestepBlock`."""

    def __init__(self, block: TimestepBlock, channels_last: bool) -> None:
        super().__init__()
        self.mapper = block.mapper
        self.width = block.mapper.out_features // 2
        self.shape = (-1, 1, 1, self.width) if channels_last else (-1, self.width, 1, 1)

    def forward(self, x: Tensor, r_embed: Tensor) -> Tensor:
        """r_embed [batch, c_r] -> the shape of x."""
        modulation: Tensor = self.mapper(r_embed)
        scale, shift = (half.reshape(self.shape) for half in torch.split(modulation, self.width, dim=1))
        return x * (1 + scale) + shift


class AttentionGraph(nn.Module):
    """An `AttentionBlock`, given the text's part of the keys and values."""

    def __init__(self, block: AttentionBlock, channels_last: bool) -> None:
        super().__init__()
        attention = block.attention
        self.channels_last = channels_last
        self.split = (attention.nhead, attention.to_q.out_features // attention.nhead)
        self.to_q, self.to_k, self.to_v = attention.to_q, attention.to_k, attention.to_v
        self.to_out = attention.to_out[0]

    def _heads(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], *self.split).transpose(1, 2)

    def forward(self, x: Tensor, text_keys: Tensor, text_values: Tensor) -> Tensor:
        """text_keys, text_values [batch, tokens, c] -> the shape of x."""
        tokens = x.flatten(1, 2) if self.channels_last else x.flatten(2).transpose(1, 2)
        tokens = channel_norm(tokens, 2)
        keys = torch.cat([self.to_k(tokens), text_keys], dim=1)
        values = torch.cat([self.to_v(tokens), text_values], dim=1)
        attended = F.scaled_dot_product_attention(
            self._heads(self.to_q(tokens)), self._heads(keys), self._heads(values)
        )
        change = self.to_out(attended.transpose(1, 2).flatten(2))
        out: Tensor = x + (change if self.channels_last else change.transpose(1, 2)).reshape(x.shape)
        return out


class MixingGraph(nn.Module):
    """A `MixingBlock`, [batch, channels, height, width]."""

    def __init__(self, block: MixingBlock) -> None:
        super().__init__()
        expand, _, contract = block.channelwise
        assert isinstance(expand, nn.Linear)
        assert isinstance(contract, nn.Linear)
        self.depthwise = block.depthwise
        self.expand, self.contract = pointwise(expand), pointwise(contract)
        scale1, self.shift1, self.weight1, scale2, self.shift2, self.weight2 = block.gammas.tolist()
        self.scale1, self.scale2 = 1 + scale1, 1 + scale2

    def forward(self, x: Tensor) -> Tensor:
        """Gives the shape of x."""
        x = x + self.depthwise(channel_norm(x, 1) * self.scale1 + self.shift1) * self.weight1
        hidden = F.gelu(self.expand(channel_norm(x, 1) * self.scale2 + self.shift2))
        out: Tensor = x + self.contract(hidden) * self.weight2
        return out
