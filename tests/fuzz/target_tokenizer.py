"""Tokenizers with any files become a bundle's tokenizer that reads any prompt, or are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz import Attempt, Target
from tests.fuzz.documents import damaged, linked_copy, mutated, replace

_PROMPT = "a red house on a snowy hill, in the style of [unclosed"


def _prepare_checkpoints(prepared: Path) -> Attempt:
    from tests.checkpoints import clip_tokenizer, split_tokenizer_files, t5_tokenizer
    from tests.models.test_t5_tokenizers import folder_of, train
    from tests.models.writing import write_tokenizer
    from vinograph.errors import DamagedModelError
    from vinograph.models.tokenizers import CLIP, T5
    from vinograph.text import Tokenizer

    kinds = {"clip": CLIP, "older": CLIP, "t5": T5, "sentencepiece": T5}
    clip_tokenizer().save_pretrained(prepared / "clip")
    clip_tokenizer().save_pretrained(prepared / "older")
    split_tokenizer_files(prepared / "older")
    t5_tokenizer().save_pretrained(prepared / "t5")
    folder_of(train(), prepared / "sentencepiece", extra_ids=10)

    def attempt(random: Random, folder: Path) -> None:
        name = random.choice(list(kinds))
        copy = linked_copy(prepared / name, folder / "tokenizer")
        _damage(random, copy)
        try:
            made = write_tokenizer(copy, folder / "tokenizer.json", 77, kinds[name])
        except DamagedModelError:
            return
        assert 1 <= made.max_length <= 77
        _read(lambda: Tokenizer(folder / "tokenizer.json", made.max_length, made.pad_id), DamagedModelError)

    return attempt


def _prepare_bundles(prepared: Path) -> Attempt:
    from tests.checkpoints import clip_tokenizer
    from vinograph.errors import DamagedModelError
    from vinograph.text import Tokenizer

    clip_tokenizer().save_pretrained(prepared)
    document = json.loads((prepared / "tokenizer.json").read_text(encoding="utf-8"))

    def attempt(random: Random, folder: Path) -> None:
        file = folder / "tokenizer.json"
        file.write_bytes(mutated(random, document))
        _read(lambda: Tokenizer(file, 77, 0), DamagedModelError)

    return attempt


def _damage(random: Random, folder: Path) -> None:
    file = random.choice(sorted(folder.iterdir()))
    content = file.read_bytes()
    if file.suffix == ".json" and random.random() < 0.8:
        replace(file, mutated(random, json.loads(content)))
    else:
        replace(file, damaged(random, content))


def _read(opened: Callable[[], Any], refused: type[Exception]) -> None:
    """Tokenize prompts, if the tokenizer can be opened."""
    try:
        tokens = opened()([_PROMPT, "", "x" * 1000])
    except refused:
        return
    assert tokens.ids.shape == tokens.mask.shape
    assert len(tokens.dropped) == 3


TARGETS = [
    Target("tokenizer", _prepare_checkpoints, attempts=30),
    Target("bundled-tokenizer", _prepare_bundles, attempts=100),
]
