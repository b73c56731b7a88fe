"""A page's queue, its prompt list and its live drawing, without a page and without a model."""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from PIL import Image

from vinograph.errors import RequestError
from vinograph.request import Request
from vinograph.result import Result
from vinograph.web import sessions as sessions_module
from vinograph.web.jobs import DrawRequest, Job, JobStatus, in_turn
from vinograph.web.live import Live
from vinograph.web.prompt_list import prompts_of
from vinograph.web.queue_list import MOST_QUEUED, PageQueue, QueuedRequest
from vinograph.web.queue_panel import rendered
from vinograph.web.sessions import SessionKey, Sessions
from vinograph.web.uploads import Uploads


def request(prompt: str) -> DrawRequest:
    return DrawRequest("model", "generate", {"prompt": prompt})


def prompts(queue: PageQueue) -> list[str]:
    return [str(each.draw_request.arguments["prompt"]) for each in queue.state.waiting]


RESULT = Result([Image.new("RGB", (8, 8))], (1,), Request(prompt=("a",)), {}, (), {}, "model")


@dataclass
class Drawer:
    """Draws when it is told to; ``ahead`` jobs of others come before each that is added."""

    ahead: int = 0
    jobs: list[Job] = field(default_factory=list)

    def add(self, job: Job) -> None:
        self.jobs.append(job)
        if self.ahead:
            job.update(place=self.ahead)

    def stop(self, job: Job) -> None:
        job.stop()
        if not job.status.ended:
            job.update(stopped=True, ended=True)

    def end(self) -> None: ...

    def finish(self) -> None:
        self.jobs[-1].update(place=0, results=(RESULT,), ended=True)


@pytest.fixture
def drawer() -> Drawer:
    return Drawer()


@pytest.fixture
def queue(drawer: Drawer) -> PageQueue:
    return PageQueue(drawer, Job)


def filled(queue: PageQueue, *texts: str) -> dict[str, QueuedRequest]:
    queue.add([request(text) for text in texts])
    return {str(each.draw_request.arguments["prompt"]): each for each in queue.state.waiting}


class TestOrder:
    def test_they_are_drawn_one_after_the_other(self, queue: PageQueue, drawer: Drawer) -> None:
        filled(queue, "a", "b")
        drawn = []
        for queued, job in queue.follow():
            drawn.append(queued.draw_request.arguments["prompt"])
            assert queue.state.running is queued
            if len(drawn) == 1:
                assert prompts(queue) == ["b"]
                queue.add([request("c")])
            drawer.finish()
            assert job.status.ended
        assert drawn == ["a", "b", "c"]
        assert len(queue) == 0
        assert len(drawer.jobs) == 3

    def test_only_one_follows(self, queue: PageQueue, drawer: Drawer) -> None:
        filled(queue, "a")
        first = queue.follow()
        next(first)
        assert list(queue.follow()) == []
        drawer.finish()
        assert list(first) == []
        filled(queue, "b")
        assert next(queue.follow())[0].draw_request.arguments["prompt"] == "b"

    def test_moving_and_removing(self, queue: PageQueue) -> None:
        there = filled(queue, "a", "b", "c")
        queue.move(there["c"].key, -1)
        assert prompts(queue) == ["a", "c", "b"]
        queue.move(there["a"].key, 1)
        assert prompts(queue) == ["c", "a", "b"]
        queue.move(there["c"].key, -1)
        queue.move(there["b"].key, 1)
        queue.move("nobody", 1)
        assert prompts(queue) == ["c", "a", "b"]
        assert queue.remove(there["a"].key) is there["a"]
        assert queue.remove(there["a"].key) is None
        assert prompts(queue) == ["c", "b"]
        assert queue.clear() == [there["c"], there["b"]]

    @pytest.mark.parametrize("how", ["down", "up", "remove"])
    def test_the_first_may_change_while_others_are_drawn(self, how: str) -> None:
        """Its job waits behind another visitor's, and gives up its place for the new first."""
        drawer = Drawer(ahead=2)
        queue = PageQueue(drawer, Job)
        there = filled(queue, "a", "b")
        following = queue.follow()
        queued, job = next(following)
        assert (queue.state.ahead, prompts(queue)) == (2, ["a", "b"])
        if how == "remove":
            queue.remove(there["a"].key)
        else:
            queue.move(there["a" if how == "down" else "b"].key, 1 if how == "down" else -1)
        assert job.status.ended
        assert not queue.draws(queued)
        assert prompts(queue) == (["b"] if how == "remove" else ["b", "a"])
        assert next(following)[0] == there["b"]

    def test_after_a_change_the_new_first_is_waited_for(self) -> None:
        """What is shown then says how many jobs come before it."""
        drawer = Drawer(ahead=2)
        queue = PageQueue(drawer, Job)
        there = filled(queue, "a", "b")
        following = queue.follow()
        next(following)
        queue.move(there["a"].key, 1)
        assert queue.state.ahead == 0
        follower = threading.Timer(0.05, next, [following])
        follower.start()
        queue.settle()
        assert (queue.state.ahead, prompts(queue)) == (2, ["b", "a"])
        follower.join()

    def test_nobody_is_waited_for_where_nothing_is_drawn(self, queue: PageQueue) -> None:
        queue.settle()
        filled(queue, "a")
        queue.settle()
        assert prompts(queue) == ["a"]

    def test_what_is_drawn_can_not_be_moved(self, queue: PageQueue) -> None:
        there = filled(queue, "a", "b")
        next(queue.follow())
        queue.move(there["a"].key, 1)
        queue.move(there["b"].key, -1)
        assert queue.remove(there["a"].key) is None
        assert prompts(queue) == ["b"]


