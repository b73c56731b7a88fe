"""The convolutional blocks that SDXL's UNet and its autoencoder are made of.

Feature maps are [batch, channels, height, width]; parameters have the names of diffusers' blocks.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from vinograph.convert.layers import Conv2d, GroupNorm, Linear


class ResidualBlock(nn.Module):
    """Norm, SiLU and convolution, twice, around which x is added (diffusers' `ResnetBlock2D`).

    Args:
        c_in, c_out: channels.
        groups: of both group norms (arXiv 1803.08494), ``eps`` being what is added to their variance.
        time_width: that of the time's embedding, which is added between the convolutions; None where there is none.
    """

    def __init__(self, c_in: int, c_out: int, groups: int, eps: float, time_width: int | None = None) -> None:
        super().__init__()
        self.norm1 = GroupNorm(groups, c_in, eps)
        self.conv1 = Conv2d(c_in, c_out, 3, padding=1)
        if time_width is not None:
            self.time_emb_proj = Linear(time_width, c_out)
        self.norm2 = GroupNorm(groups, c_out, eps)
        self.conv2 = Conv2d(c_out, c_out, 3, padding=1)
        self.conv_shortcut = Conv2d(c_in, c_out, 1) if c_in != c_out else None

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        """x [b, c_in, h, w], time [b, time_width] -> [b, c_out, h, w]."""
        hidden = self.conv1(F.silu(self.norm1(x)))
        if time is not None:
            hidden = hidden + self.time_emb_proj(F.silu(time))[:, :, None, None]
        hidden = self.conv2(F.silu(self.norm2(hidden)))
        out: Tensor = hidden + (x if self.conv_shortcut is None else self.conv_shortcut(x))
        return out


class Downsample(nn.Module):
    """Half the height and width, rounded up; with ``padding`` 0 the pixels outside are on the right and below alone."""

    def __init__(self, channels: int, padding: int) -> None:
        super().__init__()
        self.padding = padding
        self.conv = Conv2d(channels, channels, 3, stride=2, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        """[b, c, h, w] -> [b, c, ⌈h/2⌉, ⌈w/2⌉], for even h and w where ``padding`` is 0."""
        out: Tensor = self.conv(x if self.padding else F.pad(x, (0, 1, 0, 1)))
        return out


class Upsample(nn.Module):
    """Nearest neighbours, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, like: Tensor | None = None) -> Tensor:
        """[b, c, h, w] -> the height and width of ``like``, or twice those of x."""
        if like is None:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        else:
            x = F.interpolate(x, size=like.shape[2:], mode="nearest")
        out: Tensor = self.conv(x)
        return out
