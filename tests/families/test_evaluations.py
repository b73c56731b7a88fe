"""Fewer evaluations: guidance in an interval of the steps, and extrapolated outputs, against loops written here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.bundles import save_bundle, save_pixart_bundle, save_sdxl_bundle
from tests.families.tiny import Watched
from vinograph import Pipeline, RequestError
from vinograph.families.contract import Output
from vinograph.families.evaluation_request import EvaluationRequest, check_interval
from vinograph.families.evaluations import (
    EvaluationPlan,
    Outputs,
    StepSpan,
    extrapolate,
    plan_evaluations,
    plan_extrapolation,
)
from vinograph.schedulers import StepInput, TimeStep, continuous_sampler_by_name

Array = NDArray[np.float32]
PROMPT, STEPS = "a red house", 8


@dataclass(frozen=True)
class Drawn:
    """A family's bundle, watched, and the arguments of a call that is guided in all of its steps."""

    pipe: Pipeline
    watched: Watched
    denoiser: str
    arguments: Mapping[str, Any]

    def __call__(self, **changes: Any) -> Array:
        """Latents, or the prior's embeddings, of a call with the changes."""
        self.watched.calls.clear()
        result = self.pipe(PROMPT, seed=3, output_type="latent", **{**self.arguments, **changes})
        found = result.image_embeddings if result.image_embeddings is not None else result.images
        return np.asarray(found)

    @property
    def rows(self) -> list[int]:
        """Rows of each call of the denoiser that was just made."""
        return [len(next(iter(inputs.values()))) for inputs in self.watched.calls[self.denoiser]]


@pytest.fixture(scope="module")
def draw(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Drawn]:
    size = {"width": 64, "height": 64, "num_inference_steps": STEPS, "guidance_scale": 3.0}
    wuerstchen = {"width": 128, "height": 128, "prior_num_inference_steps": STEPS, "prior_guidance_scale": 3.0}
    saved: dict[str, tuple[Any, str, dict[str, Any]]] = {
        "sdxl": (save_sdxl_bundle, "unet", size),
        "pixart": (save_pixart_bundle, "transformer", {**size, "use_resolution_binning": False}),
        "wuerstchen": (save_bundle, "prior", {**wuerstchen, "num_inference_steps": 2}),
    }

    @cache
    def opened(name: str) -> Drawn:
        save, denoiser, arguments = saved[name]
        pipe = Pipeline.from_pretrained(save(tmp_path_factory.mktemp("fewer") / name).path, precision="f32")
        return Drawn(pipe, Watched.of(pipe), denoiser, arguments)

    return opened


EACH = pytest.mark.parametrize("name", ["sdxl", "pixart", "wuerstchen"])


def polynomial(known: Sequence[tuple[int, Array]], order: int, index: int) -> Array:
    """Newton's form of the polynomial through the last ``order + 1`` known values."""
    (b, at_b), (a, at_a) = known[-1], known[-2]
    slope = (at_b - at_a) / (b - a)
    value = at_b + (index - b) * slope
    if order == 2:
        c, at_c = known[-3]
        value = value + (index - b) * (index - a) * (slope - (at_a - at_c) / (a - c)) / (b - c)
    return np.asarray(value, np.float32)


