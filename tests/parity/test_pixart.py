"""PixArt gives the pictures of diffusers' pipelines, from the same checkpoint and seed, in f32."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.parity.pairs import assert_same_pictures
from tests.parity.pixart_pairs import PixArtPair
from tests.parity.sdxl_pairs import picture
from vinograph import RequestError
from vinograph.families.contract import Output
from vinograph.families.pixart.conditioning import read_prompts
from vinograph.families.pixart.request import PixArtRequest
from vinograph.images import Size

# 2/255 is promised; in f32 only rounding differs, so the tests demand far less.
BAR = 0.005 / 255
TINY_VAE = 0.05 / 255  # its random weights magnify rounding: 0.014 of 255 on an Intel Xeon

SMALL: dict[str, Any] = {"height": 96, "width": 128, "use_resolution_binning": False}
GUIDED: dict[str, Any] = {**SMALL, "num_inference_steps": 4, "guidance_scale": 4.5}
PLAIN: dict[str, Any] = {**SMALL, "num_inference_steps": 4, "guidance_scale": 0.0}

SEEDS = (5, 2)
GENERATORS: dict[str, Callable[[], Any]] = {
    "one": lambda: torch.Generator().manual_seed(11),
    "several": lambda: [torch.Generator().manual_seed(seed) for seed in SEEDS],
}

# diffusers' schedulers pass tensors to NumPy in a deprecated way; bs4 warns of text like a file
# name.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture
def large(open_pixart: Callable[[str], PixArtPair]) -> PixArtPair:
    """A model like XL-2-1024-MS, with size conditioning."""
    return open_pixart("1024")


@pytest.fixture
def consistency(open_pixart: Callable[[str], PixArtPair]) -> PixArtPair:
    """A model like LCM-XL-2-1024-MS."""
    return open_pixart("consistency")


@pytest.fixture
def binned(open_pixart: Callable[[str], PixArtPair]) -> PixArtPair:
    """A model like XL-2-256x256, the smallest with trained aspect ratios."""
    return open_pixart("256")


def same(pair: PixArtPair, prompt: Any = "a red house", **given: Any) -> None:
    tolerance = TINY_VAE if given.get("vae") == "tiny" else BAR
    assert_same_pictures(*pair.draw(prompt, **given), tolerance=tolerance)


class TestTextToImage:
    @pytest.mark.parametrize("steps", [2, 4, 20])
    @pytest.mark.parametrize("scale", [0.0, 1.0, 4.5])
    def test_steps_and_guidance(self, large: PixArtPair, steps: int, scale: float) -> None:
        same(large, **SMALL, num_inference_steps=steps, guidance_scale=scale)

    @pytest.mark.parametrize("steps", [1, 2, 4, 20])
    @pytest.mark.parametrize("scale", [0.0, 4.5])
    def test_the_consistency_model(self, consistency: PixArtPair, steps: int, scale: float) -> None:
        same(consistency, **SMALL, num_inference_steps=steps, guidance_scale=scale)

    @pytest.mark.parametrize("name", ["512", "sigma"])
    @pytest.mark.parametrize("given", [PLAIN, GUIDED], ids=["plain", "guided"])
    def test_models_of_other_sizes_and_sigma(
        self, open_pixart: Callable[[str], PixArtPair], name: str, given: dict[str, Any]
    ) -> None:
        same(open_pixart(name), negative_prompt="the tree", **given)

    @pytest.mark.parametrize("name", ["512", "sigma"])
    @pytest.mark.parametrize("scale", [0.0, 4.5])
    def test_one_step_of_a_solver(self, open_pixart: Callable[[str], PixArtPair], name: str, scale: float) -> None:
        """diffusers' pipeline for α fails there; the one for Σ works."""
        pair, one = open_pixart(name), {**SMALL, "num_inference_steps": 1, "guidance_scale": scale}
        same(dataclasses.replace(pair, models=dataclasses.replace(pair.models, sigma=True)), **one)
        if name != "sigma":
            with pytest.raises(IndexError):
                pair.draw_theirs(**one)

    @pytest.mark.parametrize("given", [PLAIN, GUIDED], ids=["plain", "guided"])
    def test_a_model_without_learned_variance(
        self, open_pixart: Callable[[str], PixArtPair], given: dict[str, Any]
    ) -> None:
        same(open_pixart("without variance"), **given)

    @pytest.mark.parametrize(
        "given",
        [
            {"negative_prompt": "a tree at night"},
            {"negative_prompt": "the snowy hill " * 60},
            {"timesteps": [999, 700, 350, 20]},
            {"max_sequence_length": 5},
            {"num_images_per_prompt": 2},
            {"vae": "tiny"},
            {"clean_caption": False},
        ],
        ids=lambda each: "-".join(each),
    )
    def test_arguments(self, large: PixArtPair, given: dict[str, Any]) -> None:
        same(large, "A <i>red</i> house, on   the snowy hill", **{**GUIDED, **given})

    @pytest.mark.parametrize("given", [PLAIN, GUIDED], ids=["plain", "guided"])
    def test_lists_of_prompts(self, large: PixArtPair, given: dict[str, Any]) -> None:
        same(large, ["a red house", "the tree on the snowy hill, at night", ""], **given)

    def test_several_pictures_of_each_prompt(self, open_pixart: Callable[[str], PixArtPair]) -> None:
        prompts = ["a red house", "the tree on the snowy hill, at night"]
        same(open_pixart("sigma"), prompts, **GUIDED, num_images_per_prompt=2)

    def test_a_list_of_negative_prompts(self, large: PixArtPair) -> None:
        same(large, ["a red house", "the tree"], negative_prompt=["night", "hill on the hill"], **GUIDED)

    @pytest.mark.parametrize(("name", "limit"), [("1024", 120), ("consistency", 120), ("sigma", 300)])
    @pytest.mark.parametrize("given", [PLAIN, GUIDED], ids=["plain", "guided"])
    def test_text_beyond_the_limit_is_ignored_and_reported(
        self, open_pixart: Callable[[str], PixArtPair], name: str, limit: int, given: dict[str, Any]
    ) -> None:
        """The warning names the text that was ignored."""
        pair, prompt = open_pixart(name), "the red house on a snowy hill at night " * 50
        ours, theirs = pair.draw(prompt, **given)
        assert_same_pictures(ours, theirs, tolerance=BAR)
        result = pair.result(prompt, **given, seed=3)
        ignored = re.fullmatch(rf"the text encoder reads {limit} tokens; cut off: '(.+)'", result.warnings[-1])
        assert ignored is not None
        assert prompt.strip().endswith(ignored[1])
        used = prompt.strip().removesuffix(ignored[1])
        assert np.abs(pair.result(used, **given, seed=3).images - ours).max() <= BAR

    @pytest.mark.parametrize("generator", GENERATORS.values(), ids=GENERATORS)
    def test_generators(self, consistency: PixArtPair, generator: Callable[[], Any]) -> None:
        same(consistency, ["a red house", "the tree"], **PLAIN, generator=generator)

    def test_numpy_states_and_seeds(self, consistency: PixArtPair) -> None:
        """The first word of a NumPy state is a seed, as in optimum-intel."""
        states = [np.random.RandomState(seed) for seed in SEEDS]
        prompts = ["a red house", "the tree"]
        theirs = consistency.draw_theirs(prompts, **PLAIN, generator=GENERATORS["several"])
        assert_same_pictures(consistency.result(prompts, **PLAIN, generator=states).images, theirs, tolerance=BAR)
        theirs = consistency.draw_theirs("a red house", **PLAIN, generator=torch.Generator().manual_seed(SEEDS[0]))
        for given in ({"generator": states[0]}, {"seed": SEEDS[0]}):
            ours = consistency.result("a red house", **PLAIN, **given).images
            assert_same_pictures(ours, theirs, tolerance=BAR)

    def test_pil_pictures(self, large: PixArtPair) -> None:
        """They have 8 bits per value."""
        (ours,) = large.result(**GUIDED, output_type="pil", seed=3).images
        pipeline = large.models.pipeline()
        pipeline.set_progress_bar_config(disable=True)
        (theirs,) = pipeline("a red house", **GUIDED, generator=torch.Generator().manual_seed(3)).images
        assert (ours.size, ours.mode) == (theirs.size, theirs.mode)
        assert np.abs(np.asarray(ours).astype(int) - np.asarray(theirs)).max() <= 1

    @pytest.mark.parametrize("name", ["1024", "consistency"])
    def test_timesteps(self, open_pixart: Callable[[str], PixArtPair], name: str) -> None:
        same(open_pixart(name), **{**PLAIN, "num_inference_steps": 20}, timesteps=[999, 759, 419, 19])

    def test_sigmas(self, large: PixArtPair) -> None:
        """Neither DPM-Solver takes custom sigmas; Euler does."""
        sigmas = [80.0, 20.0, 5.0, 1.0, 0.2, 0.0]
        with pytest.raises(RequestError, match="takes no sigmas"):
            large.result(**GUIDED, sigmas=sigmas)
        with pytest.raises(ValueError, match="does not support custom"):
            large.draw_theirs(**GUIDED, sigmas=sigmas)
        same(large.with_scheduler("EulerDiscreteScheduler"), **GUIDED, sigmas=sigmas)

    def test_latents(self, large: PixArtPair) -> None:
        latents = np.random.RandomState(0).standard_normal((1, 4, 12, 16)).astype(np.float32)
        ours, theirs = large.draw(**GUIDED, latents=latents, output_type="latent")
        assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()

    def test_embeddings(self, large: PixArtPair) -> None:
        names = ("prompt_embeds", "prompt_attention_mask", "negative_prompt_embeds", "negative_prompt_attention_mask")
        tensors = large.models.pipeline().encode_prompt("a red house", negative_prompt="night", clean_caption=True)
        given = {name: value.detach().numpy() for name, value in zip(names, tensors, strict=True)}
        ours, theirs = large.draw(None, **{**GUIDED, "negative_prompt": None}, **given)
        assert_same_pictures(ours, theirs, tolerance=BAR)
        texts = large.result("a red house", negative_prompt="night", seed=3, **GUIDED).images
        assert np.abs(texts - ours).max() <= BAR

    @pytest.mark.parametrize("name", ["1024", "sigma"])
    @pytest.mark.parametrize("prompt", ["", "a red house on the hill", "the tree, 9 o'clock " * 12], ids=len)
    def test_unpadded_tokens_give_the_conditioning_of_padded_ones(
        self, open_pixart: Callable[[str], PixArtPair], name: str, prompt: str
    ) -> None:
        """The conditioning, to 1e-4 of the largest value; theirs is padded up to the limit."""
        pair = open_pixart(name)
        components, pipeline, length = (
            pair.ours._components,
            pair.models.pipeline(),
            pair.ours._components.config.text_length,
        )
        arguments: dict[str, Any] = {"clean_caption": True, "max_sequence_length": length}
        with torch.no_grad():
            theirs, mask, _, _ = pipeline.encode_prompt(prompt, False, **arguments)
        request = PixArtRequest(prompt=(prompt,), num_images_per_prompt=1, **arguments)
        ours = read_prompts(components, request, False, Output()).encode(components, Size(1024, 1024))
        our_mask = ours.others["encoder_attention_mask"]
        assert theirs.shape[1] == length
        assert ours.prompt_embeds.shape[1] < length or len(prompt) > 200
        assert our_mask.sum() == mask.sum()
        real, padded = ours.prompt_embeds[our_mask == 1], theirs.numpy()[mask.numpy() == 1]
        assert np.abs(real - padded).max() < 1e-4 * np.abs(padded).max()

    def test_a_callback(self, large: PixArtPair) -> None:
        seen: dict[str, list[tuple[int, float, Any]]] = {"ours": [], "theirs": []}
        for side, draw in (("ours", large.result), ("theirs", large.draw_theirs)):

            def note(step: int, time: Any, latents: Any, into: list[Any] = seen[side]) -> None:
                into.append((step, float(time), np.asarray(latents).copy()))

            draw("a red house", **GUIDED, callback=note, callback_steps=3, seed=3)
        assert [each[:2] for each in seen["ours"]] == [each[:2] for each in seen["theirs"]]
        for (*_, ours), (*_, theirs) in zip(seen["ours"], seen["theirs"], strict=True):
            assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()

    @pytest.mark.parametrize("name", ["DDIMScheduler", "DDPMScheduler", "EulerDiscreteScheduler"])
    def test_other_schedulers(self, large: PixArtPair, name: str) -> None:
        same(large.with_scheduler(name), **GUIDED)


