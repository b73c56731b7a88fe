"""The recipe of storybook-wuerstchen runs end to end; diffusers loads its checkpoint."""

from __future__ import annotations

import importlib
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from training.loop import load
from training.losses import CLASSES
from training.world import ATTRIBUTES, dataset, sample
from training.wuerstchen import image_encoder, open_captions, polish, publish, stage_a, stage_b, stage_c
from training.wuerstchen.config import EMBEDDING_SCALE
from training.wuerstchen.config import stage_b as make_stage_b

# PyTorch's own compiler still goes through torch.jit when it is first imported.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

CPU = torch.device("cpu")
BRIEFLY = 0.001  # minutes, enough for one step or a few


@pytest.fixture(scope="module", autouse=True)
def _small_batches() -> Iterator[None]:
    """A step of the recipe's own batches takes a gigabyte."""
    with pytest.MonkeyPatch.context() as patch:
        for stage, count in ((stage_a, 4), (image_encoder, 8), (polish, 4), (open_captions, 4)):
            patch.setattr(stage, "BATCH_SIZE", count)
        yield


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working directory of a run in which every stage trained for a few steps."""
    data, work = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("work")
    for split, count in (("train", 12), ("val", 4), ("heldout", 2), ("unseen_pair", 2)):
        dataset.write(data, split, count, workers=1)
    torch.compiler.set_stance("force_eager")
    try:
        stage_a.train(data, work, BRIEFLY, CPU)
        image_encoder.train(data, work, BRIEFLY, CPU)
        stage_b.train(data, work, BRIEFLY, CPU, scenes=100)
        stage_c.train(data, work, BRIEFLY, CPU)
        polish.train(data, work, BRIEFLY, CPU, scenes=100)  # more than there are
    finally:
        torch.compiler.set_stance("default")
    publish.publish(work, work / "published")
    return work


def test_diffusers_and_transformers_load_every_published_component(work: Path) -> None:
    published = work / "published"
    index = json.loads((published / "model_index.json").read_text())
    # The published index names a module of diffusers that has moved since.
    modules = {"wuerstchen": "diffusers.pipelines.deprecated.wuerstchen"}
    parts = {name: part for name, part in index.items() if not name.startswith("_")}
    assert set(parts) == {path.name for path in published.iterdir() if path.is_dir()} - {"image_encoder"}
    for name, (library, kind) in parts.items():
        loaded = getattr(importlib.import_module(modules.get(library, library)), kind).from_pretrained(published / name)
        if isinstance(loaded, torch.nn.Module):
            assert all(torch.isfinite(value).all() for value in loaded.state_dict().values())


def test_a_stage_resumes_from_its_checkpoint(work: Path) -> None:
    before = load(work / "stage_c.pt")["budget"]["steps"]
    data = next(path for path in work.parent.iterdir() if (path / "train_labels.npy").exists())
    stage_c.train(data, work, 2 * BRIEFLY + load(work / "stage_c.pt")["budget"]["seconds"] / 60, CPU)
    assert load(work / "stage_c.pt")["budget"]["steps"] > before


def test_open_captions_continue_the_published_prior(work: Path, tmp_path: Path) -> None:
    data = next(path for path in work.parent.iterdir() if (path / "train_labels.npy").exists())
    shutil.copytree(work / "tokenizer", tmp_path / "tokenizer")
    out = Path(shutil.copytree(open_captions.CHECKPOINT, tmp_path / "out"))
    before = {file.relative_to(out): file.read_bytes() for file in out.rglob("*") if file.is_file()}
    open_captions.train(data, tmp_path, BRIEFLY, CPU, reader_minutes=BRIEFLY)
    publish.publish(tmp_path, out)
    changed = {name for name, content in before.items() if (out / name).read_bytes() != content}
    prior = {"prior_prior/diffusion_pytorch_model.safetensors", "prior_text_encoder/model.safetensors"}
    assert {name.as_posix() for name in changed if name.suffix == ".safetensors"} == prior


def test_an_open_caption_is_completed_by_what_is_stated_and_what_the_noise_shows() -> None:
    labels = torch.zeros(5, len(ATTRIBUTES), dtype=torch.long)
    stated = torch.tensor([[name in ("kind", "count") for name in ATTRIBUTES]]).expand(5, -1)

    class Sure(torch.nn.Module):
        """A reader that is sure of the last value of every attribute."""

        def forward(self, x: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
            return torch.cat([torch.tensor([0.0] * (n - 1) + [9.0]).expand(len(x), -1) for n in CLASSES], dim=1)

    shown = open_captions.complete(Sure(), torch.zeros(5, 16, 6, 6), torch.ones(5), labels, stated)
    assert shown.tolist() == [[0 if told else n - 1 for told, n in zip(stated[0], CLASSES, strict=True)]] * 5


def test_combinations_are_numbered_in_the_order_of_their_captions() -> None:
    rng = random.Random(3)
    for _ in range(20):
        scene = sample(rng, None)
        number = open_captions.combination(torch.tensor([scene.labels()]))
        assert open_captions.scene_of(int(number)) == scene


def test_the_log_has_lines_of_every_stage(work: Path) -> None:
    log = (work / "log.jsonl").read_text()
    for stage in ("stage-a", "image-encoder", "stage-b", "stage-c", "polish"):
        assert f'"stage": "{stage}"' in log


def test_folding_the_scale_of_embeddings_changes_no_prediction() -> None:
    torch.manual_seed(0)
    plain, folded = make_stage_b().eval(), make_stage_b().eval()
    for parameter in plain.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    folded.load_state_dict(stage_b.fold_embedding_scale(plain.state_dict()))
    x, codes, clip = torch.randn(1, 4, 64, 64), torch.randn(1, 16, 6, 6), torch.randn(1, 5, 64)
    time = torch.tensor([0.5])
    with torch.no_grad():
        one, other = plain(x, time, codes, clip), folded(x, time, EMBEDDING_SCALE * codes - 1, clip)
    assert torch.allclose(one, other, rtol=1e-3, atol=1e-3)
