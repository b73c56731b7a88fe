"""What a session keeps for the next process: compiled models and measured settings."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

from tests.bundles import low_bit_linear, save_bundle, save_low_bit_bundle
from vinograph import Pipeline, RequestError, Result, Step
from vinograph.benchmark.systems.common import Task
from vinograph.benchmark.systems.vinograph_ import open_system, prepare
from vinograph.models.bundle import Bundle
from vinograph.runtime import exports, sessions, tuning
from vinograph.runtime.cache import Cache
from vinograph.runtime.devices import machine
from vinograph.runtime.sessions import Session
from vinograph.runtime.sources import IrFile
from vinograph.runtime.tuning import DEFAULT, CacheKey, KnownSetting, Machine, Measuring, Setting, TuningResult

SIDE = 64
PROMPT = "a red house"
Open = Callable[..., Session]


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VINOGRAPH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def cache() -> Cache:
    return Cache()


class Counting:
    """A core that counts how often it compiles, and how often it reads an export."""

    def __init__(self) -> None:
        self._core = ov.Core()
        self.read_model = self._core.read_model
        self.compiled = self.imported = 0

    def compile_model(self, *given: Any) -> ov.CompiledModel:
        self.compiled += 1
        return self._core.compile_model(*given)

    def import_model(self, *given: Any) -> ov.CompiledModel:
        compiled = self._core.import_model(*given)
        self.imported += 1
        return compiled


def save_layers(folder: Path, seed: int = 0) -> Path:
    x = ops.parameter([-1, SIDE], ov.Type.f32)
    x.output(0).get_tensor().set_names({"x"})
    y = ops.tanh(x)
    for layer in range(4):
        y = ops.add(y, ops.tanh(low_bit_linear(y, 10 * seed + layer)))
    y.output(0).get_tensor().set_names({"y"})
    ov.save_model(ov.Model([ops.result(y)], [x], "layers"), folder / "layers.xml", compress_to_fp16=False)
    return folder / "layers.xml"


def values(rows: int = 3) -> dict[str, Any]:
    return {"x": np.random.default_rng(1).standard_normal((rows, SIDE), np.float32)}


@pytest.fixture
def xml(tmp_path: Path) -> Path:
    return save_layers(tmp_path)


@pytest.fixture
def opened(xml: Path, cache: Cache) -> Open:
    """A session as a new process would have it."""

    def make(
        precision: str = "f32",
        *,
        device: str = "CPU",
        contents: str = "its hash",
        low_bit_weights: bool = False,
        measuring: Measuring = Measuring.NEVER,
    ) -> Session:
        cache_key = CacheKey("tiny", "layers", contents, low_bit_weights, cache)
        session = Session(IrFile("layers", xml), device, precision, cache_key, measuring)
        session._core = Counting()
        return session

    return make


def done(session: Session) -> tuple[int, int]:
    """How often a session compiled, and how often it read an export."""
    counting: Any = session._core
    return counting.compiled, counting.imported


class TestCompiled:
    @pytest.mark.parametrize("precision", ["f32", "auto"])
    def test_the_next_process_reads_the_export_and_computes_the_same(self, opened: Open, precision: str) -> None:
        first, second = opened(precision), opened(precision)
        expected = first(values())
        assert done(first) == (1, 0)
        found = second(values())
        assert done(second) == (0, 1)
        assert found.keys() == expected.keys() == {"y"}
        assert np.array_equal(found["y"], expected["y"])
        assert (second.precision, second.execution_devices) == (first.precision, first.execution_devices)

    def test_an_export_does_not_change_the_result(self, opened: Open, xml: Path) -> None:
        alone = Session(IrFile("layers", xml), "CPU", "f32")(values())["y"]
        for _ in range(2):
            assert np.array_equal(opened()(values())["y"], alone)

    def test_an_export_is_small(self, opened: Open, xml: Path, cache: Cache) -> None:
        opened()(values())
        (entry,) = cache.entries()
        assert (entry.description.model, entry.description.component, entry.description.shapes) == (
            "tiny",
            "layers",
            "x 3x64",
        )

    def test_each_size_and_precision_has_its_export(self, opened: Open) -> None:
        opened()(values())
        for other in (opened(), opened("bf16")):
            other(values(rows=5))
            assert done(other) == (1, 0)

    def test_each_model_has_its_export(self, opened: Open) -> None:
        opened()(values())
        other = opened(contents="another hash")
        other(values())
        assert done(other) == (1, 0)

    def test_a_bundle_that_changed_on_the_disk_is_compiled_anew(self, opened: Open, xml: Path) -> None:
        """Also where its manifest is unchanged."""
        before = opened()(values())["y"]
        save_layers(xml.parent, seed=1)
        os.utime(xml.with_suffix(".bin"), ns=(1, 10**18))
        other = opened()
        after = other(values())["y"]
        assert done(other) == (1, 0)
        assert np.array_equal(after, Session(IrFile("layers", xml), "CPU", "f32")(values())["y"])
        assert not np.array_equal(after, before)

    def test_another_version_of_openvino_compiles_anew(self, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
        opened()(values())
        monkeypatch.setattr(exports, "machine", lambda: Machine(("another",), "f32", 32))
        other = opened()
        other(values())
        assert done(other) == (1, 0)

    def test_other_devices_export_nothing(self, opened: Open, cache: Cache) -> None:
        opened(device="AUTO")(values())
        assert cache.entries() == []

    def test_sections_are_not_exported(self, opened: Open, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
        expected = opened()(values())["y"]
        cache.clear()
        monkeypatch.setattr(sessions, "_SECTION_SIZE", SIDE * SIDE)
        for _ in range(2):
            session = opened()
            np.testing.assert_allclose(session(values())["y"], expected, rtol=1e-5)
            assert done(session)[0] >= 2
        assert cache.entries() == []

    def test_an_export_that_is_large_for_its_weights_is_not_kept(
        self, opened: Open, cache: Cache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(exports, "_ALWAYS_KEPT", 0)
        opened()(values())
        assert cache.entries() == []

    def test_without_a_limit_nothing_is_written(
        self, opened: Open, cache: Cache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("VINOGRAPH_CACHE_LIMIT", "0")
        opened()(values())
        assert not cache.folder.exists()


class TestTrouble:
    def test_an_export_that_openvino_cannot_read_is_deleted(self, opened: Open, cache: Cache) -> None:
        expected = opened()(values())["y"]
        (entry,) = cache.entries()
        cache.put(entry.file.stem, b"another version's", entry.description)
        session = opened()
        assert np.array_equal(session(values())["y"], expected)
        assert done(session) == (1, 0)
        (warning,) = cache.take_warnings()
        assert "in the cache was of no use: " in warning
        again = opened()
        again(values())
        assert done(again) == (0, 1)

    def test_a_warning_if_a_model_cannot_be_exported(
        self, opened: Open, cache: Cache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(self: ov.CompiledModel) -> Any:
            raise RuntimeError("line 1\nno such layer")

        monkeypatch.setattr(ov.CompiledModel, "export_model", fail)
        opened()(values())
        assert cache.take_warnings() == ["layers can't be kept compiled: no such layer"]

    def test_a_drawing_goes_on_with_a_warning(self, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tiny_bundle.parent / "a file").write_text("no folder")
        monkeypatch.setenv("VINOGRAPH_CACHE", str(tiny_bundle.parent / "a file"))
        pipe = Pipeline.from_pretrained(tiny_bundle, precision="f32")
        (warning,) = {each.partition(" (")[0] for each in pipe(PROMPT, seed=1).warnings if "written" in each}
        assert warning == f"the cache in {tiny_bundle.parent / 'a file'} can't be written"
        assert pipe(PROMPT, seed=1).warnings == ()

    def test_damage_between_drawings(self, tiny_bundle: Path, cache: Cache) -> None:
        expected = np.asarray(Pipeline.from_pretrained(tiny_bundle, precision="f32")(PROMPT, seed=1).images[0])
        assert len(cache.entries()) >= 5
        for entry in cache.entries():
            entry.file.write_bytes(entry.file.read_bytes()[:-7])
        result = Pipeline.from_pretrained(tiny_bundle, precision="f32")(PROMPT, seed=1)
        assert np.array_equal(np.asarray(result.images[0]), expected)
        assert all("it was damaged" in each for each in result.warnings)
        assert len(result.warnings) >= 5
        assert Pipeline.from_pretrained(tiny_bundle, precision="f32")(PROMPT, seed=1).warnings == ()

    def test_concurrent_processes(self, tiny_bundle: Path, tmp_path: Path) -> None:
        code = (
            "import sys\nfrom vinograph import Pipeline\n"
            "result = Pipeline.from_pretrained(sys.argv[1], precision='f32')('a red house', seed=1)\n"
            "result.images[0].save(sys.argv[2])\n"
            "sys.exit(len(result.warnings))\n"
        )
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent / "src")}
        files = [tmp_path / f"{index}.png" for index in range(2)]
        running = [
            subprocess.Popen([sys.executable, "-c", code, str(tiny_bundle), str(file)], env=environment)
            for file in files
        ]
        assert [each.wait(60) for each in running] == [0, 0]
        assert files[0].read_bytes() == files[1].read_bytes()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short calls count, too."""
    monkeypatch.setattr(tuning, "SHORTEST_CALL", 0.0)


