"""Reads the server's configuration: options over environment variables over a file over defaults.

A value of a higher source replaces that of a lower one as a whole. Each value's source is known,
for error messages and for ``vinograph serve --check``.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vinograph.errors import RequestError
from vinograph.families import registry
from vinograph.request import arguments_of
from vinograph.schema import Kind, Many, Named, SchemaError
from vinograph.serve.api_keys import check_key, read_keys
from vinograph.serve.configuration import Configuration, Limits, RayOptions, ServedModel
from vinograph.serve.configuration_settings import (
    CONFIG_OPTION,
    CONFIG_VARIABLE,
    LIMITS,
    MODEL_KEYS,
    MODELS,
    PER_COMPONENT,
    SETTINGS,
    TABLES,
    Setting,
)
from vinograph.serve.fields import from_text
from vinograph.serve.listening import is_loopback
from vinograph.values import shown

_MODEL_NAME = re.compile(r"[A-Za-z0-9][\w.:/-]{0,99}", re.ASCII)
_LARGEST_FILE = 1_000_000  # bytes
_DEFAULT = "default"
_NAME_RULE = "give NAME=SOURCE with a NAME of letters, digits and . _ : / -"


@dataclass(frozen=True)
class Sourced:
    """A value and where it comes from: an option, a variable, a file, or "default"."""

    value: Any
    source: str


@dataclass(frozen=True)
class Effective:
    """The configuration that holds.

    ``sources`` says where each setting comes from, by its key in the file. ``warnings`` are for
    whoever starts the server.
    """

    configuration: Configuration
    sources: Mapping[str, str]
    warnings: tuple[str, ...] = field(default=())


def load(options: Mapping[str, Any], environment: Mapping[str, str], default_model: str) -> Effective:
    """Read all sources.

    Args:
        options: the values of options that were given, by the settings' keys. ``models`` are texts,
            as ``aliases`` and ``limits`` are: ``NAME=VALUE``. ``config`` is the file.
        environment: the process's environment variables.
        default_model: the source of the model that is served where none is named.

    Raises:
        RequestError: a setting is unknown, has a value that doesn't fit, or two of them contradict
            each other. The message names the option, variable, or file and key.
    """
    given = _from_options(options)
    file = given.pop("config", None) or _variable(environment, CONFIG_VARIABLE)
    tables: Mapping[str, Any] = {} if file is None else _read_file(Path(file.value), file.source)
    values: dict[str, Sourced] = {}
    for source in (_from_file(tables, "" if file is None else str(file.value)), _from_environment(environment), given):
        if source.keys() & {"api_keys", "api_key_file"}:  # a source's keys replace all of a lower one
            values = {key: each for key, each in values.items() if key not in ("api_keys", "api_key_file")}
        values |= source
    models = _models(values.pop("models", Sourced((default_model,), _DEFAULT)), tables.get("models", {}), values)
    configuration = _configuration(values, models)
    _check_together(configuration, values)
    return Effective(configuration, _sources(values, models), tuple(_warnings(configuration, environment)))


def _from_options(options: Mapping[str, Any]) -> dict[str, Sourced]:
    found: dict[str, Sourced] = {}
    for key, value in options.items():
        if key == "config":
            found[key] = Sourced(value, CONFIG_OPTION)
        elif key == "models":
            found[key] = Sourced(tuple(value), MODELS.option)
        elif key == "limits":
            found |= _limits_from_texts(value)
        else:
            found[key] = _checked(SETTINGS[key], value, SETTINGS[key].option)
    return found


def _limits_from_texts(texts: Iterable[str]) -> dict[str, Sourced]:
    found = {}
    for name, value in _pairs(texts, "--limit").items():
        _check_names("--limit", [name], LIMITS)
        setting = SETTINGS[f"limits.{name}"]
        found[setting.key] = _checked(setting, value, f"--limit {name}")
    return found


def _from_environment(environment: Mapping[str, str]) -> dict[str, Sourced]:
    found = {}
    for setting in (*SETTINGS.values(), MODELS):
        if (given := _variable(environment, setting.variable)) is not None:
            found[setting.key] = (
                Sourced(_listed(given.value), given.source)
                if setting is MODELS
                else _checked(setting, given.value, given.source)
            )
    return found


def _variable(environment: Mapping[str, str], name: str) -> Sourced | None:
    """The value of a variable; an empty one counts as none, as containers set it so."""
    return Sourced(environment[name], name) if environment.get(name) else None


def _listed(text: str) -> tuple[str, ...]:
    return tuple(each.strip() for each in text.split(",") if each.strip())


def _pairs(texts: Iterable[str], where: str) -> dict[str, str]:
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise RequestError(f"{where} is {shown(text)}; give NAME=VALUE")
        found[name.strip()] = value.strip()
    return found


def _checked(setting: Setting, value: Any, where: str) -> Sourced:
    """The value of an option or a variable, which may be text."""
    if isinstance(setting.kind, Many):
        value = _listed(value) if isinstance(value, str) else tuple(value)
    elif isinstance(setting.kind, Named) or (setting.kind is PER_COMPONENT and "=" in value):
        value = _pairs(_listed(value) if isinstance(value, str) else value, where)
    elif isinstance(value, str):
        value = from_text(setting.kind, value)
    _fits(setting.kind, where, value, secret=setting.key == "api_keys")
    return Sourced(value, where)


def _fits(kind: Kind, where: str, value: Any, *, secret: bool = False) -> None:
    try:
        kind.check(where, value)
    except SchemaError as error:
        raise RequestError(f"{where} holds what is no API key" if secret else str(error)) from error


def _read_file(path: Path, where: str) -> Mapping[str, Any]:
    try:
        with path.open("rb") as stream:
            content = stream.read(_LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RequestError(f"{where} {shown(str(path))} can't be read: {reason}") from error
    if len(content) > _LARGEST_FILE:
        raise RequestError(f"{where} {shown(str(path))} has over {_LARGEST_FILE:,} bytes, so it is no configuration")
    try:
        return tomllib.loads(content.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"{path} is no TOML: {shown(str(error))}") from error


def _from_file(tables: Mapping[str, Any], file: str) -> dict[str, Sourced]:
    own = {key for key in SETTINGS if "." not in key}
    _check_names(file, tables, {*own, "models", *TABLES})
    found = {key: Sourced(value, file) for key, value in tables.items() if key in own}
    for name, known in TABLES.items():
        table = _table(tables.get(name, {}), f"{file}: {name}")
        _check_names(f"{file}: {name}", table, known)
        found |= {f"{name}.{key}": Sourced(value, file) for key, value in table.items()}
    for key, each in found.items():
        _fits(SETTINGS[key].kind, f"{file}: {key}", each.value, secret=key == "api_keys")
    models = _table(tables.get("models", {}), f"{file}: models")
    for name, table in models.items():
        _check_model(name, table, f"{file}: models.{name}")
    return found | ({"models": Sourced(tuple(models), file)} if models else {})


def _table(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise RequestError(f"{where} is {shown(value)}, where a table should be")
    return value


def _check_model(name: str, table: Any, where: str) -> None:
    if not _MODEL_NAME.fullmatch(name):
        raise RequestError(f"{where} is no name of a model; {_NAME_RULE}")
    _check_names(where, _table(table, where), MODEL_KEYS)
    for key, value in table.items():
        _fits(MODEL_KEYS[key], f"{where}.{key}", value)
    _check_names(f"{where}.defaults", table.get("defaults", {}), _arguments())


def _arguments() -> set[str]:
    """The arguments of all families that a configuration can have defaults for."""
    families = map(registry.family, registry.FAMILIES)
    return {name for each in families for name, argument in arguments_of(each.request).items() if argument.recorded} - {
        "prompt",
        "seed",
        "output_type",
    }


def _check_names(where: str, names: Iterable[str], known: Iterable[str]) -> None:
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            meant = f"did you mean {close[0]}?" if close else f"known are {', '.join(sorted(known))}"
            raise RequestError(f"{where}: there is no setting {shown(name)}; {meant}")


@dataclass(frozen=True)
class _Models:
    models: tuple[ServedModel, ...]
    source: str


def _models(given: Sourced, tables: Mapping[str, Any], values: Mapping[str, Sourced]) -> _Models:
    """The models: those named by options or variables, with their settings of the file, or the file's."""
    found: dict[str, ServedModel] = {}
    for text in given.value:
        name, source = _name_and_source(text, tables, given.source)
        if name in found:
            raise RequestError(f"{given.source} names two models {name}; give the second another name, NAME=SOURCE")
        table = dict(tables.get(name, {}))
        if text not in tables or "source" not in table:
            table["source"] = source
        general = {key: values[key].value for key in ("device", "precision") if key in values}
        found[name] = ServedModel(name=name, **{**general, **table})
    return _Models(tuple(found.values()), given.source)


