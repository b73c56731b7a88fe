"""Whatever is killed, and whenever: rerun, a batch leaves the same files, and draws little twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest

from tests.batch.batches import (
    AS_DRAWN,
    children,
    finish,
    left_over,
    manifest,
    pictures,
    start,
    wait_for_pictures,
    wait_until_gone,
    write_prompts,
)
from tests.batch.conftest import COUNT
from tests.cli.conftest import SOURCE

LONG_COUNT, LONG_KILLS = 2000, 20


def check_whole(out: Path, undisturbed: dict[str, bytes]) -> int:
    """Every file that is there is a whole one; returns how many there are."""
    found = pictures(out)
    assert not [path for path, content in found.items() if undisturbed.get(path) != content]
    return len(found)


def check_complete(out: Path, undisturbed: dict[str, bytes]) -> None:
    """All files are there, each once, and the manifest lists each once."""
    assert pictures(out) == undisturbed
    assert not left_over(out)
    records = manifest(out)
    assert sorted(each["path"] for each in records) == sorted(undisturbed)
    assert {each["status"] for each in records} == {"done"}


def kill_driver(process: subprocess.Popen[str]) -> None:
    """Kill it, and see its workers end by themselves."""
    workers = children(process.pid)
    process.kill()
    process.communicate()
    wait_until_gone(workers)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.long)])
def test_a_killed_driver(seed: int, prompts: Path, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    out, random = tmp_path / "out", Random(seed)
    process = start(prompts, out, "--workers", 2)
    wait_for_pictures(process, out, random.randint(1, COUNT - 6))
    time.sleep(random.uniform(0, 0.05))
    kill_driver(process)
    there = check_whole(out, undisturbed)
    said = finish(start(prompts, out, "--workers", 2))
    assert (said["there"], said["drawn"]) == (there, COUNT - there)
    check_complete(out, undisturbed)


def test_a_killed_worker_is_replaced(prompts: Path, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(prompts, out, "--workers", 2)
    for count in (2, 8):
        wait_for_pictures(process, out, count)
        os.kill(Random(count).choice(children(process.pid)), signal.SIGKILL)
    said = finish(process)
    assert said["drawn"] + said["there"] == COUNT
    check_complete(out, undisturbed)
    assert sum(each["attempts"] for each in manifest(out)) <= COUNT + 2


def test_ctrl_c_ends_it_and_nothing_is_lost(prompts: Path, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(prompts, out, "--workers", 1)
    wait_for_pictures(process, out, 3)
    workers = children(process.pid)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    wait_until_gone(workers)
    there = check_whole(out, undisturbed)
    assert not left_over(out)
    assert there >= 3
    assert finish(start(prompts, out, "--workers", 1))["drawn"] == COUNT - there
    check_complete(out, undisturbed)


def test_a_picture_that_ends_its_process_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that dies of one row dies of it so often as is allowed; the others are drawn."""
    place = tmp_path / "place"
    place.mkdir()
    (place / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if sys.orig_argv[2:4] == ['-m', 'vinograph.batch.worker']:\n"
        "    import vinograph.batch.drawing as drawing\n"
        "    whole = drawing._drawn\n"
        "    def drawn(pipe, job, stopped):\n"
        "        if 'number 1 ' in job.arguments['prompt']:\n"
        "            os.kill(os.getpid(), 9)\n"
        "        return whole(pipe, job, stopped)\n"
        "    drawing._drawn = drawn\n"
    )
    few, out = write_prompts(tmp_path / "few.txt", 4), tmp_path / "out"
    monkeypatch.setenv("PYTHONPATH", f"{SOURCE}{os.pathsep}{place}")
    done = subprocess.run(
        [sys.executable, "-m", "vinograph", "batch", few, out, *AS_DRAWN, "--workers", "1", "--attempts", "2"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    records = {each["rows"][0]: each for each in manifest(out)}
    assert [records[row]["status"] for row in (1, 2, 3, 4)] == ["done", "error", "done", "done"]
    assert records[2]["attempts"] == 2
    assert "SIGKILL" in records[2]["error"]


@pytest.mark.long
def test_twenty_kills_of_2000_pictures(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "many.txt", LONG_COUNT)
    finish(start(prompts, tmp_path / "undisturbed", "--workers", 1))
    undisturbed, out, random = pictures(tmp_path / "undisturbed"), tmp_path / "out", Random(0)
    kills, process = 0, start(prompts, out, "--workers", 2)
    for count in sorted(random.sample(range(1, LONG_COUNT - 50), LONG_KILLS)):
        wait_for_pictures(process, out, count)
        time.sleep(random.uniform(0, 0.1))
        workers = children(process.pid)
        if random.random() < 0.5 and workers:
            os.kill(random.choice(workers), signal.SIGKILL)
        else:
            kill_driver(process)
            check_whole(out, undisturbed)
            process = start(prompts, out, "--workers", 2)
        kills += 1
    finish(process)
    assert kills == LONG_KILLS
    check_complete(out, undisturbed)
    assert sum(each["attempts"] for each in manifest(out)) <= LONG_COUNT + 2 * LONG_KILLS