def measuring(monkeypatch: pytest.MonkeyPatch, setting: Setting) -> list[str]:
    """Make ``setting`` the fastest; the list that is returned grows with each measurement."""
    measured: list[str] = []

    def found(timed: tuning.TimeCall, groups: tuple[int, ...], precisions: tuple[str, ...]) -> TuningResult:
        measured.append("measured")
        seconds = {each: timed(each, float("inf")) for each in (DEFAULT, setting)}
        assert all(seconds.values())
        return TuningResult(setting, {each: taken or 0.0 for each, taken in seconds.items()}, 0.1)

    monkeypatch.setattr(tuning, "find_fastest_setting", found)
    return measured


def remembered(cache: Cache, rows: int, setting: Setting) -> None:
    """Store ``setting`` as measured for so many rows."""
    cache_key = CacheKey("tiny", "layers", "its hash", True, cache)
    tuning.keep_first_result(
        cache_key, {"x": (rows, SIDE)}, "f32", machine(), TuningResult(setting, {setting: 0.1}, 1.0)
    )


class TestSettings:
    @pytest.mark.usefixtures("quick")
    def test_each_setting_is_measured(self, xml: Path) -> None:
        """A real measurement: whichever is the fastest, all groups work on this processor."""
        result = Session(IrFile("layers", xml), "CPU", "f32").find_fastest_setting(values())
        assert {setting.group for setting in result.seconds} - {None} == set(machine().group_sizes_to_try)
        assert result.setting in result.seconds
        assert result.measuring_seconds > 0

    def test_short_calls_keep_the_default(self, xml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tuning, "SHORTEST_CALL", 100.0)
        result = Session(IrFile("layers", xml), "CPU", "f32").find_fastest_setting(values())
        assert result.setting == DEFAULT
        assert list(result.seconds) == [DEFAULT]

    def test_a_single_setting_can_be_timed(self, xml: Path) -> None:
        session = Session(IrFile("layers", xml), "CPU", "f32")
        assert (session.time_call(values()) or 0) > 0
        assert session.time_call({"x": np.full((3, SIDE), np.nan, np.float32)}) is None

    @pytest.mark.usefixtures("quick")
    def test_settings_that_fail_are_left_out(self, xml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        compile_model = ov.Core.compile_model

        def refused(self: ov.Core, model: Any, device: str, settings: dict[str, Any]) -> ov.CompiledModel:
            if settings.get("DYNAMIC_QUANTIZATION_GROUP_SIZE") == 256:
                raise RuntimeError("Wrong value 256")
            return compile_model(self, model, device, settings)

        monkeypatch.setattr(ov.Core, "compile_model", refused)
        groups = {
            setting.group
            for setting in Session(IrFile("layers", xml), "CPU", "f32").find_fastest_setting(values()).seconds
        }
        assert groups == {None, *machine().group_sizes_to_try} - {256}

    def test_a_group_rounds_activations(
        self, xml: Path, opened: Open, cache: Cache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The group size is set again when an export is read, so one export serves all sizes."""
        computed = {}
        for group in (0, 32):
            session = Session(IrFile("layers", xml), "CPU", "f32")
            monkeypatch.setattr(session, "_setting_for", lambda _, group=group: Setting(group))
            computed[group] = session(values())["y"]
        assert not np.array_equal(computed[0], computed[32])
        for group in (0, 32):
            session = opened()
            monkeypatch.setattr(session, "_setting_for", lambda _, group=group: Setting(group))
            assert np.array_equal(session(values())["y"], computed[group])
        assert len(cache.entries()) == 1

    def test_nothing_is_measured_unless_it_is_asked_for(
        self, opened: Open, cache: Cache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        measured = measuring(monkeypatch, Setting(0))
        computed = []
        for _ in range(3):
            session = opened(low_bit_weights=True)
            for _ in range(3):
                session.begin_drawing()
                computed.append(session(values())["y"])
            assert session.settings_used == (KnownSetting(DEFAULT, is_measured=False),)
        assert all(np.array_equal(each, computed[0]) for each in computed)
        assert measured == []
        assert cache.settings() == {}

    def test_the_next_process_uses_measured_settings(
        self, opened: Open, cache: Cache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        measured = measuring(monkeypatch, Setting(0))
        computed = []
        for when in (Measuring.NEVER, Measuring.IF_UNKNOWN, Measuring.IF_UNKNOWN, Measuring.NEVER):
            session = opened(low_bit_weights=True, measuring=when)
            session.begin_drawing()
            computed.append(session(values())["y"])
        assert measured == ["measured"]
        assert session.settings_used == (KnownSetting(Setting(0), is_measured=True),)
        assert not np.array_equal(computed[0], computed[1])
        assert np.array_equal(computed[1], computed[2])
        assert np.array_equal(computed[1], computed[3])
        (record,) = cache.settings().values()
        assert (record["model"], record["component"], record["setting"]) == (
            "tiny",
            "layers",
            "activations not rounded",
        )

    def test_a_drawing_keeps_to_one_setting(self, opened: Open, cache: Cache) -> None:
        session = opened(low_bit_weights=True)
        session.begin_drawing()
        first = session(values())["y"]
        remembered(cache, 3, Setting(0))  # by another process
        for _ in range(3):
            assert np.array_equal(session(values())["y"], first)
        session.begin_drawing()
        session.prepare({"x": (3, SIDE)})
        assert session.settings_used == (KnownSetting(DEFAULT, is_measured=False),)
        assert not np.array_equal(session(values())["y"], first)
        assert session.settings_used == (KnownSetting(Setting(0), is_measured=True),)

    def test_adapters_change_no_settings(self, xml: Path, cache: Cache) -> None:
        remembered(cache, 3, Setting(0))
        cache_key = CacheKey("tiny", "layers", "its hash with an adapter", True, cache, "its hash")
        session = Session(IrFile("layers", xml), "CPU", "f32", cache_key)
        session(values())
        assert session.settings_used == (KnownSetting(Setting(0), is_measured=True),)

    def test_each_setting_of_a_drawing_is_told(self, opened: Open, cache: Cache) -> None:
        remembered(cache, 3, Setting(0))
        session = opened(low_bit_weights=True)
        for rows in (3, 4, 100):
            session(values(rows))
        assert [str(each) for each in session.settings_used] == [
            "activations not rounded (measured)",
            "groups as by default (not measured)",
        ]

    @pytest.mark.usefixtures("quick")
    def test_the_first_measurement_counts(self, opened: Open, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
        """Two processes that measured at once draw alike from then on."""
        cache_key = CacheKey("tiny", "layers", "its hash", True, cache)
        shapes = {"x": (3, SIDE)}
        for setting in (Setting(64), Setting(0)):
            remembered = tuning.keep_first_result(
                cache_key, shapes, "f32", machine(), TuningResult(setting, {setting: 0.1}, 1.0)
            )
            assert remembered == Setting(64)
        session = opened(low_bit_weights=True)
        session(values())
        assert session.setting == Setting(64)

    @pytest.mark.usefixtures("quick")
    def test_a_garbled_setting_is_measured_anew(
        self, opened: Open, cache: Cache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        measured = measuring(monkeypatch, Setting(0))
        garbled = {"chosen": {"group": "many"}}
        key = tuning.settings_key(
            CacheKey("tiny", "layers", "its hash", True, cache), {"x": (3, SIDE)}, "f32", machine()
        )
        cache.remember(key, lambda _: garbled)
        session = opened(low_bit_weights=True)
        session(values())
        assert session.settings_used == (KnownSetting(DEFAULT, is_measured=False),)
        session = opened(low_bit_weights=True, measuring=Measuring.IF_UNKNOWN)
        session(values())
        assert measured == ["measured"]
        assert cache.settings()[key]["chosen"] == {"group": 0, "precision": None}

    @pytest.mark.usefixtures("quick")
    @pytest.mark.parametrize(("rows", "again"), [(3, 0), (12, 0), (13, 1), (1, 0)])
    def test_the_setting_of_a_near_size_is_used_at_once(
        self, rows: int, again: int, opened: Open, cache: Cache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A size with up to four times the values is near."""
        remembered(cache, 3, Setting(0))
        measured = measuring(monkeypatch, Setting(64))
        session = opened(low_bit_weights=True, measuring=Measuring.IF_UNKNOWN)
        for _ in range(3):
            session.begin_drawing()
            session(values(rows))
        assert len(measured) == again
        assert session.setting == (Setting(64) if again else Setting(0))

    def test_the_setting_of_the_nearest_size_is_used(self, opened: Open, cache: Cache) -> None:
        for rows, setting in ((2, Setting(64)), (6, Setting(0)), (12, Setting(128))):
            remembered(cache, rows, setting)
        session = opened(low_bit_weights=True)
        session(values(7))
        assert session.setting == Setting(0)

    @pytest.mark.parametrize(
        "other",
        [
            pytest.param({"of": "another component"}, id="of another component"),
            pytest.param({"size": {"y": 192}}, id="of other inputs"),
            pytest.param({"size": {"x": 0}}, id="of none"),
            pytest.param({"size": {"x": "192"}}, id="garbled"),
            pytest.param({"size": 192}, id="no sizes"),
            pytest.param({"chosen": {"group": "many"}}, id="no setting"),
        ],
    )
    def test_sizes_that_are_not_near(self, other: dict[str, Any], opened: Open, cache: Cache) -> None:
        remembered(cache, 3, Setting(0))
        (key,) = cache.settings()
        cache.remember(key, lambda known: {**known, **other})
        session = opened(low_bit_weights=True)
        session(values(4))
        assert session.setting == DEFAULT

    def test_components_without_low_bit_weights_are_not_measured(self, opened: Open, cache: Cache) -> None:
        session = opened(low_bit_weights=False, measuring=Measuring.IF_UNKNOWN)
        session(values())
        assert session.settings_used == ()
        assert cache.settings() == {}


class TestDrawing:
    @pytest.fixture
    def low_bit_bundle(self, tmp_path: Path) -> Bundle:
        return save_low_bit_bundle(tmp_path / "few")

    def test_a_drawing_is_the_same_each_time_and_measures_nothing(
        self, low_bit_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, cache: Cache
    ) -> None:
        measured = measuring(monkeypatch, Setting(64))
        pictures = []
        for _ in range(3):
            pipe = Pipeline(low_bit_bundle, precision="f32")
            for _ in range(2):
                result = pipe(PROMPT, seed=1, height=64, width=64)
                pictures.append(np.asarray(result.images[0]))
                assert result.settings == {"unet": "groups as by default (not measured)"}
                assert result.metadata(0)["settings"] == result.settings
                assert result.devices["unet"] == "CPU f32"
                assert result.warnings == ()
        assert all(np.array_equal(each, pictures[0]) for each in pictures)
        assert measured == []
        assert cache.settings() == {}

    def test_it_says_that_it_measures_and_what_it_found(
        self, low_bit_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        measured = measuring(monkeypatch, Setting(64))
        pictures = []
        for tune in (False, True, True, False):
            pipe = Pipeline(low_bit_bundle, precision="f32", tune=tune)
            with caplog.at_level(logging.WARNING):
                result = pipe(PROMPT, seed=1, height=64, width=64)
            pictures.append(np.asarray(result.images[0]))
            known = len(pictures) > 1
            assert result.devices["unet"] == ("CPU f32, groups of 64" if known else "CPU f32")
            assert result.settings == {
                "unet": "groups of 64 (measured)" if known else "groups as by default (not measured)"
            }
            warnings = [each for each in result.warnings if "it was measured which settings" in each]
            assert len(warnings) == (1 if len(pictures) == 2 else 0)
        assert measured == ["measured"]
        assert [each.getMessage() for each in caplog.records] == ["measuring which settings are the fastest for unet"]
        assert np.array_equal(pictures[1], pictures[2])
        assert np.array_equal(pictures[1], pictures[3])

    @pytest.mark.parametrize("wrong", ["yes", 1, None])
    def test_tune_is_true_or_false(self, low_bit_bundle: Bundle, wrong: Any) -> None:
        with pytest.raises(RequestError, match="give True to measure"):
            Pipeline(low_bit_bundle, tune=wrong)

    def test_the_benchmark_has_them_measured_on_request(
        self, low_bit_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        measured = measuring(monkeypatch, Setting(64))
        task = Task(str(low_bit_bundle.path), "", (PROMPT,), 1, {"height": 64, "width": 64})
        assert not open_system(task).draw(PROMPT).computed["unet"].endswith("groups of 64")
        assert measured == []
        prepare(task)
        assert open_system(task).draw(PROMPT).computed["unet"].endswith("groups of 64")
        assert measured == ["measured"]

    def test_concurrent_drawings_keep_to_the_setting_of_the_first(
        self, low_bit_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        measuring(monkeypatch, Setting(64))
        pipe = Pipeline(low_bit_bundle, precision="f32")
        first = pipe.stream(PROMPT, seed=1, num_inference_steps=3)
        while not (isinstance(step := next(first), Step) and step.stage == "unet"):
            pass
        Pipeline(low_bit_bundle, precision="f32", tune=True)(PROMPT, seed=1)
        other = pipe(PROMPT, seed=1, num_inference_steps=3)
        *_, last = first
        assert isinstance(last, Result)
        assert np.array_equal(np.asarray(other.images[0]), np.asarray(last.images[0]))
        assert pipe(PROMPT, seed=1, num_inference_steps=3).devices["unet"].endswith("groups of 64")

    def test_a_bundle_of_another_name_with_the_same_files_shares(self, tmp_path: Path, cache: Cache) -> None:
        """They share settings by their contents, but each is compiled from its own files."""
        for name in ("one", "two"):
            Pipeline(save_bundle(tmp_path / name), precision="f32").prior(PROMPT, 128, 128, seed=1)
        assert {each.description.component for each in cache.entries()} == {"prior_text_encoder", "prior_text", "prior"}
        assert len(cache.entries()) == 6
