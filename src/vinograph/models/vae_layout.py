"""The folders of a checkpoint's VAEs: a full one, a tiny one, or both."""

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
    """The folders of the checkpoint's VAEs, a full one under "vae" and a tiny one under "tiny_vae".

    ``index`` is its model_index.json, whose classes were checked. It need not mention a folder
    ``tiny_vae``.
    """
    if tuple(index["vae"]) == _TINY_CLASS:
        return {"tiny_vae": Subfolder(checkpoint, "vae")}
    subfolders = {"vae": Subfolder(checkpoint, "vae")}
    if checkpoint.has_folder("tiny_vae"):
        subfolders["tiny_vae"] = Subfolder(checkpoint, "tiny_vae")
    return subfolders


def named_tiny_vae(source: str) -> Subfolder:
    """The tiny VAE that ``--tiny-vae`` names, which is a checkpoint of its own.

    Raises:
        ModelError: the source has no configuration.
    """
    checkpoint = locate(source)
    if "config.json" not in checkpoint.listing:
        raise ModelError(
            f"the tiny VAE {source} has no config.json: give a directory with an AutoencoderTiny's config.json and "
            "weights, or a repository such as madebyollin/taesdxl (for PixArt madebyollin/taesd)"
        )
    return Subfolder(checkpoint, "")


def tiny_vae_of_another(subfolders: Mapping[str, Subfolder], origin: Checkpoint) -> dict[str, str]:
    """The id of the tiny VAE's checkpoint under "tiny_vae", where that is not ``origin``."""
    subfolder = subfolders.get("tiny_vae")
    return {} if subfolder is None or subfolder.checkpoint is origin else {"tiny_vae": subfolder.checkpoint.id}
