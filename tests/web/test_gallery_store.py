"""The gallery's folder: what is listed, what is never served, and what is written and deleted."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vinograph.errors import RequestError
from vinograph.images import open_header, save
from vinograph.web import gallery_index, gallery_store
from vinograph.web.gallery_store import GalleryStore


def draw(file: Path, prompt: str = "", seed: int = 7, model: str = "storybook-sdxl", age: float = 0) -> Path:
    """A picture as ``vinograph generate`` writes it, ``age`` seconds old."""
    file.parent.mkdir(parents=True, exist_ok=True)
    request = {"prompt": prompt, "seed": seed, "width": 32, "height": 24}
    save(
        Image.new("RGB", (32, 24), (seed % 256, 40, 90)), file, {"model": model, "request": request} if prompt else None
    )
    moment = time.time() - age
    os.utime(file, (moment, moment))
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path.resolve() / "gallery"


@pytest.fixture
def store(folder: Path, monkeypatch: pytest.MonkeyPatch) -> GalleryStore:
    monkeypatch.setattr(gallery_index, "_SECONDS_BETWEEN_SCANS", 0)
    return GalleryStore(folder)


def names(store: GalleryStore, search: str = "", *, favourites: bool = False) -> list[str]:
    return [each.place for each in store.list(search, favourites=favourites).entries]


class TestList:
    def test_the_newest_comes_first_whoever_wrote_it(self, store: GalleryStore, folder: Path) -> None:
        """Also in folders, as A1111 and batches have them, but not in hidden ones."""
        draw(folder / "picture.png", "a red house", age=30)
        draw(folder / "txt2img" / "2026-01-01" / "00001.webp", "a boat", age=10)
        draw(folder / "plain.jpg", age=20)
        draw(folder / ".hidden" / "no.png", "a cat")
        (folder / "notes.txt").write_text("no picture")
        assert names(store) == ["txt2img/2026-01-01/00001.webp", "plain.jpg", "picture.png"]
        assert store.list().notes == []

    def test_added_and_removed_files_are_noticed(self, store: GalleryStore, folder: Path) -> None:
        first = draw(folder / "a.png", "a", age=10)
        assert names(store) == ["a.png"]
        draw(folder / "b.png", "b")
        assert names(store) == ["b.png", "a.png"]
        first.unlink()
        assert names(store) == ["b.png"]

    @pytest.mark.parametrize(
        ("search", "found"),
        [
            ("house", ["b.png", "a.png"]),
            ("RED house", ["a.png"]),
            ("house red", ["a.png"]),
            ("4711", ["b.png"]),
            ("wuerstchen", ["c.png"]),
            ("elephant", []),
            ("", ["c.png", "b.png", "a.png"]),
        ],
    )
    def test_a_search(self, store: GalleryStore, folder: Path, search: str, found: list[str]) -> None:
        draw(folder / "a.png", "a red house", age=30)
        draw(folder / "b.png", "a blue house", seed=4711, age=20)
        draw(folder / "c.png", "a boat", model="storybook-wuerstchen", age=10)
        assert names(store, search) == found

    def test_parts_follow_each_other(self, store: GalleryStore, folder: Path) -> None:
        """Also where pictures are added in between, and where two have the same time."""
        for index in range(7):
            draw(folder / f"{index}.png", f"number {index}", age=100 - index // 2)
        first = store.list(count=3)
        draw(folder / "new.png", "new")
        last = first.entries[-1]
        second = store.list(after=f"{last.modified}-{last.identifier}", count=10)
        assert len({each.place for each in (*first.entries, *second.entries)}) == 7
        assert (second.found, second.total) == (8, 8)

    def test_texts_of_a1111(self, store: GalleryStore, folder: Path) -> None:
        parameters = "a castle\nNegative prompt: fog\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 99, Size: 32x24, Model: dream"
        folder.mkdir(exist_ok=True)
        save(Image.new("RGB", (32, 24)), folder / "a.png", None, parameters)
        (entry,) = store.list("castle dream").entries
        assert (entry.prompt, entry.model, entry.seed) == ("a castle", "dream", "99")


class TestWhatIsNeverServed:
    def test_links_are_not_followed(self, store: GalleryStore, folder: Path, tmp_path: Path) -> None:
        draw(tmp_path / "outside" / "secret.png", "secret")
        (folder / "link.png").symlink_to(tmp_path / "outside" / "secret.png")
        (folder / "folder").symlink_to(tmp_path / "outside")
        assert names(store) == []
        assert store.list().notes == ["Not shown: link.png is a link"]

    def test_a_file_that_becomes_a_link(self, store: GalleryStore, folder: Path, tmp_path: Path) -> None:
        secret = draw(tmp_path / "secret.png", "secret")
        file = draw(folder / "in" / "a.png", "a")
        (entry,) = store.list().entries
        store.thumbnail(entry)
        file.unlink()
        file.symlink_to(secret)
        for what in (store.file, store.open):
            with pytest.raises(RequestError, match="no such picture"):
                what(entry)
        assert store.delete([entry.identifier]) == ([], ["the gallery has no such picture"])
        assert secret.exists()

    def test_a_folder_that_becomes_a_link(self, store: GalleryStore, folder: Path, tmp_path: Path) -> None:
        file = draw(folder / "in" / "a.png", "a")
        (entry,) = store.list().entries
        file.parent.rename(tmp_path / "moved")
        (folder / "in").symlink_to(tmp_path / "moved")
        with pytest.raises(RequestError, match="no such picture"):
            store.file(entry)

    def test_other_contents(self, store: GalleryStore, folder: Path) -> None:
        (folder / "page.png").write_text("<script>alert(1)</script>")
        (folder / "animation.png").write_bytes(b"GIF89a" + bytes(40))
        (folder / "empty.webp").write_bytes(b"")
        os.mkfifo(folder / "pipe.png")
        assert names(store) == []
        assert store.list().notes == ["Not shown: animation.png is damaged; empty.webp is damaged; page.png is damaged"]

    def test_a_picture_that_is_cut_short(self, store: GalleryStore, folder: Path) -> None:
        """Its header is whole, so only a look at its pixels finds it."""
        folder.mkdir(exist_ok=True)
        Image.effect_noise((200, 200), 90).save(folder / "a.png")
        content = (folder / "a.png").read_bytes()
        (folder / "a.png").write_bytes(content[: len(content) // 2])
        (entry,) = store.list().entries
        with pytest.raises(RequestError, match="no such picture"):
            store.open(entry)
        assert names(store) == []
        assert store.list().notes == ["Not shown: a.png is damaged"]

    def test_many_are_named_in_one_note(self, store: GalleryStore, folder: Path) -> None:
        for index in range(5):
            (folder / f"{index}.png").write_bytes(b"x")
        assert store.list().notes == ["Not shown: 0.png is damaged; 1.png is damaged; 2.png is damaged and 2 more"]

    def test_too_many_files(self, store: GalleryStore, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gallery_index, "_MOST_FILES", 2)
        for index in range(3):
            draw(folder / f"{index}.png")
        assert len(names(store)) == 2
        assert store.list().notes == ["the folder has more than 2 pictures; the others are not shown"]


class TestThumbnails:
    def test_one_is_made_once(self, store: GalleryStore, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        Image.new("RGB", (800, 400), "red").save(folder / "a.png")
        (entry,) = store.list().entries
        content = store.thumbnail(entry)
        (kept,) = (folder / ".thumbnails").iterdir()
        with Image.open(kept) as picture:
            assert (picture.format, picture.size) == ("WEBP", (320, 160))
        monkeypatch.setattr(gallery_store, "_shrunk", lambda _: pytest.fail("it is made again"))
        assert store.thumbnail(entry) == content

    def test_those_of_pictures_that_are_gone_go(self, store: GalleryStore, folder: Path) -> None:
        file = draw(folder / "a.png")
        draw(folder / "b.png")
        for entry in store.list().entries:
            store.thumbnail(entry)
        file.unlink()
        for thread in [each for each in threading.enumerate() if each.name == "gallery"]:
            thread.join()
        GalleryStore(folder)
        for thread in [each for each in threading.enumerate() if each.name == "gallery"]:
            thread.join()
        assert len(list((folder / ".thumbnails").iterdir())) == 1

    def test_where_they_can_not_be_kept(self, store: GalleryStore, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").mkdir()
        (folder / ".thumbnails").symlink_to(tmp_path / "elsewhere")
        draw(folder / "a.png")
        (entry,) = store.list().entries
        assert store.thumbnail(entry)[:4] == b"RIFF"
        assert not list((tmp_path / "elsewhere").iterdir())


class TestWriting:
    def test_names_have_the_day_and_go_on(self, store: GalleryStore, folder: Path, tmp_path: Path) -> None:
        picture = draw(tmp_path / "p.png", "a red house")
        first = store.add(picture)
        day = first.place[:10]
        assert first.place == f"{day}-0001.png"
        (folder / first.place).unlink()
        draw(folder / f"{day}-0041.webp", "another program's")
        assert store.add(picture).place == f"{day}-0042.png"
        assert (folder / f"{day}-0042.png").read_bytes() == picture.read_bytes()
        assert first.prompt == "a red house"

    def test_nothing_is_replaced(
        self, store: GalleryStore, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where another process takes the name after it was looked for."""
        picture = draw(tmp_path / "p.png", "a red house")
        day = store.add(picture).place[:10]
        (folder / f"{day}-0002.png").write_text("another's")
        monkeypatch.setattr(GalleryStore, "_highest", lambda *_: 1)
        assert store.add(picture).place == f"{day}-0003.png"
        assert (folder / f"{day}-0002.png").read_text() == "another's"

    def test_a_copy_that_fails_leaves_nothing(
        self, store: GalleryStore, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        picture = draw(tmp_path / "p.png", "a red house")

        def full(_: Path, target: Path) -> None:
            target.write_bytes(b"half")
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(shutil, "copyfile", full)
        with pytest.raises(Exception, match="No space left on device"):
            store.add(picture)
        assert list(folder.iterdir()) == []

    def test_a_folder_that_can_not_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        with pytest.raises(RequestError, match=r"file.* can't be written"):
            GalleryStore(tmp_path / "file")

    def test_several_at_once(self, store: GalleryStore, folder: Path, tmp_path: Path) -> None:
        picture = draw(tmp_path / "p.png", "a red house")
        threads = [threading.Thread(target=store.add, args=(picture,)) for _ in range(8)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert sorted(name[-8:] for name in names(store)) == [f"{number:04}.png" for number in range(1, 9)]


class TestDeleting:
    def test_into_the_trash(self, store: GalleryStore, folder: Path) -> None:
        draw(folder / "a.png", "a", age=10)
        draw(folder / "in" / "a.png", "other")
        entries = store.list().entries
        contents = {(folder / each.place).read_bytes() for each in entries}
        for each in entries:
            store.thumbnail(each)
        done, problems = store.delete([each.identifier for each in entries])
        assert (len(done), problems) == (2, [])
        assert names(store) == []
        assert {each.read_bytes() for each in (folder / ".trash").iterdir()} == contents
        assert not list((folder / ".thumbnails").iterdir())

    def test_what_is_gone_already(self, store: GalleryStore, folder: Path) -> None:
        draw(folder / "a.png", "a")
        (entry,) = store.list().entries
        done, problems = store.delete(["0" * 32, entry.identifier])
        assert (done, problems) == ([entry.identifier], ["the gallery has no such picture"])

    def test_a_trash_that_leads_elsewhere(self, store: GalleryStore, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").mkdir()
        (folder / ".trash").symlink_to(tmp_path / "elsewhere")
        draw(folder / "a.png", "a")
        (entry,) = store.list().entries
        assert store.delete([entry.identifier])[1] == [
            ".trash is a link; remove it, so that the gallery makes a folder"
        ]
        assert (folder / "a.png").exists()


class TestFavourites:
    def test_they_are_kept(self, store: GalleryStore, folder: Path) -> None:
        draw(folder / "a.png", "a", age=10)
        draw(folder / "b.png", "b")
        later, earlier = store.list().entries
        store.set_favourite(earlier.identifier, True)
        assert names(GalleryStore(folder), favourites=True) == ["a.png"]
        store.set_favourite(later.identifier, True)
        store.set_favourite(earlier.identifier, False)
        assert names(store, favourites=True) == ["b.png"]
        assert json.loads((folder / ".favourites.json").read_text()) == {"favourites": ["b.png"]}

    @pytest.mark.parametrize("content", ["{", "[]", '{"favourites": "a.png"}', '{"favourites": [1]}', "\xff"])
    def test_a_damaged_list_is_put_aside(self, store: GalleryStore, folder: Path, content: str) -> None:
        draw(folder / "a.png", "a")
        (folder / ".favourites.json").write_bytes(content.encode("latin-1"))
        listing = store.list()
        assert listing.notes[0].startswith(".favourites.json can't be read")
        store.set_favourite(listing.entries[0].identifier, True)
        assert names(store, favourites=True) == ["a.png"]
        (aside,) = folder.glob(".favourites.json.damaged-*")
        assert aside.read_bytes() == content.encode("latin-1")


def test_thousands_of_pictures(folder: Path, store: GalleryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each header is read once, so the second look at the folder is quick."""
    first = draw(folder / "0.png", "number 0", age=5000)
    content = first.read_bytes()
    for index in range(1, 3000):
        (folder / f"{index}.png").write_bytes(content)
    assert store.list().total == 3000
    (folder / "new.png").write_bytes(content)
    read: list[str] = []

    def recorded(file: Path, *more: Any, **options: Any) -> Any:
        read.append(str(file))
        return open_header(file, *more, **options)

    monkeypatch.setattr(gallery_index, "open_header", recorded)
    assert store.list("number").found == 3001
    assert read == [str(folder / "new.png")]
