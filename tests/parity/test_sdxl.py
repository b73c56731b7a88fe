"""SDXL gives the pictures of diffusers' pipelines, from the same checkpoint and seed, in f32."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.parity.pairs import assert_same_pictures
from tests.parity.sdxl_pairs import SdxlPair, mask, picture

# 2/255 is promised; in f32 only rounding differs, so the tests demand far less.
BAR = 0.005 / 255

SCHEDULERS: dict[str, dict[str, Any]] = {
    "EulerAncestralDiscreteScheduler": {"timestep_spacing": "trailing"},
    "EulerDiscreteScheduler": {"use_karras_sigmas": True},
    "DPMSolverMultistepScheduler": {"algorithm_type": "sde-dpmsolver++"},
    "LCMScheduler": {"steps_offset": 0},
    "DDIMScheduler": {"clip_sample": False},
    "DDPMScheduler": {"clip_sample": False},
    "EDMDPMSolverMultistepScheduler": {},
}
GUIDED: dict[str, Any] = {"num_inference_steps": 4, "guidance_scale": 5.0}
PLAIN: dict[str, Any] = {"num_inference_steps": 4, "guidance_scale": 0.0}

GENERATORS: dict[str, Callable[[], Any]] = {
    "one": lambda: torch.Generator().manual_seed(11),
    "several": lambda: [torch.Generator().manual_seed(seed) for seed in (5, 2)],
}
KINDS: dict[str, dict[str, Any]] = {
    "text": {},
    "image": {"image": picture(), "strength": 0.6},
    "mask": {"image": picture(), "mask_image": mask(), "strength": 0.8},
}

# diffusers' schedulers pass tensors to NumPy in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture
def small(open_sdxl: Callable[[str], SdxlPair]) -> SdxlPair:
    """A model like SDXL base, with Euler, both VAEs, and a native size of 64."""
    return open_sdxl("base")


@pytest.fixture
def turbo(open_sdxl: Callable[[str], SdxlPair]) -> SdxlPair:
    """A model like SDXL-Turbo, with three levels as the published ones."""
    return open_sdxl("turbo")


@pytest.fixture
def consistency(open_sdxl: Callable[[str], SdxlPair]) -> SdxlPair:
    """A consistency model, whose UNet has an embedding of the guidance scale."""
    return open_sdxl("consistency")


def same(pair: SdxlPair, prompt: Any = "a red house", **given: Any) -> None:
    assert_same_pictures(*pair.draw(prompt, **given), tolerance=BAR)


class TestTextToImage:
    @pytest.mark.parametrize("steps", [1, 2, 3, 4, 20])
    @pytest.mark.parametrize("scale", [0.0, 5.0])
    def test_steps_and_guidance(self, small: SdxlPair, steps: int, scale: float) -> None:
        same(small, num_inference_steps=steps, guidance_scale=scale)

    @pytest.mark.parametrize(
        "given",
        [
            {"negative_prompt": "a blue boat"},
            {"negative_prompt": ""},
            {"negative_prompt": "blue", "negative_prompt_2": "two boats on the sea"},
            {"prompt_2": "two boats on the sea"},
            {"prompt_2": ""},
            {"clip_skip": 0},
            {"clip_skip": 1, "negative_prompt": "blue"},
            {"guidance_rescale": 0.7},
            {"timesteps": [999, 700, 350, 20]},
            {"sigmas": [14.6, 6.0, 1.5, 0.2, 0.0]},
            {"denoising_end": 0.6},
            {"original_size": (100, 40), "crops_coords_top_left": (7, 30), "target_size": (512, 256)},
            {
                "negative_original_size": (20, 30),
                "negative_crops_coords_top_left": (4, 5),
                "negative_target_size": (600, 70),
            },
        ],
        ids=lambda each: "-".join(each),
    )
    def test_arguments(self, small: SdxlPair, given: dict[str, Any]) -> None:
        same(small, **GUIDED, **given)

    @pytest.mark.parametrize("vae", ["full", "tiny"])
    @pytest.mark.parametrize("given", [PLAIN, GUIDED], ids=["plain", "guided"])
    def test_both_vaes(self, small: SdxlPair, vae: str, given: dict[str, Any]) -> None:
        same(small, vae=vae, **given)

    @pytest.mark.parametrize("name", SCHEDULERS)
    @pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
    def test_schedulers(self, small: SdxlPair, name: str, prediction: str) -> None:
        same(small.with_scheduler(name, **SCHEDULERS[name], prediction_type=prediction), **GUIDED)

    def test_ddim_with_fresh_noise(self, small: SdxlPair) -> None:
        same(small.with_scheduler("DDIMScheduler", clip_sample=False), **GUIDED, eta=0.8)

    def test_latents(self, small: SdxlPair) -> None:
        latents = np.random.RandomState(0).standard_normal((1, 4, 8, 8)).astype(np.float32)
        ours, theirs = small.draw(**GUIDED, latents=latents, output_type="latent")
        assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()

    def test_embeddings(self, small: SdxlPair) -> None:
        names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
        tensors = small.theirs("text", "full").encode_prompt("a red house", negative_prompt="blue")
        given = {name: value.detach().numpy() for name, value in zip(names, tensors, strict=True)}
        ours, theirs = small.draw(None, **GUIDED, **given)
        assert_same_pictures(ours, theirs, tolerance=BAR)
        texts = small.draw_ours("a red house", negative_prompt="blue", seed=3, **GUIDED)
        assert np.abs(texts - ours).max() <= BAR

    def test_a_callback_can_change_the_conditioning(self, small: SdxlPair) -> None:
        def change(pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            return {name: value * (0.9 if step else 1.2) for name, value in tensors.items()}

        names = ["latents", "prompt_embeds", "add_text_embeds", "add_time_ids"]
        same(small, **GUIDED, callback_on_step_end=change, callback_on_step_end_tensor_inputs=names)

    def test_every_argument_changes_the_picture(self, small: SdxlPair) -> None:
        """Otherwise agreement about it would mean nothing."""
        usual = small.draw_ours(seed=3, **GUIDED)
        others: tuple[dict[str, Any], ...] = (
            {"seed": 4},
            {"vae": "tiny"},
            {"prompt_2": "two boats on the sea"},
            {"negative_prompt": "a blue boat"},
            {"clip_skip": 1},
            {"guidance_rescale": 0.7},
            {"original_size": (100, 40)},
        )
        for given in others:
            other = small.draw_ours(**{"seed": 3, **GUIDED, **given})
            assert np.abs(other - usual).max() > 100 * BAR, given


class TestImageToImage:
    @pytest.mark.parametrize("strength", [0.3, 0.6, 1.0])
    @pytest.mark.parametrize("vae", ["full", "tiny"])
    def test_strengths(self, small: SdxlPair, strength: float, vae: str) -> None:
        same(small, **GUIDED, image=picture(), strength=strength, vae=vae)

    @pytest.mark.parametrize("name", SCHEDULERS)
    def test_schedulers(self, small: SdxlPair, name: str) -> None:
        same(small.with_scheduler(name, **SCHEDULERS[name]), **GUIDED, image=picture(), strength=0.6)

    def test_two_steps_at_half_strength_are_one_step(self, small: SdxlPair) -> None:
        same(small, num_inference_steps=2, guidance_scale=0.0, image=picture(), strength=0.5)

    def test_an_image_whose_sides_are_no_multiples_of_eight(self, small: SdxlPair) -> None:
        same(small, **GUIDED, image=picture(70, 67), strength=0.6)

    @pytest.mark.parametrize(
        "given",
        [
            {"negative_prompt": "a blue boat", "prompt_2": "two boats"},
            {"timesteps": [999, 700, 350, 20]},
            {"sigmas": [14.6, 6.0, 1.5, 0.2, 0.0]},
            {"denoising_end": 0.8},
            {"original_size": (100, 40), "negative_original_size": (20, 30), "crops_coords_top_left": (3, 9)},
        ],
        ids=lambda each: "-".join(each),
    )
    def test_arguments(self, small: SdxlPair, given: dict[str, Any]) -> None:
        same(small, **GUIDED, image=picture(), strength=0.8, **given)

    def test_denoising_continues_from_noised_latents(self, small: SdxlPair) -> None:
        """A base model and a refiner share the denoising so."""
        steps: dict[str, Any] = {"num_inference_steps": 10, "guidance_scale": 5.0}
        half = small.draw(**steps, denoising_end=0.5, output_type="latent")
        ours = small.draw_ours(seed=3, **steps, image=half[0], denoising_start=0.5)
        theirs = small.draw_theirs(seed=3, **steps, image=half[1], denoising_start=0.5)
        assert_same_pictures(ours, theirs, tolerance=BAR)


class TestInpainting:
    @pytest.mark.parametrize("strength", [0.6, 0.9999, 1.0])
    @pytest.mark.parametrize("vae", ["full", "tiny"])
    def test_strengths(self, small: SdxlPair, strength: float, vae: str) -> None:
        same(small, **GUIDED, image=picture(), mask_image=mask(), strength=strength, vae=vae)

    @pytest.mark.parametrize("name", SCHEDULERS)
    def test_schedulers(self, small: SdxlPair, name: str) -> None:
        same(small.with_scheduler(name, **SCHEDULERS[name]), **PLAIN, image=picture(), mask_image=mask(), strength=0.8)

    def test_an_image_and_a_mask_of_other_sizes(self, small: SdxlPair) -> None:
        size: dict[str, Any] = {"height": 64, "width": 64}
        same(small, **GUIDED, **size, image=picture(100, 80), mask_image=mask(90, 70), strength=0.8)

    def test_defaults(self, small: SdxlPair) -> None:
        same(small, num_inference_steps=4, image=picture(), mask_image=mask())

    def test_latents(self, small: SdxlPair) -> None:
        latents = np.random.RandomState(0).standard_normal((1, 4, 8, 8)).astype(np.float32)
        same(small, **GUIDED, latents=latents, image=picture(), mask_image=mask(), strength=0.8)

    @pytest.mark.parametrize("size", [(100, 80), (64, 150)])
    def test_padding_mask_crop(self, small: SdxlPair, size: tuple[int, int]) -> None:
        painted = np.zeros((size[1], size[0]), np.uint8)
        painted[20:41, 30:49] = 255
        given: dict[str, Any] = {
            "image": picture(*size),
            "mask_image": Image.fromarray(painted),
            "padding_mask_crop": 6,
        }
        ours, theirs = small.draw(**GUIDED, **given, height=64, width=64, strength=0.8, output_type="pil")
        assert ours.shape == theirs.shape == (1, size[1], size[0], 3)
        assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 1


class TestSeveralPictures:
    """Several pictures of one or two prompts, from seeds and from generators of all forms."""

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("generator", GENERATORS)
    def test_generators(self, small: SdxlPair, kind: str, generator: str) -> None:
        given = {**PLAIN, **KINDS[kind]}
        same(small, generator=GENERATORS[generator], num_images_per_prompt=2, **given)

    @pytest.mark.parametrize("kind", ["text", "image"])
    def test_prompts_by_seed(self, small: SdxlPair, kind: str) -> None:
        same(small, ["a red house", "two boats on the sea"], **PLAIN, **KINDS[kind])

    @pytest.mark.parametrize("kind", KINDS)
    def test_any_picture_of_a_batch_is_reproducible_alone(self, small: SdxlPair, kind: str) -> None:
        both = small.draw_ours(seed=3, num_images_per_prompt=2, **PLAIN, **KINDS[kind])
        alone = small.draw_ours(seed=4, **PLAIN, **KINDS[kind])
        assert np.abs(both[1] - alone[0]).max() < BAR

    def test_a_numpy_state_is_used_as_its_seed(self, small: SdxlPair) -> None:
        ours = small.draw_ours(generator=np.random.RandomState(987), **PLAIN)
        theirs = small.draw_theirs(generator=torch.Generator().manual_seed(987), **PLAIN)
        assert_same_pictures(ours, theirs, tolerance=BAR)

    def test_a_generator_is_advanced_as_far(self, small: SdxlPair) -> None:
        mine, other = (torch.Generator().manual_seed(1) for _ in range(2))
        given = {**PLAIN, **KINDS["mask"]}
        small.draw_ours(generator=mine, **given)
        small.draw_theirs(generator=other, **given)
        assert torch.equal(torch.randn(16, generator=mine), torch.randn(16, generator=other))

    def test_a_negative_prompt_per_prompt(self, small: SdxlPair) -> None:
        same(
            small,
            ["a red house", "two boats"],
            **GUIDED,
            prompt_2=["at night", "on the sea"],
            negative_prompt=["blue", ""],
            num_images_per_prompt=2,
        )


class TestSeveralImages:
    """Lists and batches of images and masks, which repeat in their order as in diffusers."""

    BOTH = (picture(), picture().rotate(90))
    MASKS = (mask(), mask().rotate(180))
    FORMS: Mapping[str, Callable[[], Any]] = {
        "list": lambda: list(TestSeveralImages.BOTH),
        "list of tensors": lambda: [_tensor(each) for each in TestSeveralImages.BOTH],
        "tensor": lambda: torch.stack([_tensor(each) for each in TestSeveralImages.BOTH]),
    }

    @pytest.mark.parametrize("form", FORMS)
    def test_lists_and_batches_of_images(self, small: SdxlPair, form: str) -> None:
        given = {**PLAIN, "strength": 0.6, "num_images_per_prompt": 2}
        ours, theirs = small.draw(**given, image=self.FORMS[form]())
        assert_same_pictures(ours, theirs, tolerance=BAR)
        assert np.abs(ours[0] - ours[1]).max() > 0.1, "they start from different pictures"

    @pytest.mark.parametrize("generator", ["one", "several", "seed"])
    @pytest.mark.parametrize("kind", ["image", "mask"])
    def test_generators(self, small: SdxlPair, kind: str, generator: str) -> None:
        masks = {"mask_image": list(self.MASKS)} if kind == "mask" else {}
        # In inpainting diffusers gives the VAE the first two generators alone, where ours don't
        # depend on each other.
        vae = "tiny" if (kind, generator) == ("mask", "seed") else "full"
        several = [torch.Generator() for _ in range(4)]
        ways: dict[str, dict[str, Any]] = {
            "one": {"generator": GENERATORS["one"]},
            "several": {"generator": lambda: [each.manual_seed(2 * seed) for seed, each in enumerate(several)]},
            "seed": {"seed": 3},
        }
        given = {**GUIDED, **masks, **ways[generator], "strength": 0.6, "num_images_per_prompt": 2, "vae": vae}
        same(small, ["a red house", "two boats"], **given, image=list(self.BOTH))

    def test_one_mask_or_one_image_serves_several(self, small: SdxlPair) -> None:
        given = {**PLAIN, "strength": 0.8, "num_images_per_prompt": 2, "vae": "tiny"}
        same(small, **given, image=list(self.BOTH), mask_image=mask())
        same(small, **given, image=picture(), mask_image=list(self.MASKS))

    def test_a_mask_as_a_tensor(self, small: SdxlPair) -> None:
        painted = (torch.from_numpy(np.array(mask())).float() / 255)[None]
        same(small, **PLAIN, image=_tensor(picture())[None], mask_image=painted, strength=0.8)

    def test_a_mask_on_a_transparent_layer(self, small: SdxlPair) -> None:
        there = np.where(np.asarray(mask()) > 200, 255, 0).astype(np.uint8)
        layer = Image.fromarray(np.dstack([there] * 4))
        ours, theirs = small.draw(**PLAIN, image=picture(), mask_image=layer, strength=0.8)
        assert_same_pictures(ours, theirs, tolerance=BAR)


def _tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


class TestOtherModels:
    @pytest.mark.parametrize("vae", ["full", "tiny"])
    @pytest.mark.parametrize("steps", [1, 4])
    def test_turbo(self, turbo: SdxlPair, vae: str, steps: int) -> None:
        same(turbo, vae=vae, num_inference_steps=steps, guidance_scale=0.0)

    def test_turbo_image_to_image(self, turbo: SdxlPair) -> None:
        same(turbo, vae="tiny", num_inference_steps=2, strength=0.5, guidance_scale=0.0, image=picture())

    def test_turbo_at_sizes_that_do_not_halve_evenly(self, turbo: SdxlPair) -> None:
        """The UNet's levels can't halve these sizes evenly."""
        same(turbo, num_inference_steps=2, guidance_scale=0.0, width=104, height=72)

    def test_a_tall_picture(self, small: SdxlPair) -> None:
        same(small, **GUIDED, width=64, height=136)

    @pytest.mark.parametrize("scale", [1.5, 8.0])
    def test_a_unet_with_guidance_embedding(self, consistency: SdxlPair, scale: float) -> None:
        same(consistency, num_inference_steps=4, guidance_scale=scale)

    def test_image_to_image_with_guidance_embedding(self, consistency: SdxlPair) -> None:
        same(consistency, num_inference_steps=4, guidance_scale=8.0, image=picture(), strength=0.5)
