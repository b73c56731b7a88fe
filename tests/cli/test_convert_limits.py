"""Checkpoints whose files are made to overwhelm a reader are refused, and nothing is written."""

from __future__ import annotations

import dataclasses
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoints import (
    PIXART_TINY,
    SDXL_TINY,
    TINY,
    save_pixart,
    save_sdxl,
    save_wuerstchen,
    split_tokenizer_files,
)
from tests.cli.conftest import Outcome, Run, files_here

Change = Callable[[Path], object]

DEEP = "[" * 100_000
DEEP_OBJECT = '{"a":' * 100_000


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A whole checkpoint of each family, for reading only."""
    folder = tmp_path_factory.mktemp("published")
    return {
        "wuerstchen": save_wuerstchen(folder / "w", TINY).decoder,
        "sdxl": save_sdxl(folder / "s", SDXL_TINY).home,
        "pixart": save_pixart(folder / "p", PIXART_TINY).home,
    }


@pytest.fixture
def refused(vinograph: Run, published: dict[str, Path], tmp_path: Path) -> Run:
    """``refused(family, change)`` converts a changed checkpoint and checks that nothing is left."""

    def run(family: str, change: Change) -> Outcome:
        checkpoint = shutil.copytree(published[family], tmp_path / "checkpoint")
        change(checkpoint)
        before = files_here()
        done = vinograph("convert", "checkpoint", "bundle")
        assert files_here() == before
        return done

    return run


def write(name: str, text: str) -> Change:
    return lambda folder: (folder / name).write_text(text, encoding="utf-8")


def edit(name: str, /, **changes: Any) -> Change:
    """Set keys of a JSON file, as raw text where Python would not write them."""

    def change(folder: Path) -> None:
        file = folder / name
        data = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        text = json.dumps({**data, **{key: f"<{key}>" for key in changes}})
        for key, value in changes.items():
            text = text.replace(f'"<{key}>"', value if isinstance(value, str) else json.dumps(value))
        file.write_text(text, encoding="utf-8")

    return change


def edit_tensor(name: str, /, **changes: Any) -> Change:
    """Change the first tensor's entry in the header of a safetensors file."""

    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])
        next(entry for key, entry in header.items() if key != "__metadata__").update(changes)
        text = json.dumps(header).encode()
        (folder / name).write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])

    return change


def shard(part: str, index: str) -> Change:
    """Replace a component's weights by an index of sharded weights."""

    def change(folder: Path) -> None:
        (folder / part / "diffusion_pytorch_model.safetensors").unlink()
        (folder / part / "diffusion_pytorch_model.safetensors.index.json").write_text(index)

    return change


def header(name: str, text: bytes) -> Change:
    return lambda folder: (folder / name).write_bytes(struct.pack("<Q", len(text)) + text)


UNET, VAE = "unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors"
SCHEDULER = "scheduler/scheduler_config.json"

