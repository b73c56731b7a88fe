"""The result of a call."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vinograph import used_files
from vinograph.request import Request, arguments_of
from vinograph.used_files import UsedFile

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Result:
    """Pictures that a call drew, and how it drew them.

    A notebook shows the pictures of a result at the end of a cell, with their seeds.

    Attributes:
        images: PIL pictures (``output_type="pil"``), an array [n, height, width, 3] in [0, 1]
            ("np"), or the last stage's latents ("latent"). None if the call draws no picture.
        seeds: the seed of each picture; None if the caller passed generators, or nothing was
            random.
        request: the call's arguments, checked and completed with the model's defaults.
        timings: seconds of wall clock by stage.
        warnings: deviations from the request, such as text that was cut off.
        devices: devices and precision of each component that ran.
        model: the model's name.
        image_embeddings: embeddings [n, channels, height, width] from a prior or an image encoder;
            None if neither ran.
        report: measurements of the call, such as a reconstruction's PSNR.
        adapters: the adapters that were used, with their weights.
        files: the files of adapters and learned words that were used.
        settings: which of OpenVINO's settings each component with weights in int8 or int4 was
            computed in on the CPU, and whether that was measured to be the fastest.
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
    adapters: Mapping[str, float] = field(default_factory=dict)
    files: tuple[UsedFile, ...] = field(default=(), repr=False)
    settings: Mapping[str, str] = field(default_factory=dict)

    def metadata(self, index: int) -> dict[str, Any]:
        """Metadata for the file of picture ``index``, sufficient to draw it again, alone.

        Arguments that are not stored, such as an image, are named under ``left_out``. Files of
        adapters and learned words are named without their folders, with their hashes.
        """
        from vinograph import __version__

        record = {**self.request.record(), "seed": None if self.seeds is None else self.seeds[index]}
        for name, argument in arguments_of(type(self.request)).items():
            if argument.per_prompt and (texts := record.get(name)):
                record[name] = texts[index * len(texts) // self.request.image_count]
        if "num_images_per_prompt" in record:
            record["num_images_per_prompt"] = 1
        left_out = self._unrecorded()
        return {
            "model": self.model,
            **used_files.record(self.files),
            "request": record,
            **({"left_out": left_out} if left_out else {}),
            **({"settings": dict(self.settings)} if self.settings else {}),
            "vinograph": __version__,
            "python": platform.python_version(),
        }

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """What a notebook shows: the pictures under each other's seeds, and the warnings."""
        from vinograph.notebook import html_of

        del include, exclude  # IPython drops what it was not asked for
        shown = html_of(self.images, self.request.prompt or (), self.seeds, self.warnings)
        return {"text/plain": repr(self), **({} if shown is None else {"text/html": shown})}

    def _unrecorded(self) -> list[str]:
        """The arguments that were given and are not recorded, without callbacks and generators."""
        return [
            name
            for name, argument in arguments_of(type(self.request)).items()
            if not argument.recorded
            and name != "generator"
            and "callback" not in name
            and getattr(self.request, name) is not None
        ]
