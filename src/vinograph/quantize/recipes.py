"""Which component of which family takes what, as data. A component that isn't named here stays as it is.

VAEs and the image encoder stay: they are small beside the rest, and what they lose is seen at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vinograph.errors import ModelError

MODES = ("weights", "mixed", "full")


@dataclass(frozen=True)
class Layer:
    """The first or the last layer of its kind that is computed from the latents.

    Every other one is computed from the first, and the last is computed from every other. ``kind`` is "Convolution",
    "MatMul" for linear layers, or "pointwise" for convolutions with a kernel of 1×1.
    """

    last: bool
    kind: str = "Convolution"


@dataclass(frozen=True)
class Recipe:
    """What a component takes.

    ``weights`` says how its weights are stored, by mode: "int8" or "int4". A denoiser has ``steps``: the argument of a
    drawing that sets how often it is called. In it, the modes "mixed" and "full" compute with int8 activations, too,
    but for the layers ``kept``, which stay as they are. With ``scores``, "full" rounds queries and keys, too, where the
    latents attend to each other: worth it where it is measured to be faster.
    """

    weights: Mapping[str, str]
    steps: str | None = None
    kept: tuple[Layer, ...] = ()
    scores: bool = False

    @property
    def activations(self) -> bool:
        """Whether the modes "mixed" and "full" quantize activations."""
        return self.steps is not None


_FIRST, _LAST = Layer(last=False), Layer(last=True)
_INT8 = dict.fromkeys(MODES, "int8")
_TEXT = Recipe(_INT8)

RECIPES: Mapping[str, Mapping[str, Recipe]] = {
    "wuerstchen": {
        "prior_text_encoder": _TEXT,
        "prior_text": _TEXT,
        # The projection, and out.1.
        "prior": Recipe(_INT8, "prior_num_inference_steps", (_FIRST, _LAST), scores=True),
        "text_encoder": _TEXT,
        "decoder_text": _TEXT,
        "decoder": Recipe(_INT8, "num_inference_steps", (_FIRST, _LAST), scores=True),
    },
    "sdxl": {
        "text_encoder": _TEXT,
        "text_encoder_2": _TEXT,
        # conv_in, conv_out, and up_blocks.2.resnets.2.conv_shortcut.
        "unet": Recipe(_INT8, "num_inference_steps", (_FIRST, _LAST, Layer(last=True, kind="pointwise"))),
    },
    "pixart": {
        # T5 weighs more than all else.
        "text_encoder": Recipe({"weights": "int8", "mixed": "int4", "full": "int4"}),
        # pos_embed.proj, and proj_out.
        "transformer": Recipe(_INT8, "num_inference_steps", (_FIRST, Layer(last=True, kind="MatMul")), scores=True),
    },
}


def recipes(family: str) -> Mapping[str, Recipe]:
    """The recipes of a family's components.

    Raises:
        ModelError: there are none.
    """
    if family not in RECIPES:
        raise ModelError(
            f"there is no recipe to quantize models of the family {family}; there are {', '.join(RECIPES)}"
        )
    return RECIPES[family]
