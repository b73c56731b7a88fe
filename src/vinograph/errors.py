"""Every error that a user can meet.

::

    VinographError                 exit code of the command line
    ├── RequestError               2  a wrong call: names the option, its value and what would fit
    │   └── DeviceError            2  the machine lacks the device: names those that it has
    ├── ModelError                 3  an unusable model: unknown family, unsafe or missing weights
    ├── DamagedModelError          4  a file of the model is missing, short or altered
    ├── ResourceError              5  too little disk space or memory: how much is needed and free
    └── NumericalError             1  a stage computed NaN or infinity; no picture is written

Anything else that escapes is a defect of ours (exit code 1, with a traceback).
"""

from __future__ import annotations


class VinographError(Exception):
    """The root of every error that Vinograph raises on purpose."""

    exit_code = 1


class RequestError(VinographError, ValueError):
    """An argument has the wrong type, is out of range, or is not one that the family takes."""

    exit_code = 2


class DeviceError(RequestError):
    """OpenVINO doesn't find the device on this machine."""


class ModelError(VinographError):
    """The model can't be used: unknown family, unsafe or missing weights, newer bundle format."""

    exit_code = 3


class DamagedModelError(VinographError):
    """A file of the model is missing, shorter or longer than it was, or altered."""

    exit_code = 4


class ResourceError(VinographError):
    """There is not enough disk space, or memory, for the call."""

    exit_code = 5


class NumericalError(VinographError, ArithmeticError):
    """A stage computed NaN or infinity, so there is no picture."""

    def __init__(self, stage: str, precision: str, hint: str) -> None:
        """Name the stage that failed, the precision that it ran in, and what to try."""
        self.stage = stage
        self.precision = precision
        super().__init__(f"the {stage} stage computed NaN or infinity in {precision}: {hint}")
