"""What an adapter is, and what it changes in a model."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from typing import Any

from vinograph.adapters import metadata, recognition
from vinograph.adapters.adaptation import check_fits
from vinograph.adapters.file import AdapterFile
from vinograph.adapters.matching import Match, match
from vinograph.adapters.model_weights import read_weights
from vinograph.models.model import Model


@dataclass(frozen=True)
class Report:
    """An adapter compared with a model.

    Attributes:
        file: the adapter.
        match: which of its tensors fit, and which don't.
        opened: the model.
        changed: how many weights of each component change.
        made_for: the model that it was made for, as it says or as its keys show.
    """

    file: AdapterFile
    match: Match
    opened: Model
    changed: dict[str, int]
    made_for: str | None

    @property
    def model(self) -> str:
        """The model's name and family."""
        return f"{self.opened.manifest.name}, {self.opened.manifest.family}"

    @property
    def kinds(self) -> Counter[str]:
        """How many weights change in each way."""
        return Counter(change.difference.kind for change in self.match.changes)

    @property
    def rank(self) -> str:
        """The ranks of its factors: one number, or the least and the greatest; "" without any."""
        ranks = sorted({change.difference.rank for change in self.match.changes if change.difference.rank})
        return "" if not ranks else f"{ranks[0]}" if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"

    @property
    def trigger_words(self) -> list[str]:
        """The words that it was trained with, where it says so."""
        return metadata.words(self.file.metadata)

    def check(self) -> None:
        """Refuse an adapter of another model. Raises RequestError."""
        check_fits(self.file, self.match, self.opened)

    def record(self) -> dict[str, Any]:
        """The report as JSON."""
        return {
            "file": str(self.file.path),
            "kinds": dict(self.kinds),
            "rank": self.rank or None,
            "key_styles": dict(self.match.styles),
            "made_for": self.made_for,
            "says_base": recognition.says_base(self.file),
            "model": self.opened.manifest.name,
            "family": self.opened.manifest.family,
            "changed": self.changed,
            "tensors": len(self.file.tensors),
            "used": list(self.match.used),
            "without_effect": list(self.match.idle),
            "unused": {each.tensor: each.reason for each in self.match.unused},
            "trigger_words": self.trigger_words,
        }


def report(reference: str | os.PathLike[str], model: Model) -> Report:
    """Compare the adapter that ``reference`` names with a model.

    Raises:
        RequestError: there is no such file, or it holds no tensor.
        ModelError: it is pickled, or the model's weights have no names.
        DamagedModelError: it is damaged.
    """
    file = AdapterFile.open(reference)
    weights = read_weights(model)
    found = match(file, weights)
    changed = Counter(
        component
        for part, weight in {(change.place.part, change.place.weight) for change in found.changes}
        for component in weights.names.parts[part].components
        if weight in weights.held.get(component, ())
    )
    said, seems = recognition.says_base(file), recognition.seems_for(file)
    made_for = seems if said is None or seems == said else f"{seems} ({said})"
    return Report(file, found, model, dict(sorted(changed.items())), made_for)
