"""Bundles at the command line: exit 3 if unusable, 4 if damaged, and reports on whole ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.bundles import save_bundle, save_sdxl_bundle
from tests.cli.conftest import Outcome, Run, files_here, in_process
from vinograph.cli import doctor
from vinograph.models.bundle import Bundle
from vinograph.runtime import automatic, devices
from vinograph.runtime.automatic import Comparison
from vinograph.runtime.devices import machine

Edit = Callable[[dict[str, Any]], object]


@pytest.fixture
def copy(bundle: Bundle, tmp_path: Path) -> Path:
    """A bundle to damage."""
    shutil.copytree(bundle.path, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture(scope="session")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole bundle of SDXL, for reading only."""
    return save_sdxl_bundle(tmp_path_factory.mktemp("sdxl") / "tiny-sdxl").path


@pytest.fixture
def drawn(vinograph: Run) -> Run:
    """Run ``generate`` with the model, and check that it leaves no picture."""

    def run(model: object = "copy") -> Outcome:
        before = files_here()
        done = vinograph("generate", "a house", "--model", model)
        assert files_here() == before
        return done

    return run


def edit_manifest(bundle: Path, edit: Edit) -> None:
    file = bundle / "bundle.json"
    manifest = json.loads(file.read_text())
    edit(manifest)
    file.write_text(json.dumps(manifest))


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


class TestDamage:
    @pytest.mark.parametrize("name", ["prior.bin", "vqgan.xml", "tokenizer.json"])
    def test_a_missing_file_is_named(self, drawn: Run, vinograph: Run, copy: Path, name: str) -> None:
        (copy / name).unlink()
        drawn().fails(4, name, "is missing")
        vinograph("verify", copy).fails(4, name, "is missing")
        vinograph("inspect", copy).fails(4, name, "is missing")

    @pytest.mark.parametrize("name", ["prior.bin", "vqgan.xml", "tokenizer.json"])
    @pytest.mark.parametrize("change", [-1, 1])
    def test_a_file_of_another_size_is_named(
        self, drawn: Run, vinograph: Run, copy: Path, name: str, change: int
    ) -> None:
        content = (copy / name).read_bytes() + b"\0"
        (copy / name).write_bytes(content[: len(content) - 1 + change])
        drawn().fails(4, name, f"has {len(content) - 1 + change:,} bytes and should have {len(content) - 1:,}")
        vinograph("verify", copy).fails(4, name, "should have")

    @pytest.mark.parametrize("name", ["prior.bin", "vqgan.xml", "prior_tokenizer.json"])
    def test_a_flipped_bit_is_found_by_verify(self, vinograph: Run, copy: Path, name: str) -> None:
        flip_a_bit(copy / name)
        vinograph("verify", copy).fails(4, name, "was altered", "SHA-256")
        done = vinograph("verify", copy, "--json")
        assert done.record["error"]["type"] == "DamagedModelError"

    def test_an_unreadable_graph_is_damage(self, drawn: Run, copy: Path) -> None:
        (copy / "prior.xml").write_bytes(b" " * (copy / "prior.xml").stat().st_size)
        drawn().fails(4, "prior.xml")

    def test_an_unreadable_tokenizer_is_damage(self, drawn: Run, copy: Path) -> None:
        (copy / "tokenizer.json").write_bytes(b" " * (copy / "tokenizer.json").stat().st_size)
        drawn().fails(4, "tokenizer.json is not a tokenizer")


