"""What quantization does to SDXL's components. What isn't named here stays as it is.

The VAEs stay: they are small beside the rest, and what they lose is seen at once.
"""

from __future__ import annotations

from collections.abc import Mapping

from vinograph.families.recipes import FIRST, INT8, LAST, TEXT, Layer, Recipe

RECIPE: Mapping[str, Recipe] = {
    "text_encoder": TEXT,
    "text_encoder_2": TEXT,
    # conv_in, conv_out, and up_blocks.2.resnets.2.conv_shortcut.
    "unet": Recipe(INT8, "num_inference_steps", (FIRST, LAST, Layer(last=True, kind="pointwise"))),
}
