"""The page's field for adapters takes names of the folder alone, and draws with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from vinograph.adapters.adaptation import adapt
from vinograph.errors import RequestError
from vinograph.web import adapter_choice, snippets
from vinograph.web.jobs import DrawRequest, Job, Queue
from vinograph.web.model_pool import ModelPool

MODEL = "storybook-sdxl"
LAYER = "unet.mid_block.attentions.0.proj_in"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A models folder with one adapter, named cat, for storybook-sdxl."""
    monkeypatch.setenv("VINOGRAPH_MODELS", str(tmp_path))
    adapters = tmp_path / "adapters"
    adapters.mkdir()
    values = {"A": np.ones((1, 144), np.float32), "B": np.ones((144, 1), np.float32)}
    save_file({f"{LAYER}.lora_{role}.weight": each for role, each in values.items()}, adapters / "cat.safetensors")
    return adapters


def test_names_and_weights(folder: Path) -> None:
    assert adapter_choice.offered() == ["cat"]
    assert adapter_choice.chosen(" cat:0.5, ") == {"cat": 0.5}
    assert adapter_choice.chosen("cat") == {"cat": 1.0}
    assert adapter_choice.chosen("") == adapter_choice.chosen(None) == {}
    for text in ("dog:1", str(folder / "cat.safetensors"), "../adapters/cat"):
        with pytest.raises(RequestError, match="there is no adapter"):
            adapter_choice.chosen(text)
    with pytest.raises(RequestError, match="give at most 2000"):
        adapter_choice.chosen("cat," * 1000)


@pytest.mark.usefixtures("folder")
def test_jobs_draw_with_their_adapters_and_the_next_without() -> None:
    models = ModelPool({MODEL: {}}, "CPU")
    queue = Queue(models)
    arguments = {"prompt": "a red house", "seed": 7, "num_inference_steps": 1}
    requests = [
        DrawRequest(MODEL, "generate", arguments, adapt(models.get(MODEL).model, adapters))
        for adapters in ({}, {"cat": 0.1}, {})
    ]
    job = Job(*requests)
    queue.add(job)
    *_, status = job.follow()
    queue.end()
    assert status.error is None
    pictures = [np.asarray(result.images[0]).astype(int) for result in status.results]
    assert np.abs(pictures[1] - pictures[0]).max() > 5
    assert np.array_equal(pictures[0], pictures[2])
    assert [dict(result.adapters) for result in status.results] == [{}, {"cat": 0.1}, {}]


def test_snippets_name_them() -> None:
    arguments = {"prompt": "a red house", snippets.ADAPTERS: {"cat": 0.5}}
    pipe = ModelPool({MODEL: {}}, "CPU").get(MODEL)
    assert "adapters={'cat': 0.5}" in snippets.python(MODEL, "CPU", "generate", arguments, "a.png")
    assert "--adapter cat:0.5" in snippets.shell(pipe, MODEL, "CPU", "generate", arguments, "a.png")
