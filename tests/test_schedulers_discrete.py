"""The samplers of discrete diffusion: each step is that of diffusers' scheduler."""

import dataclasses
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from vinograph import ModelError, RequestError
from vinograph.noise import TorchNoise
from vinograph.schedulers import (
    SAMPLERS,
    Sampler,
    SamplingPlan,
    StepInput,
    make_sampler,
    read_published_scheduler,
    read_scheduler_config,
    sampler_by_name,
)

# diffusers' schedulers pass tensors to NumPy in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning", "ignore:__array_wrap__ must accept:DeprecationWarning"
)

SHAPE = (2, 4, 8, 8)
SDXL: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
ANCESTRAL, EULER, DPM, LCM, DDIM, UNIPC, HEUN, KDPM2, KDPM2_ANCESTRAL, LMS, TCD, DDPM, EDM, EDM_EULER = (
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "LCMScheduler",
    "DDIMScheduler",
    "UniPCMultistepScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "LMSDiscreteScheduler",
    "TCDScheduler",
    "DDPMScheduler",
    "EDMDPMSolverMultistepScheduler",
    "EDMEulerScheduler",
)
SDE = "DPMSolverSDEScheduler"  # compared in test_dpmsolver_sde.py, as diffusers needs another package for it
PREDICTIONS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys((ANCESTRAL, KDPM2, KDPM2_ANCESTRAL), ("epsilon", "v_prediction")),
    **dict.fromkeys((EULER, DPM, LCM, DDIM, UNIPC, HEUN, LMS, TCD, DDPM), ("epsilon", "v_prediction", "sample")),
}
# diffusers' classes of these don't know it, and draw as if the noise schedule were another.
NO_ZERO_SNR = (HEUN, KDPM2, KDPM2_ANCESTRAL, LMS)
SIGMAS: tuple[dict[str, Any], ...] = (
    {"use_karras_sigmas": True},
    {"use_exponential_sigmas": True},
    {"use_beta_sigmas": True},
    {"use_karras_sigmas": True, "timestep_spacing": "leading", "steps_offset": 1},
)
BETAS: tuple[dict[str, Any], ...] = (
    {"beta_schedule": "linear"},
    SDXL,
    {"beta_schedule": "squaredcos_cap_v2", "timestep_spacing": "leading"},
    {"trained_betas": np.linspace(0.001, 0.03, 1000).tolist()},
    {**SDXL, "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
    {**SDXL, "num_train_timesteps": 200},
)
SPACINGS: tuple[dict[str, Any], ...] = (
    {"timestep_spacing": "linspace"},
    {"timestep_spacing": "leading"},
    {"timestep_spacing": "leading", "steps_offset": 1},
    {"timestep_spacing": "trailing"},
)
OPTIONS: Mapping[str, tuple[dict[str, Any], ...]] = {
    ANCESTRAL: (),
    **dict.fromkeys((KDPM2, KDPM2_ANCESTRAL, LMS), SIGMAS),
    HEUN: (*SIGMAS, {"clip_sample": True, "clip_sample_range": 1.5}),
    UNIPC: (
        *SIGMAS,
        {"solver_order": 1},
        {"solver_order": 3},
        {"solver_type": "midpoint"},
        {"solver_type": "bh1", "final_sigmas_type": "sigma_min"},
        {"solver_order": 3, "final_sigmas_type": "sigma_min"},
        {"thresholding": True, "sample_max_value": 1.5},
        {"use_karras_sigmas": True, "sigma_min": 0.1, "sigma_max": 12.0},
        {"beta_schedule": "squaredcos_cap_v2"},
    ),
    TCD: ({"original_inference_steps": 100}, {"set_alpha_to_one": False}),
    EULER: (
        {"use_beta_sigmas": True},
        {"use_karras_sigmas": True},
        {"use_karras_sigmas": True, "sigma_min": 0.1, "sigma_max": 20.0},
        {"use_exponential_sigmas": True},
        {"interpolation_type": "log_linear"},
        {"final_sigmas_type": "sigma_min"},
        {"timestep_type": "continuous", "prediction_type": "v_prediction"},
        {"timestep_type": "continuous", "prediction_type": "v_prediction", "use_karras_sigmas": True},
    ),
    DPM: (
        {"solver_order": 1},
        {"solver_type": "heun"},
        {"solver_type": "bh2", "algorithm_type": "deis", "final_sigmas_type": "sigma_min"},
        {"algorithm_type": "sde-dpmsolver++"},
        {"algorithm_type": "sde-dpmsolver++", "solver_type": "heun"},
        {"algorithm_type": "sde-dpmsolver++", "solver_order": 1},
        {"lower_order_final": False},
        {"lower_order_final": False, "final_sigmas_type": "sigma_min"},
        {"euler_at_final": True, "final_sigmas_type": "sigma_min"},
        {"use_karras_sigmas": True},
        {"use_karras_sigmas": True, "beta_schedule": "squaredcos_cap_v2"},
        {"use_exponential_sigmas": True},
        {"use_beta_sigmas": True},
        {"use_lu_lambdas": True},
        {"lambda_min_clipped": -5.1, "beta_schedule": "squaredcos_cap_v2"},
        {"thresholding": True},
        {"thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 1.5},
    ),
    LCM: (
        {"original_inference_steps": 100},
        {"timestep_scaling": 3.0},
        {"clip_sample": True, "clip_sample_range": 1.5},
        {"thresholding": True, "sample_max_value": 2.0},
    ),
    DDPM: (
        {"clip_sample": False},
        {"clip_sample": False, "variance_type": "fixed_small_log"},
        {"clip_sample": False, "variance_type": "fixed_large"},
        {"clip_sample_range": 2.0},
        {"thresholding": True, "sample_max_value": 2.0},
    ),
    DDIM: (
        {"clip_sample": False},
        {"clip_sample": False, "set_alpha_to_one": False},
        {"clip_sample_range": 2.0},
        {"thresholding": True, "sample_max_value": 2.0},
    ),
}
COUNTS = (1, 2, 4, 14, 15, 20, 50)


def diffusers_scheduler(name: str, **options: Any) -> Any:
    return getattr(diffusers, name)(**options)


def both(name: str, **options: Any) -> tuple[Sampler, Any]:
    """Our sampler, from diffusers' configuration by way of a manifest's JSON, and theirs."""
    theirs = diffusers_scheduler(name, **options)
    config = read_scheduler_config({**json.loads(theirs.to_json_string()), "_class_name": name})
    return make_sampler(json.loads(json.dumps(config))), theirs


def normal(seed: int) -> Any:
    return TorchNoise(seed).normal(SHAPE)


def relative(ours: Any, theirs: Any) -> float:
    theirs = np.asarray(theirs)
    assert ours.dtype == theirs.dtype == np.float32
    assert ours.shape == theirs.shape
    assert np.isfinite(theirs).all()
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def follow(
    ours: Sampler, plan: SamplingPlan, theirs: Any, begin: int = 0, tolerance: float = 5e-6, **options: Any
) -> None:
    """Both do all steps from ``begin`` on, with noise in place of the model's output."""
    if hasattr(theirs, "set_begin_index"):
        theirs.set_begin_index(begin)
    noise, generator = TorchNoise(1), torch.Generator().manual_seed(1)
    takes = inspect.signature(theirs.step).parameters
    options |= {"generator": generator} if "generator" in takes else {}
    options |= {"eta": plan.eta} if "eta" in takes else {}
    expected = theirs.timesteps.numpy().astype(np.float32)
    # Of an ancestral step's middle, diffusers takes a difference of squares.
    # And one of these computes σ in f32, of which the timestep is the logarithm.
    rounded = 0.02 if ours.scheduler_class == KDPM2_ANCESTRAL else 5e-6 if ours.preconditioned else 1e-7
    np.testing.assert_allclose(plan.timesteps, expected, rtol=1e-6, atol=rounded)
    original, start_noise = normal(2), normal(3)
    expected = theirs.add_noise(torch.tensor(original), torch.tensor(start_noise), theirs.timesteps[begin : begin + 1])
    sample = ours.add_noise(plan, begin, original, start_noise)
    assert relative(sample, expected) < 2e-6
    state = None
    for index in range(begin, len(plan.timesteps)):
        timestep = theirs.timesteps[index]
        scaled = theirs.scale_model_input(torch.tensor(sample), timestep)
        loose = rounded if ours.preconditioned else rounded / 100
        assert relative(ours.scale_model_input(plan, index, sample), scaled) < max(1e-6, loose)
        model_output = normal(index + 10)
        there = theirs.step(torch.tensor(model_output), timestep, torch.tensor(sample), **options).prev_sample
        here = ours.step(StepInput(plan, index, sample, model_output, noise.normal, state))
        assert relative(here.sample, there) < tolerance, f"step {index}"
        assert here.denoised.dtype == np.float32
        sample, state = here.sample, here.state
        if index + 1 < len(plan.timesteps):  # as inpainting does between steps
            expected = theirs.add_noise(
                torch.tensor(original), torch.tensor(start_noise), theirs.timesteps[index + 1][None]
            )
            assert relative(ours.add_noise(plan, index + 1, original, start_noise), expected) < 2e-6
    drawn = torch.randn(SHAPE, generator=generator).numpy()
    assert np.abs(noise.normal(SHAPE) - drawn).max() < 1e-5, "both have drawn as often"


# diffusers' own rounding, in a system of equations and in the division by a small σ.
ROUGHER: Mapping[str, float] = {UNIPC: 2e-5, HEUN: 5e-5, KDPM2_ANCESTRAL: 1e-3}


def compare(name: str, counts: tuple[int, ...] = COUNTS, tolerance: float = 5e-6, **options: Any) -> None:
    tolerance = max(tolerance, ROUGHER.get(name, 0))
    ours, theirs = both(name, **options)
    for count in counts:
        theirs.set_timesteps(count)
        plan = ours.plan(count)
        assert float(plan.init_noise_sigma) == pytest.approx(float(theirs.init_noise_sigma), rel=1e-6)
        follow(ours, plan, theirs, tolerance=tolerance)


CLASSES = pytest.mark.parametrize("name", PREDICTIONS)


class TestSteps:
    @pytest.mark.parametrize("spacing", SPACINGS, ids=lambda each: "-".join(map(str, each.values())))
    @pytest.mark.parametrize(
        ("name", "prediction"), [(name, each) for name in PREDICTIONS for each in PREDICTIONS[name]]
    )
    def test_spacings_and_prediction_types(self, name: str, prediction: str, spacing: dict[str, Any]) -> None:
        compare(name, **SDXL, **spacing, prediction_type=prediction)

    @CLASSES
    @pytest.mark.parametrize("betas", BETAS, ids=range(len(BETAS)))
    def test_noise_schedules(self, name: str, betas: dict[str, Any]) -> None:
        # Of σ in the thousands diffusers takes differences of squares, in which little is left but
        # rounding.
        steep = betas.get("rescale_betas_zero_snr", False)
        if steep and name in NO_ZERO_SNR:
            betas = {key: value for key, value in betas.items() if key != "rescale_betas_zero_snr"}
        compare(name, (1, 4, 20), 2e-4 if steep else 5e-6, **betas)

    def test_no_nan_where_diffusers_computes_nan(self) -> None:
        ours, theirs = both(ANCESTRAL, beta_schedule="squaredcos_cap_v2")
        theirs.set_timesteps(4)
        sample, model_output = torch.tensor(normal(1)), torch.tensor(normal(2))
        assert theirs.step(model_output, theirs.timesteps[0], sample).prev_sample.isnan().all()
        here = ours.step(StepInput(ours.plan(4), 0, normal(1), normal(2), TorchNoise(3).normal))
        assert np.isfinite(here.sample).all()

    @pytest.mark.parametrize(("name", "options"), [(name, each) for name in OPTIONS for each in OPTIONS[name]], ids=str)
    def test_schedulers_options(self, name: str, options: dict[str, Any]) -> None:
        compare(name, (2, 4, 14, 20), **{**SDXL, **options})

    @CLASSES
    @pytest.mark.parametrize(("count", "begin"), [(2, 1), (4, 1), (4, 3), (20, 12)])
    def test_from_a_later_step_on(self, name: str, count: int, begin: int) -> None:
        """Image-to-image begins at a later step."""
        ours, theirs = both(name, **SDXL)
        theirs.set_timesteps(count)
        follow(ours, ours.plan(count), theirs, begin * ours.order, ROUGHER.get(name, 5e-6))

    @pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
    @pytest.mark.parametrize("prediction", PREDICTIONS[TCD])
    @pytest.mark.parametrize("count", [1, 8])
    def test_tcd_with_fresh_noise(self, prediction: str, eta: float, count: int) -> None:
        ours, theirs = both(TCD, **SDXL, prediction_type=prediction)
        theirs.set_timesteps(count)
        follow(ours, ours.plan(count, eta=eta), theirs)

    @pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
    @pytest.mark.parametrize("prediction", PREDICTIONS[DDIM])
    def test_ddim_with_fresh_noise(self, prediction: str, eta: float) -> None:
        ours, theirs = both(DDIM, **SDXL, prediction_type=prediction, clip_sample=False)
        theirs.set_timesteps(10)
        follow(ours, ours.plan(10, eta=eta), theirs)

    def test_trailing_spacing_that_rounding_makes_one_longer(self) -> None:
        for name in (ANCESTRAL, EULER, DPM):
            compare(name, (61, 103), **SDXL, timestep_spacing="trailing")


EDM_OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"sigma_schedule": "exponential"},
    {"prediction_type": "v_prediction", "sigma_data": 1.0, "sigma_min": 0.01, "sigma_max": 120.0},
    {"rho": 5.0, "final_sigmas_type": "sigma_min"},
)
SOLVERS: tuple[dict[str, Any], ...] = (
    {"solver_type": "heun"},
    {"solver_order": 1},
    {"lower_order_final": False},
    {"lower_order_final": False, "euler_at_final": True, "final_sigmas_type": "sigma_min"},
)


