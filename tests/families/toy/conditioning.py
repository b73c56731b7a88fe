"""The toy's conditioning: the embedding of the text."""

from __future__ import annotations

import numpy as np

from vinograph.families.contract import Array, Components, Output
from vinograph.families.shared import note_dropped
from vinograph.request import Request

from .config import ToyConfig


def encode_conditioning(components: Components[ToyConfig], request: Request, out: Output) -> Array:
    """The mean of the tokens' embeddings [pictures, width]."""
    ids = note_dropped(components.tokenizers["tokenizer"](request.prompt or ()), out)
    text = components.sessions["text_table"]({"input_ids": ids})["embedding"]
    return np.repeat(text, request.num_images_per_prompt or 1, axis=0)
