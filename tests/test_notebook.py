"""Results show themselves in a notebook."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vinograph import Pipeline, Result


@pytest.fixture(scope="module")
def two(tiny: Pipeline) -> Result:
    return tiny(['a "red" house <b>', "two boats"], seed=7)


class Images(HTMLParser):
    """Collects the pictures of a page, with their other texts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[dict[str, str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.found.append(dict(attributes))


def shown(result: Any) -> dict[str, str]:
    bundle: dict[str, str] = result._repr_mimebundle_(include=None, exclude=None)
    return bundle


def test_pictures_with_their_prompts_and_seeds(two: Result) -> None:
    page = shown(two)["text/html"]
    images = Images(page).found
    assert [each["alt"] for each in images] == ['a "red" house <b>', "two boats"]
    assert re.findall(r"seed (\d+)", page) == ["7", "8"]
    for each, picture in zip(images, two.images, strict=True):
        content = base64.b64decode((each["src"] or "").removeprefix("data:image/png;base64,"))
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), np.asarray(picture))


def test_arrays_are_pictures_too(tiny: Pipeline, two: Result) -> None:
    result = tiny(['a "red" house <b>', "two boats"], seed=7, output_type="np")
    assert shown(result)["text/html"] == shown(two)["text/html"]


def test_warnings_are_shown_as_text(two: Result) -> None:
    warned = dataclasses.replace(two, warnings=("cut off: <i>",))
    assert "<div>warning: cut off: &lt;i&gt;</div>" in shown(warned)["text/html"]


def test_latents_are_text_alone(tiny: Pipeline) -> None:
    result = tiny("a house", seed=7, output_type="latent")
    assert shown(result).keys() == {"text/plain"}
    assert shown(result)["text/plain"] == repr(result)


def test_very_many_pictures_are_cut_off(two: Result) -> None:
    many = dataclasses.replace(
        two, images=two.images[:1] * 70, seeds=None, request=dataclasses.replace(two.request, num_images_per_prompt=35)
    )
    page = shown(many)["text/html"]
    assert len(Images(page).found) == 64
    assert "and 6 more" in page
