"""SDXL (Podell et al., 2023, arXiv 2307.01952) and SDXL-Turbo (Sauer et al., 2023, arXiv 2311.17042).

Two text encoders tell a UNet what to draw; it denoises latents, which a VAE turns into pixels. Shapes are [batch,
channels, height, width]; a picture of 1024 by 1024 has latents of 4x128x128. What is drawn from the noise, and in
which order, is as in diffusers' StableDiffusionXLPipeline and its siblings for image to image and for inpainting.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial

import numpy as np

from vinograph.errors import RequestError
from vinograph.families.autoencoder import Autoencoder, autoencoder
from vinograph.families.contract import Array, Drawing, Parts, Step, Steps
from vinograph.families.latent import drawn_for_the_vae, plan_of, preview
from vinograph.families.originals import Original, original_of
from vinograph.families.sdxl.conditioning import (
    TimeIds,
    Told,
    check_texts,
    time_ids,
    told_to_the_unet,
)
from vinograph.families.sdxl.request import SDXLRequest as Request
from vinograph.families.shared import (
    called_back,
    check_latents,
    first_picture,
    note_ignored,
    starting_noise,
    steps_left,
)
from vinograph.noise import Noise
from vinograph.schedulers import Plan, Sampler, State, sampler

Blend = Callable[[Array, int], Array]


@dataclass(frozen=True)
class _Run:
    """One request's way through the steps ``begin`` up to ``end`` of ``plan``."""

    parts: Parts
    request: Request
    sampler: Sampler
    plan: Plan
    begin: int
    end: int
    noise: Noise
    vae: Autoencoder

    @classmethod
    def of(cls, parts: Parts, request: Request, out: Drawing) -> _Run:
        """The run that ``request`` asks for; whatever can't be done is refused here, before any work."""
        chosen = sampler(parts.scheduler)
        plan = plan_of(chosen, request, out)
        begin, end = _span(chosen, plan, request, out)
        return cls(parts, request, chosen, plan, begin, end, request.noise(), autoencoder(parts, request.vae))

    @property
    def guided(self) -> bool:
        """Whether each step is predicted with and without the text. A UNet that is told the scale guides itself."""
        return (self.request.guidance_scale or 0.0) > 1 and not self.parts.config["time_cond_width"]

    @property
    def starts_noisy(self) -> bool:
        """Whether noise is added to the image; one with denoising behind it has its own."""
        return self.request.denoising_start is None

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Of the latents of all pictures."""
        factor = self.parts.config["vae_scale_factor"]
        return self.request.image_count, self.parts.config["latent_channels"], height // factor, width // factor


def _span(chosen: Sampler, plan: Plan, request: Request, out: Drawing) -> tuple[int, int]:
    """The first of the plan's steps that is done, and the one before which to stop."""
    train, total = chosen.num_train_timesteps, len(plan.timesteps)
    begin, end = 0, total
    first, last = request.denoising_start, request.denoising_end
    if first is not None and last is not None and first >= last:
        raise RequestError(f"denoising_start is {first:g} and denoising_end {last:g}; start below the end")
    if first is not None:
        begin = total - int((plan.timesteps < round(train - first * train)).sum())
        if request.strength is not None:
            out.warnings.append("strength was ignored: denoising_start says where to begin")
    elif request.strength is not None:
        begin = plan.count - min(steps_left(plan.count, request.strength), plan.count)
    if last is not None:
        end = begin + int((plan.timesteps[begin:] >= round(train - last * train)).sum())
    if begin >= end:
        bounds = {"strength" if first is None else "denoising_start": request.strength if first is None else first}
        given = {**bounds, "denoising_end": last}
        told = " and ".join(f"{name} {value:g}" for name, value in given.items() if value is not None)
        raise RequestError(f"{plan.count} steps leave none to do with {told}; give more steps, or a wider span")
    return begin, end


def _denoise(run: _Run, latents: Array, told: Told, blend: Blend | None, out: Drawing) -> Generator[Step, None, Array]:
    """Sample from ``latents``. ``blend`` puts back, after each step, what is to be kept of a picture."""
    request, before = run.request, None
    total = run.end - run.begin
    for index in range(run.begin, run.end):
        with out.timed("unet"):
            predicted = _predict(run, index, latents, told)
            state = State(run.plan, index, latents, predicted, run.noise.normal, before)
            stepped = run.sampler.step(state)
            latents, before = stepped.sample, stepped.clean
            if blend is not None:
                latents = blend(latents, index)
        if request.callback_on_step_end is not None:
            names = request.callback_on_step_end_tensor_inputs or ("latents",)
            there = {"latents": latents, **told.tensors}
            returned = called_back(
                request.callback_on_step_end,
                index - run.begin,
                run.plan.timesteps[index],
                {name: there[name] for name in names},
            )
            latents, told = returned.pop("latents", latents), told.changed(returned)
        yield Step("unet", index - run.begin + 1, total, partial(preview, run.parts, run.vae, before))
    return latents


def _predict(run: _Run, index: int, latents: Array, told: Told) -> Array:
    """What the UNet predicts, under classifier-free guidance (arXiv 2207.12598) where that is on."""
    batch = np.concatenate([latents, latents]) if run.guided else latents
    inputs = {
        "sample": run.sampler.scale_input(run.plan, index, batch),
        "timestep": np.full(len(batch), run.plan.timesteps[index], np.float32),
        **told.inputs,
    }
    predicted = run.parts.sessions["unet"](inputs)["out_sample"]
    if not run.guided:
        return predicted
    without, with_text = np.split(predicted, 2)
    guided = without + np.float32(run.request.guidance_scale or 0.0) * (with_text - without)
    share = run.request.guidance_rescale or 0.0
    return _rescaled(guided, with_text, share) if share > 0 else guided


