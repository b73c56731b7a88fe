"""What is distributed: links that work on a package index, the models, and no tests."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from scripts import dist

README = (dist.ROOT / "README.md").read_text(encoding="utf-8")
HOME = "https://example.org/someone/vinograph"
LINK = re.compile(r"\]\(([^)\s]+)\)")


def test_links_of_the_readme_lead_to_the_repository() -> None:
    before, links = LINK.findall(README), LINK.findall(dist.with_absolute_links(README, HOME))
    assert len(links) == len(before) > 6
    assert all(link.startswith(f"{HOME}/") for link in links)
    assert f"{HOME}/raw/main/docs/pictures/first-pictures.webp" in links
    assert f"{HOME}/blob/main/docs/start.md" in links


def test_without_an_address_nothing_leads_nowhere() -> None:
    text = dist.with_absolute_links(README, None)
    assert not LINK.findall(text)
    assert "first steps" in text
    assert "![" not in text


@pytest.mark.parametrize("link", ["[a](https://b.org/c)", "[a](#b)", "![a](data:image/png;base64,)"])
def test_links_that_are_absolute_stay(link: str) -> None:
    assert dist.with_absolute_links(link, HOME) == dist.with_absolute_links(link, None) == link


def test_a_folder_is_a_tree() -> None:
    assert dist.with_absolute_links("[a](docs)", HOME) == f"[a]({HOME}/tree/main/docs)"


def test_the_projects_urls_are_of_the_repository() -> None:
    text = (dist.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    urls = tomllib.loads(dist.with_urls(text, HOME))["project"]["urls"]
    assert urls["Homepage"] == HOME
    assert all(each.startswith(HOME) for each in urls.values())
    assert dist.with_urls(text, None) == text


@pytest.mark.parametrize(
    ("remote", "home"),
    [
        ("https://github.com/a/vinograph.git", "https://github.com/a/vinograph"),
        ("git@github.com:a/vinograph.git", "https://github.com/a/vinograph"),
        ("https://gitlab.com/a/b/c/", "https://gitlab.com/a/b/c"),
        ("https://user:secret@host.org/a", None),
        ("/srv/git/vinograph", None),
        ("", None),
    ],
)
def test_the_address_is_that_of_the_remote(monkeypatch: pytest.MonkeyPatch, remote: str, home: str | None) -> None:
    done = subprocess.CompletedProcess((), 0, f"{remote}\n", "")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    assert dist.home_of_remote() == home


@pytest.mark.parametrize(
    ("change", "words"),
    [({"vinograph/py.typed": False}, "lacks 1 files, such as vinograph/py.typed"), ({"tests/a.py": True}, "too many")],
)
def test_a_wrong_distribution_is_refused(change: dict[str, bool], words: str) -> None:
    whole = {str(each.relative_to(dist.ROOT / "src")) for each in dist.packaged()}
    dist.check(whole)
    ((name, added),) = change.items()
    with pytest.raises(SystemExit, match=words):
        dist.check(whole | {name} if added else whole - {name})


@pytest.mark.long
def test_both_are_built_with_the_models_and_without_tests(tmp_path: Path) -> None:
    staged = dist.stage(tmp_path / "staged", HOME)
    source, wheel = dist.build(Path(sys.executable), staged, tmp_path / "out")
    assert (source.suffix, wheel.suffix) == (".gz", ".whl")
    for file in (source, wheel):
        dist.check(dist.names(file))
    assert {each for each in dist.names(source) if "/" not in each} >= {*dist.FILES, "PKG-INFO"}
    with zipfile.ZipFile(wheel) as archive:
        (about,) = [each for each in archive.namelist() if each.endswith("METADATA")]
        metadata = archive.read(about).decode()
    assert f"Project-URL: Issues, {HOME}/issues" in metadata
    assert f"]({HOME}/blob/main/docs/start.md)" in metadata
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    variables = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    command = [sys.executable, "-m", "vinograph", "verify", "storybook-wuerstchen"]
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
    assert (done.returncode, str(tmp_path) in done.stdout) == (0, True), done.stderr
