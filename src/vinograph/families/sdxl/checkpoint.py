"""SDXL checkpoints: read and checked, and described by a manifest.

Everything is checked before anything is built: classes, configurations, and every tensor's name,
type and shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from vinograph.errors import ModelError, RequestError
from vinograph.families.known import Distillation, few_step_entry
from vinograph.families.sdxl import checkpoint_layout, checkpoint_single
from vinograph.families.sdxl.arguments import FAMILY
from vinograph.families.sdxl.checkpoint_config import ModelFacts, NetworkConfigs
from vinograph.families.sdxl.checkpoint_layout import EXPORTED_FILE, EXPORTED_WEIGHTS
from vinograph.families.sdxl.known import DEFAULTS, distillation_of
from vinograph.families.sdxl.network import unet
from vinograph.families.sdxl.network_config import UNetConfig
from vinograph.models.autoencoders import Autoencoders
from vinograph.models.checkpoint import INDEX_FILE, Subfolder, fetch_parts
from vinograph.models.checkpoint_model import OpenedCheckpoint, PublishedCheckpoint, TokenizerPlan
from vinograph.models.manifest import Manifest
from vinograph.models.model_index import scheduler_config
from vinograph.models.named_vae import NamedVae, named_vae
from vinograph.models.parts import (
    DIFFUSERS_STEM,
    TRANSFORMERS_STEM,
    ComponentPlan,
    OwnNetwork,
    Part,
    part_files,
    plan_component,
    read_part,
)
from vinograph.models.settings import Settings, licence_file, size_limits, source_of
from vinograph.models.vae_layout import tiny_vae_of_another
from vinograph.networks import clip
from vinograph.networks.clip import ClipConfig
from vinograph.networks.graph import Network, Weights
from vinograph.schedulers import read_published_scheduler
from vinograph.values import shown

PIPELINES = checkpoint_layout.PIPELINES
CLASSES = checkpoint_layout.CLASSES
SINGLE_FILES = checkpoint_layout.SINGLE_FILES
reads_file = checkpoint_single.reads_file
NETWORKS = {"UNet2DConditionModel": OwnNetwork("unet", UNetConfig.from_mapping, "add_embedding.linear_1.weight")}
OPTIONS = ("tiny_vae", "vae", "base")
WEIGHTS = ("f16", "f32", "int8")

_LARGEST = 2048
_SMALLEST_GRID = 8


class _Described(Protocol):
    """What a manifest describes."""

    @property
    def config(self) -> ModelFacts:
        """What it says of the networks."""

    @property
    def grid_multiple(self) -> int:
        """Divisor of the sides of all latents that the networks take."""


class SDXLNetworks(_Described, Protocol):
    """The networks of a checkpoint."""

    @property
    def config(self) -> NetworkConfigs:
        """Configurations of the networks."""

    def plans(self) -> tuple[ComponentPlan, ...]:
        """Plans of the components. Raises what :func:`vinograph.models.parts.plan_component` does."""


@dataclass(frozen=True)
class _PublishedNetworks:
    """The networks of a checkpoint in safetensors. One of the two VAEs may be missing."""

    text_encoder: Part[ClipConfig]
    text_encoder_2: Part[ClipConfig]
    unet: Part[UNetConfig]
    autoencoders: Autoencoders

    @classmethod
    def read(cls, places: Mapping[str, Subfolder], named: NamedVae | None) -> _PublishedNetworks:
        """Read the configurations, and the headers of the weights. A ``named`` VAE replaces the full one.

        Raises what :func:`read_part` does.
        """
        autoencoders = Autoencoders.read(places)
        if named is not None:
            autoencoders = Autoencoders(named.part, autoencoders.tiny_vae)
        return cls(
            text_encoder=_text_encoder(places["text_encoder"]),
            text_encoder_2=_text_encoder(places["text_encoder_2"]),
            unet=read_part(places["unet"], DIFFUSERS_STEM, UNetConfig.from_mapping),
            autoencoders=autoencoders,
        )

    @property
    def grid_multiple(self) -> int:
        """Divisor of the latents' sides: 1, since any size can be drawn."""
        return 1

    @property
    def config(self) -> NetworkConfigs:
        """Configurations of the networks."""
        return NetworkConfigs(
            self.text_encoder.config, self.text_encoder_2.config, self.unet.config, self.autoencoders.config
        )

    def plans(self) -> tuple[ComponentPlan, ...]:
        """See :class:`SDXLNetworks`."""
        states, pooled = (partial(_hidden_states, projects) for projects in (False, True))
        return (
            plan_component("text_encoder", self.text_encoder, states, clip.IGNORED, compressible=True),
            plan_component("text_encoder_2", self.text_encoder_2, pooled, clip.IGNORED, compressible=True),
            plan_component("unet", self.unet, unet, compressible=True),
            *self.autoencoders.plans(),
        )


def _hidden_states(projects: bool, config: ClipConfig, weights: Weights) -> Network:
    return clip.clip_hidden_states(config, weights, projects=projects)


def _text_encoder(place: Subfolder) -> Part[ClipConfig]:
    return read_part(place, TRANSFORMERS_STEM, ClipConfig.from_mapping, clip.network_name)


