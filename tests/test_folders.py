"""The user's folders, also for a user without a home directory."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import NoReturn

import pytest

from vinograph import folders
from vinograph.errors import ResourceError

VARIABLES = ("HOME", "XDG_CACHE_HOME", "VINOGRAPH_CACHE", "VINOGRAPH_MODELS", "HF_HOME", "HF_HUB_CACHE")


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # so that monkeypatch undoes what a test sets
        monkeypatch.delenv(name)


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of a user id that the password file doesn't have."""

    def unknown(number: int) -> NoReturn:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr("pwd.getpwuid", unknown)


def test_folders_are_in_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert folders.cache() == tmp_path / ".cache" / "vinograph"
    assert folders.models() == tmp_path / ".local" / "share" / "vinograph" / "models"
    assert folders.expand("~/models/x") == tmp_path / "models" / "x"


@pytest.mark.usefixtures("homeless")
def test_without_a_home_folders_lie_in_a_placeholder() -> None:
    assert folders.home() == folders.NO_HOME
    assert not folders.NO_HOME.exists()
    with pytest.raises(OSError, match="no-home"):  # not even root
        folders.NO_HOME.mkdir(parents=True)
    for folder in (folders.cache(), folders.models()):
        assert folder.is_relative_to(folders.NO_HOME)
    assert folders.expand("~/models/x") == Path("~/models/x")


@pytest.mark.usefixtures("homeless")
def test_without_a_home_the_hubs_cache_lies_in_the_placeholder(monkeypatch: pytest.MonkeyPatch) -> None:
    folders.prepare_for_libraries()
    assert os.environ["HF_HOME"].startswith(str(folders.NO_HOME))
    monkeypatch.setenv("HF_HOME", "/data/hub")
    folders.prepare_for_libraries()
    assert os.environ["HF_HOME"] == "/data/hub"


def test_a_path_of_an_unknown_user_is_unchanged() -> None:
    assert folders.expand("~nobody-of-that-name/x") == Path("~nobody-of-that-name/x")


def test_environment_variables_may_start_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Container and service files set them without a shell, which would have expanded it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("VINOGRAPH_CACHE", "~/cache")
    monkeypatch.setenv("VINOGRAPH_MODELS", "~/models")
    assert (folders.cache(), folders.models()) == (tmp_path / "cache", tmp_path / "models")


def test_a_temporary_folder_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with folders.temporary("vinograph-") as folder:
        (folder / "x").write_text("")
        assert folder.parent == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_a_missing_temporary_folder_is_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/proc/nowhere"])
    with pytest.raises(ResourceError, match="set TMPDIR"), folders.temporary("vinograph-"):
        pass
