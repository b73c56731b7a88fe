"""Small checkpoints of every family, converted with all their components, beside the models that they are made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import openvino as ov
import pytest
from torch import Tensor

from tests.checkpoints import (
    DEEP,
    PIXART_256,
    PIXART_512,
    PIXART_LCM,
    PIXART_SIGMA,
    PIXART_TINY,
    SDXL_LCM,
    SDXL_TINY,
    SDXL_TURBO,
    SHALLOW,
    SMALL,
    TINY,
    pixart_models,
    save_pixart,
    save_sdxl,
    save_wuerstchen,
    sdxl_models,
    wuerstchen_models,
)
from tests.checkpoints import PIXART as PIXART_1024
from tests.checkpoints import SDXL as SDXL_BASE
from tests.convert.conftest import once
from tests.convert.running import compile_component, run
from vinograph.convert import convert
from vinograph.families.wuerstchen import network_blocks
from vinograph.models.bundle import Bundle

Storage = Literal["f16", "f32"]

# The width from which on channels come last: never, in the deeper levels, everywhere.
_CHANNELS_LAST_WIDTH = {SMALL: 1024, DEEP: 20, SHALLOW: 0}


@dataclass(frozen=True)
class Converted:
    """A bundle, and the models that it is made of. Its components are compiled in f32 when they first run."""

    family: Family
    bundle: Bundle
    models: Any
    shape: Any
    _sessions: dict[str, ov.CompiledModel] = field(default_factory=dict)

    def session(self, name: str) -> ov.CompiledModel:
        """A component, compiled."""
        if name not in self._sessions:
            self._sessions[name] = compile_component(self.bundle, name)
        return self._sessions[name]

    def run(self, name: str, **inputs: Tensor) -> dict[str, Tensor]:
        """The outputs of a component."""
        component = self.bundle.manifest.components[name]
        assert inputs.keys() == component.inputs.keys()
        outputs = run(self.session(name), inputs)
        assert outputs.keys() == component.outputs.keys()
        return outputs

    def kinds(self, name: str) -> list[str]:
        """The kinds of a component's operations."""
        file = self.bundle.path / self.bundle.manifest.components[name].file
        return [node.get_type_name() for node in ov.Core().read_model(file).get_ops()]


@dataclass(frozen=True)
class Family:
    """The small checkpoints of a family, and what holds of their components.

    ``save`` writes one of a shape into a folder, and gives its directory and its other sources for conversion.
    ``attentions`` counts the attentions of components. ``settled_outputs`` says whether the graphs know the sizes of
    outputs that don't depend on a request.
    """

    shapes: Mapping[str, Any]
    tiny: Any
    models: Callable[[Any], Any]
    save: Callable[[Path, Any], tuple[Path, dict[str, str]]]
    attentions: Callable[[Converted], dict[str, int]]
    settled_outputs: bool = True
    conditions: Callable[[Any], AbstractContextManager[object]] = nullcontext

    def open(self, temporary: pytest.TempPathFactory, name: str, weights: Storage = "f32") -> Converted:
        """A checkpoint by its name in ``shapes``, or "tiny", converted once for all tests."""
        shape = self.tiny if name == "tiny" else self.shapes[name]

        def make(folder: Path) -> None:
            source, others = self.save(folder, shape)
            with self.conditions(shape):
                convert(source, folder / "bundle", weights=weights, **others)  # type: ignore[arg-type]

        family = type(shape).__name__
        bundle = Bundle.open(once(temporary, f"{family}-{name}-{weights}", make) / "bundle")
        return Converted(self, bundle, self.models(shape), shape)


def _save_wuerstchen(folder: Path, shape: Any) -> tuple[Path, dict[str, str]]:
    return save_wuerstchen(folder, shape).decoder, {}


def _save_sdxl(folder: Path, shape: Any) -> tuple[Path, dict[str, str]]:
    saved = save_sdxl(folder, shape)
    return saved.home, {"tiny_vae": str(saved.tiny_vae)}


def _save_pixart(folder: Path, shape: Any) -> tuple[Path, dict[str, str]]:
    saved = save_pixart(folder, shape)
    return saved.home, {"tiny_vae": str(saved.tiny_vae)}


@contextmanager
def _channels_last(shape: Any) -> Iterator[None]:
    """Have Würstchen's convolutions see their channels last where the shape is to try it."""
    with pytest.MonkeyPatch.context() as patch:
        if shape in _CHANNELS_LAST_WIDTH:
            patch.setattr(network_blocks, "CHANNELS_LAST_WIDTH", _CHANNELS_LAST_WIDTH[shape])
        yield


def _wuerstchen_attentions(converted: Converted) -> dict[str, int]:
    return {
        "prior": converted.shape.prior_depth,
        "decoder": len(converted.bundle.manifest.config["decoder_attention_widths"]),
        "text_encoder": converted.shape.text_layers,
    }


def _sdxl_attentions(converted: Converted) -> dict[str, int]:
    blocks = Counter(type(each).__name__ for each in converted.models.unet.modules())["BasicTransformerBlock"]
    return {
        "unet": 2 * blocks,
        "vae_decoder": 1,
        "vae_encoder": 1,
        "text_encoder": converted.shape.text_layers - 1,  # the hidden states of the last layer are not wanted
        "text_encoder_2": converted.shape.text_layers + 1,
    }


def _pixart_attentions(converted: Converted) -> dict[str, int]:
    return {"transformer": 2 * converted.shape.layers, "text_encoder": converted.shape.text_layers}


WUERSTCHEN = Family(
    {"small": SMALL, "deep": DEEP, "shallow": SHALLOW},
    TINY,
    wuerstchen_models,
    _save_wuerstchen,
    _wuerstchen_attentions,
    settled_outputs=False,
    conditions=_channels_last,
)
SDXL = Family(
    {"base": SDXL_BASE, "turbo": SDXL_TURBO, "lcm": SDXL_LCM}, SDXL_TINY, sdxl_models, _save_sdxl, _sdxl_attentions
)
PIXART = Family(
    {"1024": PIXART_1024, "lcm": PIXART_LCM, "512": PIXART_512, "256": PIXART_256, "sigma": PIXART_SIGMA},
    PIXART_TINY,
    pixart_models,
    _save_pixart,
    _pixart_attentions,
)
FAMILIES = {"wuerstchen": WUERSTCHEN, "sdxl": SDXL, "pixart": PIXART}
CASES = [(family, shape) for family, each in FAMILIES.items() for shape in each.shapes]
