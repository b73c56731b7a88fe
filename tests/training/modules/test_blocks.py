import math

import pytest
import torch

from tests.training.modules.agreement import noise, randomise
from training.wuerstchen.modules.blocks import AttentionBlock, GlobalResponseNorm, ResidualBlock, timestep_embedding


def response_norm(channels: int, dtype: torch.dtype = torch.float32) -> GlobalResponseNorm:
    norm = GlobalResponseNorm(channels).to(dtype)
    randomise(norm)
    return norm


def test_response_norm_is_the_published_formula() -> None:
    norm, x = response_norm(5).eval(), noise(2, 3, 4, 5)
    energy = torch.norm(x, p=2, dim=(1, 2), keepdim=True)
    share = energy / (energy.mean(dim=-1, keepdim=True) + 1e-6)
    torch.testing.assert_close(norm(x), norm.gamma * (x * share) + norm.beta + x)


def test_response_norm_starts_as_the_identity() -> None:
    x = noise(2, 3, 4, 5)
    assert torch.equal(GlobalResponseNorm(5)(x), x)


def test_response_norm_is_the_same_in_training() -> None:
    norm, x = response_norm(5), noise(2, 3, 4, 5)
    assert torch.equal(norm.train()(x), norm.eval()(x))


def test_response_norm_gradient_equals_finite_differences() -> None:
    norm = response_norm(5, torch.float64).train()
    x = noise(2, 3, 4, 5).double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, gamma, beta: torch.func.functional_call(norm, {"gamma": gamma, "beta": beta}, (x,)),
        (x, norm.gamma, norm.beta),
    )


@pytest.mark.parametrize("size", [(2, 3, 4, 5), (1, 1, 1, 8), (3, 7, 1, 2)])
def test_response_norm_gradient_equals_that_of_the_plain_formula(size: tuple[int, ...]) -> None:
    norm, weights = response_norm(size[-1], torch.float64), noise(*size, seed=2).double()
    gradients = []
    for training in (True, False):
        x = noise(*size).double().requires_grad_()
        norm.train(training)
        gradients.append(torch.autograd.grad((norm(x) * weights).sum(), (x, norm.gamma, norm.beta)))
    for fused, plain in zip(*gradients, strict=True):
        torch.testing.assert_close(fused, plain)


def test_response_norm_gradient_is_finite_for_a_channel_of_zeros() -> None:
    norm, x = response_norm(5).train(), noise(2, 3, 4, 5)
    x[..., 2] = 0
    x.requires_grad_()
    norm(x).square().sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert norm.gamma.grad is not None
    assert torch.isfinite(norm.gamma.grad).all()


def test_response_norm_trains_under_bf16_autocast() -> None:
    block = ResidualBlock(8, c_skip=0, kernel_size=3, dropout=0.0).train()
    randomise(block)
    x = noise(2, 8, 5, 6)
    block(x).square().mean().backward()
    exact = [parameter.grad.clone() for parameter in block.parameters() if parameter.grad is not None]
    block.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        block(x).square().mean().backward()
    for parameter, expected in zip(block.parameters(), exact, strict=True):
        assert parameter.grad is not None
        assert parameter.grad.dtype == torch.float32
        assert float((parameter.grad - expected).norm() / expected.norm()) < 0.05


def test_timestep_embedding_has_sines_then_cosines() -> None:
    embedding = timestep_embedding(torch.tensor([0.0, 1e-4]), 8)
    frequencies = [10_000 ** (-index / 3) for index in range(4)]
    expected = [math.sin(f) for f in frequencies] + [math.cos(f) for f in frequencies]
    torch.testing.assert_close(embedding[0], torch.tensor([0.0] * 4 + [1.0] * 4))
    torch.testing.assert_close(embedding[1], torch.tensor(expected))


def test_timestep_embedding_of_odd_width_ends_in_zero() -> None:
    r = torch.tensor([0.3])
    assert timestep_embedding(r, 9).tolist() == [[*timestep_embedding(r, 8)[0].tolist(), 0.0]]


def test_blocks_return_channels_last_maps() -> None:
    x = noise(2, 8, 5, 6).contiguous(memory_format=torch.channels_last)
    for out in (
        ResidualBlock(8, c_skip=0, kernel_size=3, dropout=0.0)(x),
        AttentionBlock(8, c_cond=4, nhead=2, dropout=0.0)(x, noise(2, 3, 4)),
    ):
        assert out.is_contiguous(memory_format=torch.channels_last)
