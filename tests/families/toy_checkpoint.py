"""A toy checkpoint in diffusers' layout, with class names that are in no library."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from tests.bundles import train_tokenizer

WIDTH, HIDDEN, TOKENS = 6, 32, 16
_SENTENCES = ("a red house on a snowy hill", "two blue boats on the sea", "a yellow cat in a green meadow")

Arrays = Mapping[str, NDArray[np.float32]]


def save_toy(home: Path) -> Path:
    """Write it to ``home``: the kernels smooth, everything else is random."""
    random = np.random.default_rng(3)
    tokenizer = train_tokenizer(_SENTENCES)
    index: dict[str, Any] = {"_class_name": "ToyPipeline", "_diffusers_version": "0.35.0"}
    (home / "tokenizer").mkdir(parents=True)
    tokenizer.save(str(home / "tokenizer" / "tokenizer.json"))
    settings = {"model_max_length": TOKENS, "tokenizer_class": "CLIPTokenizer"}
    (home / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    index["tokenizer"] = ["transformers", "CLIPTokenizer"]
    count = tokenizer.get_vocab_size()
    mixing = random.standard_normal((HIDDEN, 3)).astype(np.float32)
    parts: dict[str, tuple[str, dict[str, int], Arrays]] = {
        "text_table": (
            "ToyTextTable",
            {"vocab_size": count, "hidden_size": WIDTH, "max_position_embeddings": TOKENS},
            {"tokens.weight": random.standard_normal((count, WIDTH)).astype(np.float32)},
        ),
        "smoother": (
            "ToySmoother",
            {"channels": 3, "hidden_channels": HIDDEN, "text_width": WIDTH, "sample_size": 48},
            {
                "text.weight": (random.standard_normal((HIDDEN, WIDTH)) / 4).astype(np.float32),
                "text.bias": np.zeros(HIDDEN, np.float32),
                "first.weight": _smoothing(mixing),
                "first.bias": np.zeros(HIDDEN, np.float32),
                "last.weight": _smoothing(mixing.T * np.float32(2.5 / HIDDEN)),
                "last.bias": np.zeros(3, np.float32),
            },
        ),
    }
    for part, (kind, config, weights) in parts.items():
        (home / part).mkdir()
        (home / part / "config.json").write_text(json.dumps({"_class_name": kind, **config}), encoding="utf-8")
        save_file(dict(weights), home / part / "diffusion_pytorch_model.safetensors")
        index[part] = ["toylib", kind]
    (home / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    (home / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")
    return home


def _smoothing(mixing: NDArray[np.float32]) -> NDArray[np.float32]:
    """Kernels [out, in, 5, 5] that spread each channel like a bell, and mix channels so."""
    bell = np.array([1, 4, 6, 4, 1], np.float32) / 16
    return np.ascontiguousarray(mixing[:, :, None, None] * np.outer(bell, bell))
