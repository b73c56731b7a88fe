"""Tiles: a VAE computes overlapping pieces of a large picture, which are joined again.

The memory that a VAE needs then depends on the tile and not on the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np

from vinograph.families.contract import Array
from vinograph.images import Size

Network = Callable[[Array], Array]

MAX_WHOLE_AREA = 1536 * 1536
"""Pixels of the largest picture that ``vae_tiling="auto"`` computes in one piece."""

_OVERLAP = Fraction(1, 4)


class Tiles(Protocol):
    """How values [n, c, h, w] are cut into tiles, and the results for them joined."""

    def count(self, size: Size) -> int:
        """Number of tiles of values of that size."""

    def largest(self, size: Size) -> Size:
        """Size of the largest tile of values of that size."""

    def compute(self, network: Network, values: Array) -> Array:
        """Apply ``network`` to each tile of ``values`` [n, c, h, w], and join its results."""


@dataclass(frozen=True)
class BlendedTiles:
    """Tiles for a network that sees all of its input; results fade into each other.

    They are laid out and blended as by diffusers' ``enable_vae_tiling``, so that tiles of the same
    size give the same picture. The whole would give another one: in a KL VAE, each group norm and
    the attention of the middle block see the tile alone.

    Tiles are squares of ``side`` values, and overlap by a quarter. A result is ``scale`` times as
    large as its tile.
    """

    side: int
    scale: Fraction

    def count(self, size: Size) -> int:
        """See :class:`Tiles`."""
        return len(self._starts(size.height)) * len(self._starts(size.width))

    def largest(self, size: Size) -> Size:
        """See :class:`Tiles`."""
        return Size(min(self.side, size.height), min(self.side, size.width))

    def compute(self, network: Network, values: Array) -> Array:
        """See :class:`Tiles`."""
        height, width = (int(length * self.scale) for length in values.shape[2:])
        joined: Array | None = None
        for top, left, tile in self._blended(network, values):
            if joined is None:
                joined = np.empty((*tile.shape[:2], height, width), np.float32)
            joined[:, :, top : top + tile.shape[2], left : left + tile.shape[3]] = tile
        assert joined is not None
        return joined

    def _starts(self, length: int) -> range:
        return range(0, length, self.side - int(self.side * _OVERLAP))

    def _blended(self, network: Network, values: Array) -> Iterator[tuple[int, int, Array]]:
        """Yield each tile's result with its place, up to where the next tile's begins."""
        result_side = int(self.side * self.scale)
        extent = int(result_side * _OVERLAP)
        kept = result_side - extent
        above: list[Array] = []
        for row, top in enumerate(self._starts(values.shape[2])):
            current: list[Array] = []
            for column, left in enumerate(self._starts(values.shape[3])):
                piece = values[:, :, top : top + self.side, left : left + self.side]
                tile = np.array(network(np.ascontiguousarray(piece)), np.float32)
                if row:
                    _blend(above[column], tile, extent, axis=2)
                if column:
                    _blend(current[-1], tile, extent, axis=3)
                current.append(tile)
                yield row * kept, column * kept, tile[:, :, :kept, :kept]
            above = current


def _blend(before: Array, after: Array, extent: int, axis: int) -> None:
    """Fade the beginning of ``after`` in place from the end of ``before`` along ``axis``."""
    extent = min(before.shape[axis], after.shape[axis], extent)
    shape = [1] * after.ndim
    shape[axis] = extent
    share = (np.arange(extent, dtype=np.float32) / np.float32(max(extent, 1))).reshape(shape)
    end, begin = [slice(None)] * 4, [slice(None)] * 4
    end[axis], begin[axis] = slice(before.shape[axis] - extent, None), slice(0, extent)
    after[tuple(begin)] = before[tuple(end)] * (1 - share) + after[tuple(begin)] * share


@dataclass(frozen=True)
class CutTiles:
    """Tiles for a network that sees at most ``margin`` values around each: the result is exact.

    Squares of ``side`` values are computed with their margins, which are cut off the results. A
    result is ``scale`` times as large as its tile.
    """

    side: int
    scale: Fraction
    margin: int

    def count(self, size: Size) -> int:
        """See :class:`Tiles`."""
        return len(range(0, size.height, self.side)) * len(range(0, size.width, self.side))

    def largest(self, size: Size) -> Size:
        """See :class:`Tiles`."""
        most = self.side + 2 * self.margin
        return Size(min(most, size.height), min(most, size.width))

    def compute(self, network: Network, values: Array) -> Array:
        """See :class:`Tiles`."""
        height, width = values.shape[2:]
        return np.concatenate(
            [
                np.concatenate(
                    [self._one(network, values, top, left) for left in range(0, width, self.side)],
                    axis=3,
                )
                for top in range(0, height, self.side)
            ],
            axis=2,
        )

    def _one(self, network: Network, values: Array, top: int, left: int) -> Array:
        rows, columns = (slice(max(start - self.margin, 0), start + self.side + self.margin) for start in (top, left))
        result = network(np.ascontiguousarray(values[:, :, rows, columns]))
        down, right = (int((start - each.start) * self.scale) for start, each in ((top, rows), (left, columns)))
        side = int(self.side * self.scale)
        return result[:, :, down : down + side, right : right + side]
