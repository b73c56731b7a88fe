"""`vinograph` with PixArt: the common commands, and the family's own options."""

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

pytestmark = pytest.mark.usefixtures("compiled_once")


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
    def test_a_picture_is_made_at_the_nearest_trained_size_and_resized(self, vinograph: Run, pixart: Bundle) -> None:
        options = ("--size", "301x177", "--steps", 2, "--guidance-scale", 3, "--negative-prompt", "blue", "--seed", 7)
        done = vinograph("generate", "a house", "--model", pixart.path, *options, "--json")
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

    def test_resolution_binning_can_be_turned_off(self, vinograph: Run, pixart: Bundle) -> None:
        options = ("--size", "304x176", "--resolution-binning", "off")
        done = vinograph("generate", "a house", "--model", pixart.path, *options)
        assert done.code == 0, done.err
        assert "warning" not in done.err
        assert size("picture.png") == (304, 176)

    def test_cleaning_of_captions_can_be_turned_off(self, vinograph: Run, pixart: Bundle) -> None:
        drawn = []
        for clean in ("on", "off"):
            options = ("--seed", 1, "--clean-caption", clean, "--output", f"{clean}.png")
            assert vinograph("generate", "a house @night", "--model", pixart.path, *options).code == 0
            with Image.open(f"{clean}.png") as picture:
                drawn.append(np.asarray(picture))
        assert not np.array_equal(drawn[0], drawn[1])

    def test_image_to_image(self, vinograph: Run, pixart: Bundle) -> None:
        options = ("--image", "start.png", "--steps", 4, "--strength", 0.5, "--seed", 1)
        done = vinograph("generate", "a house", "--model", pixart.path, *options)
        assert done.code == 0, done.err
        assert "transformer 2/2" in done.err
        assert size("picture.png") == (320, 256)

    def test_low_memory_gives_the_same_picture(self, vinograph: Run, pixart: Bundle) -> None:
        for memory in ("low", "auto"):
            options = ("--memory", memory, "--seed", 1, "--output", f"{memory}.png")
            assert vinograph("generate", "a house", "--model", pixart.path, *options).code == 0
        with Image.open("low.png") as low, Image.open("auto.png") as usual:
            assert np.array_equal(np.asarray(low), np.asarray(usual))

    def test_reconstruct(self, vinograph: Run, pixart: Bundle) -> None:
        done = vinograph("reconstruct", "start.png", "--model", pixart.path, "--output", "again.png")
        assert done.code == 0, done.err
        assert "8.0 times smaller in each direction" in done.out
        assert size("again.png") == (320, 256)

    def test_generate_needs_no_heavy_packages(self, pixart: Bundle) -> None:
        done = in_process("generate", "a house", "--model", pixart.path, "--seed", 7, first=WITHOUT_HEAVY)
        assert done.code == 0, done.err
        assert done.out.startswith("picture.png  seed 7\n")


class TestWarnings:
    """Whatever isn't done as requested is reported as a warning with the picture."""

    LONG = f"a red house {'on a hill ' * 20} at night"

    def test_truncated_text_is_a_warning(self, vinograph: Run, pixart: Bundle) -> None:
        done = vinograph("generate", self.LONG, "--model", pixart.path, "--json")
        assert done.code == 0, done.err
        (cut,) = done.record["warnings"]
        assert re.fullmatch(r"the text encoder reads 20 tokens; cut off: '.*at night'", cut)
        assert f"warning: {cut}" in done.err

    def test_an_ignored_negative_prompt_is_a_warning(self, vinograph: Run, pixart: Bundle) -> None:
        options = ("--guidance-scale", 1, "--negative-prompt", "blue")
        done = vinograph("generate", "a house", "--model", pixart.path, *options)
        assert done.code == 0, done.err
        assert "warning: the negative prompt was ignored: it takes a guidance scale above 1" in done.err

    def test_guidance_with_a_consistency_model_is_a_warning(self, vinograph: Run, tmp_path: Path) -> None:
        save_pixart_bundle(tmp_path / "lcm", scheduler={"_class_name": "LCMScheduler"})
        done = vinograph("generate", "a house", "--model", "lcm", "--guidance-scale", 4.5)
        assert done.code == 0, done.err
        assert (
            "warning: guidance scale 4.5 comes on top of what this model was distilled from; 0 leaves it out"
            in done.err
        )
        done = vinograph("generate", "a house", "--model", "lcm", "--guidance-scale", 0)
        assert "warning" not in done.err

    def test_a_prompt_that_could_not_be_cleaned_is_a_warning(self, pixart: Bundle) -> None:
        first = "import sys; sys.modules.update(bs4=None, ftfy=None)\n"
        for prompt, package in (("a <b>house</b>", "beautifulsoup4"), ("ein Häuschen", "ftfy")):
            done = in_process("generate", prompt, "--model", pixart.path, first=first)
            assert done.code == 0, done.err
            assert f"warning: the prompt was not cleaned: that takes {package}, which is not installed" in done.err
            assert "vinograph[captions]" in done.err
            assert "--clean-caption off" in done.err
            done = in_process("generate", prompt, "--model", pixart.path, "--clean-caption", "off", first=first)
            assert "warning" not in done.err

    def test_a_resized_picture_is_a_warning(self, vinograph: Run, pixart: Bundle) -> None:
        Image.new("RGB", (301, 177), "red").save("odd.png")
        done = vinograph("generate", "a house", "--model", pixart.path, "--image", "odd.png")
        assert done.code == 0, done.err
        assert "warning: the picture was resized from 301x177 to 320x192" in done.err
        assert "and resized to 301x177" in done.err
        assert size("picture.png") == (301, 177)


