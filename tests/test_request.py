"""The schema of requests: accepted arguments, and the errors for all others."""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from vinograph import Request, RequestError
from vinograph.families import registry
from vinograph.families.pixart.request import PixArtRequest
from vinograph.families.sdxl.request import SDXLRequest
from vinograph.families.wuerstchen.request import WuerstchenRequest
from vinograph.noise import TorchNoise
from vinograph.request import Signature, arguments_of, fewest_steps, resolve
from vinograph.values import shown

SIZES: Mapping[str, Any] = {"size_multiple": 128, "minimum_size": 128, "maximum_size": 2048}
DRAWS: Mapping[str, Any] = {
    "prompt": None,
    "negative_prompt": None,
    "prompt_embeds": None,
    "negative_prompt_embeds": None,
    "image": None,
    "strength": 0.8,
    "height": 512,
    "width": 768,
    "prior_num_inference_steps": 60,
    "prior_guidance_scale": 4.0,
    "prior_timesteps": None,
    "num_inference_steps": 12,
    "num_images_per_prompt": 1,
    "seed": None,
    "generator": None,
    "latents": None,
    "output_type": "pil",
    "callback_on_step_end": None,
    "callback_on_step_end_tensor_inputs": None,
}
DECODES: Mapping[str, Any] = {"image_embeddings": None, "prompt": None, "num_images_per_prompt": 1, "seed": None}
ENCODES: Mapping[str, Any] = {"image": None, "height": None, "width": None}


@dataclass(frozen=True, kw_only=True)
class AnyRequest(WuerstchenRequest, SDXLRequest, PixArtRequest):
    """A request with every argument that some family takes."""


ARGUMENTS = arguments_of(AnyRequest)


def signature(takes: Mapping[str, Any], **others: Any) -> Signature:
    times: dict[str, Any] = {
        "custom_timesteps": "a falling list of times in [0, 1]",
        "named_timesteps": ("spaced",),
    }
    return Signature(takes=takes, positional=(), **{**times, **others})


def ask(takes: Mapping[str, Any] = DRAWS, **given: Any) -> AnyRequest:
    if takes is DRAWS:
        given = {"prompt": "a red house", **given}
    return resolved(given, signature(takes))


def resolved(given: Mapping[str, Any], takes: Signature) -> AnyRequest:
    request = resolve(given, takes, SIZES, "Würstchen (generate)", AnyRequest)
    assert isinstance(request, AnyRequest)
    return request


def refusal(takes: Mapping[str, Any] = DRAWS, **given: Any) -> str:
    with pytest.raises(RequestError) as caught:
        ask(takes, **given)
    return str(caught.value)


def array(*shape: int) -> Any:
    return np.zeros(shape, np.float32)


class TestDefaults:
    def test_an_omitted_argument_has_its_default(self) -> None:
        request = ask()
        assert (request.height, request.width, request.num_inference_steps) == (512, 768, 12)
        assert (request.prior_guidance_scale, request.output_type) == (4.0, "pil")

    def test_none_means_the_default(self) -> None:
        assert ask(height=None, negative_prompt=None).height == 512

    def test_a_field_that_the_call_does_not_take_is_none(self) -> None:
        request = ask(DECODES, image_embeddings=array(1, 16, 3, 3))
        assert [request.height, request.strength, request.output_type] == [None, None, None]

    def test_an_image_sets_the_size_and_has_a_strength(self) -> None:
        with_picture, without = ask(image="a.png"), ask()
        assert (with_picture.height, with_picture.width, with_picture.strength) == (None, None, 0.8)
        assert without.strength is None
        resized = ask(image="a.png", height=256, width=384, strength=0.5)
        assert (resized.height, resized.width, resized.strength) == (256, 384, 0.5)

    def test_a_request_can_not_be_changed(self) -> None:
        with pytest.raises(dataclasses.FrozenInstanceError):
            ask().height = 128  # type: ignore[misc]


