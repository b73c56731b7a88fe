"""The queue of one page: requests that wait, in an order that its visitor may change."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from vinograph.errors import RequestError
from vinograph.web.jobs import Drawer, DrawRequest, Job

MOST_QUEUED = 50
"""Requests of one page that may wait."""

_LONGEST_SETTLING = 2.0  # seconds
_MOST_FAILED = 10  # failures that are listed; the oldest go


@dataclass(frozen=True)
class QueuedRequest:
    """A request with the ``key`` that its page calls it by; ``error`` says why it failed."""

    draw_request: DrawRequest
    key: str = field(default_factory=lambda: secrets.token_hex(4))
    error: str = ""


@dataclass(frozen=True)
class QueueState:
    """What a page shows of its queue.

    ``waiting`` are drawn in this order. Where ``ahead`` is above 0, so many jobs of other pages
    come before the first of them. ``running`` is drawn now.
    """

    waiting: tuple[QueuedRequest, ...] = ()
    failed: tuple[QueuedRequest, ...] = ()
    running: QueuedRequest | None = None
    ahead: int = 0


class PageQueue:
    """The requests that one page waits for. Any thread may call it.

    Only the first request is a job in the server's queue, so that pages take turns however many
    requests one of them has. Whoever iterates over :meth:`follow` has the requests drawn.
    """

    def __init__(self, drawer: Drawer, new_job: Callable[[DrawRequest], Job]) -> None:
        """Draw by ``drawer``; ``new_job`` makes the jobs."""
        self._drawer = drawer
        self._new_job = new_job
        self._waiting: list[QueuedRequest] = []
        self._failed: list[QueuedRequest] = []
        self._current: tuple[QueuedRequest, Job] | None = None
        self._following = self._closed = False
        self._lock = threading.RLock()  # a job that is stopped may end within the call
        self._begun = threading.Condition(self._lock)

    @property
    def state(self) -> QueueState:
        """The queue as it is now."""
        with self._lock:
            waiting, failed = tuple(self._waiting), tuple(self._failed)
            if self._current is None or self._current[1].status.ended:
                return QueueState(waiting, failed)
            request, job = self._current
            if ahead := job.status.place:
                return QueueState((request, *waiting), failed, None, ahead)
            return QueueState(waiting, failed, request)

    @property
    def draw_requests(self) -> list[DrawRequest]:
        """The requests that are not drawn yet."""
        with self._lock:
            drawn = self._current is not None and not self._current[1].status.ended
            current = [self._current[0]] if self._current is not None and drawn else []
            return [each.draw_request for each in (*current, *self._waiting)]

    def __len__(self) -> int:
        """The number of requests that are not drawn yet."""
        state = self.state
        return len(state.waiting) + (state.running is not None)

    def add(self, draw_requests: Sequence[DrawRequest]) -> None:
        """Put requests at the end.

        Raises:
            RequestError: the queue would be too long.
        """
        with self._lock:
            free = MOST_QUEUED - len(self.state.waiting)
            if len(draw_requests) > free:
                raise RequestError(
                    f"the queue of a page takes {MOST_QUEUED} requests, and has room for {free}; these are "
                    f"{len(draw_requests)}"
                )
            self._waiting += [QueuedRequest(each) for each in draw_requests]

    def remove(self, key: str) -> QueuedRequest | None:
        """Take out the request or the failure of that key; None where there is none, or it is drawn."""
        with self._lock:
            self._failed = [each for each in self._failed if each.key != key]
            found = next((each for each in self.state.waiting if each.key == key), None)
            if found is not None:
                if found not in self._waiting:
                    self._put_back()
                self._waiting.remove(found)
            return found

    def move(self, key: str, places: int) -> None:
        """Move the request of that key by so many places towards the end, or the begin where negative."""
        with self._lock:
            waiting = self.state.waiting
            index = next((index for index, each in enumerate(waiting) if each.key == key), None)
            if index is None or not 0 <= (target := index + places) < len(waiting):
                return
            if 0 in (index, target):
                self._put_back()
            at = self._waiting.index(waiting[index])
            self._waiting.insert(at + places, self._waiting.pop(at))

    def _put_back(self) -> None:
        """Where the first request waits as a job, make it an ordinary one of the list again."""
        if self._current is not None and self.state.ahead:
            request, job = self._current
            self._current = None
            self._waiting.insert(0, request)
            self._drawer.stop(job)

    def settle(self) -> None:
        """Wait until the follower has begun with the first request, as it does at once after a change."""
        with self._begun:
            self._begun.wait_for(
                lambda: not self._following or not self._waiting or self._current is not None, timeout=_LONGEST_SETTLING
            )

    def clear(self) -> list[QueuedRequest]:
        """Take out all that wait, and forget the failures."""
        with self._lock:
            self._put_back()
            removed, self._waiting, self._failed = self._waiting, [], []
            return removed

    def stop(self) -> None:
        """Stop the request that is drawn; the next one follows."""
        with self._lock:
            job = None if self._current is None else self._current[1]
        if job is not None:
            self._drawer.stop(job)

    def close(self) -> None:
        """Stop and forget everything; nothing is drawn any more."""
        with self._lock:
            self._closed = True
            self.clear()
        self.stop()

    def fail(self, request: QueuedRequest, error: str) -> None:
        """Note why a request was not drawn."""
        with self._lock:
            self._failed = [*self._failed, QueuedRequest(request.draw_request, request.key, error)][-_MOST_FAILED:]

    def draws(self, request: QueuedRequest) -> bool:
        """Whether a request is the first still: one that was taken out, or moved, is no more."""
        with self._lock:
            return self._current is not None and self._current[0] is request

    def follow(self) -> Iterator[tuple[QueuedRequest, Job]]:
        """Have the requests drawn; yield each with its job, until none waits.

        Nothing is yielded where somebody else follows already. The caller follows the job before it
        asks for the next one.
        """
        with self._lock:
            if self._following:
                return
            self._following = True
        try:
            while (drawing := self._next()) is not None:
                yield drawing
                with self._lock:
                    if self._current is drawing:
                        self._current = None
        except BaseException:  # the follower went away, or nothing can be drawn
            self._abandon()
            raise

    def _next(self) -> tuple[QueuedRequest, Job] | None:
        """Begin with the first that waits; where there is none, the following ends with this look."""
        with self._lock:
            if self._closed or not self._waiting:
                self._following = False
                self._begun.notify_all()
                return None
            request = self._waiting.pop(0)
            self._current = drawing = request, self._new_job(request.draw_request)
            self._drawer.add(drawing[1])
            self._begun.notify_all()
            return drawing

    def _abandon(self) -> None:
        """Stop what is drawn; another follower may go on with the rest."""
        with self._lock:
            left, self._current, self._following = self._current, None, False
            self._begun.notify_all()
        if left is not None:
            self._drawer.stop(left[1])
