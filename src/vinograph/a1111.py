"""A1111's names for what a request says, in both directions.

A family's options say which of its arguments is the number of steps and which the guidance scale.
So nothing here knows a family.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from vinograph.errors import RequestError
from vinograph.infotext import Infotext, format_infotext
from vinograph.schedulers.named import SCHEDULERS, choose
from vinograph.values import clipped

_SIZE = re.compile(r"(\d{1,6})x(\d{1,6})")
# What is matched can be matched in one way only, so that the time is in proportion to the text.
_ADAPTER = re.compile(r"<(?:lora|lyco):([^:<>]+)(?::([^<>]*))?>")
_WEIGHT = re.compile(r"\([^()]*:\s*[\d.]+\s*\)")
_SPACINGS = {
    "use_karras_sigmas": "Karras",
    "use_exponential_sigmas": "Exponential",
    "use_beta_sigmas": "Beta",
    "use_align_your_steps": "Align Your Steps",
}
UPSCALERS = {"lanczos": "Lanczos", "latent": "Latent"}
"""A1111's names for what upscales a picture before it is drawn again."""

# Fields that say how a picture came about and ask for nothing.
_INFORMATIVE = ("Model", "Model hash", "Version", "Lora hashes", "TI hashes", "VAE hash", "RNG", "User", "Hashes")


@dataclass
class FoundArguments:
    """Arguments that an infotext asks for, and ``left_out``, what can't be followed."""

    values: dict[str, Any] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def parameters_text(metadata: Mapping[str, Any], options: Mapping[str, str], scheduler: Mapping[str, Any]) -> str:
    """A1111's text for a picture.

    Args:
        metadata: the picture's own metadata, see :meth:`vinograph.Result.metadata`.
        options: the argument that each option of the family's command line sets.
        scheduler: the entry of the model's manifest.
    """
    request = metadata["request"]
    chosen = request.get("scheduler")
    fields = {
        "Steps": request.get(options.get("steps", "")),
        "Sampler": sampler_name(scheduler) if chosen is None else _chosen_name(chosen),
        "CFG scale": request.get(options.get("guidance_scale", "")),
        "Seed": request.get("seed"),
        "Size": f"{request['width']}x{request['height']}" if {"width", "height"} <= request.keys() else None,
        "Model": metadata["model"],
        "Denoising strength": request.get("strength"),
    }
    if (request.get("hires") or 1) > 1:
        fields |= {
            "Denoising strength": request.get("hires_strength"),
            "Hires upscale": request.get("hires"),
            "Hires steps": request.get("hires_steps"),
            "Hires upscaler": UPSCALERS.get(request.get("hires_upscaler", "")),
        }
    fields["Version"] = f"Vinograph {metadata['vinograph']}"
    written = {name: _text(value) for name, value in fields.items() if value is not None}
    prompt = f"{request.get('prompt', '')}{adapters_in_prompt(_by_stem(metadata.get('adapters', {})))}"
    return format_infotext(Infotext(prompt, request.get("negative_prompt") or "", written))


def arguments_of_infotext(
    infotext: Infotext, options: Mapping[str, str], takes: Mapping[str, Any], scheduler: Mapping[str, Any]
) -> FoundArguments:
    """The arguments of a call that ``infotext`` asks for.

    Args:
        infotext: the text of a picture.
        options: the argument that each option of the family's command line sets.
        takes: the arguments that the call takes.
        scheduler: the entry of the model's manifest.
    """
    found = FoundArguments()
    prompt, adapters = split_adapters(infotext.prompt)
    found.left_out += [adapter_note(name, weight) for name, weight in adapters.items()]
    found.values |= {"prompt": prompt, **prompt_arguments(takes)}
    if "negative_prompt" in takes and infotext.negative_prompt:
        found.values["negative_prompt"] = infotext.negative_prompt
    if "prompt_weighting" not in takes and _WEIGHT.search(f"{prompt}\n{infotext.negative_prompt}"):
        found.left_out.append("weights such as (word:1.2), which are read as plain text")
    known = _known_fields(infotext.fields, options)
    for name, text in infotext.fields.items():
        if name in ("Sampler", "Schedule type", *_INFORMATIVE):
            continue
        values = known[name](text) if name in known else None
        if values is None or not values.keys() <= takes.keys():
            found.left_out.append(f"{clipped(name)}: {clipped(text)}")
        else:
            found.values |= values
    _add_sampler(found, infotext.fields, takes, scheduler)
    return found


Reader = Callable[[str], dict[str, Any] | None]


