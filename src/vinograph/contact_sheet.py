"""One picture of many: a table of pictures with labels over its columns and beside its rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

MAX_PIXELS = 32_000_000
"""A sheet has at most about so many pixels: larger pictures are scaled down."""

PAPER = (250, 248, 245)
INK = (29, 27, 24)
_EMPTY = (230, 225, 217)  # a place without a picture

_GAP = 0.03  # between pictures, of a picture's longer side; the least is _LEAST_GAP
_LEAST_GAP = 8
_FONT = 0.055  # the letters' size, of a picture's longer side, within _FONTS
_FONTS = (13, 44)
_LINE = 1.3  # of the letters' size
_ROW_LABELS = 0.6  # the widest row labels, of a picture's width
_LEAST_ROW_LABELS = 160
_MOST_LINES = 12
_LONGEST = 2000  # characters of a text that are looked at
_ELLIPSIS = "…"

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


class Box(NamedTuple):
    """A rectangle in a sheet, in pixels; ``right`` and ``bottom`` lie just outside of it."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        """Its width in pixels."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """Its height in pixels."""
        return self.bottom - self.top


@dataclass(frozen=True)
class Label:
    """A text that was drawn: its lines, and the box that they lie in."""

    lines: tuple[str, ...]
    box: Box


@dataclass(frozen=True)
class ContactSheet:
    """The drawn sheet, and where everything lies in it.

    Attributes:
        picture: the sheet as an RGB picture.
        cells: the box of each picture's place, by row and column.
        columns: the label over each column; empty if there are none.
        rows: the label beside each row; empty if there are none.
        title: what stands on top; None if there is none.
        scale: the size of the pictures in the sheet, 1.0 where they weren't scaled down.
    """

    picture: Image.Image
    cells: tuple[tuple[Box, ...], ...]
    columns: tuple[Label, ...]
    rows: tuple[Label, ...]
    title: Label | None
    scale: float


def contact_sheet(
    pictures: Sequence[Sequence[Image.Image | None]],
    columns: Sequence[str] = (),
    rows: Sequence[str] = (),
    title: str = "",
    max_pixels: int = MAX_PIXELS,
) -> ContactSheet:
    """Draw pictures in rows and columns under their labels. Long labels wrap.

    A picture that is smaller than the largest stands in the middle of its place.

    Args:
        pictures: rows of pictures, of equal length; None leaves a place empty.
        columns: the label over each column; none draws no labels there.
        rows: the label beside each row; none draws no labels there.
        title: what stands on top.
        max_pixels: pictures are scaled down where they would have more pixels together.

    Raises:
        ValueError: there is no picture, the rows differ in length, or the labels in number.
    """
    _check(pictures, columns, rows)
    scale, width, height = _cell_size(pictures, max_pixels)
    layout = _Layout(width, height)
    return layout.draw(pictures, columns, rows, title, scale)


def _check(pictures: Sequence[Sequence[Image.Image | None]], columns: Sequence[str], rows: Sequence[str]) -> None:
    if not any(each is not None for row in pictures for each in row):
        raise ValueError("a contact sheet needs at least one picture")
    if len({len(row) for row in pictures}) != 1:
        raise ValueError("the rows of a contact sheet have different lengths")
    if columns and len(columns) != len(pictures[0]):
        raise ValueError(f"there are {len(pictures[0])} columns and {len(columns)} labels for them")
    if rows and len(rows) != len(pictures):
        raise ValueError(f"there are {len(pictures)} rows and {len(rows)} labels for them")


def _cell_size(pictures: Sequence[Sequence[Image.Image | None]], max_pixels: int) -> tuple[float, int, int]:
    """The scale of all pictures, and the width and height of a place."""
    sizes = [each.size for row in pictures for each in row if each is not None]
    width, height = max(size[0] for size in sizes), max(size[1] for size in sizes)
    pixels = width * height * len(pictures) * len(pictures[0])
    scale = min(1.0, math.sqrt(max_pixels / pixels))
    return scale, max(1, round(width * scale)), max(1, round(height * scale))


class _Layout:
    """Draws a sheet whose places have one size."""

    def __init__(self, width: int, height: int) -> None:
        self._width = width
        self._height = height
        longer = max(width, height)
        self._gap = max(_LEAST_GAP, round(longer * _GAP))
        size = min(max(round(longer * _FONT), _FONTS[0]), _FONTS[1])
        self._font = ImageFont.load_default(size)
        self._line = math.ceil(size * _LINE)

    def draw(
        self,
        pictures: Sequence[Sequence[Image.Image | None]],
        columns: Sequence[str],
        rows: Sequence[str],
        title: str,
        scale: float,
    ) -> ContactSheet:
        gap, across, down = self._gap, len(pictures[0]), len(pictures)
        row_lines = [wrapped(text, self._font, self._row_label_width()) for text in rows]
        label_width = max((self._text_width(lines) for lines in row_lines), default=0)
        left = gap + (label_width + gap if label_width else 0)
        right = left + across * (self._width + gap)
        title_lines = wrapped(title, self._font, right - 2 * gap) if title else ()
        column_lines = [wrapped(text, self._font, self._width) for text in columns]
        column_top = gap + (len(title_lines) * self._line + gap if title_lines else 0)
        column_height = max((len(lines) for lines in column_lines), default=0) * self._line
        top = column_top + (column_height + gap // 2 if column_height else 0)
        row_heights = [max(self._height, len(lines) * self._line) for lines in row_lines] or [self._height] * down
        tops = [top + sum(row_heights[:index]) + index * gap for index in range(down)]
        lefts = [left + index * (self._width + gap) for index in range(across)]
        sheet = Image.new("RGB", (right, tops[-1] + row_heights[-1] + gap), PAPER)
        pen = ImageDraw.Draw(sheet)
        cells = tuple(tuple(Box(x, y, x + self._width, y + self._height) for x in lefts) for y in tops)
        for row, boxes in zip(pictures, cells, strict=True):
            for picture, box in zip(row, boxes, strict=True):
                _place(sheet, picture, box, scale)
        return ContactSheet(
            picture=sheet,
            cells=cells,
            columns=tuple(
                self._label(pen, lines, Box(x, column_top, x + self._width, column_top + column_height), across=True)
                for lines, x in zip(column_lines, lefts, strict=False)
            ),
            rows=tuple(
                self._label(pen, lines, Box(gap, y, gap + label_width, y + height))
                for lines, y, height in zip(row_lines, tops, row_heights, strict=False)
            ),
            title=self._label(pen, title_lines, Box(gap, gap, right - gap, column_top - gap)) if title_lines else None,
            scale=scale,
        )

    def _row_label_width(self) -> int:
        return max(_LEAST_ROW_LABELS, round(self._width * _ROW_LABELS))

    def _text_width(self, lines: Sequence[str]) -> int:
        return max((math.ceil(self._font.getlength(line)) for line in lines), default=0)

    def _label(self, pen: ImageDraw.ImageDraw, lines: tuple[str, ...], place: Box, *, across: bool = False) -> Label:
        """Draw lines into a place: over a column (``across``) centred at its bottom, else at its left, midway."""
        height = len(lines) * self._line
        top = place.bottom - height if across else place.top + (place.height - height) // 2
        widths = [math.ceil(self._font.getlength(line)) for line in lines]
        lefts = [place.left + (place.width - width) // 2 if across else place.left for width in widths]
        inked = []
        for index, (line, left) in enumerate(zip(lines, lefts, strict=True)):
            at = (left, top + index * self._line)
            pen.text(at, line, INK, self._font)
            inked.append(pen.textbbox(at, line, self._font))
        return Label(lines, _around(inked))


def _around(boxes: Sequence[tuple[float, float, float, float]]) -> Box:
    """The least box around all of ``boxes``."""
    left, top, right, bottom = zip(*boxes, strict=True)
    return Box(math.floor(min(left)), math.floor(min(top)), math.ceil(max(right)), math.ceil(max(bottom)))


def _place(sheet: Image.Image, picture: Image.Image | None, box: Box, scale: float) -> None:
    """Put a picture into the middle of its place."""
    if picture is None:
        sheet.paste(_EMPTY, box)
        return
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    scaled = picture.convert("RGB")
    if size != picture.size:
        scaled = scaled.resize(size, Image.Resampling.LANCZOS)
    sheet.paste(scaled, (box.left + (box.width - size[0]) // 2, box.top + (box.height - size[1]) // 2))


def wrapped(text: str, font: Font, width: int) -> tuple[str, ...]:
    """The lines of a text, none of which is wider than ``width`` pixels.

    Words stay whole where they fit. Of very many lines the first ones are kept, with an ellipsis.
    """
    lines: list[str] = []
    for paragraph in text[:_LONGEST].splitlines():
        line = ""
        for word in paragraph.split():
            joined = f"{line} {word}" if line else word
            if font.getlength(joined) <= width:
                line = joined
                continue
            lines += [line] if line else []
            *whole, line = _pieces(word, font, width)
            lines += whole
        lines.append(line)
        if len(lines) > _MOST_LINES:
            break
    if len(lines) > _MOST_LINES:
        lines = [*lines[: _MOST_LINES - 1], _shortened(lines[_MOST_LINES - 1], font, width)]
    return tuple(lines)


def _pieces(word: str, font: Font, width: int) -> Iterator[str]:
    """A word, or parts of one that is too wide; each has at least one letter."""
    while word:
        low, high = 1, min(len(word), 2 * width)  # a letter has half a pixel at least
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if font.getlength(word[:middle]) <= width else (low, middle - 1)
        yield word[:low]
        word = word[low:]


def _shortened(line: str, font: Font, width: int) -> str:
    """A line that ends in an ellipsis and still fits."""
    while line and font.getlength(line + _ELLIPSIS) > width:
        line = line[:-1]
    return line + _ELLIPSIS