class TestUnknownArguments:
    def test_the_error_names_the_known_arguments(self) -> None:
        message = refusal(DECODES, clip_skip=1)
        assert message == (
            "Würstchen (generate) takes no clip_skip; it takes image_embeddings, num_images_per_prompt, prompt, seed"
        )

    def test_a_misspelt_argument_gets_a_suggestion(self) -> None:
        assert "takes no negative_promt (did you mean negative_prompt?); it takes" in refusal(negative_promt="x")

    def test_an_unknown_argument_is_refused_even_if_none(self) -> None:
        assert "takes no guidance" in refusal(guidance=None)

    def test_an_argument_of_another_call_is_refused(self) -> None:
        assert "takes no image_embeddings" in refusal(image_embeddings=array(1, 16, 3, 3))


class TestPrompts:
    def test_a_prompt_is_a_text_or_a_list(self) -> None:
        assert ask(prompt="a").prompt == ("a",)
        assert ask(prompt=["a", "b"]).prompt == ask(prompt=("a", "b")).prompt == ("a", "b")

    def test_an_empty_prompt_is_accepted(self) -> None:
        assert ask(prompt="").prompt == ("",)

    @pytest.mark.parametrize("given", [7, b"bytes", [], ["a", 7], {"a": 1}, 1.5])
    def test_a_prompt_that_is_no_text_is_refused(self, given: Any) -> None:
        assert refusal(prompt=given) == f"prompt is {given!r}; give a text, or a list of texts"

    def test_a_lone_surrogate_is_refused(self) -> None:
        """A command line in a broken encoding gives such a text."""
        assert "negative_prompt is 'a\\udcff', which is not Unicode text" in refusal(negative_prompt="a\udcff")

    def test_a_missing_prompt_is_refused(self) -> None:
        assert refusal(prompt=None) == "give a prompt (an empty one is fine), or prompt_embeds"
        assert ask(prompt=None, prompt_embeds=array(1, 77, 8)).prompt is None

    def test_one_negative_prompt_serves_every_prompt(self) -> None:
        assert ask(prompt=["a", "b"], negative_prompt="x").negative_prompt == ("x", "x")
        assert ask(prompt=["a", "b"], negative_prompt=["x", "y"]).negative_prompt == ("x", "y")
        assert ask(prompt=None, prompt_embeds=array(3, 77, 8), negative_prompt="x").negative_prompt == ("x",) * 3

    def test_a_negative_prompt_per_prompt_is_accepted(self) -> None:
        message = refusal(prompt=["a", "b", "c"], negative_prompt=["x", "y"])
        assert message == "negative_prompt has 2 texts for 3 prompts; give one, or one for each"


class TestSizes:
    @pytest.mark.parametrize("size", [128, 512, 1024, 2048, np.int64(256)])
    def test_sizes_that_are_multiples_are_accepted(self, size: Any) -> None:
        request = ask(height=size, width=size)
        assert (request.height, request.width) == (int(size), int(size))
        assert type(request.height) is int

    @pytest.mark.parametrize(
        ("size", "nearest"),
        [
            (1000, "896 and 1024"),
            (1088, "1024 and 1152"),
            (129, "128 and 256"),
            (2047, "1920 and 2048"),
            (127, "128"),
            (1, "128"),
            (0, "128"),
            (-512, "128"),
            (2049, "2048"),
            (4096, "2048"),
            (10**9, "2048"),
        ],
    )
    def test_other_sizes_are_refused_with_the_nearest_valid_ones(self, size: int, nearest: str) -> None:
        assert refusal(width=size) == (
            f"width is {size}; this model draws multiples of 128 from 128 to 2048, the nearest: {nearest}"
        )

    @pytest.mark.parametrize("given", [512.0, "512", True, math.nan, (512, 512)])
    def test_a_size_that_is_no_integer_is_refused(self, given: Any) -> None:
        assert refusal(height=given) == f"height is {given!r}; this model draws multiples of 128 from 128 to 2048"

    @pytest.mark.parametrize("takes", [DRAWS, ENCODES])
    def test_an_image_needs_both_height_and_width_or_neither(self, takes: Mapping[str, Any]) -> None:
        for alone in ("height", "width"):
            assert refusal(takes, image="a.png", **{alone: 256}).startswith("give both height and width, or neither")


