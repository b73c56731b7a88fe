"""A new family is one folder and one line of the registry: the whole program takes it, and nothing else is touched."""

from __future__ import annotations

import difflib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.bundles import save_sdxl_bundle
from tests.cli.conftest import Outcome
from tests.families.toy_checkpoint import save_toy
from tests.test_architecture import HEAVY, MAY_IMPORT, ROOMS, imports, unit_of

SOURCE = Path(__file__).parents[2] / "src"
TOY = Path(__file__).parent / "toy"
LAST_LINE = '        "pixart": "vinograph.families.pixart",\n'
LINE = '        "toy": "vinograph.families.toy",\n'
REGISTRY = "vinograph/families/registry.py"
RED, BLUE = "a red house on a snowy hill", "two blue boats on the sea"


@dataclass(frozen=True)
class Copy:
    """A copy of the package with the toy in it, and a toy checkpoint; both are not to be changed."""

    source: Path
    checkpoint: Path

    def python(self, *arguments: object, here: Path) -> Outcome:
        """Run Python with the copy on its path, in a folder."""
        more = {
            "PYTHONPATH": str(self.source),
            "VINOGRAPH_CACHE": str(here / "cache"),
            "VINOGRAPH_MODELS": str(here / "models"),
            "HF_HUB_OFFLINE": "1",
            "COLUMNS": "200",
        }
        command = [sys.executable, *map(str, arguments)]
        done = subprocess.run(
            command, cwd=here, env={**os.environ, **more}, capture_output=True, text=True, timeout=120, check=False
        )
        return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    folder = tmp_path_factory.mktemp("copy")
    source = folder / "src"
    shutil.copytree(SOURCE, source, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copytree(TOY, source / "vinograph" / "families" / "toy", ignore=shutil.ignore_patterns("__pycache__"))
    registry = source / REGISTRY
    text = registry.read_text(encoding="utf-8")
    assert text.count(LAST_LINE) == 1
    registry.write_text(text.replace(LAST_LINE, LAST_LINE + LINE), encoding="utf-8")
    return Copy(source, save_toy(folder / "ripples"))


Run = Callable[..., Outcome]


@pytest.fixture
def vinograph(copy: Copy, tmp_path: Path) -> Run:
    """``vinograph("generate", "a house")`` of the copy, in a process whose folder is the test's own."""

    def run(*arguments: object) -> Outcome:
        return copy.python("-m", "vinograph", *arguments, here=tmp_path)

    return run


def pixels(file: Path) -> NDArray[np.uint8]:
    with Image.open(file) as image:
        return np.array(image)


def files_of(folder: Path) -> dict[str, bytes]:
    """All files below a folder but what Python compiled."""
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and "__pycache__" not in file.parts and ".egg-info" not in str(file)
    }


def test_one_folder_and_one_line_differ(copy: Copy) -> None:
    ours, theirs = files_of(SOURCE), files_of(copy.source)
    added = theirs.keys() - ours.keys()
    assert added
    assert all(name.startswith("vinograph/families/toy/") for name in added)
    assert not ours.keys() - theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == [REGISTRY]
    before, after = (files[REGISTRY].decode().splitlines(keepends=True) for files in (ours, theirs))
    changed = [line for line in difflib.ndiff(before, after) if not line.startswith("  ")]
    assert changed == [f"+ {LINE}"]


def test_it_has_the_rooms_of_every_family_and_keeps_their_rules() -> None:
    assert {file.stem for file in TOY.glob("*.py")} == {*ROOMS, "__init__"}
    for file in TOY.glob("*.py"):
        found = set(imports(file, "vinograph.families.toy"))
        unit = unit_of(f"vinograph.families.toy.{file.stem}")
        ours = {unit_of(each) for each in found if each.startswith("vinograph")}
        assert ours - {unit} <= MAY_IMPORT[unit], file
        assert not {each for each in found if unit not in HEAVY.get(each.split(".")[0], {unit})}, file


