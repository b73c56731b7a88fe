"""The checkpoints that conversion is tested with, which are opened here, and the command line."""

from tests.cli.conftest import vinograph
from tests.convert.conftest import checkpoint, combined, split, undisturbed

__all__ = ["checkpoint", "combined", "split", "undisturbed", "vinograph"]
