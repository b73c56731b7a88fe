"""What the toy's network gets of the text."""

from __future__ import annotations

import numpy as np

from vinograph.families.contract import Array, Drawing, Parts
from vinograph.families.shared import note_dropped
from vinograph.request import Request


def encode_conditioning(parts: Parts, request: Request, out: Drawing) -> Array:
    """The mean of the tokens' embeddings [pictures, width]."""
    ids = note_dropped(parts.tokenizers["tokenizer"](request.prompt or ()), out)
    text = parts.sessions["text_table"]({"input_ids": ids})["embedding"]
    return np.repeat(text, request.num_images_per_prompt or 1, axis=0)
