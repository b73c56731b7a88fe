"""``vinograph batch`` as a command: what it draws, records and says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest
from PIL import Image

from tests.batch.batches import AS_DRAWN, drawing, manifest, pictures, write_prompts
from tests.cli.conftest import Outcome, environment
from vinograph import Pipeline
from vinograph.cli import main
from vinograph.images import read_metadata

Run = Callable[..., Outcome]


@contextmanager
def one_processor() -> Iterator[None]:
    """Have this process use one processor in the block."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.fixture
def batch(capfd: pytest.CaptureFixture[str]) -> Run:
    """``batch(PROMPTS, OUT, …)`` in this process."""

    def run(*arguments: object) -> Outcome:
        capfd.readouterr()
        code = main(["batch", *map(str, arguments), *AS_DRAWN, "--json"])
        printed = capfd.readouterr()
        return Outcome(code, printed.out, printed.err)

    return run


def test_a_poison_row_is_recorded_and_the_rest_is_drawn(batch: Run, tmp_path: Path) -> None:
    rows = [
        {"prompt": "a red house", "seed": 7},
        {"prompt": "a tree", "height": 3},
        {"prompt": 5},
        {"prompt": "a tree", "image": "none.png"},
        {"prompt": "a red house", "seed": 7},
        {"prompt": "a blue house", "seed": 2**64},
        {"prompt": "a green house", "seed": 7},
        {"prompt": "half a \ud800 pair"},
    ]
    file, out = tmp_path / "rows.jsonl", tmp_path / "out"
    file.write_text("\n".join(map(json.dumps, rows)) + "\nnothing\n", encoding="utf-8")
    done = batch(file, out, "--workers", 1)
    assert done.code == 2
    counts = ("drawn", "there", "same", "failed")
    assert [done.record[name] for name in counts] == [2, 0, 1, 6]
    assert "6 pictures failed" in done.err
    records = manifest(out)
    assert [each["rows"] for each in records] == [[1, 5], [2], [3], [4], [6], [7], [8], [9]]
    wanted = {2: "height", 3: "prompt is 5", 4: "none.png", 6: "seed", 8: "", 9: "no JSON object"}
    assert {each["rows"][0]: True for each in records if each["error"]} == dict.fromkeys(wanted, True)
    assert not [each for each in records if each["error"] and wanted[each["rows"][0]] not in each["error"]]
    assert {*pictures(out)} == {each["path"] for each in records if each["status"] == "done"}

    (out / records[0]["path"]).unlink()  # what is missing is drawn again, and nothing else
    again = batch(file, out, "--workers", 1)
    assert [again.record[name] for name in counts] == [1, 1, 1, 6]
    assert [each["sha256"] for each in manifest(out)] == [each["sha256"] for each in records]

    picture = out / records[0]["path"]
    metadata = read_metadata(picture)
    assert metadata is not None
    assert (metadata["request"]["prompt"], metadata["request"]["seed"]) == ("a red house", 7)
    assert (out / "manifest.parquet").is_file()
    with one_processor():  # the number of threads can change rounding
        same = Pipeline.from_pretrained("storybook-sdxl")("a red house", seed=7, height=128, width=128).images[0]
    with Image.open(picture) as drawn_picture:
        assert drawn_picture.tobytes() == same.tobytes()


def test_shards_share_a_folder_and_limits_end_early(batch: Run, tmp_path: Path) -> None:
    prompts, out = write_prompts(tmp_path / "prompts.txt", 8), tmp_path / "out"
    assert batch(prompts, out, "--limit", 2, "--workers", 1).record["drawn"] == 2
    drawn = [batch(prompts, out, "--shard", f"{index}/2", "--workers", 1).record for index in (1, 2)]
    assert sum(each["drawn"] for each in drawn) == 6
    assert len(pictures(out)) == 8
    keys = [each["key"] for index in (1, 2) for each in manifest(out, f"manifest-{index}-of-2.jsonl")]
    assert len({*keys}) == 8


def test_a_dry_run_draws_nothing_and_measures(batch: Run, tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts.txt", 1000)
    done = batch(prompts, tmp_path / "out", "--grid", "seed=1,2", "--limit", 1500, "--dry-run")
    assert done.code == 0, done.err
    assert done.record["pictures"] == 1500
    assert 0 < done.record["hours"] < 10
    assert 0.005 < done.record["gigabytes"] < 0.1
    assert not (tmp_path / "out").exists()


def test_a_url_is_written_to_by_fsspec(batch: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prompts = write_prompts(tmp_path / "prompts.txt", 2)
    for drawn in (2, 0):
        done = batch(prompts, f"local://{out}", "--workers", 1)
        assert (done.code, done.record["drawn"]) == (0, drawn), done.err
    assert {*pictures(out)} == {each["path"] for each in manifest(out)}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--workers", "0"], ["--workers is '0'"]),
        (["--shard", "3/2"], ["--shard is '3/2'", "1/4"]),
        (["--grid", "steps"], ["--grid is 'steps'", "steps=1,4"]),
        (["--grid", "decoder-steps=1,4"], ["--decoder-steps is not an option"]),
        (["--grid", "size=128x3"], ["height"]),
        (["--wildcards", "nowhere"], ["--wildcards nowhere is no folder"]),
    ],
)
def test_what_is_wrong_ends_it(batch: Run, tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    done = batch(write_prompts(tmp_path / "a.txt", 1), tmp_path / "out", *arguments)
    assert done.code == 2
    assert not [word for word in words if word not in done.err]
    assert not (tmp_path / "out").exists()


def test_a_folder_in_use_is_refused(batch: Run, tmp_path: Path) -> None:
    from vinograph.batch.index import Index

    (tmp_path / "out" / ".vinograph").mkdir(parents=True)
    index = Index(tmp_path / "out" / ".vinograph" / "index.sqlite")
    done = batch(write_prompts(tmp_path / "a.txt", 1), tmp_path / "out", "--workers", 1)
    index.close()
    assert done.code == 2
    assert "another batch draws into" in done.err


def test_the_documents_first_example_runs(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "batch.md").read_text(encoding="utf-8")
    example = re.search(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert example is not None
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(["bash", "-ec", example[1]], cwd=tmp_path, env=environment(PATH=path), check=True)
    assert len(pictures(tmp_path / "pictures")) == 3


@pytest.mark.long
def test_a_million_rows_start_at_once_in_little_memory(tmp_path: Path) -> None:
    prompts, out, random = tmp_path / "million.jsonl", tmp_path / "out", Random(1)
    with prompts.open("w", encoding="utf-8") as stream:
        for index in range(1_000_000):
            row = {"prompt": f"a house number {index} on a hill {random.random()}", "seed": index}
            stream.write(json.dumps(row) + "\n")
    started = time.monotonic()
    with subprocess.Popen(drawing(prompts, out, "--workers", 1), env=environment()) as process:
        try:
            while not list(out.glob("??/*.png")):
                assert process.poll() is None
                time.sleep(0.05)
            assert time.monotonic() - started < 10
            time.sleep(60)
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
        finally:
            process.kill()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    assert peak < 500_000
