"""Distilled models draw what diffusers draws with the settings of their model cards, in f32."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from tests.parity.pairs import assert_same_pictures
from tests.parity.pixart_pairs import PixArtPair
from tests.parity.sdxl_pairs import SdxlPair, picture
from vinograph import Step
from vinograph.families.pixart.known import FEW_STEP_MODELS as PIXART
from vinograph.families.sdxl.known import FEW_STEP_MODELS as SDXL

# Few steps of random weights magnify rounding; 2/255 is promised.
BAR = 0.05 / 255

# diffusers' schedulers pass tensors to NumPy in ways that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning", "ignore:__array_wrap__ must accept:DeprecationWarning"
)
_DIFFUSERS: Any = diffusers
SAMPLE = {"timestep_spacing": "trailing", "prediction_type": "sample"}
TRAILING = {"timestep_spacing": "trailing"}

# By the title in our table: the scheduler's class, what from_config is given, and the call's arguments.
CARDS: Mapping[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "SDXL-Lightning with 1 step": ("EulerDiscreteScheduler", SAMPLE, {"num_inference_steps": 1}),
    "SDXL-Lightning with 2 steps": ("EulerDiscreteScheduler", TRAILING, {"num_inference_steps": 2}),
    "SDXL-Lightning with 4 steps": ("EulerDiscreteScheduler", TRAILING, {"num_inference_steps": 4}),
    "SDXL-Lightning with 8 steps": ("EulerDiscreteScheduler", TRAILING, {"num_inference_steps": 8}),
    "Hyper-SDXL with 1 to 8 steps": ("TCDScheduler", {}, {"num_inference_steps": 1, "eta": 1.0}),
    "Hyper-SDXL's UNet for 1 step": ("LCMScheduler", {}, {"num_inference_steps": 1, "timesteps": [800]}),
    "Hyper-SDXL with 2 steps": ("DDIMScheduler", TRAILING, {"num_inference_steps": 2}),
    "Hyper-SDXL with 4 steps": ("DDIMScheduler", TRAILING, {"num_inference_steps": 4}),
    "Hyper-SDXL with 8 steps": ("DDIMScheduler", TRAILING, {"num_inference_steps": 8}),
    "Hyper-SDXL with 8 steps and guidance": (
        "DDIMScheduler",
        TRAILING,
        {"num_inference_steps": 8, "guidance_scale": 5.0},
    ),
    "Hyper-SDXL with 12 steps and guidance": (
        "DDIMScheduler",
        TRAILING,
        {"num_inference_steps": 12, "guidance_scale": 5.0},
    ),
    "DMD2 with 4 steps": (
        "LCMScheduler",
        {},
        {"num_inference_steps": 4, "timesteps": [999, 749, 499, 249]},
    ),
    "DMD2 with 1 step": ("LCMScheduler", {}, {"num_inference_steps": 1, "timesteps": [399]}),
    "LCM-LoRA": ("LCMScheduler", {}, {"num_inference_steps": 4}),
    "the latent consistency model of SDXL": (
        "LCMScheduler",
        {},
        {"num_inference_steps": 4, "guidance_scale": 8.0},
    ),
    "SDXL-Turbo": ("EulerAncestralDiscreteScheduler", TRAILING, {"num_inference_steps": 1}),
}


@pytest.fixture
def small(open_sdxl: Callable[[str], SdxlPair]) -> SdxlPair:
    """A model like SDXL base, with Euler's steps and a leading spacing."""
    return open_sdxl("base")


def test_every_one_has_a_card() -> None:
    assert {each.title for each in SDXL} == CARDS.keys()


def with_card(pair: SdxlPair, name: str, **settings: Any) -> SdxlPair:
    """The pair, with diffusers' scheduler changed as a model card says, and ours as it was."""
    # What SDXL's own scheduler_config.json says beside its class's settings, as ours does.
    base = {**pair.parts["scheduler"].config, **pair.ours.model.manifest.scheduler["published"]}
    scheduler = getattr(_DIFFUSERS, name).from_config(base, **settings)
    return SdxlPair(pair.ours, {**pair.parts, "scheduler": scheduler}, pair.tiny_vae)