class TestSizes:
    @pytest.mark.parametrize(
        "size",
        [(128, 512), (160, 400), (208, 304), (256, 256), (304, 208), (400, 160), (512, 128)],
        ids=lambda size: "x".join(map(str, size)),
    )
    def test_aspect_ratios(self, binned: PixArtPair, size: tuple[int, int]) -> None:
        height, width = size
        same(binned, height=height, width=width, num_inference_steps=2)

    @pytest.mark.parametrize(
        "size", [(200, 300), (333, 333), (77, 500), (100, 100)], ids=lambda size: "x".join(map(str, size))
    )
    def test_untrained_sizes_are_binned(self, binned: PixArtPair, size: tuple[int, int]) -> None:
        height, width = size
        given: dict[str, Any] = {"height": height, "width": width, "num_inference_steps": 2}
        ours, theirs = binned.draw(**given)
        assert ours.shape[1:3] == size
        assert_same_pictures(ours, theirs, tolerance=BAR)

    def test_a_model_with_size_conditioning_depends_on_the_size(self, large: PixArtPair) -> None:
        """The position embedding depends on the three aspect ratios, too."""
        for height, width in ((64, 160), (112, 112), (160, 64)):
            same(large, **{**GUIDED, "height": height, "width": width})

    @pytest.mark.parametrize("size", [(128, 512), (304, 208), (64, 176)], ids=lambda size: "x".join(map(str, size)))
    def test_without_binning(self, binned: PixArtPair, size: tuple[int, int]) -> None:
        height, width = size
        same(binned, height=height, width=width, use_resolution_binning=False, num_inference_steps=2)

    def test_the_models_native_size(self, binned: PixArtPair) -> None:
        ours, theirs = binned.draw(num_inference_steps=2, guidance_scale=0.0)
        assert ours.shape == (1, 256, 256, 3)
        assert_same_pictures(ours, theirs, tolerance=BAR)


