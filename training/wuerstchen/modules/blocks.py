"""The blocks that Würstchen's Stage B and Stage C are made of.

Feature maps are [batch, channels, height, width]. Inside a block the channels come last, where
layer norms and linear layers want them. The maps that blocks hand on therefore lie in memory as
`torch.channels_last`, and permuting them costs nothing.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

NORM_EPS = 1e-6
MAX_POSITIONS = 10_000


def timestep_embedding(r: Tensor, channels: int) -> Tensor:
    """Sines, then cosines, of `r` at `channels // 2` geometrically spaced frequencies.

    Attention Is All You Need (arXiv 1706.03762), section 3.5, at position 10000·r. An odd number of
    channels ends in a zero.

    Args:
        r: [batch], time in [0, 1], 1 being pure noise.
        channels: width of the embedding, at least 4.

    Returns:
        [batch, channels], in the dtype of `r`.
    """
    half = channels // 2
    decay = -math.log(MAX_POSITIONS) / (half - 1)
    frequencies = (torch.arange(half, device=r.device, dtype=torch.float32) * decay).exp()
    angles = (r * MAX_POSITIONS)[:, None] * frequencies[None, :]
    embedding = torch.cat([angles.sin(), angles.cos()], dim=1)
    if channels % 2 == 1:
        embedding = F.pad(embedding, (0, 1))
    return embedding.to(r.dtype)


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each position of a feature map, not affine."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=NORM_EPS, elementwise_affine=False)

    def forward(self, x: Tensor) -> Tensor:
        """The normalised feature map, [batch, channels, height, width] as `x`."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _statistics_dtype(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


class _FusedGlobalResponseNorm(torch.autograd.Function):
    """Global response norm with its gradient written out: one elementwise pass forward, two back.

    With N_c the norm of channel c over positions, M the mean of N over channels plus epsilon,
    and s_c = 1 + γ_c N_c / M:

        y = s x + β
        dβ = Σ dy,   dγ = Σ_batch (N / M) p   where p_c = Σ_positions dy x
        dN_c = γ_c p_c / M − Σ_k γ_k p_k N_k / (M² C)
        dx = s dy + (dN / N) x

    Everything but the first and last line works on [batch, 1, 1, channels], kept in f32 or better.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True, dtype=_statistics_dtype(x))
        mean = norm.mean(dim=-1, keepdim=True) + NORM_EPS
        scale = (1 + gamma * (norm / mean)).to(x.dtype)
        ctx.save_for_backward(x, gamma, norm, mean, scale)
        return torch.addcmul(beta.to(x.dtype), x, scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, gamma, norm, mean, scale = ctx.saved_tensors
        dtype = norm.dtype
        product = (grad * x).sum(dim=(1, 2), keepdim=True, dtype=dtype)
        grad_beta = grad.sum(dim=(0, 1, 2), keepdim=True, dtype=dtype)
        grad_gamma = (product * (norm / mean)).sum(dim=0, keepdim=True)
        weighted = gamma * product
        through_mean = (weighted * norm).sum(dim=-1, keepdim=True) / (mean.square() * x.shape[-1])
        grad_norm = weighted / mean - through_mean
        # A channel of zeros has norm 0, where 0 is a subgradient of the norm.
        slope = (grad_norm / norm).masked_fill(norm == 0, 0).to(x.dtype)
        grad_x = (grad * scale).addcmul_(slope, x)
        return grad_x, grad_gamma.to(gamma.dtype), grad_beta.to(gamma.dtype)


class GlobalResponseNorm(nn.Module):
    """Global response norm: each channel is scaled by its share of the map's energy.

    ConvNeXt V2 (arXiv 2301.00808), section 3.2. γ and β start at zero, where the layer is the
    identity.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, 1, channels))
        self.beta = nn.Parameter(torch.zeros(1, 1, 1, channels))

    def forward(self, x: Tensor) -> Tensor:
        """The normalised feature map, [batch, height, width, channels] as `x`.

        Training uses the gradient written out, evaluation plain operations, which exporters know.
        """
        if self.training:
            normed: Tensor = _FusedGlobalResponseNorm.apply(  # type: ignore[no-untyped-call]
                x, self.gamma, self.beta
            )
            return normed
        norm = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True, dtype=_statistics_dtype(x))
        scale = 1 + self.gamma * (norm / (norm.mean(dim=-1, keepdim=True) + NORM_EPS))
        return torch.addcmul(self.beta.to(x.dtype), x, scale.to(x.dtype))


