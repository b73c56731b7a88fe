"""Adapters by the command line: what they are, drawing and converting with them, and what is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from safetensors.numpy import save_file

from tests.cli.conftest import Run
from vinograph.adapters.file import parse_weight
from vinograph.images import read_metadata

ROOT = Path(__file__).parents[2]
CHECKPOINT = ROOT / "training" / "checkpoints" / "storybook-sdxl"
SDXL = "storybook-sdxl"
DRAW = ("generate", "a red house", "--model", SDXL, "--seed", "7", "--steps", "1")
# A layer of storybook-sdxl's UNet, its width, and its name by kohya's scripts.
LAYER, WIDTH = "mid_block.attentions.0.proj_in", 144
KOHYA = "lora_unet_middle_block_1_proj_in"


def noise(*shape: int) -> Any:
    """Random values, large enough to show in a picture."""
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


def lora(path: str, rows: int = WIDTH, columns: int = WIDTH, rank: int = 4) -> dict[str, Any]:
    """The tensors of a LoRA for one layer, as kohya's scripts write them."""
    return {
        f"{path}.lora_down.weight": noise(rank, columns),
        f"{path}.lora_up.weight": noise(rows, rank),
        f"{path}.alpha": np.array([rank / 2], np.float32),
    }


def write(name: str, tensors: dict[str, Any], **metadata: str) -> Path:
    file = Path(name)
    save_file(tensors, file, metadata=metadata or None)
    return file


@pytest.fixture
def adapter() -> Path:
    """An adapter for storybook-sdxl, of which one tensor has no place."""
    tags = json.dumps({"data": {"a purple cat": 9, "snow": 3}, "more": {"snow": 8}})
    tensors = {**lora(KOHYA), "lora_unet_nowhere.alpha": np.ones(1, np.float32)}
    return write("cat.safetensors", tensors, ss_tag_frequency=tags, ss_base_model_version="sdxl_base_v1-0")


class TestReport:
    def test_for_people(self, vinograph: Run, adapter: Path) -> None:
        done = vinograph("adapters", adapter, "--model", SDXL)
        assert done.code == 0, done.err
        for words in ("LoRA (1)", "original code", "SDXL", "sdxl_base_v1-0", "snow, a purple cat", "unet (1 weights)"):
            assert words in done.out
        assert "unused: lora_unet_nowhere.alpha: the model has no such layer" in done.out

    def test_as_json(self, vinograph: Run, adapter: Path) -> None:
        record = vinograph("adapters", adapter, "--model", SDXL, "--json").record
        assert (record["kinds"], record["rank"], record["changed"]) == ({"LoRA": 1}, "4", {"unet": 1})
        assert record["unused"] == {"lora_unet_nowhere.alpha": "the model has no such layer"}
        assert record["trigger_words"] == ["snow", "a purple cat"]
        assert len(record["used"]) == 3

    def test_phrases_come_before_tags(self, vinograph: Run) -> None:
        metadata = {
            "modelspec.trigger_phrase": "xyz cat, in snow",
            "modelspec.architecture": "stable-diffusion-xl-v1-base/lora",
        }
        file = write("cat.safetensors", lora(KOHYA), **metadata)
        record = vinograph("adapters", file, "--model", SDXL, "--json").record
        assert record["trigger_words"] == ["xyz cat", "in snow"]
        assert "SDXL" in record["made_for"]

    def test_other_kinds_are_named(self, vinograph: Run) -> None:
        file = write("oft.safetensors", {**lora(KOHYA), f"{KOHYA}.oft_blocks": noise(2, 3, 3)})
        record = vinograph("adapters", file, "--model", SDXL, "--json").record
        assert "OFT" in record["unused"][f"{KOHYA}.oft_blocks"]


FOREIGN = {
    "SD 1.5": lora("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k", 320, 768)
    | lora("lora_te_text_model_encoder_layers_0_mlp_fc1", 3072, 768),
    "SD 2": lora("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k", 320, 1024),
    "Flux": lora("lora_unet_double_blocks_0_img_attn_qkv", 96, 32),
    "SD 3": lora("transformer.transformer_blocks.0.attn.add_q_proj", 32, 32),
    "PixArt": lora("lora_unet_blocks_0_attn_qkv", 96, 32),
    "Würstchen": lora("lora_prior_blocks_2_attention_to_q", 32, 32),
    "Wan": lora("diffusion_model.blocks.0.cross_attn.k", 32, 32),
}


