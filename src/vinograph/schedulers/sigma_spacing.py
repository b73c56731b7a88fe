"""How a run's noise levels are spaced: by Karras et al., exponentially, by a beta distribution, or tuned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from vinograph.errors import RequestError
from vinograph.schedulers import noise_schedule
from vinograph.schedulers.sampler import Array, Sampler, setting

SPACINGS_OF_SIGMAS = (
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "use_lu_lambdas",
    "use_align_your_steps",
)
"""The settings that space σ; a sampler can follow one of them."""

_SAME_ENDS = 0.05  # the relative difference of σ up to which a noise schedule counts as SDXL's


@dataclass(frozen=True)
class SigmaSampler(Sampler):
    """A sampler that takes steps of σ, which it can space in other ways than by timesteps.

    ``use_align_your_steps`` is no setting of diffusers. It spaces the steps as AUTOMATIC1111 and
    ComfyUI do under that name.
    """

    use_karras_sigmas: bool = setting(False)
    use_exponential_sigmas: bool = setting(False)
    use_beta_sigmas: bool = setting(False)
    use_align_your_steps: bool = setting(False)

    own_settings: ClassVar[tuple[str, ...]] = ("use_align_your_steps",)

    @property
    def spaces_sigmas(self) -> bool:
        """Whether a setting says how σ is spaced."""
        return any(getattr(self, name, False) for name in SPACINGS_OF_SIGMAS)

    def _check_custom(self, timesteps: object) -> None:
        if timesteps is not None and self.spaces_sigmas:
            raise RequestError("this model's scheduler spaces its own sigmas and takes no timesteps; give sigmas")

    def spaced_sigmas(self, sigma_max: float, sigma_min: float, count: int, training: Array) -> NDArray[np.float64]:
        """``count`` σ that fall as the settings say, from ``sigma_max`` to ``sigma_min``.

        ``training`` [num_train_timesteps] are the model's own, from the lowest up.

        Raises:
            RequestError: the tuned steps belong to another noise schedule than this one.
        """
        if self.use_karras_sigmas:
            return noise_schedule.karras_sigmas(sigma_max, sigma_min, count)
        if self.use_exponential_sigmas:
            return noise_schedule.exponential_sigmas(sigma_max, sigma_min, count)
        if self.use_beta_sigmas:
            return noise_schedule.beta_sigmas(sigma_max, sigma_min, count)
        tuned, ends = noise_schedule.ALIGN_YOUR_STEPS, (float(training[0]), float(training[-1]))
        if not np.allclose(ends, (tuned[-1], tuned[0]), rtol=_SAME_ENDS, atol=0):
            raise RequestError(
                f"align your steps was tuned for SDXL's noise, from {tuned[0]:.4g} down to {tuned[-1]:.2g}; this "
                f"model's goes from {ends[1]:.4g} down to {ends[0]:.2g}. Give another spacing, such as karras"
            )
        return noise_schedule.align_your_steps_sigmas(count)
