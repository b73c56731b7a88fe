"""SDXL put together from a single file or a UNet alone, a base model, and a VAE that is named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from vinograph import schedulers
from vinograph.errors import ModelError
from vinograph.families.sdxl.checkpoint_base import Base
from vinograph.families.sdxl.checkpoint_single import SCALING_FACTOR, SDXLFile
from vinograph.families.sdxl.network import unet
from vinograph.families.sdxl.network_config import UNetConfig
from vinograph.models.autoencoders import AutoencoderConfigs, Autoencoders, check_pairs, tiny_autoencoder, tiny_plans
from vinograph.models.checkpoint import Checkpoint, Subfolder, fetch_parts
from vinograph.models.checkpoint_model import OpenedCheckpoint, PublishedCheckpoint, StoredTokenizer, TokenizerPlan
from vinograph.models.clip_vocabulary import VOCABULARY_SIZE, clip_tokenizers
from vinograph.models.manifest import Manifest
from vinograph.models.named_vae import NamedVae, named_vae
from vinograph.models.parts import DIFFUSERS_STEM, ComponentPlan, Part, part_files, plan_component, read_part
from vinograph.models.settings import licence_file
from vinograph.models.text_encoder_files import OPEN_CLIP_IGNORED
from vinograph.models.vae_layout import named_tiny_vae
from vinograph.networks import clip
from vinograph.networks.clip import ClipConfig
from vinograph.networks.graph import Network, Weights
from vinograph.networks.tiny_vae import TinyAutoencoderConfig

_SAMPLE_SIZE = 128  # SDXL's, of 1024 pixels
_PADDING = {"tokenizer": VOCABULARY_SIZE - 1, "tokenizer_2": 0}  # "<|endoftext|>" and "!"
_SUGGESTED_BASE = "--base stabilityai/stable-diffusion-xl-base-1.0"


@dataclass(frozen=True)
class TextEncoders:
    """Both text encoders, of the file or of the base: widths, plans and tokenizers."""

    widths: tuple[int, int]
    pooled_width: int
    plans: tuple[ComponentPlan, ...]
    tokenizers: Mapping[str, TokenizerPlan | StoredTokenizer]


@dataclass(frozen=True)
class VaeNumbers:
    """The VAEs' entries of a manifest, and how many times smaller than pictures latents are."""

    scale_factor: int
    values: Mapping[str, Any]

    def numbers(self) -> dict[str, Any]:
        """The entries."""
        return dict(self.values)


@dataclass(frozen=True)
class ComposedConfig:
    """The configuration of what was put together, as the manifest is made from it."""

    unet: UNetConfig
    text_widths: tuple[int, int]
    autoencoders: VaeNumbers | AutoencoderConfigs


@dataclass(frozen=True)
class Composed:
    """A model that was put together from several sources.

    ``scheduler`` is a configuration in the form of a manifest. ``also`` names the other sources.
    ``flags`` are entries of the manifest's ``config`` that the base decides.
    """

    config: ComposedConfig
    components: tuple[ComponentPlan, ...]
    tokenizers: Mapping[str, TokenizerPlan | StoredTokenizer]
    scheduler: Mapping[str, Any]
    files: tuple[Path, ...]
    also: Mapping[str, str]
    notes: tuple[str, ...]
    flags: Mapping[str, Any]

    @property
    def grid_multiple(self) -> int:
        """Divisor of the latents' sides: 1, since any size can be drawn."""
        return 1

    def opened(self, checkpoint: Checkpoint, manifest: Manifest) -> OpenedCheckpoint:
        """The model, given the manifest that describes its configuration."""
        source = replace(manifest.source, also={**manifest.source.also, **self.also})
        return OpenedCheckpoint(
            manifest=replace(
                manifest,
                source=source,
                config={**manifest.config, **self.flags},
                notes=(*self.notes, *manifest.notes),
            ),
            components=self.components,
            tokenizers=self.tokenizers,
            files=self.files,
            licence_file=licence_file(checkpoint),
        )


def compose(published: PublishedCheckpoint) -> Composed:
    """Put a model together from a single file or a UNet alone, and the sources that are named.

    Raises:
        RequestError: a source that is named is of another family, or isn't there.
        ModelError: something is missing, or parts don't fit together.
        DamagedModelError: a file is damaged.
    """
    reference = published.options.get("base")
    base = None if reference is None else Base.open(str(reference))
    file = SDXLFile.read(published.checkpoint) if published.checkpoint.file is not None else None
    if file is not None:
        published.before_fetch([(file.checkpoint, sorted(file.checkpoint.listing))])
    texts = _text_encoders(file, base, published.checkpoint)
    if file is None:
        network, unet_files = _unet_alone(published)
    else:
        size = _SAMPLE_SIZE if file.has_text_encoders or base is None else base.sample_size
        network, unet_files = file.unet(texts.pooled_width, size), [file.checkpoint.path]
    check_pairs(
        [
            ("text encoders give", sum(texts.widths), "UNet takes", network.config.text_width),
            ("second text encoder pools to", texts.pooled_width, "UNet takes", network.config.pooled_width),
        ]
    )
    vae_source = published.options.get("vae")
    named = None if vae_source is None else named_vae(str(vae_source), SCALING_FACTOR)
    vaes, vae_plans = _vaes(file, base, named, published)
    tokenizer_files = [path for each in texts.tokenizers.values() for path in _tokenizer_files(each)]
    return Composed(
        config=ComposedConfig(network.config, texts.widths, vaes),
        components=(*texts.plans, plan_component("unet", network, unet, compressible=True), *vae_plans),
        tokenizers=texts.tokenizers,
        scheduler=_scheduler(file, base),
        files=tuple(
            {*unet_files, *tokenizer_files, *(named.files if named else ()), *(base.opened.files if base else ())}
        ),
        also=_also(base, named),
        notes=tuple(file.notes()) if file is not None else (),
        flags=base.flags if base is not None else {},
    )