def reference_sdxl(drawn: Drawn, guided: Sequence[bool], evaluated: Sequence[bool], order: int) -> Array:
    """What SDXL and PixArt draw, by a loop over the network with batches of one."""
    drawn(num_images_per_prompt=1)
    (first, *_) = drawn.watched.calls[drawn.denoiser]
    pipe, session = drawn.pipe, drawn.watched.sessions[drawn.denoiser]
    sampler = pipe._components.config.sampler
    plan = sampler.plan(STEPS)
    constant = {name: value for name, value in first.items() if name not in ("sample", "timestep")}
    latents = first["sample"][:1] if len(plan.sigmas) == 0 else None
    if latents is None:
        latents = first["sample"][:1] / (sampler.scale_model_input(plan, 0, np.ones((1, 1, 1, 1), np.float32)))
    known: dict[int, list[tuple[int, Array]]] = {0: [], 1: []}
    state = None
    for index in range(STEPS):
        halves = {}
        for half in (0, 1) if guided[index] else (1,):
            if evaluated[index]:
                rows = {name: value[half : half + 1] for name, value in constant.items()}
                scaled = sampler.scale_model_input(plan, index, latents)
                rows |= {"sample": scaled, "timestep": np.full(1, plan.timesteps[index], np.float32)}
                output = session(rows)["out_sample"][:, :4]
                known[half].append((index, output))
            else:
                output = polynomial(known[half], order, index)
            halves[half] = output
        output = halves[1] if not guided[index] else halves[0] + np.float32(3) * (halves[1] - halves[0])
        stepped = sampler.step(StepInput(plan, index, latents, output, _no_noise, state))
        latents, state = stepped.sample, stepped.state
    return np.asarray(latents)


def _no_noise(shape: tuple[int, ...]) -> Array:
    raise AssertionError(f"noise of shape {shape} was drawn by a sampler that is deterministic")


def reference_wuerstchen(drawn: Drawn, guided: Sequence[bool], evaluated: Sequence[bool], order: int) -> Array:
    """What Würstchen's prior draws, by DDIM."""
    drawn(scheduler="ddim")
    (first, *_) = drawn.watched.calls["prior"]
    config, session = drawn.pipe._components.config, drawn.watched.sessions["prior"]
    sampler = continuous_sampler_by_name("ddim", config.prior_sampler)
    times, latents, state = sampler.timesteps(STEPS), first["x"][:1], None
    constant = {name: value for name, value in first.items() if name not in ("x", "r")}
    known: dict[int, list[tuple[int, Array]]] = {0: [], 1: []}
    for index in range(STEPS):
        halves = {}
        for half in (0, 1) if guided[index] else (0,):  # the text comes first
            if evaluated[index]:
                rows = {name: value[half : half + 1] for name, value in constant.items()}
                output = session({"x": latents, "r": times[index : index + 1], **rows})["noise"]
                known[half].append((index, output))
            else:
                output = polynomial(known[half], order, index)
            halves[half] = output
        output = halves[0] if not guided[index] else halves[1] + np.float32(3) * (halves[0] - halves[1])
        stepped = sampler.advance(TimeStep(times, index, latents, output, _no_noise, state))
        latents, state = stepped.sample, stepped.state
    return np.asarray(config.to_embeddings(latents))


REFERENCES = {"sdxl": reference_sdxl, "pixart": reference_sdxl, "wuerstchen": reference_wuerstchen}
DETERMINISTIC: Mapping[str, Mapping[str, Any]] = {"sdxl": {}, "pixart": {}, "wuerstchen": {"scheduler": "ddim"}}


