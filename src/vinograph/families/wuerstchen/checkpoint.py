"""Würstchen: what is read from a checkpoint, and what the model's manifest says.

Everything is checked before anything is built: classes, configurations, and every tensor's name, type and shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from vinograph.errors import DamagedModelError, ModelError, RequestError
from vinograph.families.wuerstchen import checkpoint_layout, network
from vinograph.families.wuerstchen.arguments import FAMILY, STAGE_SCHEDULER
from vinograph.families.wuerstchen.checkpoint_layout import Layout
from vinograph.families.wuerstchen.network_config import ImageEncoderConfig, StageAConfig, StageBConfig, StageCConfig
from vinograph.families.wuerstchen.network_image_encoder import IGNORED as IMAGE_ENCODER_IGNORED
from vinograph.families.wuerstchen.network_image_encoder import image_encoder
from vinograph.models.autoencoders import check_pairs
from vinograph.models.checkpoint import Place, fetch_parts
from vinograph.models.manifest import Manifest
from vinograph.models.opened import Opened, Published, TokenizerPlan
from vinograph.models.parts import (
    DIFFUSERS_STEM,
    TRANSFORMERS_STEM,
    ComponentPlan,
    OwnNetwork,
    Part,
    files_of,
    plan,
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
class Models:
    """The networks of a checkpoint, whose configurations fit each other; ``image_encoder`` where there is one."""

    prior_text_encoder: Part[ClipConfig]
    prior: Part[StageCConfig]
    text_encoder: Part[ClipConfig]
    decoder: Part[StageBConfig]
    vqgan: Part[StageAConfig]
    image_encoder: Part[ImageEncoderConfig] | None

    @classmethod
    def read(cls, places: Mapping[str, Place], image_encoder: Path | None) -> Models:
        """Read the configurations, and the headers of the weights.

        Raises:
            ModelError: a configuration makes no sense, or weights are missing or pickled; or the parts don't fit
                together.
            DamagedModelError: a file is damaged, or holds a tensor twice.
        """
        encoder = _image_encoder_file(image_encoder) if image_encoder is not None else None
        if encoder is None and "image_encoder" in places:
            encoder = read_part(places["image_encoder"], TRANSFORMERS_STEM, ImageEncoderConfig.from_mapping)
        models = cls(
            prior_text_encoder=_text_encoder(places["prior_text_encoder"]),
            prior=read_part(places["prior"], DIFFUSERS_STEM, StageCConfig.from_mapping),
            text_encoder=_text_encoder(places["text_encoder"]),
            decoder=read_part(places["decoder"], DIFFUSERS_STEM, StageBConfig.from_mapping),
            vqgan=read_part(places["vqgan"], DIFFUSERS_STEM, StageAConfig.from_mapping),
            image_encoder=encoder,
        )
        models._check_together()
        return models

    def _check_together(self) -> None:
        """The parts must fit each other: one checkpoint's prior may have been named for another's decoder."""
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
        """The components. Raises what :func:`vinograph.models.parts.plan` does."""
        has_attention = bool(network.attention_widths(self.decoder.config))
        found = [
            _text_plan("prior_text_encoder", self.prior_text_encoder),
            plan("prior_text", self.prior, network.prior_text, network.PRIOR_TEXT_IGNORED, compressible=True),
            plan("prior", self.prior, network.prior, network.PRIOR_IGNORED, compressible=True),
            _text_plan("text_encoder", self.text_encoder),
        ]
        if has_attention:
            ignored = network.DECODER_TEXT_IGNORED
            found.append(plan("decoder_text", self.decoder, network.decoder_text, ignored, compressible=True))
        found += [
            plan("decoder", self.decoder, network.decoder, network.DECODER_IGNORED, compressible=True),
            plan("vqgan", self.vqgan, network.vqgan_decoder, network.VQGAN_DECODER_IGNORED),
        ]
        if self.image_encoder is not None:
            found.append(
                plan(
                    "image_encoder",
                    self.image_encoder,
                    image_encoder,
                    IMAGE_ENCODER_IGNORED,
                )
            )
        return tuple(found)


def _text_plan(name: str, part: Part[ClipConfig]) -> ComponentPlan:
    return plan(name, part, clip.clip_text_encoder, clip.IGNORED, compressible=True)


def _text_encoder(place: Place) -> Part[ClipConfig]:
    return read_part(place, TRANSFORMERS_STEM, ClipConfig.from_mapping, clip.network_name)


def _image_encoder_file(file: Path) -> Part[ImageEncoderConfig]:
    """The published image encoder out of the file that was named for it."""
    if file.suffix in PICKLES:
        return Part(ImageEncoderConfig(), read_pickled(file, _PICKLED_KEY), str(file))
    return Part(ImageEncoderConfig(), read_header(file), str(file))


def open_published(published: Published) -> Opened:
    """Open a Würstchen checkpoint. Raises what :func:`vinograph.models.opening.open_checkpoint` says."""
    layout = checkpoint_layout.find(published.checkpoint, published.index, published.options.get("prior"))
    files = fetch_parts(layout.places, files_of, published.before_fetch)
    encoder_file = published.options.get("image_encoder")
    if encoder_file is not None:
        files.append(_existing(Path(encoder_file)))
    models = Models.read(layout.places, encoder_file)
    return Opened(
        manifest=_manifest(published, layout, models),
        components=models.plans(),
        tokenizers={
            "prior_tokenizer": _tokenizer(layout.places["prior_tokenizer"], models.prior_text_encoder),
            "tokenizer": _tokenizer(layout.places["tokenizer"], models.text_encoder),
        },
        files=tuple(files),
        licence_file=licence_file(published.checkpoint),
    )


def _existing(file: Path) -> Path:
    if not file.is_file():
        raise RequestError(f"--image-encoder {file} is not a file")
    return file


def _tokenizer(place: Place, text_encoder: Part[ClipConfig]) -> TokenizerPlan:
    return TokenizerPlan(place.directory, text_encoder.config.max_position_embeddings)


def _manifest(published: Published, layout: Layout, models: Models) -> Manifest:
    """The manifest, but for what only the written files can tell."""
    origin = published.checkpoint
    settings = Settings.of(origin)
    limits = settings.limits(_LIMITS)
    return Manifest(
        family=FAMILY.name,
        name=settings.name,
        components={},
        tokenizers={},
        scheduler={stage: _scheduler(layout.places[part]) for stage, part in _SCHEDULERS.items()},
        config=_config(layout, models),
        defaults=settings.defaults(FAMILY, FAMILY.defaults(), limits),
        limits=limits,
        source=source_of(origin, {"prior": layout.prior_id} if layout.prior_id else {}),
        tools={},
        files={},
    )


def _config(layout: Layout, models: Models) -> dict[str, Any]:
    """The numbers that the family calculates with."""
    prior, decoder, vqgan = models.prior.config, models.decoder.config, models.vqgan.config
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


def _scheduler(place: Place) -> dict[str, float]:
    """The two numbers of the cosine schedule.

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
