"""The image encoder, whose image embeddings Stage B decodes and Stage C generates."""

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from vinograph.families.wuerstchen.network_config import STEM_STRIDE, EncoderStage, ImageEncoderConfig

BACKBONE_NORM_EPS = 1e-3
# Mean and standard deviation of ImageNet's channels, by which the published weights expect pictures
# normalised.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


def _convolution(
    c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1, active: bool = True
) -> nn.Sequential:
    """A convolution and a batch norm, followed by SiLU if `active`."""
    layers: list[nn.Module] = [
        nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(c_out, eps=BACKBONE_NORM_EPS),
    ]
    return nn.Sequential(*layers, nn.SiLU()) if active else nn.Sequential(*layers)


class SqueezeExcitation(nn.Module):
    """Squeeze and excitation (arXiv 1709.01507): scales channels by all their means."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, kernel_size=1)
        self.fc2 = nn.Conv2d(squeezed, channels, kernel_size=1)
        self.activation = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        """The scaled feature map, [batch, channels, height, width] as `x`."""
        weights = self.fc2(self.activation(self.fc1(x.mean(dim=(2, 3), keepdim=True))))
        return x * torch.sigmoid(weights)


class EncoderBlock(nn.Module):
    """An MBConv or Fused-MBConv block (EfficientNetV2, arXiv 2104.00298, figure 2).

    A block that changes neither size nor number of channels is residual.
    """

    def __init__(self, stage: EncoderStage, c_in: int, stride: int) -> None:
        super().__init__()
        c_inner, c_out, kernel = stage.expand_ratio * c_in, stage.c_out, stage.kernel
        self.residual = stride == 1 and c_in == c_out
        layers: list[nn.Module] = []
        if stage.kind == "plain":
            if c_inner != c_in:
                layers.append(_convolution(c_in, c_inner, kernel=1))
            layers.append(_convolution(c_inner, c_inner, kernel, stride, groups=c_inner))
            layers.append(SqueezeExcitation(c_inner, squeezed=max(1, c_in // 4)))
            layers.append(_convolution(c_inner, c_out, kernel=1, active=False))
        elif c_inner != c_in:
            layers.append(_convolution(c_in, c_inner, kernel, stride))
            layers.append(_convolution(c_inner, c_out, kernel=1, active=False))
        else:
            layers.append(_convolution(c_in, c_out, kernel, stride))
        self.block = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """The output [batch, c_out, ⌈h / stride⌉, ⌈w / stride⌉] for `x` [batch, c_in, h, w]."""
        out: Tensor = self.block(x)
        return out + x if self.residual else out


class ImageEncoder(nn.Module):
    """Würstchen's image encoder: EfficientNetV2 (arXiv 2104.00298), a convolution, a batch norm.

    Würstchen (arXiv 2306.00637) calls it the semantic compressor. Names and shapes of the
    parameters are those of `effnet_state_dict` in the authors' checkpoint: torchvision's
    `efficientnet_v2_s().features` as `backbone`, then `mapper`. The backbone's convolutions start
    Kaiming-normal by fan out, as torchvision's do. There is no stochastic depth.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: ImageEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(IMAGENET_DEVIATION).view(1, 3, 1, 1), persistent=False)
        layers: list[nn.Module] = [_convolution(3, config.stem, kernel=3, stride=STEM_STRIDE)]
        channels = config.stem
        for stage in config.stages:
            blocks = [EncoderBlock(stage, channels, stage.stride)]
            blocks += [EncoderBlock(stage, stage.c_out, stride=1) for _ in range(stage.layers - 1)]
            layers.append(nn.Sequential(*blocks))
            channels = stage.c_out
        layers.append(_convolution(channels, config.head, kernel=1))
        self.backbone = nn.Sequential(*layers)
        self.mapper = nn.Sequential(
            nn.Conv2d(config.head, config.c_latent, kernel_size=1, bias=False),
            nn.BatchNorm2d(config.c_latent),
        )
        for layer in self.backbone.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The encoder of a configuration in JSON's form of `ImageEncoderConfig`.

        Raises:
            ValueError: a key is unknown, or values don't fit together.
        """
        return cls(ImageEncoderConfig.from_mapping(config))

    def forward(self, pictures: Tensor) -> Tensor:
        """Image embeddings of `pictures` on the decoder's scale; the prior denoises (e + 1) / 42.

        Args:
            pictures: [batch, 3, height, width], RGB in [0, 1], at 3/4 of the size to generate.

        Returns:
            [batch, c_latent, height / 32, width / 32], rounded up.
        """
        embeddings: Tensor = self.mapper(self.backbone((pictures - self.mean) / self.deviation))
        return embeddings
