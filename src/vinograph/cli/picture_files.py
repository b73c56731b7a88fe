"""Names the pictures that a command writes, and writes them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from vinograph import a1111
from vinograph.errors import RequestError
from vinograph.images import WRITABLE, check_output, save
from vinograph.picture_texts import without_room

if TYPE_CHECKING:
    from PIL import Image

    from vinograph.pipeline import Pipeline
    from vinograph.result import Result


class PictureFiles:
    """The files of ``total`` pictures, each named when it is written.

    A name that the user gave is replaced; several pictures get numbers: a-1.png, a-2.png. Without
    a name, the numbers go on after those in the folder, and nothing is replaced.
    """

    def __init__(self, given: str | None, default: str, total: int) -> None:
        self._pattern = Path(default if given is None else given)
        self._replace = given is not None
        self._numbers = total > 1
        self._next, self._total = 1, total
        if not self._replace:
            self._skip_taken()

    def check(self, kept: str | None = None) -> None:
        """Check that the files can be written, before any is drawn.

        Raises:
            RequestError: one can't be written, or is the picture ``kept``, which is to stay.
        """
        for number in range(self._next, self._next + (self._total if self._replace else 1)):
            file = self._name(number)
            check_output(file)
            if kept is not None and file.exists() and file.samefile(kept):
                raise RequestError(f"output {file} is the picture that --again reads; name another with --output")

    def write(self, save_as: Callable[[Path, bool], None]) -> Path:
        """Write the next picture by ``save_as``, which gets its file and whether to replace one.

        Returns the file.
        """
        while True:
            file = self._name(self._next)
            self._next += 1
            try:
                save_as(file, self._replace)
            except FileExistsError:  # another process has taken the name in the meantime
                continue
            return file

    def _name(self, number: int) -> Path:
        """``number`` counts from 1; a single picture has none, unless its name is taken."""
        plain = not self._numbers and number == 1
        return self._pattern if plain else self._pattern.with_stem(f"{self._pattern.stem}-{number}")

    def _skip_taken(self) -> None:
        """Go on after the highest number in the folder."""
        if not self._numbers and not self._pattern.exists():
            return
        taken = max(self._taken(), default=0)
        self._next = max(taken + 1, 1 if self._numbers else 2)

    def _taken(self) -> Iterator[int]:
        pattern = re.compile(rf"{re.escape(self._pattern.stem)}-(\d{{1,15}})\.\w+")
        for each in self._pattern.parent.iterdir():
            if found := pattern.fullmatch(each.name):
                yield int(found[1])


def save_result(
    pipe: Pipeline, result: Result, index: int, picture: Image.Image, file: Path, *, replace: bool
) -> list[str]:
    """Write a picture of a result, with the texts that say how it was drawn.

    Returns warnings of texts that the file has no room for.

    Raises:
        FileExistsError: there is such a file, and it isn't to be replaced.
    """
    metadata = result.metadata(index)
    parameters = a1111.parameters_text(metadata, pipe.options, pipe.model.manifest.scheduler)
    save(picture, file, metadata, parameters, replace=replace)
    left_out = without_room(WRITABLE[file.suffix.lower()], metadata, parameters)
    return [f"the prompt is so long that {file} has no room for {each}; a PNG has" for each in left_out]
