"""Declares the server's settings: their names in the file, the environment and on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vinograph.arguments import MAX_COUNT, MAX_STEPS
from vinograph.schema import Either, Flag, Kind, Many, Maybe, Named, Real, Text, Whole

_MOST = 10**15
_MOST_SECONDS = 30 * 24 * 3600.0
NAME = Text(200)
PER_COMPONENT: Kind = Either(Text(200), Named(Text(200)))
"""A device or a precision: one for all components, or one for each by its name."""


@dataclass(frozen=True)
class Setting:
    """A setting that every source can have.

    Attributes:
        key: its name in the file, with a point before what is in a table.
        kind: its values.
        option: its option on the command line; ``--limit NAME=VALUE`` sets any of the limits.
        variable: its environment variable.
    """

    key: str
    kind: Kind
    option: str
    variable: str

    @property
    def field(self) -> str:
        """The field of the configuration, or of its limits, that holds the value."""
        return self.key.rpartition(".")[2]


def _setting(key: str, kind: Kind, option: str = "", variable: str = "") -> Setting:
    name = key.replace("limits.", "limit_")
    option = option or (f"--limit {key[7:]}" if key.startswith("limits.") else f"--{key.replace('_', '-')}")
    return Setting(key, kind, option, variable or f"VINOGRAPH_{name.upper()}")


LIMITS: Mapping[str, Kind] = {
    "body": Whole(1000, _MOST),
    "pixels": Whole(1, _MOST),
    "input_pixels": Whole(1, _MOST),
    "pictures": Whole(1, MAX_COUNT),
    "steps": Whole(1, MAX_STEPS),
    "queue": Whole(0, 100_000),
    "deadline": Real(0.001, _MOST_SECONDS),
    "memory": Maybe(Whole(1, _MOST)),
    "loaded_models": Whole(1, 1000),
}

RAY: Mapping[str, Kind] = {
    "address": Text(300),
    "replicas": Either(Whole(1, 10_000), Text(20)),
    "cpus": Maybe(Whole(1, 10_000)),
    "memory": Maybe(Whole(1, _MOST)),
    "requests_per_replica": Real(0.1, 10_000),
    "upscale_delay": Real(0, _MOST_SECONDS),
    "downscale_delay": Real(0, _MOST_SECONDS),
}
_RAY_OPTIONS = {
    **{"address": "--ray", "replicas": "--replicas", "cpus": "--replica-cpus", "memory": "--replica-memory"},
}

TABLES: Mapping[str, Mapping[str, Kind]] = {"limits": LIMITS, "ray": RAY}
"""The tables of settings in the file, but for the models'."""

SETTINGS: Mapping[str, Setting] = {
    each.key: each
    for each in (
        _setting("host", Text(253)),
        _setting("port", Whole(0, 65535)),
        _setting("api_keys", Many(NAME, most=1000), "--api-key", "VINOGRAPH_API_KEY"),
        _setting("api_key_file", Text(4096)),
        _setting("no_auth", Flag()),
        _setting("allowed_hosts", Many(NAME), "--allowed-host"),
        _setting("allowed_origins", Many(NAME), "--allowed-origin"),
        _setting("strict_models", Flag()),
        _setting("aliases", Named(NAME), "--alias"),
        _setting("device", PER_COMPONENT),
        _setting("precision", PER_COMPONENT),
        _setting("page", Flag()),
        _setting("gallery", Text(4096)),
        _setting("grace", Real(0, _MOST_SECONDS)),
        _setting("metadata", Flag()),
        _setting("log_prompts", Flag()),
        _setting("log_format", Text(choices=("text", "json"))),
        *(_setting(f"limits.{name}", kind) for name, kind in LIMITS.items()),
        *(
            _setting(f"ray.{name}", kind, _RAY_OPTIONS.get(name, f"ray.{name}"), f"VINOGRAPH_RAY_{name.upper()}")
            for name, kind in RAY.items()
        ),
    )
}
"""All settings but the models, by their keys."""

MODELS = _setting("models", Many(Text(4096), 1, 1000), "--model", "VINOGRAPH_SERVE_MODELS")
"""The models: a list of sources on the command line, a table of tables in the file."""

CONFIG_OPTION, CONFIG_VARIABLE = "--config", "VINOGRAPH_SERVE_CONFIG"

MODEL_KEYS: Mapping[str, Kind] = {
    "source": Text(4096),
    "device": PER_COMPONENT,
    "precision": PER_COMPONENT,
    "defaults": Named(Either(Either(Flag(), Real(-1e18, 1e18)), Text(20_000))),
    "adapters": Named(Real(-1000, 1000), most=20),
}
"""The keys of a model's table in the file."""
