"""Shells complete commands, options, and the names of models, adapters and schedulers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bundles import save_bundle
from tests.cli.conftest import SOURCE, Run, environment
from vinograph.schedulers.named import choose

Completed = Callable[..., list[str]]

STORYBOOK = ["storybook-pixart", "storybook-pixart-lcm", "storybook-sdxl", "storybook-wuerstchen"]


@pytest.fixture
def completed(vinograph: Run, monkeypatch: pytest.MonkeyPatch) -> Completed:
    """What bash is offered for the last word of a command line."""

    def run(*words: str) -> list[str]:
        monkeypatch.setenv("_VINOGRAPH_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", " ".join(("vinograph", *words)))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        done = vinograph()
        assert (done.code, done.err) == (0, "")
        return done.out.split()

    return run


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("gen",), ["generate"]),
        (("generate", "--neg"), ["--negative-prompt"]),
        (("generate", "--model", "story"), STORYBOOK),
        (("generate", "-m", "storybook-w"), ["storybook-wuerstchen"]),
        (("generate", "--scheduler", "dpmpp_2m_k"), ["dpmpp_2m_karras"]),
        (("generate", "--vae", "t"), ["tiny"]),
        (("generate", "--clean-caption", ""), ["on", "off"]),
        (("generate", "--precision", "b"), ["bf16"]),
        (("verify", "storybook-s"), ["storybook-sdxl"]),
        (("inspect", ""), STORYBOOK),
        (("tune", "storybook-w"), ["storybook-wuerstchen"]),
        (("pull", "sdxl-t"), ["sdxl-turbo"]),
        (("generate", "--image", ""), []),  # the shell then offers files
    ],
)
def test_words(completed: Completed, words: tuple[str, ...], offered: list[str]) -> None:
    assert completed(*words) == offered


def test_names_in_the_users_own_folders(completed: Completed, tmp_path: Path) -> None:
    save_bundle(tmp_path / "models" / "mine")
    (tmp_path / "models" / "adapters").mkdir()
    (tmp_path / "models" / "adapters" / "pixel-art.safetensors").touch()
    assert completed("generate", "--model", "mi") == ["mine"]
    assert completed("generate", "--adapter", "") == completed("adapters", "") == ["pixel-art"]


def test_every_offered_scheduler_is_one(completed: Completed) -> None:
    names = completed("generate", "--scheduler", "")
    assert len(names) > 50
    assert all(choose(each) for each in names)


@pytest.mark.parametrize(
    ("shell", "variables", "said"),
    [
        ("zsh", {"_TYPER_COMPLETE_ARGS": "vinograph verify storybook-s"}, "storybook-sdxl"),
        (
            "fish",
            {"_TYPER_COMPLETE_ARGS": "vinograph verify storybook-s", "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
            "storybook-sdxl",
        ),
    ],
)
def test_other_shells(
    vinograph: Run, monkeypatch: pytest.MonkeyPatch, shell: str, variables: dict[str, str], said: str
) -> None:
    for name, value in {"_VINOGRAPH_COMPLETE": f"complete_{shell}", **variables}.items():
        monkeypatch.setenv(name, value)
    done = vinograph()
    assert (done.code, said in done.out) == (0, True)


def test_bash_completes_by_the_script_that_is_shown(tmp_path: Path) -> None:
    script = tmp_path / "vinograph"
    script.write_text(f'#!/bin/bash\nexec {sys.executable} -m vinograph "$@"\n')
    script.chmod(0o755)
    commands = (
        'eval "$(vinograph --show-completion)"; COMP_WORDS=(vinograph verify storybook-s); COMP_CWORD=2; '
        '_vinograph_completion vinograph; echo "${COMPREPLY[@]}"'
    )
    env = environment(PATH=f"{tmp_path}:/usr/bin:/bin", PYTHONPATH=str(SOURCE))
    done = subprocess.run(["bash", "-c", commands], capture_output=True, text=True, env=env, timeout=60, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "storybook-sdxl"), done.stderr