class TestRefusals:
    @pytest.fixture
    def refused(self, vinograph: Run, pixart: Bundle) -> Run:
        """Run ``generate`` with options, and check that it leaves no file."""

        def run(*arguments: object, model: object = pixart.path) -> Outcome:
            before = files_here()
            done = vinograph("generate", "a house", "--model", model, *arguments)
            assert files_here() == before
            return done

        return run

    @pytest.mark.parametrize(
        ("options", "words"),
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
    def test_wrong_options_are_refused(self, refused: Run, options: tuple[object, ...], words: tuple[str, ...]) -> None:
        refused(*options).fails(2, *words)

    @pytest.mark.parametrize("option", [("--mask", "start.png"), ("--decoder-steps", 3)], ids=str)
    def test_options_of_other_families_are_refused(self, refused: Run, option: tuple[object, ...]) -> None:
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
    def test_a_strength_that_leaves_no_step_is_refused(
        self, refused: Run, vinograph: Run, pixart: Bundle, steps: int, strength: float, fewest: int
    ) -> None:
        options = ("--image", "start.png", "--strength", strength, "--steps")
        refused(*options, steps).fails(
            2, f"{steps} steps at strength {strength:g} leave none", f"at least {fewest} steps"
        )
        done = vinograph("generate", "a house", "--model", pixart.path, *options, fewest)
        assert done.code == 0, done.err
        assert "transformer 1/1" in done.err

    def test_binning_without_a_table_is_refused(self, refused: Run, vinograph: Run, tmp_path: Path) -> None:
        """The model's manifest doesn't turn binning off, as conversion would."""
        save_pixart_bundle(tmp_path / "odd", sample_size=24)
        refused(model="odd").fails(2, "no table of aspect ratios", "sample size 24", "--resolution-binning off")
        done = vinograph("generate", "a house", "--model", "odd", "--resolution-binning", "off")
        assert done.code == 0, done.err
        assert size("picture.png") == (192, 192)

    def test_too_many_steps_of_a_consistency_model_are_refused(self, refused: Run, tmp_path: Path) -> None:
        save_pixart_bundle(tmp_path / "lcm", scheduler={"_class_name": "LCMScheduler"})
        refused("--steps", 51, model="lcm").fails(2, "51 steps are more than", "give at most 50")

    @pytest.mark.parametrize(
        ("stage", "options"),
        [
            ("text_encoder", ()),
            ("transformer", ()),
            ("tiny_vae_decoder", ()),
            ("vae_decoder", ("--vae", "full")),
            ("vae_encoder", ("--vae", "full", "--image", "start.png")),
        ],
    )
    @pytest.mark.parametrize("memory", ["auto", "low"])
    def test_a_stage_that_computes_nan_is_named(
        self, vinograph: Run, tmp_path: Path, stage: str, options: tuple[str, ...], memory: str
    ) -> None:
        save_pixart_bundle(tmp_path / "broken", broken=stage)
        before = files_here()
        given = ("--precision", "f32", "--memory", memory, *options)
        done = vinograph("generate", "a house", "--model", "broken", *given)
        done.fails(1, f"the {stage} stage computed NaN or infinity in f32: ", "vinograph verify")
        assert files_here() == before


class TestConvert:
    """Other forms of checkpoints are tested in tests/models."""

    @pytest.fixture
    def checkpoint(self, published: SavedPixArt, tmp_path: Path) -> Path:
        """``checkpoint`` in the current folder, to change."""
        return shutil.copytree(published.home, tmp_path / "checkpoint")

    @pytest.fixture
    def refused(self, vinograph: Run) -> Run:
        """Run a conversion of ``checkpoint``, and check that it leaves nothing."""

        def run(*options: object) -> Outcome:
            before = files_here()
            done = vinograph("convert", "checkpoint", "bundle", *options)
            assert files_here() == before
            return done

        return run

    def test_a_converted_bundle_works(self, vinograph: Run, checkpoint: Path, published: SavedPixArt) -> None:
        done = vinograph("convert", checkpoint, "bundle", "--tiny-vae", published.tiny_vae, "--json")
        assert done.code == 0, done.err
        assert done.record["family"] == "pixart"
        assert {"text_encoder", "transformer", "vae_decoder", "tiny_vae_decoder"} < set(done.record["components"])
        assert vinograph("verify", "bundle").code == 0
        done = vinograph("generate", "a house", "--model", "bundle", "--steps", 2)
        assert done.code == 0, done.err
        assert size("picture.png") == (128, 128)

    @pytest.mark.parametrize("part", ["text_encoder", "transformer"])
    def test_pickles_are_refused(self, refused: Run, checkpoint: Path, part: str) -> None:
        for file in (checkpoint / part).glob("*.safetensors"):
            file.rename(file.with_suffix(".bin"))
        refused().fails(3, part, "pickled", "safetensors")

    def test_truncated_weights_are_damage(self, refused: Run, checkpoint: Path) -> None:
        file = checkpoint / "text_encoder" / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-100])
        refused().fails(4, "text_encoder/model.safetensors", "cut short")

    def test_a_missing_tokenizer_is_named(self, refused: Run, checkpoint: Path) -> None:
        shutil.rmtree(checkpoint / "tokenizer")
        refused().fails(3, "tokenizer")

    def test_options_of_other_families_are_refused(self, refused: Run, checkpoint: Path) -> None:
        assert checkpoint.is_dir()
        for option in ("--prior", "--image-encoder"):
            refused(option, "x").fails(2, f"{option} is not an option of pixart models; theirs: --tiny-vae")

    def test_a_transformer_alone_is_refused(self, refused: Run, checkpoint: Path) -> None:
        """Models of some other sizes are published so."""
        for file in checkpoint.iterdir():
            if file.name != "transformer":
                shutil.rmtree(file) if file.is_dir() else file.unlink()
        (checkpoint / "README.md").write_text("A smaller one.", encoding="utf-8")
        options = ("checkpoint has no model_index.json", "one part of a model alone (PixArtTransformer2DModel)")
        refused().fails(3, *options, "put its transformer/ into a copy of a whole checkpoint of the same kind")


