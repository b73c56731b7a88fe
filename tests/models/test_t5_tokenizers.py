"""T5's tokenizer gives the ids of sentencepiece and transformers, whatever files there are."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from transformers import T5Tokenizer

from tests.checkpoints import t5_tokenizer
from tests.models.test_tokenizers import PROMPTS
from tests.models.writing import files_of, write_tokenizer
from vinograph.errors import DamagedModelError
from vinograph.models.sentencepiece import UNKNOWN, read_sentencepiece
from vinograph.models.tokenizers import T5
from vinograph.text import Tokenizer

SENTENCES = [
    "a red house on a snowy hill at night",
    "two blue boats on the calm sea in the evening",
    "A Painting of Clouds over Mountains, oil on canvas, 1920 x 1080",
    "Würstchen, naïve café, 12:30 isn't it?",
    "красный дом в снегу",
]
LENGTH = 120


def train(kind: str = "unigram", **settings: object) -> bytes:
    """A small sentencepiece model, with T5's special pieces unless ``settings`` say otherwise."""
    written = io.BytesIO()
    chosen: dict[str, Any] = {
        **{"vocab_size": 120, "hard_vocab_limit": False, "pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
        **{"normalization_rule_name": "nmt_nfkc", "model_type": kind, "minloglevel": 2, "num_threads": 1},
        **settings,
    }
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(SENTENCES * 6), model_writer=written, **chosen)
    return written.getvalue()


@pytest.fixture(scope="module")
def model() -> bytes:
    return train()


def folder_of(model: bytes, folder: Path, **settings: object) -> Path:
    folder.mkdir()
    (folder / "spiece.model").write_bytes(model)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T5Tokenizer", **settings}))
    return folder


def ids(file: Path, prompts: list[str]) -> list[list[int]]:
    """Ours, without the padding."""
    tokens = Tokenizer(file, LENGTH, 0)(prompts)
    return [row[mask != 0].tolist() for row, mask in zip(tokens.ids, tokens.mask, strict=True)]


def test_what_is_read_is_what_sentencepiece_reads(model: bytes, tmp_path: Path) -> None:
    ours = read_sentencepiece(folder_of(model, tmp_path / "t5") / "spiece.model")
    theirs = sentencepiece.SentencePieceProcessor(model_proto=model)
    assert [(piece.text, piece.score) for piece in ours.pieces] == [
        (theirs.id_to_piece(index), theirs.get_score(index)) for index in range(theirs.get_piece_size())
    ]
    assert [index for index, piece in enumerate(ours.pieces) if piece.kind == UNKNOWN] == [theirs.unk_id()]
    assert len(ours.charsmap) > 1000


def test_ids_are_those_of_sentencepiece(model: bytes, tmp_path: Path) -> None:
    write_tokenizer(folder_of(model, tmp_path / "t5"), tmp_path / "out.json", LENGTH, T5)
    theirs = sentencepiece.SentencePieceProcessor(model_proto=model).encode(PROMPTS)
    assert ids(tmp_path / "out.json", PROMPTS) == [[*row[: LENGTH - 1], 1] for row in theirs]


@pytest.mark.parametrize("extra", [100, 3])
def test_ids_are_those_of_transformers(model: bytes, tmp_path: Path, extra: int) -> None:
    """With special tokens in the text, too; and transformers reads the written file alike."""
    read = read_sentencepiece(folder_of(model, tmp_path / "t5", extra_ids=extra) / "spiece.model")
    pieces = [(piece.text, piece.score) for piece in read.pieces]
    pieces += [(f"<extra_id_{index}>", 0.0) for index in reversed(range(extra))]
    theirs = T5Tokenizer(pieces, _spm_precompiled_charsmap=read.charsmap, extra_ids=extra)
    theirs.save_pretrained(tmp_path / "fast")
    prompts = [*PROMPTS, "an end</s> and <extra_id_1> in the text, <pad><unk>"]
    expected = theirs(prompts, truncation=True, max_length=LENGTH)["input_ids"]
    for folder in ("t5", "fast"):
        written = write_tokenizer(tmp_path / folder, tmp_path / f"{folder}.json", LENGTH, T5)
        assert ids(tmp_path / f"{folder}.json", prompts) == expected
        assert (written.max_length, written.pad_id) == (LENGTH, 0)


def test_nothing_is_padded_or_cut_by_the_file_itself(tmp_path: Path) -> None:
    tokenizer = t5_tokenizer()
    tokenizer(["a red house"], padding="max_length", truncation=True, max_length=5)
    tokenizer.save_pretrained(tmp_path / "t5")
    write_tokenizer(tmp_path / "t5", tmp_path / "out.json", LENGTH, T5)
    written = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert written["padding"] is None
    assert written["truncation"] is None
    assert json.dumps(written).count("extra_id_") >= 100


@pytest.mark.parametrize(("configured", "expected"), [(512, 120), (77, 77), (None, 120)])
def test_the_length_is_the_least_that_anyone_says(
    model: bytes, tmp_path: Path, configured: int | None, expected: int
) -> None:
    settings = {} if configured is None else {"model_max_length": configured}
    folder = folder_of(model, tmp_path / "t5", **settings)
    assert write_tokenizer(folder, tmp_path / "out.json", LENGTH, T5).max_length == expected


def test_the_same_bytes_every_time(model: bytes, tmp_path: Path) -> None:
    folder = folder_of(model, tmp_path / "t5")
    for name in ("one.json", "two.json"):
        write_tokenizer(folder, tmp_path / name, LENGTH, T5)
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()


@pytest.mark.parametrize("share", [0, 0.001, 0.3, 0.9])
def test_a_file_cut_short(model: bytes, tmp_path: Path, share: float) -> None:
    folder = folder_of(model[: int(share * len(model))], tmp_path / "t5")
    with pytest.raises(DamagedModelError, match="does not hold a T5 tokenizer"):
        write_tokenizer(folder, tmp_path / "out.json", LENGTH, T5)


def test_rubbish(tmp_path: Path) -> None:
    folder = folder_of(bytes(range(256)) * 20, tmp_path / "t5")
    with pytest.raises(DamagedModelError, match="T5 tokenizer"):
        write_tokenizer(folder, tmp_path / "out.json", LENGTH, T5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "bpe"}, "not a unigram model"),
        ({"byte_fallback": True, "vocab_size": 400}, "not a unigram model"),
        ({"pad_id": 2, "unk_id": 0}, "its first pieces are <unk>, </s>, <pad>"),
    ],
)
def test_another_tokenizer(tmp_path: Path, settings: dict[str, object], message: str) -> None:
    folder = folder_of(train(**settings), tmp_path / "t5")  # type: ignore[arg-type]
    with pytest.raises(DamagedModelError, match=message):
        write_tokenizer(folder, tmp_path / "out.json", LENGTH, T5)


def test_which_files_are_read() -> None:
    assert files_of(["tokenizer.json", "spiece.model", "README.md"], T5) == ["tokenizer.json", "spiece.model"]
    assert files_of(["tokenizer_config.json"], T5) == ["spiece.model", "tokenizer_config.json"]
