"""The shapes of a file's tensors, from which a network's configuration is concluded.

A single file has no configuration. The number of its blocks follows from the names of its tensors,
and their sizes from the shapes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from vinograph.errors import DamagedModelError, ModelError
from vinograph.models.parts import CheckpointTensor, check_sizes
from vinograph.schema import label

Config = TypeVar("Config")


class FileShapes:
    """The shapes of one part's tensors by name, and how many there are of its numbered blocks.

    ``prefix`` is what the file has in front of the names, and ``origin`` the file, for errors.
    """

    def __init__(self, tensors: Mapping[str, CheckpointTensor], origin: str, prefix: str = "") -> None:
        self._tensors, self.origin, self._prefix = tensors, origin, prefix

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def size(self, name: str, dimension: int, dimensions: int | None = None) -> int:
        """The size of one dimension of a tensor, which must have so many ``dimensions``.

        Raises:
            DamagedModelError: the file lacks the tensor, or its shape is another.
        """
        tensor = self._tensors.get(name)
        if tensor is None:
            raise DamagedModelError(f"{self.origin} lacks the tensor {self._prefix}{name}")
        shape = tuple(tensor.shape)
        if dimension >= len(shape) or dimensions not in (None, len(shape)):
            raise DamagedModelError(
                f"{self.origin} is damaged: the tensor {label(self._prefix + name)} has the shape {list(shape)}"
            )
        return shape[dimension]

    def dimensions(self, name: str) -> int:
        """How many dimensions a tensor has. Raises what :meth:`size` does."""
        self.size(name, 0)
        return len(self._tensors[name].shape)

    def count(self, pattern: str) -> int:
        """How many numbered blocks there are: one more than the highest number that ``pattern`` captures."""
        return self.counts(f"(){pattern}")[""]

    def counts(self, pattern: str) -> Counter[str]:
        """How many numbered blocks each module has, whose path ``pattern`` captures before a number."""
        found = Counter[str]()
        for match in filter(None, map(re.compile(pattern).fullmatch, self._tensors)):
            found[match[1]] = max(found[match[1]], int(match[2]) + 1)
        return found

    def parse(self, parse: Callable[[Mapping[str, Any]], Config], concluded: Mapping[str, Any]) -> Config:
        """The configuration that was ``concluded`` from the shapes, as ``parse`` reads it.

        Raises:
            ModelError: it describes no network that Vinograph has.
        """
        try:
            check_sizes(concluded)
            return parse(concluded)
        except (ValueError, TypeError, ArithmeticError) as error:
            raise ModelError(f"{self.origin} holds no model that Vinograph has: {error}") from error
