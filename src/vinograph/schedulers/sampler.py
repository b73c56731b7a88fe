"""What every sampler of discrete diffusion has: settings, a plan of its steps, and the step itself.

A *scheduler* is what a checkpoint names: a class of diffusers, with its configuration. A *sampler*
is the algorithm that does the steps. There is one sampler for each scheduler class that Vinograph
computes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vinograph.errors import RequestError
from vinograph.schedulers import noise_schedule

Array = NDArray[np.float32]
DrawNoise = Callable[[tuple[int, ...]], Array]

# Of a setting without a limit of its own: the square of a timestep times it still fits f32.
LARGEST = 1e6
MOST_TIMESTEPS = 100_000

BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
SPACINGS = ("linspace", "leading", "trailing")
PREDICTIONS = ("epsilon", "sample", "v_prediction")


def setting(
    default: Any, *choices: Any, kind: type | None = None, least: float = -LARGEST, most: float = LARGEST
) -> Any:
    """A dataclass field for a sampler's setting.

    ``default`` holds where the configuration is silent. The values that are computed are the
    ``choices``, or numbers from ``least`` to ``most``.
    """
    metadata = {"kind": type(default) if kind is None else kind, "choices": choices, "least": least, "most": most}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class SamplingPlan:
    """The steps of one run. A sampler of order 2 evaluates the model twice in each but the last.

    Attributes:
        timesteps: what the model is given in each evaluation, [n].
        sigmas: σ before each evaluation and after the last, [n + 1]; empty for samplers that count
            in ᾱ.
        num_inference_steps: the number of steps that was asked for.
        init_noise_sigma: the deviation of the noise that the first step starts from.
        eta: the share of fresh noise, for samplers that take it.
    """

    timesteps: Array
    sigmas: Array
    num_inference_steps: int
    init_noise_sigma: float = 1.0
    eta: float = 0.0


@dataclass(frozen=True)
class StepRequest:
    """What a plan is made of: a number of steps, custom ``timesteps`` or custom ``sigmas``."""

    num_inference_steps: int
    timesteps: Sequence[float] | None = None
    sigmas: Sequence[float] | None = None
    eta: float = 0.0


@dataclass(frozen=True)
class StepInput:
    """What step ``index`` of ``plan`` needs.

    Attributes:
        sample: the noisy sample, [b, c, h, w].
        model_output: what the model predicted for ``sample``, of the same shape.
        draw_noise: gives normal noise of a shape; called where, and only where, diffusers draws.
        state: the ``state`` of the step before; None in the first step that is done.
    """

    plan: SamplingPlan
    index: int
    sample: Array
    model_output: Array
    draw_noise: DrawNoise
    state: Any = None


@dataclass(frozen=True)
class StepOutput:
    """Where a step led: the next ``sample``, and the prediction of x₀ that led there.

    ``state`` is what the sampler's next step needs to know of this one; each sampler has its own.
    """

    sample: Array
    denoised: Array
    state: Any = None


@dataclass(frozen=True)
class Sampler(ABC):
    """A sampler's settings, under their names in diffusers' configuration.

    Attributes:
        scheduler_class: the class of diffusers whose steps it does.
        fixed_settings: settings of that class which have no field here, each with the one value
            that is computed.
        own_settings: settings that diffusers' class lacks, so that a published configuration can't
            mean them.
        aliases: other values that diffusers takes for the same thing, by setting.
        order: evaluations of the model in one step; the last step has a single one.
        distilled: whether its models were distilled with guidance, so that they draw without it.
        preconditioned: whether its models have EDM's preconditioning, and no schedule of β.
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

    scheduler_class: ClassVar[str]
    fixed_settings: ClassVar[Mapping[str, Any]] = {}
    takes_timesteps: ClassVar[bool] = False
    takes_sigmas: ClassVar[bool] = False
    takes_eta: ClassVar[bool] = False
    own_settings: ClassVar[tuple[str, ...]] = ()
    aliases: ClassVar[Mapping[str, Mapping[str, str]]] = {}
    order: ClassVar[int] = 1
    distilled: ClassVar[bool] = False
    preconditioned: ClassVar[bool] = False

    @cached_property
    def alphas_cumprod(self) -> Array:
        """ᾱ of each training timestep, [num_train_timesteps]."""
        if self.trained_betas is not None:
            betas = np.array(self.trained_betas, np.float32)
        else:
            betas = noise_schedule.betas(self.beta_schedule, self.beta_start, self.beta_end, self.num_train_timesteps)
        if self.rescale_betas_zero_snr:
            betas = noise_schedule.rescale_zero_terminal_snr(betas)
        return noise_schedule.alphas_cumprod(betas)

    def plan(
        self,
        num_inference_steps: int,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        eta: float = 0.0,
    ) -> SamplingPlan:
        """The steps of a run: so many, or those of custom ``timesteps`` or ``sigmas``.

        Custom ``sigmas`` are the noise before each step and after the last one.

        Raises:
            RequestError: this sampler doesn't take one of the arguments, or can't do so many steps.
        """
        name, count = self.scheduler_class, num_inference_steps
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
            if len(sigmas) < 2 or not noise_schedule.is_decreasing(sigmas) or sigmas[-1] < 0:
                raise RequestError("sigmas have to fall from the first step's to where sampling ends, at least to 0")
            count = len(sigmas) - 1
        if count > self.num_train_timesteps:
            raise RequestError(f"{count} steps are more than this model has; give at most {self.num_train_timesteps}")
        planned = self._plan(StepRequest(count, timesteps, sigmas, eta))
        if not len(planned.timesteps):
            raise RequestError(
                f"this model's scheduler ({name}) has no timestep for {count} steps; give another number"
            )
        return planned

    def _check_timesteps(self, timesteps: Sequence[float]) -> None:
        last = self.num_train_timesteps - 1
        if not timesteps or not noise_schedule.is_decreasing(timesteps) or timesteps[0] > last or timesteps[-1] < 0:
            raise RequestError(f"timesteps have to fall, from at most {last} to at least 0, each below the one before")

    @abstractmethod
    def _plan(self, request: StepRequest) -> SamplingPlan: ...

    def scale_model_input(self, plan: SamplingPlan, index: int, sample: Array) -> Array:
        """The sample as the model takes it in step ``index``."""
        del plan, index
        return sample

    @abstractmethod
    def step(self, inputs: StepInput) -> StepOutput:
        """Do one step, or the part of it that one evaluation of the model allows."""

    @abstractmethod
    def add_noise(self, plan: SamplingPlan, index: int, original: Array, noise: Array) -> Array:
        """``original`` with as much of ``noise`` in it as step ``index`` begins with."""
