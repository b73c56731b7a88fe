"""`vinograph` with PixArt: the same commands, and that family's own options."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.bundles import save_pixart_bundle
from tests.checkpoints import PIXART_TINY, SavedPixArt, save_pixart
from tests.cli.conftest import WITHOUT_HEAVY, Outcome, Run, files_here, in_process
from vinograph.families.pixart.aspect_ratios import ASPECT_RATIOS
from vinograph.images import read_metadata
from vinograph.models.bundle import Bundle


@pytest.fixture(scope="session")
def pixart(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A whole PixArt bundle with both VAEs, for reading only."""
    return save_pixart_bundle(tmp_path_factory.mktemp("pixart") / "tiny-pixart")


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> SavedPixArt:
    """A whole checkpoint, for reading only."""
    return save_pixart(tmp_path_factory.mktemp("published"), PIXART_TINY)


@pytest.fixture(autouse=True)
def _picture(_clean_place: None) -> None:
    """A picture to start from."""
    colours = np.random.RandomState(0).randint(0, 256, (16, 20, 3), np.uint8)
    Image.fromarray(colours).resize((320, 256)).save("start.png")


def size(file: str) -> tuple[int, int]:
    with Image.open(file) as picture:
        return picture.size


class TestGenerate:
    def test_a_size_between_the_trained_ones(self, vinograph: Run, pixart: Bundle) -> None:
        told = ("--size", "301x177", "--steps", 2, "--guidance-scale", 3, "--negative-prompt", "blue", "--seed", 7)
        done = vinograph("generate", "a house", "--model", pixart.path, *told, "--json")
        assert done.code == 0, done.err
        request = done.record["request"]
        assert (request["width"], request["height"], request["num_inference_steps"]) == (301, 177, 2)
        assert (request["guidance_scale"], request["negative_prompt"]) == (3.0, ["blue"])
        assert set(done.record["seconds"]) == {"text", "transformer", "vae"}
        assert done.record["devices"].keys() == {"text_encoder", "transformer", "tiny_vae_decoder"}
        (warning,) = done.record["warnings"]
        assert warning == "drawn at 320x192, the nearest size that the model was trained on, and resized to 301x177"
        assert size("picture.png") == (301, 177)
        record = read_metadata(Path("picture.png"))
        assert record is not None
        assert (record["request"]["seed"], record["request"]["use_resolution_binning"]) == (7, True)

    def test_a_size_as_it_is(self, vinograph: Run, pixart: Bundle) -> None:
        told = ("--size", "304x176", "--resolution-binning", "off")
        done = vinograph("generate", "a house", "--model", pixart.path, *told)
        assert done.code == 0, done.err
        assert "warning" not in done.err
        assert size("picture.png") == (304, 176)

    def test_a_prompt_as_it_is(self, vinograph: Run, pixart: Bundle) -> None:
        drawn = []
        for clean in ("on", "off"):
            told = ("--seed", 1, "--clean-caption", clean, "--output", f"{clean}.png")
            assert vinograph("generate", "a house @night", "--model", pixart.path, *told).code == 0
            with Image.open(f"{clean}.png") as picture:
                drawn.append(np.asarray(picture))
        assert not np.array_equal(drawn[0], drawn[1])

    def test_image_to_image(self, vinograph: Run, pixart: Bundle) -> None:
        told = ("--image", "start.png", "--steps", 4, "--strength", 0.5, "--seed", 1)
        done = vinograph("generate", "a house", "--model", pixart.path, *told)
        assert done.code == 0, done.err
        assert "transformer 2/2" in done.err
        assert size("picture.png") == (320, 256)

    def test_little_memory(self, vinograph: Run, pixart: Bundle) -> None:
        for memory in ("low", "auto"):
            told = ("--memory", memory, "--seed", 1, "--output", f"{memory}.png")
            assert vinograph("generate", "a house", "--model", pixart.path, *told).code == 0
        with Image.open("low.png") as low, Image.open("auto.png") as usual:
            assert np.array_equal(np.asarray(low), np.asarray(usual))

    def test_reconstruct(self, vinograph: Run, pixart: Bundle) -> None:
        done = vinograph("reconstruct", "start.png", "--model", pixart.path, "--output", "again.png")
        assert done.code == 0, done.err
        assert "8.0 times smaller in each direction" in done.out
        assert size("again.png") == (320, 256)

    def test_none_of_the_heavy_packages(self, pixart: Bundle) -> None:
        done = in_process("generate", "a house", "--model", pixart.path, "--seed", 7, first=WITHOUT_HEAVY)
        assert done.code == 0, done.err
        assert done.out.startswith("picture.png  seed 7\n")


