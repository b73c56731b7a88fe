"""Counts how often pictures were begun, for those that bring down whole actors.

Ray runs a task again as often as its actor or its machine is lost. It doesn't know of a picture that
is the reason, such as one that takes more memory than the machine has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

_MOST = 3


class Starts:
    """The counts, in an actor on the driver's machine."""

    def __init__(self) -> None:
        self._begun: Counter[str] = Counter()
        self._ended: set[str] = set()

    def begin(self, keys: Sequence[str]) -> str | None:
        """Count a start of a row of pictures; returns one that is to be given up.

        They are drawn one after the other. So the first that hasn't ended is the one to count.
        """
        first = next((key for key in keys if key not in self._ended), None)
        if first is None:
            return None
        self._begun[first] += 1
        if self._begun[first] <= _MOST:
            return None
        del self._begun[first]
        return first

    def ended(self, key: str) -> None:
        """Note that a picture was drawn, or failed."""
        self._ended.add(key)
        self._begun.pop(key, None)

    def forget(self, keys: Sequence[str]) -> None:
        """Forget a row that has ended."""
        self._ended.difference_update(keys)


def begin_counting() -> Any:
    """Start the actor that counts; returns its handle."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=here)(Starts).remote()
