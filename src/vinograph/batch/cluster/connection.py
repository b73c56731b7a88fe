"""The connection to a Ray cluster, and what its machines have."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vinograph.batch.measuring import Need
from vinograph.batch.messages import Unusable
from vinograph.errors import RequestError
from vinograph.values import clipped

if TYPE_CHECKING:
    from vinograph.batch.cluster.actor import Measuring

_ACTOR_BYTES = 250_000_000  # of the actor itself, beside the process that draws
_MEMORY_MARGIN = 1.1


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Be a driver of the cluster in the block.

    Raises:
        RequestError: the extra ``ray`` isn't installed, or there is no such cluster.
    """
    if importlib.util.find_spec("ray") is None:
        raise RequestError('--ray needs Ray: pip install "vinograph[ray]"')
    if "://" in address:
        raise RequestError(
            f"--ray is {clipped(address)}; give auto or HOST:PORT on a machine of the cluster, or submit the command "
            "with ray job submit"
        )
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL, include_dashboard=None)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise RequestError(f"there is no Ray cluster at {clipped(address)}: {_first_line(error)}") from error
    _be_quiet()
    try:
        yield
    finally:
        ray.shutdown()


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
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    machines = list(_machines())
    node, resources = max(machines, key=lambda each: each[1].get("CPU", 0), default=("", {}))
    processors = int(resources.get("CPU", 0))
    if not processors:
        raise RequestError("no machine of the Ray cluster has a processor to draw with; start one by ray start")
    place = NodeAffinitySchedulingStrategy(node, soft=False)
    task = ray.remote(num_cpus=processors, scheduling_strategy=place, max_calls=1)(lambda: work(processors))
    found, said = ray.get(task.remote())
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


def _be_quiet() -> None:
    """Have Ray's own messages in its log files alone."""

    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _first_line(error: Exception) -> str:
    return clipped(str(error).strip().splitlines()[0]) if str(error).strip() else type(error).__name__