class TestPreconditioned:
    """Models with EDM's preconditioning, such as Playground v2.5."""

    @pytest.mark.parametrize(
        ("name", "options"),
        [
            *((name, each) for name in (EDM, EDM_EULER) for each in EDM_OPTIONS),
            *((EDM, each) for each in SOLVERS),
        ],
        ids=str,
    )
    def test_steps(self, name: str, options: dict[str, Any]) -> None:
        compare(name, (2, 4, 14, 20, 50), 2e-5, **options)
        ours, theirs = both(name, **options)
        theirs.set_timesteps(20)
        follow(ours, ours.plan(20), theirs, 12, 2e-5)

    @pytest.mark.parametrize("name", [EDM, EDM_EULER])
    def test_default_settings_and_those_that_are_refused(self, name: str) -> None:
        theirs = {key: value for key, value in diffusers_scheduler(name).config.items() if not key.startswith("_")}
        kind = SAMPLERS[name]
        ours = read_scheduler_config({"_class_name": name})
        assert ours.pop("class") == name
        assert {key: theirs[key] for key in ours} == ours
        idle = {"dynamic_thresholding_ratio", "sample_max_value"}  # of thresholding
        assert theirs.keys() - ours.keys() - set(kind.fixed_settings) <= idle
        refused: list[dict[str, Any]] = [{"prediction_type": "sample"}, {"sigma_schedule": "beta"}, {"sigma_min": 90.0}]
        if name == EDM:
            refused += [{"algorithm_type": "sde-dpmsolver++"}, {"thresholding": True}, {"solver_order": 3}]
        for change in refused:
            with pytest.raises(ModelError, match=name):
                read_scheduler_config({"_class_name": name, **change})

    def test_other_models_schedulers_do_not_go_with_them(self) -> None:
        edm = read_published_scheduler({"_class_name": EDM})
        with pytest.raises(RequestError, match=f"another noise than that scheduler removes: it takes {EDM}, "):
            sampler_by_name("euler", edm)
        with pytest.raises(RequestError, match="another noise"):
            sampler_by_name(EDM_EULER, read_published_scheduler({"_class_name": EULER}))
        assert sampler_by_name(EDM_EULER, edm).plan(5).timesteps[0] == pytest.approx(0.25 * np.log(80))


