"""What open pages keep and wait for, within limits."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vinograph import Pipeline
from vinograph.errors import RequestError, ResourceError
from vinograph.web import sessions as module
from vinograph.web.gallery_store import GalleryStore
from vinograph.web.jobs import DrawRequest, Queue
from vinograph.web.model_pool import ModelPool
from vinograph.web.sessions import Session, SessionKey, Sessions
from vinograph.web.uploads import Uploads


@pytest.fixture
def models(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModelPool:
    monkeypatch.setenv("VINOGRAPH_MODELS", str(tmp_path / "models"))
    return ModelPool({str(tiny_bundle): {}}, "CPU")


@pytest.fixture
def sessions(models: ModelPool, tmp_path: Path) -> Iterator[Sessions]:
    queue = Queue(models)
    yield Sessions(queue, Uploads(tmp_path))
    queue.end()


@pytest.fixture
def draw_request(tiny_bundle: Path) -> DrawRequest:
    return DrawRequest(str(tiny_bundle), "generate", {"prompt": "a red house", "seed": 7})


def held(draw_request: DrawRequest, opened: threading.Event) -> DrawRequest:
    """The same drawing, held within its first step until that is opened."""

    def hold(*_: Any) -> dict[str, Any]:
        opened.wait()
        return {}

    return DrawRequest(
        draw_request.model, draw_request.call, {**draw_request.arguments, "prior_callback_on_step_end": hold}
    )


def test_each_visitor_has_a_folder(sessions: Sessions, tmp_path: Path) -> None:
    one, other = SessionKey("one", "page"), SessionKey("custom", "page")
    assert sessions.of(one) is sessions.of(one)
    assert sessions.of(one).folder.parent != sessions.of(other).folder.parent
    assert sessions.of(one).folder.is_relative_to(tmp_path.resolve())
    assert "one" not in str(sessions.of(one).folder.relative_to(tmp_path.resolve()))


def test_a_visitor_has_so_many_pages(sessions: Sessions) -> None:
    first, other = sessions.of(SessionKey("one", "first")), sessions.of(SessionKey("custom", "page"))
    for index in range(16):
        sessions.of(SessionKey("one", str(index)))
    assert sessions.of(SessionKey("custom", "page")) is other
    assert sessions.of(SessionKey("one", "first")) is not first


def test_all_have_so_many_pages(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_PAGES", 3)
    first = sessions.of(SessionKey("0", "page"))
    for index in range(1, 4):
        sessions.of(SessionKey(str(index), "page"))
    assert sessions.of(SessionKey("0", "page")) is not first


def test_so_many_drawings_wait(sessions: Sessions, draw_request: DrawRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_WAITING", 2)
    opened = threading.Event()
    jobs = [sessions.begin(SessionKey(name, "page"), held(draw_request, opened)) for name in ("one", "custom")]
    with pytest.raises(RequestError, match="2 jobs are queued already; try again later"):
        sessions.begin(SessionKey("third", "page"), draw_request)
    sessions.stop(SessionKey("custom", "page"))
    third = sessions.begin(SessionKey("third", "page"), draw_request)
    sessions.stop(SessionKey("one", "page"))
    opened.set()
    assert [list(job.follow())[-1].stopped for job in (*jobs, third)] == [True, True, False]


def test_pictures_go_where_they_take_too_much(
    sessions: Sessions, models: ModelPool, tiny_bundle: Path, draw_request: DrawRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = Pipeline.from_pretrained(tiny_bundle)(**draw_request.arguments)
    session = sessions.of(SessionKey("one", "page"))
    (first,) = session.add(models, draw_request, result)
    size = first.file.stat().st_size
    monkeypatch.setattr(module, "_MOST_BYTES", int(2.5 * size))
    (second,) = session.add(models, draw_request, result)
    (third,) = session.add(models, draw_request, result)
    assert session.pictures == [third, second]
    assert not first.file.parent.exists()
    monkeypatch.setattr(module, "_MOST_BYTES", 1)
    (last,) = session.add(models, draw_request, result)
    assert session.pictures == [last]


def test_what_was_not_drawn_from_goes(
    sessions: Sessions, draw_request: DrawRequest, models: ModelPool, tiny_bundle: Path
) -> None:
    result = Pipeline.from_pretrained(tiny_bundle)(**draw_request.arguments)
    session = sessions.of(SessionKey("one", "page"))
    files = {name: str(session.write(result.images[0], name=f"{name}.png")) for name in ("image", "mask_image")}
    started = DrawRequest(draw_request.model, draw_request.call, {**draw_request.arguments, **files})
    session.add(models, started, result)
    session.discard(started)
    assert all(Path(file).exists() for file in files.values())
    session.pictures = []
    session.discard(started)
    assert not any(Path(file).parent.exists() for file in files.values())


def test_a_page_that_was_closed_is_gone(sessions: Sessions, draw_request: DrawRequest) -> None:
    key = SessionKey("one", "page")
    opened = threading.Event()
    job = sessions.begin(key, held(draw_request, opened))
    session = sessions.of(key)
    sessions.close(key)
    sessions.close(key)
    opened.set()
    assert list(job.follow())[-1].stopped
    assert sessions.of(key) is not session


def drawn(models: ModelPool, tiny_bundle: Path, draw_request: DrawRequest, session: Session) -> Path:
    """The file of a picture that a session's page has drawn."""
    (picture,) = session.add(models, draw_request, Pipeline.from_pretrained(tiny_bundle)(**draw_request.arguments))
    return picture.file


def test_a_page_that_is_loaded_again_has_its_pictures(
    sessions: Sessions, models: ModelPool, tiny_bundle: Path, draw_request: DrawRequest
) -> None:
    one, other, again = (SessionKey(*names) for names in (("one", "1"), ("other", "1"), ("one", "2")))
    file = drawn(models, tiny_bundle, draw_request, sessions.of(one))
    assert sessions.reopen(again).pictures == []
    sessions.leave(one)
    assert sessions.reopen(other).pictures == []
    assert sessions.reopen(SessionKey("one", "3")).pictures[0].file == file
    assert file.exists()
    assert sessions.reopen(SessionKey("one", "4")).pictures == []


def test_one_that_is_not_loses_them(
    sessions: Sessions,
    models: ModelPool,
    tiny_bundle: Path,
    draw_request: DrawRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_RELOAD_SECONDS", 0.0)
    key = SessionKey("one", "page")
    file = drawn(models, tiny_bundle, draw_request, sessions.of(key))
    sessions.leave(key)
    for _ in range(500):
        if not file.exists():
            break
        time.sleep(0.01)
    assert not file.exists()
    assert sessions.reopen(SessionKey("one", "again")).pictures == []


def test_pictures_are_kept_in_the_gallery(
    models: ModelPool, tiny_bundle: Path, draw_request: DrawRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, store = Queue(models), GalleryStore(tmp_path / "gallery")
    try:
        session = Sessions(queue, Uploads(tmp_path), store).of(SessionKey("one", "page"))
        file = drawn(models, tiny_bundle, draw_request, session)
        (kept,) = (tmp_path / "gallery").glob("*.png")
        assert kept.read_bytes() == file.read_bytes()
        recalled = session.recall(replace(session.pictures[0], file=kept))
        assert recalled.file.is_relative_to(session.folder)

        def full(_: Path) -> None:
            raise ResourceError("the disk is full")

        monkeypatch.setattr(store, "add", full)
        drawn(models, tiny_bundle, draw_request, session)
        assert session.pictures[0].warnings[-1] == "This picture is not in the gallery: the disk is full"
    finally:
        queue.end()
