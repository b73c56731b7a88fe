"""Exports with weights: of components with low-bit weights, and of checkpoints."""

import contextlib
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest

from tests.bundles import save_sdxl_bundle
from tests.checkpoints import SDXL_TINY, save_sdxl
from tests.runtime.test_compile_cache import SIDE, Counting, Open, done, save_layers, values
from vinograph import Pipeline
from vinograph.models import checkpoint_model as opened_models
from vinograph.runtime import exports, mapped_blob
from vinograph.runtime.cache import Cache, Description, Entry
from vinograph.runtime.sessions import Session
from vinograph.runtime.sources import IrFile
from vinograph.runtime.tuning import CacheKey, Setting

DESCRIPTION = Description("tiny", "unet", "x 1x4")
PROMPT = "a red house"
SOURCE = Path(__file__).parent.parent.parent / "src"


@pytest.fixture(autouse=True)
def _small_is_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache for which every component is large and compiling slow."""
    monkeypatch.setenv("VINOGRAPH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(exports, "_ALWAYS_KEPT", 0)
    monkeypatch.setattr(exports, "_WORTHWHILE_SECONDS", 0.0)


@pytest.fixture
def cache() -> Cache:
    return Cache()


@pytest.fixture
def xml(tmp_path: Path) -> Path:
    return save_layers(tmp_path)


@pytest.fixture
def opened(xml: Path, cache: Cache) -> Open:
    """A session as a new process would have it."""

    def make(precision: str = "f32", *, contents: str = "its hash") -> Session:
        session = Session(IrFile("layers", xml), "CPU", precision, CacheKey("tiny", "layers", contents, True, cache))
        session._core = Counting()
        return session

    return make


@pytest.fixture
def kept(opened: Open, cache: Cache) -> Entry:
    """The export that a session has left in the cache."""
    session = opened()
    session(values())
    session.save_pending()
    (entry,) = cache.entries()
    return entry


def drawn(model: Path, **more: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    """A new pipeline's picture and warnings, after all of its exports are written."""
    result = Pipeline.from_pretrained(model, precision="f32")(PROMPT, seed=1, **more)
    written()
    return np.asarray(result.images[0]), result.warnings


def written() -> None:
    """Wait until the exports of a drawing are written."""
    for thread in threading.enumerate():
        if thread.name.startswith("write compiled"):
            thread.join(30)


