"""Single files draw what diffusers draws with them, in every form that people have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.single_file_layout import UNET, VAE, ldm_unet, ldm_vae
from tests.single_files import (
    LIBRARY,
    SSD,
    VEGA,
    FileShape,
    euler,
    models_of,
    save_directory,
    single_file_tensors,
    write,
)
from vinograph import ModelError, Pipeline
from vinograph.convert import convert
from vinograph.networks.graph import Storage

# diffusers makes an array of a tensor in a way that numpy deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

Array = NDArray[np.float32]
PROMPT = "a red house at night"
LARGEST = 2 / 255
OTHER = FileShape(seed=1)
"""Other weights of the same shape."""


def ours(model: Path, **sources: Any) -> Array:
    """A picture by the package."""
    pipe = Pipeline.from_pretrained(model, precision="f32", **sources)
    drawn: Any = pipe(PROMPT, height=64, width=64, num_inference_steps=2, seed=3, output_type="np").images
    return np.asarray(drawn)


def theirs(pipe: Any) -> Array:
    """A picture by diffusers."""
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(3)
    drawn = pipe(PROMPT, height=64, width=64, num_inference_steps=2, generator=generator, output_type="np").images
    return np.asarray(drawn)


def from_file(file: Path, config: Path, **parts: Any) -> Array:
    """A picture by diffusers with a single file."""
    pipe = LIBRARY.StableDiffusionXLPipeline.from_single_file(
        str(file), config=str(config), local_files_only=True, torch_dtype=torch.float32, add_watermarker=False, **parts
    )
    return theirs(pipe)


def assert_same(found: Array, expected: Array) -> None:
    assert expected.std() > 0.02
    assert np.abs(found - expected).max() <= LARGEST


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return tmp_path_factory.mktemp("single")


@pytest.fixture(scope="module")
def base(home: Path) -> Path:
    """A whole model in diffusers' layout, which has the tokenizers."""
    return save_directory(home / "base")


@pytest.fixture(scope="module")
def whole(home: Path) -> Path:
    """The same weights as one file."""
    return write(home / "whole.safetensors", single_file_tensors(models_of()))


@pytest.fixture(scope="module")
def expected(whole: Path, base: Path) -> Array:
    return from_file(whole, base)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_each_precision(tmp_path: Path, base: Path, dtype: torch.dtype) -> None:
    file = write(tmp_path / "it.safetensors", single_file_tensors(models_of()), dtype)
    assert_same(ours(file, base=base), from_file(file, base))


def test_8_bits(tmp_path: Path, base: Path) -> None:
    """The matrices of the UNet are in E4M3, one with a scale, as ComfyUI writes them."""
    tensors = single_file_tensors(models_of())
    stored, rounded = dict(tensors), dict(tensors)
    for name, tensor in tensors.items():
        if name.startswith(UNET) and tensor.dim() > 1:
            stored[name] = tensor.to(torch.float8_e4m3fn)
            rounded[name] = stored[name].to(torch.float32)
    scaled = f"{UNET}middle_block.1.proj_in.weight"
    stored[scaled] = (tensors[scaled] / 0.25).to(torch.float8_e4m3fn)
    rounded[scaled] = stored[scaled].to(torch.float32) * 0.25
    stored[scaled.replace(".weight", ".scale_weight")] = torch.tensor(0.25)
    stored[f"{UNET}scaled_fp8"] = torch.empty(0, dtype=torch.float8_e4m3fn)
    save_file({name: each.contiguous().clone() for name, each in stored.items()}, tmp_path / "it.safetensors")
    reference = write(tmp_path / "rounded.safetensors", rounded)
    assert_same(ours(tmp_path / "it.safetensors", base=base), from_file(reference, base))


@pytest.mark.parametrize("shape", [SSD, VEGA], ids=["SSD-1B", "Vega"])
def test_other_depths_and_no_attention_in_the_middle(tmp_path: Path, shape: FileShape) -> None:
    """As a directory and as a single file."""
    directory = save_directory(tmp_path / "it", shape)
    file = write(tmp_path / "it.safetensors", single_file_tensors(models_of(shape)), torch.float16)
    assert_same(ours(directory), theirs(models_of(shape).pipeline()))
    assert_same(ours(file, base=directory), from_file(file, directory))


