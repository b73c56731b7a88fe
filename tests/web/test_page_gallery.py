"""The gallery in a browser, and what its addresses refuse."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Locator, expect

from tests.web.conftest import Visitor, box_of, served
from tests.web.posts import Client
from tests.web.test_gallery_store import draw
from vinograph.images import read_metadata, save

PROMPT = "a red house on a snowy hill at night"
WIDTHS = [1366, *(pytest.param(width, marks=pytest.mark.long) for width in (390, 1920))]
OF_A1111 = (
    "a yellow boat <lora:pixels:0.8>\nNegative prompt: fog\n"
    "Steps: 4, Sampler: DPM++ 2M Karras, CFG scale: 2.5, Seed: 99, Size: 256x256, Model: dreams, ENSD: 31337"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("web-gallery").resolve() / "gallery"


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """A page with a gallery, which is empty at first."""
    with served("--model", "storybook-sdxl", "--gallery", str(folder), models=folder.parent / "models") as address:
        yield address


@pytest.fixture
def empty(folder: Path) -> Path:
    """The gallery's folder without pictures."""
    for each in folder.iterdir():
        if each.name != ".thumbnails":
            shutil.rmtree(each) if each.is_dir() else each.unlink()
    time.sleep(0.6)  # so long a list may be that of the last look at the folder
    return folder


@pytest.fixture
def client(address: str) -> Client:
    client = Client(address)
    client.get("/")
    return client


def opened(visitor: Visitor) -> Locator:
    """The gallery's cards, once its tab is open."""
    visitor.page.get_by_role("tab", name="Gallery").click()
    expect(visitor.page.locator(".gallery-bar .count")).to_contain_text("picture")
    return visitor.page.locator(".gallery-grid li")


def decoded(card: Locator) -> None:
    """Expect that the card's thumbnail is seen, and that it isn't broken."""
    image = card.locator("img")
    expect(image).to_be_visible()
    expect(image).not_to_have_js_property("naturalWidth", 0)
    box = box_of(image)
    assert min(box["width"], box["height"]) > 100


