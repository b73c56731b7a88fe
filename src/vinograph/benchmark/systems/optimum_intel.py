"""optimum-intel, which draws from its own export of the checkpoint, with weights in f16 or int8."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from optimum.intel import OVStableDiffusionXLPipeline

from .common import DrawResult, OpenedSystem, RefusedError, Stopwatch, Task, accepted_settings, prepare_once

_VAE_INPUT = "latent_sample"
_STAGES = {"text_encoder": "text", "text_encoder_2": "text", "unet": "unet", "vae_decoder": "vae"}
_TAKES = ("height", "width", "num_inference_steps", "guidance_scale", "negative_prompt", "guidance_rescale")


def prepare(task: Task) -> None:
    """Export the checkpoint by ``optimum-cli export openvino``, with weights in f16 or in the variant's int8.

    A tiny VAE is converted as in OpenVINO's notebook of SDXL-Turbo, and takes the full one's place.
    """
    from .diffusers_ import index_of, variant

    with prepare_once(task, Path(task.work)) as folder:
        if folder is None:
            return
        if index_of(task.source)["vae"][1] == "AutoencoderTiny":
            raise RefusedError("optimum-intel exports no checkpoint whose own VAE is a tiny one")
        options = {"task": "text-to-image", "weight-format": task.variant or "fp16", **variant(Path(task.source))}
        command = [sys.executable, "-m", "optimum.commands.optimum_cli", "export", "openvino", "--model", task.source]
        subprocess.run([*command, *(f"--{name}={value}" for name, value in options.items()), str(folder)], check=True)
        if task.vae == "tiny":
            _use_tiny_vae(task, folder)


def _use_tiny_vae(task: Task, folder: Path) -> None:
    import openvino as ov
    import torch

    from .diffusers_ import LIBRARY, tiny_vae, variant

    home = tiny_vae(task)
    vae = LIBRARY.AutoencoderTiny.from_pretrained(home, **variant(home)).float().eval()

    class Decoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vae = vae

        def forward(self, latent_sample: Any) -> Any:
            return self.vae.decode(latent_sample, return_dict=False)[0]

    with torch.no_grad():
        model = ov.convert_model(
            Decoder(), example_input={_VAE_INPUT: torch.zeros(1, vae.config.latent_channels, 64, 64)}
        )
    model.inputs[0].get_tensor().set_names({_VAE_INPUT})
    model.outputs[0].get_tensor().set_names({"sample"})
    shutil.rmtree(folder / "vae_encoder", ignore_errors=True)
    target = folder / "vae_decoder"
    shutil.rmtree(target)
    target.mkdir()
    ov.save_model(model, target / "openvino_model.xml", compress_to_fp16=True)
    config = {**vae.config, "scaling_factor": vae.config.scaling_factor, "block_out_channels": [64, 64, 64, 64]}
    (target / "config.json").write_text(json.dumps(config, default=str), encoding="utf-8")


def open_system(task: Task) -> OpenedSystem:
    """Read and compile every component, for any shape, as it does by default."""
    if not Path(task.work).is_dir():
        raise RefusedError(f"there is no export in {Path(task.work)}")
    settings = accepted_settings(task, _TAKES, "optimum-intel's call")
    library: Any = OVStableDiffusionXLPipeline
    pipe = library.from_pretrained(Path(task.work), device=task.device, compile=True, ov_config=task.compile_settings())
    pipe.set_progress_bar_config(disable=True)
    stopwatch = Stopwatch()
    for name, stage in _STAGES.items():
        part = getattr(pipe, name)
        stopwatch.time_calls(part, "forward", stage)

    def draw(prompt: str) -> DrawResult:
        import torch

        generators = [torch.Generator().manual_seed(seed) for seed in task.seeds]
        generator = generators if len(generators) > 1 else generators[0]
        result = pipe(prompt, num_images_per_prompt=task.count, generator=generator, output_type="np", **settings)
        pictures = (np.asarray(result.images, np.float32) * 255).round().astype(np.uint8)
        return DrawResult(pictures, stopwatch.lap(), {"all": f"{task.device} {task.precision}"})

    return OpenedSystem(draw)
