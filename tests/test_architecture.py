"""The architecture: allowed imports, drawing without torch, and the public surface."""

import ast
import dataclasses
import inspect
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import vinograph
from tests.bundles import save_pixart_bundle, save_sdxl_bundle
from vinograph import Pipeline, Result, Step
from vinograph._calls import Calls
from vinograph.cli.options import DEFAULT_MODEL
from vinograph.families.pixart.arguments import FAMILY as PIXART
from vinograph.families.registry import FAMILIES, family
from vinograph.families.sdxl.arguments import FAMILY as SDXL
from vinograph.families.wuerstchen.arguments import FAMILY as WUERSTCHEN

Run = Callable[..., subprocess.CompletedProcess[str]]

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src"

# Who may import whom, and nothing else. A unit is a file or a folder of src/vinograph; "vinograph"
# is its __init__. In a family's folder, the files of network, of checkpoint and of layout (tables of
# names alone, which networks and adapters share) are units of their own.
MAY_IMPORT: Mapping[str, set[str]] = {
    "errors": set(),
    "values": {"errors"},
    "inputs": set(),
    "dispatch": set(),
    "panics": set(),
    "strict_json": set(),
    "schema": {"values"},
    "resources": {"errors"},
    "folders": {"errors"},
    "files": {"resources", "errors"},
    "noise": {"values", "errors"},
    "schedulers": {"values", "schema", "errors"},
    "text": {"panics", "errors"},
    "prompt_syntax": set(),
    "styles": {"errors"},
    "templates": {"errors"},
    "vocabulary": set(),
    "picture_texts": {"strict_json", "vinograph"},
    "infotext": set(),
    "a1111": {"infotext", "schedulers", "values", "errors"},
    "picture_recipe": {"a1111", "families", "infotext", "picture_texts", "pipeline", "request", "values"},
    "images": {"picture_texts", "values", "files", "errors", "vinograph"},
    "arguments": {"values", "noise", "schedulers", "errors"},
    "request_fields": {"arguments", "noise"},
    "request": {"request_fields", "arguments", "values", "noise", "errors"},
    "used_files": set(),
    "notebook": {"images"},
    "contact_sheet": set(),
    "result": {"notebook", "request", "used_files", "vinograph"},
    "_calls": {"dispatch", "families", "inputs", "result"},
    "runtime": {"strict_json", "values", "files", "folders", "resources", "errors"},
    "networks": {"values", "runtime", "schema", "errors"},
    "families": {
        *("schedulers", "arguments", "values", "noise", "text", "prompt_syntax", "images", "request", "schema"),
        *("families.layout", "errors"),
    },
    "families.layout": set(),
    "families.network": {"families.layout", "networks", "runtime", "values", "errors"},
    "models": {
        *("families", "networks", "text", "files", "folders", "resources", "schema", "strict_json", "panics"),
        *("values", "errors", "vinograph"),
    },
    "families.checkpoint": {
        *("models", "families", "families.network", "networks", "runtime", "schedulers"),
        *("schema", "values", "errors"),
    },
    "adapters": {
        *("models", "families", "networks", "runtime", "folders", "schema", "strict_json", "values", "errors"),
        "vinograph",
    },
    "components": {
        *("adapters", "errors", "families", "folders", "runtime", "models", "resources", "text", "values", "vinograph"),
    },
    "pipeline": {
        *("_calls", "adapters", "families", "components", "models", "runtime", "images", "request", "result"),
        *("used_files", "values", "vocabulary", "errors"),
    },
    "vinograph": {"pipeline", "families", "request", "result", "errors"},
    "convert": {"adapters", "models", "networks", "runtime", "files", "errors", "vinograph"},
    "tune": {"components", "errors", "models", "pipeline", "request", "runtime", "values"},
    "quantize": {
        *(
            "convert",
            "pipeline",
            "request",
            "tune",
            "components",
            "models",
            "families",
            "runtime",
            "files",
            "resources",
            "errors",
        ),
        "vinograph",
    },
    "benchmark": {
        *("pipeline", "models", "families", "runtime", "images", "folders", "request", "resources", "strict_json"),
        *("errors", "vinograph"),
    },
    "benchmark.systems": {"vinograph", "components"},
    "web": {
        *(
            "adapters",
            "pipeline",
            "models",
            "families",
            "images",
            "contact_sheet",
            "folders",
            "request",
            "result",
            "arguments",
            "strict_json",
            "a1111",
            "styles",
            "templates",
            "errors",
        ),
        *("files", "picture_recipe", "schedulers", "values"),
        "vinograph",
    },
    "serve": {
        *("pipeline", "adapters", "models", "families", "schedulers", "images", "folders", "request", "result"),
        *("arguments", "schema", "strict_json", "resources", "values", "a1111", "infotext", "picture_texts"),
        "used_files",
        *("web", "errors", "vinograph"),
    },
    "batch": {
        *("pipeline", "models", "families", "arguments", "request", "result", "noise", "files", "folders"),
        *("resources", "strict_json", "values", "a1111", "picture_texts", "templates", "errors", "vinograph"),
    },
    "cli": {
        *("pipeline", "adapters", "components", "models", "families", "runtime", "images", "arguments", "request"),
        "result",
        *(
            "convert",
            "quantize",
            "tune",
            "benchmark",
            "web",
            "serve",
            "batch",
            "files",
            "folders",
            "resources",
            "strict_json",
        ),
        *("a1111", "infotext", "picture_texts", "picture_recipe", "schedulers", "templates", "used_files", "values"),
        *("errors", "vinograph"),
    },
    "__main__": {"cli"},
    "training": {"models", "families.network"},
}

