"""The catalog finds models by name, path or hub id."""

import shutil
from pathlib import Path

import pytest

from vinograph import DamagedModelError, ModelError
from vinograph.models import catalog


@pytest.fixture(autouse=True)
def models_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VINOGRAPH_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture
def embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(catalog, "_EMBEDDED", tmp_path / "embedded")
    return tmp_path / "embedded"


class TestPaths:
    def test_a_bundle_is_opened_by_its_directory(self, tiny_bundle: Path) -> None:
        assert catalog.find(tiny_bundle).path == tiny_bundle
        assert catalog.find(str(tiny_bundle)).manifest.name == "tiny"

    def test_a_path_may_start_with_a_tilde(self, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(tiny_bundle.parent))
        assert catalog.find("~/tiny").path == tiny_bundle

    def test_a_plain_file_is_refused(self, tiny_bundle: Path) -> None:
        with pytest.raises(ModelError, match=r"bundle.json is a file; a model is a .safetensors file"):
            catalog.find(tiny_bundle / "bundle.json")

    def test_a_directory_without_a_model_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"is not a bundle: it has no bundle.json"):
            catalog.find(tmp_path)

    def test_an_empty_checkpoint_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "wuerstchen").mkdir()
        (tmp_path / "wuerstchen" / "model_index.json").write_text("{}", encoding="utf-8")
        with pytest.raises(ModelError, match=r"wuerstchen: model_index.json names no pipeline"):
            catalog.find(tmp_path / "wuerstchen")

    def test_a_damaged_bundle_is_reported(self, tiny_bundle: Path, tmp_path: Path) -> None:
        shutil.copytree(tiny_bundle, tmp_path / "damaged")
        (tmp_path / "damaged" / "prior.bin").unlink()
        with pytest.raises(DamagedModelError, match=r"prior.bin is missing"):
            catalog.find(tmp_path / "damaged")


class TestNames:
    def test_an_embedded_model_is_found_by_name(self, tiny_bundle: Path, embedded: Path) -> None:
        shutil.copytree(tiny_bundle, embedded / "storybook")
        assert catalog.find("storybook").path == embedded / "storybook"
        assert catalog.embedded() == [embedded / "storybook"]

    def test_a_model_in_the_models_folder_is_found_by_name(
        self, tiny_bundle: Path, embedded: Path, models_folder: Path
    ) -> None:
        shutil.copytree(tiny_bundle, models_folder / "mine")
        assert catalog.find("mine").path == models_folder / "mine"
        assert catalog.installed() == [models_folder / "mine"]

    def test_an_embedded_model_has_precedence(self, tiny_bundle: Path, embedded: Path, models_folder: Path) -> None:
        for folder in (embedded, models_folder):
            shutil.copytree(tiny_bundle, folder / "same")
        assert catalog.find("same").path == embedded / "same"

    def test_an_unknown_name_lists_the_known_ones(self, tiny_bundle: Path, embedded: Path, models_folder: Path) -> None:
        shutil.copytree(tiny_bundle, embedded / "storybook")
        shutil.copytree(tiny_bundle, models_folder / "mine")
        with pytest.raises(ModelError, match=r"there is no model 'storyboo'. By name there is: storybook, mine"):
            catalog.find("storyboo")

    @pytest.mark.parametrize("name", ["\t", "a b", "a/b/c", "..a/b", "name\n", "~surely-no-one", "a" * 300, "a\0"])
    def test_a_text_that_can_name_no_model_is_refused(self, embedded: Path, name: str) -> None:
        with pytest.raises(ModelError, match="there is no model"):
            catalog.find(name)

    def test_a_missing_models_folder_has_no_models(self, embedded: Path) -> None:
        assert catalog.installed() == catalog.embedded() == []
        with pytest.raises(ModelError, match="By name there is: none"):
            catalog.find("mine")

    def test_the_models_folder_is_in_the_home_by_default(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.delenv("VINOGRAPH_MODELS")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert catalog.models_folder() == tmp_path / ".local" / "share" / "vinograph" / "models"
