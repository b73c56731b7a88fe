"""Gives each of several test processes its own processors.

OpenVINO computes with one thread for each processor, and threads that wait for each other spin. Two processes with
two threads each on two processors take up to a third longer than two with one thread each.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

_all: set[int] = set()  # those of all test processes, where this one is bound


def pytest_configure(config: pytest.Config) -> None:
    """Bind a worker of pytest-xdist, and all that it starts, to its share."""
    worker = getattr(config, "workerinput", None)
    if worker is None or not hasattr(os, "sched_setaffinity"):
        return
    processors, count = sorted(os.sched_getaffinity(0)), int(worker["workercount"])
    if count <= len(processors):
        _all.update(processors)
        os.sched_setaffinity(0, processors[int(worker["workerid"].removeprefix("gw")) :: count])


@contextmanager
def all_processors() -> Iterator[None]:
    """What is started in the block may use all processors, as a page's server and its browsers need."""
    if not _all:
        yield
        return
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, _all)
    try:
        yield
    finally:
        os.sched_setaffinity(0, own)