class TestNumbers:
    @pytest.mark.parametrize("name", ["num_inference_steps", "prior_num_inference_steps", "num_images_per_prompt"])
    @pytest.mark.parametrize("given", [0, -1, 1001, 2.0, "3", True, math.nan, None.__class__])
    def test_wrong_steps_and_counts_are_refused(self, name: str, given: Any) -> None:
        assert refusal(**{name: given}) == f"{name} is {given!r}; give a whole number from 1 to 1000"

    @pytest.mark.parametrize("given", [0, 1, 7.5, 8, np.float32(2), np.int32(3)])
    def test_guidance_scales_are_accepted(self, given: Any) -> None:
        assert ask(prior_guidance_scale=given).prior_guidance_scale == float(given)

    @pytest.mark.parametrize("given", [math.nan, math.inf, -math.inf, "4", True, [4.0], 10**400, 4j])
    def test_wrong_guidance_scales_are_refused(self, given: Any) -> None:
        assert refusal(prior_guidance_scale=given) == f"prior_guidance_scale is {shown(given)}; give a number from 0 up"

    def test_a_negative_guidance_scale_is_refused(self) -> None:
        assert refusal(prior_guidance_scale=-0.5) == (
            "prior_guidance_scale is -0.5; give a number from 0 up (1 and below turn guidance off)"
        )

    @pytest.mark.parametrize("given", [0, 0.0, -0.1, 1.01, math.nan, "0.5", True])
    def test_wrong_strengths_are_refused(self, given: Any) -> None:
        assert refusal(image="a.png", strength=given) == f"strength is {given!r}; give a number above 0 and up to 1"
        assert ask(image="a.png", strength=1).strength == 1.0

    def test_strength_needs_a_picture(self) -> None:
        assert refusal(strength=0.5) == (
            "strength needs image: a picture to start from: a path, a PIL picture or an array"
        )

    @pytest.mark.parametrize("given", [-2, 2**64, 1.0, "7", True])
    def test_wrong_seeds_are_refused(self, given: Any) -> None:
        assert refusal(seed=given) == (
            f"seed is {given!r}; give a whole number from 0 to 18446744073709551615, or -1 for a random one"
        )

    @pytest.mark.parametrize("given", [-1, np.int64(-1)])
    def test_minus_one_is_a_random_seed(self, given: Any) -> None:
        seeds = [ask(seed=given).seed for _ in range(3)]
        assert len(set(seeds)) == 3
        assert all(seed is not None and 0 <= seed < 2**32 for seed in seeds)


class TestSeeds:
    def test_picture_i_has_seed_plus_i(self) -> None:
        request = ask(prompt=["a", "b"], num_images_per_prompt=2, seed=7)
        assert request.seeds == (7, 8, 9, 10)
        assert np.array_equal(request.noise().normal((4, 16))[2:3], TorchNoise(9).normal((1, 16)))

    def test_seeds_wrap_around(self) -> None:
        assert ask(num_images_per_prompt=2, seed=2**64 - 1).seeds == (2**64 - 1, 0)

    def test_without_a_seed_a_random_one_is_reported(self) -> None:
        one, other = ask().seeds, ask().seeds
        assert one is not None
        assert other is not None
        assert one != other

    def test_a_generator_replaces_the_seeds(self) -> None:
        request = ask(generator=torch.Generator().manual_seed(3))
        assert request.seeds is None
        assert np.array_equal(request.noise().normal((1, 16)), TorchNoise(3).normal((1, 16)))

    def test_a_seed_and_a_generator_are_refused(self) -> None:
        assert refusal(seed=1, generator=np.random.RandomState(1)) == "give seed or generator, not both"

    def test_a_list_has_a_generator_per_picture(self) -> None:
        three = [torch.Generator() for _ in range(3)]
        assert ask(num_images_per_prompt=3, generator=three).seeds is None
        assert ask(num_images_per_prompt=3, generator=three[:1]).seeds is None
        message = refusal(num_images_per_prompt=2, generator=three)
        assert message == "generator has 3 generators for 2 pictures; give one for each"

    @pytest.mark.parametrize("given", [7, "cpu", [1], np.random.default_rng()])
    def test_other_objects_as_generator_are_refused(self, given: Any) -> None:
        assert "give a torch.Generator, a numpy.random.RandomState, or a list" in refusal(generator=given)

    def test_a_call_without_noise_has_no_seed(self) -> None:
        assert ask(ENCODES, image="a.png").seeds is None


