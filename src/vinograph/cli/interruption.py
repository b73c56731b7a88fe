"""Ctrl-C and SIGTERM, from the first instruction of a command to its last.

Either unwinds the stack, so that temporary files go. A signal may come while a package is imported,
whose compiled code turns the exception into one of its own, or in code that drops every exception.
So what counts is that a signal came, not which exception ended the command; and one that was
dropped is raised again.
"""

from __future__ import annotations

import _thread
import contextlib
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any

_REPEATED = 1.0  # seconds in which a second signal is the first one over again, as `timeout` and terminals send it
_CHECKED = 0.2  # seconds after which is looked whether the exception was dropped


class _Interrupted(KeyboardInterrupt):
    """Ctrl-C.

    An exact KeyboardInterrupt that passes through the code that `exec` runs, as dataclasses do
    while they are made, has Python end the process by the signal even if it is caught further out.
    """


class _Terminated(SystemExit):
    """SIGTERM."""


class _State:
    """What is known of the signal that ends the command under way."""

    number = 0
    at = 0.0
    reported = False
    checking = False
    timer: threading.Timer | None = None


def received() -> int:
    """The number of the signal that ends the command under way; 0 if none does. Whoever asks reports it."""
    _State.reported = _State.number != 0
    return _State.number


class Interruptible:
    """Within it Ctrl-C and SIGTERM end the command.

    One that owns the process leaves both to the system when it ends, so that the interpreter's own
    end is quiet, too.
    """

    def __init__(self, owns_process: bool) -> None:
        self._owns_process = owns_process
        self._before: dict[int, Any] = {}
        self._unraisable = sys.unraisablehook

    def __enter__(self) -> Interruptible:
        """Begin to listen, in the main thread; what was ignored by whoever started the process stays ignored."""
        _State.number, _State.reported, _State.checking = 0, False, False
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, _interrupt)
            self._unraisable, sys.unraisablehook = sys.unraisablehook, self._say_unraisable
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening."""
        _State.reported = True
        if _State.timer is not None:
            _State.timer.cancel()
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if self._owns_process else handler)
        if sys.unraisablehook == self._say_unraisable:
            sys.unraisablehook = self._unraisable

    def _say_unraisable(self, unraisable: Any) -> None:
        """Say nothing of an interruption in code that can't raise, such as a finalizer: it is raised again."""
        if not issubclass(unraisable.exc_type, (_Interrupted, _Terminated)):
            self._unraisable(unraisable)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    if _State.checking:  # by _check, which no signal came for
        _State.checking = False
        if _State.reported or _is_unwinding():
            _check_later()
            return
    elif _State.number and time.monotonic() - _State.at < _REPEATED:
        return
    else:
        _State.number, _State.at = number, time.monotonic()
    _check_later()
    if _State.number == signal.SIGINT:
        raise _Interrupted
    raise _Terminated(128 + _State.number)


def _is_unwinding() -> bool:
    """Whether the exception is on its way through the code that cleans up."""
    error = sys.exception()
    while error is not None:
        if isinstance(error, (_Interrupted, _Terminated)):
            return True
        error = error.__context__
    return False


def _check_later() -> None:
    if _State.reported:
        return
    _State.timer = threading.Timer(_CHECKED, _check)
    _State.timer.daemon = True  # the process needn't wait for it
    with contextlib.suppress(RuntimeError):  # no more threads; the next signal is heard all the same
        _State.timer.start()


def _check() -> None:
    """Have the main thread look whether the exception is still on its way."""
    if not _State.reported:
        _State.checking = True
        _thread.interrupt_main(signal.Signals(_State.number))
