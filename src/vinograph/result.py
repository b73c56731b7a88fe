"""What a call returns."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vinograph.request import Request, arguments_of

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Result:
    """What a call drew, and how.

    Attributes:
        images: PIL pictures (``output_type="pil"``), an array [n, height, width, 3] in [0, 1]
            ("np"), or the last stage's latents ("latent"). None where the call draws no picture.
        seeds: the seed of each picture; None where a caller's generators decided, or nothing was
            random.
        request: the call's arguments, checked and completed with the model's defaults.
        timings: seconds of wall clock by stage.
        warnings: what was done otherwise than was asked for, such as text that was cut off.
        devices: for each component that ran, on which devices and in which precision it did.
        model: the model's name.
        image_embeddings: what a prior drew or an image encoder made [n, channels, height, width],
            if one did.
        report: figures that the call measured, such as a reconstruction's PSNR.
    """

    images: Any
    seeds: tuple[int, ...] | None
    request: Request
    timings: Mapping[str, float]
    warnings: tuple[str, ...]
    devices: Mapping[str, str]
    model: str
    image_embeddings: Array | None = field(default=None, repr=False)
    report: Mapping[str, float] = field(default_factory=dict)

    def metadata(self, index: int) -> dict[str, Any]:
        """What the file of picture ``index`` carries: how to draw it again, alone."""
        from vinograph import __version__

        record = {**self.request.record(), "seed": None if self.seeds is None else self.seeds[index]}
        for name, argument in arguments_of(type(self.request)).items():
            if argument.per_prompt and (texts := record.get(name)):
                record[name] = texts[index * len(texts) // self.request.image_count]
        if "num_images_per_prompt" in record:
            record["num_images_per_prompt"] = 1
        return {"model": self.model, "request": record, "vinograph": __version__, "python": platform.python_version()}
