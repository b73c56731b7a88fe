"""Merging many weights at once: threads compute them while a graph is built."""

from __future__ import annotations

from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vinograph.adapters.merging import AdaptedTensor, Room, Term, room_of
from vinograph.networks.stored import StoredTensor
from vinograph.runtime.low_rank import LowRankSums
from vinograph.runtime.threads import worker_count


class Merges:
    """A context in which weights are merged, and at whose end all of them are complete.

    Threads compute large products one weight each, in blocks, so that little memory is used. Other
    differences are computed where they are asked for. ``room`` holds the merged weights.
    """

    def __init__(self, room: Room) -> None:
        self._room = room
        self._sums = LowRankSums()
        self._merging: list[Future[None]] = []

    def __enter__(self) -> Merges:
        """Make the threads, which start when there is work."""
        self._threads = ThreadPoolExecutor(worker_count(), "merge")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait until all weights are merged, or, after an error, until those in progress are.

        Raises:
            RequestError: a weight exceeds its type's range.
            ResourceError: the disk is full.
        """
        try:
            if error is None:
                for each in wait(self._merging, return_when=FIRST_EXCEPTION).done:
                    each.result()
        finally:
            self._threads.shutdown(cancel_futures=True)

    def tensor(self, name: str, stored: StoredTensor, terms: tuple[Term, ...]) -> AdaptedTensor:
        """A weight with the differences of adapters added."""
        return AdaptedTensor(name, stored, terms, self._room, self._sums)

    def values(self, name: str, stored: StoredTensor, terms: tuple[Term, ...]) -> NDArray[Any]:
        """The merged values of a weight, in memory."""
        return AdaptedTensor(name, stored, terms, room_of(np.empty), self._sums).array()

    def array(self, tensor: StoredTensor) -> NDArray[Any]:
        """A tensor's array. It is complete at the end of the block, or earlier."""
        if not isinstance(tensor, AdaptedTensor) or not tensor.is_large_product:
            return tensor.array()
        place = tensor.place()
        self._merging.append(self._threads.submit(tensor.merge_into, place))
        return place.array
