"""Which file of a toy checkpoint is which component, and what the model's manifest says."""

from __future__ import annotations

from collections.abc import Mapping

from vinograph.models.autoencoders import check_pairs
from vinograph.models.checkpoint import Subfolder, fetch_parts
from vinograph.models.checkpoint_model import OpenedCheckpoint, PublishedCheckpoint, TokenizerPlan
from vinograph.models.manifest import Manifest
from vinograph.models.model_index import check_classes, require_parts
from vinograph.models.parts import DIFFUSERS_STEM, OwnNetwork, part_files, plan_component, read_part
from vinograph.models.settings import Settings, licence_file, size_limits, source_of

from .arguments import FAMILY
from .network import SmootherConfig, TableConfig, smoother, text_table

PIPELINES = ("ToyPipeline",)
CLASSES: Mapping[str, set[tuple[str, str]]] = {
    "tokenizer": {("transformers", "CLIPTokenizer")},
    "text_table": {("toylib", "ToyTextTable")},
    "smoother": {("toylib", "ToySmoother")},
}
NETWORKS = {"ToySmoother": OwnNetwork("smoother", SmootherConfig.from_mapping, "last.weight")}
SINGLE_FILES: Mapping[str, str] = {}
OPTIONS = ()
WEIGHTS = ("f16", "f32", "int8")
_SMALLEST, _LARGEST = 16, 256


def open_published(published: PublishedCheckpoint) -> OpenedCheckpoint:
    """Open a toy checkpoint. Raises what :func:`vinograph.models.opening.open_checkpoint` says."""
    checkpoint = published.checkpoint
    check_classes(published.index, CLASSES, checkpoint.id)
    require_parts(published.index, tuple(CLASSES), checkpoint.id)
    places = {part: Subfolder(checkpoint, part) for part in CLASSES}
    files = fetch_parts(places, part_files)
    table = read_part(places["text_table"], DIFFUSERS_STEM, TableConfig.from_mapping)
    network = read_part(places["smoother"], DIFFUSERS_STEM, SmootherConfig.from_mapping)
    check_pairs([("text table gives", table.config.hidden_size, "smoother takes", network.config.text_width)])
    return OpenedCheckpoint(
        manifest=_manifest(published, network.config),
        components=(
            plan_component("text_table", table, text_table, compressible=True),
            plan_component("smoother", network, smoother, compressible=True),
        ),
        tokenizers={"tokenizer": TokenizerPlan(places["tokenizer"].directory, table.config.max_position_embeddings)},
        files=tuple(files),
        licence_file=licence_file(checkpoint),
    )


def _manifest(published: PublishedCheckpoint, config: SmootherConfig) -> Manifest:
    settings, native = Settings.of(published.checkpoint), config.sample_size
    limits = settings.limits(size_limits(8, _SMALLEST, _LARGEST, native))
    defaults = FAMILY.defaults()
    defaults["generate"] |= {"height": native, "width": native}
    return Manifest(
        family=FAMILY.name,
        name=settings.name,
        components={},
        tokenizers={},
        scheduler={},
        config={"channels": config.channels},
        defaults=settings.defaults(FAMILY, defaults, limits),
        limits=limits,
        source=source_of(published.checkpoint, {}),
        tools={},
        files={},
    )