def test_it_runs_from_the_copy(copy: Copy, tmp_path: Path) -> None:
    done = copy.python("-c", "import vinograph; print(vinograph.__file__)", here=tmp_path)
    assert Path(done.out.strip()).is_relative_to(copy.source), done.err


def test_it_is_unknown_to_the_package_itself(copy: Copy, tmp_path: Path) -> None:
    """Else the copy would prove nothing."""
    plain = Copy(SOURCE, copy.checkpoint)
    done = plain.python("-m", "vinograph", "generate", RED, "--model", copy.checkpoint, here=tmp_path)
    done.fails(3, "ToyPipeline", "doesn't open")


class TestDrawing:
    def test_pictures_follow_the_prompt_and_the_seed(self, vinograph: Run, copy: Copy, tmp_path: Path) -> None:
        drawn = {}
        for name, prompt, seed in (("red", RED, 1), ("again", RED, 1), ("blue", BLUE, 1), ("other", RED, 2)):
            options = ("--model", copy.checkpoint, "--seed", seed, "--output", f"{name}.png")
            done = vinograph("generate", prompt, *options)
            assert done.code == 0, done.err
            drawn[name] = pixels(tmp_path / f"{name}.png").astype(int)
            assert drawn[name].shape == (48, 48, 3)
            assert drawn[name].std() > 5
        assert np.array_equal(drawn["red"], drawn["again"])
        colours = [drawn[name].mean((0, 1)) for name in ("red", "blue", "other")]
        assert np.abs(colours[0] - colours[1]).max() > 20, "another prompt has other colours"
        assert np.abs(drawn["red"] - drawn["other"]).max() > 20, "another seed has other shapes"
        assert np.abs(colours[0] - colours[2]).max() < 20, "in the prompt's colours"

    def test_its_own_option(self, vinograph: Run, copy: Copy, tmp_path: Path) -> None:
        help_text = " ".join(vinograph("generate", "--help").out.split())
        assert "--contrast" in help_text
        assert "Toy: how far colours are apart" in help_text
        spread = {}
        for contrast in (0.2, 2):
            options = ("--model", copy.checkpoint, "--seed", 1, "--contrast", contrast, "--output", "picture.png")
            assert vinograph("generate", RED, *options).code == 0
            spread[contrast] = np.abs(pixels(tmp_path / "picture.png") - 127.5).mean()
        assert spread[2] > 2 * spread[0.2]
        with Image.open(tmp_path / "picture.png") as image:
            assert '"contrast": 2.0' in str(image.info), "the picture's metadata has it"
        done = vinograph("generate", RED, "--model", copy.checkpoint, "--contrast", "20")
        done.fails(2, "--contrast is 20.0", "up to 9")

    def test_options_of_others_are_refused(self, vinograph: Run, copy: Copy) -> None:
        done = vinograph("generate", RED, "--model", copy.checkpoint, "--decoder-steps", "3")
        done.fails(2, "--decoder-steps", "family toy", "it takes --contrast, --count, --seed, --size, --steps")

    def test_its_option_is_none_of_the_others(self, vinograph: Run, tmp_path: Path) -> None:
        sdxl = save_sdxl_bundle(tmp_path / "sdxl").path
        done = vinograph("generate", RED, "--model", sdxl, "--contrast", "2")
        done.fails(2, "--contrast", "family sdxl", "--guidance-scale")

    def test_from_python(self, copy: Copy, tmp_path: Path) -> None:
        code = (
            "import sys\n"
            "from vinograph import Pipeline, RequestError\n"
            "pipe = Pipeline.from_pretrained(sys.argv[1])\n"
            "first, second = pipe([sys.argv[2], 'two boats'], seed=5, contrast=1.5).images\n"
            "assert pipe.calls['generate'].takes['width'] == 48\n"
            "(alone,) = pipe('two boats', seed=6, contrast=1.5, height=48).images\n"
            "assert alone.tobytes() == second.tobytes() != first.tobytes()\n"
            "assert pipe('a', seed=1, width=64, height=32, output_type='np').images.shape == (1, 32, 64, 3)\n"
            "assert [each.stage for each in pipe.stream('a', seed=1) if hasattr(each, 'stage')] == ['smoother'] * 4\n"
            "for wrong in ({'guidance_scale': 3}, {'contrast': 0}, {'width': 20}):\n"
            "    try:\n"
            "        pipe('a', **wrong)\n"
            "    except RequestError as error:\n"
            "        print(error)\n"
        )
        done = copy.python("-c", code, copy.checkpoint, RED, here=tmp_path)
        assert done.code == 0, done.err
        refused = done.out.splitlines()
        assert "Toy (generate) takes no guidance_scale; it takes contrast, " in refused[0]
        assert refused[1] == "contrast is 0; give a number above 0 and up to 9"
        assert "width is 20; this model draws multiples of 8 from 16 to 256" in refused[2]