@pytest.mark.parametrize("few", SDXL, ids=lambda each: each.title)
def test_sdxl(few: Any, small: SdxlPair, open_sdxl: Callable[[str], SdxlPair]) -> None:
    name, settings, arguments = CARDS[few.title]
    pair = open_sdxl("consistency") if few.title == "the latent consistency model of SDXL" else small
    if name == "DDIMScheduler":  # the random checkpoint's file doesn't say so, SDXL's does
        settings = {**settings, "clip_sample": False}
    theirs = with_card(pair, name, **settings).draw_theirs(seed=3, **{"guidance_scale": 0.0, **arguments})
    ours = pair.draw_ours(seed=3, **few.defaults)
    assert_same_pictures(ours, theirs, tolerance=BAR)


@pytest.mark.parametrize(
    ("title", "class_name", "settings", "arguments"),
    [
        ("PixArt-LCM", "LCMScheduler", {}, {"num_inference_steps": 4}),
        ("PixArt-DMD", "DDPMScheduler", {}, {"num_inference_steps": 1, "timesteps": [400]}),
    ],
)
def test_pixart(
    title: str,
    class_name: str,
    settings: dict[str, Any],
    arguments: dict[str, Any],
    open_pixart: Callable[[str], PixArtPair],
) -> None:
    (few,) = [each for each in PIXART if each.title == title]
    pair = open_pixart("256")
    size: dict[str, Any] = {"height": 64, "width": 64, "use_resolution_binning": False, "seed": 3}
    theirs = pair.with_scheduler("DDIMScheduler", clip_sample=False)
    changed = getattr(_DIFFUSERS, class_name).from_config(pair.models.scheduler.config, clip_sample=False)
    theirs.models.__dict__["scheduler"] = changed
    expected = theirs.draw_theirs(**size, guidance_scale=0.0, **arguments)
    assert_same_pictures(np.asarray(pair.result(**size, **few.defaults).images), expected, tolerance=BAR)


NAMED: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("euler", "EulerDiscreteScheduler", {}),
    ("DPM++ 2M Karras", "DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    ("dpmpp_2m_sde exponential", "DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    ("uni_pc", "UniPCMultistepScheduler", {}),
    ("heun", "HeunDiscreteScheduler", {}),
    ("dpm_2_ancestral karras", "KDPM2AncestralDiscreteScheduler", {"use_karras_sigmas": True}),
    ("LMS beta", "LMSDiscreteScheduler", {"use_beta_sigmas": True, "timestep_spacing": "linspace"}),
)


class TestByName:
    """A scheduler by name draws what diffusers draws after ``Scheduler.from_config``."""

    @pytest.mark.parametrize(("name", "class_name", "settings"), NAMED, ids=[each[0] for each in NAMED])
    @pytest.mark.parametrize("kind", ["text", "image"])
    def test_sdxl(self, name: str, class_name: str, settings: dict[str, Any], kind: str, small: SdxlPair) -> None:
        if name.endswith("exponential"):
            settings = {**settings, "use_exponential_sigmas": True, "timestep_spacing": "linspace"}
        given: dict[str, Any] = {"num_inference_steps": 5, "guidance_scale": 5.0, "seed": 3}
        given |= {"image": picture(), "strength": 0.6} if kind == "image" else {}
        theirs = with_card(small, class_name, **settings).draw_theirs(**given)
        assert_same_pictures(small.draw_ours(**given, scheduler=name), theirs, tolerance=BAR)

    def test_progress_and_callbacks_are_diffusers(self, small: SdxlPair) -> None:
        """Heun's steps have two evaluations but the last, and a callback follows each evaluation."""
        seen: dict[str, list[Any]] = {"ours": [], "theirs": []}

        def record(side: str) -> Callable[..., dict[str, Any]]:
            def callback(_pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
                seen[side].append((index, float(timestep)))
                return tensors

            return callback

        given: dict[str, Any] = {"num_inference_steps": 3, "guidance_scale": 0.0}
        pipeline = with_card(small, "HeunDiscreteScheduler").theirs("text", "full")
        generator = torch.Generator().manual_seed(3)
        pipeline("a", generator=generator, output_type="latent", callback_on_step_end=record("theirs"), **given)
        steps = list(
            small.ours.stream(
                "a", seed=3, output_type="latent", scheduler="heun", callback_on_step_end=record("ours"), **given
            )
        )
        assert seen["ours"] == seen["theirs"]
        assert len(seen["ours"]) == 5
        shown = [(each.index, each.total) for each in steps if isinstance(each, Step) and each.stage == "unet"]
        assert shown == [(1, 3), (2, 3), (3, 3)]
