"""Commands and examples in the documents work, and their pictures show the prompts."""

import ast
import re
import shlex
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import typer
import typer.core
from PIL import Image

from tests.bundles import save_bundle, save_pixart_bundle, save_sdxl_bundle
from training.probe import adherence, predict
from training.world import stated_attributes
from vinograph.cli import main
from vinograph.cli.application import application
from vinograph.models import catalog

ROOT = Path(__file__).parent.parent
FOLDERS = ("benchmarks", "training", "scripts")
TOLD_IN = [
    ROOT / "Makefile",
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    *(file for folder in FOLDERS for kind in ("*.md", "*.py") for file in (ROOT / folder).rglob(kind)),
]
OURS = "|".join(FOLDERS)
COMMAND = re.compile(rf"python (?:(?P<path>(?:{OURS})/[\w/]+\.py)|-m (?P<module>(?:{OURS})[\w.]+))")


def commands() -> set[tuple[str, str]]:
    """Every documented script's path, and whether it is run by path or as a module."""
    found = set()
    for file in TOLD_IN:
        for match in COMMAND.finditer(file.read_text(encoding="utf-8")):
            path, module = match["path"], match["module"]
            found.add((path, "path") if path else (script_of(module.rstrip(".")), "module"))
    return found


def script_of(module: str) -> str:
    """The file that ``python -m`` runs."""
    place = module.replace(".", "/")
    return f"{place}/__main__.py" if (ROOT / place).is_dir() else f"{place}.py"


def imported(script: Path) -> set[str]:
    """The packages that a script imports, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {each.name.split(".")[0] for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def test_the_documents_run_scripts_by_path_and_as_modules() -> None:
    assert {kind for _, kind in commands()} == {"path", "module"}


@pytest.mark.parametrize(("script", "kind"), sorted(commands()))
def test_a_documented_script_exists_and_its_imports_do(script: str, kind: str) -> None:
    assert (ROOT / script).is_file()
    if kind == "path":  # Python then looks for packages in the script's folder, not in the project's root
        assert not imported(ROOT / script) & set(FOLDERS), f"run it by `python -m {script[:-3].replace('/', '.')}`"


PYTHON_IN = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(?P<language>python|sh)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(file: Path, language: str) -> list[str]:
    """The examples in a document, in order."""
    return [each["code"] for each in BLOCK.finditer(file.read_text(encoding="utf-8")) if each["language"] == language]


def shell_commands(file: Path) -> list[list[str]]:
    """Every command in a document's shell examples, split into words."""
    lines = [line for code in blocks(file, "sh") for line in code.replace("\\\n", " ").splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the pictures and models that the examples name, as quick models."""
    models = tmp_path / "models"
    for name, save in (
        ("wuerstchen", save_bundle),
        ("pixart", partial(save_pixart_bundle, sample_size=128)),
        ("pixart-lcm", partial(save_pixart_bundle, sample_size=128)),
        ("sdxl-turbo", save_sdxl_bundle),
    ):
        save(models / name)
    for name in ("photo.jpg", "mask.png"):
        Image.new("RGB", (512, 512), "white").save(tmp_path / name)
    monkeypatch.setenv("VINOGRAPH_MODELS", str(models))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize("file", [each for each in PYTHON_IN if blocks(each, "python")], ids=lambda each: each.name)
def test_python_examples_run(file: Path) -> None:
    names: dict[str, object] = {}
    for number, code in enumerate(blocks(file, "python"), 1):
        exec(compile(code, f"{file.name}, example {number}", "exec"), names)


def test_no_document_with_python_is_left_out() -> None:
    assert {each.name for each in PYTHON_IN if blocks(each, "python")} >= {"README.md", "wuerstchen.md", "sdxl.md"}
    assert not [each for each in PYTHON_IN if re.search(r"^```(py|python3|pycon)$", each.read_text("utf-8"), re.M)]


class TestReadme:
    FILE = ROOT / "README.md"

    def drawn(self, prompt: str, file: str) -> None:
        """Whether the probe finds all that ``prompt`` states in the picture."""
        with Image.open(file) as picture:
            pixels = np.asarray(picture.convert("RGB"))[None]
        _, whole, counts = adherence(predict(pixels), [stated_attributes(prompt)])
        assert whole == 1, f"{prompt}: {counts}"

    def test_the_readme_activates_the_environment_before_using_it(self) -> None:
        lines = [" ".join(words) for words in shell_commands(self.FILE)]
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        home = re.search(r"^BASE := (\S+)$", makefile, re.MULTILINE)
        assert home is not None
        assert lines[:2] == ["make picture", f"source {home[1]}/bin/activate"]
        assert all(not line.startswith(("vinograph", "pip")) for line in lines[:2])

    @pytest.mark.usefixtures("reader")
    def test_the_readmes_commands_draw_what_they_ask_for(self) -> None:
        ours = {each.name for each in catalog.embedded()}
        commands = [
            words
            for words in shell_commands(self.FILE)
            if words[:2] == ["vinograph", "generate"]
            and ("--model" not in words or words[words.index("--model") + 1] in ours)
        ]
        assert len(commands) >= 3
        for words in commands:
            assert main(words[1:]) == 0
            self.drawn(words[2], words[words.index("--output") + 1])

    @pytest.mark.usefixtures("reader")
    def test_the_readmes_python_draws_what_it_asks_for(self) -> None:
        (code,) = blocks(self.FILE, "python")
        exec(compile(code, "README.md", "exec"), {})
        found = re.search(r'pipe\("([^"]+)".*save\("([^"]+)"\)', code)
        assert found is not None
        self.drawn(found[1], found[2])

    def test_every_option_in_the_page_exists(self) -> None:
        known = typer.main.get_command(application())
        assert isinstance(known, typer.core.TyperGroup)
        commands = [words[1:] for words in shell_commands(self.FILE) if words[0] == "vinograph"]
        assert {words[0] for words in commands} >= {"generate", "convert", "quantize"}
        for name, *rest in commands:
            options = {each for parameter in known.commands[name].params for each in parameter.opts}
            assert {each for each in rest if each.startswith("--")} <= options
