"""What models cost and how close they draw, compared with each other and with other systems.

Each measured process draws one first picture, cold, and then its share of the others. The systems'
processes take turns, so that a noisy moment spoils no system alone.
"""

from __future__ import annotations

import datetime
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vinograph import __version__, folders
from vinograph.benchmark import adherence, machine, processes
from vinograph.benchmark.cases import (
    SYSTEMS,
    BenchmarkCase,
    BenchmarkConfig,
    cases,
    folder_size,
    reference,
    with_default_checkpoint,
)
from vinograph.benchmark.memory import Peaks
from vinograph.benchmark.processes import Outcome
from vinograph.benchmark.quality import distance

__all__ = ["PROMPTS", "SYSTEMS", "BenchmarkConfig", "benchmark"]

_OURS = "vinograph"
_NOTABLE_STEAL = 0.05  # the share of the CPU time above which a note says so

# The systems' words for the precisions whose pictures differ from those in f32.
_REDUCED = {"bf16": ("bf16", "bfloat16"), "f16": ("f16", "float16")}

Progress = Callable[[str, int, int], None]

PROMPTS = (
    "a red house on a snowy hill at night",
    "three yellow boats on the sea at sunset",
    "two green trees in the middle of a meadow on a clear day",
    "a blue house in the middle of the desert at night",
    "two orange trees on a snowy hill on a clear day",
    "a purple boat on the sea at night",
)
"""Default prompts, of the embedded models' picture-book world.

Each picture has the next prompt, so that none is drawn from a remembered text encoding.
"""


@dataclass
class _Measurement:
    """What has been measured of a case so far."""

    case: BenchmarkCase
    outcomes: list[Outcome] = field(default_factory=list)
    distance: dict[str, float] = field(default_factory=dict)
    adherence: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def failure(self) -> str | None:
        """Why the case could not be measured, if it could not."""
        return next((each.failure for each in self.outcomes if each.failure), None)