# Packages that are heavy or belong to an extra, and the units that may import them.
HEAVY: Mapping[str, set[str]] = {
    "openvino": {
        *("networks", "families.network", "families.checkpoint", "models", "components", "runtime"),
        *("convert", "quantize", "benchmark.systems"),
    },
    "torch": {"training", "benchmark.systems"},
    "torchvision": set(),
    "diffusers": {"training", "benchmark.systems"},
    "transformers": {"training", "benchmark.systems"},
    "safetensors": {"training"},
    "nncf": {"quantize"},
    "gradio": {"web"},
    "starlette": {"web", "serve"},
    "uvicorn": {"web", "serve"},
    "python_multipart": {"web", "serve"},
    "prometheus_client": {"serve"},
    "ray": {"batch", "serve"},
    "pyarrow": {"batch"},
    "fsspec": {"batch"},
    "matplotlib": {"benchmark"},
    "optimum": {"benchmark.systems"},
    "openvino_genai": {"benchmark.systems"},
    "openvino_tokenizers": {"benchmark.systems"},
    "tokenizers": {"text", "models", "training"},
    "huggingface_hub": {"models"},
    "typer": {"cli"},
    "rich": {"cli"},
}


# What every family's folder has. Further files of network and checkpoint begin with that name and an underscore.
ROOMS = {"config", "drawing", "conditioning", "network", "checkpoint", "arguments", "recipe", "known"}
# Further files that are part of a room: the names of a network's modules in other layouts than ours.
PART_OF_A_ROOM = {"ldm_names": "network"}


def unit_of(module: str) -> str:
    """The unit of a module given by its full name."""
    parts = module.split(".")
    if parts[:3] == ["vinograph", "benchmark", "systems"]:  # programs for other systems' environments
        return "benchmark.systems"
    if parts[:2] == ["vinograph", "families"] and len(parts) > 3:
        room = PART_OF_A_ROOM.get(parts[3], parts[3].split("_")[0])
        return f"families.{room}" if room in ("layout", "network", "checkpoint") else "families"
    if parts[0] == "vinograph":
        return parts[1] if len(parts) > 1 else "vinograph"
    return parts[0]


def modules() -> Iterator[tuple[str, str, Path]]:
    """Name, package and file of every module of the package and of training."""
    for folder, base in ((SOURCE / "vinograph", SOURCE), (ROOT / "training", ROOT)):
        for file in sorted(folder.rglob("*.py")):
            parts = file.relative_to(base).with_suffix("").parts
            yield ".".join(part for part in parts if part != "__init__"), ".".join(parts[:-1]), file