class TestCounts:
    def test_pictures_are_prompts_times_their_number(self) -> None:
        assert ask(prompt=["a", "b"], num_images_per_prompt=3).image_count == 6
        assert ask(prompt=None, prompt_embeds=array(2, 77, 8), num_images_per_prompt=2).image_count == 4

    def test_pictures_are_image_embeddings_times_their_number(self) -> None:
        request = ask(DECODES, image_embeddings=array(3, 16, 3, 3), num_images_per_prompt=2, prompt="a")
        assert (request.prompt_count, request.image_count) == (1, 6)


class TestTimes:
    def test_timesteps_are_a_list_an_array_or_a_tensor(self) -> None:
        times = [1.0, 0.5, 0.0]
        for given in (times, tuple(times), np.array(times), torch.tensor(times), [np.float64(each) for each in times]):
            assert ask(prior_timesteps=given).prior_timesteps == (1.0, 0.5, 0.0)

    def test_spaced_means_the_published_timesteps(self) -> None:
        assert ask(prior_timesteps="spaced").prior_timesteps == "spaced"

    @pytest.mark.parametrize("given", ["karras", 7, np.float32(1)])
    def test_other_objects_as_timesteps_are_refused(self, given: Any) -> None:
        assert 'give a falling list of times in [0, 1], or "spaced"' in refusal(prior_timesteps=given)

    @pytest.mark.parametrize("given", [[1.0, "x"], [1.0, math.nan], [[1.0], [0.0]]])
    def test_a_list_of_other_objects_is_refused(self, given: Any) -> None:
        assert "give a falling list of times in [0, 1]" in refusal(prior_timesteps=given)


class TestArrays:
    def test_numpy_torch_and_lists_become_float32(self) -> None:
        for given in (
            np.ones((1, 2, 3, 4)),
            torch.ones((1, 2, 3, 4), dtype=torch.float16),
            np.ones((1, 2, 3, 4)).tolist(),
        ):
            latents = ask(latents=given).latents
            assert latents is not None
            assert latents.dtype == np.float32
            assert latents.shape == (1, 2, 3, 4)

    def test_image_embeddings_may_be_a_list_as_in_diffusers(self) -> None:
        parts = [torch.full((1, 16, 3, 3), 1.0), torch.full((2, 16, 3, 3), 2.0)]
        embeddings = ask(DECODES, image_embeddings=parts).image_embeddings
        assert embeddings is not None
        assert embeddings[:, 0, 0, 0].tolist() == [1, 2, 2]

    def test_arrays_of_different_shapes_are_refused(self) -> None:
        message = refusal(DECODES, image_embeddings=[array(1, 16, 3, 3), array(1, 16, 6, 6)])
        assert message == "image_embeddings is a list of arrays of different shapes; give one shape"

    @pytest.mark.parametrize("given", ["text", [[1, 2], [3]], [[10**400]], ["1"], object()])
    def test_other_objects_as_arrays_are_refused(self, given: Any) -> None:
        message = refusal(latents=given)
        assert message == f"latents is a {type(given).__name__}; give an array [pictures, channels, height, width]"

    @pytest.mark.parametrize(
        ("name", "axes"),
        [("latents", "pictures, channels, height, width"), ("prompt_embeds", "prompts, tokens, width")],
    )
    def test_wrong_shapes_are_refused(self, name: str, axes: str) -> None:
        for shape in ((), (3,), (1, 2), (1, 1, 1, 1, 1), (0, 1, 1), (0, 1, 1, 1)):
            assert refusal(**{name: array(*shape)}) == f"{name} has shape {shape}; give [{axes}]"

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_nan_and_infinity_are_refused(self, value: float) -> None:
        assert refusal(latents=np.full((1, 1, 1, 1), value)) == "latents holds NaN or infinity"

    def test_there_must_be_as_many_embeddings_as_texts(self) -> None:
        message = refusal(prompt=["a", "b"], prompt_embeds=array(3, 77, 8))
        assert message == "prompt has 2 texts and prompt_embeds has 3; give as many"


