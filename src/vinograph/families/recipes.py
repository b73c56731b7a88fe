"""The types of each family's ``recipe.py``: how its components are quantized, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MODES = ("weights", "mixed", "full")


@dataclass(frozen=True)
class Layer:
    """The first or the last layer of its kind that is computed from the latents.

    Every other one is computed from the first, and the last is computed from every other. ``kind``
    is "Convolution", "MatMul" for linear layers, or "pointwise" for convolutions with a kernel of
    1×1.
    """

    last: bool
    kind: str = "Convolution"


@dataclass(frozen=True)
class Recipe:
    """The quantization of one component.

    ``weights`` says how its weights are stored, by mode: "int8" or "int4". A denoiser has
    ``steps``: the argument of a drawing that sets how often it is called. In it, the modes "mixed"
    and "full" compute with int8 activations, too, but for the layers ``ignored``, which stay as
    they are. With ``scores``, "full" rounds queries and keys, too, where the latents attend to each
    other: worth it where it is measured to be faster.
    """

    weights: Mapping[str, str]
    steps: str | None = None
    ignored: tuple[Layer, ...] = ()
    scores: bool = False

    @property
    def activations(self) -> bool:
        """Whether the modes "mixed" and "full" quantize activations."""
        return self.steps is not None


FIRST, LAST = Layer(last=False), Layer(last=True)
INT8: Mapping[str, str] = dict.fromkeys(MODES, "int8")
TEXT = Recipe(INT8)
"""Recipe of what is computed once for a text."""
