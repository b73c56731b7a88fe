"""``vinograph web`` when it can't serve a page."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from scripts.browser import free_port
from tests.cli.conftest import Run, in_process


def test_without_gradio_it_names_the_extra() -> None:
    done = in_process("web", first='import sys; sys.modules["gradio"] = None\n')
    done.fails(2, 'the page needs gradio: pip install "vinograph[web]"')


def test_help_works_without_gradio() -> None:
    done = in_process("web", "--help", first='import sys; sys.modules["gradio"] = None\n')
    assert done.code == 0
    for option in ("--model", "--device", "--host", "--port", "--allowed-host"):
        assert option in done.out


def test_a_port_in_use_is_reported(vinograph: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        vinograph("web", "--port", port).fails(2, f"--port {port}", f"--port {port + 1}")


def test_an_address_of_another_machine_is_refused(vinograph: Run) -> None:
    vinograph("web", "--host", "192.0.2.7").fails(2, "--host 192.0.2.7")


@pytest.mark.parametrize("port", [0, 65536, "seven"])
def test_a_wrong_port_is_refused(vinograph: Run, port: object) -> None:
    vinograph("web", "--port", port).fails(2, "--port")


def test_an_unknown_model_is_refused(vinograph: Run) -> None:
    vinograph("web", "--port", free_port(), "--model", "nobody").fails(3, "there is no model 'nobody'")


def test_an_absent_device_is_refused(vinograph: Run) -> None:
    vinograph("web", "--port", free_port(), "--device", "TPU").fails(2, "TPU", "CPU")


def test_a_damaged_model_is_refused(vinograph: Run, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "bundle.json").write_text("{")
    vinograph("web", "--port", free_port(), "--model", tmp_path / "broken").fails(4, "bundle.json")


def test_a_missing_temporary_folder_is_reported() -> None:
    """A container with a read-only root file system has none."""
    nowhere = "import tempfile; tempfile._candidate_tempdir_list = lambda: ['/proc/nowhere']\n"
    done = in_process("web", "--port", free_port(), first=nowhere)
    done.fails(5, "no folder for temporary files", "TMPDIR", "--tmpfs /tmp")