class TestWhatIsTold:
    """What is done otherwise than asked, or not at all, is a warning beside the picture."""

    LONG = f"a red house {'on a hill ' * 20} at night"

    def test_text_that_was_cut_off(self, vinograph: Run, pixart: Bundle) -> None:
        done = vinograph("generate", self.LONG, "--model", pixart.path, "--json")
        assert done.code == 0, done.err
        (cut,) = done.record["warnings"]
        assert re.fullmatch(r"the text encoder reads 20 tokens; cut off: '.*at night'", cut)
        assert f"warning: {cut}" in done.err

    def test_a_negative_prompt_that_was_ignored(self, vinograph: Run, pixart: Bundle) -> None:
        told = ("--guidance-scale", 1, "--negative-prompt", "blue")
        done = vinograph("generate", "a house", "--model", pixart.path, *told)
        assert done.code == 0, done.err
        assert "warning: the negative prompt was ignored: it takes a guidance scale above 1" in done.err

    def test_guidance_on_top_of_a_consistency_model(self, vinograph: Run, tmp_path: Path) -> None:
        save_pixart_bundle(tmp_path / "lcm", scheduler={"_class_name": "LCMScheduler"})
        done = vinograph("generate", "a house", "--model", "lcm", "--guidance-scale", 4.5)
        assert done.code == 0, done.err
        assert (
            "warning: guidance scale 4.5 comes on top of what this model was distilled from; 0 leaves it out"
            in done.err
        )
        done = vinograph("generate", "a house", "--model", "lcm", "--guidance-scale", 0)
        assert "warning" not in done.err

    def test_a_prompt_that_could_not_be_cleaned(self, pixart: Bundle) -> None:
        first = "import sys; sys.modules.update(bs4=None, ftfy=None)\n"
        for prompt, package in (("a <b>house</b>", "beautifulsoup4"), ("ein Häuschen", "ftfy")):
            done = in_process("generate", prompt, "--model", pixart.path, first=first)
            assert done.code == 0, done.err
            assert f"warning: the prompt was not cleaned: that takes {package}, which is not installed" in done.err
            assert "vinograph[captions]" in done.err
            assert "--clean-caption off" in done.err
            done = in_process("generate", prompt, "--model", pixart.path, "--clean-caption", "off", first=first)
            assert "warning" not in done.err

    def test_a_picture_of_another_shape(self, vinograph: Run, pixart: Bundle) -> None:
        Image.new("RGB", (301, 177), "red").save("odd.png")
        done = vinograph("generate", "a house", "--model", pixart.path, "--image", "odd.png")
        assert done.code == 0, done.err
        assert "warning: the picture was resized from 301x177 to 320x192" in done.err
        assert "and resized to 301x177" in done.err
        assert size("picture.png") == (301, 177)