def test_what_training_leaves_behind_changes_nothing(tmp_path: Path, whole: Path, base: Path, expected: Array) -> None:
    tensors = single_file_tensors(models_of())
    average = {f"model_ema.{name.replace('.', '')}": -each for name, each in tensors.items() if name.startswith(UNET)}
    more = {
        "model_ema.decay": torch.tensor(0.999),
        "betas": torch.linspace(0, 1, 1000),
        "sqrt_one_minus_alphas_cumprod": torch.linspace(0, 1, 1000),
        "conditioner.embedders.0.transformer.text_model.embeddings.position_ids": torch.arange(77).float()[None],
        "first_stage_model.loss.logvar": torch.zeros(()),
    }
    file = write(tmp_path / "it.safetensors", {**tensors, **average, **more})
    np.testing.assert_array_equal(ours(file, base=base), ours(whole, base=base))
    assert_same(ours(file, base=base), expected)


@pytest.mark.parametrize("zero_snr", [True, False])
def test_files_that_are_marked_as_predicting_velocities(tmp_path: Path, base: Path, zero_snr: bool) -> None:
    marks = {"v_pred": torch.empty(0), **({"ztsnr": torch.empty(0)} if zero_snr else {})}
    file = write(tmp_path / "it.safetensors", {**single_file_tensors(models_of()), **marks})
    settings = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"} if zero_snr else {}
    scheduler = euler(prediction_type="v_prediction", **settings)
    assert_same(ours(file, base=base), from_file(file, base, scheduler=scheduler))
    notes = Pipeline.from_pretrained(file, base=base).model.manifest.notes
    assert any("predicts velocities" in note and ("terminal signal" in note) == zero_snr for note in notes)


@pytest.mark.parametrize(
    ("metadata", "velocity"),
    [
        ({"modelspec.prediction_type": "v"}, True),
        ({"modelspec.prediction_type": "V-Prediction"}, True),
        ({"v_pred": "true", "ztsnr": "true"}, True),
        ({"modelspec.prediction_type": "epsilon", "v_pred": "False"}, False),
    ],
    ids=str,
)
def test_the_header_says_what_a_file_predicts(
    tmp_path: Path, base: Path, expected: Array, metadata: dict[str, str], velocity: bool
) -> None:
    file = write(tmp_path / "it.safetensors", single_file_tensors(models_of()), metadata=metadata)
    opened = Pipeline.from_pretrained(file, base=base)
    assert opened.model.manifest.scheduler["prediction_type"] == ("v_prediction" if velocity else "epsilon")
    assert opened.model.manifest.scheduler["rescale_betas_zero_snr"] == ("ztsnr" in metadata)
    if not velocity:
        assert_same(ours(file, base=base), expected)


def test_a_prediction_type_that_is_not_computed_is_refused(tmp_path: Path, base: Path) -> None:
    tensors = single_file_tensors(models_of())
    file = write(tmp_path / "it.safetensors", tensors, metadata={"modelspec.prediction_type": "rectified_flow"})
    with pytest.raises(ModelError, match="prediction_type = 'rectified_flow', which Vinograph doesn't compute"):
        Pipeline.from_pretrained(file, base=base)


def _as_file(tensors: Mapping[str, Tensor], folder: Path) -> Path:
    return write(folder / "vae.safetensors", dict(tensors))


def _as_directory(folder: Path) -> Path:
    models_of(OTHER).vae.save_pretrained(folder / "vae")
    return folder / "vae"


VAES: Mapping[str, Callable[[Path], Path]] = {
    "LDM's": lambda folder: _as_file(ldm_vae(models_of(OTHER).vae.state_dict()), folder),
    "cut out of a single file": lambda folder: _as_file(
        {VAE + name: each for name, each in ldm_vae(models_of(OTHER).vae.state_dict()).items()}, folder
    ),
    "diffusers'": lambda folder: _as_file(models_of(OTHER).vae.state_dict(), folder),
    "a directory": _as_directory,
    "a whole model's": lambda folder: save_directory(folder / "other", OTHER),
}


@pytest.mark.parametrize("kind", VAES)
def test_without_a_vae_the_one_that_is_named_decodes(tmp_path: Path, base: Path, kind: str) -> None:
    file = write(tmp_path / "it.safetensors", single_file_tensors(models_of(), vae=False))
    expected = from_file(
        write(tmp_path / "whole.safetensors", single_file_tensors(models_of())), base, vae=_other_vae()
    )
    assert_same(ours(file, base=base, vae=VAES[kind](tmp_path)), expected)


