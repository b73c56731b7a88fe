"""The checkpoints that conversion is tested with, which are opened here."""

from tests.convert.conftest import checkpoint, combined, split, undisturbed

__all__ = ["checkpoint", "combined", "split", "undisturbed"]