class TestPictures:
    @EACH
    @pytest.mark.parametrize("off", [{"guidance_interval": (0, 1)}, {"extrapolation_interval": 1}])
    def test_with_every_step_they_are_the_default_to_the_bit(
        self, draw: Callable[[str], Drawn], name: str, off: dict[str, Any]
    ) -> None:
        drawn = draw(name)
        default = drawn()
        assert drawn.rows == [2] * STEPS
        assert np.array_equal(drawn(**off), default)
        assert drawn.rows == [2] * STEPS

    @EACH
    def test_outside_the_interval_there_is_no_guidance(self, draw: Callable[[str], Drawn], name: str) -> None:
        drawn, guided = draw(name), [False, False, True, True, True, True, False, False]
        found = drawn(guidance_interval=(0.25, 0.75), **DETERMINISTIC[name])
        assert drawn.rows == [1] * 2 + [1, 1] * 4 + [1] * 2  # four steps of two halves
        expected = REFERENCES[name](drawn, guided, [True] * STEPS, 1)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
        assert np.abs(found - drawn(**DETERMINISTIC[name])).max() > 1e-3

    @EACH
    @pytest.mark.parametrize("order", [1, 2])
    def test_extrapolated(self, draw: Callable[[str], Drawn], name: str, order: int) -> None:
        drawn, evaluated = draw(name), [True, True, True, False, True, False, True, True]
        found = drawn(extrapolation_interval=2, extrapolation_order=order, **DETERMINISTIC[name])
        assert drawn.rows == [2] * 6
        expected = REFERENCES[name](drawn, [True] * STEPS, evaluated, order)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
        assert np.abs(found - drawn(**DETERMINISTIC[name])).max() > 1e-6

    @EACH
    def test_both(self, draw: Callable[[str], Drawn], name: str) -> None:
        drawn, guided = draw(name), [True] * 4 + [False] * 4
        found = drawn(guidance_interval=(0, 0.5), extrapolation_interval=2, **DETERMINISTIC[name])
        assert drawn.rows == [1, 1] * 3 + [1] * 3
        evaluated = [True, True, True, False, True, False, True, True]
        expected = REFERENCES[name](drawn, guided, evaluated, 1)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)

    def test_the_decoder_is_guided_in_its_own_interval(self, draw: Callable[[str], Drawn]) -> None:
        drawn = draw("wuerstchen")
        drawn(num_inference_steps=4, decoder_guidance_scale=2.0, guidance_interval=(0, 0.5))
        assert [len(each["x"]) for each in drawn.watched.calls["decoder"]] == [1, 1, 1, 1, 1, 1]
        assert drawn.rows == [1, 1] * 4 + [1] * 4

    def test_an_init_image_counts_from_the_first_of_all_steps(self, draw: Callable[[str], Drawn]) -> None:
        drawn = draw("sdxl")
        latents = np.zeros((1, 4, 8, 8), np.float32)
        drawn(image=latents, strength=0.5, guidance_interval=(0.5, 0.75), width=None, height=None)
        assert drawn.rows == [1, 1] * 2 + [1] * 2
        drawn(image=latents, strength=0.5, guidance_interval=(0, 0.5), width=None, height=None)
        assert drawn.rows == [1] * 4


class TestExtrapolation:
    def test_first_order_is_exact_on_a_line(self) -> None:
        values = [(step, np.full((2, 3), 1.5 * step - 4, np.float32)) for step in (3, 5)]
        np.testing.assert_allclose(extrapolate(values, 7), np.full((2, 3), 6.5), rtol=1e-6)

    def test_second_order_is_exact_on_a_parabola_of_uneven_steps(self) -> None:
        def value(step: int) -> Array:
            return np.full((2,), 0.5 * step**2 - 3 * step + 1, np.float32)

        known = [(step, value(step)) for step in (2, 3, 6)]
        np.testing.assert_allclose(extrapolate(known, 9), value(9), rtol=1e-5)
        assert abs(extrapolate(known[1:], 9) - value(9)).max() > 1  # a line is not

    def test_outputs_are_evaluated_or_extrapolated(self) -> None:
        plan = EvaluationPlan((False,) * 7, (True, True, True, False, True, False, True), order=2)
        outputs, calls = Outputs(plan, with_text=lambda rows: rows), []

        def evaluate(index: int) -> Array:
            calls.append(index)
            return np.array([index**2], np.float32)

        found = [outputs.at(index, lambda _guided, index=index: evaluate(index)) for index in range(7)]  # type: ignore[misc]
        assert calls == [0, 1, 2, 4, 6]
        np.testing.assert_allclose(np.concatenate(found), np.arange(7.0) ** 2, rtol=1e-5)


def planned(total: int, *, guided: bool = True, begin: int = 0, **given: Any) -> EvaluationPlan:
    request, span = EvaluationRequest(**given), StepSpan(begin, total, total)
    plan = plan_evaluations(request, span, guided=guided)
    return plan_extrapolation(plan, request, span, "DDIMScheduler", Output())