CASES: dict[str, tuple[str, Change, int, str]] = {
    "a weight index of deep lists": ("sdxl", shard("unet", DEEP), 4, "is not an index of weights"),
    "a weight index of deep objects": ("pixart", shard("transformer", DEEP_OBJECT), 4, "is not an index of weights"),
    "a weight index that names numbers": ("sdxl", shard("unet", '{"weight_map": {"a": 3}}'), 4, "weight_map.a is 3"),
    "a weight index that names folders": (
        "sdxl",
        shard("unet", '{"weight_map": {"a": "../a.safetensors"}}'),
        4,
        "is not a safetensors file beside it",
    ),
    "a header of deep lists": ("sdxl", header(UNET, DEEP.encode()), 4, "nested"),
    "a type that is a list": ("sdxl", edit_tensor(UNET, dtype=["F32"]), 4, "dtype is ['F32']"),
    "a type that is an object": (
        "wuerstchen",
        edit_tensor("vqgan/diffusion_pytorch_model.safetensors", dtype={}),
        4,
        "",
    ),
    "a shape of a million sides": ("sdxl", edit_tensor(VAE, shape=[1] * 1_000_000), 4, "shape"),
    "offsets that are text": ("sdxl", edit_tensor(VAE, data_offsets="ab"), 4, "data_offsets"),
    "an index of deep objects": ("sdxl", write("model_index.json", DEEP_OBJECT), 4, "model_index.json"),
    "an index whose part is a text": ("sdxl", edit("model_index.json", vae='"AutoencoderKL"'), 3, "the part vae"),
    "an index whose part is a number": ("pixart", edit("model_index.json", scheduler="3"), 3, "the part scheduler"),
    "an index with a long class": (
        "sdxl",
        edit("model_index.json", unet=json.dumps(["diffusers", "x" * 1_000_000])),
        3,
        "gives the part unet the class",
    ),
    "a flag that is a text": (
        "sdxl",
        edit("model_index.json", force_zeros_for_empty_prompt='"no"'),
        3,
        "force_zeros_for_empty_prompt",
    ),
    "a scale that is nothing": (
        "wuerstchen",
        edit("model_index.json", latent_dim_scale="0"),
        3,
        "latent_dim_scale is 0",
    ),
    "a mean that is a text": ("wuerstchen", edit("model_index.json", latent_mean='"42"'), 3, "latent_mean is '42'"),
    "a configuration of deep lists": ("sdxl", write("unet/config.json", DEEP), 4, "unet/config.json"),
    "betas beyond a float": ("sdxl", edit(SCHEDULER, beta_end="1" + 400 * "0"), 4, "an integer of 401 digits"),
    "betas above one": ("sdxl", edit(SCHEDULER, beta_end="1e5"), 3, "no noise schedule"),
    "timesteps beyond memory": (
        "pixart",
        edit(SCHEDULER, num_train_timesteps="999999999999"),
        3,
        "num_train_timesteps",
    ),
    "a scheduler of deep lists": ("pixart", write(SCHEDULER, DEEP), 4, SCHEDULER),
    "a scheduler that divides by zero": ("wuerstchen", edit(SCHEDULER, s="-1"), 4, "s is -1"),
    "an epsilon below nothing": (
        "sdxl",
        edit("text_encoder/config.json", layer_norm_eps="-1"),
        3,
        "layer_norm_eps is -1",
    ),
    "an epsilon of T5 that is text": (
        "pixart",
        edit("text_encoder/config.json", layer_norm_epsilon='"small"'),
        3,
        "layer_norm_epsilon",
    ),
    "levels upon levels of blocks": (
        "sdxl",
        edit("unet/config.json", layers_per_block=[500] * 400, block_out_channels=[8] * 400),
        3,
        "200,000 blocks",
    ),
    "blocks without end": ("wuerstchen", edit("decoder/config.json", level_config=["C" * 10**6]), 3, "level_config"),
    "a sample size of a million": (
        "sdxl",
        edit("unet/config.json", sample_size="1000000"),
        3,
        "sample_size is 1000000",
    ),
    "a patch of nothing": ("pixart", edit("transformer/config.json", patch_size="0"), 3, "patch_size is 0"),
    "a whole CLIP's configuration": ("sdxl", edit("text_encoder/config.json", text_config="{}"), 3, "text_config"),
    "no multiple": ("wuerstchen", edit("vinograph.json", limits={"size_multiple": 0}), 3, "size_multiple is 0"),
    "no multiple of SDXL": ("sdxl", edit("vinograph.json", limits={"size_multiple": 0}), 3, "size_multiple is 0"),
    "a multiple beyond the maximum": ("pixart", edit("vinograph.json", limits={"maximum_size": 1}), 3, "maximum_size"),
    "a default beyond the limits": (
        "sdxl",
        edit("vinograph.json", defaults={"generate": {"height": 1_000_000}}),
        3,
        "height is 1000000",
    ),
    "no steps": ("sdxl", edit("vinograph.json", defaults={"generate": {"num_inference_steps": 0}}), 3, "is 0"),
    "a default that is a file": (
        "sdxl",
        edit("vinograph.json", defaults={"generate": {"image": "/etc/hostname"}}),
        3,
        "'image'",
    ),
    "an unknown setting": ("sdxl", edit("vinograph.json", colour="3"), 3, "'colour'"),
    "a name that is a list": ("sdxl", edit("vinograph.json", name="[]"), 3, "name is []"),
    "a name that clears the screen": ("sdxl", edit("vinograph.json", name='"\\u001b[2J"'), 3, "name is "),
    "settings of deep lists": ("pixart", write("vinograph.json", DEEP), 4, "vinograph.json"),
    "a garbled tokenizer": ("sdxl", write("tokenizer_2/tokenizer.json", "{"), 4, "tokenizer_2"),
    "a tokenizer of deep lists": ("wuerstchen", write("tokenizer/tokenizer.json", DEEP), 4, "tokenizer.json"),
    "settings of a tokenizer in deep lists": ("sdxl", write("tokenizer/tokenizer_config.json", DEEP), 4, "tokenizer"),
    "a tokenizer that is another's": (
        "wuerstchen",
        write("prior_tokenizer/tokenizer.json", "{}"),
        4,
        "prior_tokenizer",
    ),
    "endless extra ids": ("pixart", edit("tokenizer/tokenizer_config.json", extra_ids="1" + 30 * "0"), 4, "extra_ids"),
    "a billion extra ids": ("pixart", edit("tokenizer/tokenizer_config.json", extra_ids="1000000000"), 4, "extra_ids"),
    "a length of nothing": (
        "sdxl",
        edit("tokenizer/tokenizer_config.json", model_max_length="0"),
        4,
        "model_max_length",
    ),
    "a length below nothing": ("pixart", edit("tokenizer/tokenizer_config.json", model_max_length="-7"), 4, "length"),
}


