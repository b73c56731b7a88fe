"""`vinograph pull` of models from a local hub, under the ids of the published ones."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import pty
import shutil
import signal
import subprocess
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub as hf
import pytest
import torch

from tests.checkpoints import PIXART_TINY, SDXL_TINY, TINY, save_pixart, save_sdxl, save_wuerstchen, write_card
from tests.cli.conftest import Outcome, Run, command, environment, in_process, wait_for
from tests.hub_server import Fault, HubServer, use_hub, without_waiting
from training.wuerstchen.modules import ImageEncoder, ImageEncoderConfig
from vinograph.families.registry import known_models
from vinograph.models.bundle import Bundle

Usage = namedtuple("Usage", "total used free")

TURBO, TINY_VAE = "stabilityai/sdxl-turbo", "madebyollin/taesdxl"
DECODER, PRIOR, STAGE_B = "warp-ai/wuerstchen", "warp-ai/wuerstchen-prior", "dome272/wuerstchen"
LCM, ALPHA_TINY_VAE = "PixArt-alpha/PixArt-LCM-XL-2-1024-MS", "madebyollin/taesd"
OTHER, BUNDLE, FLUX = "Someone/My_SDXL.v2", "someone/tiny-bundle", "someone/flux"
UNET, WEIGHTS = "unet/diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.safetensors"
UNUSED = {"sd_xl_turbo.safetensors": b"0" * 100, "onnx/model.onnx": b"1", "picture.jpg": b"2"}
LONGEST = 5.0  # seconds in which Ctrl-C ends it

DRAW = ("--size", "64x64", "--steps", "2", "--seed", "7", "--output", "picture.png")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> dict[str, dict[str, bytes]]:
    """The files of each repository."""
    folder = tmp_path_factory.mktemp("published")
    turbo = save_sdxl(folder / "sdxl", dataclasses.replace(SDXL_TINY, turbo=True))
    wuerstchen = save_wuerstchen(folder / "wuerstchen", TINY, layout="split")
    lcm = save_pixart(folder / "pixart", dataclasses.replace(PIXART_TINY, consistency=True))
    write_card(turbo.tiny_vae, "license: mit")
    write_card(lcm.tiny_vae, "tags: tiny")
    encoder = ImageEncoder(ImageEncoderConfig()).requires_grad_(False)
    (folder / "stage_b").mkdir()
    torch.save({"effnet_state_dict": encoder.state_dict()}, folder / "stage_b" / "model_v2_stage_b.pt")
    index = {"_class_name": "FluxPipeline", "transformer": ["diffusers", "FluxTransformer2DModel"]}
    files = {
        TURBO: {**_files(turbo.home), **UNUSED},
        TINY_VAE: {**_files(turbo.tiny_vae), "taesdxl.onnx": b"0"},
        DECODER: _files(wuerstchen.decoder),
        PRIOR: _files(wuerstchen.prior),
        STAGE_B: {**_files(folder / "stage_b"), "model_v3.pt": b"0"},
        LCM: _files(lcm.home),
        ALPHA_TINY_VAE: _files(lcm.tiny_vae),
        BUNDLE: {**_files(tiny_bundle), "unused.bin": b"0"},
        FLUX: {"model_index.json": json.dumps(index).encode(), f"transformer/{WEIGHTS}": b"0" * 1000},
    }
    files[OTHER] = {
        name: content for name, content in _files(turbo.home).items() if name not in ("README.md", "LICENSE")
    }
    return files


def _files(folder: Path) -> dict[str, bytes]:
    return {each.relative_to(folder).as_posix(): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


@pytest.fixture
def server(
    published: dict[str, dict[str, bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[HubServer]:
    """A hub with all repositories, in use with an empty cache."""
    with HubServer() as server:
        for name, files in published.items():
            server.add(name, files)
        server.in_use(monkeypatch, tmp_path / "hub")
        without_waiting(monkeypatch)
        yield server


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """The models folder, which doesn't exist yet."""
    return tmp_path / "models"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], None]:
    """A function that cuts the network off."""
    return lambda: use_hub(monkeypatch, "http://127.0.0.1:9", tmp_path / "hub")


