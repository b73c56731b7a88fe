"""Würstchen (Pernias et al., 2023, arXiv 2306.00637): a prior, a diffusion decoder, and a VQGAN.

From the text, the prior (Stage C) draws image embeddings, 42 times smaller than the picture in each
direction. The decoder (Stage B) draws VQGAN latents from them, and the VQGAN (Stage A) decodes
those to pixels. Shapes are [batch, channels, height, width]; a picture of 1024x1024 has embeddings
of 16x24x24 and latents of 4x256x256.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from vinograph.errors import ModelError, RequestError
from vinograph.families.contract import Array, Output, Step, Steps
from vinograph.families.evaluations import note_no_guidance
from vinograph.families.init_image import open_init_images
from vinograph.families.shared import (
    check_latents,
    downsample,
    first_picture,
    fit,
    note_ignored,
    requested_size,
    starting_noise,
    strength_steps,
)
from vinograph.families.wuerstchen.conditioning import (
    WuerstchenComponents,
    check_prior_text,
    decoder_text,
    prior_text,
)
from vinograph.families.wuerstchen.request import WuerstchenRequest
from vinograph.families.wuerstchen.sampling import (
    Sampling,
    denoise,
    evaluations_of,
    predictor,
    prior_evaluations_of,
)
from vinograph.images import Size, only, psnr, read_pictures, resize, size_of, to_array
from vinograph.noise import Noise, TorchNoise
from vinograph.schedulers import WuerstchenSampler, continuous_sampler_by_name, custom_timesteps

_ENCODER_SCALE = 3 / 4  # the image encoder sees the picture at this share of its size
_PREVIEW_GRID = 64  # latents of a preview, at most, in each direction


def spaced_prior_timesteps() -> Array:
    """29 steps of Stage C as Würstchen's authors published them, most of them in the noisy third.

    There are nineteen steps from 1 to 2/3 and ten from there to 0, which takes 30 times.
    """
    return np.concatenate([np.linspace(1, 2 / 3, 20), np.linspace(2 / 3, 0, 11)[1:]]).astype(np.float32)


@dataclass(frozen=True)
class _Stages:
    """How the two stages of a picture are sampled."""

    prior: Sampling
    decoder: Sampling


def _timesteps(given: Any, steps: int, sampler: WuerstchenSampler, name: str) -> Array:
    if given is None:
        return sampler.timesteps(steps)
    return spaced_prior_timesteps() if isinstance(given, str) else custom_timesteps(given, name)


def _sampler(own: WuerstchenSampler, scheduler: Any) -> WuerstchenSampler:
    """The sampler of a stage: its ``own``, or the one that the request's ``scheduler`` names."""
    return own if scheduler is None else continuous_sampler_by_name(scheduler, own)


def _prior(
    components: WuerstchenComponents, request: WuerstchenRequest, sampling: Sampling, start: Array, out: Output
) -> Steps:
    """Sample the prior from ``start``; the result is ``out.image_embeddings``."""
    with out.timed("text"):
        text = prior_text(components, request, sampling.guided, out)
    components.release("prior_text_encoder")
    yield Step("text", 1, 1)
    predict = predictor(components.sessions["prior"], text)
    show = partial(_show_embeddings, components, request)
    latents = yield from denoise("prior", sampling, start, predict, show, out)
    components.release("prior")
    out.image_embeddings = components.config.to_embeddings(latents)
    return out


def _check_decoder(components: WuerstchenComponents, request: WuerstchenRequest, embeddings: tuple[int, ...]) -> None:
    """Check what the decoder will be given with embeddings of that shape.

    Raises:
        RequestError: the decoder can't draw them, or texts or latents don't fit them.
    """
    shape, texts = components.config.latent_shape(embeddings), len(request.prompt or ("",))
    if shape[0] % texts:
        raise RequestError(f"{texts} prompts were given for {shape[0]} image embeddings; give one, or one for each")
    if request.image_embeddings is not None:
        check_latents(request.latents, shape)


def _decode(
    components: WuerstchenComponents, request: WuerstchenRequest, sampling: Sampling, embeddings: Array, out: Output
) -> Steps:
    """Sample the decoder for ``embeddings`` and decode its latents to pictures."""
    shape = components.config.latent_shape(embeddings.shape)
    # In "generate", the request's latents are the prior's.
    start = starting_noise(request.latents if request.image_embeddings is not None else None, shape, sampling.noise)
    with out.timed("text"):
        conditioning = decoder_text(components, request, len(embeddings), sampling.guided, out)
    components.release("text_encoder")
    inputs = conditioning.inputs(embeddings, components.config, Size(*shape[2:]), guided=sampling.guided)
    predict = predictor(components.sessions["decoder"], inputs)
    latents = yield from denoise("decoder", sampling, start, predict, partial(_show_latents, components), out)
    components.release("decoder")
    if request.output_type == "latent":
        out.latents = latents
        return out
    with out.timed("vqgan"):
        out.images = _pixels(components, latents)
    yield Step("vqgan", 1, 1, partial(first_picture, out.images))
    return out