class TestManifest:
    @pytest.mark.parametrize(
        "text", ["", "{", "[]", "null", "{}", '{"format_version": "one"}', '{"format_version": 0}']
    )
    def test_a_garbled_manifest_is_damage(self, drawn: Run, copy: Path, text: str) -> None:
        (copy / "bundle.json").write_text(text)
        drawn().fails(4, "bundle.json")

    def test_a_manifest_that_is_no_text_is_damage(self, drawn: Run, copy: Path) -> None:
        (copy / "bundle.json").write_bytes(b"\xff\xfe\x00\x01")
        drawn().fails(4, "bundle.json is not a bundle's manifest")

    @pytest.mark.parametrize("field", ["family", "components", "tokenizers", "scheduler", "config", "limits", "files"])
    def test_a_missing_field_is_named(self, drawn: Run, vinograph: Run, copy: Path, field: str) -> None:
        edit_manifest(copy, lambda manifest: manifest.pop(field))
        drawn().fails(4, "bundle.json", field)
        vinograph("inspect", copy).fails(4, "bundle.json", field)

    @pytest.mark.parametrize("field", ["components", "tokenizers", "scheduler", "config", "limits", "files", "source"])
    @pytest.mark.parametrize("value", [None, 3, "text", [1]])
    def test_a_field_of_another_type_is_named(self, drawn: Run, copy: Path, field: str, value: object) -> None:
        edit_manifest(copy, lambda manifest: manifest.update({field: value}))
        drawn().fails(4, "bundle.json")

    def test_a_newer_format_names_the_version_to_install(self, drawn: Run, vinograph: Run, copy: Path) -> None:
        edit_manifest(copy, lambda manifest: manifest.update(format_version=99, tools={"vinograph": "7.1.0"}))
        drawn().fails(3, "bundle format 99", "Vinograph 7.1.0", "pip install --upgrade vinograph")
        vinograph("verify", copy).fails(3, "7.1.0")

    def test_an_unknown_family_is_named(self, drawn: Run, copy: Path) -> None:
        edit_manifest(copy, lambda manifest: manifest.update(family="stylegan"))
        drawn().fails(3, "'stylegan'", "wuerstchen")

    @pytest.mark.parametrize("name", ["../secret", "/etc/passwd"])
    def test_a_file_outside_the_bundle_is_refused(self, drawn: Run, copy: Path, name: str) -> None:
        edit_manifest(copy, lambda manifest: manifest["files"].update({name: {"size": 1, "sha256": ""}}))
        drawn().fails(4, "names a file outside the bundle")


class TestNoBundle:
    def test_an_unknown_name_is_refused(self, drawn: Run, tmp_path: Path) -> None:
        save_bundle(tmp_path / "models" / "mine", name="mine")
        drawn("yours").fails(3, "there is no model 'yours'", "mine", "of a checkpoint", "hub id")

    def test_a_directory_without_a_model_is_refused(self, drawn: Run) -> None:
        Path("empty").mkdir()
        drawn("empty").fails(3, "empty is not a bundle", "bundle.json")

    def test_an_empty_checkpoint_is_refused(self, drawn: Run, vinograph: Run) -> None:
        Path("checkpoint").mkdir()
        Path("checkpoint/model_index.json").write_text("{}")
        for done in (drawn("checkpoint"), vinograph("inspect", "checkpoint")):
            done.fails(3, "checkpoint: model_index.json names no pipeline")

    def test_a_plain_file_is_refused(self, drawn: Run, copy: Path) -> None:
        drawn(copy / "bundle.json").fails(3, "is a file")

    def test_a_hub_id_without_network_is_refused(self, tmp_path: Path) -> None:
        offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
        done = in_process("generate", "a house", "--model", "someone/something", **offline)
        done.fails(3, "'someone/something'", "hf download someone/something")

    @pytest.mark.parametrize("name", ["", "a" * 300, "../../etc", "~nobody/x", "http://x/y"])
    def test_a_text_that_can_name_no_model_is_refused(self, drawn: Run, name: str) -> None:
        done = drawn(name)
        assert done.code in (2, 3)
        done.fails(done.code)


class TestInspect:
    def test_inspect_describes_a_bundle(self, vinograph: Run, bundle: Bundle) -> None:
        done = vinograph("inspect", bundle.path)
        assert done.code == 0
        assert done.err == ""
        lines = [line.split(maxsplit=1) for line in done.out.splitlines() if line]
        facts = {line[0]: line[-1] for line in lines}
        assert facts["family"] == "wuerstchen"
        assert facts["source"] == "tests/tiny"
        assert facts["licence"] == "Apache-2.0"
        assert facts["path"] == str(bundle.path)
        assert "no f16 arithmetic" in facts["decoder"]
        assert "latents:f32[b,4,H,W]" in facts["vqgan"]
        assert "image:f32[b,3,4H,4W]" in facts["vqgan"]
        assert "prior_num_inference_steps 4" in done.out
        assert "maximum_size 2048" in done.out

    def test_inspect_prints_json(self, vinograph: Run, bundle: Bundle) -> None:
        record = vinograph("inspect", bundle.path, "--json").record
        manifest = json.loads((bundle.path / "bundle.json").read_text())
        assert record.pop("speeds").keys() == {"balanced", "fast"}
        assert record == {"path": str(bundle.path), "size": bundle.size, **manifest}


class TestVerify:
    def test_a_whole_bundle_verifies(self, vinograph: Run, bundle: Bundle) -> None:
        done = vinograph("verify", bundle.path)
        assert done.code == 0
        files = len(bundle.manifest.files)
        assert done.out.startswith(f"{bundle.path} is whole: {files} files")
        assert done.err.splitlines()[-1].endswith(f" {files}/{files}")

    def test_verify_prints_json(self, vinograph: Run, bundle: Bundle) -> None:
        record = vinograph("verify", bundle.path, "--json").record
        assert record["whole"] is True
        assert sorted(record["files"]) == sorted(bundle.manifest.files)