class TestCustomSteps:
    @pytest.mark.parametrize("name", [EULER, DPM, LCM, HEUN, TCD, DDPM])
    @pytest.mark.parametrize("timesteps", [[999], [999, 500, 1], [979, 759, 519, 259], [999, 899, 750, 601, 300, 7, 0]])
    def test_custom_timesteps(self, name: str, timesteps: list[int]) -> None:
        ours, theirs = both(name, **SDXL)
        theirs.set_timesteps(timesteps=timesteps)
        plan = ours.plan(50, timesteps=timesteps)
        assert plan.num_inference_steps == len(timesteps)
        follow(ours, plan, theirs, tolerance=ROUGHER.get(name, 5e-6))

    @pytest.mark.parametrize("sigmas", [[14.6, 0.0], [14.6, 6.3, 3.8, 1.0, 0.0], [80.0, 2.0, 0.01], [3.0, 0.02, 0.0]])
    @pytest.mark.parametrize("options", [{}, {"use_karras_sigmas": True}], ids=str)
    def test_custom_sigmas(self, options: dict[str, Any], sigmas: list[float]) -> None:
        ours, theirs = both(EULER, **SDXL, **options)
        theirs.set_timesteps(sigmas=sigmas)
        plan = ours.plan(50, sigmas=sigmas)
        assert plan.num_inference_steps == len(sigmas) - 1
        follow(ours, plan, theirs)

    @pytest.mark.parametrize("name", [ANCESTRAL, DDIM])
    def test_samplers_without_custom_timesteps(self, name: str) -> None:
        ours, _ = both(name)
        with pytest.raises(RequestError, match=rf"scheduler \({name}\) takes no timesteps; give num_inference_steps"):
            ours.plan(1, timesteps=[999])

    @pytest.mark.parametrize("name", [ANCESTRAL, DDIM, LCM, DPM])
    def test_samplers_without_custom_sigmas(self, name: str) -> None:
        ours, _ = both(name)
        with pytest.raises(RequestError, match=rf"scheduler \({name}\) takes no sigmas"):
            ours.plan(1, sigmas=[14.0, 0.0])

    @pytest.mark.parametrize("name", [EULER, DPM])
    def test_no_custom_timesteps_where_sigmas_are_spaced(self, name: str) -> None:
        ours, _ = both(name, use_karras_sigmas=True)
        with pytest.raises(RequestError, match="spaces its own sigmas and takes no timesteps"):
            ours.plan(1, timesteps=[999])

    @pytest.mark.parametrize("timesteps", [[], [1, 2], [5, 5], [1000, 1], [5, -1], [float("nan"), 1]])
    def test_timesteps_that_do_not_fall_are_refused(self, timesteps: list[float]) -> None:
        with pytest.raises(RequestError, match="timesteps have to fall, from at most 999 to at least 0"):
            both(EULER)[0].plan(1, timesteps=timesteps)

    @pytest.mark.parametrize("sigmas", [[], [1.0], [1.0, 2.0], [1.0, -1.0]])
    def test_sigmas_that_do_not_fall_are_refused(self, sigmas: list[float]) -> None:
        with pytest.raises(RequestError, match="sigmas have to fall"):
            both(EULER)[0].plan(1, sigmas=sigmas)

    def test_timesteps_and_sigmas_exclude_each_other(self) -> None:
        with pytest.raises(RequestError, match="give timesteps or sigmas, not both"):
            both(EULER)[0].plan(1, timesteps=[1], sigmas=[1.0, 0.0])