def imports(file: Path, package: str) -> Iterator[str]:
    """Full names of all modules that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level else ""
            origin = ".".join(part for part in (base, node.module) if part)
            for each in node.names:
                inside = SOURCE / origin.replace(".", "/") / each.name
                is_module = inside.is_dir() or inside.with_suffix(".py").is_file()
                yield f"{origin}.{each.name}" if is_module else origin


def names_in(tree: ast.Module) -> Iterator[str]:
    """All names and texts in a module, except docstrings and the argument ``help``."""
    skipped: set[ast.AST] = {
        each.value for each in ast.walk(tree) if isinstance(each, ast.keyword) and each.arg == "help"
    }
    skipped |= {each.value for each in ast.walk(tree) if isinstance(each, ast.Expr)}
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str(text)) if node not in skipped:
                yield text
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name) | ast.keyword(arg=str(name)):
                yield name
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.alias(name=name):
                yield name
            case ast.ImportFrom(module=str(name)):
                yield name


ALL = [pytest.param(*each, id=each[0]) for each in modules()]
KNOW_NO_FAMILY = [
    pytest.param(module, file, id=module) for module, _, file in modules() if unit_of(module) in ("pipeline", "cli")
]


class TestImports:
    @pytest.mark.parametrize(("module", "package", "file"), ALL)
    def test_a_module_imports_only_units_that_the_table_allows(self, module: str, package: str, file: Path) -> None:
        unit = unit_of(module)
        assert unit in MAY_IMPORT, f"{module} is of a unit that the table doesn't have: say whom it may import"
        ours = {unit_of(each) for each in imports(file, package) if each.split(".")[0] in ("vinograph", "training")}
        forbidden = ours - MAY_IMPORT[unit] - {unit}
        assert not forbidden, f"{module} may not import {', '.join(sorted(forbidden))}"

    @pytest.mark.parametrize(("module", "package", "file"), ALL)
    def test_heavy_packages_are_imported_only_by_the_units_that_may(
        self, module: str, package: str, file: Path
    ) -> None:
        for each in imports(file, package):
            where = HEAVY.get(each.split(".")[0])
            assert where is None or unit_of(module) in where, f"{module} imports {each}"

    def test_the_table_of_imports_has_no_cycle(self) -> None:
        """The package's version, which every unit may import, doesn't count."""
        done: set[str] = set()
        waiting = {unit: below - {"vinograph"} for unit, below in MAY_IMPORT.items()}
        while ready := [unit for unit, below in waiting.items() if below <= done]:
            for unit in ready:
                done.add(unit)
                del waiting[unit]
        assert not waiting

    @pytest.mark.parametrize(("module", "file"), KNOW_NO_FAMILY)
    def test_pipeline_and_command_line_name_no_family(self, module: str, file: Path) -> None:
        """Exceptions are docstrings, an option's help, and the name of the default model."""
        said = {each.casefold() for each in names_in(ast.parse(file.read_text(encoding="utf-8")))}
        if module == "vinograph.cli.options":
            said.discard(DEFAULT_MODEL)
        names = {name for each in FAMILIES for name in (each, family(each).title.casefold())}
        assert not {each for each in said if any(name in each for name in names)}

    def test_the_search_for_names_finds_names_and_texts(self) -> None:
        code = (
            'def f(help: str = "of pixart") -> None:\n    """Of SDXL."""\n'
            '    if kind == "sdxl" or pixart_step(help="Wuerstchen: N"):\n        from x import wuerstchen\n'
        )
        assert set(names_in(ast.parse(code))) >= {"of pixart", "sdxl", "pixart_step", "wuerstchen"}
        assert not {"Of SDXL.", "Wuerstchen: N"} & set(names_in(ast.parse(code)))

    def test_no_family_draws_with_openvino_directly(self) -> None:
        assert not {"runtime", "networks", "families.network", "models"} & MAY_IMPORT["families"]
        assert "families" not in HEAVY["openvino"]

    @pytest.mark.parametrize("name", FAMILIES)
    def test_every_familys_folder_has_the_same_modules(self, name: str) -> None:
        there = {file.stem for file in (SOURCE / "vinograph" / "families" / name).glob("*.py")}
        assert there >= ROOMS

    def test_no_file_outside_a_family_names_it(self) -> None:
        """Exceptions are the registry, and the name of the default model."""
        for module, _, file in modules():
            if unit_of(module) in ("training", "benchmark", "benchmark.systems") or file.parent.name in FAMILIES:
                continue
            if module in ("vinograph.families.registry", "vinograph.cli.options"):
                continue
            code = {each.casefold() for each in names_in(ast.parse(file.read_text(encoding="utf-8")))}
            assert not {each for each in code if each in FAMILIES}, module


