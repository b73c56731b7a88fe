"""The bundle: the directory that conversion writes and inference reads."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from filelock import Timeout

from tests.bundles import save_bundle
from tests.interruption import kill_everywhere
from vinograph import DamagedModelError, ModelError, RequestError
from vinograph.models.bundle import Bundle, sha256_of
from vinograph.models.bundle_writer import BundleWriter, check_target
from vinograph.models.manifest import Component, FileRecord, Manifest, Source, Tensor, TokenizerFile
from vinograph.models.manifest_schema import FORMAT_VERSION

MANIFEST = Manifest(
    family="wuerstchen",
    name="tiny",
    components={"prior": Component("prior.xml", {"x": Tensor(("b", 16), "f32")}, {}, "f16", f16_safe=False)},
    tokenizers={name: TokenizerFile("tokenizer.json", 77, 0) for name in ("prior_tokenizer", "tokenizer")},
    scheduler={"prior": {"scaler": 1.0}, "decoder": {}},
    config={
        **{"prior_channels": 16, "prior_text_width": 8, "latent_channels": 4, "decoder_patch_size": 2},
        **{"resolution_multiple": 42.67, "latent_dim_scale": 10.67, "latent_mean": 42.0, "latent_std": 1.0},
        **{"scale_factor": 0.3764, "decoder_level_count": 4, "effnet_levels": [1, 2, 3]},
    },
    defaults={"generate": {"height": 512}},
    limits={"size_multiple": 128, "minimum_size": 128, "maximum_size": 2048, "native_size": 1024},
    source=Source("warp-ai/wuerstchen", "abc", "MIT", {"prior": "warp-ai/wuerstchen-prior"}),
    tools={"vinograph": "0.1.0"},
    files={},
)
FILES = {"prior.xml": b"<net/>", "prior.bin": bytes(100), "tokenizer.json": b"{}"}

FILES_OF = {"components": "prior.xml", "tokenizers": "tokenizer.json"}

Edit = Callable[[dict[str, Any]], object]


def write_files(writer: BundleWriter) -> None:
    for name, content in FILES.items():
        (writer.partial / name).write_bytes(content)


def write_bundle(target: Path, **options: Any) -> Bundle:
    with BundleWriter(target, "one", **options) as writer:
        write_files(writer)
        return writer.finish(MANIFEST)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_bundle(tmp_path / "tiny")


def edit_manifest(bundle: Bundle, edit: Edit) -> None:
    file = bundle.path / "bundle.json"
    data = json.loads(file.read_text(encoding="utf-8"))
    edit(data)
    file.write_text(json.dumps(data), encoding="utf-8")


def contents(folder: Path) -> dict[str, bytes]:
    return {each.relative_to(folder).as_posix(): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


class TestManifest:
    def test_a_manifest_is_read_as_it_was_written(self, bundle: Bundle) -> None:
        files = {name: FileRecord(len(content), sha256_of(bundle.path / name)) for name, content in FILES.items()}
        assert bundle.manifest == dataclasses.replace(MANIFEST, files=files)

    def test_equal_manifests_give_equal_bytes(self, bundle: Bundle) -> None:
        """A manifest that was read can be written again, into another bundle."""
        text = (bundle.path / "bundle.json").read_text(encoding="utf-8")
        assert bundle.manifest.to_json() == text
        assert Manifest.from_json(text, "here").to_json() == text

    def test_a_manifest_can_not_be_changed(self, bundle: Bundle) -> None:
        with pytest.raises(TypeError):
            bundle.manifest.config["latent_mean"] = 1  # type: ignore[index]

    def test_a_bundles_size_is_that_of_its_files(self, bundle: Bundle) -> None:
        assert bundle.size == sum(len(content) for content in FILES.values())

    @pytest.mark.parametrize(
        "text", ["", "{", "[]", "null", '"text"', "{}", '{"format_version": 1}', '{"family": "wuerstchen"}']
    )
    def test_a_file_that_is_no_manifest_is_damage(self, bundle: Bundle, text: str) -> None:
        (bundle.path / "bundle.json").write_text(text, encoding="utf-8")
        with pytest.raises(
            DamagedModelError, match=r"bundle.json (is not a bundle's manifest|lacks or garbles a field)"
        ):
            Bundle.open(bundle.path)

    def test_a_manifest_that_is_no_text_is_damage(self, bundle: Bundle) -> None:
        (bundle.path / "bundle.json").write_bytes(b"\xff\xfe{}")
        with pytest.raises(DamagedModelError, match="is not a bundle's manifest"):
            Bundle.open(bundle.path)

    @pytest.mark.parametrize("tools", [{"vinograph": "3.1"}, {}, None, 7])
    def test_a_newer_format_names_the_version_that_reads_it(self, bundle: Bundle, tools: Any) -> None:
        """The rest of its layout may be anything."""
        edit_manifest(
            bundle, lambda data: (data.update(format_version=FORMAT_VERSION + 1, tools=tools), data.pop("files"))
        )
        wanted = "3.1" if tools == {"vinograph": "3.1"} else "a newer one"
        with pytest.raises(
            ModelError, match=rf"in bundle format 2; .* reads up to 1. It was written by Vinograph {wanted}"
        ):
            Bundle.open(bundle.path)

    @pytest.mark.parametrize("version", [0, -1, "1", 1.5, None])
    def test_an_unknown_format_is_refused(self, bundle: Bundle, version: Any) -> None:
        edit_manifest(bundle, lambda data: data.update(format_version=version))
        with pytest.raises(DamagedModelError, match=r"names format version .*, which never existed"):
            Bundle.open(bundle.path)

    def test_any_wrong_value_in_a_manifest_is_an_error_of_ours(self, bundle: Bundle) -> None:
        """Every value is removed, or replaced by one of another type."""
        original = json.loads((bundle.path / "bundle.json").read_text(encoding="utf-8"))
        for path in leaves(original):
            for value in (None, 7, -7, 1.5, "text", "../..", [], {}, [None], {"a": None}, "take away"):
                data = json.loads(json.dumps(original))
                put(data, path, value)
                (bundle.path / "bundle.json").write_text(json.dumps(data), encoding="utf-8")
                with suppress(DamagedModelError, ModelError):
                    Bundle.open(bundle.path)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values in a JSON value, containers included."""
    if path:
        yield path
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in below:
        yield from leaves(each, (*path, key))


