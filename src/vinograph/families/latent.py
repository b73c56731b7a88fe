"""What the families that denoise a VAE's latents have in common (Rombach et al., arXiv 2112.10752).

Shapes are [batch, channels, height, width].
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from PIL import Image

from vinograph.families.autoencoder import Autoencoder, Draw, autoencoder
from vinograph.families.contract import Array, Drawing, Parts, Step, Steps
from vinograph.families.originals import picture_of
from vinograph.families.shared import first_picture, shrunk
from vinograph.images import psnr
from vinograph.noise import Noise, PerImageNoise
from vinograph.request import Request
from vinograph.schedulers import Sampler, SamplingPlan

SOURCE: Mapping[str, Any] = {"image": None, "height": None, "width": None, "vae": None}
_PREVIEW_GRID = 32  # latents of a full VAE's preview, at most, in each direction


def plan_of(chosen: Sampler, request: Request, out: Drawing) -> SamplingPlan:
    """The steps that ``request`` asks for.

    Raises:
        RequestError: the sampler can't do them.
    """
    eta = request.eta or 0.0
    if eta and not chosen.takes_eta:
        out.warnings.append(f"eta was ignored: {chosen.scheduler_class} doesn't take it")
    return chosen.plan(request.num_inference_steps or 0, request.timesteps, request.sigmas, eta)


def preview(parts: Parts, vae: Autoencoder, clean: Array) -> Image.Image:
    """The first of the latents ``clean``: by the tiny VAE where there is one, else small."""
    if "tiny_vae_decoder" in parts.sessions:
        return first_picture(autoencoder(parts, "tiny").decode(clean[:1]))
    return first_picture(vae.decode(shrunk(clean, _PREVIEW_GRID)))


def drawn_for_the_vae(request: Request, noise: Noise, *, from_the_first: bool) -> Draw:
    """Noise for the VAE's distributions: a draw for the pictures, or one for each that is drawn from its own source.

    Of a list of generators, diffusers takes the first ones ``from_the_first``, one for each picture (in inpainting).
    Pictures drawn by ``seed`` don't depend on each other.
    """
    each = isinstance(noise, PerImageNoise) and (request.seeds is not None or not from_the_first)
    if not each:
        return lambda shape: noise.first(shape[0]).normal(shape)
    return lambda shape: noise.normal((request.image_count, *shape[1:]))


def encode_alone(parts: Parts, request: Request) -> Steps:
    """A picture to its latents: the mean of what the VAE makes of it."""
    out = Drawing()
    original, vae = picture_of(parts, request, out), autoencoder(parts, request.vae)
    vae.check_encoder()
    return _encoded(vae, original, out)


def _encoded(vae: Autoencoder, original: Array, out: Drawing) -> Steps:
    with out.timed("vae encoder"):
        out.latents = vae.encode(original)
    yield Step("vae encoder", 1, 1)
    return out


def reconstruct(parts: Parts, request: Request) -> Steps:
    """A picture to its latents and back."""
    out = Drawing()
    original, vae = picture_of(parts, request, out), autoencoder(parts, request.vae)
    vae.check_encoder()
    return _reconstructed(vae, original, out)


def _reconstructed(vae: Autoencoder, original: Array, out: Drawing) -> Steps:
    with out.timed("vae encoder"):
        latents = vae.encode(original)
    yield Step("vae encoder", 1, 1)
    with out.timed("vae"):
        out.images = vae.decode(latents)
    out.report["psnr"] = psnr(out.images, original.transpose(0, 2, 3, 1))
    out.report["spatial_compression"] = original.shape[2] / latents.shape[2]
    out.report["values_compression"] = original.size / latents.size
    yield Step("vae", 1, 1, partial(first_picture, out.images))
    return out
