"""Errors of exhausted memory, threads, files and disks are recognised and explained."""

from __future__ import annotations

import builtins
import errno
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vinograph.errors import DamagedModelError, RequestError, ResourceError
from vinograph.files import is_full
from vinograph.resources import Shortage, explanation, shortage

OPENVINO = "Exception from src/inference/src/cpp/core.cpp:117:\nException from src/inference/src/dev/plugin.cpp:54:\n"


def failed(number: int, name: str | None = None) -> OSError:
    return OSError(number, os.strerror(number), name)


def chained(error: Exception, *outer: Exception) -> Exception:
    """``error``, chained below all ``outer`` errors as the cause of each."""
    for each in outer:
        each.__cause__ = error
        error = each
    return error


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (MemoryError(), Shortage.MEMORY),
        (failed(errno.ENOMEM), Shortage.MEMORY),
        (RuntimeError(f"{OPENVINO}can't alloc\n"), Shortage.MEMORY),
        (RuntimeError(f"{OPENVINO}std::bad_alloc"), Shortage.MEMORY),
        (RuntimeError("Can not create file mapping for x.bin, err=Cannot allocate memory"), Shortage.MEMORY),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
            Shortage.MEMORY,
        ),
        (ImportError("libopenvino.so: failed to map segment from shared object"), Shortage.MEMORY),
        (ImportError("x.so: cannot allocate memory in static TLS block"), Shortage.MEMORY),
        (RuntimeError(f"{OPENVINO}Resource temporarily unavailable"), Shortage.THREADS),
        (RuntimeError("can't start new thread"), Shortage.THREADS),
        (failed(errno.EAGAIN), Shortage.THREADS),
        (failed(errno.EMFILE), Shortage.FILES),
        (failed(errno.ENFILE), Shortage.FILES),
        (failed(errno.ENOSPC), Shortage.DISK),
        (failed(errno.EDQUOT), Shortage.DISK),
        (failed(errno.EFBIG), Shortage.DISK),
        (Exception("I/O error: No space left on device (os error 28)"), Shortage.DISK),
    ],
    ids=lambda value: str(value).strip().splitlines()[-1] if isinstance(value, Exception) and str(value) else None,
)
class TestKinds:
    def test_an_exhausted_resource_is_recognised(self, error: Exception, what: Shortage) -> None:
        assert shortage(error) is what

    def test_an_exhausted_resource_is_recognised_as_a_cause(self, error: Exception, what: Shortage) -> None:
        assert shortage(chained(error, KeyError("weights"), DamagedModelError("the model is damaged"))) is what

    def test_an_exhausted_resource_is_recognised_as_a_context(self, error: Exception, what: Shortage) -> None:
        def handle() -> None:
            try:
                raise error
            except Exception:
                raise DamagedModelError("the model is damaged")  # noqa: B904  # the context is what is tested

        with pytest.raises(DamagedModelError) as caught:
            handle()
        assert shortage(caught.value) is what

    def test_an_exhausted_resource_is_recognised_in_a_group(self, error: Exception, what: Shortage) -> None:
        assert shortage(ExceptionGroup("several", [KeyError("x"), error])) is what

    def test_the_message_names_the_resource(self, error: Exception, what: Shortage) -> None:
        message = explanation(chained(error, DamagedModelError("the model is damaged")))
        assert message is not None
        assert what.value.split()[-1] in message
        assert "the model is damaged" not in message
        assert "\n" not in message


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("maximum recursion depth exceeded"),
        failed(errno.EACCES, "out of memory.png"),
        BlockingIOError(errno.EAGAIN, "write could not complete without blocking"),
        ValueError("could not convert string to float: 'out of memory'"),
        KeyError("can't alloc"),
        RequestError("there is no model 'bad_alloc'"),
        OSError("cannot identify image file"),
        ZeroDivisionError(),
    ],
    ids=repr,
)
def test_other_errors_are_not_explained(error: Exception) -> None:
    assert shortage(error) is None
    assert explanation(error) is None


def test_a_suppressed_context_does_not_count() -> None:
    error = DamagedModelError("the model is damaged")
    error.__context__, error.__suppress_context__ = MemoryError(), True
    assert shortage(error) is None


def test_a_cycle_of_causes_ends() -> None:
    one, other = KeyError("one"), KeyError("other")
    one.__cause__, other.__cause__ = other, one
    assert shortage(one) is None


def test_the_message_says_how_much_numpy_wanted() -> None:
    with pytest.raises(MemoryError) as caught:
        np.empty((10**7, 10**7))
    assert "Unable to allocate" in str(explanation(caught.value))


def test_an_error_of_ours_needs_no_explanation() -> None:
    error = chained(failed(errno.ENOSPC), ResourceError("3 GB are needed"))
    assert explanation(error) == "3 GB are needed"


def test_the_message_is_about_the_files_disk(tmp_path: Path) -> None:
    message = explanation(failed(errno.ENOSPC, str(tmp_path / "no" / "such" / "file")))
    assert message is not None
    assert "GB are free there" in message


def test_a_full_disk_below_another_error_is_recognised() -> None:
    assert is_full(chained(failed(errno.ENOSPC), builtins.ConnectionError("the hub stopped answering")))
    assert not is_full(failed(errno.EACCES))


@pytest.mark.parametrize("length", [10, 10**6])
def test_messages_are_short(length: int) -> None:
    explain: Callable[[BaseException], str | None] = explanation
    assert len(str(explain(RuntimeError("out of memory " + "x" * length)))) < 600
