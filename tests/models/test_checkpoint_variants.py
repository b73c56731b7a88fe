"""Unusual published layouts draw what plain ones do: variants of weights, 8-bit floats."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
    T5ForConditionalGeneration,
)

from tests.checkpoints import PIXART_TINY, SDXL_TINY, SavedPixArt, SavedSdxl, save_pixart, save_sdxl
from tests.cli.conftest import Run
from tests.convert.conftest import edit_header, edit_json, edit_tensors, files_of
from tests.hub_server import HubServer, use_hub, without_waiting
from tests.models.open_model import open_model
from vinograph import DamagedModelError, ModelError, Pipeline
from vinograph.models.safetensors import DOWNLOAD_ORDER, ON_DISK_ORDER, choose_weights, weight_names

ID = "someone/sdxl"
STEM = "diffusion_pytorch_model"
ENCODERS = ("text_encoder", "text_encoder_2")
UNET = f"unet/{STEM}.safetensors"
VARIANTS = ("fp16", "bf16", "ema", "ema_only", "non_ema")

Tensors = dict[str, torch.Tensor]
F8 = {"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> SavedSdxl:
    """For reading only."""
    return save_sdxl(tmp_path_factory.mktemp("sdxl"), SDXL_TINY)


@pytest.fixture(scope="module")
def pixart(tmp_path_factory: pytest.TempPathFactory) -> SavedPixArt:
    """For reading only."""
    return save_pixart(tmp_path_factory.mktemp("pixart"), PIXART_TINY)


@pytest.fixture
def sdxl_copy(saved: SavedSdxl, tmp_path: Path) -> Path:
    """A copy to change."""
    return shutil.copytree(saved.home, tmp_path / "sdxl")


@pytest.fixture
def pixart_copy(pixart: SavedPixArt, tmp_path: Path) -> Path:
    """A copy to change."""
    return shutil.copytree(pixart.home, tmp_path / "pixart")


def drawn(model: str | Path) -> NDArray[np.float32]:
    """The picture of a model as a caller gets it, in f32."""
    pipe = Pipeline.from_pretrained(model, precision="f32")
    images = pipe("a red house", seed=7, num_inference_steps=2, guidance_scale=2.0, output_type="np").images
    return np.asarray(images)


def cast(file: Path, dtype: torch.dtype, spread: float = 1.0) -> Tensors:
    """The tensors of a file times ``spread``, those of numbers in ``dtype``."""
    return {
        name: (each.float() * spread).to(dtype).contiguous() if each.is_floating_point() else each
        for name, each in load_file(file).items()
    }


def write_shards(folder: Path, tensors: Tensors, index: str, shard: Callable[[int], str]) -> None:
    """Write tensors to two files of those names, and the index of both."""
    names = sorted(tensors)
    halves = (names[: len(names) // 2], names[len(names) // 2 :])
    for number, half in enumerate(halves, 1):
        save_file({name: tensors[name] for name in half}, folder / shard(number))
    where = {name: shard(number) for number, half in enumerate(halves, 1) for name in half}
    (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": where}), encoding="utf-8")


class TestTheRule:
    """Which of several variants is read, and which is fetched."""

    def all_names(self, stem: str) -> list[str]:
        return [name for variant in ("", *VARIANTS) for name in weight_names(stem, variant)]

    @pytest.mark.parametrize("order", [ON_DISK_ORDER, DOWNLOAD_ORDER])
    def test_every_name_is_taken_in_its_turn(self, order: tuple[str, ...]) -> None:
        listing = self.all_names("model")
        for variant in order:
            for name in weight_names("model", variant):
                assert choose_weights(listing, "model", "here", order) == name
                listing.remove(name)
        assert not listing

    def test_on_disk_full_precision_comes_first_and_of_downloads_half(self) -> None:
        assert ("", *VARIANTS) == ON_DISK_ORDER
        assert ("fp16", "", *VARIANTS[1:]) == DOWNLOAD_ORDER

    @pytest.mark.parametrize("variant", VARIANTS)
    def test_the_libraries_write_those_names(self, variant: str, tmp_path: Path, saved: SavedSdxl) -> None:
        """diffusers and transformers, in one file and in several."""
        models = {STEM: saved.models.vae, "model": saved.models.text_encoder}
        for stem, model in models.items():
            for size in ("5GB", "1KB"):
                folder = tmp_path / f"{stem}-{size}"
                model.save_pretrained(folder, variant=variant, max_shard_size=size)
                written = {file.name for file in folder.iterdir()}
                assert choose_weights(written, stem, "here") in written & set(weight_names(stem, variant))


class TestOnDisk:
    """A directory."""

    @pytest.mark.parametrize("variant", VARIANTS)
    def test_one_variant_alone(self, sdxl_copy: Path, variant: str) -> None:
        """It is read, though no other part has it."""
        file = (sdxl_copy / UNET).rename(sdxl_copy / "unet" / f"{STEM}.{variant}.safetensors")
        opened = {each.name: each for each in open_model(sdxl_copy).components}
        assert opened["unet"].files == (file,)
        assert opened["text_encoder"].files == (sdxl_copy / "text_encoder" / "model.safetensors",)

    @pytest.mark.parametrize(
        ("variant", "index", "shard"),
        [
            ("fp16", f"{STEM}.safetensors.index.fp16.json", f"{STEM}.fp16-{{:05}}-of-00002.safetensors"),
            ("bf16", f"{STEM}.safetensors.bf16.index.json", f"{STEM}-{{:05}}-of-00002.bf16.safetensors"),
        ],
        ids=["as today", "as older versions wrote it"],
    )
    def test_shards_of_a_variant(self, sdxl_copy: Path, variant: str, index: str, shard: str) -> None:
        dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}[variant]
        tensors = cast(sdxl_copy / UNET, dtype)
        save_file(tensors, sdxl_copy / UNET)
        plain = drawn(sdxl_copy)
        (sdxl_copy / UNET).unlink()
        write_shards(sdxl_copy / "unet", tensors, index, shard.format)
        assert np.array_equal(drawn(sdxl_copy), plain)

    def test_the_whole_checkpoint_in_half_precision(self, saved: SavedSdxl, tmp_path: Path) -> None:
        half = save_sdxl(tmp_path / "half", SDXL_TINY, variant="fp16").home
        plain = shutil.copytree(half, tmp_path / "plain")
        for file in plain.rglob("*.fp16.safetensors"):
            file.rename(file.with_name(file.name.replace(".fp16", "")))
        assert np.array_equal(drawn(half), drawn(plain))
        assert not np.array_equal(drawn(half), drawn(saved.home)), (
            "half precision changed nothing, so this proves nothing"
        )

    def test_full_precision_is_drawn_where_both_are_there(self, saved: SavedSdxl, sdxl_copy: Path) -> None:
        """A directory draws what diffusers draws of it, whatever else is in it."""
        for variant in VARIANTS:
            save_file(cast(sdxl_copy / UNET, torch.float16, 0.9), sdxl_copy / "unet" / f"{STEM}.{variant}.safetensors")
        assert np.array_equal(drawn(sdxl_copy), drawn(saved.home))

    def test_averaged_weights_come_before_those_that_are_not(self, saved: SavedSdxl, sdxl_copy: Path) -> None:
        save_file(cast(sdxl_copy / UNET, torch.float32, 0.9), sdxl_copy / "unet" / f"{STEM}.non_ema.safetensors")
        (sdxl_copy / UNET).rename(sdxl_copy / "unet" / f"{STEM}.ema.safetensors")
        assert np.array_equal(drawn(sdxl_copy), drawn(saved.home))

    def test_a_shard_that_is_missing(self, sdxl_copy: Path, vinograph: Run) -> None:
        """A directory that is not whole is not drawn of another variant without a word."""
        tensors = cast(sdxl_copy / UNET, torch.float32)
        (sdxl_copy / UNET).rename(sdxl_copy / "unet" / f"{STEM}.fp16.safetensors")
        write_shards(
            sdxl_copy / "unet", tensors, f"{STEM}.safetensors.index.json", f"{STEM}-{{:05}}-of-00002.safetensors".format
        )
        (sdxl_copy / "unet" / f"{STEM}-00002-of-00002.safetensors").unlink()
        vinograph("inspect", sdxl_copy).fails(3, "lacks unet/", "00002-of-00002.safetensors")


class TestOnTheHub:
    """A repository, from a hub that runs here."""

    @pytest.fixture
    def server(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
        without_waiting(monkeypatch)
        with HubServer() as server:
            server.in_use(monkeypatch, tmp_path / "cache")
            yield server

    @pytest.fixture
    def home(self, sdxl_copy: Path) -> Path:
        """A checkpoint with all variants of its UNet, and two of its text encoders.

        The one in half precision alone draws another picture.
        """
        for variant in VARIANTS:
            scale = 0.9 if variant == "fp16" else 1.0
            save_file(
                cast(sdxl_copy / UNET, torch.float16, scale), sdxl_copy / "unet" / f"{STEM}.{variant}.safetensors"
            )
        for part in ENCODERS:
            file = sdxl_copy / part / "model.safetensors"
            save_file(cast(file, torch.float16), file.with_name("model.fp16.safetensors"))
        return sdxl_copy

    @staticmethod
    def weights(server: HubServer) -> set[str]:
        """The files with weights that were asked for."""
        return {name for name in server.fetched() if name.endswith(".safetensors")}

    def test_half_precision_is_fetched_and_nothing_else(
        self, server: HubServer, home: Path, vinograph: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server.add(ID, home)
        done = vinograph("convert", ID, tmp_path / "fetched" / "model")
        assert done.code == 0, done.err
        half = {f"unet/{STEM}.fp16.safetensors", *(f"{part}/model.fp16.safetensors" for part in ENCODERS)}
        assert self.weights(server) == half | {f"vae/{STEM}.safetensors"}
        for name in half:
            (home / name).rename(home / name.replace(".fp16", ""))
        assert np.array_equal(drawn(ID), drawn(home))
        use_hub(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache")
        done = vinograph("convert", ID, tmp_path / "offline" / "model")
        assert done.code == 0, done.err
        assert files_of(tmp_path / "offline" / "model") == files_of(tmp_path / "fetched" / "model")

    def test_what_is_in_the_cache_is_not_fetched_again_in_half(self, server: HubServer, home: Path) -> None:
        """As diffusers has left it there."""
        import huggingface_hub as hf

        server.add(ID, home)
        hf.snapshot_download(ID, allow_patterns=["unet/*model.safetensors", "text_encoder*/model.safetensors"])
        server.clear()
        opened = {each.name: each.files[0].name for each in open_model(ID).components}
        assert opened["unet"] == f"{STEM}.safetensors"
        assert (opened["text_encoder"], opened["text_encoder_2"]) == ("model.safetensors", "model.safetensors")
        assert self.weights(server) == {f"vae/{STEM}.safetensors"}

    def test_shards_of_which_some_are_there(self, server: HubServer, home: Path) -> None:
        """An interrupted download of full precision is not gone on with."""
        import huggingface_hub as hf

        tensors = load_file(home / UNET)
        (home / UNET).unlink()
        shard = f"{STEM}-{{:05}}-of-00002.safetensors".format
        write_shards(home / "unet", tensors, f"{STEM}.safetensors.index.json", shard)
        server.add(ID, home)
        hf.snapshot_download(ID, allow_patterns=["unet/*index.json", f"unet/{shard(1)}"])
        server.clear()
        open_model(ID)
        assert f"unet/{STEM}.fp16.safetensors" in self.weights(server)
        assert f"unet/{shard(2)}" not in self.weights(server)

    def test_shards_of_half_precision(self, server: HubServer, home: Path) -> None:
        half = load_file(home / "unet" / f"{STEM}.fp16.safetensors")
        (home / "unet" / f"{STEM}.fp16.safetensors").unlink()
        index, shard = f"{STEM}.safetensors.index.fp16.json", f"{STEM}.fp16-{{:05}}-of-00002.safetensors".format
        write_shards(home / "unet", half, index, shard)
        server.add(ID, home)
        (unet,) = (each for each in open_model(ID).components if each.name == "unet")
        assert [file.name for file in unet.files] == [shard(1), shard(2)]
        assert {name for name in self.weights(server) if name.startswith("unet/")} == {
            f"unet/{each(number)}" for each in (shard,) for number in (1, 2)
        }

    def test_full_precision_where_there_is_no_half(self, server: HubServer, home: Path) -> None:
        (home / "unet" / f"{STEM}.fp16.safetensors").unlink()
        server.add(ID, home)
        open_model(ID)
        assert {name for name in self.weights(server) if name.startswith("unet/")} == {UNET}


class TestEightBits:
    """Floating-point numbers in 8 bits, alone and with a scale."""

    def in_f8(self, file: Path, kind: str) -> None:
        """Put a file's numbers in 8 bits."""
        save_file(cast(file, F8[kind]), file)

    # How each byte of both kinds is read is compared below.
    @pytest.mark.parametrize("kind", ["F8_E4M3", pytest.param("F8_E5M2", marks=pytest.mark.long)])
    def test_they_draw_as_the_same_values_in_f16(
        self, sdxl_copy: Path, tmp_path: Path, kind: str, vinograph: Run
    ) -> None:
        """Matrices and vectors alike; and a bundle of either is the same."""
        halves = shutil.copytree(sdxl_copy, tmp_path / "halves" / "sdxl")
        for name in (UNET, "text_encoder/model.safetensors", f"vae/{STEM}.safetensors"):
            self.in_f8(sdxl_copy / name, kind)
            save_file(cast(sdxl_copy / name, torch.float16), halves / name)
        assert np.array_equal(drawn(sdxl_copy), drawn(halves))
        for source, weights in ((sdxl_copy, "f16"), (halves, "f16"), (sdxl_copy, "f32"), (halves, "f32")):
            done = vinograph(
                "convert", source, tmp_path / f"{source.parent.name}-{weights}" / "model", "--weights", weights
            )
            assert done.code == 0, done.err
        for weights in ("f16", "f32"):
            ours, theirs = (
                files_of(tmp_path / f"{each.parent.name}-{weights}" / "model") for each in (sdxl_copy, halves)
            )
            assert ours == theirs, [name for name in ours if ours[name] != theirs[name]]

    def test_every_byte_is_the_number_that_torch_takes_it_for(self, tmp_path: Path) -> None:
        from vinograph.models.safetensors import read_header

        every = torch.arange(256, dtype=torch.uint8)
        save_file({kind: every.clone().view(dtype) for kind, dtype in F8.items()}, tmp_path / "all.safetensors")
        for kind, record in read_header(tmp_path / "all.safetensors").items():
            theirs = every.view(F8[kind]).to(torch.float16).numpy()
            np.testing.assert_array_equal(record.array(), theirs, strict=True)
            assert np.array_equal(np.signbit(record.array()), np.signbit(theirs))

    @pytest.mark.parametrize(
        ("scale", "input_scale"), [("scale_weight", "scale_input"), ("weight_scale", "input_scale")]
    )
    @pytest.mark.parametrize("shape", [(), (1,)])
    def test_a_scale_for_each_matrix(
        self, pixart_copy: Path, tmp_path: Path, scale: str, input_scale: str, shape: tuple[int, ...]
    ) -> None:
        """T5 as ComfyUI has it: linear layers in 8 bits and scaled, all else in f16."""
        file = pixart_copy / "text_encoder" / "model.safetensors"
        plain, scaled = cast(file, torch.float16), cast(file, torch.float16)
        for name in [each for each in plain if each.endswith(("q.weight", "wi_0.weight", "wo.weight"))]:
            values = load_file(file)[name]
            factor = values.abs().max() / 448
            stored = (values / factor).to(torch.float8_e4m3fn)
            layer = name.removesuffix(".weight")
            scaled |= {name: stored, f"{layer}.{scale}": factor.reshape(shape)}
            scaled[f"{layer}.{input_scale}"] = torch.ones(shape)
            plain[name] = (stored.float() * factor).to(torch.float16)
        assert len(scaled) > len(plain) + 4
        scaled["scaled_fp8"] = torch.empty(0, dtype=torch.float8_e4m3fn)
        save_file(scaled, file)
        halves = shutil.copytree(pixart_copy, tmp_path / "halves")
        save_file(plain, halves / "text_encoder" / "model.safetensors")
        assert np.array_equal(drawn(pixart_copy), drawn(halves))

    @pytest.fixture
    def scaled(self, sdxl_copy: Path) -> Callable[[Any], Path]:
        """Call it with the scale of one matrix of the first text encoder; others have none."""

        def write(scale: torch.Tensor) -> Path:
            def edit(tensors: Tensors) -> None:
                (name,) = (each for each in tensors if each.endswith("layers.0.mlp.fc1.weight"))
                tensors[name] = tensors[name].to(torch.float8_e4m3fn)
                tensors[name.replace(".weight", ".scale_weight")] = scale

            edit_tensors(sdxl_copy / "text_encoder" / "model.safetensors", edit)
            return sdxl_copy

        return write

    def test_a_scale_for_each_row_is_refused(self, scaled: Callable[[Any], Path], vinograph: Run) -> None:
        source = scaled(torch.ones(12, 1))
        for command in (("inspect", source), ("convert", source, "bundle")):
            vinograph(*command).fails(3, "layers.0.mlp.fc1.scale_weight", "[12, 1]", "give a copy of the model in F16")

    @pytest.mark.parametrize("scale", [float("nan"), 0.0, -1.0, float("inf")])
    def test_a_scale_that_is_no_positive_number(self, scaled: Callable[[Any], Path], scale: float) -> None:
        pipe = Pipeline.from_pretrained(scaled(torch.tensor(scale)))
        with pytest.raises(DamagedModelError, match=r"the scale .*fc1\.scale_weight is"):
            pipe("a red house", num_inference_steps=1)

    def test_a_scale_of_nothing(self, sdxl_copy: Path, vinograph: Run) -> None:
        self.in_f8(sdxl_copy / UNET, "F8_E4M3")
        edit_tensors(sdxl_copy / UNET, lambda tensors: tensors.update({"nowhere.scale_weight": torch.ones(())}))
        vinograph("inspect", sdxl_copy).fails(4, "nowhere.scale_weight", "no tensor in 8 bits")

    def test_scales_without_8_bits_are_too_many(self, sdxl_copy: Path, vinograph: Run) -> None:
        edit_tensors(sdxl_copy / UNET, lambda tensors: tensors.update({"conv_in.scale_weight": torch.ones(())}))
        vinograph("inspect", sdxl_copy).fails(4, "conv_in.scale_weight", "no place for")

    @pytest.mark.parametrize("kind", ["F4", "F6_E2M3", "F8_E8M0", "F8_E4M3FNUZ"])
    def test_other_types_are_refused_by_name(self, sdxl_copy: Path, vinograph: Run, kind: str) -> None:
        edit_header(sdxl_copy / UNET, lambda header: header["conv_in.weight"].update(dtype=kind))
        vinograph("inspect", sdxl_copy).fails(3, UNET, "conv_in.weight", f"type {kind}", "F8_E4M3 or F8_E5M2")

    def test_what_another_library_quantized_is_refused_by_name(self, pixart_copy: Path, vinograph: Run) -> None:
        quantized = {"quant_method": "bitsandbytes", "load_in_4bit": True}
        edit_json(pixart_copy / "text_encoder" / "config.json", quantization_config=quantized)
        vinograph("inspect", pixart_copy).fails(3, "text_encoder/config.json", "quant_method bitsandbytes", "int8")


