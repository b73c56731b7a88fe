"""Files are replaced whole or not at all, with their permissions and owners."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from vinograph.errors import RequestError, ResourceError
from vinograph.files import explained, hidden_sibling, replaced, temporary_sibling, write_atomically


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "picture.png"


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


class TestNames:
    @pytest.mark.parametrize("length", [1, 100, 224, 225, 240, 254, 255])
    @pytest.mark.parametrize("letter", ["x", "ä", "水"])
    def test_hidden_siblings_exist_for_names_of_every_valid_length(
        self, tmp_path: Path, length: int, letter: str
    ) -> None:
        name = (letter * length).encode()[:length].decode("utf-8", "ignore") or "x"
        write_atomically(tmp_path / name, b"whole")
        assert [each.name for each in tmp_path.iterdir()] == [name]
        assert (tmp_path / name).read_bytes() == b"whole"

    def test_hidden_siblings_of_long_names_differ(self, tmp_path: Path) -> None:
        one, other = (hidden_sibling(tmp_path / ("x" * 250 + each), ".lock").name for each in "ab")
        assert one != other
        assert all(each.startswith(".xxx") and each.endswith(".lock") for each in (one, other))

    def test_hidden_siblings_contain_a_short_name(self, tmp_path: Path) -> None:
        assert hidden_sibling(tmp_path / "sdxl", ".partial") == tmp_path / ".sdxl.partial"


class TestPermissions:
    @pytest.mark.parametrize("before", [0o600, 0o640, 0o644, 0o664, 0o755, 0o444])
    def test_a_replaced_file_keeps_its_permissions(self, file: Path, before: int) -> None:
        file.write_bytes(b"old")
        file.chmod(before)
        write_atomically(file, b"new")
        assert (file.read_bytes(), mode(file)) == (b"new", before)

    @pytest.mark.usefixtures("umask")
    def test_a_new_file_has_the_permissions_of_the_umask(self, file: Path) -> None:
        write_atomically(file, b"new")
        assert mode(file) == 0o640

    def test_an_unfinished_file_is_private(self, file: Path) -> None:
        file.write_bytes(b"old")
        file.chmod(0o600)
        with replaced(file) as temporary:
            temporary.write_bytes(b"new")
            assert mode(temporary) == 0o600

    def test_a_replaced_file_keeps_its_owner(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file.write_bytes(b"old")
        given: list[tuple[int, int]] = []
        owner = os.stat_result((0o100600, 1, 1, 1, 12345, 54321, 3, 0, 0, 0))
        monkeypatch.setattr("vinograph.files._stat", lambda _: owner)
        monkeypatch.setattr("os.chown", lambda _, user, group: given.append((user, group)))
        write_atomically(file, b"new")
        assert given == [(12345, 54321)]

    def test_a_file_is_replaced_where_its_owner_can_not_be_kept(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refused(*_: object) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted")

        file.write_bytes(b"old")
        owner = os.stat_result((0o100600, 1, 1, 1, 12345, 54321, 3, 0, 0, 0))
        monkeypatch.setattr("vinograph.files._stat", lambda _: owner)
        monkeypatch.setattr("os.chown", refused)
        write_atomically(file, b"new")
        assert (file.read_bytes(), mode(file)) == (b"new", 0o600)


class TestExistingTargets:
    def test_a_links_target_is_replaced_and_the_link_stays(self, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").mkdir()
        target, link = tmp_path / "elsewhere" / "whole", tmp_path / "link"
        target.write_bytes(b"old")
        link.symlink_to(target)
        write_atomically(link, b"new")
        assert link.is_symlink()
        assert target.read_bytes() == b"new"
        assert sorted(each.name for each in tmp_path.rglob("*")) == ["elsewhere", "link", "whole"]

    def test_a_dangling_links_target_is_created(self, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to("whole")
        write_atomically(tmp_path / "link", b"new")
        assert (tmp_path / "whole").read_bytes() == b"new"

    def test_a_pipe_is_not_replaced(self, file: Path) -> None:
        os.mkfifo(file)
        with pytest.raises(RequestError, match=r"picture.png is a pipe"):
            write_atomically(file, b"new")
        assert stat.S_ISFIFO(file.stat().st_mode)

    @pytest.mark.parametrize("device", ["/dev/null", "/dev/full"])
    def test_a_device_behind_a_link_is_not_replaced(self, file: Path, device: str) -> None:
        file.symlink_to(device)
        with pytest.raises(RequestError, match="is a device"):
            write_atomically(file, b"new")
        assert Path(device).is_char_device()

    def test_a_directory_is_not_replaced(self, tmp_path: Path) -> None:
        with pytest.raises(RequestError, match="is a directory"):
            write_atomically(tmp_path, b"new")


class TestFailures:
    def test_a_failed_write_leaves_the_old_file(self, file: Path) -> None:
        def fail() -> None:
            with replaced(file) as temporary:
                temporary.write_bytes(b"half")
                raise OSError(errno.ENOSPC, "No space left on device")

        file.write_bytes(b"old")
        with pytest.raises(OSError, match="No space"):
            fail()
        assert [each.name for each in file.parent.iterdir()] == [file.name]
        assert file.read_bytes() == b"old"

    def test_leftovers_of_another_process_do_not_disturb(self, file: Path) -> None:
        file.write_bytes(b"old")
        with temporary_sibling(file) as temporary:
            temporary.write_bytes(b"left by a process of the same number")
            write_atomically(file, b"new")
        assert file.read_bytes() == b"new"

    @pytest.mark.parametrize(
        ("error", "kind"),
        [
            (OSError(errno.ENOSPC, "No space left on device"), ResourceError),
            (OSError(errno.EROFS, "Read-only file system"), RequestError),
            (OSError(errno.ENOMEM, "Cannot allocate memory"), MemoryError),
            (RuntimeError("can't alloc"), MemoryError),
            (RuntimeError("something else"), RuntimeError),
            (OSError(errno.EIO, "Input/output error"), OSError),
        ],
        ids=repr,
    )
    def test_each_failure_is_explained_as_its_kind(
        self, tmp_path: Path, error: Exception, kind: type[Exception]
    ) -> None:
        with pytest.raises(kind), explained(tmp_path / "no" / "such" / "target"):
            raise error
