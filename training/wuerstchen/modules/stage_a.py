"""Stage A, the VQGAN, which encodes pictures as latents and decodes them."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from vinograph.families.wuerstchen.network_config import StageAConfig

from .blocks import NORM_EPS, initialise_linear

# Latent vectors per comparison with the codebook: 128 MB of distances for the published 8192 codes.
ROWS_AT_A_TIME = 4096


class Quantized(NamedTuple):
    """Latents rounded to their nearest codes, and the losses that train both.

    Attributes:
        latents: [batch, latent_channels, height, width]. Their gradient passes straight through.
        indices: [batch, height, width], indices of the codes.
        codebook_loss: mean squared distance, whose gradient moves the codes to the latents.
        commitment_loss: the same distance, whose gradient moves the latents to the codes. The
            authors' weight for it is 0.25.
    """

    latents: Tensor
    indices: Tensor
    codebook_loss: Tensor
    commitment_loss: Tensor


class MixingBlock(nn.Module):
    """Paella's residual block (arXiv 2211.07292), with six learned scalars for norms and branches.

    The scalars start at zero, where the block is the identity.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=NORM_EPS, elementwise_affine=False)
        self.depthwise = nn.Sequential(
            nn.ReplicationPad2d(1), nn.Conv2d(channels, channels, kernel_size=3, groups=channels)
        )
        self.norm2 = nn.LayerNorm(channels, eps=NORM_EPS, elementwise_affine=False)
        self.channelwise = nn.Sequential(
            nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels)
        )
        self.gammas = nn.Parameter(torch.zeros(6))

    def forward(self, x: Tensor) -> Tensor:
        """The block's output, [batch, channels, height, width] as `x`."""
        scale1, shift1, weight1, scale2, shift2, weight2 = self.gammas.unbind()
        spatial = self.norm1(x.permute(0, 2, 3, 1)) * (1 + scale1) + shift1
        x = x + self.depthwise(spatial.permute(0, 3, 1, 2)) * weight1
        pointwise = self.norm2(x.permute(0, 2, 3, 1)) * (1 + scale2) + shift2
        change: Tensor = self.channelwise(pointwise).permute(0, 3, 1, 2) * weight2
        return change + x


class Codebook(nn.Module):
    """The codebook of vectors that latents are rounded to in training."""

    def __init__(self, codes: int, channels: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(codes, channels)
        nn.init.uniform_(self.embedding.weight, -1 / codes, 1 / codes)

    @torch.no_grad()
    def nearest(self, vectors: Tensor) -> Tensor:
        """Indices [n] of the codes nearest to `vectors` [n, channels]."""
        codes = self.embedding.weight.to(vectors.dtype)
        squares = codes.square().sum(dim=1)
        # |v − e|² = |v|² − 2 v·e + |e|², and |v|² is the same for every code.
        chunks = torch.split(vectors, ROWS_AT_A_TIME)
        return torch.cat([torch.addmm(squares, rows, codes.T, alpha=-2).argmin(dim=1) for rows in chunks])


class StageA(nn.Module):
    """Würstchen's VQGAN (arXiv 2306.00637), which is Paella's (arXiv 2211.07292).

    Names and shapes of the parameters are those of diffusers' `PaellaVQModel`. Residual blocks
    start with Xavier-uniform weights as in the authors' code. Pictures are RGB in [0, 1].
    """

    def __init__(self, config: StageAConfig) -> None:
        super().__init__()
        self.config = config
        factor, latents = config.up_down_scale_factor, config.latent_channels
        widths = [config.embed_dim // 2**level for level in reversed(range(config.levels))]

        self.in_block = nn.Sequential(
            nn.PixelUnshuffle(factor), nn.Conv2d(config.in_channels * factor**2, widths[0], kernel_size=1)
        )
        down: list[nn.Module] = [MixingBlock(widths[0])]
        for finer, coarser in pairwise(widths):
            down += [nn.Conv2d(finer, coarser, kernel_size=4, stride=2, padding=1), MixingBlock(coarser)]
        down.append(nn.Sequential(nn.Conv2d(widths[-1], latents, kernel_size=1, bias=False), nn.BatchNorm2d(latents)))
        self.down_blocks = nn.Sequential(*down)

        self.vquantizer = Codebook(config.num_vq_embeddings, latents)

        up: list[nn.Module] = [nn.Sequential(nn.Conv2d(latents, widths[-1], kernel_size=1))]
        up += [MixingBlock(widths[-1]) for _ in range(config.bottleneck_blocks)]
        for coarser, finer in pairwise(reversed(widths)):
            up += [nn.ConvTranspose2d(coarser, finer, kernel_size=4, stride=2, padding=1), MixingBlock(finer)]
        self.up_blocks = nn.Sequential(*up)
        self.out_block = nn.Sequential(
            nn.Conv2d(widths[0], config.out_channels * factor**2, kernel_size=1), nn.PixelShuffle(factor)
        )
        for block in self.modules():
            if isinstance(block, MixingBlock):
                block.apply(initialise_linear)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The module of a published config.json.

        Raises:
            ValueError: a key is unknown, or values don't fit together.
        """
        return cls(StageAConfig.from_mapping(config))

    def encode(self, pictures: Tensor) -> Tensor:
        """Latents of `pictures`, with mean 0 and standard deviation 1, not quantized.

        Stage B generates them divided by scale_factor.

        [batch, in_channels, height, width] -> [batch, latent_channels, height / f, width / f],
        where f is up_down_scale_factor · 2^(levels − 1), of which height and width are multiples.
        """
        latents: Tensor = self.down_blocks(self.in_block(pictures))
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures decoded from `latents`, which are neither quantized nor scaled first.

        Shapes are those of `encode`. Values may lie somewhat outside [0, 1].
        """
        pictures: Tensor = self.out_block(self.up_blocks(latents))
        return pictures

    def quantize(self, latents: Tensor) -> Quantized:
        """`latents` rounded to their nearest codes, with straight-through gradient, and the losses.

        VQ-VAE (arXiv 1711.00937), equations 2 and 3.
        """
        vectors = latents.permute(0, 2, 3, 1)
        indices = self.vquantizer.nearest(vectors.reshape(-1, vectors.shape[-1])).view(vectors.shape[:-1])
        codes = self.vquantizer.embedding(indices)
        return Quantized(
            latents=(vectors + (codes - vectors).detach()).permute(0, 3, 1, 2),
            indices=indices,
            codebook_loss=(codes - vectors.detach()).square().mean(),
            commitment_loss=(codes.detach() - vectors).square().mean(),
        )

    def forward(self, pictures: Tensor) -> Tensor:
        """The reconstruction of `pictures` from their latents, not quantized."""
        return self.decode(self.encode(pictures))
