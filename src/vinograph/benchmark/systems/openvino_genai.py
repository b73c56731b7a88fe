"""OpenVINO GenAI, which draws from what optimum-intel has exported."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import openvino_genai as genai

from .common import DrawResult, OpenedSystem, RefusedError, Task, accepted_settings

_TAKES = ("height", "width", "num_inference_steps", "guidance_scale", "negative_prompt")


def open_system(task: Task) -> OpenedSystem:
    """Read and compile every component, for any shape, as it does by default.

    Its noise is torch's for one picture at once, where torch is installed besides; else its own.
    """
    folder = Path(task.work)
    if not folder.is_dir():
        raise RefusedError(f"there is no export of optimum-intel's in {folder}")
    settings = accepted_settings(task, _TAKES, "OpenVINO GenAI's call")
    if settings.get("guidance_scale", 2.0) <= 1:
        settings.pop("negative_prompt", None)  # without guidance it refuses one
    pipe: Any = genai.Text2ImagePipeline(str(folder), task.device, **task.compile_settings())
    as_torch = task.count == 1 and importlib.util.find_spec("torch") is not None

    def draw(prompt: str) -> DrawResult:
        generator = genai.TorchGenerator(task.seed) if as_torch else genai.CppStdGenerator(task.seed)
        tensor = pipe.generate(prompt, num_images_per_prompt=task.count, generator=generator, **settings)
        metrics = pipe.get_performance_metrics()
        stages = {
            "text": sum(metrics.get_text_encoder_infer_duration().values()) / 1000,
            "unet": metrics.get_inference_duration() / 1000,
            "vae": metrics.get_vae_decoder_infer_duration() / 1000,
        }
        stages["unet"] -= stages["text"] + stages["vae"]
        return DrawResult(np.array(tensor.data, np.uint8), stages, {"all": f"{task.device} {task.precision}"})

    return OpenedSystem(draw, same_noise=as_torch)
