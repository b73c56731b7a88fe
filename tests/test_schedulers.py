"""Würstchen's sampler: each step is that of diffusers."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMWuerstchenScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler
from diffusers.pipelines.deprecated.wuerstchen.pipeline_wuerstchen_prior import DEFAULT_STAGE_C_TIMESTEPS

from vinograph import RequestError
from vinograph.families.wuerstchen.drawing import spaced_prior_timesteps
from vinograph.noise import TorchNoise
from vinograph.schedulers import (
    TimeStep,
    WuerstchenSampler,
    continuous_names,
    continuous_sampler_by_name,
    custom_timesteps,
    linspace,
)

# diffusers' schedulers pass tensors to NumPy in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning", "ignore:__array_wrap__ must accept:DeprecationWarning"
)
SCALERS = (1.0, 0.5, 0.9, 1.5, 2.0)
SHAPE = (2, 4, 6, 6)


def diffusers_scheduler(**options: float) -> Any:
    kind: Any = DDPMWuerstchenScheduler
    return kind(**options)


def normal(seed: int) -> Any:
    return TorchNoise(seed).normal(SHAPE)


def relative(ours: Any, theirs: Any) -> float:
    assert ours.dtype == theirs.dtype == np.float32
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


class TestLinspace:
    def test_linspace_is_torchs_to_the_last_bit(self) -> None:
        for count in range(1, 1100):
            assert np.array_equal(linspace(1, 0, count), torch.linspace(1, 0, count).numpy()), count

    @pytest.mark.parametrize(("start", "stop"), [(0, 1), (1, 2 / 3), (-3.3, 7.7), (999, 0), (0.1, 0.1)])
    def test_linspace_between_other_ends_is_equal_to_torchs(self, start: float, stop: float) -> None:
        for count in (1, 2, 3, 10, 61, 1000):
            assert np.array_equal(linspace(start, stop, count), torch.linspace(start, stop, count).numpy()), count


class TestSteps:
    """All steps of a sampler, with noise in place of the model's output."""

    @pytest.mark.parametrize("scaler", SCALERS)
    @pytest.mark.parametrize("count", [1, 2, 12, 29, 60])
    def test_evenly_spaced_steps_are_diffusers(self, scaler: float, count: int) -> None:
        theirs = diffusers_scheduler(scaler=scaler)
        theirs.set_timesteps(count)
        ours = WuerstchenSampler(scaler=scaler)
        assert np.array_equal(ours.timesteps(count), theirs.timesteps.numpy())
        self.follow(ours, ours.timesteps(count), theirs)

    @pytest.mark.parametrize("scaler", SCALERS)
    @pytest.mark.parametrize(
        "times", [[1.0, 0.0], [1.0, 0.9, 0.3, 0.01, 0.0], [0.8, 0.5, 0.2], DEFAULT_STAGE_C_TIMESTEPS]
    )
    def test_custom_timesteps_are_diffusers(self, scaler: float, times: list[float]) -> None:
        theirs = diffusers_scheduler(scaler=scaler)
        theirs.set_timesteps(timesteps=times)
        ours = custom_timesteps(times, "timesteps")
        assert np.array_equal(ours, theirs.timesteps.numpy())
        self.follow(WuerstchenSampler(scaler=scaler), ours, theirs)

    @pytest.mark.parametrize("s", [0.0, 0.004, 0.02])
    def test_another_offset_is_diffusers(self, s: float) -> None:
        theirs = diffusers_scheduler(s=s)
        theirs.set_timesteps(10)
        self.follow(WuerstchenSampler(s=s), WuerstchenSampler(s=s).timesteps(10), theirs)

    @staticmethod
    def follow(sampler: WuerstchenSampler, times: Any, theirs: Any) -> None:
        noise, generator, sample = TorchNoise(1), torch.Generator().manual_seed(1), normal(0)
        for index, (now, following) in enumerate(pairwise(times)):
            model_output = normal(index + 10)
            expected = theirs.step(
                torch.from_numpy(model_output),
                theirs.timesteps[index].expand(SHAPE[0]),
                torch.from_numpy(sample),
                generator=generator,
            ).prev_sample.numpy()
            sample = sampler.step(sample, model_output, now, following, noise.normal(SHAPE))
            assert relative(sample, expected) < 5e-6, f"step {index}"


