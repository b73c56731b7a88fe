"""The classes that a toy checkpoint's model_index.json names."""

from __future__ import annotations

from collections.abc import Mapping

CLASSES: Mapping[str, set[tuple[str, str]]] = {
    "tokenizer": {("transformers", "CLIPTokenizer")},
    "text_table": {("toylib", "ToyTextTable")},
    "smoother": {("toylib", "ToySmoother")},
}
