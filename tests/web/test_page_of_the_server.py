"""The page as ``vinograph serve --page`` has it: behind the server's key, in its queue."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.serve.serving import Running, running
from tests.web.conftest import Visitor

PROMPT = "a red house on a snowy hill at night"
KEY = "a-key-that-nobody-guesses"


@pytest.fixture(scope="module")
def guarded() -> Iterator[Running]:
    """A server with the page and a key."""
    with running("--model", "drawing=storybook-sdxl", "--page", "--api-key", KEY) as started:
        yield started


def basic(key: str) -> dict[str, str]:
    """A browser's header for the key."""
    return {"Authorization": f"Basic {base64.b64encode(f'user:{key}'.encode()).decode()}"}


def test_the_page_asks_for_the_key(guarded: Running) -> None:
    refused = guarded.ask("/")
    assert refused.status == 401
    assert refused.headers["WWW-Authenticate"].startswith("Basic")
    assert guarded.ask("/config").status == 401
    assert guarded.ask("/gradio_api/heartbeat/x").status == 401
    assert guarded.ask("/", None, basic("another")).status == 401
    assert guarded.ask("/", None, basic(KEY)).status == 200


def test_another_sites_page_may_not_use_it(guarded: Running) -> None:
    for origin in ("https://example.org", "null"):
        answer = guarded.ask("/gradio_api/queue/join", {"data": []}, {**basic(KEY), "Origin": origin})
        assert answer.status == 403


def test_it_draws_with_the_servers_model_in_the_servers_queue(guarded: Running, browser: Browser) -> None:
    def drawn() -> float:
        metrics = guarded.ask("/metrics", None, basic(KEY)).body.decode()
        found = re.search(r'vinograph_drawn_seconds_count\{model="drawing",stage="unet"\} ([\d.]+)', metrics)
        return float(found[1]) if found else 0.0

    before = drawn()
    credentials = {"username": "user", "password": KEY}
    with browser.new_context(viewport={"width": 1366, "height": 800}, http_credentials=credentials) as context:  # type: ignore[arg-type]
        visitor = Visitor(context, guarded.address, "served")
        visitor.draws(PROMPT)
        visitor.sees("picture")
        expect(visitor.picture.first).to_be_visible()
        expect(visitor.picture.first).to_have_js_property("naturalWidth", 256)
        assert not visitor.failed
    assert drawn() == before + 1
    guarded.wait_until_ready()
