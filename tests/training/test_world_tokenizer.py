"""The tokenizer gives transformers' ids, and one token for each word of the grammar."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import CLIPTokenizer

from training.tokenizer import END, EVERYDAY, LENGTH, START, VOCABULARY, grammar_words, write
from training.world import caption, sample

STRANGE = [
    "",
    "A Naïve  Café\n — ßtraße 42 €!! don't we're 😀 你好",
    "!!! ...",
    "supercalifragilistic",
    "  a\tCAT's  ",
    "x1y22",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    write(path)
    return path


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def captions(count: int) -> list[str]:
    rng = random.Random(3)
    return [caption(sample(rng, None), rng, dropout=0.2) for _ in range(count)]


def test_the_folder_has_the_published_layout(folder: Path) -> None:
    names = {"vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}
    assert {path.name for path in folder.iterdir()} == names
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    assert sorted(vocabulary.values()) == list(range(VOCABULARY))
    assert (vocabulary["!"], vocabulary[START], vocabulary[END]) == (0, VOCABULARY - 2, VOCABULARY - 1)
    assert (folder / "merges.txt").read_text(encoding="utf-8").startswith("#version: 0.2\n")


@pytest.mark.parametrize("slow", [False, True])
def test_transformers_gives_the_same_ids(folder: Path, tokenizer: Tokenizer, tmp_path: Path, slow: bool) -> None:
    """With `tokenizer.json`, and from vocabulary and merges alone."""
    if slow:
        for name in ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"):
            (tmp_path / name).write_bytes((folder / name).read_bytes())
    clip = CLIPTokenizer.from_pretrained(tmp_path if slow else folder)
    assert (clip.model_max_length, clip.pad_token, clip.bos_token, clip.eos_token) == (LENGTH, END, START, END)
    for text in captions(500) + STRANGE:
        assert clip(text).input_ids == tokenizer.encode(text).ids


def test_every_grammar_word_is_one_token(tokenizer: Tokenizer) -> None:
    assert [word for word in grammar_words() if len(tokenizer.encode(word).ids) != 3] == []


def test_everyday_english_takes_few_tokens(tokenizer: Tokenizer) -> None:
    counts = [len(tokenizer.encode(word).ids) - 2 for word in EVERYDAY]
    assert sum(counts) / len(counts) < 1.4


def test_captions_fit_and_are_decoded_unchanged(tokenizer: Tokenizer) -> None:
    for text in captions(1000):
        ids = tokenizer.encode(text).ids
        assert len(ids) <= LENGTH
        assert (ids[0], ids[-1]) == (VOCABULARY - 2, VOCABULARY - 1)
        words = "".join(tokenizer.id_to_token(i) or "?" for i in ids[1:-1]).replace("</w>", "")
        assert words == text.replace(" ", "")
