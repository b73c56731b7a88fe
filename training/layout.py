"""Writes a checkpoint in the layout that diffusers reads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

VERSION = "0.36.0"
"""The version of diffusers whose layout it is."""

_LICENCE = Path(__file__).parents[1] / "LICENSE"


def write_model(folder: Path, name: str, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """``config.json`` and ``<name>.safetensors``, in f16."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config)
    halves = {
        key: (value.half() if value.is_floating_point() else value).contiguous(memory_format=torch.contiguous_format)
        for key, value in state.items()
    }
    save_file(halves, folder / f"{name}.safetensors", metadata={"format": "pt"})


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """``value`` as indented JSON; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def write_card(out: Path, card: str) -> None:
    """The model card and our licence."""
    (out / "README.md").write_text(card, encoding="utf-8")
    shutil.copyfile(_LICENCE, out / "LICENSE")