@pytest.mark.parametrize("name", CASES)
def test_an_oversized_file_is_refused_before_writing(refused: Run, name: str) -> None:
    family, change, code, word = CASES[name]
    done = refused(family, change)
    done.fails(code, word)
    assert len(done.err) < 2000


def test_a_deeply_nested_older_tokenizer_is_refused(refused: Run) -> None:
    def change(folder: Path) -> None:
        split_tokenizer_files(folder / "tokenizer")
        (folder / "tokenizer" / "vocab.json").write_text(DEEP_OBJECT)

    refused("sdxl", change).fails(4, "vocab.json")


CARDS = {
    "deep lists": "license: " + "[" * 20_000,
    "deep entries": "license:\n" + "- " * 20_000 + "mit",
    "references to references": "a: &a [x]\n" + "\n".join(f"b{i}: &b{i} [*a, *a]" for i in range(1000)),
    "a long line": "license: " + "x" * 3_000_000,
    "no end": "license: mit\n" * 100_000,
    "a tag": "license: !!python/object/apply:os.system ['touch owned']",
}


@pytest.mark.parametrize("name", CARDS)
def test_an_unreadable_model_card_leaves_the_licence_unknown(
    vinograph: Run, published: dict[str, Path], tmp_path: Path, name: str
) -> None:
    """The model can be converted all the same."""
    checkpoint = shutil.copytree(published["wuerstchen"], tmp_path / "checkpoint")
    end = "" if name == "no end" else "---\n"
    (checkpoint / "README.md").write_text(f"---\n{CARDS[name]}\n{end}\n# A model\n")
    done = vinograph("convert", "checkpoint", "bundle")
    assert done.code == 0, done.err
    assert vinograph("inspect", "bundle", "--json").record["source"]["licence"] is None
    assert not Path("owned").exists()


class TestAssumedDefaults:
    def test_assumed_defaults_are_printed(self, vinograph: Run, tmp_path: Path) -> None:
        home = save_sdxl(tmp_path, dataclasses.replace(SDXL_TINY, turbo=True)).home
        done = vinograph("convert", home, "bundle")
        assert done.code == 0
        note = "defaults assumed: 1 step without guidance, as for SDXL-Turbo, by the scheduler and the name"
        assert f"warning: {note}" in done.err
        assert note in vinograph("inspect", "bundle").out
        assert vinograph("inspect", "bundle", "--json").record["notes"][0].startswith(note)
        assert vinograph("verify", "bundle").code == 0

    def test_a_guided_model_needs_no_assumed_defaults(self, vinograph: Run, tmp_path: Path) -> None:
        """Its scheduler differs from SDXL-Turbo's in prediction type and final noise."""
        home = save_sdxl(tmp_path, dataclasses.replace(SDXL_TINY, turbo=True)).home
        edit(SCHEDULER, prediction_type='"v_prediction"', rescale_betas_zero_snr=True)(home)
        done = vinograph("convert", home, "bundle")
        assert (done.code, "defaults assumed" in done.err) == (0, False)
        generate = vinograph("inspect", "bundle", "--json").record["defaults"]["generate"]
        assert (generate["num_inference_steps"], generate["guidance_scale"]) == (50, 5.0)