class TimestepBlock(nn.Module):
    """Scales and shifts channels by the time: x (1 + a) + b, a and b linear in its embedding."""

    def __init__(self, channels: int, c_r: int) -> None:
        super().__init__()
        self.mapper = nn.Linear(c_r, 2 * channels)

    def forward(self, x: Tensor, r_embed: Tensor) -> Tensor:
        """The modulated `x` [batch, channels, height, width] for `r_embed` [batch, c_r]."""
        scale, shift = self.mapper(r_embed)[:, :, None, None].chunk(2, dim=1)
        return torch.addcmul(shift, x, 1 + scale)


class ResidualBlock(nn.Module):
    """ConvNeXt V2's block (arXiv 2301.00808): a depthwise convolution, then an MLP per position.

    The channels of `skip` are concatenated between the two, after the norm.
    """

    def __init__(self, channels: int, c_skip: int, kernel_size: int, dropout: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=NORM_EPS, elementwise_affine=False)
        self.channelwise = nn.Sequential(
            nn.Linear(channels + c_skip, 4 * channels),
            nn.GELU(),
            GlobalResponseNorm(4 * channels),
            nn.Dropout(dropout),
            nn.Linear(4 * channels, channels),
        )

    @property
    def output(self) -> nn.Linear:
        """The last layer before the residual sum, whose weights initialisation scales down."""
        layer = self.channelwise[4]
        assert isinstance(layer, nn.Linear)
        return layer

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """The output for `x` [batch, channels, h, w] and `skip` [batch, c_skip, h, w]."""
        hidden = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        if skip is not None:
            hidden = torch.cat([hidden, skip.permute(0, 2, 3, 1)], dim=-1)
        change: Tensor = self.channelwise(hidden).permute(0, 3, 1, 2)
        return change + x


class Attention(nn.Module):
    """Multi-head attention by `scaled_dot_product_attention`, which PyTorch and OpenVINO fuse."""

    def __init__(self, channels: int, nhead: int, dropout: float) -> None:
        super().__init__()
        self.nhead = nhead
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.Sequential(nn.Linear(channels, channels), nn.Dropout(dropout))

    def _heads(self, x: Tensor) -> Tensor:
        batch, tokens, channels = x.shape
        return x.view(batch, tokens, self.nhead, channels // self.nhead).transpose(1, 2)

    def forward(self, queries: Tensor, context: Tensor) -> Tensor:
        """Attention of `queries` [batch, n, channels] to `context` [batch, m, channels]."""
        attended = F.scaled_dot_product_attention(
            self._heads(self.to_q(queries)), self._heads(self.to_k(context)), self._heads(self.to_v(context))
        )
        out: Tensor = self.to_out(attended.transpose(1, 2).flatten(2))
        return out


class AttentionBlock(nn.Module):
    """Attention of every position to all positions and to the conditioning (the text)."""

    def __init__(self, channels: int, c_cond: int, nhead: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=NORM_EPS, elementwise_affine=False)
        self.attention = Attention(channels, nhead, dropout)
        self.kv_mapper = nn.Sequential(nn.SiLU(), nn.Linear(c_cond, channels))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """The output for `x` [batch, channels, h, w] and `condition` [batch, tokens, c_cond]."""
        positions = self.norm(x.permute(0, 2, 3, 1)).flatten(1, 2)
        context = torch.cat([positions, self.kv_mapper(condition)], dim=1)
        change: Tensor = self.attention(positions, context).transpose(1, 2).reshape(x.shape)
        return change + x


def initialise_linear(module: nn.Module) -> None:
    """Initialise a convolution or linear layer with Xavier-uniform weights and zero biases.

    Other modules are unchanged. Transposed convolutions keep PyTorch's default, as in the published
    code.
    """
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
