"""What the toy's calls take: of the shared arguments, and one of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vinograph.arguments import Limits, check
from vinograph.errors import RequestError
from vinograph.families.contract import Call, Family
from vinograph.request import Request, argument_field

from .config import ToyConfig
from .drawing import generate

MOST_CONTRAST = 9.0


@check("float")
def check_contrast(name: str, value: Any, _: Limits) -> float:
    """A number that colours are multiplied by."""
    if not isinstance(value, float | int) or not 0 < value <= MOST_CONTRAST:
        raise RequestError(f"{name} is {value!r}; give a number above 0 and up to {MOST_CONTRAST:g}")
    return float(value)


@dataclass(frozen=True, kw_only=True)
class ToyRequest(Request):
    """A request with the argument that no other family has."""

    contrast: float | None = argument_field(check_contrast, "how far colours are apart")


FAMILY = Family(
    name="toy",
    title="Toy",
    calls={
        "generate": Call(
            about="text to image",
            takes={
                "prompt": None,
                "height": 32,
                "width": 32,
                "num_inference_steps": 4,
                "contrast": 1.0,
                "num_images_per_prompt": 1,
                "seed": None,
                "generator": None,
                "output_type": "pil",
            },
            positional=("prompt", "height", "width", "num_inference_steps"),
            run=generate,
            components=("text_table", "smoother"),
        )
    },
    options={"steps": "num_inference_steps", "contrast": "contrast"},
    read_config=ToyConfig.from_manifest,
    tokenizers=("tokenizer",),
    request=ToyRequest,
)
