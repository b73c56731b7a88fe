"""The server through Ray Serve under many clients: replicas are killed, added and ended, and no request is lost."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.serve.serving import MODEL, ROOT, Answer, Running, running, until
from tests.serve.test_ray_serve import DRAW, PROMPT, RAY, replica_processes

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

pytestmark = pytest.mark.long
CLIENTS = 20
SEEDS = range(5)
DELAYS = {"VINOGRAPH_RAY_UPSCALE_DELAY": "1", "VINOGRAPH_RAY_DOWNSCALE_DELAY": "5"}


@pytest.fixture(scope="module")
def scaling() -> Iterator[Running]:
    """A server of one or two replicas, with a place for each client."""
    options = ("--replicas", "1-2", "--limit", f"queue={CLIENTS}")
    with running("--model", MODEL, *RAY, *options, environment=DELAYS) as server:
        yield server


def asked(seed: int) -> dict[str, object]:
    """A request that takes about half a second."""
    return {**PROMPT, "seed": seed, "num_inference_steps": 10}


@pytest.fixture(scope="module")
def known(scaling: Running) -> Sequence[str]:
    """The pictures of the seeds, drawn one after the other."""
    return [scaling.ask(DRAW, asked(seed)).json["data"][0]["b64_json"] for seed in SEEDS]


def crowd(server: Running, pool: ThreadPoolExecutor, requests: int) -> list[tuple[int, Future[Answer]]]:
    """Requests of many clients at once, with the numbers of their seeds."""
    seeds = itertools.islice(itertools.cycle(SEEDS), requests)
    return [(seed, pool.submit(server.ask, DRAW, asked(seed))) for seed in seeds]


def until_done(answers: Sequence[tuple[int, Future[Answer]]], count: int) -> None:
    """Wait until so many are done."""
    until(lambda: sum(each.done() for _, each in answers) >= count)


def check(known: Sequence[str], answers: Sequence[tuple[int, Future[Answer]]]) -> int:
    """Check that each answer is the right picture or a clean error; returns how many are errors."""
    errors = 0
    for seed, each in answers:
        answer = each.result()
        if answer.status == 200:
            assert answer.json["data"][0]["b64_json"] == known[seed]
        else:
            assert (answer.status, answer.json["error"]["code"]) == (500, "worker_lost"), answer.body
            errors += 1
    return errors


def test_a_replica_killed_under_twenty_clients_costs_no_client_its_answer(
    scaling: Running, known: Sequence[str]
) -> None:
    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = crowd(scaling, pool, 3 * CLIENTS)
        for share in (4, 2):
            until_done(answers, len(answers) // share)
            for pid in replica_processes(scaling.process.pid):
                os.kill(pid, signal.SIGKILL)
        assert check(known, answers) <= 2  # a drawing that both kills met
    until(lambda: "a replica was lost" in scaling.log)  # Ray passes on what replicas log, after a while


def test_scaling_to_two_replicas_and_back_loses_no_request(scaling: Running, known: Sequence[str]) -> None:
    def count() -> int:
        return len(replica_processes(scaling.process.pid))

    until(lambda: count() == 1)
    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = crowd(scaling, pool, CLIENTS)
        while count() < 2:  # the load goes on until there is another
            answers += crowd(scaling, pool, CLIENTS)
            for _, each in answers[-CLIENTS:]:
                each.result()
            assert len(answers) < 100 * CLIENTS, "there was no second replica"
        answers += crowd(scaling, pool, 2 * CLIENTS)
        for _, each in answers:
            each.result()
        while count() > 1:  # somebody draws while a replica is ended
            answers += crowd(scaling, pool, 1)
            answers[-1][1].result()
            time.sleep(0.2)
        answers += crowd(scaling, pool, 1)
        assert check(known, answers) == 0


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[Cluster]:
    """A cluster of two nodes with a processor each."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # all of it at a loopback address
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", str(ROOT / "src"))
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        try:
            cluster.add_node(num_cpus=1)
            yield cluster
        finally:
            cluster.shutdown()


def test_a_node_that_is_lost_costs_no_request_and_another_joins(two_nodes: Cluster) -> None:
    options = ("--ray", two_nodes.address, "--replicas", "2", "--limit", f"queue={CLIENTS}")
    with running("--model", MODEL, *options) as server, ThreadPoolExecutor(CLIENTS) as pool:
        known = [server.ask(DRAW, asked(seed)).json["data"][0]["b64_json"] for seed in SEEDS]
        answers = crowd(server, pool, 3 * CLIENTS)
        until_done(answers, CLIENTS)
        (lost,) = two_nodes.worker_nodes
        two_nodes.remove_node(lost, allow_graceful=False)
        assert check(known, answers) == 0
        two_nodes.add_node(num_cpus=1)
        assert check(known, crowd(server, pool, CLIENTS)) == 0
        assert server.ask("/readyz").status == 200
