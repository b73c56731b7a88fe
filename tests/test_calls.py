"""The calls' signatures: what an editor shows of them, what `help` prints, and what a type checker finds."""

from __future__ import annotations

import inspect
import pydoc
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from tests.odd_values import small_pipelines
from vinograph import Pipeline
from vinograph._calls import Calls
from vinograph.families import registry

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "tests" / "user_script.py"
METHODS = {"generate": "__call__", **{name: name for name in ("prior", "decoder", "encode", "reconstruct")}}
EVERY_CALL = [
    pytest.param(family, call, id=f"{family}-{call}")
    for family in registry.FAMILIES
    for call in registry.family(family).calls
]


@pytest.fixture(scope="module")
def pipes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pipeline]:
    return small_pipelines(tmp_path_factory.mktemp("calls"))


def parameters(method: str) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(getattr(Pipeline, method)).parameters


@pytest.mark.parametrize("script", ["call_signatures", "api_docs"])
def test_what_is_written_is_up_to_date(script: str) -> None:
    command = [sys.executable, str(ROOT / "scripts" / f"{script}.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


class TestSignatures:
    @pytest.mark.parametrize(("family", "call"), EVERY_CALL)
    def test_they_have_every_argument_of_every_family(self, family: str, call: str) -> None:
        takes = registry.family(family).calls[call].takes
        assert takes.keys() <= parameters(METHODS[call]).keys()
        assert takes.keys() <= parameters("stream").keys()

    @pytest.mark.parametrize("call", METHODS)
    def test_they_have_no_other(self, call: str) -> None:
        families = [registry.family(name) for name in registry.FAMILIES]
        taken = {name for each in families if call in each.calls for name in each.calls[call].takes}
        assert parameters(METHODS[call]).keys() - taken <= {"self", "positional", "return_dict"}

    @pytest.mark.parametrize(("family", "call"), EVERY_CALL)
    def test_a_default_that_all_families_have_is_shown(self, family: str, call: str) -> None:
        shown = parameters(METHODS[call])
        for name, default in registry.family(family).calls[call].takes.items():
            assert shown[name].default in (None, default)

    @pytest.mark.parametrize(("family", "call"), EVERY_CALL)
    def test_what_goes_by_position_still_does(self, family: str, call: str) -> None:
        by_position = [
            each.name for each in parameters(METHODS[call]).values() if each.kind is each.POSITIONAL_OR_KEYWORD
        ][1:]
        positional = registry.family(family).calls[call].positional
        assert positional[: len(by_position)] == tuple(by_position)
        assert len(positional) == len(by_position) or "positional" in parameters(METHODS[call])

    @pytest.mark.parametrize("method", ["__call__", "stream", "prior", "decoder", "encode", "reconstruct"])
    def test_their_types_can_be_read(self, method: str) -> None:
        hints = get_type_hints(getattr(Pipeline, method))
        assert hints.keys() == parameters(method).keys() - {"self"} | {"return"}
        assert "Result" in str(hints["return"])

    def test_an_argument_says_what_it_means_who_takes_it_and_its_defaults(self) -> None:
        text = " ".join((Pipeline.__call__.__doc__ or "").split())
        assert "strength: how far to leave the picture behind, above 0 and up to 1. Default: 0.8 (Würstchen), " in text
        assert "0.3 or 0.85 with extend or 0.9999 with mask_image (SDXL), 0.6 (PixArt)." in text
        assert "clip_skip: SDXL: layers of the text encoders to leave out at the end." in text


class TestWhatAPipelineHas:
    @pytest.mark.parametrize("family", registry.FAMILIES)
    def test_its_familys_calls(self, pipes: dict[str, Pipeline], family: str) -> None:
        pipe = pipes[family]
        public = {name for name in dir(pipe) if not name.startswith("_")}
        assert public == {
            *pipe.calls,
            "adapters",
            "calls",
            "from_pretrained",
            "model",
            "options",
            "set_adapters",
            "stream",
        }
        for name in METHODS:
            assert hasattr(pipe, name) is (name in pipe.calls)

    def test_the_error_names_what_is_missing(self, pipes: dict[str, Pipeline]) -> None:
        with pytest.raises(AttributeError, match="Pipeline has no 'prior'"):
            _ = pipes["sdxl"].prior

    def test_generate_is_calling_it(self, pipes: dict[str, Pipeline]) -> None:
        result = pipes["wuerstchen"].generate("a red house", seed=7, output_type="np")
        assert (result.images == pipes["wuerstchen"]("a red house", seed=7, output_type="np").images).all()

    def test_help_reads_as_documentation(self, pipes: dict[str, Pipeline]) -> None:
        text = pydoc.plain(pydoc.render_doc(Pipeline))
        for words in (
            "A model that draws.",
            "Draw pictures from a text",
            "Draw step by step",
            "seed: picture i is drawn",
        ):
            assert words in text
        assert "image_embeddings: " in pydoc.plain(pydoc.render_doc(pipes["wuerstchen"].decoder))

    def test_a_declaration_that_no_pipeline_does(self) -> None:
        with pytest.raises(NotImplementedError):
            inspect.unwrap(Calls.encode)(Calls())


MISTAKES: Mapping[str, tuple[str, str, str]] = {
    "misspelt": (
        "guidance_scale=4.5",
        "guidence_scale=4.5",
        'Unexpected keyword argument "guidence_scale" for "__call__" of "Calls"; did you mean "guidance_scale"',
    ),
    "wrong_type": (
        "seed=7):",
        'seed="7"):',
        'Argument "seed" to "stream" of "Calls" has incompatible type "str"; expected "int | None"',
    ),
    "wrong_word": (
        'output_type="np"',
        'output_type="png"',
        "incompatible type \"Literal['png']\"; expected \"Literal['pil', 'np', 'latent'] | None\"",
    ),
    "no_such_call": ("pipe.prior(", "pipe.priors(", '"Pipeline" has no attribute "priors"'),
    "another_familys": (
        "num_inference_steps=12)",
        "clip_skip=1)",
        'Unexpected keyword argument "clip_skip" for "decoder" of "Calls"',
    ),
    "result": ("step.images", "step.pictures", '"Result" has no attribute "pictures"'),
}


@pytest.fixture(scope="module")
def complaints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What mypy says of each program, by its name."""
    folder, text = tmp_path_factory.mktemp("programs"), SCRIPT.read_text(encoding="utf-8")
    programs = {"right": text}
    for name, (right, wrong, _) in MISTAKES.items():
        assert text.count(right) == 1, right
        programs[name] = text.replace(right, wrong)
    for name, program in programs.items():
        (folder / f"{name}.py").write_text(program, encoding="utf-8")
    files = [str(folder / f"{name}.py") for name in programs]
    command = [sys.executable, "-m", "mypy", "--strict", "--hide-error-context", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    found: dict[str, list[str]] = {name: [] for name in programs}
    for line in done.stdout.splitlines():
        if ": error: " in line:
            found[Path(line.partition(":")[0]).stem].append(line)
    return found


class TestTypeChecker:
    """`mypy --strict` on a user's program: as it is, and with one mistake in each of several copies."""

    def test_a_right_program_passes(self, complaints: dict[str, list[str]]) -> None:
        assert complaints["right"] == []

    @pytest.mark.parametrize("name", MISTAKES)
    def test_a_mistake_is_found(self, complaints: dict[str, list[str]], name: str) -> None:
        (complaint,) = complaints[name]
        assert MISTAKES[name][2] in complaint


def test_the_package_ships_its_types() -> None:
    settings: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "py.typed" in settings["tool"]["setuptools"]["package-data"]["vinograph"]
    assert (ROOT / "src" / "vinograph" / "py.typed").is_file()
