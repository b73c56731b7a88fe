"""Reads from a picture's file what drew it, for ``generate --again``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vinograph import a1111
from vinograph.cli.options import flag
from vinograph.errors import ModelError, RequestError
from vinograph.families import registry
from vinograph.images import open_picture
from vinograph.infotext import Infotext, parse_infotext
from vinograph.picture_texts import own_metadata, parameters_text
from vinograph.request import OPTIONS, GivenArguments, arguments_of
from vinograph.values import clipped

if TYPE_CHECKING:
    from vinograph.pipeline import Pipeline

_AGAIN = flag("again")
_NAME = re.compile(r"[\w.-]+")  # no path and no hub id: a file from elsewhere fetches nothing
_NEVER = ("output_type", "num_images_per_prompt")
_CALL = "generate"


@dataclass(frozen=True)
class Recipe:
    """What drew the picture in ``file``: the ``request`` of Vinograph's own metadata, or A1111's text.

    The request lacks the arguments ``left_out``, which a file doesn't store. ``adapters`` are their
    weights by file.
    """

    file: Path
    model: str | None
    request: Mapping[str, Any] | None = None
    left_out: tuple[str, ...] = ()
    adapters: Mapping[str, float] = field(default_factory=dict)
    infotext: Infotext | None = None


def read_recipe(file: str) -> Recipe:
    """Read what drew the picture in ``file``, from Vinograph's own metadata where it has them.

    Raises:
        RequestError: it is no picture, or says nothing of how it was drawn.
    """
    picture, path = open_picture(file, _AGAIN), Path(file)
    own = own_metadata(picture)
    if own is not None and _is_recipe(own):
        return Recipe(path, own.get("model"), own["request"], tuple(own.get("left_out", ())), own.get("adapters", {}))
    text = parameters_text(picture)
    if text is None or not text.strip():
        raise RequestError(
            f"{_AGAIN} {clipped(file)}: the picture doesn't say how it was drawn. Vinograph stores that in pictures "
            "unless --no-metadata is given, and programs that edit pictures often drop it"
        )
    infotext = parse_infotext(text)
    from_image = "Denoising strength" in infotext.fields and "Hires upscale" not in infotext.fields
    return Recipe(path, infotext.fields.get("Model"), left_out=("image",) if from_image else (), infotext=infotext)


def _is_recipe(metadata: Mapping[str, Any]) -> bool:
    """Whether the metadata has what :func:`read_recipe` relies on."""
    request, left_out, adapters = metadata.get("request"), metadata.get("left_out", []), metadata.get("adapters", {})
    if not isinstance(request, dict) or not isinstance(left_out, list) or not isinstance(adapters, dict):
        return False
    if not all(isinstance(each, int | float) for each in adapters.values()):
        return False
    return all(isinstance(each, str) for each in (*left_out, metadata.get("model", ""), request.get("prompt", "")))


def model_of(recipe: Recipe) -> str:
    """Name of the model that drew the picture.

    Raises:
        ModelError: the file doesn't name it.
    """
    name = recipe.model
    if name is None or _NAME.fullmatch(name) is None:
        named = "names no model" if name is None else f"names the model {clipped(name)}"
        raise ModelError(f"{recipe.file} {named}, which is no name to look for: give the model with --model REF")
    return name


@contextmanager
def opening(recipe: Recipe) -> Iterator[None]:
    """Say where the model's name comes from, if it can't be opened.

    Raises:
        ModelError: there is no model of that name here.
    """
    try:
        yield
    except ModelError as error:
        raise ModelError(
            f"{recipe.file} was drawn by the model {recipe.model}, which can't be opened by that name ({error}). "
            "Give it with --model REF"
        ) from error


def with_recipe(pipe: Pipeline, recipe: Recipe, given: GivenArguments) -> tuple[GivenArguments, list[str]]:
    """Complete the arguments ``given`` with those of the picture, and warn of what can't be followed.

    Raises:
        RequestError: the picture was drawn with an argument that its file doesn't hold, and that
            isn't given.
    """
    values, warnings = _of_infotext(pipe, recipe) if recipe.infotext is not None else _of_request(pipe, recipe)
    values = {name: value for name, value in values.items() if name not in _NEVER}
    if missing := [name for name in recipe.left_out if name not in given.values]:
        options = {argument: name for name, argument in {**OPTIONS, **pipe.options}.items()}
        again = " ".join(f"{flag(options[name])} FILE" for name in missing if name in options)
        remedy = f"give it again: {again}" if again else "it can be drawn again from Python, where that is at hand"
        raise RequestError(
            f"{_AGAIN} {recipe.file}: it was drawn with {', '.join(missing)}, which its file doesn't hold; {remedy}"
        )
    if recipe.adapters and not pipe.adapters:
        used = " ".join(f"{flag('adapter')} {clipped(name)}:{weight:g}" for name, weight in recipe.adapters.items())
        raise RequestError(
            f"{_AGAIN} {recipe.file}: it was drawn with adapters, whose files no picture may choose; give them: {used}"
        )
    if "seed" not in {**values, **given.values}:
        warnings.append(f"{recipe.file} doesn't say its seed, so that another picture is drawn")
    return replace(given, values={**values, **given.values}), warnings


def _of_request(pipe: Pipeline, recipe: Recipe) -> tuple[dict[str, Any], list[str]]:
    family, request = registry.family(pipe.model.manifest.family), recipe.request or {}
    # Nothing but what is recorded is taken: an "image" in a file from elsewhere would name a file here.
    recorded = {name for name, argument in arguments_of(family.request).items() if argument.recorded}
    known = recorded & pipe.calls[_CALL].takes.keys()
    kept = {name: value for name, value in request.items() if name in known and value is not None}
    unknown = [clipped(name) for name in request if name not in known]
    warnings = [f"models of the family {family.name} take no {', '.join(unknown)}: left out of {recipe.file}'s request"]
    return kept, warnings if unknown else []


def _of_infotext(pipe: Pipeline, recipe: Recipe) -> tuple[dict[str, Any], list[str]]:
    assert recipe.infotext is not None
    scheduler = pipe.model.manifest.scheduler
    found = a1111.arguments_of_infotext(recipe.infotext, pipe.options, pipe.calls[_CALL].takes, scheduler)
    warnings = [f"not followed, of what {recipe.file} says: {'; '.join(found.left_out)}"] if found.left_out else []
    return found.values, warnings
