"""What precision "auto" stands for on the CPU."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vinograph.runtime import automatic
from vinograph.runtime.automatic import Comparison
from vinograph.runtime.cache import Cache
from vinograph.runtime.devices import machine


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[Comparison]]:
    """What is measured, in turn, on a machine where OpenVINO chooses bf16, with an empty cache."""
    results = [Comparison("bf16", 1.0, 1.8), Comparison("bf16", 1.0, 0.5)]
    monkeypatch.setenv("VINOGRAPH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(automatic, "machine", lambda: replace(machine(), precision="bf16"))
    monkeypatch.setattr(automatic, "_measure", lambda own: results.pop(0))
    automatic.comparison.cache_clear()
    yield results
    automatic.comparison.cache_clear()


def next_process() -> Comparison | None:
    """What another process finds, which has nothing in memory."""
    automatic.comparison.cache_clear()
    return automatic.comparison()


@pytest.mark.parametrize(
    ("f32", "own", "expected"),
    [(1.0, 1.8, "f32"), (1.0, 0.5, "bf16"), (0.95, 1.0, "bf16"), (0.9, 1.0, "f32")],
)
def test_f32_has_to_be_clearly_faster(f32: float, own: float, expected: str) -> None:
    assert Comparison("bf16", f32, own).automatic_precision == expected


def test_a_machine_is_measured_once(measured: list[Comparison]) -> None:
    assert automatic.comparison() == next_process() == Comparison("bf16", 1.0, 1.8)
    assert len(measured) == 1
    assert automatic.f32_is_faster()


def test_another_processor_of_the_same_name_is_measured(
    measured: list[Comparison], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = automatic.comparison()
    monkeypatch.setattr(automatic, "processor_flags", lambda: ["avx2", "amx_bf16"])
    assert next_process() != first
    assert not measured


def test_threads_make_no_difference(measured: list[Comparison], monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker of a batch with a share of the processors draws what one with all of them draws."""
    first = automatic.comparison()
    fewer = replace(machine(), precision="bf16", fingerprint=("fewer",))
    monkeypatch.setattr(automatic, "machine", lambda: fewer)
    assert next_process() == first


def test_nothing_is_measured_where_openvino_computes_in_f32(
    measured: list[Comparison], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(automatic, "machine", lambda: replace(machine(), precision="f32"))
    assert automatic.comparison() is None
    assert not automatic.f32_is_faster()
    assert len(measured) == 2


def test_what_another_process_measured_meanwhile_stays(
    measured: list[Comparison], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = automatic.comparison()
    monkeypatch.setattr(Cache, "records", lambda *_: {})  # this process looked before that was kept
    assert next_process() == first
    assert not measured


@pytest.mark.parametrize(
    "damage",
    [
        {"f32_seconds": "1"},
        {"own_seconds": 0.0},
        {"own_seconds": float("nan")},
        {"precision": "f16"},
        {"precision": None},
    ],
    ids=["a text", "no time", "no number", "another precision", "none"],
)
def test_a_damaged_record_is_measured_anew(measured: list[Comparison], damage: dict[str, Any]) -> None:
    automatic.comparison()
    file = Cache().folder / "settings.json"
    content = json.loads(file.read_text())
    for record in content["precisions"].values():
        record |= damage
    file.write_text(json.dumps(content))
    assert next_process() == Comparison("bf16", 1.0, 0.5)
    assert next_process() == Comparison("bf16", 1.0, 0.5)


def test_a_folder_that_cannot_be_written_stops_nothing(
    measured: list[Comparison], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("VINOGRAPH_CACHE", str(tmp_path / "file" / "cache"))
    assert automatic.comparison() == Comparison("bf16", 1.0, 1.8)


def test_the_processor_at_hand() -> None:
    found = automatic._measure(machine().precision if machine().precision != "f32" else "bf16")
    assert min(found.f32_seconds, found.own_seconds) > 0
    assert Comparison.from_json(found.to_json()) == found