class TestExports:
    @pytest.mark.parametrize("precision", ["f32", "auto"])
    def test_the_next_process_reads_the_export_and_computes_the_same(
        self, opened: Open, cache: Cache, precision: str
    ) -> None:
        first, second = opened(precision), opened(precision)
        expected = first(values())["y"]
        assert (done(first), cache.entries()) == ((1, 0), [])
        assert first.unsaved_compile_seconds > 0
        first.save_pending()
        assert first.unsaved_compile_seconds == 0
        (entry,) = cache.entries()
        assert entry.with_weights
        assert entry.size > 4 * SIDE * SIDE
        assert (entry.description.model, entry.description.component, entry.description.shapes) == (
            "tiny",
            "layers",
            "x 3x64",
        )
        assert np.array_equal(second(values())["y"], expected)
        assert done(second) == (0, 1)
        assert second.unsaved_compile_seconds == 0

    def test_an_export_does_not_change_the_result(self, opened: Open, xml: Path) -> None:
        alone = Session(IrFile("layers", xml), "CPU", "f32")(values())["y"]
        for _ in range(2):
            session = opened()
            assert np.array_equal(session(values())["y"], alone)
            session.save_pending()
        assert done(session) == (0, 1)

    def test_the_weights_are_not_read_again(self, kept: Entry, opened: Open, xml: Path) -> None:
        expected = opened()(values())["y"]
        stat = xml.with_suffix(".bin").stat()
        xml.with_suffix(".bin").write_bytes(bytes(stat.st_size))
        os.utime(xml.with_suffix(".bin"), ns=(stat.st_atime_ns, stat.st_mtime_ns))
        session = opened()
        assert np.array_equal(session(values())["y"], expected)
        assert done(session) == (0, 1)

    def test_the_group_size_is_set_again(
        self, opened: Open, xml: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for group in (0, 32):
            alone, session = Session(IrFile("layers", xml), "CPU", "f32"), opened()
            for each in (alone, session):
                monkeypatch.setattr(each, "_setting_for", lambda _, group=group: Setting(group))
            assert np.array_equal(session(values())["y"], alone(values())["y"])
            session.save_pending()
        assert len(cache.entries()) == 1

    def test_a_session_outlives_its_file(self, kept: Entry, opened: Open) -> None:
        """The file is mapped, so it may be deleted."""
        session = opened()
        expected = session(values())["y"]
        kept.file.unlink()
        assert np.array_equal(session(values())["y"], expected)

    def test_each_model_has_its_export(self, kept: Entry, opened: Open) -> None:
        other = opened(contents="another hash")
        other(values())
        assert done(other) == (1, 0)

    def test_a_model_that_compiles_quickly_is_not_exported(
        self, opened: Open, cache: Cache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(exports, "_WORTHWHILE_SECONDS", 100.0)
        session = opened()
        session(values())
        session.save_pending()
        assert (session.unsaved_compile_seconds, cache.entries()) == (0, [])

    @pytest.mark.parametrize(("room", "keeps"), [(1.1, False), (3.0, True)])
    def test_a_model_that_would_not_fit_is_not_exported(
        self, opened: Open, cache: Cache, xml: Path, room: float, *, keeps: bool
    ) -> None:
        """Otherwise each process would write it in vain."""
        cache.set_limit(round(room * xml.with_suffix(".bin").stat().st_size))
        session = opened()
        session(values())
        assert (session.unsaved_compile_seconds > 0) is keeps

    def test_a_released_model_is_not_exported(self, opened: Open, cache: Cache) -> None:
        session = opened()
        session(values())
        session.release()
        session.save_pending()
        assert cache.entries() == []

    def test_without_a_limit_nothing_is_written(
        self, opened: Open, cache: Cache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("VINOGRAPH_CACHE_LIMIT", "0")
        session = opened()
        session(values())
        session.save_pending()
        assert not cache.folder.exists()


class TestTrouble:
    def check(self, opened: Open, cache: Cache, expected: np.ndarray, why: str) -> None:
        """The component is compiled anew, with a warning, and then kept again."""
        session = opened()
        assert np.array_equal(session(values())["y"], expected)
        assert done(session) == (1, 0)
        (warning,) = cache.take_warnings()
        assert f" in the cache was of no use: {why}" in warning
        assert warning.endswith("compiled anew")
        session.save_pending()
        again = opened()
        assert np.array_equal(again(values())["y"], expected)
        assert done(again) == (0, 1)

    @pytest.mark.parametrize("place", [0, 5000, -5])
    def test_a_flipped_byte(self, kept: Entry, opened: Open, cache: Cache, place: int) -> None:
        expected = opened()(values())["y"]
        content = bytearray(kept.file.read_bytes())
        content[place] ^= 1
        kept.file.write_bytes(content)
        self.check(opened, cache, expected, "it was damaged")

    def test_a_truncated_file(self, kept: Entry, opened: Open, cache: Cache) -> None:
        expected = opened()(values())["y"]
        kept.file.write_bytes(kept.file.read_bytes()[:-100])
        self.check(opened, cache, expected, "it was damaged")

    def test_an_export_that_openvino_cannot_read(self, kept: Entry, opened: Open, cache: Cache) -> None:
        expected = opened()(values())["y"]
        key = kept.file.name.partition(".")[0]
        kept.file.unlink()
        cache.put_with_weights(key, lambda stream: stream.write(b"another version's"), DESCRIPTION)
        self.check(opened, cache, expected, "")

    def test_a_file_that_is_a_folder(self, kept: Entry, opened: Open, cache: Cache) -> None:
        expected = opened()(values())["y"]
        kept.file.unlink()
        kept.file.mkdir()
        session = opened()
        assert np.array_equal(session(values())["y"], expected)
        assert "can't be read" in " ".join(cache.take_warnings())

    def test_a_warning_if_a_model_cannot_be_exported(
        self, opened: Open, cache: Cache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: Any) -> Any:
            raise RuntimeError("line 1\nno such layer")

        monkeypatch.setattr(ov.CompiledModel, "export_model", fail)
        session = opened()
        session(values())
        session.save_pending()
        assert cache.take_warnings() == ["layers can't be kept compiled: no such layer"]
        assert cache.entries() == []

    def test_a_full_disk_is_logged(
        self, opened: Open, cache: Cache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(mapped_blob, "write", full)
        session = opened()
        session(values())
        with caplog.at_level(logging.WARNING):
            session.save_pending()
        assert "can't be written (No space left on device)" in caplog.text
        assert [each.name for each in (cache.folder / "compiled").iterdir()] == ["writing.lock"]


def put(cache: Cache, key: str, size: int, used: float | None = None) -> None:
    """Put an export of ``size`` bytes that was last used so many seconds ago."""
    cache.put_with_weights(key, lambda stream: stream.write(bytes(size)), DESCRIPTION)
    if used is not None:
        then = time.time() - used
        os.utime(cache.file_with_weights(key), (then, then))


def names(cache: Cache) -> set[str]:
    return {entry.file.name.partition(".")[0] for entry in cache.entries()}


DAY = 86_400


class TestLimit:
    @pytest.mark.parametrize(("free", "expected"), [(10**13, 10**10), (50 * 10**9, 5 * 10**9), (0, 0)])
    def test_by_default_it_follows_the_disk(
        self, cache: Cache, monkeypatch: pytest.MonkeyPatch, free: int, expected: int
    ) -> None:
        monkeypatch.setattr("vinograph.runtime.cache.shutil.disk_usage", lambda _: type("Usage", (), {"free": free}))
        assert cache.limit_with_weights == expected
        assert cache.has_room_with_weights(expected)
        assert not cache.has_room_with_weights(expected + 1)

    def test_a_limit_that_was_set_is_for_all_exports(self, cache: Cache) -> None:
        cache.set_limit(100_000)
        cache.put("small", bytes(20_000), DESCRIPTION)
        assert 79_000 < cache.limit_with_weights < 80_000
        put(cache, "large", 50_000, DAY)
        put(cache, "larger", 70_000)
        assert names(cache) == {"small", "larger"}
        assert cache.size() <= 100_000

    def test_exports_without_weights_go_last(self, cache: Cache) -> None:
        cache.set_limit(100_000)
        cache.put("small", bytes(20_000), DESCRIPTION)
        os.utime(cache.folder / "compiled" / "small.blob", (1, 1))
        put(cache, "large", 50_000)
        cache.put("other", bytes(50_000), DESCRIPTION)
        assert names(cache) == {"small", "other"}
        cache.set_limit(60_000)
        assert names(cache) == {"other"}

    def test_the_exports_unused_for_longest_go(self, cache: Cache) -> None:
        cache.set_limit(100_000)
        for key, used in (("a", 3 * DAY), ("b", 5 * DAY), ("c", DAY)):
            put(cache, key, 20_000, used)
        put(cache, "d", 40_000)
        assert names(cache) == {"a", "c", "d"}

    def test_an_export_in_use_is_not_evicted(self, cache: Cache) -> None:
        """Otherwise two that don't fit together would be written again and again."""
        cache.set_limit(100_000)
        put(cache, "a", 60_000)
        assert not cache.has_room_with_weights(60_000)
        put(cache, "b", 60_000)
        assert names(cache) == {"a"}

    def test_an_export_larger_than_the_limit_leaves_nothing(self, cache: Cache) -> None:
        cache.set_limit(100_000)
        put(cache, "small", 1000, DAY)
        put(cache, "large", 200_000)
        assert names(cache) == {"small"}
        assert {each.name for each in (cache.folder / "compiled").iterdir()} == {"small.weights.blob", "writing.lock"}

    def test_reading_counts_as_use(self, cache: Cache) -> None:
        put(cache, "a", 1000, DAY)
        assert cache.map_with_weights("a") is not None
        (entry,) = cache.entries()
        assert entry.used > time.time() - 100


class TestConcurrentProcesses:
    def test_one_process_writes_and_the_others_do_not_wait(self, cache: Cache) -> None:
        begun, go_on = threading.Event(), threading.Event()

        def slowly(stream: Any) -> None:
            begun.set()
            assert go_on.wait(30)
            stream.write(bytes(1000))

        writing = threading.Thread(target=cache.put_with_weights, args=("a", slowly, DESCRIPTION))
        writing.start()
        assert begun.wait(30)
        for key in "ab":
            Cache(cache.folder).put_with_weights(key, lambda _: pytest.fail("it was written"), DESCRIPTION)
        go_on.set()
        writing.join(30)
        assert names(cache) == {"a"}

    def test_a_cache_that_is_cleared_while_it_is_written(self, cache: Cache, caplog: pytest.LogCaptureFixture) -> None:
        def cleared(stream: Any) -> None:
            stream.write(bytes(1000))
            Cache(cache.folder).clear()

        with caplog.at_level(logging.WARNING):
            cache.put_with_weights("a", cleared, DESCRIPTION)
        assert (caplog.text, cache.entries()) == ("", [])
        put(cache, "b", 1000)
        assert names(cache) == {"b"}

    def test_an_export_that_is_there_is_not_written_again(self, cache: Cache) -> None:
        put(cache, "a", 1000)
        cache.put_with_weights("a", lambda _: pytest.fail("it was written"), DESCRIPTION)

    def test_files_of_killed_processes_go(self, cache: Cache) -> None:
        put(cache, "a", 1000)
        left = cache.folder / "compiled" / ".b.weights.blob.123.456.tmp"
        left.write_bytes(bytes(1000))
        put(cache, "c", 1000)
        assert not left.exists()
        assert names(cache) == {"a", "c"}


def low_bit_bundle(tmp_path: Path) -> Path:
    """A bundle whose manifest says that its UNet has weights in int8."""
    bundle = save_sdxl_bundle(tmp_path / "few")
    manifest = bundle.path / "bundle.json"
    before = manifest.read_text()
    manifest.write_text(before.replace('"weights": "f32"', '"weights": "int8"'))
    assert manifest.read_text() != before
    return bundle.path


class TestDrawing:
    def test_a_bundle_with_low_bit_weights(self, tmp_path: Path, cache: Cache, compiled: Callable[[], int]) -> None:
        model = low_bit_bundle(tmp_path)
        expected, warnings = drawn(model)
        assert warnings == ()
        assert compiled() > 0
        assert all(entry.with_weights for entry in cache.entries())
        picture, warnings = drawn(model)
        assert (compiled(), warnings) == (0, ())
        assert np.array_equal(picture, expected)

    def test_a_checkpoint_as_it_was_published(
        self, tmp_path: Path, cache: Cache, compiled: Callable[[], int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model = save_sdxl(tmp_path, SDXL_TINY).home
        with monkeypatch.context() as patch:
            patch.setenv("VINOGRAPH_CACHE_LIMIT", "0")
            expected, _ = drawn(model, num_inference_steps=2)
        assert compiled() >= 4
        for times in (4, 0, 0):
            picture, warnings = drawn(model, num_inference_steps=2)
            assert np.array_equal(picture, expected)
            assert warnings == ()
            assert compiled() >= times if times else compiled() == 0
        assert {entry.description.component for entry in cache.entries()} == {
            *("unet", "text_encoder", "text_encoder_2", "vae_decoder")
        }

    def test_a_small_checkpoint_is_exported_at_once(
        self, tmp_path: Path, cache: Cache, compiled: Callable[[], int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(exports, "_ALWAYS_KEPT", 32_000_000)
        model = save_sdxl(tmp_path, SDXL_TINY).home
        expected, _ = drawn(model, num_inference_steps=2)
        assert compiled() >= 4
        assert len(cache.entries()) >= 4
        assert not any(entry.with_weights for entry in cache.entries())
        assert np.array_equal(drawn(model, num_inference_steps=2)[0], expected)
        assert compiled() == 0

    @pytest.mark.parametrize("what", ["weights", "configuration", "code"])
    def test_a_checkpoint_that_changed_is_compiled_anew(
        self, tmp_path: Path, compiled: Callable[[], int], what: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model = save_sdxl(tmp_path, SDXL_TINY).home
        drawn(model, num_inference_steps=1)
        assert compiled() >= 4
        if what == "code":
            monkeypatch.setattr(opened_models, "_code", lambda: "another")
        else:
            names = {"weights": "diffusion_pytorch_model.safetensors", "configuration": "config.json"}
            os.utime(model / "unet" / names[what], ns=(1, 10**18))
        drawn(model, num_inference_steps=1)
        assert compiled() >= 1

    def test_the_result_warns_of_damage(self, tmp_path: Path, cache: Cache) -> None:
        model = low_bit_bundle(tmp_path)
        expected, _ = drawn(model)
        for entry in cache.entries():
            entry.file.write_bytes(entry.file.read_bytes()[:-7])
        picture, warnings = drawn(model)
        assert np.array_equal(picture, expected)
        assert warnings
        assert all("it was damaged" in each for each in warnings)
        assert drawn(model)[1] == ()

    def test_the_result_does_not_wait(self, tmp_path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
        go_on, put_with_weights = threading.Event(), Cache.put_with_weights

        def later(self: Cache, *given: Any) -> None:
            assert go_on.wait(60)
            put_with_weights(self, *given)

        monkeypatch.setattr(Cache, "put_with_weights", later)
        result = Pipeline.from_pretrained(low_bit_bundle(tmp_path), precision="f32")(PROMPT, seed=1)
        assert result.images
        assert not any(entry.with_weights for entry in cache.entries())
        go_on.set()
        written()
        assert any(entry.with_weights for entry in cache.entries())

    def test_a_drawing_that_failed_exports_nothing(self, tmp_path: Path, cache: Cache) -> None:
        def fail(*_: Any) -> dict[str, Any]:
            raise RuntimeError("of the user's own")

        pipe = Pipeline.from_pretrained(low_bit_bundle(tmp_path), precision="f32")
        with contextlib.suppress(RuntimeError):
            pipe(PROMPT, seed=1, callback_on_step_end=fail)
        written()
        assert not any(entry.with_weights for entry in cache.entries())


_DRAW = """
import sys
from vinograph import Pipeline
from vinograph.runtime import exports
exports._ALWAYS_KEPT, exports._WORTHWHILE_SECONDS = 0, 0.0
result = Pipeline.from_pretrained(sys.argv[1], precision="f32")("a red house", seed=1)
result.images[0].save(sys.argv[2])
sys.exit(len(result.warnings))
"""


def test_a_process_that_ends_at_once_has_written_its_exports(tmp_path: Path, cache: Cache) -> None:
    """Two processes at the same time do so, too."""
    model = low_bit_bundle(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    files = [tmp_path / f"{index}.png" for index in range(3)]
    commands = [[sys.executable, "-c", _DRAW, str(model), str(file)] for file in files]
    running = [subprocess.Popen(command, env=environment) for command in commands[:2]]
    assert [each.wait(120) for each in running] == [0, 0]
    before = {entry.file: entry.size for entry in cache.entries()}
    assert any(entry.with_weights for entry in cache.entries())
    assert not list((cache.folder / "compiled").glob(".*.tmp"))
    assert subprocess.run(commands[2], env=environment, timeout=120, check=False).returncode == 0
    assert len({file.read_bytes() for file in files}) == 1
    assert before.items() <= {entry.file: entry.size for entry in cache.entries()}.items()


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many components were compiled since the last time."""
    count, compile_section = [0], Session._compile_section

    def counting(self: Session, *given: Any) -> Any:
        count[0] += 1
        return compile_section(self, *given)

    monkeypatch.setattr(Session, "_compile_section", counting)

    def since() -> int:
        found, count[0] = count[0], 0
        return found

    return since
