"""Draws the subjects of scenes: six kinds, each once per colour, light and size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.world.paint import (
    Colour,
    Layer,
    Shape,
    box,
    difference,
    ellipse,
    intersection,
    lit,
    mix,
    polygon,
    stroke,
    translate,
    union,
)

INK: Final[Colour] = (34, 24, 48)
CREAM: Final[Colour] = (255, 248, 230)
GLOW: Final[Colour] = (255, 226, 130)

BASE: Final[dict[str, Colour]] = {
    "red": (222, 42, 50),
    "blue": (42, 92, 226),
    "green": (28, 154, 80),
    "yellow": (255, 216, 40),
    "purple": (146, 66, 200),
    "orange": (250, 128, 20),
    "white": (250, 250, 250),
    "black": (46, 46, 54),
    "turquoise": (40, 205, 205),
}
"""The eight colours of scenes by daylight, and one that no embedded model was trained on."""

LIGHT: Final[dict[str, Colour]] = {
    "day": (1.0, 1.0, 1.0),
    "sunset": (1.0, 0.93, 0.88),
    "night": (0.90, 0.91, 1.0),
    "storm": (0.95, 0.96, 0.97),
}
"""Factors of a sky's light on a subject's colours: near 1, so that the colour is still nameable."""

HALF_WIDTH: Final[dict[str, float]] = {
    "house": 0.5,
    "tree": 0.4,
    "boat": 0.52,
    "car": 0.53,
    "lighthouse": 0.25,
    "cat": 0.42,
}
"""Half the width of each kind, as a share of the subject's size."""

LINE: Final = 0.016
"""Half the width of an outline, as a share of the subject's size."""


@dataclass(frozen=True, slots=True)
class Palette:
    """The tones that one colour has under the light of one sky."""

    base: Colour
    light: Colour
    dark: Colour
    line: Colour
    trim: Colour
    sky: str
    snowy: bool

    @classmethod
    def of(cls, colour: str, sky: str, snowy: bool) -> Palette:
        """The palette of the colour that is called ``colour``."""
        base = BASE[colour]
        tones = {
            "white": ((255, 255, 255), (212, 220, 236), (84, 92, 122), (190, 200, 220)),
            "black": ((86, 88, 104), (30, 30, 38), (12, 12, 18), CREAM),
        }
        light, dark, line, trim = tones.get(
            colour, (mix(base, (255, 250, 220), 0.3), mix(base, INK, 0.24), mix(base, INK, 0.72), CREAM)
        )
        lamp = LIGHT[sky]
        return cls(lit(base, lamp), lit(light, lamp), lit(dark, lamp), lit(line, lamp), lit(trim, lamp), sky, snowy)

    def other(self, colour: Colour) -> Colour:
        """``colour``, which is not the subject's own, under the same light."""
        return lit(colour, LIGHT[self.sky])

    @property
    def lamp(self) -> Colour:
        """The colour of a lit window, brighter than its surroundings when it is dark."""
        return self.other((255, 240, 196)) if self.sky == "day" else GLOW


def _bevel(layer: Layer, shape: Shape, tones: tuple[Colour, Colour, Colour], shift: float = 0.045) -> None:
    """Fill ``shape`` in (base, light, dark) tones: lit upper left, shaded lower right."""
    base, light, dark = tones
    layer.fill(shape, base)
    layer.fill(difference(shape, translate(shape, -shift, shift)), dark)
    layer.fill(difference(shape, translate(shape, shift * 0.7, -shift * 0.7)), light)


def _outline(layer: Layer, shape: Shape, paint: Colour, width: float = LINE) -> None:
    layer.fill(lambda x, y: shape(x, y) - width, paint)


