"""What a batch on a cluster consists of, without a cluster."""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.batch.batches import AS_DRAWN, write_prompts
from tests.cli.conftest import SOURCE
from vinograph.batch.cluster import connection
from vinograph.batch.cluster.run import Handing
from vinograph.batch.cluster.starts import Starts
from vinograph.batch.drawing import Drawing, Job
from vinograph.batch.expected import Expected, everywhere, located
from vinograph.batch.measuring import Need
from vinograph.batch.store import LocalStore
from vinograph.cli import main
from vinograph.errors import RequestError

JOBS = [Job(f"{index:032x}", {"prompt": f"a house {index}"}) for index in range(5)]


class TestHanding:
    def test_rows_are_handed_out_as_far_as_they_may_be_ahead(self) -> None:
        handing = Handing(iter(JOBS), 2)
        assert list(handing.rows(3)) == [JOBS[:2], JOBS[2:4]]
        assert list(handing.rows(3)) == []
        handing.flying.clear()
        handing.again.append(JOBS[0])
        assert list(handing.rows(3)) == [[JOBS[0], JOBS[4]], []]


class TestStarts:
    def test_the_first_that_has_not_ended_is_given_up(self) -> None:
        starts, keys = Starts(), ["a", "b", "c"]
        assert starts.begin(keys) is None
        starts.ended("a")
        assert [starts.begin(keys) for _ in range(4)] == [None, None, None, "b"]
        starts.ended("b")
        assert starts.begin(keys) is None

    def test_a_row_that_has_ended_is_forgotten(self) -> None:
        starts = Starts()
        starts.begin(["a"])
        starts.ended("a")
        assert starts.begin(["a"]) is None
        starts.forget(["a"])
        assert [starts.begin(["a"]) for _ in range(3)] == [None, None, None]


def test_a_spool_is_read_while_it_grows_and_again_from_its_start(tmp_path: Path) -> None:
    from vinograph.batch.cluster.dataset import Spool, rows

    spool, found = Spool(tmp_path / "jobs"), list[Any]()
    reader = threading.Thread(target=lambda: found.extend(rows(spool.file)))
    reader.start()
    for job in JOBS:
        spool.add([job])
    spool.end()
    reader.join(10)
    spool.close()
    assert found == [(job,) for job in JOBS] == list(rows(spool.file))


class TestExpected:
    @pytest.fixture
    def place(self, tmp_path: Path) -> tuple[LocalStore, Expected, Drawing]:
        store, drawing = LocalStore(tmp_path / "out"), Drawing("storybook-sdxl")
        store.leave_note("mark", b"1234")
        return store, Expected("mark", "1234", str(tmp_path), everywhere(drawing, drawing.open(), 1)), drawing

    def test_the_same_is_taken(self, place: tuple[LocalStore, Expected, Drawing]) -> None:
        store, expected, drawing = place
        expected.check_place(str(store.root))
        expected.check("out", store, drawing.open(), drawing, 1)

    def test_another_folder_is_refused(self, place: tuple[LocalStore, Expected, Drawing], tmp_path: Path) -> None:
        store, expected, drawing = place
        with pytest.raises(RequestError, match="doesn't see the folder"):
            expected.check_place(str(tmp_path / "nowhere"))
        store.leave_note("mark", b"5678")
        with pytest.raises(RequestError, match=r"doesn't see the folder out .* name a folder that all"):
            expected.check("out", store, drawing.open(), drawing, 1)

    @pytest.mark.parametrize("name", ["model", "vinograph", "python"])
    def test_another_model_or_version_is_refused(self, place: tuple[LocalStore, Expected, Drawing], name: str) -> None:
        store, expected, drawing = place
        other = replace(expected, common={**expected.common, name: "another"})
        with pytest.raises(RequestError, match=f"would draw with another {name} .* instead of another"):
            other.check("out", store, drawing.open(), drawing, 1)

    def test_a_picture_that_only_the_driver_sees(self, place: tuple[LocalStore, Expected, Drawing]) -> None:
        with pytest.raises(RequestError, match=r"doesn't see /nowhere/a\.png"):
            place[1].check_files(Job("00", {"prompt": "a", "image": "/nowhere/a.png"}))

    def test_errors_name_the_machine_once(self) -> None:
        kind, text = located(RequestError("there is none"))
        assert kind is RequestError
        assert located(RequestError(text.removeprefix("there is none (on ").removesuffix(")")))[1].count("(on") == 0


def refused(capfd: pytest.CaptureFixture[str], tmp_path: Path, address: str) -> str:
    """What the command says, which ends with exit code 2 before anything is written."""
    prompts, out = write_prompts(tmp_path / "a.txt", 1), tmp_path / "out"
    assert main(["batch", *map(str, (prompts, out, *AS_DRAWN, "--ray", address))]) == 2
    assert not out.exists()
    return capfd.readouterr().err


def test_a_client_is_no_driver(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    said = refused(capfd, tmp_path, "ray://127.0.0.1:1")
    assert "--ray is ray://127.0.0.1:1" in said
    assert "ray job submit" in said


def test_without_the_package_the_extra_is_named(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert 'pip install "vinograph[ray]"' in refused(capfd, tmp_path, "auto")


def test_ray_is_imported_where_it_is_asked_for_alone() -> None:
    code = "import sys, vinograph.cli, vinograph.cli.batch, vinograph.batch.worker; assert 'ray' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(SOURCE)}, check=True)


def test_what_was_measured_is_what_ray_reserves() -> None:
    from vinograph.batch.cluster.connection import memory

    assert memory(Need(2)) is None
    needed = memory(Need(2, private=10**9))
    assert needed is not None
    assert 1.1e9 < needed < 2e9


@pytest.mark.parametrize(("name", "reported"), [("ray-data-metadata-prefetch", False), ("draw", True)])
def test_threads_of_ray_end_without_a_traceback(monkeypatch: pytest.MonkeyPatch, name: str, reported: bool) -> None:
    reports: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", reports.append)
    connection._silence_threads_of_ray()
    thread = threading.Thread(target=lambda: 1 / 0, name=name)
    thread.start()
    thread.join()
    assert bool(reports) is reported
