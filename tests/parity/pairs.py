"""A small Würstchen checkpoint in our pipeline, by all ways, and in diffusers' pipelines."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from tests.checkpoints import PRIOR_ID, SavedWuerstchen, WuerstchenShape, randomise, save_wuerstchen
from tests.parity.ways import AllWays, in_the_hubs_cache
from training.wuerstchen.modules import EncoderStage, ImageEncoder, ImageEncoderConfig
from vinograph.convert import convert

Array = NDArray[np.float32]

# 2/255 is promised; in f32 only rounding differs, so the tests demand far less.
PICTURES = 0.05 / 255
STAGES = 5e-5

ENCODER = ImageEncoderConfig(
    stem=4,
    stages=(
        EncoderStage("fused", expand_ratio=1, kernel=3, stride=1, c_out=4, layers=1),
        EncoderStage("fused", expand_ratio=4, kernel=3, stride=2, c_out=6, layers=2),
        EncoderStage("fused", expand_ratio=4, kernel=3, stride=2, c_out=8, layers=1),
        EncoderStage("plain", expand_ratio=4, kernel=3, stride=2, c_out=10, layers=2),
        EncoderStage("plain", expand_ratio=6, kernel=3, stride=1, c_out=12, layers=1),
        EncoderStage("plain", expand_ratio=6, kernel=3, stride=2, c_out=16, layers=2),
    ),
    head=32,
)


@dataclass(frozen=True)
class Drawn:
    """Embeddings [n, 16, h, w], latents [n, 4, H, W], pictures [n, height, width, 3] in [0, 1]."""

    embeddings: Array
    latents: Array
    pictures: Array


@dataclass(frozen=True)
class Pair:
    """Our pipeline and diffusers' of one checkpoint."""

    saved: SavedWuerstchen
    bundle: Path
    ours: AllWays
    theirs: Any
    image_encoder: ImageEncoder

    def draw(self, prompt: Any, *, seed: int, theirs: Any = None, **given: Any) -> tuple[Drawn, Drawn]:
        """Generate with both from ``seed``; ``theirs`` are arguments that differ for diffusers."""
        other = {"generator": generators(seed, given), **given, **(theirs or {})}
        return self.draw_ours(prompt, seed=seed, **given), self.draw_theirs(prompt, **other)

    def draw_ours(self, prompt: Any, **given: Any) -> Drawn:
        """Generate with our pipeline and `output_type="np"`."""
        latents = Recorder()
        result = self.ours(prompt, output_type="np", callback_on_step_end=latents, **given)
        assert result.image_embeddings is not None
        return Drawn(result.image_embeddings, latents.last, result.images)

    def draw_theirs(self, prompt: Any, **given: Any) -> Drawn:
        """Generate with diffusers; embeddings and latents are those of the last callbacks."""
        prior, decoder = Recorder(), Recorder()
        callbacks = {"prior_callback_on_step_end": prior, "callback_on_step_end": decoder}
        pictures = self.theirs(prompt, output_type="np", **callbacks, **given).images
        config = self.theirs.prior_pipe.config
        return Drawn(prior.last * config.latent_mean - config.latent_std, decoder.last, pictures)


class Recorder:
    """A callback that stores the tensors of every step."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, float, Array]] = []

    def __call__(self, pipeline: Any, step: int, time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        self.calls.append((step, float(time), np.asarray(tensors["latents"]).copy()))
        return tensors

    @property
    def last(self) -> Array:
        """The latents after the last step."""
        return self.calls[-1][2]


def generators(seed: int, given: Any) -> Any:
    """Generators for ``seed`` as diffusers takes them: one, or a list for several pictures."""
    prompt = given.get("prompt_embeds")
    count = given.get("num_images_per_prompt", 1) * (1 if prompt is None else len(prompt))
    each = [torch.Generator().manual_seed(seed + i) for i in range(count)]
    return each[0] if count == 1 else each


def make_pair(folder: Path, shape: WuerstchenShape, layout: Any, seed: int) -> Pair:
    """Build a random checkpoint with an image encoder, convert it, and open all pipelines."""
    saved = save_wuerstchen(folder, shape, layout, seed)
    image_encoder = save_image_encoder(saved.decoder / "image_encoder")
    prior = str(saved.prior) if layout == "split" else None
    bundle = convert(saved.decoder, folder / "bundle", prior=prior, weights="f32")
    with in_the_hubs_cache(folder / "hub", PRIOR_ID, saved.prior):  # the decoder's card names this place of the prior
        ours = AllWays.opened(saved.decoder, bundle)
    theirs: Any = saved.models.combined()
    for each in (theirs.prior_pipe, theirs.decoder_pipe):
        each.set_progress_bar_config(disable=True)
    return Pair(saved, bundle.path, ours, theirs, image_encoder)


def save_image_encoder(folder: Path) -> ImageEncoder:
    """Save a random image encoder as a component of a checkpoint."""
    module = ImageEncoder(ENCODER)
    randomise(module, torch.Generator().manual_seed(5))
    with torch.no_grad():
        norm: Any = module.mapper[1]
        norm.weight.mul_(20)  # embeddings on the scale of the prior's
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(dataclasses.asdict(ENCODER)), encoding="utf-8")
    save_file(module.state_dict(), folder / "model.safetensors")
    return module


def largest(ours: Any, theirs: Any) -> float:
    """The largest difference, relative to the largest value of diffusers."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def assert_same_pictures(ours: Any, theirs: Any, *, tolerance: float = PICTURES) -> None:
    """Check that pictures agree, and that they are neither flat nor saturated."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    assert ours.dtype == np.float32
    assert ours.min() >= 0
    assert ours.max() <= 1
    seen = (theirs > 0) & (theirs < 1)
    assert float(seen.mean()) > 0.65
    assert all(float(each[within].std()) > 0.04 for each, within in zip(theirs, seen, strict=True))
    assert float(np.abs(ours - theirs).max()) <= tolerance


def assert_same(ours: Drawn, theirs: Drawn) -> None:
    """Check that image embeddings, latents and pictures agree."""
    assert largest(ours.embeddings, theirs.embeddings) < STAGES
    assert largest(ours.latents, theirs.latents) < STAGES
    assert_same_pictures(ours.pictures, theirs.pictures)


def as_numpy(tensors: Sequence[torch.Tensor]) -> Array:
    """One array of several pictures' tensors."""
    return torch.cat(list(tensors)).numpy()
