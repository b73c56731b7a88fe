"""Weights, long prompts and learned words on the command line, and what is refused there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openvino import opset13 as ops
from PIL import Image
from safetensors.numpy import save_file

from tests.bundles import save_sdxl_bundle
from tests.cli.conftest import Run
from vinograph.images import read_metadata

SDXL = ("--model", "storybook-sdxl", "--seed", 1)
WIDTHS = {"clip_l": 64, "clip_g": 128}


def embedding(file: str, **shapes: tuple[int, ...]) -> str:
    generator = np.random.RandomState(0)
    given = shapes or {key: (2, width) for key, width in WIDTHS.items()}
    save_file({key: generator.normal(0, 0.1, shape).astype(np.float32) for key, shape in given.items()}, file)
    return file


def pixels(file: str | Path = "picture.png") -> np.ndarray:
    with Image.open(file) as picture:
        return np.asarray(picture).astype(int)


class TestOptions:
    def test_weights_and_chunks_change_the_picture(self, vinograph: Run) -> None:
        prompt = "a (red:1.6) house on a hill BREAK two green trees"
        options = ("--prompt-weighting", "a1111", "--long-prompt", "chunks", "--output", "weighted.png", "--json")
        done = vinograph("generate", prompt, *SDXL, *options)
        assert (done.code, done.record["warnings"]) == (0, []), done.err
        assert done.record["request"]["prompt_weighting"] == "a1111"
        assert done.record["request"]["long_prompt"] == "chunks"
        plain = vinograph("generate", prompt, *SDXL, "--output", "plain.png")
        assert "warning: weights such as (word:1.2) were read as text" in plain.err
        assert np.abs(pixels("weighted.png") - pixels("plain.png")).max() > 10

    def test_pixart_takes_weights_alone(self, vinograph: Run) -> None:
        model = ("--model", "storybook-pixart-lcm", "--steps", 1)
        assert vinograph("generate", "a (red:1.4) house", *model, "--prompt-weighting", "comfyui").code == 0
        vinograph("generate", "a house", *model, "--long-prompt", "chunks").fails(
            2, "--long-prompt is not an option of storybook-pixart-lcm"
        )

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (("--prompt-weighting", "compel"), "--prompt-weighting is 'compel'; give one of none, a1111, comfyui"),
            (("--long-prompt", "yes"), "--long-prompt is 'yes'; give one of truncate, chunks"),
        ],
    )
    def test_other_values_are_refused(self, vinograph: Run, options: tuple[str, ...], words: str) -> None:
        vinograph("generate", "a house", *SDXL, *options).fails(2, words)

    def test_weights_beyond_the_range_are_refused(self, vinograph: Run) -> None:
        vinograph("generate", "a (house:5000)", *SDXL, "--prompt-weighting", "a1111").fails(
            2, "the prompt gives 'house' the weight 5000", "from -1000 to 1000"
        )
        vinograph("generate", "a BREAK " * 40, *SDXL, "--long-prompt", "chunks").fails(2, "the prompt has 40 chunks")


class TestEmbeddings:
    def test_the_files_name_is_the_word(self, vinograph: Run) -> None:
        file = embedding("foggy.safetensors")
        for word, name in (("foggy", "file.png"), ("bright", "given.png")):
            option = file if name == "file.png" else f"{file}:{word}"
            done = vinograph("generate", f"a {word} house", *SDXL, "--embedding", option, "--output", name)
            assert done.code == 0, done.err
        assert np.array_equal(pixels("file.png"), pixels("given.png"))
        assert vinograph("generate", "a foggy house", *SDXL, "--output", "plain.png").code == 0
        assert np.abs(pixels("file.png") - pixels("plain.png")).max() > 10

    def test_again_takes_the_words_from_the_folder_of_learned_words(self, vinograph: Run) -> None:
        file = Path(embedding("foggy.safetensors"))
        assert vinograph("generate", "a dim house", *SDXL, "--embedding", f"{file}:dim", "--output", "a.png").code == 0
        said = read_metadata(Path("a.png")) or {}
        assert said["embeddings"] == {"foggy.safetensors": "dim"}
        assert len(said["file_hashes"]["foggy.safetensors"]) == 10
        given = ("generate", "--again", "a.png", "--output", "b.png")
        vinograph(*given).fails(2, "files that are not in", "--embedding foggy.safetensors:dim")
        folder = Path("models") / "embeddings"
        folder.mkdir(parents=True)
        file.rename(folder / file.name)
        assert vinograph(*given).code == 0
        assert np.array_equal(pixels("a.png"), pixels("b.png"))
        assert vinograph("generate", "a dim house", *SDXL, "--embedding", "foggy:dim", "--output", "c.png").code == 0
        assert np.array_equal(pixels("a.png"), pixels("c.png"))

    def test_two_files_of_diffusers_are_one_word(self, vinograph: Run) -> None:
        names = [f"learned_embeds{end}.safetensors" for end in ("", "_2")]
        for name, width in zip(names, WIDTHS.values(), strict=True):
            embedding(name, **{"<fog>": (width,)})
        options = [each for name in names for each in ("--embedding", name)]
        assert vinograph("generate", "a <fog> house", *SDXL, *options).code == 0
        vinograph("generate", "a <fog> house", *SDXL, *options[:2]).fails(2, "the embedding <fog> has vectors of")

    @pytest.mark.parametrize(
        ("shapes", "words"),
        [
            ({"emb_params": (4, 768)}, ("width 768 for SD 1.5", "needs 64 (clip_l), 128 (clip_g)", "made for SDXL")),
            ({"emb_params": (1, 1024)}, ("1024 for SD 2",)),
            ({"clip_l": (2, 64)}, ("the embedding odd has vectors of the width 64",)),
            ({"clip_l": (2, 64), "clip_g": (3, 128)}, ("2 for the text_encoder, 3 for the text_encoder_2",)),
            ({"clip_l": (2, 64), "clip_g": (2, 64)}, ("width 64",)),
            ({"clip_l": (40, 64), "clip_g": (40, 128)}, ("give as many vectors", "at most 30")),
            ({"clip_l": (2, 64), "a": (2, 3, 64)}, ("odd.safetensors is no textual inversion", "[2, 3, 64]")),
            ({"lora_unet_down.weight": (2, 99)}, ("width 99",)),
            ({f"lora_{index}": (2, 64) for index in range(17)}, ("is no textual inversion: it has 17 tensors",)),
        ],
    )
    def test_others_are_refused_by_name(
        self, vinograph: Run, shapes: dict[str, tuple[int, ...]], words: tuple[str, ...]
    ) -> None:
        file = embedding("odd.safetensors", **shapes)
        vinograph("generate", "an odd house", *SDXL, "--embedding", file).fails(2, *words)

    def test_the_same_vectors_twice_are_refused(self, vinograph: Run) -> None:
        options = (
            "--embedding",
            f"{embedding('a.safetensors')}:fog",
            "--embedding",
            f"{embedding('b.safetensors')}:fog",
        )
        vinograph("generate", "fog", *SDXL, *options).fails(2, "that another file has for the same word, too")

    def test_files_that_are_none(self, vinograph: Run) -> None:
        vinograph("generate", "fog", *SDXL, "--embedding", "none.safetensors").fails(2, "there is no such file")
        Path("old.pt").write_bytes(b"\x80\x02}q\x00.")
        vinograph("generate", "fog", *SDXL, "--embedding", "old.pt").fails(3, "old.pt is", "pickle")
        Path("cut.safetensors").write_bytes(Path(embedding("whole.safetensors")).read_bytes()[:-8])
        vinograph("generate", "fog", *SDXL, "--embedding", "cut.safetensors").fails(4, "cut.safetensors is cut short")
        save_file({"clip_l": np.full((1, 64), np.nan, np.float32)}, "nan.safetensors")
        vinograph("generate", "fog", *SDXL, "--embedding", "nan.safetensors").fails(2, "hold NaN or infinity")
        word = f"{embedding('long.safetensors')}:{'x' * 101}"
        vinograph("generate", "fog", *SDXL, "--embedding", word).fails(2, "an embedding's word is")

    def test_a_text_encoder_without_a_table_takes_none(self, vinograph: Run) -> None:
        bundle = save_sdxl_bundle(Path("other"))
        widths = [bundle.manifest.components[f"text_encoder{end}"].outputs["hidden_states"].shape for end in ("", "_2")]
        layers, width = int(widths[0][1]), int(widths[0][-1])

        def without_table(given: Mapping[str, Any]) -> dict[str, Any]:
            ids = ops.unsqueeze(ops.convert(given["input_ids"], "f32"), ops.constant([1, 3]))
            return {"hidden_states": ops.multiply(ids, ops.constant(np.ones((1, layers, 1, width), np.float32)))}

        save_sdxl_bundle(Path("tiny"), graphs={"text_encoder": without_table})
        shapes = {key: (1, int(shape[-1])) for key, shape in zip(WIDTHS, widths, strict=True)}
        done = vinograph("generate", "fog", "--model", "tiny", "--embedding", embedding("fog.safetensors", **shapes))
        done.fails(3, "text_encoder.xml takes no embeddings of words: it has no table of token embeddings")

    def test_other_families_take_none(self, vinograph: Run) -> None:
        options = ("--embedding", embedding("fog.safetensors"))
        vinograph("generate", "fog", *options).fails(2, "storybook-wuerstchen takes no embeddings of words")
