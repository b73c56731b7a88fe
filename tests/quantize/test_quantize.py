"""What each mode makes of each family's bundle, and that it draws."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.quantize.conftest import BLOCKS, attentions, stored
from vinograph import Pipeline
from vinograph.models.bundle import Bundle
from vinograph.pipeline import observe_inputs
from vinograph.quantize import quantize
from vinograph.quantize.calibration import Inputs
from vinograph.resources import cpu_count
from vinograph.runtime.sessions import Session
from vinograph.runtime.sources import IrFile

Quantized = Callable[[Bundle, str], Bundle]

DENOISERS = {"sdxl": ["unet"], "wuerstchen": ["prior", "decoder"], "pixart": ["transformer"]}


@pytest.fixture
def bundle(request: pytest.FixtureRequest) -> Bundle:
    """The bundle of the family that the test names."""
    found: Bundle = request.getfixturevalue(request.param)
    return found


@cache
def given(bundle: Path, name: str) -> list[Inputs]:
    """A component's inputs while the bundle draws with a seed that calibration doesn't use."""
    seen: list[Inputs] = []
    pipe = Pipeline(Bundle.open(bundle), precision="f32")
    with observe_inputs(pipe, lambda each, inputs: seen.append(inputs) if each == name else None):
        pipe("a red house", seed=77)
    return seen


@cache
def expected(bundle: Path, name: str) -> list[Any]:
    """What a component of a bundle that isn't quantized computes."""
    return computed(Bundle.open(bundle), name, given(bundle, name))


def computed(bundle: Bundle, name: str, inputs: list[Inputs]) -> list[Any]:
    file = bundle.path / bundle.manifest.components[name].file
    session = Session(IrFile(name, file), "CPU", "f32")
    return [next(iter(session(each).values())) for each in inputs]


def difference(before: list[Any], after: list[Any]) -> float:
    """The root mean square of the difference, relative to the deviation of the expected values."""
    pairs = zip(before, after, strict=True)
    return float(np.sqrt(np.mean([((one - two) ** 2).mean() / one.var() for one, two in pairs])))


@pytest.mark.parametrize(
    ("bundle", "mode"),
    [*((family, "full") for family in DENOISERS), ("sdxl", "mixed"), ("pixart", "weights")],
    indirect=["bundle"],
)
def test_it_computes_nearly_the_same(bundle: Bundle, mode: str, quantized: Quantized) -> None:
    made = quantized(bundle, mode)
    assert list(made.verify()) == sorted(made.manifest.files)
    assert made.size < bundle.size
    for name in DENOISERS[bundle.manifest.family]:
        inputs = given(bundle.path, name)
        assert 0 < difference(expected(bundle.path, name), computed(made, name, inputs)) < 0.02
    pipe = Pipeline(made)
    assert pipe("a red house", seed=7).images
    side = 2 * int(made.manifest.limits["native_size"])
    assert pipe("a red house", seed=7, width=side, height=side).images, "at a size not calibrated for"


