"""The page's prompt list: each line is a prompt, or a template that stands for several."""

from __future__ import annotations

from pathlib import Path

from vinograph.errors import RequestError
from vinograph.models import catalog
from vinograph.templates import TemplateError, WildcardError, Wildcards

WILDCARDS = "wildcards"
"""The folder in the models folder whose files ``__animal__`` stands for: the lines of animal.txt."""

_COMMENT = "#"
_MOST_NAMED = 20
_MOST_BRACES = 100  # of one line: a longer search for those that belong together would take seconds


def prompts_of(text: str, most: int) -> list[str]:
    """The prompts of a list, one a line. Blank lines and those that begin with # are skipped.

    ``{red|blue}`` stands for alternatives, and ``__animal__`` for the lines of a file.

    Raises:
        RequestError: there is no prompt, there are more than ``most``, or a template makes no sense.
    """
    folder = catalog.models_folder() / WILDCARDS
    wildcards = Wildcards(folder if folder.is_dir() else None)
    templates = []
    for number, line in enumerate(text.split("\n"), 1):
        if not (line := line.strip()) or line.startswith(_COMMENT):
            continue
        if line.count("{") > _MOST_BRACES:
            raise RequestError(f"line {number} has {line.count('{')} braces; give at most {_MOST_BRACES}")
        try:
            templates.append(wildcards.template(line))
        except WildcardError as error:  # its own message names a folder of the server
            there = ", ".join(_names(folder)) or "none"
            raise RequestError(f"line {number}: there is no wildcard __{error.name}__; there is {there}") from error
        except TemplateError as error:
            raise RequestError(f"line {number}: {error}") from error
    if not templates:
        raise RequestError("the list has no prompt: give one a line; those that begin with # are skipped")
    if (count := sum(each.count for each in templates)) > most:
        raise RequestError(f"the list stands for {count:,} prompts; give at most {most} at once")
    return [template.text(index) for template in templates for index in range(template.count)]


def _names(folder: Path) -> list[str]:
    """The wildcards that a visitor may write."""
    return [f"__{file.stem}__" for file in sorted(folder.glob("*.txt"))][:_MOST_NAMED]
