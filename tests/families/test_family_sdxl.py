"""SDXL's generator of steps on trivial components: their inputs, and the caller's results."""

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

from tests.bundles import LAYERS, WIDTH
from tests.families.tiny import PROMPT, SDXL, Tiny, Watched
from vinograph import Pipeline, RequestError
from vinograph.arguments import MAX_STEPS
from vinograph.families.inpainting import crop_box, filled, read_masks, to_mask
from vinograph.families.shared import strength_steps
from vinograph.families.sizes import SizeLimits
from vinograph.images import Size, only

changed, picture = SDXL.open, SDXL.picture
SIZES = SizeLimits(size_multiple=8, minimum_size=64, maximum_size=512, native_size=64)
DIFFUSERS: Any = diffusers


@pytest.fixture
def tiny_family() -> Tiny:
    return SDXL


def half(width: int = 64, height: int = 64) -> Image.Image:
    """A mask: its right half white."""
    mask = Image.new("L", (width, height))
    mask.paste(255, (width // 2, 0, width, height))
    return mask


class TestPasses:
    def test_the_unconditional_rows_come_first(self, pipe: Pipeline, watched: Watched) -> None:
        pipe([PROMPT, "a boat"], negative_prompt="blue", num_images_per_prompt=2, guidance_scale=2.0, seed=1)
        states = watched.calls["unet"][0]["encoder_hidden_states"]
        assert states.shape == (8, 20, 2 * WIDTH)
        assert all(np.array_equal(states[0], each) for each in states[1:4])
        assert np.array_equal(states[4], states[5])
        assert not np.array_equal(states[5], states[6])

    def test_without_a_negative_prompt_they_are_zeros(self, pipe: Pipeline, watched: Watched) -> None:
        pipe(PROMPT, guidance_scale=2.0, seed=1)
        first = watched.calls["unet"][0]
        assert not first["encoder_hidden_states"][0].any()
        assert not first["text_embeds"][0].any()
        assert len(watched.calls["text_encoder"]) == 1

    def test_or_an_empty_text_where_the_model_says_so(self, tmp_path: Path) -> None:
        zeros = changed(tmp_path, force_zeros_for_empty_prompt=0)
        plain, empty = (
            zeros(PROMPT, guidance_scale=4.0, seed=1, output_type="np", negative_prompt=given).images
            for given in (None, "")
        )
        assert np.array_equal(plain, empty)

    def test_clip_skip_leaves_layers_out_of_the_prompt_alone(self, pipe: Pipeline, watched: Watched) -> None:
        pipe(PROMPT, negative_prompt="blue", clip_skip=2, guidance_scale=2.0, seed=1)
        pipe(PROMPT, negative_prompt="blue", guidance_scale=2.0, seed=1)
        skipped, usual = (watched.calls["unet"][index]["encoder_hidden_states"] for index in (0, 4))
        assert np.array_equal(skipped[0], usual[0])
        np.testing.assert_allclose(skipped[1] * LAYERS, usual[1], rtol=1e-5)

    @pytest.mark.parametrize("skip", [-1, LAYERS, 100])
    def test_clip_skip_is_within_the_layers(self, pipe: Pipeline, skip: int) -> None:
        with pytest.raises(RequestError) as caught:
            pipe(PROMPT, clip_skip=skip)
        assert str(caught.value) == (
            f"clip_skip is {skip}; this model's text encoders take a whole number from 0 to {LAYERS - 1}"
        )

    def test_the_sizes_that_it_is_told(self, pipe: Pipeline, watched: Watched) -> None:
        pipe(PROMPT, height=72, width=128, crops_coords_top_left=(3, 4), target_size=(5, 6), guidance_scale=0, seed=1)
        assert watched.calls["unet"][0]["time_ids"].tolist() == [[72, 128, 3, 4, 5, 6]]

    def test_negative_sizes_for_every_picture(self, pipe: Pipeline, watched: Watched) -> None:
        away: dict[str, Any] = {"negative_original_size": (1, 2), "negative_target_size": (3, 4)}
        pipe(PROMPT, num_images_per_prompt=2, guidance_scale=2.0, seed=1, **away)
        assert watched.calls["unet"][0]["time_ids"].tolist() == [[1, 2, 0, 0, 3, 4]] * 2 + [[64, 64, 0, 0, 64, 64]] * 2

    def test_negative_sizes_are_given_together(self, pipe: Pipeline) -> None:
        alone: list[dict[str, Any]] = [
            {"negative_original_size": (1, 2)},
            {"negative_crops_coords_top_left": (1, 2)},
        ]
        for given in alone:
            with pytest.raises(RequestError, match="give both negative_original_size and negative_target_size"):
                pipe(PROMPT, **given)

    def test_a_unet_that_is_told_the_scale_guides_itself(self, tmp_path: Path) -> None:
        own = changed(tmp_path, time_cond_width=7)
        watched = Watched.of(own)
        result = own(PROMPT, negative_prompt="blue", guidance_scale=8.0, seed=1)
        first = watched.calls["unet"][0]
        assert len(first["sample"]) == 1
        assert first["timestep_cond"].shape == (1, 7)
        assert first["timestep_cond"][0, -1] == 0
        theirs = DIFFUSERS.StableDiffusionXLPipeline.get_guidance_scale_embedding(None, _tensor([7.0]), embedding_dim=7)
        np.testing.assert_allclose(first["timestep_cond"], theirs.numpy(), atol=2e-4)
        assert result.warnings == (
            "the negative prompt was ignored: this model takes the guidance scale as an input and guides itself",
        )


def _tensor(values: list[float]) -> Any:
    import torch

    return torch.tensor(values)


class TestSteps:
    def test_no_steps_would_do(self) -> None:
        """Then a strength is named that does with as many steps as were asked for."""
        for steps in range(1, MAX_STEPS + 1):
            with pytest.raises(RequestError, match=r"give a strength of at least [\d.]+$") as caught:
                strength_steps(steps, 1e-9)
            assert strength_steps(steps, float(str(caught.value).split()[-1])) >= 1

    def test_a_span_of_denoising_without_steps(self, pipe: Pipeline) -> None:
        with pytest.raises(RequestError, match=r"denoising_start is 0\.6 and denoising_end 0\.5; start below the end"):
            pipe(PROMPT, image=picture(), denoising_start=0.6, denoising_end=0.5)

    @pytest.mark.parametrize(
        ("given", "bounds"),
        [
            ({"denoising_start": 0.51, "denoising_end": 0.52}, "denoising_start 0.51 and denoising_end 0.52"),
            ({"strength": 0.5, "denoising_end": 0.1}, "strength 0.5 and denoising_end 0.1"),
            ({"denoising_start": 0.9999}, "denoising_start 0.9999"),
        ],
    )
    def test_a_span_without_steps_is_told_as_it_was_given(
        self, pipe: Pipeline, given: dict[str, Any], bounds: str
    ) -> None:
        with pytest.raises(RequestError) as caught:
            pipe(PROMPT, image=picture(), num_inference_steps=4, **given)
        assert str(caught.value) == f"4 steps leave none to do with {bounds}; give more steps, or a wider span"

    def test_where_denoising_starts_there_is_no_strength(self, pipe: Pipeline) -> None:
        given: dict[str, Any] = {"image": picture(), "denoising_start": 0.5, "seed": 1}
        assert pipe(PROMPT, **given).warnings == ()
        warnings = pipe(PROMPT, **given, strength=0.7).warnings
        assert warnings == ("strength was ignored: denoising_start says where to begin",)

    def test_a_callback_may_change_all_that_it_is_given(self, pipe: Pipeline, watched: Watched) -> None:
        seen: list[tuple[int, float, list[str]]] = []

        def change(pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            assert pipeline is pipe
            seen.append((step, float(timestep), list(tensors)))
            return {"add_text_embeds": np.full_like(tensors["add_text_embeds"], step + 5)}

        names = ["latents", "add_text_embeds"]
        pipe(PROMPT, guidance_scale=0.0, callback_on_step_end=change, callback_on_step_end_tensor_inputs=names, seed=1)
        assert seen == [(index, time, names) for index, time in enumerate((750.0, 500.0, 250.0, 0.0))]
        assert [each["text_embeds"][0, 0] for each in watched.calls["unet"][1:]] == [5, 6, 7]

    def test_but_not_the_shape(self, pipe: Pipeline) -> None:
        with pytest.raises(RequestError, match=r"the callback returned latents of shape \(1,\)"):
            pipe(PROMPT, callback_on_step_end=lambda *_: {"latents": np.zeros(1)})

    @pytest.mark.parametrize(
        ("returned", "words"),
        [(5, "returned a int; give a mapping"), ({"latents": "x"}, "returned latents that are no array")],
    )
    def test_nor_what_is_no_array(self, pipe: Pipeline, returned: Any, words: str) -> None:
        with pytest.raises(RequestError, match=f"the callback {words}"):
            pipe(PROMPT, callback_on_step_end=lambda *_: returned)

    def test_and_nothing_else(self, pipe: Pipeline) -> None:
        with pytest.raises(RequestError, match=r'a callback is given \["latents", "prompt_embeds", "add_text_embeds"'):
            pipe(PROMPT, callback_on_step_end=print, callback_on_step_end_tensor_inputs=["mask"])


class TestWarnings:
    @pytest.mark.parametrize("scale", [0.0, 1.0])
    def test_a_negative_prompt_without_guidance(self, pipe: Pipeline, scale: float) -> None:
        result = pipe(PROMPT, negative_prompt="blue", guidance_scale=scale, seed=1)
        assert result.warnings == ("the negative prompt was ignored: it takes a guidance scale above 1",)

    def test_text_that_is_cut_off(self, pipe: Pipeline) -> None:
        result = pipe("a red house " * 12, seed=1)
        assert len(result.warnings) == 1
        assert result.warnings[0].startswith("the text encoder reads 20 tokens; cut off: '")

    def test_each_encoders_own(self, pipe: Pipeline) -> None:
        result = pipe("a red house " * 12, prompt_2="two blue boats " * 12, seed=1)
        assert len(result.warnings) == 2

    def test_eta_is_ddims(self, pipe: Pipeline, tmp_path: Path) -> None:
        assert pipe(PROMPT, eta=0.5, seed=1).warnings == ("eta was ignored: EulerDiscreteScheduler doesn't take it",)
        ddim = changed(tmp_path, scheduler={"_class_name": "DDIMScheduler"})
        assert ddim(PROMPT, eta=0.5, seed=1).warnings == ()

    def test_a_picture_that_was_resized(self, pipe: Pipeline) -> None:
        result = pipe(PROMPT, image=picture(100, 75), strength=0.5, seed=1)
        assert result.warnings == ("the picture was resized from 100x75 to 96x72",)
        assert result.images[0].size == (96, 72)

    def test_a_mask_of_another_size(self, pipe: Pipeline) -> None:
        given: dict[str, Any] = {"image": picture(100, 75), "seed": 1}
        resized = "the picture was resized from 100x75 to 96x72"
        assert pipe(PROMPT, **given, mask_image=half(100, 75)).warnings == (resized,)
        warnings = pipe(PROMPT, **given, mask_image=half(64, 80)).warnings
        assert warnings == (resized, "the mask was resized from 64x80 to 96x72")

    def test_negative_crops_from_a_picture(self, pipe: Pipeline) -> None:
        given: dict[str, Any] = {"image": picture(), "strength": 0.5, "seed": 1}
        assert "was ignored" in pipe(PROMPT, **given, negative_crops_coords_top_left=(1, 2)).warnings[0]
        same: dict[str, Any] = {"crops_coords_top_left": (1, 2), "negative_crops_coords_top_left": (1, 2)}
        assert pipe(PROMPT, **given, **same).warnings == ()


class TestWrongRequests:
    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"timesteps": "spaced"}, "timesteps is 'spaced'; give a falling list of numbers"),
            ({"timesteps": [1, 2]}, "timesteps have to fall"),
            ({"timesteps": [5, 1], "sigmas": [5.0, 0.0]}, "give timesteps or sigmas, not both"),
            ({"mask_image": half()}, "mask_image needs image: a picture to start from"),
            ({"padding_mask_crop": 8, "image": picture()}, "padding_mask_crop needs mask_image"),
            ({"denoising_start": 0.5}, "denoising_start needs image"),
            ({"negative_prompt_2": "blue"}, "negative_prompt_2 needs negative_prompt"),
            ({"prompt_embeds": np.zeros((1, 20, 16))}, "prompt_embeds needs pooled_prompt_embeds"),
            (
                {"prompt_embeds": np.zeros((1, 20, 16)), "pooled_prompt_embeds": np.zeros((1, 8))},
                "give prompt or prompt_embeds, not both",
            ),
            ({"latents": np.zeros((1, 4, 9, 8))}, "latents have shape (1, 4, 9, 8); this request needs (1, 4, 8, 8)"),
            ({"vae": "small"}, "vae is 'small'; give one of full, tiny"),
            ({"width": 100}, "width is 100; this model draws multiples of 8 from 64 to 512, the nearest: 96 and 104"),
            ({"image": picture(), "height": 64}, "give both height and width, or neither"),
            (
                {"image": np.zeros((0, 4, 8, 8))},
                "image is latents of shape (0, 4, 8, 8); give finite ones, [1, 4, height",
            ),
            ({"image": np.zeros((1, 3, 8, 8))}, "give [height, width, 3] or [n, height, width, 3]"),
            (
                {"image": np.zeros((1, 4, 4, 8)), "denoising_start": 0.5},
                "image is latents of 64x32 pixels; this model draws multiples of 8 from 64 to 512",
            ),
            (
                {"image": np.zeros((1, 4, 8, 8)), "height": 72, "width": 64},
                "an image of latents is drawn at its own size, 64x64",
            ),
            ({"image": [5]}, "image is a int; give a path, a PIL picture, or an array"),
            ({"image": []}, "image is a list of 0 pictures; give 1 to 1000"),
            ({"image": [picture()] * 2}, "image holds 2 pictures for 1 to draw; give one, or as many"),
            ({"image": picture(), "mask_image": [half()] * 3}, "mask_image holds 3 pictures for 1 to draw"),
            ({"guidance_rescale": 1.5}, "guidance_rescale is 1.5; give a number from 0 to 1"),
            ({"denoising_end": 1.0}, "denoising_end is 1.0; give a number above 0 and below 1"),
            ({"original_size": 64}, "original_size is 64; give two whole numbers of pixels, the vertical one first"),
            ({"prior_guidance_scale": 4.0}, "SDXL (generate) takes no prior_guidance_scale"),
        ],
    )
    def test_what_would_do_is_said(self, pipe: Pipeline, watched: Watched, given: dict[str, Any], message: str) -> None:
        with pytest.raises(RequestError) as caught:
            pipe(PROMPT, **given)
        assert message in str(caught.value)
        assert "unet" not in watched.calls

    @pytest.mark.parametrize(
        ("states", "pooled"), [((1, 20, 15), (1, 8)), ((1, 20, 16), (1, 7)), ((2, 20, 16), (1, 8))]
    )
    def test_embeddings_of_another_shape(self, pipe: Pipeline, states: Any, pooled: Any) -> None:
        with pytest.raises(RequestError, match=r"give \[prompts, tokens, 16\] and \[prompts, 8\]"):
            pipe(None, prompt_embeds=np.zeros(states), pooled_prompt_embeds=np.zeros(pooled))

    def test_negative_embeddings_of_another_length(self, pipe: Pipeline) -> None:
        away: dict[str, Any] = {
            "negative_prompt_embeds": np.zeros((1, 7, 16)),
            "negative_pooled_prompt_embeds": np.zeros((1, 8)),
        }
        with pytest.raises(RequestError, match="give both alike"):
            pipe(PROMPT, **away)


