"""A bundle is complete or absent, also after a kill, or with too little disk or memory."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import openvino as ov
import pytest

from tests.convert.conftest import files_of
from tests.interruption import kill_everywhere
from tests.models.open_model import open_model
from vinograph.convert import Job, convert, writing
from vinograph.convert.assemble import assemble
from vinograph.errors import DamagedModelError, ModelError, RequestError, ResourceError
from vinograph.models.bundle import Bundle
from vinograph.models.manifest import Component
from vinograph.models.parts import ComponentPlan

Usage = namedtuple("Usage", "total used free")

# Converts, and kills itself when work on a component begins. Components are written one by one.
KILLED = """
import importlib, os, signal, sys
from pathlib import Path
from vinograph.convert import convert

def progress(component, number, total):
    if component == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)

importlib.import_module("vinograph.convert.assemble")._AT_ONCE = 1
convert(sys.argv[1], Path(sys.argv[2]), progress=progress)
"""


@pytest.fixture
def order(combined: Path) -> list[str]:
    """The components in the order in which they are written: the largest first."""
    return [plan.name for plan in sorted(open_model(combined).components, key=lambda plan: -plan.size)]


def convert_until(component: str, source: Path, target: Path) -> None:
    """A conversion that dies there."""
    environment = os.environ | {"PYTHONPATH": str(Path(convert.__code__.co_filename).parents[2])}
    done = subprocess.run([sys.executable, "-c", KILLED, source, target, component], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL


def test_killed_and_run_again(combined: Path, undisturbed: Bundle, order: list[str], tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    whole, lost, killed, *waiting = order[2:]
    convert_until(killed, combined, target)
    assert not target.exists()
    partial = tmp_path / ".bundle.partial"
    with pytest.raises(ModelError, match="is not a bundle"):
        Bundle.open(partial)
    # What dying in the middle of a write leaves.
    (partial / f"{killed}.xml").write_text("<?xml")
    (partial / ".progress.json.1.tmp").write_text("{")
    (partial / "README.md").write_text("half")
    # What was done and then lost is done again; what was done is kept.
    (partial / f"{lost}.bin").write_bytes(b"")
    kept = (partial / f"{whole}.bin").stat().st_mtime_ns

    began: list[str] = []
    bundle = convert(combined, target, progress=lambda component, number, total: began.append(component))
    assert began == [lost, killed, *waiting]
    assert (target / f"{whole}.bin").stat().st_mtime_ns == kept
    assert files_of(target) == files_of(undisturbed.path)
    assert len(list(bundle.verify())) == len(bundle.manifest.files)
    assert [each.name for each in tmp_path.iterdir()] == ["bundle"]


@pytest.fixture
def planned(combined: Path, undisturbed: Bundle, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Bundle]:
    """A conversion that writes ``undisturbed`` anew, with its components copied from it."""

    def copy(plan: ComponentPlan, file: Path, weights: str, stopped: Event) -> tuple[Component, str]:
        for suffix in (".xml", ".bin"):
            file.with_suffix(suffix).write_bytes((undisturbed.path / file.name).with_suffix(suffix).read_bytes())
        record = undisturbed.manifest.files[file.with_suffix(".bin").name]
        return undisturbed.manifest.components[plan.name], record.sha256

    monkeypatch.setattr(writing, "write_component", copy)
    monkeypatch.setattr(sys.modules[assemble.__module__], "_AT_ONCE", 1)  # operations come in one order
    opened = open_model(combined)
    return lambda target: assemble(opened, Job(target, "f16", False, lambda *_: None))


def test_killed_at_any_moment(planned: Callable[[Path], Bundle], undisturbed: Bundle, tmp_path: Path) -> None:
    """Killed before any operation on the disk or within a write, it ends as if undisturbed."""

    def folder(name: str) -> Path:
        (tmp_path / name).mkdir()
        return tmp_path / name

    def run(place: Path) -> None:
        if not (place / "bundle").exists():
            planned(place / "bundle")

    def check(place: Path, how: str) -> None:
        assert files_of(place / "bundle") == files_of(undisturbed.path), how
        assert {each.name for each in place.iterdir()} <= {"bundle", ".bundle.lock"}, how

    names = kill_everywhere(folder, run, check)
    assert {"write tokenizer.json", "write decoder.xml", "write README.md", "rename .bundle.partial"} <= set(names)


def test_an_error_leaves_what_was_begun_before(
    combined: Path, order: list[str], tmp_path: Path, undisturbed: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = writing.write_component

    def fail(plan: ComponentPlan, *rest: Any) -> tuple[Component, str]:
        if plan.name == order[1]:
            raise OSError(errno.EIO, "Input/output error")
        return write(plan, *rest)

    monkeypatch.setattr(writing, "write_component", fail)
    with pytest.raises(OSError, match="Input/output"):
        convert(combined, tmp_path / "bundle")
    monkeypatch.undo()
    began: list[str] = []
    bundle = convert(combined, tmp_path / "bundle", progress=lambda component, *_: began.append(component))
    assert order[0] not in began
    assert order[1] in began
    assert files_of(bundle.path) == files_of(undisturbed.path)


def test_parts_of_another_conversion_are_not_used(combined: Path, order: list[str], tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    convert_until(order[3], combined, target)
    began: list[str] = []

    class EnoughError(Exception):
        pass

    def progress(component: str, number: int, total: int) -> None:
        began.append(component)
        raise EnoughError

    with pytest.raises(EnoughError):
        convert(combined, target, weights="f32", progress=progress)
    assert began == order[:1]


def test_two_into_one_place(combined: Path, undisturbed: Bundle, order: list[str], tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    refused: list[str] = []

    def progress(component: str, number: int, total: int) -> None:
        if number == total:
            with pytest.raises(RequestError, match="another conversion is writing"):
                convert(combined, target)
            refused.append(component)

    convert(combined, target, progress=progress)
    assert refused == order[-1:]
    assert files_of(target) == files_of(undisturbed.path)


def test_progress_counts_the_components(combined: Path, order: list[str], tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []

    class EnoughError(Exception):
        pass

    def progress(component: str, number: int, total: int) -> None:
        seen.append((component, number, total))
        if number == 2:
            raise EnoughError

    with pytest.raises(EnoughError):
        convert(combined, tmp_path / "bundle", progress=progress)
    assert seen == [(order[0], 1, 7), (order[1], 2, 7)]


class TestTarget:
    """What is at the place that the bundle is for."""

    def test_a_bundle_stays_without_overwrite(self, combined: Path, undisturbed: Bundle, tmp_path: Path) -> None:
        target = shutil.copytree(undisturbed.path, tmp_path / "bundle")
        with pytest.raises(RequestError, match="--overwrite"):
            convert(combined, target)
        assert files_of(target) == files_of(undisturbed.path)

    def test_something_else_stays_even_so(self, combined: Path, tmp_path: Path) -> None:
        (tmp_path / "bundle").mkdir()
        (tmp_path / "bundle" / "thesis.txt").write_text("five years")
        with pytest.raises(RequestError, match="is not a bundle"):
            convert(combined, tmp_path / "bundle", overwrite=True)

    def test_the_old_one_stays_until_the_new_one_is_whole(
        self, combined: Path, undisturbed: Bundle, tmp_path: Path
    ) -> None:
        target = shutil.copytree(undisturbed.path, tmp_path / "bundle")

        def fail(component: str, number: int, total: int) -> None:
            assert files_of(target) == files_of(undisturbed.path)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            convert(combined, target, overwrite=True, progress=fail)
        assert files_of(target) == files_of(undisturbed.path)

    def test_an_impossible_place(self, combined: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(RequestError, match="can't be written"):
            convert(combined, tmp_path / "file" / "bundle")


class TestResources:
    """Too little disk or memory."""

    def test_too_little_disk_is_seen_at_the_start(
        self, combined: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9 - 10**6, 10**6))
        with pytest.raises(ResourceError, match=r"needs 0\.1 GB on the disk of .*, which has 0\.0 GB free"):
            convert(combined, tmp_path / "bundle")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("error", ["iostream error", "basic_ios::clear: iostream error"])
    def test_a_disk_too_full_for_the_graph(
        self, combined: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str
    ) -> None:
        def serialize(model: object, file: Path, weights: str) -> None:
            raise RuntimeError(error)

        monkeypatch.setattr(ov, "serialize", serialize)
        with pytest.raises(ResourceError, match=r"No space left on device; .* GB free|doesn't fit"):
            convert(combined, tmp_path / "bundle")
        assert list(tmp_path.iterdir()) == []

    def test_a_disk_too_full_for_the_weights(
        self, combined: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def write(descriptor: int, data: object, *rest: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "write", write)
        monkeypatch.setattr(os, "copy_file_range", write, raising=False)
        with pytest.raises(ResourceError, match=r"No space left on device; .* GB free"):
            convert(combined, tmp_path / "bundle")
        assert list(tmp_path.iterdir()) == []

    def test_a_full_disk_that_openvino_does_not_notice(
        self, combined: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        serialize = ov.serialize

        def cut_off(model: ov.Model, file: Path, weights: str) -> None:
            serialize(model, file, weights)
            os.truncate(file, file.stat().st_size // 2)

        monkeypatch.setattr(ov, "serialize", cut_off)
        with pytest.raises(ResourceError, match="doesn't fit"):
            convert(combined, tmp_path / "bundle")
        assert list(tmp_path.iterdir()) == []

    def test_too_little_memory(self, combined: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*args: object) -> None:
            raise MemoryError

        monkeypatch.setattr(writing, "number_nodes", fail)
        with pytest.raises(ResourceError, match="not enough memory"):
            convert(combined, tmp_path / "bundle")

    def test_a_defect_stays_a_defect(self, combined: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*args: object) -> None:
            raise RuntimeError("a defect")

        monkeypatch.setattr(writing, "number_nodes", fail)
        with pytest.raises(RuntimeError, match="a defect"):
            convert(combined, tmp_path / "bundle")


def test_an_altered_bundle_is_noticed(undisturbed: Bundle, tmp_path: Path) -> None:
    target = shutil.copytree(undisturbed.path, tmp_path / "bundle")
    content = bytearray((target / "vqgan.bin").read_bytes())
    content[len(content) // 2] ^= 1
    (target / "vqgan.bin").write_bytes(content)
    with pytest.raises(DamagedModelError, match=r"vqgan\.bin"):
        list(Bundle.open(target).verify())


def test_the_manifest_holds_no_times(undisturbed: Bundle) -> None:
    text = json.dumps(json.loads((undisturbed.path / "bundle.json").read_text()))
    assert str(undisturbed.path.parent) not in text
    for word in ("time", "date"):
        assert word not in {key.lower() for key in json.loads(text)}
