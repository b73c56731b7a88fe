"""Prompts become the token ids of transformers' CLIPTokenizer; truncated text is reported."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import CLIPTokenizer

from tests.checkpoints import PANIC
from training.tokenizer import byte_letters, merges_for
from vinograph import DamagedModelError
from vinograph.text import Tokenizer

LENGTH = 20
MARKS = ("<|startoftext|>", "<|endoftext|>")
KNOWN_WORDS = (
    "an",
    "image",
    "of",
    "shiba",
    "spacesuit",
    "helmet",
    "red",
    "house",
    "on",
    "the",
    "snowy",
    "hill",
    "night",
)

PROMPTS = (
    "",
    " ",
    "a red house",
    "  A  RED\tHouse,\n on the hill!  ",
    "an image of a shiba inu, donning a spacesuit and helmet",
    "it's 1024x1024 (really)... don't!?",
    "čeština, žluťoučký kůň, Würstchen, naïve café",
    "одна красная машина",
    "赤い家 🏠🌙",
    "a <|endoftext|> in the middle",
    "night " * 40,
    "the red house on the hill " * 4,
    "x",
)


def clip_tokenizer(pad: str) -> Any:
    letters = byte_letters()
    merges = merges_for(KNOWN_WORDS, 200)
    tokens = [*letters.values(), *(f"{each}</w>" for each in letters.values()), *(a + b for a, b in merges), *MARKS]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    kind: Any = CLIPTokenizer
    return kind(vocabulary, [*merges], pad_token=pad, model_max_length=LENGTH)


@pytest.fixture(params=["<|endoftext|>", "!"], ids=["pads with the end", "pads with !"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Tokenizer, Any]:
    """Our tokenizer, and transformers', which it was saved from."""
    theirs = clip_tokenizer(request.param)
    theirs.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    return Tokenizer(tmp_path / "tokenizer.json", LENGTH, theirs.pad_token_id), theirs


def by_transformers(theirs: Any, prompts: Sequence[str]) -> tuple[Any, Any]:
    encoded = theirs(list(prompts), padding="max_length", max_length=LENGTH, truncation=True, return_tensors="np")
    return encoded.input_ids, encoded.attention_mask


@pytest.mark.parametrize("prompt", PROMPTS)
def test_ids_and_mask_are_equal_to_transformers(pair: tuple[Tokenizer, Any], prompt: str) -> None:
    ours, theirs = pair
    ids, mask = by_transformers(theirs, [prompt])
    tokens = ours([prompt])
    assert tokens.ids.dtype == tokens.mask.dtype == np.int64
    assert np.array_equal(tokens.ids, ids)
    assert np.array_equal(tokens.mask, mask)


def test_a_batch_is_tokenized_prompt_by_prompt(pair: tuple[Tokenizer, Any]) -> None:
    ours, theirs = pair
    ids, mask = by_transformers(theirs, PROMPTS)
    tokens = ours(PROMPTS)
    assert np.array_equal(tokens.ids, ids)
    assert np.array_equal(tokens.mask, mask)
    assert len(tokens.dropped) == len(PROMPTS)


class TestCutting:
    """A prompt is truncated to the text encoder's length, and the rest is reported as written."""

    def test_nothing_is_dropped_up_to_the_limit(self, pair: tuple[Tokenizer, Any]) -> None:
        fits = "night " * (LENGTH - 2)
        assert pair[0]([fits, "a"]).dropped == ("", "")

    def test_one_word_too_many_is_dropped(self, pair: tuple[Tokenizer, Any]) -> None:
        tokens = pair[0](["night " * (LENGTH - 2) + "Helmet"])
        assert tokens.dropped == ("Helmet",)
        assert tokens.ids[0, -1] == pair[1].eos_token_id
        assert tokens.mask.all()

    def test_the_dropped_text_is_reported_as_written(self, pair: tuple[Tokenizer, Any]) -> None:
        """Case, spaces and accents are the prompt's, not the normalizer's."""
        tail = "On  a Snowy HILL, für Würstchen!"
        assert pair[0](["night " * (LENGTH - 2) + tail]).dropped == (tail,)

    def test_used_and_dropped_text_make_the_prompt(self, pair: tuple[Tokenizer, Any]) -> None:
        words = ["red", "house", "night", "hill", "helmet"] * 8
        (dropped,) = pair[0]([" ".join(words)]).dropped
        assert dropped.split() == words[LENGTH - 2 :]

    def test_each_prompt_of_a_batch_is_truncated_by_itself(self, pair: tuple[Tokenizer, Any]) -> None:
        long = "night " * (LENGTH - 2)
        assert pair[0]([long + "red", "a house", long + "hill"]).dropped == ("red", "", "hill")


def test_padding_and_truncation_of_the_file_are_ignored(tmp_path: Path) -> None:
    theirs = clip_tokenizer("!")
    theirs.backend_tokenizer.enable_truncation(5)
    theirs.backend_tokenizer.enable_padding(length=7)
    theirs.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    ours = Tokenizer(tmp_path / "tokenizer.json", LENGTH, theirs.pad_token_id)
    theirs.backend_tokenizer.no_truncation()
    ids, _ = by_transformers(theirs, ["a red house on the hill at night"])
    assert np.array_equal(ours(["a red house on the hill at night"]).ids, ids)


@pytest.mark.parametrize("content", [b"", b"{", b'{"model": 7}', b"\xff\xfe"])
def test_a_file_that_is_no_tokenizer_is_a_damaged_model(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_bytes(content)
    with pytest.raises(DamagedModelError, match=r"tokenizer.json is not a tokenizer"):
        Tokenizer(file, LENGTH, 0)


def test_a_tokenizer_that_makes_the_library_panic_is_a_damaged_model(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    clip_tokenizer("!").backend_tokenizer.save(str(file))
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "model": {**content["model"], **PANIC}}))
    with pytest.raises(DamagedModelError, match=r"tokenizer.json is not a tokenizer: .*out of range"):
        Tokenizer(file, LENGTH, 0)


def test_a_missing_file_is_a_damaged_model(tmp_path: Path) -> None:
    with pytest.raises(DamagedModelError, match=r"nowhere.json is not a tokenizer"):
        Tokenizer(tmp_path / "nowhere.json", LENGTH, 0)
