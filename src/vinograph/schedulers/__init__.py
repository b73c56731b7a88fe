"""The samplers, in numpy, as small pure pieces.

:func:`settings` reads what a checkpoint says of its scheduler, :func:`sampler` makes the :class:`Sampler` of it. A
sampler makes a :class:`Plan` of a run, and does its steps one by one; it keeps nothing between them. Würstchen's,
over continuous time, is :class:`WuerstchenSampler`.
"""

from vinograph.schedulers.levels import linspace
from vinograph.schedulers.sampler import Plan, Sampler, State, Stepped
from vinograph.schedulers.settings import SAMPLERS, sampler, settings
from vinograph.schedulers.wuerstchen import WuerstchenSampler, custom_timesteps

__all__ = [
    "SAMPLERS",
    "Plan",
    "Sampler",
    "State",
    "Stepped",
    "WuerstchenSampler",
    "custom_timesteps",
    "linspace",
    "sampler",
    "settings",
]
