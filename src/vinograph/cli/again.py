"""Reads from a picture's file what drew it, for ``generate --again``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vinograph import a1111
from vinograph.adapters import file as adapter_file
from vinograph.cli.options import flag
from vinograph.errors import ModelError, RequestError
from vinograph.families import registry
from vinograph.images import open_picture
from vinograph.infotext import Infotext, parse_infotext
from vinograph.models import textual_inversion
from vinograph.picture_texts import own_metadata, parameters_text
from vinograph.request import OPTIONS, GivenArguments, arguments_of
from vinograph.used_files import short_hash
from vinograph.values import clipped

if TYPE_CHECKING:
    from vinograph.pipeline import Pipeline

_AGAIN = flag("again")
_NAME = re.compile(r"[\w.-]+")  # no path and no hub id: a file from elsewhere fetches nothing
_ENTRIES: Mapping[str, Any] = {"adapters": int | float, "embeddings": str, "file_hashes": str}
_NEVER = ("output_type", "num_images_per_prompt")
_CALL = "generate"


@dataclass(frozen=True)
class Recipe:
    """What drew the picture in ``file``: the ``request`` of Vinograph's own metadata, or A1111's text.

    The request lacks the arguments ``left_out``, which a file doesn't store. ``adapters`` are their
    weights by file, ``embeddings`` learned words by file, and ``hashes`` those of these files.
    """

    file: Path
    model: str | None
    request: Mapping[str, Any] | None = None
    left_out: tuple[str, ...] = ()
    adapters: Mapping[str, float] = field(default_factory=dict)
    embeddings: Mapping[str, str] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)
    infotext: Infotext | None = None


@dataclass(frozen=True)
class RecipeFiles:
    """Files here that have the names of those which drew a picture: adapters and learned words.

    ``warnings`` says which of them are other files than those.
    """

    adapters: Mapping[str, float] = field(default_factory=dict)
    embeddings: Mapping[str, list[str]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def read_recipe(file: str) -> Recipe:
    """Read what drew the picture in ``file``, from Vinograph's own metadata where it has them.

    Raises:
        RequestError: it is no picture, or says nothing of how it was drawn.
    """
    picture, path = open_picture(file, _AGAIN), Path(file)
    own = own_metadata(picture)
    if own is not None and _is_recipe(own):
        entries = [own.get(name, {}) for name in _ENTRIES]
        return Recipe(path, own.get("model"), own["request"], tuple(own.get("left_out", ())), *entries)
    text = parameters_text(picture)
    if text is None or not text.strip():
        raise RequestError(
            f"{_AGAIN} {clipped(file)}: the picture doesn't say how it was drawn. Vinograph stores that in pictures "
            "unless --no-metadata is given, and programs that edit pictures often drop it"
        )
    infotext = parse_infotext(text)
    from_image = "Denoising strength" in infotext.fields and "Hires upscale" not in infotext.fields
    _, tags = a1111.split_adapters(infotext.prompt)
    left_out = ("image",) if from_image else ()
    return Recipe(path, infotext.fields.get("Model"), left_out=left_out, adapters=tags, infotext=infotext)


def _is_recipe(metadata: Mapping[str, Any]) -> bool:
    """Whether the metadata has what :func:`read_recipe` relies on."""
    request, left_out = metadata.get("request"), metadata.get("left_out", [])
    if not isinstance(request, dict) or not isinstance(left_out, list):
        return False
    for name, kind in _ENTRIES.items():
        values = metadata.get(name, {})
        if not isinstance(values, dict) or not all(isinstance(each, kind) for each in values.values()):
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


def files_of(recipe: Recipe, *, adapters: bool, embeddings: bool) -> RecipeFiles:
    """The ``adapters`` and ``embeddings`` that drew the picture, where the options don't give them.

    A picture names no file but those of the two folders, where this user has put them.

    Raises:
        RequestError: there is none of a name; A1111's text is followed without it.
    """
    found, words, warnings, missing = dict[str, float](), dict[str, list[str]](), list[str](), list[str]()
    for name, weight in recipe.adapters.items() if adapters else ():
        path = adapter_file.by_name(name)
        if path is not None:
            found[str(path)] = weight
            warnings += _differs(recipe, name, path)
        elif recipe.infotext is None:
            missing.append(f"{flag('adapter')} {clipped(name)}:{weight:g}")
    for name, word in recipe.embeddings.items() if embeddings else ():
        path = textual_inversion.by_name(name)
        if path is None:
            missing.append(f"{flag('embedding')} {clipped(name)}:{clipped(word)}")
        else:
            words.setdefault(word, []).append(str(path))
            warnings += _differs(recipe, name, path)
    if missing:
        raise RequestError(
            f"{_AGAIN} {recipe.file}: it was drawn with files that are not in {adapter_file.folder()} or "
            f"{textual_inversion.folder()}, and no picture may choose others; give them: {' '.join(missing)}"
        )
    return RecipeFiles(found, words, tuple(warnings))


def _differs(recipe: Recipe, name: str, path: Path) -> list[str]:
    hashed = recipe.hashes.get(name)
    if hashed is None or short_hash(path) in (hashed, None):
        return []
    return [f"{path.name} is not the file that drew {recipe.file}: its SHA-256 doesn't begin with {clipped(hashed)}"]


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
    used = {Path(name).name.removesuffix(".safetensors") for name in pipe.adapters}
    followed = {a1111.adapter_note(name, weight) for name, weight in recipe.adapters.items() if name in used}
    left_out = [each for each in found.left_out if each not in followed]
    warnings = [f"not followed, of what {recipe.file} says: {'; '.join(left_out)}"] if left_out else []
    return found.values, warnings
