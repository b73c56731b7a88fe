"""Files that are no whole checkpoint are refused by what they are, here and on the hub."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import save_file

from tests.checkpoints import (
    PIXART_TINY,
    SDXL_TINY,
    TINY,
    SavedSdxl,
    pixart_models,
    save_sdxl,
    sdxl_models,
    wuerstchen_models,
)
from tests.cli.conftest import Run
from tests.convert.conftest import edit_json
from tests.hub_server import HubServer, without_waiting
from vinograph import ModelError, Pipeline

ID = "someone/it"
LORA = ("it is a LoRA adapter", "Give the model that it was made for with --model, and this with --adapter")
CONTROLNET = ("it is a ControlNet", "Give the model that it steers")
WEIGHTS = "diffusion_pytorch_model.safetensors"
SINGLE = ("Give the file itself as the model", "--model FILE")
OTHER = "Give a model of a family that Vinograph draws with"
IN_ITS_FOLDER = "put it in its folder of a copy of a whole checkpoint, with the scheduler that it was made for"

_LIBRARY: Any = diffusers


def tensors(folder: Path, file: str, *names: str) -> None:
    """A safetensors file of small tensors of those names."""
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    save_file({name: torch.ones(2, 2) for name in names}, folder / file)


def config(folder: Path, file: str, **settings: object) -> None:
    """A file of settings."""
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text(json.dumps(settings), encoding="utf-8")


def peft(folder: Path, **settings: object) -> None:
    config(folder, "adapter_config.json", **settings)
    tensors(folder, "adapter_model.safetensors", "base_model.model.conv_in.lora_A.weight")


def pickled_lora(folder: Path) -> None:
    (folder / "pytorch_lora_weights.bin").write_bytes(b"x")


def controlnet(folder: Path) -> None:
    unet = sdxl_models(SDXL_TINY).unet
    _LIBRARY.ControlNetModel.from_unet(unet).save_pretrained(folder)


def controlnet_without_configuration(folder: Path) -> None:
    controlnet(folder)
    (folder / "config.json").unlink()


def t2i_adapter(folder: Path) -> None:
    _LIBRARY.T2IAdapter(channels=(8, 8), num_res_blocks=1, adapter_type="full_adapter").save_pretrained(folder)


def t2i_adapter_without_configuration(folder: Path) -> None:
    t2i_adapter(folder)
    (folder / "config.json").unlink()


def ip_adapter(folder: Path) -> None:
    """As h94/IP-Adapter is laid out, with two image encoders."""
    for home in ("models", "sdxl_models"):
        config(folder, f"{home}/image_encoder/config.json", architectures=["CLIPVisionModelWithProjection"])
        tensors(folder, f"{home}/ip-adapter_sdxl.safetensors", "image_proj.norm.weight")


def lightning(folder: Path) -> None:
    """As ByteDance/SDXL-Lightning: single files, LoRAs and UNets, which differ by their headers."""
    single = ("model.diffusion_model.out.2.weight", "conditioner.embedders.1.model.ln_final.weight")
    tensors(folder, "sdxl_lightning_4step.safetensors", *single)
    tensors(folder, "sdxl_lightning_4step_lora.safetensors", "lora_unet_down_blocks_1.lora_down.weight")
    tensors(folder, "sdxl_lightning_4step_unet.safetensors", "add_embedding.linear_1.weight", "conv_norm_out.weight")


def many(folder: Path) -> None:
    for number in range(11):
        tensors(folder, f"style-{number:02}.safetensors", "lora_unet_down_blocks_1.lora_down.weight")


def unet(folder: Path) -> None:
    """As latent-consistency/lcm-sdxl."""
    sdxl_models(SDXL_TINY).unet.save_pretrained(folder)


def unet_of_another_model(folder: Path) -> None:
    unet(folder)
    edit_json(folder / "config.json", addition_embed_type="image")


def file_of(*names: str, file: str = "it.safetensors") -> Callable[[Path], None]:
    return lambda folder: tensors(folder, file, *names)


# What is in the folder, and words of the message.
KNOWN: Mapping[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "PEFT's": (
        lambda folder: peft(folder, peft_type="LORA", base_model_name_or_path="stabilityai/stable-diffusion-xl"),
        ("it is a LoRA adapter of stabilityai/stable-diffusion-xl (adapter_config.json)", *LORA[1:]),
    ),
    "PEFT's of another kind": (
        lambda folder: peft(folder, peft_type="OFT"),
        ("it is an adapter of the kind OFT (adapter_config.json)", *LORA[1:]),
    ),
    "diffusers' LoRA": (
        file_of("unet.down_blocks.0.to_q.lora_A.weight", file="pytorch_lora_weights.safetensors"),
        (*LORA, "pytorch_lora_weights.safetensors"),
    ),
    "a pickled LoRA": (
        pickled_lora,
        (*LORA, "pytorch_lora_weights.bin"),
    ),
    "Kohya's LoRA": (file_of("lora_unet_a.lora_down.weight", "lora_unet_a.alpha"), (*LORA, "(it.safetensors)")),
    "an older LoRA of diffusers": (file_of("unet.mid.attn1.processor.to_q_lora.down.weight"), LORA),
    "a LoHa": (file_of("lora_unet_a.hada_w1_a"), LORA),
    "a LoKr": (file_of("lora_unet_a.lokr_w1"), LORA),
    "a ControlNet": (controlnet, (*CONTROLNET, "(ControlNetModel)")),
    "a ControlNet without its configuration": (controlnet_without_configuration, (*CONTROLNET, WEIGHTS)),
    "the authors' ControlNet": (file_of("control_model.input_hint_block.0.weight"), CONTROLNET),
    "a ControlNet of low rank": (file_of("input_hint_block.0.weight", "a.lora_down.weight"), CONTROLNET),
    "a T2I-Adapter": (t2i_adapter, ("it is a T2I-Adapter (T2IAdapter)", "Give the model that it steers")),
    "a T2I-Adapter without its configuration": (t2i_adapter_without_configuration, ("it is a T2I-Adapter", WEIGHTS)),
    "the authors' T2I-Adapter": (file_of("body.0.block1.weight", "conv_in.weight"), ("it is a T2I-Adapter",)),
    "an IP-Adapter": (ip_adapter, ("it is an IP-Adapter (models/ip-adapter_sdxl.safetensors)",)),
    "an IP-Adapter by its header": (file_of("image_proj.norm.weight"), ("it is an IP-Adapter (it.safetensors)",)),
    "an embedding": (
        file_of("<cat-toy>", file="learned_embeds.safetensors"),
        ("it is a textual inversion (learned_embeds.safetensors)", "Give the model that it was made for"),
    ),
    "an embedding of SDXL": (file_of("clip_l", "clip_g"), ("it is a textual inversion (it.safetensors)",)),
    "a single file of SDXL": (
        file_of("model.diffusion_model.out.2.weight", "conditioner.embedders.1.model.ln_final.weight"),
        ("it is a single-file checkpoint of SDXL (it.safetensors)", *SINGLE),
    ),
    "a single file of SDXL's refiner": (
        file_of("model.diffusion_model.out.2.weight", "conditioner.embedders.0.model.ln_final.weight"),
        ("it is a single-file checkpoint of SDXL's refiner (it.safetensors)", OTHER),
    ),
    "a single file of another model": (
        file_of("model.diffusion_model.out.2.weight", "cond_stage_model.transformer.weight"),
        ("it is a single-file checkpoint of Stable Diffusion 1 or 2 (it.safetensors)", OTHER),
    ),
    "SDXL's UNet": (
        unet,
        (
            f"it is one part of a model alone (UNet2DConditionModel); {IN_ITS_FOLDER}",
            "By its configuration it is the unet/ of a checkpoint of sdxl",
        ),
    ),
    "SDXL's UNet without its configuration": (
        file_of("add_embedding.linear_1.weight", "conv_norm_out.weight"),
        (
            "it is one part of a model alone, without its configuration (the unet/ of sdxl) (it.safetensors)",
            "Put it in",
        ),
    ),
    "another UNet": (
        unet_of_another_model,
        ("one part of a model alone (UNet2DConditionModel), and of none that Vinograph draws with", "text_time"),
    ),
    "PixArt's transformer": (
        lambda folder: pixart_models(PIXART_TINY).transformer.save_pretrained(folder),
        ("(PixArtTransformer2DModel)", IN_ITS_FOLDER, "the transformer/ of a checkpoint of pixart"),
    ),
    "Würstchen's prior": (
        lambda folder: wuerstchen_models(TINY).prior.save_pretrained(folder),
        ("(WuerstchenPrior)", "convert a whole checkpoint and name this one with --prior", "prior/ of a checkpoint"),
    ),
    "a text encoder": (
        lambda folder: pixart_models(PIXART_TINY).text_encoder.save_pretrained(folder),
        (f"it is one part of a model alone (T5EncoderModel); {IN_ITS_FOLDER}",),
    ),
    "a language model": (
        lambda folder: config(folder, "config.json", architectures=["LlamaForCausalLM"]),
        ("it is a LlamaForCausalLM, which is no part of a model that Vinograph draws with",),
    ),
    "single files, LoRAs and UNets": (
        lightning,
        (
            "a single-file checkpoint of SDXL (sdxl_lightning_4step.safetensors); a LoRA adapter "
            "(sdxl_lightning_4step_lora.safetensors); one part of a model alone, without its configuration (the unet/ "
            "of sdxl) (sdxl_lightning_4step_unet.safetensors)",
            *SINGLE,
            *LORA[1:],
        ),
    ),
    "more files than are looked at": (many, ("style-07.safetensors); and 3 more files", *LORA[1:])),
}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    without_waiting(monkeypatch)
    with HubServer() as server:
        server.in_use(monkeypatch, tmp_path / "cache")
        yield server


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of what is named, in the current one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "it").mkdir()
    return tmp_path / "it"


@pytest.mark.parametrize("known", KNOWN)
def test_it_is_refused_by_what_it_is(vinograph: Run, folder: Path, server: HubServer, known: str) -> None:
    """With exit code 3. Of a repository, no weights are fetched."""
    make, words = KNOWN[known]
    make(folder)
    server.add(ID, folder)
    for source in ("it", ID):
        for command in (("convert", source, "bundle"), ("generate", "a house", "--model", source)):
            vinograph(*command).fails(3, f"{source} has no model_index.json: it is ", *words)
    assert not Path("bundle").exists()
    assert not list(folder.parent.glob("cache/**/*.safetensors"))


def test_in_python(folder: Path) -> None:
    peft(folder, peft_type="LORA")
    with pytest.raises(ModelError, match="it is a LoRA adapter"):
        Pipeline.from_pretrained(folder)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> SavedSdxl:
    return save_sdxl(tmp_path_factory.mktemp("sdxl"), SDXL_TINY)


def test_a_whole_checkpoint_may_have_any_of_them_beside_it(vinograph: Run, folder: Path, saved: SavedSdxl) -> None:
    """As SDXL's base, which has its single file and a LoRA at its top."""
    shutil.copytree(saved.home, folder, dirs_exist_ok=True)
    lightning(folder)
    peft(folder, peft_type="LORA")
    controlnet(folder)
    done = vinograph("inspect", "it")
    assert done.code == 0, done.err