class TestImageToImage:
    """diffusers has none for PixArt, so its models and schedulers are called in the usual order."""

    @pytest.mark.parametrize(
        ("name", "steps", "strength"),
        [
            *(("1024", 5, strength) for strength in (0.2, 0.6, 1.0)),
            *(("consistency", 4, strength) for strength in (0.25, 0.5, 1.0)),
            ("512", 20, 0.3),
            ("sigma", 4, 0.75),
        ],
    )
    @pytest.mark.parametrize("scale", [0.0, 4.5])
    def test_strength(
        self, open_pixart: Callable[[str], PixArtPair], name: str, steps: int, strength: float, scale: float
    ) -> None:
        pair, start = open_pixart(name), picture(128, 96)
        given = {**SMALL, "num_inference_steps": steps, "strength": strength, "guidance_scale": scale}
        ours = pair.result("a red house", image=start, negative_prompt="night", seed=3, **given).images
        assert_same_pictures(ours, self.theirs(pair, start, steps, strength, scale), tolerance=BAR)

    def test_several_pictures_from_one_image(self, large: PixArtPair) -> None:
        start, given = picture(128, 96), {**SMALL, "num_inference_steps": 4, "strength": 0.5, "guidance_scale": 0.0}
        ours = large.result("a red house", image=start, num_images_per_prompt=2, seed=3, **given).images
        theirs = [self.theirs(large, start, 4, 0.5, 0.0, seed) for seed in (3, 4)]
        assert_same_pictures(ours, np.concatenate(theirs), tolerance=BAR)

    def test_an_image_of_a_trained_size_is_not_resized(self, binned: PixArtPair) -> None:
        start = picture(304, 208)
        result = binned.result(
            "a red house", image=start, negative_prompt="night", num_inference_steps=4, strength=0.5, seed=3
        )
        assert result.warnings == ()
        assert_same_pictures(result.images, self.theirs(binned, start, 4, 0.5, 4.5), tolerance=BAR)

    def theirs(
        self, pair: PixArtPair, start: Image.Image, steps: int, strength: float, scale: float, seed: int = 3
    ) -> np.ndarray:
        """diffusers' picture, as in its other pipelines: encode, add noise, denoise, decode."""
        pipe, generator = pair.models.pipeline(), torch.Generator().manual_seed(seed)
        values = torch.tensor(np.asarray(start, np.float32) / 255).permute(2, 0, 1)[None] * 2 - 1
        rows = 2 if scale > 1 else 1
        with torch.no_grad():
            states, mask, without, without_mask = pipe.encode_prompt("a red house", rows == 2, "night")
            if rows == 2:
                states, mask = torch.cat([without, states]), torch.cat([without_mask, mask])
            factor = pipe.vae.config.scaling_factor
            clean = pipe.vae.encode(values).latent_dist.sample(generator) * factor
            pipe.scheduler.set_timesteps(steps)
            begin = steps - int(steps * strength)
            times = pipe.scheduler.timesteps[begin:]
            pipe.scheduler.set_begin_index(begin)
            latents = pipe.scheduler.add_noise(clean, torch.randn(clean.shape, generator=generator), times[:1])
            size = [float(start.height), float(start.width)]
            conditioning = {
                "resolution": torch.tensor([size] * rows),
                "aspect_ratio": torch.tensor([[size[0] / size[1]]] * rows),
            }
            for time in times:
                given = {"encoder_attention_mask": mask, "added_cond_kwargs": conditioning}
                predicted = pipe.transformer(
                    torch.cat([latents] * rows), encoder_hidden_states=states, timestep=time[None].expand(rows), **given
                ).sample[:, :4]
                if rows == 2:
                    predicted = predicted[:1] + scale * (predicted[1:] - predicted[:1])
                stepping: dict[str, Any] = {"generator": generator, "return_dict": False}
                latents = pipe.scheduler.step(predicted, time, latents, **stepping)[0]
            drawn = pipe.vae.decode(latents / factor).sample
        return np.asarray((drawn / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1))


def test_every_argument_changes_the_picture(large: PixArtPair) -> None:
    """Otherwise agreement about it would mean nothing."""
    prompt = "a <i>red</i> house"
    usual = large.result(prompt, seed=3, **GUIDED).images
    others: tuple[dict[str, Any], ...] = (
        {"seed": 4},
        {"vae": "tiny"},
        {"negative_prompt": "the tree"},
        {"guidance_scale": 2.0},
        {"guidance_scale": 0.0},
        {"clean_caption": False},
        {"max_sequence_length": 2},
    )
    for other in others:
        drawn = large.result(prompt, **{"seed": 3, **GUIDED, **other}).images
        assert np.abs(drawn - usual).max() > 20 * BAR, other


def test_a_size_that_the_transformer_can_not_process_is_refused(large: PixArtPair) -> None:
    with pytest.raises(RequestError, match="multiples of 16"):
        large.result(**{**GUIDED, "height": 104})
