"""The parts of a checkpoint, compared with their networks at once and built when needed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from vinograph.errors import ModelError
from vinograph.models.checkpoint import Subfolder
from vinograph.models.float8 import with_scales
from vinograph.models.safetensors import ITEM_SIZES, read_headers
from vinograph.models.tokenizers import CLIP, TokenizerKind
from vinograph.networks.graph import Network, Ports, Storage, Weights
from vinograph.networks.stored import StoredTensor
from vinograph.schema import label

Config = TypeVar("Config")

# Limits far beyond any published model. Without them, a damaged configuration could keep building
# for ever.
_MOST_BLOCKS = 512
_COUNTS = (
    *("depth", "levels", "bottleneck_blocks", "num_hidden_layers", "num_layers", "blocks", "layers"),
    *("layers_per_block", "transformer_layers_per_block", "reverse_transformer_layers_per_block"),
    *("num_encoder_blocks", "num_decoder_blocks", "upsampling_scaling_factor"),
)
_PER_LEVEL = ("block_out_channels", "c_hidden", "encoder_block_out_channels", "decoder_block_out_channels")
_KINDS_OF_BLOCKS = ("level_config",)
_MOST_IN_ALL = 20_000  # the product of the counts; SDXL's UNet has 600
_MOST_KINDS = 16  # letters that name the kinds of blocks of a level
_LONGEST_TEXT = 1000
_ENCODERS = ("text_encoder", "text_encoder_2", "image_encoder")
_WIDEST = 1_000_000


class CheckpointTensor(StoredTensor, Protocol):
    """A tensor of a checkpoint, with the file that it lies in."""

    @property
    def file(self) -> Path:
        """The file that holds the tensor."""


DIFFUSERS_STEM, TRANSFORMERS_STEM = "diffusion_pytorch_model", "model"
"""The names that diffusers and transformers give to files of weights, without their ending."""


def part_files(part: str, subfolder: Subfolder, tokenizer: TokenizerKind = CLIP) -> list[str]:
    """The names of a part's files within its folder; the part's name says what it is.

    Raises:
        ModelError: its weights are pickled.
        DamagedModelError: the index of sharded weights is damaged.
    """
    if "tokenizer" in part:
        return tokenizer.files_of(subfolder.listing())
    if "scheduler" in part:
        return ["scheduler_config.json"]
    stem = TRANSFORMERS_STEM if part.endswith(_ENCODERS) else DIFFUSERS_STEM
    return ["config.json", *(file.name for file in subfolder.weight_paths(stem))]


@dataclass(frozen=True)
class Part(Generic[Config]):
    """A part of a checkpoint: its configuration, and its tensors by the network's names.

    ``origin`` names the part in errors.
    """

    config: Config
    tensors: Mapping[str, CheckpointTensor]
    origin: str


@dataclass(frozen=True)
class OwnNetwork:
    """A network that only one family has.

    Attributes:
        folder: its folder in a checkpoint.
        parse: reads its configuration.
        tensor: the name of a tensor that no other network has.
        option: the option of `convert` that takes such a network published alone, if there is one.
    """

    folder: str
    parse: Callable[[Mapping[str, Any]], Any]
    tensor: str
    option: str | None = None


def read_part(
    subfolder: Subfolder,
    stem: str,
    parse: Callable[[Mapping[str, Any]], Config],
    rename: Callable[[str], str] = str,
) -> Part[Config]:
    """Read a part's configuration and the headers of its weights.

    Args:
        subfolder: the part's folder.
        stem: how the library names the file of the weights.
        parse: reads the configuration; it raises ValueError where the configuration isn't computed
            here.
        rename: returns the network's name of a tensor, given its name in the file.

    Raises:
        ModelError: the configuration makes no sense, or weights are missing, pickled or quantized
            elsewhere.
        DamagedModelError: a file is damaged, or two files hold the same tensor.
    """
    _refuse_quantized(subfolder)
    config = parse_config(subfolder, parse)
    tensors = with_scales(read_headers(subfolder.weight_paths(stem)))
    return Part(config, {rename(name): tensor for name, tensor in tensors.items()}, str(subfolder.directory))


def _refuse_quantized(subfolder: Subfolder) -> None:
    """Refuse weights that another library has quantized, as the configuration says.

    Raises:
        ModelError: they are.
    """
    quantized = subfolder.config().get("quantization_config")
    if quantized is None:
        return
    method = quantized.get("quant_method", "unknown") if isinstance(quantized, Mapping) else quantized
    raise ModelError(
        f"{subfolder.directory / 'config.json'} says that its weights are quantized (quant_method {label(method)}), in "
        "a form that Vinograph doesn't read: give the model that they were made of, and quantize it here "
        "(vinograph convert --weights int8)"
    )


def parse_config(subfolder: Subfolder, parse: Callable[[Mapping[str, Any]], Config]) -> Config:
    """Read a part's configuration.

    Raises:
        ModelError: the configuration makes no sense.
        DamagedModelError: it is not a JSON object.
    """
    config = subfolder.config()
    try:
        check_sizes(config)
        return parse({key: value for key, value in config.items() if not key.startswith("_")})
    except (ValueError, TypeError, AttributeError, ArithmeticError, LookupError) as error:
        raise ModelError(
            f"{subfolder.directory / 'config.json'} describes no model that Vinograph has: {error}"
        ) from error


@dataclass(frozen=True)
class ComponentPlan:
    """A component of an opened model that is not built yet.

    Attributes:
        name: the component's name.
        build: builds its graph over weights that are mapped from the files.
        ports: the graph's inputs and outputs.
        f16_safe: False where half-precision arithmetic overflows.
        weights: how most of its weights are stored.
        values: how many values of its weights the graph uses.
        size: the bytes of its weights.
        files: the files that hold its weights.
        compressible: whether its weights may be stored in 8 or 4 bits.
        shapes: the shapes of the tensors that the graph uses, by the checkpoint's names; empty
            where the graph was OpenVINO's already.
        is_ir: whether the graph was OpenVINO's already, whose weights stay as they are.
    """

    name: str
    build: Callable[[Storage], Network]
    ports: Ports
    f16_safe: bool
    weights: str
    values: int
    size: int
    files: tuple[Path, ...]
    compressible: bool = False
    is_ir: bool = False
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def plan_component(
    name: str,
    part: Part[Config],
    network: Callable[[Config, Weights], Network],
    ignored: str = "",
    *,
    compressible: bool = False,
) -> ComponentPlan:
    """Plan a component that ``network`` builds over a part's tensors.

    Nothing is built yet, but every tensor is compared with what the network needs. It must use all
    tensors but those whose names match the pattern ``ignored``.

    Raises:
        DamagedModelError: a tensor is missing, unknown, or of another shape or type.
        ModelError: the configuration describes a network that can't be built.
    """
    used: frozenset[str] = frozenset()

    def build(storage: Storage) -> Network:
        nonlocal used
        weights = Weights(part.tensors, part.origin, storage)
        built = network(part.config, weights)
        weights.check_all_used(ignored)
        used = weights.used
        return built

    try:
        checked = build(Storage(check_only=True))
    except (ValueError, RuntimeError) as error:  # OpenVINO raises the latter where shapes don't fit
        lines = [line for line in str(error).splitlines() if line.strip()] or [repr(error)]
        raise ModelError(f"{part.origin} describes no network that can be built: {lines[-1].strip()[:300]}") from error
    files = tuple(sorted({tensor.file for tensor in part.tensors.values()}))
    shapes = {each: tuple(part.tensors[each].shape) for each in sorted(used)}
    values = sum(map(math.prod, shapes.values()))
    size = sum(math.prod(tensor.shape) * ITEM_SIZES[tensor.dtype] for tensor in part.tensors.values())
    stored = _stored_as(part.tensors.values())
    plan = ComponentPlan(name, build, checked.ports, checked.f16_safe, stored, values, size, files, compressible)
    return replace(plan, shapes=shapes)


def _stored_as(tensors: Iterable[CheckpointTensor]) -> str:
    """The type in which most values of the weights are stored."""
    sizes = Counter[str]()
    for tensor in tensors:
        sizes[tensor.dtype] += math.prod(tensor.shape)
    return max(sizes, key=lambda kind: sizes[kind], default="F32").lower()


def check_sizes(config: Mapping[str, Any]) -> None:
    """Refuse a configuration with numbers so large that building the network would not end.

    Raises:
        ValueError: a number is too large; the message names its key.
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
