"""stable-diffusion.cpp by its Python package, which draws from the checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import stable_diffusion_cpp

from .common import DrawResult, OpenedSystem, RefusedError, Task, accepted_settings, prepare_once

_TAKES = ("height", "width", "num_inference_steps", "guidance_scale", "negative_prompt")
_MODEL, _TINY_VAE = "model.safetensors", "tiny_vae.safetensors"
_SAMPLERS = {"EulerDiscreteScheduler": "euler", "EulerAncestralDiscreteScheduler": "euler_a"}
_SCHEDULES = {"leading": "discrete", "linspace": "discrete", "trailing": "sgm_uniform"}


def prepare(task: Task) -> None:
    """Link the single file that the checkpoint has beside its components, and its tiny VAE.

    Of the components' own files it recognizes no SDXL. Of several single files it gets that in f16.

    Raises:
        RefusedError: there is no such file.
    """
    home = Path(task.source)
    found = sorted(home.glob("*.safetensors"), key=lambda file: ("fp16" not in file.name, file.name))
    tiny = sorted((home / "tiny_vae").glob("diffusion_pytorch_model*.safetensors"))
    if not found:
        raise RefusedError(f"stable-diffusion.cpp draws from a single file: put the checkpoint's own into {home}")
    if task.vae == "tiny" and not tiny:
        raise RefusedError(f"there is no tiny VAE in {home / 'tiny_vae'}: put it there, or add --option vae=full")
    with prepare_once(task, Path(task.work)) as folder:
        if folder is not None:
            (folder / _MODEL).symlink_to(found[0].resolve())
            if task.vae == "tiny":
                (folder / _TINY_VAE).symlink_to(tiny[0].resolve())


def open_system(task: Task) -> OpenedSystem:
    """Read the prepared files; the variant is the type of the weights in memory, "f16" or "q8_0".

    Noise is torch's. It reports no seconds of stages.

    Raises:
        RefusedError: the scheduler has no counterpart, or a setting is not one of its own.
    """
    if task.precision != "auto":
        raise RefusedError("stable-diffusion.cpp computes in the types of its weights: leave --precision out")
    sampling = _sampling(Path(task.source))
    settings = accepted_settings(task, _TAKES, "stable-diffusion.cpp's call")
    guidance_scale = settings["guidance_scale"]
    home = Path(task.work)
    model = stable_diffusion_cpp.StableDiffusion(
        model_path=str(home / _MODEL),
        taesd_path=str(home / _TINY_VAE) if task.vae == "tiny" else "",
        wtype=task.variant,
        vae_decode_only=True,
        rng_type="cpu",
        sampler_rng_type="cpu",
        verbose=False,
    )

    def draw(prompt: str) -> DrawResult:
        images = model.generate_image(
            prompt=prompt,
            negative_prompt=settings.get("negative_prompt") or "",
            width=settings["width"],
            height=settings["height"],
            sample_steps=settings["num_inference_steps"],
            cfg_scale=guidance_scale if guidance_scale > 1 else 1.0,
            seed=task.seed,
            batch_count=task.count,
            **sampling,
        )
        return DrawResult(
            np.stack([np.asarray(each.convert("RGB")) for each in images]), {}, {"all": f"CPU {task.variant}"}
        )

    return OpenedSystem(draw)


def _sampling(home: Path) -> dict[str, str]:
    """Its words for the checkpoint's scheduler and the spacing of its timesteps."""
    config: Mapping[str, Any] = json.loads((home / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
    name, spacing = config["_class_name"], config.get("timestep_spacing", "linspace")
    if name not in _SAMPLERS:
        raise RefusedError(f"the checkpoint's {name} is none of those that are compared: {', '.join(_SAMPLERS)}")
    return {"sample_method": _SAMPLERS[name], "scheduler": _SCHEDULES[spacing]}
