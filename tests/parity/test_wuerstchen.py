"""Würstchen gives the pictures of diffusers' pipelines, stage by stage, in f32."""

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMWuerstchenScheduler
from diffusers.pipelines.deprecated.wuerstchen.pipeline_wuerstchen_prior import DEFAULT_STAGE_C_TIMESTEPS
from PIL import Image

from tests.parity.pairs import (
    PICTURES,
    STAGES,
    Pair,
    Recorder,
    as_numpy,
    assert_same,
    assert_same_pictures,
    largest,
)
from vinograph.images import psnr

PROMPT = "an image of a shiba inu, donning a spacesuit and helmet"
NEGATIVE = "blurry, low quality"
FEW: dict[str, Any] = {"height": 128, "width": 128, "prior_num_inference_steps": 4, "num_inference_steps": 3}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def standing_alike(one: torch.Generator, other: torch.Generator) -> bool:
    """Whether two generators are in the same state."""
    return torch.equal(torch.rand(4, generator=one), torch.rand(4, generator=other))


class TestSizes:
    @pytest.mark.parametrize(("width", "height"), [(128, 128), (256, 128), (128, 384), (256, 256)])
    def test_square_and_other_sizes(self, pair: Pair, width: int, height: int) -> None:
        ours, theirs = pair.draw(PROMPT, seed=1, **{**FEW, "width": width, "height": height})
        assert_same(ours, theirs)
        assert ours.pictures.shape == (1, height, width, 3)

    def test_a_larger_size(self, small: Pair) -> None:
        assert_same(*small.draw(PROMPT, seed=2, **{**FEW, "width": 384, "height": 256}))


class TestGuidance:
    @pytest.mark.parametrize(
        ("prior", "decoder"), [(0.0, 0.0), (1.0, 1.0), (1.01, 0.0), (8.0, 0.0), (4.0, 2.5), (0.0, 1.5)]
    )
    def test_guidance_off_on_and_in_the_decoder(self, pair: Pair, prior: float, decoder: float) -> None:
        given = {**FEW, "prior_guidance_scale": prior, "decoder_guidance_scale": decoder}
        assert_same(*pair.draw(PROMPT, seed=3, **given))

    @pytest.mark.parametrize("decoder", [0.0, 2.0])
    def test_a_negative_prompt(self, pair: Pair, decoder: float) -> None:
        given = {**FEW, "negative_prompt": NEGATIVE, "decoder_guidance_scale": decoder}
        assert_same(*pair.draw(PROMPT, seed=4, **given))

    def test_an_empty_prompt(self, small: Pair) -> None:
        assert_same(*small.draw("", seed=5, **FEW))

    def test_a_prompt_beyond_the_limit(self, small: Pair) -> None:
        assert_same(*small.draw("a red house at night, " * 30, seed=5, **FEW))


def test_every_argument_changes_the_picture(small: Pair) -> None:
    """Each argument changes the picture by far more than the tolerance of the comparisons."""
    given = {**FEW, "decoder_guidance_scale": 2.0}
    plain = small.draw_ours(PROMPT, seed=1, **given)
    for change in (
        {"prompt": "another"},
        {"seed": 2},
        {"negative_prompt": NEGATIVE},
        {"prior_guidance_scale": 5.0},
        {"decoder_guidance_scale": 3.0},
        {"prior_num_inference_steps": 5},
        {"num_inference_steps": 4},
    ):
        other = small.draw_ours(**{"prompt": PROMPT, "seed": 1, **given, **change})
        assert np.abs(other.pictures - plain.pictures).max() > 20 * PICTURES, change


