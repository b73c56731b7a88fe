"""A bundle's tokenizers give the ids that transformers gives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from tests.checkpoints import PANIC, clip_tokenizer, split_tokenizer_files
from tests.models.writing import files_of, write_tokenizer
from vinograph.errors import DamagedModelError
from vinograph.text import Tokenizer

PROMPTS = [
    "",
    " ",
    "a red house",
    "A  Red\tHouse\n at 12:30, isn't it?",
    "the house's roof we'll see, they've 100% painted",
    "Würstchen, naïve café, Ångström Ångström",  # the last word decomposed
    "красный дом в снегу, 雪の中の赤い家, بيت أحمر",
    "🏠🌙✨ family 👨‍👩‍👧‍👦 flag 🇩🇪",
    "<|startoftext|> and <|endoftext|> in the text",
    "zero\u200bwidth, non\u00a0breaking, \ufeffmark, control\x07",
    "x" * 500,
    "red house " * 60,
    "!!! ??? ... --- ___ ***",
    "İstanbul ǅ ß ﬁ",
]


@pytest.fixture(params=["tokenizer.json", "vocab.json and merges.txt"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    clip_tokenizer().save_pretrained(tmp_path / "tokenizer")
    if request.param != "tokenizer.json":
        split_tokenizer_files(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


def test_ids_are_those_of_transformers(folder: Path, tmp_path: Path) -> None:
    written = write_tokenizer(folder, tmp_path / "out.json", 77)
    ours = Tokenizer(tmp_path / "out.json", written.max_length, written.pad_id)(PROMPTS)
    reference = CLIPTokenizer.from_pretrained(folder)
    theirs = reference(PROMPTS, padding="max_length", truncation=True, max_length=77, return_tensors="np")
    assert (ours.ids == theirs["input_ids"]).all()
    assert (ours.mask == theirs["attention_mask"]).all()


@pytest.mark.parametrize("pad", ["!", "<|endoftext|>"])
def test_the_padding_is_the_configurations(folder: Path, tmp_path: Path, pad: str) -> None:
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"pad_token": pad}))
    written = write_tokenizer(folder, tmp_path / "out.json", 77)
    ours = Tokenizer(tmp_path / "out.json", written.max_length, written.pad_id)(PROMPTS)
    theirs = CLIPTokenizer.from_pretrained(folder)(PROMPTS, padding="max_length", truncation=True, return_tensors="np")
    assert (ours.ids == theirs["input_ids"]).all()


@pytest.mark.parametrize(("configured", "expected"), [(77, 50), (20, 20), (None, 50)])
def test_the_length_is_the_least_that_anyone_says(
    folder: Path, tmp_path: Path, configured: int | None, expected: int
) -> None:
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop("model_max_length")
    if configured is not None:
        config["model_max_length"] = configured
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert write_tokenizer(folder, tmp_path / "out.json", 50).max_length == expected


def test_nothing_is_padded_or_cut_by_the_file_itself(folder: Path, tmp_path: Path) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    tokenizer(["a red house"], padding="max_length", truncation=True, max_length=5)
    tokenizer.save_pretrained(folder)
    write_tokenizer(folder, tmp_path / "out.json", 77)
    written = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert written["padding"] is None
    assert written["truncation"] is None


def test_the_same_bytes_every_time(folder: Path, tmp_path: Path) -> None:
    for name in ("one.json", "two.json"):
        write_tokenizer(folder, tmp_path / name, 77)
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()


@pytest.mark.parametrize("content", ["", "{}", '{"model": {"type": "BPE", "vocab": [], "merges": 5}}'])
def test_a_damaged_tokenizer(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(DamagedModelError, match="CLIP tokenizer"):
        write_tokenizer(tmp_path, tmp_path / "out.json", 77)


@pytest.mark.parametrize(
    "setting",
    [{"model_max_length": value} for value in (0, -5, "77", True, [77])]
    + [{"extra_ids": value} for value in (-1, 1.5, 10_001, "100")],
    ids=str,
)
def test_a_setting_that_makes_no_sense(folder: Path, tmp_path: Path, setting: dict[str, object]) -> None:
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | setting), encoding="utf-8")
    with pytest.raises(DamagedModelError, match=f"CLIP tokenizer: .*{next(iter(setting))}"):
        write_tokenizer(folder, tmp_path / "out.json", 77)


def test_an_error_of_any_length_is_cut(tmp_path: Path) -> None:
    clip_tokenizer().save_pretrained(tmp_path)
    file = tmp_path / "tokenizer.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["model"]["merges"] = [["x" * 100_000, "y"]]
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DamagedModelError) as caught:
        write_tokenizer(tmp_path, tmp_path / "out.json", 77)
    assert len(str(caught.value)) < 1000


def test_one_that_the_library_panics_at(tmp_path: Path) -> None:
    clip_tokenizer().save_pretrained(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps({**content, "model": {**content["model"], **PANIC}}))
    with pytest.raises(DamagedModelError, match=r"CLIP tokenizer: .*out of range"):
        write_tokenizer(tmp_path, tmp_path / "out.json", 77)


def test_which_files_are_read() -> None:
    assert files_of(["tokenizer.json", "vocab.json", "README.md"]) == ["tokenizer.json", "vocab.json"]
    assert files_of(["tokenizer_config.json"]) == ["vocab.json", "merges.txt", "tokenizer_config.json"]