class TestVaes:
    def test_latents_with_a_mean_and_a_deviation(self, tmp_path: Path) -> None:
        mean, deviation = [0.5, -1.0, 2.0, 0.0], [2.0, 0.5, 1.0, 3.0]
        other = changed(tmp_path, vae_latents_mean=mean, vae_latents_std=deviation)
        watched = Watched.of(other)
        drawn = other(PROMPT, seed=1, vae="full", output_type="latent").images
        other(PROMPT, seed=1, vae="full")
        shape = (1, 4, 1, 1)
        expected = drawn * np.reshape(deviation, shape) / 0.13025 + np.reshape(mean, shape)
        given = watched.calls["vae_decoder"][0]["latent_sample"]
        np.testing.assert_allclose(given, expected, rtol=1e-5, atol=1e-6)
        encoded = other.encode(picture(), vae="full").images
        again = watched.calls["vae_encoder"][0]["sample"]
        plain = other._components.sessions["vae_encoder"]({"sample": again})["latent_parameters"][:, :4]
        np.testing.assert_allclose(
            encoded, (plain - np.reshape(mean, shape)) * 0.13025 / np.reshape(deviation, shape), rtol=1e-5
        )


class TestPictures:
    def test_its_size_is_kept_unless_another_is_asked_for(self, pipe: Pipeline) -> None:
        given: dict[str, Any] = {"image": picture(128, 72), "strength": 0.5, "seed": 1}
        assert pipe(PROMPT, **given).images[0].size == (128, 72)
        assert pipe(PROMPT, **given, width=64, height=80).images[0].size == (64, 80)

    @pytest.mark.parametrize(
        ("size", "drawn"),
        [
            ((64, 64), (64, 64)),
            ((71, 100), (64, 96)),
            ((1024, 700), (512, 344)),
            ((10, 200), (64, 200)),
            ((513, 512), (512, 504)),
        ],
    )
    def test_sizes_near_its_own(self, size: tuple[int, int], drawn: tuple[int, int]) -> None:
        width, height = drawn
        assert SIZES.within(Size(width=size[0], height=size[1])) == Size(height, width)

    def test_latents_go_on_where_they_were_left(self, pipe: Pipeline, watched: Watched) -> None:
        latents = pipe(PROMPT, seed=1, denoising_end=0.5, output_type="latent").images
        assert latents.shape == (1, 4, 8, 8)
        result = pipe(PROMPT, image=latents, denoising_start=0.5, seed=1)
        assert result.images[0].size == (64, 64)
        assert "tiny_vae_encoder" not in watched.calls
        assert len(watched.calls["unet"]) == 4


