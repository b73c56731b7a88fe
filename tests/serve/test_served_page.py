"""The page's jobs as the server's service draws them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vinograph import Pipeline, RequestError
from vinograph.serve.configuration import Configuration, ServedModel
from vinograph.serve.page import ServedModels, ServedQueue
from vinograph.serve.service import DrawingService
from vinograph.web.jobs import DrawRequest, Job, JobStatus

MODEL = "storybook-sdxl"
ARGUMENTS: Mapping[str, Any] = {
    "prompt": "a red house on a snowy hill at night",
    "seed": 7,
    "height": 128,
    "width": 128,
}
_PATIENCE = 60


@pytest.fixture(scope="module")
def service() -> Iterator[tuple[DrawingService, asyncio.AbstractEventLoop]]:
    """A service that runs in a thread of its own, as the page's threads see it."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def begin() -> DrawingService:
        started = DrawingService(Configuration((ServedModel("drawing", MODEL),)))
        await started.start()
        return started

    running = asyncio.run_coroutine_threadsafe(begin(), loop).result(_PATIENCE)
    yield running, loop
    asyncio.run_coroutine_threadsafe(running.close(0), loop).result(_PATIENCE)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def queue(service: tuple[DrawingService, asyncio.AbstractEventLoop]) -> ServedQueue:
    return ServedQueue(*service)


def followed(queue: ServedQueue, job: Job) -> list[JobStatus]:
    """All states of a job until its end."""
    queue.add(job)
    return list(job.follow())


def test_a_job_gives_the_result_of_the_same_call_in_python(queue: ServedQueue) -> None:
    (result,) = followed(queue, Job(DrawRequest("drawing", "generate", ARGUMENTS)))[-1].results
    alone = Pipeline.from_pretrained(MODEL)(**ARGUMENTS)
    assert np.array_equal(result.images[0], alone.images[0])
    assert (result.seeds, result.model, set(result.timings)) == (alone.seeds, alone.model, set(alone.timings))
    assert result.metadata(0) == alone.metadata(0)


def test_the_page_sees_steps_and_previews(queue: ServedQueue) -> None:
    seen = followed(queue, Job(DrawRequest("drawing", "generate", {**ARGUMENTS, "num_inference_steps": 12})))
    assert [each.step.total for each in seen if each.step][-1] > 0
    (preview, *_) = [each.preview for each in seen if each.preview is not None]
    assert np.asarray(preview).std() > 1


def test_a_job_of_two_requests_gives_two_results(queue: ServedQueue) -> None:
    requests = [DrawRequest("drawing", "generate", {**ARGUMENTS, "seed": seed}) for seed in (1, 2)]
    end = followed(queue, Job(*requests))[-1]
    assert [each.seeds for each in end.results] == [(1,), (2,)]


def test_a_stopped_job_ends_and_the_next_one_is_drawn(queue: ServedQueue) -> None:
    long = Job(DrawRequest("drawing", "generate", {**ARGUMENTS, "num_inference_steps": 150}))
    queue.add(long)
    for status in long.follow():
        if status.step is not None:
            queue.stop(long)
    assert long.status.stopped
    assert long.status.ended
    assert followed(queue, Job(DrawRequest("drawing", "generate", ARGUMENTS)))[-1].results


def test_a_mistake_is_the_jobs_error(queue: ServedQueue) -> None:
    end = followed(queue, Job(DrawRequest("drawing", "generate", {**ARGUMENTS, "num_inference_steps": 0})))[-1]
    assert isinstance(end.error, RequestError)
    assert "num_inference_steps" in str(end.error)


def test_reconstruction_has_its_measures(queue: ServedQueue, tmp_path: Path) -> None:
    file = tmp_path / "picture.png"
    Image.linear_gradient("L").convert("RGB").resize((128, 128)).save(file)
    (result,) = followed(queue, Job(DrawRequest("drawing", "reconstruct", {"image": file})))[-1].results
    assert result.report["psnr"] > 10
    assert result.images[0].size == (128, 128)


def test_models_have_the_names_of_the_configuration(
    service: tuple[DrawingService, asyncio.AbstractEventLoop],
) -> None:
    models = ServedModels(service[0].offered)
    assert models.references == ["drawing"]
    assert models.source("drawing") == MODEL
    assert models.device("drawing") == "CPU"
    assert models.examples("drawing")
    with pytest.raises(RequestError):
        models.get("another")