def put(data: Any, path: tuple[Any, ...], value: Any) -> None:
    for key in path[:-1]:
        data = data[key]
    if value == "take away":
        del data[path[-1]]
    else:
        data[path[-1]] = value


class TestOpening:
    def test_a_directory_without_a_manifest_is_no_bundle(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"is not a bundle: it has no bundle.json"):
            Bundle.open(tmp_path)

    @pytest.mark.parametrize("name", FILES)
    def test_a_missing_file_is_named(self, bundle: Bundle, name: str) -> None:
        (bundle.path / name).unlink()
        with pytest.raises(DamagedModelError, match=rf"{name} is missing. Convert the model again"):
            Bundle.open(bundle.path)

    @pytest.mark.parametrize("change", [-1, 1])
    def test_a_file_of_another_size_is_named(self, bundle: Bundle, change: int) -> None:
        (bundle.path / "prior.bin").write_bytes(bytes(100 + change))
        with pytest.raises(DamagedModelError, match=rf"prior.bin has {100 + change} bytes and should have 100"):
            Bundle.open(bundle.path)

    @pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "a/../../outside"])
    def test_a_path_that_leads_outside_is_refused(self, bundle: Bundle, name: str) -> None:
        (bundle.path.parent / "outside").write_bytes(b"x")
        edit_manifest(bundle, lambda data: data["files"].update({name: {"size": 1, "sha256": "0"}}))
        with pytest.raises(DamagedModelError, match=f"names a file outside the bundle: {name}"):
            Bundle.open(bundle.path)

    @pytest.mark.parametrize(("section", "key"), [("components", "prior"), ("tokenizers", "tokenizer")])
    def test_a_component_whose_file_has_no_size_is_refused(self, bundle: Bundle, section: str, key: str) -> None:
        other = f"other{Path(FILES_OF[section]).suffix}"
        edit_manifest(bundle, lambda data: data[section][key].update(file=other))
        with pytest.raises(DamagedModelError, match=f"names no size for {other}, a file that the model needs"):
            Bundle.open(bundle.path)

    @pytest.mark.parametrize(("section", "key"), [("components", "prior"), ("tokenizers", "tokenizer")])
    def test_a_component_outside_the_bundle_is_refused(self, bundle: Bundle, section: str, key: str) -> None:
        edit_manifest(bundle, lambda data: data[section][key].update(file=f"../{FILES_OF[section]}"))
        with pytest.raises(DamagedModelError, match=rf"{section}.{key}.file names a file outside the bundle"):
            Bundle.open(bundle.path)

    def test_weights_without_a_size_are_refused(self, bundle: Bundle) -> None:
        edit_manifest(bundle, lambda data: data["files"].pop("prior.bin"))
        with pytest.raises(DamagedModelError, match=r"names no size for prior.bin"):
            Bundle.open(bundle.path)