class TestPictures:
    def test_what_is_drawn_is_kept_and_found(
        self, visitors: Callable[..., Visitor], address: str, empty: Path, tmp_path: Path
    ) -> None:
        """After the page was loaded again, in the history and in the gallery, with its settings."""
        visitor = visitors(address)
        visitor.sets("Steps", 2)
        visitor.text("Seed").fill("77")
        visitor.draws(PROMPT)
        (file,) = empty.glob("*.png")
        assert re.fullmatch(r"\d{4}-\d\d-\d\d-0001\.png", file.name)
        record = read_metadata(file)
        assert record is not None
        assert record["request"]["seed"] == 77
        other = visitors(address)
        history = other.page.locator("#history .gallery button")
        expect(history).to_have_count(1)
        history.click()
        expect(other.page.locator("#output .facts")).to_contain_text(re.compile("Seed 77.*256×256.*storybook-sdxl"))
        expect(other.snippet("python")).to_have_value(re.compile("seed=77"))
        cards = opened(other)
        expect(cards).to_have_count(1)
        decoded(cards.first)
        expect(cards.first.locator(".prompt")).to_have_text(PROMPT)
        view = cards.first.locator("button.view")
        expect(view).to_have_attribute("data-full", re.compile("^gallery/picture/[0-9a-f]{32}$"))
        expect(view).to_have_attribute("data-group", "gallery")
        expect(view).to_have_attribute("data-caption", re.compile(f"^{PROMPT}\nSeed 77"))
        with other.page.expect_download() as download:
            cards.first.get_by_role("link", name="Download").click()
        download.value.save_as(tmp_path / "again.png")
        assert (tmp_path / "again.png").read_bytes() == file.read_bytes()
        assert download.value.suggested_filename == file.name
        cards.first.get_by_role("button", name="Use these settings").click()
        expect(other.page.locator("#prompt textarea")).to_be_visible()
        expect(other.page.locator("#prompt textarea")).to_have_value(PROMPT)
        expect(other.number("Steps")).to_have_value("2")
        expect(other.text("Seed")).to_have_value("77")
        other.reads("#notes", f"The request of {file.name} is restored.")
        other.draws()
        one, two = sorted(empty.glob("*.png"))
        assert Image.open(one).tobytes() == Image.open(two).tobytes()

    def test_one_of_the_history_becomes_an_init_image(
        self, visitors: Callable[..., Visitor], address: str, empty: Path
    ) -> None:
        visitors(address).draws(PROMPT)
        other = visitors(address)
        other.page.locator("#history .gallery button").first.click()
        other.page.get_by_role("button", name="Use as init image").click()
        expect(other.number("Strength")).to_be_visible()
        expect(other.page.locator("#notes .error")).to_have_count(0)

    def test_search_and_favourites(self, visitors: Callable[..., Visitor], address: str, empty: Path) -> None:
        draw(empty / "a.png", "a red house", age=30)
        draw(empty / "b.png", "a blue house", seed=4711, age=20)
        draw(empty / "c.png", "a boat", age=10)
        visitor = visitors(address)
        cards = opened(visitor)
        expect(cards.locator(".prompt")).to_have_text(["a boat", "a blue house", "a red house"])
        search = visitor.page.get_by_role("searchbox")
        search.fill("house")
        expect(cards.locator(".prompt")).to_have_text(["a blue house", "a red house"])
        expect(visitor.page.locator(".gallery-bar .count")).to_have_text("2 of 3 pictures")
        search.fill("4711")
        expect(cards.locator(".prompt")).to_have_text(["a blue house"])
        star = cards.get_by_role("button", name="Favourite")
        star.click()
        expect(star).to_have_attribute("aria-pressed", "true")
        search.fill("elephant")
        expect(visitor.page.locator(".gallery-empty")).to_have_text("No picture has these words.")
        search.fill("")
        visitor.page.get_by_role("button", name="Favourites").click()
        expect(cards.locator(".prompt")).to_have_text(["a blue house"])
        assert json.loads((empty / ".favourites.json").read_text()) == {"favourites": ["b.png"]}

    def test_deleting_asks_first(self, visitors: Callable[..., Visitor], address: str, empty: Path) -> None:
        for index, name in enumerate("abc"):
            draw(empty / f"{name}.png", f"picture {name}", age=index)
        visitor = visitors(address)
        cards = opened(visitor)
        selection = visitor.page.locator(".gallery-selection")
        expect(selection).to_be_hidden()
        cards.nth(0).get_by_role("checkbox").check()
        cards.nth(2).get_by_role("checkbox").check()
        expect(selection).to_contain_text("2 pictures selected")
        visitor.page.get_by_role("button", name="Delete …").click()
        dialog = visitor.page.get_by_role("dialog")
        expect(dialog).to_contain_text("Delete 2 pictures?")
        visitor.sees("asks")
        dialog.get_by_role("button", name="Cancel").click()
        expect(dialog).to_be_hidden()
        assert len(list(empty.glob("*.png"))) == 3
        visitor.page.get_by_role("button", name="Delete …").click()
        dialog.get_by_role("button", name="Delete").click()
        expect(cards.locator(".prompt")).to_have_text(["picture b"])
        expect(selection).to_be_hidden()
        assert [each.name for each in empty.glob("*.png")] == ["b.png"]
        assert len(list((empty / ".trash").iterdir())) == 2

    def test_what_can_not_be_shown_is_named(
        self, visitors: Callable[..., Visitor], address: str, empty: Path, tmp_path: Path
    ) -> None:
        draw(empty / "a.png", "a red house")
        (empty / "page.png").write_text("<script>alert(1)</script>")
        (empty / "link.png").symlink_to(draw(tmp_path / "secret.png", "secret"))
        visitor = visitors(address)
        expect(opened(visitor)).to_have_count(1)
        visitor.reads(".gallery-notes", "Not shown: link.png is a link")

    def test_a_prompt_is_only_text(self, visitors: Callable[..., Visitor], address: str, empty: Path) -> None:
        prompt = '<img src=x onerror="window.met=1">"><b>bold</b>'
        draw(empty / "a.png", prompt)
        visitor = visitors(address)
        cards = opened(visitor)
        expect(cards.locator(".prompt")).to_have_text(prompt)
        expect(visitor.page.locator(".gallery-grid b")).to_have_count(0)
        visitor.page.wait_for_function(
            "[...document.querySelectorAll('.gallery-grid img')].every((each) => each.complete)"
        )
        met = visitor.page.evaluate("window.met")
        assert met is None

    def test_thousands_come_in_parts(self, visitors: Callable[..., Visitor], address: str, empty: Path) -> None:
        content = draw(empty / "0.png", "number").read_bytes()
        for index in range(1, 3000):
            (empty / f"{index}.png").write_bytes(content)
        before = time.monotonic()
        visitor = visitors(address)
        seconds = time.monotonic() - before
        cards = opened(visitor)
        expect(visitor.page.locator(".gallery-bar .count")).to_have_text(re.compile("3.?000 pictures"))
        more = visitor.page.get_by_role("button", name="Show more")
        shown = cards.count()
        assert shown <= 180
        more.scroll_into_view_if_needed()
        expect(cards.nth(shown + 10)).to_be_visible()
        print(f"the page with 3,000 pictures in the gallery was there after {seconds:.1f} s")


