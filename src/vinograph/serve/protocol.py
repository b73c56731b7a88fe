"""uvicorn's HTTP protocol, with an end to connections that come to nothing."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

WAITING_SECONDS = 30  # for a whole request head, and for a client that takes nothing of its response


class BoundedProtocol(H11Protocol):
    """Closes connections that bring no whole request head in time, or whose client takes nothing.

    A client that goes on sending a body that was refused counts as one that brings no head.
    """

    _timer: asyncio.TimerHandle | None = None
    _unsent = 0  # bytes when the timer was started
    _stalled = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Take bytes of the client."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """A response was sent, as far as this process is concerned."""
        self._stop_watching()
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        """The client is slower than the response."""
        super().pause_writing()
        self._stalled = True
        self._watch()

    def resume_writing(self) -> None:
        """The client has taken what was sent."""
        super().resume_writing()
        self._stalled = False
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed."""
        super().connection_lost(exc)
        self._stop_watching()

    def _watch(self) -> None:
        """Start the timer where it is the client's turn, and stop it where it is ours."""
        if self._answering and not self._stalled:
            self._stop_watching()
        elif self._timer is None:
            self._unsent = self.transport.get_write_buffer_size()
            self._timer = self.loop.call_later(WAITING_SECONDS, self._waited)

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _stop_watching(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _waited(self) -> None:
        """Close the connection, unless its client takes a response, however slowly."""
        self._timer = None
        if 0 < self.transport.get_write_buffer_size() != self._unsent:
            self._watch()
        else:
            self.transport.abort()
