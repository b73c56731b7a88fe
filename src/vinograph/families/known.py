"""The types of each family's ``known.py``: published models with a short name, as data."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vinograph.request import Request
from vinograph.schedulers import Sampler, make_sampler, sampler_by_name


@dataclass(frozen=True)
class Companion:
    """Another repository of the hub that a known model is completed with.

    ``option`` is the option of the family's opener that takes it: a whole checkpoint, or the one
    ``file`` that is needed. An ``optional`` companion is fetched only on demand. ``about`` says
    what it is for.
    """

    option: str
    repository: str
    licence: str
    about: str
    file: str | None = None
    optional: bool = False

    @property
    def name(self) -> str:
        """Name of the companion on the command line."""
        return self.option.replace("_", "-")


@dataclass(frozen=True)
class KnownModel:
    """A published model with a short ``name``, and its ``repository`` of the hub.

    ``licence`` is the one that its model card names. ``download`` is the approximate number of
    bytes to fetch, companions that are not optional included. ``about`` says on one line what the
    model is for. ``defaults`` are defaults of "generate" that its checkpoint doesn't state itself.
    """

    name: str
    repository: str
    licence: str
    download: int
    about: str
    companions: tuple[Companion, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @property
    def required(self) -> tuple[Companion, ...]:
        """The companions that are always fetched."""
        return tuple(each for each in self.companions if not each.optional)

    @property
    def optional(self) -> tuple[Companion, ...]:
        """The companions that are fetched on demand."""
        return tuple(each for each in self.companions if each.optional)


FEW_STEP = "few_step"
"""The entry of a manifest's ``config`` that holds the title of what the model was distilled to."""


@dataclass(frozen=True)
class FewStep:
    """A distilled model or adapter that is known by name, and what it draws with.

    ``pattern`` is a regular expression that the name holds: in lower case, with one hyphen between
    words. ``defaults`` are those of "generate": steps, guidance scale, scheduler, and custom
    timesteps where the card names them. ``steps`` are the fewest and the most steps that fit, and
    ``guidance`` is the highest scale that does. ``classes`` are diffusers' classes of the
    schedulers that fit, and ``spacing`` is the spacing of timesteps that they need.
    """

    title: str
    pattern: str
    defaults: Mapping[str, Any]
    steps: tuple[int, int]
    guidance: float
    classes: tuple[str, ...]
    spacing: str | None = None

    def describe(self) -> str:
        """The defaults in words."""
        steps, scale = self.defaults["num_inference_steps"], self.defaults["guidance_scale"]
        named = [f"{steps} {'step' if steps == 1 else 'steps'} at guidance scale {scale:g}"]
        if "scheduler" in self.defaults:
            named.append(f"the scheduler {scheduler_name(self.defaults['scheduler'])}")
        if "timesteps" in self.defaults:
            named.append(f"the timesteps {', '.join(f'{each:g}' for each in self.defaults['timesteps'])}")
        if "eta" in self.defaults:
            named.append(f"eta {self.defaults['eta']:g}")
        return ", ".join(named)

    def note(self, evidence: str) -> str:
        """What was assumed, and by which ``evidence``."""
        return (
            f"defaults assumed: {self.describe()}, as for {self.title}, by {evidence}; otherwise give other values, or "
            "set them in the checkpoint's vinograph.json"
        )

    def defaults_for(self, scheduler: Mapping[str, Any]) -> dict[str, Any]:
        """The defaults, without a scheduler where the manifest's ``scheduler`` is the same."""
        defaults = dict(self.defaults)
        named = defaults.get("scheduler")
        if named is not None and sampler_by_name(named, scheduler) == make_sampler(scheduler):
            del defaults["scheduler"]
        return defaults

    def contradictions(self, request: Request, scheduler: Mapping[str, Any]) -> tuple[str, ...]:
        """What ``request`` asks for that this model wasn't made for, as warnings.

        ``scheduler`` is that of the manifest.
        """
        found = []
        steps, (fewest, most) = request.num_inference_steps, self.steps
        custom = request.timesteps is not None or request.sigmas is not None
        # From a picture, only a share of the steps is done: one of ten at strength 0.1.
        done = steps if steps is None or request.step_share is None else int(steps * request.step_share)
        if steps is not None and done is not None and not custom and (steps < fewest or done > most):
            wanted = f"{fewest}" if fewest == most else f"{fewest} to {most}"
            found.append(f"{self.title} was made for {wanted} steps; {steps} may draw worse")
        if (request.guidance_scale or 0.0) > self.guidance:
            wanted = f"a scale up to {self.guidance:g}" if self.guidance > 1 else "no guidance"
            found.append(
                f"{self.title} was made for {wanted}; {request.guidance_scale:g} is likely to draw harsh colours"
            )
        if request.scheduler is not None and not self._fits(sampler_by_name(request.scheduler, scheduler)):
            found.append(
                f"{self.title} was made for the scheduler {scheduler_name(self.defaults['scheduler'])}; with "
                f"{scheduler_name(request.scheduler)} it is likely to draw noise or grey"
            )
        return tuple(found)

    def _fits(self, sampler: Sampler) -> bool:
        if sampler.scheduler_class not in self.classes or getattr(sampler, "spaces_sigmas", False):
            return False
        return self.spacing is None or sampler.timestep_spacing == self.spacing


def scheduler_name(scheduler: str | Mapping[str, Any]) -> str:
    """A scheduler as a message names it: its name, or its class with the settings."""
    if isinstance(scheduler, str):
        return scheduler
    settings = ", ".join(f"{key} {value}" for key, value in scheduler.items() if not key.startswith("_"))
    return f"{scheduler.get('_class_name')} with {settings}"


def few_step_entry(few_step: FewStep | None) -> dict[str, str]:
    """The entry of a manifest's ``config`` for a model that was distilled to ``few_step``."""
    return {} if few_step is None else {FEW_STEP: few_step.title}


@dataclass(frozen=True)
class Distillation:
    """The ``defaults`` of a distilled model, and ``notes`` of what they were concluded from.

    ``few_step`` is set if the model is one that is known by name.
    """

    defaults: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    few_step: FewStep | None = None

    @classmethod
    def by_name(cls, few_step: FewStep, scheduler: Mapping[str, Any]) -> Distillation:
        """That of a model whose name says ``few_step``; ``scheduler`` is that of the manifest."""
        return cls(few_step.defaults_for(scheduler), (few_step.note("the name"),), few_step)


# Names of files that say nothing of what they hold: then their folder or repository does.
_GENERIC = re.compile(r"^(pytorch-lora-weights|diffusion-pytorch-model|model|unet|transformer|lora|adapter-model)\b")
_ENDINGS = re.compile(r"\.(safetensors|bin|pt|pth|ckpt)$")


def recognize(models: Sequence[FewStep], name: str) -> FewStep | None:
    """The one of ``models`` that a file, a folder or a repository is called by; None if none is.

    ``name`` may be a path or a hub id. A file whose own name says nothing is known by its folder,
    also within the hub's cache.
    """
    for part in reversed(re.split(r"[/\\]+", name)):
        words = re.sub(r"[\W_]+", "-", _ENDINGS.sub("", part.casefold())).strip("-")
        found = next((each for each in models if re.search(each.pattern, words)), None)
        if found is not None:
            return found
        hidden = _GENERIC.match(words) or words == "snapshots" or re.fullmatch(r"[0-9a-f]{40}", words)
        if words and not hidden:
            return None
    return None
