"""The command ``doctor``, which checks this machine and this installation."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from vinograph import __version__
from vinograph.cli import output
from vinograph.cli.options import DEFAULT_MODEL, AsJson
from vinograph.errors import VinographError
from vinograph.models import catalog
from vinograph.models.bundle import Bundle

PACKAGES = ("openvino", "numpy", "pillow", "tokenizers", "huggingface_hub", "filelock", "typer", "rich")
# What each extra of pyproject.toml is for. Its packages are read from the installed metadata.
EXTRAS: Mapping[str, str] = {
    "quantize": "smaller and faster models: vinograph quantize",
    "web": "the web page: vinograph web",
    "serve": "the HTTP server: vinograph serve",
    "batch": "Parquet files and cloud storage: vinograph batch",
    "ray": "many machines: vinograph batch --ray, vinograph serve --ray",
    "captions": "cleaning of prompts: --clean-caption on",
    "benchmark": "charts: vinograph benchmark --chart",
    "docs": "the documentation site, from a clone: make site",
    "train": "training of models and adapters, from a clone",
    "dev": "the tests, from a clone",
}
_REQUIREMENT = re.compile(r"([\w.-]+)[^;]*;\s*extra\s*==\s*[\"'](\w+)[\"']")
_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_bf16", "amx_int8")
_LITTLE_MEMORY = 2e9
_LITTLE_DISK = 1e9


class _Bytes(int):
    """A byte count: a number in JSON, but "3.2 MB" as text."""

    def __str__(self) -> str:
        return output.size(int(self))


@dataclass
class Findings:
    """Facts by name, warnings that break nothing, and problems with their exit codes."""

    facts: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    problems: list[tuple[str, int]] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """Exit code of the first problem; 0 if there is none."""
        return self.problems[0][1] if self.problems else 0


def doctor(
    draw: Annotated[bool, typer.Option("--draw", help="draw a picture with the default model too")] = False,
    as_json: AsJson = False,
) -> None:
    """Check this machine and this installation.

    The exit code is 0 despite warnings. After a problem it is that error's own, such as 4 for a
    damaged model.
    """
    findings = Findings()
    _check_machine(findings)
    _check_packages(findings)
    _check_devices(findings)
    _check_models(findings)
    if draw:
        _try_drawing(findings)
    _show(findings, as_json=as_json)
    raise typer.Exit(findings.exit_code)


def _show(findings: Findings, *, as_json: bool) -> None:
    problems = [text for text, _ in findings.problems]
    if as_json:
        output.print_json({**findings.facts, "warnings": findings.warnings, "problems": problems})
    else:
        output.table([], [[name.replace("_", " "), _text(value)] for name, value in findings.facts.items()])
    for warning in findings.warnings:
        output.warn(warning)
    for problem in problems:
        output.note(f"problem: {problem}")


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return "\n".join(f"{name}: {_text(each)}" for name, each in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    return str(value)


def _check_machine(findings: Findings) -> None:
    from vinograph import resources
    from vinograph.runtime.devices import processor_flags

    findings.facts["vinograph"] = __version__
    findings.facts["python"] = platform.python_version()
    findings.facts["platform"] = platform.platform()
    flags = processor_flags()
    findings.facts["processor_features"] = [each for each in _FEATURES if each in flags]
    findings.facts["cores"] = {"present": os.cpu_count() or 1, "allowed": resources.cpu_count()}
    available = _Bytes(resources.memory_available())
    findings.facts["memory"] = {"total": _Bytes(resources.memory_installed()), "available": available}
    if 0 < available < _LITTLE_MEMORY:
        findings.warnings.append(f"only {available} of memory are free: large models will not fit")
    free = _Bytes(shutil.disk_usage(Path.cwd()).free)
    findings.facts["disk_free_here"] = free
    if free < _LITTLE_DISK:
        findings.warnings.append(f"only {free} are free on the disk of {Path.cwd()}")


def _check_packages(findings: Findings) -> None:
    findings.facts["packages"] = {name: _version(name) or "missing" for name in PACKAGES}
    for name, version in findings.facts["packages"].items():
        if version == "missing":
            findings.problems.append((f"the package {name} is missing: pip install vinograph", 1))
    findings.facts["extras"] = {name: _extra(name, packages) for name, packages in extras().items()}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def extras() -> dict[str, list[str]]:
    """The packages of each extra, as this installation's own metadata name them."""
    found: dict[str, list[str]] = {name: [] for name in EXTRAS}
    try:
        requirements = importlib.metadata.requires("vinograph") or []
    except importlib.metadata.PackageNotFoundError:  # it runs from a folder on PYTHONPATH
        requirements = []
    for each in requirements:
        if (match := _REQUIREMENT.match(each)) is not None:
            found.setdefault(match[2], []).append(match[1])
    return found


def _extra(name: str, packages: Sequence[str]) -> str:
    versions = {each: _version(each) for each in packages}
    missing = [each for each, version in versions.items() if version is None]
    about = f"{EXTRAS[name]}; " if name in EXTRAS else ""
    if not packages:
        return f"{about}unknown, as Vinograph isn't installed as a package"
    if missing:
        return f'{about}not installed ({", ".join(missing)} missing): pip install "vinograph[{name}]"'
    return f"{about}{', '.join(f'{each} {version}' for each, version in versions.items())}"


def _check_devices(findings: Findings) -> None:
    from vinograph.runtime.devices import devices

    available = devices()
    findings.facts["devices"] = {each.id: f"{each.name} ({', '.join(each.precisions)})" for each in available}
    if not available:
        findings.problems.append(("OpenVINO finds no device on this machine", 1))
    if any(each.id == "CPU" for each in available):
        findings.facts["automatic_precision"] = _automatic_precision()


def _automatic_precision() -> str:
    """The precision that `--precision auto` stands for on the CPU, and why."""
    from vinograph.runtime.automatic import comparison
    from vinograph.runtime.devices import machine

    found = comparison()
    if found is None:
        return f"{machine().precision}, which OpenVINO chooses"
    f32, own = (f"{1000 * each:.2f} ms" for each in (found.f32_seconds, found.own_seconds))
    return f"{found.automatic_precision}: a matrix product takes {f32} in f32, {own} in {found.precision}"


def _check_models(findings: Findings) -> None:
    states = {}
    for path in catalog.embedded():
        states[path.name] = _state(path, findings, thorough=True)
    for path in catalog.installed():
        states[str(path)] = _state(path, findings, thorough=False)
    findings.facts["models"] = states
    if not catalog.embedded():
        findings.warnings.append("no model is embedded in this installation: name one with --model")


def _state(path: Path, findings: Findings, *, thorough: bool) -> str:
    """State of a bundle, by its files' sizes or, if ``thorough``, by their hashes."""
    try:
        bundle = Bundle.open(path)
        if thorough:
            list(bundle.verify())
    except VinographError as error:
        findings.problems.append((str(error), error.exit_code))
        return "damaged"
    return f"whole, {output.size(bundle.size)}"


def _try_drawing(findings: Findings) -> None:
    from vinograph.pipeline import Pipeline

    start = time.perf_counter()
    try:
        picture = Pipeline.from_pretrained(DEFAULT_MODEL)("a red house on a snowy hill", seed=7).images[0]
    except VinographError as error:
        findings.problems.append((f"drawing failed: {error}", error.exit_code))
        return
    findings.facts["drawing"] = f"{picture.width}x{picture.height} in {time.perf_counter() - start:.1f} s"
    if all(low == high for low, high in picture.getextrema()):
        findings.problems.append((f"{DEFAULT_MODEL} drew a picture of one colour", 1))
