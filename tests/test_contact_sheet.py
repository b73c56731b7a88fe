"""Contact sheets: labels lie where they should, and none is cut off."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFont

from vinograph.contact_sheet import PAPER, Box, ContactSheet, Label, contact_sheet, wrapped

RED, BLUE = (200, 30, 40), (20, 60, 190)
LONG = "a very small robot that reads in a library, watercolour, soft light, from above, incomprehensibilities"


def filled(colour: tuple[int, int, int], size: tuple[int, int] = (200, 160)) -> Image.Image:
    return Image.new("RGB", size, colour)


def table(rows: int, columns: int) -> list[list[Image.Image | None]]:
    return [[filled((40 * row, 40 * column, 128)) for column in range(columns)] for row in range(rows)]


def ink(sheet: ContactSheet) -> np.ndarray:
    """Where the sheet is neither paper nor a picture's place: [height, width]."""
    marked: np.ndarray = (np.asarray(sheet.picture, np.int16) != np.array(PAPER)).any(axis=2)
    for row in sheet.cells:
        for box in row:
            marked[box.top : box.bottom, box.left : box.right] = False
    return marked


def ink_box(sheet: ContactSheet, within: Box) -> Box:
    part = ink(sheet)[within.top : within.bottom, within.left : within.right]
    down, across = np.nonzero(part.any(axis=1))[0], np.nonzero(part.any(axis=0))[0]
    return Box(
        within.left + int(across[0]),
        within.top + int(down[0]),
        within.left + int(across[-1]) + 1,
        within.top + int(down[-1]) + 1,
    )


def all_labels(sheet: ContactSheet) -> list[Label]:
    return [*sheet.columns, *sheet.rows, *([sheet.title] if sheet.title else [])]


class TestPictures:
    def test_each_is_in_its_place(self) -> None:
        pictures = table(2, 3)
        sheet = contact_sheet(pictures, ["1", "2", "3"], ["a", "b"])
        for row, boxes in zip(pictures, sheet.cells, strict=True):
            for picture, box in zip(row, boxes, strict=True):
                assert picture is not None
                assert (np.asarray(sheet.picture.crop(box)) == np.asarray(picture)).all()
        assert sheet.scale == 1

    def test_a_smaller_one_is_in_the_middle(self) -> None:
        sheet = contact_sheet([[filled(RED), filled(BLUE, (100, 80))]])
        box = sheet.cells[0][1]
        assert sheet.picture.getpixel((box.left + 51, box.top + 41)) == BLUE
        assert sheet.picture.getpixel((box.left + 48, box.top + 38)) == PAPER
        assert sheet.picture.getpixel((box.left + 148, box.top + 118)) == BLUE

    def test_an_empty_place_is_seen(self) -> None:
        sheet = contact_sheet([[filled(RED), None]])
        box = sheet.cells[0][1]
        assert sheet.picture.getpixel((box.left + 1, box.top + 1)) not in (PAPER, RED)

    def test_too_many_pixels_are_scaled_down(self) -> None:
        sheet = contact_sheet(table(4, 4), max_pixels=128_000)
        assert sheet.scale == pytest.approx(0.5)
        assert sheet.cells[0][0].width == 100
        assert sheet.picture.width * sheet.picture.height < 200_000


class TestLabels:
    @pytest.mark.parametrize("text", ["Steps: 4", LONG, "äöü × é", "jpqy" * 40])
    def test_nothing_is_cut_off(self, text: str) -> None:
        """All ink lies in the labels' boxes, which lie in the sheet and not over a picture or each other."""
        sheet = contact_sheet(table(2, 3), [text, "2", text], [text, "b"], title=text)
        rest = ink(sheet)
        for label in all_labels(sheet):
            assert 0 <= label.box.left < label.box.right <= sheet.picture.width
            assert 0 <= label.box.top < label.box.bottom <= sheet.picture.height
            inside = rest[label.box.top : label.box.bottom, label.box.left : label.box.right]
            assert inside.any()
            rest[label.box.top : label.box.bottom, label.box.left : label.box.right] = False
        assert not rest.any()
        boxes = [each.box for each in all_labels(sheet)] + [box for row in sheet.cells for box in row]
        for index, one in enumerate(boxes):
            for other in boxes[index + 1 :]:
                apart = one.right <= other.left or other.right <= one.left
                assert apart or one.bottom <= other.top or other.bottom <= one.top

    def test_they_say_the_whole_text(self) -> None:
        sheet = contact_sheet(table(2, 2), [LONG, "short"], [LONG, "short"], title=LONG)
        for label in (sheet.columns[0], sheet.rows[0], sheet.title):
            assert label is not None
            assert len(label.lines) > 1 or label is sheet.title
            assert "".join(label.lines).replace(" ", "") == LONG.replace(" ", "")

    def test_a_columns_label_is_centred_over_it(self) -> None:
        sheet = contact_sheet(table(1, 3), ["Steps: 1", "Steps: 20", LONG])
        for label, box in zip(sheet.columns, sheet.cells[0], strict=True):
            drawn = ink_box(sheet, Box(box.left, 0, box.right, box.top))
            assert drawn.bottom <= box.top
            assert (drawn.left + drawn.right) / 2 == pytest.approx((box.left + box.right) / 2, abs=3)
            assert label.box.left >= box.left - 2
            assert label.box.right <= box.right + 2

    def test_a_rows_label_is_beside_its_middle(self) -> None:
        sheet = contact_sheet(table(3, 1), rows=["Seed: 1", "Seed: 2", LONG])
        for label, (box,) in zip(sheet.rows, sheet.cells, strict=True):
            drawn = ink_box(sheet, Box(0, label.box.top, box.left, label.box.bottom))
            assert drawn.right <= box.left
            assert (drawn.top + drawn.bottom) / 2 == pytest.approx((box.top + box.bottom) / 2, abs=6)

    def test_a_row_grows_with_its_label(self) -> None:
        sheet = contact_sheet([[filled(RED, (64, 32))], [filled(BLUE, (64, 32))]], rows=[LONG, "short"])
        assert sheet.rows[0].box.bottom <= sheet.cells[1][0].top

    def test_letters_grow_with_the_pictures(self) -> None:
        small = contact_sheet([[filled(RED, (128, 128))]], ["Steps"])
        large = contact_sheet([[filled(RED, (768, 768))]], ["Steps"])
        assert large.columns[0].box.height > 2 * small.columns[0].box.height


class TestWrapping:
    def test_no_line_is_wider(self) -> None:
        font = ImageFont.load_default(20)
        for width in (30, 80, 200):
            for text in (LONG, "w" * 300, "a\nb", " "):
                assert all(font.getlength(line) <= width for line in wrapped(text, font, width))

    def test_very_many_lines_end_in_an_ellipsis(self) -> None:
        lines = wrapped("word " * 5_000, ImageFont.load_default(20), 100)
        assert len(lines) == 12
        assert lines[-1].endswith("…")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"pictures": [[None]]}, "at least one picture"),
        ({"pictures": [[filled(RED)], []]}, "different lengths"),
        ({"pictures": [[filled(RED)]], "columns": ["a", "b"]}, "1 columns and 2 labels"),
        ({"pictures": [[filled(RED)]], "rows": ["a", "b"]}, "1 rows and 2 labels"),
    ],
)
def test_what_is_no_table_is_refused(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        contact_sheet(**arguments)  # type: ignore[arg-type]
