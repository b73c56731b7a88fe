"""Single files on the command line: they are drawn with, or refused by what they are."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import huggingface_hub as hf
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from benchmarks.single_file_layout import TEXT_1, TEXT_2, UNET, VAE
from tests.checkpoints import PIXART_TINY, save_pixart
from tests.cli.conftest import Run
from tests.hub_cache import save_cache
from tests.hub_server import HubServer, without_waiting
from tests.single_files import FileShape, models_of, save_directory, single_file_tensors, standard_vocabulary, write
from vinograph import Pipeline
from vinograph.models.clip_vocabulary import REPOSITORY
from vinograph.web.model_pool import ModelPool

pytestmark = pytest.mark.usefixtures("compiled_once")

DRAWN = ("--size", "64x64", "--steps", "1", "--seed", "3")


def file_of(*names: str, file: str = "it.safetensors") -> Path:
    save_file({name: torch.zeros(2, 2) for name in names}, file)
    return Path(file)


@pytest.fixture(autouse=True)
def _no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache of the hub's, and no network."""
    monkeypatch.setattr(hf.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hf.constants, "HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("single")


@pytest.fixture(scope="module")
def base(home: Path) -> Path:
    return save_directory(home / "base")


@pytest.fixture(scope="module")
def whole(home: Path) -> Path:
    return write(home / "My Model.safetensors", single_file_tensors(models_of()), torch.float16)


@pytest.fixture(scope="module")
def standard(home: Path) -> Path:
    """A file with the vocabulary of CLIP."""
    tensors = single_file_tensors(models_of(FileShape(vocabulary=49_408)))
    return write(home / "standard.safetensors", tensors, torch.float16)


@pytest.fixture(scope="module")
def vocabulary(home: Path) -> Path:
    """A repository's folder with a tokenizer such as SDXL's base has."""
    standard_vocabulary(home / "published" / "tokenizer")
    (home / "published" / "model_index.json").write_text("{}")
    return home / "published"


def test_every_command_that_takes_a_model_takes_a_file(vinograph: Run, base: Path, whole: Path) -> None:
    options = ("--base", base)
    drawn = vinograph("generate", "a house", "--model", whole, *options, *DRAWN, "--output", "file.png", "--json")
    assert drawn.record["model"] == "My Model"
    record = vinograph("convert", whole, "bundle", *options, "--json").record
    assert (record["family"], record["notes"]) == ("sdxl", [])
    assert vinograph("pull", whole, *options, "--json").record["name"] == "my-model"
    again = vinograph("generate", "a house", "--model", "my-model", *DRAWN, "--output", "bundle.png", "--json")
    assert again.code == 0
    assert vinograph("reconstruct", "file.png", "--model", whole, *options).code == 0
    assert vinograph("inspect", whole, *options, "--json").record["source"]["also"] == {"base": "base"}
    assert vinograph("verify", whole, *options, "--vae", base, "--json").record["whole"]
    assert ModelPool({str(whole): {"base": str(base)}}, "CPU").references[0] == str(whole)
    vinograph("inspect", "my-model", *options).fails(2, "is a bundle, whose parts stay")


def test_benchmark_completes_a_file(vinograph: Run, base: Path, whole: Path) -> None:
    given = ("--base", base, "--size", "64x64", "--steps", "1", "--runs", "0", "--rounds", "1", "--no-reference")
    (row,) = vinograph("benchmark", whole, *given, "--json").record["rows"]
    assert row["failure"] is None
    assert row["first"] > 0


def test_a_vae_is_named_or_chosen(vinograph: Run, base: Path, whole: Path) -> None:
    """--vae takes a source, or one of the model's own."""
    alone = write(Path("alone.safetensors"), single_file_tensors(models_of(), vae=False), torch.float16)
    vinograph("generate", "a house", "--model", alone, *DRAWN).fails(3, "has a vocabulary of")
    options = ("--model", alone, "--base", base, *DRAWN)
    assert vinograph("generate", "a house", *options, "--vae", "full").code == 0
    assert vinograph("generate", "a house", *options, "--vae", whole).code == 0
    vinograph("generate", "a house", *options, "--vae", "tiny").fails(2, "this model has full")
    vinograph("generate", "a house", *options, "--vae", "tyni").fails(2, "--vae is 'tyni'; give one of full, tiny")


def test_a_file_without_a_vae_says_so(vinograph: Run, standard: Path, vocabulary: Path) -> None:
    save_cache(Path("hub"), REPOSITORY, vocabulary)
    tensors = single_file_tensors(models_of(FileShape(vocabulary=49_408)), vae=False)
    alone = write(Path("alone.safetensors"), tensors, torch.float16)
    vinograph("convert", alone, "bundle").fails(3, "alone.safetensors has no VAE", "--vae FILE", "--base MODEL")
    assert vinograph("convert", alone, "bundle", "--vae", standard).code == 0


class TestTokenizers:
    """A file has none: they come from a model at hand, and otherwise from the hub, once."""

    @pytest.fixture
    def server(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
        without_waiting(monkeypatch)
        with HubServer() as server:
            server.in_use(monkeypatch, tmp_path / "cache")
            yield server

    def test_offline_without_any(self, vinograph: Run, standard: Path, whole: Path) -> None:
        outcome = vinograph("generate", "a house", "--model", standard, *DRAWN)
        outcome.fails(3, "holds no tokenizer", "--base MODEL", f"hf download {REPOSITORY} model_index.json tokenizer/")
        outcome = vinograph("generate", "a house", "--model", whole, *DRAWN)
        outcome.fails(3, "has a vocabulary of 521 tokens, and CLIP's has 49,408", "--base MODEL")

    def test_from_the_hub_once(
        self, vinograph: Run, server: HubServer, monkeypatch: pytest.MonkeyPatch, standard: Path, vocabulary: Path
    ) -> None:
        server.add(REPOSITORY, vocabulary)
        assert vinograph("inspect", standard).code == 0
        asked = len(server.requests)
        assert asked > 0
        assert vinograph("inspect", standard).code == 0
        assert len(server.requests) == asked

    def test_from_the_cache(self, vinograph: Run, standard: Path, vocabulary: Path) -> None:
        save_cache(Path("hub"), "someone/tuned", vocabulary)
        assert vinograph("inspect", standard).code == 0
        tokenizers = [Pipeline.from_pretrained(standard).model.tokenizer(f"tokenizer{end}") for end in ("", "_2")]
        first, second = (each(["aa house"]).ids[0] for each in tokenizers)
        assert first[0] == 49_406
        assert first[-1] == 49_407
        assert second[-1] == 0
        assert (first[:4] == second[:4]).all()
        assert ModelPool({str(standard): {}}, "CPU").references[0] == str(standard)  # as the page offers it

    def test_from_the_models_folder(self, vinograph: Run, standard: Path, vocabulary: Path) -> None:
        save_cache(Path("hub"), "someone/tuned", vocabulary)
        assert vinograph("pull", standard, "--as", "mine").code == 0
        shutil.rmtree("hub")
        assert vinograph("inspect", standard).code == 0

    def test_from_a_damaged_answer(self, vinograph: Run, server: HubServer, standard: Path, tmp_path: Path) -> None:
        broken = standard_vocabulary(tmp_path / "published" / "tokenizer").parent
        (broken / "tokenizer" / "vocab.json").write_text("{}")
        (broken / "model_index.json").write_text("{}")
        server.add(REPOSITORY, broken)
        vinograph("inspect", standard).fails(4, "doesn't hold CLIP's vocabulary")


SDXL = (f"{UNET}input_blocks.0.0.weight", f"{UNET}label_emb.0.0.weight", f"{TEXT_2}ln_final.weight")
# Names of a file's tensors, and words of the message.
REFUSED: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "Stable Diffusion 1": (
        (f"{UNET}input_blocks.0.0.weight", "cond_stage_model.transformer.text_model.final_layer_norm.weight"),
        ("is a single-file checkpoint of Stable Diffusion 1 or 2", "Give a model of a family"),
    ),
    "Stable Diffusion 2": (
        (f"{UNET}input_blocks.0.0.weight", "cond_stage_model.model.ln_final.weight"),
        ("is a single-file checkpoint of Stable Diffusion 1 or 2",),
    ),
    "the UNet of Stable Diffusion 1": (
        ("input_blocks.0.0.weight", "time_embed.0.weight"),
        ("is a single-file checkpoint of Stable Diffusion 1 or 2",),
    ),
    "the refiner": (
        (*SDXL[:2], "conditioner.embedders.0.model.ln_final.weight"),
        ("is a single-file checkpoint of SDXL's refiner",),
    ),
    "Stable Video Diffusion": (
        (*SDXL[:2], f"{UNET}input_blocks.1.0.time_stack.in_layers.0.weight"),
        ("is a single-file checkpoint of Stable Video Diffusion",),
    ),
    "Stable Diffusion 3": ((f"{UNET}joint_blocks.0.x_block.mlp.fc1.weight",), ("Stable Diffusion 3",)),
    "Flux": (("double_blocks.0.img_attn.norm.key_norm.scale",), ("Flux",)),
    "Flux in diffusers' layout": (("single_transformer_blocks.0.proj_mlp.weight",), ("Flux",)),
    "PixArt": (("y_embedder.y_proj.fc1.weight", "blocks.0.mlp.fc1.weight"), ("PixArt in its authors' layout",)),
    "Playground": ((*SDXL, "edm_mean"), ("is Playground v2.5", "Give SDXL")),
    "CosXL": ((*SDXL, "edm_vpred.sigma_max"), ("is CosXL",)),
    "a LoRA": (("lora_unet_a.lora_down.weight",), ("is a LoRA adapter",)),
    "a textual inversion": (("clip_l", "clip_g"), ("is a textual inversion",)),
    "a ControlNet": (("control_model.input_hint_block.0.weight",), ("is a ControlNet",)),
    "a VAE": (("decoder.mid.block_1.conv1.weight",), ("is a VAE alone", "--vae FILE")),
    "diffusers' VAE": (("decoder.mid_block.resnets.0.conv1.weight",), ("is a VAE alone", "--vae FILE")),
    "a tiny VAE": (("decoder.layers.0.weight",), ("is a tiny VAE alone", "--tiny-vae")),
    "a text encoder": (("text_model.final_layer_norm.weight",), ("is a text encoder alone",)),
    "an upscaler": (("conv_first.weight", "body.0.rdb1.conv1.weight"), ("is an upscaler",)),
    "nothing known": (("a.weight",), ("holds tensors of no model that is known here", "wuerstchen", "sdxl")),
    "SDXL's UNet": (("conv_in.weight", "add_embedding.linear_1.weight"), ("UNet without text encoders", "--base")),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_another_file_is_refused_by_what_it_is(vinograph: Run, kind: str) -> None:
    names, words = REFUSED[kind]
    file = file_of(*names)
    for command in (("generate", "a house", "--model", file), ("convert", file, "bundle"), ("pull", file)):
        vinograph(*command).fails(3, "it.safetensors", *words)
    assert not Path("bundle").exists()


def test_models_for_inpainting(vinograph: Run, base: Path) -> None:
    unet = models_of(FileShape(channels=9)).unet
    file = write(Path("inpainting.safetensors"), unet.state_dict(), torch.float16)
    assert vinograph("convert", file, "bundle", "--base", base).code == 0
    vinograph("generate", "a house", "--model", "bundle").fails(2, "for inpainting alone", "--mask")
    Image.new("RGB", (64, 64), "white").save("picture.png")
    inputs = ("--image", "picture.png", "--mask", "picture.png", "--steps", 2)
    for source in (("bundle",), (file, "--base", base)):
        assert vinograph("generate", "a house", "--model", *source, *inputs, "--seed", 7).code == 0


def test_files_that_are_no_safetensors(vinograph: Run, base: Path) -> None:
    Path("model.gguf").write_bytes(b"GGUF" + bytes(40))
    torch.save({"a": torch.zeros(1)}, "model.ckpt")
    Path("model.safetensors").write_bytes(b"\x10")
    vinograph("generate", "a", "--model", "model.gguf").fails(3, "model.gguf is a file; a model is a .safetensors file")
    vinograph("generate", "a", "--model", "model.ckpt").fails(3, "model.ckpt is a pickle")
    vinograph("generate", "a", "--model", "model.safetensors").fails(4, "is cut short")
    vinograph("generate", "a", "--model", base, "--vae", file_of("a")).fails(3, "is no VAE")


def test_sources_that_do_not_fit(vinograph: Run, base: Path, whole: Path) -> None:
    pixart = save_pixart(Path("pixart"), PIXART_TINY).home
    unet = write(Path("unet.safetensors"), models_of().unet.state_dict(), torch.float16)
    vinograph("convert", whole, "bundle", "--base", pixart).fails(2, "--base", "of the family pixart; give one of sdxl")
    vinograph("convert", pixart, "bundle", "--base", base).fails(2, "--base is not an option of pixart models")
    vinograph("convert", base, "bundle", "--base", base).fails(2, "is a whole model: leave --base out")
    vinograph("convert", unet, "bundle", "--base", "storybook-sdxl").fails(3, "the parts don't fit together")
    vinograph("convert", whole, "bundle", "--revision", "main").fails(2, "is a file here")
    vinograph("generate", "a", "--model", "storybook-sdxl", "--vae", whole).fails(2, "is a bundle", "--vae")
    vinograph("convert", base, "bundle", "--vae", pixart / "tokenizer").fails(3, "has no VAE")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (f"{UNET}out.2.weight", "lacks the tensor conv_out.weight"),
        (f"{UNET}input_blocks.2.0.op.weight", f"has the tensor {UNET}input_blocks.2.0.op.bias"),
        (f"{TEXT_1}text_model.embeddings.position_embedding.weight", f"lacks the tensor {TEXT_1}embeddings"),
        (f"{TEXT_2}transformer.resblocks.1.attn.in_proj_weight", "lacks the tensor encoder.layers.1.self_attn"),
        (f"{VAE}decoder.mid.attn_1.k.weight", "lacks the tensor decoder.mid_block.attentions.0.to_k.weight"),
    ],
)
def test_a_missing_tensor_is_named(vinograph: Run, base: Path, name: str, words: str) -> None:
    tensors = single_file_tensors(models_of())
    del tensors[name]
    file = write(Path("it.safetensors"), tensors, torch.float16)
    vinograph("convert", file, "bundle", "--base", base).fails(4, "it.safetensors", words)


