"""A1111's requests become drawings, by the names that each family has for its arguments."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from vinograph import Pipeline
from vinograph.a1111 import split_adapters
from vinograph.errors import RequestError
from vinograph.serve.a1111_drawing import A1111Request, Prepared, prepare
from vinograph.serve.a1111_fields import IMG2IMG, TXT2IMG, read_fields
from vinograph.serve.a1111_options import Options
from vinograph.serve.a1111_pictures import fill_from_surroundings
from vinograph.serve.configuration import Limits
from vinograph.serve.contract import AdapterInfo, ModelInfo

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
ANY_JSON = st.recursive(
    SCALARS | st.sampled_from(["Euler a", "karras", "Latent", "7", "1e308", "1e-320"]),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=9), each, max_size=3),
    max_leaves=5,
)
ADAPTERS = (AdapterInfo("turquoise", Path("turquoise.safetensors")), AdapterInfo("ink", Path("ink.safetensors")))


def info(name: str) -> ModelInfo:
    """What the service says of an embedded model."""
    model = Pipeline.from_pretrained(name)
    takes = model.calls["generate"].takes
    return ModelInfo(name, name, model.model.manifest.family, True, 0, takes, model.model.manifest.sizes)


@pytest.fixture(scope="module")
def sdxl() -> ModelInfo:
    return info("storybook-sdxl")


@pytest.fixture(scope="module")
def wuerstchen() -> ModelInfo:
    return info("storybook-wuerstchen")


def prepared(model: ModelInfo, body: dict[str, Any], limits: Limits | None = None) -> Prepared:
    fields = IMG2IMG if "init_images" in body else TXT2IMG
    values = read_fields(body, fields)
    options = Options().changed(values["override_settings"])
    return asyncio.run(prepare(A1111Request(values, fields, options, model, "local"), ADAPTERS, limits or Limits()))


def equal(one: Any, other: Any) -> bool:
    """Whether two pictures have the same pixels."""
    return np.array_equal(one, other)


def encoded(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


class TestText:
    def test_fields_are_arguments_under_other_names(self, sdxl: ModelInfo) -> None:
        body = {
            "prompt": "a (red:1.2) house",
            "negative_prompt": "blurred",
            "seed": 7,
            "steps": 8,
            "cfg_scale": 5,
            "width": 256,
            "height": 128,
            "batch_size": 2,
            "n_iter": 3,
            "override_settings": {"sd_vae": "full"},
        }
        drawing = prepared(sdxl, body).drawing
        assert drawing.model == "storybook-sdxl"
        assert drawing.arguments == {
            "prompt": "a (red:1.2) house",
            "long_prompt": "chunks",
            "prompt_weighting": "a1111",
            "negative_prompt": "blurred",
            "seed": 7,
            "num_inference_steps": 8,
            "guidance_scale": 5.0,
            "width": 256,
            "height": 128,
            "num_images_per_prompt": 6,
            "vae": "full",
        }
        assert drawing.names["num_inference_steps"] == "steps"
        assert drawing.names["guidance_scale"] == "cfg_scale"

    def test_what_is_left_out_is_left_to_the_model(self, sdxl: ModelInfo) -> None:
        found = prepared(sdxl, {"prompt": "a house", "seed": -1}).drawing.arguments
        assert found.keys() == {"prompt", "long_prompt", "prompt_weighting", "num_images_per_prompt"}

    def test_steps_and_scale_are_those_of_a_familys_first_stage(self, wuerstchen: ModelInfo) -> None:
        found = prepared(wuerstchen, {"prompt": "a house", "steps": 8, "cfg_scale": 3}).drawing.arguments
        assert found == {
            "prompt": "a house",
            "prior_num_inference_steps": 8,
            "prior_guidance_scale": 3.0,
            "num_images_per_prompt": 1,
        }

    @pytest.mark.parametrize(("name", "value"), [("batch_size", 0), ("n_iter", 10**9)])
    def test_a_count_out_of_range_is_named(self, sdxl: ModelInfo, name: str, value: int) -> None:
        with pytest.raises(RequestError, match=f"^{name} is {value}; give a whole number from 1 to 1000"):
            prepared(sdxl, {name: value})

    @pytest.mark.parametrize(("layers", "skipped"), [(1, None), (2, None), (3, 1), (4, 2)])
    def test_clip_skip_counts_from_the_layer_that_sdxl_reads(
        self, sdxl: ModelInfo, layers: int, skipped: int | None
    ) -> None:
        for body in ({"clip_skip": layers}, {"override_settings": {"CLIP_stop_at_last_layers": layers}}):
            assert prepared(sdxl, body).drawing.arguments.get("clip_skip") == skipped

    def test_tags_become_adapters_and_unknown_ones_a_note(self, sdxl: ModelInfo) -> None:
        found = prepared(sdxl, {"prompt": "a house <lora:turquoise:0.8> <lora:lost:1> <lyco:ink>"})
        assert found.drawing.arguments["prompt"] == "a house"
        assert found.drawing.adapters == {"turquoise": 0.8, "ink": 1.0}
        assert found.notes == ("there is no adapter 'lost': its tag has no effect",)

    @pytest.mark.parametrize("name", ["../turquoise", "/etc/passwd", "turquoise.safetensors"])
    def test_no_tag_is_a_path(self, sdxl: ModelInfo, name: str) -> None:
        assert not prepared(sdxl, {"prompt": f"a house <lora:{name}:1>"}).drawing.adapters

    def test_what_does_nothing_is_noted(self, sdxl: ModelInfo) -> None:
        assert prepared(sdxl, {"restore_faces": True}).notes == ("restore_faces has no effect here",)


class TestHostileValues:
    """Whatever a client sends is a drawing, or an error that says what was wrong."""

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_any_json_is_a_drawing_or_an_error(self, sdxl: ModelInfo, data: st.DataObject) -> None:
        fields = data.draw(st.sampled_from([TXT2IMG, IMG2IMG]))
        body = data.draw(st.dictionaries(st.sampled_from([*fields, "enable_hr", "unknown"]), ANY_JSON))
        if fields is IMG2IMG:
            body.setdefault("init_images", [encoded(half(8))])
        with contextlib.suppress(RequestError):
            assert prepared(sdxl, body).drawing.arguments["num_images_per_prompt"] >= 1

    @pytest.mark.parametrize("text", ["<lora:" + "a" * 1_000_000, "<lora:" * 200_000, "<lora:a:" + ":" * 1_000_000])
    def test_a_prompt_of_unfinished_tags_is_read_at_once(self, sdxl: ModelInfo, text: str) -> None:
        assert split_adapters(text) == (text, {})
        assert prepared(sdxl, {"prompt": text}).drawing.arguments["prompt"] == text

    def test_a_prompt_of_many_tags_is_left_to_the_service_to_refuse(self, sdxl: ModelInfo) -> None:
        found = prepared(sdxl, {"prompt": "<lora:lost:1>" * 2000})
        assert (len(found.drawing.arguments["prompt"]), found.notes) == (26_000, ())

    def test_a_sampler_of_a_million_words_is_refused_at_once(self, sdxl: ModelInfo) -> None:
        with pytest.raises(RequestError, match="sampler_name is 'a a a"):
            prepared(sdxl, {"sampler_name": "a " * 500_000})


class TestSampler:
    @pytest.mark.parametrize(
        ("body", "scheduler"),
        [
            ({}, None),
            ({"scheduler": "Automatic"}, None),
            ({"sampler_name": "Euler a"}, "Euler a"),
            ({"sampler_index": "Euler a", "scheduler": "automatic"}, "Euler a"),
            ({"sampler_name": "DPM++ 2M", "scheduler": "Karras"}, "DPM++ 2M Karras"),
            ({"sampler_name": "DPM++ 2M Karras", "scheduler": "karras"}, "DPM++ 2M Karras"),
            ({"sampler_name": "DPM++ 2M Karras"}, "DPM++ 2M Karras"),
            ({"sampler_name": "Euler", "scheduler": "SGM Uniform"}, "Euler SGM Uniform"),
            ({"scheduler": "sgm_uniform"}, "Euler sgm_uniform"),
        ],
    )
    def test_sampler_and_schedule_make_a_scheduler(
        self, sdxl: ModelInfo, body: dict[str, str], scheduler: str | None
    ) -> None:
        found = prepared(sdxl, body)
        assert (found.drawing.arguments.get("scheduler"), found.notes) == (scheduler, ())

    def test_a_sampler_of_timesteps_takes_no_schedule_of_sigmas(self, sdxl: ModelInfo) -> None:
        found = prepared(sdxl, {"sampler_name": "DDIM", "scheduler": "Karras"})
        assert found.drawing.arguments["scheduler"] == "DDIM"
        assert found.notes == ("the scheduler 'Karras' has no effect with the sampler 'DDIM'",)

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            ({"sampler_name": "Restart"}, "sampler_name is 'Restart', .* /sdapi/v1/samplers "),
            ({"sampler_name": "Restart", "scheduler": "Karras"}, "sampler_name is 'Restart'"),
            ({"sampler_name": "Euler", "scheduler": "KL Optimal"}, "scheduler is 'KL Optimal', .*/sdapi/v1/schedulers"),
        ],
    )
    def test_an_unknown_one_is_an_error(self, sdxl: ModelInfo, body: dict[str, str], message: str) -> None:
        with pytest.raises(RequestError, match=message):
            prepared(sdxl, body)


class TestHires:
    def test_its_fields_are_arguments(self, sdxl: ModelInfo) -> None:
        body = {"enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "Latent", "hr_second_pass_steps": 4}
        found = prepared(sdxl, {**body, "denoising_strength": 0.6}).drawing.arguments
        assert {name: value for name, value in found.items() if name.startswith("hires")} == {
            "hires": 1.5,
            "hires_steps": 4,
            "hires_strength": 0.6,
            "hires_upscaler": "latent",
        }
        assert "strength" not in found

    def test_without_it_the_strength_has_no_effect(self, sdxl: ModelInfo) -> None:
        found = prepared(sdxl, {"denoising_strength": 0.7, "hr_scale": 2}).drawing.arguments
        assert not {"strength", "hires", "hires_strength"} & found.keys()

    @pytest.mark.parametrize(
        ("size", "factor"),
        [
            ({"hr_resize_x": 384}, 1.5),
            ({"hr_resize_y": 256, "height": 128}, 2.0),
            ({"hr_resize_x": 512, "hr_resize_y": 384, "width": 256, "height": 192}, 2.0),
        ],
    )
    def test_a_size_makes_the_factor(self, sdxl: ModelInfo, size: dict[str, int], factor: float) -> None:
        assert prepared(sdxl, {"enable_hr": True, **size}).drawing.arguments["hires"] == factor

    def test_a_size_of_another_shape_is_an_error(self, sdxl: ModelInfo) -> None:
        with pytest.raises(RequestError, match="hr_resize_x is 512 and hr_resize_y is 256, of another shape"):
            prepared(sdxl, {"enable_hr": True, "hr_resize_x": 512, "hr_resize_y": 256})

    def test_an_upscaler_that_is_not_there_is_an_error(self, sdxl: ModelInfo) -> None:
        with pytest.raises(RequestError, match=r"hr_upscaler is 'R-ESRGAN 4x\+'; give one of Lanczos, Latent"):
            prepared(sdxl, {"enable_hr": True, "hr_upscaler": "R-ESRGAN 4x+"})


def half(size: int = 64) -> Image.Image:
    """A mask that is white on the right."""
    mask = Image.new("L", (size, size), 0)
    mask.paste(255, (size // 2, 0, size, size))
    return mask


class TestPictures:
    picture = Image.linear_gradient("L").resize((64, 64)).convert("RGB")

    def pictures(self, model: ModelInfo, **body: Any) -> dict[str, Any]:
        return dict(prepared(model, {"init_images": [encoded(self.picture)], **body}).drawing.arguments)

    def test_a_picture_comes_in_base64_also_as_a_data_url(self, sdxl: ModelInfo) -> None:
        found = self.pictures(sdxl, denoising_strength=0.4)
        assert equal(found["image"], self.picture)
        assert found["strength"] == 0.4
        url = f"data:image/png;base64,{encoded(self.picture)}"
        assert equal(self.pictures(sdxl, init_images=[url])["image"], self.picture)

    @pytest.mark.parametrize(
        ("images", "message"),
        [
            ([], "init_images has 0 pictures; give one"),
            ([encoded(half()), encoded(half())], "init_images has 2 pictures; give one"),
            (["http://169.254.169.254/latest/meta-data"], "init_images is an address, and nothing is fetched"),
            (["file:///etc/passwd"], "init_images is an address"),
            ([7], "init_images is 7; give the picture's bytes in base64"),
            ([base64.b64encode(b"GIF89a").decode()], "init_images is no PNG, JPEG or WebP"),
        ],
    )
    def test_anything_else_is_an_error(self, sdxl: ModelInfo, images: list[Any], message: str) -> None:
        with pytest.raises(RequestError, match=message):
            prepared(sdxl, {"init_images": images})

    def test_transparency_is_white(self, sdxl: ModelInfo) -> None:
        clear = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
        assert self.pictures(sdxl, init_images=[encoded(clear)])["image"].getpixel((5, 5)) == (255, 255, 255)

    @pytest.mark.parametrize(("mode", "corner", "middle"), [(0, 0, 0), (1, 96, 96), (2, 0, 0), (3, 0, 0)])
    def test_resize_modes_stretch_crop_and_fill(self, sdxl: ModelInfo, mode: int, corner: int, middle: int) -> None:
        image = self.pictures(sdxl, width=128, height=32, resize_mode=mode)["image"]
        assert image.size == (128, 32)
        assert image.getpixel((0, 0))[0] == pytest.approx(corner, abs=8)
        assert image.getpixel((64, 0))[0] == pytest.approx(middle, abs=8)

    def test_a_size_beyond_the_limits_is_left_to_the_service_to_refuse(self, sdxl: ModelInfo) -> None:
        assert self.pictures(sdxl, width=100_000, height=100_000)["image"].size == (64, 64)

    def test_the_masks_surroundings_are_drawn_alone_unless_told_otherwise(self, sdxl: ModelInfo) -> None:
        found = self.pictures(sdxl, mask=encoded(half()), inpaint_full_res_padding=8, width=128, height=128)
        assert (found["padding_mask_crop"], found["image"].size) == (8, (64, 64))
        found = self.pictures(sdxl, mask=encoded(half()), inpaint_full_res=0, width=128, height=128)
        assert "padding_mask_crop" not in found
        assert found["image"].size == found["mask_image"].size == (128, 128)

    def test_an_empty_mask_is_none(self, sdxl: ModelInfo) -> None:
        assert not {"mask_image", "padding_mask_crop"} & self.pictures(sdxl, mask="").keys()

    def test_a_mask_is_blurred_inverted_and_of_the_pictures_size(self, sdxl: ModelInfo) -> None:
        common = {"mask": encoded(half(32)), "inpaint_full_res": True}
        sharp = np.asarray(self.pictures(sdxl, **common, mask_blur=0)["mask_image"])
        assert sharp.shape == (64, 64)
        assert sharp[:, :28].max() < 30 < 220 < sharp[:, 36:].min()
        inverted = np.asarray(self.pictures(sdxl, **common, mask_blur=0, inpainting_mask_invert=1)["mask_image"])
        assert equal(inverted, 255 - sharp)
        soft = np.asarray(self.pictures(sdxl, **common)["mask_image"]).astype(int)
        assert len(set(soft[32])) > 10 > len(set(sharp[32]))

    @pytest.mark.parametrize("name", ["mask_blur", "mask_blur_x", "mask_blur_y"])
    def test_a_blur_out_of_range_is_an_error(self, sdxl: ModelInfo, name: str) -> None:
        with pytest.raises(RequestError, match=f"{name} is 65; give a whole number from 0 to 64"):
            self.pictures(sdxl, **{name: 65})

    def test_a_masks_opacity_counts_where_it_is_transparent_anywhere(self, sdxl: ModelInfo) -> None:
        mask = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
        mask.paste((0, 0, 0, 255), (32, 0, 64, 64))
        found = self.pictures(sdxl, mask=encoded(mask), mask_blur=0)["mask_image"]
        assert equal(found, half())

    def test_other_fills_than_the_first_keep_the_picture(self, sdxl: ModelInfo) -> None:
        body = {"mask": encoded(half()), "inpainting_fill": 1}
        assert equal(self.pictures(sdxl, **body)["image"], self.picture)
        found = prepared(sdxl, {"init_images": [encoded(self.picture)], **body, "inpainting_fill": 2})
        assert found.notes == ("inpainting_fill 2 starts from the picture here, as 1 does",)


class TestFill:
    def test_what_is_covered_leaves_no_trace_and_what_is_kept_stays(self) -> None:
        blue = Image.new("RGB", (200, 120), (40, 80, 200))
        picture, mask = blue.copy(), Image.new("L", blue.size, 0)
        ImageDraw.Draw(picture).ellipse((60, 30, 140, 90), fill="red")
        ImageDraw.Draw(mask).rectangle((50, 20, 150, 100), fill=255)
        assert np.abs(np.asarray(fill_from_surroundings(picture, mask), int) - np.asarray(blue)).max() <= 2

    def test_near_colours_prevail(self) -> None:
        picture = Image.new("RGB", (256, 64), "white")
        picture.paste((255, 0, 0), (0, 0, 96, 64))
        mask = Image.new("L", picture.size, 0)
        mask.paste(255, (96, 0, 160, 64))
        filled = np.asarray(fill_from_surroundings(picture, mask), int)
        assert filled[32, 100, 1] < 110 < 150 < filled[32, 155, 1]
        assert equal(filled[:, :96], np.asarray(picture)[:, :96])

    @pytest.mark.parametrize("grey", [0, 255])
    def test_a_mask_of_nothing_or_all_changes_nothing(self, grey: int) -> None:
        picture = Image.linear_gradient("L").convert("RGB")
        assert equal(fill_from_surroundings(picture, Image.new("L", picture.size, grey)), picture)
