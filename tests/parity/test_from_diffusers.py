"""Every pair of calls in `docs/from-diffusers.md` gives the same, on small checkpoints."""

import copy
import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import diffusers.pipelines
import numpy as np
import pytest
import torch
from diffusers import WuerstchenDecoderPipeline, WuerstchenPriorPipeline
from diffusers.pipelines.deprecated import wuerstchen
from diffusers.pipelines.deprecated.wuerstchen.pipeline_wuerstchen_prior import DEFAULT_STAGE_C_TIMESTEPS
from diffusers.schedulers.scheduling_utils import AysSchedules
from PIL import Image

from tests.parity import sdxl_pairs
from tests.parity.pairs import PICTURES, STAGES, Pair, largest
from tests.parity.pixart_pairs import PixArtPair
from tests.parity.sdxl_pairs import SdxlPair
from vinograph import ModelError, Pipeline, RequestError
from vinograph.cli.application import application
from vinograph.models.manifest import MANIFEST_FILE

_DIFFUSERS: Any = diffusers

PAGE = Path(__file__).parent.parent.parent / "docs" / "from-diffusers.md"
CAPTION = "Anthropomorphic cat dressed as a fire fighter"
PROMPT = "Astronaut in a jungle, cold color palette, muted colors, detailed, 8k"


@dataclass(frozen=True)
class Table:
    """The calls under one heading. They are drawn with the fixture ``given``; ``smaller`` says which sizes instead.

    Those of PixArt have ``full_size``: it draws the sizes that it was trained on, and no others.
    """

    name: str
    headings: tuple[str, str]
    given: str
    smaller: Mapping[str, str]
    full_size: bool = False

    @property
    def rows(self) -> list[tuple[str, str]]:
        """Pairs of diffusers' and our calls."""
        return re.findall(r"^\| `(.+?)` \| `(.+?)` \|$", section(*self.headings), flags=re.MULTILINE)

    def drawn(self, code: str, names: dict[str, Any]) -> Any:
        """The result of a call on the page."""
        return eval(re.sub(r"\b\d{3,4}\b", lambda found: self.smaller.get(found[0], found[0]), code), names)


def section(*headings: str) -> str:
    """The page's text under a heading, or under a subheading in it."""
    text = PAGE.read_text(encoding="utf-8")
    for level, heading in enumerate(headings, 2):
        mark = f"\n{'#' * level} "
        text = text.partition(f"{mark}{heading}\n")[2].partition(mark)[0]
    return text


TABLES = (
    Table("wuerstchen", ("Würstchen", "Calls"), "wuerstchen_names", {"1024": "128", "1536": "256"}),
    Table(
        "turbo", ("SDXL and SDXL-Turbo", "Calls of SDXL-Turbo's notebook"), "turbo_names", {"512": "128", "768": "192"}
    ),
    Table(
        "sdxl",
        ("SDXL and SDXL-Turbo", "Calls of diffusers' SDXL pipelines"),
        "sdxl_names",
        {"1024": "64", "768": "72", "1344": "104"},
    ),
    Table("pixart notebook", ("PixArt", "Calls of PixArt's notebook"), "pixart_notebook_names", {}, full_size=True),
    Table("pixart", ("PixArt", "Calls of diffusers' PixArt pipelines"), "pixart_names", {}, full_size=True),
)
ROWS = [
    pytest.param(table, *row, id=f"{table.name}-{number}", marks=[pytest.mark.long] if table.full_size else [])
    for table in TABLES
    for number, row in enumerate(table.rows, 1)
]


