"""The sizes of pictures that a model draws, and the nearest of them to another size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from vinograph.images import Size
from vinograph.schema import Kind, Record, SchemaError, Whole

_SIDE = Whole(1, 65_536)
SIZE_KINDS: Mapping[str, Kind] = MappingProxyType(
    {"size_multiple": Whole(1, 4096), "minimum_size": _SIDE, "maximum_size": _SIDE, "native_size": _SIDE}
)
"""What a manifest's ``limits`` have to hold."""


@dataclass(frozen=True)
class SizeLimits:
    """The sizes that a model draws, in pixels.

    A side is a multiple of ``size_multiple`` from ``minimum_size`` to ``maximum_size``. The model
    was trained on squares of ``native_size``, or on other shapes of that area.
    """

    size_multiple: int
    minimum_size: int
    maximum_size: int
    native_size: int

    @classmethod
    def from_mapping(cls, limits: Mapping[str, Any]) -> SizeLimits:
        """Read the limits of a manifest. Entries that this version doesn't know are passed over.

        Raises:
            SchemaError: naming a limit that is missing or makes no sense.
        """
        Record(SIZE_KINDS, open=True).check("limits", limits)
        sizes = cls(**{name: limits[name] for name in SIZE_KINDS})
        if sizes.minimum_size > sizes.maximum_size:
            raise SchemaError(
                f"limits.minimum_size is {sizes.minimum_size}, which is above maximum_size {sizes.maximum_size}"
            )
        for name in ("minimum_size", "maximum_size"):
            if limits[name] % sizes.size_multiple:
                raise SchemaError(
                    f"limits.{name} is {limits[name]}, which is no multiple of size_multiple {sizes.size_multiple}"
                )
        return sizes

    def allows(self, size: Size) -> bool:
        """Whether the model draws pictures of this size."""
        return all(side % self.size_multiple == 0 and self._clamped(side) == side for side in size)

    def nearest(self, size: Size) -> Size:
        """The size nearest to ``size`` in shape, and in area up to the native one."""
        shrink, step = min(1.0, self.native_size / math.sqrt(size.height * size.width)), self.size_multiple
        return Size(*(self._clamped(round(side * shrink / step) * step) for side in size))

    def within(self, size: Size) -> Size:
        """The largest size that fits into ``size``.

        A picture beyond the limits is scaled down in its shape, and a side below them is raised.
        """
        shrink, step = min(1.0, self.maximum_size / max(size)), self.size_multiple
        return Size(*(self._clamped(int(side * shrink) // step * step) for side in size))

    def _clamped(self, side: int) -> int:
        return min(max(side, self.minimum_size), self.maximum_size)
