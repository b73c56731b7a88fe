"""The examples of docs/serve-openai.md, against a server."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from tests.serve.serving import Running
from vinograph.serve.openai_fields import FIELDS, IGNORED, PROMPT
from vinograph.serve.openai_sizes import OPENAI_SIZES

PAGE = (Path(__file__).parents[2] / "docs" / "serve-openai.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
DRAWN = (256, 256)


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the examples name."""
    Image.new("RGB", DRAWN, "white").save(tmp_path / "house.png")
    Image.new("RGBA", DRAWN, (0, 0, 0, 0)).save(tmp_path / "mask.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_there_are_examples_of_both_kinds() -> None:
    assert sum(each.startswith("curl ") for each in EXAMPLES) == 2
    assert sum("OpenAI(" in each for each in EXAMPLES) == 2


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize("example", [each for each in EXAMPLES if each.startswith("curl ")])
def test_the_commands_draw(example: str, server: Running) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    command = example.replace("http://127.0.0.1:8080", server.address).replace("curl ", "curl --silent ")
    answer = subprocess.run(["sh", "-c", command], capture_output=True, check=True).stdout
    assert json.loads(answer)["data"][0]["b64_json"]


@pytest.mark.parametrize("example", [each for each in EXAMPLES if "OpenAI(" in each])
def test_the_programs_draw(example: str, server: Running, reader: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (reader / "house.png").unlink()
    code = example.replace("http://127.0.0.1:8080", server.address)
    names: dict[str, object] = {}
    exec(compile(code, "docs/serve-openai.md", "exec"), names)
    names["client"].close()  # type: ignore[attr-defined]
    if "stream" in code:
        kinds = [line.split()[0].split(".")[1] for line in capsys.readouterr().out.splitlines()]
        assert kinds == ["partial_image", "partial_image", "completed"]
    else:
        with Image.open("house.png") as picture:
            assert picture.size == DRAWN


def test_all_fields_and_sizes_are_named() -> None:
    for each in (*FIELDS, *IGNORED):
        assert f"`{each.name}`" in PAGE
    assert f"`{PROMPT}`" in PAGE
    assert all(size in PAGE for size in OPENAI_SIZES)
