"""Unusable checkpoints are refused by convert and generate; interrupted conversions resume."""

from __future__ import annotations

import json
import pickle
import resource
import shutil
import signal
import struct
import subprocess
from collections import namedtuple
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.checkpoints import SDXL_TINY, SavedSdxl, save_sdxl, save_wuerstchen
from tests.cli.conftest import Outcome, Run, command, files_here, in_process, running, wait_for
from vinograph.cli import main

Usage = namedtuple("Usage", "total used free")
Header = dict[str, Any]

VQGAN = "vqgan/diffusion_pytorch_model.safetensors"
COMPONENTS = ("prior_text_encoder", "prior_text", "prior", "text_encoder", "decoder_text", "decoder", "vqgan")


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole checkpoint, for reading only."""
    return save_wuerstchen(tmp_path_factory.mktemp("checkpoint")).decoder


@pytest.fixture(scope="session")
def undisturbed(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle that an undisturbed conversion makes."""
    target = tmp_path_factory.mktemp("undisturbed") / "bundle"
    assert main(["convert", str(published), str(target)]) == 0
    return target


@pytest.fixture
def checkpoint(published: Path, tmp_path: Path) -> Path:
    """A checkpoint to damage: ``checkpoint`` in the current folder."""
    shutil.copytree(published, tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


@pytest.fixture
def refused(vinograph: Run) -> Run:
    """Run a conversion of ``checkpoint``, and check that it leaves nothing."""

    def run(*options: object) -> Outcome:
        before = files_here()
        done = vinograph("convert", "checkpoint", "bundle", *options)
        assert files_here() == before
        return done

    return run


@pytest.fixture
def unusable(vinograph: Run, refused: Run) -> Run:
    """Convert ``checkpoint`` and generate with it; both must give the same error and no file."""

    def run() -> Outcome:
        done = refused()
        drawn = vinograph("generate", "a house", "--model", "checkpoint", "--output", "house.png")
        assert (drawn.code, drawn.err) == (done.code, done.err)
        assert not Path("house.png").exists()
        return done

    return run


def contents(directory: Path) -> dict[str, bytes]:
    """Every file's bytes, without the manifest's times and versions."""
    return {each.name: each.read_bytes() for each in directory.iterdir()}


class Bomb:
    """An object that writes a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (Path("exploded").absolute(), "")


class TestPickles:
    @pytest.mark.parametrize("name", ["diffusion_pytorch_model.bin", "model.pt", "weights.ckpt"])
    def test_pickled_weights_are_refused(self, unusable: Run, checkpoint: Path, name: str) -> None:
        (checkpoint / VQGAN).unlink()
        (checkpoint / "vqgan" / name).write_bytes(pickle.dumps(Bomb()))
        unusable().fails(3, "vqgan", name, "pickled", "safetensors")
        assert not Path("exploded").exists()

    @pytest.mark.parametrize("kind", ["pickle", "torch", "old torch"])
    def test_a_pickle_named_safetensors_is_refused(self, unusable: Run, checkpoint: Path, kind: str) -> None:
        if kind == "pickle":
            (checkpoint / VQGAN).write_bytes(pickle.dumps(Bomb()))
        else:
            torch.save({"a": Bomb()}, checkpoint / VQGAN, _use_new_zipfile_serialization=kind == "torch")
        unusable().fails(3, VQGAN, "pickle")
        assert not Path("exploded").exists()

    @pytest.mark.parametrize("zipped", [True, False])
    def test_a_pickled_image_encoder_is_refused(self, refused: Run, checkpoint: Path, zipped: bool) -> None:
        torch.save({"effnet_state_dict": Bomb()}, "encoder.pt", _use_new_zipfile_serialization=zipped)
        done = refused("--image-encoder", "encoder.pt")
        assert done.code in (3, 4)
        done.fails(done.code, "encoder.pt")
        assert not Path("exploded").exists()


def _edit_header(file: Path, edit: Callable[[Header], object]) -> None:
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    edit(header)
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


def _first_tensors(header: Header) -> list[str]:
    names = [name for name in header if name != "__metadata__"]
    return sorted(names, key=lambda name: int(header[name]["data_offsets"][0]))


class TestDamagedWeights:
    @pytest.fixture
    def file(self, checkpoint: Path) -> Path:
        return checkpoint / VQGAN

    def test_truncated_weights_are_damage(self, unusable: Run, file: Path) -> None:
        file.write_bytes(file.read_bytes()[:-1000])
        unusable().fails(4, VQGAN, "cut short", "tensor")

    @pytest.mark.parametrize("size", [0, 4, 8, 100])
    def test_a_truncated_header_is_damage(self, unusable: Run, file: Path, size: int) -> None:
        file.write_bytes(file.read_bytes()[:size])
        unusable().fails(4, VQGAN)

    def test_a_header_longer_than_the_file_is_damage(self, unusable: Run, file: Path) -> None:
        file.write_bytes(struct.pack("<Q", 2**62) + file.read_bytes()[8:])
        unusable().fails(4, VQGAN, "header")

    def test_overlapping_tensors_are_damage(self, unusable: Run, file: Path) -> None:
        named: list[str] = []

        def overlap(header: Header) -> None:
            first, second = _first_tensors(header)[:2]
            header[second] = dict(header[first])
            named.extend((first, second))

        _edit_header(file, overlap)
        done = unusable()
        done.fails(4, VQGAN, "overlaps")
        assert any(name in done.err for name in named)

    def test_an_unknown_tensor_is_named(self, unusable: Run, file: Path) -> None:
        def rename(header: Header) -> None:
            header["of_another_model"] = header.pop(_first_tensors(header)[0])

        _edit_header(file, rename)
        done = unusable()
        assert done.code == 4
        assert VQGAN in done.err or "vqgan" in done.err

    def test_an_additional_tensor_is_named(self, unusable: Run, file: Path) -> None:
        content = file.read_bytes()
        file.write_bytes(content + b"\0" * 4)
        (length,) = struct.unpack("<Q", content[:8])
        end = len(content) - 8 - length
        extra = {"dtype": "F32", "shape": [1], "data_offsets": [end, end + 4]}
        _edit_header(file, lambda header: header.update(of_another_model=extra))
        unusable().fails(4, VQGAN, "of_another_model")

    def test_a_missing_tensor_is_named(self, unusable: Run, file: Path) -> None:
        from safetensors.torch import load_file, save_file

        tensors = load_file(file)
        name = sorted(each for each in tensors if each.startswith("up_blocks") and each.endswith("weight"))[0]
        del tensors[name]
        save_file(tensors, file)
        unusable().fails(4, "vqgan", name)

    def test_a_tensor_of_another_shape_is_named(self, unusable: Run, file: Path) -> None:
        from safetensors.torch import load_file, save_file

        tensors = load_file(file)
        name = sorted(each for each, tensor in tensors.items() if each.startswith("up_blocks") and tensor.dim() > 1)[0]
        tensors[name] = (
            tensors[name][..., :-1].contiguous() if tensors[name].shape[-1] > 1 else tensors[name][:-1].clone()
        )
        save_file(tensors, file)
        unusable().fails(4, VQGAN, name, str(list(tensors[name].shape)))


def _edit_json(file: Path, edit: Callable[[Header], object]) -> None:
    data = json.loads(file.read_text())
    edit(data)
    file.write_text(json.dumps(data))


class TestIndex:
    @pytest.mark.parametrize(
        ("part", "named"),
        [
            ("vqgan", ["os", "system"]),
            ("vqgan", ["diffusers", "UNet2DConditionModel"]),
            ("text_encoder", ["my_code", "CLIPTextModel"]),
            ("text_encoder", ["transformers", "AutoModel"]),
            ("decoder", [None, "WuerstchenDiffNeXt"]),
        ],
    )
    def test_an_unknown_class_is_named_before_loading(
        self, unusable: Run, checkpoint: Path, part: str, named: object
    ) -> None:
        _edit_json(checkpoint / "model_index.json", lambda index: index.update({part: named}))
        for file in checkpoint.rglob("*.safetensors"):
            file.write_bytes(b"")  # that nothing is loaded first
        unusable().fails(3, part)

    @pytest.mark.parametrize("name", ["StableDiffusionPipeline", "FluxPipeline", "", ["my_code", "MyPipeline"]])
    def test_an_unknown_family_is_named(self, unusable: Run, checkpoint: Path, name: object) -> None:
        _edit_json(checkpoint / "model_index.json", lambda index: index.update(_class_name=name))
        done = unusable()
        done.fails(3)
        assert "Vinograph" in done.err

    def test_an_unknown_family_lists_the_known_ones(self, unusable: Run, checkpoint: Path) -> None:
        _edit_json(checkpoint / "model_index.json", lambda index: index.update(_class_name="FluxPipeline"))
        unusable().fails(3, "FluxPipeline", "wuerstchen", "sdxl")

    @pytest.mark.parametrize("text", ["", "{", "[]", "null", '"text"'])
    def test_a_garbled_index_is_damage(self, unusable: Run, checkpoint: Path, text: str) -> None:
        (checkpoint / "model_index.json").write_text(text)
        unusable().fails(4, "model_index.json")

    @pytest.mark.parametrize("part", ["vqgan", "decoder", "text_encoder", "prior_prior"])
    @pytest.mark.parametrize("text", ["", "{", "[]", '{"hidden_size": "large"}'])
    def test_a_garbled_configuration_is_damage(self, unusable: Run, checkpoint: Path, part: str, text: str) -> None:
        (checkpoint / part / "config.json").write_text(text)
        done = unusable()
        assert done.code in (3, 4)
        done.fails(done.code)

    def test_a_garbled_tokenizer_is_damage(self, vinograph: Run, checkpoint: Path) -> None:
        (checkpoint / "tokenizer" / "tokenizer.json").write_text('{"model": {"type": "BPE"}}')
        done = vinograph("convert", "checkpoint", "bundle")
        assert done.code in (3, 4)
        done.fails(done.code, "tokenizer")
        assert not Path("bundle").exists()


class TestMissing:
    @pytest.mark.parametrize("name", [VQGAN, "decoder/config.json", "prior_text_encoder/model.safetensors"])
    def test_a_missing_file_is_named(self, unusable: Run, checkpoint: Path, name: str) -> None:
        (checkpoint / name).unlink()
        unusable().fails(3, name.split("/")[0])

    def test_a_missing_checkpoint_is_reported(self, vinograph: Run) -> None:
        Path("empty").mkdir()
        vinograph("convert", "empty", "bundle").fails(3, "empty", "model_index.json")
        vinograph("convert", "not there", "bundle").fails(2, "not there")
        Path("file").write_text("x")
        vinograph("convert", "file", "bundle").fails(3, "file")
        assert files_here() == ["empty", "file"]

    def test_missing_files_of_a_cached_repository_are_named(self, checkpoint: Path, tmp_path: Path) -> None:
        commit = "0123456789abcdef0123456789abcdef01234567"
        cache = tmp_path / "hub" / "hub" / "models--someone--wuerstchen"
        (cache / "snapshots").mkdir(parents=True)
        (cache / "refs").mkdir()
        (cache / "refs" / "main").write_text(commit)
        (checkpoint / VQGAN).unlink()
        (checkpoint / "prior_text_encoder" / "config.json").unlink()
        checkpoint.rename(cache / "snapshots" / commit)
        done = in_process("convert", "someone/wuerstchen", "bundle", HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "hub"))
        done.fails(3, "someone/wuerstchen", "hf download someone/wuerstchen")
        assert "vqgan" in done.err or "prior_text_encoder/config.json" in done.err

    def test_an_uncached_repository_is_reported(self, tmp_path: Path) -> None:
        done = in_process("convert", "someone/wuerstchen", "bundle", HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "hub"))
        done.fails(3, "someone/wuerstchen", "hf download someone/wuerstchen")


class TestOptions:
    def test_weights_that_the_family_does_not_support_are_refused(self, refused: Run, checkpoint: Path) -> None:
        for weights in ("int4", "f64", ""):
            refused("--weights", weights).fails(2, "weights is ", "f16, f32")

    def test_an_option_of_another_family_is_refused(self, refused: Run, checkpoint: Path) -> None:
        refused("--tiny-vae", "taesdxl").fails(
            2, "--tiny-vae is not an option of wuerstchen", "--prior, --image-encoder"
        )

    def test_a_missing_image_encoder_is_reported(self, refused: Run, checkpoint: Path) -> None:
        refused("--image-encoder", "no.pt").fails(2, "--image-encoder no.pt")

    def test_a_missing_prior_is_reported(self, refused: Run, checkpoint: Path) -> None:
        Path("prior").mkdir()
        refused("--prior", "prior").fails(3, "prior")


class TestTarget:
    def test_a_bundle_that_exists_is_refused(self, vinograph: Run, published: Path, undisturbed: Path) -> None:
        before = contents(undisturbed)
        vinograph("convert", published, undisturbed).fails(2, str(undisturbed), "--overwrite")
        assert contents(undisturbed) == before

    @pytest.mark.parametrize("options", [(), ("--overwrite",)])
    def test_a_directory_that_is_no_bundle_is_never_overwritten(
        self, refused: Run, checkpoint: Path, options: tuple[str, ...]
    ) -> None:
        Path("bundle").mkdir()
        Path("bundle/precious.txt").write_text("x")
        refused(*options).fails(2, "bundle")
        assert Path("bundle/precious.txt").read_text() == "x"

    def test_a_file_is_never_overwritten(self, refused: Run, checkpoint: Path) -> None:
        Path("bundle").write_text("precious")
        refused("--overwrite").fails(2, "bundle")
        assert Path("bundle").read_text() == "precious"

    def test_an_unwritable_target_is_refused(self, vinograph: Run, published: Path) -> None:
        vinograph("convert", published, "/proc/bundle").fails(2, "/proc/bundle")

    def test_the_old_bundle_stays_if_the_conversion_fails(
        self, refused: Run, checkpoint: Path, undisturbed: Path
    ) -> None:
        shutil.copytree(undisturbed, "bundle")
        (checkpoint / VQGAN).write_bytes((checkpoint / VQGAN).read_bytes()[:-1])
        refused("--overwrite").fails(4, VQGAN)
        assert contents(Path("bundle")) == contents(undisturbed)


# Each file takes half a second to reach the disk, so that there is time to see what a conversion is
# doing.
_SLOW_DISK = "import os, time; sync = os.fsync; os.fsync = lambda file: (time.sleep(0.5), sync(file))[1]\n"


def converting(source: Path, *options: object) -> AbstractContextManager[subprocess.Popen[str]]:
    """A conversion in a process of its own, killed at the end of the block if it still runs."""
    arguments = command("convert", source, "bundle", *options, first=_SLOW_DISK)
    return running(arguments)


class TestInterruption:
    def test_a_killed_conversion_run_again_gives_the_same_bundle(
        self, vinograph: Run, published: Path, undisturbed: Path
    ) -> None:
        with converting(published) as process:
            wait_for(process, " 6/7")
            done = vinograph("convert", published, "bundle")
            done.fails(2, "another conversion is writing", "bundle")
            wait_for(process, " 7/7")
            process.kill()
        assert not Path("bundle").exists()
        for left in (each for each in Path().iterdir() if each.is_dir()):
            vinograph("inspect", left).fails(3, "is not a bundle")
        done = vinograph("convert", published, "bundle")
        assert done.code == 0, done.err
        assert " 3/7" not in done.err, "what was done was done again"
        assert contents(Path("bundle")) == contents(undisturbed)
        assert files_here() == ["bundle"]

    def test_a_kill_while_overwriting_loses_no_bundle(self, vinograph: Run, published: Path, undisturbed: Path) -> None:
        shutil.copytree(undisturbed, "bundle")
        Path("bundle/README.md").write_text("old")
        before = contents(Path("bundle"))
        with converting(published, "--overwrite") as process:
            wait_for(process, " 1/7")
            process.kill()
        assert contents(Path("bundle")) == before
        done = vinograph("convert", published, "bundle", "--overwrite", "--json")
        assert done.code == 0, done.err
        assert set(done.record["components"]) == set(COMPONENTS)
        assert contents(Path("bundle")) == contents(undisturbed)
        assert files_here() == ["bundle"]

    def test_ctrl_c_while_overwriting_loses_no_bundle(self, vinograph: Run, published: Path, undisturbed: Path) -> None:
        shutil.copytree(undisturbed, "bundle")
        with converting(published, "--overwrite") as process:
            wait_for(process, " 3/7")
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert out == ""
        assert err.splitlines()[-1] == "interrupted"
        assert contents(Path("bundle")) == contents(undisturbed)
        assert vinograph("verify", "bundle").code == 0


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> SavedSdxl:
    """A small SDXL, for reading only."""
    return save_sdxl(tmp_path_factory.mktemp("sdxl"), SDXL_TINY)


class TestSdxl:
    """The same cases for SDXL, whose code is its own."""

    UNET = "unet/diffusion_pytorch_model.safetensors"

    @pytest.fixture
    def checkpoint(self, saved: SavedSdxl, tmp_path: Path) -> Path:
        shutil.copytree(saved.home, tmp_path / "checkpoint")
        return tmp_path / "checkpoint"

    @pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "text_encoder_2"])
    def test_pickled_weights_are_refused(self, unusable: Run, checkpoint: Path, part: str) -> None:
        next((checkpoint / part).glob("*.safetensors")).unlink()
        (checkpoint / part / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
        unusable().fails(3, part, "pytorch_model.bin", "pickled")
        assert not Path("exploded").exists()

    def test_a_pickled_tiny_vae_is_refused(self, refused: Run, checkpoint: Path, saved: SavedSdxl) -> None:
        shutil.copytree(saved.tiny_vae, "tiny")
        Path("tiny/diffusion_pytorch_model.safetensors").unlink()
        Path("tiny/diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
        refused("--tiny-vae", "tiny").fails(3, "tiny", "pickled")
        assert not Path("exploded").exists()

    @pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "text_encoder_2"])
    def test_truncated_weights_are_damage(self, unusable: Run, checkpoint: Path, part: str) -> None:
        file = next((checkpoint / part).glob("*.safetensors"))
        file.write_bytes(file.read_bytes()[:-10])
        unusable().fails(4, f"{part}/{file.name}", "cut short")

    @pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "text_encoder_2"])
    def test_a_tensor_of_another_name_is_named(self, unusable: Run, checkpoint: Path, part: str) -> None:
        def rename(header: Header) -> None:
            header["of_another_model"] = header.pop(_first_tensors(header)[0])

        _edit_header(next((checkpoint / part).glob("*.safetensors")), rename)
        unusable().fails(4, part, "tensor")

    def test_integer_weights_are_refused(self, unusable: Run, checkpoint: Path) -> None:
        def retype(header: Header) -> None:
            header[_first_tensors(header)[0]]["dtype"] = "I32"

        _edit_header(checkpoint / self.UNET, retype)
        unusable().fails(4, self.UNET, "of the type I32")

    @pytest.mark.parametrize("name", [UNET, "vae/config.json", "tokenizer_2/tokenizer.json", "scheduler"])
    def test_a_missing_file_is_named(self, unusable: Run, checkpoint: Path, name: str) -> None:
        if name == "scheduler":
            shutil.rmtree(checkpoint / name)
        else:
            (checkpoint / name).unlink()
        unusable().fails(3, "lacks", name.split("/")[0])

    @pytest.mark.parametrize("part", ["unet", "vae", "text_encoder_2", "scheduler"])
    @pytest.mark.parametrize("text", ["", "{", "[]"])
    def test_a_garbled_configuration_is_damage(self, unusable: Run, checkpoint: Path, part: str, text: str) -> None:
        name = "scheduler_config.json" if part == "scheduler" else "config.json"
        (checkpoint / part / name).write_text(text)
        unusable().fails(4, f"{part}/{name}")

    def test_an_unknown_class_is_named_before_loading(self, unusable: Run, checkpoint: Path) -> None:
        _edit_json(checkpoint / "model_index.json", lambda index: index.update(unet=["os", "system"]))
        for file in checkpoint.rglob("*.safetensors"):
            file.write_bytes(b"")  # that nothing is loaded first
        unusable().fails(3, "unet", "system of os")

    def test_a_unet_for_instructions_is_refused(self, unusable: Run, checkpoint: Path) -> None:
        _edit_json(checkpoint / "unet" / "config.json", lambda config: config.update(in_channels=8))
        unusable().fails(3, "unet/config.json", "in_channels is 8")

    def test_a_checkpoint_with_its_own_code_is_refused(self, unusable: Run, checkpoint: Path) -> None:
        _edit_json(checkpoint / "unet" / "config.json", lambda config: config.update(auto_map={"x": "y.z"}))
        unusable().fails(3, "unet/config.json", "code of its own")

    def test_a_unet_alone_is_refused(self, unusable: Run, checkpoint: Path, saved: SavedSdxl) -> None:
        """Consistency models are published so."""
        shutil.rmtree(checkpoint)
        shutil.copytree(saved.home / "unet", checkpoint)
        unusable().fails(3, "no model_index.json", "UNet2DConditionModel", "in its folder of a copy", "the scheduler")

    def test_a_tiny_vae_alone_is_refused(self, unusable: Run, checkpoint: Path, saved: SavedSdxl) -> None:
        shutil.rmtree(checkpoint)
        shutil.copytree(saved.tiny_vae, checkpoint)
        unusable().fails(3, "no model_index.json", "AutoencoderTiny", "--tiny-vae checkpoint")

    def test_wrong_options_are_refused(self, refused: Run, checkpoint: Path) -> None:
        refused("--prior", "x").fails(2, "--prior is not an option of sdxl", "--tiny-vae")
        refused("--tiny-vae", "not there").fails(2, "not there")
        refused("--weights", "int4").fails(2, "f16, f32")

    def test_a_disk_that_is_too_small_is_reported(
        self, refused: Run, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9 - 1000, 1000))
        refused().fails(5, "GB", "free")

    def test_a_killed_conversion_run_again_gives_the_same_bundle(self, vinograph: Run, saved: SavedSdxl) -> None:
        options = ("--tiny-vae", saved.tiny_vae)
        assert vinograph("convert", saved.home, "undisturbed/bundle", *options).code == 0
        with converting(saved.home, *options) as process:
            wait_for(process, "vae_decoder 4/7")
            process.kill()
        assert not Path("bundle").exists()
        done = vinograph("convert", saved.home, "bundle", *options)
        assert done.code == 0, done.err
        assert "unet 3/7" not in done.err, "what was done was done again"
        assert contents(Path("bundle")) == contents(Path("undisturbed/bundle"))


class TestDisk:
    def test_too_little_space_is_reported_before_writing(
        self, refused: Run, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9 - 1000, 1000))
        refused().fails(5, "GB", "free")

    def test_a_disk_that_fills_up_is_reported(self, refused: Run, checkpoint: Path) -> None:
        """A limit on file sizes makes writes fail as a full disk does."""
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        try:
            done = refused()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        done.fails(5, "bundle", "free")