class TestWithoutTorch:
    def test_importing_the_package_loads_no_heavy_module(self, without_torch: Run) -> None:
        code = "import vinograph\nprint(*sorted({'huggingface_hub', 'typer', 'rich', *ABSENT} & set(sys.modules)))\n"
        done = without_torch(code)
        assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")

    def test_wuerstchen_draws(self, without_torch: Run, tiny_bundle: Path, tmp_path: Path) -> None:
        code = (
            "from vinograph import Pipeline\n"
            "pipe = Pipeline.from_pretrained(sys.argv[1])\n"
            "result = pipe('a red house', negative_prompt='blue', decoder_guidance_scale=2.0, seed=7)\n"
            "pipe('a red house', image=result.images[0], seed=7, num_images_per_prompt=2)\n"
            "pipe.reconstruct(result.images[0], seed=7)\n"
            "result.images[0].save(sys.argv[2])\n"
        )
        done = without_torch(code, str(tiny_bundle), str(tmp_path / "house.png"))
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "house.png").is_file()

    def test_sdxl_draws(self, without_torch: Run, tmp_path: Path) -> None:
        bundle = save_sdxl_bundle(tmp_path / "tiny-sdxl").path
        code = (
            "from vinograph import Pipeline\n"
            "pipe = Pipeline.from_pretrained(sys.argv[1])\n"
            "house = pipe('a red house', negative_prompt='blue', seed=7).images[0]\n"
            "pipe('a red house', image=house, strength=0.5, vae='full', seed=7)\n"
            "pipe('a red house', image=house, mask_image=house, padding_mask_crop=8, seed=7)\n"
            "pipe.reconstruct(house)\n"
        )
        done = without_torch(code, str(bundle))
        assert (done.returncode, done.stderr) == (0, "")

    def test_pixart_draws(self, without_torch: Run, tmp_path: Path) -> None:
        bundle = save_pixart_bundle(tmp_path / "tiny-pixart").path
        code = (
            "from vinograph import Pipeline\n"
            "pipe = Pipeline.from_pretrained(sys.argv[1], memory='low')\n"
            "house = pipe('a red house', negative_prompt='blue', height=300, width=200, seed=7).images[0]\n"
            "pipe('a red house', image=house, strength=0.5, vae='full', seed=7)\n"
            "pipe.reconstruct(house)\n"
        )
        done = without_torch(code, str(bundle))
        assert (done.returncode, done.stderr) == (0, "")

    @pytest.mark.parametrize("name", ["storybook-sdxl", "storybook-pixart-lcm", "storybook-wuerstchen"])
    def test_a_published_checkpoint_draws_what_its_bundle_draws(
        self, name: str, without_torch: Run, tmp_path: Path
    ) -> None:
        """It is opened as it is and converted, both without torch; the pictures are equal."""
        code = "from vinograph.cli import main\nsys.exit(main())\n"
        checkpoint = str(ROOT / "training" / "checkpoints" / name)
        done = without_torch(code, "convert", checkpoint, str(tmp_path / name))
        assert done.returncode == 0, done.stderr
        pictures = []
        for index, model in enumerate((checkpoint, str(tmp_path / name))):
            file = tmp_path / f"{index}.png"
            options = ("--model", model, "--seed", "7", "--output", str(file), "--no-metadata")
            done = without_torch(code, "generate", "a red house on a snowy hill at night", *options)
            assert done.returncode == 0, done.stderr
            pictures.append(file.read_bytes())
        assert pictures[0] == pictures[1]

    def test_the_command_line_draws(self, without_torch: Run, tiny_bundle: Path, tmp_path: Path) -> None:
        code = "from vinograph.cli import main\nsys.exit(main())\n"
        arguments = [
            "generate",
            "a red house",
            "--model",
            str(tiny_bundle),
            "--output",
            str(tmp_path / "house.png"),
            "--seed",
            "7",
        ]
        done = without_torch(code, *arguments)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "house.png").is_file()

    def test_importing_torch_fails_in_this_process(self, without_torch: Run) -> None:
        done = without_torch("import torch\n")
        assert "No module named 'torch'" in done.stderr


