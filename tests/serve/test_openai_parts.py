"""The parts of OpenAI's API that decide: links, sizes, partial pictures, and the fields of requests."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest
from PIL import Image

from tests.serve.openai_service import described
from tests.serve.serving import configured
from vinograph.images import Size
from vinograph.serve.contract import ModelInfo, ModelUnavailableError, Progress
from vinograph.serve.failures import HTTPFailure
from vinograph.serve.openai_body import Body
from vinograph.serve.openai_links import LIFETIME, PictureLinks
from vinograph.serve.openai_request import Asked, RequestReader, with_pictures
from vinograph.serve.openai_sizes import OPENAI_SIZES, size_to_draw
from vinograph.serve.openai_stream import PartialImages


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class TestLinks:
    def test_names_are_secret_and_differ(self) -> None:
        links = PictureLinks()
        names = {links.add(b"x", "png") for _ in range(100)}
        assert len(names) == 100
        assert all(len(name.removesuffix(".png")) >= 22 for name in names)  # of 6 bits each

    def test_they_end_after_an_hour(self) -> None:
        clock = Clock()
        links = PictureLinks(clock=clock)
        name = links.add(b"x", "jpeg")
        clock.now += LIFETIME - 1
        assert links.get(name) is not None
        clock.now += 1
        assert links.get(name) is None

    def test_the_oldest_go_where_there_are_too_many(self) -> None:
        links = PictureLinks(most_bytes=25)
        names = [links.add(bytes(10), "png") for _ in range(3)]
        assert [links.get(each) is not None for each in names] == [False, True, True]
        large = links.add(bytes(100), "png")
        assert [links.get(each) is not None for each in (*names, large)] == [False, False, False, True]


@pytest.fixture(scope="module")
def sdxl() -> ModelInfo:
    return described("storybook-sdxl")


@pytest.fixture(scope="module")
def wuerstchen() -> ModelInfo:
    return described("storybook-wuerstchen")


class TestSizes:
    @pytest.mark.parametrize(
        ("asked", "drawn"),
        [
            ("auto", None),
            ("", None),
            ("256x256", Size(256, 256)),
            ("512x512", Size(512, 512)),
            ("320x192", Size(192, 320)),
            ("1024x1024", Size(256, 256)),
            ("1536x1024", Size(208, 312)),
            ("1024x1792", Size(336, 192)),
        ],
    )
    def test_sizes_of_openai_mean_the_nearest_one(self, asked: str, drawn: Size | None, sdxl: ModelInfo) -> None:
        assert size_to_draw(asked, sdxl, strict=False) == drawn

    @pytest.mark.parametrize("asked", [*OPENAI_SIZES[2:], "1000x1000", "250x250", "0x0", "100000x10000"])
    def test_others_are_refused_and_the_nearest_named(self, asked: str, sdxl: ModelInfo) -> None:
        with pytest.raises(HTTPFailure) as caught:
            size_to_draw(asked, sdxl, strict=True)
        assert (caught.value.status, caught.value.param) == (400, "size")
        nearest = caught.value.message.split("the nearest: ")[1].split(" and ")
        for each in nearest:
            assert size_to_draw(each, sdxl, strict=True) is not None

    @pytest.mark.parametrize("asked", ["large", "256", "256x", "-1x256", "1e9x1", "256 x 256", "9999999999x1"])
    def test_what_is_no_size_is_refused(self, asked: str, sdxl: ModelInfo) -> None:
        with pytest.raises(HTTPFailure, match="WIDTHxHEIGHT"):
            size_to_draw(asked, sdxl, strict=False)


class TestPartialImages:
    @pytest.mark.parametrize(
        ("count", "steps", "expected"),
        [
            (0, 8, []),
            (1, 8, [4]),
            (3, 8, [2, 4, 6]),
            (3, 20, [5, 10, 15]),
            (3, 4, [1, 2, 3]),
            (3, 2, [1, 2]),
            (2, 1, [1]),
        ],
    )
    def test_they_are_spread_evenly(self, count: int, steps: int, expected: list[int]) -> None:
        chosen, partial = {}, PartialImages(count)
        for picture in (0, 1):
            for step in range(1, steps + 1):
                index = partial.chosen(Progress(picture, "unet", step, steps, b"preview"))
                if index is not None:
                    chosen[picture, step] = index
            assert partial.chosen(Progress(picture, "vae", 1, 1, b"preview")) is None
        assert chosen == {(picture, step): index for picture in (0, 1) for index, step in enumerate(expected)}

    def test_a_step_without_a_preview_leaves_it_to_the_next(self) -> None:
        partial = PartialImages(1)
        found = [partial.chosen(Progress(0, "unet", step, 8, b"x" if step % 3 == 0 else None)) for step in range(1, 9)]
        assert found == [None, None, None, None, None, 0, None, None]


def read(info: ModelInfo, /, *, texts: bool = False, prompt: str | None = "a house", **fields: Any) -> Asked:
    given = fields if prompt is None else {"prompt": prompt, **fields}
    return RequestReader(info, configured()).read(Body(given, {}, texts=texts))


class TestFields:
    def test_those_of_a_form_are_converted_by_their_kinds(self, sdxl: ModelInfo) -> None:
        fields = {
            "n": "2",
            "seed": "7",
            "guidance_scale": "2.5",
            "hires": "1.5",
            "clip_skip": "1",
            "stream": "true",
            "partial_images": "3",
            "output_format": "webp",
            "output_compression": "60",
            "original_size": "[256, 512]",
            "adapters": '{"pixel-art": 0.5}',
        }
        asked = read(sdxl, texts=True, prompt="[a] {house}", **fields)
        assert asked.drawing.arguments == {
            "prompt": "[a] {house}",
            "num_images_per_prompt": 2,
            "seed": 7,
            "guidance_scale": 2.5,
            "hires": 1.5,
            "clip_skip": 1,
            "original_size": [256, 512],
        }
        assert asked.drawing.adapters == {"pixel-art": 0.5}
        assert asked.drawing.encoding.quality == 60
        assert (asked.reply.stream, asked.reply.partial_images) == (True, 3)

    def test_what_cannot_be_converted_is_left_to_the_check(self, sdxl: ModelInfo) -> None:
        arguments = read(sdxl, texts=True, seed="seven", clip_skip="1.5").drawing.arguments
        assert (arguments["seed"], arguments["clip_skip"]) == ("seven", "1.5")

    def test_what_means_nothing_here_is_listed(self, sdxl: ModelInfo) -> None:
        fields: dict[str, Any] = {
            "quality": "hd",
            "style": ["vivid"],
            "background": "opaque",
            "moderation": "auto",
            "user": "u",
            "svg": {"model": "x"},
            "output_compression": 50,
            "partial_images": 2,
        }
        asked = read(sdxl, **fields)
        assert asked.headers == {"x-vinograph-ignored": "quality, style, user, svg, output_compression, partial_images"}
        assert asked.drawing.arguments == {"prompt": "a house"}
        assert asked.reply.quality == "high"

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("stream", "true"),
            ("stream", 1),
            ("partial_images", 4),
            ("partial_images", True),
            ("output_format", "gif"),
            ("output_format", ["png"]),
            ("output_compression", 101),
            ("response_format", "file"),
            ("model", 5),
            ("size", 256),
            ("adapters", ["pixel-art"]),
            ("adapters", {"pixel-art": "1"}),
            ("prompt", ["a", "b"]),
        ],
    )
    def test_a_wrong_value_names_its_field(self, name: str, value: Any, sdxl: ModelInfo) -> None:
        with pytest.raises(HTTPFailure) as caught:
            read(sdxl, **{"prompt": "a house", name: value})
        assert (caught.value.status, caught.value.param, caught.value.code) == (400, name, "invalid_value")
        assert re.match(rf"{name}(\.pixel-art)? is ", caught.value.message)

    @pytest.mark.parametrize(
        "name",
        [
            "latents",
            "generator",
            "callback_on_step_end",
            "output_type",
            "num_images_per_prompt",
            "prior_guidance_scale",
        ],
    )
    def test_no_other_fields_are_taken(self, name: str, sdxl: ModelInfo) -> None:
        fields: dict[str, Any] = {name: 1}
        with pytest.raises(HTTPFailure, match="there is no field") as caught:
            read(sdxl, **fields)
        assert (caught.value.param, caught.value.code) == (name, "unknown_parameter")

    def test_a_misspelled_field_names_the_right_one(self, sdxl: ModelInfo) -> None:
        with pytest.raises(HTTPFailure, match="did you mean num_inference_steps"):
            read(sdxl, num_inference_step=4)

    def test_each_family_takes_its_own(self, wuerstchen: ModelInfo) -> None:
        assert read(wuerstchen, prior_guidance_scale=2).drawing.arguments["prior_guidance_scale"] == 2
        with pytest.raises(HTTPFailure, match="there is no field 'guidance_scale'"):
            read(wuerstchen, guidance_scale=2)

    def test_a_prompt_is_needed_but_may_be_empty(self, sdxl: ModelInfo) -> None:
        assert read(sdxl, prompt="").prompt == ""
        with pytest.raises(HTTPFailure, match="prompt is missing"):
            read(sdxl, prompt=None)

    def test_a_size_is_given_once(self, sdxl: ModelInfo) -> None:
        assert read(sdxl, width=128, height=64).size == "128x64"
        assert read(sdxl).size == "256x256"
        assert read(sdxl, size=None).size == "256x256"
        assert read(sdxl, size="1024x1024").headers == {"x-vinograph-size": "256x256 instead of 1024x1024"}
        with pytest.raises(HTTPFailure, match="size and width were given"):
            read(sdxl, size="256x256", width=128)


def test_a_model_that_cannot_be_opened_says_why(sdxl: ModelInfo) -> None:
    closed = dataclasses.replace(sdxl, family="", takes={}, sizes=None, problem="unet.bin is missing")
    with pytest.raises(ModelUnavailableError, match=r"unet\.bin is missing"):
        read(closed)


def picture(mode: str, size: tuple[int, int] = (4, 2), alpha: int = 255) -> Image.Image:
    return Image.new(mode, size, (10, 20, 30, alpha)[: len(mode)])


class TestMasks:
    def test_transparent_parts_are_drawn_anew(self, sdxl: ModelInfo) -> None:
        mask = picture("RGBA")
        mask.putpixel((3, 1), (0, 0, 0, 0))
        arguments = with_pictures(read(sdxl), picture("RGB"), mask).drawing.arguments
        assert arguments["mask_image"].getpixel((3, 1)) == 255
        assert arguments["mask_image"].getpixel((0, 0)) == 0

    def test_the_image_can_bring_its_own(self, sdxl: ModelInfo) -> None:
        arguments = with_pictures(read(sdxl), picture("RGBA", alpha=0), None).drawing.arguments
        assert arguments["mask_image"].getextrema() == (255, 255)
        assert arguments["image"].mode == "RGB"
        assert "mask_image" not in with_pictures(read(sdxl), picture("RGBA"), None).drawing.arguments
        assert "mask_image" not in with_pictures(read(sdxl), picture("RGB"), None).drawing.arguments

    @pytest.mark.parametrize(
        ("mask", "message"),
        [(picture("RGB"), "has no transparency"), (picture("RGBA", (5, 2)), "mask is 5x2, and image 4x2")],
    )
    def test_a_mask_that_cannot_be_one_is_refused(self, mask: Image.Image, message: str, sdxl: ModelInfo) -> None:
        with pytest.raises(HTTPFailure, match=message) as caught:
            with_pictures(read(sdxl), picture("RGB"), mask)
        assert caught.value.param == "mask"
