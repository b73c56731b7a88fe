"""diffusers on PyTorch, which draws from the checkpoint."""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch

from .common import SPACED, DrawResult, OpenedSystem, RefusedError, Stopwatch, Task, accepted_settings

# Neither library's classes are typed.
LIBRARY: Any = diffusers
DTYPES = {"auto": torch.bfloat16, "bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
# The stage, as Vinograph names it, that each component's time belongs to.
STAGES = {
    **dict.fromkeys(("text_encoder", "text_encoder_2", "prior_text_encoder"), "text"),
    **{name: name for name in ("unet", "transformer", "decoder", "vae", "vqgan")},
    "prior_prior": "prior",
}
_DENOISERS = ("unet", "transformer", "prior_prior", "decoder")
PAIRS = {f"{kind}{name}" for kind in ("", "negative_") for name in ("original_size", "target_size")}
PAIRS |= {f"{kind}crops_coords_top_left" for kind in ("", "negative_")}
# Newer releases have moved Würstchen's pipeline, and don't find the classes that its published
# checkpoints name.
_WUERSTCHEN = ("diffusers.pipelines.wuerstchen", "diffusers.pipelines.deprecated.wuerstchen")


def open_system(task: Task) -> OpenedSystem:
    """Load every component of the checkpoint, and time its calls.

    The variant "compile" has ``torch.compile`` compile each denoiser, which the first picture waits for.
    """
    dtype = DTYPES[str(task.precision)]
    pipe = open_pipeline(task, dtype)
    stopwatch = Stopwatch()
    computed = f"CPU {str(dtype).removeprefix('torch.')}"
    if task.variant == "compile":
        computed = f"{computed} compiled"
        for part in (pipe.components[name] for name in _DENOISERS if name in pipe.components):
            part.forward = torch.compile(part.forward)
    for name, part in pipe.components.items():
        for method in ("forward", "decode") if isinstance(part, torch.nn.Module) else ():
            if hasattr(part, method):
                stopwatch.time_calls(part, method, STAGES.get(name, name))
    return system_from_pipeline(pipe, task, stopwatch, computed)


def system_from_pipeline(pipe: Any, task: Task, stopwatch: Stopwatch, computed: str) -> OpenedSystem:
    """The system that draws the task with a diffusers pipeline."""
    for each in (pipe, getattr(pipe, "prior_pipe", None), getattr(pipe, "decoder_pipe", None)):
        if each is not None:
            each.set_progress_bar_config(disable=True)
    settings = call_settings(pipe, task)

    def draw(prompt: str) -> DrawResult:
        generators = [torch.Generator().manual_seed(seed) for seed in task.seeds]
        generator = generators if len(generators) > 1 else generators[0]
        with torch.inference_mode():
            pictures = pipe(prompt, generator=generator, output_type="np", **settings).images
        pictures = (np.asarray(pictures, np.float32) * 255).round().astype(np.uint8)
        return DrawResult(pictures, stopwatch.lap(), {"all": computed})

    noise_in_f32()
    return OpenedSystem(draw)


def call_settings(pipe: Any, task: Task) -> dict[str, Any]:
    """The arguments of the pipeline's call.

    Raises:
        RefusedError: the user gave an argument that the call doesn't take.
    """
    settings = accepted_settings(task, list(inspect.signature(pipe.__call__).parameters), type(pipe).__name__)
    settings["num_images_per_prompt"] = task.count
    for name in settings.keys() & PAIRS:
        settings[name] = tuple(settings[name])  # JSON has lists only
    if settings.get("prior_timesteps") == SPACED:
        home = next(filter(None, map(_found, (f"{each}.pipeline_wuerstchen_prior" for each in _WUERSTCHEN))))
        settings["prior_timesteps"] = home.DEFAULT_STAGE_C_TIMESTEPS
    return settings


def noise_in_f32() -> None:
    """Have torch draw noise in f32 and cast it, so that a seed's noise is one in all precisions."""
    plain: Any = torch.randn

    def randn(*shape: Any, dtype: Any = None, **more: Any) -> Any:
        return plain(*shape, dtype=torch.float32, **more).to(dtype or torch.get_default_dtype())

    torch.randn = randn


def open_pipeline(task: Task, dtype: Any) -> Any:
    """The checkpoint's pipeline, with its tiny VAE where the task wants that."""
    index, models = index_of(task.source), {}
    if wants_tiny_vae(task):
        folder = tiny_vae(task)
        models["vae"] = LIBRARY.AutoencoderTiny.from_pretrained(folder, torch_dtype=dtype, **variant(folder))
    if is_wuerstchen(index):
        return build(task, partial(load_part, dtype=dtype))
    parts = {name: None for name in ("feature_extractor", "image_encoder", "safety_checker") if name in index}
    loaded = {"torch_dtype": dtype, **variant(Path(task.source)), **parts, **models}
    return LIBRARY.DiffusionPipeline.from_pretrained(task.source, **loaded)


def index_of(home: str) -> Mapping[str, Any]:
    """The ``model_index.json``: the pipeline's class, and each component's library and class.

    Raises:
        RefusedError: the folder has no such file.
    """
    file = Path(home) / "model_index.json"
    if not file.is_file():
        raise RefusedError(f"{home} is no checkpoint: it has no {file.name}")
    index: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return index


def is_wuerstchen(index: Mapping[str, Any]) -> bool:
    """Whether the checkpoint is one of Würstchen."""
    return str(index["_class_name"]).startswith("Wuerstchen")


def wants_tiny_vae(task: Task) -> bool:
    """Whether the task wants a tiny VAE in place of the checkpoint's full one."""
    return task.vae == "tiny" and index_of(task.source)["vae"][1] != "AutoencoderTiny"


def tiny_vae(task: Task) -> Path:
    """The folder of the checkpoint's tiny VAE.

    Raises:
        RefusedError: the checkpoint has none.
    """
    folder = Path(task.source) / "tiny_vae"
    if not folder.is_dir():
        raise RefusedError(
            f"the bundle draws with its tiny VAE, and {task.source} has no folder tiny_vae: add --option vae=full, "
            "or put the tiny VAE there"
        )
    return folder


def variant(home: Path) -> dict[str, str]:
    """The argument ``variant`` that diffusers needs where only half-precision files exist."""
    folders = {file.parent for file in home.rglob("*.fp16.safetensors")}
    alone = any(all(".fp16." in file.name for file in folder.glob("*.safetensors")) for folder in folders)
    return {"variant": "fp16"} if alone else {}


def load_part(folder: Path, library: str, kind: str, dtype: Any) -> Any:
    """Load one component of a checkpoint: a model, a tokenizer or a scheduler."""
    homes = [importlib.import_module(library)] if library in ("diffusers", "transformers") else []
    homes += filter(None, map(_found, _WUERSTCHEN))
    loader: Any = next(getattr(home, kind) for home in homes if hasattr(home, kind))
    if not issubclass(loader, torch.nn.Module):
        return loader.from_pretrained(folder)
    return loader.from_pretrained(folder, torch_dtype=dtype, **variant(folder)).eval()


def build(task: Task, load: Callable[[Path, str, str], Any]) -> Any:
    """The checkpoint's pipeline; ``load`` reads each component by folder, library and class."""
    index = index_of(task.source)
    parts = {name: load(home, library, kind) for home, name, library, kind in parts_of(task)}
    if not is_wuerstchen(index):
        settings = {name: each for name, each in index.items() if isinstance(each, bool)}
        return getattr(LIBRARY, index["_class_name"])(**parts, **settings)
    return next(filter(None, map(_found, _WUERSTCHEN))).WuerstchenCombinedPipeline(**parts)


def parts_of(task: Task) -> list[tuple[Path, str, str, str]]:
    """The folder, name in the pipeline, library and class of each component.

    Those of Würstchen may lie in two checkpoints.

    Raises:
        RefusedError: Würstchen's prior is missing.
    """
    homes = [(task.source, ""), *([(task.prior, "prior_")] if task.prior else [])]
    parts = [
        (Path(home) / name, prefix + name, each[0], each[1])
        for home, prefix in homes
        for name, each in index_of(home).items()
        if isinstance(each, list) and each[0] is not None
    ]
    if is_wuerstchen(index_of(task.source)) and not any(name == "prior_prior" for _, name, _, _ in parts):
        raise RefusedError(f"{task.source} has no prior: name its checkpoint by --prior")
    return parts


def _found(module: str) -> Any:
    """A module, or None where this release of diffusers has none of that name."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        return None
