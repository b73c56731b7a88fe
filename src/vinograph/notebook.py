"""Shows a result in a notebook, as HTML with its pictures inside; no package of a notebook is needed."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

_MOST = 64  # pictures that are shown; a notebook stores each
_GRID = "display:flex;flex-wrap:wrap;gap:8px"
_FIGURE = "margin:0;max-width:512px"


def html_of(images: Any, prompts: Sequence[str], seeds: Sequence[int] | None, warnings: Sequence[str]) -> str | None:
    """A result as HTML; None if its ``images`` are none, but latents.

    Each prompt has the same number of pictures.
    """
    pictures = _pictures(images)
    if pictures is None:
        return None
    texts = [prompts[index * len(prompts) // len(pictures)] if prompts else "" for index in range(len(pictures))]
    captions = [""] * len(pictures) if seeds is None else [f"seed {seed}" for seed in seeds]
    figures = [*map(_figure, pictures[:_MOST], texts, captions)]
    if len(pictures) > _MOST:
        figures.append(f"<p>and {len(pictures) - _MOST} more, in <code>images</code></p>")
    notes = "".join(f"<div>warning: {html.escape(each)}</div>" for each in warnings)
    return f'<div style="{_GRID}">{"".join(figures)}</div>{notes}'


def _pictures(images: Any) -> list[Image.Image] | None:
    """PIL pictures, also of an array [n, height, width, 3] in [0, 1]; None for anything else."""
    if isinstance(images, list):
        return images
    if isinstance(images, np.ndarray) and images.ndim == 4 and images.shape[3] == 3:
        from vinograph.images import to_pictures

        return to_pictures(images)
    return None


def _figure(picture: Image.Image, text: str, caption: str) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG")
    source = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    return (
        f'<figure style="{_FIGURE}"><img src="{source}" alt="{html.escape(text)}" style="max-width:100%">'
        f"<figcaption>{caption}</figcaption></figure>"
    )