class TestRestoring:
    def drop(self, visitor: Visitor, file: Path, place: str = "#prompt") -> None:
        """Drop a file onto a place of the page."""
        data = visitor.page.evaluate_handle(
            """async ([content, name, type]) => {
              const data = new DataTransfer();
              const bytes = Uint8Array.from(atob(content), (each) => each.charCodeAt(0));
              data.items.add(new File([bytes], name, { type }));
              return data;
            }""",
            [base64.b64encode(file.read_bytes()).decode(), file.name, f"image/{file.suffix[1:]}"],
        )
        for event in ("dragover", "drop"):
            visitor.page.dispatch_event(place, event, {"dataTransfer": data})

    def test_a_picture_of_a1111(self, visitor: Visitor, tmp_path: Path) -> None:
        visitor.chooses("storybook-sdxl")
        visitor.text("Seed").fill("5")
        save(Image.new("RGB", (256, 256)), tmp_path / "theirs.png", None, OF_A1111)
        self.drop(visitor, tmp_path / "theirs.png")
        notes = visitor.reads("#notes", "The request of theirs.png is restored.")
        expect(visitor.page.locator("#prompt textarea")).to_have_value("a yellow boat")
        expect(visitor.text("Seed")).to_have_value("99")
        expect(visitor.number("Steps")).to_have_value("4")
        expect(visitor.number("Guidance")).to_have_value("2.5")
        expect(visitor.text("Negative prompt")).to_be_visible()
        expect(visitor.text("Negative prompt")).to_have_value("fog")
        expect(visitor.text("Scheduler")).to_have_value("dpm++ 2m karras")
        expect(notes.nth(1)).to_contain_text("Not restored: the model dreams, which isn't offered here")
        expect(notes.nth(1)).to_contain_text("the adapter pixels (weight 0.8)")
        expect(notes.nth(1)).to_contain_text("ENSD: 31337")
        visitor.sees("restored")

    @pytest.mark.parametrize("ending", ["png", "webp", pytest.param("jpeg", marks=pytest.mark.long)])
    def test_our_own_by_the_button(self, visitor: Visitor, tmp_path: Path, ending: str) -> None:
        request = {
            "prompt": "two trees",
            "seed": 12345678901234567890,
            "width": 384,
            "height": 256,
            "num_inference_steps": 12,
        }
        request |= {"prior_num_inference_steps": 150, "prior_guidance_scale": 4.5, "latents": "x"}
        metadata = {"model": "storybook-wuerstchen", "request": request, "left_out": ["image"]}
        save(Image.new("RGB", (64, 64)), tmp_path / f"ours.{ending}", metadata)
        with visitor.page.expect_file_chooser() as chooser:
            visitor.page.get_by_role("button", name="Restore from picture").click()
        chooser.value.set_files(tmp_path / f"ours.{ending}")
        notes = visitor.reads("#notes", f"The request of ours.{ending} is restored.")
        expect(visitor.page.locator(".inputs").first.get_by_label("Model")).to_have_value("storybook-wuerstchen")
        expect(visitor.page.locator("#prompt textarea")).to_have_value("two trees")
        expect(visitor.text("Seed")).to_have_value("12345678901234567890")
        expect(visitor.number("Steps")).to_have_value("150")
        expect(visitor.number("Guidance")).to_have_value("4.5")
        expect(visitor.text("Size")).to_have_value(re.compile("384×256"))
        expect(notes.nth(1)).to_have_text("Not restored: latents; its image, which the file doesn't hold.")

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"no picture", "picture: x.png is not a PNG, JPEG or WebP picture"),
            (None, "x.png doesn't say how it was drawn, so nothing was restored."),
        ],
    )
    def test_one_that_says_nothing(self, visitor: Visitor, tmp_path: Path, content: bytes | None, words: str) -> None:
        if content is None:
            Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
        else:
            (tmp_path / "x.png").write_bytes(content)
        visitor.page.fill("#prompt textarea", "mine")
        self.drop(visitor, tmp_path / "x.png")
        visitor.reads("#notes", words)
        expect(visitor.page.locator("#prompt textarea")).to_have_value("mine")

    def test_the_init_image_keeps_its_place(self, visitor: Visitor, tmp_path: Path) -> None:
        """What is dropped there is drawn from, not read."""
        save(Image.new("RGB", (64, 64)), tmp_path / "x.png", None, OF_A1111)
        visitor.page.get_by_role("button", name="Init image").click()
        expect(visitor.page.locator("#init-image input[type=file]")).to_have_count(1)
        self.drop(visitor, tmp_path / "x.png", "#init-image button[aria-label]")
        visitor.page.wait_for_timeout(500)
        expect(visitor.page.locator("#prompt textarea")).to_have_value("")


