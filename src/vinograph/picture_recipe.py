"""What drew a picture, read from the texts in its file: Vinograph's own, or A1111's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from vinograph import a1111
from vinograph.families import registry
from vinograph.infotext import Infotext, parse_infotext
from vinograph.picture_texts import own_metadata, parameters_text
from vinograph.request import arguments_of
from vinograph.values import clipped

if TYPE_CHECKING:
    from vinograph.pipeline import Pipeline

_ENTRIES: Mapping[str, Any] = {"adapters": int | float, "embeddings": str, "file_hashes": str, "settings": str}
_CALL = "generate"


@dataclass(frozen=True)
class Recipe:
    """What drew a picture: the ``request`` of Vinograph's own metadata, or A1111's text.

    The request lacks the arguments ``left_out``, which a file doesn't store. ``adapters`` are their
    weights by file, ``embeddings`` learned words by file, and ``hashes`` those of these files.
    ``settings`` are those of OpenVINO's that components with low-bit weights were computed in.
    """

    model: str | None
    request: Mapping[str, Any] | None = None
    left_out: tuple[str, ...] = ()
    adapters: Mapping[str, float] = field(default_factory=dict)
    embeddings: Mapping[str, str] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    infotext: Infotext | None = None


def recipe_in(picture: Image.Image) -> Recipe | None:
    """What drew an opened picture, from Vinograph's own metadata where it has them.

    Returns None if it says nothing of how it was drawn.
    """
    own = own_metadata(picture)
    if own is not None and _is_recipe(own):
        entries = [own.get(name, {}) for name in _ENTRIES]
        return Recipe(own.get("model"), own["request"], tuple(own.get("left_out", ())), *entries)
    text = parameters_text(picture)
    if text is None or not text.strip():
        return None
    infotext = parse_infotext(text)
    from_image = "Denoising strength" in infotext.fields and "Hires upscale" not in infotext.fields
    _, tags = a1111.split_adapters(infotext.prompt)
    left_out = ("image",) if from_image else ()
    return Recipe(infotext.fields.get("Model"), left_out=left_out, adapters=tags, infotext=infotext)


def _is_recipe(metadata: Mapping[str, Any]) -> bool:
    """Whether the metadata has what :func:`recipe_in` relies on."""
    request, left_out = metadata.get("request"), metadata.get("left_out", [])
    if not isinstance(request, dict) or not isinstance(left_out, list):
        return False
    for name, kind in _ENTRIES.items():
        values = metadata.get(name, {})
        if not isinstance(values, dict) or not all(isinstance(each, kind) for each in values.values()):
            return False
    return all(isinstance(each, str) for each in (*left_out, metadata.get("model", ""), request.get("prompt", "")))


def arguments_of_recipe(
    pipe: Pipeline, recipe: Recipe, used_adapters: Mapping[str, float]
) -> tuple[dict[str, Any], list[str]]:
    """The arguments of a call that draws the picture again, and what of the recipe isn't followed.

    ``used_adapters`` are the files of those that draw, which the recipe's text may name.
    """
    if recipe.infotext is None:
        return _of_request(pipe, recipe)
    scheduler = pipe.model.manifest.scheduler
    found = a1111.arguments_of_infotext(recipe.infotext, pipe.options, pipe.calls[_CALL].takes, scheduler)
    used = {Path(name).name.removesuffix(".safetensors") for name in used_adapters}
    followed = {a1111.adapter_note(name, weight) for name, weight in recipe.adapters.items() if name in used}
    return found.values, [each for each in found.left_out if each not in followed]


def _of_request(pipe: Pipeline, recipe: Recipe) -> tuple[dict[str, Any], list[str]]:
    family, request = registry.family(pipe.model.manifest.family), recipe.request or {}
    # Nothing but what is recorded is taken: an "image" in a file from elsewhere would name a file here.
    recorded = {name for name, argument in arguments_of(family.request).items() if argument.recorded}
    known = recorded & pipe.calls[_CALL].takes.keys()
    kept = {name: value for name, value in request.items() if name in known and value is not None}
    return kept, [clipped(name) for name in request if name not in known]
