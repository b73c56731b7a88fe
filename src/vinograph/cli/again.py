"""Reads from a picture's file what drew it, for ``generate --again``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vinograph.adapters import file as adapter_file
from vinograph.cli.options import flag
from vinograph.errors import ModelError, RequestError
from vinograph.images import open_picture
from vinograph.models import textual_inversion
from vinograph.picture_recipe import Recipe, arguments_of_recipe, recipe_in
from vinograph.request import OPTIONS, GivenArguments
from vinograph.used_files import short_hash
from vinograph.values import clipped

if TYPE_CHECKING:
    from vinograph.pipeline import Pipeline
    from vinograph.result import Result

_AGAIN = flag("again")
_NAME = re.compile(r"[\w.-]+")  # no path and no hub id: a file from elsewhere fetches nothing
_NEVER = ("output_type", "num_images_per_prompt")


@dataclass(frozen=True)
class FileRecipe(Recipe):
    """The recipe of the picture in ``file``."""

    file: Path = Path()


@dataclass(frozen=True)
class RecipeFiles:
    """Files here that have the names of those which drew a picture: adapters and learned words.

    ``warnings`` says which of them are other files than those.
    """

    adapters: Mapping[str, float] = field(default_factory=dict)
    embeddings: Mapping[str, list[str]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def read_recipe(file: str) -> FileRecipe:
    """Read what drew the picture in ``file``, from Vinograph's own metadata where it has them.

    Raises:
        RequestError: it is no picture, or says nothing of how it was drawn.
    """
    recipe = recipe_in(open_picture(file, _AGAIN))
    if recipe is None:
        raise RequestError(
            f"{_AGAIN} {clipped(file)}: the picture doesn't say how it was drawn. Vinograph stores that in pictures "
            "unless --no-metadata is given, and programs that edit pictures often drop it"
        )
    return FileRecipe(**vars(recipe), file=Path(file))


def model_of(recipe: FileRecipe) -> str:
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
def opening(recipe: FileRecipe) -> Iterator[None]:
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


def files_of(recipe: FileRecipe, *, adapters: bool, embeddings: bool) -> RecipeFiles:
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


def _differs(recipe: FileRecipe, name: str, path: Path) -> list[str]:
    hashed = recipe.hashes.get(name)
    if hashed is None or short_hash(path) in (hashed, None):
        return []
    return [f"{path.name} is not the file that drew {recipe.file}: its SHA-256 doesn't begin with {clipped(hashed)}"]


def with_recipe(pipe: Pipeline, recipe: FileRecipe, given: GivenArguments) -> tuple[GivenArguments, list[str]]:
    """Complete the arguments ``given`` with those of the picture, and warn of what can't be followed.

    Raises:
        RequestError: the picture was drawn with an argument that its file doesn't hold, and that
            isn't given.
    """
    values, not_followed = arguments_of_recipe(pipe, recipe, pipe.adapters)
    warnings = [_not_followed(pipe, recipe, not_followed)] if not_followed else []
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


def computed_otherwise(recipe: FileRecipe, result: Result) -> list[str]:
    """A warning of components that were computed in other settings for the picture than for ``result``."""
    other = [
        f"{name} in {clipped(before)} then, in {now} now"
        for name, before in recipe.settings.items()
        if (now := result.settings.get(name)) is not None and _setting(before) != _setting(now)
    ]
    if not other:
        return []
    return [
        f"{recipe.file} was computed in other settings, so that pixels differ: {'; '.join(other)}. `vinograph tune` "
        "measures settings, and `vinograph cache --clear` forgets them"
    ]


def _setting(text: str) -> str:
    """A setting, whether it was measured or not."""
    return text.partition(" (")[0]


def _not_followed(pipe: Pipeline, recipe: FileRecipe, parts: list[str]) -> str:
    if recipe.infotext is not None:
        return f"not followed, of what {recipe.file} says: {'; '.join(parts)}"
    family, names = pipe.model.manifest.family, ", ".join(parts)
    return f"models of the family {family} take no {names}: left out of {recipe.file}'s request"