def halving(pipeline: Any, step: int, time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
    return {"latents": tensors["latents"] * 0.9}


def values(given: Any) -> Any:
    """Pictures and arrays as one array; pictures in steps of 1/255."""
    if isinstance(given, Image.Image):
        return np.asarray(given) / 255
    return np.stack([values(each) for each in given]) if isinstance(given, list) else np.asarray(given)


@pytest.fixture(scope="module")
def wuerstchen_names(open_pair: Callable[[str], Pair]) -> dict[str, Any]:
    """The names that Würstchen's calls on the page use."""
    pair = open_pair("small")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        positive, negative = pair.theirs.prior_pipe.encode_prompt("cpu", 1, True, "a boat", "fog")
    return {
        "torch": torch,
        "caption": CAPTION,
        "DEFAULT_STAGE_C_TIMESTEPS": DEFAULT_STAGE_C_TIMESTEPS,
        "prior_latents": torch.randn((1, 16, 3, 3), generator=generator),
        "image_embeddings": torch.randn((2, 16, 3, 3), generator=generator)[:1] * 20,
        "prompt_embeds": positive,
        "negative_prompt_embeds": negative,
        "callback": halving,
        "pipeline": pair.theirs,
        "prior_pipeline": pair.theirs.prior_pipe,
        "decoder_pipeline": pair.theirs.decoder_pipe,
        "pipe": pair.ours,
    }


@dataclass(frozen=True)
class AsOptimumIntel:
    """diffusers' pipeline as optimum-intel 2.2 calls it, with a seed from NumPy's random state."""

    pipeline: Any

    def __call__(self, *args: Any, generator: np.random.RandomState, **kwargs: Any) -> Any:
        seed = int(generator.get_state()[1][0])  # type: ignore[index]
        return self.pipeline(*args, generator=torch.Generator().manual_seed(seed), **kwargs)


@pytest.fixture(scope="module")
def turbo_names(open_sdxl: Callable[[str], SdxlPair]) -> dict[str, Any]:
    """The names that the calls of SDXL-Turbo's notebook use."""
    pair = open_sdxl("turbo")
    return {
        "np": np,
        "torch": torch,
        "prompt": PROMPT,
        "image": sdxl_pairs.picture(128, 128),
        "text2image_pipe": AsOptimumIntel(pair.theirs("text", "tiny")),
        "image2image_pipe": AsOptimumIntel(pair.theirs("image", "tiny")),
        "pipeline_text2image": pair.theirs("text", "full"),
        "pipeline_image2image": pair.theirs("image", "full"),
        "pipe": pair.ours,
    }


def named(name: str, value: Any) -> dict[str, Any]:
    """One argument, whose name a type checker doesn't see."""
    return {name: value}


class FullVae:
    """Our pipeline of a bundle with both VAEs, which uses the full one of published SDXL."""

    def __init__(self, ours: Pipeline) -> None:
        self.ours = ours

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.ours(*args, vae="full", **kwargs)


@pytest.fixture(scope="module")
def sdxl_names(open_sdxl: Callable[[str], SdxlPair]) -> dict[str, Any]:
    """The names that the calls of diffusers' SDXL pipelines use."""
    pair = open_sdxl("base")
    text = pair.theirs("text", "full")
    embeds = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    return {
        "torch": torch,
        "prompt": PROMPT,
        "AysSchedules": AysSchedules,
        **dict(zip(embeds, text.encode_prompt("a boat", negative_prompt="fog"), strict=True)),
        "latents": torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(0)),
        "callback": halving,
        "image": sdxl_pairs.picture(),
        "mask_image": sdxl_pairs.mask(),
        "pipeline_text2image": text,
        "pipeline_image2image": pair.theirs("image", "full"),
        "pipeline_inpaint": pair.theirs("mask", "full"),
        "pipe": FullVae(pair.ours),
    }


@pytest.fixture(scope="module")
def pixart_notebook_names(open_pixart: Callable[[str], PixArtPair]) -> dict[str, Any]:
    """The names that the calls of PixArt's notebook use."""
    pair = open_pixart("consistency")
    return {
        "torch": torch,
        "prompt": "A small cactus with a happy face in the Sahara desert.",
        "caption": "an astronaut sitting in a diner, eating fries, cinematic, analog film",
        "negative_prompt": "blurry unreal occluded",
        "pipeline": quiet(pair.models.pipeline()),
        "pipe": FullVae(pair.ours),
    }


