"""What MkDocs does not know of the project's Markdown: pages outside docs, GitHub's anchors and its lists.

mkdocs.yml names this file as its hook. The documents stay as a clone shows them.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
RESULTS = "benchmarks/results"
# Files that are read in the repository's other folders, and their places on the site.
OUTSIDE = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    f"{RESULTS}/2026-11-21/README.md": "results-2026-11-21.md",
    f"{RESULTS}/2026-11-21/batches.svg": "batches.svg",
    f"{RESULTS}/2026-11-28/README.md": "results-2026-11-28.md",
}
_LINK = re.compile(r"\]\((?![a-z]+:|#)(?P<path>[^)\s#]+)(?P<anchor>#[^)\s]*)?\)")
_CODE = re.compile(r"(^ *```.*?^ *```$|`[^`\n]*`)", re.MULTILINE | re.DOTALL)
_INDENT = re.compile(r"^ +(?=\S)", re.MULTILINE)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Give headings the anchors that GitHub gives them."""
    config.mdx_configs["toc"]["slugify"] = anchor
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that stay outside the folder of documents."""
    for source, place in OUTSIDE.items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: object) -> str:
    """Lead links to the pages' places on the site, and indent nested lists by four, as Python-Markdown wants them."""
    parts = _CODE.split(markdown)  # every other part is code, which stays as it is
    for index in range(0, len(parts), 2):
        text = _INDENT.sub(lambda spaces: spaces[0] * 2, parts[index])
        parts[index] = _LINK.sub(lambda link: f"]({moved(link['path'], page.file)}{link['anchor'] or ''})", text)
    return "".join(parts)


def moved(link: str, page: File) -> str:
    """A relative link of a page, as the site has it."""
    places = {place: source for source, place in OUTSIDE.items()}
    source = ROOT / places[page.src_uri] if page.src_uri in places else DOCS / page.src_uri
    target = (source.parent / link).resolve()
    if target.is_relative_to(DOCS):
        place = target.relative_to(DOCS).as_posix()
    else:
        place = OUTSIDE.get(target.relative_to(ROOT).as_posix(), link)
    return Path(os.path.relpath(place, Path(page.src_uri).parent)).as_posix()


def anchor(heading: str, separator: str) -> str:
    """GitHub's anchor of a heading: in lower case, without punctuation, with hyphens for spaces."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", separator)
