"""Handles Ctrl-C and SIGTERM, from the first instruction of a command to its last.

Either signal raises an exception, which unwinds the stack so that temporary files are deleted. But
compiled code may convert it to another exception while a package is imported, and other code may
swallow it. So the exit code depends on whether a signal came, not on the exception that ended the
command. A swallowed exception is raised again.
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

_REPEATED = 1.0  # seconds in which a second signal is a duplicate, as `timeout` and terminals send it
_CHECKED = 0.2  # seconds until the check whether the exception was swallowed


class _Interrupted(KeyboardInterrupt):
    """Ctrl-C, as a subclass of KeyboardInterrupt.

    If an exact KeyboardInterrupt leaves code run by `exec`, as in the creation of a dataclass,
    Python ends the process by the signal even if the exception is caught further out.
    """


class _Terminated(SystemExit):
    """SIGTERM, as an exception."""


class _State:
    """State of the signal that ends the running command."""

    number = 0
    at = 0.0
    reported = False
    checking = False
    timer: threading.Timer | None = None


def received() -> int:
    """Number of the signal that ends the running command, or 0. The caller has to report it."""
    _State.reported = _State.number != 0
    return _State.number


class Interruptible:
    """Context within which Ctrl-C and SIGTERM end the command.

    If it owns the process, it resets both signals to the system's defaults on exit, so that the
    interpreter's shutdown is quiet, too.
    """

    def __init__(self, owns_process: bool) -> None:
        self._owns_process = owns_process
        self._before: dict[int, Any] = {}
        self._unraisable = sys.unraisablehook

    def __enter__(self) -> Interruptible:
        """Install the handlers, in the main thread.

        A signal that the process was started to ignore stays ignored.
        """
        _State.number, _State.reported, _State.checking = 0, False, False
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, _interrupt)
            self._unraisable, sys.unraisablehook = sys.unraisablehook, self._say_unraisable
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the handlers."""
        _State.reported = True
        if _State.timer is not None:
            _State.timer.cancel()
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if self._owns_process else handler)
        if sys.unraisablehook == self._say_unraisable:
            sys.unraisablehook = self._unraisable

    def _say_unraisable(self, unraisable: Any) -> None:
        """Ignore an interruption in a finalizer, which can't raise it: it is raised again later."""
        if not issubclass(unraisable.exc_type, (_Interrupted, _Terminated)):
            self._unraisable(unraisable)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    if _State.checking:  # called by _check, not by a new signal
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
    """Whether the interruption's exception is propagating through cleanup code."""
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
    _State.timer.daemon = True  # the process need not wait for it
    with contextlib.suppress(RuntimeError):  # no more threads; the next signal still works
        _State.timer.start()


def _check() -> None:
    """Have the main thread check whether the exception is still propagating."""
    if not _State.reported:
        _State.checking = True
        _thread.interrupt_main(signal.Signals(_State.number))