def _pixels(components: WuerstchenComponents, latents: Array) -> Array:
    """Decode latents to pictures [n, height, width, 3] in [0, 1], one at a time to bound memory."""
    scaled = latents * np.float32(components.config.scale_factor)
    decoded = [components.sessions["vqgan"]({"latents": each[None]})["image"] for each in scaled]
    return np.clip(np.concatenate(decoded), 0, 1).transpose(0, 2, 3, 1)


def _show_latents(components: WuerstchenComponents, latents: Array) -> Image.Image:
    """A small picture of the first latents, which are downsampled before they are decoded."""
    return first_picture(_pixels(components, downsample(latents, _PREVIEW_GRID)))


def _show_embeddings(components: WuerstchenComponents, request: WuerstchenRequest, latents: Array) -> Image.Image:
    """A small picture of the prior's first latents, by a single step of the decoder."""
    config = components.config
    embeddings = config.to_embeddings(latents[:1])
    shape = config.latent_shape(embeddings.shape)
    first = dataclasses.replace(request, prompt=(request.prompt or ("",))[:1])
    conditioning = decoder_text(components, first, 1, False, Output())
    inputs = conditioning.inputs(embeddings, config, Size(*shape[2:]), guided=False)
    noise, timestep = TorchNoise(0).normal(shape), np.float32(1)
    predicted_noise = predictor(components.sessions["decoder"], inputs)(noise, timestep, slice(None))
    return _show_latents(components, config.decoder_sampler.predict_denoised(noise, predicted_noise, timestep))


def _encode(components: WuerstchenComponents, picture: Image.Image) -> Array:
    """Image embeddings [1, channels, h, w] of an upright picture whose size the model draws."""
    seen = Size(*(round(side * _ENCODER_SCALE) for side in size_of(picture)))
    return components.sessions["image_encoder"]({"image": to_array(resize(picture, seen))})["embeddings"]


def _fit(
    components: WuerstchenComponents, request: WuerstchenRequest, pictures: Sequence[Image.Image], out: Output
) -> list[Image.Image]:
    """The request's pictures at the requested size, else at the nearest to the first one's own."""
    if "image_encoder" not in components.sessions:
        raise ModelError("this bundle has no image encoder: convert the model again with --image-encoder FILE")
    size = requested_size(request) or components.sizes.nearest(size_of(pictures[0]))
    return [fit(each, size, out) for each in pictures]


def _fit_one(components: WuerstchenComponents, request: WuerstchenRequest, out: Output) -> Image.Image:
    pictures = [only(read_pictures(request.image, notes=out.warnings), "image")]
    return _fit(components, request, pictures, out)[0]


def _note_ignored(request: WuerstchenRequest, *scales: float, out: Output) -> None:
    if max(scales) <= 1:
        note_ignored(request.negative_prompt, out)
        note_no_guidance(request, out)


def _prior_sampler(components: WuerstchenComponents, request: WuerstchenRequest) -> WuerstchenSampler:
    return _sampler(components.config.prior_sampler, request.scheduler)


def _decoder_sampling(
    components: WuerstchenComponents, request: WuerstchenRequest, timesteps: Any, scale: float, noise: Noise
) -> Sampling:
    sampler = _sampler(components.config.decoder_sampler, request.decoder_scheduler)
    steps = _timesteps(timesteps, request.num_inference_steps or 0, sampler, "the decoder's timesteps")
    evaluations = evaluations_of(request, steps, scale)
    return Sampling(sampler, steps, scale, evaluations, request.callback_on_step_end, noise)


def generate(components: WuerstchenComponents, request: WuerstchenRequest) -> Steps:
    """Text to image, and image to image where the request has a picture."""
    out, noise = Output(), request.noise()
    prior_scale, decoder_scale = request.prior_guidance_scale or 0.0, request.decoder_guidance_scale or 0.0
    _note_ignored(request, prior_scale, decoder_scale, out=out)
    sampler, steps = _prior_sampler(components, request), request.prior_num_inference_steps or 0
    timesteps = _timesteps(request.prior_timesteps, steps, sampler, "prior_timesteps")
    decoder = _decoder_sampling(components, request, request.decoder_timesteps, decoder_scale, noise)
    pictures: list[Image.Image] = []
    total = len(timesteps) - 1
    size = Size(request.height or 0, request.width or 0)
    if request.image is not None:
        timesteps = _last_steps(timesteps, request.strength or 0.0)
        pictures = _fit(components, request, open_init_images(request, out), out)
        size = size_of(pictures[0])
    evaluations = prior_evaluations_of(request, timesteps, prior_scale, out, total)
    prior = Sampling(sampler, timesteps, prior_scale, evaluations, request.prior_callback_on_step_end, noise)
    shape = components.config.embedding_shape(request.image_count, size)
    check_latents(request.latents, shape)
    check_prior_text(components, request, prior.guided)
    _check_decoder(components, request, shape)
    return _drawn(components, request, _Stages(prior, decoder), pictures, shape, out)


