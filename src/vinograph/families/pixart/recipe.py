"""The quantization of PixArt's components. Those that aren't named here stay as they are.

The VAEs stay: they are small compared to the rest, and their losses are seen at once.
"""

from __future__ import annotations

from collections.abc import Mapping

from vinograph.families.recipes import FIRST, INT8, Layer, Recipe

RECIPE: Mapping[str, Recipe] = {
    # T5 weighs more than all else.
    "text_encoder": Recipe({"weights": "int8", "mixed": "int4", "full": "int4"}),
    # pos_embed.proj, and proj_out.
    "transformer": Recipe(INT8, "num_inference_steps", (FIRST, Layer(last=True, kind="MatMul")), scores=True),
}