@pytest.fixture(scope="module")
def pixart_names(open_pixart: Callable[[str], PixArtPair]) -> dict[str, Any]:
    """The names that the calls of diffusers' PixArt pipelines use."""
    pairs = {"": "1024", "_512": "512", "_lcm": "consistency", "_sigma": "sigma"}
    theirs = {f"pipeline{end}": quiet(open_pixart(name).models.pipeline()) for end, name in pairs.items()}
    embeds = ("prompt_embeds", "prompt_attention_mask", "negative_embeds", "negative_prompt_attention_mask")
    with torch.no_grad():
        encoded = {name: theirs[name].encode_prompt("cute cat") for name in ("pipeline", "pipeline_sigma")}
    return {
        "torch": torch,
        "prompt": "A small cactus with a happy face in the Sahara desert.",
        "latents": torch.randn((1, 4, 64, 64), generator=torch.Generator().manual_seed(0)),
        "callback": lambda step, time, latents: None,
        **dict(zip(embeds, encoded["pipeline"], strict=True)),
        "sigma_embeds": encoded["pipeline_sigma"],
        **theirs,
        **{f"pipe{end}": FullVae(open_pixart(name).ours) for end, name in pairs.items()},
    }


def quiet(pipeline: Any) -> Any:
    """``pipeline`` without progress bars."""
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_row_of_the_pages_tables_is_tested(table: Table) -> None:
    rows = [line for line in section(*table.headings).splitlines() if line.startswith("| `")]
    assert len(table.rows) == len(rows) >= 6


# diffusers' schedulers make NumPy arrays of tensors in a way that NumPy 2 warns of.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize(("table", "theirs", "ours"), ROWS)
def test_our_calls_and_diffusers_calls_give_the_same(
    table: Table, theirs: str, ours: str, request: pytest.FixtureRequest
) -> None:
    names = request.getfixturevalue(table.given)
    expected, made = (table.drawn(code, names) for code in (theirs, ours))
    assert type(made) is type(expected) or not isinstance(expected, (list, Image.Image))
    if isinstance(expected, (list, Image.Image)):
        assert np.abs(values(made) - values(expected)).max() <= 1 / 255 + 1e-9
        assert values(expected).std() > 0.04
    else:
        assert largest(made, expected) < max(STAGES, PICTURES)


def test_the_pages_commands_exist() -> None:
    commands = set(re.findall(r"`vinograph (\w+)", PAGE.read_text(encoding="utf-8")))
    assert "convert" in commands
    assert commands <= {each.name for each in application().registered_commands}