PAINTS: Mapping[str, Any] = {
    **DRAWS,
    **dict.fromkeys(("prompt_2", "negative_prompt_2", "mask_image", "padding_mask_crop", "denoising_start"), None),
    **dict.fromkeys(
        ("pooled_prompt_embeds", "negative_pooled_prompt_embeds", "clip_skip", "vae", "original_size"), None
    ),
    "guidance_scale": 5.0,
    "guidance_rescale": 0.0,
    "eta": 0.0,
    "denoising_end": None,
    "crops_coords_top_left": (0, 0),
}


class TestArgumentsThatGoTogether:
    @pytest.mark.parametrize(
        ("given", "needed"),
        [
            ({"mask_image": "m.png"}, "image"),
            ({"image": "a.png", "padding_mask_crop": 8}, "mask_image"),
            ({"denoising_start": 0.5}, "image"),
            ({"negative_prompt_2": "x"}, "negative_prompt"),
            ({"prompt": None, "prompt_embeds": array(1, 2, 3)}, "pooled_prompt_embeds"),
            ({"pooled_prompt_embeds": array(1, 2)}, "prompt_embeds"),
            ({"negative_prompt_embeds": array(1, 2, 3)}, "negative_pooled_prompt_embeds"),
        ],
        ids=str,
    )
    def test_an_argument_that_needs_another_is_refused_alone(self, given: dict[str, Any], needed: str) -> None:
        message = refusal(PAINTS, **{"prompt": "a red house", **given})
        assert f" needs {needed}: {ARGUMENTS[needed].about}" in message

    def test_an_argument_needs_no_other_that_the_call_does_not_take(self) -> None:
        assert ask(prompt_embeds=array(1, 2, 3)).pooled_prompt_embeds is None

    def test_every_needed_argument_is_a_field(self) -> None:
        for name, each in ARGUMENTS.items():
            for other in (*each.needs, *each.replaces):
                assert other in ARGUMENTS
                assert other != name

    def test_a_default_yields_to_a_conflicting_argument(self) -> None:
        assert ask(PAINTS, prompt="a", image="a.png").strength == 0.8
        assert ask(PAINTS, prompt="a", image="a.png", denoising_start=0.5).strength is None
        assert ask(PAINTS, prompt="a", image="a.png", denoising_start=0.5, strength=0.3).strength == 0.3

    def test_a_default_changes_when_another_argument_is_given(self) -> None:
        changed = {"mask_image": {"strength": 0.99, "guidance_scale": 7.5}}
        given = {"prompt": "a", "image": "a.png"}
        paints = signature(PAINTS, conditional_defaults=changed)
        without = resolved(given, paints)
        painted = resolved({**given, "mask_image": "m.png"}, paints)
        chosen = resolved({**given, "mask_image": "m.png", "strength": 0.5}, paints)
        assert [(each.strength, each.guidance_scale) for each in (without, painted, chosen)] == [
            *((0.8, 5.0), (0.99, 7.5), (0.5, 7.5))
        ]

    def test_one_second_text_serves_every_prompt(self) -> None:
        texts = {"prompt_2": "c", "negative_prompt": "d", "negative_prompt_2": ["e", "f"]}
        request = ask(PAINTS, prompt=["a", "b"], **texts)
        assert (request.prompt_2, request.negative_prompt) == (("c", "c"), ("d", "d"))
        assert request.negative_prompt_2 == ("e", "f")
        message = refusal(PAINTS, prompt=["a", "b", "c"], prompt_2=["d", "e"])
        assert message == "prompt_2 has 2 texts for 3 prompts; give one, or one for each"


