"""How the fastest setting is found from given seconds."""

from typing import Any

import pytest

from vinograph.runtime import tuning
from vinograph.runtime.tuning import DEFAULT, Setting, TuningResult


def found(seconds: dict[Setting, float | None], precisions: tuple[str, ...] = ()) -> TuningResult:
    """The result for these seconds of a call in each setting; others fail."""
    groups = tuple(each.group for each in seconds if each.group is not None and each.precision is None)
    return tuning.find_fastest_setting(lambda setting, _: seconds.get(setting), groups, precisions)


class TestFastest:
    def test_the_fastest_is_chosen(self) -> None:
        seconds: dict[Setting, float | None] = {DEFAULT: 1.1, Setting(64): 0.87, Setting(128): 0.8, Setting(0): 1.2}
        result = found(seconds)
        assert result.setting == Setting(128)
        assert result.seconds == seconds

    @pytest.mark.parametrize(("other", "expected"), [(0.98, DEFAULT), (1.0, DEFAULT), (0.96, Setting(64))])
    def test_within_the_noise_the_default_stays(self, other: float, expected: Setting) -> None:
        assert found({DEFAULT: 1.0, Setting(64): other}).setting == expected

    def test_another_precision_is_tried_with_the_best_group(self) -> None:
        in_f32 = Setting(64, "f32")
        seconds: dict[Setting, float | None] = {DEFAULT: 1.0, Setting(64): 0.8, Setting(0): 0.9, in_f32: 0.7}
        assert found(seconds, ("f32",)).setting == in_f32
        assert found({**seconds, in_f32: 0.9}, ("f32",)).setting == Setting(64)
        assert in_f32 not in found(seconds).seconds

    @pytest.mark.parametrize(
        ("again", "expected"),
        [
            ((1.0, 0.8), Setting(64)),
            pytest.param((0.8, 0.8), DEFAULT, id="the machine was busy at first"),
            pytest.param((1.0, 1.1), DEFAULT, id="it was idle by chance"),
            pytest.param((1.0, None), DEFAULT, id="it works no more"),
        ],
    )
    def test_the_fastest_has_to_be_so_twice(self, again: tuple[float, float | None], expected: Setting) -> None:
        taken: dict[Setting, list[float | None]] = {DEFAULT: [1.0, again[0]], Setting(64): [0.8, again[1]]}
        result = tuning.find_fastest_setting(lambda setting, _: taken[setting].pop(0), (64,), ())
        assert result.setting == expected
        assert not any(taken.values())

    def test_settings_that_fail_are_left_out(self) -> None:
        result = found({DEFAULT: 1.0, Setting(64): None, Setting(128): 0.5})
        assert result.setting == Setting(128)
        assert Setting(64) not in result.seconds


class TestSeconds:
    def timed(self, monkeypatch: pytest.MonkeyPatch, each: list[float], best: float) -> tuple[float, int]:
        """The least seconds of runs that take ``each``, and the number of runs."""
        now, runs = [0.0], iter(each)

        def run() -> None:
            now[0] += next(runs)

        monkeypatch.setattr("vinograph.runtime.tuning.time.perf_counter", lambda: now[0])
        return tuning.least_seconds(run, best), len(each) - len(list(runs))

    @pytest.mark.parametrize(
        ("each", "best", "expected"),
        [
            pytest.param([0.5, 3, 1, 2, 7], 5.0, (1, 4), id="the least of three, without the first"),
            pytest.param([9, 3, 1, 2, 7], 1.0, (3, 2), id="one that is clearly slower is run no more"),
            pytest.param([0.01] * 30, 1.0, (0.01, 16), id="short ones more often"),
            pytest.param([0.1] * 30, 1.0, (0.1, 4), id="as many as fill a moment"),
        ],
    )
    def test_how_often(self, monkeypatch: pytest.MonkeyPatch, each: Any, best: float, expected: Any) -> None:
        seconds, runs = self.timed(monkeypatch, each, best)
        assert seconds == pytest.approx(expected[0])
        assert runs == expected[1]


class TestRecords:
    @pytest.mark.parametrize("setting", [DEFAULT, Setting(0), Setting(128), Setting(64, "f32")])
    def test_records_are_read_as_written(self, setting: Setting) -> None:
        assert Setting.from_json(setting.to_json(), ("f32",)) == setting

    @pytest.mark.parametrize(
        "record",
        [
            *(None, 7, [], "groups of 64"),
            *({"group": 63}, {"group": "64"}, {"group": True}, {"group": 64.0}, {"group": [64]}),
            *({"precision": "f8"}, {"precision": ["f32"]}, {"group": 64, "precision": "bf16"}),
        ],
    )
    def test_settings_that_are_never_tried_are_refused(self, record: Any) -> None:
        assert Setting.from_json(record, ("f32",)) is None

    def test_settings_as_text(self) -> None:
        described = [str(each) for each in (DEFAULT, Setting(64), Setting(0), Setting(64, "f32"))]
        assert described == ["groups as by default", "groups of 64", "activations not rounded", "groups of 64, f32"]
