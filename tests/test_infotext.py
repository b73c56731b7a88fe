"""A1111's text: written as A1111 writes it, read as it reads it, whatever a file says."""

from __future__ import annotations

import json
import random
import time

import pytest

from vinograph.a1111 import (
    adapters_in_prompt,
    arguments_of_infotext,
    parameters_text,
    sampler_name,
    split_adapters,
)
from vinograph.infotext import Infotext, format_infotext, parse_infotext

OPTIONS = {"steps": "num_inference_steps", "guidance_scale": "guidance_scale"}
TAKES = dict.fromkeys(
    (
        *("prompt", "negative_prompt", "num_inference_steps", "guidance_scale", "seed", "width", "height", "image"),
        *("strength", "hires", "hires_steps", "hires_strength", "hires_upscaler"),
    )
)
KARRAS = {"class": "DPMSolverMultistepScheduler", "algorithm_type": "dpmsolver++", "use_karras_sigmas": True}
# As A1111's web page writes it.
WRITTEN = """a red house, (snow:1.2)
on a hill: at night
Negative prompt: blurred, "low quality"
two lines
Steps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 4294967295, Size: 1024x768, Model hash: 31e35c80fc, \
Model: sd_xl_base_1.0, Denoising strength: 0.7, Hires upscale: 2, Hires steps: 10, Hires upscaler: Latent, \
Lora hashes: "pixel: 2f6bb1e4b8b5, other: 1234", Version: v1.10.1"""


class TestSyntax:
    def test_what_a1111_writes(self) -> None:
        found = parse_infotext(WRITTEN)
        assert found.prompt == "a red house, (snow:1.2)\non a hill: at night"
        assert found.negative_prompt == 'blurred, "low quality"\ntwo lines'
        assert found.fields["Sampler"] == "DPM++ 2M Karras"
        assert found.fields["Lora hashes"] == "pixel: 2f6bb1e4b8b5, other: 1234"
        assert found.fields["Version"] == "v1.10.1"
        assert format_infotext(found) == WRITTEN

    @pytest.mark.parametrize(
        ("text", "prompt"),
        [("", ""), ("a house", "a house"), ("Steps: 3", "Steps: 3"), ("a\nb: 1, c: 2", "a\nb: 1, c: 2")],
    )
    def test_a_prompt_alone(self, text: str, prompt: str) -> None:
        assert parse_infotext(text) == Infotext(prompt)

    def test_round_trips(self) -> None:
        rng = random.Random(1)
        letters = "ab ,:\"\\'\n()<>{}é漢🏠\t|-/"

        def text(most: int, alphabet: str = letters) -> str:
            return "".join(rng.choice(alphabet) for _ in range(rng.randrange(most)))

        for _ in range(2000):
            prompt, negative = ("\n".join(map(str.strip, text(60).split("\n"))).strip() for _ in range(2))
            fields = {f"Name {index}": text(30) for index in range(rng.randrange(3, 9))}
            given = Infotext(prompt, negative, fields)
            assert parse_infotext(format_infotext(given)) == given

    def test_arbitrary_texts_are_read(self) -> None:
        rng = random.Random(2)
        pieces = ["Steps: ", "Seed: ", "Negative prompt:", '"', "\\", ",", ":", "\n", "x", "1x2", "\0", "é", " ", "{}"]
        for _ in range(3000):
            text = "".join(rng.choice(pieces) for _ in range(rng.randrange(40)))
            found = parse_infotext(text)
            arguments_of_infotext(found, OPTIONS, TAKES, KARRAS)

    @pytest.mark.parametrize("text", ["a" * 400_000, '"' * 400_000, "a: " * 130_000, 'a: "' * 100_000, "\\" * 400_000])
    def test_long_texts_are_read_quickly(self, text: str) -> None:
        begin = time.process_time()
        parse_infotext(f"a house\n{text}")
        assert time.process_time() - begin < 2


