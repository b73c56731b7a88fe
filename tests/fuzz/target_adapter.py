"""Adapters with any keys, shapes, metadata and configuration are merged or refused by name, quickly."""

from __future__ import annotations

import json
import struct
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from tests.fuzz import Attempt, Target
from tests.fuzz.documents import damaged, mutated
from vinograph.adapters.adaptation import adapt
from vinograph.adapters.report import report
from vinograph.components import source_of
from vinograph.errors import DamagedModelError, ModelError, RequestError
from vinograph.models import catalog

_COMPONENT = "text_encoder"
_LAYER = "lora_te1_text_model_encoder_layers_0_mlp_fc1"
_ROLES: tuple[str, ...] = (
    "lora_down.weight",
    "lora_up.weight",
    "lora_mid.weight",
    "alpha",
    "dora_scale",
    "diff",
    "diff_b",
    "hada_w1_a",
)
_ROLES += ("hada_w1_b", "hada_w2_a", "hada_w2_b", "lokr_w1", "lokr_w2_a", "lokr_w2_b", "lora_A.weight", "lora_B.bias")
_CONFIG = {"r": 4, "lora_alpha": 8, "use_rslora": True, "alpha_pattern": {"fc1": 2}, "peft_type": "LORA"}


def _prepare(_: Path) -> Attempt:
    model = catalog.find("storybook-sdxl")
    rows, columns = model_shape(model)

    def attempt(random: Random, folder: Path) -> None:
        sizes = [1, 2, 4, rows, columns, random.randrange(9)]
        entries: dict[str, Any] = {}
        position = 0
        for role in random.sample(_ROLES, random.randint(1, 6)):
            down, up = role.endswith(("down.weight", "A.weight")), role.endswith("up.weight")
            shape = (
                [4, columns]
                if down
                else [rows, 4]
                if up
                else [random.choice(sizes) for _ in range(random.randrange(4))]
            )
            if random.random() < 0.2:
                shape.append(random.choice(sizes))
            size = 4 * int(np.prod(shape, dtype=np.int64))
            entries[f"{_LAYER}.{role}"] = {"dtype": "F32", "shape": shape, "data_offsets": [position, position + size]}
            position += size
        metadata = {
            "lora_adapter_metadata": mutated(random, _CONFIG).decode(errors="replace"),
            "ss_tag_frequency": "{}",
        }
        header = {"__metadata__": metadata, **entries}
        text = mutated(random, header) if random.random() < 0.3 else json.dumps(header).encode()
        values = np.random.default_rng(random.randrange(99)).standard_normal(position // 4).astype(np.float32)
        content = struct.pack("<Q", len(text)) + text + values.tobytes()
        file = folder / "adapter_model.safetensors"
        file.write_bytes(damaged(random, content) if random.random() < 0.2 else content)
        if random.random() < 0.5:
            (folder / "adapter_config.json").write_bytes(mutated(random, _CONFIG))
        with suppress(DamagedModelError, ModelError, RequestError), np.errstate(all="ignore"):
            found = report(folder, model)
            named = {*found.match.used, *found.match.idle, *(each.tensor for each in found.match.unused)}
            assert named == set(found.file.tensors), "a tensor is neither used nor named"
            adaptation = adapt(model, {folder: random.choice((-1.0, 0.0, 0.5))})
            source_of(model, _COMPONENT, adaptation).read()

    return attempt


def model_shape(model: Any) -> tuple[int, int]:
    """The shape of the layer that the adapters are for."""
    from vinograph.adapters.model_weights import graph_weights

    rows, columns = graph_weights(model, _COMPONENT)["encoder.layers.0.mlp.fc1.weight"].shape
    return rows, columns


TARGETS = [Target("adapter", _prepare, attempts=100)]
