"""The line of drawings, without a page: one at a time, in turn, stopped within a step, and never stuck."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vinograph.errors import RequestError
from vinograph.families.contract import Step
from vinograph.web.drawing import Job, Line, News, Order, _Pace, said
from vinograph.web.models import Models


@pytest.fixture
def line(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Line]:
    monkeypatch.setenv("VINOGRAPH_MODELS", str(tmp_path))
    line = Line(Models([str(tiny_bundle)], "CPU"))
    yield line
    line.end()


@pytest.fixture
def order(tiny_bundle: Path) -> Order:
    return Order(str(tiny_bundle), "generate", {"prompt": "a red house", "seed": 7})


class Gate:
    """A callback of the pipeline's that holds a drawing within its first step until it is opened."""

    def __init__(self) -> None:
        self.steps = 0
        self.reached = threading.Event()
        self.opened = threading.Event()

    def __call__(self, *_: Any) -> dict[str, Any]:
        self.steps += 1
        self.reached.set()
        self.opened.wait()
        return {}

    def before(self, order: Order, steps: int = 50) -> Order:
        told = {**order.arguments, "prior_num_inference_steps": steps, "prior_callback_on_step_end": self}
        return Order(order.model, order.call, told)


def ending(job: Job) -> News:
    return list(job.follow())[-1]


def test_it_is_drawn_with_previews_and_the_time_left(line: Line, order: Order) -> None:
    job = Job(order)
    line.add(job)
    news = list(job.follow())
    assert news[-1].ended
    assert [each.model for each in news[-1].results] == ["tiny"]
    assert any(each.preview is not None for each in news if not each.ended)
    assert not news[-1].stopped


def test_orders_of_one_job_are_drawn_in_one_turn(line: Line, order: Order) -> None:
    gate = Gate()
    pair, other = Job(gate.before(order, 1), order), Job(order)
    line.add(pair)
    gate.reached.wait()
    line.add(other)
    gate.opened.set()
    assert len(ending(pair).results) == 2
    assert len(ending(other).results) == 1


def test_the_others_wait_and_know_their_place(line: Line, order: Order) -> None:
    gate = Gate()
    first, second, third = Job(gate.before(order)), Job(order), Job(order)
    for job in (first, second, third):
        line.add(job)
    gate.reached.wait()
    assert [job.news.place for job in (first, second, third)] == [0, 1, 2]
    line.stop(second)
    assert second.news.stopped
    assert second.news.ended
    assert third.news.place == 1
    line.stop(first)
    gate.opened.set()
    assert ending(third).results


def test_a_stopped_drawing_does_no_further_step(line: Line, order: Order) -> None:
    gate = Gate()
    job = Job(gate.before(order))
    line.add(job)
    gate.reached.wait()
    line.stop(job)
    gate.opened.set()
    news = ending(job)
    assert (news.stopped, news.results, news.error) == (True, (), None)
    assert gate.steps == 1


def test_its_end_is_everybody_s(line: Line, order: Order) -> None:
    gate = Gate()
    first, second = Job(gate.before(order)), Job(order)
    for job in (first, second):
        line.add(job)
    gate.reached.wait()
    threading.Timer(0.1, gate.opened.set).start()
    line.end()
    assert first.news.stopped
    assert second.news.stopped
    assert gate.steps == 1


def test_a_failure_is_told_and_the_next_is_drawn(line: Line, order: Order, capsys: pytest.CaptureFixture[str]) -> None:
    def break_down(*_: Any) -> Any:
        raise LookupError("we forgot this")

    wrong = Job(Order(order.model, order.call, {**order.arguments, "seed": -1}))
    broken = Job(Order(order.model, order.call, {**order.arguments, "callback_on_step_end": break_down}))
    right = Job(order)
    for job in (wrong, broken, right):
        line.add(job)
    assert ending(right).results
    error, defect = wrong.news.error, broken.news.error
    assert isinstance(error, RequestError)
    assert said(error) == "seed is -1; give a whole number from 0 to 18446744073709551615"
    assert defect is not None
    assert said(defect) == "A defect of Vinograph stopped the drawing (LookupError). The terminal has the details."
    assert "we forgot this" in capsys.readouterr().err


def test_a_preview_is_seen_before_the_end(order: Order) -> None:
    """Though both came while nobody asked."""
    job = Job(order)
    following = job.follow()
    next(following)
    preview = Image.new("RGB", (1, 1))
    job.tell(preview=preview)
    job.tell(results=("result",), ended=True)
    assert [(each.preview is preview, each.ended) for each in following] == [(True, False), (True, True)]


def test_the_pace_counts_what_is_to_come(monkeypatch: pytest.MonkeyPatch) -> None:
    times: Iterator[float] = iter([10.0, 11.0, 12.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    pace = _Pace({"text": 1.0, "prior": 30.0, "decoder": 5.0, "vqgan": 0.5})
    assert pace.left(Step("prior", 1, 10)) is None
    assert pace.left(Step("prior", 2, 10)) == pytest.approx(8 * 1.0 + 5.5)
    assert pace.left(Step("prior", 3, 10)) == pytest.approx(7 * 1.0 + 5.5)
