"""What helps to choose on the page: the list of models, styles, adapters, and a line of help by each control."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.web.conftest import Visitor, box_of, served
from vinograph.images import read_metadata
from vinograph.models import catalog

ROOT = Path(__file__).parents[2]
SIZES = [(1366, 768), *(pytest.param(size, marks=pytest.mark.long) for size in [(390, 844), (1920, 1080)])]
SCHEMES = ["light", pytest.param("dark", marks=pytest.mark.long)]
STYLES = 'name,prompt,negative_prompt\nEvening,"{prompt} at sunset",\nPlain,simple,\n'


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with styles and two adapters."""
    folder = tmp_path_factory.mktemp("help") / "models"
    (folder / "adapters").mkdir(parents=True)
    (folder / "styles.csv").write_text(STYLES, encoding="utf-8")
    for name in ("turquoise", "other"):
        shutil.copy(ROOT / "training/adapters/turquoise-sdxl.safetensors", folder / "adapters" / f"{name}.safetensors")
    return folder


@pytest.fixture(scope="module")
def address(models: Path) -> Iterator[str]:
    """A server whose models folder has all that."""
    with served(models=models) as found:
        yield found


@pytest.fixture
def helped(browser: Browser, address: str, request: pytest.FixtureRequest) -> Iterator[Visitor]:
    """Someone at that page."""
    context = browser.new_context(viewport={"width": 1366, "height": 768})
    visitor = Visitor(context, address, request.node.name.replace("/", "-"))
    yield visitor
    context.close()
    assert not visitor.failed


def downloaded(visitor: Visitor) -> dict[str, object]:
    """The request in the picture that is shown."""
    with visitor.page.expect_download() as download:
        visitor.page.get_by_role("link", name="Download PNG").click()
    metadata = read_metadata(download.value.path())
    assert metadata is not None
    return dict(metadata["request"])


def test_the_list_says_what_each_model_is_for_and_chooses_one(helped: Visitor) -> None:
    page = helped.page
    page.get_by_role("button", name="About the models").click()
    rows = page.locator(".model-list li")
    expect(rows).to_have_count(len(catalog.embedded()))
    row = rows.filter(has_text="storybook-sdxl")
    for text in ("inpainting", "family sdxl", "MB", "f16", "256×256", "licence apache-2.0", "isn't known"):
        expect(row).to_contain_text(text)
    row.get_by_role("button", name="Choose storybook-sdxl").click()
    expect(page.locator(".inputs").first.get_by_label("Model")).to_have_value("storybook-sdxl")
    expect(helped.number("Steps")).to_have_value("1")
    helped.draws("a red house")
    helped.draws("a red house")
    expect(row).to_contain_text("a picture takes about")


def test_the_page_draws_in_a_style(helped: Visitor) -> None:
    page = helped.page
    helped.chooses("storybook-sdxl")
    style = page.get_by_label("Style")
    expect(style).to_be_visible()
    style.click()
    page.get_by_role("option", name="Evening").click()
    helped.draws("a red house on a hill")
    expect(page.locator("#output")).to_contain_text("a red house on a hill at sunset")
    assert downloaded(helped)["prompt"] == "a red house on a hill at sunset"


def test_adapters_have_a_weight_each(helped: Visitor) -> None:
    page = helped.page
    helped.chooses("storybook-sdxl")
    adapters = page.locator(".adapter-list").first
    add = adapters.get_by_label("Add an adapter")
    expect(add).to_be_visible()
    add.select_option("turquoise")
    row = adapters.locator(".adapter-row")
    expect(row).to_have_count(1)
    expect(add.locator("option")).to_have_text(["Add an adapter …", "other"])
    row.get_by_role("slider").fill("0.5")
    expect(row.locator("output")).to_have_text("0.5")
    helped.draws("a turquoise house")
    expect(page.locator("#output")).to_contain_text("Adapter turquoise:0.5")
    row.get_by_role("button", name="Remove turquoise").click()
    expect(row).to_have_count(0)
    helped.draws("a red house")
    expect(page.locator("#output")).not_to_contain_text("Adapter")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("size", SIZES)
def test_it_looks_right(browser: Browser, address: str, size: tuple[int, int], scheme: str) -> None:
    """Every control has a line of help that is not cut off, and nothing is wider than the page."""
    from axe_playwright_python.sync_playwright import Axe

    options = {"color_scheme": scheme, "viewport": {"width": size[0], "height": size[1]}}
    visitor = Visitor(browser.new_context(**options), address, f"help-{size[0]}-{scheme}")  # type: ignore[arg-type]
    page = visitor.page
    page.get_by_role("button", name="About the models").click()
    expect(page.locator(".model-list").first).to_be_visible()
    page.locator(".adapter-list").first.get_by_label("Add an adapter").select_option("other")
    visitor.sees("page", whole=True)
    for text in ("How closely the picture follows the prompt", "More steps take longer", "The same seed draws"):
        line = page.locator(".settings").first.get_by_text(text)
        expect(line).to_be_visible()
        box = box_of(line)
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= size[0]
    visitor.fits(size[0])
    found = Axe().run(page)
    assert found.violations_count == 0, json.dumps(found.response["violations"], indent=1)[:3000]
    visitor.page.context.close()
