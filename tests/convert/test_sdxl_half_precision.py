"""The autoencoder's residual stream is scaled so that half precision holds it, and no result changes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from tests.convert.running import assert_equal
from vinograph.convert.autoencoder import (
    STREAM_SCALE,
    Autoencoder,
    AutoencoderConfig,
    AutoencoderDecoder,
    AutoencoderEncoder,
    scale_stream,
)

CONFIG = AutoencoderConfig(
    block_out_channels=(8, 8, 16),
    down_block_types=("DownEncoderBlock2D",) * 3,
    up_block_types=("UpDecoderBlock2D",) * 3,
    layers_per_block=1,
    norm_num_groups=4,
)
LARGEST_HALF = 65504.0


@pytest.fixture
def autoencoder() -> Autoencoder:
    """One whose feature maps reach a million, as those of SDXL's published weights do, and whose results don't."""
    torch.manual_seed(0)
    model = Autoencoder(CONFIG).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            parameter.normal_(0, parameter[0].numel() ** -0.5)
        else:
            parameter.normal_(float("norm" in name and name.endswith("weight")), 0.2)
        # What adds to the stream. A block's first convolution is followed by a norm.
        if name.startswith(("encoder.conv_in", "decoder.conv_in")) or "conv2." in name or "to_out" in name:
            parameter.mul_(4e5 if name.startswith("encoder") else 5e4)
    return model


def largest_activation(module: nn.Module, sample: Tensor) -> float:
    """The largest value that any layer gives."""
    largest = 0.0

    def look(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        nonlocal largest
        largest = max(largest, float(output.abs().max()))

    hooks = [each.register_forward_hook(look) for each in module.modules() if not list(each.children())]
    module(sample)
    for hook in hooks:
        hook.remove()
    return largest


def halves(autoencoder: Autoencoder) -> list[tuple[nn.Module, nn.Module, Tensor]]:
    """The encoder and the decoder as they were published and as they are converted, with what they take."""
    plain = copy.deepcopy(autoencoder)
    encoder = nn.Sequential(plain.encoder, plain.quant_conv or nn.Identity())
    decoder = nn.Sequential(plain.post_quant_conv or nn.Identity(), plain.decoder)
    return [
        (encoder, AutoencoderEncoder(autoencoder), 2 * torch.rand(2, 3, 32, 24) - 1),
        (decoder, AutoencoderDecoder(autoencoder), 5 * torch.randn(2, 4, 9, 6)),
    ]


@pytest.mark.parametrize("half", [0, 1], ids=["encoder", "decoder"])
class TestScaledStream:
    def test_half_precision_overflows_without_it(self, autoencoder: Autoencoder, half: int) -> None:
        plain, _, sample = halves(autoencoder)[half]
        assert largest_activation(plain, sample) > 1e6
        assert not plain.half()(sample.half()).isfinite().all()

    def test_half_precision_holds_it(self, autoencoder: Autoencoder, half: int) -> None:
        plain, scaled, sample = halves(autoencoder)[half]
        expected = plain(sample)
        assert largest_activation(scaled, sample) < LARGEST_HALF / 2
        computed = scaled.half()(sample.half())
        assert computed.isfinite().all()
        assert_equal(computed.float(), expected, tolerance=2e-2)

    def test_single_precision_is_unchanged(self, autoencoder: Autoencoder, half: int) -> None:
        plain, scaled, sample = halves(autoencoder)[half]
        assert_equal(scaled(sample), plain(sample), tolerance=1e-6)


def test_every_value_of_the_stream_is_scaled_exactly(autoencoder: Autoencoder) -> None:
    """A layer that were forgotten would be seen here, and a norm."""
    plain, scaled = copy.deepcopy(autoencoder.decoder), autoencoder.decoder
    scale_stream(scaled)
    seen: dict[str, list[Tensor]] = {"plain": [], "scaled": []}
    for key, module in (("plain", plain), ("scaled", scaled)):
        for block in (module.mid_block, *module.up_blocks):
            block.register_forward_hook(lambda _m, _i, output, key=key: seen[key].append(output))
    sample = torch.randn(1, 4, 5, 6)
    plain(sample)
    scaled(sample)
    assert len(seen["plain"]) == 4
    for one, other in zip(seen["plain"], seen["scaled"], strict=True):
        assert_equal(other / STREAM_SCALE, one, tolerance=1e-6)
