"""Schedulers by the names of AUTOMATIC1111, ComfyUI and diffusers."""

from __future__ import annotations

import importlib
import json
import pathlib
from typing import Any

import diffusers
import numpy as np
import pytest

from vinograph import RequestError
from vinograph.schedulers import (
    PUBLISHED,
    SAMPLERS,
    SCHEDULERS,
    SPACINGS,
    StepInput,
    choose,
    names,
    noise_schedule,
    read_published_scheduler,
    read_scheduler_config,
    sampler_by_name,
)

# SDXL base's scheduler_config.json, which holds settings of other classes, too.
SDXL: dict[str, Any] = {
    "_class_name": "EulerDiscreteScheduler",
    "_diffusers_version": "0.19.0.dev0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "interpolation_type": "linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "sample_max_value": 1.0,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "trained_betas": None,
    "use_karras_sigmas": False,
}
MANIFEST = read_published_scheduler(SDXL)
DIFFUSERS: Any = diffusers
STATS: Any = importlib.import_module("scipy.stats")  # which has no types
TUNED: Any = importlib.import_module("diffusers.schedulers.scheduling_utils").AysSchedules

# diffusers' schedulers pass tensors to NumPy in ways that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning", "ignore:__array_wrap__ must accept:DeprecationWarning"
)


def theirs(name: str, base: dict[str, Any] = SDXL, **settings: Any) -> Any:
    """The sampler that reads diffusers' configuration after ``from_config``, as its file would be."""
    kind = getattr(DIFFUSERS, name)
    config = dict(kind.from_config(base, **settings).config)
    return sampler_by_name({"_class_name": name, **_own(name, config)}, {})


def _own(name: str, config: dict[str, Any]) -> dict[str, Any]:
    known = read_scheduler_config({"_class_name": name})
    return {key: value for key, value in config.items() if key in known and np.all(np.isfinite(_number(value)))}


def _number(value: Any) -> Any:
    return value if isinstance(value, float) else 0.0


