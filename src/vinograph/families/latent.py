"""Sampling of latent diffusion, shared by the families that denoise a VAE's latents.

Rombach et al., arXiv 2112.10752. Shapes are [batch, channels, height, width]. What is drawn from
the noise, and in which order, is as in diffusers' pipelines of these families.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vinograph.errors import ModelError
from vinograph.families.autoencoder import VAE, Draw, HasLatents, vae_of
from vinograph.families.contract import Array, Components, Output, Step, Steps
from vinograph.families.evaluation_request import EvaluationRequest
from vinograph.families.evaluations import (
    EvaluationPlan,
    Outputs,
    StepSpan,
    note_no_guidance,
    plan_evaluations,
    plan_extrapolation,
)
from vinograph.families.init_image import InitImage
from vinograph.families.shared import downsample, first_picture, starting_noise
from vinograph.images import Size
from vinograph.noise import Noise, PerImageNoise
from vinograph.request import Request
from vinograph.schedulers import (
    SAMPLERS,
    Sampler,
    SamplingPlan,
    StepInput,
    StepOutput,
    make_sampler,
    read_scheduler_config,
    sampler_by_name,
)
from vinograph.schema import SchemaError
from vinograph.values import shown

Request_co = TypeVar("Request_co", bound=Request, covariant=True)

_PREVIEW_GRID = 32  # latents of a full VAE's preview, at most, in each direction


class LatentDiffusionConfig(HasLatents, Protocol):
    """A family's configuration that says what the latents are and how they are sampled."""

    @property
    def sampler(self) -> Sampler:
        """The sampler that the model's scheduler names."""

    @property
    def scheduler(self) -> Mapping[str, Any]:
        """The manifest's scheduler, of which another one keeps settings."""


def read_sampler(scheduler: Mapping[str, Any]) -> Sampler:
    """Read a manifest's ``scheduler`` that names one of :mod:`vinograph.schedulers`.

    Raises:
        SchemaError: a setting of it makes no sense.
        ModelError: its class is not computed.
    """
    name = scheduler.get("class")
    if not isinstance(name, str):
        raise SchemaError(f"scheduler.class is {shown(name)}, where one of {', '.join(SAMPLERS)} should be")
    if name not in SAMPLERS:
        read_scheduler_config(scheduler)  # raises ModelError, naming the classes that there are
    try:
        return make_sampler(scheduler)
    except ModelError as error:
        raise SchemaError(f"scheduler: {error}") from error


@dataclass(frozen=True)
class Conditioning:
    """The inputs of a denoiser that stay the same in every step, one row a picture.

    ``prompt_embeds`` [n, tokens, width] are the text encoders' hidden states. ``others`` are
    further inputs, by the network's names for them. ``sample`` [n, channels, height, width] follows
    the latents in the network's sample. Under guidance, the rows of the negative prompt come first.
    """

    prompt_embeds: Array
    others: Mapping[str, NDArray[Any]]
    sample: Array | None = None

    @property
    def inputs(self) -> dict[str, NDArray[Any]]:
        """All inputs, by the network's names for them."""
        return {"encoder_hidden_states": self.prompt_embeds, **self.others}

    def halves(self) -> tuple[Conditioning, Conditioning]:
        """The rows of the negative prompt, and those of the prompt, of a conditioning for guidance."""
        return self._half(_first_half), self._half(_last_half)

    def _half(self, of: Callable[[NDArray[Any]], NDArray[Any]]) -> Conditioning:
        others = {name: of(value) for name, value in self.others.items()}
        return Conditioning(of(self.prompt_embeds), others, None if self.sample is None else of(self.sample))


