"""Two pictures next to each other, under a slider, and their difference."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vinograph.contact_sheet import contact_sheet
from vinograph.images import Size, resize
from vinograph.web import fragments, viewing
from vinograph.web.sessions import Picture, Session, address

GAINS = (1, 4, 16)
"""Factors that a difference is shown with."""

NAMES = ("A", "B")
GROUP = "compare"


@dataclass(frozen=True)
class Difference:
    """The absolute difference of two pictures: its values are of 255."""

    values: NDArray[np.uint8]
    largest: int
    mean: float

    def picture(self, gain: int) -> Image.Image:
        """The difference as a picture, ``gain`` times as bright; what exceeds white is white."""
        return Image.fromarray(np.minimum(self.values.astype(np.uint16) * gain, 255).astype(np.uint8))


def difference(one: Image.Image, other: Image.Image) -> Difference:
    """The difference of two RGB pictures of one size."""
    values = np.abs(np.asarray(one, np.int16) - np.asarray(other, np.int16)).astype(np.uint8)
    return Difference(values, int(values.max()), float(values.mean()))


@dataclass(frozen=True)
class Comparison:
    """Two drawn pictures, and the files that compare them.

    ``scaled`` is B in A's size, where it had another. ``differences`` are files by their gain.
    """

    pictures: tuple[Picture, Picture]
    side_by_side: Path
    differences: dict[int, Path]
    largest: int
    mean: float
    scaled: Path | None = None

    @property
    def swapped(self) -> tuple[Picture, Picture]:
        """The pictures, the other one first."""
        one, other = self.pictures
        return other, one

    def discard(self) -> None:
        """Remove the comparison's own files."""
        for file in (self.side_by_side, *self.differences.values(), *([self.scaled] if self.scaled else [])):
            shutil.rmtree(file.parent, ignore_errors=True)  # they went with the session, where it was closed


def compare(session: Session, one: Picture, other: Picture) -> Comparison:
    """Compare two pictures of a session, and write the files that show it."""
    left, right = _opened(one), _opened(other)
    scaled = resize(right, Size(width=left.width, height=left.height))
    found = difference(left, scaled)
    names = [f"{name}: {each.model}" for name, each in zip(NAMES, (one, other), strict=True)]
    sheet = contact_sheet([[left, right]], names)
    return Comparison(
        pictures=(one, other),
        side_by_side=session.write(sheet.picture, name="side-by-side.png"),
        differences={gain: session.write(found.picture(gain), name=f"difference-x{gain}.png") for gain in GAINS},
        largest=found.largest,
        mean=found.mean,
        scaled=None if scaled is right else session.write(scaled, name="b-in-the-size-of-a.png"),
    )


def _opened(picture: Picture) -> Image.Image:
    with Image.open(picture.file) as opened:
        return opened.convert("RGB")


def comparison_html(comparison: Comparison) -> str:
    """The comparison: what is shown is chosen between a slider and the difference, by a gain."""
    one, other = comparison.pictures
    right = other.address if comparison.scaled is None else address(comparison.scaled)
    names = [f"{name}: {each.model}" for name, each in zip(NAMES, comparison.pictures, strict=True)]
    shown = f'<div data-shows="slider">{fragments.slider(one.address, right, names, one.size)}</div>'
    shown += "".join(_difference_figure(comparison, gain) for gain in GAINS)
    facts = fragments.facts(
        f"Largest difference {comparison.largest} of 255",
        f"Mean difference {comparison.mean:.2f} of 255",
        "B was scaled to the size of A" if comparison.scaled else "",
    )
    links = [
        fragments.download(each.address, f"{name.lower()}-{each.name}", f"Download {name}")
        for name, each in zip(NAMES, comparison.pictures, strict=True)
    ]
    links.append(fragments.download(address(comparison.side_by_side), "side-by-side.png", "Download side by side"))
    return f'<div class="comparison">{_views()}{shown}{facts}<div class="links">{"".join(links)}</div></div>'


def _views() -> str:
    views = {"slider": "Slider", **{str(gain): f"Difference ×{gain}" for gain in GAINS}}
    radios = "".join(
        f'<label><input type="radio" name="comparison-view" value="{value}"{" checked" if value == "slider" else ""}>'
        f"{text}</label>"
        for value, text in views.items()
    )
    return f'<fieldset class="views"><legend>View</legend>{radios}</fieldset>'


def _difference_figure(comparison: Comparison, gain: int) -> str:
    source = address(comparison.differences[gain])
    text = f"Difference of A and B, ×{gain}"
    view = viewing.view_button(source, text, text, "difference")
    return f'<div data-shows="{gain}">{viewing.framed(view, comparison.pictures[0].size)}</div>'
