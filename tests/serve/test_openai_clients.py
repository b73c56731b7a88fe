"""OpenAI's API with the clients that people run, over a socket, and what it draws for them."""

from __future__ import annotations

import base64
import io
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import openai
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.serve.serving import Running, until
from vinograph import Pipeline
from vinograph.images import psnr

PROMPT = "a red house on a snowy hill at night"
OTHER = "two green trees in the middle of a meadow on a clear day"
Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def address(server: Running) -> str:
    return server.address


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="none", base_url=f"{address}/v1", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return Pipeline.from_pretrained("storybook-sdxl")


@pytest.fixture(scope="module")
def house(pipe: Pipeline) -> Image.Image:
    picture: Image.Image = pipe(PROMPT, seed=1).images[0]
    return picture


def pixels(source: str | bytes | Image.Image | None) -> Pixels:
    """The pixels of a picture, of a file, or of a file in base64."""
    if isinstance(source, Image.Image):
        return np.asarray(source)
    assert source
    data = base64.b64decode(source) if isinstance(source, str) else source
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.convert("RGB"))


def only(response: openai.types.ImagesResponse) -> Pixels:
    assert response.data is not None
    (image,) = response.data
    return pixels(image.b64_json)


def file_of(picture: Image.Image, name: str = "a.png") -> tuple[str, bytes, str]:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return (name, file.getvalue(), "image/png")


class TestGenerations:
    def test_a_seed_draws_the_picture_that_the_pipeline_draws(self, client: openai.OpenAI, pipe: Pipeline) -> None:
        settings = {"seed": 7, "num_inference_steps": 2, "guidance_scale": 2.0, "negative_prompt": "snow"}
        response = client.images.generate(prompt=PROMPT, extra_body=settings)
        assert np.array_equal(only(response), pixels(pipe(PROMPT, **settings).images[0]))  # type: ignore[arg-type]
        assert (response.size, response.output_format, response.background) == ("256x256", "png", "opaque")
        assert response.quality == "medium"
        assert isinstance(response.created, int)
        assert response.usage is not None
        assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens > 256

    def test_several_pictures_are_those_of_the_seeds_that_follow(self, client: openai.OpenAI, pipe: Pipeline) -> None:
        response = client.images.generate(prompt=PROMPT, n=2, size="192x128", extra_body={"seed": 7})
        assert response.data is not None
        assert [each.model_extra for each in response.data] == [{"seed": 7}, {"seed": 8}]
        for image, seed in zip(response.data, (7, 8), strict=True):
            alone = pipe(PROMPT, seed=seed, width=192, height=128).images[0]
            assert np.array_equal(pixels(image.b64_json), pixels(alone))

    def test_without_a_seed_its_own_is_reported(self, client: openai.OpenAI) -> None:
        first, other = (client.images.generate(prompt=PROMPT, size="128x128") for _ in range(2))
        assert first.data is not None
        seed = (first.data[0].model_extra or {})["seed"]
        assert not np.array_equal(only(first), only(other))
        again = client.images.generate(prompt=PROMPT, size="128x128", extra_body={"seed": seed})
        assert np.array_equal(only(first), only(again))

    @pytest.mark.parametrize("kind", ["jpeg", "webp"])
    def test_other_formats_are_smaller_where_they_are_told_to(self, kind: Any, client: openai.OpenAI) -> None:
        sizes = []
        for quality in (10, 100):
            response = client.images.generate(
                prompt=PROMPT, output_format=kind, output_compression=quality, extra_body={"seed": 7}
            )
            assert response.data is not None
            data = base64.b64decode(response.data[0].b64_json or "")
            with Image.open(io.BytesIO(data)) as picture:
                assert picture.format == kind.upper()
            assert response.output_format == kind
            sizes.append(len(data))
        assert sizes[0] < sizes[1] / 2

    @pytest.mark.parametrize("model", ["gpt-image-1", "dall-e-3", "", "storybook-sdxl", None])
    def test_names_that_clients_insist_on_are_drawn_by_the_default_model(
        self, model: str | None, client: openai.OpenAI
    ) -> None:
        response = client.images.generate(prompt=PROMPT, model=model, size="64x64", quality="hd", style="vivid")
        assert response.model_extra is not None
        assert response.model_extra["model"] == "storybook-sdxl"
        assert response.quality == "high"

    def test_a_client_and_the_log_are_told_what_was_done_otherwise(
        self, client: openai.OpenAI, server: Running
    ) -> None:
        raw = client.images.with_raw_response.generate(prompt=PROMPT, size="1024x1024", style="vivid", user="u")
        assert raw.headers["x-vinograph-size"] == "256x256 instead of 1024x1024"
        assert raw.headers["x-vinograph-ignored"] == "style, user"
        until(lambda: 'ignored="style, user"' in server.log)
        response = raw.parse()
        assert response.size == "256x256"
        assert only(response).shape == (256, 256, 3)

    def test_the_models_are_listed(self, client: openai.OpenAI) -> None:
        (model,) = client.models.list().data
        assert (model.id, model.object, model.owned_by) == ("storybook-sdxl", "model", "vinograph")
        assert client.models.retrieve("storybook-sdxl") == model