def test_one_text_encoder_alone(vinograph: Run, base: Path) -> None:
    tensors = {name: each for name, each in single_file_tensors(models_of()).items() if not name.startswith(TEXT_1)}
    file = write(Path("it.safetensors"), tensors, torch.float16)
    vinograph("convert", file, "bundle", "--base", base).fails(4, "it has one text encoder, and no tensors", TEXT_1)


def test_a_unet_among_parts_of_another_layout(vinograph: Run, base: Path) -> None:
    tensors = single_file_tensors(models_of())
    others = {name: each for name, each in tensors.items() if not name.startswith(UNET)}
    file = write(Path("it.safetensors"), {**others, **models_of().unet.state_dict()}, torch.float16)
    vinograph("convert", file, "bundle", "--base", base).fails(4, "lacks the tensor conv_in.weight")


def test_a_surplus_tensor_is_named(vinograph: Run, base: Path) -> None:
    more = {f"{UNET}output_blocks.0.1.extra.weight": torch.zeros(2), "somewhere.else": torch.zeros(2)}
    tensors = single_file_tensors(models_of())
    file = write(Path("it.safetensors"), {**tensors, "somewhere.else": torch.zeros(2)}, torch.float16)
    record = vinograph("convert", file, "bundle", "--base", base, "--json").record
    assert record["notes"] == [
        "tensors of the file that belong to no part of an SDXL model are not used: somewhere.else"
    ]
    write(file, {**tensors, **more}, torch.float16)
    vinograph("convert", file, "other", "--base", base).fails(4, "which the model has no place for")