class TestMasks:
    def test_what_is_black_is_kept(self, pipe: Pipeline) -> None:
        given: dict[str, Any] = {
            "image": picture(),
            "seed": 1,
            "guidance_scale": 0.0,
            "output_type": "latent",
            "strength": 1.0,
        }
        drawn, kept = pipe(PROMPT, **given, mask_image=half()).images, pipe.encode(picture()).images
        assert np.array_equal(drawn[..., :4], kept[..., :4])
        assert np.abs(drawn[..., 4:] - kept[..., 4:]).min() > 1e-3

    def test_its_own_defaults(self, pipe: Pipeline) -> None:
        request = pipe(PROMPT, image=picture(), mask_image=half(), seed=1).request
        assert (request.strength, request.guidance_scale) == (0.9999, 7.5)
        request = pipe(PROMPT, image=picture(), mask_image=half(), seed=1, strength=0.5, guidance_scale=2.0).request
        assert (request.strength, request.guidance_scale) == (0.5, 2.0)

    def test_unless_the_model_has_others(self, tmp_path: Path) -> None:
        own = changed(tmp_path, defaults={"strength": 0.6, "guidance_scale": 0.0})
        request = own(PROMPT, image=picture(), mask_image=half(), seed=1).request
        assert (request.strength, request.guidance_scale) == (0.6, 0.0)

    @pytest.mark.parametrize("form", ["L", "RGB", "1", "uint8", "float", "bool", "one channel"])
    def test_what_a_mask_may_be(self, form: str) -> None:
        mask = half()
        forms: dict[str, Any] = {
            **{mode: mask.convert(mode) for mode in ("L", "RGB", "1")},
            "uint8": np.asarray(mask),
            "float": np.asarray(mask, np.float32) / 255,
            "bool": np.asarray(mask) > 0,
            "one channel": np.asarray(mask)[..., None],
        }
        assert np.array_equal(to_mask(only(read_masks(forms[form]), form)), (np.asarray(mask) > 0)[None, None])

    @pytest.mark.parametrize("size", [(64, 64), (90, 60), (200, 50)])
    @pytest.mark.parametrize("target", [(64, 64), (96, 64), (64, 128)])
    @pytest.mark.parametrize("white", [(10, 12, 30, 20), (0, 0, 5, 5), (40, 44, 48, 50), (1, 20, 49, 24)])
    def test_its_surroundings_are_diffusers(self, size: Any, target: Any, white: Any) -> None:
        mask = Image.new("L", size)
        mask.paste(255, white)
        theirs: Any = VaeImageProcessor(vae_scale_factor=8)
        for padding in (0, 3, 40):
            wanted = Size(width=target[0], height=target[1])
            box = crop_box(mask, wanted, padding)
            assert box == theirs.get_crop_region(mask, *target, pad=padding)
            part = picture(*size).crop(box)
            assert filled(part, wanted).tobytes() == theirs._resize_and_fill(part, *target).tobytes()

    def test_drawn_into_the_whole_picture(self, pipe: Pipeline) -> None:
        image, mask = picture(120, 90), Image.new("L", (120, 90))
        mask.paste(255, (20, 30, 50, 60))
        result = pipe(PROMPT, image=image, mask_image=mask, padding_mask_crop=4, seed=1).images[0]
        assert result.size == (120, 90)
        different = np.abs(np.asarray(result).astype(int) - np.asarray(image)).max(axis=2) > 0
        assert different[30:60, 20:50].mean() > 0.9
        different[30:60, 20:50] = False
        assert not different.any()

    @pytest.mark.parametrize("size", [(10_000, 1), (1, 10_000), (300, 2)])
    def test_a_very_long_picture(self, pipe: Pipeline, size: tuple[int, int]) -> None:
        mask = Image.new("L", size, "white")
        result = pipe(PROMPT, image=mask, mask_image=mask, padding_mask_crop=8, seed=1)
        assert result.images[0].size == size

    def test_a_black_mask(self, pipe: Pipeline) -> None:
        with pytest.raises(RequestError, match="mask_image is black everywhere"):
            pipe(PROMPT, image=picture(), mask_image=Image.new("L", (64, 64)), padding_mask_crop=4)

    def test_a_mask_of_another_size_has_no_surroundings(self, pipe: Pipeline) -> None:
        with pytest.raises(RequestError, match=r"mask_image is 80x64 and image 64x64; with padding_mask_crop"):
            pipe(PROMPT, image=picture(), mask_image=half(80, 64), padding_mask_crop=4)


class TestResults:
    def test_metadata_draws_one_of_several_again(self, pipe: Pipeline) -> None:
        result = pipe([PROMPT, "a boat"], prompt_2=["at night", "on the sea"], seed=5, output_type="np")
        record = result.metadata(1)["request"]
        assert (record["prompt"], record["prompt_2"], record["seed"]) == ("a boat", "on the sea", 6)
        again = pipe(**{**record, "output_type": "np"}).images
        assert np.abs(again[0] - result.images[1]).max() < 1e-5
