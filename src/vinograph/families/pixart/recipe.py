"""What quantization does to PixArt's components. What isn't named here stays as it is.

The VAEs stay: they are small beside the rest, and what they lose is seen at once.
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
