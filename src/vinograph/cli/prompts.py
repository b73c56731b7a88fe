"""Reads what ``generate`` draws: one prompt, or a list of them from a file or standard input."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vinograph.errors import RequestError, VinographError
from vinograph.values import clipped

_FILE, _STANDARD_INPUT = "@", "-"
_COMMENT = "#"
_LONGEST = 16_000_000  # bytes of a list: an endless input is refused before it fills the memory


@dataclass(frozen=True)
class Prompt:
    """A prompt, and the number of its line in the list ``source``; both None if it is no list's.

    ``text`` is None where another argument says what to draw.
    """

    text: str | None
    line: int | None = None
    source: str | None = None

    @contextmanager
    def naming(self) -> Iterator[None]:
        """Name the prompt's line in the errors of the block."""
        try:
            yield
        except VinographError as error:
            if self.line is not None:
                error.args = (f"line {self.line} of {self.source}: {error}",)
            raise

    def named(self, warning: str) -> str:
        """A warning that names the prompt's line."""
        return warning if self.line is None else f"line {self.line}: {warning}"


def read_prompts(text: str | None) -> list[Prompt]:
    """The prompts of ``text``: of the file after an @, of standard input for -, else itself.

    Each line of a list is a prompt. Blank lines and those that begin with # are skipped.

    Raises:
        RequestError: the list can't be read, or has no prompt.
    """
    if text is None or not (text == _STANDARD_INPUT or text.startswith(_FILE)):
        return [Prompt(text)]
    source = "standard input" if text == _STANDARD_INPUT else clipped(text.removeprefix(_FILE))
    content = _standard_input() if text == _STANDARD_INPUT else _content(text)
    if len(content) > _LONGEST:
        raise RequestError(f"{source} has over {_LONGEST // 1_000_000} MB; give a list of prompts, one a line")
    try:
        lines = content.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise RequestError(f"{source} is not text in UTF-8; give a list of prompts, one a line") from error
    found = [Prompt(line.strip(), number, source) for number, line in enumerate(lines, 1)]
    prompts = [each for each in found if each.text and not each.text.startswith(_COMMENT)]
    if not prompts:
        raise RequestError(f"{source} has no prompt: give one a line; those that begin with # are skipped")
    return prompts


def _content(text: str) -> bytes:
    file = Path(text.removeprefix(_FILE))
    try:
        if not file.is_file():
            raise FileNotFoundError
        with file.open("rb") as stream:
            return stream.read(_LONGEST + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "there is no such file"
        raise RequestError(
            f"{clipped(text)} names a list of prompts that can't be read: {reason}. "
            f"To draw a text that begins with {_FILE}, put a space before it"
        ) from error


def _standard_input() -> bytes:
    if sys.stdin is None:
        raise RequestError("standard input is closed; give a prompt, or a list of prompts as @FILE")
    return sys.stdin.buffer.read(_LONGEST + 1)