class TestPublicSurface:
    """A change here breaks users' programs."""

    def test_the_package_exports_these_names(self) -> None:
        assert vinograph.__all__ == [
            "DamagedModelError",
            "DeviceError",
            "ModelError",
            "NumericalError",
            "Pipeline",
            "Request",
            "RequestError",
            "ResourceError",
            "Result",
            "Step",
            "VinographError",
            "__version__",
        ]
        assert all(hasattr(vinograph, name) for name in vinograph.__all__)

    def test_errors_and_their_exit_codes(self) -> None:
        codes = {name: getattr(vinograph, name).exit_code for name in vinograph.__all__ if name.endswith("Error")}
        assert codes == {
            "VinographError": 1,
            "NumericalError": 1,
            "RequestError": 2,
            "DeviceError": 2,
            "ModelError": 3,
            "DamagedModelError": 4,
            "ResourceError": 5,
        }
        assert all(issubclass(getattr(vinograph, name), vinograph.VinographError) for name in codes)
        assert issubclass(vinograph.RequestError, ValueError)

    def test_the_pipeline_has_these_methods_and_signatures(self) -> None:
        public = [name for kind in (Calls, Pipeline) for name in vars(kind) if not name.startswith("_")]
        assert public == [
            *("generate", "stream", "prior", "decoder", "encode", "reconstruct"),
            *("from_pretrained", "adapters", "set_adapters", "calls", "options"),
        ]
        per_component = "'str | Mapping[str, str]'"
        adapters = "'Mapping[str, float] | Mapping[Path, float] | None'"
        options = f"device: {per_component} = 'CPU', precision: {per_component} = 'auto', memory: 'str' = 'auto'"
        more = f"*, adapters: {adapters} = None, scheduler: 'str | Mapping[str, Any] | None' = None"
        tune = "tune: 'bool' = False"
        path = "'str | os.PathLike[str] | None'"
        sources = f"embeddings: 'Embeddings' = (), vae: {path} = None, base: {path} = None"
        signatures: dict[Callable[..., Any], str] = {
            Pipeline.__init__: f"(self, model: 'Model', {options}, {more}, {tune}) -> 'None'",
            Pipeline.from_pretrained: (
                f"(model: 'str | os.PathLike[str]', {options}, {more}, {sources}, {tune}) -> 'Pipeline'"
            ),
        }
        for method, signature in signatures.items():
            assert str(inspect.signature(method)) == signature
        for method, beginning, end in (
            (Pipeline.__call__, "(self, prompt: 'Texts | None' = None, *positional: 'Any', ", " -> 'Result'"),
            (
                Pipeline.stream,
                "(self, *positional: 'Any', call: 'str' = 'generate', prompt: 'Texts | None' = None, ",
                " -> 'Generator[Step | Result, None, None]'",
            ),
        ):
            assert str(inspect.signature(method)).startswith(beginning)
            assert str(inspect.signature(method)).endswith(end)

    def test_results_and_steps_have_these_fields(self) -> None:
        assert names_of(Result) == [
            *("images", "seeds", "request", "timings", "warnings", "devices", "model", "image_embeddings", "report"),
            "adapters",
            "files",
            "settings",
        ]
        assert names_of(Step) == ["stage", "index", "total"]
        assert callable(Result.metadata)
        assert callable(Step.preview)

    @pytest.mark.parametrize("name", WUERSTCHEN.calls)
    def test_arguments_of_wuerstchen(self, name: str) -> None:
        call = WUERSTCHEN.calls[name]
        assert (call.positional, dict(call.takes)) == WUERSTCHEN_TAKES[name]

    @pytest.mark.parametrize("name", SDXL.calls)
    def test_arguments_of_sdxl(self, name: str) -> None:
        call = SDXL.calls[name]
        assert (call.positional, dict(call.takes)) == SDXL_TAKES[name]

    def test_calls_and_options_of_sdxl(self) -> None:
        assert set(SDXL.calls) == set(SDXL_TAKES)
        assert SDXL.calls["generate"].conditional_defaults == {
            "extend": {"strength": 0.85},
            "mask_image": {"strength": 0.9999, "guidance_scale": 7.5},
        }
        assert SDXL.options == {
            "steps": "num_inference_steps",
            "guidance_scale": "guidance_scale",
            "mask": "mask_image",
            "extend": "extend",
            "scheduler": "scheduler",
            "vae": "vae",
            "prompt_weighting": "prompt_weighting",
            "long_prompt": "long_prompt",
            **_LARGE_OPTIONS,
        }

    @pytest.mark.parametrize("name", PIXART.calls)
    def test_arguments_of_pixart(self, name: str) -> None:
        call = PIXART.calls[name]
        assert (call.positional, dict(call.takes)) == PIXART_TAKES[name]

    def test_calls_and_options_of_pixart(self) -> None:
        assert set(PIXART.calls) == set(PIXART_TAKES)
        assert PIXART.options == {
            "steps": "num_inference_steps",
            "guidance_scale": "guidance_scale",
            "scheduler": "scheduler",
            "vae": "vae",
            "prompt_weighting": "prompt_weighting",
            **_LARGE_OPTIONS,
            "resolution_binning": "use_resolution_binning",
            "clean_caption": "clean_caption",
        }

    def test_calls_and_options_of_wuerstchen(self) -> None:
        assert set(WUERSTCHEN.calls) == set(WUERSTCHEN_TAKES)
        assert WUERSTCHEN.options == {
            "steps": "prior_num_inference_steps",
            "guidance_scale": "prior_guidance_scale",
            "scheduler": "scheduler",
            "decoder_scheduler": "decoder_scheduler",
            "decoder_steps": "num_inference_steps",
            "decoder_guidance_scale": "decoder_guidance_scale",
            **_EVALUATION_OPTIONS,
        }


