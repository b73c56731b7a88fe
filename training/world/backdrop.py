"""Draws what is behind the subjects, from a few presets: sky, clouds, ground, and an extra."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.world.frame import HORIZON, SIZE, SQUARE, Frame
from training.world.paint import (
    Colour,
    Field,
    Layer,
    Shape,
    box,
    difference,
    ellipse,
    lit,
    mix,
    polygon,
    ramp,
    smooth,
    stroke,
    translate,
    union,
    wave,
)  # fmt: skip

PRESETS: Final = 3

AIR: Final[dict[str, Colour]] = {
    "day": (1.0, 1.0, 1.0),
    "sunset": (1.0, 0.86, 0.80),
    "night": (0.58, 0.62, 0.88),
    "storm": (0.80, 0.85, 0.88),
}
"""Factors of a sky's light on the colours of the ground."""

HAZE: Final[dict[str, Colour]] = {
    "day": (206, 232, 248), "sunset": (255, 190, 140), "night": (84, 84, 160), "storm": (150, 158, 170),
}  # fmt: skip
"""The colour of a sky that far hills fade into."""

_GRADIENT: Final[dict[str, list[tuple[float, Colour]]]] = {
    "day": [(0.0, (62, 154, 236)), (0.55, (142, 204, 248)), (1.0, (224, 243, 252))],
    "sunset": [(0.0, (96, 62, 142)), (0.35, (214, 92, 126)), (0.72, (252, 148, 92)), (1.0, (255, 214, 128))],
    "night": [(0.0, (16, 16, 58)), (0.6, (40, 42, 108)), (1.0, (86, 84, 162))],
    "storm": [(0.0, (58, 64, 80)), (0.6, (106, 114, 130)), (1.0, (168, 176, 186))],
}

_CLOUDS: Final[dict[str, tuple[tuple[tuple[int, int, int], ...], ...]]] = {
    "day": (((100, 34, 20), (178, 84, 14)), ((154, 34, 20), (66, 92, 14)), ((122, 52, 20), (204, 94, 14))),
    "sunset": (((76, 40, 38), (168, 74, 30)), ((170, 34, 38), (84, 70, 30)), ((124, 28, 40), (196, 66, 28))),
}

_STARS: Final[tuple[tuple[tuple[int, int, int], ...], ...]] = (
    ((22, 92, 2), (44, 30, 3), (78, 62, 2), (108, 24, 3), (132, 84, 2), (160, 46, 3), (196, 92, 2), (226, 70, 3),
     (236, 22, 2)),
    ((18, 48, 3), (52, 88, 2), (66, 22, 2), (96, 54, 3), (124, 94, 2), (150, 26, 3), (186, 70, 2), (212, 26, 2),
     (238, 96, 3)),
    ((26, 24, 2), (34, 72, 3), (72, 98, 2), (92, 30, 3), (128, 58, 3), (164, 92, 2), (176, 22, 2), (222, 48, 3),
     (240, 104, 2)),
)  # fmt: skip


Page = NDArray[np.float32]
"""An image of the frame or a part of it, with three channels, or coverage as a fourth."""


def to_page(layer: Layer) -> Page:
    """``layer`` as [height, width, 4], colour and coverage, in f32 because caches hold hundreds."""
    return np.concatenate([layer.rgb, layer.alpha[..., None]], axis=-1).astype(np.float32)


def _glow(layer: Layer, cx: float, cy: float, radius: float, colour: Colour, strength: float) -> None:
    r = ((layer.x - cx) * (layer.x - cx) + (layer.y - cy) * (layer.y - cy)) / (radius * radius)
    layer.blend(strength / ((1 + r) * (1 + r)), colour)


def _cloud(cx: float, cy: float, r: float) -> Shape:
    """A cloud of three overlapping circles with a flat bottom."""
    return union(
        ellipse(cx - r * 1.15, cy + r * 0.22, r * 0.62), ellipse(cx - r * 0.25, cy - r * 0.22, r * 0.85),
        ellipse(cx + r * 0.75, cy + r * 0.05, r * 0.7),
        box(cx - r * 1.75, cy + r * 0.12, cx + r * 1.75, cy + r * 0.82, r * 0.35), blend=r * 0.25,
    )  # fmt: skip


