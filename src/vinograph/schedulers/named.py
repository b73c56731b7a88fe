"""Schedulers by name, as AUTOMATIC1111, ComfyUI and diffusers call them."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vinograph.errors import ModelError, RequestError
from vinograph.schedulers.config import SAMPLERS, make_sampler, read_scheduler_config
from vinograph.schedulers.sampler import MOST_TIMESTEPS, Sampler
from vinograph.schedulers.sigma_spacing import SPACINGS_OF_SIGMAS, SigmaSampler
from vinograph.values import clipped, shown

PUBLISHED = "published"
"""The entry of a manifest's scheduler that holds the checkpoint's own settings."""


@dataclass(frozen=True)
class NamedScheduler:
    """A scheduler with a ``name``: diffusers' class, and the ``settings`` that the name means.

    ``webui`` and ``comfyui`` are what AUTOMATIC1111 and ComfyUI call it; empty where they don't
    have it.
    """

    name: str
    scheduler_class: str
    webui: str
    comfyui: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class NamedSpacing:
    """A spacing of the steps with a ``name``, and with other systems' ``aliases`` for it.

    ``settings`` are what it sets in samplers that step in σ; it sets only ``timestep_spacing`` and
    ``steps_offset`` in the others.
    """

    name: str
    aliases: tuple[str, ...]
    settings: Mapping[str, Any]


_ODE: Mapping[str, Any] = {"algorithm_type": "dpmsolver++"}
_SDE: Mapping[str, Any] = {"algorithm_type": "sde-dpmsolver++"}

SCHEDULERS = (
    NamedScheduler("euler", "EulerDiscreteScheduler", "Euler", ("euler",)),
    NamedScheduler("euler a", "EulerAncestralDiscreteScheduler", "Euler a", ("euler_ancestral",)),
    NamedScheduler("heun", "HeunDiscreteScheduler", "Heun", ("heun",)),
    NamedScheduler("dpm2", "KDPM2DiscreteScheduler", "DPM2", ("dpm_2",)),
    NamedScheduler("dpm2 a", "KDPM2AncestralDiscreteScheduler", "DPM2 a", ("dpm_2_ancestral",)),
    NamedScheduler("lms", "LMSDiscreteScheduler", "LMS", ("lms",)),
    NamedScheduler("dpm++ 2m", "DPMSolverMultistepScheduler", "DPM++ 2M", ("dpmpp_2m",), _ODE),
    NamedScheduler(
        "dpm++ 2m sde", "DPMSolverMultistepScheduler", "DPM++ 2M SDE", ("dpmpp_2m_sde", "dpmpp_2m_sde_gpu"), _SDE
    ),
    NamedScheduler(
        "dpm++ 2m sde heun",
        "DPMSolverMultistepScheduler",
        "DPM++ 2M SDE Heun",
        ("dpmpp_2m_sde_heun", "dpmpp_2m_sde_heun_gpu"),
        {**_SDE, "solver_type": "heun"},
    ),
    NamedScheduler("dpm++ sde", "DPMSolverSDEScheduler", "DPM++ SDE", ("dpmpp_sde", "dpmpp_sde_gpu")),
    NamedScheduler("unipc", "UniPCMultistepScheduler", "UniPC", ("uni_pc", "uni_pc_bh2")),
    # Neither of the other systems clips the latents, as diffusers' class does where a checkpoint
    # doesn't say otherwise.
    NamedScheduler("ddim", "DDIMScheduler", "DDIM", ("ddim",), {"clip_sample": False}),
    NamedScheduler("ddpm", "DDPMScheduler", "", ("ddpm",), {"clip_sample": False}),
    NamedScheduler("lcm", "LCMScheduler", "LCM", ("lcm",)),
    NamedScheduler("tcd", "TCDScheduler", "TCD", ()),
)
"""All schedulers that have a name of their own."""

_BY_TIMESTEPS: Mapping[str, Any] = dict.fromkeys(SPACINGS_OF_SIGMAS, False)

SPACINGS = (
    NamedSpacing("karras", (), {**_BY_TIMESTEPS, "use_karras_sigmas": True}),
    NamedSpacing("exponential", (), {**_BY_TIMESTEPS, "use_exponential_sigmas": True, "timestep_spacing": "linspace"}),
    NamedSpacing("beta", (), {**_BY_TIMESTEPS, "use_beta_sigmas": True, "timestep_spacing": "linspace"}),
    NamedSpacing("align your steps", ("ays",), {**_BY_TIMESTEPS, "use_align_your_steps": True}),
    NamedSpacing("trailing", ("sgm uniform", "simple"), {**_BY_TIMESTEPS, "timestep_spacing": "trailing"}),
    NamedSpacing("leading", ("ddim uniform",), {**_BY_TIMESTEPS, "timestep_spacing": "leading", "steps_offset": 1}),
    NamedSpacing("linspace", ("normal", "uniform"), {**_BY_TIMESTEPS, "timestep_spacing": "linspace"}),
    NamedSpacing("automatic", (), {}),
)
"""All spacings that a scheduler's name may end with."""