class TestPartsOfWholeModels:
    """A text encoder that is published within the model that it is of."""

    @pytest.mark.parametrize("named", ["T5EncoderModel", "T5ForConditionalGeneration"])
    def test_t5_with_its_decoder(self, pixart: SavedPixArt, pixart_copy: Path, named: str) -> None:
        encoder: T5EncoderModel = pixart.models.text_encoder
        config = T5Config(**{**encoder.config.to_dict(), "num_decoder_layers": 1, "is_encoder_decoder": True})
        whole = T5ForConditionalGeneration(config)
        whole.load_state_dict(encoder.state_dict(), strict=False)
        shutil.rmtree(pixart_copy / "text_encoder")
        whole.save_pretrained(pixart_copy / "text_encoder")
        stored = load_file(pixart_copy / "text_encoder" / "model.safetensors")
        assert any(name.startswith("decoder.") for name in stored)
        edit_json(pixart_copy / "model_index.json", text_encoder=["transformers", named])
        assert np.array_equal(drawn(pixart_copy), drawn(pixart.home))

    @pytest.mark.parametrize("width", ["within", "beside"])
    def test_the_text_encoders_of_whole_clips(self, saved: SavedSdxl, sdxl_copy: Path, width: str) -> None:
        """The projection's width may stand in the text encoder's settings, or beside them."""
        encoders: dict[str, CLIPTextModel | CLIPTextModelWithProjection] = {
            "text_encoder": saved.models.text_encoder,
            "text_encoder_2": saved.models.text_encoder_2,
        }
        for part, encoder in encoders.items():
            vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
            config = CLIPConfig(
                text_config=encoder.config.to_dict(),
                vision_config={**vision, "image_size": 8, "patch_size": 4},
                projection_dim=encoder.config.projection_dim,
            )
            whole = CLIPModel(config)
            own = {
                name if name.startswith("text_") else f"text_model.{name}": each
                for name, each in encoder.state_dict().items()
            }
            missing, unexpected = whole.load_state_dict(own, strict=False)
            assert not unexpected
            assert not [name for name in missing if name.startswith("text_model.")]
            shutil.rmtree(sdxl_copy / part)
            whole.save_pretrained(sdxl_copy / part)
            config = json.loads((sdxl_copy / part / "config.json").read_text())
            if width == "beside":
                config["text_config"].pop("projection_dim")
            (sdxl_copy / part / "config.json").write_text(json.dumps(config))
            edit_json(sdxl_copy / "model_index.json", **{part: ["transformers", "CLIPModel"]})
        assert np.array_equal(drawn(sdxl_copy), drawn(saved.home))

    @pytest.mark.parametrize("given", [5, [], "text"])
    def test_a_whole_clips_configuration_that_is_none(self, sdxl_copy: Path, vinograph: Run, given: object) -> None:
        (sdxl_copy / "text_encoder" / "config.json").write_text(json.dumps({"text_config": given}))
        vinograph("inspect", sdxl_copy).fails(3, "text_encoder/config.json", "text_config is", "settings should be")


class TestSampleSize:
    """The size that a network was trained at, as height and width."""

    def test_of_a_unet(self, saved: SavedSdxl, sdxl_copy: Path) -> None:
        edit_json(sdxl_copy / "unet" / "config.json", sample_size=[SDXL_TINY.sample_size] * 2)
        assert open_model(sdxl_copy).manifest.limits["native_size"] == 8 * SDXL_TINY.sample_size
        assert np.array_equal(drawn(sdxl_copy), drawn(saved.home))

    def test_of_a_transformer(self, pixart: SavedPixArt, pixart_copy: Path) -> None:
        edit_json(pixart_copy / "transformer" / "config.json", sample_size=[PIXART_TINY.sample_size] * 2)
        assert np.array_equal(drawn(pixart_copy), drawn(pixart.home))

    def test_that_is_no_square(self, pixart_copy: Path, vinograph: Run) -> None:
        """diffusers' pipelines fail there: they multiply it as one number."""
        edit_json(pixart_copy / "transformer" / "config.json", sample_size=[16, 24])
        vinograph("inspect", pixart_copy).fails(3, "transformer/config.json", "sample_size is [16, 24]", "square")
        with pytest.raises(ModelError, match="square"):
            Pipeline.from_pretrained(pixart_copy)