def _first_half(rows: NDArray[Any]) -> NDArray[Any]:
    return rows[: len(rows) // 2]


def _last_half(rows: NDArray[Any]) -> NDArray[Any]:
    return rows[len(rows) // 2 :]


@dataclass(frozen=True)
class Run(Generic[Request_co]):
    """One request's way through the steps of ``plan``, from ``begin`` up to ``end``.

    ``denoiser`` is the name of the network. It predicts each step with and without the text where
    the run is ``guided``, and ``guidance_rescale`` is the share of the result that is rescaled.
    ``evaluations`` may leave some of that out. A ``noisy_init_image`` has some denoising behind it,
    so that no noise is added to it.
    """

    components: Components[LatentDiffusionConfig]
    request: Request_co
    denoiser: str
    guided: bool
    sampler: Sampler
    plan: SamplingPlan
    begin: int
    end: int
    evaluations: EvaluationPlan
    noise: Noise
    vae: VAE
    guidance_rescale: float = 0.0
    noisy_init_image: bool = False

    def latent_shape(self, size: Size) -> tuple[int, int, int, int]:
        """Shape of the batch's latents for pictures of ``size``."""
        return self.components.config.latents.shape(self.request.image_count, size)


AfterStep = Callable[[int, StepOutput, Conditioning], tuple[Array, Conditioning]]
"""Takes a step's index, result and conditioning; returns what the next step starts from."""


def choose_sampler(config: LatentDiffusionConfig, request: Request) -> Sampler:
    """The sampler that ``request`` names, or else the model's own.

    Raises:
        RequestError: this model can't be sampled by it.
    """
    return config.sampler if request.scheduler is None else sampler_by_name(request.scheduler, config.scheduler)


def make_plan(sampler: Sampler, request: Request, out: Output) -> SamplingPlan:
    """Plan the steps that ``request`` asks for.

    Raises:
        RequestError: the sampler can't do them.
    """
    eta = request.eta or 0.0
    if eta and not sampler.takes_eta:
        out.warnings.append(f"eta was ignored: {sampler.scheduler_class} doesn't take it")
    return sampler.plan(request.num_inference_steps or 0, request.timesteps, request.sigmas, eta)


def evaluations_of(
    sampler: Sampler, plan: SamplingPlan, steps: tuple[int, int], request: EvaluationRequest, guided: bool, out: Output
) -> EvaluationPlan:
    """The evaluations of the denoiser from the first of ``steps`` up to the second.

    Raises:
        RequestError: the request leaves out some that this sampler needs.
    """
    span = StepSpan(*steps, total=plan.num_inference_steps, per_step=sampler.order)
    if not guided:
        note_no_guidance(request, out)
    planned = plan_evaluations(request, span, guided=guided)
    return plan_extrapolation(planned, request, span, sampler.scheduler_class, out)


def prepare_denoiser(run: Run[Request], size: Size, conditioning_shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Compile the denoiser in the background while the text is encoded, since that takes longest.

    ``conditioning_shapes`` are those of one row of the inputs that stay the same in every step.
    """
    count, *latents = run.latent_shape(size)
    rows = 2 * count if run.evaluations.always_guided else count
    shapes = {"sample": tuple(latents), "timestep": (), **conditioning_shapes}
    run.components.prepare(run.denoiser, {name: (rows, *shape) for name, shape in shapes.items()})


def denoise(
    run: Run[Request], latents: Array, conditioning: Conditioning, after_step: AfterStep, out: Output
) -> Generator[Step, None, Array]:
    """Sample from ``latents``, yielding each step.

    As in diffusers, ``after_step`` comes after each evaluation of the denoiser, and a step is done
    after as many of them as the sampler has in one.
    """
    state, order = None, run.sampler.order
    outputs = Outputs(run.evaluations, with_text=_last_half)
    for index in range(run.begin, run.end):
        with out.timed(run.denoiser):
            evaluate = partial(_evaluate, run, index, latents, conditioning)
            model_output = _guide(run, outputs.at(index - run.begin, evaluate), len(latents))
            stepped = run.sampler.step(StepInput(run.plan, index, latents, model_output, run.noise.normal, state))
        latents, conditioning = after_step(index, stepped, conditioning)
        state, done, total = stepped.state, index - run.begin + 1, run.end - run.begin
        if done % order == 0 or done == total:
            shown = partial(preview, run.components, run.vae, stepped.denoised)
            yield Step(run.denoiser, math.ceil(done / order), math.ceil(total / order), shown)
    return latents


def _evaluate(run: Run[Request], index: int, latents: Array, conditioning: Conditioning, guided: bool) -> Array:
    """The denoiser's output for evaluation ``index``; where it is ``guided``, first without the text."""
    if run.guided and not run.evaluations.always_guided:
        halves = conditioning.halves()[0 if guided else 1 :]
        return np.concatenate([_predict(run, index, latents, each) for each in halves])
    return _predict(run, index, np.concatenate([latents, latents]) if guided else latents, conditioning)


def _predict(run: Run[Request], index: int, batch: Array, conditioning: Conditioning) -> Array:
    """The denoiser's output for evaluation ``index`` of a ``batch`` of latents.

    Channels beyond the latents' own are a learned variance, which these samplers don't use.
    """
    scaled = run.sampler.scale_model_input(run.plan, index, batch)
    inputs = {
        "sample": scaled if conditioning.sample is None else np.concatenate([scaled, conditioning.sample], axis=1),
        "timestep": np.full(len(batch), run.plan.timesteps[index], np.float32),
        **conditioning.inputs,
    }
    return run.components.sessions[run.denoiser](inputs)["out_sample"][:, : batch.shape[1]]


def _guide(run: Run[Request], output: Array, count: int) -> Array:
    """Classifier-free guidance (arXiv 2207.12598) of an ``output`` of more rows than the ``count`` of pictures.

    The first half of its rows has no text.
    """
    if len(output) == count:
        return output
    unconditional, conditional = np.split(output, 2)
    scale, share = np.float32(run.request.guidance_scale or 0.0), run.guidance_rescale
    guided = np.asarray(unconditional + scale * (conditional - unconditional), np.float32)
    return _rescale(guided, conditional, share) if share > 0 else guided


def _rescale(guided: Array, conditional: Array, share: float) -> Array:
    """Rescale the guided output to a given ``share`` (arXiv 2305.08891, equations 15 and 16)."""
    deviations = [each.std(axis=(1, 2, 3), keepdims=True, ddof=1) for each in (conditional, guided)]
    rescaled = guided * (deviations[0] / deviations[1])
    return np.asarray(np.float32(share) * rescaled + np.float32(1 - share) * guided, np.float32)


def initial_latents(run: Run[Request], init_image: InitImage | None, size: Size) -> Array:
    """The latents to start from: noise, or an init image with the first step's noise added."""
    shape, given = run.latent_shape(size), run.request.latents
    if init_image is None:
        return starting_noise(given, shape, run.noise) * np.float32(run.plan.init_noise_sigma)
    if given is not None:
        return starting_noise(given, shape, run.noise)
    latents = encode_init_image(run, init_image)
    if run.noisy_init_image:
        return latents
    return run.sampler.add_noise(run.plan, run.begin, latents, run.noise.normal(shape))


def encode_init_image(run: Run[Request], init_image: InitImage) -> Array:
    """Latents of the init image, repeated to one for each picture to draw."""
    latents = init_image.latents
    if latents is None:
        assert init_image.pictures is not None
        draw = posterior_noise(run.request, run.noise, first_generator_only=init_image.mask is not None)
        latents = run.vae.encode(init_image.pictures, draw)
    return np.tile(latents, (run.request.image_count // len(latents), 1, 1, 1))


def posterior_noise(request: Request, noise: Noise, *, first_generator_only: bool) -> Draw:
    """Noise for the VAE's distributions, drawn once or from each picture's own source.

    Given a list of generators, diffusers uses its ``first_generator_only``, in inpainting.
    Pictures drawn by ``seed`` don't depend on each other.
    """
    each = isinstance(noise, PerImageNoise) and (request.seeds is not None or not first_generator_only)
    if not each:
        return lambda shape: noise.first(shape[0]).normal(shape)
    return lambda shape: noise.normal((request.image_count, *shape[1:]))


def finish(run: Run[Request], latents: Array, decode: Callable[[Array], Array], out: Output) -> Steps:
    """End with ``latents`` as they are, or with the pictures that ``decode`` makes of them."""
    run.components.release(run.denoiser)
    if run.request.output_type == "latent":
        out.latents = latents
        return out
    with out.timed("vae"):
        out.images = decode(latents)
    factor = run.components.config.latents.scale_factor
    run.vae.note_tiles(Size(latents.shape[2] * factor, latents.shape[3] * factor), "decoded", out)
    yield Step("vae", 1, 1, partial(first_picture, out.images))
    return out


def preview(components: Components[HasLatents], vae: VAE, latents: Array) -> Image.Image:
    """The first picture of ``latents``: by the tiny VAE where there is one, else downsampled."""
    if "tiny_vae_decoder" in components.sessions:
        return first_picture(vae_of(components, "tiny").decode(latents[:1]))
    return first_picture(vae.decode(downsample(latents, _PREVIEW_GRID)))