class TestWhatIsRefused:
    @pytest.fixture
    def refused(self, vinograph: Run, pixart: Bundle) -> Run:
        """``generate`` with options that leave no file."""

        def run(*arguments: object, model: object = pixart.path) -> Outcome:
            before = files_here()
            done = vinograph("generate", "a house", "--model", model, *arguments)
            assert files_here() == before
            return done

        return run

    @pytest.mark.parametrize(
        ("told", "words"),
        [
            (("--resolution-binning", "perhaps"), ("--resolution-binning is 'perhaps'; give on or off",)),
            (("--clean-caption", "1"), ("--clean-caption is '1'; give on or off",)),
            (("--memory", "little"), ("memory is 'little'; give one of auto, low",)),
            (("--vae", "small"), ("--vae is 'small'; give one of full, tiny",)),
            (("--size", "9x256"), ("the width is 9", "whole numbers from 64 to 512", "the nearest: 64")),
            (("--size", "256x600"), ("the height is 600", "the nearest: 512")),
            (("--size", "0x0"), ("the width is 0", "the nearest: 64")),
            (
                ("--size", "300x256", "--resolution-binning", "off"),
                ("multiples of 16 from 64 to 512", "the nearest: 288 and 304"),
            ),
            (("--size", "16:9"), ("--size is '16:9'; give width and height in pixels, such as 512x512",)),
            (("--size", "square"), ("--size is 'square'", "such as 512x512")),
            (("--steps", 0), ("--steps is 0", "from 1 to 1000")),
            (("--guidance-scale", "nan"), ("--guidance-scale is nan", "a number from 0 up")),
            (("--strength", 0.5), ("--strength needs --image: a picture to start from",)),
            (("--image", "start.png", "--strength", 0), ("--strength is 0.0", "above 0 and up to 1")),
            (("--image", "start.png", "--strength", 1.5), ("--strength is 1.5", "above 0 and up to 1")),
            (("--image", "start.png", "--strength", "half"), ("--strength is 'half'", "above 0 and up to 1")),
            (("--image", "none.png"), ("there is no file none.png",)),
            (("--device", "transformer=GPU.7"), ("'GPU.7'", "there is CPU")),
            (("--precision", "unet=f32"), ("'unet'", "transformer", "tiny_vae_decoder")),
            (("--output", "no/such/a.png"), ("there is no folder no/such",)),
        ],
        ids=str,
    )
    def test_options(self, refused: Run, told: tuple[object, ...], words: tuple[str, ...]) -> None:
        refused(*told).fails(2, *words)

    @pytest.mark.parametrize("option", [("--mask", "start.png"), ("--decoder-steps", 3)], ids=str)
    def test_options_of_other_families(self, refused: Run, option: tuple[object, ...]) -> None:
        own = (
            "--clean-caption",
            "--guidance-scale",
            "--image",
            "--resolution-binning",
            "--size",
            "--steps",
            "--strength",
        )
        done = refused("--image", "start.png", *option)
        done.fails(2, f"{option[0]} is not an option of tiny-pixart", "pixart", *own, "--vae")

    @pytest.mark.parametrize(("steps", "strength", "fewest"), [(4, 0.1, 10), (1, 0.5, 2), (3, 0.3, 4)])
    def test_steps_that_leave_none(
        self, refused: Run, vinograph: Run, pixart: Bundle, steps: int, strength: float, fewest: int
    ) -> None:
        told = ("--image", "start.png", "--strength", strength, "--steps")
        refused(*told, steps).fails(2, f"{steps} steps at strength {strength:g} leave none", f"at least {fewest} steps")
        done = vinograph("generate", "a house", "--model", pixart.path, *told, fewest)
        assert done.code == 0, done.err
        assert "transformer 1/1" in done.err

    def test_binning_without_a_table(self, refused: Run, vinograph: Run, tmp_path: Path) -> None:
        """Of a model whose manifest doesn't turn it off, as conversion does."""
        save_pixart_bundle(tmp_path / "odd", sample_size=24)
        refused(model="odd").fails(2, "no table of aspect ratios", "sample size 24", "--resolution-binning off")
        done = vinograph("generate", "a house", "--model", "odd", "--resolution-binning", "off")
        assert done.code == 0, done.err
        assert size("picture.png") == (192, 192)

    def test_more_steps_than_a_consistency_model_has(self, refused: Run, tmp_path: Path) -> None:
        save_pixart_bundle(tmp_path / "lcm", scheduler={"_class_name": "LCMScheduler"})
        refused("--steps", 51, model="lcm").fails(2, "51 steps are more than", "give at most 50")

    @pytest.mark.parametrize(
        ("stage", "told"),
        [
            ("text_encoder", ()),
            ("transformer", ()),
            ("tiny_vae_decoder", ()),
            ("vae_decoder", ("--vae", "full")),
            ("vae_encoder", ("--vae", "full", "--image", "start.png")),
        ],
    )
    @pytest.mark.parametrize("memory", ["auto", "low"])
    def test_a_stage_that_computes_no_numbers(
        self, vinograph: Run, tmp_path: Path, stage: str, told: tuple[str, ...], memory: str
    ) -> None:
        save_pixart_bundle(tmp_path / "broken", broken=stage)
        before = files_here()
        given = ("--precision", "f32", "--memory", memory, *told)
        done = vinograph("generate", "a house", "--model", "broken", *given)
        done.fails(1, f"the {stage} stage computed NaN or infinity in f32: ", "vinograph verify")
        assert files_here() == before