class TestVerifying:
    def test_a_whole_bundle_verifies(self, bundle: Bundle) -> None:
        assert sorted(bundle.verify()) == sorted(FILES)

    @pytest.mark.parametrize("name", FILES)
    def test_a_flipped_bit_of_a_file_is_found(self, bundle: Bundle, name: str) -> None:
        content = bytearray((bundle.path / name).read_bytes())
        content[-1] ^= 1
        (bundle.path / name).write_bytes(content)
        with pytest.raises(DamagedModelError, match=rf"{name} was altered: its SHA-256 differs"):
            list(Bundle.open(bundle.path).verify())

    def test_a_flipped_bit_of_the_manifest_is_found(self, bundle: Bundle) -> None:
        """The bundle is damaged, has another format, or its checksum differs."""
        file = bundle.path / "bundle.json"
        original = file.read_bytes()
        for place in range(0, len(original), 3):
            altered = bytearray(original)
            altered[place] ^= 1 << place % 8
            file.write_bytes(altered)
            with pytest.raises((DamagedModelError, ModelError)):
                list(Bundle.open(bundle.path).verify())

    def test_a_manifest_changed_by_hand_opens_and_is_not_verified(self, bundle: Bundle) -> None:
        edit_manifest(bundle, lambda data: data["defaults"]["generate"].update(height=256))
        opened = Bundle.open(bundle.path)
        assert opened.manifest.defaults["generate"]["height"] == 256
        with pytest.raises(DamagedModelError, match=r"bundle.json was altered: it differs from its own checksum"):
            list(opened.verify())

    def test_a_file_that_has_gone_since_it_was_opened(self, bundle: Bundle) -> None:
        (bundle.path / "tokenizer.json").unlink()
        with pytest.raises(DamagedModelError, match=r"tokenizer.json is missing"):
            list(bundle.verify())


class TestWriting:
    def test_writing_leaves_only_the_bundle(self, bundle: Bundle) -> None:
        assert [each.name for each in bundle.path.parent.iterdir()] == ["tiny"]
        assert sorted(contents(bundle.path)) == sorted([*FILES, "bundle.json"])

    def test_missing_folders_are_made(self, tmp_path: Path) -> None:
        assert write_bundle(tmp_path / "a" / "b").path == tmp_path / "a" / "b"

    def test_files_in_folders_are_listed_by_their_path(self, tmp_path: Path) -> None:
        with BundleWriter(tmp_path / "tiny", "one") as writer:
            write_files(writer)
            (writer.partial / "notes").mkdir()
            (writer.partial / "notes" / "a.txt").write_text("a", encoding="utf-8")
            written = writer.finish(MANIFEST)
        assert "notes/a.txt" in written.manifest.files

    def test_a_file_that_changes_after_it_was_hashed_is_hashed_again(self, tmp_path: Path) -> None:
        with BundleWriter(tmp_path / "tiny", "one") as writer:
            write_files(writer)
            writer.mark_done("prior", {}, [writer.partial / "prior.bin"])
            (writer.partial / "prior.bin").write_bytes(b"rewritten")
            written = writer.finish(MANIFEST)
        assert "prior.bin" in list(written.verify())

    def test_an_interruption_does_not_wait_for_the_hash_of_gigabytes(self, tmp_path: Path) -> None:
        with pytest.raises(KeyboardInterrupt), BundleWriter(tmp_path / "tiny", "one") as writer:  # noqa: PT012
            write_files(writer)
            large = writer.partial / "prior.bin"
            with large.open("r+b") as file:
                file.truncate(1 << 42)  # no byte of it is on the disk, and hashing it takes half an hour
            writer.mark_done("prior", {}, [large])
            raise KeyboardInterrupt
        assert (tmp_path / ".tiny.partial" / "prior.bin").stat().st_size == 1 << 42

    def test_the_same_conversion_gives_the_same_bytes(self, tmp_path: Path) -> None:
        one, other = (write_bundle(tmp_path / name / "tiny") for name in ("one", "other"))
        assert contents(one.path) == contents(other.path)


