"""Divides the pictures that ``generate`` draws into calls that fit into memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vinograph import resources
from vinograph.images import read_picture, size_of

if TYPE_CHECKING:
    from vinograph.cli.prompts import Prompt
    from vinograph.pipeline import Pipeline
    from vinograph.request import GivenArguments, Request

_CALL = "generate"
_SEEDS = 2**64  # after the highest seed comes 0
_MOST = 8  # pictures at once: more are hardly faster, and the first would take long to appear
# SDXL's UNet takes this at 1024x1024 under guidance in f32; smaller models take less.
_BYTES_PER_PIXEL = 3000
_ASSUMED_MEMORY = 4_000_000_000  # bytes, where the system doesn't say what is free


@dataclass(frozen=True)
class Batch:
    """The arguments of one call, which draws ``count`` pictures after the first ``done`` of ``total``."""

    prompt: Prompt
    given: GivenArguments
    done: int
    count: int
    total: int

    @property
    def label(self) -> str:
        """Which pictures it draws, for the progress; empty if it draws all."""
        if self.count == self.total:
            return ""
        first, last = self.done + 1, self.done + self.count
        return f"picture {first if first == last else f'{first}-{last}'} of {self.total}: "


@dataclass
class Batches:
    """Calls that draw ``count`` pictures of each prompt, one after the other.

    They draw the pictures that one call for all of them would: picture i from seed + i.
    """

    pipe: Pipeline
    given: GivenArguments
    prompts: list[Prompt]
    count: int
    _pixels: float | None = field(default=None, init=False)
    _seed: int = field(default=0, init=False)

    def check(self) -> None:
        """Check the arguments with each prompt, before anything is drawn.

        Raises:
            RequestError: they don't fit. The message names the line of a prompt in a list.
        """
        for index, prompt in enumerate(self.prompts):
            with prompt.naming():
                request = self._resolved(prompt)
            if index == 0:
                assert request.seed is not None
                self._seed, self._pixels = request.seed, _pixels(request) if self.count > 1 else None

    def __iter__(self) -> Iterator[Batch]:
        """The calls; each is divided off when the one before it is done."""
        done, total = 0, len(self.prompts) * self.count
        for prompt in self.prompts:
            left = self.count
            while left:
                count = min(left, at_once(self._pixels))
                changes = {"seed": (self._seed + done) % _SEEDS, "num_images_per_prompt": count}
                yield Batch(prompt, self._with(prompt, changes), done, count, total)
                left, done = left - count, done + count

    def whole(self, request: Request) -> Request:
        """The request of the first call, as if it were the one for all pictures."""
        texts = tuple(each.text for each in self.prompts if each.text is not None)
        prompts: dict[str, Any] = {"prompt": texts} if len(texts) > 1 else {}
        return dataclasses.replace(request, num_images_per_prompt=self.count, **prompts)

    def _resolved(self, prompt: Prompt) -> Request:
        from vinograph.pipeline import resolve_given

        return resolve_given(self.pipe, _CALL, self._with(prompt, {}))

    def _with(self, prompt: Prompt, changes: dict[str, Any]) -> GivenArguments:
        subject = self.pipe.calls[_CALL].positional[0]
        text = {} if prompt.text is None else {subject: prompt.text}
        return dataclasses.replace(self.given, values={**self.given.values, **text, **changes})


def at_once(pixels: float | None) -> int:
    """How many pictures of so many pixels to draw at once: a power of two, at most 8.

    They take at most half of the free memory. One is drawn where their size isn't known.
    """
    if pixels is None:
        return 1
    budget = (resources.memory_available() or _ASSUMED_MEMORY) / 2
    fitting = int(budget / (pixels * _BYTES_PER_PIXEL))
    return 1 << (max(1, min(_MOST, fitting)).bit_length() - 1)


def _pixels(request: Request) -> float | None:
    """Pixels of a picture, after it is enlarged; None if the request doesn't say its size.

    Without a size of its own, it has about that of the picture that it starts from.
    """
    height, width = request.height, request.width
    if (height is None or width is None) and request.image is not None:
        height, width = size_of(read_picture(request.image))
        left, top, right, bottom = request.record().get("extend") or (0, 0, 0, 0)
        height, width = height + top + bottom, width + left + right
    if height is None or width is None:
        return None
    return height * width * float(request.record().get("hires") or 1) ** 2