class TestOtherNumbers:
    @pytest.mark.parametrize("given", [0, 1, -0.1, 1.1, math.nan, "0.5", None.__class__])
    def test_wrong_shares_of_denoising_are_refused(self, given: Any) -> None:
        message = refusal(PAINTS, prompt="a", denoising_end=given)
        assert message == f"denoising_end is {given!r}; give a number above 0 and below 1"
        assert ask(PAINTS, prompt="a", denoising_end=0.8).denoising_end == 0.8

    @pytest.mark.parametrize("name", ["eta", "guidance_rescale"])
    def test_wrong_amounts_are_refused(self, name: str) -> None:
        for given in (-0.1, 1.1, math.nan, "x"):
            assert refusal(PAINTS, prompt="a", **{name: given}) == f"{name} is {given!r}; give a number from 0 to 1"
        assert [getattr(ask(PAINTS, prompt="a", **{name: each}), name) for each in (0, 1)] == [0, 1]

    @pytest.mark.parametrize("given", [7, (1,), (1, 2, 3), "1x2", {1: 2}])
    def test_wrong_pairs_of_numbers_are_refused(self, given: Any) -> None:
        message = refusal(PAINTS, prompt="a", original_size=given)
        assert message == f"original_size is {given!r}; give two whole numbers of pixels, the vertical one first"

    @pytest.mark.parametrize("given", [(1.5, 2), ("1", 2), (True, 2), (10**7, 2)])
    def test_pairs_need_whole_numbers_in_range(self, given: Any) -> None:
        assert "give a whole number from -1000000 to 1000000" in refusal(PAINTS, prompt="a", original_size=given)
        assert ask(PAINTS, prompt="a", original_size=[1, np.int64(2)]).original_size == (1, 2)

    @pytest.mark.parametrize("given", ["small", 7, ["full"], True])
    def test_an_unknown_vae_is_refused(self, given: Any) -> None:
        assert refusal(PAINTS, prompt="a", vae=given) == f"vae is {given!r}; give one of full, tiny"

    @pytest.mark.parametrize("given", [-1, 2049, 8.0])
    def test_wrong_padding_is_refused(self, given: Any) -> None:
        arguments = {"image": "a.png", "mask_image": "m.png", "padding_mask_crop": given}
        message = refusal(PAINTS, prompt="a", **arguments)
        assert message == f"padding_mask_crop is {given!r}; give a whole number from 0 to 2048"

    @pytest.mark.parametrize("given", [1.0, "1", True])
    def test_wrong_layers_are_refused(self, given: Any) -> None:
        assert f"clip_skip is {given!r}; give a whole number" in refusal(PAINTS, prompt="a", clip_skip=given)


class TestCallSpecificArguments:
    def test_unknown_tensors_for_a_callback_are_refused(self) -> None:
        given = {"prompt": "a", "callback_on_step_end_tensor_inputs": ["prompt_embeds"]}
        draws = signature(DRAWS, callback_tensors=("latents", "prompt_embeds"))
        assert resolved(given, draws).callback_on_step_end_tensor_inputs == ("prompt_embeds",)
        with pytest.raises(RequestError, match=r'a callback is given \["latents", "prompt_embeds"\]'):
            resolved({**given, "callback_on_step_end_tensor_inputs": ["mask"]}, draws)

    def test_spaced_timesteps_are_refused_where_there_are_none(self) -> None:
        draws = Signature(takes=DRAWS, positional=())
        with pytest.raises(RequestError, match=r"prior_timesteps is 'spaced'; give a falling list of numbers$"):
            resolved({"prompt": "a", "prior_timesteps": "spaced"}, draws)


class TestOtherArguments:
    @pytest.mark.parametrize("given", ["pt", "PIL", 7, ["np"], np.array(["np", "pil"])])
    def test_wrong_output_types_are_refused(self, given: Any) -> None:
        assert refusal(output_type=given) == f"output_type is {given!r}; give one of pil, np, latent"

    def test_a_callback_that_is_no_function_is_refused(self) -> None:
        assert refusal(callback_on_step_end=7) == (
            "callback_on_step_end is a int; give a function of (pipeline, step, time, tensors)"
        )
        assert ask(callback_on_step_end=print).callback_on_step_end is print

    @pytest.mark.parametrize("given", ["latents", ["image_embeddings"], [], 7])
    def test_a_callbacks_tensors_are_the_latents(self, given: Any) -> None:
        message = refusal(callback_on_step_end_tensor_inputs=given)
        assert message == f'callback_on_step_end_tensor_inputs is {given!r}; a callback is given ["latents"]'
        assert ask(callback_on_step_end_tensor_inputs=["latents"]).callback_on_step_end_tensor_inputs == ("latents",)

    def test_a_call_with_an_image_needs_one(self) -> None:
        assert refusal(ENCODES) == "give an image: a path, a PIL picture or an array"


def takes(family: str, argument: str) -> bool:
    return any(argument in call.takes for call in registry.family(family).calls.values())


