"""Writes checkpoints in diffusers' layout: safetensors in f16 and JSON configurations."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from training.world.vocabulary import vocabulary

VERSION = "0.36.0"
"""The version of diffusers that the files name as theirs."""

_LICENCE = Path(__file__).parents[1] / "LICENSE"


def write_model(folder: Path, name: str, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Write ``config.json`` and the weights ``<name>.safetensors``, in f16, to ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config)
    halves = {
        key: (value.half() if value.is_floating_point() else value).contiguous(memory_format=torch.contiguous_format)
        for key, value in state.items()
    }
    save_file(halves, folder / f"{name}.safetensors", metadata={"format": "pt"})


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write ``value`` as indented JSON; a missing folder is created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def write_settings(out: Path, settings: Mapping[str, Any]) -> None:
    """Write ``vinograph.json``: ``settings``, and the words that the model has seen."""
    write_json(out / "vinograph.json", {**settings, "vocabulary": vocabulary()})


def write_card(out: Path, card: str) -> None:
    """Write the model card ``README.md`` and this project's licence to ``out``."""
    (out / "README.md").write_text(card, encoding="utf-8")
    shutil.copyfile(_LICENCE, out / "LICENSE")