@pytest.mark.parametrize("scaler", SCALERS)
def test_alphas_cumprod_are_diffusers(scaler: float) -> None:
    theirs, ours = diffusers_scheduler(scaler=scaler), WuerstchenSampler(scaler=scaler)
    times = np.linspace(0, 1, 301).astype(np.float32)
    expected = theirs._alpha_cumprod(torch.from_numpy(times), torch.device("cpu")).numpy()
    mine = np.array([ours.alpha_cumprod(t) for t in times])
    assert mine.dtype == np.float32
    assert np.abs(mine - expected).max() < 3e-7
    assert mine.min() >= np.float32(1e-4)
    assert mine.max() <= np.float32(0.9999)


@pytest.mark.parametrize("scaler", SCALERS)
@pytest.mark.parametrize("time", [0.0, 0.01, 0.3, 0.75, 1.0])
def test_adding_noise_is_diffusers(scaler: float, time: float) -> None:
    original, noise, t = normal(1), normal(2), np.float32(time)
    theirs = diffusers_scheduler(scaler=scaler).add_noise(
        torch.from_numpy(original), torch.from_numpy(noise), torch.full((SHAPE[0],), float(t))
    )
    assert relative(WuerstchenSampler(scaler=scaler).add_noise(original, noise, t), theirs.numpy()) < 2e-6


@pytest.mark.parametrize("time", [0.05, 0.5, 0.95])
def test_the_denoised_sample_is_what_noise_was_added_to(time: float) -> None:
    sampler, original, noise, t = WuerstchenSampler(), normal(1), normal(2), np.float32(time)
    assert relative(sampler.predict_denoised(sampler.add_noise(original, noise, t), noise, t), original) < 1e-4


def test_the_last_step_adds_no_noise() -> None:
    sampler, zero = WuerstchenSampler(), np.float32(0)
    one, other = (sampler.step(normal(0), normal(1), np.float32(0.1), zero, normal(seed)) for seed in (2, 3))
    assert np.array_equal(one, other)


def test_the_spaced_prior_steps_are_the_published_ones() -> None:
    published = torch.Tensor(DEFAULT_STAGE_C_TIMESTEPS).numpy()
    assert len(published) == 30
    assert np.array_equal(spaced_prior_timesteps(), published)


class TestCustomTimesteps:
    def test_falling_timesteps_are_accepted(self) -> None:
        assert custom_timesteps([1, 0.5, 0.25], "timesteps").tolist() == [1, 0.5, 0.25]

    @pytest.mark.parametrize("given", [[], [1.0], [[1.0, 0.0], [1.0, 0.0]]])
    def test_a_single_timestep_is_refused(self, given: Any) -> None:
        with pytest.raises(RequestError, match="prior_timesteps needs at least two times"):
            custom_timesteps(given, "prior_timesteps")

    @pytest.mark.parametrize("given", [[0.0, 1.0], [1.0, 0.5, 0.5], [1.1, 0.0], [1.0, -0.1], [1.0, float("nan"), 0.0]])
    def test_times_fall_from_1_to_0(self, given: Any) -> None:
        with pytest.raises(RequestError, match="decoder_timesteps has to fall from at most 1 to at least 0"):
            custom_timesteps(given, "decoder_timesteps")


def solved(name: Any, **own: float) -> Any:
    return continuous_sampler_by_name(name, WuerstchenSampler(**own))