class TestInterruptedConversion:
    def interrupted(self, target: Path, error: BaseException, fingerprint: str = "one") -> None:
        with pytest.raises(type(error)), BundleWriter(target, fingerprint) as writer:  # noqa: PT012
            (writer.partial / "prior.xml").write_bytes(FILES["prior.xml"])
            writer.mark_done("prior", {"weights": "f16"})
            (writer.partial / "tokenizer.json").write_bytes(b"half")
            raise error

    def test_nothing_that_loads_is_left(self, tmp_path: Path) -> None:
        self.interrupted(tmp_path / "tiny", KeyboardInterrupt())
        assert [each.name for each in tmp_path.iterdir()] == [".tiny.partial"]
        with pytest.raises(ModelError, match="is not a bundle"):
            Bundle.open(tmp_path / ".tiny.partial")

    def test_the_same_conversion_resumes(self, tmp_path: Path) -> None:
        undisturbed = contents(write_bundle(tmp_path / "other" / "tiny").path)
        self.interrupted(tmp_path / "tiny", KeyboardInterrupt())
        with BundleWriter(tmp_path / "tiny", "one") as writer:
            assert writer.done("prior") == {"weights": "f16"}
            assert writer.done("decoder") is None
            assert (writer.partial / "prior.xml").read_bytes() == FILES["prior.xml"]
            write_files(writer)
            writer.finish(MANIFEST)
        assert contents(tmp_path / "tiny") == undisturbed

    def test_another_conversion_starts_over(self, tmp_path: Path) -> None:
        self.interrupted(tmp_path / "tiny", KeyboardInterrupt())
        with BundleWriter(tmp_path / "tiny", "another") as writer:
            assert writer.done("prior") is None
            assert sorted(contents(writer.partial)) == ["progress.json"]

    @pytest.mark.parametrize("progress", ["", "{", "[]", '{"fingerprint": "one", "done": 7}'])
    def test_a_conversion_with_a_garbled_record_starts_over(self, tmp_path: Path, progress: str) -> None:
        self.interrupted(tmp_path / "tiny", KeyboardInterrupt())
        (tmp_path / ".tiny.partial" / "progress.json").write_text(progress, encoding="utf-8")
        with BundleWriter(tmp_path / "tiny", "one") as writer:
            assert writer.done("prior") is None

    def test_a_full_disk_is_freed_again(self, tmp_path: Path) -> None:
        self.interrupted(tmp_path / "tiny", OSError(28, "No space left on device"))
        assert list(tmp_path.iterdir()) == []

    def test_a_file_left_half_written_by_a_kill_is_written_again(self, tmp_path: Path) -> None:
        self.interrupted(tmp_path / "tiny", KeyboardInterrupt())
        (tmp_path / ".tiny.partial" / ".progress.json.99.tmp").write_bytes(b"half")
        with BundleWriter(tmp_path / "tiny", "one") as writer:
            write_files(writer)
            written = writer.finish(MANIFEST)
        assert sorted(written.manifest.files) == sorted(FILES)

    def test_a_killed_process_leaves_no_lock(self, tmp_path: Path) -> None:
        """After `kill -9` the same conversion makes the same bundle as an undisturbed one."""
        undisturbed = contents(write_bundle(tmp_path / "other" / "tiny").path)
        code = (
            "import sys, time; from pathlib import Path; from vinograph.models.bundle_writer import BundleWriter\n"
            "with BundleWriter(Path(sys.argv[1]), 'one') as writer:\n"
            "    (writer.partial / 'prior.xml').write_bytes(b'<net/>')\n"
            "    writer.mark_done('prior', {})\n"
            "    print('ready', flush=True); time.sleep(60)\n"
        )
        command = [sys.executable, "-c", code, str(tmp_path / "tiny")]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent / "src")}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            with pytest.raises(RequestError, match=r"another conversion is writing .*tiny now: wait for it"):
                write_bundle(tmp_path / "tiny")
            process.send_signal(signal.SIGKILL)
            process.wait()
        with pytest.raises(ModelError):
            Bundle.open(tmp_path / "tiny")
        with BundleWriter(tmp_path / "tiny", "one") as writer:
            assert writer.done("prior") == {}
            write_files(writer)
            writer.finish(MANIFEST)
        assert contents(tmp_path / "tiny") == undisturbed
        assert {each.name for each in tmp_path.iterdir()} == {"tiny", "other"}

    @pytest.mark.parametrize("overwrite", [False, True])
    def test_a_kill_at_any_moment_leaves_a_whole_bundle_or_none(
        self, tmp_path: Path, overwrite: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Afterwards the same conversion makes the same bundle as an undisturbed one."""
        write_bundle(tmp_path / "old")
        undisturbed = contents(write_bundle(tmp_path / "other" / "tiny").path)

        def folder(name: str) -> Path:
            (tmp_path / name).mkdir()
            if overwrite:
                shutil.copytree(tmp_path / "old", tmp_path / name / "tiny")
                (tmp_path / name / "tiny" / "README.md").write_text("the old one")
            return tmp_path / name

        def write(place: Path) -> None:
            with suppress(RequestError), BundleWriter(place / "tiny", "one", overwrite) as writer:
                for name, content in FILES.items():
                    if writer.done(name) is None:
                        (writer.partial / name).write_bytes(content)
                        writer.mark_done(name, True, [writer.partial / name])
                writer.finish(MANIFEST)

        def check(place: Path, how: str) -> None:
            assert contents(place / "tiny") == undisturbed, how
            assert {each.name for each in place.iterdir()} <= {"tiny", ".tiny.lock"}, how

        names = kill_everywhere(folder, write, check)
        assert len(names) > 15
        assert ("rename tiny" in names) == overwrite

    def test_a_step_counts_while_its_files_are_whole(self, tmp_path: Path) -> None:
        with pytest.raises(KeyboardInterrupt), BundleWriter(tmp_path / "tiny", "one") as writer:  # noqa: PT012
            for name in ("whole", "short", "gone"):
                (writer.partial / name).write_bytes(b"12345678")
                writer.mark_done(name, {"about": name}, [writer.partial / name])
            raise KeyboardInterrupt
        (tmp_path / ".tiny.partial" / "short").write_bytes(b"1234")
        (tmp_path / ".tiny.partial" / "gone").unlink()
        with BundleWriter(tmp_path / "tiny", "one") as writer:
            assert [writer.done(name) for name in ("whole", "short", "gone")] == [{"about": "whole"}, None, None]
            assert [writer.is_whole(writer.partial / name) for name in ("whole", "short", "gone", "none")] == [
                *(True, False, False, False)
            ]

    def test_half_of_an_old_bundle_is_never_brought_back(self, tmp_path: Path) -> None:
        """A process is killed while it deletes the old bundle, and the target is emptied."""
        old = write_bundle(tmp_path / "tiny").path.rename(tmp_path / ".tiny.replaced")
        (old / "bundle.json").unlink()
        assert sorted(contents(write_bundle(tmp_path / "tiny").path)) == sorted([*FILES, "bundle.json"])
        assert [each.name for each in tmp_path.iterdir()] == ["tiny"]

    def test_a_kill_between_the_renames_loses_no_bundle(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """For a moment neither bundle has its name; the next run restores the old one."""
        old = write_bundle(tmp_path / "tiny").manifest
        with BundleWriter(tmp_path / "tiny", "two", overwrite=True) as writer:
            write_files(writer)
            monkeypatch.setattr(Path, "rename", stop_at_the_second(Path.rename))
            with pytest.raises(KeyboardInterrupt):
                writer.finish(MANIFEST)
        monkeypatch.undo()
        assert not (tmp_path / "tiny").exists()
        with pytest.raises(RequestError, match="exists"):
            write_bundle(tmp_path / "tiny")
        assert Bundle.open(tmp_path / "tiny").manifest == old


def stop_at_the_second(rename: Callable[..., Any]) -> Callable[..., Any]:
    calls = []

    def renamed(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return rename(*args)

    return renamed


class TestLocking:
    def test_a_second_conversion_to_the_same_place_stops_at_once(self, tmp_path: Path) -> None:
        with BundleWriter(tmp_path / "tiny", "one"):
            started = time.monotonic()
            with pytest.raises(
                RequestError, match=r"another conversion is writing .*tiny now: wait for it, or name another"
            ):
                write_bundle(tmp_path / "tiny")
            assert time.monotonic() - started < 1

    def test_a_conversion_to_another_place_may_run(self, tmp_path: Path) -> None:
        with BundleWriter(tmp_path / "tiny", "one"):
            write_bundle(tmp_path / "other")

    def test_the_first_conversion_is_not_disturbed(self, tmp_path: Path) -> None:
        with BundleWriter(tmp_path / "tiny", "one") as writer:
            write_files(writer)
            with pytest.raises(RequestError):
                write_bundle(tmp_path / "tiny")
            assert sorted(writer.finish(MANIFEST).manifest.files) == sorted(FILES)

    def test_a_place_that_can_not_be_written_is_not_one_that_is_locked(self) -> None:
        with pytest.raises(RequestError, match=r"/proc/tiny can't be written: "):
            write_bundle(Path("/proc/tiny"))


class Flushes:
    """Paths in the order in which they were flushed and renamed, by their names at the time."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.order: list[tuple[str, Path]] = []
        fsync, rename = os.fsync, Path.rename

        def flushed(descriptor: int) -> None:
            self.order.append(("flush", Path(f"/proc/self/fd/{descriptor}").readlink()))
            fsync(descriptor)

        def renamed(path: Path, target: Path) -> Path:
            self.order.append(("rename", path))
            return rename(path, target)

        patch.setattr(os, "fsync", flushed)
        patch.setattr(Path, "rename", renamed)

    def before(self, path: Path) -> list[Path]:
        """Paths that were flushed before ``path`` was renamed."""
        return [each for kind, each in self.order[: self.order.index(("rename", path))] if kind == "flush"]

    def after(self, path: Path) -> list[Path]:
        """Paths that were flushed after ``path`` was renamed."""
        return [each for kind, each in self.order[self.order.index(("rename", path)) :] if kind == "flush"]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="it reads the names of open files from /proc")
