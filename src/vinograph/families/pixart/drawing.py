"""PixArt-α (Chen et al., 2023, arXiv 2310.00426), its consistency model (arXiv 2401.05252) and PixArt-Σ (2403.04692).

T5 tells a transformer what to draw; it denoises latents, which a VAE turns into pixels. Shapes are [batch, channels,
height, width]; a picture of 1024 by 1024 has latents of 4x128x128. What is drawn from the noise, and in which order, is
as in diffusers' PixArtAlphaPipeline and PixArtSigmaPipeline. They have no image to image; it is done here as their
siblings for other models do it.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from vinograph.families.autoencoder import Autoencoder, autoencoder
from vinograph.families.contract import Array, Drawing, Parts, Step, Steps
from vinograph.families.latent import drawn_for_the_vae, plan_of, preview
from vinograph.families.originals import Original, original_of
from vinograph.families.pixart.aspect_ratios import Size, resized_and_cropped, resized_bilinearly, trained_size
from vinograph.families.pixart.conditioning import Told, check_texts, texts_of
from vinograph.families.pixart.request import PixArtRequest as Request
from vinograph.families.shared import check_latents, first_picture, note_ignored, starting_noise, steps_left
from vinograph.noise import Noise
from vinograph.schedulers import Plan, Sampler, State, sampler


@dataclass(frozen=True)
class _Run:
    """One request's way through the steps of ``plan`` from ``begin`` on."""

    parts: Parts
    request: Request
    sampler: Sampler
    plan: Plan
    begin: int
    noise: Noise
    vae: Autoencoder

    @classmethod
    def of(cls, parts: Parts, request: Request, out: Drawing) -> _Run:
        """The run that ``request`` asks for; whatever can't be done is refused here, before any work."""
        chosen = sampler(parts.scheduler)
        plan = plan_of(chosen, request, out)
        begin = 0 if request.strength is None else plan.count - steps_left(plan.count, request.strength)
        return cls(parts, request, chosen, plan, begin, request.noise(), autoencoder(parts, request.vae))

    @property
    def guided(self) -> bool:
        """Whether each step is predicted with and without the text."""
        return (self.request.guidance_scale or 0.0) > 1

    def latent_shape(self, size: Size) -> tuple[int, int, int, int]:
        """Of the latents of all pictures of that height and width."""
        factor = self.parts.config["vae_scale_factor"]
        return self.request.image_count, self.parts.config["latent_channels"], size[0] // factor, size[1] // factor

    def drawn_size(self, wanted: Size) -> Size:
        """The height and width that are drawn for the ``wanted`` ones: under binning, the nearest trained ones."""
        if not self.request.use_resolution_binning:
            return wanted
        return trained_size(wanted, self.parts.config["sample_size"])

    def conditions(self, told: Told, size: Size) -> dict[str, Any]:
        """The transformer's constant inputs; those of 1024x1024 are told the size and its aspect ratio, too."""
        inputs: dict[str, Any] = {"encoder_hidden_states": told.states, "encoder_attention_mask": told.mask}
        if self.parts.config["size_conditions"]:
            rows = len(told.states)
            inputs["resolution"] = np.tile(np.array([size], np.float32), (rows, 1))
            inputs["aspect_ratio"] = np.full((rows, 1), size[0] / size[1], np.float32)
        return inputs


def _denoise(run: _Run, latents: Array, told: dict[str, Any], out: Drawing) -> Generator[Step, None, Array]:
    """Sample from ``latents``. Of a plan of one step, the result is its clean sample."""
    request, before = run.request, None
    total = len(run.plan.timesteps) - run.begin
    for index in range(run.begin, len(run.plan.timesteps)):
        with out.timed("transformer"):
            predicted = _predict(run, index, latents, told)
            stepped = run.sampler.step(State(run.plan, index, latents, predicted, run.noise.normal, before))
            latents, before = stepped.sample, stepped.clean
            if run.plan.count == 1:
                latents = stepped.clean
        done = index - run.begin
        if request.callback is not None and done % (request.callback_steps or 1) == 0:
            request.callback(done, run.plan.timesteps[index], latents)
        yield Step("transformer", done + 1, total, partial(preview, run.parts, run.vae, before))
    return latents