def _drawn(
    components: WuerstchenComponents,
    request: WuerstchenRequest,
    stages: _Stages,
    pictures: Sequence[Image.Image],
    shape: tuple[int, ...],
    out: Output,
) -> Steps:
    """Draw a checked request from noise of ``shape``, or from ``pictures`` in turn."""
    if request.output_type != "latent":
        _, *latents = components.config.latent_shape(shape)
        components.prepare("vqgan", {"latents": (1, *latents)})
    if pictures:
        with out.timed("image encoder"):
            embeddings = np.concatenate([_encode(components, each) for each in pictures])
        embeddings = np.tile(embeddings, (request.image_count // len(embeddings), 1, 1, 1))
        noise = starting_noise(request.latents, embeddings.shape, stages.prior.noise)
        init_latents = components.config.to_prior_latents(embeddings)
        start = stages.prior.sampler.add_noise(init_latents, noise, stages.prior.timesteps[0])
    else:
        start = starting_noise(request.latents, shape, stages.prior.noise)
    yield from _prior(components, request, stages.prior, start, out)
    assert out.image_embeddings is not None
    return (yield from _decode(components, request, stages.decoder, out.image_embeddings, out))


def _last_steps(timesteps: Array, strength: float) -> Array:
    """The last ``strength`` of the steps between ``timesteps``."""
    total = len(timesteps) - 1
    return timesteps[total - strength_steps(total, strength) :]


def prior_alone(components: WuerstchenComponents, request: WuerstchenRequest) -> Steps:
    """The prior alone: text to image embeddings."""
    out, noise, sampler = Output(), request.noise(), _prior_sampler(components, request)
    scale = request.guidance_scale or 0.0
    _note_ignored(request, scale, out=out)
    timesteps = _timesteps(request.timesteps, request.num_inference_steps or 0, sampler, "timesteps")
    size = Size(request.height or 0, request.width or 0)
    shape = components.config.embedding_shape(request.image_count, size)
    evaluations = prior_evaluations_of(request, timesteps, scale, out)
    sampling = Sampling(sampler, timesteps, scale, evaluations, request.callback_on_step_end, noise)
    check_latents(request.latents, shape)
    check_prior_text(components, request, sampling.guided)
    return _prior_from_noise(components, request, sampling, shape, out)


def _prior_from_noise(
    components: WuerstchenComponents,
    request: WuerstchenRequest,
    sampling: Sampling,
    shape: tuple[int, ...],
    out: Output,
) -> Steps:
    start = starting_noise(request.latents, shape, sampling.noise)
    return (yield from _prior(components, request, sampling, start, out))


def decoder_alone(components: WuerstchenComponents, request: WuerstchenRequest) -> Steps:
    """The decoder and the VQGAN: image embeddings to pictures."""
    if request.image_embeddings is None:
        raise RequestError("give image_embeddings: what the prior or the image encoder made")
    out, scale = Output(), request.guidance_scale or 0.0
    _note_ignored(request, scale, out=out)
    embeddings = np.repeat(request.image_embeddings, request.num_images_per_prompt or 1, axis=0)
    sampling = _decoder_sampling(components, request, request.timesteps, scale, request.noise())
    _check_decoder(components, request, embeddings.shape)
    return _decode(components, request, sampling, embeddings, out)


def encode_alone(components: WuerstchenComponents, request: WuerstchenRequest) -> Steps:
    """A picture to its image embeddings."""
    out = Output()
    return _encoded(components, _fit_one(components, request, out), out)


def _encoded(components: WuerstchenComponents, picture: Image.Image, out: Output) -> Steps:
    with out.timed("image encoder"):
        out.image_embeddings = _encode(components, picture)
    yield Step("image encoder", 1, 1)
    return out


def reconstruct(components: WuerstchenComponents, request: WuerstchenRequest) -> Steps:
    """A picture to its image embeddings and back."""
    out = Output()
    picture = _fit_one(components, request, out)
    sampling = _decoder_sampling(components, request, request.timesteps, 0.0, request.noise())
    return _reconstructed(components, request, picture, sampling, out)


def _reconstructed(
    components: WuerstchenComponents, request: WuerstchenRequest, picture: Image.Image, sampling: Sampling, out: Output
) -> Steps:
    with out.timed("image encoder"):
        embeddings = _encode(components, picture)
    yield Step("image encoder", 1, 1)
    repeated = np.repeat(embeddings, request.num_images_per_prompt or 1, axis=0)
    yield from _decode(components, request, sampling, repeated, out)
    out.image_embeddings = repeated
    if out.images is not None:
        original = to_array(picture).transpose(0, 2, 3, 1)
        out.report["psnr"] = psnr(out.images[:1], original)
        out.report["spatial_compression"] = picture.height / embeddings.shape[2]
        out.report["values_compression"] = original.size / embeddings.size
    return out
