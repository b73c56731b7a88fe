"""PixArt: what is read from a checkpoint, and what the model's manifest says.

Everything is checked before anything is built: classes, configurations, and every tensor's name, type and shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from vinograph import schedulers
from vinograph.families.pixart import checkpoint_layout, network
from vinograph.families.pixart.arguments import FAMILY
from vinograph.families.pixart.aspect_ratios import ASPECT_RATIOS
from vinograph.families.pixart.known import CONSISTENCY_DEFAULTS
from vinograph.families.pixart.network_config import PixArtConfig
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

PIPELINES = tuple(checkpoint_layout.TEXT_LENGTHS)
CLASSES = checkpoint_layout.CLASSES
SINGLE_FILES = checkpoint_layout.SINGLE_FILES
NETWORKS = {
    name: OwnNetwork("transformer", PixArtConfig.from_mapping, "adaln_single.linear.weight")
    for name in ("PixArtTransformer2DModel", "Transformer2DModel")
}
OPTIONS = ("tiny_vae",)
WEIGHTS = ("f16", "f32", "int8", "int4")
"""Of which those in int8 and int4 are the text encoder's; all others are stored in f16 beside them."""

_LARGEST = 2048
_SMALLEST_GRID = 8
_CONSISTENCY = "LCMScheduler"


@dataclass(frozen=True)
class Models:
    """The networks of a checkpoint, whose configurations fit each other."""

    text_encoder: Part[T5Config]
    transformer: Part[PixArtConfig]
    autoencoders: Autoencoders

    @classmethod
    def read(cls, places: Mapping[str, Subfolder]) -> Models:
        """Read the configurations, and the headers of the weights.

        Raises:
            ModelError: a configuration makes no sense, or isn't computed here; or weights are missing or pickled; or
                the parts don't fit together.
            DamagedModelError: a file is damaged, or holds a tensor twice.
        """
        models = cls(
            text_encoder=read_part(places["text_encoder"], TRANSFORMERS_STEM, T5Config.from_mapping),
            transformer=read_part(places["transformer"], DIFFUSERS_STEM, PixArtConfig.from_mapping),
            autoencoders=Autoencoders.read(places),
        )
        text, transformer = models.text_encoder.config, models.config
        check_pairs([("text encoder gives", text.d_model, "transformer takes", transformer.text_width)])
        models.vaes.check("transformer")
        return models

    @property
    def config(self) -> PixArtConfig:
        """The transformer's configuration."""
        return self.transformer.config

    @property
    def vaes(self) -> AutoencoderConfigs:
        """The autoencoders' configurations."""
        return self.autoencoders.config

    def plans(self) -> tuple[ComponentPlan, ...]:
        """The components. Raises what :func:`vinograph.models.parts.plan_component` does."""
        return (
            plan_component("text_encoder", self.text_encoder, t5.t5_encoder, t5.IGNORED, compressible=True),
            plan_component("transformer", self.transformer, network.pixart, network.IGNORED),
            *self.autoencoders.plans(),
        )


def open_published(published: PublishedCheckpoint) -> OpenedCheckpoint:
    """Open a PixArt checkpoint. Raises what :func:`vinograph.models.opening.open_checkpoint` says."""
    places = checkpoint_layout.find(published.checkpoint, published.index, published.options.get("tiny_vae"))
    scheduler = schedulers.settings(scheduler_config(places["scheduler"], published.index))
    files = fetch_parts(places, partial(part_files, tokenizer=T5), published.before_fetch)
    models = Models.read(places)
    length = checkpoint_layout.TEXT_LENGTHS[published.index["_class_name"]]
    return OpenedCheckpoint(
        manifest=_manifest(published, places, models, scheduler),
        components=models.plans(),
        tokenizers={"tokenizer": TokenizerPlan(places["tokenizer"].directory, length, T5)},
        files=tuple(files),
        licence_file=licence_file(published.checkpoint),
    )


def _manifest(
    published: PublishedCheckpoint, places: Mapping[str, Subfolder], models: Models, scheduler: Mapping[str, Any]
) -> Manifest:
    """The manifest, but for what only the written files can tell."""
    origin, settings = published.checkpoint, Settings.of(published.checkpoint)
    factor, sample_size = models.vaes.scale_factor, models.config.sample_size
    native = sample_size * factor
    trained = [side for size in ASPECT_RATIOS.get(sample_size, {}).values() for side in size]
    limits = settings.limits(
        size_limits(factor * models.config.patch_size, _SMALLEST_GRID * factor, max(_LARGEST, native, *trained), native)
    )
    return Manifest(
        family=FAMILY.name,
        name=settings.name,
        components={},
        tokenizers={},
        scheduler=scheduler,
        config=_config(published.index, models),
        defaults=settings.defaults(FAMILY, _defaults(native, models, scheduler, published.index), limits),
        limits=limits,
        source=source_of(origin, tiny_vae_of_another(places, origin)),
        tools={},
        files={},
        notes=_notes(scheduler, settings),
    )


def _notes(scheduler: Mapping[str, Any], settings: Settings) -> tuple[str, ...]:
    """What was assumed of how the model draws."""
    if scheduler["class"] != _CONSISTENCY or settings.sets("generate", CONSISTENCY_DEFAULTS):
        return ()
    return (
        "defaults assumed: 4 steps without guidance, as for PixArt's consistency model, by the LCMScheduler; otherwise "
        "give --steps and --guidance-scale, or set them in the checkpoint's vinograph.json",
    )


def _config(index: Mapping[str, Any], models: Models) -> dict[str, Any]:
    """The numbers that the family calculates with."""
    transformer = models.config
    return {
        **models.vaes.numbers(),
        "text_width": transformer.text_width,
        "text_length": checkpoint_layout.TEXT_LENGTHS[index["_class_name"]],
        "out_channels": transformer.channels,
        "sample_size": transformer.sample_size,
        "size_conditions": int(transformer.size_conditions),
    }


def _defaults(
    native: int, models: Models, scheduler: Mapping[str, Any], index: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """The family's defaults at the size that the model was trained on; a consistency model's own steps and guidance."""
    own: dict[str, Any] = {"height": native, "width": native}
    own["max_sequence_length"] = checkpoint_layout.TEXT_LENGTHS[index["_class_name"]]
    if scheduler["class"] == _CONSISTENCY:
        own |= CONSISTENCY_DEFAULTS
    if models.config.sample_size not in ASPECT_RATIOS:
        own["use_resolution_binning"] = False
    defaults = FAMILY.defaults()
    defaults["generate"] |= own
    return defaults
