"""Würstchen (Pernias et al., 2023, arXiv 2306.00637): a prior, a diffusion decoder, and a VQGAN.

The prior (Stage C) draws image embeddings in a space 42 times smaller than the picture in each direction, from
the text. The decoder (Stage B) draws VQGAN latents from them, and the VQGAN (Stage A) turns those into pixels.
Shapes are [batch, channels, height, width]; a picture of 1024 by 1024 has embeddings of 16x24x24 and latents of
4x256x256.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from vinograph.errors import ModelError, RequestError
from vinograph.families.contract import Array, Drawing, Parts, Step, Steps
from vinograph.families.originals import pictures_of
from vinograph.families.shared import (
    called_back,
    check_latents,
    first_picture,
    fit,
    near_size,
    note_ignored,
    shrunk,
    starting_noise,
    steps_left,
)
from vinograph.families.wuerstchen.conditioning import check_prior_text, decoder_text, prior_text
from vinograph.families.wuerstchen.request import WuerstchenRequest as Request
from vinograph.images import only, psnr, read_pictures, resize, to_array
from vinograph.noise import Noise, TorchNoise
from vinograph.schedulers import WuerstchenSampler, custom_timesteps

_ENCODER_SCALE = 3 / 4  # the image encoder sees the picture at this share of its size
_PREVIEW_GRID = 64  # latents of a preview, at most, in each direction

Predict = Callable[[Array, np.float32], Array]


def spaced_prior_timesteps() -> Array:
    """29 steps that dwell on the noisy two thirds' end, as Würstchen's authors published them for Stage C.

    Nineteen steps from 1 to 2/3 and ten from there to 0: 30 times.
    """
    return np.concatenate([np.linspace(1, 2 / 3, 20), np.linspace(2 / 3, 0, 11)[1:]]).astype(np.float32)


@dataclass(frozen=True)
class _Sampling:
    """How one stage is sampled: its times (the last is where it ends), guidance scale, callback and noise."""

    sampler: WuerstchenSampler
    times: Array
    guidance_scale: float
    callback: Callable[..., Any] | None
    noise: Noise

    @property
    def guided(self) -> bool:
        return self.guidance_scale > 1


def _lerp(start: Array, end: Array, weight: float) -> Array:
    """Linear interpolation as ``torch.lerp`` rounds it."""
    scale = np.float32(weight)
    return start + scale * (end - start) if scale < 0.5 else end - (end - start) * (1 - scale)


def _times(given: Any, steps: int, sampler: WuerstchenSampler, name: str) -> Array:
    if given is None:
        return sampler.timesteps(steps)
    return spaced_prior_timesteps() if isinstance(given, str) else custom_timesteps(given, name)


def _denoise(
    stage: str,
    sampling: _Sampling,
    latents: Array,
    predict: Predict,
    show: Callable[[Array], Image.Image],
    out: Drawing,
) -> Generator[Step, None, Array]:
    total = len(sampling.times) - 1
    for index, (now, following) in enumerate(zip(sampling.times, sampling.times[1:], strict=False)):
        with out.timed(stage):
            predicted = predict(latents, now)
            clean = sampling.sampler.predict_clean(latents, predicted, now)
            fresh = sampling.noise.normal(latents.shape)
            latents = sampling.sampler.step(latents, predicted, now, following, fresh)
        if sampling.callback is not None:
            latents = called_back(sampling.callback, index, now, {"latents": latents})["latents"]
        yield Step(stage, index + 1, total, partial(show, clean))
    return latents


def _guided_session(session: Callable[..., dict[str, Array]], constant: Mapping[str, Array], scale: float) -> Predict:
    """Noise predicted by ``session``, under classifier-free guidance (arXiv 2207.12598) where ``scale`` is above 1."""

    def predict(latents: Array, time: np.float32) -> Array:
        batch = np.concatenate([latents, latents]) if scale > 1 else latents
        noise = session({"x": batch, "r": np.full(len(batch), time, np.float32), **constant})["noise"]
        return _lerp(noise[len(latents) :], noise[: len(latents)], scale) if scale > 1 else noise

    return predict


def _prior(parts: Parts, request: Request, sampling: _Sampling, start: Array, out: Drawing) -> Steps:
    """Sample the prior from ``start``; ``out.image_embeddings`` is what it drew."""
    with out.timed("text"):
        text = prior_text(parts, request, sampling.guided, out)
    parts.done_with("prior_text_encoder")
    yield Step("text", 1, 1)
    predict = _guided_session(parts.sessions["prior"], text, sampling.guidance_scale)
    show = partial(_show_embeddings, parts, request)
    latents = yield from _denoise("prior", sampling, start, predict, show, out)
    parts.done_with("prior")
    out.image_embeddings = _to_embeddings(parts, latents)
    return out


def _check_decoder(parts: Parts, request: Request, embeddings: tuple[int, ...]) -> None:
    """Check what the decoder will be given beside embeddings of that shape.

    Raises:
        RequestError: the decoder can't draw them, or texts or latents don't fit them.
    """
    shape, texts = _latent_shape(parts, embeddings), len(request.prompt or ("",))
    if shape[0] % texts:
        raise RequestError(f"{texts} prompts were given for {shape[0]} image embeddings; give one, or one for each")
    if request.image_embeddings is not None:
        check_latents(request.latents, shape)


def _decode(parts: Parts, request: Request, sampling: _Sampling, embeddings: Array, out: Drawing) -> Steps:
    """Sample the decoder for ``embeddings`` and turn its latents into pictures."""
    shape = _latent_shape(parts, embeddings.shape)
    start = starting_noise(request.latents if request.image_embeddings is not None else None, shape, sampling.noise)
    with out.timed("text"):
        condition = decoder_text(parts, request, len(embeddings), sampling.guided, out)
    parts.done_with("text_encoder")
    constant = condition.inputs(embeddings, parts, shape[2:], guided=sampling.guided)
    predict = _guided_session(parts.sessions["decoder"], constant, sampling.guidance_scale)
    latents = yield from _denoise("decoder", sampling, start, predict, partial(_show_latents, parts), out)
    parts.done_with("decoder")
    if request.output_type == "latent":
        out.latents = latents
        return out
    with out.timed("vqgan"):
        out.images = _pixels(parts, latents)
    yield Step("vqgan", 1, 1, partial(first_picture, out.images))
    return out


def _pixels(parts: Parts, latents: Array) -> Array:
    """Pictures [n, height, width, 3] in [0, 1] of decoder latents, one at a time to bound memory."""
    scaled = latents * np.float32(parts.config["scale_factor"])
    decoded = [parts.sessions["vqgan"]({"latents": each[None]})["image"] for each in scaled]
    return np.clip(np.concatenate(decoded), 0, 1).transpose(0, 2, 3, 1)


def _show_latents(parts: Parts, clean: Array) -> Image.Image:
    """A small picture of the first latents: averaged down to at most 64 in each direction, then decoded."""
    return first_picture(_pixels(parts, shrunk(clean, _PREVIEW_GRID)))


def _show_embeddings(parts: Parts, request: Request, clean: Array) -> Image.Image:
    """What the decoder makes of the first embeddings in a single step."""
    embeddings = _to_embeddings(parts, clean[:1])
    shape = _latent_shape(parts, embeddings.shape)
    first = dataclasses.replace(request, prompt=(request.prompt or ("",))[:1])
    constant = decoder_text(parts, first, 1, False, Drawing()).inputs(embeddings, parts, shape[2:], guided=False)
    noise, now = TorchNoise(0).normal(shape), np.float32(1)
    predicted = _guided_session(parts.sessions["decoder"], constant, 0)(noise, now)
    return _show_latents(parts, _sampler(parts, "decoder").predict_clean(noise, predicted, now))


def _sampler(parts: Parts, stage: str) -> WuerstchenSampler:
    return WuerstchenSampler(**parts.scheduler[stage])


def _to_embeddings(parts: Parts, latents: Array) -> Array:
    return latents * np.float32(parts.config["latent_mean"]) - np.float32(parts.config["latent_std"])


def _to_prior_latents(parts: Parts, embeddings: Array) -> Array:
    return (embeddings + np.float32(parts.config["latent_std"])) / np.float32(parts.config["latent_mean"])


def _prior_shape(parts: Parts, count: int, height: int, width: int) -> tuple[int, int, int, int]:
    multiple = parts.config["resolution_multiple"]
    return count, parts.config["prior_channels"], math.ceil(height / multiple), math.ceil(width / multiple)


def _latent_shape(parts: Parts, embeddings: tuple[int, ...]) -> tuple[int, int, int, int]:
    """The decoder's latent shape for image embeddings of a shape, which is checked."""
    channels = parts.config["prior_channels"]
    if len(embeddings) != 4 or embeddings[1] != channels:
        raise RequestError(f"image embeddings have shape {embeddings}; give [n, {channels}, height, width]")
    scale = parts.config["latent_dim_scale"]
    height, width = int(embeddings[2] * scale), int(embeddings[3] * scale)
    multiple = parts.config["decoder_patch_size"] * 2 ** (parts.config["decoder_level_count"] - 1)
    if 0 in (height, width) or height % multiple or width % multiple:
        raise RequestError(
            f"image embeddings of {embeddings[2]}x{embeddings[3]} give latents of {height}x{width}, "
            f"which the decoder can't draw; give a grid whose sides are multiples of 3 (128 pixels each)"
        )
    return embeddings[0], parts.config["latent_channels"], height, width