class TestAddresses:
    @pytest.fixture
    def picture(self, client: Client, empty: Path) -> str:
        draw(empty / "a.png", "a red house")
        (picture,) = json.loads(client.get("/gallery/list?search=red").body)["pictures"]
        return str(picture["id"])

    def test_a_picture_and_its_thumbnail(self, client: Client, picture: str, empty: Path) -> None:
        whole, small = client.get(f"/gallery/picture/{picture}"), client.get(f"/gallery/thumbnail/{picture}")
        assert whole.body == (empty / "a.png").read_bytes()
        assert (whole.headers["content-type"], small.headers["content-type"]) == ("image/png", "image/webp")
        assert whole.headers["x-content-type-options"] == "nosniff"
        assert Image.open(io.BytesIO(small.body)).size == (32, 24)
        assert client.ask("HEAD", f"/gallery/picture/{picture}").body == b""

    @pytest.mark.parametrize(
        "name",
        [
            *("a.png", "../a.png", "..%2fa.png", "%2e%2e/a.png", "%2e%2e%2fa.png", "..\\a.png", "/etc/passwd", ""),
            *("0" * 32, "0" * 31, "0" * 33, "A" * 32, "0" * 32 + "/", "0" * 32 + "%00", ".trash/a.png", "0" * 5000),
        ],
    )
    def test_names_lead_nowhere(self, client: Client, picture: str, name: str) -> None:
        for what in ("picture", "thumbnail", "list", "../gallery/picture", "trash"):
            answer = client.get(f"/gallery/{what}/{name}")
            assert answer.status in (400, 404)
            assert b"red house" not in answer.body
            assert str(picture).encode() not in answer.body

    def test_a_link_is_not_followed(self, client: Client, picture: str, empty: Path, tmp_path: Path) -> None:
        secret = draw(tmp_path / "secret.png", "secret")
        assert client.get(f"/gallery/thumbnail/{picture}").status == 200
        (empty / "a.png").unlink()
        (empty / "a.png").symlink_to(secret)
        assert client.get(f"/gallery/picture/{picture}").status == 404

    @pytest.mark.parametrize("what", ["delete", "favourite"])
    def test_changes_are_the_pages_own(self, client: Client, picture: str, empty: Path, what: str) -> None:
        body = json.dumps({"pictures": [picture], "picture": picture, "favourite": True}).encode()
        kinds = {"Content-Type": "application/json"}
        for headers, status in (
            ({**kinds, "Origin": "https://evil.example"}, 403),
            ({**kinds, "Origin": "null"}, 403),
            ({**kinds, "Host": "evil.example"}, 403),
            ({"Content-Type": "text/plain"}, 415),
            ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
            ({}, 415),
        ):
            assert client.ask("POST", f"/gallery/{what}", body, headers).status == status
        for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS"):
            assert client.ask(method, f"/gallery/{what}", body, kinds).status == 405
        for method in ("POST", "PUT", "DELETE"):
            assert client.ask(method, f"/gallery/picture/{picture}", body, kinds).status == 405
        assert (empty / "a.png").exists()
        assert not (empty / ".favourites.json").exists()

    @pytest.mark.parametrize(
        ("what", "body"),
        [
            ("delete", "{"),
            ("delete", "[]"),
            ("delete", "{}"),
            ("delete", '{"pictures": "a.png"}'),
            ("delete", '{"pictures": ["a.png"]}'),
            ("delete", '{"pictures": ["../a.png"]}'),
            ("delete", '{"pictures": [{}]}'),
            ("favourite", '{"picture": "../a.png", "favourite": true}'),
            ("favourite", '{"picture": "00000000000000000000000000000000", "favourite": 1}'),
            ("favourite", '{"picture": "00000000000000000000000000000000", "favourite": true}'),
        ],
    )
    def test_other_values(self, client: Client, picture: str, empty: Path, what: str, body: str) -> None:
        answer = client.ask("POST", f"/gallery/{what}", body.encode(), {"Content-Type": "application/json"})
        assert answer.status == 400
        assert len(answer.detail) < 200
        assert (empty / "a.png").exists()

    @pytest.mark.parametrize(
        "query", ["after=1", "after=x-" + "0" * 32, "search=" + "x" * 201, "search=%ff", "after=1-../../etc"]
    )
    def test_other_searches(self, client: Client, query: str) -> None:
        assert client.get(f"/gallery/list?{query}").status == 400

    def test_without_a_gallery_there_is_none(self, server: str) -> None:
        client = Client(server)
        client.get("/")
        for place in ("list", "picture/" + "0" * 32):
            assert client.get(f"/gallery/{place}").status == 404
        answer = client.ask("POST", "/gallery/delete", b'{"pictures": []}', {"Content-Type": "application/json"})
        assert answer.status == 405