class TestEnds:
    def test_stop_goes_on_with_the_next(self, queue: PageQueue) -> None:
        filled(queue, "a", "b")
        following = queue.follow()
        _, job = next(following)
        queue.stop()
        assert job.status.stopped
        assert next(following)[0].draw_request.arguments["prompt"] == "b"

    def test_a_follower_that_goes_away_stops_its_job(self, queue: PageQueue) -> None:
        filled(queue, "a", "b")
        following = queue.follow()
        _, job = next(following)
        following.close()  # type: ignore[attr-defined]
        assert job.status.stopped
        assert next(queue.follow())[0].draw_request.arguments["prompt"] == "b"

    def test_a_closed_one_draws_nothing(self, queue: PageQueue) -> None:
        filled(queue, "a", "b")
        following = queue.follow()
        _, job = next(following)
        queue.close()
        assert job.status.stopped
        assert list(following) == []
        assert len(queue) == 0

    def test_so_many_wait_at_most(self, queue: PageQueue) -> None:
        filled(queue, *map(str, range(MOST_QUEUED - 1)))
        with pytest.raises(RequestError, match="takes 50 requests, and has room for 1; these are 2"):
            queue.add([request("a"), request("b")])
        queue.add([request("a")])


class TestSessions:
    def test_so_many_of_all_pages(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sessions_module, "_MOST_WAITING", 3)
        sessions = Sessions(Drawer(), Uploads(tmp_path))
        one, other = SessionKey("one", "page"), SessionKey("other", "page")
        sessions.enqueue(one, request("a"), request("b"))
        sessions.begin(other, request("c"))
        for ask in (sessions.enqueue, sessions.begin):
            with pytest.raises(RequestError, match="queued already; try again later"):
                ask(SessionKey("third", "page"), request("d"))
        sessions.close(one)
        sessions.enqueue(other, request("d"))

    def test_files_of_what_waits_stay(self, tmp_path: Path) -> None:
        sessions = Sessions(Drawer(), Uploads(tmp_path))
        key = SessionKey("one", "page")
        session = sessions.of(key)
        file = session.write(Image.new("RGB", (8, 8)), name="init.png")
        first, second = (DrawRequest("model", "generate", {"prompt": text, "image": str(file)}) for text in "ab")
        sessions.enqueue(key, first, second)
        following = session.queue.follow()
        _, job = next(following)
        job.update(ended=True)
        session.discard(first)
        assert file.exists()
        session.queue.clear()
        session.discard(second)
        assert not file.exists()