class TestRefused:
    @pytest.mark.parametrize("model", FOREIGN)
    def test_an_adapter_of_another_model(self, model: str, vinograph: Run) -> None:
        """Also where single layers would fit."""
        file = write("other.safetensors", {**FOREIGN[model], **lora(KOHYA)})
        vinograph(*DRAW, "--adapter", file).fails(2, "is none for storybook-sdxl", f"seems to be for {model}")
        assert not Path("picture.png").exists()
        done = vinograph("adapters", file, "--model", SDXL)
        assert done.code == 2
        assert f"seems to be for {model}" in done.err

    def test_nothing_fits(self, vinograph: Run) -> None:
        file = write("other.safetensors", lora(KOHYA, 7, 7))
        vinograph(*DRAW, "--adapter", file).fails(2, "is none for", "[7, 7]", f"[{WIDTH}, {WIDTH}]")

    def test_a_whole_model(self, vinograph: Run) -> None:
        file = write("unet.safetensors", {f"{LAYER}.weight": noise(WIDTH, WIDTH)})
        vinograph(*DRAW, "--adapter", file).fails(2, "holds no adapter", "--model")

    def test_a_file_that_is_not_there(self, vinograph: Run) -> None:
        vinograph(*DRAW, "--adapter", "nowhere.safetensors:0.5").fails(2, "there is no adapter 'nowhere.safetensors'")

    def test_a_damaged_file(self, vinograph: Run, adapter: Path) -> None:
        adapter.write_bytes(adapter.read_bytes()[:-100])
        vinograph(*DRAW, "--adapter", adapter).fails(4, "cat.safetensors is cut short")

    def test_a_pickled_file(self, vinograph: Run) -> None:
        Path("lora").mkdir()
        Path("lora/pytorch_lora_weights.bin").write_bytes(b"PK\x03\x04")
        vinograph(*DRAW, "--adapter", "lora").fails(3, "pytorch_lora_weights.bin", "pickled")

    def test_a_folder_without_an_adapter(self, vinograph: Run) -> None:
        Path("lora").mkdir()
        vinograph(*DRAW, "--adapter", "lora").fails(2, "the folder lora has no .safetensors files")

    def test_an_empty_file(self, vinograph: Run) -> None:
        vinograph(*DRAW, "--adapter", write("empty.safetensors", {})).fails(2, "holds no tensor")

    def test_a_damaged_configuration(self, vinograph: Run) -> None:
        Path("lora").mkdir()
        write("lora/adapter_model.safetensors", lora(KOHYA))
        Path("lora/adapter_config.json").write_text("[]", encoding="utf-8")
        vinograph(*DRAW, "--adapter", "lora").fails(4, "is not an adapter's configuration")

    def test_a_weight_that_is_no_number(self, vinograph: Run, adapter: Path) -> None:
        vinograph(*DRAW, "--adapter", f"{adapter}:nan").fails(2, "the weight of the adapter", "nan")

    def test_a_weight_beyond_the_range_of_f16(self, vinograph: Run, adapter: Path) -> None:
        vinograph(*DRAW, "--adapter", f"{adapter}:1e9").fails(2, "exceed the range of f16", "smaller weight")

    def test_an_adapter_in_place_of_a_model(self, vinograph: Run) -> None:
        Path("lora").mkdir()
        write("lora/pytorch_lora_weights.safetensors", lora(KOHYA))
        vinograph("generate", "a house", "--model", "lora").fails(3, "a LoRA adapter", "--adapter")