def _rescaled(guided: Array, with_text: Array, share: float) -> Array:
    """``guided``, ``share`` of it brought to the deviation of ``with_text`` (arXiv 2305.08891, equations 15 and 16)."""
    deviations = [each.std(axis=(1, 2, 3), keepdims=True, ddof=1) for each in (with_text, guided)]
    plain = guided * (deviations[0] / deviations[1])
    return np.asarray(np.float32(share) * plain + np.float32(1 - share) * guided, np.float32)


def _begin(run: _Run, original: Original) -> tuple[Array, Blend | None]:
    """The latents to start from, and what puts back, after each step, what a mask keeps.

    Noise is drawn in diffusers' order: for the VAE's distribution, for the start, and in inpainting once more for the
    masked picture, which only UNets with an input for it would see.
    """
    shape = run.latent_shape(*original.size)
    if original.mask is None and run.request.latents is not None:
        return starting_noise(run.request.latents, shape, run.noise), None
    clean = _encoded(run, original)
    clean = np.tile(clean, (shape[0] // len(clean), 1, 1, 1))
    if original.mask is None:
        if not run.starts_noisy:
            return clean, None
        return run.sampler.add_noise(run.plan, run.begin, clean, run.noise.normal(shape)), None
    given = run.request.latents if run.starts_noisy else None
    noise = starting_noise(given, shape, run.noise)
    if not run.starts_noisy:
        latents = clean
    elif given is not None or run.request.strength == 1:
        latents = noise * np.float32(run.plan.initial_sigma)
    else:
        latents = run.sampler.add_noise(run.plan, run.begin, clean, noise)
    if original.pictures is not None and run.vae.draws:
        drawn_for_the_vae(run.request, run.noise, from_the_first=True)((len(original.pictures), *shape[1:]))
    return latents, partial(_put_back, run, clean, noise, original.mask)


def _put_back(run: _Run, clean: Array, noise: Array, mask: Array, latents: Array, index: int) -> Array:
    """``latents`` after step ``index`` where the ``mask`` is 1; elsewhere the picture, as noisy as they are."""
    kept = clean if index + 1 == run.end else run.sampler.add_noise(run.plan, index + 1, clean, noise)
    return np.asarray((1 - mask) * kept + mask * latents, np.float32)


def _encoded(run: _Run, original: Original) -> Array:
    if original.pictures is None:
        assert original.latents is not None
        return original.latents
    draw = drawn_for_the_vae(run.request, run.noise, from_the_first=original.mask is not None)
    return run.vae.encode(original.pictures, draw)


def _prepare(run: _Run, size: tuple[int, int]) -> None:
    """Have the UNet compiled while the text is encoded: it is what takes longest."""
    parts, request = run.parts, run.request
    count, *latents = run.latent_shape(*size)
    rows = 2 * count if run.guided else count
    states = request.prompt_embeds
    tokens = parts.tokenizers["tokenizer"].max_length if states is None else states.shape[1]
    shapes: dict[str, tuple[int, ...]] = {
        "sample": (rows, *latents),
        "timestep": (rows,),
        "encoder_hidden_states": (rows, tokens, sum(parts.config["text_widths"])),
        "text_embeds": (rows, parts.config["pooled_width"]),
        "time_ids": (rows, 6),
    }
    if width := parts.config["time_cond_width"]:
        shapes["timestep_cond"] = (rows, width)
    parts.prepare("unet", shapes)


def generate(parts: Parts, request: Request) -> Steps:
    """Text to image; image to image where the request has a picture, and inpainting where it has a mask, too."""
    out = Drawing()
    run = _Run.of(parts, request, out)
    check_texts(parts, request, run.guided)
    original = original_of(parts, request, out)
    if parts.config["time_cond_width"]:
        note_ignored(request.negative_prompt, out, "this model is told the guidance scale and guides itself")
    elif not run.guided:
        note_ignored(request.negative_prompt, out)
    size = (request.height or 0, request.width or 0) if original is None else original.size
    if original is not None and original.pictures is not None:
        run.vae.check_encoder()
    check_latents(request.latents, run.latent_shape(*size))
    return _drawn(run, original, size, time_ids(request, size, out), out)


def _drawn(run: _Run, original: Original | None, size: tuple[int, int], sizes: TimeIds, out: Drawing) -> Steps:
    """Draw what was checked, for pictures of ``size`` (height, width)."""
    parts, request = run.parts, run.request
    _prepare(run, size)
    with out.timed("text"):
        told = told_to_the_unet(parts, request, sizes, run.guided, out)
    for each in ("text_encoder", "text_encoder_2"):
        parts.done_with(each)
    yield Step("text", 1, 1)
    if request.output_type != "latent":
        run.vae.prepare(parts, run.latent_shape(*size))
    blend = None
    if original is None:
        latents = starting_noise(request.latents, run.latent_shape(*size), run.noise)
        latents = latents * np.float32(run.plan.initial_sigma)
    else:
        with out.timed("vae encoder"):
            latents, blend = _begin(run, original)
        yield Step("vae encoder", 1, 1)
    latents = yield from _denoise(run, latents, told, blend, out)
    parts.done_with("unet")
    if request.output_type == "latent":
        out.latents = latents
        return out
    with out.timed("vae"):
        out.images = run.vae.decode(latents)
        if original is not None and original.paste is not None:
            out.images = original.paste(out.images)
    yield Step("vae", 1, 1, partial(first_picture, out.images))
    return out
