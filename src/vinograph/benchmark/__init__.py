"""What a bundle costs and what it draws, beside other bundles and other systems.

Each process that is measured draws one first picture, cold, and then its share of the others; the processes of the
systems take turns, so that a noisy moment spoils none of them alone.
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
from vinograph.benchmark import judge, machine, processes
from vinograph.benchmark.memory import Peaks
from vinograph.benchmark.processes import Outcome
from vinograph.benchmark.quality import distance
from vinograph.benchmark.subjects import (
    PREPARED_BY,
    SYSTEMS,
    Asked,
    Subject,
    bytes_below,
    complete,
    reference,
    subjects,
)

__all__ = ["PROMPTS", "SYSTEMS", "Asked", "benchmark"]

_DISTURBED = 0.05  # the share of the processors' time above which it is said that others had it

# What systems call the precisions in which pictures differ from those in f32.
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
"""Of the world that the embedded models draw. Each picture has the next one, so that none is of a remembered text."""


@dataclass
class _Measured:
    """What is known of a subject so far."""

    subject: Subject
    outcomes: list[Outcome] = field(default_factory=list)
    distance: dict[str, float] = field(default_factory=dict)
    adherence: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def failure(self) -> str | None:
        """Why it could not be measured."""
        return next((each.failure for each in self.outcomes if each.failure), None)


class _Counter:
    """Pictures drawn of all that will be."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def note(self, label: str) -> None:
        """Say what is done that is no picture."""
        self._progress(label, self._done, self._total)

    def pictures(self, label: str, count: int) -> Callable[[Mapping[str, Any]], None]:
        """A listener to a process that is to draw ``count`` of them."""
        first = self._done
        self._done += count
        seen = 0

        def heard(event: Mapping[str, Any]) -> None:
            nonlocal seen
            seen += event["event"] == "drawn"
            self._progress(label, min(first + seen, self._total), self._total)

        return heard