class TestBundle:
    @pytest.fixture
    def bundle(self, vinograph: Run, copy: Copy, tmp_path: Path) -> Path:
        """In the models folder, under the name "toy-bundle"."""
        done = vinograph("convert", copy.checkpoint, "models/toy-bundle", "--weights", "f32")
        assert done.code == 0, done.err
        assert "toy-bundle, toy" in done.out
        return tmp_path / "models" / "toy-bundle"

    def test_it_draws_the_same_bits(self, vinograph: Run, copy: Copy, bundle: Path, tmp_path: Path) -> None:
        drawn = []
        for model in (copy.checkpoint, bundle, "toy-bundle"):
            done = vinograph("generate", RED, "--model", model, "--seed", "9", "--output", "picture.png")
            assert done.code == 0, done.err
            drawn.append(pixels(tmp_path / "picture.png"))
        assert np.array_equal(drawn[0], drawn[1])
        assert np.array_equal(drawn[0], drawn[2])

    def test_it_is_listed_shown_and_verified(self, vinograph: Run, copy: Copy, bundle: Path) -> None:
        listed = {each["name"]: each["family"] for each in json_of(vinograph("models", "--json"))["models"]}
        assert listed["toy-bundle"] == "toy"
        for model in (copy.checkpoint, bundle):
            shown = vinograph("inspect", model)
            assert shown.code == 0, shown.err
            assert "family toy" in " ".join(shown.out.split())
            assert "smoother" in shown.out
            assert "contrast 1.0" in shown.out
        assert vinograph("verify", bundle).code == 0
        weights = bundle / "smoother.bin"
        weights.write_bytes(weights.read_bytes()[:-1] + b"?")
        vinograph("verify", bundle).fails(4, "smoother.bin")

    # Its weights are quantized with its activations, too.
    @pytest.mark.parametrize("mode", [pytest.param("weights", marks=pytest.mark.long), "full"])
    def test_it_is_quantized(self, vinograph: Run, bundle: Path, tmp_path: Path, mode: str) -> None:
        done = vinograph("quantize", bundle, "small", "--mode", mode, "--json")
        assert done.code == 0, done.err
        components = json_of(done)["components"]
        assert components["text_table"] == {"weights": "int8", "activations": None}
        assert components["smoother"] == {"weights": "int8", "activations": "int8" if mode == "full" else None}
        drawn = []
        for model in (bundle, "small"):
            assert vinograph("generate", RED, "--model", model, "--seed", "9", "--output", "picture.png").code == 0
            drawn.append(pixels(tmp_path / "picture.png").astype(int))
        assert 0 < np.abs(drawn[0] - drawn[1]).mean() < 5


def json_of(done: Outcome) -> dict[str, Any]:
    """What a command printed as JSON."""
    assert done.code == 0, done.err
    return done.record


def test_what_does_not_fit_is_refused_like_any_checkpoint(vinograph: Run, tmp_path: Path) -> None:
    checkpoint = save_toy(tmp_path / "wrong")
    config = checkpoint / "smoother" / "config.json"
    config.write_text(config.read_text(encoding="utf-8").replace('"text_width": 6', '"text_width": 7'))
    vinograph("generate", RED, "--model", checkpoint).fails(3, "text table gives", "6", "7")
