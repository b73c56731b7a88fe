"""What part of the world a picture shows: pictures that are wider or taller than a square show more of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.world.paint import Layer

SIZE: Final = 256
"""The side of a square picture, and of the part of the world that every picture shows."""

HORIZON: Final = 150
_ABOVE: Final = 0.6  # of what a tall picture shows more of


@dataclass(frozen=True, slots=True)
class Frame:
    """A picture's size in pixels. Its shorter side shows as much as a square's.

    Places in the world are in units that are a square picture's pixels. In another frame, what
    stands in the sky or on the ground is spread over all there is of it; its size in units stays.
    """

    width: int = SIZE
    height: int = SIZE

    @property
    def scale(self) -> float:
        """Pixels of a unit."""
        return min(self.width, self.height) / SIZE

    @property
    def left(self) -> float:
        """The left edge in units; the right one is as far beyond the square's."""
        return (SIZE - self.width / self.scale) / 2

    @property
    def right(self) -> float:
        """The right edge in units."""
        return SIZE - self.left

    @property
    def top(self) -> float:
        """The upper edge in units, 0 or less."""
        return _ABOVE * (SIZE - self.height / self.scale)

    def spread(self, x: float) -> float:
        """Where something at ``x`` of a square stands."""
        return self.left + x / SIZE * (self.right - self.left)

    def lift(self, y: float) -> float:
        """Where something at ``y`` of a square's sky is."""
        return HORIZON - (HORIZON - y) * ((HORIZON - self.top) / HORIZON)

    def sink(self, y: float) -> float:
        """Where something at ``y`` of a square's ground is."""
        bottom = self.top + self.height / self.scale
        return HORIZON + (y - HORIZON) * ((bottom - HORIZON) / (SIZE - HORIZON))

    def pixels(self, units: float) -> int:
        """A length."""
        return round(units * self.scale)

    def column(self, x: float) -> int:
        """The pixel column of a place."""
        return round((x - self.left) * self.scale)

    def row(self, y: float) -> int:
        """The pixel row of a place."""
        return round((y - self.top) * self.scale)

    def page(self) -> Layer:
        """An empty layer of the whole picture."""
        across, down = self._line(self.width, self.left), self._line(self.height, self.top)
        x, y = np.broadcast_arrays(across[None, :], down[:, None])
        return Layer(x, y, self.scale)

    def patch(self, width: int, height: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The coordinates of a small layer of so many units, from 0."""
        return self._line(self.pixels(width), 0.0), self._line(self.pixels(height), 0.0)

    def _line(self, count: int, start: float) -> NDArray[np.float64]:
        line: NDArray[np.float64] = np.arange(0.5, count)
        return line / self.scale + start


SQUARE: Final = Frame()
