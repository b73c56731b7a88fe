"""Comparisons of our modules with the ones that they must equal."""

from typing import Any

import torch
from torch import Tensor, nn

TOLERANCE = 1e-5


def randomise(module: nn.Module, seed: int = 0) -> None:
    """Give parameters and statistics random values, none special, that keep activations near 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.dim() == 1 or name.endswith((".gamma", ".beta")):
                is_scale = parameter.dim() == 1 and name.endswith("weight")
                parameter.normal_(float(is_scale), 0.3, generator=generator)
            else:
                parameter.normal_(0, parameter[0].numel() ** -0.5, generator=generator)
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.3, generator=generator)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5, generator=generator)


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def times(batch: int) -> Tensor:
    return torch.linspace(0.05, 0.95, batch)


def shapes(module: nn.Module) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in module.state_dict().items()}


def exchange_weights(ours: nn.Module, theirs: nn.Module) -> None:
    """Randomise ``theirs``, and load its weights into ``ours`` and back, strictly."""
    assert shapes(ours) == shapes(theirs)
    randomise(theirs)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)


def relative_difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())


def assert_same(ours: Tensor, theirs: Tensor) -> None:
    assert relative_difference(ours, theirs) < TOLERANCE


def assert_same_gradients(ours: nn.Module, theirs: nn.Module) -> None:
    """Check every parameter's gradient; parameters without influence have none in both."""
    reference = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        expected = reference[name].grad
        if parameter.grad is None or expected is None:
            assert parameter.grad is expected, name
        else:
            # Where the true gradient is zero, both are rounding errors; other gradients are about
            # 1.
            scale = float(expected.abs().max()) + 1e-2
            assert float((parameter.grad - expected).abs().max()) / scale < 1e-3, name


def published(config: dict[str, Any]) -> dict[str, Any]:
    """`config` as diffusers writes it, with its notes about the file."""
    return {"_class_name": "AnyName", "_diffusers_version": "0.21.0", **config}
