"""The quantization of SDXL's components. Those that aren't named here stay as they are.

The VAEs stay: they are small compared to the rest, and their losses are seen at once.
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
