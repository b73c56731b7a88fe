"""Many clients at once, of whom a fifth hang up: nothing is lost, and nothing is wrong."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Mapping

import pytest

from benchmarks.serving_load import Pixels, Report, Wish, expected, load, wishes
from tests.serve.serving import Running, running

MODELS = ("storybook-sdxl", "storybook-pixart")


@pytest.fixture(scope="module")
def known() -> Mapping[Wish, Pixels]:
    """Pictures, drawn one after the other in this process."""
    return expected(wishes(MODELS, 10, random.Random(3)))


@pytest.fixture(scope="module")
def crowded() -> Iterator[Running]:
    """A server that keeps a place for each client."""
    options = [option for model in MODELS for option in ("--model", model)]
    with running(*options, "--limit", "queue=50") as started:
        yield started


def loaded(server: Running, known: Mapping[Wish, Pixels], requests: int, clients: int) -> Report:
    """What became of the requests, once the server has passed the load."""
    report = asyncio.run(
        load(server.address, server.process.pid, known, requests=requests, clients=clients, dropped=0.2)
    )
    assert not report.problems
    assert (report.wrong, report.lost, report.jobs_at_end) == (0, 0, 0)
    assert sum(report.outcomes.values()) >= requests
    assert any(name.endswith("hung up") for name in report.outcomes)
    server.wait_until_ready()
    return report


def test_every_client_gets_its_picture(crowded: Running, known: Mapping[Wish, Pixels]) -> None:
    report = loaded(crowded, known, requests=70, clients=20)
    assert {name.partition(":")[0] for name in report.outcomes} >= {
        "generation",
        "stream",
        "edit",
        "txt2img",
        "mistake",
    }


@pytest.mark.long
def test_memory_is_flat_over_ten_thousand_requests(crowded: Running, known: Mapping[Wish, Pixels]) -> None:
    report = loaded(crowded, known, requests=10_000, clients=50)
    assert abs(report.growth) < 0.05
