"""The visitors' folders: what fits, what goes, and when."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from vinograph.errors import RequestError
from vinograph.web.hosts import Hosts
from vinograph.web.uploads import UploadLimits, Uploads, safe_name


def put(uploads: Uploads, visitor: str, size: int) -> Path:
    with uploads.receive(visitor, size) as folder:
        (folder / "x.png").write_bytes(bytes(size))
    return folder / "x.png"


class TestBudget:
    def test_of_bytes(self, tmp_path: Path) -> None:
        uploads = Uploads(tmp_path, UploadLimits(total=100))
        first, second, third = (put(uploads, "one", 40) for _ in range(3))
        assert [first.exists(), second.exists(), third.exists()] == [False, True, True]
        assert not first.parent.exists()

    def test_of_files(self, tmp_path: Path) -> None:
        uploads = Uploads(tmp_path, UploadLimits(files=2))
        there = [put(uploads, "one", 1) for _ in range(4)]
        assert [each.exists() for each in there] == [False, False, True, True]

    def test_of_all_visitors(self, tmp_path: Path) -> None:
        uploads = Uploads(tmp_path, UploadLimits(total=100, total_of_all=250))
        there = [put(uploads, str(index), 90) for index in range(4)]
        assert [each.exists() for each in there] == [False, False, True, True]

    def test_of_what_is_under_way(self, tmp_path: Path) -> None:
        uploads = Uploads(tmp_path, UploadLimits(total=100))
        with uploads.receive("one", 60), pytest.raises(RequestError, match="at once"), uploads.receive("one", 60):
            pass
        put(uploads, "one", 60)

    def test_old_ones_go(self, tmp_path: Path) -> None:
        uploads = Uploads(tmp_path, UploadLimits(seconds=0))
        first = put(uploads, "one", 1)
        put(uploads, "custom", 1)
        assert not first.exists()

    def test_one_that_fails_leaves_nothing(self, tmp_path: Path) -> None:
        uploads = Uploads(tmp_path)
        folders = []

        def fail(folder: Path) -> None:
            folders.append(folder)
            (folder / "x.png").write_bytes(b"half")
            raise LookupError

        with pytest.raises(LookupError), uploads.receive("one", 5) as folder:
            fail(folder)
        assert not folders[0].exists()

    def test_they_go_with_the_last_page(self, tmp_path: Path) -> None:
        uploads = Uploads(tmp_path)
        mine, others = put(uploads, "one", 1), put(uploads, "custom", 1)
        with uploads.open_page("one"):
            with uploads.open_page("one"):
                pass
            assert mine.exists()
        assert not mine.exists()
        assert others.exists()


class TestReading:
    def test_no_path_is_named(self, tmp_path: Path) -> None:
        uploads = Uploads(tmp_path)
        file = put(uploads, "one", 5)
        with pytest.raises(RequestError) as refused:
            uploads.read("one", str(file))
        assert str(refused.value) == "picture: x.png is not a PNG, JPEG or WebP picture"

    def test_a_picture(self, tmp_path: Path) -> None:
        uploads = Uploads(tmp_path)
        content = io.BytesIO()
        Image.new("RGB", (3, 2), "red").save(content, "PNG")
        with uploads.receive("one", 99) as folder:
            (folder / "x.png").write_bytes(content.getvalue())
        assert uploads.read("one", str(folder / "x.png")).size == (3, 2)
        with pytest.raises(RequestError, match=r"^no such file$"):
            uploads.read("custom", str(folder / "x.png"))

    @pytest.mark.parametrize(
        ("name", "kept"),
        [
            *(("house.png", "house.png"), ("../a/b.png", "b.png"), ("c:\\x\\b.png", "b.png"), ("", "picture")),
            *(("..", "picture"), (".png", "png"), ("a\0b\n.png", "a_b_.png"), ("ü.jpg", "ü.jpg")),
        ],
    )
    def test_names(self, name: str, kept: str) -> None:
        assert safe_name(name) == kept

    def test_a_long_name(self) -> None:
        assert len(safe_name("é" * 300 + ".png").encode()) <= 100
        assert safe_name("é" * 300 + ".png").endswith(".png")


class TestHosts:
    @pytest.mark.parametrize("host", ["localhost:80", "127.0.0.1", "[::1]:7", "LOCALHOST."])
    def test_this_machine(self, host: str) -> None:
        assert Hosts("127.0.0.1", ["127.0.0.1"]).allow(host)

    @pytest.mark.parametrize("host", ["evil.example", "10.0.0.1", "", "localhost.evil.example", "[", "@localhost"])
    def test_any_other(self, host: str) -> None:
        assert not Hosts("127.0.0.1", ["127.0.0.1"]).allow(host)

    def test_everywhere(self) -> None:
        hosts = Hosts("0.0.0.0", ["0.0.0.0"], ["pictures.example"])
        for host in ("10.0.0.1:7860", "[fe80::1]", "localhost", "pictures.example", "Pictures.Example:443"):
            assert hosts.allow(host)
        assert not hosts.allow("evil.example")

    def test_one_address(self) -> None:
        hosts = Hosts("box.lan", ["192.168.1.5"])
        assert hosts.allow("box.lan:7860")
        assert hosts.allow("192.168.1.5:7860")
        assert not hosts.allow("localhost")

    @pytest.mark.parametrize(
        ("origin", "host", "same"),
        [
            ("http://a:1", "a:1", True),
            ("https://a", "a:443", True),
            ("http://a", "a:8080", False),
            ("http://b:1", "a:1", False),
            ("https://proxy.example", "127.0.0.1:7860", True),
            *((origin, "a:1", False) for origin in ("null", "", "file://", "ftp://a:1", "http://a:x", "http://[")),
        ],
    )
    def test_origins(self, origin: str, host: str, same: bool) -> None:
        assert Hosts("a", ["127.0.0.1"], ["proxy.example"]).same(origin, host) is same
