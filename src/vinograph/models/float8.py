"""Weights in 8-bit floating point with a scale, as ComfyUI and similar programs publish them.

The weight ``a.weight`` is the stored one times ``a.scale_weight`` or, in newer files,
``a.weight_scale``. Scales of a layer's input are there for arithmetic in 8 bits, which isn't done
here, so they are dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vinograph.errors import DamagedModelError, ModelError
from vinograph.models.safetensors import F8_VALUES, TensorRecord
from vinograph.schema import label

_SCALES = (".scale_weight", ".weight_scale")
_INPUT_SCALES = (".scale_input", ".input_scale")
_MARKER = "scaled_fp8"  # an empty tensor, whose type is that of the weights
_SCALE_TYPES = ("F32", "F16", "BF16")


@dataclass(frozen=True)
class ScaledTensor:
    """A tensor in 8 bits whose values are multiplied by the one number in ``scale``."""

    stored: TensorRecord
    scale: TensorRecord

    @property
    def file(self) -> Path:
        """The file that holds the tensor."""
        return self.stored.file

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's dimensions."""
        return self.stored.shape

    @property
    def dtype(self) -> str:
        """The type that the tensor is stored in."""
        return self.stored.dtype

    def array(self) -> NDArray[Any]:
        """The scaled values, in f32.

        Raises:
            DamagedModelError: the scale is not a positive number.
        """
        scale = self.scale.array().reshape(())
        if self.scale.dtype == "BF16":
            scale = (scale.astype(np.uint32) << 16).view(np.float32)
        factor = np.float32(scale)
        if not (np.isfinite(factor) and factor > 0):
            raise DamagedModelError(f"{self.file} is damaged: the scale {label(self.scale.name)} is {factor}")
        return self.stored.array() * factor


def with_scales(records: Mapping[str, TensorRecord]) -> dict[str, TensorRecord | ScaledTensor]:
    """The tensors of a part, where those in 8 bits are joined with their scales.

    Without any tensor in 8 bits, all of them stay as they are.

    Raises:
        ModelError: a scale is not one number for a whole tensor.
        DamagedModelError: a scale has no tensor.
    """
    found: dict[str, TensorRecord | ScaledTensor] = dict(records)
    if not any(record.dtype in F8_VALUES for record in records.values()):
        return found
    found.pop(_MARKER, None)
    for name, record in records.items():
        if name.endswith(_INPUT_SCALES) and _owner(name, records) is not None:
            del found[name]
        if name.endswith(_SCALES):
            owner = _owner(name, records)
            if owner is None:
                raise DamagedModelError(f"{record.file} has the scale {label(name)}, but no tensor in 8 bits for it")
            _check(record, owner)
            del found[name]
            found[_owner_name(name)] = ScaledTensor(owner, record)
    return found


def _owner(scale: str, records: Mapping[str, TensorRecord]) -> TensorRecord | None:
    """The weight in 8 bits that a scale belongs to."""
    record = records.get(_owner_name(scale))
    return record if record is not None and record.dtype in F8_VALUES else None


def _owner_name(scale: str) -> str:
    return f"{scale.rpartition('.')[0]}.weight"


def _check(scale: TensorRecord, owner: TensorRecord) -> None:
    if scale.size != 1 or scale.dtype not in _SCALE_TYPES:
        raise ModelError(
            f"{scale.file}: the scale {label(scale.name)} is of the shape {list(scale.shape)} and the type "
            f"{scale.dtype}. Vinograph knows one number in F32, F16 or BF16 for all of {label(owner.name)}: give a "
            "copy of the model in F16 or BF16"
        )
