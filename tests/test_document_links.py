"""The documents' form: links that lead somewhere, lines that a terminal shows, and every page within reach."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "benchmarks").rglob("*.md")),
]
GENERATED = {"cli.md", "api.md"}
LINK = re.compile(r"\]\((?P<link>[^)\s]+)\)|<img src=\"(?P<source>[^\"]+)\"")
CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LONGEST = 100


def links(file: Path) -> Iterator[str]:
    """The links of a document into this repository, code left out."""
    text = re.sub(r"`[^`\n]*`", "", CODE.sub("", file.read_text(encoding="utf-8")))
    for found in LINK.finditer(text):
        link = found["link"] or found["source"]
        if not re.match(r"[a-z]+:", link):
            yield link


def anchors(file: Path) -> set[str]:
    """The anchors that GitHub gives a document's headings."""
    text = CODE.sub("", file.read_text(encoding="utf-8"))
    return {anchor(heading) for heading in re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)}


def anchor(heading: str) -> str:
    """A heading in lower case, without punctuation and with hyphens for spaces."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def prose(file: Path) -> Iterator[tuple[int, str]]:
    """The lines of a document that are neither code nor a table, by their numbers."""
    inside = False
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if line.lstrip().startswith("```"):
            inside = not inside
        elif not inside and not line.startswith("|"):
            yield number, line


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda each: str(each.relative_to(ROOT)))
def test_every_link_leads_somewhere(file: Path) -> None:
    for link in links(file):
        path, _, wanted = link.partition("#")
        target = (file.parent / path).resolve() if path else file
        assert target.exists(), f"{link}: there is no {target}"
        assert target.is_relative_to(ROOT), f"{link} leads out of the repository"
        if wanted:
            assert wanted in anchors(target), f"{link}: {target.name} has {', '.join(sorted(anchors(target)))}"


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda each: str(each.relative_to(ROOT)))
def test_every_path_that_it_names_is_there(file: Path) -> None:
    for name in re.findall(r"`((?:src|tests|training|scripts|benchmarks)/[\w/.-]+)`", file.read_text(encoding="utf-8")):
        assert (ROOT / name).exists(), name


def test_there_are_links_of_every_kind() -> None:
    found = [link for file in DOCUMENTS for link in links(file)]
    assert any("#" in link and not link.startswith("#") for link in found)
    assert any(link.startswith("#") for link in found)
    assert any(link.endswith(".webp") for link in found)


def test_every_page_is_within_reach_of_the_readme() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        file = waiting.pop()
        if file in reached or file.suffix != ".md":
            continue
        reached.add(file)
        waiting += [(file.parent / link.partition("#")[0]).resolve() for link in links(file) if link[0] != "#"]
    assert not set(DOCUMENTS) - reached


@pytest.mark.parametrize(
    "file", [each for each in DOCUMENTS if each.name not in GENERATED], ids=lambda each: str(each.relative_to(ROOT))
)
def test_lines_of_prose_fit_a_terminal(file: Path) -> None:
    too_long = [f"{file.name}:{number}" for number, line in prose(file) if len(line) > LONGEST]
    assert not too_long
