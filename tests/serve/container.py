"""Runs the steps of a Dockerfile without a container engine, each stage in a directory of its own.

Absolute paths that the Dockerfile itself makes are moved below the stage's directory. Commands get
the environment that the file declares and nothing else. What it can't show is the base image.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_OWN_FOLDERS = ("/opt/vinograph", "/source", "/models", "/cache")


@dataclass
class Stage:
    """What the instructions of a stage have made so far."""

    root: Path
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    user: int = 0
    health_check: list[str] = field(default_factory=list)
    entry_point: list[str] = field(default_factory=list)

    def inside(self, text: str) -> str:
        """A text whose paths in the image are those on this machine."""
        for name in _OWN_FOLDERS:
            text = re.sub(rf"(?<![\w.]){name}(?![\w-])", f"{self.root}{name}", text)
        return text

    def variables(self) -> dict[str, str]:
        """The environment of a command: the image's python is the one that runs the tests."""
        declared = {name: self.inside(value) for name, value in self.environment.items()}
        python = str(Path(sysconfig.get_config_var("BINDIR")))
        path = declared.get("PATH", "/usr/local/bin:/usr/bin:/bin")
        return {**declared, "PATH": f"{path}:{python}" if "/opt/vinograph" in path else f"{python}:{path}"}

    def run(self, command: str) -> None:
        """Run a command of the build."""
        environment = {"HOME": str(self.root), **self.variables(), **_package_index()}
        done = subprocess.run(
            ["/bin/sh", "-ec", self.inside(command)],
            cwd=self.folder, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"

    def start(self, *options: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start the container's process, as its user where that user can run this machine's python."""
        allowed = os.geteuid() == 0 and _others_may_enter(Path(sys.executable).resolve())
        user: dict[str, Any] = {"user": self.user, "group": self.user, "extra_groups": ()} if allowed else {}
        command = [shutil.which(self.entry_point[0], path=self.variables()["PATH"]) or "", *self.entry_point[1:]]
        given = {**self.variables(), **environment}
        process: subprocess.Popen[bytes] = subprocess.Popen(
            [*command, *options], cwd="/", env=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **user
        )
        return process

    def is_healthy(self, port: int) -> bool:
        """Whether the health check passes, with the port that the test had to take."""
        command = [each.replace(":8080/", f":{port}/") for each in self.health_check]
        done = subprocess.run(command, env=self.variables(), capture_output=True, check=False)
        return done.returncode == 0


def build(dockerfile: Path, context: Path, target: Path) -> Stage:
    """Run all instructions; the last stage."""
    stages: dict[str, Stage] = {}
    stage: Stage | None = None
    for name, rest in instructions(dockerfile.read_text(encoding="utf-8")):
        if name == "FROM":
            root = target / f"stage-{len(stages)}"
            root.mkdir()
            stage = Stage(root, root)
            stages[rest.rpartition(" AS ")[2] if " AS " in rest else str(len(stages))] = stage
            continue
        assert stage is not None, "the first instruction is FROM"
        _follow(stage, stages, context, name, rest)
    assert stage is not None
    return stage


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """The instructions with their arguments, without comments."""
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if line.strip() and not line.startswith("#"):
            name, _, rest = line.strip().partition(" ")
            yield name, rest.strip()


def _follow(stage: Stage, stages: dict[str, Stage], context: Path, name: str, rest: str) -> None:
    if name == "WORKDIR":
        stage.folder = Path(stage.inside(rest))
        stage.folder.mkdir(parents=True, exist_ok=True)
    elif name == "COPY":
        _copy(stage, stages, context, shlex.split(rest))
    elif name == "RUN":
        stage.run(rest)
    elif name == "ENV":
        key, _, value = rest.partition("=")
        stage.environment[key] = value
    elif name == "USER":
        stage.user = int(rest.partition(":")[0])
    elif name == "HEALTHCHECK":
        stage.health_check = json.loads(rest[rest.index("[") :])
    elif name == "ENTRYPOINT":
        stage.entry_point = json.loads(rest)
    else:
        assert name in ("VOLUME", "EXPOSE", "STOPSIGNAL"), f"{name} isn't understood here"


def _copy(stage: Stage, stages: dict[str, Stage], context: Path, words: list[str]) -> None:
    origin = context
    if words[0].startswith("--from="):
        source = stages[words.pop(0).removeprefix("--from=")]
        words[0] = source.inside(words[0])
        _move_environment(Path(words[0]), Path(stage.inside(words[1])))
        return
    *sources, place = words
    target = stage.folder / stage.inside(place)
    for each in sources:
        if (origin / each).is_dir():
            shutil.copytree(origin / each, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        else:
            shutil.copy2(origin / each, target)


def _move_environment(source: Path, target: Path) -> None:
    """Copy a virtual environment: its scripts name its folder, which has the same name in both stages of an image."""
    shutil.copytree(source, target, symlinks=True)
    for script in (target / "bin").iterdir():
        if script.is_file() and not script.is_symlink() and (data := script.read_bytes()).startswith(b"#!"):
            script.write_bytes(data.replace(os.fsencode(source), os.fsencode(target)))


def _others_may_enter(file: Path) -> bool:
    return all(each.stat().st_mode & 0o001 for each in file.parents)


def _package_index() -> dict[str, str]:
    """Where pip finds packages on this machine: a build may need its own index."""
    kept = ("PIP_", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "SSL_CERT_FILE")
    return {name: value for name, value in os.environ.items() if name.startswith(kept)}


assert sys.platform != "win32", "a Dockerfile's commands are a shell's"
