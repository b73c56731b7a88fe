"""The settings of the server through Ray, and what is said where they are wrong."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest

from vinograph import RequestError
from vinograph.serve import configuration_sources, run
from vinograph.serve.configuration import Configuration, RayOptions, ServedModel


def ray_options(options: dict[str, Any], environment: dict[str, str] | None = None) -> RayOptions:
    return configuration_sources.load(options, environment or {}, "storybook-sdxl").configuration.ray


@pytest.mark.parametrize(
    ("given", "replicas"), [("2", (2, 2)), ("1-4", (1, 4)), (" 3 - 3 ", (3, 3)), ("10-10000", (10, 10000))]
)
def test_replicas_are_a_number_or_a_range(given: str, replicas: tuple[int, int]) -> None:
    assert ray_options({"ray.replicas": given}).replicas == replicas


@pytest.mark.parametrize("given", ["0-2", "4-1", "two", "1-", "1-2-3", "1.5"])
def test_other_replicas_are_refused(given: str) -> None:
    with pytest.raises(RequestError, match=r"--replicas is .*; give a number of replicas, or MIN-MAX"):
        ray_options({"ray.replicas": given})


def test_the_file_and_the_environment_have_all_of_them(tmp_path: Path) -> None:
    file = tmp_path / "serve.toml"
    file.write_text(
        '[ray]\naddress = "auto"\nreplicas = 3\ncpus = 8\nmemory = 4_000_000_000\nrequests_per_replica = 1.5\n'
        "upscale_delay = 2\ndownscale_delay = 60.0\n",
        encoding="utf-8",
    )
    expected = RayOptions("auto", (3, 3), 8, 4_000_000_000, 1.5, 2, 60.0)
    assert ray_options({"config": str(file)}) == expected
    names = {f"VINOGRAPH_RAY_{key.upper()}": str(value) for key, value in vars(expected).items()}
    assert ray_options({}, {**names, "VINOGRAPH_RAY_REPLICAS": "3"}) == expected


def test_a_misspelt_setting_is_told(tmp_path: Path) -> None:
    file = tmp_path / "serve.toml"
    file.write_text("[ray]\nreplica = 3\n", encoding="utf-8")
    with pytest.raises(RequestError, match=r"there is no setting 'replica'; did you mean replicas\?"):
        ray_options({"config": str(file)})


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere"])
def test_a_cluster_that_is_not_there_is_told(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    configuration = Configuration((ServedModel("a", "a"),), port=0, ray=RayOptions(address))
    with pytest.raises(RequestError, match=f"--ray '{address}': there is no Ray cluster .*start one by `ray start"):
        run(configuration, (), print, print)


def test_the_page_is_not_served_through_ray() -> None:
    with pytest.raises(RequestError, match="--page and --ray don't go together"):
        ray_options({"page": True, "ray.address": "auto"})


def test_without_ray_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ray" else find(name))
    configuration = Configuration((ServedModel("a", "a"),), ray=RayOptions("auto"))
    with pytest.raises(RequestError, match=r'--ray needs ray: pip install "vinograph\[serve,ray\]"'):
        run(configuration, (), print, print)
