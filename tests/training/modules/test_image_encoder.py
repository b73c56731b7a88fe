import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.training.modules.agreement import assert_same, randomise, shapes
from training.wuerstchen.modules import EncoderStage, ImageEncoder, ImageEncoderConfig

# Made from torchvision 0.28's `efficientnet_v2_s().features` and the authors' mapper.
PUBLISHED_SHAPES = Path(__file__).parent / "efficientnet_v2_s_names.json"

SMALL = ImageEncoderConfig(
    c_latent=6,
    stem=8,
    stages=(
        EncoderStage("fused", expand_ratio=1, kernel=3, stride=2, c_out=8, layers=2),
        EncoderStage("fused", expand_ratio=2, kernel=3, stride=2, c_out=16, layers=2),
        EncoderStage("plain", expand_ratio=1, kernel=5, stride=2, c_out=16, layers=2),
        EncoderStage("plain", expand_ratio=4, kernel=3, stride=2, c_out=24, layers=1),
    ),
    head=32,
)


def as_json(config: ImageEncoderConfig) -> dict[str, Any]:
    written: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    return written


def test_published_names_and_shapes_are_those_of_torchvision() -> None:
    with torch.device("meta"):
        encoder = ImageEncoder(ImageEncoderConfig())
    expected = json.loads(PUBLISHED_SHAPES.read_text())
    assert shapes(encoder) == expected
    assert list(encoder.state_dict()) == list(expected)


def test_published_norms_have_the_epsilon_of_torchvision() -> None:
    with torch.device("meta"):
        encoder = ImageEncoder(ImageEncoderConfig())
    backbone = {module.eps for module in encoder.backbone.modules() if isinstance(module, nn.BatchNorm2d)}
    mapper = {module.eps for module in encoder.mapper.modules() if isinstance(module, nn.BatchNorm2d)}
    assert backbone == {1e-3}
    assert mapper == {1e-5}


@pytest.mark.parametrize(("size", "grid"), [((64, 64), (2, 2)), ((96, 160), (3, 5)), ((65, 32), (3, 1))], ids=str)
def test_embeddings_are_a_thirty_second_of_the_picture(size: tuple[int, int], grid: tuple[int, int]) -> None:
    assert ImageEncoder(SMALL).eval()(torch.rand(2, 3, *size)).shape == (2, 6, *grid)


def test_the_encoder_equals_functional_convolutions() -> None:
    """The smallest encoder, one block of each kind, by `torch.nn.functional` alone."""
    stages = (
        EncoderStage("fused", expand_ratio=2, kernel=3, stride=2, c_out=8, layers=1),
        EncoderStage("plain", expand_ratio=2, kernel=3, stride=2, c_out=8, layers=1),
        EncoderStage("plain", expand_ratio=2, kernel=3, stride=1, c_out=8, layers=1),
        EncoderStage("plain", expand_ratio=1, kernel=3, stride=2, c_out=8, layers=1),
        EncoderStage("fused", expand_ratio=1, kernel=3, stride=2, c_out=8, layers=1),
    )
    encoder = ImageEncoder(ImageEncoderConfig(c_latent=4, stem=8, stages=stages, head=16)).eval()
    randomise(encoder)
    weights = encoder.state_dict()

    def convolve(x: torch.Tensor, name: str, stride: int = 1, groups: int = 1, eps: float = 1e-3) -> torch.Tensor:
        weight = weights[f"{name}.0.weight"]
        x = nn.functional.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=groups)
        mean, variance = weights[f"{name}.1.running_mean"], weights[f"{name}.1.running_var"]
        scale, shift = weights[f"{name}.1.weight"], weights[f"{name}.1.bias"]
        return nn.functional.batch_norm(x, mean, variance, scale, shift, eps=eps)

    def excite(x: torch.Tensor, name: str) -> torch.Tensor:
        mean = x.mean(dim=(2, 3), keepdim=True)
        squeezed = nn.functional.conv2d(mean, weights[f"{name}.fc1.weight"], weights[f"{name}.fc1.bias"])
        spread = nn.functional.conv2d(silu(squeezed), weights[f"{name}.fc2.weight"], weights[f"{name}.fc2.bias"])
        return x * spread.sigmoid()

    silu, pictures = nn.functional.silu, torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 1, 3, 1, 1)
    x = silu(convolve((pictures - mean) / deviation, "backbone.0", stride=2))
    x = silu(convolve(x, "backbone.1.0.block.0", stride=2))
    x = convolve(x, "backbone.1.0.block.1")
    x = silu(convolve(x, "backbone.2.0.block.0"))
    x = silu(convolve(x, "backbone.2.0.block.1", stride=2, groups=16))
    x = convolve(excite(x, "backbone.2.0.block.2"), "backbone.2.0.block.3")
    shortcut = x
    x = silu(convolve(x, "backbone.3.0.block.0"))
    x = silu(convolve(x, "backbone.3.0.block.1", groups=16))
    x = convolve(excite(x, "backbone.3.0.block.2"), "backbone.3.0.block.3") + shortcut
    x = silu(convolve(x, "backbone.4.0.block.0", stride=2, groups=8))
    x = convolve(excite(x, "backbone.4.0.block.1"), "backbone.4.0.block.2")
    x = silu(convolve(x, "backbone.5.0.block.0", stride=2))
    x = silu(convolve(x, "backbone.6"))
    x = convolve(x, "mapper", eps=1e-5)
    assert float(x.std(dim=(0, 2, 3)).min()) > 0.01
    with torch.no_grad():
        assert_same(encoder(pictures), x)


def test_every_parameter_gets_a_gradient() -> None:
    encoder = ImageEncoder(SMALL).train()
    encoder(torch.rand(2, 3, 64, 96)).pow(3).sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


def test_statistics_of_imagenet_move_with_the_module_but_are_not_saved() -> None:
    encoder = ImageEncoder(SMALL)
    assert {name for name, _ in encoder.named_buffers() if "." not in name} == {"mean", "deviation"}
    assert encoder.double().mean.dtype == torch.float64
    assert not {"mean", "deviation"} & encoder.state_dict().keys()


def test_configuration_survives_json() -> None:
    assert ImageEncoder.from_config(as_json(SMALL)).config == SMALL
    with torch.device("meta"):
        assert ImageEncoder.from_config({"_note": "published"}).config == ImageEncoderConfig()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 3}, "ImageEncoderConfig: unknown configuration keys width; known are c_latent"),
        ({"stages": [{"colour": 1}]}, "EncoderStage: unknown configuration keys colour; known are kind"),
        ({"stages": as_json(SMALL)["stages"][:2]}, "multiply to 8; they must to 32"),
        ({"stages": [as_json(SMALL)["stages"][0] | {"kind": "dense"}]}, "kind is 'dense'"),
        ({"stages": [as_json(SMALL)["stages"][0] | {"kernel": 2}]}, "kernel is 2; it must be odd"),
        ({"stages": [as_json(SMALL)["stages"][0] | {"layers": 0}]}, "layers is 0"),
    ],
    ids=["key", "stage key", "stride", "kind", "kernel", "layers"],
)
def test_inconsistent_configurations_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageEncoder.from_config(as_json(SMALL) | change)
