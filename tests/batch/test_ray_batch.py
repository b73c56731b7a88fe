"""``vinograph batch --ray`` on real clusters of several nodes."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.batch.batches import finish, left_over, manifest, pictures, start, wait_for_pictures, write_prompts
from tests.batch.conftest import COUNT
from tests.batch.ray_clusters import Nodes, nodes, start_on
from tests.batch.test_batch_kills import LONG_COUNT, LONG_KILLS, check_complete, check_whole, kill_driver

pytestmark = pytest.mark.long  # a cluster of three nodes takes more than half a minute of processor time to start


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """A cluster of two nodes with a processor each."""
    with nodes(tmp_path_factory.mktemp("place"), 2) as cluster:
        yield cluster


def test_a_node_is_lost_and_another_joins(
    cluster: Nodes, prompts: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    out, first = tmp_path / "out", 4
    finish(start(prompts, out, "--workers", 1, "--limit", first))  # begun without Ray
    process = start_on(cluster, prompts, out)
    wait_for_pictures(process, out, first + 2)
    cluster.kill()
    cluster.add()
    said = finish(process)
    assert said["drawn"] + said["there"] == COUNT
    check_complete(out, undisturbed)
    assert sum(each["attempts"] for each in manifest(out)) <= COUNT
    again = finish(start(prompts, out, "--workers", 1))
    assert (again["drawn"], again["there"]) == (0, COUNT)


class TestCluster:
    def test_poison_rows_are_recorded_and_the_rest_is_drawn(self, cluster: Nodes, tmp_path: Path) -> None:
        rows = [
            {"prompt": "a red house", "seed": 7},
            {"prompt": "a house that ends its process"},
            {"prompt": "a tree", "height": 3},
            {"prompt": "a house that ends its actor"},
            {"prompt": "a tree", "image": "none.png"},
            {"prompt": 5},
            {"prompt": "a red house", "seed": 7},
            {"prompt": "a blue house", "seed": 7},
        ]
        file, out = tmp_path / "rows.jsonl", tmp_path / "out"
        file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        process = start_on(cluster, file, out, "--attempts", "2")
        said, err = process.communicate(timeout=600)
        assert process.returncode == 2, err
        records = {each["rows"][0]: each for each in manifest(out)}
        assert [row for row, each in sorted(records.items()) if each["status"] == "done"] == [1, 8]
        assert records[1]["rows"] == [1, 7]
        wanted = {2: "SIGKILL", 3: "height", 4: "again and again", 5: "none.png", 6: "prompt is 5"}
        assert not [row for row, word in wanted.items() if word not in records[row]["error"]]
        assert {records[row]["attempts"] for row in (2, 4)} == {2}
        assert json.loads(said)["failed"] == 5

    def test_a_place_that_other_machines_do_not_see(self, cluster: Nodes, prompts: Path) -> None:
        process = start_on(cluster, prompts, "memory://pictures")
        _, err = process.communicate(timeout=300)
        assert process.returncode == 2, err
        assert "doesn't see the folder memory://pictures" in err
        assert "Traceback" not in err

    def test_a_dry_run_counts_the_machines(self, cluster: Nodes, prompts: Path, tmp_path: Path) -> None:
        said = finish(start_on(cluster, prompts, tmp_path / "out", "--dry-run"))
        assert said["pictures"] == COUNT
        assert 0 < said["hours"] < 1
        assert not (tmp_path / "out").exists()

    def test_ctrl_c_ends_it(self, cluster: Nodes, tmp_path: Path) -> None:
        many, out = write_prompts(tmp_path / "many.txt", 2000), tmp_path / "out"
        process = start_on(cluster, many, out)
        wait_for_pictures(process, out, 3)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "Traceback" not in err
        time.sleep(10)
        there = len(pictures(out))
        time.sleep(5)
        assert len(pictures(out)) == there

    def test_twenty_kills_of_2000_pictures(self, cluster: Nodes, tmp_path: Path) -> None:
        prompts = write_prompts(tmp_path / "many.txt", LONG_COUNT)
        finish(start(prompts, tmp_path / "undisturbed", "--workers", 1))
        undisturbed, out, random = pictures(tmp_path / "undisturbed"), tmp_path / "out", Random(0)
        process = start_on(cluster, prompts, out)
        for number, count in enumerate(sorted(random.sample(range(1, LONG_COUNT - 50), LONG_KILLS))):
            wait_for_pictures(process, out, count)
            if number % 2:
                cluster.kill()
                cluster.add()
            else:
                kill_driver(process)
                check_whole(out, undisturbed)
                process = start_on(cluster, prompts, out)
        finish(process)
        check_complete(out, undisturbed)
        assert not left_over(out)
        # A node has one picture under way, and the process of a driver that was killed may write its last.
        assert sum(each["attempts"] for each in manifest(out)) <= LONG_COUNT + 2 * LONG_KILLS

    def test_a_million_rows_start_at_once_in_little_memory(self, cluster: Nodes, tmp_path: Path) -> None:
        prompts, out = tmp_path / "million.jsonl", tmp_path / "out"
        with prompts.open("w", encoding="utf-8") as stream:
            for index in range(1_000_000):
                stream.write(json.dumps({"prompt": f"a house number {index} on a hill", "seed": index}) + "\n")
        finish(start_on(cluster, prompts, out, "--limit", 1))  # which measures
        started = time.monotonic()
        with start_on(cluster, prompts, out) as process:
            try:
                wait_for_pictures(process, out, 2)
                assert time.monotonic() - started < 10
                time.sleep(60)
                status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
            finally:
                process.kill()
        peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
        assert peak < 500_000
