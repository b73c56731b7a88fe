"""Renders a scene: the same scene and seed give the same bytes on every machine."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.world import backdrop
from training.world.backdrop import AIR, Page, to_page
from training.world.frame import HORIZON, SIZE, SQUARE, Frame
from training.world.paint import Colour, Layer, ellipse, lit, mix
from training.world.scene import Scene
from training.world.subjects import HALF_WIDTH, subject

_SIZES: Final = {1: (109, 112, 115), 2: (72, 74, 76), 3: (55, 56, 57)}
_SPACING: Final = {1: 0, 2: 84, 3: 65}
_STRETCH: Final = {
    "house": (100, 95),
    "tree": (104, 108),
    "boat": (95, 93),
    "car": (94, 92),
    "lighthouse": (102, 114),
    "cat": (100, 108),
}
"""The size of each kind in hundredths, alone and in a group; narrow kinds may be taller."""

_SHIFT: Final = {1: 62, 2: 42, 3: 29}
_BASE: Final = {1: 218, 2: 211, 3: 206}
_JITTER: Final = {1: 4, 2: 3, 3: 2}
_SAND: Final[Colour] = (246, 220, 158)


@dataclass(frozen=True, slots=True)
class Variation:
    """The renderer's random choices: all that a scene's attributes leave open.

    The values of a field are equally likely, but for ``with_extra``. Scenes with the same seed and
    number of subjects share all choices. Shifts are in units of the world.
    """

    side: int
    sun_rise: int
    cloud_drift: int
    sky_preset: int
    ground_preset: int
    with_extra: bool
    horizon_shift: int
    size: int
    shift_x: int
    shift_y: int

    @classmethod
    def of(cls, seed: int, count: int) -> Variation:
        """The choices of ``seed`` for ``count`` subjects; more of them vary less in ``shift_x``."""
        rng, jitter = random.Random(seed), _JITTER[count]
        # The fields' order is the order of the draws, which fixes every picture of a seed.
        return cls(
            side=rng.randrange(2),
            sun_rise=rng.choice((-4, 0, 4)),
            cloud_drift=rng.randint(-5, 5),
            sky_preset=rng.randrange(backdrop.PRESETS),
            ground_preset=rng.randrange(backdrop.PRESETS),
            with_extra=rng.random() < 0.4,
            horizon_shift=rng.randint(-3, 3),
            size=rng.choice(range(len(_SIZES[count]))),
            shift_x=rng.randint(-jitter, jitter),
            shift_y=rng.randint(-4, 4),
        )


def render(
    scene: Scene,
    seed: int,
    frame: Frame = SQUARE,
    colours: Sequence[str] | None = None,
    columns: Sequence[float] | None = None,
) -> NDArray[np.uint8]:
    """The picture of ``scene``, uint8 [height, width, 3]; ``seed`` makes the random choices.

    ``colours`` has a colour for each subject from left to right, in place of the scene's own.
    ``columns`` has a place in units for each subject, as many as there are places, of the size that
    the scene's count gives them.
    """
    variation = Variation.of(seed, scene.count)
    side, preset, horizon_shift = variation.side, variation.sky_preset, variation.horizon_shift
    size = _SIZES[scene.count][variation.size] * _STRETCH[scene.kind][scene.count > 1] // 100

    rgb = backdrop.sky_page(scene.sky, side, variation.sun_rise, preset if scene.sky == "night" else 0, frame).copy()
    cloud = backdrop.clouds(scene.sky, preset, frame)
    if cloud is not None:
        _composite(rgb, cloud, frame.pixels(variation.cloud_drift), 0)
    ground = backdrop.ground_page(
        scene.ground, scene.sky, side if scene.ground == "sea" else 0, variation.ground_preset, frame
    )
    if variation.with_extra and scene.ground == "sea":
        _extra(rgb, scene, side, horizon_shift, frame)
    _composite(rgb, ground, 0, frame.pixels(horizon_shift))
    if variation.with_extra and scene.ground != "sea":
        _extra(rgb, scene, side, horizon_shift, frame)

    base = frame.sink(_BASE[scene.count]) + variation.shift_y
    for i, x in enumerate(_columns(scene, frame) if columns is None else columns):
        colour = scene.colour if colours is None else colours[i]
        _place(rgb, scene, colour, x + variation.shift_x, base, size, frame)
    picture: NDArray[np.uint8] = np.floor(np.clip(rgb, 0.0, 255.0) + 0.5).astype(np.uint8)
    return picture


def _columns(scene: Scene, frame: Frame) -> list[float]:
    """Where the subjects of ``scene`` stand, from left to right, in units."""
    middle = frame.spread(SIZE // 2 + {"left": -1, "middle": 0, "right": 1}[scene.place] * _SHIFT[scene.count])
    return [middle + (2 * i - scene.count + 1) * _SPACING[scene.count] // 2 for i in range(scene.count)]


def _composite(rgb: Page, layer: Page, dx: int, dy: int) -> None:
    """Composite a page over the picture, shifted by (dx, dy) pixels with its edges extended."""
    height, width = rgb.shape[:2]
    rows = np.clip(np.arange(height) - dy, 0, height - 1)
    columns = np.clip(np.arange(width) - dx, 0, width - 1)
    shifted = layer[rows] if dx == 0 else layer[rows][:, columns]
    rgb += (shifted[..., :3] - rgb) * shifted[..., 3:]


def _paste(rgb: Page, layer: Page, left: int, top: int) -> None:
    """Composite a small page over the picture at a position in pixels, clipped to its edges."""
    height, width = layer.shape[:2]
    y0, x0 = max(top, 0), max(left, 0)
    y1, x1 = min(top + height, rgb.shape[0]), min(left + width, rgb.shape[1])
    part = layer[y0 - top : y1 - top, x0 - left : x1 - left]
    rgb[y0:y1, x0:x1] += (part[..., :3] - rgb[y0:y1, x0:x1]) * part[..., 3:]


def _extra(rgb: Page, scene: Scene, side: int, horizon_shift: int, frame: Frame) -> None:
    """Draw the fence, cactus, fir or far island on the side that the subjects leave free."""
    right = scene.place == "left" or (scene.place == "middle" and side == 0)
    edge = {"meadow": 42, "sea": 36}.get(scene.ground, 22)
    below = {"meadow": 34, "desert": 30, "snow": 30, "sea": 1}[scene.ground]
    x = frame.spread(SIZE - edge if right else edge)
    page = backdrop.extra(scene.ground, scene.sky, frame)
    _paste(rgb, page, frame.column(x - 48), frame.row(HORIZON + horizon_shift + below - 48))


def _place(rgb: Page, scene: Scene, colour: str, x: float, base: float, size: int, frame: Frame) -> None:
    """Draw one subject in ``colour``, with its shadow, island or foam."""
    room = _SPACING[scene.count] // 2 - 2 if scene.count > 1 else 62
    footing = _footing(scene.kind, scene.ground, scene.sky, size, room, frame)
    _paste(rgb, footing, frame.column(x - 72), frame.row(base - 24))
    stamp = subject(scene.kind, colour, scene.sky, scene.ground == "snow", frame.pixels(size))
    layer = stamp.astype(np.float32)
    layer[..., 3] /= 255
    _paste(rgb, layer, frame.column(x) - stamp.shape[1] // 2, frame.row(base + 4) - stamp.shape[0])


@lru_cache(maxsize=1024)
def _footing(kind: str, ground: str, sky: str, size: int, room: int, frame: Frame) -> Page:
    """A shadow, an island or a ring of foam: 144 by 48 units, with the base line on row 24."""
    across, down = frame.patch(144, 48)
    x, y = np.broadcast_arrays((across - 72)[None, :], (down - 24)[:, None])
    page = Layer(x, y, frame.scale)
    half, flat, air = HALF_WIDTH[kind] * size, size * 0.075, AIR[sky]  # flat is a shadow's half height
    foam = mix(lit((226, 246, 248), air), (255, 255, 255), 0.3)
    if ground != "sea":
        page.fill(ellipse(size * 0.03, 0, min(half * 1.08, room), flat), (36, 26, 62), 0.34, soft=7.0)
    elif kind == "boat":
        page.fill(ellipse(0, -1, min(half * 0.86, room), flat * 0.75), foam, 0.85, soft=3.0)
    else:
        reach = min(half * 1.16 + 4, room)
        page.fill(ellipse(0, 1, reach + 2, flat * 1.25 + 2.5), foam, 0.9)
        page.fill(ellipse(0, 0, reach, flat * 1.25), lit(_SAND, air))
        page.fill(ellipse(0, 2, half * 0.9, flat * 0.6), lit((206, 170, 108), air), 0.6, soft=4.0)
    return to_page(page)
