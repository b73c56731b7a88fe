"""A bundle bears the name it was given: where it is listed, described, and in its pictures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.conftest import Run
from vinograph.models import catalog
from vinograph.models.bundle import Bundle
from vinograph.models.manifest import Manifest

CHECKPOINT = Path(__file__).parents[2] / "training" / "checkpoints" / "storybook-sdxl"


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with a bundle ``my-model`` of the checkpoint, for reading only."""
    from vinograph.convert import convert

    folder = tmp_path_factory.mktemp("models")
    convert(CHECKPOINT, folder / "my-model")
    return folder


@pytest.fixture
def models(converted: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VINOGRAPH_MODELS", str(converted))
    return converted


def model_of(picture: Path) -> str:
    with Image.open(picture) as image:
        return str(json.loads(image.info["vinograph"])["model"])


def test_the_files_of_a_conversion_name_it(converted: Path) -> None:
    folder = converted / "my-model"
    assert json.loads((folder / "bundle.json").read_text(encoding="utf-8"))["name"] == "my-model"
    assert "# my-model\n" in (folder / "README.md").read_text(encoding="utf-8")
    assert set(Bundle.open(folder).verify()) == set(Bundle.open(folder).manifest.files)


def test_commands_and_pictures_name_it(models: Path, vinograph: Run, tmp_path: Path) -> None:
    listed = json.loads(vinograph("models", "--json").out)["models"]
    assert "my-model" in {each["name"] for each in listed}
    described = vinograph("inspect", "my-model")
    assert described.out.splitlines()[0].split() == ["name", "my-model"]
    picture = tmp_path / "a.png"
    assert vinograph("generate", "a red house", "--model", "my-model", "--output", picture).code == 0
    assert model_of(picture) == "my-model"


def test_a_renamed_folder_renames_it(models: Path, vinograph: Run, tmp_path: Path) -> None:
    shutil.copytree(models / "my-model", tmp_path / "better-name")
    assert Bundle.open(tmp_path / "better-name").manifest.name == "better-name"
    picture = tmp_path / "a.png"
    assert vinograph("generate", "a red house", "--model", tmp_path / "better-name", "--output", picture).code == 0
    assert model_of(picture) == "better-name"
    assert set(Bundle.open(tmp_path / "better-name").verify())


def test_a_bundle_is_named_from_within(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(models / "my-model")
    assert catalog.find(".").manifest.name == "my-model"


def test_a_folder_whose_name_no_manifest_may_have_changes_nothing(models: Path, tmp_path: Path) -> None:
    shutil.copytree(models / "my-model", tmp_path / "\x1b[2J")
    assert Bundle.open(tmp_path / "\x1b[2J").manifest.name == "my-model"


def test_embedded_models_keep_their_names() -> None:
    for folder in catalog.embedded():
        text = (folder / "bundle.json").read_text(encoding="utf-8")
        assert Manifest.from_json(text, "bundle.json").name == folder.name == Bundle.open(folder).manifest.name