class TestNamedSamplers:
    """Other samplers on the continuous process: each step is that of diffusers, over the same noise levels."""

    OPTIONS: Mapping[str, dict[str, Any]] = {
        "euler": {"solver_order": 1},
        "ddim": {"solver_order": 1},
        "euler a": {"solver_order": 1, "algorithm_type": "sde-dpmsolver++"},
        "dpm++ 2m": {},
        "dpm++ 2m sde": {"algorithm_type": "sde-dpmsolver++"},
        "dpm++ 2m sde heun": {"algorithm_type": "sde-dpmsolver++", "solver_type": "heun"},
    }

    @staticmethod
    def run(sampler: WuerstchenSampler, times: Any, expect: Any) -> None:
        noise, sample, state = TorchNoise(1), normal(0), None
        for index in range(len(times) - 1):
            model_output = normal(index + 10)
            step = sampler.advance(TimeStep(times, index, sample, model_output, noise.normal, state))
            assert relative(step.sample, expect(index, model_output, sample)) < 2e-5, f"step {index}"
            sample, state = step.sample, step.state

    @pytest.mark.parametrize("name", [*OPTIONS, "dpm++ 2m karras", "unipc"])
    @pytest.mark.parametrize(("scaler", "count"), [(1.0, 8), (0.5, 3), (2.0, 5)])
    def test_steps_are_diffusers(self, name: str, scaler: float, count: int) -> None:
        sampler = solved(name, scaler=scaler)
        times = sampler.timesteps(count)
        kind: Any = UniPCMultistepScheduler if name == "unipc" else DPMSolverMultistepScheduler
        theirs = kind(**self.OPTIONS.get(name, {}))
        theirs.set_timesteps(count)
        alphas = np.array([sampler.alpha_cumprod(t) for t in times[:-1]])
        theirs.sigmas = torch.tensor([*np.sqrt((1 - alphas) / alphas), 0.0], dtype=torch.float32)
        generator = torch.Generator().manual_seed(1)
        options = {} if name == "unipc" else {"generator": generator}

        def expect(index: int, model_output: Any, sample: Any) -> Any:
            now = theirs.timesteps[index]
            return theirs.step(torch.tensor(model_output), now, torch.tensor(sample), **options).prev_sample.numpy()

        theirs._step_index = 0
        self.run(sampler, times, expect)

    @pytest.mark.parametrize("eta", [0.0, 1.0])
    def test_first_order_is_ddim_and_ancestral_is_ddpm(self, eta: float) -> None:
        sampler, count = solved("euler a" if eta else "euler"), 6
        times = sampler.timesteps(count)
        kind: Any = DDIMScheduler
        theirs = kind(num_train_timesteps=count, clip_sample=False)
        theirs.set_timesteps(count)
        theirs.alphas_cumprod = torch.tensor([sampler.alpha_cumprod(t) for t in times[:-1][::-1]])
        generator = torch.Generator().manual_seed(1)

        def expect(index: int, model_output: Any, sample: Any) -> Any:
            output, noisy = torch.tensor(model_output), torch.tensor(sample)
            step = theirs.step(output, count - 1 - index, noisy, eta=eta, generator=generator if eta else None)
            return step.prev_sample.numpy()

        self.run(sampler, times, expect)

    def test_the_models_own_steps_are_euler_ancestrals(self) -> None:
        own, other = WuerstchenSampler(), solved("euler a")
        times = own.timesteps(10)
        for index in range(9):
            inputs = TimeStep(times, index, normal(0), normal(1), lambda _shape: normal(2))
            assert relative(own.advance(inputs).sample, other.advance(inputs).sample) < 2e-5

    @pytest.mark.parametrize("scaler", SCALERS)
    @pytest.mark.parametrize("spacing", ["karras", "exponential", "beta"])
    def test_spaced_times_fall_through_the_whole_schedule(self, scaler: float, spacing: str) -> None:
        sampler = solved(f"dpm++ 2m {spacing}", scaler=scaler)
        times = sampler.timesteps(10)
        assert (times[0], times[-1], len(times)) == (1.0, 0.0, 11)
        assert np.all(np.diff(times) < 0)
        assert sampler.alpha_cumprod(times[-2]) == pytest.approx(0.9999, abs=1e-6)

    @pytest.mark.parametrize("scaler", SCALERS)
    def test_the_time_of_a_noise_level(self, scaler: float) -> None:
        sampler = WuerstchenSampler(scaler=scaler)
        for t in (0.2, 0.5, 0.9):
            assert sampler.time_of(sampler.alpha_cumprod(np.float32(t))) == pytest.approx(t, abs=1e-5)

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("heun", "whose time is continuous; give one of ddim, euler, euler a"),
            ("lcm", "whose time is continuous"),
            ("euler trailing", "its steps are evenly spaced in time"),
            ({"_class_name": "DPMSolverMultistepScheduler", "solver_order": 3}, "solver_order = 3, which Vinograph"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, name: Any, words: str) -> None:
        with pytest.raises(RequestError, match=words):
            solved(name)

    def test_every_offered_name_fits(self) -> None:
        assert {"ddim", "euler a", "dpm++ 2m karras"} < set(continuous_names())
        for name in continuous_names():
            assert len(solved(name).timesteps(4)) == 5
