"""The full VAE that ``--vae`` names: one file, or a checkpoint that is a VAE or has one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vinograph.errors import ModelError
from vinograph.models.autoencoders import full_autoencoder
from vinograph.models.checkpoint import Checkpoint, Subfolder, fetch_parts, locate
from vinograph.models.float8 import with_scales
from vinograph.models.ldm_vae import is_ldm_vae, vae_part
from vinograph.models.parts import Part, part_files
from vinograph.networks.vae import AutoencoderConfig

_PREFIXES = ("first_stage_model.", "vae.", "")


@dataclass(frozen=True)
class NamedVae:
    """A VAE, the checkpoint that it is from, and the files that it is read from."""

    part: Part[AutoencoderConfig]
    checkpoint: Checkpoint
    files: tuple[Path, ...]


def named_vae(source: str, scaling_factor: float) -> NamedVae:
    """Read the configuration and the header of the VAE that ``source`` names.

    Args:
        source: a .safetensors file, a directory or a hub id, or a file of the hub.
        scaling_factor: the family's, which a file without a configuration doesn't say.

    Raises:
        RequestError: there is no such source.
        ModelError: it is no KL autoencoder, or one that isn't computed here.
        DamagedModelError: a file is damaged.
    """
    checkpoint = locate(source, single_file=True)
    if checkpoint.file is not None:
        return NamedVae(_in_file(checkpoint, scaling_factor), checkpoint, (checkpoint.path,))
    folder = next(
        (each for each in ("", "vae") if Subfolder(checkpoint, each).name("config.json") in checkpoint.listing), None
    )
    if folder is None:
        raise ModelError(
            f"--vae {source} has no VAE: give a .safetensors file with one, or a directory or repository with an "
            "AutoencoderKL's config.json and weights, such as madebyollin/sdxl-vae-fp16-fix"
        )
    place = Subfolder(checkpoint, folder)
    name = place.config().get("_class_name")
    if name != "AutoencoderKL":
        raise ModelError(
            f"--vae {source} is a {name}, not an AutoencoderKL. A tiny VAE is added when a model is converted: "
            f"vinograph convert MODEL BUNDLE --tiny-vae {source}"
        )
    files = fetch_parts({"vae": place}, part_files)
    return NamedVae(full_autoencoder(place), checkpoint, tuple(files))


def _in_file(checkpoint: Checkpoint, scaling_factor: float) -> Part[AutoencoderConfig]:
    records = checkpoint.header
    prefix = next(each for each in _PREFIXES if any(name.startswith(each) for name in records) or not each)
    tensors = {name.removeprefix(prefix): record for name, record in records.items() if name.startswith(prefix)}
    if not is_ldm_vae(tensors) and "decoder.mid_block.resnets.0.conv1.weight" not in tensors:
        raise ModelError(
            f"--vae {checkpoint.path} is no VAE: give a .safetensors file with a KL autoencoder, such as "
            "sdxl_vae.safetensors"
        )
    return vae_part(with_scales(tensors), str(checkpoint.path), scaling_factor, prefix)
