"""Contact sheets: many pictures side by side in one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def sheet(images: Sequence[NDArray[np.uint8]], columns: int = 8) -> Image.Image:
    """A sheet of ``images`` of one size in rows of ``columns``, without gaps."""
    if not images:
        raise ValueError("a sheet needs one picture at least")
    height, width = images[0].shape[:2]
    rows = -(-len(images) // columns)
    page = np.full((rows * height, min(columns, len(images)) * width, 3), 255, np.uint8)
    for i, image in enumerate(images):
        y, x = divmod(i, columns)
        page[y * height : (y + 1) * height, x * width : (x + 1) * width] = image
    return Image.fromarray(page)
