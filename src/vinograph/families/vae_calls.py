"""The calls "encode" and "reconstruct" of the families that denoise a VAE's latents."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from vinograph.families.autoencoder import VAE, HasLatents, vae_of
from vinograph.families.contract import Array, Call, Components, Output, Step, Steps
from vinograph.families.init_image import read_one_picture
from vinograph.families.latent_request import LatentRequest
from vinograph.families.shared import first_picture
from vinograph.images import Size, psnr

_TAKES: Mapping[str, Any] = {"image": None, "height": None, "width": None, "vae": None, "vae_tiling": "auto"}


def encode(components: Components[HasLatents], request: LatentRequest) -> Steps:
    """Encode a picture to its latents, the mean of the VAE's distribution."""
    out = Output()
    return _encoded(*_read(components, request, out), out)


def _read(components: Components[HasLatents], request: LatentRequest, out: Output) -> tuple[VAE, Array]:
    """The VAE that the request names, and the request's picture. Both are checked before any work."""
    picture, vae = read_one_picture(components, request, out), vae_of(components, request.vae, request.vae_tiling)
    vae.check_encoder()
    vae.note_tiles(Size(*picture.shape[2:]), "encoded", out)
    return vae, picture


def _encoded(vae: VAE, picture: Array, out: Output) -> Steps:
    with out.timed("vae encoder"):
        out.latents = vae.encode(picture)
    yield Step("vae encoder", 1, 1)
    return out


def reconstruct(components: Components[HasLatents], request: LatentRequest) -> Steps:
    """Encode a picture to its latents and decode them again."""
    out = Output()
    return _reconstructed(*_read(components, request, out), out)


def _reconstructed(vae: VAE, picture: Array, out: Output) -> Steps:
    with out.timed("vae encoder"):
        latents = vae.encode(picture)
    yield Step("vae encoder", 1, 1)
    with out.timed("vae"):
        out.images = vae.decode(latents)
    vae.note_tiles(Size(*picture.shape[2:]), "decoded", out)
    out.report["psnr"] = psnr(out.images, picture.transpose(0, 2, 3, 1))
    out.report["spatial_compression"] = picture.shape[2] / latents.shape[2]
    out.report["values_compression"] = picture.size / latents.size
    yield Step("vae", 1, 1, partial(first_picture, out.images))
    return out


VAE_CALLS: Mapping[str, Call] = MappingProxyType(
    {
        "encode": Call(
            about="encode a picture to what the model decodes: image embeddings, or latents",
            takes=_TAKES,
            positional=("image",),
            run=encode,
        ),
        "reconstruct": Call(
            about="encode a picture and decode it again",
            takes={**_TAKES, "output_type": "pil"},
            positional=("image",),
            run=reconstruct,
            output_types=("pil", "np"),
        ),
    }
)
"""Both calls, as the families declare them."""
