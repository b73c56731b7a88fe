"""DPM++ SDE: each step is that of diffusers, given the same path of noise.

diffusers draws the path by the package torchsde. It isn't needed here, since the test's own path
takes its place.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import Any

import numpy as np
import pytest
import torch

from tests.test_schedulers_discrete import SDXL, SHAPE, normal, relative
from vinograph.noise import TorchNoise
from vinograph.schedulers import StepInput, make_sampler, read_scheduler_config

NAME = "DPMSolverSDEScheduler"
OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"use_karras_sigmas": True},
    {"use_exponential_sigmas": True},
    {"use_beta_sigmas": True},
    {"timestep_spacing": "trailing"},
    {"timestep_spacing": "leading", "steps_offset": 1},
    {"prediction_type": "v_prediction"},
)

# diffusers' schedulers pass tensors to NumPy in ways that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning", "ignore:__array_wrap__ must accept:DeprecationWarning"
)


class Path:
    """A Brownian motion over falling σ, whose increments come from one noise source, in order."""

    def __init__(self) -> None:
        self._noise = TorchNoise(1)
        self._half: tuple[float, Any] | None = None

    def __call__(self, start: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
        """The increment from ``start`` to ``end``, over the root of its variance."""
        first, last = float(start), float(end)
        if self._half is None:
            value = self._noise.normal(SHAPE) * np.sqrt(first - last)
            self._half = (last, value)
        else:
            middle, before = self._half
            value = before + self._noise.normal(SHAPE) * np.sqrt(middle - last)
            self._half = None
        return torch.tensor(value / np.sqrt(first - last), dtype=torch.float32)


@pytest.fixture
def diffusers_class(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setitem(sys.modules, "torchsde", types.ModuleType("torchsde"))
    module = importlib.import_module("diffusers.schedulers.scheduling_dpmsolver_sde")
    yield module.DPMSolverSDEScheduler
    sys.modules.pop("diffusers.schedulers.scheduling_dpmsolver_sde", None)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("count", [2, 8, 20])
def test_steps_are_diffusers(diffusers_class: Any, options: dict[str, Any], count: int) -> None:
    theirs = diffusers_class(**SDXL, **options)
    ours = make_sampler(read_scheduler_config({**theirs.config, "_class_name": NAME}))
    theirs.set_timesteps(count)
    plan = ours.plan(count)
    np.testing.assert_allclose(plan.timesteps, theirs.timesteps.numpy(), rtol=1e-5, atol=1e-3)
    assert plan.init_noise_sigma == pytest.approx(float(theirs.init_noise_sigma), rel=1e-6)
    theirs.noise_sampler = Path()
    noise, sample, state = TorchNoise(1), normal(0) * np.float32(plan.init_noise_sigma), None
    for index, timestep in enumerate(theirs.timesteps):
        scaled = theirs.scale_model_input(torch.tensor(sample), timestep)
        assert relative(ours.scale_model_input(plan, index, sample), scaled) < 1e-5
        model_output = normal(index + 10)
        expected = theirs.step(torch.tensor(model_output), timestep, torch.tensor(sample)).prev_sample
        step = ours.step(StepInput(plan, index, sample, model_output, noise.normal, state))
        assert relative(step.sample, expected) < 2e-4, index
        sample, state = step.sample, step.state