def fetched_of(server: HubServer, repository: str) -> set[str]:
    """The files of a repository whose contents were requested."""
    begin = f"GET /{repository}/resolve/"
    lines = {line.removeprefix(begin) for line in server.requests if line.startswith(begin)}
    return {line.partition("/")[2] for line in lines}


def weights_in_cache(tmp_path: Path) -> list[Path]:
    return [each for each in (tmp_path / "hub").rglob("*.safetensors") if each.is_file()]


class TestKnownModels:
    def test_a_pulled_model_works_by_its_name(self, server: HubServer, vinograph: Run, models: Path) -> None:
        done = vinograph("pull", "sdxl-turbo")
        assert done.code == 0, done.err
        assert done.out.splitlines()[-1].startswith('draw with it: vinograph generate "')
        assert done.out.splitlines()[-1].endswith(" --model sdxl-turbo")
        bundle = Bundle.open(models / "sdxl-turbo")
        assert len(list(bundle.verify())) == len(bundle.manifest.files)
        assert "tiny_vae_decoder" in bundle.manifest.components
        assert bundle.manifest.source.also == {"tiny_vae": TINY_VAE}
        defaults = bundle.manifest.defaults["generate"]
        assert (defaults["num_inference_steps"], defaults["guidance_scale"]) == (1, 0.0)
        assert "assumed" not in done.err, "the defaults of a known model are known"
        drawn = vinograph("generate", "a house", "--model", "sdxl-turbo", "--output", "house.png")
        assert drawn.code == 0, drawn.err
        assert Path("house.png").is_file()

    def test_only_needed_files_are_downloaded(self, server: HubServer, vinograph: Run) -> None:
        assert vinograph("pull", "sdxl-turbo").code == 0
        files = fetched_of(server, TURBO)
        assert {name for name in files if "tokenizer" not in name} == {
            *("model_index.json", "README.md", "LICENSE", "scheduler/scheduler_config.json"),
            *(f"{part}/config.json" for part in ("unet", "vae", "text_encoder", "text_encoder_2")),
            *(UNET, f"vae/{WEIGHTS}", "text_encoder/model.safetensors", "text_encoder_2/model.safetensors"),
        }
        tokenizers = {name for name in files if "tokenizer" in name}
        assert {name.partition("/")[0] for name in tokenizers} == {"tokenizer", "tokenizer_2"}
        assert fetched_of(server, TINY_VAE) == {"README.md", "config.json", WEIGHTS}
        assert not fetched_of(server, DECODER)

    def test_licence_and_size_are_printed_before_the_download(self, server: HubServer, vinograph: Run) -> None:
        """The first request for weights, which is refused here, comes after them."""
        for part in ("unet/diffusion", "vae/diffusion", "encoder/model", "encoder_2/model", f"/{WEIGHTS}"):
            server.faults[f"GET /{part}"] = Fault(status=500)
        server.faults[WEIGHTS] = server.faults["model.safetensors"] = Fault(status=500)
        done = vinograph("pull", "sdxl-turbo")
        done.fails(3, "500")
        assert done.err.splitlines()[:2] == [
            f"licence of {TURBO}: sdxl-test ({server.url}/{TURBO})",
            f"licence of {TINY_VAE}: mit ({server.url}/{TINY_VAE})",
        ]

    def test_the_amount_is_printed_before_the_download(
        self, server: HubServer, vinograph: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        fetch = hf.hf_hub_download

        def refuse_weights(repository: str, name: str, **more: Any) -> Any:
            if name.endswith(".safetensors"):
                raise KeyboardInterrupt
            return fetch(repository, name, **more)

        monkeypatch.setattr(hf, "hf_hub_download", refuse_weights)
        done = vinograph("pull", "sdxl-turbo")
        assert done.code == 130
        lines = done.err.splitlines()
        assert lines[2].startswith("to fetch: ")
        assert lines[3].startswith("room for the bundle: at most ")
        assert weights_in_cache(tmp_path) == []

    def test_the_known_licence_is_printed_where_the_card_has_none(self, server: HubServer, vinograph: Run) -> None:
        files = {name: each for name, each in server.repositories[TURBO].files.items() if name != "README.md"}
        server.add(TURBO, files)
        done = vinograph("pull", "sdxl-turbo")
        assert done.code == 0, done.err
        _, known = known_models()["sdxl-turbo"]
        assert done.err.startswith(f"licence of {TURBO}: {known.licence} (")
        facts = [line.split() for line in vinograph("inspect", "sdxl-turbo").out.splitlines()]
        assert ["licence", known.licence] in facts

    def test_a_hub_id_is_the_same_model(self, server: HubServer, vinograph: Run, models: Path) -> None:
        done = vinograph("pull", TURBO, "--json")
        assert done.code == 0, done.err
        assert done.record["name"] == "sdxl-turbo"
        assert [each["id"] for each in done.record["repositories"]] == [TURBO, TINY_VAE]
        assert [each["licence"] for each in done.record["repositories"]] == ["sdxl-test", "mit"]
        assert done.record["path"] == str(models / "sdxl-turbo")
        assert done.record["fetched"] <= sum(each["size"] for each in done.record["repositories"])
        assert UNET in done.record["repositories"][0]["files"]

    def test_wuerstchen_is_pulled_with_its_prior(self, server: HubServer, vinograph: Run, models: Path) -> None:
        done = vinograph("pull", "wuerstchen")
        assert done.code == 0, done.err
        assert f"licence of {PRIOR}: mit" in done.err
        assert not [line for line in server.requests if STAGE_B in line], "its image encoder is optional"
        manifest = Bundle.open(models / "wuerstchen").manifest
        assert manifest.source.also == {"prior": PRIOR}
        assert "image_encoder" not in manifest.components
        drawn = vinograph("generate", "a house", "--model", "wuerstchen", "--size", "128x128", *DRAW[2:])
        assert drawn.code == 0, drawn.err

    def test_wuerstchen_is_pulled_with_its_image_encoder(self, server: HubServer, vinograph: Run, models: Path) -> None:
        done = vinograph("pull", "wuerstchen", "--with", "image-encoder")
        assert done.code == 0, done.err
        assert f"licence of {STAGE_B}: mit" in done.err
        assert fetched_of(server, STAGE_B) == {"model_v2_stage_b.pt"}
        assert "image_encoder" in Bundle.open(models / "wuerstchen").manifest.components

    def test_pixart_is_pulled_with_its_tiny_vae(self, server: HubServer, vinograph: Run, models: Path) -> None:
        done = vinograph("pull", "pixart-alpha-lcm")
        assert done.code == 0, done.err
        assert f"licence of {ALPHA_TINY_VAE}: mit" in done.err, "known, where its card doesn't say"
        manifest = Bundle.open(models / "pixart-alpha-lcm").manifest
        assert manifest.source.also == {"tiny_vae": ALPHA_TINY_VAE}
        assert manifest.defaults["generate"]["num_inference_steps"] == 4
        assert "assumed" not in done.err
        drawn = vinograph("generate", "a house", "--model", "pixart-alpha-lcm", "--size", "128x128", *DRAW[2:])
        assert drawn.code == 0, drawn.err

    @pytest.mark.parametrize("name", known_models())
    def test_generate_names_the_pull_command(self, vinograph: Run, name: str) -> None:
        _, known = known_models()[name]
        for arguments in (("generate", "a house", "--model", name), ("inspect", name), ("verify", name)):
            vinograph(*arguments).fails(3, name, f"vinograph pull {name}", known.licence)


class TestAnyRepository:
    def test_a_models_name_is_the_last_part_of_its_id(self, server: HubServer, vinograph: Run, models: Path) -> None:
        done = vinograph("pull", OTHER)
        assert done.code == 0, done.err
        assert f"licence of {OTHER}: not stated" in done.err
        assert Bundle.open(models / "my_sdxl.v2").manifest.source.licence is None
        assert vinograph("generate", "a house", "--model", "my_sdxl.v2", *DRAW).code == 0

    def test_a_name_can_be_given(self, server: HubServer, vinograph: Run, models: Path) -> None:
        done = vinograph("pull", OTHER, "--as", "Mine-2.0", "--weights", "f32")
        assert done.code == 0, done.err
        assert done.out.splitlines()[-1].endswith("--model Mine-2.0")
        assert Bundle.open(models / "Mine-2.0").manifest.components["unet"].weights == "f32"
        assert json.loads((models / "Mine-2.0" / "bundle.json").read_text(encoding="utf-8"))["name"] == "Mine-2.0"

    def test_a_revision_can_be_given(self, server: HubServer, vinograph: Run, models: Path) -> None:
        commit = server.repositories[OTHER].commit
        server.repositories[OTHER].names = {"main", "v1"}
        assert vinograph("pull", OTHER, "--revision", "v1", "--as", "first").code == 0
        assert Bundle.open(models / "first").manifest.source.revision == commit
        vinograph("pull", OTHER, "--revision", "v2", "--as", "second").fails(3, OTHER, "has no revision v2")

    def test_an_unknown_family_is_refused_before_the_download(self, server: HubServer, vinograph: Run) -> None:
        vinograph("pull", FLUX).fails(3, "FluxPipeline", "doesn't open")
        assert fetched_of(server, FLUX) == {"model_index.json"}

    def test_a_repository_without_a_model_is_refused(self, server: HubServer, vinograph: Run) -> None:
        server.add("someone/data", {"train.csv": b"0", "weights.safetensors": b"0"})
        vinograph("pull", "someone/data").fails(3, "someone/data", "bundle.json", "model_index.json")
        assert fetched_of(server, "someone/data") == set()
        vinograph("pull", TINY_VAE).fails(3, "one part of a model alone", "AutoencoderTiny")

    def test_a_local_folder_of_the_same_name_is_ignored(self, server: HubServer, vinograph: Run, models: Path) -> None:
        shutil.copytree(Path(__file__).parents[2] / "training/checkpoints/storybook-sdxl", Path(OTHER))
        assert vinograph("pull", OTHER, "--as", "other").code == 0
        assert Bundle.open(models / "other").manifest.source.revision == server.repositories[OTHER].commit


class TestBundles:
    def test_a_bundle_on_the_hub_is_copied(
        self, server: HubServer, vinograph: Run, models: Path, tiny_bundle: Path
    ) -> None:
        done = vinograph("pull", BUNDLE)
        assert done.code == 0, done.err
        assert f"licence of {BUNDLE}: Apache-2.0" in done.err
        copied, original = _files(models / "tiny-bundle"), _files(tiny_bundle)
        assert json.loads(copied.pop("bundle.json"))["name"] == "tiny-bundle"
        assert json.loads(original.pop("bundle.json"))["name"] == "tiny"
        assert copied == original
        assert "unused.bin" not in fetched_of(server, BUNDLE)
        assert vinograph("generate", "a house", "--model", "tiny-bundle", "--output", "a.png").code == 0

    def test_an_altered_bundle_is_damage(self, server: HubServer, vinograph: Run, models: Path) -> None:
        files = server.repositories[BUNDLE].files
        server.add(BUNDLE, {**files, "prior.bin": bytes(len(files["prior.bin"]))})
        vinograph("pull", BUNDLE).fails(4, "prior.bin was altered")
        assert not (models / "tiny-bundle").exists()

    def test_a_bundle_that_lacks_a_file_is_damage(self, server: HubServer, vinograph: Run) -> None:
        files = {name: content for name, content in server.repositories[BUNDLE].files.items() if name != "prior.bin"}
        server.add(BUNDLE, files)
        vinograph("pull", BUNDLE).fails(4, BUNDLE, "prior.bin")
        assert fetched_of(server, BUNDLE) == {"bundle.json"}

    def test_weights_of_a_bundle_can_not_be_converted(self, server: HubServer, vinograph: Run) -> None:
        vinograph("pull", BUNDLE, "--weights", "int8").fails(2, BUNDLE, "is a bundle already", "--weights")


class TestNames:
    @pytest.mark.parametrize("name", ["../up", "a/b", ".hidden", "-x", "", "a b", "_x", "x" * 101])
    def test_impossible_names_are_refused(self, server: HubServer, vinograph: Run, name: str) -> None:
        vinograph("pull", OTHER, f"--as={name}").fails(2, "--as")
        assert server.requests == []

    def test_an_embedded_models_name_is_refused(self, server: HubServer, vinograph: Run) -> None:
        vinograph("pull", OTHER, "--as", "storybook-sdxl").fails(2, "--as", "embedded")

    @pytest.mark.parametrize("model", ["sdxl-turbos", "a/b/c", "", "~", "http://x"])
    def test_unknown_names_are_refused(self, server: HubServer, vinograph: Run, model: str) -> None:
        vinograph("pull", model).fails(2, "known by name", "sdxl-turbo", "owner/name")
        assert server.requests == []

    def test_a_path_names_the_convert_command(self, vinograph: Run) -> None:
        Path("checkpoint").mkdir()
        vinograph("pull", "checkpoint").fails(2, "vinograph convert checkpoint")

    def test_unknown_companions_are_refused(self, server: HubServer, vinograph: Run) -> None:
        vinograph("pull", "wuerstchen", "--with", "tiny-vae").fails(2, "--with", "tiny-vae", "image-encoder")
        vinograph("pull", OTHER, "--with", "image-encoder").fails(2, "--with", OTHER, "none")

    def test_unknown_weights_are_refused(self, server: HubServer, vinograph: Run) -> None:
        vinograph("pull", "sdxl-turbo", "--weights", "int3").fails(2, "int3", "f16, f32, int8, int4")
        assert server.requests == []
        vinograph("pull", "sdxl-turbo", "--weights", "int4").fails(2, "int4", "for sdxl models")
        assert fetched_of(server, TURBO) == {"model_index.json"}


class TestExistingModel:
    def test_an_existing_model_is_refused_with_a_way_out(self, server: HubServer, vinograph: Run, models: Path) -> None:
        assert vinograph("pull", BUNDLE, "--as", "sdxl-turbo").code == 0
        before, requests = _files(models), len(server.requests)
        done = vinograph("pull", "sdxl-turbo")
        done.fails(2, "sdxl-turbo is here already", "--model sdxl-turbo", "--overwrite", "--as NAME")
        assert (_files(models), len(server.requests)) == (before, requests)

    def test_the_old_model_stays_until_the_new_one_is_whole(
        self, server: HubServer, vinograph: Run, models: Path
    ) -> None:
        assert vinograph("pull", BUNDLE, "--as", "sdxl-turbo").code == 0
        before = _files(models)
        server.faults[f"{TURBO}/resolve"] = Fault(status=503)
        vinograph("pull", "sdxl-turbo", "--overwrite").fails(3, TURBO)
        assert _files(models) == before
        server.clear()
        assert vinograph("pull", "sdxl-turbo", "--overwrite").code == 0
        assert Bundle.open(models / "sdxl-turbo").manifest.family == "sdxl"

    def test_a_folder_that_is_no_bundle_is_never_replaced(self, vinograph: Run, models: Path) -> None:
        (models / "sdxl-turbo").mkdir(parents=True)
        (models / "sdxl-turbo" / "diary.txt").write_text("mine")
        vinograph("pull", "sdxl-turbo").fails(2, "exists")
        vinograph("pull", "sdxl-turbo", "--overwrite").fails(2, "is not a bundle")


class TestDiskSpace:
    def test_a_disk_that_is_too_small_is_reported(
        self, server: HubServer, vinograph: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, models: Path
    ) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 10**12 - 10**6, 10**6))
        done = vinograph("pull", "sdxl-turbo")
        done.fails(5, "are needed on the disk of", "to fetch", "for the bundle", "0.0010 GB are free", "HF_HOME")
        assert done.err.startswith("licence of ")
        assert weights_in_cache(tmp_path) == []
        assert not models.exists()

    def test_an_unwritable_models_folder_is_reported(
        self, server: HubServer, vinograph: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Path("file").write_text("")
        for folder in ("file", "file/below", "/dev/null/no-home"):
            monkeypatch.setenv("VINOGRAPH_MODELS", folder)
            vinograph("pull", "sdxl-turbo").fails(2, folder, "can't be written", "VINOGRAPH_MODELS")
        assert server.requests == []

    def test_cache_and_models_folder_on_two_disks_are_both_checked(
        self, server: HubServer, vinograph: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, models: Path
    ) -> None:
        models.mkdir()
        free = {"hub": 10**12, "models": 10**6}
        monkeypatch.setattr(
            shutil, "disk_usage", lambda path: Usage(10**12, 0, next(free[each] for each in free if each in str(path)))
        )
        real = Path.stat

        def stat(path: Path, **options: Any) -> Any:
            found = real(path, **options)
            return os.stat_result([*found[:2], 77, *found[3:]]) if path == models else found

        (tmp_path / "hub" / "hub").mkdir(parents=True)
        monkeypatch.setattr(Path, "stat", stat)
        done = vinograph("pull", "sdxl-turbo")
        done.fails(5, f"on the disk of {models}", "for the bundle", "VINOGRAPH_MODELS")
        assert weights_in_cache(tmp_path) == []
        free.update(hub=10**3, models=10**12)
        vinograph("pull", "sdxl-turbo").fails(5, f"on the disk of {tmp_path / 'hub' / 'hub'}", "to fetch it", "HF_HOME")

    def test_the_space_required_is_enough_for_the_conversion(
        self, server: HubServer, vinograph: Run, monkeypatch: pytest.MonkeyPatch, models: Path
    ) -> None:
        """The conversion needs no more space than was required before the download."""
        for name in ("wuerstchen", "sdxl-turbo", "pixart-alpha-lcm"):
            required: list[int] = []

            def space_needed(sizes: list[int], required: list[int] = required) -> int:
                required.append(sum(sizes))
                return 0

            for module in ("vinograph.convert.assemble", "vinograph.convert.pull"):
                monkeypatch.setattr(importlib.import_module(module), "space_needed", space_needed)
            assert vinograph("pull", name).code == 0
            before, after = required
            written = sum(file.stat().st_size for file in (models / name).glob("*.bin"))
            assert 0 < after <= before <= 1.2 * after, name
            assert written <= 1.1 * before, name


class TestInterrupted:
    @pytest.fixture(autouse=True)
    def _environment(self, server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in server.environment(tmp_path / "hub").items():
            monkeypatch.setenv(name, value)

    def started(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command("pull", "sdxl-turbo"),
            env=environment(PYTHONUNBUFFERED="1"),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
    def test_ctrl_c_while_downloading(
        self, server: HubServer, tmp_path: Path, models: Path, number: signal.Signals, code: int
    ) -> None:
        header, body = Fault(times=1), Fault(delay=60)
        server.faults[f"GET /{TURBO}/resolve/{server.repositories[TURBO].commit}/{UNET}"] = header
        server.faults[UNET.rpartition("/")[0] + "/diffusion"] = body
        with self.started() as process:
            _wait_until(lambda: weights_in_cache(tmp_path) and len(server.fetched()) > 20)
            time.sleep(1)
            started = time.monotonic()
            process.send_signal(number)
            _, err = process.communicate(timeout=60)
        assert time.monotonic() - started < LONGEST
        assert process.returncode == code, err
        assert "Traceback" not in err
        assert not models.exists() or not list(models.iterdir())
        if number != signal.SIGKILL:
            assert not list((tmp_path / "hub").rglob("*.incomplete"))
        server.clear()
        again = in_process("pull", "sdxl-turbo")
        assert again.code == 0, again.err
        assert not list((tmp_path / "hub").rglob("*.incomplete"))
        assert "the rest is in the hub's cache" in again.err
        fetched = fetched_of(server, TURBO)
        assert UNET in fetched
        assert not [name for name in fetched if name.endswith("model.safetensors") and name != UNET]

    def test_ctrl_c_while_converting(self, server: HubServer, models: Path) -> None:
        with self.started() as process:
            wait_for(process, "text_encoder ")  # the smallest is written last
            process.kill()
            process.communicate()
        assert not (models / "sdxl-turbo").exists()
        server.clear()
        again = in_process("pull", "sdxl-turbo")
        assert again.code == 0, again.err
        assert server.fetched() == []
        assert not [line for line in again.err.splitlines() if line.startswith("unet ")]
        assert [each.name for each in models.iterdir()] == ["sdxl-turbo"]

    def test_an_interrupted_download_resumes(self, server: HubServer, models: Path) -> None:
        server.faults[f"GET /{TURBO}/resolve/{server.repositories[TURBO].commit}/{UNET}"] = Fault(sent=90_000, times=2)
        assert in_process("pull", "sdxl-turbo").code == 0
        assert len(list(Bundle.open(models / "sdxl-turbo").verify())) > 10


def _wait_until(condition: Callable[[], Any]) -> None:
    limit = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.05)


class TestHub:
    def test_cached_files_are_enough_offline(
        self, server: HubServer, vinograph: Run, models: Path, offline: Callable[[], None]
    ) -> None:
        assert vinograph("pull", "sdxl-turbo").code == 0
        assert vinograph("pull", BUNDLE).code == 0
        online = _files(models)
        shutil.rmtree(models)
        offline()
        for name in ("sdxl-turbo", BUNDLE):
            done = vinograph("pull", name)
            assert done.code == 0, done.err
            assert "to fetch: 0 kB" in done.err
        assert _files(models) == online

    @pytest.mark.parametrize("model", ["sdxl-turbo", BUNDLE])
    def test_an_uncached_model_is_refused_offline(
        self, vinograph: Run, offline: Callable[[], None], model: str
    ) -> None:
        offline()
        vinograph("pull", model).fails(3, "is not in this machine's cache", "Connection refused")

    def test_a_partly_cached_model_is_refused_offline(
        self, server: HubServer, vinograph: Run, offline: Callable[[], None], tmp_path: Path
    ) -> None:
        assert vinograph("pull", "sdxl-turbo", "--as", "first").code == 0
        next(each for each in weights_in_cache(tmp_path) if each.parent.name == "unet").unlink()
        offline()
        vinograph("pull", "sdxl-turbo").fails(3, TURBO, "is not whole", UNET)

    @pytest.mark.parametrize(
        ("fault", "words"),
        [
            (Fault(status=403, code="GatedRepo"), ("is gated", "accept its terms", TURBO)),
            (Fault(status=401, code="RepoNotFound"), ("the hub has no", TURBO)),
            (Fault(status=429), ("too many requests",)),
        ],
    )
    @pytest.mark.parametrize("place", ["GET /api/models/", f"/{TURBO}/resolve/", f"GET /{TURBO}/resolve/"])
    def test_a_repository_that_may_not_be_read_is_explained(
        self, server: HubServer, vinograph: Run, models: Path, place: str, fault: Fault, words: tuple[str, ...]
    ) -> None:
        server.faults[place] = fault
        vinograph("pull", "sdxl-turbo").fails(3, *words)
        assert not models.exists()

    def test_a_repository_whose_weights_alone_are_gated_is_explained(self, server: HubServer, vinograph: Run) -> None:
        server.faults[WEIGHTS] = Fault(status=403, code="GatedRepo")
        vinograph("pull", "sdxl-turbo").fails(3, "is gated", "accept its terms")

    def test_an_unknown_repository_is_reported(self, server: HubServer, vinograph: Run) -> None:
        vinograph("pull", "someone/nothing").fails(3, "the hub has no someone/nothing")

    @pytest.mark.parametrize("body", [b"", b"[]", b'[{"type": "file", "path": "x"}]', b"<html>", b'[{"type": 3}]'])
    def test_a_senseless_list_of_files_is_reported(self, server: HubServer, vinograph: Run, body: bytes) -> None:
        server.faults["/tree/"] = Fault(body=body)
        vinograph("pull", "sdxl-turbo").fails(3, TURBO)

    def test_a_list_of_files_that_lacks_needed_ones_is_reported(self, server: HubServer, vinograph: Run) -> None:
        listed = json.dumps([{"type": "file", "path": "x", "size": 3, "oid": "0" * 40}]).encode()
        assert (
            vinograph("pull", OTHER).code == 0
        )  # so that what is small of TURBO is in the cache, too, by its contents
        server.faults["/tree/"] = Fault(body=listed)
        vinograph("pull", "sdxl-turbo").fails(3, TURBO)

    @pytest.mark.parametrize("sent", [0, 3, 40])
    def test_a_truncated_header_changes_only_the_estimate(self, server: HubServer, vinograph: Run, sent: int) -> None:
        server.faults[f"GET /{TURBO}/resolve/{server.repositories[TURBO].commit}/{UNET}"] = Fault(sent=sent, times=1)
        done = vinograph("pull", "sdxl-turbo")
        assert done.code == 0, done.err

    def test_large_files_on_another_host_are_downloaded(self, server: HubServer, vinograph: Run, models: Path) -> None:
        server.redirect = True
        done = vinograph("pull", "sdxl-turbo")
        assert done.code == 0, done.err
        assert Bundle.open(models / "sdxl-turbo")


class TestProgress:
    def test_progress_is_plain_lines_without_a_terminal(self, server: HubServer, vinograph: Run) -> None:
        done = vinograph("pull", "sdxl-turbo")
        lines = done.err.splitlines()
        fetching = [line for line in lines if line.startswith("fetching ")]
        total = lines[2].removeprefix("to fetch: ").partition(",")[0]
        assert fetching[-1] == f"fetching {total} of {total}"
        assert len(fetching) <= 10
        assert [line for line in lines if line.startswith("unet ")]

    def test_progress_is_bars_on_a_terminal(self, server: HubServer, tmp_path: Path) -> None:
        reader, writer = pty.openpty()
        env = {**server.environment(tmp_path / "hub"), "TERM": "xterm-256color", "COLUMNS": "100"}
        del env["HF_HUB_DISABLE_PROGRESS_BARS"]
        with subprocess.Popen(
            command("pull", "sdxl-turbo"), stdout=subprocess.PIPE, stderr=writer, env=environment(**env)
        ) as process:
            os.close(writer)
            seen = b""
            while chunk := _read(reader):
                seen += chunk
            assert process.stdout is not None
            out = process.stdout.read()
        os.close(reader)
        assert process.returncode == 0, seen
        assert out.splitlines()[-1].endswith(b"--model sdxl-turbo")
        assert b"fetching" in seen
        assert "━".encode() in seen
        assert b"B/s" in seen
        assert b"converting" in seen
        assert b"Downloading" not in seen, "huggingface_hub shows no bars of its own"
        assert b"Fetching" not in seen


def _read(reader: int) -> bytes:
    try:
        return os.read(reader, 10_000)
    except OSError:  # whoever wrote has ended
        return b""


class TestModels:
    def test_known_models_are_listed(self, server: HubServer, vinograph: Run) -> None:
        record = vinograph("models", "--json").record
        known = {each["name"]: each for each in record["known"]}
        assert known.keys() == known_models().keys()
        turbo = known["sdxl-turbo"]
        assert (turbo["repository"], turbo["family"], turbo["here"]) == (TURBO, "sdxl", False)
        assert [each["repository"] for each in turbo["companions"]] == [TINY_VAE]
        assert turbo["download"] > 10**9
        out = vinograph("models").out
        begin = out.index("to be fetched by: vinograph pull NAME")
        for name, (family, model) in known_models().items():
            (row,) = [line for line in out[begin:].splitlines() if line.split()[0] == name]
            assert family in row
            assert model.licence in row
            assert f"{model.download / 1e9:.1f} GB" in row
            assert model.about in row

    def test_a_pulled_model_is_listed(self, server: HubServer, vinograph: Run) -> None:
        assert vinograph("pull", "sdxl-turbo").code == 0
        record = vinograph("models", "--json").record
        assert [each["name"] for each in record["known"] if each["here"]] == ["sdxl-turbo"]
        assert "sdxl-turbo" in [each["name"] for each in record["models"]]
        out = vinograph("models").out
        assert "sdxl-turbo" not in [line.split()[0] for line in out[out.index("to be fetched") :].splitlines()]


def test_a_failure_is_one_json_object(server: HubServer, vinograph: Run) -> None:
    done: Outcome = vinograph("pull", FLUX, "--json")
    assert done.record["error"]["exit_code"] == done.code == 3
