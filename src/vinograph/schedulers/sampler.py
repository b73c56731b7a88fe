"""What every sampler of the discrete diffusion process has: settings, a plan of steps, and how to do one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vinograph.errors import RequestError
from vinograph.schedulers import levels

Array = NDArray[np.float32]
Draw = Callable[[tuple[int, ...]], Array]

LARGEST = 1e6  # of a setting that has no limit of its own: the square of a step's time with it still fits f32
MOST_TIMESTEPS = 100_000

BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
SPACINGS = ("linspace", "leading", "trailing")
PREDICTIONS = ("epsilon", "sample", "v_prediction")


def setting(
    default: Any, *choices: Any, kind: type | None = None, least: float = -LARGEST, most: float = LARGEST
) -> Any:
    """A sampler's setting: what holds where the configuration is silent, and the values that are computed.

    Those are the ``choices``, or numbers from ``least`` to ``most``.
    """
    told = {"kind": type(default) if kind is None else kind, "choices": choices, "least": least, "most": most}
    return field(default=default, metadata=told)


@dataclass(frozen=True)
class Plan:
    """The steps of one run, from ``timesteps[0]`` on.

    ``timesteps`` [n] are what the model is told. ``sigmas`` [n + 1] is the noise before each step and after the
    last, for samplers that count in it. The start is normal noise times ``initial_sigma``. ``count`` steps were
    asked for; ``eta`` is the share of fresh noise, for samplers that take it.
    """

    timesteps: Array
    sigmas: Array
    count: int
    initial_sigma: float = 1.0
    eta: float = 0.0


@dataclass(frozen=True)
class Asked:
    """What a plan is made for: ``count`` steps, perhaps at custom ``timesteps`` or between custom ``sigmas``."""

    count: int
    timesteps: Sequence[float] | None = None
    sigmas: Sequence[float] | None = None
    eta: float = 0.0


@dataclass(frozen=True)
class State:
    """Where a run is when step ``index`` of ``plan`` is to be done, by what the model ``predicted`` of ``sample``.

    ``draw`` gives fresh noise of a shape; it is called where, and only where, diffusers draws. ``before`` is the
    clean sample of the step before, None in the first that is done.
    """

    plan: Plan
    index: int
    sample: Array
    predicted: Array
    draw: Draw
    before: Array | None = None


@dataclass(frozen=True)
class Stepped:
    """``sample`` is where a step led; ``clean`` what the sample would be with the noise predicted in it gone."""

    sample: Array
    clean: Array


@dataclass(frozen=True)
class Sampler(ABC):
    """A sampler's settings, under the names that diffusers' configuration of it has.

    ``computed`` holds settings of diffusers' class that have no field here, with the one value that is computed.
    ``distilled`` ones are of models that were taught what guidance leads to, and are drawn from without it.
    """

    num_train_timesteps: int = setting(1000, least=2, most=MOST_TIMESTEPS)
    beta_start: float = setting(0.0001, least=0)
    beta_end: float = setting(0.02, least=0)
    beta_schedule: str = setting("linear", *BETA_SCHEDULES)
    trained_betas: tuple[float, ...] | None = setting(None, kind=tuple)
    prediction_type: str = setting("epsilon", *PREDICTIONS)
    timestep_spacing: str = setting("linspace", *SPACINGS)
    steps_offset: int = setting(0, least=0, most=MOST_TIMESTEPS)
    rescale_betas_zero_snr: bool = setting(False)

    computed: ClassVar[Mapping[str, Any]] = {}
    takes_timesteps: ClassVar[bool] = False
    takes_sigmas: ClassVar[bool] = False
    takes_eta: ClassVar[bool] = False
    distilled: ClassVar[bool] = False

    @cached_property
    def alphas_cumprod(self) -> Array:
        """ᾱ of each training timestep."""
        if self.trained_betas is not None:
            betas = np.array(self.trained_betas, np.float32)
        else:
            betas = levels.betas(self.beta_schedule, self.beta_start, self.beta_end, self.num_train_timesteps)
        return levels.alphas_cumprod(levels.with_no_signal_left(betas) if self.rescale_betas_zero_snr else betas)

    def plan(
        self,
        count: int,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        eta: float = 0.0,
    ) -> Plan:
        """The steps of a run: ``count`` of them, or those at custom ``timesteps``, or between custom ``sigmas``.

        Raises:
            RequestError: this sampler takes no such thing, or can't do it in these steps.
        """
        name = type(self).__name__
        if timesteps is not None and sigmas is not None:
            raise RequestError("give timesteps or sigmas, not both")
        if timesteps is not None:
            if not self.takes_timesteps:
                raise RequestError(f"this model's scheduler ({name}) takes no timesteps; give num_inference_steps")
            self._check_timesteps(timesteps)
            count = len(timesteps)
        elif sigmas is not None:
            if not self.takes_sigmas:
                raise RequestError(f"this model's scheduler ({name}) takes no sigmas; give num_inference_steps")
            if len(sigmas) < 2 or not levels.falling(sigmas) or sigmas[-1] < 0:
                raise RequestError("sigmas have to fall from the first step's to where sampling ends, at least to 0")
            count = len(sigmas) - 1
        if count > self.num_train_timesteps:
            raise RequestError(f"{count} steps are more than this model has; give at most {self.num_train_timesteps}")
        planned = self._plan(Asked(count, timesteps, sigmas, eta))
        if not len(planned.timesteps):
            raise RequestError(
                f"this model's scheduler ({name}) has no timestep for {count} steps; give another number"
            )
        return planned

    def _check_timesteps(self, timesteps: Sequence[float]) -> None:
        last = self.num_train_timesteps - 1
        if not timesteps or not levels.falling(timesteps) or timesteps[0] > last or timesteps[-1] < 0:
            raise RequestError(f"timesteps have to fall, from at most {last} to at least 0, each below the one before")

    @abstractmethod
    def _plan(self, asked: Asked) -> Plan: ...

    def scale_input(self, plan: Plan, index: int, sample: Array) -> Array:
        """The sample as the model wants to see it in step ``index``."""
        del plan, index
        return sample

    @abstractmethod
    def step(self, state: State) -> Stepped:
        """Do one step."""

    @abstractmethod
    def add_noise(self, plan: Plan, index: int, clean: Array, noise: Array) -> Array:
        """``clean`` with as much ``noise`` as step ``index`` begins with."""