class TestNames:
    @pytest.mark.parametrize("each", SCHEDULERS, ids=lambda each: each.name)
    def test_all_systems_names_mean_the_same(self, each: Any) -> None:
        expected = choose(each.name)
        assert expected.scheduler_class == each.scheduler_class
        for name in filter(None, (each.webui, *each.comfyui, each.name.upper(), f"  {each.name} ")):
            assert choose(name) == expected, name

    def test_every_name_is_of_one_scheduler(self) -> None:
        found = [name for each in SCHEDULERS for name in {each.name, *each.comfyui}]
        assert len(set(found)) == len(found)
        assert len(set(names())) == len(names())

    @pytest.mark.parametrize("name", names())
    def test_every_offered_name_plans_a_run_of_sdxl(self, name: str) -> None:
        plan = sampler_by_name(name, MANIFEST).plan(10)
        assert len(plan.timesteps) in (10, 19)
        assert np.all(np.isfinite(plan.timesteps))

    @pytest.mark.parametrize("name", [name for name, each in SAMPLERS.items() if not each.preconditioned])
    def test_a_class_of_diffusers_sets_nothing(self, name: str) -> None:
        assert choose(name).settings == {}
        if name != "DPMSolverSDEScheduler":  # which needs another package in diffusers
            assert sampler_by_name(name, MANIFEST) == theirs(name)

    @pytest.mark.parametrize(
        ("text", "class_name", "settings"),
        [
            ("DPM++ 2M Karras", "DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
            ("dpmpp_2m + karras", "DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
            ("dpmpp_2m/karras", "DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
            ("DPMSolverMultistepScheduler karras", "DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
            (
                "DPM++ 2M SDE Exponential",
                "DPMSolverMultistepScheduler",
                {
                    "algorithm_type": "sde-dpmsolver++",
                    "use_exponential_sigmas": True,
                    "timestep_spacing": "linspace",
                },
            ),
            ("euler sgm_uniform", "EulerDiscreteScheduler", {"timestep_spacing": "trailing"}),
            ("Euler Simple", "EulerDiscreteScheduler", {"timestep_spacing": "trailing"}),
            ("heun normal", "HeunDiscreteScheduler", {"timestep_spacing": "linspace"}),
            ("uni_pc_bh2 beta", "UniPCMultistepScheduler", {"use_beta_sigmas": True, "timestep_spacing": "linspace"}),
            ("ddim_uniform ddim", None, {}),
            ("ddim trailing", "DDIMScheduler", {"timestep_spacing": "trailing"}),
            ("LCM sgm_uniform", "LCMScheduler", {"timestep_spacing": "trailing"}),
        ],
    )
    def test_spacings(self, text: str, class_name: str | None, settings: dict[str, Any]) -> None:
        if class_name is None:
            with pytest.raises(RequestError):
                choose(text)
        else:
            assert sampler_by_name(text, MANIFEST) == theirs(class_name, **settings)

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("dpm++ 2n karras", "did you mean 'dpm++ 2m karras'"),
            ("eular", "did you mean 'euler'"),
            ("dpmpp_3m_sde", "did you mean 'dpmpp_2m_sde'"),
            ("UniPCMultistep", "did you mean 'UniPCMultistepScheduler'"),
            ("zzz", "give one of euler, euler a, heun"),
            ("", "give one of euler"),
            ("karras", "doesn't know"),
            ("ddim karras", "DDIMScheduler steps by timesteps and can't be spaced by karras"),
            ("x" * 10_000, "doesn't know"),
        ],
    )
    def test_unknown_ones_are_refused_with_close_names(self, text: str, words: str) -> None:
        with pytest.raises(RequestError) as caught:
            choose(text)
        assert words in str(caught.value)
        assert len(str(caught.value)) < 600

    @pytest.mark.parametrize(
        ("value", "words"),
        [
            ({}, "has the _class_name None, which Vinograph doesn't compute; it computes Euler"),
            ({"_class_name": "PNDMScheduler"}, "_class_name 'PNDMScheduler'"),
            ({"_class_name": "DDIMScheduler", "eta_start": 1}, "the setting 'eta_start', which DDIMScheduler lacks"),
            (
                {"_class_name": "DDIMScheduler", "timestep_spaceing": "trailing"},
                "(did you mean timestep_spacing?)",
            ),
        ],
    )
    def test_wrong_mappings_are_refused(self, value: dict[str, Any], words: str) -> None:
        with pytest.raises(RequestError) as caught:
            choose(value)
        assert words in str(caught.value)


class TestWhatIsKept:
    def test_settings_of_other_classes_that_the_file_says(self) -> None:
        """DDIM clips where nothing is said; SDXL's file, written for Euler, says that it doesn't."""
        assert MANIFEST[PUBLISHED]["clip_sample"] is False
        assert sampler_by_name("DDIMScheduler", MANIFEST) == theirs("DDIMScheduler")
        assert not sampler_by_name("DDIMScheduler", MANIFEST).clip_sample  # type: ignore[attr-defined]

    def test_a_manifest_survives_json(self) -> None:
        again = json.loads(json.dumps(MANIFEST))
        assert sampler_by_name("dpm++ 2m karras", again) == sampler_by_name("dpm++ 2m karras", MANIFEST)

    def test_a_bundle_that_was_written_before_keeps_its_classes_settings(self) -> None:
        old = {key: value for key, value in MANIFEST.items() if key != PUBLISHED}
        assert sampler_by_name("unipc", old).beta_schedule == "scaled_linear"
        assert not sampler_by_name("ddim", old).clip_sample  # type: ignore[attr-defined]

    def test_zero_snr_and_velocity_are_kept(self) -> None:
        zero = {**SDXL, "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
        manifest = read_published_scheduler(zero)
        for name in ("euler a", "dpm++ 2m", "ddim trailing", "unipc"):
            sampler = sampler_by_name(name, manifest)
            assert (sampler.rescale_betas_zero_snr, sampler.prediction_type) == (True, "v_prediction")

    def test_a_prediction_that_the_sampler_lacks_is_refused(self) -> None:
        manifest = read_published_scheduler({**SDXL, "prediction_type": "sample"})
        with pytest.raises(RequestError, match="scheduler 'dpm2' can't sample this model: KDPM2DiscreteScheduler has"):
            sampler_by_name("dpm2", manifest)

    @pytest.mark.parametrize("value", [float("inf"), "x" * 1000, {"a": 1}, [float("nan")], [[1.0]]])
    def test_what_is_no_setting_is_left_out(self, value: Any) -> None:
        kept = read_published_scheduler({**SDXL, "sample_max_value": value})
        assert "sample_max_value" not in kept[PUBLISHED]
        json.dumps(kept, allow_nan=False)


class TestSpacing:
    @pytest.mark.parametrize("count", [1, 2, 7, 30])
    def test_beta_quantiles_are_scipys(self, count: int) -> None:
        expected = STATS.beta.ppf(1 - np.linspace(0, 1, count), 0.6, 0.6)
        assert np.abs(noise_schedule.beta_sigmas(1.0, 0.0, count) - expected).max() < 1e-12

    def test_align_your_steps_are_the_papers(self) -> None:
        """diffusers has them for ten steps, in fewer digits."""
        plan = sampler_by_name("euler align your steps", MANIFEST).plan(10)
        assert plan.sigmas == pytest.approx(TUNED["StableDiffusionXLSigmas"], rel=0.03)
        assert np.abs(plan.timesteps - np.array(TUNED["StableDiffusionXLTimesteps"])).max() < 2.5
        reference = DIFFUSERS.EulerDiscreteScheduler.from_config(SDXL)
        reference.set_timesteps(sigmas=[float(each) for each in plan.sigmas])
        assert plan.timesteps == pytest.approx(reference.timesteps.numpy(), rel=1e-5)

    def test_align_your_steps_of_another_count_pass_through_the_ends(self) -> None:
        sigmas = sampler_by_name("dpm++ 2m ays", MANIFEST).plan(23).sigmas
        assert len(sigmas) == 24
        assert (sigmas[0], sigmas[-1]) == (pytest.approx(14.6146, rel=1e-4), 0)

    def test_align_your_steps_of_another_noise_schedule_are_refused(self) -> None:
        linear = read_published_scheduler({**SDXL, "beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02})
        with pytest.raises(RequestError, match=r"align your steps was tuned for SDXL's noise, from 14\.61 down"):
            sampler_by_name("dpm++ 2m ays", linear).plan(10)

    def test_spacings_have_unique_names(self) -> None:
        found = [name for each in SPACINGS for name in (each.name, *each.aliases)]
        assert len(set(found)) == len(found)


class TestEulerAncestralOfKDiffusion:
    """diffusers' class has no such spacing. k-diffusion's functions are written out here, in f64.

    They are get_sigmas_karras, get_sigmas_exponential, get_ancestral_step and
    sample_euler_ancestral of its module sampling.
    """

    COUNT, SHAPE = 12, (1, 4, 8, 8)

    @staticmethod
    def spaced(spacing: str, count: int, low: float, high: float) -> Any:
        if spacing == "karras":
            ramp, rho = np.linspace(0, 1, count), 7.0
            sigmas = (high ** (1 / rho) + ramp * (low ** (1 / rho) - high ** (1 / rho))) ** rho
        else:
            sigmas = np.exp(np.linspace(np.log(high), np.log(low), count))
        return np.append(sigmas, 0.0)

    @staticmethod
    def ancestral_step(start: float, end: float) -> tuple[float, float]:
        up = min(end, (end**2 * (start**2 - end**2) / start**2) ** 0.5)
        return (end**2 - up**2) ** 0.5, up

    @staticmethod
    def giving(noise: Any) -> Any:
        """A function that draws this noise."""
        return lambda _shape: noise.astype(np.float32)

    @pytest.mark.parametrize("spacing", ["karras", "exponential"])
    def test_steps(self, spacing: str) -> None:
        sampler = sampler_by_name(f"euler a {spacing}", MANIFEST)
        alphas = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
        training = ((1 - alphas) / alphas) ** 0.5
        sigmas = self.spaced(spacing, self.COUNT, training[0], training[-1])
        plan, rng = sampler.plan(self.COUNT), np.random.default_rng(3)
        assert plan.init_noise_sigma == pytest.approx(sigmas[0], rel=1e-5)
        np.testing.assert_allclose(plan.sigmas, sigmas, rtol=2e-5, atol=1e-7)
        noises = rng.standard_normal((self.COUNT, *self.SHAPE))
        outputs = rng.standard_normal((self.COUNT, *self.SHAPE))
        x = rng.standard_normal(self.SHAPE) * sigmas[0]
        ours = x.astype(np.float32)
        for index in range(self.COUNT):
            sigma, end = sigmas[index], sigmas[index + 1]
            scaled = sampler.scale_model_input(plan, index, ours)
            np.testing.assert_allclose(scaled, ours / (sigma**2 + 1) ** 0.5, rtol=1e-4, atol=1e-5)
            step = StepInput(plan, index, ours, outputs[index].astype(np.float32), self.giving(noises[index]))
            ours = sampler.step(step).sample
            denoised = x - outputs[index] * sigma  # as its wrapper of models that predict noise does
            down, up = self.ancestral_step(sigma, end)
            x = x + (x - denoised) / sigma * (down - sigma) + (noises[index] * up if end > 0 else 0)
            np.testing.assert_allclose(ours, x, rtol=1e-3, atol=2e-4 * max(1.0, end))


class TestDocument:
    """docs/from-a1111-comfyui.md has the tables of this module."""

    PAGE = (pathlib.Path(__file__).parents[1] / "docs" / "from-a1111-comfyui.md").read_text(encoding="utf-8")

    @pytest.mark.parametrize("each", SCHEDULERS, ids=lambda each: each.name)
    def test_samplers(self, each: Any) -> None:
        comfyui = ", ".join(f"`{name}`" for name in each.comfyui)
        order = SAMPLERS[each.scheduler_class].order
        assert f"| `{each.name}` | {each.webui} | {comfyui} | `{each.scheduler_class}` | {order} |\n" in self.PAGE

    @pytest.mark.parametrize("each", [each for each in SPACINGS if each.settings], ids=lambda each: each.name)
    def test_spacings(self, each: Any) -> None:
        assert f"| `{each.name}` | {', '.join(f'`{name}`' for name in each.aliases)} | `" in self.PAGE