def _house(layer: Layer, p: Palette) -> None:
    walls = box(-0.39, 0.0, 0.39, 0.52, 0.02)
    roof = polygon([(-0.46, 0.49), (0.0, 0.86), (0.46, 0.49)], 0.025)
    chimney = box(0.2, 0.6, 0.32, 0.9, 0.015)
    roof_tone = mix(p.dark, INK, 0.08)
    _outline(layer, union(walls, roof, chimney), p.line)
    layer.fill(chimney, mix(p.dark, p.other((150, 96, 80)), 0.75))
    _bevel(layer, walls, (p.base, p.base, p.dark), 0.05)
    layer.fill(box(-0.39, 0.43, 0.39, 0.5), mix(p.base, p.line, 0.45))
    _bevel(layer, roof, (roof_tone, mix(roof_tone, p.light, 0.45), roof_tone))
    if p.snowy:
        cap = intersection(
            roof,
            polygon(
                [
                    (-0.30, 0.60),
                    (-0.2, 0.63),
                    (-0.1, 0.70),
                    (0, 0.665),
                    (0.1, 0.70),
                    (0.2, 0.63),
                    (0.30, 0.60),
                    (0.1, 1.0),
                    (-0.1, 1.0),
                ],
                0.015,
            ),
        )
        layer.fill(cap, p.other((255, 255, 255)))
    layer.fill(union(box(-0.1, -0.01, 0.1, 0.2), ellipse(0, 0.2, 0.1)), p.line)
    layer.fill(union(box(-0.075, -0.01, 0.075, 0.2), ellipse(0, 0.2, 0.075)), p.other((126, 80, 58)))
    layer.fill(ellipse(0.04, 0.14, 0.014), GLOW)
    for u in (-0.245, 0.245):
        layer.fill(box(u - 0.095, 0.17, u + 0.095, 0.36, 0.015), p.line)
        layer.fill(box(u - 0.075, 0.19, u + 0.075, 0.34, 0.008), p.lamp)
        layer.fill(union(box(u - 0.009, 0.19, u + 0.009, 0.34), box(u - 0.075, 0.256, u + 0.075, 0.274)), p.line)


def _tree(layer: Layer, p: Palette) -> None:
    trunk = polygon([(-0.085, 0.0), (-0.05, 0.2), (-0.055, 0.5), (0.055, 0.5), (0.05, 0.2), (0.085, 0.0)], 0.015)
    crown = union(ellipse(-0.18, 0.55, 0.2), ellipse(0.18, 0.55, 0.2), ellipse(0.0, 0.78, 0.25), blend=0.06)
    _outline(layer, union(trunk, stroke([(0, 0.3), (0.13, 0.44)], 0.05)), p.other((58, 38, 34)))
    layer.fill(union(trunk, stroke([(0, 0.3), (0.13, 0.44)], 0.05)), p.other((140, 92, 62)))
    layer.fill(intersection(trunk, box(0.015, 0, 0.2, 0.5)), p.other((112, 70, 50)))
    _outline(layer, crown, p.line)
    _bevel(layer, crown, (p.base, p.base, p.dark), 0.075)
    for u, v, r in ((-0.09, 0.87, 0.075), (-0.24, 0.62, 0.06), (0.09, 0.66, 0.055)):
        layer.fill(ellipse(u, v, r, r * 0.72), p.light)


def _boat(layer: Layer, p: Palette) -> None:
    mast = box(-0.035, 0.2, 0.005, 1.08, 0.015)
    main = polygon([(0.045, 0.34), (0.045, 0.98), (0.2, 0.72), (0.4, 0.36)], 0.012)
    jib = polygon([(-0.075, 0.34), (-0.075, 0.9), (-0.38, 0.36)], 0.012)
    hull = polygon([(-0.49, 0.27), (-0.36, 0.06), (-0.28, 0.01), (0.28, 0.01), (0.38, 0.07), (0.49, 0.27)], 0.02)
    flag = polygon([(0.0, 1.07), (0.0, 0.99), (0.13, 1.03)], 0.008)
    _outline(layer, union(main, mast), p.other((96, 78, 76)), LINE * 0.8)
    layer.fill(mast, p.other((128, 86, 60)))
    _bevel(layer, main, (p.other(CREAM), p.other((255, 255, 252)), p.other((232, 218, 196))), 0.05)
    for part in (jib, flag):
        _outline(layer, part, p.line, LINE * 0.8)
        layer.fill(part, p.base)
    _outline(layer, hull, p.line)
    _bevel(layer, hull, (p.base, p.base, p.dark), 0.05)
    layer.fill(intersection(hull, box(-0.6, 0.235, 0.6, 0.31)), p.light)
    layer.fill(intersection(hull, box(-0.6, 0.19, 0.6, 0.225)), p.trim)


