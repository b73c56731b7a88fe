"""The sizes that clients of OpenAI's API ask for, and what a model draws instead of them."""

from __future__ import annotations

import re

from vinograph.families.sizes import SizeLimits
from vinograph.images import Size
from vinograph.serve.contract import ModelInfo
from vinograph.serve.failures import HTTPFailure
from vinograph.values import shown

AUTO = "auto"
OPENAI_SIZES = ("256x256", "512x512", "1024x1024", "1536x1024", "1024x1536", "1792x1024", "1024x1792")
"""The sizes that OpenAI's documents name. Many clients send one of them whatever the model."""

_SIZE = re.compile(r"([0-9]{1,6})x([0-9]{1,6})", re.ASCII)


def size_to_draw(text: str, model: ModelInfo, *, strict: bool) -> Size | None:
    """The size to draw for a field ``size``; None leaves it to the model, or to the init image.

    Of OpenAI's own sizes, one that the model can't draw means the nearest one that it can, unless
    ``strict``.

    Raises:
        HTTPFailure: the text is no size, or the model doesn't draw it. The message names the
            nearest sizes.
    """
    if text in (AUTO, ""):  # some clients send an empty size where a user has chosen none
        return None
    sides = _SIZE.fullmatch(text)
    if sides is None:
        raise _wrong_size(f'size is {shown(text)}; give "WIDTHxHEIGHT" in pixels, such as "512x512", or "auto"')
    size = Size(height=int(sides[2]), width=int(sides[1]))
    if model.sizes is None or model.sizes.allows(size):
        return size
    if text in OPENAI_SIZES and not strict:
        return model.sizes.nearest(size)
    raise _wrong_size(_not_drawn(size, model.name, model.sizes))


def _not_drawn(size: Size, model: str, sizes: SizeLimits) -> str:
    sides = f"multiples of {sizes.size_multiple} from {sizes.minimum_size} to {sizes.maximum_size}"
    positive = Size(*(max(side, 1) for side in size))
    nearest = dict.fromkeys(map(str, (sizes.within(positive), sizes.nearest(positive))))
    return f"size is {size}; the sides of pictures by {model} are {sides}, and the nearest: {' and '.join(nearest)}"


def _wrong_size(message: str) -> HTTPFailure:
    return HTTPFailure(400, message, "invalid_value", "size")
