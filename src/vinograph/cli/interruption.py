"""Ctrl-C and SIGTERM, from the first instruction of a command to its last.

Either unwinds the stack, so that temporary files go. A signal may come while a package is imported, whose compiled
code turns the exception into one of its own; so what counts is that a signal came, not which exception ended the
command.
"""

from __future__ import annotations

import _thread
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any

_REPEATED = 1.0  # seconds in which a second signal is the first one over again, as `timeout` and terminals send it
_AGAIN = 0.05

_received = 0
_received_at = 0.0


def received() -> int:
    """The number of the signal that ends the command under way; 0 if none does."""
    return _received


class _Interrupted(KeyboardInterrupt):
    """Ctrl-C.

    An exact KeyboardInterrupt that passes through the code that `exec` runs, as dataclasses do while they are made,
    has Python end the process by the signal even if it is caught further out.
    """


class Interruptible:
    """Within it Ctrl-C and SIGTERM end the command.

    One that owns the process leaves both to the system when it ends, so that the interpreter's own end is quiet, too.
    """

    def __init__(self, owns_process: bool) -> None:
        self._owns_process = owns_process
        self._before: dict[int, Any] = {}
        self._unraisable = sys.unraisablehook

    def __enter__(self) -> Interruptible:
        """Begin to listen, in the main thread; what was ignored by whoever started the process stays ignored."""
        global _received
        _received = 0
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, _interrupt)
            self._unraisable, sys.unraisablehook = sys.unraisablehook, self._raise_again
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening."""
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if self._owns_process else handler)
        if sys.unraisablehook == self._raise_again:
            sys.unraisablehook = self._unraisable

    def _raise_again(self, unraisable: Any) -> None:
        """Interrupt once more where an interruption came in code that can't raise, such as a finalizer."""
        if _received and issubclass(unraisable.exc_type, (KeyboardInterrupt, SystemExit)):
            # Later, since what is raised before this hook has returned is lost like the first one.
            threading.Timer(_AGAIN, _interrupt_again).start()
        else:
            self._unraisable(unraisable)


def _interrupt_again() -> None:
    global _received_at
    _received_at -= _REPEATED  # so that it is heard
    _thread.interrupt_main(signal.Signals(_received))


def _interrupt(number: int, _frame: FrameType | None) -> None:
    global _received, _received_at
    now = time.monotonic()
    if _received and now - _received_at < _REPEATED:
        return
    _received, _received_at = number, now
    if number == signal.SIGINT:
        raise _Interrupted
    raise SystemExit(128 + number)