def _name_and_source(text: str, tables: Mapping[str, Any], where: str) -> tuple[str, str]:
    """The name and the source of a model, given as NAME, SOURCE or NAME=SOURCE."""
    if text in tables:
        return text, text
    name, equals, source = text.partition("=")
    if not equals or not _MODEL_NAME.fullmatch(name) or Path(text).exists():
        is_path = Path(text).exists() or text.startswith((".", "/", "~"))
        name, source = (Path(text).name.removesuffix(".safetensors") if is_path else text), text
    if not _MODEL_NAME.fullmatch(name) or not source:
        raise RequestError(f"{where} {shown(text)} gives a model no name; {_NAME_RULE}")
    return name, source


def _configuration(values: Mapping[str, Sourced], models: _Models) -> Configuration:
    plain = {key: each.value for key, each in values.items() if "." not in key}
    limits, ray = (
        {SETTINGS[key].field: each.value for key, each in values.items() if key.startswith(f"{table}.")}
        for table in TABLES
    )
    if "replicas" in ray:
        ray["replicas"] = _replicas(ray["replicas"], values["ray.replicas"].source)
    for name in ("device", "precision"):
        plain.pop(name, None)
    keys = [*plain.pop("api_keys", ())]
    for key in keys:
        check_key(key, values["api_keys"].source)
    if (file := plain.pop("api_key_file", None)) is not None:
        keys += read_keys(Path(file), values["api_key_file"].source)
    for name in ("allowed_hosts", "allowed_origins"):
        if name in plain:
            plain[name] = tuple(plain[name])
    return Configuration(
        models.models, keys=tuple(dict.fromkeys(keys)), limits=Limits(**limits), ray=RayOptions(**ray), **plain
    )


