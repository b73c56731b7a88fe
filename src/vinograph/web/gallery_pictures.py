"""Pictures of the gallery as the page shows them, with what draws them again."""

from __future__ import annotations

from vinograph.errors import VinographError
from vinograph.picture_recipe import Recipe, arguments_of_recipe
from vinograph.pipeline import Pipeline
from vinograph.web import snippets
from vinograph.web.gallery_index import GalleryEntry, recipe_of
from vinograph.web.gallery_store import GalleryStore
from vinograph.web.model_pool import Models
from vinograph.web.sessions import Picture

_CALL = "generate"


def offered_model(models: Models, name: str | None) -> str | None:
    """The reference of the model that a picture names; None where the page doesn't offer it."""
    if not name:
        return None
    if name in models.references:
        return name
    return next((each for each in models.references if _name_of(models, each) == name), None)


def _name_of(models: Models, reference: str) -> str | None:
    try:
        return models.get(reference).model.manifest.name
    except VinographError:  # it can't be opened at the moment, so it is no match
        return None


def picture_of(models: Models, store: GalleryStore, entry: GalleryEntry) -> Picture:
    """The picture of an entry; without code where it can't be drawn again from its file alone.

    Raises:
        RequestError: the file was changed or is damaged.
    """
    file = store.file(entry)
    recipe, model = recipe_of(file), offered_model(models, entry.model)
    code = ("", "")
    if recipe is not None and model is not None and not (recipe.left_out or recipe.adapters or recipe.embeddings):
        code = _code(models, models.get(model), model, recipe)
    return Picture(
        file=file,
        size=entry.size,
        prompt=entry.prompt,
        model=model or entry.model,
        seed=int(entry.seed) if entry.seed.isdecimal() else None,
        timings={},
        python=code[0],
        shell=code[1],
        gallery=entry.identifier,
    )


def _code(models: Models, pipe: Pipeline, model: str, recipe: Recipe) -> tuple[str, str]:
    """Python and shell that draw the recipe's picture again."""
    values, _ = arguments_of_recipe(pipe, recipe, {})
    arguments = {"prompt": values.pop("prompt", ""), **values}
    again = snippets.reproduction_arguments(pipe, _CALL, arguments, arguments.get("seed"))
    source, device = models.source(model), models.device(model)
    return (
        snippets.python(source, device, _CALL, again, "picture.png"),
        snippets.shell(pipe, source, device, _CALL, again, "picture.png"),
    )