def _car(layer: Layer, p: Palette) -> None:
    cabin = polygon([(-0.33, 0.3), (-0.24, 0.56), (-0.18, 0.6), (0.1, 0.6), (0.17, 0.56), (0.32, 0.3)], 0.03)
    body = union(box(-0.51, 0.12, 0.51, 0.36, 0.09), box(-0.4, 0.12, 0.36, 0.4, 0.08), blend=0.05)
    whole = union(cabin, body)
    wheels = union(ellipse(-0.29, 0.135, 0.135), ellipse(0.29, 0.135, 0.135))
    _outline(layer, union(whole, wheels), p.line)
    _bevel(layer, whole, (p.base, p.light, p.dark), 0.04)
    glass = union(
        polygon([(-0.255, 0.375), (-0.19, 0.545), (-0.05, 0.545), (-0.05, 0.375)], 0.012),
        polygon([(0.015, 0.375), (0.015, 0.545), (0.095, 0.545), (0.235, 0.375)], 0.012),
    )
    _outline(layer, glass, p.line, LINE * 0.7)
    layer.fill(glass, p.other((196, 230, 246)))
    layer.fill(
        intersection(glass, polygon([(-0.2, 0.36), (-0.1, 0.57), (-0.04, 0.57), (-0.14, 0.36)])),
        p.other((236, 250, 255)),
    )
    layer.fill(box(-0.5, 0.215, 0.5, 0.24), mix(p.base, p.dark, 0.8))
    layer.fill(lambda x, y: wheels(x, y) - 0.022, p.line)
    layer.fill(wheels, p.other((40, 38, 48)))
    layer.fill(union(ellipse(-0.29, 0.135, 0.068), ellipse(0.29, 0.135, 0.068)), p.other((226, 228, 236)))
    layer.fill(ellipse(0.455, 0.285, 0.045), p.line)
    layer.fill(ellipse(0.455, 0.285, 0.033), GLOW)


def _lighthouse(layer: Layer, p: Palette) -> None:
    tower = polygon([(-0.2, 0.0), (-0.115, 0.82), (0.115, 0.82), (0.2, 0.0)], 0.012)
    gallery = box(-0.185, 0.8, 0.185, 0.865, 0.02)
    lantern = box(-0.1, 0.86, 0.1, 1.04, 0.01)
    dome = union(polygon([(-0.135, 1.03), (0.0, 1.17), (0.135, 1.03)], 0.022), ellipse(0, 1.215, 0.028))
    _outline(layer, union(tower, gallery, lantern, dome), p.line)
    layer.fill(tower, p.base)
    for low, high in ((0.17, 0.33), (0.49, 0.65)):
        layer.fill(intersection(tower, box(-0.3, low, 0.3, high)), p.trim)
    side = difference(tower, translate(tower, -0.075, 0.0))
    layer.fill(side, mix(p.dark, INK, 0.1), 0.4)
    layer.fill(union(box(-0.06, -0.01, 0.06, 0.1), ellipse(0, 0.1, 0.06)), p.line)
    layer.fill(ellipse(0, 0.41, 0.036, 0.045), p.line)
    layer.fill(ellipse(0, 0.735, 0.032, 0.04), p.line)
    layer.fill(lantern, GLOW)
    layer.fill(ellipse(0, 0.95, 0.055), (255, 250, 214))
    layer.fill(box(-0.11, 0.855, 0.11, 0.875), p.line)
    layer.fill(gallery, p.dark)
    _bevel(layer, dome, (p.base, p.light, p.dark), 0.03)