class _ProgressCounter:
    """Counts the pictures that are drawn, of all that will be, and reports the progress."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def note(self, label: str) -> None:
        """Report what is done, where it draws no picture."""
        self._progress(label, self._done, self._total)

    def pictures(self, label: str, count: int) -> Callable[[Mapping[str, Any]], None]:
        """A listener for a process that will draw ``count`` pictures."""
        before = self._done
        self._done += count
        drawn = 0

        def on_event(event: Mapping[str, Any]) -> None:
            nonlocal drawn
            drawn += event["event"] == "drawn"
            self._progress(label, min(before + drawn, self._total), self._total)

        return on_event


def shares(runs: int, rounds: int) -> list[int]:
    """How many pictures each round draws after its first, for ``runs`` spread over ``rounds``."""
    return [runs // rounds + (index < runs % rounds) for index in range(rounds)]


def benchmark(config: BenchmarkConfig, command: Sequence[str], progress: Progress) -> dict[str, Any]:
    """Measure everything that ``config`` says, and return the results as JSON values.

    Args:
        config: what to measure.
        command: the command line, which is recorded.
        progress: called with a label, the number of pictures drawn, and that of all.

    Raises:
        RequestError: an option, an environment or a family doesn't allow the measurement.
        ModelError: a model can't be used.
    """
    config = with_default_checkpoint(config)
    measurements = [_Measurement(each) for each in cases(config)]
    root = adherence.checkout()
    judged = [each for each in measurements if each.case.is_storybook and config.adherence]
    counter = _ProgressCounter(
        progress,
        len(measurements) * (config.rounds + config.runs)
        + config.compare * len(config.counts)
        + (len(judged) * config.adherence if root else 0),
    )
    record: dict[str, Any] = {
        "vinograph": __version__,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": list(command),
        "machine": machine.describe(),
        "config": _record_of(config),
    }
    with folders.temporary("vinograph-benchmark-") as folder:
        work = config.work or folder / "work"
        prepared = _prepare(config, measurements, work, counter)
        if config.tune:
            prepared |= _tune(config, measurements, work, counter)
        _measure(config, measurements, folder, work, counter)
        references = _compare(config, measurements, folder, work, counter) if config.compare else []
        if root is not None:
            _judge(config, judged, root, folder, work, counter)
        elif judged:
            for each in judged:
                each.notes.append(adherence.MISSING)
        rows = [_row(each, work) for each in measurements]
    first = next((row["seconds_per_picture"] for row in rows if row["seconds_per_picture"]), None)
    for row in rows:
        mine = row["seconds_per_picture"]
        row["ratio"] = mine / first if mine and first else None
    return {**record, "prepared": prepared, "references": references, "rows": rows}


def _record_of(config: BenchmarkConfig) -> dict[str, Any]:
    fields = {name: getattr(config, name) for name in BenchmarkConfig.__dataclass_fields__ if name != "arguments"}
    return {name: str(value) if isinstance(value, Path) else value for name, value in fields.items()}


def _prompts(config: BenchmarkConfig) -> Sequence[str]:
    return config.prompts or PROMPTS


def _prepare(
    config: BenchmarkConfig, measurements: list[_Measurement], work: Path, counter: _ProgressCounter
) -> dict[str, Any]:
    """Have systems prepare the files that they draw from.

    A failure is one of every case that needs the files.
    """
    prepared: dict[str, Any] = {}
    for each in measurements:
        other = each.case.other
        if other is None or other.preparer is None:
            continue
        files, maker = other.prepared, other.preparer
        if files not in prepared:
            counter.note(f"{maker} prepares the checkpoint")
            work.mkdir(parents=True, exist_ok=True)
            task = each.case.task(config, (), work)
            prepared[files] = processes.run(config.python(maker), ["prepare", maker], task)
        outcome = prepared[files]
        if outcome.failure is not None:
            each.outcomes.append(Outcome(failure=f"preparing it failed: {outcome.failure}", peaks=outcome.peaks))
    return {files: outcome.record() for files, outcome in prepared.items()}


def _tune(
    config: BenchmarkConfig, measurements: list[_Measurement], work: Path, counter: _ProgressCounter
) -> dict[str, Any]:
    """Have the settings of each of Vinograph's models measured, in a process that isn't measured itself."""
    found = {}
    for each in measurements:
        if each.case.system != _OURS:
            continue
        counter.note(f"{each.case.label}: its settings")
        task = each.case.task(config, _prompts(config)[:1], work)
        outcome = processes.run(each.case.python, ["prepare", _OURS], task)
        found[f"settings of {each.case.label}"] = outcome.record()
        if outcome.failure is not None:
            each.outcomes.append(Outcome(failure=f"measuring its settings failed: {outcome.failure}"))
    return found


def _measure(
    config: BenchmarkConfig, measurements: list[_Measurement], folder: Path, work: Path, counter: _ProgressCounter
) -> None:
    """Run all rounds; a case that has failed is not run again."""
    prompts = _prompts(config)
    for number, share in enumerate(shares(config.runs, config.rounds)):
        for index, each in enumerate(measurements):
            on_event = counter.pictures(each.case.label, share + 1)
            if each.failure is not None:
                continue
            pictures = folder / f"{index}-{number}"
            pictures.mkdir()
            drawn = [prompts[i % len(prompts)] for i in range(share + 1)]
            task = each.case.task(config, drawn, work, folder=str(pictures))
            each.outcomes.append(processes.run(each.case.python, ["draw", each.case.system], task, on_event))


def _compare(
    config: BenchmarkConfig, measurements: list[_Measurement], folder: Path, work: Path, counter: _ProgressCounter
) -> list[dict[str, Any]]:
    """Compare each first picture with a reference in f32; return how the references were drawn."""
    references = []
    for count in config.counts:
        exact = reference(config, count)
        home = folder / f"reference-{count}"
        home.mkdir()
        task = exact.task(config, _prompts(config)[:1], work, folder=str(home), precision="f32")
        outcome = processes.run(exact.python, ["draw", exact.system], task, counter.pictures("the picture in f32", 1))
        references.append({"name": exact.name, "count": count, "settings": exact.settings, **outcome.record()})
        if outcome.failure is not None:
            continue
        picture = np.load(home / "0.npy")
        for each in measurements:
            if each.case.count == count and each.case.family == exact.family and each.failure is None:
                _compare_picture(each, picture)
    return references


def _compare_picture(each: _Measurement, picture: Any) -> None:
    if not each.outcomes[0].events_named("opened")[0]["same_noise"]:
        each.notes.append("its noise is not that of the same seed, so its picture is not compared")
        return
    drawn = np.load(each.outcomes[0].events_named("drawn")[0]["file"])
    if drawn.shape == picture.shape:
        each.distance = distance(drawn, picture)
        each.notes += _precision_notes(each)
    else:
        each.notes.append(f"its picture is of another size ({drawn.shape[2]}x{drawn.shape[1]}), and not compared")


def _precision_notes(each: _Measurement) -> list[str]:
    """A note on another system that did not compute in f32, as the reference did."""
    computed = each.outcomes[0].events_named("drawn")[0]["computed"].values()
    if each.case.system == "vinograph":
        return []  # our rows are there to compare our precisions
    reduced = [
        name for name, words in _REDUCED.items() if any(word in text.split() for text in computed for word in words)
    ]
    return [
        f"it computed in {name}, and PSNR and SSIM are to a picture in f32: most of the difference may be {name}'s; "
        "--precision f32 compares the systems themselves"
        for name in reduced
    ]


def _judge(
    config: BenchmarkConfig, judged: list[_Measurement], root: Path, folder: Path, work: Path, counter: _ProgressCounter
) -> None:
    """Have the probe judge what the embedded models draw from prompts outside their training."""
    prompts = adherence.prompts(root, config.adherence) if judged else []
    for index, each in enumerate(judged):
        on_event = counter.pictures(f"{each.case.label}: adherence", len(prompts))
        if each.failure is not None or each.case.count != config.counts[0]:
            continue
        home = folder / f"judged-{index}"
        home.mkdir()
        task = each.case.task(config, prompts, work, folder=str(home), count=1)
        outcome = processes.run(each.case.python, ["draw", each.case.system], task, on_event)
        if outcome.failure is None:
            each.adherence = adherence.judge(root, home, len(prompts))
        else:
            each.notes.append(f"drawing for adherence failed: {outcome.failure}")


def _row(measured: _Measurement, work: Path) -> dict[str, Any]:
    """The row of a case in the results."""
    case, outcomes = measured.case, measured.outcomes
    drawn = [each.events_named("drawn") for each in outcomes if each.events_named("drawn")]
    firsts, later = [each[0] for each in drawn], [run for each in drawn for run in each[1:]]
    seconds = [run["seconds"] for run in later]
    cpu_steal = [run["cpu_steal"] for run in later or firsts]
    per_picture = statistics.median(seconds) / case.count if seconds else None
    peaks = Peaks(*(max((getattr(o.peaks, k) for o in outcomes), default=0) for k in asdict(Peaks())))
    prepared = case.prepared(work)
    return {
        "name": case.name,
        "system": case.system,
        "source": str(case.source),
        "python": case.python,
        "family": case.family,
        "count": case.count,
        "settings": dict(case.settings),
        "vae": case.vae,
        "size": folder_size(prepared) if prepared is not None and prepared.is_dir() else case.size,
        "failure": measured.failure,
        "notes": [*_steal_notes(cpu_steal), *measured.notes],
        "versions": next((e["versions"] for o in outcomes for e in o.events_named("started")), {}),
        "computed": firsts[0]["computed"] if firsts else {},
        "load": _load(outcomes),
        "first": _median([each["at"] for each in firsts]),
        "first_drawing": _median([each["seconds"] for each in firsts]),
        "first_stages": _stages(firsts),
        "seconds": seconds,
        "cpu_steal": cpu_steal,
        "seconds_per_picture": per_picture,
        "pictures_per_minute": 60 / per_picture if per_picture else None,
        "stages": _stages(later),
        "peaks": asdict(peaks),
        **{"psnr": None, "ssim": None, **measured.distance},
        "adherence": measured.adherence or None,
        "processes": [each.record() for each in outcomes],
    }


def _steal_notes(cpu_steal: Sequence[float]) -> list[str]:
    """A note where other guests of the same hardware took a notable share of the CPU time."""
    if not cpu_steal or statistics.median(cpu_steal) < _NOTABLE_STEAL:
        return []
    share = f"{statistics.median(cpu_steal):.0%}" + (f" (up to {max(cpu_steal):.0%})" if len(cpu_steal) > 1 else "")
    return [
        f"other guests of the hardware had {share} of the processors while it drew; measure again in a quieter hour"
    ]


def _load(outcomes: Sequence[Outcome]) -> dict[str, float | None]:
    """Medians of the seconds that importing and opening take, and of both together."""
    ready = [each for each in outcomes if each.events_named("opened")]
    imported = [each.events_named("imported")[0]["at"] for each in ready]
    opened = [each.events_named("opened")[0]["at"] for each in ready]
    return {
        "import": _median(imported),
        "open": _median([end - begin for begin, end in zip(imported, opened, strict=True)]),
        "whole": _median(opened),
    }


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _stages(runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The median seconds of each stage; a run without a stage counts as 0."""
    names = dict.fromkeys(name for run in runs for name in run["stages"])
    return {name: statistics.median([run["stages"].get(name, 0.0) for run in runs]) for name in names}
