"""Würstchen checkpoints: read and checked, and described by a manifest.

Everything is checked before anything is built: classes, configurations, and every tensor's name,
type and shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from vinograph.errors import DamagedModelError, ModelError, RequestError
from vinograph.families.wuerstchen import checkpoint_layout, network
from vinograph.families.wuerstchen.arguments import FAMILY
from vinograph.families.wuerstchen.checkpoint_layout import Layout
from vinograph.families.wuerstchen.config import STAGE_SCHEDULER
from vinograph.families.wuerstchen.network_config import ImageEncoderConfig, StageAConfig, StageBConfig, StageCConfig
from vinograph.families.wuerstchen.network_image_encoder import IGNORED as IMAGE_ENCODER_IGNORED
from vinograph.families.wuerstchen.network_image_encoder import image_encoder
from vinograph.models.autoencoders import check_pairs
from vinograph.models.checkpoint import Subfolder, fetch_parts
from vinograph.models.checkpoint_model import OpenedCheckpoint, PublishedCheckpoint, TokenizerPlan
from vinograph.models.manifest import Manifest
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
from vinograph.models.pickled import read_pickled
from vinograph.models.safetensors import PICKLES, read_header
from vinograph.models.settings import Settings, licence_file, source_of
from vinograph.networks import clip
from vinograph.networks.clip import ClipConfig
from vinograph.schema import SchemaError
from vinograph.values import shown

PIPELINES = checkpoint_layout.PIPELINES
CLASSES = checkpoint_layout.CLASSES
SINGLE_FILES = checkpoint_layout.SINGLE_FILES
NETWORKS = {
    "WuerstchenPrior": OwnNetwork("prior", StageCConfig.from_mapping, "cond_mapper.0.weight", "--prior"),
    "WuerstchenDiffNeXt": OwnNetwork("decoder", StageBConfig.from_mapping, "clip_mapper.weight"),
    "PaellaVQModel": OwnNetwork("vqgan", StageAConfig.from_mapping, "vquantizer.embedding.weight"),
}
OPTIONS = ("prior", "image_encoder")
WEIGHTS = ("f16", "f32", "int8")

_PICKLED_KEY = "effnet_state_dict"
_SCHEDULERS = {"prior": "prior_scheduler", "decoder": "scheduler"}
_LIMITS: Mapping[str, int] = MappingProxyType(
    {"size_multiple": 128, "minimum_size": 128, "maximum_size": 2048, "native_size": 1024}
)


@dataclass(frozen=True)
class WuerstchenNetworks:
    """The networks of a checkpoint, whose configurations fit each other."""

    prior_text_encoder: Part[ClipConfig]
    prior: Part[StageCConfig]
    text_encoder: Part[ClipConfig]
    decoder: Part[StageBConfig]
    vqgan: Part[StageAConfig]
    image_encoder: Part[ImageEncoderConfig] | None

    @classmethod
    def read(cls, places: Mapping[str, Subfolder], image_encoder: Path | None) -> WuerstchenNetworks:
        """Read the configurations, and the headers of the weights.

        Raises:
            ModelError: a configuration makes no sense, or weights are missing or pickled; or the
                parts don't fit together.
            DamagedModelError: a file is damaged, or holds a tensor twice.
        """
        encoder = _image_encoder_file(image_encoder) if image_encoder is not None else None
        if encoder is None and "image_encoder" in places:
            encoder = read_part(places["image_encoder"], TRANSFORMERS_STEM, ImageEncoderConfig.from_mapping)
        networks = cls(
            prior_text_encoder=_text_encoder(places["prior_text_encoder"]),
            prior=read_part(places["prior"], DIFFUSERS_STEM, StageCConfig.from_mapping),
            text_encoder=_text_encoder(places["text_encoder"]),
            decoder=read_part(places["decoder"], DIFFUSERS_STEM, StageBConfig.from_mapping),
            vqgan=read_part(places["vqgan"], DIFFUSERS_STEM, StageAConfig.from_mapping),
            image_encoder=encoder,
        )
        networks._check_together()
        return networks

    def _check_together(self) -> None:
        """Compare the parts with each other: the prior may be that of another checkpoint."""
        prior, decoder = self.prior.config, self.decoder.config
        prior_text, text = self.prior_text_encoder.config, self.text_encoder.config
        pairs = [
            ("prior's text encoder gives", prior_text.hidden_size, "prior takes", prior.c_cond),
            ("text encoder gives", text.hidden_size, "decoder takes", decoder.clip_embd),
            ("prior draws", prior.c_in, "decoder takes", decoder.effnet_embd),
            ("decoder draws", decoder.c_out, "VQGAN takes", self.vqgan.config.latent_channels),
            ("decoder draws", decoder.c_out, "decoder takes", decoder.c_in),
        ]
        if self.image_encoder is not None:
            given = self.image_encoder.config.c_latent
            pairs.append(("image encoder gives", given, "decoder takes", decoder.effnet_embd))
        check_pairs(pairs, " channels")

    def plans(self) -> tuple[ComponentPlan, ...]:
        """Plans of the components. Raises what :func:`vinograph.models.parts.plan_component` does."""
        has_attention = bool(network.attention_widths(self.decoder.config))
        found = [
            _text_plan("prior_text_encoder", self.prior_text_encoder),
            plan_component("prior_text", self.prior, network.prior_text, network.PRIOR_TEXT_IGNORED, compressible=True),
            plan_component("prior", self.prior, network.prior, network.PRIOR_IGNORED, compressible=True),
            _text_plan("text_encoder", self.text_encoder),
        ]
        if has_attention:
            ignored = network.DECODER_TEXT_IGNORED
            found.append(plan_component("decoder_text", self.decoder, network.decoder_text, ignored, compressible=True))
        found += [
            plan_component("decoder", self.decoder, network.decoder, network.DECODER_IGNORED, compressible=True),
            plan_component("vqgan", self.vqgan, network.vqgan_decoder, network.VQGAN_DECODER_IGNORED),
        ]
        if self.image_encoder is not None:
            found.append(
                plan_component(
                    "image_encoder",
                    self.image_encoder,
                    image_encoder,
                    IMAGE_ENCODER_IGNORED,
                )
            )
        return tuple(found)


def _text_plan(name: str, part: Part[ClipConfig]) -> ComponentPlan:
    return plan_component(name, part, clip.clip_text_encoder, clip.IGNORED, compressible=True)


def _text_encoder(place: Subfolder) -> Part[ClipConfig]:
    return read_part(place, TRANSFORMERS_STEM, ClipConfig.from_mapping, clip.network_name)


def _image_encoder_file(file: Path) -> Part[ImageEncoderConfig]:
    """The published image encoder, read from the file that was named for it."""
    if file.suffix in PICKLES:
        return Part(ImageEncoderConfig(), read_pickled(file, _PICKLED_KEY), str(file))
    return Part(ImageEncoderConfig(), read_header(file), str(file))


def open_published(published: PublishedCheckpoint) -> OpenedCheckpoint:
    """Open a Würstchen checkpoint.

    Raises what :func:`vinograph.models.opening.open_checkpoint` does.
    """
    layout = checkpoint_layout.find(published.checkpoint, published.index, published.options.get("prior"))
    files = fetch_parts(layout.places, part_files, published.before_fetch)
    encoder_file = published.options.get("image_encoder")
    if encoder_file is not None:
        files.append(_existing(Path(encoder_file)))
    networks = WuerstchenNetworks.read(layout.places, encoder_file)
    return OpenedCheckpoint(
        manifest=_manifest(published, layout, networks),
        components=networks.plans(),
        tokenizers={
            "prior_tokenizer": _tokenizer(layout.places["prior_tokenizer"], networks.prior_text_encoder),
            "tokenizer": _tokenizer(layout.places["tokenizer"], networks.text_encoder),
        },
        files=tuple(files),
        licence_file=licence_file(published.checkpoint),
    )


def _existing(file: Path) -> Path:
    if not file.is_file():
        raise RequestError(f"--image-encoder {file} is not a file")
    return file


def _tokenizer(place: Subfolder, text_encoder: Part[ClipConfig]) -> TokenizerPlan:
    return TokenizerPlan(place.directory, text_encoder.config.max_position_embeddings)


def _manifest(published: PublishedCheckpoint, layout: Layout, networks: WuerstchenNetworks) -> Manifest:
    """The manifest, without what depends on the written files."""
    origin = published.checkpoint
    settings = Settings.of(origin)
    limits = settings.limits(_LIMITS)
    return Manifest(
        family=FAMILY.name,
        name=settings.name,
        components={},
        tokenizers={},
        scheduler={stage: _scheduler(layout.places[part]) for stage, part in _SCHEDULERS.items()},
        config=_config(layout, networks),
        defaults=settings.defaults(FAMILY, FAMILY.defaults(), limits),
        limits=limits,
        source=source_of(origin, {"prior": layout.prior_id} if layout.prior_id else {}),
        tools={},
        files={},
    )


def _config(layout: Layout, networks: WuerstchenNetworks) -> dict[str, Any]:
    """The manifest's ``config``: what the family reads, and a few numbers that only describe."""
    prior, decoder, vqgan = networks.prior.config, networks.decoder.config, networks.vqgan.config
    return {
        **layout.numbers,
        "prior_channels": prior.c_in,
        "latent_channels": decoder.c_in,
        "scale_factor": vqgan.scale_factor,
        "decoder_patch_size": decoder.patch_size,
        "decoder_level_count": len(decoder.c_hidden),
        "effnet_levels": list(network.effnet_levels(decoder)),
        "prior_text_width": prior.c_cond,
        "decoder_text_width": decoder.clip_embd,
        "prior_attention": prior.depth,
        "decoder_attention_widths": list(network.attention_widths(decoder)),
    }


def _scheduler(place: Subfolder) -> dict[str, float]:
    """Read the two numbers of a stage's cosine schedule.

    Raises:
        ModelError: it is another scheduler than Würstchen's.
        DamagedModelError: they are no numbers.
    """
    config = place.config("scheduler_config.json")
    kind = config.get("_class_name", "DDPMWuerstchenScheduler")
    if kind != "DDPMWuerstchenScheduler":
        raise ModelError(f"{place.checkpoint.id} is sampled by {shown(kind)}; Würstchen's is DDPMWuerstchenScheduler")
    numbers = {"scaler": config.get("scaler", 1.0), "s": config.get("s", 0.008)}
    try:
        STAGE_SCHEDULER.check("its scheduler", numbers)
    except SchemaError as error:
        raise DamagedModelError(f"{place.directory / 'scheduler_config.json'} can't be used: {error}") from error
    return {name: float(each) for name, each in numbers.items()}
