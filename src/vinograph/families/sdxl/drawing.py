"""SDXL (Podell et al., arXiv 2307.01952) and SDXL-Turbo (Sauer et al., arXiv 2311.17042).

Conditioned on a text that two encoders read, a UNet denoises latents, which a VAE decodes to
pixels. Shapes are [batch, channels, height, width]; a picture of 1024x1024 has latents of
4x128x128. What is drawn from the noise, and in which order, is as in diffusers'
StableDiffusionXLPipeline and its siblings for image to image and for inpainting.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from vinograph.errors import RequestError
from vinograph.families.autoencoder import Draw, vae_of
from vinograph.families.contract import Array, Output, Step, Steps
from vinograph.families.init_image import InitImage, read_init_image
from vinograph.families.latent import (
    Conditioning,
    Run,
    choose_sampler,
    denoise,
    encode_init_image,
    evaluations_of,
    finish,
    initial_latents,
    make_plan,
    posterior_noise,
    prepare_denoiser,
)
from vinograph.families.sdxl.conditioning import (
    Prompts,
    callback_tensors,
    check_prompts,
    input_shapes,
    read_prompts,
    time_ids_of,
    with_callback_tensors,
)
from vinograph.families.sdxl.config import TEXT_ENCODERS
from vinograph.families.sdxl.prompts import SDXLComponents
from vinograph.families.sdxl.request import SDXLRequest
from vinograph.families.shared import check_latents, note_ignored, run_callback, starting_noise, strength_steps
from vinograph.images import Size
from vinograph.schedulers import Sampler, SamplingPlan, StepOutput

Blend = Callable[[Array, int], Array]
"""Puts back into the latents after a step, by its index, what a mask keeps."""


@dataclass(frozen=True)
class _Start:
    """What denoising starts from.

    In inpainting there is also what puts back what a mask keeps, or the channels ``sample`` [n,
    channels, height, width] that tell the UNet.
    """

    latents: Array
    blend: Blend | None = None
    sample: Array | None = None


def generate(components: SDXLComponents, request: SDXLRequest) -> Steps:
    """Text to image, image to image with a picture, and inpainting with a mask, too."""
    out = Output()
    run = _run_of(components, request, out)
    check_prompts(components, request, run.guided)
    if components.config.inpaints and request.mask_image is None:
        raise RequestError(
            "this model is for inpainting alone: its UNet takes a picture and a mask, too. "
            "Give image and mask_image (--image FILE --mask FILE), or another model"
        )
    init_image = read_init_image(components, request, out)
    if components.config.inpaints and init_image is not None and init_image.pictures is None:
        raise RequestError("image is latents, from which a mask can't take anything away; give this model a picture")
    if components.config.guides_itself:
        note_ignored(request.negative_prompt, out, "this model takes the guidance scale as an input and guides itself")
    elif not run.guided:
        note_ignored(request.negative_prompt, out)
    size = Size(request.height or 0, request.width or 0) if init_image is None else init_image.size
    if init_image is not None and init_image.pictures is not None:
        run.vae.check_encoder()
        run.vae.note_tiles(init_image.size, "encoded", out)
    check_latents(request.latents, run.latent_shape(size))
    prompts = read_prompts(components, request, time_ids_of(request, size, out), run.guided, out)
    return _drawn(components, run, init_image, size, prompts, out)


def _run_of(components: SDXLComponents, request: SDXLRequest, out: Output) -> Run[SDXLRequest]:
    """The run that ``request`` asks for. What can't be done is refused here, before any work."""
    sampler = choose_sampler(components.config, request)
    plan = make_plan(sampler, request, out)
    begin, end = _span(sampler, plan, request, out)
    guided = (request.guidance_scale or 0.0) > 1 and not components.config.guides_itself
    return Run(
        components=components,
        request=request,
        denoiser="unet",
        guided=guided,
        sampler=sampler,
        plan=plan,
        begin=begin,
        end=end,
        evaluations=evaluations_of(sampler, plan, (begin, end), request, guided, out),
        noise=request.noise(),
        vae=vae_of(components, request.vae, request.vae_tiling),
        guidance_rescale=request.guidance_rescale or 0.0,
        noisy_init_image=request.denoising_start is not None,
    )


def _span(sampler: Sampler, plan: SamplingPlan, request: SDXLRequest, out: Output) -> tuple[int, int]:
    """The first of the plan's evaluations that is made, and the one before which to stop."""
    train, total = sampler.num_train_timesteps, len(plan.timesteps)
    begin, end, count = 0, total, plan.num_inference_steps
    first, last = request.denoising_start, request.denoising_end
    if first is not None and last is not None and first >= last:
        raise RequestError(f"denoising_start is {first:g} and denoising_end {last:g}; start below the end")
    if first is not None:
        later = int((plan.timesteps < round(train - first * train)).sum())
        if sampler.order == 2 and later % 2 == 0:
            later += 1  # as in diffusers, so that no step begins with its second evaluation
        begin = total - later
        if request.strength is not None:
            out.warnings.append("strength was ignored: denoising_start says where to begin")
    elif request.strength is not None:
        begin = (count - min(strength_steps(count, request.strength), count)) * sampler.order
    if last is not None:
        end = begin + int((plan.timesteps[begin:] >= round(train - last * train)).sum())
    if begin >= end:
        bounds = {"strength" if first is None else "denoising_start": request.strength if first is None else first}
        given = {**bounds, "denoising_end": last}
        named = " and ".join(f"{name} {value:g}" for name, value in given.items() if value is not None)
        raise RequestError(f"{count} steps leave none to do with {named}; give more steps, or a wider span")
    return begin, end