class TestTurns:
    @pytest.mark.parametrize(
        ("waiting", "served", "wanted"),
        [
            ("aaab", "", "abaa"),
            ("aaab", "a", "baaa"),
            ("aabbc", "ab", "cabab"),
            ("ab", "ab", "ab"),
            ("ab", "ba", "ba"),
        ],
    )
    def test_visitors_take_them(self, waiting: str, served: str, wanted: str) -> None:
        jobs = [Job(visitor=each) for each in waiting]
        assert "".join(each.visitor for each in in_turn(jobs, served)) == wanted


class TestLive:
    def test_the_newest_replaces_the_others(self, drawer: Drawer) -> None:
        drawer.ahead = 1
        live = Live(drawer, Job)
        first = live.draw(live.begin(), request("a"))
        assert next(first).place == 1
        stale = live.begin()
        newest = live.begin()
        assert list(first) == []
        assert list(live.draw(stale, request("ab"))) == []
        last = live.draw(newest, request("abc"))
        next(last)
        drawer.finish()
        assert [each.results for each in last] == [(RESULT,)]
        assert [job.draw_requests[0].arguments["prompt"] for job in drawer.jobs] == ["a", "abc"]
        assert live.picture is not None
        assert live.picture.draw_request.arguments["prompt"] == "abc"

    def test_typing_fast_leaves_one_job(self, drawer: Drawer) -> None:
        """Requests come in threads of their own, in any order; all but the newest end."""
        live = Live(drawer, Job)
        tickets = [live.begin() for _ in range(20)]
        seen: list[JobStatus] = []
        draws = [
            threading.Thread(target=lambda ticket=ticket, text=text: seen.extend(live.draw(ticket, request(text))))
            for ticket, text in zip(tickets, map(str, itertools.count()), strict=False)
        ]
        for each in draws:
            each.start()
        for each in draws[:-1]:
            each.join()
        while not drawer.jobs:
            pass
        drawer.finish()
        draws[-1].join()
        assert [job.draw_requests[0].arguments["prompt"] for job in drawer.jobs] == ["19"]
        assert seen[-1].results

    def test_a_closed_one_draws_nothing(self, drawer: Drawer) -> None:
        live = Live(drawer, Job)
        following = live.draw(live.begin(), request("a"))
        next(following)
        live.close()
        assert drawer.jobs[0].status.stopped
        assert list(following) == []
        assert list(live.draw(live.begin(), request("b"))) == []
        assert not live.waits


@pytest.fixture
def wildcards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VINOGRAPH_MODELS", str(tmp_path))
    (tmp_path / "wildcards").mkdir()
    (tmp_path / "wildcards" / "pet.txt").write_text("cat\n{small|large} dog\n", encoding="utf-8")


@pytest.mark.usefixtures("wildcards")
class TestPromptList:
    def test_a_line_is_a_prompt(self) -> None:
        text = " a house \n\n# not this\na {red|blue} boat\na __pet__\n"
        wanted = ["a house", "a red boat", "a blue boat", "a cat", "a small dog", "a large dog"]
        assert prompts_of(text, 6) == wanted

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("", "the list has no prompt: give one a line"),
            ("# a", "the list has no prompt"),
            ("a\nb\n__pet__\nc", "the list stands for 6 prompts; give at most 5 at once"),
            ("{a|b}" * 90, "the list stands for [0-9,]+ prompts"),
            ("a\n__bird__", "^line 2: there is no wildcard __bird__; there is __pet__$"),
            ("{" * 20_000, "line 1 has 20000 braces; give at most 100"),
        ],
    )
    def test_what_it_refuses(self, text: str, words: str) -> None:
        with pytest.raises(RequestError, match=words):
            prompts_of(text, 5)


def test_texts_of_the_list_are_escaped(queue: PageQueue) -> None:
    filled(queue, "<b>&\"'", "b")
    html = rendered(queue.state)
    assert "<b>" not in html
    assert "&lt;b&gt;&amp;&quot;" in html
    assert html.count("disabled") == 2
