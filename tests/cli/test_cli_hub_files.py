"""One file of a hub repository, as a model, a base, a VAE, an adapter and a learned word."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub as hf
import numpy as np
import pytest
import torch

from benchmarks.single_file_layout import VAE, ldm_vae
from tests.cli.conftest import Run
from tests.hub_server import Fault, HubServer, use_hub, without_waiting
from tests.single_files import FileShape, models_of, save_directory, single_file_tensors, write
from vinograph import ModelError, Pipeline
from vinograph.models import hub_file

pytestmark = pytest.mark.usefixtures("compiled_once")

REPOSITORY = "someone/models"
MODEL, VAE_FILE, LORA = "sdxl/deep/My Model.safetensors", "vae.safetensors", "loras/style.safetensors"
DRAWN = ("--size", "64x64", "--steps", "1", "--seed", "3")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def base(home: Path) -> Path:
    return save_directory(home / "base")


@pytest.fixture(scope="module")
def folder(home: Path) -> Path:
    """What the repository holds: a whole model, a VAE and an adapter."""
    published = home / "published"
    for name in (MODEL, LORA):
        (published / name).parent.mkdir(parents=True)
    write(published / MODEL, single_file_tensors(models_of()), torch.float16)
    other = ldm_vae(models_of(FileShape(seed=1)).vae.state_dict())
    write(published / VAE_FILE, {VAE + name: each for name, each in other.items()})
    path = "lora_unet_down_blocks_1_attentions_0_proj_in"
    random = torch.Generator().manual_seed(1)
    tensors = {
        f"{path}.lora_down.weight": torch.randn(4, 128, generator=random),
        f"{path}.lora_up.weight": torch.randn(128, 4, generator=random),
        f"{path}.alpha": torch.tensor(4.0),
    }
    write(published / LORA, tensors)
    (published / "README.md").write_text("---\nlicense: mit\n---\n")
    return published


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[HubServer]:
    with HubServer() as server:
        server.add(REPOSITORY, folder)
        yield server


@pytest.fixture
def server(served: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    """The hub, in use with an empty cache."""
    served.clear()
    served.in_use(monkeypatch, tmp_path / "cache")
    without_waiting(monkeypatch)
    return served


def offline(patch: pytest.MonkeyPatch, cache: Path) -> None:
    use_hub(patch, "http://127.0.0.1:9", cache)
    patch.setattr(hf.constants, "HF_HUB_OFFLINE", True)


def picture(model: object, **options: Any) -> Any:
    pipe = Pipeline.from_pretrained(str(model), precision="f32", **options)
    return pipe("a house", height=64, width=64, num_inference_steps=1, seed=3, output_type="np").images


def test_a_model_is_fetched_alone_and_found_again_offline(
    server: HubServer, vinograph: Run, base: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = f"{REPOSITORY}/{MODEL}"
    drawn = vinograph(
        "generate", "a house", "--model", reference, "--base", base, *DRAWN, "--output", "a.png", "--json"
    ).record
    assert drawn["model"] == "My Model.safetensors"
    assert sorted(set(server.fetched())) == ["README.md", MODEL]
    offline(monkeypatch, tmp_path / "cache")
    np.testing.assert_array_equal(picture(reference, base=base), picture(folder / MODEL, base=base))
    record = vinograph("inspect", reference, "--base", base, "--json").record
    assert record["source"]["licence"] == "mit"
    assert record["source"]["revision"] == server.repositories[REPOSITORY].commit


def test_a_base_a_vae_and_an_adapter(server: HubServer, base: Path, folder: Path) -> None:
    ours = picture(base, vae=f"{REPOSITORY}/{VAE_FILE}", adapters={f"{REPOSITORY}/{LORA}": 0.5})
    np.testing.assert_array_equal(ours, picture(base, vae=folder / VAE_FILE, adapters={str(folder / LORA): 0.5}))
    assert np.abs(np.asarray(ours) - picture(base, vae=folder / VAE_FILE)).max() > 0.01
    assert sorted(set(server.fetched())) == [LORA, VAE_FILE]


def test_pull_says_licence_and_size_before_it_fetches(
    server: HubServer, vinograph: Run, base: Path, folder: Path
) -> None:
    pulled = vinograph("pull", f"{REPOSITORY}/{MODEL}", "--base", base, "--json")
    size = (folder / MODEL).stat().st_size
    assert (pulled.record["name"], pulled.record["fetched"]) == ("my-model", size)
    assert f"licence of {REPOSITORY}/{MODEL}: mit ({server.url}/{REPOSITORY})" in pulled.err
    assert vinograph("generate", "a house", "--model", "my-model", *DRAWN, "--output", "b.png").code == 0


def test_what_the_hub_has_not(server: HubServer, vinograph: Run, base: Path) -> None:
    given = ("generate", "a house", *DRAWN, "--model")
    vinograph(*given, f"{REPOSITORY}/none.safetensors").fails(3, "lacks none.safetensors")
    vinograph(*given, "someone/nothing/it.safetensors").fails(3, "someone/nothing")
    vinograph(*given, base, "--adapter", f"{REPOSITORY}/none.safetensors:0.5").fails(3, "lacks none.safetensors")


def test_a_file_that_arrives_damaged_is_not_used(server: HubServer, vinograph: Run, base: Path) -> None:
    server.faults[f"resolve/{server.repositories[REPOSITORY].commit}/{VAE_FILE}"] = Fault(body=b"nothing of the kind")
    given = ("generate", "a house", *DRAWN, "--model", base, "--vae", f"{REPOSITORY}/{VAE_FILE}")
    vinograph(*given).fails(4, "vae.safetensors is damaged")


def test_offline_without_it(vinograph: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offline(monkeypatch, tmp_path / "empty")
    outcome = vinograph("generate", "a house", "--model", f"{REPOSITORY}/{MODEL}", *DRAWN)
    outcome.fails(3, "not in this machine's cache", "hf download")


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("a/b/c.safetensors", ("a/b", "c.safetensors")),
        ("a/b/c/d e/f.safetensors", ("a/b", "c/d e/f.safetensors")),
        ("a/b.safetensors", None),
        ("a/b/c.ckpt", None),
        ("/a/b/c.safetensors", None),
        ("./a/b.safetensors", None),
        ("a/b/../../c.safetensors", None),
        ("a/b/./c.safetensors", None),
        ("a/b//c.safetensors", None),
        ("a/b/c\\..\\d.safetensors", None),
        ("a/b/c:1.safetensors", None),
        (f"a/b/{'c' * 600}.safetensors", None),
    ],
)
def test_what_names_a_file_of_the_hub(reference: str, expected: tuple[str, str] | None) -> None:
    assert hub_file.split(reference) == expected


def test_the_error_is_one_of_ours(server: HubServer) -> None:
    with pytest.raises(ModelError, match=r"lacks none\.safetensors"):
        hub_file.fetched(f"{REPOSITORY}/none.safetensors")