def _also(base: Base | None, named: NamedVae | None) -> dict[str, str]:
    also = {} if base is None else {"base": base.name}
    return also if named is None else {**also, "vae": named.checkpoint.id}


def _text_encoders(file: SDXLFile | None, base: Base | None, checkpoint: Checkpoint) -> TextEncoders:
    """The text encoders of the file, else of the base."""
    if file is None or not file.has_text_encoders:
        if base is None:
            raise ModelError(
                f"{checkpoint.source} is SDXL's UNet without text encoders. Name the model that has the rest, such as "
                f"{_SUGGESTED_BASE}"
            )
        return TextEncoders(base.text_widths, base.pooled_width, base.text_encoder_plans(), base.tokenizers)
    first, second = file.text_encoders
    ignored = f"{clip.IGNORED}|{OPEN_CLIP_IGNORED}"
    plans = (
        plan_component("text_encoder", first, partial(_states, False), ignored, compressible=True),
        plan_component("text_encoder_2", second, partial(_states, True), ignored, compressible=True),
    )
    widths = first.config.hidden_size, second.config.hidden_size
    return TextEncoders(widths, second.config.projection_dim, plans, _tokenizers(file, base, first, second))


def _states(projects: bool, config: ClipConfig, weights: Weights) -> Network:
    return clip.clip_hidden_states(config, weights, projects=projects)


def _tokenizers(
    file: SDXLFile, base: Base | None, first: Part[ClipConfig], second: Part[ClipConfig]
) -> Mapping[str, TokenizerPlan | StoredTokenizer]:
    """The base's tokenizers, or CLIP's own where none is named and the vocabulary is CLIP's."""
    if base is not None:
        return base.tokenizers
    for part in (first, second):
        if part.config.vocab_size != VOCABULARY_SIZE:
            raise ModelError(
                f"{file.origin} has a vocabulary of {part.config.vocab_size:,} tokens, and CLIP's has "
                f"{VOCABULARY_SIZE:,}. Name the model whose tokenizer it takes with --base MODEL"
            )
    lengths = {"tokenizer": first.config, "tokenizer_2": second.config}
    return clip_tokenizers({name: each.max_position_embeddings for name, each in lengths.items()}, _PADDING)


def _tokenizer_files(plan: TokenizerPlan | StoredTokenizer) -> list[Path]:
    if isinstance(plan, StoredTokenizer):
        return [plan.folder / plan.file]
    return [plan.folder / name for name in plan.kind.files_of({each.name for each in plan.folder.iterdir()})]


def _unet_alone(published: PublishedCheckpoint) -> tuple[Part[UNetConfig], list[Path]]:
    """The UNet of a directory or repository that is nothing else."""
    listing = published.checkpoint.listing
    folder = (
        ""
        if "config.json" in listing
        else next(n.rpartition("/")[0] for n in sorted(listing) if n.endswith("/config.json"))
    )
    place = Subfolder(published.checkpoint, folder)
    files = fetch_parts({"unet": place}, part_files, published.before_fetch)
    return read_part(place, DIFFUSERS_STEM, UNetConfig.from_mapping), files


def _vaes(
    file: SDXLFile | None, base: Base | None, named: NamedVae | None, published: PublishedCheckpoint
) -> tuple[VaeNumbers | AutoencoderConfigs, tuple[ComponentPlan, ...]]:
    """The VAE that is named, else the file's own, else those of the base; and a tiny one that is named."""
    full = named.part if named is not None else file.vae if file is not None else None
    tiny = _tiny_vae(published.options.get("tiny_vae"))
    if full is None and base is not None:
        numbers, plans = base.vae_numbers, base.vae_plans()
        if tiny is not None:
            numbers["tiny_vae_scaling_factor"] = tiny.config.scaling_factor
            plans = (*(plan for plan in plans if not plan.name.startswith("tiny_")), *tiny_plans(tiny))
        return VaeNumbers(int(numbers["vae_scale_factor"]), numbers), plans
    if full is None and tiny is None:
        raise ModelError(
            f"{published.checkpoint.source} has no VAE. Name one with --vae FILE, such as sdxl_vae.safetensors, or a "
            "model that has one with --base MODEL"
        )
    autoencoders = Autoencoders(full, tiny)
    autoencoders.config.check("UNet")
    return autoencoders.config, autoencoders.plans()


def _tiny_vae(source: str | None) -> Part[TinyAutoencoderConfig] | None:
    if source is None:
        return None
    place = named_tiny_vae(source)
    fetch_parts({"tiny_vae": place}, part_files)
    return tiny_autoencoder(place)


def _scheduler(file: SDXLFile | None, base: Base | None) -> Mapping[str, Any]:
    """The scheduler that the file is marked for, or else the base's."""
    own = file.scheduler() if file is not None else None
    if own is not None:
        return schedulers.read_published_scheduler(own)
    assert base is not None, "a UNet alone has one"
    return base.opened.manifest.scheduler
