"""The quantization of Würstchen's components. Those that aren't named here stay as they are.

The VQGAN and the image encoder stay: they are small compared to the rest, and their losses are seen
at once.
"""

from __future__ import annotations

from collections.abc import Mapping

from vinograph.families.recipes import FIRST, INT8, LAST, TEXT, Recipe

RECIPE: Mapping[str, Recipe] = {
    "prior_text_encoder": TEXT,
    "prior_text": TEXT,
    # The projection, and out.1.
    "prior": Recipe(INT8, "prior_num_inference_steps", (FIRST, LAST), scores=True),
    "text_encoder": TEXT,
    "decoder_text": TEXT,
    "decoder": Recipe(INT8, "num_inference_steps", (FIRST, LAST), scores=True),
}