def _cat(layer: Layer, p: Palette) -> None:
    tail = stroke([(0.18, 0.08), (0.3, 0.07), (0.36, 0.15), (0.36, 0.27), (0.31, 0.36)], 0.1)
    body = union(ellipse(0, 0.2, 0.26, 0.21), ellipse(0, 0.36, 0.18, 0.22), blend=0.12)
    head = ellipse(0, 0.67, 0.3, 0.235)
    ears = union(
        polygon([(-0.27, 0.68), (-0.27, 1.0), (-0.05, 0.86)], 0.018),
        polygon([(0.27, 0.68), (0.27, 1.0), (0.05, 0.86)], 0.018),
    )
    inner = union(
        polygon([(-0.225, 0.79), (-0.235, 0.945), (-0.12, 0.865)], 0.008),
        polygon([(0.225, 0.79), (0.235, 0.945), (0.12, 0.865)], 0.008),
    )
    pink = p.other((250, 160, 168))
    for part in (tail, body):
        _outline(layer, part, p.line)
        _bevel(layer, part, (p.base, p.base, p.dark), 0.04)
    layer.fill(ellipse(0, 0.3, 0.105, 0.15), p.light)
    for u in (-0.1, 0.1):
        _outline(layer, ellipse(u, 0.045, 0.085, 0.05), p.line, LINE * 0.8)
        layer.fill(ellipse(u, 0.045, 0.085, 0.05), p.light)
    whole = union(head, ears)
    _outline(layer, whole, p.line)
    layer.fill(inner, pink)
    layer.fill(difference(whole, inner), p.base)
    layer.fill(intersection(difference(head, translate(head, -0.03, 0.05)), head), p.dark)
    for u in (-0.125, 0.125):
        layer.fill(ellipse(u, 0.69, 0.086, 0.096), p.line)
        layer.fill(ellipse(u, 0.69, 0.07, 0.08), p.other((238, 255, 190)))
        layer.fill(ellipse(u, 0.685, 0.036, 0.066), (20, 16, 28))
        layer.fill(ellipse(u - 0.018, 0.72, 0.018), (255, 255, 255))
    layer.fill(ellipse(0, 0.55, 0.1, 0.062), p.light)
    layer.fill(polygon([(-0.032, 0.592), (0.032, 0.592), (0, 0.56)], 0.01), pink)
    layer.fill(stroke([(-0.055, 0.538), (-0.03, 0.522), (0, 0.545), (0.03, 0.522), (0.055, 0.538)], 0.014), p.line)


_DRAW: Final[dict[str, Callable[[Layer, Palette], None]]] = {
    "house": _house, "tree": _tree, "boat": _boat, "car": _car, "lighthouse": _lighthouse, "cat": _cat,
}  # fmt: skip


@lru_cache(maxsize=4096)
def subject(kind: str, colour: str, sky: str, snowy: bool, size: int) -> NDArray[np.uint8]:
    """A subject as an RGBA stamp, centred, with its base line 4 pixels above the lower edge."""
    half, tall = (size * 60) // 100 + 4, (size * 130) // 100 + 8
    columns = (np.arange(half * 4) + 0.5 - half * 2) / (2 * size)
    rows = (tall * 2 - 8 - np.arange(tall * 2) - 0.5) / (2 * size)
    x, y = np.broadcast_arrays(columns[None, :], rows[:, None])
    layer = Layer(x, y, 2.0 * size)
    _DRAW[kind](layer, Palette.of(colour, sky, snowy))
    rim = _rim(colour, sky)
    if rim is None:
        return layer.stamp()
    paint, width, opacity = rim
    rimmed = Layer(x, y, 2.0 * size)
    rimmed.blend(_dilate(layer.alpha, width * size * 2) * opacity, paint)
    rimmed.blend(layer.alpha, layer.rgb)
    return rimmed.stamp()


def _rim(colour: str, sky: str) -> tuple[Colour, float, float] | None:
    """Colour, width and opacity of a rim that lifts a subject off its sky, if it needs one."""
    if colour == "black":
        return ((236, 232, 240), 0.02, 0.9) if sky in ("night", "storm") else ((255, 250, 240), 0.018, 0.75)
    if sky == "night":
        return (214, 216, 250), 0.014, 0.55
    return None


def _dilate(alpha: NDArray[np.float64], radius: float) -> NDArray[np.float64]:
    """``alpha`` dilated by a disk of ``radius`` cells."""
    reach = int(radius) + 1
    padded = np.pad(alpha, reach)
    out = alpha
    rows, columns = alpha.shape
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            if dx * dx + dy * dy <= radius * radius:
                part = padded[reach + dy : reach + dy + rows, reach + dx : reach + dx + columns]
                out = np.maximum(out, part)
    return out