def shares(runs: int, rounds: int) -> list[int]:
    """How many pictures after the first each round draws: all together ``runs``, the earlier rounds one more."""
    return [runs // rounds + (index < runs % rounds) for index in range(rounds)]


def benchmark(asked: Asked, command: Sequence[str], progress: Progress) -> dict[str, Any]:
    """Measure, and return everything that was: JSON values. ``command`` is the command line that asked.

    Raises:
        RequestError: what was asked can't be measured: an option, an environment, a family.
        ModelError: a bundle can't be used.
    """
    asked = complete(asked)
    every = [_Measured(each) for each in subjects(asked)]
    root = judge.checkout()
    judged = [each for each in every if each.subject.knows_the_world and asked.adherence]
    counter = _Counter(
        progress,
        len(every) * (asked.rounds + asked.runs)
        + asked.compare * len(asked.counts)
        + (len(judged) * asked.adherence if root else 0),
    )
    record: dict[str, Any] = {
        "vinograph": __version__,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": list(command),
        "machine": machine.describe(),
        "asked": _told(asked),
    }
    with folders.temporary("vinograph-benchmark-") as folder:
        work = asked.work or folder / "work"
        prepared = _prepare(asked, every, work, counter)
        _measure(asked, every, folder, work, counter)
        references = _compare(asked, every, folder, work, counter) if asked.compare else []
        if root is not None:
            _judge(asked, judged, root, folder, work, counter)
        elif judged:
            for each in judged:
                each.notes.append(judge.MISSING)
        rows = [_row(each, work) for each in every]
    first = next((row["seconds_per_picture"] for row in rows if row["seconds_per_picture"]), None)
    for row in rows:
        mine = row["seconds_per_picture"]
        row["ratio"] = mine / first if mine and first else None
    return {**record, "prepared": prepared, "references": references, "rows": rows}


def _told(asked: Asked) -> dict[str, Any]:
    told = {name: getattr(asked, name) for name in Asked.__dataclass_fields__ if name != "arguments"}
    return {name: str(value) if isinstance(value, Path) else value for name, value in told.items()}


def _prompts(asked: Asked) -> Sequence[str]:
    return asked.prompts or PROMPTS


def _prepare(asked: Asked, every: list[_Measured], work: Path, counter: _Counter) -> dict[str, Any]:
    """Have files made of the checkpoint by the systems that need them. What fails is a failure of those systems."""
    prepared: dict[str, Any] = {}
    for each in every:
        maker = PREPARED_BY.get(each.subject.system)
        if maker is None:
            continue
        if maker not in prepared:
            counter.note(f"{maker} prepares the checkpoint")
            work.mkdir(parents=True, exist_ok=True)
            task = each.subject.task(asked, (), work)
            prepared[maker] = processes.run(asked.python(maker), ["prepare", maker], task)
        outcome = prepared[maker]
        if outcome.failure is not None:
            each.outcomes.append(Outcome(failure=f"preparing it failed: {outcome.failure}", peaks=outcome.peaks))
    return {maker: outcome.record() for maker, outcome in prepared.items()}


def _measure(asked: Asked, every: list[_Measured], folder: Path, work: Path, counter: _Counter) -> None:
    """All rounds. One that failed is not tried again."""
    prompts = _prompts(asked)
    for number, share in enumerate(shares(asked.runs, asked.rounds)):
        for index, each in enumerate(every):
            heard = counter.pictures(each.subject.label, share + 1)
            if each.failure is not None:
                continue
            pictures = folder / f"{index}-{number}"
            pictures.mkdir()
            drawn = [prompts[i % len(prompts)] for i in range(share + 1)]
            task = each.subject.task(asked, drawn, work, folder=str(pictures))
            each.outcomes.append(processes.run(each.subject.python, ["draw", each.subject.system], task, heard))


def _compare(asked: Asked, every: list[_Measured], folder: Path, work: Path, counter: _Counter) -> list[dict[str, Any]]:
    """Hold each first picture against the one drawn in f32. Returns how those were drawn."""
    told = []
    for count in asked.counts:
        exact = reference(asked, count)
        home = folder / f"reference-{count}"
        home.mkdir()
        task = exact.task(asked, _prompts(asked)[:1], work, folder=str(home), precision="f32")
        outcome = processes.run(exact.python, ["draw", exact.system], task, counter.pictures("the picture in f32", 1))
        told.append({"name": exact.name, "count": count, "settings": exact.settings, **outcome.record()})
        if outcome.failure is not None:
            continue
        picture = np.load(home / "0.npy")
        for each in every:
            if each.subject.count == count and each.subject.family == exact.family and each.failure is None:
                _hold_against(each, picture)
    return told


def _hold_against(each: _Measured, picture: Any) -> None:
    if not each.outcomes[0].told("opened")[0]["same_noise"]:
        each.notes.append("its noise is not that of the same seed, so its picture is not compared")
        return
    drawn = np.load(each.outcomes[0].told("drawn")[0]["file"])
    if drawn.shape == picture.shape:
        each.distance = distance(drawn, picture)
        each.notes += _other_precision(each)
    else:
        each.notes.append(f"its picture is of another size ({drawn.shape[2]}x{drawn.shape[1]}), and not compared")


def _other_precision(each: _Measured) -> list[str]:
    """Say of another system's picture that it was not computed in f32, as what it is compared with was."""
    computed = each.outcomes[0].told("drawn")[0]["computed"].values()
    if each.subject.system == "vinograph":
        return []  # whose precisions are what its rows are there to compare
    others = [
        name for name, words in _REDUCED.items() if any(word in told.split() for told in computed for word in words)
    ]
    return [
        f"it computed in {name}, and PSNR and SSIM are to a picture in f32: most of the difference may be {name}'s; "
        "--precision f32 compares the systems themselves"
        for name in others
    ]


def _judge(asked: Asked, judged: list[_Measured], root: Path, folder: Path, work: Path, counter: _Counter) -> None:
    """Ask the probe what the embedded models drew of prompts that they don't know."""
    prompts = judge.prompts(root, asked.adherence) if judged else []
    for index, each in enumerate(judged):
        heard = counter.pictures(f"{each.subject.label}: adherence", len(prompts))
        if each.failure is not None or each.subject.count != asked.counts[0]:
            continue
        home = folder / f"judged-{index}"
        home.mkdir()
        task = each.subject.task(asked, prompts, work, folder=str(home), count=1)
        outcome = processes.run(each.subject.python, ["draw", each.subject.system], task, heard)
        if outcome.failure is None:
            each.adherence = judge.judge(root, home, len(prompts))
        else:
            each.notes.append(f"drawing for adherence failed: {outcome.failure}")


def _row(measured: _Measured, work: Path) -> dict[str, Any]:
    """Everything that is known of a subject."""
    subject, outcomes = measured.subject, measured.outcomes
    drawn = [each.told("drawn") for each in outcomes if each.told("drawn")]
    firsts, later = [each[0] for each in drawn], [run for each in drawn for run in each[1:]]
    taken = [run["seconds"] for run in later]
    stolen = [run["stolen"] for run in later or firsts]
    per_picture = statistics.median(taken) / subject.count if taken else None
    peaks = Peaks(*(max((getattr(o.peaks, k) for o in outcomes), default=0) for k in asdict(Peaks())))
    made = subject.made(work)
    return {
        "name": subject.name,
        "system": subject.system,
        "source": str(subject.source),
        "python": subject.python,
        "family": subject.family,
        "count": subject.count,
        "settings": dict(subject.settings),
        "vae": subject.vae,
        "size": bytes_below(made) if made is not None and made.is_dir() else subject.size,
        "failure": measured.failure,
        "notes": [*_once(outcomes), *_disturbed(stolen), *measured.notes],
        "versions": next((e["versions"] for o in outcomes for e in o.told("started")), {}),
        "computed": firsts[0]["computed"] if firsts else {},
        "load": _load(outcomes),
        "first": _median([each["at"] for each in firsts]),
        "first_drawing": _median([each["seconds"] for each in firsts]),
        "first_stages": _stages(firsts),
        "seconds": taken,
        "stolen": stolen,
        "seconds_per_picture": per_picture,
        "pictures_per_minute": 60 / per_picture if per_picture else None,
        "stages": _stages(later),
        "peaks": asdict(peaks),
        **{"psnr": None, "ssim": None, **measured.distance},
        "adherence": measured.adherence or None,
        "processes": [each.record() for each in outcomes],
    }


def _once(outcomes: Sequence[Outcome]) -> list[str]:
    """What was done beside drawing: during a first picture, or one that was then drawn again."""
    told = [each for outcome in outcomes for each in outcome.told("once")]
    return [f"{each['what']} (in {'a later' if each['picture'] else 'the first'} picture)" for each in told]


def _disturbed(stolen: Sequence[float]) -> list[str]:
    """Of a machine that shares its hardware, where that cost much of the time."""
    if not stolen or statistics.median(stolen) < _DISTURBED:
        return []
    told = f"{statistics.median(stolen):.0%}" + (f" (up to {max(stolen):.0%})" if len(stolen) > 1 else "")
    return [f"other guests of the hardware had {told} of the processors while it drew; measure again in a quieter hour"]


def _load(outcomes: Sequence[Outcome]) -> dict[str, float | None]:
    """Seconds from the process's start to what is imported, and from there to what is ready to draw; and both."""
    ready = [each for each in outcomes if each.told("opened")]
    imported = [each.told("imported")[0]["at"] for each in ready]
    opened = [each.told("opened")[0]["at"] for each in ready]
    return {
        "import": _median(imported),
        "open": _median([end - begin for begin, end in zip(imported, opened, strict=True)]),
        "whole": _median(opened),
    }


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _stages(runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The median of each stage over the runs that had it."""
    names = dict.fromkeys(name for run in runs for name in run["stages"])
    return {name: statistics.median([run["stages"].get(name, 0.0) for run in runs]) for name in names}
