"""Rows of files, and the pictures that they stand for."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from vinograph.batch.keys import Keys
from vinograph.batch.pictures import IMAGES, Expansion, Picture
from vinograph.batch.rows import open_prompts
from vinograph.errors import RequestError
from vinograph.request import Request, arguments_of
from vinograph.templates import TemplateError, Wildcards, open_wildcards

KEYS = Keys({"model": "a"}, IMAGES)


def listed(file: Path, **how: Any) -> list[Picture]:
    """The pictures that a file stands for."""
    return list(Expansion(arguments_of(Request), **how).pictures(open_prompts(file), KEYS))


def texts(file: Path, **how: Any) -> list[str]:
    return [each.arguments["prompt"] for each in listed(file, **how)]


def written(folder: Path, name: str, content: str | bytes) -> Path:
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


class TestFiles:
    def test_a_text_file_has_a_prompt_on_each_line(self, tmp_path: Path) -> None:
        found = listed(written(tmp_path, "a.txt", b"\xef\xbb\xbfa house\r\n\n  a tree \nb\xff\n"))
        assert [(each.row, each.arguments.get("prompt"), each.error is None) for each in found] == [
            (1, "a house", True),
            (3, "a tree", True),
            (4, None, False),
        ]
        assert "UTF-8" in str(found[2].error)

    def test_jsonl_has_arguments_by_their_names(self, tmp_path: Path) -> None:
        rows = [{"prompt": "", "seed": 3, "guidance_scale": 2}, {"prompt": ["a"]}, {"seed": 1}, {"prompt": "a", "x": 1}]
        lines = [*map(json.dumps, rows), "[1]", "{"]
        found = listed(written(tmp_path, "a.jsonl", "\n".join(lines)))
        assert found[0].arguments == {"prompt": "", "seed": 3, "guidance_scale": 2.0}
        assert [each.row for each in found] == [1, 2, 3, 4, 5, 6]
        wanted = ("prompt is ['a']", "no prompt", "x", "no JSON object", "no JSON object")
        for picture, words in zip(found[1:], wanted, strict=True):
            assert words in str(picture.error)

    def test_csv_has_columns(self, tmp_path: Path) -> None:
        file = written(tmp_path, "a.csv", 'prompt,seed,guidance_scale\n"a, b",7,\nc,1\n"d\ne",x,1.5\n')
        first, second, third = listed(file)
        assert first.arguments == {"prompt": "a, b", "seed": 7}
        assert "2 cells for 3 columns" in str(second.error)
        assert third.arguments == {"prompt": "d\ne", "seed": "x", "guidance_scale": 1.5}  # drawing refuses it

    def test_parquet_has_columns(self, tmp_path: Path) -> None:
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        table = pyarrow.table({"prompt": ["a", None, "b"], "num_inference_steps": [4.0, 1.0, None], "id": [1, 2, 3]})
        parquet.write_table(table, tmp_path / "a.parquet")
        first, second, third = listed(tmp_path / "a.parquet", ignored=["id"])
        assert {**first.arguments, "seed": 0} == {"prompt": "a", "num_inference_steps": 4, "seed": 0}
        assert "no prompt" in str(second.error)
        assert third.arguments.keys() == {"prompt", "seed"}

    def test_without_pyarrow_the_extra_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
        with pytest.raises(RequestError, match=r'pip install "vinograph\[batch\]"'):
            open_prompts(written(tmp_path, "a.parquet", ""))

    @pytest.mark.parametrize(
        ("name", "content", "words"),
        [
            ("a.png", "", "ends in .txt, .jsonl, .csv, .parquet"),
            ("a.csv", "text\na\n", "no column prompt; its columns are text"),
            ("a.csv", "prompt,prompt\n", "twice"),
            ("a.parquet", "prompt", "not a Parquet file"),
        ],
    )
    def test_other_files_are_refused(self, tmp_path: Path, name: str, content: str, words: str) -> None:
        with pytest.raises(RequestError, match=words):
            open_prompts(written(tmp_path, name, content))

    def test_unknown_columns_are_refused_or_ignored(self, tmp_path: Path) -> None:
        file = open_prompts(written(tmp_path, "a.csv", "prompt,id\na,1\n"))
        with pytest.raises(RequestError, match="--ignore id leaves a column out"):
            Expansion(arguments_of(Request)).check_columns(file)
        Expansion(arguments_of(Request), ignored=["id"]).check_columns(file)


class TestTemplates:
    @pytest.mark.parametrize(
        ("text", "wanted"),
        [
            ("{a|b} {c|d}", ["a c", "a d", "b c", "b d"]),
            ("{a|{b|c} d|} e", ["a e", "b d e", "c d e", " e"]),
            ("a __pet__", ["a cat", "a small dog", "a large dog"]),
            ("{a} { b}|c", ["{a} { b}|c"]),
            ("{a|b", ["{a|b"]),
        ],
    )
    def test_a_text_stands_for_many(self, tmp_path: Path, text: str, wanted: list[str]) -> None:
        written(tmp_path, "pet.txt", "# pets\ncat\n\n{small|large} dog\n")
        template = open_wildcards(str(tmp_path)).template(text)
        assert [template.text(index) for index in range(template.count)] == wanted

    def test_samples_are_some_of_them_and_always_the_same(self, tmp_path: Path) -> None:
        file = written(tmp_path, "a.txt", "{a|b|c|d|e} {a|b|c|d|e}\nx\n")
        some = texts(file, samples=3)
        assert (len(some), len({*some})) == (4, 4)
        assert some == texts(file, samples=3)
        assert Expansion(arguments_of(Request), samples=3).count(open_prompts(file)) == 4

    def test_verbatim_leaves_them(self, tmp_path: Path) -> None:
        assert texts(written(tmp_path, "a.txt", "{a|b} __c__"), verbatim=True) == ["{a|b} __c__"]

    @pytest.mark.parametrize("text", ["__none__", "__self__", "__empty__"])
    def test_a_wildcard_that_cannot_be_is_an_error(self, tmp_path: Path, text: str) -> None:
        written(tmp_path, "self.txt", "a __self__")
        written(tmp_path, "empty.txt", "# nothing")
        with pytest.raises(TemplateError):
            Wildcards(tmp_path).template(text)

    def test_wildcards_without_a_folder_are_an_error_of_the_row(self, tmp_path: Path) -> None:
        (picture,) = listed(written(tmp_path, "a.txt", "a __pet__"))
        assert "--wildcards" in str(picture.error)


class TestPictures:
    def test_grids_are_combined_with_every_row(self, tmp_path: Path) -> None:
        file = written(tmp_path, "a.txt", "a\nb\n")
        grid = [{"num_inference_steps": 1}, {"num_inference_steps": 4}]
        found = listed(file, grid=grid)
        assert [(each.arguments["prompt"], each.arguments["num_inference_steps"]) for each in found] == [
            ("a", 1),
            ("a", 4),
            ("b", 1),
            ("b", 4),
        ]
        assert found[0].arguments["seed"] == found[1].arguments["seed"] != found[2].arguments["seed"]
        assert Expansion(arguments_of(Request), grid=grid).count(open_prompts(file)) == 4

    def test_a_count_takes_the_seeds_that_follow(self, tmp_path: Path) -> None:
        row = {"prompt": "a", "num_images_per_prompt": 3, "seed": 2**64 - 2}
        found = listed(written(tmp_path, "a.jsonl", json.dumps(row)))
        assert [each.arguments["seed"] for each in found] == [2**64 - 2, 2**64 - 1, 0]
        assert all("num_images_per_prompt" not in each.arguments for each in found)

    def test_equal_pictures_have_equal_keys(self, tmp_path: Path) -> None:
        lines = ['{"prompt": "a", "strength": 1}', '{"strength": 1.0, "prompt": "a", "seed": null}', '{"prompt": "b"}']
        one, other, third = listed(written(tmp_path, "a.jsonl", "\n".join(lines)))
        assert one.key == other.key != third.key
        assert Keys({"model": "b"}, IMAGES).of(one.arguments) != one.key

    def test_an_image_counts_by_its_contents(self, tmp_path: Path) -> None:
        for name, content in (("one.png", "1"), ("same.png", "1"), ("two.png", "2")):
            written(tmp_path, name, content)
        lines = [
            json.dumps({"prompt": "a", "seed": 1, "image": f"{each}.png"}) for each in ("one", "same", "two", "none")
        ]
        one, same, two, none = listed(written(tmp_path, "a.jsonl", "\n".join(lines)))
        assert one.key == same.key != two.key
        assert "none.png can't be read: No such file" in str(none.error)

    @pytest.mark.parametrize("image", ["\0", "/dev/null", ".", "a" * 300])
    def test_what_is_no_file_is_an_error_of_the_row(self, tmp_path: Path, image: str) -> None:
        (picture,) = listed(written(tmp_path, "a.jsonl", json.dumps({"prompt": "a", "image": image})))
        assert "can't be read" in str(picture.error)

    def test_more_texts_than_memory_holds_come_one_by_one(self, tmp_path: Path) -> None:
        file = open_prompts(written(tmp_path, "a.txt", "{a|b|c|d}" * 40))
        expansion = Expansion(arguments_of(Request))
        assert expansion.count(file) == 4**40
        assert next(expansion.pictures(file, KEYS)).arguments["prompt"] == "a" * 40

    def test_rows_replace_options(self, tmp_path: Path) -> None:
        file = written(tmp_path, "a.csv", "prompt,seed\na,\nb,5\n")
        assert [each.arguments["seed"] for each in listed(file, common={"seed": 1})] == [1, 5]
