"""``vinograph serve`` as a command: its settings, and what keeps it from serving."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.cli.conftest import Run, in_process

WITHOUT_EXTRA = 'import sys; sys.modules["uvicorn"] = None; sys.modules["prometheus_client"] = None\n'
KEY = "sk-0123456789abcdef"


def test_without_the_extra_it_is_named() -> None:
    in_process("serve", first=WITHOUT_EXTRA).fails(2, "uvicorn, prometheus_client", 'pip install "vinograph[serve]"')


def test_help_and_check_work_without_the_extra() -> None:
    assert "--strict-models" in in_process("serve", "--help", first=WITHOUT_EXTRA).out
    assert "storybook-wuerstchen" in in_process("serve", "--check", first=WITHOUT_EXTRA).out


class TestCheck:
    """``--check`` prints the settings that hold."""

    def test_as_a_table(self, vinograph: Run) -> None:
        done = vinograph("serve", "--check", "--port", 1234, "--limit", "queue=3", "--model", "a=storybook-sdxl")
        assert done.code == 0
        rows = [line.split() for line in done.out.splitlines()]
        assert ["port", "1234", "--port"] in rows
        assert ["limits.queue", "3", "--limit", "queue"] in rows
        assert ["models.a.source", "storybook-sdxl", "--model"] in rows
        assert ["api_keys", "none", "default"] in rows

    def test_as_json(self, vinograph: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = tmp_path / "serve.toml"
        file.write_text(f'api_keys = ["{KEY}"]\n[models.a]\nsource = "b"\n', encoding="utf-8")
        monkeypatch.setenv("VINOGRAPH_GRACE", "7")
        done = vinograph("serve", "--check", "--json", "--config", file)
        assert done.code == 0
        assert done.record["grace"] == {"value": 7.0, "source": "VINOGRAPH_GRACE"}
        assert done.record["models.a.source"] == {"value": "b", "source": str(file)}
        assert done.record["api_keys"] == {"value": "1 (not shown)", "source": str(file)}
        assert KEY not in done.out + done.err

    def test_it_listens_nowhere(self, vinograph: Run) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            assert vinograph("serve", "--check", "--port", taken.getsockname()[1]).code == 0

    def test_warnings_are_heard(self, vinograph: Run) -> None:
        done = vinograph("serve", "--check", "--host", "0.0.0.0", "--no-auth")
        assert done.code == 0
        assert "warning: whoever can reach 0.0.0.0 can draw" in done.err

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--host", "0.0.0.0"], ["--host 0.0.0.0", "without a key", "--no-auth"]),
            (["--host", "::", "--api-key", "a b"], ["--api-key holds what is no API key"]),
            (["--no-auth", "--api-key", KEY], ["--no-auth", "contradict"]),
            (["--alias", "a=b"], ["--alias", "there is storybook-wuerstchen"]),
            (["--limit", "que=3"], ["--limit", "did you mean queue?"]),
            (["--config", "nothing.toml"], ["--config 'nothing.toml'", "No such file"]),
            (["--port", "70000"], ["--port is 70000"]),
            (["--grace", "-1"], ["--grace is -1.0"]),
            (["--log-format", "xml"], ["--log-format is 'xml'", "text, json"]),
            (["--allowed-origin", "example.org"], ["--allowed-origin", "'example.org' is no origin"]),
            (["--model", "a b"], ["--model 'a b' gives a model no name", "NAME=SOURCE"]),
        ],
    )
    def test_what_is_wrong_ends_it(self, vinograph: Run, arguments: list[str], words: list[str]) -> None:
        vinograph("serve", "--check", *arguments).fails(2, *words)


def test_a_port_in_use_is_reported(vinograph: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        vinograph("serve", "--port", port).fails(2, f"--port {port}", f"--port {port + 1}")


def test_an_address_of_another_machine_is_refused(vinograph: Run) -> None:
    vinograph("serve", "--host", "192.0.2.7", "--no-auth").fails(2, "--host 192.0.2.7")