class TestSchema:
    """Options, controls and fields are made from it, so it has to say everything."""

    def test_every_field_has_a_check_and_a_description(self) -> None:
        for name, argument in ARGUMENTS.items():
            assert callable(argument.check), name
            assert argument.about, name

    def test_descriptions_are_found_by_name(self) -> None:
        assert ARGUMENTS["height"].about == "the picture's height in pixels"
        assert ARGUMENTS["seed"].about == "picture i is drawn from seed + i"

    def test_what_one_family_takes_alone_is_not_in_the_shared_schema(self) -> None:
        kinds = [registry.family(name).request for name in registry.FAMILIES]
        for name in arguments_of(Request):
            takers = [each for each in registry.FAMILIES if takes(each, name)]
            assert len(takers) > 1 or name in ("mask_image", "padding_mask_crop"), name  # which shared code reads
        assert len({name for kind in kinds for name in arguments_of(kind)}) == len(ARGUMENTS)

    def test_errors_use_the_names_that_the_caller_knows(self) -> None:
        names = {"strength": "--strength", "image": "--image"}
        for given, words in (({"strength": 2}, "--strength is 2; "), ({"strength": 0.5}, "--strength needs --image: ")):
            with pytest.raises(RequestError, match=f"^{words}"):
                resolve({"prompt": "a", **given}, signature(DRAWS), SIZES, "x", AnyRequest, names)

    def test_a_requests_record_is_json_without_arrays_and_functions(self) -> None:
        request = ask(latents=array(1, 16, 3, 3), callback_on_step_end=print, prior_timesteps=[1, 0.5], seed=7)
        record = json.loads(json.dumps(request.record()))
        assert record["prompt"] == ["a red house"]
        assert (record["seed"], record["height"], record["prior_timesteps"]) == (7, 512, [1.0, 0.5])
        assert not record.keys() & {"latents", "callback_on_step_end", "image", "generator", "strength"}


class TestEnoughSteps:
    """Default steps are as many as leave at least one to do."""

    TAKES: Mapping[str, Any] = {
        **DRAWS,
        "num_inference_steps": 1,
        "timesteps": None,
        "denoising_start": None,
        "denoising_end": None,
    }

    def steps(self, **given: Any) -> int | None:
        given = {"prompt": "a red house", "image": "a.png", **given}
        return resolved(given, signature(self.TAKES, steps="num_inference_steps")).num_inference_steps

    @pytest.mark.parametrize("strength", [1.0, 0.9999, 0.8, 0.5, 0.3, 0.29, 0.1, 0.07, 0.01, 1 / 3, 0.001])
    def test_default_steps_are_the_fewest_that_leave_one(self, strength: float) -> None:
        steps = self.steps(strength=strength)
        assert steps is not None
        assert int(steps * strength) >= 1
        assert steps == 1 or int((steps - 1) * strength) == 0
        assert steps == fewest_steps(strength)

    def test_default_steps_stay_if_no_number_would_do(self) -> None:
        assert fewest_steps(0.0009) is None
        assert self.steps(strength=0.0009) == 1

    def test_given_steps_are_not_changed(self) -> None:
        assert self.steps(strength=0.3, num_inference_steps=2) == 2
        assert self.steps(strength=0.3, timesteps=[0.5, 0.0]) == 1
        assert self.steps(image=None, prompt="a") == 1

    def test_a_part_of_the_denoising_leaves_a_step(self) -> None:
        assert self.steps(denoising_start=0.75) == 4
        assert self.steps(denoising_start=0.5, denoising_end=0.75) == 4
        assert self.steps(strength=0.5, denoising_end=0.75) == 4
        assert self.steps(strength=0.5, denoising_end=0.25) == 1, "there is no such part: an error of the family's"

    def test_too_many_pictures_are_refused(self) -> None:
        assert refusal(prompt=["a"] * 3, num_images_per_prompt=1000) == (
            "that is 3,000 pictures; one call draws at most 1,000"
        )

    def test_too_many_timesteps_are_refused(self) -> None:
        for given in ([0.5] * 2000, np.zeros(2000), np.zeros((3, 3))):
            assert "prior_timesteps" in refusal(prior_timesteps=given)
