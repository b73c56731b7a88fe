"""PixArt-α (arXiv 2310.00426), its consistency model (2401.05252) and PixArt-Σ (2403.04692).

Conditioned on a text that T5 reads, a transformer denoises latents, which a VAE decodes to pixels.
Shapes are [batch, channels, height, width]; a picture of 1024x1024 has latents of 4x128x128. What
is drawn from the noise, and in which order, is as in diffusers' PixArtAlphaPipeline and
PixArtSigmaPipeline. They have no image to image; it is done here as their siblings for other models
do it.
"""

from __future__ import annotations

from functools import partial

from vinograph.families.autoencoder import vae_of
from vinograph.families.contract import Array, Output, Step, Steps
from vinograph.families.init_image import InitImage, read_init_image
from vinograph.families.interpolation import resized_bilinearly
from vinograph.families.latent import (
    Conditioning,
    Run,
    choose_sampler,
    denoise,
    evaluations_of,
    finish,
    initial_latents,
    make_plan,
    prepare_denoiser,
)
from vinograph.families.pixart.aspect_ratios import resized_and_cropped, trained_size
from vinograph.families.pixart.conditioning import PixArtComponents, check_prompts, input_shapes, read_prompts
from vinograph.families.pixart.request import PixArtRequest
from vinograph.families.shared import check_latents, note_ignored, strength_steps
from vinograph.images import Size
from vinograph.schedulers import StepOutput


def generate(components: PixArtComponents, request: PixArtRequest) -> Steps:
    """Text to image; image to image where the request has a picture."""
    out = Output()
    run = _run_of(components, request, out)
    check_prompts(components, request, run.guided)
    if not run.guided:
        note_ignored(request.negative_prompt, out)
    elif components.config.sampler.distilled:
        scale = f"{request.guidance_scale:g}"
        out.warnings.append(
            f"guidance scale {scale} comes on top of what this model was distilled from; 0 leaves it out"
        )
    drawn_size = partial(_drawn_size, components, request)
    init_image = read_init_image(components, request, out, drawn_size if request.use_resolution_binning else None)
    if init_image is None:
        output_size = Size(request.height or 0, request.width or 0)
        size = drawn_size(output_size)
    else:
        output_size, size = init_image.output_size, init_image.size
    if size != output_size:
        then = "" if request.output_type == "latent" else f", and resized to {output_size}"
        out.warnings.append(f"drawn at {size}, the nearest size that the model was trained on{then}")
    if init_image is not None and init_image.pictures is not None:
        run.vae.check_encoder()
        run.vae.note_tiles(init_image.size, "encoded", out)
    check_latents(request.latents, run.latent_shape(size))
    return _drawn(components, run, init_image, output_size, size, out)


def _run_of(components: PixArtComponents, request: PixArtRequest, out: Output) -> Run[PixArtRequest]:
    """The run that ``request`` asks for. What can't be done is refused here, before any work."""
    sampler = choose_sampler(components.config, request)
    plan = make_plan(sampler, request, out)
    count, begin = plan.num_inference_steps, 0
    if request.strength is not None:
        begin = (count - strength_steps(count, request.strength)) * sampler.order
    guided, end = (request.guidance_scale or 0.0) > 1, len(plan.timesteps)
    return Run(
        components=components,
        request=request,
        denoiser="transformer",
        guided=guided,
        sampler=sampler,
        plan=plan,
        begin=begin,
        end=end,
        evaluations=evaluations_of(sampler, plan, (begin, end), request, guided, out),
        noise=request.noise(),
        vae=vae_of(components, request.vae, request.vae_tiling),
    )


def _drawn_size(components: PixArtComponents, request: PixArtRequest, size: Size) -> Size:
    """The size to draw for pictures of ``size``. Under binning, that is the nearest trained one."""
    return trained_size(size, components.config.sample_size) if request.use_resolution_binning else size


def _drawn(
    components: PixArtComponents,
    run: Run[PixArtRequest],
    init_image: InitImage | None,
    output_size: Size,
    size: Size,
    out: Output,
) -> Steps:
    """Draw pictures at ``size`` for a checked request, and bring them to ``output_size``."""
    request = run.request
    prompts = read_prompts(components, request, run.guided, out)
    prepare_denoiser(run, size, input_shapes(components, prompts.length))
    with out.timed("text"):
        conditioning = prompts.encode(components, size)
    components.release("text_encoder")
    yield Step("text", 1, 1)
    if request.output_type != "latent":
        run.vae.prepare(components, run.latent_shape(size))
    if init_image is None:
        latents = initial_latents(run, None, size)
    else:
        with out.timed("vae encoder"):
            latents = initial_latents(run, init_image, size)
        yield Step("vae encoder", 1, 1)
    latents = yield from denoise(run, latents, conditioning, partial(_after_step, run), out)
    # What a trained aspect ratio is too wide or too high is cut off, as in diffusers. An init image
    # was resized to that ratio whole, and its result goes back the same way.
    fit = resized_and_cropped if init_image is None else resized_bilinearly
    return (yield from finish(run, latents, partial(run.vae.decode, fit=partial(fit, size=output_size)), out))


def _after_step(
    run: Run[PixArtRequest], index: int, stepped: StepOutput, conditioning: Conditioning
) -> tuple[Array, Conditioning]:
    """Run the request's callback. As in diffusers, a single step ends with denoised latents."""
    latents = stepped.denoised if run.plan.num_inference_steps == 1 else stepped.sample
    request, done, order = run.request, index - run.begin, run.sampler.order
    ends_step = (done + 1) % order == 0 or index + 1 == run.end
    if request.callback is not None and ends_step and done % (request.callback_steps or 1) == 0:
        request.callback(done // order, run.plan.timesteps[index], latents)
    return latents, conditioning