class TestWhatIsQuantized:
    """Which weights and activations are quantized in the written graph."""

    def test_weights(self, sdxl: Bundle, quantized: Quantized) -> None:
        made = quantized(sdxl, "weights")
        xml = made.path / "unet.xml"
        layers = {**stored(xml, "MatMul"), **stored(xml, "Convolution")}
        assert set(layers.values()) == {("u8", False)}
        component = made.manifest.components["unet"]
        assert (component.weights, component.activations) == ("int8", None)

    def test_mixed(self, sdxl: Bundle, quantized: Quantized) -> None:
        made = quantized(sdxl, "mixed")
        xml = made.path / "unet.xml"
        assert Counter(stored(xml, "Convolution").values()) == {("i8", True): BLOCKS, ("f32", False): 2}
        assert set(stored(xml, "MatMul").values()) == {("u8", False)}
        assert made.manifest.components["unet"].activations == "int8 convolutions"

    def test_full(self, sdxl: Bundle, quantized: Quantized) -> None:
        """In the layer of the timestep embedding, only the weights are in int8."""
        made = quantized(sdxl, "full")
        xml = made.path / "unet.xml"
        assert Counter(stored(xml, "Convolution").values()) == {("i8", True): BLOCKS, ("f32", False): 2}
        assert Counter(stored(xml, "MatMul").values()) == {("i8", True): 2 * BLOCKS + 3, ("u8", False): 1}
        assert attentions(xml) == [(False, False, False)]
        assert made.manifest.components["unet"].activations == "int8"

    @pytest.mark.parametrize(("mode", "scores"), [("full", True), ("mixed", False)])
    def test_scores(self, pixart: Bundle, quantized: Quantized, mode: str, scores: bool) -> None:
        """Scores of self-attention are quantized, and those of attention to the text are not."""
        made = quantized(pixart, mode)
        assert attentions(made.path / "transformer.xml") == [(scores, scores, False), (False, False, False)]

    def test_t5_in_int4(self, pixart: Bundle, quantized: Quantized) -> None:
        made = quantized(pixart, "full")
        xml = made.path / "text_encoder.xml"
        assert set(stored(xml, "MatMul").values()) == {("i4", False)}

    @pytest.mark.parametrize("name", ["vae_decoder", "vae_encoder", "tiny_vae_decoder"])
    def test_vaes_stay(self, sdxl: Bundle, quantized: Quantized, name: str) -> None:
        made = quantized(sdxl, "weights")
        assert made.manifest.files[f"{name}.bin"] == sdxl.manifest.files[f"{name}.bin"]
        assert made.manifest.components[name] == sdxl.manifest.components[name]


def test_the_manifest_says_how(sdxl: Bundle, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red house\n\n  two cats \na lighthouse\n", encoding="utf-8")
    manifest = quantize(sdxl.path, tmp_path / "out", mode="mixed", prompts=prompts).manifest
    made = manifest.quantization
    assert made is not None
    assert (made.mode, made.prompts, made.samples) == ("mixed", 3, 16)
    assert set(made.tools) == {"vinograph", "nncf", "openvino"}
    assert manifest.source == sdxl.manifest.source
    assert "mode `mixed`" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_it_bears_the_name_it_was_given(sdxl: Bundle, quantized: Quantized) -> None:
    made = quantized(sdxl, "weights")
    assert made.manifest.name == made.path.name != sdxl.manifest.name
    card = (made.path / "README.md").read_text(encoding="utf-8")
    assert f"# {made.path.name}\n" in card
    assert f"# {sdxl.manifest.name}\n" not in card


def test_the_manifest_says_how_fast(wuerstchen: Bundle, tmp_path: Path) -> None:
    """Each denoiser's seconds and calls; the ratio is that of the seconds in one picture."""
    made = quantize(wuerstchen.path, tmp_path / "out", mode="weights").manifest.quantization
    assert made is not None
    prior, decoder = made.speed.denoisers["prior"], made.speed.denoisers["decoder"]
    takes = Pipeline(wuerstchen).calls["generate"].takes
    assert (prior.calls, decoder.calls) == (takes["prior_num_inference_steps"], takes["num_inference_steps"])
    before = prior.before * prior.calls + decoder.before * decoder.calls
    after = prior.after * prior.calls + decoder.after * decoder.calls
    assert made.speed.ratio == pytest.approx(before / after)
    assert made.speed.cores == cpu_count()


def test_segments_make_no_difference(
    sdxl: Bundle, tmp_path: Path, quantized: Quantized, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranges are measured on values of the whole graph, so that cutting it changes nothing."""
    from vinograph.quantize import segments

    many = quantized(sdxl, "full")
    monkeypatch.setattr(segments, "SEGMENT", 1 << 40)
    one = quantize(sdxl.path, tmp_path / "one", mode="full")
    inputs = given(sdxl.path, "unet")
    assert difference(computed(one, "unet", inputs), computed(many, "unet", inputs)) < 0.01
