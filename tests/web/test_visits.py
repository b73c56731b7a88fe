"""What open pages keep and wait for, within limits."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vinograph import Pipeline
from vinograph.errors import RequestError
from vinograph.web import visits as module
from vinograph.web.drawing import Line, Order
from vinograph.web.models import Models
from vinograph.web.uploads import Uploads
from vinograph.web.visits import Visits, Who


@pytest.fixture
def models(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Models:
    monkeypatch.setenv("VINOGRAPH_MODELS", str(tmp_path / "models"))
    return Models([str(tiny_bundle)], "CPU")


@pytest.fixture
def visits(models: Models, tmp_path: Path) -> Iterator[Visits]:
    line = Line(models)
    yield Visits(line, Uploads(tmp_path))
    line.end()


@pytest.fixture
def order(tiny_bundle: Path) -> Order:
    return Order(str(tiny_bundle), "generate", {"prompt": "a red house", "seed": 7})


def held(order: Order, opened: threading.Event) -> Order:
    """The same drawing, held within its first step until that is opened."""

    def hold(*_: Any) -> dict[str, Any]:
        opened.wait()
        return {}

    return Order(order.model, order.call, {**order.arguments, "prior_callback_on_step_end": hold})


def test_each_visitor_has_a_folder(visits: Visits, tmp_path: Path) -> None:
    one, other = Who("one", "page"), Who("other", "page")
    assert visits.of(one) is visits.of(one)
    assert visits.of(one).folder.parent != visits.of(other).folder.parent
    assert visits.of(one).folder.is_relative_to(tmp_path.resolve())
    assert "one" not in str(visits.of(one).folder.relative_to(tmp_path.resolve()))


def test_a_visitor_has_so_many_pages(visits: Visits) -> None:
    first, other = visits.of(Who("one", "first")), visits.of(Who("other", "page"))
    for index in range(16):
        visits.of(Who("one", str(index)))
    assert visits.of(Who("other", "page")) is other
    assert visits.of(Who("one", "first")) is not first


def test_all_have_so_many_pages(visits: Visits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_PAGES", 3)
    first = visits.of(Who("0", "page"))
    for index in range(1, 4):
        visits.of(Who(str(index), "page"))
    assert visits.of(Who("0", "page")) is not first


def test_so_many_drawings_wait(visits: Visits, order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_WAITING", 2)
    opened = threading.Event()
    jobs = [visits.begin(Who(name, "page"), held(order, opened)) for name in ("one", "other")]
    with pytest.raises(RequestError, match="2 drawings wait already; try again later"):
        visits.begin(Who("third", "page"), order)
    visits.stop(Who("other", "page"))
    third = visits.begin(Who("third", "page"), order)
    visits.stop(Who("one", "page"))
    opened.set()
    assert [list(job.follow())[-1].stopped for job in (*jobs, third)] == [True, True, False]


def test_pictures_go_where_they_take_too_much(
    visits: Visits, models: Models, tiny_bundle: Path, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = Pipeline.from_pretrained(tiny_bundle)(**order.arguments)
    visit = visits.of(Who("one", "page"))
    (first,) = visit.keep(models, order, result)
    size = first.file.stat().st_size
    monkeypatch.setattr(module, "_MOST_BYTES", int(2.5 * size))
    (second,) = visit.keep(models, order, result)
    (third,) = visit.keep(models, order, result)
    assert visit.pictures == [third, second]
    assert not first.file.parent.exists()
    monkeypatch.setattr(module, "_MOST_BYTES", 1)
    (last,) = visit.keep(models, order, result)
    assert visit.pictures == [last]


def test_what_was_not_drawn_from_goes(visits: Visits, order: Order, models: Models, tiny_bundle: Path) -> None:
    result = Pipeline.from_pretrained(tiny_bundle)(**order.arguments)
    visit = visits.of(Who("one", "page"))
    files = {name: str(visit.write(result.images[0], name=f"{name}.png")) for name in ("image", "mask_image")}
    started = Order(order.model, order.call, {**order.arguments, **files})
    visit.keep(models, started, result)
    visit.discard(started)
    assert all(Path(file).exists() for file in files.values())
    visit.pictures = []
    visit.discard(started)
    assert not any(Path(file).parent.exists() for file in files.values())


def test_a_page_that_was_closed_is_gone(visits: Visits, order: Order) -> None:
    who = Who("one", "page")
    opened = threading.Event()
    job = visits.begin(who, held(order, opened))
    visit = visits.of(who)
    visits.close(who)
    visits.close(who)
    opened.set()
    assert list(job.follow())[-1].stopped
    assert visits.of(who) is not visit