class TestConvert:
    """The rest of what a checkpoint may be like is tried in tests/models."""

    @pytest.fixture
    def checkpoint(self, published: SavedPixArt, tmp_path: Path) -> Path:
        """``checkpoint`` in the current folder, to change."""
        return shutil.copytree(published.home, tmp_path / "checkpoint")

    @pytest.fixture
    def refused(self, vinograph: Run) -> Run:
        """A conversion of ``checkpoint`` that leaves nothing."""

        def run(*options: object) -> Outcome:
            before = files_here()
            done = vinograph("convert", "checkpoint", "bundle", *options)
            assert files_here() == before
            return done

        return run

    def test_the_bundle_is_found_and_draws(self, vinograph: Run, checkpoint: Path, published: SavedPixArt) -> None:
        done = vinograph("convert", checkpoint, "bundle", "--tiny-vae", published.tiny_vae, "--json")
        assert done.code == 0, done.err
        assert done.record["family"] == "pixart"
        assert {"text_encoder", "transformer", "vae_decoder", "tiny_vae_decoder"} < set(done.record["components"])
        assert vinograph("verify", "bundle").code == 0
        done = vinograph("generate", "a house", "--model", "bundle", "--steps", 2)
        assert done.code == 0, done.err
        assert size("picture.png") == (128, 128)

    @pytest.mark.parametrize("part", ["text_encoder", "transformer"])
    def test_pickles(self, refused: Run, checkpoint: Path, part: str) -> None:
        for file in (checkpoint / part).glob("*.safetensors"):
            file.rename(file.with_suffix(".bin"))
        refused().fails(3, part, "pickled", "safetensors")

    def test_weights_cut_short(self, refused: Run, checkpoint: Path) -> None:
        file = checkpoint / "text_encoder" / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-100])
        refused().fails(4, "text_encoder/model.safetensors", "cut short")

    def test_no_tokenizer(self, refused: Run, checkpoint: Path) -> None:
        shutil.rmtree(checkpoint / "tokenizer")
        refused().fails(3, "tokenizer")

    def test_options_of_other_families(self, refused: Run, checkpoint: Path) -> None:
        assert checkpoint.is_dir()
        for option in ("--prior", "--image-encoder"):
            refused(option, "x").fails(2, f"{option} is not an option of pixart models; theirs: --tiny-vae")

    def test_a_transformer_alone(self, refused: Run, checkpoint: Path) -> None:
        """As the models of some other sizes are published."""
        for file in checkpoint.iterdir():
            if file.name != "transformer":
                shutil.rmtree(file) if file.is_dir() else file.unlink()
        (checkpoint / "README.md").write_text("A smaller one.", encoding="utf-8")
        told = ("checkpoint has no model_index.json", "one part of a model alone (PixArtTransformer2DModel)")
        refused().fails(3, *told, "put its transformer/ into a copy of a whole checkpoint of the same kind")


