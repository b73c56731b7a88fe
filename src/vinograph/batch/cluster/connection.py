"""The connection to a Ray cluster, and what its machines have."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vinograph.batch.measuring import Need
from vinograph.batch.messages import Unusable
from vinograph.errors import RequestError, ResourceError
from vinograph.values import clipped

if TYPE_CHECKING:
    from vinograph.batch.cluster.actor import Measuring

_ACTOR_BYTES = 250_000_000  # of the actor itself, beside the process that draws
_MEMORY_MARGIN = 1.1
_THREADS_OF_RAY = "ray-data"


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Be a driver of the cluster in the block.

    Raises:
        RequestError: the extra ``ray`` isn't installed, or there is no such cluster.
    """
    if importlib.util.find_spec("ray") is None or importlib.util.find_spec("pyarrow") is None:
        raise RequestError('--ray needs Ray: pip install "vinograph[ray]"')
    if "://" in address:
        raise RequestError(
            f"--ray is {clipped(address)}; give auto or HOST:PORT on a machine of the cluster, or submit the command "
            "with ray job submit"
        )
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    for name in ("RAY_BACKEND_LOG_LEVEL", "RAY_DATA_LOG_LEVEL"):
        os.environ.setdefault(name, "FATAL")  # of what this process prints
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):  # Ray's news of machines go to its log files
        _connect(address)
        import ray

        try:
            yield
        finally:
            _silence_threads_of_ray()
            ray.shutdown()


def _silence_threads_of_ray() -> None:
    """Have Ray Data's threads end without a traceback: they go on when the connection has ended."""
    report = threading.excepthook

    def hook(failure: threading.ExceptHookArgs) -> None:
        if failure.thread is None or not failure.thread.name.startswith(_THREADS_OF_RAY):
            report(failure)

    threading.excepthook = hook


def _connect(address: str) -> None:
    import ray

    try:
        with _silent():
            ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise RequestError(f"there is no Ray cluster at {clipped(address)}: {_first_line(error)}") from error


@contextmanager
def _silent() -> Iterator[None]:
    """Have nothing printed on standard error in the block, not even by a library in C++."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def machines() -> set[str]:
    """The names of the cluster's machines."""
    return {node for node, _ in _machines()}


def slots(need: Need) -> int:
    """How many actors fit on the cluster's machines as they are."""
    return sum(_fitting(resources, need) for _, resources in _machines())


def memory(need: Need) -> int | None:
    """Bytes of memory that an actor needs, where it was measured."""
    return None if need.private is None else int(_ACTOR_BYTES + _MEMORY_MARGIN * need.private)


def measured(work: Measuring, say: Callable[[str], None]) -> Need | None:
    """Measure on the machine with most processors; None where none of the jobs can be drawn.

    Raises:
        VinographError: the model can't be used there.
        RequestError: no machine has processors.
        ResourceError: measuring brought its process down, and the number of threads isn't decided.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    node, resources = max(_machines(), key=lambda each: each[1].get("CPU", 0), default=("", {}))
    processors = int(resources.get("CPU", 0))
    if not processors:
        raise RequestError("no machine of the Ray cluster has a processor to draw with; start one by ray start")
    place = NodeAffinitySchedulingStrategy(node, soft=False)
    task = ray.remote(num_cpus=processors, scheduling_strategy=place, max_calls=1)(lambda: work(processors))
    found: Need | Unusable | None
    try:
        found, said = ray.get(task.remote())
    except ray.exceptions.RayError as error:
        if work.threads is None:
            raise ResourceError(f"measuring on the Ray cluster ended ({_first_line(error)}); give --threads") from error
        say("measuring ended, so no memory is reserved")
        return None
    for each in said:
        say(each)
    if isinstance(found, Unusable):
        raise found.error()
    return found


def _machines() -> Iterator[tuple[str, dict[str, Any]]]:
    import ray

    for node in ray.nodes():
        if node["Alive"]:
            yield node["NodeID"], node["Resources"]


def _fitting(resources: dict[str, Any], need: Need) -> int:
    count = int(resources.get("CPU", 0) // need.threads)
    needed = memory(need)
    return count if needed is None else min(count, int(resources.get("memory", 0) // needed))


def _first_line(error: Exception) -> str:
    return clipped(str(error).strip().splitlines()[0]) if str(error).strip() else type(error).__name__
