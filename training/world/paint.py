"""Draws shapes that are given as signed distance functions, as antialiased layers.

Only additions, multiplications, divisions and square roots of doubles are used. IEEE 754 rounds
them alike on every machine, so a picture has the same bytes everywhere, whatever the version of a
library. The distance functions are of the kind collected at
https://iquilezles.org/articles/distfunctions2d.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float64]
Shape = Callable[[Field, Field], Field]
"""A shape as its signed distance function: negative inside, in the units of the coordinates."""
Colour = tuple[float, float, float]
Paint = Colour | Field


def mix(a: Colour, b: Colour, t: float) -> Colour:
    """The colour that is the share ``t`` of the way from ``a`` to ``b``."""
    return (a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, a[2] + (b[2] - a[2]) * t)


def lit(colour: Colour, light: Colour) -> Colour:
    """``colour`` as it looks under ``light``, whose channels are factors."""
    return (min(255.0, colour[0] * light[0]), min(255.0, colour[1] * light[1]), min(255.0, colour[2] * light[2]))


def wave(x: Field) -> Field:
    """A smooth wave of period 1 between −1 and 1, made of parabolas to be equal everywhere."""
    t = x - np.floor(x)
    return np.where(t < 0.5, 16 * t * (0.5 - t), -16 * (t - 0.5) * (1 - t))


def smooth(t: Field) -> Field:
    """The smoothstep function: 0 below 0, 1 above 1, and a cubic between."""
    t = np.clip(t, 0.0, 1.0)
    return t * t * (3 - 2 * t)


def ramp(t: Field, stops: Sequence[tuple[float, Colour]]) -> Field:
    """Colours [*t, 3] along ``t``, linear between the ``stops`` (position, colour)."""
    out = np.empty((*t.shape, 3))
    out[...] = stops[0][1]
    for (p0, c0), (p1, c1) in pairwise(stops):
        part = np.clip((t - p0) / (p1 - p0), 0.0, 1.0)[..., None]
        out = np.where(t[..., None] >= p0, np.array(c0) + (np.array(c1) - np.array(c0)) * part, out)
    return out


def length(x: Field, y: Field) -> Field:
    """The Euclidean length, as a square root: ``hypot`` doesn't round alike everywhere."""
    return np.sqrt(x * x + y * y)


def ellipse(cx: float, cy: float, rx: float, ry: float | None = None) -> Shape:
    """An ellipse with centre (cx, cy), or a circle if only one radius is given."""
    r = rx if ry is None else ry

    def distance(x: Field, y: Field) -> Field:
        u, v = (x - cx) / rx, (y - cy) / r
        k0 = length(u, v)
        k1 = np.maximum(length(u / rx, v / r), 1e-9)
        return np.where(k0 < 1e-6, -min(rx, r), k0 * (k0 - 1) / k1)

    return distance


def box(x0: float, y0: float, x1: float, y1: float, radius: float = 0.0) -> Shape:
    """An upright rectangle with rounded corners."""
    cx, cy, hx, hy = (x0 + x1) / 2, (y0 + y1) / 2, abs(x1 - x0) / 2, abs(y1 - y0) / 2

    def distance(x: Field, y: Field) -> Field:
        qx, qy = np.abs(x - cx) - hx + radius, np.abs(y - cy) - hy + radius
        outside = length(np.maximum(qx, 0), np.maximum(qy, 0))
        return outside + np.minimum(np.maximum(qx, qy), 0) - radius

    return distance