_LONGEST_TEXT = 100
CLASS_KEYS = ("_class_name", "class")
_EXAMPLES = "such as 'dpm++ 2m karras', 'euler a' or 'UniPCMultistepScheduler'"


@dataclass(frozen=True)
class SchedulerChoice:
    """What a scheduler's name or mapping asks for: a class, and ``settings`` of it."""

    scheduler_class: str
    settings: Mapping[str, Any]


def names() -> tuple[str, ...]:
    """All names of ours, without those of diffusers' classes: each scheduler, with each spacing that it has."""
    found = []
    for each in SCHEDULERS:
        found.append(each.name)
        if issubclass(SAMPLERS[each.scheduler_class], SigmaSampler):
            found += [f"{each.name} {spacing.name}" for spacing in SPACINGS if spacing.settings]
    return tuple(found)


def choose(value: str | Mapping[str, Any]) -> SchedulerChoice:
    """Read a scheduler's name, or a mapping of its class and settings as diffusers' files hold them.

    Raises:
        RequestError: there is no such scheduler, naming close ones, or it has no such setting.
    """
    return _choose_by_name(value) if isinstance(value, str) else _choose_by_settings(value)


def sampler_by_name(value: str | Mapping[str, Any], config: Mapping[str, Any]) -> Sampler:
    """The sampler that ``value`` asks for, for a model whose manifest has the scheduler ``config``.

    As diffusers' ``Scheduler.from_config(pipe.scheduler.config, …)``, it keeps what the checkpoint
    says (betas, prediction type, zero-SNR rescaling, spacing) except for what ``value`` sets.

    Raises:
        RequestError: there is no such scheduler, or the model can't be sampled by it.
    """
    choice = choose(value)
    own_class = config.get("class")
    if own_class is not None and (
        SAMPLERS[own_class].preconditioned != SAMPLERS[choice.scheduler_class].preconditioned
    ):
        raise RequestError(
            f"scheduler {shown(value)} can't sample this model, which was trained on another noise than that scheduler "
            f"removes: it takes {', '.join(_relatives(own_class))}"
        )
    kept = config.get(PUBLISHED)
    if not isinstance(kept, Mapping):  # a bundle that was written before, with the settings of its class alone
        kept = {key: each for key, each in config.items() if key != "class"}
    own = SAMPLERS[choice.scheduler_class].own_settings
    settings = {**{key: each for key, each in kept.items() if key not in own}, **choice.settings}
    try:
        return make_sampler({**settings, "class": choice.scheduler_class})
    except ModelError as error:
        raise RequestError(f"scheduler {shown(value)} can't sample this model: {error}") from error


def _relatives(class_name: str) -> list[str]:
    """The classes of the models that the class ``class_name`` samples."""
    kind = SAMPLERS[class_name].preconditioned
    return [name for name, each in SAMPLERS.items() if each.preconditioned == kind]


