"""PixArt checkpoints: read and checked, and described by a manifest.

Everything is checked before anything is built: classes, configurations, and every tensor's name,
type and shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from vinograph.families.known import Distillation, few_step_entry
from vinograph.families.pixart import checkpoint_layout, network
from vinograph.families.pixart.arguments import FAMILY
from vinograph.families.pixart.aspect_ratios import ASPECT_RATIOS
from vinograph.families.pixart.known import CONSISTENCY_DEFAULTS, distillation_of
from vinograph.families.pixart.network_config import TransformerConfig
from vinograph.models.autoencoders import AutoencoderConfigs, Autoencoders, check_pairs
from vinograph.models.checkpoint import Subfolder, fetch_parts
from vinograph.models.checkpoint_model import OpenedCheckpoint, PublishedCheckpoint, TokenizerPlan
from vinograph.models.manifest import Manifest
from vinograph.models.model_index import scheduler_config
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
from vinograph.models.tokenizers import T5
from vinograph.models.vae_layout import tiny_vae_of_another
from vinograph.networks import t5
from vinograph.networks.t5 import T5Config
from vinograph.schedulers import read_published_scheduler

PIPELINES = tuple(checkpoint_layout.TEXT_LENGTHS)
CLASSES = checkpoint_layout.CLASSES
SINGLE_FILES = checkpoint_layout.SINGLE_FILES
NETWORKS = {
    name: OwnNetwork("transformer", TransformerConfig.from_mapping, "adaln_single.linear.weight")
    for name in ("PixArtTransformer2DModel", "Transformer2DModel")
}
OPTIONS = ("tiny_vae",)
WEIGHTS = ("f16", "f32", "int8", "int4")
"""Storage of a bundle's weights. Only the text encoder's become int8 or int4, all others f16."""

_LARGEST = 2048
_SMALLEST_GRID = 8


@dataclass(frozen=True)
class PixArtNetworks:
    """The networks of a checkpoint, whose configurations fit each other."""

    text_encoder: Part[T5Config]
    transformer: Part[TransformerConfig]
    autoencoders: Autoencoders

    @classmethod
    def read(cls, places: Mapping[str, Subfolder]) -> PixArtNetworks:
        """Read the configurations, and the headers of the weights.

        Raises:
            ModelError: a configuration makes no sense, or isn't computed here; or weights are
                missing or pickled; or the parts don't fit together.
            DamagedModelError: a file is damaged, or holds a tensor twice.
        """
        networks = cls(
            text_encoder=read_part(places["text_encoder"], TRANSFORMERS_STEM, T5Config.from_mapping),
            transformer=read_part(places["transformer"], DIFFUSERS_STEM, TransformerConfig.from_mapping),
            autoencoders=Autoencoders.read(places),
        )
        text, transformer = networks.text_encoder.config, networks.config
        check_pairs([("text encoder gives", text.d_model, "transformer takes", transformer.text_width)])
        networks.vaes.check("transformer")
        return networks

    @property
    def config(self) -> TransformerConfig:
        """The transformer's configuration."""
        return self.transformer.config

    @property
    def vaes(self) -> AutoencoderConfigs:
        """The VAEs' configurations."""
        return self.autoencoders.config

    def plans(self) -> tuple[ComponentPlan, ...]:
        """Plans of the components. Raises what :func:`vinograph.models.parts.plan_component` does."""
        return (
            plan_component("text_encoder", self.text_encoder, t5.t5_encoder, t5.IGNORED, compressible=True),
            plan_component("transformer", self.transformer, network.pixart, network.IGNORED),
            *self.autoencoders.plans(),
        )


def open_published(published: PublishedCheckpoint) -> OpenedCheckpoint:
    """Open a PixArt checkpoint.

    Raises what :func:`vinograph.models.opening.open_checkpoint` does.
    """
    places = checkpoint_layout.find(published.checkpoint, published.index, published.options.get("tiny_vae"))
    scheduler = read_published_scheduler(scheduler_config(places["scheduler"], published.index))
    files = fetch_parts(places, partial(part_files, tokenizer=T5), published.before_fetch)
    networks = PixArtNetworks.read(places)
    length = checkpoint_layout.TEXT_LENGTHS[published.index["_class_name"]]
    return OpenedCheckpoint(
        manifest=_manifest(published, places, networks, scheduler),
        components=networks.plans(),
        tokenizers={"tokenizer": TokenizerPlan(places["tokenizer"].directory, length, T5)},
        files=tuple(files),
        licence_file=licence_file(published.checkpoint),
    )


def _manifest(
    published: PublishedCheckpoint,
    places: Mapping[str, Subfolder],
    networks: PixArtNetworks,
    scheduler: Mapping[str, Any],
) -> Manifest:
    """The manifest, without what depends on the written files."""
    origin, settings = published.checkpoint, Settings.of(published.checkpoint)
    factor, sample_size = networks.vaes.scale_factor, networks.config.sample_size
    native = sample_size * factor
    trained = [side for size in ASPECT_RATIOS.get(sample_size, {}).values() for side in size]
    distilled = distillation_of(origin.id, scheduler)
    limits = settings.limits(
        size_limits(
            factor * networks.config.patch_size, _SMALLEST_GRID * factor, max(_LARGEST, native, *trained), native
        )
    )
    return Manifest(
        family=FAMILY.name,
        name=settings.name,
        components={},
        tokenizers={},
        scheduler=scheduler,
        config={**_config(published.index, networks), **few_step_entry(distilled.few_step)},
        defaults=settings.defaults(FAMILY, _defaults(native, networks, distilled, published.index), limits),
        limits=limits,
        source=source_of(origin, tiny_vae_of_another(places, origin)),
        tools={},
        files={},
        notes=() if settings.sets("generate", CONSISTENCY_DEFAULTS) else distilled.notes,
    )


def _config(index: Mapping[str, Any], networks: PixArtNetworks) -> dict[str, Any]:
    """The manifest's ``config``: the numbers that the family reads."""
    transformer = networks.config
    return {
        **networks.vaes.numbers(),
        "text_width": transformer.text_width,
        "text_length": checkpoint_layout.TEXT_LENGTHS[index["_class_name"]],
        "out_channels": transformer.channels,
        "sample_size": transformer.sample_size,
        "size_conditions": int(transformer.size_conditions),
    }


def _defaults(
    native: int, networks: PixArtNetworks, distilled: Distillation, index: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """The family's defaults, at the native size and with a distilled model's own steps."""
    own: dict[str, Any] = {"height": native, "width": native}
    own["max_sequence_length"] = checkpoint_layout.TEXT_LENGTHS[index["_class_name"]]
    own |= distilled.defaults
    if networks.config.sample_size not in ASPECT_RATIOS:
        own["use_resolution_binning"] = False
    defaults = FAMILY.defaults()
    defaults["generate"] |= own
    return defaults
