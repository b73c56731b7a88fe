"""Single files with any tensors, shapes and marks are opened or refused by name, quickly."""

from __future__ import annotations

import json
import os
import struct
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

from tests.fuzz import Attempt, Target
from tests.fuzz.documents import damaged, mutated, run

_LENGTH = 8  # bytes, of the header's length


def _prepare(prepared: Path) -> Attempt:
    from tests.single_files import models_of, save_directory, single_file_tensors, write

    base = save_directory(prepared / "base")
    whole = write(prepared / "whole.safetensors", single_file_tensors(models_of())).read_bytes()
    length = struct.unpack("<Q", whole[:_LENGTH])[0]
    header: dict[str, Any] = json.loads(whole[_LENGTH : _LENGTH + length])
    names = [name for name in header if name != "__metadata__"]

    def attempt(random: Random, folder: Path) -> None:
        """Change the header: a few tensors only, since a mutation of all is seldom one that matters."""
        text, size = _changed(random, header, names)
        file = folder / "it.safetensors"
        start = struct.pack("<Q", len(text)) + text
        with file.open("wb") as stream:
            stream.write(damaged(random, start) if random.random() < 0.1 else start)
        os.truncate(file, file.stat().st_size + size)  # a hole: no value is read
        sources = random.choice(([], ["--base", base], ["--base", base], ["--base", base, "--vae", file]))
        module = import_module("vinograph.convert.assemble")
        with mock.patch.object(module, "BundleWriter", side_effect=_StoppedError), suppress(_StoppedError):
            run(["convert", file, folder / "bundle", *sources])
        assert [each.name for each in folder.iterdir()] == ["it.safetensors"]

    return attempt


def _changed(random: Random, header: dict[str, Any], names: list[str]) -> tuple[bytes, int]:
    """A changed header that is whole by itself mostly, and the bytes of all of its tensors."""
    entries = {name: dict(header[name]) for name in names}
    for name in random.sample(names, random.choice((1, 1, 2, 5))):
        entry = entries.pop(name)
        match random.randrange(5):
            case 0:
                continue
            case 1:
                entries[name[: random.randrange(1, len(name))]] = entry
            case 2:
                entry["shape"] = [*entry["shape"][:-1], random.choice((0, 1, 3, 64, 2**20))]
            case 3:
                entry["shape"] = random.choice((entry["shape"][::-1], entry["shape"][1:], [*entry["shape"], 1]))
            case _:
                entries[random.choice((name.replace("0", "999"), "v_pred", "model_ema.a", "lora_unet_a.lora_up"))] = (
                    entry
                )
        entries.setdefault(name, entry)
    position = 0
    for entry in entries.values():
        end = position + 4 * _product(entry["shape"])
        entry["data_offsets"] = [position, end]
        position = end
    if random.random() < 0.15:
        small = dict(random.sample([*entries.items()], 3))
        return mutated(random, small), position
    return json.dumps(entries).encode(), min(position, 2**40)


def _product(shape: list[int]) -> int:
    result = 1
    for size in shape:
        result *= size
    return result


class _StoppedError(BaseException):
    """Everything before writing has been checked."""


TARGETS = [Target("single-file", _prepare, attempts=15)]
