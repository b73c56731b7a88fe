"""docs/troubleshooting.md explains every message of the code, where a reader looks for it."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vinograph import Pipeline
from vinograph.models import catalog
from vinograph.models.manifest import MANIFEST_FILE, Manifest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
SECTIONS: Mapping[str, str] = {
    "RequestError": "The call is wrong (exit code 2)",
    "DeviceError": "The call is wrong (exit code 2)",
    "ModelError": "The model cannot be used (exit code 3)",
    "DamagedModelError": "The model is damaged (exit code 4)",
    "ResourceError": "Memory or disk space ran out (exit code 5)",
}
TYPERS = {"No such option"}  # what typer says by itself


def rendered(node: ast.expr) -> str:
    """A message as the code writes it, with "…" for each value."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(rendered(each) for each in node.values)
    if isinstance(node, ast.BinOp):
        return rendered(node.left) + rendered(node.right)
    return "…"


def trees() -> Iterator[ast.Module]:
    for file in sorted((ROOT / "src" / "vinograph").rglob("*.py")):
        yield ast.parse(file.read_text(encoding="utf-8"))


def messages() -> Iterator[tuple[str, str]]:
    """The class and the message of every error that is made with one of its own."""
    for tree in trees():
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in SECTIONS
                and node.args
            ):
                message = rendered(node.args[0])
                if re.search(r"\w", message):
                    yield node.func.id, message


def texts() -> set[str]:
    """Every text in the code."""
    kinds = (ast.JoinedStr, ast.Constant, ast.BinOp)
    return {rendered(node) for tree in trees() for node in ast.walk(tree) if isinstance(node, kinds)}


def section(heading: str) -> str:
    """What the page has under a heading, up to the next of its level."""
    level = re.search(rf"^(#+) {re.escape(heading)}$", PAGE, flags=re.MULTILINE)
    assert level is not None, heading
    after = PAGE[level.end() :]
    return re.split(rf"^#{{1,{len(level[1])}}} ", after, maxsplit=1, flags=re.MULTILINE)[0]


@cache
def explained(heading: str) -> list[str]:
    """The messages in the tables under a heading."""
    cells = re.findall(r"^\| (`.*?`) \| ", section(heading), flags=re.MULTILINE)
    return [each for cell in cells for each in re.findall(r"`([^`]+)`", cell)]


def meant(pattern: str, message: str) -> bool:
    """Whether a message of the page stands for one of the code."""
    end = 0
    for part in re.split(r"\s*…\s*", pattern):
        begin = message.find(part, end)
        if begin < 0:
            return False
        end = begin + len(part)
    return True


MESSAGES = sorted(set(messages()))


def test_there_are_hundreds() -> None:
    assert len(MESSAGES) > 300


@pytest.mark.parametrize(("kind", "message"), MESSAGES)
def test_every_message_is_explained(kind: str, message: str) -> None:
    assert any(meant(pattern, message) for pattern in explained(SECTIONS[kind])), (
        f"add to docs/troubleshooting.md, under {SECTIONS[kind]!r}: {message}"
    )


@pytest.mark.parametrize("heading", [*dict.fromkeys(SECTIONS.values()), "Warnings"])
def test_every_explained_message_is_one(heading: str) -> None:
    known = texts()
    patterns = set(explained(heading)) - TYPERS
    assert patterns
    assert not [each for each in patterns if not any(meant(each, text) for text in known)]


PROMPT = "two green trees in the middle of a meadow on a clear day"


def drawn(folder: Path, **changes: Mapping[str, object]) -> NDArray[np.float32]:
    """What storybook-sdxl draws with other values in its manifest."""
    (source,) = [each for each in catalog.embedded() if each.name == "storybook-sdxl"]
    folder.mkdir()
    for file in source.iterdir():
        (folder / file.name).symlink_to(file)
    manifest = Manifest.from_json((source / MANIFEST_FILE).read_bytes(), "storybook-sdxl")
    values: dict[str, Any] = {name: {**getattr(manifest, name), **more} for name, more in changes.items()}
    (folder / MANIFEST_FILE).unlink()
    (folder / MANIFEST_FILE).write_text(dataclasses.replace(manifest, **values).to_json(), encoding="utf-8")
    pixels: NDArray[np.float32] = Pipeline.from_pretrained(folder)(PROMPT, seed=1, output_type="np").images[0]
    return pixels


class TestOddPictures:
    """What the page says of pictures that no option draws: a wrong scheduler, a wrong scaling factor."""

    def test_a_wrong_scheduler_draws_noise(self, tmp_path: Path) -> None:
        right = drawn(tmp_path / "right")
        wrong = drawn(tmp_path / "wrong", scheduler={"timestep_spacing": "leading"})
        rough = [np.abs(np.diff(pixels, axis=0)).mean() for pixels in (right, wrong)]
        assert rough[1] > 4 * rough[0]

    def test_a_scaling_factor_too_large_draws_grey(self, tmp_path: Path) -> None:
        right = drawn(tmp_path / "right")
        wrong = drawn(tmp_path / "wrong", config={"tiny_vae_scaling_factor": 3.0})
        assert wrong.std() < right.std() / 2

    def test_a_scaling_factor_too_small_draws_white_areas(self, tmp_path: Path) -> None:
        right = drawn(tmp_path / "right")
        wrong = drawn(tmp_path / "wrong", config={"tiny_vae_scaling_factor": 0.13})
        white = [(pixels.min(axis=-1) > 0.98).mean() for pixels in (right, wrong)]
        assert white[0] < 0.02 < 0.2 < white[1]