def _replicas(value: int | str, where: str) -> tuple[int, int]:
    """The least and the most replicas of N or MIN-MAX."""
    found = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", str(value).replace(" ", ""), re.ASCII)
    least, most = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= least <= most:
        raise RequestError(f"{where} is {shown(value)}; give a number of replicas, or MIN-MAX such as 1-4")
    return least, most


def _check_together(configuration: Configuration, values: Mapping[str, Sourced]) -> None:
    names = {each.name for each in configuration.models}
    for alias, model in configuration.aliases.items():
        where = f"{values['aliases'].source}: the alias {shown(alias)}"
        if model not in names:
            raise RequestError(f"{where} is for {shown(model)}, which is no model; there is {', '.join(sorted(names))}")
        if alias in names:
            raise RequestError(f"{where} is a model's own name; name it otherwise")
    for origin in configuration.allowed_origins:
        if not _ORIGIN.fullmatch(origin):
            raise RequestError(
                f"{values['allowed_origins'].source}: {shown(origin)} is no origin; "
                "give scheme and host, such as https://example.org, without a path, or *"
            )
    if configuration.page and configuration.ray.address is not None:
        raise RequestError(
            f"{values['page'].source} and {values['ray.address'].source} don't go together: Ray serves the APIs alone; "
            "start the page by `vinograph web`"
        )
    if configuration.no_auth and configuration.keys:
        raise RequestError(f"{values['no_auth'].source} and API keys contradict each other; give one of the two")
    if not (configuration.keys or configuration.no_auth or is_loopback(configuration.host)):
        source = values["host"].source
        raise RequestError(
            f"{source} {configuration.host}: other machines could draw here without a key; "
            "give --api-key-file, or --no-auth if anybody may"
        )


_ORIGIN = re.compile(r"\*|https?://[\w.:\[\]-]+", re.ASCII)
_SHORT_KEY = 16  # characters


def _warnings(configuration: Configuration, environment: Mapping[str, str]) -> Iterable[str]:
    if configuration.no_auth and not is_loopback(configuration.host):
        yield f"whoever can reach {configuration.host} can draw on this machine: no key is asked for (no_auth)"
    if any(len(key) < _SHORT_KEY for key in configuration.keys):
        yield f"an API key has under {_SHORT_KEY} characters, and can be guessed"
    if configuration.gallery is not None and not configuration.page:
        yield "the gallery is the page's, which isn't served: give --page, too"
    if "*" in configuration.allowed_origins and not configuration.keys:
        yield "any web page may use the server from a visitor's browser: allowed_origins has * and there is no key"
    known = [setting.variable for setting in (*SETTINGS.values(), MODELS)] + [CONFIG_VARIABLE]
    for name in environment:
        if name.startswith("VINOGRAPH_") and name not in (*known, *_OTHER_VARIABLES):
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
            if close:
                yield f"the variable {name} has no meaning; did you mean {close[0]}?"


_OTHER_VARIABLES = ("VINOGRAPH_MODELS", "VINOGRAPH_CACHE", "VINOGRAPH_CACHE_LIMIT")


def _sources(values: Mapping[str, Sourced], models: _Models) -> dict[str, str]:
    return {
        "models": models.source,
        **{key: values[key].source if key in values else _DEFAULT for key in SETTINGS},
    }


def records(effective: Effective) -> Sequence[tuple[str, Any, str]]:
    """Each setting's key, value and source; of the keys, only their number."""
    configuration = effective.configuration
    found: list[tuple[str, Any, str]] = []
    for model in configuration.models:
        shown_keys = [key for key in MODEL_KEYS if getattr(model, key)]
        found += [
            (f"models.{model.name}.{key}", getattr(model, key), effective.sources["models"]) for key in shown_keys
        ]
    for key, setting in SETTINGS.items():
        if key in ("device", "precision", "api_key_file"):
            continue
        source = effective.sources[key]
        if key == "api_keys":
            count, files = len(configuration.keys), effective.sources["api_key_file"]
            value: Any = f"{count} (not shown)" if count else "none"
            source = source if source != _DEFAULT or files == _DEFAULT else files
        else:
            table = key.rpartition(".")[0]
            value = getattr(getattr(configuration, table) if table else configuration, setting.field)
        found.append((key, list(value) if isinstance(value, tuple) else value, source))
    return found
