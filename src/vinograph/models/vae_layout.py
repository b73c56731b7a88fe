"""Where a checkpoint's VAEs lie: the full one, a tiny one in its place or beside it, or one named apart."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from vinograph.errors import ModelError
from vinograph.models.checkpoint import Checkpoint, Subfolder, locate

_TINY_CLASS = ("diffusers", "AutoencoderTiny")

VAE_CLASSES: Mapping[str, set[tuple[str, str]]] = MappingProxyType(
    {"vae": {("diffusers", "AutoencoderKL"), _TINY_CLASS}, "tiny_vae": {_TINY_CLASS}}
)


def vae_places(checkpoint: Checkpoint, index: Mapping[str, Any]) -> dict[str, Subfolder]:
    """ "vae" where the checkpoint has a full one, "tiny_vae" where it has a tiny one.

    ``index`` is its model_index.json, checked. A folder ``tiny_vae`` may stand beside the full one unmentioned.
    """
    if tuple(index["vae"]) == _TINY_CLASS:
        return {"tiny_vae": Subfolder(checkpoint, "vae")}
    places = {"vae": Subfolder(checkpoint, "vae")}
    if checkpoint.has_folder("tiny_vae"):
        places["tiny_vae"] = Subfolder(checkpoint, "tiny_vae")
    return places


def named_tiny_vae(source: str) -> Subfolder:
    """The tiny VAE that ``--tiny-vae`` names: at the top of its checkpoint.

    Raises:
        ModelError: there is none.
    """
    checkpoint = locate(source)
    if "config.json" not in checkpoint.listing:
        raise ModelError(
            f"the tiny VAE {source} has no config.json: give a directory with an AutoencoderTiny's config.json and "
            "weights, or a repository such as madebyollin/taesdxl (for PixArt madebyollin/taesd)"
        )
    return Subfolder(checkpoint, "")


def tiny_vae_of_another(places: Mapping[str, Subfolder], origin: Checkpoint) -> dict[str, str]:
    """The id of the checkpoint that the tiny VAE is from, under "tiny_vae", where that is another than ``origin``."""
    place = places.get("tiny_vae")
    return {} if place is None or place.checkpoint is origin else {"tiny_vae": place.checkpoint.id}
