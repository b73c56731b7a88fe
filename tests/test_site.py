"""The documentation site: it builds strictly, asks no other host for anything, and shows what the documents say."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from mkdocs.utils.yaml import yaml_load
from playwright.sync_api import Page

from scripts import browser
from scripts.site_hooks import OUTSIDE, anchor
from tests import test_document_links

ROOT = Path(__file__).parent.parent
SEEN = ROOT / "tests" / "web" / "seen"
LOADS = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src", "video": "src"}


def build(configuration: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Build the site as ``make site`` does."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(configuration), "-d", str(out)]
    variables = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site."""
    out = tmp_path_factory.mktemp("site")
    done = build(ROOT / "mkdocs.yml", out)
    assert done.returncode == 0, done.stderr
    return out


def nav_pages(entry: object) -> list[str]:
    """The pages of mkdocs.yml's navigation."""
    if isinstance(entry, str):
        return [entry]
    values = entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else []
    return [page for each in values for page in nav_pages(each)]


def navigation() -> list[str]:
    return nav_pages(yaml_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])


class Loaded(HTMLParser):
    """The addresses that a browser loads by itself for a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        address = dict(attrs).get(LOADS.get(tag, ""))
        if address:
            self.addresses.append(address)


def test_broken_links_and_forgotten_pages_fail_the_build(tmp_path: Path) -> None:
    pages = tmp_path / "docs"
    pages.mkdir()
    (pages / "index.md").write_text("# A\n\n[gone](gone.md) [nowhere](#nowhere)\n", encoding="utf-8")
    (pages / "forgotten.md").write_text("# B\n", encoding="utf-8")
    changes = {"INHERIT": str(ROOT / "mkdocs.yml"), "docs_dir": str(pages), "hooks": [], "nav": ["index.md"]}
    (tmp_path / "mkdocs.yml").write_text(json.dumps(changes), encoding="utf-8")
    done = build(tmp_path / "mkdocs.yml", tmp_path / "out")
    assert done.returncode != 0
    assert all(name in done.stderr for name in ("gone.md", "#nowhere", "forgotten.md")), done.stderr


def test_every_page_of_the_navigation_is_built(site: Path) -> None:
    pages = navigation()
    assert len(pages) > 30
    assert set(OUTSIDE.values()) - {"batches.svg"} <= set(pages)
    for page in pages:
        assert (site / page).with_suffix(".html").is_file(), page


def test_nothing_is_loaded_from_another_host(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    for page in pages:
        loaded = Loaded()
        loaded.feed(page.read_text(encoding="utf-8"))
        assert loaded.addresses
        assert not [each for each in loaded.addresses if re.match(r"[a-z]+:|//", each)], page
        assert 'class="mermaid"' not in page.read_text(encoding="utf-8"), "the theme would fetch a script for it"
    for sheet in site.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        assert not re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", text), sheet


def test_nested_lists_and_anchors_are_those_of_a_clone(site: Path) -> None:
    text = (site / "from-diffusers.html").read_text(encoding="utf-8")
    assert re.search(r"<li>(?:(?!</li>).)*<ul>", text, flags=re.DOTALL)
    for heading in ("What is proven, and what is not", "Seconds per picture by batch size, 1024×1024", "`a` & b"):
        assert anchor(heading, "-") == test_document_links.anchor(heading)


def test_the_first_page_leads_to_every_other_one() -> None:
    first = ROOT / "docs" / "index.md"
    found = {(first.parent / link.partition("#")[0]).resolve() for link in test_document_links.links(first)}
    sources = {place: source for source, place in OUTSIDE.items()}
    pages = {ROOT / sources[page] if page in sources else ROOT / "docs" / page for page in navigation()}
    sheets = {each for each in pages if each.parent.name == "pictures"}  # the page of the storybook models leads there
    assert pages - sheets - {first} <= found


def test_it_opens_from_a_disk_and_its_search_finds(site: Path) -> None:
    asked: list[str] = []
    with browser.launched() as chromium:
        page = chromium.new_page(viewport={"width": 1366, "height": 900})
        page.on("request", lambda request: asked.append(request.url))
        page.goto((site / "index.html").as_uri())
        page.locator(".md-search__input").click()
        page.keyboard.type("inpainting mask")
        page.locator(".md-search-result__link[href*='/inpainting.html']").first.wait_for(state="visible")
    assert len(asked) > 5
    assert not [each for each in asked if not each.startswith(("file:", "data:", "blob:", "about:"))]


@pytest.mark.parametrize(
    ("width", "theme"),
    [
        (390, "light"),
        pytest.param(1366, "light", marks=pytest.mark.long),
        pytest.param(390, "dark", marks=pytest.mark.long),
        pytest.param(1366, "dark", marks=pytest.mark.long),
    ],
)
def test_pages_fit_the_screen_and_can_be_read(site: Path, width: int, theme: str) -> None:
    SEEN.mkdir(exist_ok=True)
    with browser.launched() as chromium:
        context = chromium.new_context(viewport={"width": width, "height": 844}, color_scheme=theme)  # type: ignore[arg-type]
        page = context.new_page()
        for name in ("index", "start", "choose-a-model", "troubleshooting", "cli"):
            page.goto((site / f"{name}.html").as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= width, name
            page.screenshot(path=SEEN / f"site-{name}-{width}-{theme}.png")
            assert contrast(style(page, "background-color"), style(page, "color")) > 7, name


def style(page: Page, name: str) -> tuple[int, ...]:
    """A colour of the page's body, as red, green and blue."""
    text = page.evaluate(f"getComputedStyle(document.body).getPropertyValue('{name}')")
    return tuple(int(each) for each in re.findall(r"\d+", text)[:3])


def contrast(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    """The contrast of two colours, by WCAG 2."""
    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def luminance(colour: tuple[int, ...]) -> float:
    parts = [each / 255 for each in colour]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
