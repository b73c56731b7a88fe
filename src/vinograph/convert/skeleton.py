"""Models that are checked against a checkpoint without loading it, and loaded when their turn comes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from vinograph.convert import weights
from vinograph.convert.checkpoint import Place
from vinograph.convert.scratch import Scratch
from vinograph.convert.weights import Allowance, TensorRecord
from vinograph.errors import ModelError
from vinograph.schema import label

Model = TypeVar("Model", bound=nn.Module)

# More of these than any published model has by far; building them would take for ever.
_MOST_BLOCKS = 512
_COUNTS = (
    *("depth", "levels", "bottleneck_blocks", "num_hidden_layers", "num_layers", "blocks", "layers"),
    *("layers_per_block", "transformer_layers_per_block", "reverse_transformer_layers_per_block"),
    *("num_encoder_blocks", "num_decoder_blocks", "upsampling_scaling_factor"),
)
_PER_LEVEL = ("block_out_channels", "c_hidden", "encoder_block_out_channels", "decoder_block_out_channels")
_KINDS_OF_BLOCKS = ("level_config",)
_MOST_IN_ALL = 20_000  # of the greatest counts multiplied; SDXL's UNet has 600
_MOST_KINDS = 16  # letters that name the blocks of a level
_LONGEST_TEXT = 1000
_WIDEST = 1_000_000


@dataclass(frozen=True)
class Skeleton(Generic[Model]):
    """A module on the meta device and the tensors for it, which fit: ``tensors`` where they aren't in safetensors."""

    module: Model
    records: Mapping[str, TensorRecord]
    tensors: Mapping[str, torch.Tensor] | None = None

    @property
    def values(self) -> int:
        """Number of values in all tensors."""
        return sum(record.size for record in self.records.values())

    def load(self, halve: bool = False, scratch: Scratch | None = None) -> Model:
        """A copy of the module with its weights, its matrices in half precision if so asked.

        The skeleton keeps none of them. Those that the files have in another type lie in ``scratch``, or in memory.
        """
        module = copy.deepcopy(self.module)
        weights.load(module, self.tensors or self.records, halve, scratch)
        return module


def skeleton(
    place: Place,
    stem: str,
    build: Callable[[Mapping[str, Any]], Model],
    allow: Allowance,
    rename: Callable[[str], str] = str,
) -> Skeleton[Model]:
    """Build the module that a configuration describes, and compare it with the file's tensors.

    Args:
        place: where configuration and weights are.
        stem: how the weights' file is named where there is one alone.
        build: makes the module of a configuration.
        allow: how the tensors may differ from the module's parameters.
        rename: from a tensor's name in the file to the parameter's.

    Raises:
        ModelError: the configuration makes no sense, or weights are missing or pickled.
        DamagedModelError: a tensor is missing, too many, or of the wrong type or shape.
    """
    config = place.config()
    try:
        check_sizes(config)
        with torch.device("meta"):
            module = build({key: value for key, value in config.items() if not key.startswith("_")})
    except (ValueError, TypeError, AttributeError, RuntimeError, ArithmeticError, LookupError) as error:
        raise ModelError(f"{place.directory / 'config.json'} describes no model that Vinograph has: {error}") from error
    records = {rename(name): record for name, record in weights.read_headers(place.weight_files(stem)).items()}
    weights.check(module, records, place.directory, allow)
    return Skeleton(module.eval(), records)


def check_sizes(config: Mapping[str, Any]) -> None:
    """Refuse numbers so large that building the module would not end.

    Raises:
        ValueError: naming the key.
    """
    total = 1
    for key, value in config.items():
        limit = _MOST_BLOCKS if key in _COUNTS else _WIDEST
        most = 1
        for entry in _flat(key, value):
            if isinstance(entry, Mapping):
                check_sizes(entry)
            elif isinstance(entry, int) and abs(entry) > limit:
                raise ValueError(f"{label(key)} is {entry}, which is beyond {limit}")
            elif isinstance(entry, str) and len(entry) > (_MOST_KINDS if key in _KINDS_OF_BLOCKS else _LONGEST_TEXT):
                raise ValueError(f"{label(key)} has a text of {len(entry)} characters")
            elif key in _COUNTS and isinstance(entry, int):
                most = max(most, entry)
        total *= most
    levels = max((len(config[key]) for key in _PER_LEVEL if isinstance(config.get(key), list)), default=1)
    if total * levels > _MOST_IN_ALL:
        raise ValueError(f"it has {total * levels:,} blocks, level by level, which is beyond {_MOST_IN_ALL:,}")


def _flat(key: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        return [value]
    if len(value) > _MOST_BLOCKS:
        raise ValueError(f"{label(key)} has {len(value)} entries")
    return [number for each in value for number in _flat(key, each)]
