"""The two layouts that Würstchen checkpoints are published in.

One repository with everything (``prior_prior/``, ``prior_text_encoder/``, …, ``decoder/``, …), or
the decoder's, whose model card names the prior's (``prior/``, ``text_encoder/``, …) in its front
matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from vinograph.errors import ModelError
from vinograph.families.wuerstchen.config import CONFIG_KINDS
from vinograph.models.checkpoint import INDEX_FILE, Checkpoint, Subfolder, locate
from vinograph.models.model_index import check_classes
from vinograph.schema import SchemaError, label

COMBINED, DECODER, PRIOR = "WuerstchenCombinedPipeline", "WuerstchenDecoderPipeline", "WuerstchenPriorPipeline"
PIPELINES = (COMBINED, DECODER)

# Parts are named as the combined layout names their folders, but for the prior itself.
_PRIOR_PARTS = ("prior", "prior_text_encoder", "prior_tokenizer", "prior_scheduler")
_DECODER_PARTS = ("decoder", "vqgan", "text_encoder", "tokenizer", "scheduler")

SINGLE_FILES: Mapping[str, str] = MappingProxyType({})
"""Prefixes of tensors in single files that are opened: none, since the authors' are pickled."""

# Of a whole CLIPModel, the text encoder is used.
_TEXT_ENCODER = {("transformers", name) for name in ("CLIPTextModel", "CLIPTextModelWithProjection", "CLIPModel")}
_TOKENIZER = {("transformers", "CLIPTokenizer"), ("transformers", "CLIPTokenizerFast")}
_SCHEDULER = {("diffusers", "DDPMWuerstchenScheduler")}


def _model(name: str) -> set[tuple[str, str]]:
    return {("diffusers", name), ("wuerstchen", name)}


CLASSES: Mapping[str, set[tuple[str, str]]] = MappingProxyType(
    {
        "prior_prior": _model("WuerstchenPrior"),
        "prior": _model("WuerstchenPrior"),
        "prior_text_encoder": _TEXT_ENCODER,
        "prior_tokenizer": _TOKENIZER,
        "prior_scheduler": _SCHEDULER,
        "decoder": _model("WuerstchenDiffNeXt"),
        "vqgan": _model("PaellaVQModel"),
        "text_encoder": _TEXT_ENCODER,
        "tokenizer": _TOKENIZER,
        "scheduler": _SCHEDULER,
    }
)


@dataclass(frozen=True)
class Layout:
    """The place of every part. ``numbers`` are those of the pipelines' own configurations."""

    places: Mapping[str, Subfolder]
    numbers: Mapping[str, float]
    prior_id: str | None


def find(main: Checkpoint, index: Mapping[str, Any], prior: str | None) -> Layout:
    """Find every part, opening the prior's repository where it is another one.

    Args:
        main: the checkpoint to convert.
        index: its model_index.json.
        prior: another prior: a checkpoint with one, or a directory with its configuration and
            weights alone.

    Raises:
        ModelError: a part is missing, is of an unknown class, or no prior is named.
    """
    check_classes(index, CLASSES, main.id)
    places = {part: Subfolder(main, part) for part in _DECODER_PARTS}
    numbers = {"latent_dim_scale": 10.67, **_numbers(index, main.id)}
    if main.has_folder("image_encoder"):
        places["image_encoder"] = Subfolder(main, "image_encoder")
    other, bare = _other_prior(prior)
    if bare is None and other is None and index["_class_name"] == COMBINED:
        places |= _prior_places(main, COMBINED)
        prior_id = None
    else:
        if other is None and index["_class_name"] != COMBINED:
            other = locate(_named_prior(main))
        home = other or main
        home_index = home.read_json(INDEX_FILE)
        check_classes(home_index, CLASSES, home.id)
        places |= _prior_places(home, home_index.get("_class_name"))
        numbers |= _numbers(home_index, home.id)
        prior_id = home.id
    if bare is not None:
        places["prior"] = Subfolder(bare, "")
        prior_id = bare.id
    prior_numbers = {"resolution_multiple": 42.67, "latent_mean": 42.0, "latent_std": 1.0}
    return Layout(places, prior_numbers | numbers, prior_id)


def _other_prior(prior: str | None) -> tuple[Checkpoint | None, Checkpoint | None]:
    """The checkpoint that ``--prior`` names: first a whole one, second a bare Stage C."""
    if prior is None:
        return None, None
    checkpoint = locate(prior)
    if INDEX_FILE in checkpoint.listing:
        return checkpoint, None
    if "config.json" in checkpoint.listing:
        return None, checkpoint
    raise ModelError(
        f"the prior {prior} has neither a {INDEX_FILE} nor a config.json: give a checkpoint with a prior, or a "
        "directory with a prior's config.json and weights"
    )


def _named_prior(decoder: Checkpoint) -> str:
    """The id of the prior's repository in the front matter of the decoder's model card."""
    named = decoder.card().get("prior")
    if named is None:
        raise ModelError(
            f"{decoder.id} holds the decoder alone, and its README.md names no prior: name one with --prior "
            f"in a conversion, and use its bundle: vinograph convert {decoder.source} BUNDLE --prior "
            "warp-ai/wuerstchen-prior"
        )
    return named


def _prior_places(checkpoint: Checkpoint, pipeline: Any) -> dict[str, Subfolder]:
    if pipeline == COMBINED:
        folders = {part: "prior_prior" if part == "prior" else part for part in _PRIOR_PARTS}
    elif pipeline == PRIOR:
        folders = {part: part if part == "prior" else part.removeprefix("prior_") for part in _PRIOR_PARTS}
    else:
        raise ModelError(f"{checkpoint.id} is a {label(pipeline)}, which has no prior; name a {PRIOR} or a {COMBINED}")
    return {part: Subfolder(checkpoint, folder) for part, folder in folders.items()}


def _numbers(index: Mapping[str, Any], origin: str) -> dict[str, float]:
    """Read the pipelines' own numbers from a model_index.json, as far as it has them.

    Raises:
        ModelError: one of them is no number, or none that can be drawn with.
    """
    names = ("latent_dim_scale", "resolution_multiple", "latent_mean", "latent_std")
    given = {name: index[name] for name in names if index.get(name) is not None}
    for name, value in given.items():
        try:
            CONFIG_KINDS[name].check(name, value)
        except SchemaError as error:
            raise ModelError(f"{origin}: in {INDEX_FILE} {error}") from error
    return {name: float(value) for name, value in given.items()}
