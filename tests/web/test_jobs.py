"""The queue of jobs, without a page: one at a time, in turn, stopped within a step."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vinograph.errors import RequestError
from vinograph.families.contract import Step
from vinograph.web.jobs import DrawRequest, Job, JobStatus, Queue, error_message
from vinograph.web.model_pool import ModelPool
from vinograph.web.step_progress import RemainingTime


@pytest.fixture
def queue(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Queue]:
    monkeypatch.setenv("VINOGRAPH_MODELS", str(tmp_path))
    queue = Queue(ModelPool({str(tiny_bundle): {}}, "CPU"))
    yield queue
    queue.end()


@pytest.fixture
def draw_request(tiny_bundle: Path) -> DrawRequest:
    return DrawRequest(str(tiny_bundle), "generate", {"prompt": "a red house", "seed": 7})


class Gate:
    """A callback that holds a drawing within its first step until the gate is opened."""

    def __init__(self) -> None:
        self.steps = 0
        self.reached = threading.Event()
        self.opened = threading.Event()

    def __call__(self, *_: Any) -> dict[str, Any]:
        self.steps += 1
        self.reached.set()
        self.opened.wait()
        return {}

    def before(self, draw_request: DrawRequest, steps: int = 50) -> DrawRequest:
        arguments = {**draw_request.arguments, "prior_num_inference_steps": steps, "prior_callback_on_step_end": self}
        return DrawRequest(draw_request.model, draw_request.call, arguments)


def ending(job: Job) -> JobStatus:
    return list(job.follow())[-1]


def test_it_is_drawn_with_previews_and_the_time_left(queue: Queue, draw_request: DrawRequest) -> None:
    job = Job(draw_request)
    queue.add(job)
    *earlier, last = job.follow()
    assert last.ended
    assert [each.model for each in last.results] == ["tiny"]
    assert any(each.preview is not None for each in earlier)
    assert not last.stopped


def test_requests_of_one_job_are_drawn_in_one_turn(queue: Queue, draw_request: DrawRequest) -> None:
    gate = Gate()
    pair, other = Job(gate.before(draw_request, 1), draw_request), Job(draw_request)
    queue.add(pair)
    gate.reached.wait()
    queue.add(other)
    gate.opened.set()
    assert len(ending(pair).results) == 2
    assert len(ending(other).results) == 1


def test_the_others_wait_and_know_their_place(queue: Queue, draw_request: DrawRequest) -> None:
    gate = Gate()
    first, second, third = Job(gate.before(draw_request)), Job(draw_request), Job(draw_request)
    for job in (first, second, third):
        queue.add(job)
    gate.reached.wait()
    assert [job.status.place for job in (first, second, third)] == [0, 1, 2]
    queue.stop(second)
    assert second.status.stopped
    assert second.status.ended
    assert third.status.place == 1
    queue.stop(first)
    gate.opened.set()
    assert ending(third).results


def test_visitors_take_turns(queue: Queue, draw_request: DrawRequest) -> None:
    """One who has three jobs does not hold up another."""
    gate = Gate()
    first = Job(gate.before(draw_request), visitor="one")
    queue.add(first)
    gate.reached.wait()
    own, other = [Job(draw_request, visitor="one") for _ in range(2)], Job(draw_request, visitor="other")
    for job in (*own, other):
        queue.add(job)
    assert [job.status.place for job in (other, *own)] == [1, 2, 3]
    queue.stop(first)
    gate.opened.set()
    assert all(ending(job).results for job in (*own, other))


def test_a_stopped_drawing_does_no_further_step(queue: Queue, draw_request: DrawRequest) -> None:
    gate = Gate()
    job = Job(gate.before(draw_request))
    queue.add(job)
    gate.reached.wait()
    queue.stop(job)
    gate.opened.set()
    status = ending(job)
    assert (status.stopped, status.results, status.error) == (True, (), None)
    assert gate.steps == 1


def test_its_end_is_everybody_s(queue: Queue, draw_request: DrawRequest) -> None:
    gate = Gate()
    first, second = Job(gate.before(draw_request)), Job(draw_request)
    for job in (first, second):
        queue.add(job)
    gate.reached.wait()
    threading.Timer(0.1, gate.opened.set).start()
    queue.end()
    assert first.status.stopped
    assert second.status.stopped
    assert gate.steps == 1


def test_a_failure_is_reported_and_the_next_job_is_drawn(
    queue: Queue, draw_request: DrawRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    def break_down(*_: Any) -> Any:
        raise LookupError("we forgot this")

    wrong = Job(DrawRequest(draw_request.model, draw_request.call, {**draw_request.arguments, "seed": -2}))
    broken = Job(
        DrawRequest(
            draw_request.model, draw_request.call, {**draw_request.arguments, "callback_on_step_end": break_down}
        )
    )
    right = Job(draw_request)
    for job in (wrong, broken, right):
        queue.add(job)
    assert ending(right).results
    error, defect = wrong.status.error, broken.status.error
    assert isinstance(error, RequestError)
    assert error_message(error) == (
        "seed is -2; give a whole number from 0 to 18446744073709551615, or -1 for a random one"
    )
    assert defect is not None
    assert (
        error_message(defect)
        == "A defect of Vinograph stopped the drawing (LookupError). The terminal has the details."
    )
    assert "we forgot this" in capsys.readouterr().err


def test_a_preview_is_seen_before_the_end(draw_request: DrawRequest) -> None:
    """Though both came while nobody asked."""
    job = Job(draw_request)
    following = job.follow()
    next(following)
    preview = Image.new("RGB", (1, 1))
    job.update(preview=preview)
    job.update(results=("result",), ended=True)
    assert [(each.preview is preview, each.ended) for each in following] == [(True, False), (True, True)]


def test_the_remaining_time_counts_later_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    times: Iterator[float] = iter([10.0, 11.0, 12.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    remaining = RemainingTime({"text": 1.0, "prior": 30.0, "decoder": 5.0, "vqgan": 0.5})
    assert remaining.after(Step("prior", 1, 10)) is None
    assert remaining.after(Step("prior", 2, 10)) == pytest.approx(8 * 1.0 + 5.5)
    assert remaining.after(Step("prior", 3, 10)) == pytest.approx(7 * 1.0 + 5.5)