def test_files_that_nothing_is_known_of(vinograph: Run, folder: Path, server: HubServer) -> None:
    tensors(folder, "it.safetensors", "a", "b")
    server.add(ID, folder)
    for source in ("it", ID):
        vinograph("inspect", source).fails(3, f"{source} lacks model_index.json")


def test_a_file_that_is_damaged(vinograph: Run, folder: Path, server: HubServer) -> None:
    (folder / "it.safetensors").write_bytes(b"\x09\0\0\0\0\0\0\0{garbled}")
    server.add(ID, folder)
    for source in ("it", ID):
        vinograph("inspect", source).fails(4, "it.safetensors", "header")


def test_a_hub_that_stops_answering(vinograph: Run, folder: Path, server: HubServer) -> None:
    from tests.hub_server import Fault

    tensors(folder, "it.safetensors", "a")
    server.add(ID, folder)
    server.faults["it.safetensors"] = Fault(status=500)
    vinograph("convert", ID, "bundle").fails(3, "the hub stopped answering while someone/it was looked at")


def test_a_repository_of_which_only_a_part_is_cached(
    vinograph: Run, folder: Path, server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offline it isn't known to be no whole checkpoint: what tells may be what is missing."""
    import huggingface_hub as hf

    lightning(folder)
    config(folder, "model_index.json", _class_name="StableDiffusionXLPipeline")
    server.add(ID, folder)
    hf.snapshot_download(ID, allow_patterns=["sdxl_lightning_4step.safetensors"])
    monkeypatch.setattr(hf.constants, "HF_HUB_OFFLINE", True)
    vinograph("convert", ID, "bundle").fails(3, "not whole in this machine's cache", "Missing: model_index.json")