class TestThePage:
    """What docs/pixart.md says to type runs, with files that have the page's names."""

    TEXT = (Path(__file__).parents[2] / "docs" / "pixart.md").read_text(encoding="utf-8")

    def commands(self, *names: str) -> list[list[str]]:
        """The page's commands of these names, as words."""
        blocks = re.findall(r"^```sh\n(.*?)^```$", self.TEXT, flags=re.MULTILINE | re.DOTALL)
        lines = [shlex.split(line) for block in blocks for line in block.splitlines()]
        return [words for words in lines if (words[1] if words[0] == "vinograph" else words[0]) in names]

    @pytest.fixture
    def _bundles(self, tmp_path: Path) -> None:
        save_pixart_bundle(tmp_path / "models" / "pixart", sample_size=128, size_conditions=1)
        lcm = {"_class_name": "LCMScheduler"}
        save_pixart_bundle(tmp_path / "models" / "pixart-lcm", sample_size=128, scheduler=lcm)
        with Image.open("start.png") as picture:
            picture.save("photo.jpg")

    def test_every_command_is_run_here(self) -> None:
        assert len(self.commands("convert")) == 7
        assert len(self.commands("generate", "reconstruct")) == 6
        whole = re.findall(r"^(?:vinograph|cp|rm) ", self.TEXT, flags=re.MULTILINE)
        assert len(whole) == len(self.commands("convert", "generate", "reconstruct", "cp", "rm"))

    @pytest.mark.usefixtures("_bundles")
    def test_drawing(self, vinograph: Run) -> None:
        for _, *words in self.commands("generate", "reconstruct"):
            done = vinograph(*words)
            assert done.code == 0, (words, done.err)

    @pytest.mark.usefixtures("_bundles")
    def test_the_code(self) -> None:
        blocks = re.findall(r"^```python\n(.*?)^```$", self.TEXT, flags=re.MULTILINE | re.DOTALL)
        assert len(blocks) == 4
        names: dict[str, Any] = {}
        for block in blocks:
            exec(block, names)
        assert size("cactus.png") == (1600, 640)
        assert size("storm.png") == (1024, 1024)
        drawn = names["pipe"]("a lighthouse in a storm", height=720, width=1280, seed=7)
        assert drawn.images[0].size == (1280, 720)
        assert any(each.startswith("drawn at 1344x768, the nearest size that ") for each in drawn.warnings)

    def test_conversion(self, vinograph: Run, published: SavedPixArt, tmp_path: Path) -> None:
        """The model is one for all names; what the real ones differ in is tried in tests/models."""
        sources = {words[2] for words in self.commands("convert")} - {"pixart-256-checkpoint"}
        assert len(sources) == 5
        for source in (*sources, "PixArt-XL-2-1024-MS", "PixArt-XL-2-256x256"):
            Path(source).parent.mkdir(parents=True, exist_ok=True)
            Path(source).symlink_to(published.home)
        for name in ("taesd", "taesdxl"):
            Path("madebyollin").mkdir(exist_ok=True)
            Path("madebyollin", name).symlink_to(published.tiny_vae)
        written = set()
        for words in self.commands("convert", "cp", "rm"):
            if words[0] == "vinograph":
                done = vinograph(*words[1:])
                assert done.code == 0, (words, done.err)
                written.add(words[3])
            elif words[0] == "cp" and words[2] == "PixArt-XL-2-1024-MS":
                shutil.copytree(words[2], words[3])
            else:
                subprocess.run(words, check=True)
        assert len(written) == 7
        assert all((tmp_path / each / "bundle.json").is_file() for each in written)

    def test_the_sizes(self) -> None:
        """Of 1024x1024, as the page puts them: the wide ones, and those that are there the other way round."""
        quote = "".join(re.findall(r"^> (.*)$", self.TEXT, flags=re.MULTILINE))
        wide = {(int(high), int(across)) for across, high in re.findall(r"(\d+)×(\d+)", quote)}
        exceptions = re.findall(r"(\d+)×(\d+)", self.TEXT.partition("Four of them (")[2].partition(")")[0])
        turned = {(across, high) for high, across in wide} - {(int(across), int(high)) for across, high in exceptions}
        assert len(exceptions) == 4
        assert wide | turned == set(ASPECT_RATIOS[128].values())