class TestPlan:
    def test_the_interval_holds_its_start_and_not_its_end(self) -> None:
        assert planned(10, guidance_interval=(0.3, 0.7)).guided == (False,) * 3 + (True,) * 4 + (False,) * 3
        for tenth in range(10):  # whatever the rounding of tenths
            plan = planned(10, guidance_interval=(tenth / 10, (tenth + 1) / 10))
            assert [index for index, guided in enumerate(plan.guided) if guided] == [tenth]

    def test_the_share_of_the_work(self) -> None:
        assert planned(20).rows == 40
        assert planned(20, guidance_interval=(0.2, 0.6)).rows == 28
        assert planned(20, extrapolation_interval=2).rows == 24
        assert planned(20, guided=False, extrapolation_interval=3).rows == 9

    def test_where_guidance_begins_its_first_outputs_are_evaluated(self) -> None:
        plan = planned(12, guidance_interval=(0.5, 1.0), extrapolation_interval=3, extrapolation_order=2)
        assert [index for index, evaluated in enumerate(plan.evaluated) if evaluated] == [0, 1, 2, 5, 6, 7, 8, 11]

    def test_each_evaluation_of_a_step_is_guided_alike(self) -> None:
        plan = plan_evaluations(EvaluationRequest(guidance_interval=(0.5, 1)), StepSpan(0, 7, 4, 2), guided=True)
        assert plan.guided == (False,) * 4 + (True,) * 3


class TestErrors:
    @pytest.mark.parametrize(
        "value", ["", "0.2", "0.2,0.4,0.6", "0.5,0.5", "0.8,0.2", "a,b", "-0.1,1", (0, 2), (0,), 3, None, ("nan", 1)]
    )
    def test_no_interval(self, value: Any) -> None:
        with pytest.raises(RequestError, match=r"guidance_interval is .*; give two fractions of the steps"):
            check_interval("guidance_interval", value)

    @pytest.mark.parametrize("value", ["0.2,0.8", " 0.2 , 0.8 ", (0.2, 0.8), [0.2, 0.8]])
    def test_intervals(self, value: Any) -> None:
        assert check_interval("guidance_interval", value) == (0.2, 0.8)

    def test_an_interval_without_a_step(self, draw: Callable[[str], Drawn]) -> None:
        for name in ("sdxl", "wuerstchen"):
            with pytest.raises(RequestError, match="in which none of the 8 steps begins"):
                draw(name)(guidance_interval=(0.26, 0.3))

    def test_a_sampler_of_two_evaluations(self, draw: Callable[[str], Drawn]) -> None:
        with pytest.raises(RequestError, match="HeunDiscreteScheduler evaluates the model more than once in a step"):
            draw("sdxl")(scheduler="heun", extrapolation_interval=2)

    def test_an_order_alone(self, draw: Callable[[str], Drawn]) -> None:
        with pytest.raises(RequestError, match="extrapolation_order needs extrapolation_interval"):
            draw("pixart")(extrapolation_order=2)

    def test_what_has_no_effect_is_said(self, draw: Callable[[str], Drawn]) -> None:
        for name, scale in (("sdxl", "guidance_scale"), ("wuerstchen", "prior_guidance_scale")):
            pipe, arguments = draw(name).pipe, {**draw(name).arguments, scale: 0.0}
            warnings = pipe(PROMPT, seed=1, guidance_interval=(0, 0.5), **arguments).warnings
            assert "guidance_interval was ignored: it takes a guidance scale above 1" in warnings
        few = {**draw("sdxl").arguments, "num_inference_steps": 3}
        warnings = draw("sdxl").pipe(PROMPT, seed=1, extrapolation_interval=2, **few).warnings
        assert "extrapolation_interval was ignored: 3 steps are too few" in warnings