def _known_fields(fields: Mapping[str, str], options: Mapping[str, str]) -> dict[str, Reader]:
    """The reader of each field that can be followed: its text to arguments, or None for nonsense."""
    strength = "hires_strength" if "Hires upscale" in fields else "strength"
    return {
        "Steps": lambda text: _one(options.get("steps", ""), text, int),
        "CFG scale": lambda text: _one(options.get("guidance_scale", ""), text, float),
        "Seed": lambda text: _one("seed", text, int),
        "Size": _size,
        "Denoising strength": lambda text: _one(strength, text, float),
        "Hires upscale": lambda text: _one("hires", text, float),
        "Hires steps": lambda text: {} if text.strip() == "0" else _one("hires_steps", text, int),
        "Hires upscaler": _upscaler,
    }


def _one(argument: str, text: str, kind: type[int] | type[float]) -> dict[str, Any] | None:
    try:
        return {argument: kind(text[:40])}
    except ValueError:
        return None


def _size(text: str) -> dict[str, Any] | None:
    sides = _SIZE.fullmatch(text.strip())
    return None if sides is None else {"width": int(sides[1]), "height": int(sides[2])}


def _upscaler(text: str) -> dict[str, Any] | None:
    names = [name for name, theirs in UPSCALERS.items() if theirs == text]
    return {"hires_upscaler": names[0]} if names else None


def _add_sampler(
    found: FoundArguments, fields: Mapping[str, str], takes: Mapping[str, Any], scheduler: Mapping[str, Any]
) -> None:
    """Follow the sampler that the text names, or note that the model's own stays."""
    name, spacing = fields.get("Sampler", ""), fields.get("Schedule type", "Automatic")
    if spacing != "Automatic" and not name.endswith(f" {spacing}"):
        name = f"{name} {spacing}"
    if not name or name == sampler_name(scheduler):
        return
    followed = sampler_arguments(name, takes)
    found.values |= followed
    if not followed:
        found.left_out.append(f"Sampler: {clipped(name)}")


def sampler_name(scheduler: Mapping[str, Any]) -> str | None:
    """A1111's name for the sampler of a manifest's ``scheduler``; None if it has none."""
    if scheduler.get("solver_order", 2) != 2:
        return None
    fitting = [
        each
        for each in SCHEDULERS
        if each.scheduler_class == scheduler.get("class") and each.settings.items() <= scheduler.items()
    ]
    if not fitting:
        return None
    name = max(fitting, key=lambda each: len(each.settings)).webui
    if not name:
        return None
    spacing = next((spelled for flag, spelled in _SPACINGS.items() if scheduler.get(flag)), "")
    return f"{name} {spacing}".rstrip()


def _chosen_name(value: str | Mapping[str, Any]) -> str | None:
    """A1111's name for the sampler that a call named."""
    choice = choose(value)
    return sampler_name({"class": choice.scheduler_class, **choice.settings})


def sampler_arguments(name: str, takes: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that choose A1111's sampler ``name``; none where there is no such scheduler."""
    try:
        choose(name)
    except RequestError:
        return {}
    return {"scheduler": name} if "scheduler" in takes else {}


def prompt_arguments(takes: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that make a call read a prompt as A1111 does, as far as it takes them."""
    wanted = {"long_prompt": "chunks", "prompt_weighting": "a1111"}
    return {name: value for name, value in wanted.items() if name in takes}


def adapters_in_prompt(adapters: Mapping[str, float]) -> str:
    """What A1111 appends to a prompt for adapters: ``<lora:name:weight>`` for each."""
    return "".join(f" <lora:{name}:{_text(weight)}>" for name, weight in adapters.items())


def _by_stem(adapters: Mapping[str, float]) -> dict[str, float]:
    """The weights of adapters by their files' names without ending, as A1111 knows them."""
    return {PurePath(path).name.removesuffix(".safetensors"): weight for path, weight in adapters.items()}


def adapter_note(name: str, weight: float) -> str:
    """What is said of an adapter of A1111's text that isn't used."""
    return f"the adapter {clipped(name)} (weight {weight:g})"


def split_adapters(prompt: str) -> tuple[str, dict[str, float]]:
    """A prompt without ``<lora:name:weight>``, and the weights of the adapters that it names."""
    weights = {}
    for name, text in _ADAPTER.findall(prompt):
        try:
            weights[name] = float(text.split(":")[0] or 1)
        except ValueError:
            weights[name] = 1.0
    return (_ADAPTER.sub("", prompt).strip() if weights else prompt), weights


def _text(value: Any) -> str:
    """A value as A1111 writes it: whole numbers without a point."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
