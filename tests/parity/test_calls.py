"""Every call that `docs/from-diffusers.md` puts beside ours draws the same, on a small checkpoint at small sizes."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers.pipelines
import numpy as np
import pytest
import torch
from diffusers import WuerstchenDecoderPipeline, WuerstchenPriorPipeline
from diffusers.pipelines.deprecated import wuerstchen
from diffusers.pipelines.deprecated.wuerstchen.pipeline_wuerstchen_prior import DEFAULT_STAGE_C_TIMESTEPS
from PIL import Image

from tests.parity.pairs import PICTURES, STAGES, Pair, largest
from vinograph import RequestError
from vinograph.cli.application import application

PAGE = Path(__file__).parent.parent.parent / "docs" / "from-diffusers.md"
SMALLER = {"1024": "128", "1536": "256"}
CAPTION = "Anthropomorphic cat dressed as a fire fighter"


def section(title: str) -> str:
    """What the page has under a heading."""
    return PAGE.read_text(encoding="utf-8").partition(f"\n## {title}\n")[2].partition("\n## ")[0]


ROWS = re.findall(r"^\| `(.+?)` \| `(.+?)` \|$", section("Calls"), flags=re.MULTILINE)


def halving(pipeline: Any, step: int, time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
    return {"latents": tensors["latents"] * 0.9}


def drawn(code: str, names: dict[str, Any]) -> Any:
    """What a call on the page gives, at a small size."""
    return eval(re.sub(r"\b(1024|1536)\b", lambda found: SMALLER[found.group()], code), names)


def values(given: Any) -> Any:
    """Pictures and arrays as one array; pictures in steps of 1/255."""
    if isinstance(given, Image.Image):
        return np.asarray(given) / 255
    return np.stack([values(each) for each in given]) if isinstance(given, list) else np.asarray(given)


@pytest.fixture(scope="module")
def given(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What the calls on the page are given."""
    pair: Pair = request.getfixturevalue("open_pair")("small")
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


def test_every_row_of_the_table_is_here() -> None:
    rows = [line for line in section("Calls").splitlines() if line.startswith("| `")]
    assert len(ROWS) == len(rows) >= 15


@pytest.mark.parametrize(("theirs", "ours"), ROWS, ids=range(1, len(ROWS) + 1))
def test_the_calls_draw_the_same(theirs: str, ours: str, given: dict[str, Any]) -> None:
    expected, made = (drawn(code, given) for code in (theirs, ours))
    assert type(made) is type(expected) or not isinstance(expected, (list, Image.Image))
    if isinstance(expected, (list, Image.Image)):
        assert np.abs(values(made) - values(expected)).max() <= 1 / 255 + 1e-9
        assert values(expected).std() > 0.04
    else:
        assert largest(made, expected) < max(STAGES, PICTURES)


@pytest.fixture
def as_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Path]:
    """A checkpoint with the published class names, which the releases of diffusers that had Würstchen as a module read.

    This one has moved the module, and so opens neither those checkpoints nor the ones that it saves.
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


class TestSettingUp:
    @pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
    def test_one_repository(self, small: Pair, as_published: Callable[[Path], Path]) -> None:
        """Theirs loads the checkpoint that ours was converted from."""
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

    def test_two_repositories(self, open_pair: Any, as_published: Callable[[Path], Path]) -> None:
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

    def test_the_commands_on_the_page_are_there(self) -> None:
        told = set(re.findall(r"`vinograph (\w+)", PAGE.read_text(encoding="utf-8")))
        assert "convert" in told
        assert told <= {each.name for each in application().registered_commands}

    def test_progress(self, small: Pair, capfd: pytest.CaptureFixture[str]) -> None:
        """A call shows nothing; whoever wants bars makes them of the steps."""
        few: dict[str, Any] = {"height": 128, "width": 128, "prior_num_inference_steps": 2, "num_inference_steps": 2}
        small.ours(CAPTION, seed=1, **few)
        assert capfd.readouterr() == ("", "")
        assert len(list(small.ours.stream(CAPTION, seed=1, **few))) == 7

    def test_what_the_page_says_is_not_there_is_refused(self, small: Pair) -> None:
        for name, value in (
            ("output_type", "pt"),
            ("callback", print),
            ("callback_steps", 1),
            ("height", 1000),
            ("height", 1088),
        ):
            with pytest.raises(RequestError, match=name):
                small.ours(CAPTION, **{name: value})
        for name in ("to", "enable_model_cpu_offload", "set_progress_bar_config", "load_lora_weights"):
            assert not hasattr(small.ours, name)