def _other_vae() -> Any:
    return models_of(OTHER).vae


def test_a_named_vae_replaces_that_of_a_directory(tmp_path: Path, base: Path, whole: Path) -> None:
    vae = VAES["LDM's"](tmp_path)
    expected = from_file(whole, base, vae=_other_vae())
    assert_same(ours(base, vae=vae), expected)
    assert Pipeline.from_pretrained(base, vae=vae).model.manifest.source.also == {"vae": "vae"}


UNETS: Mapping[str, Callable[[Path], Path]] = {
    "LDM's": lambda folder: write(
        folder / "unet.safetensors", {UNET + name: each for name, each in ldm_unet(models_of(OTHER).unet).items()}
    ),
    "LDM's without a prefix": lambda folder: write(folder / "unet.safetensors", ldm_unet(models_of(OTHER).unet)),
    "diffusers'": lambda folder: write(folder / "unet.safetensors", models_of(OTHER).unet.state_dict()),
    "a directory": lambda folder: _saved_unet(folder / "unet"),
}


def _saved_unet(folder: Path) -> Path:
    models_of(OTHER).unet.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def other_unet(base: Path) -> Array:
    """A picture by the base with another UNet."""
    pipe = LIBRARY.StableDiffusionXLPipeline.from_pretrained(base, unet=models_of(OTHER).unet, add_watermarker=False)
    return theirs(pipe)


@pytest.mark.parametrize("kind", UNETS)
def test_a_unet_alone_draws_over_a_base(tmp_path: Path, base: Path, other_unet: Array, kind: str) -> None:
    assert_same(ours(UNETS[kind](tmp_path), base=base), other_unet)


def test_a_unet_alone_draws_over_a_bundle(tmp_path: Path, base: Path, other_unet: Array) -> None:
    """Which may be written again, as a bundle of its own."""
    convert(base, tmp_path / "base", weights="f32")
    unet = UNETS["diffusers'"](tmp_path)
    assert_same(ours(unet, base=tmp_path / "base"), other_unet)
    convert(unet, tmp_path / "bundle", base=str(tmp_path / "base"), weights="f32")
    assert_same(ours(tmp_path / "bundle"), other_unet)


def test_a_converted_single_file_draws_the_same(tmp_path: Path, whole: Path, base: Path, expected: Array) -> None:
    written = convert(whole, tmp_path / "bundle", base=str(base), weights="f32")
    assert_same(ours(tmp_path / "bundle"), expected)
    assert written.manifest.name == "bundle"
    assert written.manifest.source.licence is None
    assert written.manifest.limits["native_size"] == 1024


def test_the_weights_stay_mapped(whole: Path, base: Path) -> None:
    """Also those that are rows of a stored tensor; a transposed one alone is copied."""
    pipe = Pipeline.from_pretrained(whole, base=base)
    for name in ("unet", "text_encoder_2"):
        plan = pipe.model.component_plan(name)
        assert plan is not None
        large = [array for array in plan.build(Storage()).buffers if array.ndim > 1 and array.size > 4096]
        copied = [array for array in large if not _is_mapped(array)]
        assert len(copied) == (name == "text_encoder_2"), name
        assert large


def _is_mapped(array: Any) -> bool:
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap):
            return True
        array = array.base
    return False


def test_the_file_and_the_directory_have_one_manifest(whole: Path, base: Path) -> None:
    """What they say of drawing is the same."""
    file = Pipeline.from_pretrained(whole, base=base).model.manifest
    directory = Pipeline.from_pretrained(base).model.manifest
    assert file.config == directory.config
    ours, theirs = (dict(each.scheduler) for each in (file, directory))
    assert {*ours.pop("published")} <= {*theirs.pop("published")}  # diffusers saves defaults, too
    assert ours == theirs
    assert file.limits == directory.limits


def test_sizes_differ(whole: Path, base: Path) -> None:
    """Each component has the bytes of its own weights, though all are in one file."""
    model = Pipeline.from_pretrained(whole, base=base).model
    sizes = [model.weights_size(name) for name in ("text_encoder", "text_encoder_2", "unet", "vae_decoder")]
    assert len({*sizes}) == len(sizes)
    assert model.size == whole.stat().st_size
