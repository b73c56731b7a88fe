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


# tests/families/test_first_family.py compares its examples with the code, and runs its commands.
FIRST_FAMILY = ROOT / "docs" / "first-family.md"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUN_IN = [each for each in PAGES if each != FIRST_FAMILY]
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
@pytest.mark.parametrize("file", [each for each in RUN_IN if blocks(each, "python")], ids=lambda each: each.name)
def test_python_examples_run_one_after_the_other(file: Path) -> None:
    names: dict[str, object] = {}
    for number, code in enumerate(blocks(file, "python"), 1):
        exec(compile(code, f"{file.name}, example {number}", "exec"), names)


def test_all_documents_with_python_are_run() -> None:
    assert {each.name for each in RUN_IN if blocks(each, "python")} >= {"README.md", "wuerstchen.md", "sdxl.md"}
    assert not [each for each in RUN_IN if re.search(r"^```(py|python3|pycon)$", each.read_text("utf-8"), re.M)]


class TestReadme:
    FILE = ROOT / "README.md"

    def test_the_environment_is_activated_before_its_command_is_used(self) -> None:
        lines = [" ".join(words) for words in shell_commands(self.FILE)]
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        home = re.search(r"^BASE := (\S+)$", makefile, re.MULTILINE)
        assert home is not None
        assert lines[:2] == ["make picture", f"source {home[1]}/bin/activate"]
        assert all(not line.startswith(("vinograph", "pip")) for line in lines[:2])

    @pytest.mark.usefixtures("reader")
    def test_the_example_in_python_draws_its_prompt(self) -> None:
        (code,) = blocks(self.FILE, "python")
        exec(compile(code, "README.md", "exec"), {})
        found = re.search(r'pipe\("([^"]+)".*save\("([^"]+)"\)', code)
        assert found is not None
        assert_drawn(found[1], found[2])

    def test_it_fits_one_screen(self) -> None:
        assert len(self.FILE.read_text(encoding="utf-8").splitlines()) <= 55


def assert_drawn(prompt: str, file: str) -> None:
    """The probe finds in a picture what its prompt asks."""
    with Image.open(file) as picture:
        pixels = np.asarray(picture.convert("RGB").resize((256, 256)))[None]
    _, whole, counts = adherence(predict(pixels), [stated_attributes(prompt)])
    assert whole == 1, f"{prompt}: {counts}"


class TestEmbeddedModels:
    """The drawing commands that every reader can type at once."""

    FILES = (ROOT / "README.md", ROOT / "docs" / "start.md", ROOT / "docs" / "storybook.md")

    @pytest.mark.usefixtures("reader")
    def test_what_they_are_asked_is_what_they_draw(self) -> None:
        commands = {tuple(words): None for file in self.FILES for words in shell_commands(file) if draws_ours(words)}
        assert len(commands) >= 5
        for words in commands:
            assert main([in_the_clone(each) for each in words[1:]]) == 0
            assert_drawn(words[2], words[words.index("--output") + 1])


def draws_ours(words: list[str]) -> bool:
    """Whether a command draws with a model that a clone has."""
    if words[:2] != ["vinograph", "generate"]:
        return False
    model = words[words.index("--model") + 1] if "--model" in words else "storybook-wuerstchen"
    return model in {each.name for each in catalog.embedded()} or model.startswith("training/checkpoints/")


def in_the_clone(word: str) -> str:
    """A word of a command, with a path in the clone made absolute."""
    return str(ROOT / word) if word.startswith("training/") else word


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize(
    ("page", "names"), [("troubleshooting.md", {"doctor", "verify", "generate"}), ("performance.md", {"cache"})]
)
def test_commands_that_need_no_other_model_run(
    page: str, names: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VINOGRAPH_CACHE", str(tmp_path / "cache"))  # one of its own, which may be emptied
    commands = [words[1:] for words in shell_commands(ROOT / "docs" / page) if words[0] == "vinograph"]
    commands = [words for words in commands if words[0] in names]
    assert {words[0] for words in commands} == names
    for words in commands:
        assert main(words) == 0, words


@pytest.mark.parametrize("file", RUN_IN, ids=lambda each: each.name)
def test_every_option_in_a_command_is_one(file: Path) -> None:
    known = typer.main.get_command(application())
    assert isinstance(known, typer.core.TyperGroup)
    for name, *rest in (words[1:] for words in shell_commands(file) if words[0] == "vinograph"):
        rest = rest[: rest.index("&&")] if "&&" in rest else rest
        options = {each for parameter in known.commands[name].params for each in parameter.opts}
        assert {each for each in rest if each.startswith("--")} <= options, (name, rest)


def test_the_commands_of_the_documents_are_of_every_kind() -> None:
    commands = {words[1] for file in PAGES for words in shell_commands(file) if words[0] == "vinograph"}
    assert commands >= {
        "generate",
        "reconstruct",
        "pull",
        "convert",
        "quantize",
        "benchmark",
        "verify",
        "doctor",
        "web",
    }
