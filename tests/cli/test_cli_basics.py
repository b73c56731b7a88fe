"""What every command line has: the version, short options, and -1 for a random seed."""

from __future__ import annotations

import importlib.metadata
import tomllib
from pathlib import Path

import pytest

from tests.cli.conftest import Run, files_here
from vinograph import __version__
from vinograph.cli import doctor
from vinograph.models.bundle import Bundle


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_the_version_is_printed(vinograph: Run, option: str) -> None:
    done = vinograph(option)
    assert (done.code, done.out, done.err) == (0, f"vinograph {__version__}\n", "")


@pytest.mark.parametrize("arguments", [(), ("generate",), ("cache",)])
def test_h_is_help(vinograph: Run, arguments: tuple[str, ...]) -> None:
    short, long = vinograph(*arguments, "-h"), vinograph(*arguments, "--help")
    assert (short.code, short.out) == (0, long.out)
    assert "Usage: vinograph" in short.out


def test_short_options(vinograph: Run, bundle: Bundle) -> None:
    assert vinograph("generate", "a house", "-m", bundle.path, "-o", "a.png").code == 0
    assert vinograph("generate", "a boat", "-m", bundle.path, "-i", "a.png", "-o", "b.png").code == 0
    assert vinograph("reconstruct", "a.png", "-m", bundle.path, "-o", "c.png").code == 0
    assert files_here() == ["a.png", "b.png", "c.png"]


def test_a_seed_of_minus_one_is_random_and_reported(vinograph: Run, bundle: Bundle) -> None:
    drawn = [vinograph("generate", "a house", "-m", bundle.path, "--seed", -1, "--json").record for _ in range(2)]
    seeds = [each["images"][0]["seed"] for each in drawn]
    assert seeds[0] != seeds[1]
    assert all(seed >= 0 for seed in seeds)
    assert [each["request"]["seed"] for each in drawn] == seeds


class TestExtras:
    def test_doctor_lists_every_extra_and_what_it_gives(self, vinograph: Run) -> None:
        project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))["project"]
        listed = vinograph("doctor", "--json").record["extras"]
        assert listed.keys() == project["optional-dependencies"].keys() == doctor.EXTRAS.keys()
        for name, about in doctor.EXTRAS.items():
            assert listed[name].startswith(f"{about}; ")

    def test_what_is_missing_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(doctor, "_version", lambda package: None if package == "ftfy" else "1.0")
        assert doctor._extra("captions", ["beautifulsoup4", "ftfy"]) == (
            f'{doctor.EXTRAS["captions"]}; not installed (ftfy missing): pip install "vinograph[captions]"'
        )
        assert doctor._extra("web", ["gradio"]) == f"{doctor.EXTRAS['web']}; gradio 1.0"

    def test_a_folder_on_the_path_has_no_metadata(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def absent(name: str) -> list[str]:
            raise importlib.metadata.PackageNotFoundError(name)

        monkeypatch.setattr(importlib.metadata, "requires", absent)
        assert set(doctor.extras()) == set(doctor.EXTRAS)
        assert "isn't installed as a package" in doctor._extra("web", doctor.extras()["web"])