def polygon(points: Sequence[tuple[float, float]], radius: float = 0.0) -> Shape:
    """A polygon, which ``radius`` grows by that much, with round corners."""

    def distance(x: Field, y: Field) -> Field:
        nearest = np.full(x.shape, 1e18)
        inside = np.zeros(x.shape, bool)
        for (ax, ay), (bx, by) in zip(points, [*points[1:], points[0]], strict=True):
            ex, ey = bx - ax, by - ay
            t = np.clip(((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey), 0.0, 1.0)
            dx, dy = x - ax - ex * t, y - ay - ey * t
            nearest = np.minimum(nearest, dx * dx + dy * dy)
            if ey != 0:
                inside ^= ((ay > y) != (by > y)) & (x < ax + (y - ay) * (ex / ey))
        distances: Field = np.where(inside, -1.0, 1.0) * np.sqrt(nearest) - radius
        return distances

    return distance


def stroke(points: Sequence[tuple[float, float]], width: float) -> Shape:
    """A line of ``width`` through ``points``, with round ends."""

    def distance(x: Field, y: Field) -> Field:
        nearest = np.full(x.shape, 1e18)
        for (ax, ay), (bx, by) in pairwise(points):
            ex, ey = bx - ax, by - ay
            t = np.clip(((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey), 0.0, 1.0)
            dx, dy = x - ax - ex * t, y - ay - ey * t
            nearest = np.minimum(nearest, dx * dx + dy * dy)
        distances: Field = np.sqrt(nearest) - width / 2
        return distances

    return distance


def union(*shapes: Shape, blend: float = 0.0) -> Shape:
    """The union of shapes, whose joints ``blend`` smooths over that many units."""

    def distance(x: Field, y: Field) -> Field:
        out = shapes[0](x, y)
        for shape in shapes[1:]:
            other = shape(x, y)
            if blend > 0:
                h = np.maximum(blend - np.abs(out - other), 0.0) / blend
                out = np.minimum(out, other) - h * h * (blend / 4)
            else:
                out = np.minimum(out, other)
        return out

    return distance


def difference(shape: Shape, hole: Shape) -> Shape:
    """``shape`` without ``hole``."""
    return lambda x, y: np.maximum(shape(x, y), -hole(x, y))


def intersection(a: Shape, b: Shape) -> Shape:
    """What lies in both shapes."""
    return lambda x, y: np.maximum(a(x, y), b(x, y))


def translate(shape: Shape, dx: float, dy: float) -> Shape:
    """``shape``, shifted by (dx, dy)."""
    return lambda x, y: shape(x - dx, y - dy)


class Layer:
    """Colour and coverage (alpha) on a grid of coordinates with ``scale`` cells per unit."""

    def __init__(self, x: Field, y: Field, scale: float) -> None:
        self.x, self.y, self.scale = x, y, scale
        self.rgb = np.zeros((*x.shape, 3))
        self.alpha = np.zeros(x.shape)

    def coverage(self, shape: Shape, soft: float = 0.0) -> Field:
        """The share of each cell that ``shape`` covers, its edge blurred by ``soft`` units."""
        d = shape(self.x, self.y)
        if soft > 0:
            return smooth(0.5 - d / soft)
        return np.clip(0.5 - d * self.scale, 0.0, 1.0)

    def blend(self, coverage: Field, paint: Paint) -> None:
        """Composite ``paint`` over the layer ("over" of Porter and Duff, 1984)."""
        alpha = coverage + self.alpha * (1 - coverage)
        weight = (coverage / np.maximum(alpha, 1e-9))[..., None]
        self.rgb = self.rgb + (np.asarray(paint, dtype=np.float64) - self.rgb) * weight
        self.alpha = alpha

    def fill(self, shape: Shape, paint: Paint, opacity: float = 1.0, soft: float = 0.0) -> None:
        """Fill ``shape`` with ``paint``; ``soft`` is that of :meth:`coverage`."""
        self.blend(self.coverage(shape, soft) * opacity, paint)

    def stamp(self) -> NDArray[np.uint8]:
        """The layer at half its size, as RGBA bytes with straight (not premultiplied) alpha."""
        alpha = np.floor(self.alpha * 255 + 0.5).astype(np.int64)
        rgb = np.floor(np.clip(self.rgb, 0, 255) + 0.5).astype(np.int64) * alpha[..., None]

        def quarters(a: NDArray[np.int64]) -> NDArray[np.int64]:
            out: NDArray[np.int64] = a[::2, ::2] + a[1::2, ::2] + a[::2, 1::2] + a[1::2, 1::2]
            return out

        total = quarters(alpha)
        colour = quarters(rgb) // np.maximum(total, 1)[..., None]
        return np.concatenate([colour, ((total + 2) // 4)[..., None]], axis=-1).astype(np.uint8)
