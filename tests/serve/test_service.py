"""The service that draws: its queue, its pictures, and what it refuses."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.serve.drawing_service import (
    MODEL,
    SMALL,
    configuration,
    drawing,
    first_step,
    followed,
    long_drawing,
    patiently,
    pixels,
    places,
    running,
    soon,
)
from vinograph import Pipeline, RequestError
from vinograph.serve.contract import (
    CancelledJobError,
    DeadlineError,
    Drawn,
    Encoding,
    Progress,
    QueueFullError,
    UnknownModelError,
    Waiting,
)
from vinograph.serve.results import result_of
from vinograph.serve.service import DrawingService


class Counts:
    """Metrics that remember."""

    def __init__(self) -> None:
        self.steps = 0
        self.cancels = 0
        self.waits: list[float] = []
        self.stages: dict[str, float] = {}
        self.rejects: list[str] = []

    def waited(self, seconds: float) -> None:
        self.waits.append(seconds)

    def stage(self, model: str, stage: str, seconds: float) -> None:
        self.stages[f"{model} {stage}"] = seconds

    def step(self) -> None:
        self.steps += 1

    def cancelled(self) -> None:
        self.cancels += 1

    def rejected(self, reason: str) -> None:
        self.rejects.append(reason)


COUNTS = Counts()


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def shared_service(runner: asyncio.Runner) -> Iterator[DrawingService]:
    """A service that most tests here share."""
    settings = dataclasses.replace(configuration(), aliases={"dall-e-3": "small"})
    service = DrawingService(settings, COUNTS)
    runner.run(service.start())
    yield service
    runner.run(service.close(0))


@pytest.fixture
def service(runner: asyncio.Runner, shared_service: DrawingService) -> DrawingService:
    """The shared service, which has done with the jobs of other tests."""
    runner.run(soon(lambda: all(queue.free for queue in shared_service._queues.values())))
    return shared_service


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return Pipeline.from_pretrained(MODEL, precision="f32")


def drawn_alone(pipe: Pipeline, seed: int, **arguments: Any) -> Any:
    return np.asarray(pipe("a red house", seed=seed, **{**SMALL, **arguments}).images[0])


class TestPictures:
    def test_pictures_equal_those_of_a_pipeline_also_beside_others(
        self, runner: asyncio.Runner, service: DrawingService, pipe: Pipeline
    ) -> None:
        async def scenario() -> list[Drawn]:
            jobs = [await service.submit(drawing(seed=seed)) for seed in (3, 4, 5)]
            return list(await patiently(asyncio.gather(*(job.result() for job in jobs))))

        for seed, drawn in zip((3, 4, 5), runner.run(scenario()), strict=True):
            assert [each.seed for each in drawn.pictures] == [seed]
            np.testing.assert_array_equal(pixels(drawn)[0], drawn_alone(pipe, seed))

    def test_several_pictures_are_each_drawn_as_if_alone(
        self, runner: asyncio.Runner, service: DrawingService, pipe: Pipeline
    ) -> None:
        async def scenario() -> tuple[list[Any], Drawn]:
            job = await service.submit(drawing(seed=2**64 - 2, num_images_per_prompt=3))
            return await followed(job), await job.result()

        events, drawn = runner.run(patiently(scenario()))
        assert [each.seed for each in drawn.pictures] == [2**64 - 2, 2**64 - 1, 0]
        for picture, each in zip(pixels(drawn), drawn.pictures, strict=True):
            np.testing.assert_array_equal(picture, drawn_alone(pipe, each.seed))
        assert {event.picture for event in events if isinstance(event, Progress)} == {0, 1, 2}
        assert events[-1] is drawn
        assert drawn.request["num_images_per_prompt"] == 3
        assert drawn.request["seed"] == 2**64 - 2

    def test_an_init_image_and_a_mask_arrive_as_they_were_sent(
        self, runner: asyncio.Runner, service: DrawingService, pipe: Pipeline
    ) -> None:
        file = io.BytesIO()
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(file, "PNG")
        image = Image.open(file)
        mask = Image.fromarray(np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1)))
        arguments: dict[str, Any] = {"image": image, "mask_image": mask, "strength": 0.5}
        drawn = runner.run(patiently(_result(service, drawing(**arguments))))
        alone = pipe("a red house", seed=7, num_inference_steps=2, **arguments).images[0]
        np.testing.assert_array_equal(pixels(drawn)[0], np.asarray(alone))

    def test_without_a_seed_one_is_drawn_and_told(self, runner: asyncio.Runner, service: DrawingService) -> None:
        first = runner.run(patiently(_result(service, drawing(seed=None, num_images_per_prompt=2))))
        second = runner.run(patiently(_result(service, drawing(seed=None))))
        seeds = [each.seed for drawn in (first, second) for each in drawn.pictures]
        assert seeds[1] == seeds[0] + 1
        assert len({*seeds}) == 3

    @pytest.mark.parametrize(("kind", "quality"), [("png", None), ("jpeg", 60), ("webp", 60)])
    def test_pictures_are_encoded_as_asked_and_tell_nothing_unasked(
        self, kind: str, quality: int | None, runner: asyncio.Runner, service: DrawingService
    ) -> None:
        drawn = runner.run(patiently(_result(service, drawing(encoding=Encoding(kind, quality)))))
        picture = Image.open(io.BytesIO(drawn.pictures[0].data))
        assert picture.format == kind.upper()
        assert b"red house" not in drawn.pictures[0].data
        assert b"red house".decode().encode("utf-16-be") not in drawn.pictures[0].data

    def test_metadata_on_request_is_that_of_the_command_line(
        self, runner: asyncio.Runner, service: DrawingService, pipe: Pipeline
    ) -> None:
        drawn = runner.run(patiently(_result(service, drawing(encoding=Encoding(metadata=True)))))
        picture = Image.open(io.BytesIO(drawn.pictures[0].data))
        expected = pipe("a red house", seed=7, **SMALL).metadata(0)
        assert json.loads(picture.info["vinograph"]) == json.loads(json.dumps(expected))
        assert picture.info["parameters"] == drawn.pictures[0].infotext
        assert drawn.pictures[0].infotext.startswith("a red house\nSteps: 2, Sampler: ")

    def test_raw_pictures_make_a_result(self, runner: asyncio.Runner, service: DrawingService, pipe: Pipeline) -> None:
        async def scenario() -> Any:
            job = await service.submit(drawing(num_images_per_prompt=2, encoding=Encoding("raw")))
            return result_of(job, await job.result())

        result = runner.run(patiently(scenario()))
        expected = pipe("a red house", seed=7, num_images_per_prompt=2, **SMALL)
        assert result.request == expected.request
        assert result.seeds == expected.seeds
        assert result.metadata(1)["request"] == expected.metadata(1)["request"]
        np.testing.assert_array_equal(np.asarray(result.images[1]), drawn_alone(pipe, 8))

    def test_other_calls_of_the_family_draw_too(
        self, runner: asyncio.Runner, service: DrawingService, pipe: Pipeline
    ) -> None:
        picture = pipe("a red house", seed=7, **SMALL).images[0]
        asked = dataclasses.replace(drawing(call="reconstruct"), arguments={"image": picture})
        drawn = runner.run(patiently(_result(service, asked)))
        expected = pipe.reconstruct(picture)
        np.testing.assert_array_equal(pixels(drawn)[0], np.asarray(expected.images[0]))
        assert drawn.report == dict(expected.report)

    def test_a_call_without_pictures_is_refused(self, runner: asyncio.Runner, service: DrawingService) -> None:
        asked = dataclasses.replace(drawing(call="encode"), arguments={"image": Image.new("RGB", (64, 64))})
        with pytest.raises(RequestError, match="encode gives no pictures"):
            runner.run(service.submit(asked))


class TestQueue:
    def test_jobs_are_drawn_in_order_and_told_their_places(
        self, runner: asyncio.Runner, service: DrawingService
    ) -> None:
        async def scenario() -> None:
            long = await service.submit(long_drawing())
            await first_step(long)
            jobs = [await service.submit(drawing(seed=seed)) for seed in range(3)]
            assert service.running is long
            assert list(service.waiting) == jobs
            assert [job.latest for job in jobs] == [Waiting(1), Waiting(2), Waiting(3)]
            following = [asyncio.create_task(followed(job)) for job in jobs]
            await asyncio.sleep(0)
            order: list[int] = []

            async def noted(seed: int) -> None:
                await jobs[seed].result()
                order.append(seed)

            noting = [asyncio.create_task(noted(seed)) for seed in range(3)]
            long.cancel()
            events = await asyncio.gather(*following)
            assert [places(each) for each in events] == [[1, 0], [2, 1, 0], [3, 2, 1, 0]]
            await asyncio.gather(*noting)
            assert order == [0, 1, 2]
            assert service.running is None

        runner.run(patiently(scenario()))
        assert len(COUNTS.waits) >= 3
        assert COUNTS.stages.keys() >= {"small text", "small unet", "small vae"}

    def test_a_full_queue_refuses_at_once_and_says_when_to_come_again(
        self, runner: asyncio.Runner, service: DrawingService
    ) -> None:
        async def scenario() -> None:
            jobs = [await service.submit(long_drawing()) for _ in range(5)]
            with pytest.raises(QueueFullError, match="4 requests of 0 MB wait already") as caught:
                await service.submit(drawing())
            assert 1 <= caught.value.retry_after <= 600
            jobs[2].cancel()
            jobs.append(await service.submit(drawing()))
            for job in jobs:
                job.cancel()
            assert not service.waiting

        runner.run(patiently(scenario()))
        assert "full" in COUNTS.rejects

    def test_large_pictures_fill_a_queue_sooner(
        self, runner: asyncio.Runner, service: DrawingService, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("vinograph.serve.service._MOST_HELD", 300_000)

        async def scenario() -> None:
            sent: dict[str, Any] = {"image": Image.new("RGB", (256, 256)), "num_inference_steps": 4}  # 200 kB
            jobs = [await service.submit(each) for each in (long_drawing(), drawing(**sent))]
            with pytest.raises(QueueFullError, match="MB wait already"):
                await service.submit(drawing(**sent))
            jobs.append(await service.submit(drawing()))
            for job in jobs:
                job.cancel()

        runner.run(patiently(scenario()))

    def test_a_cancelled_job_that_waits_leaves_at_once(self, runner: asyncio.Runner, service: DrawingService) -> None:
        async def scenario() -> None:
            long, first, second = [await service.submit(long_drawing()) for _ in range(3)]
            cancels = COUNTS.cancels
            first.cancel()
            assert list(service.waiting) == [second]
            assert second.latest == Waiting(1)
            with pytest.raises(CancelledJobError):
                await first.result()
            first.cancel()
            assert COUNTS.cancels == cancels + 1
            second.cancel()
            long.cancel()

        runner.run(patiently(scenario()))

    def test_after_a_cancel_the_next_job_waits_for_no_more_than_a_step(
        self, runner: asyncio.Runner, service: DrawingService
    ) -> None:
        async def scenario() -> None:
            long = await service.submit(long_drawing())
            following = asyncio.create_task(followed(long))
            await first_step(long)
            following_job = await service.submit(drawing())
            steps = COUNTS.steps
            long.cancel()
            assert service.running is None
            await soon(lambda: service.running is following_job)
            assert COUNTS.steps - steps <= 1
            with pytest.raises(CancelledJobError):
                await following
            assert len((await following_job.result()).pictures) == 1

        runner.run(patiently(scenario()))

    def test_an_interrupted_job_gives_the_pictures_that_are_done(
        self, runner: asyncio.Runner, service: DrawingService, pipe: Pipeline
    ) -> None:
        async def scenario() -> Drawn:
            job = await service.submit(drawing(num_images_per_prompt=10, num_inference_steps=20))
            await soon(lambda: isinstance(job.latest, Progress) and job.latest.picture >= 1)
            job.interrupt()
            return await job.result()

        drawn = runner.run(patiently(scenario()))
        assert drawn.interrupted
        assert 1 <= len(drawn.pictures) < 10
        np.testing.assert_array_equal(pixels(drawn)[0], drawn_alone(pipe, 7, num_inference_steps=20))

    def test_an_interrupted_job_that_waits_gives_nothing(self, runner: asyncio.Runner, service: DrawingService) -> None:
        async def scenario() -> None:
            long, waiting = await service.submit(long_drawing()), await service.submit(drawing())
            waiting.interrupt()
            drawn = await waiting.result()
            assert (drawn.interrupted, drawn.pictures, drawn.request["seed"]) == (True, (), 7)
            assert not service.waiting
            long.interrupt()
            assert (await long.result()).pictures == ()

        runner.run(patiently(scenario()))

    def test_a_deadline_counts_from_the_submission(self, runner: asyncio.Runner, service: DrawingService) -> None:
        async def scenario() -> None:
            drawn = await service.submit(long_drawing(deadline=0.5))
            waiting = await service.submit(drawing(deadline=0.2))
            late = await service.submit(drawing())
            with pytest.raises(DeadlineError, match=r"within 0\.2 seconds: it was still waiting"):
                await waiting.result()
            with pytest.raises(DeadlineError, match=r"within 0\.5 seconds: it was still drawn"):
                await drawn.result()
            assert len((await late.result()).pictures) == 1

        runner.run(patiently(scenario()))
        assert COUNTS.rejects.count("deadline") == 2

    def test_previews_come_where_they_are_wanted_or_looked_at(
        self, runner: asyncio.Runner, service: DrawingService
    ) -> None:
        async def scenario() -> None:
            without = await service.submit(drawing())
            events = await followed(without)
            assert not [event for event in events if isinstance(event, Progress) and event.preview]
            wanted = await service.submit(drawing(previews=True))
            previews = [event.preview for event in await followed(wanted) if isinstance(event, Progress)]
            shown = [preview for preview in previews if preview]
            assert Image.open(io.BytesIO(shown[0])).format == "PNG"
            looked = await service.submit(long_drawing())
            await first_step(looked)
            assert looked.latest_preview is None
            await soon(lambda: looked.latest_preview is not None)
            looked.cancel()

        runner.run(patiently(scenario()))

    def test_a_slow_reader_gets_the_latest_events_alone(self, runner: asyncio.Runner, service: DrawingService) -> None:
        async def scenario() -> None:
            job = await service.submit(drawing(num_inference_steps=100, previews=True))
            events = job.events()
            seen: list[Any] = [await anext(events)]
            await job.result()
            seen += [event async for event in events]
            assert [type(event) for event in seen] == [Waiting, Progress, Drawn]
            assert seen[1].preview is not None

        runner.run(patiently(scenario()))


class TestChecks:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"height": 63}, "height is 63"),
            ({"num_images_per_prompt": 11}, "n: that is 11 pictures; here a request takes up to 10"),
            ({"num_images_per_prompt": 10**9}, "n is 1000000000"),
            ({"num_inference_steps": 1001}, "num_inference_steps is 1001"),
            ({"sampler": "no"}, "takes no sampler"),
            ({"image": "/etc/passwd"}, "image is a text; send the picture itself"),
            ({"strength": 2.0, "image": Image.new("RGB", (64, 64))}, "strength is 2.0"),
            ({"image": Image.new("RGB", (64, 64)), "strength": 0.2, "num_inference_steps": 2}, "strength"),
            ({"output_type": "np"}, "output_type is 'np'; the server answers with pictures: leave it out"),
            ({"encoding": Encoding("tiff")}, "the format is tiff; choose png, jpeg, webp"),
            ({"encoding": Encoding("jpeg", 101)}, "the quality is 101"),
            ({"adapters": {"../secret": 1.0}}, "there is no adapter '../secret'"),
            ({"call": "upscale"}, "call is 'upscale'"),
        ],
    )
    def test_a_wrong_request_is_refused_before_it_is_queued(
        self, arguments: dict[str, Any], message: str, runner: asyncio.Runner, service: DrawingService
    ) -> None:
        with pytest.raises(RequestError, match=message):
            runner.run(service.submit(drawing(**arguments, names={"num_images_per_prompt": "n"})))
        assert service.running is None
        assert not service.waiting

    def test_too_many_pixels_are_refused_with_a_size_that_would_do(self, runner: asyncio.Runner) -> None:
        async def scenario() -> None:
            async with running(configuration(pixels=100_000, steps=150)) as service:
                with pytest.raises(RequestError, match="steps is 151 steps; here a picture takes up to 150"):
                    await service.submit(drawing(num_inference_steps=151, names={"num_inference_steps": "steps"}))
                with pytest.raises(
                    RequestError, match="size: 512x256 is more than the 100,000 pixels taken here; 440x216"
                ):
                    await service.submit(drawing(width=512, height=256, names={"width": "size", "height": "size"}))
                with pytest.raises(RequestError, match="height: 512x512 is more"):
                    await service.submit(drawing(image=Image.new("RGB", (2000, 2000))))
                with pytest.raises(RequestError, match="512x512 is more"):
                    await service.submit(drawing(hires=2.0, width=256, height=256))

        runner.run(patiently(scenario()))

    def test_names_and_aliases_mean_models(self, runner: asyncio.Runner, service: DrawingService) -> None:
        async def scenario() -> None:
            for name in ("", "small", "dall-e-3", "gpt-image-1"):
                assert (await service.find(name)).name == "small"
            info, *_ = await service.models()
            assert (info.source, info.family, info.loaded, info.problem) == (MODEL, "sdxl", True, "")
            assert info.takes["height"] == 64
            assert info.sizes is not None
            assert info.sizes.maximum_size == 512
            assert await service.adapters() == []
            assert service.ready

        runner.run(patiently(scenario()))

    def test_strict_names_are_the_models_own(self, runner: asyncio.Runner) -> None:
        async def scenario() -> None:
            async with running(dataclasses.replace(configuration(), strict_models=True)) as service:
                assert (await service.find("")).name == "small"
                with pytest.raises(UnknownModelError, match="there is no model dall-e-3; there is small"):
                    await service.submit(drawing(model="dall-e-3"))

        runner.run(patiently(scenario()))


async def _result(service: DrawingService, asked: Any) -> Drawn:
    return await (await service.submit(asked)).result()
