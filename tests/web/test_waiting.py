"""How the page's tests read it: what a browser shows follows later, so an assertion waits for it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

# Methods of Playwright's that read once. `expect` has a form of each that repeats itself until it holds.
_ONCE = {
    *("all_inner_texts", "all_text_contents", "bounding_box", "count", "evaluate", "evaluate_all"),
    *("get_attribute", "inner_html", "inner_text", "input_value", "is_checked", "is_disabled", "is_editable"),
    *("is_enabled", "is_hidden", "is_visible", "text_content"),
}


def read_once(source: str) -> list[int]:
    """The lines of assertions about what was read once, in the assertion itself."""
    asserted = [node.test for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Assert)]
    calls = [each for test in asserted for each in ast.walk(test) if isinstance(each, ast.Call)]
    return [each.lineno for each in calls if isinstance(each.func, ast.Attribute) and each.func.attr in _ONCE]


@pytest.mark.parametrize("file", sorted(Path(__file__).parent.glob("test_page*.py")), ids=lambda file: file.stem)
def test_assertions_about_the_page_wait(file: Path) -> None:
    assert not read_once(file.read_text(encoding="utf-8")), "use expect(...), or wait_for_function"


def test_one_that_does_not_wait_is_found() -> None:
    source = "x = picture.count()\nassert x == 1\nassert picture.evaluate('it => it.naturalWidth') == 256\n"
    assert read_once(source) == [3]