def _encode(parts: Parts, picture: Image.Image) -> Array:
    """Image embeddings [1, channels, h, w] of an upright picture whose size the model draws."""
    width, height = (round(side * _ENCODER_SCALE) for side in picture.size)
    return parts.sessions["image_encoder"]({"image": to_array(resize(picture, width, height))})["embeddings"]


def _fit(parts: Parts, request: Request, pictures: Sequence[Image.Image], out: Drawing) -> list[Image.Image]:
    """The request's pictures at the size to draw: the one asked for, else the nearest to the first one's own."""
    if "image_encoder" not in parts.sessions:
        raise ModelError("this bundle has no image encoder: convert the model again with --image-encoder FILE")
    width, height = request.width, request.height
    own = width is None or height is None
    wanted = near_size(pictures[0].size, parts.limits) if own else (width or 0, height or 0)
    return [fit(each, wanted, out) for each in pictures]


def _fit_one(parts: Parts, request: Request, out: Drawing) -> Image.Image:
    pictures = [only(read_pictures(request.image, notes=out.warnings), "image")]
    return _fit(parts, request, pictures, out)[0]


def _note_ignored(request: Request, *scales: float, out: Drawing) -> None:
    if max(scales) <= 1:
        note_ignored(request.negative_prompt, out)


def _decoder_sampling(parts: Parts, request: Request, times: Any, scale: float, noise: Noise) -> _Sampling:
    sampler = _sampler(parts, "decoder")
    steps = _times(times, request.num_inference_steps or 0, sampler, "the decoder's timesteps")
    return _Sampling(sampler, steps, scale, request.callback_on_step_end, noise)