class TestLooks:
    @pytest.mark.parametrize("width", WIDTHS)
    @pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.long)])
    def test_the_tab(
        self, visitors: Callable[..., Visitor], address: str, empty: Path, width: int, scheme: str
    ) -> None:
        from axe_playwright_python.sync_playwright import Axe

        for index, picture in enumerate(sorted((Path("docs") / "pictures").glob("*.webp"))[:9]):
            with Image.open(picture) as opened_picture:
                small = opened_picture.convert("RGB").resize((256, 256))
            request = {"prompt": f"{PROMPT} number {index}" + " and more" * 9 * (index % 2), "seed": 10**index}
            save(small, empty / f"{index}.png", {"model": "storybook-sdxl", "request": request})
        (empty / "broken.png").write_bytes(b"x")
        visitor = visitors(address, viewport={"width": width, "height": 844}, color_scheme=scheme)
        cards = opened(visitor)
        decoded(cards.first)
        cards.nth(1).get_by_role("checkbox").check()
        cards.nth(2).get_by_role("button", name="Favourite").click()
        expect(cards.nth(2).get_by_role("button", name="Favourite")).to_have_attribute("aria-pressed", "true")
        visitor.page.wait_for_timeout(500)
        visitor.fits(width)
        boxes = [box_of(each) for each in cards.all()]
        assert all(box["x"] >= 0 and box["x"] + box["width"] <= width for box in boxes)
        visitor.sees(f"tab-{width}-{scheme}", whole=True)
        found = Axe().run(visitor.page)
        assert found.violations_count == 0, found.generate_report()

    def test_all_tabs_fit_on_a_phone(self, visitors: Callable[..., Visitor], address: str) -> None:
        visitor = visitors(address, viewport={"width": 390, "height": 844})
        tabs = visitor.page.get_by_role("tab")
        expect(tabs).to_have_text(["Generate", "Compare", "Grid", "Reconstruct", "Gallery"])
        for box in map(box_of, tabs.all()):
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= 390

    def test_by_keyboard(self, visitors: Callable[..., Visitor], address: str, empty: Path) -> None:
        draw(empty / "a.png", "a red house")
        visitor = visitors(address)
        card = opened(visitor).first
        visitor.page.get_by_role("searchbox").focus()
        seen = []
        for _ in range(7):
            visitor.page.keyboard.press("Tab")
            seen.append(visitor.page.evaluate("document.activeElement.dataset.act ?? document.activeElement.className"))
        assert seen[:6] == ["favourites", "view", "select", "star", "use", "chip"]
        card.get_by_role("checkbox").focus()
        visitor.page.keyboard.press("Space")
        expect(visitor.page.locator(".gallery-selection")).to_be_visible()
        visitor.page.get_by_role("button", name="Delete …").focus()
        visitor.page.keyboard.press("Enter")
        expect(visitor.page.get_by_role("dialog")).to_be_visible()
        visitor.page.keyboard.press("Escape")
        expect(visitor.page.get_by_role("dialog")).to_be_hidden()
