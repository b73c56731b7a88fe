"""Styles: the file, and what a style makes of a prompt."""

from pathlib import Path

import pytest

from vinograph import RequestError
from vinograph.styles import Style, read_styles


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file as A1111 writes it, with a mark of its encoding and a line break in a template."""
    content = (
        "name,prompt,negative_prompt\n"
        'Ink,"{prompt}, ink drawing,\nfine lines",photo\n'
        "Night,at night,\n"
        ",nothing,\n"
        "Short,only a prompt\n"
    )
    path = tmp_path / "styles.csv"
    path.write_text(content, encoding="utf-8-sig")
    return path


def test_styles_are_read_in_order_and_without_those_that_have_no_name(file: Path) -> None:
    styles = read_styles(file)
    assert list(styles) == ["Ink", "Night", "Short"]
    assert styles["Short"] == Style("Short", "only a prompt")


@pytest.mark.parametrize(
    ("style", "given", "made"),
    [
        (Style("", "{prompt}, ink", "photo"), ("a cat", ""), ("a cat, ink", "photo")),
        (Style("", "ink", "photo"), ("a cat", "dog"), ("a cat, ink", "dog, photo")),
        (Style("", "", ""), ("a cat", "dog"), ("a cat", "dog")),
        (Style("", "{prompt} and {prompt}", "no {prompt}"), ("a cat", "dog"), ("a cat and a cat", "no dog")),
        (Style("", "ink", ""), ("", ""), ("ink", "")),
    ],
)
def test_a_style_takes_the_prompt_in_its_place_or_before_it(
    style: Style, given: tuple[str, str], made: tuple[str, str]
) -> None:
    assert style.apply(*given) == made


def test_no_file_has_no_styles(tmp_path: Path) -> None:
    assert read_styles(tmp_path / "styles.csv") == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"title,text\nInk,x\n", "need a first line with the columns name, prompt, negative_prompt"),
        (b"", "need a first line"),
        (b"\xff\xfe\x00n", "can't be read"),
        (b'name,prompt\nInk,"never closed\n', "can't be read"),
        (b"x" * ((1 << 20) + 1), "take more than 1 MB"),
    ],
)
def test_another_file_is_refused_by_its_name(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "styles.csv"
    path.write_bytes(content)
    with pytest.raises(RequestError, match=message) as error:
        read_styles(path)
    assert str(path) in str(error.value)