def generate(parts: Parts, request: Request) -> Steps:
    """Text to image, and image to image where the request has a picture."""
    out, noise = Drawing(), request.noise()
    prior_scale, decoder_scale = request.prior_guidance_scale or 0.0, request.decoder_guidance_scale or 0.0
    _note_ignored(request, prior_scale, decoder_scale, out=out)
    sampler = _sampler(parts, "prior")
    times = _times(request.prior_timesteps, request.prior_num_inference_steps or 0, sampler, "prior_timesteps")
    decoder = _decoder_sampling(parts, request, request.decoder_timesteps, decoder_scale, noise)
    pictures: list[Image.Image] = []
    height, width = request.height or 0, request.width or 0
    if request.image is not None:
        times = _last_steps(times, request.strength or 0.0)
        pictures = _fit(parts, request, pictures_of(request, out), out)
        width, height = pictures[0].size
    prior = _Sampling(sampler, times, prior_scale, request.prior_callback_on_step_end, noise)
    shape = _prior_shape(parts, request.image_count, height, width)
    check_latents(request.latents, shape)
    check_prior_text(parts, request, prior.guided)
    _check_decoder(parts, request, shape)
    return _drawn(parts, request, prior, decoder, pictures, shape, out)


def _drawn(
    parts: Parts,
    request: Request,
    prior: _Sampling,
    decoder: _Sampling,
    pictures: Sequence[Image.Image],
    shape: tuple[int, ...],
    out: Drawing,
) -> Steps:
    """Draw what was checked, from noise of ``shape``, or from the ``pictures``, which repeat in their order."""
    if request.output_type != "latent":
        _, *latents = _latent_shape(parts, shape)
        parts.prepare("vqgan", {"latents": (1, *latents)})
    if pictures:
        with out.timed("image encoder"):
            embeddings = np.concatenate([_encode(parts, each) for each in pictures])
        embeddings = np.tile(embeddings, (request.image_count // len(embeddings), 1, 1, 1))
        start = starting_noise(request.latents, embeddings.shape, prior.noise)
        start = prior.sampler.add_noise(_to_prior_latents(parts, embeddings), start, prior.times[0])
    else:
        start = starting_noise(request.latents, shape, prior.noise)
    yield from _prior(parts, request, prior, start, out)
    assert out.image_embeddings is not None
    return (yield from _decode(parts, request, decoder, out.image_embeddings, out))


def _last_steps(times: Array, strength: float) -> Array:
    """The last ``strength`` of the steps between ``times``."""
    total = len(times) - 1
    return times[total - steps_left(total, strength) :]


def prior_alone(parts: Parts, request: Request) -> Steps:
    """The prior alone: text to image embeddings."""
    out, noise, sampler = Drawing(), request.noise(), _sampler(parts, "prior")
    scale = request.guidance_scale or 0.0
    _note_ignored(request, scale, out=out)
    times = _times(request.timesteps, request.num_inference_steps or 0, sampler, "timesteps")
    shape = _prior_shape(parts, request.image_count, request.height or 0, request.width or 0)
    sampling = _Sampling(sampler, times, scale, request.callback_on_step_end, noise)
    check_latents(request.latents, shape)
    check_prior_text(parts, request, sampling.guided)
    return _prior_from_noise(parts, request, sampling, shape, out)


def _prior_from_noise(
    parts: Parts, request: Request, sampling: _Sampling, shape: tuple[int, ...], out: Drawing
) -> Steps:
    return (yield from _prior(parts, request, sampling, starting_noise(request.latents, shape, sampling.noise), out))


def decoder_alone(parts: Parts, request: Request) -> Steps:
    """The decoder and the VQGAN: image embeddings to pictures."""
    if request.image_embeddings is None:
        raise RequestError("give image_embeddings: what the prior or the image encoder made")
    out, scale = Drawing(), request.guidance_scale or 0.0
    _note_ignored(request, scale, out=out)
    embeddings = np.repeat(request.image_embeddings, request.num_images_per_prompt or 1, axis=0)
    sampling = _decoder_sampling(parts, request, request.timesteps, scale, request.noise())
    _check_decoder(parts, request, embeddings.shape)
    return _decode(parts, request, sampling, embeddings, out)


def encode_alone(parts: Parts, request: Request) -> Steps:
    """A picture to its image embeddings."""
    out = Drawing()
    return _encoded(parts, _fit_one(parts, request, out), out)


def _encoded(parts: Parts, picture: Image.Image, out: Drawing) -> Steps:
    with out.timed("image encoder"):
        out.image_embeddings = _encode(parts, picture)
    yield Step("image encoder", 1, 1)
    return out


def reconstruct(parts: Parts, request: Request) -> Steps:
    """A picture to its image embeddings and back."""
    out = Drawing()
    picture = _fit_one(parts, request, out)
    sampling = _decoder_sampling(parts, request, request.timesteps, 0.0, request.noise())
    return _reconstructed(parts, request, picture, sampling, out)


def _reconstructed(parts: Parts, request: Request, picture: Image.Image, sampling: _Sampling, out: Drawing) -> Steps:
    with out.timed("image encoder"):
        embeddings = _encode(parts, picture)
    yield Step("image encoder", 1, 1)
    repeated = np.repeat(embeddings, request.num_images_per_prompt or 1, axis=0)
    yield from _decode(parts, request, sampling, repeated, out)
    out.image_embeddings = repeated
    if out.images is not None:
        original = to_array(picture).transpose(0, 2, 3, 1)
        out.report["psnr"] = psnr(out.images[:1], original)
        out.report["spatial_compression"] = picture.height / embeddings.shape[2]
        out.report["values_compression"] = original.size / embeddings.size
    return out
