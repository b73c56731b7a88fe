"""A name, a path or a hub id, to a bundle on this disk."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from vinograph import DamagedModelError, ModelError, ResourceError, catalog


@pytest.fixture(autouse=True)
def models_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VINOGRAPH_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture
def embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(catalog, "_EMBEDDED", tmp_path / "embedded")
    return tmp_path / "embedded"


class TestPaths:
    def test_a_bundles_directory(self, tiny_bundle: Path) -> None:
        assert catalog.find(tiny_bundle).path == tiny_bundle
        assert catalog.find(str(tiny_bundle)).manifest.name == "tiny"

    def test_home_may_be_written_as_a_tilde(self, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(tiny_bundle.parent))
        assert catalog.find("~/tiny").path == tiny_bundle

    def test_a_file_is_no_model(self, tiny_bundle: Path) -> None:
        with pytest.raises(ModelError, match=r"bundle.json is a file; a model is a bundle's directory"):
            catalog.find(tiny_bundle / "bundle.json")

    def test_a_directory_without_a_bundle(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"is not a bundle: it has no bundle.json"):
            catalog.find(tmp_path)

    def test_a_checkpoint_wants_converting_first(self, tmp_path: Path) -> None:
        (tmp_path / "wuerstchen").mkdir()
        (tmp_path / "wuerstchen" / "model_index.json").write_text("{}", encoding="utf-8")
        with pytest.raises(ModelError) as caught:
            catalog.find(tmp_path / "wuerstchen")
        path = tmp_path / "wuerstchen"
        assert f"{path} is a checkpoint, not a bundle. Convert it first: vinograph convert {path} " in str(caught.value)

    def test_a_damaged_bundle(self, tiny_bundle: Path, tmp_path: Path) -> None:
        shutil.copytree(tiny_bundle, tmp_path / "damaged")
        (tmp_path / "damaged" / "prior.bin").unlink()
        with pytest.raises(DamagedModelError, match=r"prior.bin is missing"):
            catalog.find(tmp_path / "damaged")


class TestNames:
    def test_an_embedded_model(self, tiny_bundle: Path, embedded: Path) -> None:
        shutil.copytree(tiny_bundle, embedded / "storybook")
        assert catalog.find("storybook").path == embedded / "storybook"
        assert catalog.embedded() == [embedded / "storybook"]

    def test_a_model_in_the_models_folder(self, tiny_bundle: Path, embedded: Path, models_folder: Path) -> None:
        shutil.copytree(tiny_bundle, models_folder / "mine")
        assert catalog.find("mine").path == models_folder / "mine"
        assert catalog.found() == [models_folder / "mine"]

    def test_the_embedded_one_goes_first(self, tiny_bundle: Path, embedded: Path, models_folder: Path) -> None:
        for folder in (embedded, models_folder):
            shutil.copytree(tiny_bundle, folder / "same")
        assert catalog.find("same").path == embedded / "same"

    def test_an_unknown_name_gets_those_that_there_are(
        self, tiny_bundle: Path, embedded: Path, models_folder: Path
    ) -> None:
        shutil.copytree(tiny_bundle, embedded / "storybook")
        shutil.copytree(tiny_bundle, models_folder / "mine")
        with pytest.raises(ModelError, match=r"there is no model 'storyboo'. By name there is: storybook, mine"):
            catalog.find("storyboo")

    @pytest.mark.parametrize("name", ["\t", "a b", "a/b/c", "..a/b", "name\n", "~surely-no-one"])
    def test_what_is_neither_name_nor_path_nor_hub_id(self, embedded: Path, name: str) -> None:
        with pytest.raises(ModelError, match="there is no model"):
            catalog.find(name)

    def test_without_models_the_folder_need_not_be_there(self, embedded: Path) -> None:
        assert catalog.found() == catalog.embedded() == []
        with pytest.raises(ModelError, match="By name there is: none"):
            catalog.find("mine")

    def test_the_models_folder_is_in_the_home_by_default(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.delenv("VINOGRAPH_MODELS")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert catalog.models_folder() == tmp_path / ".local" / "share" / "vinograph" / "models"


class Hub:
    """The hub, and the cache of what was had from it."""

    def __init__(self, online: Path | None, cache: Path) -> None:
        self.online = online
        self.cache = cache
        self.asked: list[str] = []

    def hf_hub_download(self, repository: str, name: str) -> str:
        self.asked.append(name)
        if self.online is None:
            raise LocalEntryNotFoundError("offline")
        return str(self.online / name)

    def snapshot_download(self, repository: str, local_files_only: bool = False) -> str:
        if not local_files_only:
            self.asked.append("everything")
            assert self.online is not None
            shutil.copytree(self.online, self.cache, dirs_exist_ok=True)
        elif not self.cache.exists():
            raise LocalEntryNotFoundError("not in the cache")
        return str(self.cache)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Hub]:
    def make(online: Path | None = None) -> Hub:
        made = Hub(online, tmp_path / "cache")
        for name in ("hf_hub_download", "snapshot_download"):
            monkeypatch.setattr(huggingface_hub, name, getattr(made, name))
        return made

    return make


class TestHub:
    def test_what_is_in_the_cache_is_not_asked_for(self, tiny_bundle: Path, hub: Callable[..., Hub]) -> None:
        one = hub()
        shutil.copytree(tiny_bundle, one.cache)
        assert catalog.find("someone/tiny").path == one.cache
        assert one.asked == []

    def test_what_is_not_is_fetched(self, tiny_bundle: Path, hub: Callable[..., Hub]) -> None:
        one = hub(online=tiny_bundle)
        assert catalog.find("someone/tiny").path == one.cache
        assert one.asked == ["bundle.json", "everything"]

    def test_half_a_bundle_in_the_cache_is_fetched(self, tiny_bundle: Path, hub: Callable[..., Hub]) -> None:
        one = hub(online=tiny_bundle)
        one.cache.mkdir()
        shutil.copy(tiny_bundle / "bundle.json", one.cache)
        assert sorted(catalog.find("someone/tiny").verify())

    def test_a_manifest_that_is_none_stops_it_before_anything_large(
        self, tiny_bundle: Path, tmp_path: Path, hub: Callable[..., Hub]
    ) -> None:
        (tmp_path / "online").mkdir()
        data = {**json.loads((tiny_bundle / "bundle.json").read_text(encoding="utf-8")), "format_version": 99}
        (tmp_path / "online" / "bundle.json").write_text(json.dumps(data), encoding="utf-8")
        one = hub(online=tmp_path / "online")
        with pytest.raises(ModelError, match=r"someone/tiny/bundle.json is in bundle format 99"):
            catalog.find("someone/tiny")
        assert one.asked == ["bundle.json"]

    def test_offline_without_it(self, hub: Callable[..., Hub]) -> None:
        hub()
        with pytest.raises(ModelError) as caught:
            catalog.find("warp-ai/wuerstchen")
        assert "no bundle 'warp-ai/wuerstchen' was found here, in the hub's cache, or on the hub" in str(caught.value)
        assert "convert it first: vinograph convert warp-ai/wuerstchen wuerstchen" in str(caught.value)

    def test_a_name_that_the_hub_does_not_allow(self) -> None:
        with pytest.raises(ModelError, match=r"no bundle 'someone/a--b..c' was found"):
            catalog.find("someone/a--b..c")

    def test_a_full_disk(self, hub: Callable[..., Hub], monkeypatch: pytest.MonkeyPatch) -> None:
        hub()

        def full(*_: Any) -> str:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", full)
        with pytest.raises(ResourceError, match="the disk is full: the hub's cache has no room for someone/tiny"):
            catalog.find("someone/tiny")
