"""Every error that a user can meet.

::

    VinographError                 exit code of the command line
    ├── RequestError               2  the call is wrong: names the option, what was given, what would do
    │   └── DeviceError            2  a device that isn't there; names those that are
    ├── ModelError                 3  the model can't be used: unknown family, unsafe or missing weights
    ├── DamagedModelError          4  a file of the model is missing, short or altered
    ├── ResourceError              5  the disk, or memory, is not enough: how much is needed, how much there is
    └── NumericalError             1  a stage computed NaN or infinity; no picture is written

Anything else that escapes is a defect of ours (exit code 1, with a traceback).
"""

from __future__ import annotations


class VinographError(Exception):
    """The root of every error that Vinograph raises on purpose."""

    exit_code = 1


class RequestError(VinographError, ValueError):
    """The call is wrong: an argument is of the wrong type, out of range, or not one that the family takes."""

    exit_code = 2


class DeviceError(RequestError):
    """OpenVINO doesn't find the device on this machine."""


class ModelError(VinographError):
    """The model can't be used: an unknown family, unsafe or missing weights, a newer bundle format."""

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
