"""Adapter files: their tensors, what they say of themselves, and where they are found."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vinograph import folders, strict_json
from vinograph.errors import DamagedModelError, ModelError, RequestError
from vinograph.models import hub_file
from vinograph.models.safetensors import PICKLES, TensorRecord, read_header, read_metadata
from vinograph.values import reading, shown

_CONFIG = "adapter_config.json"
_NAMES = ("adapter_model.safetensors", "pytorch_lora_weights.safetensors")
_PEFT_METADATA = "lora_adapter_metadata"
_ENDING = ".safetensors"


@dataclass(frozen=True)
class AdapterFile:
    """An adapter's file, whose header was compared with it.

    Attributes:
        tensors: its tensors by name; their values are read when they are needed.
        metadata: what its header says of it.
        config: PEFT's settings; those of one network have its name and a dot in front.
    """

    path: Path
    tensors: Mapping[str, TensorRecord]
    metadata: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, reference: str | os.PathLike[str]) -> AdapterFile:
        """Read the header of the adapter that ``reference`` names; see :func:`locate`.

        Raises:
            RequestError: there is no such file, or no tensor in it.
            ModelError: it is pickled.
            DamagedModelError: it is damaged, or its adapter_config.json is.
        """
        path = locate(reference)
        tensors = read_header(path)
        if not tensors:
            raise RequestError(f"the adapter {path} holds no tensor; give a LoRA's .safetensors file")
        metadata = read_metadata(path)
        beside = path.parent / _CONFIG if path.name == _NAMES[0] else None
        config = _read_config(beside) if beside is not None and beside.is_file() else _in_metadata(metadata)
        return cls(path, tensors, metadata, config)

    def settings(self, prefix: str) -> dict[str, Any]:
        """PEFT's settings for the network whose keys begin with ``prefix``."""
        own = {name[len(prefix) + 1 :]: value for name, value in self.config.items() if name.startswith(f"{prefix}.")}
        return own or {name: value for name, value in self.config.items() if "." not in name}

    def stamp(self) -> tuple[str, int, int]:
        """Path, size and time of the file, which change whenever the adapter does."""
        stat = self.path.stat()
        return str(self.path.resolve()), stat.st_size, stat.st_mtime_ns


def folder() -> Path:
    """The folder of adapters that are known by their files' names."""
    return folders.models() / "adapters"


def recorded_name(path: Path) -> str:
    """An adapter's name for a picture's metadata: its file's, or its folder's where all are named alike."""
    return path.parent.name if path.name in _NAMES else path.name


def by_name(name: str) -> Path | None:
    """The adapter in the folder of adapters that a picture's metadata call ``name``; None without one.

    A ``name`` with a folder, as older metadata have it, is looked for by its last part.
    """
    wanted = re.split(r"[/\\]", name)[-1].removesuffix(_ENDING)
    places = (folder() / f"{wanted}{_ENDING}", folder() / wanted)
    if wanted.strip(".") == "" or not folders.is_there(folder(), directory=True):
        return None
    return next((place for place in places if folders.is_there(place)), None)


def installed() -> list[Path]:
    """The files in the folder of adapters, by name."""
    return sorted(folder().glob(f"*{_ENDING}")) if folders.is_there(folder(), directory=True) else []


def locate(reference: str | os.PathLike[str]) -> Path:
    """The file of an adapter.

    Args:
        reference: a ``.safetensors`` file, a folder with one, the name of a file in the folder of
            adapters, without its ending, or a file of the hub ("owner/name/file.safetensors").

    Raises:
        RequestError: there is no such file.
        ModelError: a folder has pickled weights only, or the hub has no such file.
    """
    with reading("adapter", reference):
        name = os.fspath(reference)
    if not isinstance(name, str):
        raise RequestError(f"adapter is {shown(reference)}; give the path of a file as text")
    path = folders.expand(name)
    if folders.is_there(path, directory=True):
        return _in_folder(path)
    if folders.is_there(path):
        return path
    if re.fullmatch(r"[^/\\]+", name):
        for place in (folder() / f"{name}{_ENDING}", folder() / name):
            if folders.is_there(place):
                return _in_folder(place) if place.is_dir() else place
    if (found := hub_file.fetched(name)) is not None:
        return found
    names = ", ".join(file.stem for file in installed()) or "none"
    raise RequestError(
        f"there is no adapter {shown(name)}: give a .safetensors file, a folder with one, or a name from {folder()}, "
        f"which has {names}"
    )


def _in_folder(directory: Path) -> Path:
    """The adapter in a folder as PEFT or diffusers writes it.

    Raises:
        RequestError: the folder has no adapter, or several.
        ModelError: it has pickled weights only.
    """
    for name in _NAMES:
        if (directory / name).is_file():
            return directory / name
    found = sorted(directory.glob(f"*{_ENDING}"))
    if len(found) == 1:
        return found[0]
    pickles = sorted(file.name for file in directory.iterdir() if file.suffix in PICKLES)
    if pickles and not found:
        raise ModelError(
            f"the adapter {directory} has its weights in {', '.join(pickles)}, pickled: loading them could run any "
            "code. Vinograph reads safetensors only; look for a copy in that format"
        )
    raise RequestError(
        f"the folder {directory} has {len(found) or 'no'} .safetensors files; name the adapter's file itself"
    )


def _read_config(file: Path) -> dict[str, Any]:
    try:
        return dict(strict_json.read_object(file))
    except (OSError, strict_json.JsonError) as error:
        raise DamagedModelError(f"{file} is not an adapter's configuration ({error})") from error


def _in_metadata(metadata: Mapping[str, str]) -> dict[str, Any]:
    """PEFT's settings in a header, as diffusers writes them; none where they aren't readable."""
    try:
        found = json.loads(metadata.get(_PEFT_METADATA, "{}"))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def parse_weight(text: str) -> tuple[str, float]:
    """File and weight of ``FILE[:WEIGHT]``; the weight is 1 where none is given.

    A path may hold colons itself. What follows the last one is a weight if it is a number and no
    file has the whole text as its name.
    """
    name, colon, number = text.rpartition(":")
    if not (colon and name) or folders.is_there(folders.expand(text)):
        return text, 1.0
    try:
        return name, float(number)
    except ValueError:
        return text, 1.0


def check_weights(adapters: Any) -> dict[str, float]:
    """Adapters by path, each with a finite weight.

    Raises:
        RequestError: it is no mapping, or a weight is no number.
    """
    with reading("adapters", adapters):
        if not isinstance(adapters, Mapping):
            raise RequestError(f"adapters is {shown(adapters)}; give a mapping from file to weight")
        given = list(adapters.items())
    checked: dict[str, float] = {}
    for name, weight in given:
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not math.isfinite(weight):
            raise RequestError(f"the weight of the adapter {shown(name)} is {shown(weight)}; give a number such as 0.8")
        with reading("adapter", name):
            text = os.fspath(name)
        if not isinstance(text, str):
            raise RequestError(f"adapter is {shown(name)}; give the path of a file as text")
        checked[text] = float(weight)
    return checked
