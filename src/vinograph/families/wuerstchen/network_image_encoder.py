"""Würstchen's image encoder, from pictures to the embeddings that Stage B decodes.

Pernias et al., Würstchen: An Efficient Architecture for Large-Scale Text-to-Image Diffusion Models
(arXiv 2306.00637), section 3, where it is called the semantic compressor. It is EfficientNetV2 (Tan
and Le, arXiv 2104.00298), then a 1x1 convolution to the embeddings' channels. Weights have the
names of ``effnet_state_dict`` in the authors' checkpoint: torchvision's
``efficientnet_v2_s().features`` as ``backbone``, then ``mapper``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from openvino import opset13 as opset

from vinograph.families.wuerstchen.network_config import EncoderStage, ImageEncoderConfig
from vinograph.networks.graph import Network, Port, Ports, Weights, build
from vinograph.networks.layers import conv2d, convolve, sigmoid, silu
from vinograph.networks.values import Value, constant

IGNORED = r".*\.num_batches_tracked"
"""Tensors that inference doesn't use: how many batches each norm was trained on."""

_BACKBONE_EPS, _MAPPER_EPS = 1e-3, 1e-5
_STEM_STRIDE = 2
_NORM = ("weight", "bias", "running_mean", "running_var")
# Of ImageNet's red, green and blue, which the published weights expect.
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def image_encoder(config: ImageEncoderConfig, weights: Weights) -> Network:
    """The encoder's graph, for pictures of any size.

    Input: ``image`` [b, 3, height, width], RGB in [0, 1], at 3/4 of the size that is to be drawn;
    it is brought to ImageNet's mean and deviation here. Output: ``embeddings`` [b, c_latent, height
    / 32, width / 32], rounded up.

    Raises:
        DamagedModelError: a tensor is missing, or of another shape or type.
    """

    def embeddings(image: Value) -> Value:
        mean, deviation = (constant(np.reshape(each, (1, 3, 1, 1))) for each in (_MEAN, _DEVIATION))
        x, backbone = (image - mean) / deviation, weights["backbone"]
        x = silu(_convolution(x, backbone[0], config.stem, 3, stride=_STEM_STRIDE))
        for number, stage in enumerate(config.stages, start=1):
            for layer in range(stage.layers):
                stride = stage.stride if layer == 0 else 1
                x = _block(x, backbone[number][layer]["block"], stage, stride)
        x = silu(_convolution(x, backbone[len(config.stages) + 1], config.head, 1))
        return _convolution(x, weights["mapper"], config.c_latent, 1, eps=_MAPPER_EPS)

    inputs = {"image": Port(("b", 3, "height", "width"))}
    return build(weights, Ports(inputs, {"embeddings": Port(("b", config.c_latent, "h", "w"))}), embeddings)


def _block(x: Value, weights: Weights, stage: EncoderStage, stride: int) -> Value:
    """MBConv or Fused-MBConv (arXiv 2104.00298, figure 2).

    x [b, c, h, w] -> [b, c_out, h / stride, w / stride]. A block that changes neither size nor
    width adds its input.
    """
    channels, kernel = x.size(1), stage.kernel
    inner, widens = stage.expand_ratio * channels, stage.expand_ratio != 1
    if stage.kind == "plain":
        hidden = silu(_convolution(x, weights[0], inner, 1)) if widens else x
        depthwise, excitation, projection = (weights[index + int(widens)] for index in range(3))
        hidden = silu(_convolution(hidden, depthwise, inner, kernel, stride=stride, depthwise=True))
        hidden = _excite(hidden, excitation, max(1, channels // 4))
        hidden = _convolution(hidden, projection, stage.c_out, 1)
    elif widens:
        hidden = silu(_convolution(x, weights[0], inner, kernel, stride=stride))
        hidden = _convolution(hidden, weights[1], stage.c_out, 1)
    else:
        hidden = silu(_convolution(x, weights[0], stage.c_out, kernel, stride=stride))
    return hidden + x if stride == 1 and channels == stage.c_out else hidden


def _excite(x: Value, weights: Weights, squeezed: int) -> Value:
    """Squeeze and excitation (arXiv 1709.01507): a factor per channel, from the channels' means."""
    means = Value(opset.reduce_mean(x.output, opset.constant([2, 3]), keep_dims=True))
    hidden = silu(conv2d(means, weights["fc1"], squeezed, 1))
    return x * sigmoid(conv2d(hidden, weights["fc2"], x.size(1), 1))


def _convolution(
    x: Value,
    weights: Weights,
    channels: int,
    kernel: int,
    *,
    stride: int = 1,
    depthwise: bool = False,
    eps: float = _BACKBONE_EPS,
) -> Value:
    """A convolution and its batch norm (arXiv 1502.03167) as one convolution.

    norm(W x) = s (W x - mean) + shift = (s W) x + (shift - s mean), with s = scale / √(variance +
    eps).
    """
    convolution, norm = weights[0], weights[1]
    shape = (channels, 1 if depthwise else x.size(1), kernel, kernel)
    view = (channels, 1, 1, kernel, kernel) if depthwise else shape
    convolution.mark_used("weight", shape)
    for name in _NORM:
        norm.mark_used(name, (channels,))

    def factor() -> NDArray[np.float32]:
        with np.errstate(invalid="ignore"):  # damaged variances give NaN, which is reported when drawing
            scale: NDArray[np.float32] = norm.values("weight", (channels,)) / np.sqrt(
                norm.values("running_var", (channels,)) + np.float32(eps)
            )
        return scale

    def kernels() -> NDArray[np.float32]:
        return convolution.values("weight", shape) * factor()[:, None, None, None]

    def shift() -> NDArray[np.float32]:
        return norm.values("bias", (channels,)) - norm.values("running_mean", (channels,)) * factor()

    layer = convolution.computed("weight", view, kernels, like="weight")
    product = convolve(x, layer, stride=stride, padding=kernel // 2).named(convolution.scope)
    return product + norm.computed_vector("bias", (1, channels, 1, 1), shift)