class TestStreams:
    def test_partial_pictures_come_before_the_picture(self, client: openai.OpenAI) -> None:
        settings = {"seed": 7, "num_inference_steps": 8}
        events = [*client.images.generate(prompt=PROMPT, stream=True, partial_images=3, extra_body=settings)]
        *partial, last = events
        assert [each.type for each in partial] == ["image_generation.partial_image"] * 3
        assert last.type == "image_generation.completed"
        assert [each.partial_image_index for each in partial if each.type == "image_generation.partial_image"] == [
            0,
            1,
            2,
        ]
        assert {(each.size, each.output_format, each.background) for each in events} == {("256x256", "png", "opaque")}
        plain = client.images.generate(prompt=PROMPT, extra_body=settings)
        assert np.array_equal(pixels(last.b64_json), only(plain))
        assert last.usage.total_tokens > 256
        likeness = [psnr(pixels(each.b64_json) / 255, only(plain) / 255) for each in partial]
        assert likeness == sorted(likeness)

    def test_several_pictures_are_completed_each(self, client: openai.OpenAI) -> None:
        events = client.images.generate(prompt=PROMPT, stream=True, n=2, size="64x64", extra_body={"seed": 7})
        assert [(each.type, (each.model_extra or {})["seed"]) for each in events] == [
            ("image_generation.completed", 7),
            ("image_generation.completed", 8),
        ]

    def test_edits_have_events_of_their_own(self, client: openai.OpenAI, house: Image.Image) -> None:
        settings = {"strength": 0.9, "num_inference_steps": 4}
        events = client.images.edit(
            image=file_of(house), prompt=OTHER, stream=True, partial_images=1, extra_body=settings
        )
        assert [each.type for each in events] == ["image_edit.partial_image", "image_edit.completed"]


