"""The server's configuration: options over variables over a file over defaults, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from vinograph.errors import RequestError
from vinograph.serve.configuration import Configuration, Limits, RayOptions, ServedModel
from vinograph.serve.configuration_settings import LIMITS, MODELS, SETTINGS
from vinograph.serve.configuration_sources import Effective, load, records

KEY = "sk-0123456789abcdef"
FILE = """
host = "0.0.0.0"
port = 1111
api_keys = ["sk-from-the-file-0123"]
allowed_hosts = ["draw.example"]
allowed_origins = ["https://page.example"]
log_format = "json"
grace = 5
device = "CPU"

[limits]
queue = 3
deadline = 1.5

[aliases]
"dall-e-3" = "small"

[models.small]
source = "storybook-sdxl"
defaults = { num_inference_steps = 4, guidance_scale = 2.5, scheduler = "dpm++ 2m karras" }
adapters = { "pixel-art" = 0.8 }

[models.other]
source = "storybook-pixart"
precision = { unet = "f32" }
"""


def loaded(options: Mapping[str, Any] = {}, environment: Mapping[str, str] = {}) -> Effective:
    return load(options, environment, "storybook-wuerstchen")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "serve.toml"
    path.write_text(FILE, encoding="utf-8")
    return path


def refused(options: Mapping[str, Any] = {}, environment: Mapping[str, str] = {}) -> str:
    with pytest.raises(RequestError) as caught:
        loaded(options, environment)
    return str(caught.value)


def refused_file(tmp_path: Path, text: str | bytes) -> str:
    path = tmp_path / "wrong.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    message = refused({"config": str(path)})
    assert str(path) in message
    return message.replace(str(path), "FILE")


def test_without_anything_the_embedded_model_is_served_on_this_machine() -> None:
    effective = loaded()
    assert effective.configuration == Configuration((ServedModel("storybook-wuerstchen", "storybook-wuerstchen"),))
    assert set(effective.sources.values()) == {"default"}
    assert not effective.warnings


def test_a_file_has_all_settings(file: Path) -> None:
    configuration = loaded({"config": str(file)}).configuration
    small, other = configuration.models
    assert (small.name, small.source, small.device) == ("small", "storybook-sdxl", "CPU")
    assert small.defaults == {"num_inference_steps": 4, "guidance_scale": 2.5, "scheduler": "dpm++ 2m karras"}
    assert small.adapters == {"pixel-art": 0.8}
    assert other.precision == {"unet": "f32"}
    assert configuration.aliases == {"dall-e-3": "small"}
    assert configuration.limits == Limits(queue=3, deadline=1.5)
    assert configuration.keys == ("sk-from-the-file-0123",)
    assert (configuration.host, configuration.port, configuration.grace) == ("0.0.0.0", 1111, 5)
    assert configuration.allowed_origins == ("https://page.example",)


def test_the_file_can_be_named_by_a_variable(file: Path) -> None:
    effective = loaded({}, {"VINOGRAPH_SERVE_CONFIG": str(file)})
    assert effective.configuration.port == 1111
    assert effective.sources["port"] == str(file)


def test_a_variable_comes_before_the_file_and_an_option_before_both(file: Path) -> None:
    environment = {"VINOGRAPH_PORT": "2222", "VINOGRAPH_GRACE": "7.5", "VINOGRAPH_LIMIT_QUEUE": "9"}
    effective = loaded({"config": str(file), "port": 3333}, environment)
    assert effective.configuration.port == 3333
    assert effective.configuration.grace == 7.5
    assert effective.configuration.limits.queue == 9
    names = ("port", "grace", "limits.queue", "limits.deadline", "limits.body")
    assert [effective.sources[name] for name in names] == [
        *("--port", "VINOGRAPH_GRACE", "VINOGRAPH_LIMIT_QUEUE", str(file), "default"),
    ]


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("host", "localhost", "localhost"),
        ("port", "0", 0),
        ("allowed_hosts", "a.example, b.example", ("a.example", "b.example")),
        ("allowed_origins", "*", ("*",)),
        ("strict_models", "true", True),
        ("page", "1", True),
        ("grace", "2.5", 2.5),
        ("metadata", "false", False),
        ("log_prompts", "TRUE", True),
        ("log_format", "json", "json"),
        ("aliases", "a=storybook-wuerstchen,b=storybook-wuerstchen", dict.fromkeys("ab", "storybook-wuerstchen")),
    ],
)
def test_every_setting_has_a_variable(key: str, text: str, value: object) -> None:
    variable = SETTINGS[key].variable
    effective = loaded({}, {variable: text})
    assert getattr(effective.configuration, key) == value
    assert effective.sources[key] == variable


@pytest.mark.parametrize("name", LIMITS)
def test_every_limit_has_a_variable_and_an_option(name: str) -> None:
    value = {"body": "1234"}.get(name, "12")
    by_variable = loaded({}, {f"VINOGRAPH_LIMIT_{name.upper()}": value})
    by_option = loaded({"limits": [f"{name}={value}"]})
    assert by_option.configuration == by_variable.configuration
    assert getattr(by_option.configuration.limits, name) == int(value)
    assert by_option.sources[f"limits.{name}"] == f"--limit {name}"


def test_an_empty_variable_is_none() -> None:
    assert loaded({}, {"VINOGRAPH_PORT": "", "VINOGRAPH_API_KEY": ""}).configuration.port == 8080


class TestModels:
    """Names and sources."""

    def test_options_replace_all_models_of_the_file_and_can_name_one_of_them(self, file: Path) -> None:
        given = ["mine=storybook-sdxl", "small", "storybook-pixart"]
        models = loaded({"config": str(file), "models": given}).configuration.models
        assert [(each.name, each.source) for each in models] == [
            *(("mine", "storybook-sdxl"), ("small", "storybook-sdxl"), ("storybook-pixart", "storybook-pixart")),
        ]
        assert models[1].adapters == {"pixel-art": 0.8}

    def test_another_source_under_a_name_of_the_file_has_its_settings(self, file: Path) -> None:
        (model,) = loaded(
            {"config": str(file), "models": ["small=storybook-pixart"], "aliases": ["x=small"]}
        ).configuration.models
        assert (model.source, model.adapters) == ("storybook-pixart", {"pixel-art": 0.8})

    def test_a_path_is_named_by_its_last_part(self, tmp_path: Path) -> None:
        path = tmp_path / "juggernaut=v9.safetensors"
        path.touch()
        named = tmp_path / "juggernaut.safetensors"
        named.touch()
        (model,) = loaded({"models": [str(named)]}).configuration.models
        assert (model.name, model.source) == ("juggernaut", str(named))
        assert "NAME=SOURCE" in refused({"models": [str(path)]})
        (model,) = loaded({"models": [f"nine={path}"]}).configuration.models
        assert (model.name, model.source) == ("nine", str(path))

    def test_a_hub_id_is_its_own_name(self) -> None:
        (model,) = loaded({"models": ["stabilityai/sdxl-turbo"]}).configuration.models
        assert (model.name, model.source) == ("stabilityai/sdxl-turbo", "stabilityai/sdxl-turbo")

    def test_models_of_a_variable(self) -> None:
        models = loaded({}, {"VINOGRAPH_SERVE_MODELS": "storybook-sdxl, b=storybook-pixart"}).configuration.models
        assert [each.name for each in models] == ["storybook-sdxl", "b"]

    def test_general_devices_and_own_ones(self, file: Path) -> None:
        models = loaded({"config": str(file), "precision": "f32"}).configuration.models
        assert [each.precision for each in models] == ["f32", {"unet": "f32"}]

    def test_a_device_for_each_component(self) -> None:
        (model,) = loaded(
            {"device": {"unet": "CPU"}}, {"VINOGRAPH_PRECISION": "unet=f32, vae=bf16"}
        ).configuration.models
        assert (model.device, model.precision) == ({"unet": "CPU"}, {"unet": "f32", "vae": "bf16"})

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            (["a=storybook-sdxl", "a=storybook-pixart"], "--model names two models a"),
            (["ä"], "--model 'ä' gives a model no name"),
            ([""], "NAME=SOURCE"),
            (["a="], "NAME=SOURCE"),
            (["../secret folder"], "NAME=SOURCE"),
        ],
    )
    def test_what_is_refused(self, given: list[str], message: str) -> None:
        assert message in refused({"models": given})

    @pytest.mark.parametrize(
        ("alias", "message"),
        [
            ("a=nothing", "the alias 'a' is for 'nothing', which is no model; there is storybook-wuerstchen"),
            ("storybook-wuerstchen=storybook-wuerstchen", "a model's own name"),
            ("a", "give NAME=VALUE"),
            ("=a", "give NAME=VALUE"),
        ],
    )
    def test_aliases_that_are_refused(self, alias: str, message: str) -> None:
        found = refused({"aliases": [alias]})
        assert message in found
        assert found.startswith("--alias")


class TestKeys:
    """API keys, and who may connect without one."""

    def test_keys_of_options_and_their_file_are_taken_together(self, tmp_path: Path) -> None:
        path = tmp_path / "keys"
        path.write_text(f"# readers\n{KEY}\n\nreader:0123456789abcdef\n", encoding="utf-8")
        options = {"api_key_file": str(path), "api_keys": ["another-0123456789", KEY]}
        assert loaded(options).configuration.keys == ("another-0123456789", KEY, "reader:0123456789abcdef")

    def test_keys_of_a_variable_replace_those_of_a_file(self, file: Path) -> None:
        environment = {"VINOGRAPH_API_KEY": f"{KEY},{KEY}2"}
        assert loaded({"config": str(file)}, environment).configuration.keys == (KEY, f"{KEY}2")

    def test_keys_of_a_file_of_keys_replace_those_of_a_lower_source(self, file: Path, tmp_path: Path) -> None:
        path = tmp_path / "keys"
        path.write_text(KEY, encoding="utf-8")
        assert loaded({"config": str(file), "api_key_file": str(path)}).configuration.keys == (KEY,)

    @pytest.mark.parametrize("key", ["", "with space", "ключ", "a\nb", "x" * 201])
    def test_what_is_no_key_is_not_repeated(self, key: str) -> None:
        message = refused({"api_keys": [key]})
        assert "--api-key holds what is no API key" in message
        assert not key or key not in message

    @pytest.mark.parametrize("content", [b"", b"# nothing\n", b"a b\n", b"\xff\xfe"])
    def test_a_file_of_keys_without_one(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "keys"
        path.write_bytes(content)
        assert refused({"api_key_file": str(path)}).startswith("--api-key-file: ")

    def test_a_file_of_keys_that_is_not_there(self, tmp_path: Path) -> None:
        assert "No such file" in refused({}, {"VINOGRAPH_API_KEY_FILE": str(tmp_path / "keys")})

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
    def test_other_machines_need_a_key(self, host: str) -> None:
        message = refused({"host": host})
        assert message.startswith(f"--host {host}: ")
        assert "--api-key-file" in message
        assert loaded({"host": host, "api_keys": [KEY]}).configuration.host == host

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.1.2.3"])
    def test_this_machine_needs_none(self, host: str) -> None:
        assert not loaded({"host": host}).warnings

    def test_without_keys_a_warning_is_heard(self) -> None:
        (warning,) = loaded({"host": "0.0.0.0", "no_auth": True}).warnings
        assert "whoever can reach 0.0.0.0" in warning

    def test_keys_and_no_keys_contradict_each_other(self, file: Path) -> None:
        assert "contradict" in refused({"config": str(file), "no_auth": True})

    def test_a_short_key_is_warned_of(self) -> None:
        (warning,) = loaded({"api_keys": ["short"]}).warnings
        assert "under 16 characters" in warning
        assert "short" not in warning

    def test_keys_are_shown_nowhere(self, file: Path) -> None:
        effective = loaded({"config": str(file)})
        assert "sk-from-the-file" not in repr(effective) + repr(records(effective))
        assert ("api_keys", "1 (not shown)", str(file)) in records(effective)


class TestFiles:
    """Files that are wrong: the message names the file and the key."""

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("prot = 1", "FILE: there is no setting 'prot'; did you mean port?"),
            ("zzz = 1", "FILE: there is no setting 'zzz'; known are aliases"),
            ("[limits]\nque = 1", "FILE: limits: there is no setting 'que'; did you mean queue?"),
            ("[models.a]\nsorce = 'x'", "FILE: models.a: there is no setting 'sorce'; did you mean source?"),
            (
                "[models.a]\nsource = 'x'\ndefaults = { steps = 1 }",
                "FILE: models.a.defaults: there is no setting 'steps'; did you mean",
            ),
            (
                "[models.a]\nsource = 'x'\ndefaults = { prompt = 'x' }",
                "FILE: models.a.defaults: there is no setting 'prompt'",
            ),
            ("port = 'a'", "FILE: port is 'a', where a whole number from 0 to 65535 should be"),
            ("port = 70000", "FILE: port is 70000"),
            ("port = true", "FILE: port is True"),
            ("grace = nan", "FILE: grace is nan"),
            ("page = 'yes'", "FILE: page is 'yes', where true or false should be"),
            ("log_format = 'xml'", "one of text, json"),
            ("limits = 3", "FILE: limits is 3, where a table should be"),
            ("models = ['a']", "FILE: models is ['a'], where a table should be"),
            ("models = { a = 3 }", "FILE: models.a is 3, where a table should be"),
            ("[models.'ä']\nsource = 'x'", "FILE: models.ä is no name of a model"),
            ("[limits]\nqueue = -1", "FILE: limits.queue is -1"),
            ("api_keys = [3]", "FILE: api_keys holds what is no API key"),
            ("api_keys = ['a b']", "FILE holds what is no API key"),
            ("allowed_origins = ['page.example']", "FILE: 'page.example' is no origin"),
            ("allowed_origins = ['https://page.example/path']", "is no origin"),
            ("port = 1\nport = 2", "FILE is no TOML"),
            ("port", "FILE is no TOML"),
            (b"\xff", "FILE is no TOML"),
            ("a = " + "[" * 5000, "FILE is no TOML"),
            ("#" * 1_000_001, "over 1,000,000 bytes"),
        ],
    )
    def test_what_is_refused(self, tmp_path: Path, text: str | bytes, message: str) -> None:
        assert message in refused_file(tmp_path, text)

    @pytest.mark.parametrize("name", ["nothing.toml", ".", "a\0b"])
    def test_no_file(self, tmp_path: Path, name: str) -> None:
        assert refused({"config": str(tmp_path / name)}).startswith("--config ")


@pytest.mark.parametrize(
    ("options", "environment", "message"),
    [
        ({"limits": ["queue"]}, {}, "--limit is 'queue'; give NAME=VALUE"),
        ({"limits": ["que=3"]}, {}, "--limit: there is no setting 'que'; did you mean queue?"),
        ({"limits": ["queue=many"]}, {}, "--limit queue is 'many', where a whole number"),
        ({"limits": ["deadline=inf"]}, {}, "--limit deadline is inf"),
        ({"limits": ["memory=0"]}, {}, "--limit memory is 0"),
        ({"port": 65536}, {}, "--port is 65536"),
        ({"grace": -1.0}, {}, "--grace is -1.0"),
        ({"log_format": "xml"}, {}, "--log-format is 'xml'"),
        ({}, {"VINOGRAPH_PORT": "tcp://10.0.0.1:8080"}, "VINOGRAPH_PORT is 'tcp://10.0.0.1:8080'"),
        ({}, {"VINOGRAPH_PAGE": "maybe"}, "VINOGRAPH_PAGE is 'maybe', where true or false"),
        ({}, {"VINOGRAPH_LIMIT_BODY": "1 GB"}, "VINOGRAPH_LIMIT_BODY is '1 GB'"),
        ({}, {"VINOGRAPH_ALIASES": "a"}, "VINOGRAPH_ALIASES is 'a'; give NAME=VALUE"),
        ({}, {"VINOGRAPH_API_KEY": "a b"}, "VINOGRAPH_API_KEY holds what is no API key"),
    ],
)
def test_what_is_refused_names_its_source(
    options: Mapping[str, Any], environment: Mapping[str, str], message: str
) -> None:
    assert message in refused(options, environment)


def test_a_variable_that_is_nearly_one_is_warned_of() -> None:
    (warning,) = loaded(
        {}, {"VINOGRAPH_PROT": "1", "VINOGRAPH_MODELS": "/srv", "VINOGRAPH_SERVICE_HOST": "10.0.0.1"}
    ).warnings
    assert "VINOGRAPH_PROT has no meaning; did you mean VINOGRAPH_PORT?" in warning


def test_no_two_settings_share_a_variable() -> None:
    names = [each.variable for each in (*SETTINGS.values(), MODELS)]
    assert len(set(names)) == len(names)
    assert not {"VINOGRAPH_MODELS", "VINOGRAPH_CACHE", "VINOGRAPH_CACHE_LIMIT"} & set(names)


def test_every_field_of_the_configuration_is_shown(file: Path) -> None:
    shown = {key for key, _, _ in records(loaded({"config": str(file)}))}
    assert {f"limits.{name}" for name in Limits.__dataclass_fields__} < shown
    assert {f"ray.{name}" for name in RayOptions.__dataclass_fields__} < shown
    fields = Configuration.__dataclass_fields__.keys() - {"models", "limits", "ray", "keys"}
    assert fields | {"api_keys", "models.small.source", "models.small.defaults", "models.other.precision"} < shown
