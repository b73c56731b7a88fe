"""The cache's folder: its place, its limit, and all that can be wrong with it."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any

import pytest

from vinograph import RequestError
from vinograph.runtime.cache import Cache, Description, folder, parse_size

DESCRIPTION = Description("tiny", "prior", "x 1x4")
SOURCE = Path(__file__).parent.parent / "src"


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def blob(cache: Cache, key: str) -> Path:
    return cache.folder / "compiled" / f"{key}.blob"


def used(cache: Cache, key: str, seconds: float) -> None:
    """Set the time of an entry's last use."""
    os.utime(blob(cache, key), (seconds, seconds))


class TestPlace:
    def test_the_environment_names_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("VINOGRAPH_CACHE", "/somewhere")
        assert folder() == Path("/somewhere")

    def test_else_it_is_in_the_folder_of_caches(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("VINOGRAPH_CACHE")
        monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
        assert folder() == Path("/caches/vinograph")

    def test_else_it_is_in_the_home(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("VINOGRAPH_CACHE", "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(Path, "home", lambda: Path("/home/someone"))
        assert folder() == Path("/home/someone/.cache/vinograph")

    def test_without_a_home_nothing_fails(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def homeless() -> Path:
            raise RuntimeError("Could not determine home directory.")

        for name in ("VINOGRAPH_CACHE", "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(Path, "home", homeless)
        assert Cache().get("key") is None

    def test_tests_have_their_own(self) -> None:
        assert not folder().is_relative_to(Path.home())


class TestSizes:
    @pytest.mark.parametrize(
        ("text", "size"),
        [("0", 0), ("123", 123), ("5GB", 5 * 10**9), ("5 gb", 5 * 10**9), ("1.5M", 1_500_000), ("2GiB", 2 * 2**30)],
    )
    def test_sizes_are_parsed(self, text: str, size: int) -> None:
        assert parse_size(text) == size

    @pytest.mark.parametrize("text", ["", "much", "-1GB", "5 apples", "GB", "1e9"])
    def test_other_texts_are_refused(self, text: str) -> None:
        with pytest.raises(RequestError, match="give one such as 5GB, 500MB or 0"):
            parse_size(text)


class TestLimit:
    def test_by_default_it_follows_the_disk(self, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
        for free, expected in ((10**12, 10**9), (2 * 10**9, 10**8)):
            monkeypatch.setattr(
                "vinograph.runtime.cache.shutil.disk_usage", lambda _, free=free: type("Usage", (), {"free": free})
            )
            assert cache.limit == expected

    def test_a_limit_that_was_set_stays(self, cache: Cache) -> None:
        cache.set_limit(12_345)
        assert Cache(cache.folder).limit == 12_345

    def test_the_environments_limit_goes_first(self, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
        cache.set_limit(12_345)
        monkeypatch.setenv("VINOGRAPH_CACHE_LIMIT", "1MB")
        assert cache.limit == 10**6

    def test_a_garbled_limit_is_the_default(self, cache: Cache) -> None:
        cache.set_limit(12_345)
        (cache.folder / "limit").write_bytes(b"\xff\0much")
        assert cache.limit > 12_345

    @pytest.mark.parametrize("content", [b"9" * 400, b"1e400", b"[" * 5_000_000])
    def test_a_limit_that_no_disk_holds_is_the_default(self, cache: Cache, content: bytes) -> None:
        cache.set_limit(12_345)
        (cache.folder / "limit").write_bytes(content)
        assert cache.limit > 12_345

    def test_a_folder_that_no_disk_can_hold(self, tmp_path: Path) -> None:
        cache = Cache(tmp_path / ("long" * 100))
        assert cache.limit > 0
        assert (cache.entries(), cache.settings(), cache.get("a")) == ([], {}, None)
        cache.put("a", b"content", DESCRIPTION)
        assert "can't be written" in " ".join(cache.take_warnings())

    def test_a_limit_of_0_keeps_nothing(self, cache: Cache) -> None:
        cache.put("a", b"content", DESCRIPTION)
        cache.set_limit(0)
        assert not cache.is_enabled()
        assert cache.entries() == []


class TestKeeping:
    def test_an_entry_is_read_as_it_was_put(self, cache: Cache) -> None:
        content = bytes(range(256)) * 10 + b"\n\n"
        assert cache.get("key") is None
        cache.put("key", content, DESCRIPTION)
        assert Cache(cache.folder).get("key") == content
        assert cache.take_warnings() == []
        (entry,) = cache.entries()
        assert entry.description == DESCRIPTION
        assert entry.size == cache.size() > len(content)

    def test_the_entry_used_longest_ago_goes(self, cache: Cache) -> None:
        for index, key in enumerate("abc"):
            cache.put(key, bytes(1000), DESCRIPTION)
            used(cache, key, 1000 + index)
        assert cache.get("a") is not None  # and so it was used last
        cache.set_limit(3 * 1300)
        cache.put("d", bytes(1000), DESCRIPTION)
        assert {key for key in "abcd" if cache.get(key)} == {"a", "c", "d"}

    def test_the_total_stays_within_the_limit(self, cache: Cache) -> None:
        cache.set_limit(5000)
        for index in range(20):
            cache.put(str(index), bytes(1000), DESCRIPTION)
            assert cache.size() <= 5000
        assert cache.get("19") is not None

    def test_an_entry_larger_than_the_limit_evicts_nothing(self, cache: Cache) -> None:
        cache.set_limit(2000)
        cache.put("small", bytes(100), DESCRIPTION)
        cache.put("large", bytes(3000), DESCRIPTION)
        assert (cache.get("small"), cache.get("large")) == (bytes(100), None)

    def test_files_of_killed_processes_go(self, cache: Cache) -> None:
        cache.put("a", b"content", DESCRIPTION)
        old, new = (cache.folder / "compiled" / f".{name}.blob.1.2.tmp" for name in ("old", "new"))
        for each in (old, new):
            each.write_bytes(b"half of it")
        os.utime(old, (time.time() - 7200,) * 2)
        cache.put("b", b"content", DESCRIPTION)
        assert (old.exists(), new.exists()) == (False, True)

    def test_clearing(self, cache: Cache) -> None:
        cache.clear()  # where there is nothing yet
        cache.set_limit(5000)
        cache.put("a", b"content", DESCRIPTION)
        cache.remember("key", lambda _: {"spent": 1})
        cache.clear()
        assert (cache.entries(), cache.settings(), cache.limit) == ([], {}, 5000)


class TestDamage:
    @pytest.mark.parametrize("how", ["empty", "short", "one bit", "no head", "another head", "deep head"])
    def test_a_damaged_entry_is_deleted_with_a_warning(self, cache: Cache, how: str) -> None:
        cache.put("key", bytes(1000), DESCRIPTION)
        file = blob(cache, "key")
        content = file.read_bytes()
        damaged = {
            "empty": b"",
            "short": content[:-1],
            "one bit": content[:-1] + b"\1",
            "no head": content.partition(b"\n")[2],
            "another head": b"[]\n" + content,
            "deep head": b"[" * 50_000 + b"\n" + content,
        }
        file.write_bytes(damaged[how])
        assert cache.get("key") is None
        assert not file.exists()
        (warning,) = cache.take_warnings()
        assert warning.endswith("in the cache was of no use: it was damaged; compiled anew")
        cache.put("key", bytes(1000), DESCRIPTION)
        assert cache.get("key") == bytes(1000)

    def test_garbage_among_the_files_is_listed(self, cache: Cache) -> None:
        cache.put("a", b"content", DESCRIPTION)
        blob(cache, "b").write_bytes(b"\xff\0" * 1000)
        blob(cache, "c").write_bytes(b'{"a":' * 10_000)
        blob(cache, "d").write_bytes(
            json.dumps({"model": "\x1b[2J", "component": ["x"], "shapes": "x" * 5000}).encode()
        )
        assert {entry.description for entry in cache.entries()} == {DESCRIPTION, Description("", "", "")}

    def test_one_warning_about_a_folder_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("no folder")
        cache = Cache(tmp_path / "file" / "cache")
        for key in ("a", "b"):
            cache.put(key, b"content", DESCRIPTION)
            assert cache.get(key) is None
        (warning,) = [each for each in cache.take_warnings() if "can't be written" in each]
        assert "VINOGRAPH_CACHE names another folder, VINOGRAPH_CACHE_LIMIT=0 does without" in warning
        assert not cache.is_enabled()

    def test_a_full_disk(self, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
        opened = Path.open

        def full(self: Path, mode: str = "r", *more: Any, **named: Any) -> IO[Any]:
            if mode != "wb":
                return opened(self, mode, *more, **named)
            self.touch()
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(Path, "open", full)
            cache.put("a", b"content", DESCRIPTION)
        assert [each for each in cache.take_warnings() if "No space left on device" in each]
        assert list((cache.folder / "compiled").iterdir()) == []

    def test_a_blob_that_cannot_be_read(self, cache: Cache) -> None:
        blob(cache, "key").mkdir(parents=True)
        assert cache.get("key") is None
        assert "can't be read (Is a directory); compiled anew" in cache.take_warnings()[0]


class TestSettings:
    def test_settings_are_remembered(self, cache: Cache) -> None:
        assert cache.settings() == {}
        assert cache.remember("a", lambda known: {**known, "spent": 1}) == {"spent": 1}
        assert cache.remember("a", lambda known: {**known, "cost": 2}) == {"spent": 1, "cost": 2}
        cache.remember("b", lambda _: {"spent": 3})
        assert Cache(cache.folder).settings() == {"a": {"spent": 1, "cost": 2}, "b": {"spent": 3}}
        assert cache.take_warnings() == []

    def test_sections_are_apart(self, cache: Cache) -> None:
        cache.remember("a", lambda _: {"spent": 1})
        cache.remember("a", lambda known: {**known, "faster": 2}, "precisions")
        cache.remember("b", lambda _: {"spent": 3})
        again = Cache(cache.folder)
        assert again.settings() == {"a": {"spent": 1}, "b": {"spent": 3}}
        assert again.records("precisions") == {"a": {"faster": 2}}
        assert again.records("others") == {}

    @pytest.mark.parametrize(
        "content",
        [
            *(b"", b"{", b"\xff\xfe", b"[]", b'{"format": 99}', b'{"format": 1, "settings": []}'),
            *(b"[" * 100_000, b'{"format": 1, "settings": ' + b'{"a":' * 100_000, b'{"format": 1e999}'),
        ],
        ids=lambda content: content[:40].decode("latin-1"),
    )
    def test_a_garbled_file_is_replaced(self, cache: Cache, content: bytes) -> None:
        cache.remember("a", lambda _: {"spent": 1})
        (cache.folder / "settings.json").write_bytes(content)
        assert cache.settings() == {}
        assert "have to be measured again" in cache.take_warnings()[0]
        cache.remember("b", lambda _: {"spent": 2})
        assert Cache(cache.folder).settings() == {"b": {"spent": 2}}

    def test_garbled_records_are_left_out(self, cache: Cache) -> None:
        cache.folder.mkdir()
        content: dict[str, Any] = {"format": 1, "settings": {"a": 7, "b": {"spent": 2}}}
        (cache.folder / "settings.json").write_text(json.dumps(content))
        assert cache.settings() == {"b": {"spent": 2}}

    def test_in_a_folder_that_cannot_be_written_settings_last_as_long_as_the_process(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("no folder")
        cache = Cache(tmp_path / "file")
        cache.remember("a", lambda known: {"spent": known.get("spent", 0) + 1})
        cache.remember("a", lambda known: {"spent": known.get("spent", 0) + 1})
        assert cache.settings() == {"a": {"spent": 2}}
        assert any("can't be remembered" in each for each in cache.take_warnings())

    def test_concurrent_processes_lose_nothing(self, cache: Cache) -> None:
        code = (
            "import sys\nfrom pathlib import Path\nfrom vinograph.runtime.cache import Description, Cache\n"
            "cache = Cache(Path(sys.argv[1]))\n"
            "for index in range(20):\n"
            "    cache.remember('shared', lambda known: {'count': known.get('count', 0) + 1})\n"
            "    cache.put(f'blob-{index}', bytes(10_000), Description('tiny', sys.argv[2], ''))\n"
            "    assert cache.get(f'blob-{index}') in (bytes(10_000), None)\n"
            "sys.exit(len(cache.take_warnings()))\n"
        )
        cache.set_limit(100_000)
        environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
        running = [
            subprocess.Popen([sys.executable, "-c", code, str(cache.folder), name], env=environment) for name in "ab"
        ]
        assert [each.wait(60) for each in running] == [0, 0]
        assert cache.settings() == {"shared": {"count": 40}}
        assert cache.size() <= 100_000
