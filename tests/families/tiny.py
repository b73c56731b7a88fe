"""The trivial bundle of each latent-diffusion family, and sessions that note what they are given."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.bundles import save_pixart_bundle, save_sdxl_bundle
from vinograph import Pipeline
from vinograph.models.bundle import Bundle

PROMPT = "a red house"


class Watched(Mapping[str, Any]):
    """Sessions that note what they were given."""

    def __init__(self, sessions: Mapping[str, Any]) -> None:
        self.sessions = sessions
        self.calls: dict[str, list[dict[str, Any]]] = {}

    @classmethod
    def of(cls, pipe: Pipeline, **parts: Any) -> Watched:
        """Those of a pipeline, from now on, which gets other ``parts`` besides."""
        watched = cls(pipe._components.sessions)
        pipe._components = dataclasses.replace(pipe._components, sessions=watched, **parts)
        return watched

    def __getitem__(self, name: str) -> Any:
        session = self.sessions[name]

        def call(inputs: Mapping[str, Any]) -> Any:
            self.calls.setdefault(name, []).append({key: value.copy() for key, value in inputs.items()})
            return session(inputs)

        return call

    def __iter__(self) -> Iterator[str]:
        return iter(self.sessions)

    def __len__(self) -> int:
        return len(self.sessions)


@dataclass(frozen=True)
class Tiny:
    """A family's trivial bundle: how it is saved, its components, and its native width and height."""

    save: Callable[..., Bundle]
    denoiser: str
    text_encoder: str
    side: int
    wide: tuple[int, int]
    """Another width and height that is drawn as it is; the longer one is 512."""

    def open(self, folder: Path, **changes: Any) -> Pipeline:
        """The bundle with changes, opened in f32."""
        return Pipeline.from_pretrained(self.save(folder / "changed", **changes).path, precision="f32")

    def picture(self, width: int | None = None, height: int | None = None) -> Image.Image:
        """A picture of colours, of the native size unless another is given."""
        size = (width or self.side, height or self.side)
        cell = self.side // 16
        colours = np.random.RandomState(0).randint(0, 256, (size[1] // cell, size[0] // cell, 3), np.uint8)
        return Image.fromarray(colours).resize(size)


SDXL = Tiny(save_sdxl_bundle, "unet", "text_encoder_2", 64, (256, 512))
PIXART = Tiny(save_pixart_bundle, "transformer", "text_encoder", 256, (512, 128))
FAMILIES = {"sdxl": SDXL, "pixart": PIXART}