def names_of(kind: type[Any]) -> list[str]:
    return [each.name for each in dataclasses.fields(kind) if not each.name.startswith("_")]


_EVERY = {
    "num_images_per_prompt": 1,
    "seed": None,
    "generator": None,
    "output_type": "pil",
    "callback_on_step_end": None,
    "callback_on_step_end_tensor_inputs": None,
}
_TEXT = {"prompt": None, "negative_prompt": None, "latents": None}
_EMBEDS = {"prompt_embeds": None, "negative_prompt_embeds": None}
_EVALUATIONS = {"guidance_interval": None, "extrapolation_interval": None, "extrapolation_order": 1}
_EVALUATION_OPTIONS = {name: name for name in ("speed", *_EVALUATIONS)}

WUERSTCHEN_TAKES: Mapping[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "generate": (
        ("prompt", "height", "width"),
        {
            **_EVERY,
            **_TEXT,
            **_EMBEDS,
            "speed": None,
            **_EVALUATIONS,
            "height": 512,
            "width": 512,
            "prior_num_inference_steps": 60,
            "prior_guidance_scale": 4.0,
            "scheduler": None,
            "prior_timesteps": None,
            "num_inference_steps": 12,
            "decoder_guidance_scale": 0.0,
            "decoder_scheduler": None,
            "decoder_timesteps": None,
            "image": None,
            "strength": 0.8,
            "prior_callback_on_step_end": None,
            "prior_callback_on_step_end_tensor_inputs": None,
        },
    ),
    "prior": (
        ("prompt", "height", "width", "num_inference_steps"),
        {
            **_EVERY,
            **_TEXT,
            **_EMBEDS,
            **_EVALUATIONS,
            "height": 1024,
            "width": 1024,
            "num_inference_steps": 60,
            "guidance_scale": 8.0,
            "scheduler": None,
            "timesteps": None,
        },
    ),
    "decoder": (
        ("image_embeddings", "prompt", "num_inference_steps"),
        {
            **_EVERY,
            **_TEXT,
            "image_embeddings": None,
            "guidance_interval": None,
            "num_inference_steps": 12,
            "guidance_scale": 0.0,
            "decoder_scheduler": None,
            "timesteps": None,
        },
    ),
    "encode": (("image",), {"image": None, "height": None, "width": None}),
    "reconstruct": (
        ("image",),
        {
            **_EVERY,
            **dict.fromkeys(("image", "height", "width", "decoder_scheduler", "timesteps")),
            "num_inference_steps": 12,
        },
    ),
}