class TestTooManySteps:
    @CLASSES
    def test_more_steps_than_were_trained_are_refused(self, name: str) -> None:
        ours, _ = both(name, num_train_timesteps=100)
        with pytest.raises(RequestError, match="101 steps are more than this model has; give at most 100"):
            ours.plan(101)

    def test_more_steps_than_a_consistency_model_has_are_refused(self) -> None:
        with pytest.raises(RequestError, match="51 steps are more than this model was distilled from; give at most 50"):
            both(LCM)[0].plan(51)

    def test_a_solver_whose_steps_would_not_move(self) -> None:
        with pytest.raises(RequestError, match="1000 steps are too many"):
            both(DPM)[0].plan(1000)

    @pytest.mark.parametrize(
        ("options", "count"), [({"steps_offset": 1}, 1000), ({"timestep_spacing": "trailing"}, 61)], ids=str
    )
    def test_timesteps_beyond_the_models(self, options: dict[str, Any], count: int) -> None:
        with pytest.raises(RequestError, match=f"{count} steps leave this model's timesteps"):
            both(DDIM, **options)[0].plan(count)


class TestSettings:
    @CLASSES
    def test_default_settings_are_diffusers(self, name: str) -> None:
        theirs = diffusers_scheduler(name).config
        ours = read_scheduler_config({"_class_name": name})
        assert ours.pop("class") == name
        for key, value in ours.items():
            if key == "rescale_betas_zero_snr" and name in NO_ZERO_SNR:
                continue
            assert theirs[key] == value or (key, theirs[key]) == ("lambda_min_clipped", -float("inf")), key

    @CLASSES
    def test_every_setting_of_diffusers_is_implemented_or_refused(self, name: str) -> None:
        kind = SAMPLERS[name]
        ours = {each.name for each in dataclasses.fields(kind)} | set(kind.fixed_settings)
        # What has no effect unless another setting, which is refused, says so.
        idle = {"flow_shift", "time_shift_type"}
        theirs = {key for key in diffusers_scheduler(name).config if not key.startswith("_")}
        assert theirs - ours - idle == set()

    def test_the_published_config_of_sdxl_turbo(self, tmp_path: Path) -> None:
        """It holds settings of other classes, which this one doesn't read."""
        published = {
            "_class_name": ANCESTRAL,
            "_diffusers_version": "0.24.0.dev0",
            **SDXL,
            "clip_sample": False,
            "interpolation_type": "linear",
            "num_train_timesteps": 1000,
            "prediction_type": "epsilon",
            "sample_max_value": 1.0,
            "set_alpha_to_one": False,
            "sigma_max": None,
            "sigma_min": None,
            "skip_prk_steps": True,
            "steps_offset": 1,
            "timestep_spacing": "trailing",
            "trained_betas": None,
            "use_karras_sigmas": False,
        }
        config = read_scheduler_config(published)
        assert config == {
            "class": ANCESTRAL,
            **SDXL,
            "num_train_timesteps": 1000,
            "prediction_type": "epsilon",
            "steps_offset": 1,
            "timestep_spacing": "trailing",
            "trained_betas": None,
            "rescale_betas_zero_snr": False,
        }
        assert make_sampler(config).plan(4).timesteps.tolist() == [999, 749, 499, 249]

    @pytest.mark.parametrize("name", ["PNDMScheduler", None, 7])
    def test_an_unknown_scheduler_is_refused(self, name: Any) -> None:
        with pytest.raises(ModelError) as caught:
            read_scheduler_config({"_class_name": name})
        assert str(caught.value) == (
            f"the scheduler {name!r} is not one that Vinograph computes; it computes {', '.join(SAMPLERS)}"
        )

    @pytest.mark.parametrize(
        ("name", "config", "message"),
        [
            (DPM, {"solver_order": 3}, "solver_order = 3, which Vinograph doesn't compute; it computes 1, 2"),
            (DPM, {"algorithm_type": "dpmsolver"}, "algorithm_type = 'dpmsolver', which Vinograph doesn't compute"),
            (DPM, {"use_flow_sigmas": True}, "use_flow_sigmas = True, which Vinograph doesn't compute"),
            (DPM, {"variance_type": "learned_range"}, "variance_type = 'learned_range', which"),
            (UNIPC, {"predict_x0": False}, "predict_x0 = False, which Vinograph doesn't compute; True it does"),
            (UNIPC, {"lower_order_final": False}, "lower_order_final = False, which Vinograph doesn't compute"),
            (DDPM, {"variance_type": "learned_range"}, "variance_type = 'learned_range', which"),
            (DDPM, {"variance_type": "fixed_large_log"}, "it computes fixed_small, fixed_small_log, fixed_large"),
            (EULER, {"beta_schedule": "laplace"}, "it computes linear, scaled_linear, squaredcos_cap_v2"),
            (EULER, {"timestep_spacing": "even"}, "it computes linspace, leading, trailing"),
            (
                EULER,
                {"use_karras_sigmas": True, "use_exponential_sigmas": True},
                "has both use_karras_sigmas and use_e",
            ),
            (EULER, {"num_train_timesteps": 1000.0}, "num_train_timesteps = 1000.0, where a whole number"),
            (EULER, {"num_train_timesteps": True}, "num_train_timesteps = True, where a whole number"),
            (EULER, {"num_train_timesteps": 0}, "num_train_timesteps = 0, where a whole number from 2"),
            (EULER, {"beta_start": "a"}, "beta_start = 'a', where a number from 0"),
            (EULER, {"beta_end": float("nan")}, "beta_end = nan, where a number from 0"),
            (EULER, {"beta_end": 10**400}, "beta_end = a whole number of about 400 digits, where a number from 0"),
            (EULER, {"beta_end": 1.5}, "make no noise schedule"),
            (EULER, {"beta_start": 0, "beta_end": 0}, "make no noise schedule"),
            (EULER, {"num_train_timesteps": 10**9}, "num_train_timesteps = 1000000000, where a whole number"),
            (EULER, {"sigma_min": 3, "sigma_max": 2}, "sigma_min = 3.0, which is not below sigma_max"),
            (EULER, {"use_karras_sigmas": 1}, "use_karras_sigmas = 1, where true or false should be"),
            (EULER, {"trained_betas": [0.1]}, "trained_betas that are not num_train_timesteps numbers"),
            (EULER, {"trained_betas": "x"}, "trained_betas = 'x', where a list of"),
            (ANCESTRAL, {"prediction_type": "sample"}, "it computes epsilon, v_prediction"),
            (DDIM, {"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr with prediction_type epsilon"),
            (LCM, {"rescale_betas_zero_snr": True}, "the step divides by zero"),
            (LCM, {"original_inference_steps": 2000}, "more original_inference_steps than num_train_timesteps"),
        ],
    )
    def test_settings_that_are_refused(self, name: str, config: dict[str, Any], message: str) -> None:
        with pytest.raises(ModelError) as caught:
            read_scheduler_config({"_class_name": name, **config})
        assert message in str(caught.value)
        assert str(caught.value).startswith(name)