def _star(x: float, y: float, far: float, near: float) -> Shape:
    """A star of four points; ``far`` and ``near`` are its corners' distances from the centre."""
    return polygon([(x, y - far), (x + near, y - near), (x + far, y), (x + near, y + near),
                    (x, y + far), (x - near, y + near), (x - far, y), (x - near, y - near)])  # fmt: skip


def sun_at(sky: str, side: int, rise: int, frame: Frame) -> tuple[float, float]:
    """The place of the sun, the moon or the lightning, in units."""
    x, y = 46.0 if side == 0 else 210.0, {"day": 46.0, "sunset": 128.0, "night": 48.0, "storm": 40.0}[sky]
    return frame.spread(x), frame.lift(y) + rise


@lru_cache(maxsize=256)
def sky_page(sky: str, side: int, rise: int, preset: int, frame: Frame = SQUARE) -> Page:
    """The sky without its clouds, [height, width, 3]."""
    page = frame.page()
    page.blend(np.ones_like(page.x), ramp((page.y - frame.top) / (HORIZON + 8 - frame.top), _GRADIENT[sky]))
    x, y = sun_at(sky, side, rise, frame)
    if sky == "day":
        _glow(page, x, y, 48, (255, 250, 214), 0.85)
        page.fill(ellipse(x, y, 22), (255, 222, 84))
        page.fill(ellipse(x - 3, y - 3, 17), (255, 238, 140), soft=12)
    elif sky == "sunset":
        _glow(page, x, y, 84, (255, 214, 130), 0.8)
        page.fill(ellipse(x, y, 36), (255, 206, 112))
        page.fill(ellipse(x, y, 29), (255, 240, 180))
    elif sky == "night":
        _glow(page, x, y, 52, (150, 150, 226), 0.6)
        page.fill(difference(ellipse(x, y, 23), ellipse(x + 11, y - 6, 19)), (255, 246, 206))
        for u, v, r in ((frame.spread(u), frame.lift(v), r) for u, v, r in _STARS[preset]):
            if abs(u - x) > 34 or abs(v - y) > 34:
                _glow(page, u, v, r * 2.2, (206, 206, 255), 0.5)
                page.fill(_star(u, v, r * 2.0, r * 0.7), (255, 250, 222))
    else:
        _storm(page, x, side, frame)
    return page.rgb.astype(np.float32)


