"""Vinograph: text to image with OpenVINO.

::

    from vinograph import Pipeline

    pipe = Pipeline.from_pretrained("storybook-wuerstchen")
    pipe("a red house on a snowy hill at night", seed=7).images[0].save("house.png")
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vinograph.errors import (
        DamagedModelError,
        DeviceError,
        ModelError,
        NumericalError,
        RequestError,
        ResourceError,
        VinographError,
    )
    from vinograph.families.contract import Step
    from vinograph.pipeline import Pipeline
    from vinograph.request import Request
    from vinograph.result import Result

__version__ = "0.1.0"

# OpenVINO reports imports and conversions to Intel if this package can be imported. Vinograph
# sends nothing to anyone, and works offline.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

__all__ = [
    "DamagedModelError",
    "DeviceError",
    "ModelError",
    "NumericalError",
    "Pipeline",
    "Request",
    "RequestError",
    "ResourceError",
    "Result",
    "Step",
    "VinographError",
    "__version__",
]

_HOMES = {
    "Pipeline": "vinograph.pipeline",
    "Request": "vinograph.request",
    "Result": "vinograph.result",
    "Step": "vinograph.families.contract",
}


def __getattr__(name: str) -> Any:
    """Import a public name on its first use, which keeps ``import vinograph`` fast."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES.get(name, "vinograph.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names."""
    return __all__