class TestModels:
    def test_no_models_are_reported(self, vinograph: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("vinograph.models.catalog._EMBEDDED", tmp_path / "embedded")
        done = vinograph("models")
        assert done.code == 0
        assert str(tmp_path / "models") in done.out
        assert vinograph("models", "--json").record["models"] == []

    def test_models_lists_whole_and_damaged_ones(
        self, vinograph: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("vinograph.models.catalog._EMBEDDED", tmp_path / "embedded")
        size = save_bundle(tmp_path / "embedded" / "storybook").size
        save_bundle(tmp_path / "models" / "whole")
        save_bundle(tmp_path / "models" / "hurt")
        (tmp_path / "models" / "hurt" / "prior.bin").unlink()
        done = vinograph("models")
        assert done.code == 0
        rows = {line.split()[0]: line.split() for line in done.out.splitlines()}
        assert rows["storybook"][-1] == str(tmp_path / "embedded" / "storybook")
        assert rows["whole"][1] == "wuerstchen"
        assert rows["hurt"][1] == "damaged"
        assert "prior.bin is missing" in done.err
        records = {each["name"]: each for each in vinograph("models", "--json").record["models"]}
        assert (records["storybook"]["where"], records["storybook"]["size"]) == ("embedded", size)
        assert "prior.bin is missing" in records["hurt"]["problem"]


class TestDevices:
    def test_devices_lists_the_cpu(self, vinograph: Run) -> None:
        done = vinograph("devices")
        assert done.code == 0
        assert any(line.startswith("CPU ") and "f32" in line for line in done.out.splitlines())
        records = {each["id"]: each for each in vinograph("devices", "--json").record["devices"]}
        assert "f32" in records["CPU"]["precisions"]
        assert records["CPU"]["name"]


class TestDoctor:
    @pytest.fixture(autouse=True)
    def _embedded(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("vinograph.models.catalog._EMBEDDED", tmp_path / "embedded")
        save_bundle(tmp_path / "embedded" / "storybook-wuerstchen", name="storybook-wuerstchen")

    def test_doctor_finds_no_fault(self, vinograph: Run) -> None:
        done = vinograph("doctor")
        assert done.code == 0
        for fact in ("python", "cores", "memory", "openvino: ", "CPU: ", "quantize", "storybook-wuerstchen: whole"):
            assert fact in done.out

    def test_doctor_prints_json(self, vinograph: Run) -> None:
        record = vinograph("doctor", "--json").record
        assert record["problems"] == []
        assert record["memory"]["total"] >= record["memory"]["available"] > 0
        assert record["cores"]["allowed"] >= 1

    @pytest.mark.parametrize(
        ("found", "expected"),
        [
            (Comparison("bf16", 0.001, 0.0018), "f32: a matrix product takes 1.00 ms in f32, 1.80 ms in bf16"),
            (Comparison("bf16", 0.001, 0.0005), "bf16: a matrix product takes 1.00 ms in f32, 0.50 ms in bf16"),
            (None, f"{machine().precision}, which OpenVINO chooses"),
        ],
    )
    def test_doctor_says_what_auto_stands_for(
        self, vinograph: Run, monkeypatch: pytest.MonkeyPatch, found: Comparison | None, expected: str
    ) -> None:
        monkeypatch.setattr(automatic, "comparison", lambda: found)
        assert vinograph("doctor", "--json").record["automatic_precision"] == expected

    def test_doctor_without_a_processor(self, vinograph: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(devices, "devices", list)
        done = vinograph("doctor")
        assert done.code == 1
        assert "OpenVINO finds no device" in done.err
        assert "automatic precision" not in done.out

    def test_doctor_generates_a_picture(self, vinograph: Run) -> None:
        done = vinograph("doctor", "--draw", "--json")
        assert done.code == 0, done.err
        assert done.record["drawing"].startswith("128x128 in ")

    def test_an_altered_embedded_model_is_reported(self, vinograph: Run, tmp_path: Path) -> None:
        flip_a_bit(tmp_path / "embedded" / "storybook-wuerstchen" / "prior.bin")
        done = vinograph("doctor")
        assert done.code == 4
        assert "storybook-wuerstchen: damaged" in done.out
        assert "problem: " in done.err
        assert "prior.bin was altered" in done.err

    def test_missing_embedded_models_are_reported(self, vinograph: Run, tmp_path: Path) -> None:
        shutil.rmtree(tmp_path / "embedded")
        done = vinograph("doctor")
        assert done.code == 0
        assert "warning: no model is embedded" in done.err
        done = vinograph("doctor", "--draw")
        assert done.code == 3
        assert "problem: drawing failed: there is no model" in done.err

    def test_an_extra_that_is_not_installed_is_reported(self, vinograph: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        there = doctor._version
        monkeypatch.setattr(doctor, "_version", lambda package: None if package == "nncf" else there(package))
        done = vinograph("doctor")
        assert done.code == 0
        assert 'pip install "vinograph[quantize]"' in done.out


def _at(*path: str | int, value: object = None, drop: bool = False) -> Edit:
    """An edit of one value in a manifest, found by its path."""

    def edit(manifest: dict[str, Any]) -> None:
        place: Any = manifest
        for key in path[:-1]:
            place = place[key]
        if drop:
            del place[path[-1]]
        else:
            place[path[-1]] = value

    return edit


WUERSTCHEN = {
    "defaults are a number": (_at("defaults", "generate", value=3), "defaults.generate"),
    "an unknown default": (_at("defaults", "generate", "colour", value=3), "colour"),
    "defaults of an unknown call": (_at("defaults", "paint", value={}), "paint"),
    "a default that is a file": (_at("defaults", "generate", "image", value="/etc/hostname"), "image"),
    "a default that is null": (_at("defaults", "generate", "height", value=None), "defaults.generate.height is null"),
    "a default beyond the limits": (_at("defaults", "generate", "height", value=100_000), "height is 100000"),
    "a default of another kind": (_at("defaults", "generate", "strength", value=[1]), "strength"),
    "no multiple": (_at("limits", "size_multiple", value=0), "limits.size_multiple is 0"),
    "a multiple in words": (_at("limits", "size_multiple", value="many"), "limits.size_multiple is 'many'"),
    "a minimum above the maximum": (_at("limits", "minimum_size", value=4096), "above maximum_size"),
    "a minimum that is no multiple": (_at("limits", "minimum_size", value=100), "no multiple of size_multiple"),
    "a native size of nothing": (_at("limits", "native_size", value=0), "limits.native_size is 0"),
    "a scheduler that is a list": (_at("scheduler", "prior", value=[1]), "scheduler.prior"),
    "a scheduler that divides by zero": (_at("scheduler", "prior", "s", value=-1), "scheduler.prior.s is -1"),
    "a setting that there is not": (_at("scheduler", "prior", "t", value=1), "scheduler.prior has 't'"),
    "a missing tokenizer": (_at("tokenizers", "tokenizer", drop=True), "tokenizers.tokenizer is missing"),
    "a tokenizer of no tokens": (_at("tokenizers", "tokenizer", "max_length", value=0), "max_length is 0"),
    "a tokenizer of a billion": (_at("tokenizers", "tokenizer", "max_length", value=10**9), "max_length"),
    "a licence that is a number": (_at("source", "licence", value=3), "source.licence is 3"),
    "a licence of two lines": (_at("source", "licence", value="MIT\n# owned"), "source.licence"),
    "an unknown note about the source": (_at("source", "colour", value="red"), "colour"),
    "a name that clears the screen": (_at("name", value="\x1b[2J"), "name is '\\x1b[2J'"),
    "an endless name": (_at("name", value="a" * 100_000), "name is 'aaa"),
    "tools are numbers": (_at("tools", "openvino", value=3), "tools.openvino is 3"),
    "a shape of text": (_at("components", "prior", "inputs", "x", "shape", value="bchw"), "inputs.x.shape"),
    "a shape of nothing": (_at("components", "prior", "inputs", "x", "shape", 1, value=0), "inputs.x.shape[1] is 0"),
    "an unknown type": (_at("components", "prior", "inputs", "x", "dtype", value="f8"), "inputs.x.dtype is 'f8'"),
    "weights in words": (_at("components", "prior", "weights", value="few"), "weights is 'few'"),
    "a graph that is no graph": (_at("components", "prior", "file", value="README.md"), "ends in .xml"),
    "a file's hash in words": (_at("files", "prior.xml", "sha256", value="good"), "sha256 is 'good'"),
    "a size below nothing": (_at("files", "prior.xml", "size", value=-1), "size is -1"),
    "channels beyond memory": (_at("config", "prior_channels", value=10**15), "config.prior_channels"),
    "no scale": (_at("config", "latent_mean", value=0), "config.latent_mean is 0"),
    "a level that there is not": (_at("config", "effnet_levels", value=[9]), "config.effnet_levels has 9"),
    "levels that are a number": (_at("config", "effnet_levels", value=1), "config.effnet_levels is 1"),
    "a number that is missing": (_at("config", "decoder_patch_size", drop=True), "decoder_patch_size is missing"),
    "a quantization that took no time": (
        _at("quantization", value={"mode": "full", "prompts": 1, "samples": 1, "tools": {}, "speed": {}}),
        "quantization.speed.processor is missing",
    ),
    "notes that are a text": (_at("notes", value="something"), "notes is 'something'"),
}
_LAYERS = ("components", "text_encoder", "outputs", "hidden_states")
SDXL = {
    "layers that vary": (_at(*_LAYERS, "shape", 1, value="n"), "hidden_states.shape[1] is 'n'"),
    "layers of one size": (_at(*_LAYERS, "shape", value=[1]), "hidden_states.shape[1] is None"),
    "no layers": (_at(*_LAYERS, drop=True), "hidden_states.shape[1] is None"),
    "no factor": (_at("config", "vae_scale_factor", value=0), "config.vae_scale_factor is 0"),
    "a scheduler's class that is a list": (_at("scheduler", "class", value=["EulerDiscreteScheduler"]), "class is ["),
    "betas beyond a float": (_at("scheduler", "beta_end", value=1e300), "beta_end"),
    "betas that leave no signal": (_at("scheduler", "trained_betas", value=[0.9999] * 1000), "beta"),
    "timesteps beyond memory": (_at("scheduler", "num_train_timesteps", value=10**12), "num_train_timesteps"),
    "means of other latents": (_at("config", "vae_latents_mean", value=[1, 2]), "vae_latents_mean"),
    "one text encoder": (_at("config", "text_widths", value=[8]), "config.text_widths"),
    "a guidance embedding too narrow": (_at("config", "time_cond_width", value=3), "config.time_cond_width is 3"),
    "a crop in words": (_at("defaults", "generate", "crops_coords_top_left", value="top"), "crops_coords_top_left"),
}


class TestSchema:
    """Every wrong value of a manifest is named by generate and inspect, with exit code 4."""

    @pytest.mark.parametrize("name", WUERSTCHEN)
    def test_wrong_values_of_wuerstchen_are_named(self, drawn: Run, vinograph: Run, copy: Path, name: str) -> None:
        edit, word = WUERSTCHEN[name]
        edit_manifest(copy, edit)
        drawn().fails(4, "bundle.json", word)
        vinograph("inspect", copy).fails(4, "bundle.json", word)

    @pytest.mark.parametrize("name", SDXL)
    def test_wrong_values_of_sdxl_are_named(
        self, drawn: Run, vinograph: Run, sdxl: Path, tmp_path: Path, name: str
    ) -> None:
        shutil.copytree(sdxl, tmp_path / "copy")
        edit, word = SDXL[name]
        edit_manifest(tmp_path / "copy", edit)
        drawn().fails(4, "bundle.json", word)
        vinograph("inspect", "copy").fails(4, "bundle.json", word)

    @pytest.mark.parametrize("opening", ["[", '{"a":'])
    @pytest.mark.parametrize("command", ["inspect", "verify"])
    def test_deeply_nested_lists_are_refused(
        self, drawn: Run, vinograph: Run, copy: Path, opening: str, command: str
    ) -> None:
        (copy / "bundle.json").write_text(opening * 100_000)
        drawn().fails(4, "bundle.json is not a bundle's manifest", "nested")
        vinograph(command, copy).fails(4, "nested")

    def test_a_duplicate_key_is_refused(self, drawn: Run, copy: Path) -> None:
        text = (copy / "bundle.json").read_text()
        (copy / "bundle.json").write_text(text.replace('"limits": {', '"limits": {}, "limits": {', 1))
        drawn().fails(4, "names a key twice")

    @pytest.mark.parametrize("number", ["1e999", "NaN", "1" + 400 * "0"])
    def test_nan_and_infinity_are_refused(self, drawn: Run, copy: Path, number: str) -> None:
        text = (copy / "bundle.json").read_text()
        (copy / "bundle.json").write_text(text.replace('"latent_mean": 42.0', f'"latent_mean": {number}', 1))
        drawn().fails(4, "bundle.json is not a bundle's manifest")

    def test_models_lists_it_as_damaged(self, vinograph: Run, bundle: Bundle, tmp_path: Path) -> None:
        shutil.copytree(bundle.path, tmp_path / "models" / "odd")
        edit_manifest(tmp_path / "models" / "odd", _at("source", "licence", value=3))
        done = vinograph("models")
        assert done.code == 0
        assert "source.licence is 3" in done.err
