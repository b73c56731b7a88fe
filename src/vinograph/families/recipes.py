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

    ``weights`` says by mode how its weights are stored: "int8" or "int4". ``steps`` is the argument
    that sets how often a denoiser is called, and None for other components. In the modes "mixed"
    and "full", a denoiser also computes with int8 activations, except in the ``ignored`` layers.
    With ``scores``, "full" also rounds the queries and keys of the latents' self-attention, which
    is worth it where it is measured to be faster.
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