def half_transparent(size: tuple[int, int], *, picture: Image.Image | None = None) -> Image.Image:
    """A picture whose right half is transparent."""
    mask = (picture or Image.new("RGB", size)).convert("RGBA")
    mask.paste((0, 0, 0, 0), (size[0] // 2, 0, *size))
    return mask


EDIT = {"seed": 3, "num_inference_steps": 4}


class TestEdits:
    def check_halves(self, edited: Pixels, original: Pixels) -> None:
        change = np.abs(edited.astype(float) - original).mean(axis=(0, 2))
        middle = len(change) // 2
        assert change[: middle - 16].mean() < 6
        assert change[middle + 16 :].mean() > 25

    def test_transparent_parts_of_the_mask_are_drawn_anew(
        self, client: openai.OpenAI, house: Image.Image, pipe: Pipeline
    ) -> None:
        response = client.images.edit(
            image=file_of(house), mask=file_of(half_transparent(house.size)), prompt=OTHER, extra_body=EDIT
        )
        self.check_halves(only(response), pixels(house))
        white = Image.new("L", house.size)
        white.paste(255, (house.width // 2, 0, *house.size))
        expected = pipe(OTHER, image=house, mask_image=white, seed=3, num_inference_steps=4).images[0]
        assert np.array_equal(only(response), pixels(expected))

    def test_the_image_can_bring_the_mask(self, client: openai.OpenAI, house: Image.Image) -> None:
        image = file_of(half_transparent(house.size, picture=house))
        response = client.images.edit(image=[image], prompt=OTHER, extra_body=EDIT)
        self.check_halves(only(response), pixels(house))

    def test_without_a_mask_all_of_it_changes(self, client: openai.OpenAI, house: Image.Image, pipe: Pipeline) -> None:
        settings = {"seed": 3, "strength": 0.75, "num_inference_steps": 4}
        response = client.images.edit(image=file_of(house), prompt=OTHER, size="auto", extra_body=settings)
        expected = pipe(OTHER, image=house, **settings).images[0]  # type: ignore[arg-type]
        assert np.array_equal(only(response), pixels(expected))
        assert response.usage is not None
        assert response.usage.input_tokens_details.image_tokens == 256

    def test_two_images_are_refused(self, client: openai.OpenAI, house: Image.Image) -> None:
        with pytest.raises(openai.BadRequestError, match="image holds 2 pictures") as caught:
            client.images.edit(image=[file_of(house), file_of(house)], prompt=OTHER)
        assert caught.value.param == "image"

    def test_pictures_in_json_are_taken_and_addresses_refused(
        self, address: str, house: Image.Image, pipe: Pipeline
    ) -> None:
        text = base64.b64encode(file_of(house)[1]).decode()
        sent: dict[str, Any] = {"prompt": OTHER, "seed": 3, "images": [{"image_url": f"data:image/png;base64,{text}"}]}
        answer = httpx.post(f"{address}/v1/images/edits", json=sent, timeout=60).json()
        assert np.array_equal(pixels(answer["data"][0]["b64_json"]), pixels(pipe(OTHER, image=house, seed=3).images[0]))
        sent["images"] = [{"image_url": "http://169.254.169.254/latest"}]
        response = httpx.post(f"{address}/v1/images/edits", json=sent)
        assert (response.status_code, response.json()["error"]["param"]) == (400, "image")

    def test_variations_resemble_their_picture(self, client: openai.OpenAI, house: Image.Image) -> None:
        with pytest.warns(DeprecationWarning, match="deprecated"):
            response = client.images.create_variation(image=file_of(house), n=2, size="256x256")
        assert response.data is not None
        varied = [pixels(each.b64_json) for each in response.data]
        other = only(client.images.generate(prompt=OTHER, extra_body={"seed": 5}))
        assert not np.array_equal(varied[0], varied[1])
        for each in varied:
            assert psnr(each / 255, pixels(house) / 255) > psnr(other / 255, pixels(house) / 255) + 3


class TestErrors:
    @pytest.mark.parametrize(
        ("fields", "param", "said"),
        [
            ({"size": "1000x1000"}, "size", "the nearest: 512x512 and 256x256"),
            ({"size": "huge"}, "size", "WIDTHxHEIGHT"),
            ({"n": 0}, "n", "a whole number from 1"),
            ({"n": 1_000_000_000}, "n", "a whole number from 1"),
            ({"n": 11}, "n", "up to 10"),
            ({"extra_body": {"seed": -2}}, "seed", "a whole number from 0"),
            ({"extra_body": {"seed": "7"}}, "seed", "a whole number from 0"),
            ({"extra_body": {"num_inference_steps": 151}}, "num_inference_steps", "up to 150"),
            ({"extra_body": {"scheduler": "none"}}, "scheduler", "none"),
            ({"extra_body": {"steps": 4}}, "steps", "there is no field 'steps'"),
            ({"extra_body": {"strength": 0.5}}, "strength", "strength needs image"),
            ({"extra_body": {"adapters": {"../secret": 1}}}, None, "there is no adapter"),
            ({"extra_body": {"image": "x"}}, "image", "/v1/images/edits"),
            ({"output_format": "gif"}, "output_format", "png, jpeg, webp"),
        ],
        ids=lambda each: json.dumps(each) if isinstance(each, dict) else None,
    )
    def test_a_wrong_field_is_named(
        self, fields: dict[str, Any], param: str | None, said: str, client: openai.OpenAI
    ) -> None:
        with pytest.raises(openai.BadRequestError) as caught:
            client.images.generate(prompt=PROMPT, **fields)
        error = caught.value.response.json()["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert (error["type"], error["param"]) == ("invalid_request_error", param)
        assert said in error["message"]
        assert error["code"] in ("invalid_value", "unknown_parameter")

    @pytest.mark.parametrize("data", [b"", b"GIF89a", b"%!PS-Adobe-3.0 EPSF-3.0"])
    def test_a_file_that_is_no_picture_is_refused(self, data: bytes, client: openai.OpenAI) -> None:
        with pytest.raises(openai.BadRequestError, match="PNG, JPEG or WebP") as caught:
            client.images.edit(image=("a.png", data, "image/png"), prompt=PROMPT)
        assert caught.value.param == "image"

    def test_a_missing_picture_or_prompt_is_named(self, address: str, house: Image.Image) -> None:
        missing = {
            "image": httpx.post(f"{address}/v1/images/edits", files={"prompt": (None, PROMPT)}),
            "prompt": httpx.post(f"{address}/v1/images/edits", files={"image": file_of(house)}),
        }
        for name, response in missing.items():
            error = response.json()["error"]
            assert (response.status_code, error["param"]) == (400, name)
            assert error["code"] == "missing_required_parameter"


def sent_and_left_open(address: str, body: dict[str, Any]) -> socket.socket:
    """A connection that has sent a request."""
    content = json.dumps(body).encode()
    head = "POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    connection = socket.create_connection(("127.0.0.1", urlsplit(address).port or 0))
    connection.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
    return connection


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_leaves_its_place_to_the_next(address: str, stream: bool) -> None:
    takes_minutes = {"prompt": PROMPT, "n": 10, "num_inference_steps": 150, "size": "512x512", "stream": stream}
    short = {"prompt": PROMPT, "size": "64x64", "stream": True}
    with sent_and_left_open(address, takes_minutes) as connection:
        if stream:
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
        with httpx.stream("POST", f"{address}/v1/images/generations", json=short, timeout=60) as response:
            lines = response.iter_lines()
            assert next(lines) == ": waiting: 1 before this one"
            connection.close()
            assert "event: image_generation.completed" in lines


def run_client(code: str, address: str) -> Any:
    """What a program prints as JSON; its client takes seconds to import, and warns."""
    environment = {
        **os.environ,
        "OPENAI_API_KEY": "none",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # or it asks another server for prices
        "LANGCHAIN_TRACING_V2": "false",
    }
    run = subprocess.run(
        [sys.executable, "-c", code, address], capture_output=True, text=True, env=environment, check=False
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


LITELLM = f"""
import json, sys
import litellm
response = litellm.image_generation(
    model="openai/gpt-image-1", prompt={PROMPT!r}, api_base=sys.argv[1] + "/v1", api_key="none", size="256x256"
)
print(json.dumps([response.data[0].b64_json, response.usage.total_tokens]))
"""

LANGCHAIN = f"""
import json, sys
from langchain_community.utilities.dalle_image_generator import DallEAPIWrapper
wrapper = DallEAPIWrapper(base_url=sys.argv[1] + "/v1", n=2)
print(json.dumps(wrapper.run({PROMPT!r}).split(wrapper.separator)))
"""


def test_litellm_draws(address: str) -> None:
    data, tokens = run_client(LITELLM, address)
    assert pixels(data).shape == (256, 256, 3)
    assert tokens > 256


def test_langchains_wrapper_gets_addresses(address: str) -> None:
    found = run_client(LANGCHAIN, address)
    assert len(found) == 2
    first, other = (pixels(httpx.get(each).content) for each in found)
    assert first.shape == (256, 256, 3)
    assert not np.array_equal(first, other)
