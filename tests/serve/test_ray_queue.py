"""The queue of replicas: what becomes of jobs, with a handle in place of Ray's that does what a test says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, TaskCancelledError
from ray.serve.exceptions import BackPressureError

from tests.serve.drawing_service import configuration, drawing, patiently, soon
from vinograph import DamagedModelError
from vinograph.serve import messages
from vinograph.serve.contract import (
    CancelledJobError,
    DeadlineError,
    DrainingError,
    Drawn,
    ModelUnavailableError,
    Progress,
    QueueFullError,
    Waiting,
    WorkerLostError,
)
from vinograph.serve.jobs import QueuedJob
from vinograph.serve.ray_queue import RayQueue
from vinograph.serve.ray_replica import ReplicaState
from vinograph.serve.service import DrawingService, NoMetrics

Script = Callable[[messages.Draw, "Response"], AsyncIterator[Any]]
STATE = ReplicaState("a", ("small",), 1000)


@dataclass
class Response:
    """A response of the handle, which ends where it is cancelled."""

    script: AsyncIterator[Any] | None = None
    stopped: asyncio.Event = field(default_factory=asyncio.Event)

    def cancel(self) -> None:
        """Cancel it, as Ray does: who reads it is told."""
        self.stopped.set()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        assert self.script is not None
        async for each in self.script:
            if self.stopped.is_set():
                raise TaskCancelledError
            if isinstance(each, Exception):
                raise each
            yield messages.pack(each)

    def __await__(self) -> Any:
        return asyncio.sleep(0, messages.pack(STATE)).__await__()


@dataclass
class Drawers:
    """A handle: each request is answered by the next script, the last one again and again."""

    scripts: list[Script]
    drawn: list[messages.Draw] = field(default_factory=list)

    @property
    def draw(self) -> Any:
        """The method that draws."""
        return self

    @property
    def state(self) -> Any:
        """The method that tells of the replica."""
        return _State()

    def options(self, *, stream: bool) -> Drawers:
        """The handle itself."""
        assert stream
        return self

    def remote(self, packed: bytes) -> Response:
        """Draw."""
        job = messages.unpack(packed[messages.SIZE.size :])
        self.drawn.append(job)
        response = Response()
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        response.script = script(job, response)
        return response


class _State:
    def remote(self) -> Response:
        return Response()


def part(job: messages.Draw, number: int) -> messages.PartDone:
    picture = messages.EncodedPicture(b"png", number, 8, 8, "")
    return messages.PartDone(job.job, messages.Drawings((picture,), {"seed": number}, {"unet": 1.0}))


async def draws(job: messages.Draw, _: Response) -> AsyncIterator[Any]:
    """All pictures."""
    yield STATE
    yield messages.StepDone(job.job, 0, "unet", 1, 2, None, 1.5)
    await asyncio.sleep(0.05)  # a slow reader gets the latest event alone
    for number in range(len(job.variants)):
        yield part(job, number)
    yield messages.Ended(job.job, messages.Drawings(), complete=True)


async def hangs(job: messages.Draw, response: Response) -> AsyncIterator[Any]:
    """One picture, and then no other until it is cancelled."""
    yield STATE
    yield part(job, 0)
    await response.stopped.wait()
    yield None


async def waits(_: messages.Draw, response: Response) -> AsyncIterator[Any]:
    """Nothing: no replica is free."""
    await response.stopped.wait()
    yield None


async def dies(job: messages.Draw, _: Response) -> AsyncIterator[Any]:
    """A step, and then the replica is gone."""
    yield STATE
    yield part(job, 0)
    yield ActorDiedError()


async def full(_: messages.Draw, __: Response) -> AsyncIterator[Any]:
    """Ray takes no more."""
    yield BackPressureError(num_queued_requests=4, max_queued_requests=4)


async def cannot_open(job: messages.Draw, _: Response) -> AsyncIterator[Any]:
    """The model is damaged."""
    yield STATE
    yield messages.Failed(job.job, messages.SentError.of(DamagedModelError("it is cut short")), opening=True)


@contextlib.asynccontextmanager
async def service(drawers: Drawers, monkeypatch: pytest.MonkeyPatch, **limits: Any) -> AsyncIterator[DrawingService]:
    """A service whose queue has this handle."""
    monkeypatch.setattr(RayQueue, "_count", lambda _: (1, ""))
    queue = RayQueue(drawers, "vinograph", NoMetrics(), "small")
    running = DrawingService(configuration(**limits), queue=queue)
    await running.start()
    try:
        yield running
    finally:
        await running.close(0)


def scenario(
    monkeypatch: pytest.MonkeyPatch, scripts: Sequence[Script], test: Callable[..., Awaitable[None]], **limits: Any
) -> Drawers:
    """Run a test with a service of the scripts."""
    drawers = Drawers([*scripts])

    async def run() -> None:
        async with service(drawers, monkeypatch, **limits) as running:
            await patiently(test(running))

    asyncio.run(run())
    return drawers


async def failure(job: QueuedJob) -> Exception:
    """The error that a job ends with."""
    try:
        await job.result()
    except Exception as error:
        return error
    raise AssertionError("it did not fail")


def test_a_job_is_drawn_and_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(running: DrawingService) -> None:
        await soon(lambda: running.ready)
        job = await running.submit(drawing(num_images_per_prompt=3))
        events = [event async for event in job.events()]
        assert any(isinstance(event, Progress) and event.seconds_left == 1.5 for event in events)
        drawn = events[-1]
        assert isinstance(drawn, Drawn)
        assert [each.seed for each in drawn.pictures] == [0, 1, 2]
        assert (drawn.timings, drawn.interrupted) == ({"unet": 3.0}, False)
        assert (running.worker_memory, running.running, running.waiting) == (1000, None, [])

    scenario(monkeypatch, [draws], test)


def test_a_lost_replica_s_job_is_drawn_by_another_with_the_same_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(running: DrawingService) -> None:
        job = await running.submit(drawing(seed=None, num_images_per_prompt=2))
        assert len((await job.result()).pictures) == 2

    drawers = scenario(monkeypatch, [dies, draws], test)
    assert drawers.drawn[0] == drawers.drawn[1]


def test_a_job_that_ends_two_replicas_ends_no_third(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(running: DrawingService) -> None:
        assert isinstance(await failure(await running.submit(drawing())), WorkerLostError)
        await failure(await running.submit(drawing()))
        with pytest.raises(ModelUnavailableError, match="the replica that drew with it ended"):
            await running.submit(drawing())

    assert len(scenario(monkeypatch, [dies], test).drawn) == 4


def test_a_cancelled_job_is_cancelled_in_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(running: DrawingService) -> None:
        job = await running.submit(drawing())
        await soon(lambda: running.running is job)
        job.cancel()
        assert isinstance(await failure(job), CancelledJobError)
        assert (running.running, running.under_way_count) == (None, 0)
        following = await running.submit(drawing())
        assert (await following.result()).pictures

    scenario(monkeypatch, [hangs, draws], test)


def test_an_interrupted_job_gives_what_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(running: DrawingService) -> None:
        job = await running.submit(drawing(num_images_per_prompt=3))
        await soon(lambda: running.running is job)
        await asyncio.sleep(0.05)
        job.interrupt()
        drawn = await job.result()
        assert (len(drawn.pictures), drawn.interrupted) == (1, True)

    scenario(monkeypatch, [hangs], test)


def test_places_and_the_bound_of_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(running: DrawingService) -> None:
        drawn = await running.submit(drawing())
        await soon(lambda: running.running is drawn)
        waiting = [await running.submit(drawing()) for _ in range(2)]
        assert [job.latest for job in waiting] == [Waiting(1), Waiting(2)]
        with pytest.raises(QueueFullError) as refused:
            await running.submit(drawing())
        assert refused.value.retry_after >= 1
        waiting[0].cancel()
        assert waiting[1].latest == Waiting(1)

    scenario(monkeypatch, [hangs, waits], test, queue=2)


def test_ray_s_own_bound_is_a_full_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(running: DrawingService) -> None:
        error = await failure(await running.submit(drawing()))
        assert isinstance(error, QueueFullError)
        assert error.retry_after >= 1

    scenario(monkeypatch, [full], test)


@pytest.mark.parametrize(("script", "where"), [(hangs, "drawn"), (waits, "waiting")])
def test_a_deadline_ends_a_job(script: Script, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(running: DrawingService) -> None:
        error = await failure(await running.submit(drawing(deadline=0.2)))
        assert isinstance(error, DeadlineError)
        assert f"it was still {where}" in str(error)

    scenario(monkeypatch, [script], test)


def test_a_model_that_can_not_be_loaded_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(running: DrawingService) -> None:
        error = await failure(await running.submit(drawing()))
        assert isinstance(error, ModelUnavailableError)
        assert "it is cut short" in str(error)
        assert (await running.models())[0].problem == "it is cut short"

    scenario(monkeypatch, [cannot_open], test)


def test_the_end_lets_the_drawing_under_way_finish(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = asyncio.Event()

    async def slow(job: messages.Draw, response: Response) -> AsyncIterator[Any]:
        yield STATE
        await go_on.wait()
        async for each in draws(job, response):
            yield each

    async def test(running: DrawingService) -> None:
        drawn = await running.submit(drawing())
        await soon(lambda: running.running is drawn)
        waiting = await running.submit(drawing())
        closing = asyncio.create_task(running.close(60))
        assert isinstance(await failure(waiting), DrainingError)
        with pytest.raises(DrainingError):
            await running.submit(drawing())
        go_on.set()
        assert (await drawn.result()).model == "small"
        await closing

    scenario(monkeypatch, [slow, waits], test)


def test_the_end_of_the_grace_stops_the_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(running: DrawingService) -> None:
        drawn = await running.submit(drawing())
        await soon(lambda: running.running is drawn)
        await running.close(0)
        assert isinstance(await failure(drawn), DrainingError)

    scenario(monkeypatch, [hangs], test)
