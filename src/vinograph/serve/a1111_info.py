"""The answer to a drawing as A1111 writes it: pictures in base64, parameters, and info as JSON text."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

from vinograph import __version__
from vinograph.infotext import parse_infotext
from vinograph.serve.a1111_drawing import A1111Request
from vinograph.serve.a1111_progress import Tracked, timestamp
from vinograph.serve.contract import Drawn

_NO_SUBSEED = -1


def response(request: A1111Request, notes: Sequence[str], drawn: Drawn, tracked: Tracked) -> dict[str, Any]:
    """The body that answers ``txt2img`` and ``img2img``; ``notes`` say what has no effect.

    Interrupted before its first picture was done, a request gets its latest preview in place of
    that, small as it is: clients take the first picture without a look at how many there are.
    """
    files = [each.data for each in drawn.pictures]
    if not files and tracked.job.latest_preview is not None:
        files = [tracked.job.latest_preview]
    sent = files if request.values["send_images"] else []
    return {
        "images": [base64.b64encode(each).decode("ascii") for each in sent],
        "parameters": _parameters(request, drawn.request),
        "info": json.dumps(_info(request, notes, drawn, tracked), ensure_ascii=False),
    }


def _resolved(request: A1111Request, drawn: Mapping[str, Any]) -> dict[str, Any]:
    """Fields that the model's defaults may have filled, with what was drawn with."""
    options = request.family_options
    return {
        "steps": drawn.get(options.get("steps", "")),
        "cfg_scale": drawn.get(options.get("guidance_scale", "")),
        "width": drawn.get("width"),
        "height": drawn.get("height"),
    }


def _parameters(request: A1111Request, drawn: Mapping[str, Any]) -> dict[str, Any]:
    """The request's fields with all defaults."""
    values = request.values
    return {**values, **{name: value for name, value in _resolved(request, drawn).items() if values[name] is None}}


def _info(request: A1111Request, notes: Sequence[str], drawn: Drawn, tracked: Tracked) -> dict[str, Any]:
    values, found = request.values, drawn.request
    seed = found.get("seed", values["seed"])
    seeds = [each.seed for each in drawn.pictures] or [seed]
    infotexts = [each.infotext for each in drawn.pictures] or [""]
    size = {name: found.get(name, values[name]) for name in ("width", "height")}
    if drawn.pictures:
        size = {"width": drawn.pictures[0].width, "height": drawn.pictures[0].height}
    return {
        "prompt": values["prompt"],
        "all_prompts": [values["prompt"]] * len(seeds),
        "negative_prompt": values["negative_prompt"],
        "all_negative_prompts": [values["negative_prompt"]] * len(seeds),
        "seed": seed,
        "all_seeds": seeds,
        "subseed": _NO_SUBSEED,
        "all_subseeds": [_NO_SUBSEED] * len(seeds),
        "subseed_strength": 0,
        **_resolved(request, found),
        **size,
        "sampler_name": parse_infotext(infotexts[0]).fields.get("Sampler") or values["sampler_name"],
        "batch_size": values["batch_size"],
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_model_name": drawn.model,
        "sd_model_hash": "",
        "sd_vae_name": found.get("vae"),
        "sd_vae_hash": None,
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
        "denoising_strength": found.get("hires_strength") if values.get("enable_hr") else found.get("strength"),
        "extra_generation_params": {},
        "index_of_first_image": 0,
        "infotexts": infotexts,
        "styles": [],
        "job_timestamp": timestamp(tracked.submitted),
        "clip_skip": request.options.clip_skip if values["clip_skip"] is None else values["clip_skip"],
        "is_using_inpainting_conditioning": False,
        "version": f"Vinograph {__version__}",
        "interrupted": drawn.interrupted,
        "warnings": [*notes, *drawn.warnings],
    }