_SDXL_EMBEDS = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
_SDXL_SIZES = ("original_size", "target_size", "negative_original_size", "negative_target_size")

_HIRES = {"hires": None, "hires_steps": None, "hires_strength": 0.35, "hires_upscaler": "lanczos"}
_LARGE = {**_HIRES, "vae_tiling": "auto", "speed": None, **_EVALUATIONS}
_LARGE_OPTIONS = {name: name for name in _LARGE}
_ENCODE = {"image": None, "height": None, "width": None, "vae": None, "vae_tiling": "auto"}

SDXL_TAKES: Mapping[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "generate": (
        (
            *("prompt", "prompt_2", "height", "width", "num_inference_steps", "timesteps", "sigmas"),
            *("denoising_end", "guidance_scale", "negative_prompt", "negative_prompt_2", "num_images_per_prompt"),
            *("eta", "generator", "latents", *_SDXL_EMBEDS),
        ),
        {
            **_EVERY,
            **_TEXT,
            **dict.fromkeys(("prompt_2", "negative_prompt_2", *_SDXL_EMBEDS, *_SDXL_SIZES)),
            **dict.fromkeys(("image", "mask_image", "padding_mask_crop", "extend", "clip_skip", "vae")),
            **dict.fromkeys(("scheduler", "timesteps", "sigmas", "denoising_start", "denoising_end")),
            **_LARGE,
            "height": 1024,
            "width": 1024,
            "num_inference_steps": 50,
            "guidance_scale": 5.0,
            "guidance_rescale": 0.0,
            "eta": 0.0,
            "strength": 0.3,
            "prompt_weighting": "none",
            "long_prompt": "truncate",
            "crops_coords_top_left": (0, 0),
            "negative_crops_coords_top_left": (0, 0),
        },
    ),
    "encode": (("image",), _ENCODE),
    "reconstruct": (("image",), {**_ENCODE, "output_type": "pil"}),
}

_PIXART_EMBEDS = (
    *("prompt_embeds", "prompt_attention_mask"),
    *("negative_prompt_embeds", "negative_prompt_attention_mask"),
)

PIXART_TAKES: Mapping[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "generate": (
        (
            *("prompt", "negative_prompt", "num_inference_steps", "timesteps", "sigmas", "guidance_scale"),
            *("num_images_per_prompt", "height", "width", "eta", "generator", "latents", *_PIXART_EMBEDS),
            *("output_type", "return_dict", "callback", "callback_steps"),
            *("clean_caption", "use_resolution_binning", "max_sequence_length"),
        ),
        {
            **dict.fromkeys(("prompt", "latents", "seed", "generator", *_PIXART_EMBEDS)),
            **dict.fromkeys(("scheduler", "timesteps", "sigmas", "image", "vae", "callback")),
            **_LARGE,
            "negative_prompt": "",
            "num_inference_steps": 20,
            "guidance_scale": 4.5,
            "num_images_per_prompt": 1,
            "height": 1024,
            "width": 1024,
            "eta": 0.0,
            "strength": 0.6,
            "prompt_weighting": "none",
            "output_type": "pil",
            "callback_steps": 1,
            "clean_caption": True,
            "use_resolution_binning": True,
            "max_sequence_length": 120,
        },
    ),
    "encode": SDXL_TAKES["encode"],
    "reconstruct": SDXL_TAKES["reconstruct"],
}


def test_the_package_makes_one_openvino_core() -> None:
    """Several cores, deleted out of order, leave a signal handler without its stack."""
    made = [file for file in SOURCE.rglob("*.py") if "Core()" in file.read_text(encoding="utf-8")]
    assert {each.relative_to(SOURCE / "vinograph").as_posix() for each in made} == {
        "runtime/devices.py",
        "benchmark/systems/notebook.py",  # runs in its own process and environment
    }


def test_pytest_deselects_tests_that_need_gigabytes_by_default() -> None:
    # Fixtures are not needed to collect, and importing what those of conversion are made with takes seconds.
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "--noconftest"]
    done = subprocess.run(
        [*command, "tests/convert/test_full_size.py"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    nothing_collected = 5
    assert done.returncode == nothing_collected, done.stdout
    assert "deselected" in done.stdout