class TestArguments:
    def test_what_is_followed_and_what_is_not(self) -> None:
        text = WRITTEN.replace("(snow:1.2)", "snow <lora:pixel:0.8>") + ", Clip skip: 2, ENSD: 31337"
        found = arguments_of_infotext(parse_infotext(text), OPTIONS, TAKES, KARRAS)
        assert found.values == {
            "prompt": "a red house, snow \non a hill: at night",
            "negative_prompt": 'blurred, "low quality"\ntwo lines',
            "num_inference_steps": 20,
            "guidance_scale": 7.0,
            "seed": 4294967295,
            "width": 1024,
            "height": 768,
            "hires": 2.0,
            "hires_steps": 10,
            "hires_strength": 0.7,
            "hires_upscaler": "latent",
        }
        assert found.left_out == ["the adapter pixel (weight 0.8)", "Clip skip: 2", "ENSD: 31337"]

    def test_another_sampler(self) -> None:
        read = parse_infotext("x\nSteps: 1, Sampler: DPM++ 2M, Schedule type: Karras, Seed: 1")
        euler = {"class": "EulerDiscreteScheduler"}
        assert arguments_of_infotext(read, OPTIONS, TAKES, KARRAS).left_out == []
        assert arguments_of_infotext(read, OPTIONS, TAKES, euler).left_out == ["Sampler: DPM++ 2M Karras"]
        followed = arguments_of_infotext(read, OPTIONS, {**TAKES, "scheduler": None}, euler)
        assert followed.left_out == []
        assert followed.values["scheduler"] == "DPM++ 2M Karras"

    def test_weights_and_nonsense_are_named(self) -> None:
        read = parse_infotext("(a house:1.3)\nSteps: many, Size: large, Hires upscale: 2, Hires upscaler: R-ESRGAN 4x+")
        left_out = arguments_of_infotext(read, OPTIONS, TAKES, {}).left_out
        assert [each.partition(":")[0] for each in left_out] == [
            "weights such as (word",
            "Steps",
            "Size",
            "Hires upscaler",
        ]

    def test_prompts_are_read_as_a1111_reads_them_where_that_can_be_asked_for(self) -> None:
        read = parse_infotext("(a house:1.3)\nSteps: 1, Seed: 1, Size: 64x64")
        takes = {**TAKES, "long_prompt": "truncate", "prompt_weighting": "none"}
        found = arguments_of_infotext(read, OPTIONS, takes, {})
        assert (found.values["long_prompt"], found.values["prompt_weighting"]) == ("chunks", "a1111")
        assert found.left_out == []

    def test_an_image_to_image_picture(self) -> None:
        read = parse_infotext("x\nSteps: 1, Seed: 1, Denoising strength: 0.4")
        assert arguments_of_infotext(read, OPTIONS, TAKES, {}).values["strength"] == 0.4

    def test_the_text_of_a_picture(self) -> None:
        request = {
            **{"prompt": "a house", "negative_prompt": "fog", "num_inference_steps": 20, "guidance_scale": 7.0},
            **{"seed": 3, "width": 1024, "height": 768, "hires": 1.5, "hires_strength": 0.5},
            "hires_upscaler": "lanczos",
        }
        metadata = {"model": "my, model", "request": request, "vinograph": "1.2.3"}
        assert parameters_text(metadata, OPTIONS, KARRAS) == (
            "a house\nNegative prompt: fog\nSteps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 3, "
            f"Size: 1024x768, Model: {json.dumps('my, model')}, Denoising strength: 0.5, Hires upscale: 1.5, "
            "Hires upscaler: Lanczos, Version: Vinograph 1.2.3"
        )

    @pytest.mark.parametrize(
        ("scheduler", "name"),
        [
            ({"class": "EulerAncestralDiscreteScheduler"}, "Euler a"),
            ({"class": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver++"}, "DPM++ 2M SDE"),
            ({"class": "LCMScheduler"}, "LCM"),
            ({"class": "Unheard"}, None),
            ({}, None),
        ],
    )
    def test_names_of_samplers(self, scheduler: dict[str, str], name: str | None) -> None:
        assert sampler_name(scheduler) == name

    def test_adapters(self) -> None:
        written = f"a house{adapters_in_prompt({'pixel art': 0.8, 'other': 1.0})}"
        assert written == "a house <lora:pixel art:0.8> <lora:other:1>"
        assert split_adapters(written) == ("a house", {"pixel art": 0.8, "other": 1.0})
        assert split_adapters("<lora:a> <lora:b:x> < lora:c:1>") == ("< lora:c:1>", {"a": 1.0, "b": 1.0})