def _predict(run: _Run, index: int, latents: Array, told: dict[str, Any]) -> Array:
    """What the transformer predicts, under classifier-free guidance (arXiv 2207.12598) where that is on.

    Channels beyond the latents' own are the variance that it learned besides, which these samplers don't use.
    """
    batch = np.concatenate([latents, latents]) if run.guided else latents
    inputs = {
        "sample": run.sampler.scale_input(run.plan, index, batch),
        "timestep": np.full(len(batch), run.plan.timesteps[index], np.float32),
        **told,
    }
    predicted = run.parts.sessions["transformer"](inputs)["out_sample"][:, : latents.shape[1]]
    if not run.guided:
        return predicted
    without, with_text = np.split(predicted, 2)
    return np.asarray(without + np.float32(run.request.guidance_scale or 0.0) * (with_text - without), np.float32)


def _begin(run: _Run, original: Original | None, size: Size) -> Array:
    """The latents to start from: noise, or those of the picture with as much noise as the first step begins with."""
    shape = run.latent_shape(size)
    if original is None or run.request.latents is not None:
        noise = starting_noise(run.request.latents, shape, run.noise)
        return noise * np.float32(run.plan.initial_sigma) if original is None else noise
    clean = original.latents
    if clean is None:
        assert original.pictures is not None
        clean = run.vae.encode(original.pictures, drawn_for_the_vae(run.request, run.noise, from_the_first=False))
    clean = np.tile(clean, (shape[0] // len(clean), 1, 1, 1))
    return run.sampler.add_noise(run.plan, run.begin, clean, run.noise.normal(shape))


def _decoded(run: _Run, latents: Array, wanted: Size, *, whole: bool) -> Array:
    """Pictures of the ``wanted`` height and width.

    As in diffusers, what a trained aspect ratio is too wide or too high is cut off. Of a ``whole`` picture nothing is:
    the one that it started from was brought to the trained size whole, and it goes back the same way.
    """
    return run.vae.decode(latents, partial(resized_bilinearly if whole else resized_and_cropped, size=wanted))


def _prepare(run: _Run, size: Size, tokens: int) -> None:
    """Have the transformer compiled while the text is encoded."""
    parts = run.parts
    count, *latents = run.latent_shape(size)
    rows = 2 * count if run.guided else count
    shapes: dict[str, tuple[int, ...]] = {
        "sample": (rows, *latents),
        "timestep": (rows,),
        "encoder_hidden_states": (rows, tokens, parts.config["text_width"]),
        "encoder_attention_mask": (rows, tokens),
    }
    if parts.config["size_conditions"]:
        shapes |= {"resolution": (rows, 2), "aspect_ratio": (rows, 1)}
    parts.prepare("transformer", shapes)


def generate(parts: Parts, request: Request) -> Steps:
    """Text to image; image to image where the request has a picture."""
    out = Drawing()
    run = _Run.of(parts, request, out)
    check_texts(parts, request, run.guided)
    if not run.guided:
        note_ignored(request.negative_prompt, out)
    elif run.sampler.distilled:
        scale = f"{request.guidance_scale:g}"
        out.warnings.append(
            f"guidance scale {scale} comes on top of what this model was distilled from; 0 leaves it out"
        )
    original = original_of(parts, request, out, run.drawn_size if request.use_resolution_binning else None)
    wanted = (request.height or 0, request.width or 0) if original is None else original.wanted
    size = run.drawn_size(wanted) if original is None else original.size
    if size != wanted:
        latent = request.output_type == "latent"
        then = "" if latent else f", and resized to {wanted[1]}x{wanted[0]}"
        out.warnings.append(f"drawn at {size[1]}x{size[0]}, the nearest size that the model was trained on{then}")
    if original is not None and original.pictures is not None:
        run.vae.check_encoder()
    check_latents(request.latents, run.latent_shape(size))
    return _drawn(run, original, wanted, size, out)


def _drawn(run: _Run, original: Original | None, wanted: Size, size: Size, out: Drawing) -> Steps:
    """Draw what was checked at ``size``, and bring it to the ``wanted`` one, both height and width."""
    parts, request = run.parts, run.request
    texts = texts_of(parts, request, run.guided, out)
    _prepare(run, size, texts.length)
    with out.timed("text"):
        told = texts.encoded(parts)
    parts.done_with("text_encoder")
    yield Step("text", 1, 1)
    if request.output_type != "latent":
        run.vae.prepare(parts, run.latent_shape(size))
    if original is None:
        latents = _begin(run, None, size)
    else:
        with out.timed("vae encoder"):
            latents = _begin(run, original, size)
        yield Step("vae encoder", 1, 1)
    latents = yield from _denoise(run, latents, run.conditions(told, size), out)
    parts.done_with("transformer")
    if request.output_type == "latent":
        out.latents = latents
        return out
    with out.timed("vae"):
        out.images = _decoded(run, latents, wanted, whole=original is not None)
    yield Step("vae", 1, 1, partial(first_picture, out.images))
    return out
