"""Which models end the process that draws with them, and are not tried for a while."""

from __future__ import annotations

import time
from dataclasses import dataclass

_MOST_DEATHS = 3  # in a row, after which a model isn't tried for a while
_FIRST_PAUSE = 10.0  # seconds, doubled with each further death
_LONGEST_PAUSE = 600.0


@dataclass
class _State:
    reason: str = ""
    deaths: int = 0
    blocked_until: float = 0.0


class ModelHealth:
    """Counts in a row how often the process ended with each model, by the models' names.

    The empty name stands for the process itself, before it takes jobs.
    """

    def __init__(self) -> None:
        self._states: dict[str, _State] = {}

    def lost(self, model: str, reason: str) -> None:
        """The process ended while it had to do with the model."""
        state = self._states.setdefault(model, _State())
        state.deaths += 1
        state.reason = reason
        if state.deaths >= _MOST_DEATHS:
            pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (state.deaths - _MOST_DEATHS))
            state.blocked_until = time.monotonic() + pause

    def failed(self, model: str, reason: str) -> None:
        """The model can't be loaded, which it is told at each try."""
        self._states.setdefault(model, _State()).reason = reason

    def worked(self, model: str) -> None:
        """A drawing with the model was done."""
        self._states.pop(model, None)

    def reason(self, model: str) -> str:
        """What was last wrong with the model; empty where it worked since."""
        return self._states[model].reason if model in self._states else ""

    def blocked(self, model: str) -> bool:
        """Whether the model isn't tried now."""
        return model in self._states and time.monotonic() < self._states[model].blocked_until