def open_published(published: PublishedCheckpoint) -> OpenedCheckpoint:
    """Open an SDXL checkpoint.

    Raises what :func:`vinograph.models.opening.open_checkpoint` does.
    """
    if published.checkpoint.file is not None or INDEX_FILE not in published.checkpoint.listing:
        return _open_composed(published)
    if "base" in published.options:
        raise RequestError(
            "--base completes a single file or a UNet alone, and "
            f"{published.checkpoint.source} is a whole model: leave --base out"
        )
    places = checkpoint_layout.find(published.checkpoint, published.index, published.options.get("tiny_vae"))
    scheduler = read_published_scheduler(scheduler_config(places["scheduler"], published.index))
    files = fetch_parts(places, partial(_files_of, checkpoint_layout.is_exported(places)), published.before_fetch)
    named = _named_vae(published)
    networks = _read(places, named)
    config, components = networks.config, networks.plans()
    config.check_together()
    also = tiny_vae_of_another(places, published.checkpoint)
    if named is not None:
        also["vae"] = named.checkpoint.id
    lengths = {
        "tokenizer": config.text_encoder.max_position_embeddings,
        "tokenizer_2": config.text_encoder_2.max_position_embeddings,
    }
    return OpenedCheckpoint(
        manifest=_manifest(published, also, networks, scheduler),
        components=components,
        tokenizers={name: TokenizerPlan(places[name].directory, length) for name, length in lengths.items()},
        files=(*files, *(named.files if named is not None else ())),
        licence_file=licence_file(published.checkpoint),
    )


def _open_composed(published: PublishedCheckpoint) -> OpenedCheckpoint:
    """Open a single file, or a UNet alone over a base."""
    from vinograph.families.sdxl.checkpoint_composed import compose

    composed = compose(published)
    return composed.opened(published.checkpoint, _manifest(published, {}, composed, composed.scheduler))


def _named_vae(published: PublishedCheckpoint) -> NamedVae | None:
    source = published.options.get("vae")
    return None if source is None else named_vae(str(source), checkpoint_single.SCALING_FACTOR)


def _read(places: Mapping[str, Subfolder], named: NamedVae | None) -> SDXLNetworks:
    if checkpoint_layout.is_exported(places):
        if named is not None:
            raise RequestError("--vae is for checkpoints in safetensors; this one is an export, whose graphs stay")
        from vinograph.families.sdxl.checkpoint_exported import ExportedNetworks

        return ExportedNetworks.read(places)
    return _PublishedNetworks.read(places, named)


def _files_of(exported: bool, part: str, place: Subfolder) -> list[str]:
    """Names of a part's files within its folder. In an ``exported`` model they are OpenVINO IR."""
    if exported and part not in ("tiny_vae", "tokenizer", "tokenizer_2", "scheduler"):
        return ["config.json", EXPORTED_FILE, EXPORTED_WEIGHTS]
    return part_files(part, place)


def _manifest(
    published: PublishedCheckpoint,
    also: Mapping[str, str],
    networks: _Described,
    scheduler: Mapping[str, Any],
) -> Manifest:
    """The manifest, without what depends on the written files."""
    origin, settings = published.checkpoint, Settings.of(published.checkpoint)
    factor = networks.config.autoencoders.scale_factor
    native = networks.config.unet.sample_size * factor
    limits = settings.limits(
        size_limits(factor * networks.grid_multiple, _SMALLEST_GRID * factor, max(_LARGEST, native), native)
    )
    unet = networks.config.unet
    distilled = distillation_of(
        origin.id, published.index, scheduler, unet.sample_size, unet.time_cond_proj_dim is not None
    )
    return Manifest(
        family=FAMILY.name,
        name=settings.name,
        components={},
        tokenizers={},
        scheduler=scheduler,
        config={**_config(published.index, networks.config), **few_step_entry(distilled.few_step)},
        defaults=settings.defaults(FAMILY, _defaults(native, distilled), limits),
        limits=limits,
        source=source_of(origin, also),
        tools={},
        files={},
        notes=() if settings.sets("generate", DEFAULTS) else distilled.notes,
    )


def _config(index: Mapping[str, Any], config: ModelFacts) -> dict[str, Any]:
    """The manifest's ``config``: the numbers that the family reads."""
    return {
        **config.autoencoders.numbers(),
        "text_widths": list(config.text_widths),
        "pooled_width": config.unet.pooled_width,
        "force_zeros_for_empty_prompt": int(_flag(index, "force_zeros_for_empty_prompt", True)),
        "time_cond_width": config.unet.time_cond_proj_dim or 0,
        "unet_channels": config.unet.in_channels,
    }


def _flag(index: Mapping[str, Any], name: str, default: bool) -> bool:
    value = index.get(name, default)
    if not isinstance(value, bool | None):
        raise ModelError(f"{INDEX_FILE} has {name} = {shown(value)}, where true or false should be")
    return bool(value)


def _defaults(native: int, distilled: Distillation) -> dict[str, dict[str, Any]]:
    """The family's defaults, at the native size and with a distilled model's own steps."""
    defaults = FAMILY.defaults()
    defaults["generate"] |= {"height": native, "width": native, **distilled.defaults}
    return defaults