class TestDrawing:
    def test_the_picture_changes_and_says_with_what(self, vinograph: Run, adapter: Path) -> None:
        adapter = adapter.absolute()
        record = vinograph(*DRAW, "--adapter", f"{adapter}:-0.5", "--output", "with.png", "--json").record
        assert record["adapters"] == {str(adapter): -0.5}
        assert any("lora_unet_nowhere.alpha" in warning for warning in record["warnings"])
        assert vinograph(*DRAW, "--output", "without.png").code == 0
        assert vinograph(*DRAW, "--adapter", f"{adapter}:0", "--output", "off.png").code == 0
        pictures = {name: np.asarray(Image.open(f"{name}.png")).astype(int) for name in ("with", "without", "off")}
        assert np.abs(pictures["with"] - pictures["without"]).max() > 10
        assert np.array_equal(pictures["off"], pictures["without"])
        with Image.open("with.png") as picture:
            said = json.loads(picture.info["vinograph"])
        assert said["adapters"] == {adapter.name: -0.5}
        assert said["file_hashes"] == {adapter.name: hashlib.sha256(adapter.read_bytes()).hexdigest()[:10]}
        assert str(adapter.parent) not in Path("with.png").read_bytes().decode("latin-1")

    def test_by_its_name_in_the_folder_of_adapters(self, vinograph: Run, adapter: Path) -> None:
        folder = Path("models") / "adapters"
        folder.mkdir(parents=True)
        adapter.rename(folder / adapter.name)
        assert vinograph(*DRAW, "--adapter", "cat:0.5", "--json").record["adapters"] == {"cat": 0.5}
        vinograph(*DRAW, "--adapter", "dog").fails(2, "there is no adapter 'dog'", "which has cat")

    def test_converted_with_an_adapter(self, vinograph: Run, adapter: Path) -> None:
        """The bundle draws what the checkpoint draws with the adapter, and says what is in it."""
        assert vinograph("convert", CHECKPOINT, "merged", "--adapter", f"{adapter}:0.7").code == 0
        drawn = {}
        for name, model in (("merged", ("merged",)), ("checkpoint", (CHECKPOINT, "--adapter", f"{adapter}:0.7"))):
            done = vinograph(*DRAW[:2], *DRAW[4:], "--output", f"{name}.png", "--model", *model)
            assert done.code == 0, done.err
            drawn[name] = np.asarray(Image.open(f"{name}.png")).astype(int)
        assert np.abs(drawn["merged"] - drawn["checkpoint"]).max() <= 1
        done = vinograph("inspect", "merged")
        assert "cat.safetensors:0.7" in done.out


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("a.safetensors", ("a.safetensors", 1.0)),
        ("a.safetensors:0.8", ("a.safetensors", 0.8)),
        ("a.safetensors:-1", ("a.safetensors", -1.0)),
        (r"C:\x.safetensors", (r"C:\x.safetensors", 1.0)),
        (r"C:\x.safetensors:0.5", (r"C:\x.safetensors", 0.5)),
        ("style:2", ("style", 2.0)),
        (":2", (":2", 1.0)),
    ],
)
def test_the_weight_is_the_number_after_the_last_colon(text: str, parsed: tuple[str, float]) -> None:
    assert parse_weight(text) == parsed