@pytest.fixture
def as_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Path]:
    """A checkpoint with the published class names, as older releases of diffusers read it.

    The installed release has moved the module, and so opens neither those checkpoints nor the ones
    that it saves itself.
    """
    monkeypatch.setattr(diffusers.pipelines, "wuerstchen", wuerstchen, raising=False)

    def copy(home: Path) -> Path:
        copied = tmp_path / home.name
        shutil.copytree(home, copied)
        index = json.loads((copied / "model_index.json").read_text(encoding="utf-8"))
        for entry in index.values():
            if isinstance(entry, list) and hasattr(wuerstchen, entry[1]):
                entry[0] = "wuerstchen"
        (copied / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
        return copied

    return copy


class TestWuerstchen:
    """What the page says of setting up, and of what differs."""

    @pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
    def test_a_combined_checkpoint(self, small: Pair, as_published: Callable[[Path], Path]) -> None:
        """diffusers loads the checkpoint that our bundle was converted from."""
        from diffusers import AutoPipelineForText2Image

        kind: Any = AutoPipelineForText2Image
        theirs = kind.from_pretrained(as_published(small.saved.decoder))
        theirs.prior_pipe.set_progress_bar_config(disable=True)
        theirs.decoder_pipe.set_progress_bar_config(disable=True)
        few: dict[str, Any] = {
            "height": 128,
            "width": 128,
            "prior_num_inference_steps": 3,
            "num_inference_steps": 2,
            "output_type": "np",
        }
        expected = theirs(CAPTION, generator=torch.Generator().manual_seed(1), **few).images
        assert np.abs(small.ours(CAPTION, seed=1, **few).images - expected).max() <= PICTURES

    def test_a_checkpoint_in_two_repositories(self, open_pair: Any, as_published: Callable[[Path], Path]) -> None:
        pair: Pair = open_pair("deep")
        prior_kind: Any = WuerstchenPriorPipeline
        decoder_kind: Any = WuerstchenDecoderPipeline
        prior_pipeline = prior_kind.from_pretrained(as_published(pair.saved.prior))
        decoder_pipeline = decoder_kind.from_pretrained(as_published(pair.saved.decoder))
        for each in (prior_pipeline, decoder_pipeline):
            each.set_progress_bar_config(disable=True)
        one, other = (torch.Generator().manual_seed(2) for _ in range(2))
        expected = prior_pipeline(CAPTION, 128, 128, 3, generator=one).image_embeddings
        made = pair.ours.prior(CAPTION, 128, 128, 3, generator=other).image_embeddings
        assert largest(made, expected) < STAGES
        expected = decoder_pipeline(expected, CAPTION, 2, generator=one, output_type="np").images
        assert (
            np.abs(pair.ours.decoder(made, CAPTION, 2, generator=other, output_type="np").images - expected).max()
            <= PICTURES
        )

    def test_progress_bars(self, small: Pair, capfd: pytest.CaptureFixture[str]) -> None:
        """A call prints nothing; a caller can make bars from the steps."""
        few: dict[str, Any] = {"height": 128, "width": 128, "prior_num_inference_steps": 2, "num_inference_steps": 2}
        small.ours(CAPTION, seed=1, **few)
        assert capfd.readouterr() == ("", "")
        assert len(list(small.ours.stream(CAPTION, seed=1, **few))) == 7

    def test_unsupported_features_are_refused(self, small: Pair) -> None:
        for name, value in (
            ("output_type", "pt"),
            ("callback", print),
            ("callback_steps", 1),
            ("height", 1000),
            ("height", 1088),
        ):
            with pytest.raises(RequestError, match=name):
                small.ours(CAPTION, **named(name, value))
        for name in ("to", "enable_model_cpu_offload", "set_progress_bar_config", "load_lora_weights"):
            assert not hasattr(small.ours, name)


def changed(drawn: SdxlPair, config: Mapping[str, Any], folder: Path) -> Pipeline:
    """Our pipeline of a copy of the bundle with other settings under "scheduler"."""
    copied = folder / "changed"
    shutil.copytree(drawn.ours.bundle, copied)
    manifest = json.loads((copied / MANIFEST_FILE).read_text(encoding="utf-8"))
    manifest["scheduler"] |= config
    (copied / MANIFEST_FILE).write_text(json.dumps(manifest), encoding="utf-8")
    return Pipeline.from_pretrained(copied, precision="f32")


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
class TestSdxl:
    """What the page says of setting up, and of what differs."""

    FEW: Mapping[str, Any] = {"num_inference_steps": 4, "output_type": "np"}

    @pytest.fixture
    def base(self, open_sdxl: Callable[[str], SdxlPair]) -> SdxlPair:
        return open_sdxl("base")

    @pytest.fixture
    def turbo(self, open_sdxl: Callable[[str], SdxlPair]) -> SdxlPair:
        return open_sdxl("turbo")

    def test_another_scheduler_gives_the_same(self, base: SdxlPair, tmp_path: Path) -> None:
        pipeline = base.theirs("text", "full")
        kind = _DIFFUSERS.DPMSolverMultistepScheduler
        pipeline.scheduler = kind.from_config(pipeline.scheduler.config, use_karras_sigmas=True)
        expected = pipeline(PROMPT, generator=torch.Generator().manual_seed(1), **self.FEW).images
        pipe = changed(base, {"class": "DPMSolverMultistepScheduler", "use_karras_sigmas": True}, tmp_path)
        made = pipe(PROMPT, seed=1, vae="full", **self.FEW).images
        assert np.abs(made - expected).max() <= PICTURES
        usual = base.ours(PROMPT, seed=1, vae="full", **self.FEW).images
        assert np.abs(made - usual).max() > 0.02

    def test_an_unsupported_scheduler_is_refused(self, base: SdxlPair, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"'PNDMScheduler'.*EulerAncestralDiscreteScheduler"):
            changed(base, {"class": "PNDMScheduler"}, tmp_path)

    def test_a_numpy_state_is_used_as_its_first_word(self, turbo: SdxlPair) -> None:
        """That word of a fresh state is its seed. The state isn't advanced."""

        def drawn(**given: Any) -> Any:
            return turbo.ours(PROMPT, output_type="np", **given).images

        state = np.random.RandomState(987)
        assert np.array_equal(drawn(generator=state), drawn(seed=987))
        assert np.array_equal(drawn(generator=state), drawn(seed=987))
        state.standard_normal(3)
        word = int(state.get_state(legacy=False)["state"]["key"][0])
        assert word != 987
        assert np.array_equal(drawn(generator=state), drawn(seed=word))
        assert not np.array_equal(drawn(generator=state), drawn(seed=987))

    def test_defaults_are_the_models(self, turbo: SdxlPair) -> None:
        request = turbo.ours(PROMPT, seed=1).request
        assert (request.num_inference_steps, request.guidance_scale) == (1, 0.0)

    @pytest.mark.parametrize(
        ("steps", "strength", "fewest"), [(1, 0.5, 2), (2, 0.3, 4), (1, 0.99, 2), (9, 0.1, 10), (3, 0.07, 15)]
    )
    def test_too_few_steps_for_the_strength_are_refused(
        self, turbo: SdxlPair, steps: int, strength: float, fewest: int
    ) -> None:
        """The message names the fewest steps that work, and they do."""
        given: dict[str, Any] = {"image": sdxl_pairs.picture(), "strength": strength}
        with pytest.raises(RequestError, match=rf"{steps} steps .* at least {fewest} steps"):
            turbo.ours(PROMPT, num_inference_steps=steps, **given)
        with pytest.raises(RequestError, match="leave none"):
            turbo.ours(PROMPT, num_inference_steps=fewest - 1, **given)
        assert turbo.ours(PROMPT, num_inference_steps=fewest, **given).images

    def test_inpainting_keeps_the_pictures_size(self, base: SdxlPair) -> None:
        given: dict[str, Any] = {"image": sdxl_pairs.picture(100, 80), "mask_image": sdxl_pairs.mask(100, 80)}
        result = base.ours(PROMPT, num_inference_steps=2, **given)
        assert result.images[0].size == (96, 80)
        assert "100x80 to 96x80" in result.warnings[0]
        theirs = base.theirs("mask", "full")(PROMPT, num_inference_steps=2, **given).images[0]
        assert theirs.size == (64, 64)

    def test_height_and_width_resize_an_image(self, base: SdxlPair) -> None:
        given: dict[str, Any] = {"image": sdxl_pairs.picture(100, 80), "num_inference_steps": 4}
        assert base.ours(PROMPT, height=64, width=88, **given).images[0].size == (88, 64)

    @pytest.mark.parametrize(
        "name",
        [
            *("masked_image_latents", "ip_adapter_image", "cross_attention_kwargs", "aesthetic_score"),
            *("callback", "callback_steps"),
        ],
    )
    def test_unsupported_arguments_are_refused(self, base: SdxlPair, name: str) -> None:
        with pytest.raises(RequestError, match=name):
            base.ours(PROMPT, **named(name, None))

    def test_lists_of_pictures_and_torch_tensors(self, base: SdxlPair) -> None:
        with pytest.raises(RequestError, match="image"):
            base.ours(PROMPT, image=[sdxl_pairs.picture()] * 2)
        with pytest.raises(RequestError, match="output_type"):
            base.ours(PROMPT, output_type="pt")  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
class TestPixArt:
    """What the page says of setting up, and of what differs."""

    SMALL: Mapping[str, Any] = {"height": 96, "width": 128, "use_resolution_binning": False, "num_inference_steps": 4}

    @pytest.fixture
    def large(self, open_pixart: Callable[[str], PixArtPair]) -> PixArtPair:
        return open_pixart("1024")

    def test_one_model_at_a_time_in_memory(self, large: PixArtPair) -> None:
        """diffusers needs three partial pipelines for it, we need memory="low"."""
        whole = large.models.pipeline()
        first, second = (copy.copy(whole) for _ in range(2))
        first.register_modules(transformer=None)
        second.register_modules(text_encoder=None)
        with torch.no_grad():
            states, mask, without, without_mask = first.encode_prompt("cute cat")
        latents = quiet(second)(
            negative_prompt=None,
            prompt_embeds=states,
            negative_prompt_embeds=without,
            prompt_attention_mask=mask,
            negative_prompt_attention_mask=without_mask,
            num_images_per_prompt=1,
            output_type="latent",
            generator=torch.Generator().manual_seed(1),
            **self.SMALL,
        ).images
        with torch.no_grad():
            image = whole.vae.decode(latents / whole.vae.config.scaling_factor, return_dict=False)[0]
        expected = whole.image_processor.postprocess(image, output_type="np")
        pipe = Pipeline(large.ours.model, precision="f32", memory="low")
        result = pipe("cute cat", seed=1, vae="full", output_type="np", **self.SMALL)
        assert np.abs(result.images - expected).max() <= PICTURES
        assert expected.std() > 0.04

    def test_defaults_are_the_models(self, open_pixart: Callable[[str], PixArtPair]) -> None:
        defaults = {name: open_pixart(name).ours.calls["generate"].takes for name in ("1024", "consistency", "sigma")}
        names = ("num_inference_steps", "guidance_scale", "max_sequence_length", "height", "width")
        assert {name: tuple(each[given] for given in names) for name, each in defaults.items()} == {
            "1024": (20, 4.5, 120, 1024, 1024),
            "consistency": (4, 0.0, 120, 1024, 1024),
            "sigma": (20, 4.5, 300, 1024, 1024),
        }

    def test_sizes_without_binning(self, large: PixArtPair) -> None:
        given = {**self.SMALL, "height": 104}
        with pytest.raises(RequestError, match=r"height is 104; this model draws multiples of 16 .*: 96 and 112"):
            large.ours("a cat", **given)
        with pytest.raises(RuntimeError, match="size"):
            large.draw_theirs("a cat", **given)

    def test_one_step_of_the_solver(self, large: PixArtPair) -> None:
        given = {**self.SMALL, "num_inference_steps": 1}
        assert len(large.ours("a cat", **given).images) == 1
        with pytest.raises(IndexError):
            large.draw_theirs("a cat", **given)

    def test_unsupported_features_are_refused(self, large: PixArtPair) -> None:
        for name, value in (("output_type", "pt"), ("callback_on_step_end", print), ("mask_image", "mask.png")):
            with pytest.raises(RequestError, match=name):
                large.ours("a cat", **named(name, value))
        for name in ("encode_prompt", "to", "enable_model_cpu_offload", "register_modules"):
            assert not hasattr(large.ours, name)
