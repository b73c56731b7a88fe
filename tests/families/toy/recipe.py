"""What quantization does to the toy's components."""

from __future__ import annotations

from collections.abc import Mapping

from vinograph.families.recipes import FIRST, INT8, LAST, TEXT, Recipe

RECIPE: Mapping[str, Recipe] = {
    "text_table": TEXT,
    "smoother": Recipe(INT8, "num_inference_steps", (FIRST, LAST)),
}