class TestSteps:
    def test_many_steps(self, small: Pair) -> None:
        assert_same(*small.draw(PROMPT, seed=6, **{**FEW, "prior_num_inference_steps": 60, "num_inference_steps": 12}))

    def test_one_step(self, small: Pair) -> None:
        ours, theirs = small.draw(PROMPT, seed=6, **{**FEW, "prior_num_inference_steps": 1, "num_inference_steps": 1})
        assert largest(ours.embeddings, theirs.embeddings) < STAGES
        assert largest(ours.latents, theirs.latents) < STAGES

    def test_custom_timesteps(self, small: Pair) -> None:
        given = {"prior_timesteps": [1.0, 0.8, 0.3, 0.0], "decoder_timesteps": [1.0, 0.5, 0.2]}
        assert_same(*small.draw(PROMPT, seed=7, height=128, width=128, **given))

    @pytest.mark.parametrize("given", ["spaced", DEFAULT_STAGE_C_TIMESTEPS], ids=["by name", "as a list"])
    def test_the_29_published_timesteps(self, small: Pair, given: Any) -> None:
        theirs = {"prior_timesteps": DEFAULT_STAGE_C_TIMESTEPS}
        assert_same(*small.draw(PROMPT, seed=8, theirs=theirs, **{**FEW, "prior_timesteps": given}))

    def test_callbacks_see_the_same(self, small: Pair) -> None:
        """Callbacks get the same steps, timesteps and latents after each step of both stages."""
        seen = []
        for pipeline, noise in ((small.ours, {"seed": 9}), (small.theirs, {"generator": seeded(9)})):
            prior, decoder = Recorder(), Recorder()
            pipeline(
                PROMPT, prior_callback_on_step_end=prior, callback_on_step_end=decoder, output_type="np", **FEW, **noise
            )
            seen.append([*prior.calls, *decoder.calls])
        assert [call[:2] for call in seen[0]] == [call[:2] for call in seen[1]]
        assert len(seen[0]) == 7
        assert max(largest(one[2], other[2]) for one, other in zip(*seen, strict=True)) < STAGES

    def test_callbacks_can_change_the_latents(self, small: Pair) -> None:
        def halve(pipeline: Any, step: int, time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            return {"latents": tensors["latents"] * 0.5}

        noise: Any = ({"seed": 9}, {"generator": seeded(9)})
        ours, theirs = (
            pipeline(PROMPT, prior_callback_on_step_end=halve, output_type="np", **FEW, **each).images
            for pipeline, each in zip((small.ours, small.theirs), noise, strict=True)
        )
        assert_same_pictures(ours, theirs)


class TestBatches:
    """Several pictures at once; diffusers' decoder takes one prompt, so it is called for each."""

    @pytest.mark.parametrize("scales", [(4.0, 0.0), (0.0, 0.0), (4.0, 2.0)])
    def test_several_pictures_from_one_generator(self, pair: Pair, scales: tuple[float, float]) -> None:
        one, other = seeded(10), seeded(10)
        given = {
            **FEW,
            "prior_guidance_scale": scales[0],
            "decoder_guidance_scale": scales[1],
            "num_images_per_prompt": 3,
        }
        assert_same(pair.draw_ours(PROMPT, generator=one, **given), pair.draw_theirs(PROMPT, generator=other, **given))
        assert standing_alike(one, other)

    def test_several_pictures_from_a_generator_each(self, small: Pair) -> None:
        ours, theirs = ([seeded(seed) for seed in (3, 99)] for _ in range(2))
        given = {**FEW, "num_images_per_prompt": 2}
        assert_same(
            small.draw_ours(PROMPT, generator=ours, **given), small.draw_theirs(PROMPT, generator=theirs, **given)
        )
        assert all(standing_alike(one, other) for one, other in zip(ours, theirs, strict=True))

    def test_several_pictures_from_a_seed(self, small: Pair) -> None:
        assert_same(*small.draw(PROMPT, seed=11, **{**FEW, "num_images_per_prompt": 2}))

    def test_picture_i_is_reproducible_from_seed_plus_i(self, small: Pair) -> None:
        together = small.draw_ours(
            [PROMPT, "a house"], seed=20, num_images_per_prompt=2, negative_prompt=NEGATIVE, **FEW
        )
        for index, prompt in enumerate((PROMPT, PROMPT, "a house", "a house")):
            alone = small.draw_ours(prompt, seed=20 + index, negative_prompt=NEGATIVE, **FEW)
            assert_same_pictures(together.pictures[index : index + 1], alone.pictures)
            assert_same_pictures(
                alone.pictures,
                small.draw_theirs(prompt, generator=seeded(20 + index), negative_prompt=NEGATIVE, **FEW).pictures,
            )

    @pytest.mark.parametrize("negative", [None, ["dull", NEGATIVE]])
    @pytest.mark.parametrize("decoder_scale", [0.0, 2.0])
    def test_a_list_of_prompts(self, pair: Pair, negative: list[str] | None, decoder_scale: float) -> None:
        prompts, two = ["a red house", PROMPT], [seeded(12), seeded(13)]
        given = {**FEW, "decoder_guidance_scale": decoder_scale}
        ours = pair.draw_ours(prompts, negative_prompt=negative, seed=12, **given)
        embeddings = pair.theirs.prior_pipe(
            prompts, 128, 128, 4, guidance_scale=4.0, negative_prompt=negative, generator=two
        ).image_embeddings
        assert largest(ours.embeddings, embeddings) < STAGES
        for index, prompt in enumerate(prompts):
            theirs = pair.theirs.decoder_pipe(
                embeddings[index : index + 1],
                prompt,
                3,
                guidance_scale=decoder_scale,
                negative_prompt=None if negative is None else negative[index],
                generator=two[index],
                output_type="np",
            ).images
            assert_same_pictures(ours.pictures[index : index + 1], theirs)

    def test_a_list_of_prompts_from_one_generator(self, small: Pair) -> None:
        """diffusers' pipelines can't do it, but a batch is one draw of noise there, too."""
        prompts, one, other = ["a red house", PROMPT], seeded(14), seeded(14)
        ours = small.draw_ours(prompts, generator=one, num_images_per_prompt=2, **FEW)
        embeddings = small.theirs.prior_pipe(
            prompts, 128, 128, 4, guidance_scale=4.0, generator=other, num_images_per_prompt=2
        ).image_embeddings
        assert largest(ours.embeddings, embeddings) < STAGES
        latents = reference_decoder(small, [prompts[0]] * 2 + [prompts[1]] * 2, embeddings, steps=3, generator=other)
        assert largest(ours.latents, latents) < STAGES
        assert_same_pictures(ours.pictures, reference_pictures(small, latents))
        assert standing_alike(one, other)


class TestStagesAlone:
    def test_prior_then_decoder(self, pair: Pair) -> None:
        """Alone they have other defaults: guidance 8 in the prior and none in the decoder."""
        one, other = seeded(15), seeded(15)
        ours = pair.ours.prior(PROMPT, height=128, width=256, num_inference_steps=4, generator=one)
        theirs = pair.theirs.prior_pipe(PROMPT, height=128, width=256, num_inference_steps=4, generator=other)
        assert largest(ours.image_embeddings, theirs.image_embeddings) < STAGES
        ours = pair.ours.decoder(ours.image_embeddings, PROMPT, num_inference_steps=3, generator=one, output_type="np")
        theirs = pair.theirs.decoder_pipe(
            theirs.image_embeddings, PROMPT, num_inference_steps=3, generator=other, output_type="np"
        )
        assert_same_pictures(ours.images, theirs.images)
        assert standing_alike(one, other)

    def test_the_decoder_with_guidance(self, pair: Pair) -> None:
        embeddings = np.random.RandomState(0).normal(0, 20, (1, 16, 3, 3)).astype(np.float32)
        given: dict[str, Any] = {
            "num_inference_steps": 3,
            "guidance_scale": 3.0,
            "negative_prompt": NEGATIVE,
            "output_type": "np",
        }
        ours = pair.ours.decoder(embeddings, PROMPT, seed=16, **given).images
        theirs = pair.theirs.decoder_pipe(torch.from_numpy(embeddings), PROMPT, generator=seeded(16), **given).images
        assert_same_pictures(ours, theirs)

    def test_the_decoder_takes_a_list_of_tensors(self, small: Pair) -> None:
        tensors = [torch.randn((1, 16, 3, 3), generator=seeded(seed)) * 20 for seed in (0, 1)]
        given: dict[str, Any] = {"prompt": PROMPT, "num_inference_steps": 3, "output_type": "np"}
        ours = small.ours.decoder(tensors, generator=seeded(17), **given).images
        assert_same_pictures(ours, small.theirs.decoder_pipe(tensors, generator=seeded(17), **given).images)

    def test_several_pictures_of_one_embedding(self, small: Pair) -> None:
        """diffusers fails there; each picture is that of its own seed."""
        embeddings = np.random.RandomState(0).normal(0, 20, (2, 16, 3, 3)).astype(np.float32)
        given: dict[str, Any] = {"num_inference_steps": 3, "output_type": "np"}
        ours = small.ours.decoder(embeddings, ["a", "b"], num_images_per_prompt=2, seed=18, **given).images
        for index in range(4):
            one = torch.from_numpy(embeddings[index // 2 : index // 2 + 1])
            theirs = small.theirs.decoder_pipe(one, "ab"[index // 2], generator=seeded(18 + index), **given).images
            assert_same_pictures(ours[index : index + 1], theirs)

    def test_custom_timesteps_of_each_stage(self, small: Pair) -> None:
        one, other = seeded(19), seeded(19)
        times = [1.0, 0.6, 0.1]
        ours = small.ours.prior(PROMPT, 128, 128, timesteps=DEFAULT_STAGE_C_TIMESTEPS, generator=one).image_embeddings
        theirs = small.theirs.prior_pipe(
            PROMPT, 128, 128, timesteps=DEFAULT_STAGE_C_TIMESTEPS, generator=other
        ).image_embeddings
        assert largest(ours, theirs) < STAGES
        ours = small.ours.decoder(ours, PROMPT, timesteps=times, generator=one, output_type="np").images
        theirs = small.theirs.decoder_pipe(theirs, PROMPT, timesteps=times, generator=other, output_type="np").images
        assert_same_pictures(ours, theirs)


class TestGivenArrays:
    @pytest.mark.parametrize("scale", [0.0, 4.0])
    def test_prompt_embeddings(self, pair: Pair, scale: float) -> None:
        positive, negative = encoded(pair, scale)
        given = {**FEW, "prior_guidance_scale": scale, **embeds(positive, negative)}
        assert_same(*pair.draw(None, seed=21, **given))

    def test_prompt_embeddings_with_a_prompt_for_the_decoder(self, small: Pair) -> None:
        positive, _ = encoded(small, 0.0)
        assert_same(*small.draw("the decoder reads this", seed=22, prompt_embeds=positive, **FEW))

    def test_prompt_embeddings_of_fewer_tokens(self, small: Pair) -> None:
        states = [each[:, :9] for each in encoded(small, 4.0)]
        assert_same(*small.draw(None, seed=23, **FEW, **embeds(*states)))

    def test_several_prompt_embeddings_with_decoder_guidance(self, small: Pair) -> None:
        states = [encoded(small, 4.0, text) for text in (PROMPT, "a house")]
        given = {**FEW, "negative_prompt": NEGATIVE, "decoder_guidance_scale": 2.0}
        joined = (torch.cat(each) for each in zip(*states, strict=True))
        ours = small.draw_ours(None, seed=24, **given, **embeds(*joined))
        for index in range(2):
            alone = small.draw_theirs(None, generator=seeded(24 + index), **given, **embeds(*states[index]))
            assert_same_pictures(ours.pictures[index : index + 1], alone.pictures)

    def test_initial_latents_of_the_prior(self, small: Pair) -> None:
        latents = torch.randn((1, 16, 3, 3), generator=seeded(1))
        assert_same(*small.draw(PROMPT, seed=25, latents=latents, **FEW))

    def test_initial_latents_of_the_decoder(self, small: Pair) -> None:
        embeddings, latents = (torch.randn(shape, generator=seeded(2)) for shape in ((1, 16, 3, 3), (1, 4, 32, 32)))
        given: dict[str, Any] = {"prompt": PROMPT, "latents": latents, "num_inference_steps": 3, "output_type": "np"}
        ours = small.ours.decoder(embeddings * 20, seed=26, **given).images
        assert_same_pictures(ours, small.theirs.decoder_pipe(embeddings * 20, generator=seeded(26), **given).images)


class TestOutputs:
    def test_pil_pictures_differ_by_a_rounding_at_most(self, small: Pair) -> None:
        ours = small.ours(PROMPT, seed=27, **FEW).images
        theirs = small.theirs(PROMPT, generator=seeded(27), **FEW).images
        assert isinstance(ours[0], Image.Image)
        assert (ours[0].size, ours[0].mode) == (theirs[0].size, theirs[0].mode) == ((128, 128), "RGB")
        assert np.abs(np.asarray(ours[0], int) - np.asarray(theirs[0], int)).max() <= 1

    def test_latents_as_output(self, small: Pair) -> None:
        ours = small.ours(PROMPT, seed=28, output_type="latent", **FEW).images
        theirs = small.theirs(PROMPT, generator=seeded(28), output_type="latent", **FEW).images
        assert ours.shape == (1, 4, 32, 32)
        assert largest(ours, theirs) < STAGES

    def test_one_generator_for_several_calls(self, small: Pair) -> None:
        one, other = seeded(29), seeded(29)
        for prompt in ("a red house", "a blue boat"):
            assert_same(
                small.draw_ours(prompt, generator=one, **FEW), small.draw_theirs(prompt, generator=other, **FEW)
            )
        assert standing_alike(one, other)

    def test_a_numpy_state_is_used_as_its_seed(self, small: Pair) -> None:
        ours = small.draw_ours(PROMPT, generator=np.random.RandomState(987), **FEW)
        assert_same(ours, small.draw_theirs(PROMPT, generator=seeded(987), **FEW))


class TestPictures:
    """Image to image and reconstruction, which diffusers lacks, against its modules."""

    PIXELS = np.random.RandomState(1).randint(0, 256, (128, 256, 3)).astype(np.uint8)

    def test_embeddings_of_a_picture(self, pair: Pair) -> None:
        ours = pair.ours.encode(self.PIXELS).image_embeddings
        assert ours is not None
        assert ours.shape == (1, 16, 3, 6)
        assert largest(ours, reference_embeddings(pair, self.PIXELS)) < STAGES

    @pytest.mark.parametrize("strength", [0.3, 0.75, 1.0])
    @pytest.mark.parametrize("guidance", [0.0, 4.0])
    def test_image_to_image(self, pair: Pair, strength: float, guidance: float) -> None:
        given: dict[str, Any] = {"prior_num_inference_steps": 8, "num_inference_steps": 3}
        ours = pair.draw_ours(
            PROMPT, image=self.PIXELS, strength=strength, prior_guidance_scale=guidance, seed=30, **given
        )
        generator = seeded(30)
        embeddings = reference_image_to_image(pair, self.PIXELS, strength, guidance, steps=8, generator=generator)
        assert largest(ours.embeddings, embeddings) < STAGES
        latents = reference_decoder(pair, [PROMPT], embeddings, steps=3, generator=generator)
        assert largest(ours.latents, latents) < STAGES
        assert_same_pictures(ours.pictures, reference_pictures(pair, latents))

    def test_several_variations(self, small: Pair) -> None:
        given: dict[str, Any] = {"strength": 0.5, "prior_num_inference_steps": 6, "num_inference_steps": 3}
        ours = small.draw_ours(PROMPT, image=self.PIXELS, num_images_per_prompt=2, seed=31, **given)
        for index in range(2):
            alone = small.draw_ours(PROMPT, image=self.PIXELS, seed=31 + index, **given)
            assert_same_pictures(ours.pictures[index : index + 1], alone.pictures)

    def test_reconstruction(self, pair: Pair) -> None:
        ours = pair.ours.reconstruct(self.PIXELS, num_inference_steps=3, seed=32, output_type="np")
        embeddings, generator = reference_embeddings(pair, self.PIXELS), seeded(32)
        latents = reference_decoder(pair, [""], embeddings, steps=3, generator=generator)
        pictures = reference_pictures(pair, latents)
        assert largest(ours.image_embeddings, embeddings) < STAGES
        assert_same_pictures(ours.images, pictures)
        assert ours.report["psnr"] == pytest.approx(psnr(pictures, self.PIXELS[None] / np.float32(255)), abs=1e-3)
        assert ours.report["spatial_compression"] == pytest.approx(128 / 3)
        assert ours.report["values_compression"] == pytest.approx(128 * 256 * 3 / (16 * 3 * 6))


def encoded(pair: Pair, scale: float, prompt: str = PROMPT) -> Any:
    """The prior's text embeddings of a prompt and, with guidance, of the negative one."""
    with torch.no_grad():
        return pair.theirs.prior_pipe.encode_prompt("cpu", 1, scale > 1, prompt, NEGATIVE)


def embeds(positive: Any, negative: Any) -> dict[str, Any]:
    return {"prompt_embeds": positive, "negative_prompt_embeds": negative}


def diffusers_scheduler() -> Any:
    kind: Any = DDPMWuerstchenScheduler
    return kind()


def hidden_states(tokenizer: Any, text_encoder: Any, prompts: list[str]) -> torch.Tensor:
    tokens = tokenizer(
        prompts, padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
    )
    states: torch.Tensor = text_encoder(tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state
    return states


@torch.no_grad()
def reference_embeddings(pair: Pair, pixels: Any) -> torch.Tensor:
    picture = Image.fromarray(pixels)
    seen = picture.resize((picture.width * 3 // 4, picture.height * 3 // 4), Image.Resampling.LANCZOS)
    values = torch.from_numpy(np.asarray(seen).copy()).permute(2, 0, 1)[None] / 255
    embeddings: torch.Tensor = pair.image_encoder(values)
    return embeddings


@torch.no_grad()
def reference_image_to_image(
    pair: Pair, pixels: Any, strength: float, guidance: float, steps: int, generator: torch.Generator
) -> torch.Tensor:
    """Noise the image's embeddings to where the last steps begin, and run diffusers' prior."""
    models, scheduler = pair.saved.models, diffusers_scheduler()
    scheduler.set_timesteps(steps)
    times = scheduler.timesteps[steps - int(steps * strength) :]
    clean = (reference_embeddings(pair, pixels) + 1) / 42
    latents = scheduler.add_noise(clean, torch.randn(clean.shape, generator=generator), times[:1])
    conditional, unconditional = (
        hidden_states(models.tokenizer, models.prior_text_encoder, [text]) for text in (PROMPT, "")
    )
    for time in times[:-1]:
        predicted = models.prior(latents, time[None], conditional)
        if guidance > 1:
            plain = models.prior(latents, time[None], unconditional)
            predicted = plain + guidance * (predicted - plain)
        latents = scheduler.step(predicted, time[None], latents, generator=generator).prev_sample
    embeddings: torch.Tensor = latents * 42 - 1
    return embeddings


@torch.no_grad()
def reference_decoder(
    pair: Pair, prompts: list[str], embeddings: torch.Tensor, steps: int, generator: torch.Generator
) -> torch.Tensor:
    """Run diffusers' decoder without guidance, one prompt per picture."""
    models, scheduler = pair.saved.models, diffusers_scheduler()
    scheduler.set_timesteps(steps)
    grid = [int(side * 10.67) for side in embeddings.shape[2:]]
    latents = torch.randn((len(embeddings), 4, *grid), generator=generator)
    clip = hidden_states(models.tokenizer, models.text_encoder, prompts)
    for time in scheduler.timesteps[:-1]:
        now = time.expand(len(latents))
        predicted = torch.cat(
            [
                models.decoder(latents[i : i + 1], now[i : i + 1], embeddings[i : i + 1], clip[i : i + 1])
                for i in range(len(latents))
            ]
        )
        latents = scheduler.step(predicted, now, latents, generator=generator).prev_sample
    return latents


@torch.no_grad()
def reference_pictures(pair: Pair, latents: torch.Tensor) -> Any:
    vqgan: Any = pair.saved.models.vqgan
    images = as_numpy([vqgan.decode(each[None] * vqgan.config.scale_factor).sample for each in latents])
    return images.clip(0, 1).transpose(0, 2, 3, 1)
