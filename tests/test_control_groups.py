"""Processors and memory that a process may use, by control groups of versions 1 and 2."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from vinograph import resources
from vinograph.resources import cpu_count, memory_available, memory_installed

MIB = 2**20
INNER = "0::/outer/inner\n"
EACH_ITS_OWN = "9:name=systemd:/\n4:memory:/outer/inner\n3:cpuset:/\n1:cpu,cpuacct:/outer/inner\n0::/\n"


@pytest.fixture(autouse=True)
def eight_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with eight processors, whatever the real one has."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)


def groups(folder: Path, monkeypatch: pytest.MonkeyPatch, own: str, files: Mapping[str, str]) -> None:
    """Make control groups of ``files``; the process is in the one that ``own`` names."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "own").write_text(own)
    monkeypatch.setattr(resources, "_GROUPS", folder)
    monkeypatch.setattr(resources, "_OWN_GROUPS", folder / "own")


def test_without_control_groups_the_system_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "_OWN_GROUPS", tmp_path / "missing")
    assert cpu_count() == 8
    assert 0 < memory_available() < memory_installed()


def test_unknown_memory_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "_MEMORY", tmp_path / "missing")
    monkeypatch.delattr("os.sysconf")
    assert memory_available() == memory_installed() == 0


@pytest.mark.parametrize(
    ("quota", "allowed"),
    [("max 100000", 8), ("150000 100000", 2), ("50000 100000", 1), ("1000000 100000", 8), ("nonsense", 8), ("", 8)],
)
@pytest.mark.parametrize("place", ["", "outer/", "outer/inner/"])
def test_a_quota_of_version_2_limits_processors(
    quota: str, allowed: int, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups(tmp_path, monkeypatch, INNER, {f"{place}cpu.max": quota})
    assert cpu_count() == allowed


@pytest.mark.parametrize(("quota", "allowed"), [("-1", 8), ("150000", 2), ("50000", 1), ("1000000", 8)])
@pytest.mark.parametrize("place", ["", "outer/", "outer/inner/"])
def test_a_quota_of_version_1_limits_processors(
    quota: str, allowed: int, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"cpu/{place}cpu.cfs_quota_us": quota, f"cpu/{place}cpu.cfs_period_us": "100000"}
    groups(tmp_path, monkeypatch, EACH_ITS_OWN, files)
    assert cpu_count() == allowed


def test_the_smallest_quota_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups(tmp_path, monkeypatch, INNER, {"outer/cpu.max": "300000 100000", "outer/inner/cpu.max": "500000 100000"})
    assert cpu_count() == 3


def test_another_processs_group_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups(tmp_path, monkeypatch, INNER, {"other/cpu.max": "100000 100000", "cpu.max.d/cpu.max": "100000 100000"})
    assert cpu_count() == 8


def test_the_hosts_path_is_understood_in_a_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups(tmp_path, monkeypatch, "0::/docker/0123456789abcdef\n", {"cpu.max": "200000 100000"})
    assert cpu_count() == 2


@pytest.mark.parametrize("place", ["", "outer/", "outer/inner/"])
def test_a_limit_of_version_2_limits_memory(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        f"{place}memory.max": f"{100 * MIB}\n",
        f"{place}memory.current": f"{70 * MIB}\n",
        f"{place}memory.stat": f"anon {40 * MIB}\nactive_file {10 * MIB}\ninactive_file {20 * MIB}\n",
    }
    groups(tmp_path, monkeypatch, INNER, files)
    assert (memory_installed(), memory_available()) == (100 * MIB, 50 * MIB)


def test_a_limit_of_version_1_limits_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "memory/outer/memory.limit_in_bytes": f"{100 * MIB}\n",
        "memory/outer/memory.usage_in_bytes": f"{70 * MIB}\n",
        "memory/outer/memory.stat": f"inactive_file {MIB}\ntotal_inactive_file {20 * MIB}\n",
        "memory/memory.limit_in_bytes": "9223372036854771712\n",
        "memory/memory.usage_in_bytes": f"{10**6 * MIB}\n",
    }
    groups(tmp_path, monkeypatch, EACH_ITS_OWN, files)
    assert (memory_installed(), memory_available()) == (100 * MIB, 50 * MIB)


def test_an_unlimited_group_has_the_systems_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = memory_installed()
    groups(tmp_path, monkeypatch, INNER, {"memory.max": "max\n", "memory.current": f"{10**6 * MIB}\n"})
    assert memory_installed() == there
    assert memory_available() > 0


def test_a_group_beyond_its_limit_has_no_memory_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups(tmp_path, monkeypatch, INNER, {"memory.max": f"{MIB}\n", "memory.current": f"{2 * MIB}\n"})
    assert memory_available() == 0