class TestDocumentation:
    """The commands in docs/pixart.md work, with files of the page's names."""

    TEXT = (Path(__file__).parents[2] / "docs" / "pixart.md").read_text(encoding="utf-8")

    def commands(self, *names: str) -> list[list[str]]:
        """The page's commands of these names, split into words."""
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

    def test_every_command_of_the_page_is_tested(self) -> None:
        assert len(self.commands("convert")) == 7
        assert len(self.commands("generate", "reconstruct")) == 7
        whole = re.findall(r"^(?:vinograph|cp|rm) ", self.TEXT, flags=re.MULTILINE)
        assert len(whole) == len(self.commands("convert", "generate", "reconstruct", "cp", "rm"))

    @pytest.mark.usefixtures("_bundles")
    def test_the_pages_generate_commands_work(self, vinograph: Run) -> None:
        for _, *words in self.commands("generate", "reconstruct"):
            done = vinograph(*words)
            assert done.code == 0, (words, done.err)

    @pytest.mark.usefixtures("_bundles")
    def test_the_pages_python_works(self) -> None:
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

    def test_the_pages_conversions_work(self, vinograph: Run, published: SavedPixArt, tmp_path: Path) -> None:
        """One model stands for all; what the real ones differ in is tested in tests/models."""
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

    def test_the_pages_sizes_are_the_trained_ones(self) -> None:
        """The page lists the wide sizes for 1024x1024, which also exist as tall ones."""
        quote = "".join(re.findall(r"^> (.*)$", self.TEXT, flags=re.MULTILINE))
        wide = {(int(high), int(across)) for across, high in re.findall(r"(\d+)×(\d+)", quote)}
        exceptions = re.findall(r"(\d+)×(\d+)", self.TEXT.partition("Four of them (")[2].partition(")")[0])
        turned = {(across, high) for high, across in wide} - {(int(across), int(high)) for across, high in exceptions}
        assert len(exceptions) == 4
        assert wide | turned == set(ASPECT_RATIOS[128].values())
