"""Safetensors files with any header are read or refused by name, quickly."""

from __future__ import annotations

import json
import struct
from contextlib import suppress
from pathlib import Path
from random import Random

from tests.fuzz import Attempt, Target
from tests.fuzz.documents import damaged, mutated
from vinograph.errors import DamagedModelError, ModelError
from vinograph.models.float8 import with_scales
from vinograph.models.safetensors import read_header, shards

_HEADER = {
    "__metadata__": {"format": "pt"},
    "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b.weight": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]},
    "c": {"dtype": "I64", "shape": [], "data_offsets": [32, 40]},
    "d.weight": {"dtype": "F8_E4M3", "shape": [2, 2], "data_offsets": [40, 44]},
    "d.scale_weight": {"dtype": "F32", "shape": [1], "data_offsets": [44, 48]},
}
_INDEX = {"metadata": {"total_size": 40}, "weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}


def _prepare(_: Path) -> Attempt:
    whole = json.dumps(_HEADER).encode()

    def attempt(random: Random, folder: Path) -> None:
        text = mutated(random, _HEADER) if random.random() < 0.8 else whole
        length = random.choice((len(text),) * 8 + (0, 2**63, len(text) + 1))
        content = struct.pack("<Q", length) + text + bytes(48)
        file = folder / "model.safetensors"
        file.write_bytes(damaged(random, content) if random.random() < 0.3 else content)
        with suppress(DamagedModelError, ModelError):
            records = read_header(file)
            for record in records.values():
                assert 8 <= record.begin <= record.end <= file.stat().st_size
            for tensor in with_scales(records).values():
                assert tensor.array().shape == tensor.shape
        index = folder / "model.safetensors.index.json"
        index.write_bytes(mutated(random, _INDEX))
        with suppress(DamagedModelError):
            assert all((folder / name).parent == folder for name in shards(index))

    return attempt


TARGETS = [Target("safetensors", _prepare, attempts=200)]