def _drawn(
    components: SDXLComponents,
    run: Run[SDXLRequest],
    init_image: InitImage | None,
    size: Size,
    prompts: Prompts,
    out: Output,
) -> Steps:
    """Draw pictures of ``size`` for a request that is checked."""
    request = run.request
    sample = (components.config.unet_channels, *run.latent_shape(size)[2:])
    prepare_denoiser(run, size, {**input_shapes(components, prompts.length), "sample": sample})
    with out.timed("text"):
        conditioning = prompts.encode(components)
    for encoder in TEXT_ENCODERS:
        components.release(encoder)
    yield Step("text", 1, 1)
    if request.output_type != "latent":
        run.vae.prepare(components, run.latent_shape(size))
    if init_image is None:
        start = _Start(initial_latents(run, None, size))
    else:
        with out.timed("vae encoder"):
            start = _begin(run, init_image, components.config.inpaints)
        yield Step("vae encoder", 1, 1)
    if start.sample is not None:
        conditioning = dataclasses.replace(conditioning, sample=np.tile(start.sample, (1 + run.guided, 1, 1, 1)))
    latents = yield from denoise(run, start.latents, conditioning, partial(_after_step, run, start.blend), out)
    return (yield from finish(run, latents, partial(_decoded, run, init_image), out))


def _begin(run: Run[SDXLRequest], init_image: InitImage, inpaints: bool) -> _Start:
    """Start from a picture. ``inpaints`` says whether the UNet has an input for what a mask keeps.

    Noise is drawn in diffusers' order: for the VAE's distribution, for the start, and in inpainting
    once more for the masked picture, also where the UNet doesn't see that.
    """
    if init_image.mask is None:
        return _Start(initial_latents(run, init_image, init_image.size))
    request, shape = run.request, run.latent_shape(init_image.size)
    from_noise = not run.noisy_init_image and (request.latents is not None or request.strength == 1)
    init_latents = None if inpaints and from_noise else encode_init_image(run, init_image)
    noise = starting_noise(None if run.noisy_init_image else request.latents, shape, run.noise)
    if init_latents is None or from_noise:
        latents = noise * np.float32(run.plan.init_noise_sigma)
    elif run.noisy_init_image:
        latents = init_latents
    else:
        latents = run.sampler.add_noise(run.plan, run.begin, init_latents, noise)
    draw = posterior_noise(request, run.noise, first_generator_only=True)
    if inpaints:
        return _Start(latents, sample=_masked_sample(run, init_image, draw))
    if init_image.pictures is not None and run.vae.samples_posterior:
        draw((len(init_image.pictures), *shape[1:]))
    assert init_latents is not None
    return _Start(latents, partial(_put_back, run, init_latents, noise, init_image.mask))


def _masked_sample(run: Run[SDXLRequest], init_image: InitImage, draw: Draw) -> Array:
    """The mask, and the latents of the picture that is grey under it: [n, 1 + channels, h, w]."""
    pictures, pixel_mask, mask = init_image.pictures, init_image.pixel_mask, init_image.mask
    assert pictures is not None
    assert pixel_mask is not None
    assert mask is not None
    if len(pixel_mask) > 1:
        pictures = np.tile(pictures, (len(pixel_mask) // len(pictures), 1, 1, 1))
    masked = np.where(pixel_mask < 0.5, pictures, np.float32(0.5))
    latents, count = run.vae.encode(masked, draw), run.request.image_count
    rows = [np.tile(each, (count // len(each), 1, 1, 1)) for each in (mask, latents)]
    return np.concatenate(rows, axis=1)


def _put_back(
    run: Run[SDXLRequest], init_latents: Array, noise: Array, mask: Array, latents: Array, index: int
) -> Array:
    """``latents`` where the ``mask`` is 1, and elsewhere the init image with as much noise."""
    last = index + 1 == run.end
    kept = init_latents if last else run.sampler.add_noise(run.plan, index + 1, init_latents, noise)
    return np.asarray((1 - mask) * kept + mask * latents, np.float32)


def _after_step(
    run: Run[SDXLRequest], blend: Blend | None, index: int, stepped: StepOutput, conditioning: Conditioning
) -> tuple[Array, Conditioning]:
    """Put back what a mask keeps, then run the request's callback, which may change its tensors."""
    latents, request = stepped.sample, run.request
    if blend is not None:
        latents = blend(latents, index)
    if request.callback_on_step_end is None:
        return latents, conditioning
    names = request.callback_on_step_end_tensor_inputs or ("latents",)
    tensors = {"latents": latents, **callback_tensors(conditioning)}
    returned = run_callback(
        request.callback_on_step_end,
        index - run.begin,
        run.plan.timesteps[index],
        {name: tensors[name] for name in names},
    )
    return returned.pop("latents", latents), with_callback_tensors(conditioning, returned)


def _decoded(run: Run[SDXLRequest], init_image: InitImage | None, latents: Array) -> Array:
    """The pictures, pasted into the one that the init image was cut from."""
    images = run.vae.decode(latents)
    return images if init_image is None or init_image.paste is None else init_image.paste(images)
