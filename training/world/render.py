"""Draws a scene: the same bytes for the same scene and seed, on every machine."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.world import backdrop
from training.world.backdrop import AIR, Page, finished
from training.world.frame import HORIZON, SIZE, SQUARE, Frame
from training.world.paint import Colour, Layer, ellipse, lit, mix
from training.world.scene import Scene
from training.world.subjects import REACH, subject

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
"""The size of each kind in hundredths, alone and in a group: narrow ones may be taller."""

_SHIFT: Final = {1: 62, 2: 42, 3: 29}
_BASE: Final = {1: 218, 2: 211, 3: 206}
_JITTER: Final = {1: 4, 2: 3, 3: 2}
_SAND: Final[Colour] = (246, 220, 158)


@dataclass(frozen=True, slots=True)
class Variation:
    """What a description leaves open: sides, shifts in pixels, and which of several drawings is taken.

    All values of a field are as likely. Scenes of as many subjects that share a seed share all of
    it.
    """

    side: int
    rise: int
    drift: int
    preset: int
    lay: int
    with_extra: bool
    level: int
    size: int
    across: int
    down: int

    @classmethod
    def of(cls, seed: int, count: int) -> Variation:
        """What ``seed`` chooses for a scene of ``count`` subjects. ``across`` spreads less the more there are."""
        rng = random.Random(seed)
        side, rise, drift = rng.randrange(2), rng.choice((-4, 0, 4)), rng.randint(-5, 5)
        preset, lay, with_extra = rng.randrange(backdrop.PRESETS), rng.randrange(backdrop.PRESETS), rng.random() < 0.4
        level, size = rng.randint(-3, 3), rng.choice(range(len(_SIZES[count])))
        jitter = _JITTER[count]
        return cls(
            side, rise, drift, preset, lay, with_extra, level, size, rng.randint(-jitter, jitter), rng.randint(-4, 4)
        )


def render(scene: Scene, seed: int, frame: Frame = SQUARE) -> NDArray[np.uint8]:
    """The picture of a scene, uint8 [height, width, 3]. The seed chooses what the description leaves open."""
    chance = Variation.of(seed, scene.count)
    side, preset, level = chance.side, chance.preset, chance.level
    size = _SIZES[scene.count][chance.size] * _STRETCH[scene.kind][scene.count > 1] // 100

    rgb = backdrop.sky_page(scene.sky, side, chance.rise, preset if scene.sky == "night" else 0, frame).copy()
    cloud = backdrop.clouds(scene.sky, preset, frame)
    if cloud is not None:
        _over(rgb, cloud, frame.pixels(chance.drift), 0)
    ground = backdrop.ground_page(scene.ground, scene.sky, side if scene.ground == "sea" else 0, chance.lay, frame)
    if chance.with_extra and scene.ground == "sea":
        _extra(rgb, scene, side, level, frame)
    _over(rgb, ground, 0, frame.pixels(level))
    if chance.with_extra and scene.ground != "sea":
        _extra(rgb, scene, side, level, frame)

    step = _SPACING[scene.count]
    middle = frame.spread(SIZE // 2 + {"left": -1, "middle": 0, "right": 1}[scene.place] * _SHIFT[scene.count])
    base = frame.sink(_BASE[scene.count]) + chance.down
    for i in range(scene.count):
        x = middle + chance.across + (2 * i - scene.count + 1) * step // 2
        _place(rgb, scene, x, base, size, frame)
    picture: NDArray[np.uint8] = np.floor(np.clip(rgb, 0.0, 255.0) + 0.5).astype(np.uint8)
    return picture


def _over(rgb: Page, layer: Page, dx: int, dy: int) -> None:
    """Lays a page over the picture, shifted by pixels; what is missing at an edge is that edge, drawn out."""
    height, width = rgb.shape[:2]
    rows = np.clip(np.arange(height) - dy, 0, height - 1)
    columns = np.clip(np.arange(width) - dx, 0, width - 1)
    moved = layer[rows] if dx == 0 else layer[rows][:, columns]
    rgb += (moved[..., :3] - rgb) * moved[..., 3:]


def _paste(rgb: Page, layer: Page, left: int, top: int) -> None:
    """Lays a small layer (cover in 0 to 1) at a position in pixels; what falls outside is cut."""
    height, width = layer.shape[:2]
    y0, x0 = max(top, 0), max(left, 0)
    y1, x1 = min(top + height, rgb.shape[0]), min(left + width, rgb.shape[1])
    part = layer[y0 - top : y1 - top, x0 - left : x1 - left]
    rgb[y0:y1, x0:x1] += (part[..., :3] - rgb[y0:y1, x0:x1]) * part[..., 3:]


def _extra(rgb: Page, scene: Scene, side: int, level: int, frame: Frame) -> None:
    """The fence, cactus, fir or far island, on the side that the subjects leave free."""
    right = scene.place == "left" or (scene.place == "middle" and side == 0)
    edge = {"meadow": 42, "sea": 36}.get(scene.ground, 22)
    below = {"meadow": 34, "desert": 30, "snow": 30, "sea": 1}[scene.ground]
    x = frame.spread(SIZE - edge if right else edge)
    page = backdrop.extra(scene.ground, scene.sky, frame)
    _paste(rgb, page, frame.column(x - 48), frame.row(HORIZON + level + below - 48))


def _place(rgb: Page, scene: Scene, x: float, base: float, size: int, frame: Frame) -> None:
    """One subject with what it stands on."""
    room = _SPACING[scene.count] // 2 - 2 if scene.count > 1 else 62
    footing = _footing(scene.kind, scene.ground, scene.sky, size, room, frame)
    _paste(rgb, footing, frame.column(x - 72), frame.row(base - 24))
    stamp = subject(scene.kind, scene.colour, scene.sky, scene.ground == "snow", frame.pixels(size))
    layer = stamp.astype(np.float32)
    layer[..., 3] /= 255
    _paste(rgb, layer, frame.column(x) - stamp.shape[1] // 2, frame.row(base + 4) - stamp.shape[0])


@lru_cache(maxsize=1024)
def _footing(kind: str, ground: str, sky: str, size: int, room: int, frame: Frame) -> Page:
    """A shadow on land, an island or a ring of foam at sea: 48 by 144 units, the base line on row 24."""
    across, down = frame.patch(144, 48)
    x, y = np.broadcast_arrays((across - 72)[None, :], (down - 24)[:, None])
    page = Layer(x, y, frame.scale)
    half, flat, air = REACH[kind] * size, size * 0.075, AIR[sky]
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
    return finished(page)