def read_published_scheduler(config: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest's scheduler, of a published ``config``.

    Beside the settings of its own class, it holds those that another scheduler may keep: the
    settings of any of our samplers that the checkpoint says.

    Raises:
        ModelError: as :func:`vinograph.schedulers.read_scheduler_config`.
    """
    known = {each.name for kind in SAMPLERS.values() for each in dataclasses.fields(kind)}
    said = {key: value for key, value in config.items() if key in known and _is_kept(value)}
    return {**read_scheduler_config(config), PUBLISHED: said}


def _is_kept(value: Any) -> bool:
    """Whether a value can be a setting: a finite number, a short text, or a list of numbers.

    diffusers writes an infinity for no limit, which is the default anyway, and no JSON.
    """
    if isinstance(value, list):
        return len(value) <= MOST_TIMESTEPS and all(isinstance(each, float) and math.isfinite(each) for each in value)
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, (bool, int)) or (isinstance(value, str) and len(value) <= _LONGEST_TEXT)


def _words(text: str) -> str:
    """The name in lower case, with "dpm++" as ComfyUI writes it, and single spaces between words."""
    spelled = text.casefold().replace("++", "pp")
    return " ".join(re.split(r"[\s_+/,()-]+", spelled)).strip()


def _joined(text: str) -> str:
    return _words(text).replace(" ", "")


def _choose_by_name(text: str) -> SchedulerChoice:
    known = _known_names()
    wanted = _joined(clipped(text))
    if wanted in known:
        return known[wanted]
    words = _words(clipped(text)).split(" ")
    for split in range(1, len(words)):
        first, last = "".join(words[:split]), "".join(words[split:])
        spacing = _spacings().get(last)
        if first in known and spacing is not None:
            return _with_spacing(known[first], spacing)
    raise RequestError(f"scheduler is {shown(text)}, which Vinograph doesn't know; {_hint(text)}")


def _known_names() -> dict[str, SchedulerChoice]:
    known: dict[str, SchedulerChoice] = {}
    for each in SCHEDULERS:
        choice = SchedulerChoice(each.scheduler_class, each.settings)
        known |= {_joined(name): choice for name in (each.name, each.webui, *each.comfyui) if name}
    for name in SAMPLERS:  # a class's own name sets nothing, as in diffusers
        known[_joined(name)] = SchedulerChoice(name, {})
    return known


def _spacings() -> dict[str, NamedSpacing]:
    return {_joined(name): each for each in SPACINGS for name in (each.name, *each.aliases)}


def _with_spacing(choice: SchedulerChoice, spacing: NamedSpacing) -> SchedulerChoice:
    fields = {each.name for each in dataclasses.fields(SAMPLERS[choice.scheduler_class])}
    lacking = [name for name, value in spacing.settings.items() if value is True and name not in fields]
    if lacking:
        raise RequestError(
            f"{choice.scheduler_class} steps by timesteps and can't be spaced by {spacing.name}; leave it out, or give "
            "trailing, leading or linspace"
        )
    settings = {name: value for name, value in spacing.settings.items() if name in fields}
    return SchedulerChoice(choice.scheduler_class, {**choice.settings, **settings})


def _hint(text: str) -> str:
    """Names that are close to ``text``, or else all of them without spacings."""
    every = [*names(), *(name for each in SCHEDULERS for name in each.comfyui), *SAMPLERS]
    spelled = {_words(name): name for name in every}
    close = [spelled[each] for each in difflib.get_close_matches(clipped(_words(text)), spelled, n=3, cutoff=0.6)]
    if close:
        return f"did you mean {' or '.join(map(repr, close))}?"
    return f"give one of {', '.join(each.name for each in SCHEDULERS)}, {_EXAMPLES}"


def _choose_by_settings(settings: Mapping[str, Any]) -> SchedulerChoice:
    name = next((settings[key] for key in CLASS_KEYS if key in settings), None)
    if not isinstance(name, str) or name not in SAMPLERS:
        raise RequestError(
            f"scheduler has the _class_name {shown(name)}, which Vinograph doesn't compute; it computes "
            f"{', '.join(SAMPLERS)}"
        )
    kind = SAMPLERS[name]
    known = {*(each.name for each in dataclasses.fields(kind)), *kind.fixed_settings}
    own = {key: value for key, value in settings.items() if not str(key).startswith("_") and key != "class"}
    for key in own:
        if key not in known:
            close = difflib.get_close_matches(clipped(str(key)), known, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise RequestError(f"scheduler has the setting {shown(key)}, which {name} lacks{hint}")
    return SchedulerChoice(name, own)