class TestPowerCuts:
    """A power cut loses everything that wasn't flushed to the disk."""

    def test_a_bundle_is_on_the_disk_before_it_has_its_name(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        flushes = Flushes(monkeypatch)
        partial = tmp_path / ".tiny.partial"
        with BundleWriter(tmp_path / "tiny", "one") as writer:
            write_files(writer)
            (writer.partial / "folder").mkdir()
            (writer.partial / "folder" / "file").write_bytes(b"1")
            flushes.order.clear()
            bundle = writer.finish(MANIFEST)
        before = flushes.before(partial)
        assert {partial / name for name in bundle.manifest.files} <= set(before)
        assert len(bundle.manifest.files) == 4
        (manifest,) = [each for each in before if each.name.startswith(".bundle.json.")]  # under its temporary name
        assert partial / "folder" in before
        assert before.index(partial) > before.index(manifest), "the folder is flushed when all names are in it"
        assert flushes.after(partial)[-1] == tmp_path, "the folder around it is flushed when it has its name"

    def test_a_step_is_on_the_disk_before_its_record(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with BundleWriter(tmp_path / "tiny", "one") as writer:
            write_files(writer)
            flushes = Flushes(monkeypatch)
            writer.mark_done("prior", True, [writer.partial / name for name in FILES])
            names = [each.name for _, each in flushes.order]
        assert names[:-1] == list(FILES)
        assert names[-1].startswith(".progress.json.")


class TestOverwriting:
    def test_a_target_that_exists_is_refused(self, bundle: Bundle) -> None:
        before = contents(bundle.path)
        with pytest.raises(RequestError, match=r"tiny exists: name another place, or add --overwrite to replace it"):
            write_bundle(bundle.path)
        assert contents(bundle.path) == before

    def test_the_old_bundle_stays_until_the_new_one_is_whole(self, bundle: Bundle) -> None:
        with BundleWriter(bundle.path, "two", overwrite=True) as writer:
            write_files(writer)
            (writer.partial / "prior.bin").write_bytes(bytes(50))
            assert Bundle.open(bundle.path).manifest.files["prior.bin"].size == 100
            writer.finish(MANIFEST)
        assert Bundle.open(bundle.path).manifest.files["prior.bin"].size == 50
        assert [each.name for each in bundle.path.parent.iterdir()] == ["tiny"]

    def test_the_old_bundle_stays_if_the_conversion_fails(self, bundle: Bundle) -> None:
        with pytest.raises(ZeroDivisionError), BundleWriter(bundle.path, "two", overwrite=True):
            raise ZeroDivisionError
        assert sorted(Bundle.open(bundle.path).verify()) == sorted(FILES)

    def test_only_a_bundle_is_overwritten(self, tmp_path: Path) -> None:
        (tmp_path / "photos").mkdir()
        (tmp_path / "photos" / "one.jpg").touch()
        (tmp_path / "file").touch()
        for name in ("photos", "file"):
            with pytest.raises(RequestError, match=f"{name} is not a bundle, so --overwrite does not replace it"):
                check_target(tmp_path / name, overwrite=True)
        assert (tmp_path / "photos" / "one.jpg").exists()

    def test_an_empty_directory_is_overwritten(self, tmp_path: Path) -> None:
        (tmp_path / "tiny").mkdir()
        write_bundle(tmp_path / "tiny", overwrite=True)
        with pytest.raises(RequestError):
            check_target(tmp_path / "tiny", overwrite=False)


def test_a_bundle_can_be_moved(tmp_path: Path) -> None:
    shutil.move(save_bundle(tmp_path / "here").path, tmp_path / "there")
    assert len(list(Bundle.open(tmp_path / "there").verify())) == 18


class TestUnwritableTargets:
    @pytest.mark.parametrize("place", ["/proc/x", "/dev/null/x", "/dev/full/x"])
    def test_a_target_that_can_not_be_written_gives_the_systems_reason(self, place: str) -> None:
        """It is not that another conversion writes there."""
        with pytest.raises((RequestError, OSError)) as caught, BundleWriter(Path(place), "f"):
            pass
        assert "another conversion" not in str(caught.value)
        assert place.split("/")[1] in str(caught.value)

    def test_a_read_only_folder_is_not_reported_as_locked(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """FileLock itself takes a refusal for another process's lock."""

        def waits(*_: object, **__: object) -> None:
            raise Timeout("lock")

        def refused(self: Path, *_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied", str(self))

        monkeypatch.setattr("filelock.FileLock.acquire", waits)
        with pytest.raises(RequestError, match="another conversion"), BundleWriter(tmp_path / "bundle", "f"):
            pass
        monkeypatch.setattr(Path, "touch", refused)
        with pytest.raises(RequestError, match="can't be written: Permission denied"):
            BundleWriter(tmp_path / "bundle", "f").__enter__()

    @pytest.mark.parametrize("length", [240, 248, 255])
    def test_a_name_of_the_longest_length_works(self, tmp_path: Path, length: int) -> None:
        with BundleWriter(tmp_path / ("x" * length), "f") as writer:
            writer.mark_done("step", 1)
        assert all(len(each.name) <= 255 for each in tmp_path.iterdir())
