"""Ray clusters of several nodes on this machine, and batches on them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.batch.batches import AS_DRAWN
from tests.cli.conftest import SOURCE, command, environment

NODE = {"object_store_memory": 80_000_000, "include_log_monitor": False}

# Ray warns of its own use of what it has deprecated.
RAYS_OWN = ("-W", "ignore::DeprecationWarning:ray.data.context")

# A prompt can end the process that draws it, or the actor that process belongs to.
DEADLY = """
import os, sys
if sys.orig_argv[2:4] == ["-m", "vinograph.batch.worker"]:
    import vinograph.batch.drawing as drawing
    whole = drawing._drawn
    def drawn(pipe, job, stopped):
        if "ends its process" in job.arguments["prompt"]:
            os.kill(os.getpid(), 9)
        if "ends its actor" in job.arguments["prompt"]:
            os.kill(os.getppid(), 9)
        return whole(pipe, job, stopped)
    drawing._drawn = drawn
"""


class Nodes:
    """A cluster whose head draws nothing."""

    def __init__(self, folder: Path, count: int) -> None:
        from ray.cluster_utils import Cluster

        (folder / "sitecustomize.py").write_text(DEADLY)
        os.environ["PYTHONPATH"] = f"{SOURCE}{os.pathsep}{folder}"
        head = {"num_cpus": 0, "include_dashboard": False, "dashboard_port": _free_port(), **NODE}
        self._cluster = _patiently(lambda: Cluster(initialize_head=True, head_node_args=head))
        self._nodes: list[Any] = []
        for _ in range(count):
            self.add()

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def add(self) -> None:
        """Start a node with one processor."""
        self._nodes.append(_patiently(lambda: self._cluster.add_node(num_cpus=1, **NODE)))

    def kill(self) -> None:
        """Kill the node that was started first."""
        self._cluster.remove_node(self._nodes.pop(0), allow_graceful=False)

    def shutdown(self) -> None:
        self._cluster.shutdown()


def _free_port() -> int:
    """A port of this machine: others may have a cluster with Ray's own."""
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        return int(any_port.getsockname()[1])


def _patiently(start: Callable[[], Any]) -> Any:
    """Start something once more where a busy machine took longer than Ray waits, which is 30 s."""
    for _ in range(3):
        try:
            return start()
        except Exception as error:
            if "timed out during startup" not in str(error):
                raise
    return start()


@contextmanager
def nodes(folder: Path, count: int) -> Iterator[Nodes]:
    """A cluster of so many nodes that draw."""
    variables = {"RAY_USAGE_STATS_ENABLED": "0"}
    before = {name: os.environ.get(name) for name in (*variables, "PYTHONPATH")}
    os.environ.update(variables)
    cluster = None
    try:
        cluster = Nodes(folder, count)
        yield cluster
    finally:
        if cluster is not None:
            cluster.shutdown()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def start_on(cluster: Nodes, prompts: Path, out: Path | str, *more: object) -> subprocess.Popen[str]:
    """Start a batch on a cluster."""
    words = command("batch", prompts, out, *AS_DRAWN, "--json", "--ray", cluster.address, *more)
    assert words[:3] == [sys.executable, "-W", "error"]
    return subprocess.Popen(
        [*words[:3], *RAYS_OWN, *words[3:]],
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
