"""``vinograph web`` where it can't serve a page."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from scripts.browser import free_port
from tests.cli.conftest import Outcome, Run, in_process


def test_without_gradio_it_names_the_extra() -> None:
    done = in_process("web", first='import sys; sys.modules["gradio"] = None\n')
    done.fails(2, 'the page needs gradio: pip install "vinograph[web]"')


def test_what_it_takes_is_told_without_gradio() -> None:
    done = in_process("web", "--help", first='import sys; sys.modules["gradio"] = None\n')
    assert done.code == 0
    for option in ("--model", "--device", "--host", "--port", "--allowed-host"):
        assert option in done.out


def test_a_port_that_is_taken(vinograph: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        vinograph("web", "--port", port).fails(2, f"--port {port}", f"--port {port + 1}")


def test_an_address_that_is_not_here(vinograph: Run) -> None:
    vinograph("web", "--host", "192.0.2.7").fails(2, "--host 192.0.2.7")


@pytest.mark.parametrize("port", [0, 65536, "seven"])
def test_a_port_that_is_none(vinograph: Run, port: object) -> None:
    vinograph("web", "--port", port).fails(2, "--port")


def run(*arguments: object) -> Outcome:
    """Where the page would be served if nothing were wrong."""
    return in_process("web", "--port", free_port(), *arguments)


def test_a_model_that_is_not_there() -> None:
    run("--model", "nobody").fails(3, "there is no model 'nobody'")


def test_a_device_that_is_not_there() -> None:
    run("--device", "TPU").fails(2, "TPU", "CPU")


def test_a_damaged_model_that_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "bundle.json").write_text("{")
    run("--model", tmp_path / "broken").fails(4, "bundle.json")


def test_no_folder_for_temporary_files() -> None:
    """As in a container with a root file system that nothing can be written to."""
    nowhere = "import tempfile; tempfile._candidate_tempdir_list = lambda: ['/proc/nowhere']\n"
    done = in_process("web", "--port", free_port(), first=nowhere)
    done.fails(5, "no folder for temporary files", "TMPDIR", "--tmpfs /tmp")
