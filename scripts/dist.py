"""Builds the wheel and the source distribution, and tries both in clean environments: ``make dist``.

python -m scripts.dist [--home URL] [--out DIR] [--no-try]

``--home`` is the address of the project's repository, by default that of git's remote "origin".
Links in the README then lead there, and the project's URLs do. Without an address, the links
become plain text: nothing in a distribution leads nowhere.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Collection
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILES = ("pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "MANIFEST.in")
_LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")
_REMOTE = re.compile(r"(?:https://|git@)(?P<host>[\w.-]+)[/:](?P<path>[\w./-]+?)(?:\.git)?/?")
_TAKES = ("Homepage", ""), ("Documentation", "/tree/main/docs"), ("Issues", "/issues"), ("Source", "")
_NEVER = ("tests", "training", "benchmarks", "scripts", "docs")
_KINDS = ("sdist", "wheel")
_BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"


def main() -> None:
    """Build both, check what they contain, and try them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", metavar="URL", default=home_of_remote(), help="the address of the repository")
    parser.add_argument("--out", metavar="DIR", type=Path, default=ROOT / "dist", help="where to write both")
    parser.add_argument("--no-try", action="store_true", help="don't install them")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vinograph-dist-") as folder:
        python = environment(Path(folder) / "build", "setuptools>=77")
        files = build(python, stage(Path(folder) / "staged", arguments.home), arguments.out)
        for file in files:
            check(names(file))
            print(f"{file}  {file.stat().st_size / 1e6:.1f} MB")
        for number, file in enumerate(() if arguments.no_try else files):
            attempt(file, Path(folder) / f"try-{number}")
            print(f"{file.name} draws in a clean environment")


def home_of_remote() -> str | None:
    """The repository's address, of git's remote "origin"; None if there is none on the web."""
    command = ["git", "-C", str(ROOT), "remote", "get-url", "origin"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # no git
        return None
    found = _REMOTE.fullmatch(done.stdout.strip())
    return f"https://{found['host']}/{found['path']}" if found else None


def stage(folder: Path, home: str | None) -> Path:
    """Copy what is distributed to ``folder``, with links that work outside of the repository."""
    folder.mkdir(parents=True)
    for name in FILES:
        shutil.copy(ROOT / name, folder / name)
    ignored = shutil.ignore_patterns("*.egg-info", "__pycache__")
    shutil.copytree(ROOT / "src", folder / "src", ignore=ignored)
    readme, project = folder / "README.md", folder / "pyproject.toml"
    readme.write_text(with_absolute_links(readme.read_text("utf-8"), home), encoding="utf-8")
    project.write_text(with_urls(project.read_text("utf-8"), home), encoding="utf-8")
    return folder


def with_absolute_links(text: str, home: str | None) -> str:
    """The text with its relative links made absolute; without a ``home``, they become plain text."""

    def replaced(link: re.Match[str]) -> str:
        picture, label, target = link["picture"], link["text"], link["target"]
        if re.match(r"[a-z]+:|#", target):
            return link[0]
        if home is None:
            return "" if picture else label
        kind = "raw" if picture else "tree" if (ROOT / target).is_dir() else "blob"
        return f"{picture}[{label}]({home}/{kind}/main/{target})"

    return _LINK.sub(replaced, text)


def with_urls(project: str, home: str | None) -> str:
    """The text of pyproject.toml with the project's URLs."""
    if home is None:
        return project
    urls = "".join(f'{name} = "{home}{path}"\n' for name, path in _TAKES)
    return project.replace("[project.scripts]", f"[project.urls]\n{urls}\n[project.scripts]", 1)


def environment(folder: Path, *packages: str) -> Path:
    """A fresh virtual environment with these packages; returns its interpreter."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", *packages], check=True)
    return python


def build(python: Path, staged: Path, out: Path) -> list[Path]:
    """Build the source distribution and the wheel of the ``staged`` project, by setuptools."""
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    files = []
    for kind in _KINDS:  # each in its own process: setuptools remembers where it wrote the first
        command = [str(python), "-c", _BUILD, f"build_{kind}", str(out)]
        done = subprocess.run(command, cwd=staged, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"building the {kind} failed:\n{done.stdout}{done.stderr}")
        files.append(out / done.stdout.splitlines()[-1])
    return files


def names(file: Path) -> set[str]:
    """The files in a wheel or a source distribution, without the latter's own folder."""
    if file.suffix == ".whl":
        with zipfile.ZipFile(file) as wheel:
            return {each for each in wheel.namelist() if not each.endswith("/")}
    with tarfile.open(file) as archive:
        return {each.name.partition("/")[2] for each in archive if each.isfile()}


def check(there: Collection[str]) -> None:
    """Check that a distribution has the package with its models, and no tests.

    Ends the program where something is missing, or too much.
    """
    package = {each.removeprefix("src/") for each in there}
    wanted = {str(each.relative_to(ROOT / "src")) for each in packaged()}
    if missing := sorted(wanted - package):
        sys.exit(f"the distribution lacks {len(missing)} files, such as {missing[0]}")
    if surplus := sorted(each for each in there if each.split("/")[0] in _NEVER):
        sys.exit(f"the distribution has {len(surplus)} files too many, such as {surplus[0]}")


def packaged() -> list[Path]:
    """Every file of the package in this clone."""
    files = (each for each in (ROOT / "src" / "vinograph").rglob("*") if each.is_file())
    return [each for each in files if "__pycache__" not in each.parts and each.suffix != ".pyc"]


def attempt(file: Path, folder: Path) -> None:
    """Install a distribution in a clean environment, and draw with it in an empty folder."""
    python = environment(folder / "environment", str(file))
    place = folder / "place"
    place.mkdir()
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    variables["VINOGRAPH_CACHE"] = str(folder / "cache")
    picture = ("generate", "a red house on a snowy hill at night", "--seed", "7", "--output", "house.png")
    for arguments in (("--version",), ("verify", "storybook-wuerstchen"), picture, ("inspect", "house.png")):
        subprocess.run([str(python), "-m", "vinograph", *arguments], cwd=place, env=variables, check=True)


if __name__ == "__main__":
    main()
