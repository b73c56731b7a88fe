"""What a server's drawings say of the next one: within a factor of two, or nothing."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import Image

from vinograph.families.contract import Step
from vinograph.request import Request
from vinograph.result import Result
from vinograph.web import fragments
from vinograph.web.estimates import Estimates, StageTime
from vinograph.web.jobs import DrawRequest, Job
from vinograph.web.model_pool import MAX_LOADED

DEFAULTS = {"prompt": "", "width": 1024, "height": 1024, "num_inference_steps": 30, "guidance_scale": 5.0}
FEW = {**DEFAULTS, "num_inference_steps": 1, "guidance_scale": 0.0}


def request(model: str = "model", **arguments: Any) -> DrawRequest:
    return DrawRequest(model, "generate", {"prompt": "a house", **arguments})


def stages(
    text: float, steps: int, unet: float, vae: float, *, preparing: float = 0.0, at_first: float = 0.0
) -> list[StageTime]:
    """A drawing whose steps take ``unet`` seconds each, and in which some time went into preparing."""
    per_step = unet if steps > 1 else None
    return [
        StageTime(text + at_first, 1, None),
        StageTime(steps * unet + preparing, steps, per_step),
        StageTime(vae, 1, None),
    ]


def seconds(estimates: Estimates, defaults: dict[str, Any] = DEFAULTS, **arguments: Any) -> float | None:
    found = estimates.of(request(**arguments), defaults)
    return None if found is None else found.seconds


@pytest.fixture
def estimates() -> Estimates:
    return Estimates()


class TestManySteps:
    def test_nothing_is_said_before_the_first_drawing(self, estimates: Estimates) -> None:
        assert seconds(estimates) is None
        estimates.record(request("another"), stages(1, 30, 5, 4))
        assert seconds(estimates) is None

    def test_the_first_one_says_what_the_steps_take(self, estimates: Estimates) -> None:
        """Its preparing is no part of what the second takes."""
        estimates.record(request(), stages(1, 30, 5, 4, preparing=200, at_first=20))
        assert seconds(estimates) == pytest.approx(155, rel=0.2)

    def test_the_second_one_says_it_exactly(self, estimates: Estimates) -> None:
        estimates.record(request(), stages(1, 30, 5, 4, preparing=200))
        for per_step in (5, 6, 5, 50, 5):
            estimates.record(request(seed=3, num_inference_steps=30), stages(1, 30, per_step, 4))
        assert seconds(estimates, prompt="another", seed=7) == pytest.approx(155)

    @pytest.mark.parametrize(
        ("arguments", "wanted"),
        [
            ({"num_inference_steps": 60}, 305),
            ({"num_inference_steps": 10}, 55),
            ({"width": 512}, 79),
            ({"num_images_per_prompt": 4}, 615),
            ({"num_images_per_prompt": 2, "num_inference_steps": 15}, 155),
            ({"width": 2048, "height": 2048, "num_images_per_prompt": 2}, None),  # too far away
            ({"guidance_scale": 1.0}, None),  # half of the work at every step, or not
            ({"guidance_scale": 9.0}, 155),
            ({"scheduler": "heun"}, None),
            ({"image": "init.png"}, None),
        ],
    )
    def test_other_sizes_and_steps_follow_from_it(
        self, estimates: Estimates, arguments: dict[str, Any], wanted: float | None
    ) -> None:
        for preparing in (200, 0):
            estimates.record(request(), stages(1, 30, 5, 4, preparing=preparing))
        found = seconds(estimates, **arguments)
        assert found is None if wanted is None else found == pytest.approx(wanted, rel=0.1)

    def test_the_nearest_drawing_counts(self, estimates: Estimates) -> None:
        for size, per_step in ((512, 1.0), (1024, 9.0)):  # attention costs more than pixels say
            for preparing in (20, 0):
                estimates.record(request(width=size, height=size), stages(1, 30, per_step, 1, preparing=preparing))
        assert seconds(estimates, width=576, height=576) == pytest.approx(39, rel=0.1)
        assert seconds(estimates, width=960, height=960) == pytest.approx(239, rel=0.1)


class TestOneStep:
    def test_the_first_one_says_nothing(self, estimates: Estimates) -> None:
        """How much of it was preparing, nobody knows."""
        estimates.record(request(), stages(5, 1, 4, 0.2))
        assert seconds(estimates, FEW) is None
        estimates.record(request(), stages(0.05, 1, 0.15, 0.1))
        assert seconds(estimates, FEW) == pytest.approx(0.3)

    def test_nor_do_steps_that_were_never_drawn(self, estimates: Estimates) -> None:
        for _ in range(2):
            estimates.record(request(), stages(0.05, 1, 0.15, 0.1))
        assert seconds(estimates, FEW, num_inference_steps=8) is None
        assert seconds(estimates, FEW, width=1280) == pytest.approx(0.335, rel=0.1)


class TestPreparing:
    def prepares(self, estimates: Estimates, **arguments: Any) -> bool:
        found = estimates.of(request(**arguments), DEFAULTS)
        assert found is not None
        return found.prepares

    def test_another_size_is_prepared_for(self, estimates: Estimates) -> None:
        for _ in range(2):
            estimates.record(request(), stages(1, 30, 5, 4))
        assert not self.prepares(estimates)
        assert not self.prepares(estimates, seed=7, num_inference_steps=20)
        assert self.prepares(estimates, width=768)
        assert self.prepares(estimates, num_images_per_prompt=2)

    def test_so_is_a_model_that_gave_up_its_memory(self, estimates: Estimates) -> None:
        for _ in range(2):
            estimates.record(request(), stages(1, 30, 5, 4))
        for index in range(MAX_LOADED - 1):
            estimates.record(request(f"other {index}"), stages(1, 1, 1, 1))
        assert not self.prepares(estimates)
        estimates.record(request("last"), stages(1, 1, 1, 1))
        assert self.prepares(estimates)


def test_a_job_is_measured_as_it_is_drawn(estimates: Estimates, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 30.0, 32.0, 34.0, 34.5])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    drawn = request(num_inference_steps=3)
    job = Job(drawn, watch=estimates.watch([drawn]))
    for step in (Step("text", 1, 1), *(Step("unet", index, 3) for index in (1, 2, 3)), Step("vae", 1, 1)):
        job.update(step=step)
    timings = {"text": 0.4, "unet": 24.0, "vae": 0.5}  # the first step took 20 s, which is preparing
    result = Result([Image.new("RGB", (8, 8))], (1,), Request(prompt=("a",)), timings, (), {}, "model")
    job.update(results=(result,), ended=True)
    assert seconds(estimates, num_inference_steps=3) == pytest.approx(6.4, rel=0.1)
    assert seconds(estimates, num_inference_steps=30) == pytest.approx(60.4, rel=0.1)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((0.31, False), "About 0.3 s"),
        ((9.96, False), "About 10 s"),
        ((155.0, True), "About 3 min once the model is ready for this size"),
    ],
)
def test_in_words(given: tuple[float, bool], words: str) -> None:
    assert fragments.estimate(*given) == f"<p>{words}</p>"