def _storm(page: Layer, x: float, side: int, frame: Frame) -> None:
    lean = -5.0 if side == 0 else 5.0
    drops = []
    for row in range(int(frame.top // 22), 5):
        for column in range(int(frame.left // 32), 9 - int(frame.left // 32)):
            u, v = column * 32.0 + (row % 2) * 16.0, 66.0 + row * 22.0
            drops.append(stroke([(u, v), (u + lean, v + 14)], 2.0))
    page.fill(union(*drops), (206, 216, 228), 0.6)
    up = frame.lift(78) - 78
    _glow(page, x, 78 + up, 46, (250, 240, 200), 0.55)
    corners = [(x + 5, 40), (x - 11, 84), (x, 82), (x - 8, 122), (x + 14, 72), (x + 3, 74), (x + 14, 40)]
    bolt = polygon([(u, v + up) for u, v in corners], 0.5)
    page.fill(lambda u, v: bolt(u, v) - 1.5, (255, 250, 220), 0.5)
    page.fill(bolt, (255, 226, 92))


def _placed_clouds(sky: str, preset: int, frame: Frame) -> list[tuple[float, float, float]]:
    return [(frame.spread(cx), frame.lift(cy), r) for cx, cy, r in _CLOUDS[sky][preset]]


@lru_cache(maxsize=64)
def clouds(sky: str, preset: int, frame: Frame = SQUARE) -> Page | None:
    """The clouds of a sky, [height, width, 4] with coverage from 0 to 1, or None at night."""
    page = frame.page()
    if sky == "night":
        return None
    if sky == "storm":
        tops = [(-20, 42, 14), (46, 22, 40), (112, 34, 22), (172, 24, 40), (250, 30, 34)]
        for shade, drop in (((92, 98, 114), 14.0), ((66, 71, 88), 3.0), ((46, 50, 66), -11.0)):
            heaps = [(frame.spread(u + preset * 22 - turn + drop), v, r) for turn in (0, 252) for u, v, r in tops]
            bank = union(*(ellipse(u, v * 0.55 + drop, r, r * 0.8) for u, v, r in heaps),
                         box(frame.left - 40, -60, frame.right + 44, 10 + drop * 0.9), blend=9.0)  # fmt: skip
            page.fill(translate(bank, 0, frame.top), shade)
    elif sky == "sunset":
        for cx, cy, r in _placed_clouds(sky, preset, frame):
            bar = union(box(cx - r, cy - 5, cx + r, cy + 5, 5), box(cx - r * 0.35, cy + 3, cx + r * 1.5, cy + 11, 4),
                        box(cx - r * 0.7, cy - 11, cx + r * 0.4, cy - 2, 4), blend=5.0)  # fmt: skip
            page.fill(bar, ramp((page.y - cy + 11) / 22, [(0.0, (252, 158, 140)), (1.0, (186, 84, 132))]), 0.9)
    else:
        for cx, cy, r in _placed_clouds(sky, preset, frame):
            fluff = ramp((page.y - cy + r * 0.4) / (r * 1.3), [(0.0, (255, 255, 255)), (1.0, (214, 232, 248))])
            page.fill(_cloud(cx, cy, r), fluff, 0.97)
    return to_page(page)


def _hill(page: Layer, line: Field, top: Colour, bottom: Colour, depth: float) -> None:
    """Fill all below ``line``, with a gradient from ``top`` to ``bottom`` over ``depth`` units."""
    cover = np.clip((page.y - line) * page.scale + 0.5, 0.0, 1.0)
    page.blend(cover, ramp(np.clip((page.y - line) / depth, 0.0, 1.0), [(0.0, top), (1.0, bottom)]))


_FLOWERS: Final[tuple[tuple[tuple[int, int], ...], ...]] = (
    ((20, 226), (58, 243), (98, 232), (140, 246), (178, 230), (216, 242), (240, 218), (12, 190)),
    ((34, 242), (70, 228), (112, 245), (152, 232), (190, 246), (228, 230), (14, 208), (244, 196)),
    ((16, 236), (48, 224), (86, 246), (126, 230), (166, 243), (204, 226), (238, 240), (246, 190)),
)


@lru_cache(maxsize=256)
def ground_page(ground: str, sky: str, side: int, preset: int, frame: Frame = SQUARE) -> Page:
    """The ground below a level horizon, [height, width, 4] with coverage from 0 to 1."""
    page, haze = frame.page(), HAZE[sky]
    air = (0.74, 0.78, 0.99) if (ground, sky) == ("snow", "night") else AIR[sky]
    x = page.x / SIZE
    turn = preset / PRESETS
    far, near = HORIZON + 9 * wave(x * 1.1 + turn), HORIZON + 21 + 8 * wave(x * 0.8 + 0.5 + turn * 2)

    def tone(colour: Colour, fade: float = 0.0) -> Colour:
        return mix(lit(colour, air), haze, fade)

    if ground == "meadow":
        _hill(page, far - 10, tone((150, 204, 128), 0.45), tone((120, 190, 104), 0.25), 50)
        _hill(page, near, tone((164, 216, 92)), tone((88, 172, 70)), 84)
        for i, (u, v) in enumerate((frame.spread(u), frame.sink(v)) for u, v in _FLOWERS[preset]):
            petal = ((255, 252, 246), (255, 150, 170), (255, 214, 74))[i % 3]
            page.fill(stroke([(u, v + 2), (u, v + 9)], 2.0), tone((58, 140, 58)))
            page.fill(union(*(ellipse(u + a, v + b, 2.5) for a, b in ((-2.4, 0), (2.4, 0), (0, -2.4), (0, 2.4)))),
                      tone(petal))  # fmt: skip
            page.fill(ellipse(u, v, 1.7), tone((250, 176, 50)))
    elif ground == "desert":
        _hill(page, far - 8, tone((240, 206, 160), 0.35), tone((226, 184, 130), 0.15), 46)
        _hill(page, near, tone((252, 226, 172)), tone((228, 180, 116)), 84)
        for low, period in ((34, 1.0), (58, 0.8)):
            crest = near + low + 7 * wave(x * period + turn + low * 0.013)
            below = (page.y - crest) / 15
            page.blend(np.where(below > -0.04, 0.5 * smooth(1 - below), 0.0), tone((206, 154, 96)))
    elif ground == "snow":
        _hill(page, far - 10, tone((206, 222, 244), 0.35), tone((222, 234, 248), 0.15), 46)
        _hill(page, near, tone((252, 253, 255)), tone((222, 233, 248)), 88)
        for low, period in ((36, 0.9), (60, 0.7)):
            crest = near + low + 7 * wave(x * period + turn + low * 0.013)
            below = (page.y - crest) / 15
            page.blend(np.where(below > -0.04, 0.55 * smooth(1 - below), 0.0), tone((198, 214, 240)))
    else:
        _sea(page, sky, side, preset, frame)
    return to_page(page)


def _sea(page: Layer, sky: str, side: int, preset: int, frame: Frame) -> None:
    air, haze = AIR[sky], HAZE[sky]
    level = np.full_like(page.x, float(HORIZON))
    _hill(page, level, mix(lit((110, 198, 206), air), haze, 0.4), lit((18, 112, 148), air), 106)
    sx, _ = sun_at(sky, side, 0, frame)
    path = np.clip(1 - np.abs(page.x - sx) / (14 + (page.y - HORIZON) * 0.3), 0.0, 1.0)
    shine = {"day": 0.3, "sunset": 0.6, "night": 0.4, "storm": 0.1}[sky]
    page.blend(smooth(path) * shine * (page.y > HORIZON), {"sunset": (255, 206, 140)}.get(sky, (226, 240, 250)))
    foam = mix(lit((206, 240, 244), air), (255, 255, 255), 0.15)
    for i, y in enumerate(frame.sink(y) for y in (161, 174, 190, 210, 234)):
        period, height = 26.0 + i * 7, 1.4 + i * 0.7
        crest = y - height * wave(page.x / period + preset / PRESETS + 0.5 * i)
        band = np.clip(1.0 + i * 0.22 - np.abs(page.y - crest), 0.0, 1.0)
        page.blend(band * 0.5, foam)


@lru_cache(maxsize=64)
def extra(ground: str, sky: str, frame: Frame = SQUARE) -> Page:
    """The extra of a ground, 64 units high and 96 wide; its base is 48 units below the top."""
    across, down = frame.patch(96, 64)
    x, y = np.broadcast_arrays((across - 48)[None, :], (48 - down)[:, None])
    page, air = Layer(x, y, frame.scale), AIR[sky]
    if ground == "meadow":
        rails = union(box(-46, 5, 46, 9, 1), box(-46, 13, 46, 17, 1))
        posts = union(
            *(polygon([(u - 3, 0), (u - 3, 19), (u, 23), (u + 3, 19), (u + 3, 0)]) for u in range(-36, 37, 18))
        )
        whole = union(rails, posts)
        page.fill(lambda u, v: whole(u, v) - 0.8, lit((128, 116, 112), air))
        page.fill(whole, lit((250, 244, 232), air))
    elif ground == "desert":
        cactus = union(stroke([(0, 0), (0, 34)], 8.0), stroke([(0, 13), (-10, 15), (-10, 25)], 5.0),
                       stroke([(0, 18), (10, 20), (10, 29)], 5.0))  # fmt: skip
        page.fill(lambda u, v: cactus(u, v) - 1.0, lit((30, 84, 60), air))
        page.fill(cactus, lit((92, 160, 96), air))
    elif ground == "snow":
        for low, half, high in ((3, 13, 18), (12, 10, 27), (21, 7, 36)):
            tier = polygon([(-half, low), (0, high), (half, low)], 1.0)
            page.fill(tier, lit((44, 104, 96), air))
            page.fill(polygon([(-half * 0.5, (low + high) / 2), (0, high), (half * 0.5, (low + high) / 2)], 1.0),
                      lit((250, 252, 255), air))  # fmt: skip
    else:
        rock = union(ellipse(-8, 0, 22, 13), ellipse(12, 0, 15, 8), blend=4.0)
        flat = difference(rock, box(-60, -30, 60, 0))
        page.fill(flat, mix(lit((92, 138, 110), air), HAZE[sky], 0.35))
    return to_page(page)