class TestTogether:
    """Adapters with what else draws."""

    def test_a_few_step_adapter_brings_its_settings(self, vinograph: Run) -> None:
        file = write("sdxl_lightning_4step_lora.safetensors", lora(KOHYA))
        done = vinograph("generate", "a red house", "--model", SDXL, "--seed", 7, "--adapter", file, "--json")
        assert done.record["request"]["num_inference_steps"] == 4
        assert done.record["request"]["guidance_scale"] == 0
        assert done.record["request"]["scheduler"] == "euler trailing"
        assert "4 steps at guidance scale 0" in done.err
        against = ("--steps", 20, "--guidance-scale", 5)
        done = vinograph("generate", "a red house", "--model", SDXL, "--seed", 7, "--adapter", file, *against, "--json")
        assert done.record["request"]["num_inference_steps"] == 20
        assert "was made for 4 steps; 20 may draw worse" in done.err
        assert "was made for no guidance" in done.err

    def test_one_that_is_off_brings_none(self, vinograph: Run) -> None:
        file = write("sdxl_lightning_4step_lora.safetensors", lora(KOHYA))
        done = vinograph("generate", "a red house", "--model", SDXL, "--seed", 7, "--adapter", f"{file}:0", "--json")
        assert done.record["request"]["num_inference_steps"] == 1
        assert "assumed" not in done.err

    def test_again_wants_the_adapters(self, vinograph: Run, adapter: Path) -> None:
        assert vinograph(*DRAW, "--adapter", f"{adapter}:0.5", "--output", "first.png").code == 0
        with Image.open("first.png") as picture:
            assert "<lora:cat:0.5>" in picture.info["parameters"]
        said = ("it was drawn with files that are not in", f"--adapter {adapter.name}:0.5")
        vinograph("generate", "--again", "first.png").fails(2, *said)
        done = vinograph("generate", "--again", "first.png", "--adapter", f"{adapter}:0.5", "--output", "second.png")
        assert done.code == 0, done.err
        assert np.array_equal(np.asarray(Image.open("first.png")), np.asarray(Image.open("second.png")))

    def test_again_finds_them_in_the_folder_of_adapters(self, vinograph: Run, adapter: Path) -> None:
        assert vinograph(*DRAW, "--adapter", f"{adapter}:0.5", "--output", "first.png").code == 0
        folder = Path("models") / "adapters"
        folder.mkdir(parents=True)
        (folder / adapter.name).write_bytes(adapter.read_bytes())
        done = vinograph("generate", "--again", "first.png", "--output", "second.png")
        assert (done.code, "is not the file that drew" in done.err) == (0, False), done.err
        assert np.array_equal(np.asarray(Image.open("first.png")), np.asarray(Image.open("second.png")))
        assert read_metadata(Path("second.png")) == read_metadata(Path("first.png"))
        other = vinograph("generate", "--again", "first.png", "--adapter", f"{adapter}:0", "--output", "other.png")
        assert other.code == 0
        write(str(folder / adapter.name), lora(KOHYA))
        done = vinograph("generate", "--again", "first.png", "--output", "third.png")
        assert f"{adapter.name} is not the file that drew first.png" in done.err

    @pytest.mark.parametrize("name", ["/home/me/loras/cat.safetensors", "C:\\loras\\cat.safetensors", "cat"])
    def test_again_reads_pictures_with_paths(self, vinograph: Run, adapter: Path, name: str) -> None:
        """Earlier pictures have them, and of another machine's they are none here."""
        folder = Path("models") / "adapters"
        folder.mkdir(parents=True)
        adapter.rename(folder / "cat.safetensors")
        record = {"model": SDXL, "adapters": {name: 0.5}, "request": {"prompt": "a red house", "seed": 7}}
        said = PngImagePlugin.PngInfo()
        said.add_itxt("vinograph", json.dumps(record))
        Image.new("RGB", (8, 8)).save("old.png", pnginfo=said)
        done = vinograph("generate", "--again", "old.png", "--steps", 1, "--output", "new.png")
        assert done.code == 0, done.err
        drawn = vinograph(*DRAW, "--adapter", "cat:0.5", "--output", "expected.png")
        assert drawn.code == 0
        assert np.array_equal(np.asarray(Image.open("new.png")), np.asarray(Image.open("expected.png")))

    @pytest.mark.parametrize("name", ["..", "../cat", "adapters/../../cat", "", ".safetensors", "a\0b"])
    def test_a_picture_names_no_file_beyond_the_folder(self, vinograph: Run, adapter: Path, name: str) -> None:
        (Path("models") / "adapters").mkdir(parents=True)
        record = {"model": SDXL, "adapters": {name: 0.5}, "request": {"prompt": "a", "seed": 7}}
        said = PngImagePlugin.PngInfo()
        said.add_itxt("vinograph", json.dumps(record))
        Image.new("RGB", (8, 8)).save("old.png", pnginfo=said)
        vinograph("generate", "--again", "old.png").fails(2, "no picture may choose others")

    def test_a1111s_tags_are_followed_where_the_folder_has_the_adapter(self, vinograph: Run, adapter: Path) -> None:
        folder = Path("models") / "adapters"
        folder.mkdir(parents=True)
        adapter.rename(folder / "cat.safetensors")
        said = PngImagePlugin.PngInfo()
        said.add_text("parameters", "a red house <lora:cat:0.5> <lora:dog:1>\nSteps: 1, Seed: 7, Size: 256x256")
        Image.new("RGB", (8, 8)).save("theirs.png", pnginfo=said)
        done = vinograph("generate", "--again", "theirs.png", "--model", SDXL, "--output", "again.png", "--json")
        assert list(done.record["adapters"].values()) == [0.5]
        assert "says: the adapter dog (weight 1)" in done.err

    def test_with_a_learned_word(self, vinograph: Run) -> None:
        """The adapter changes the text encoder, which also knows the word."""
        layer = "text_model.encoder.layers.0.self_attn.q_proj"
        flat = f"lora_te1_{layer.replace('.', '_')}"
        width = 64
        save_file({"clip_l": noise(1, width), "clip_g": noise(1, 128)}, "word.safetensors")
        file = write("text.safetensors", lora(flat, width, width))
        drawn = {}
        for name, more in {"neither": (), "both": ("--embedding", "word.safetensors", "--adapter", file)}.items():
            done = vinograph(*DRAW[:1], "a red word house", *DRAW[2:], *more, "--output", f"{name}.png")
            assert done.code == 0, done.err
            drawn[name] = np.asarray(Image.open(f"{name}.png"), np.int16)
        assert np.abs(drawn["both"] - drawn["neither"]).max() > 30
