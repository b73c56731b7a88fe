"""The frame of a picture: the part of the world that it shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.world.paint import Layer

SIZE: Final = 256
"""Side of a square picture, and of the part of the world that every picture shows."""

HORIZON: Final = 150
_ABOVE: Final = 0.6  # share of a tall picture's additional part that is sky


@dataclass(frozen=True, slots=True)
class Frame:
    """A picture's size in pixels; its shorter side shows as much of the world as a square's.

    Places in the world are in units that are a square picture's pixels. In another frame, what
    stands in the sky or on the ground is spread over all there is of it; its size in units stays.
    """

    width: int = SIZE
    height: int = SIZE

    @property
    def scale(self) -> float:
        """Number of pixels per unit."""
        return min(self.width, self.height) / SIZE

    @property
    def left(self) -> float:
        """The left edge in units, 0 or less."""
        return (SIZE - self.width / self.scale) / 2

    @property
    def right(self) -> float:
        """The right edge in units, as far beyond a square's as the left one."""
        return SIZE - self.left

    @property
    def top(self) -> float:
        """The upper edge in units, 0 or less."""
        return _ABOVE * (SIZE - self.height / self.scale)

    def spread(self, x: float) -> float:
        """The horizontal place in this frame of what stands at ``x`` in a square."""
        return self.left + x / SIZE * (self.right - self.left)

    def lift(self, y: float) -> float:
        """The height in this frame of what is at ``y`` in a square's sky."""
        return HORIZON - (HORIZON - y) * ((HORIZON - self.top) / HORIZON)

    def sink(self, y: float) -> float:
        """The height in this frame of what is at ``y`` on a square's ground."""
        bottom = self.top + self.height / self.scale
        return HORIZON + (y - HORIZON) * ((bottom - HORIZON) / (SIZE - HORIZON))

    def pixels(self, units: float) -> int:
        """A length in ``units`` as whole pixels."""
        return round(units * self.scale)

    def column(self, x: float) -> int:
        """The pixel column of the place ``x``."""
        return round((x - self.left) * self.scale)

    def row(self, y: float) -> int:
        """The pixel row of the place ``y``."""
        return round((y - self.top) * self.scale)

    def page(self) -> Layer:
        """An empty layer of the whole picture."""
        across, down = self._line(self.width, self.left), self._line(self.height, self.top)
        x, y = np.broadcast_arrays(across[None, :], down[:, None])
        return Layer(x, y, self.scale)

    def patch(self, width: int, height: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The coordinates in units of a small layer's columns and rows, from 0."""
        return self._line(self.pixels(width), 0.0), self._line(self.pixels(height), 0.0)

    def _line(self, count: int, start: float) -> NDArray[np.float64]:
        line: NDArray[np.float64] = np.arange(0.5, count)
        return line / self.scale + start


SQUARE: Final = Frame()
