"""The samplers of diffusion models, in numpy, as small pure pieces.

A *scheduler* is what a checkpoint names, with its configuration; a *sampler* is the algorithm that
does the steps. :func:`read_scheduler_config` checks a checkpoint's configuration, and
:func:`make_sampler` makes the :class:`Sampler` of it. A sampler makes a :class:`SamplingPlan` of a
run and does its steps one by one. It keeps nothing between them. Würstchen's, over continuous time,
is :class:`WuerstchenSampler`. :func:`sampler_by_name` makes another sampler for a model than its
checkpoint names.
"""

from vinograph.schedulers.config import SAMPLERS, make_sampler, read_scheduler_config
from vinograph.schedulers.continuous import continuous_names, continuous_sampler_by_name
from vinograph.schedulers.named import (
    PUBLISHED,
    SCHEDULERS,
    SPACINGS,
    SchedulerChoice,
    choose,
    names,
    read_published_scheduler,
    sampler_by_name,
)
from vinograph.schedulers.noise_schedule import linspace
from vinograph.schedulers.sampler import Sampler, SamplingPlan, StepInput, StepOutput
from vinograph.schedulers.wuerstchen import TimeStep, WuerstchenSampler, custom_timesteps

__all__ = [
    "PUBLISHED",
    "SAMPLERS",
    "SCHEDULERS",
    "SPACINGS",
    "Sampler",
    "SamplingPlan",
    "SchedulerChoice",
    "StepInput",
    "StepOutput",
    "TimeStep",
    "WuerstchenSampler",
    "choose",
    "continuous_names",
    "continuous_sampler_by_name",
    "custom_timesteps",
    "linspace",
    "make_sampler",
    "names",
    "read_published_scheduler",
    "read_scheduler_config",
    "sampler_by_name",
]
