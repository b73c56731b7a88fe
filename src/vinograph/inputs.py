"""Types of the arguments in the signatures of the calls.

Protocols describe torch's objects by their methods, so that neither this package nor a type checker
needs torch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["Arrays", "Callback", "Generators", "Images", "Schedulers", "Texts", "Timesteps"]


class ArrayLike(Protocol):
    """A numpy array, a torch tensor, or another object that converts to a numpy array."""

    def __array__(self) -> NDArray[Any]:
        """The values as a numpy array."""
        ...


class TorchGenerator(Protocol):
    """A ``torch.Generator`` on the CPU."""

    def get_state(self) -> Any:
        """The state, as a tensor of bytes."""
        ...

    def set_state(self, state: Any, /) -> Any:
        """Restore a state."""
        ...

    def manual_seed(self, seed: int, /) -> Any:
        """Reset the state from a seed."""
        ...


Texts: TypeAlias = str | list[str] | tuple[str, ...]
"""A text, or one for each prompt."""

Arrays: TypeAlias = ArrayLike | Sequence[Any]
"""An array or tensor, or a list of them or of numbers."""

Timesteps: TypeAlias = ArrayLike | Sequence[float]
"""Timesteps or noise levels, the noisiest first."""

Schedulers: TypeAlias = str | Mapping[str, Any]
"""A scheduler's name, or its class under "_class_name" and its settings."""

OneImage: TypeAlias = str | os.PathLike[str] | Image.Image | ArrayLike
Images: TypeAlias = OneImage | Sequence[OneImage]
"""A path, a PIL picture, an array or a tensor, or a list of them."""

OneGenerator: TypeAlias = TorchGenerator | np.random.RandomState
Generators: TypeAlias = OneGenerator | Sequence[OneGenerator]
"""A source of random numbers, or one for each picture."""

Callback: TypeAlias = Callable[..., Any]
"""A function that is called while a picture is drawn."""
