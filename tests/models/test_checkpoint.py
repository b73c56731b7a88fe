"""Checkpoints that can't be used are refused before anything is loaded or fetched."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub as hf
import pytest
from huggingface_hub import errors as hf_errors

from tests.checkpoints import PRIOR_ID
from tests.convert.conftest import VQGAN, edit_json, edit_tensors
from tests.hub_server import HubServer
from tests.models.open_model import open_model
from vinograph.convert import convert
from vinograph.errors import DamagedModelError, ModelError, RequestError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ID = "someone/wuerstchen"


@pytest.fixture
def unloadable(checkpoint: Path) -> Path:
    """A checkpoint with damaged weights: reading them fails otherwise than the test expects."""
    for file in checkpoint.rglob("*.safetensors"):
        file.write_bytes(b"")
    return checkpoint


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "bundle"


@pytest.fixture(autouse=True)
def _nothing_is_left(target: Path) -> Any:
    before = set(target.parent.iterdir())
    yield
    left = {file.name for file in set(target.parent.iterdir()) - before}
    assert not {name for name in left if "bundle" in name}


class TestIndex:
    """model_index.json is data: nothing that it names is imported."""

    @pytest.mark.parametrize(
        ("part", "pair"),
        [
            ("decoder", ["os", "system"]),
            ("decoder", ["diffusers", "UNet2DConditionModel"]),
            ("text_encoder", ["my_module", "CLIPTextModel"]),
            ("scheduler", ["diffusers", "DDPMScheduler"]),
            ("safety_checker", ["stable_diffusion", "StableDiffusionSafetyChecker"]),
            ("vqgan", ["diffusers"]),
            ("vqgan", [["diffusers"], "PaellaVQModel"]),
        ],
    )
    def test_an_unknown_class(self, unloadable: Path, target: Path, part: str, pair: list[Any]) -> None:
        edit_json(unloadable / "model_index.json", **{part: pair})
        with pytest.raises(ModelError, match=f"gives the part {part} the class"):
            convert(unloadable, target)

    def test_a_part_that_is_left_out_on_purpose(self, unloadable: Path, target: Path) -> None:
        edit_json(unloadable / "model_index.json", safety_checker=[None, None])
        with pytest.raises(DamagedModelError):
            convert(unloadable, target)

    @pytest.mark.parametrize("name", ["StableDiffusionPipeline", "FluxPipeline", "WuerstchenPriorPipeline"])
    def test_a_family_that_we_do_not_have(self, unloadable: Path, target: Path, name: str) -> None:
        edit_json(unloadable / "model_index.json", _class_name=name)
        with pytest.raises(ModelError, match=rf"is a {name}.*It opens wuerstchen \(WuerstchenCombinedPipeline"):
            convert(unloadable, target)

    @pytest.mark.parametrize(
        ("name", "said"), [(None, "names no pipeline"), (["pipeline", "MyPipeline"], "runs none"), (5, "runs none")]
    )
    def test_no_pipeline_or_code_to_run(self, unloadable: Path, target: Path, name: object, said: str) -> None:
        edit_json(unloadable / "model_index.json", _class_name=name)
        with pytest.raises(ModelError, match=said):
            convert(unloadable, target)

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000])
    def test_garbled(self, unloadable: Path, target: Path, content: bytes) -> None:
        (unloadable / "model_index.json").write_bytes(content)
        with pytest.raises(DamagedModelError, match=r"model_index\.json"):
            convert(unloadable, target)

    def test_huge(self, unloadable: Path, target: Path) -> None:
        (unloadable / "model_index.json").write_bytes(b" " * 10_000_001)
        with pytest.raises(DamagedModelError, match="over the limit"):
            convert(unloadable, target)


class TestConfigurations:
    """A part's config.json."""

    def test_code_to_run(self, unloadable: Path, target: Path) -> None:
        edit_json(unloadable / "text_encoder" / "config.json", auto_map={"AutoModel": "code.Model"})
        with pytest.raises(ModelError, match="asks for code of its own"):
            convert(unloadable, target)

    @pytest.mark.parametrize(
        ("part", "changes"),
        [
            ("prior_prior", {"nhead": 5}),
            ("prior_prior", {"depth": 10**9}),
            ("prior_prior", {"c": -8}),
            ("prior_prior", {"c": "wide"}),
            ("prior_prior", {"of_the_future": True}),
            ("decoder", {"c_hidden": [8, 8]}),
            ("decoder", {"blocks": [10**6]}),
            ("decoder", {"c_hidden": 5}),
            ("vqgan", {"levels": 0}),
            ("text_encoder", {"hidden_act": "__import__"}),
            ("text_encoder", {"num_attention_heads": 0}),
            ("text_encoder", {"vocab_size": 10**12}),
        ],
    )
    def test_it_describes_no_model(self, checkpoint: Path, target: Path, part: str, changes: dict[str, Any]) -> None:
        edit_json(checkpoint / part / "config.json", **changes)
        with pytest.raises(ModelError, match=f"{part}/config.json describes no model"):
            convert(checkpoint, target)

    def test_a_size_that_is_not_the_weights(self, checkpoint: Path, target: Path) -> None:
        edit_json(checkpoint / "decoder" / "config.json", c_cond=24)
        with pytest.raises(DamagedModelError, match=r"decoder/.*: the tensor .* has the shape \[20"):
            convert(checkpoint, target)

    def test_a_billion_that_the_file_does_not_have(self, checkpoint: Path, target: Path) -> None:
        """Built without memory, refused by the shapes."""
        edit_json(checkpoint / "text_encoder" / "config.json", vocab_size=900_000, intermediate_size=900_000)
        with pytest.raises(DamagedModelError, match="has the shape"):
            convert(checkpoint, target)

    def test_another_scheduler(self, checkpoint: Path, target: Path) -> None:
        edit_json(checkpoint / "scheduler" / "scheduler_config.json", _class_name="DDIMScheduler")
        with pytest.raises(ModelError, match="sampled by 'DDIMScheduler'"):
            convert(checkpoint, target)

    @pytest.mark.parametrize("scaler", ["1", float("nan"), [1]])
    def test_a_scheduler_without_numbers(self, checkpoint: Path, target: Path, scaler: object) -> None:
        edit_json(checkpoint / "scheduler" / "scheduler_config.json", scaler=scaler)
        with pytest.raises(DamagedModelError, match=r"scheduler_config\.json"):
            convert(checkpoint, target)


class TestWeights:
    """A part's weights; what can be wrong within a file is in test_safetensors.py."""

    def test_pickled(self, checkpoint: Path, target: Path) -> None:
        (checkpoint / VQGAN).rename(checkpoint / "vqgan" / "diffusion_pytorch_model.bin")
        with pytest.raises(ModelError, match=r"vqgan has its weights in diffusion_pytorch_model\.bin, pickled"):
            convert(checkpoint, target)

    def test_a_pickle_under_another_name(self, checkpoint: Path, target: Path) -> None:
        (checkpoint / VQGAN).write_bytes(pickle.dumps({"a": 1}))
        with pytest.raises(ModelError, match="is a pickle"):
            convert(checkpoint, target)

    def test_a_layer_is_missing(self, checkpoint: Path, target: Path) -> None:
        edit_tensors(checkpoint / VQGAN, lambda tensors: tensors.pop("out_block.0.bias"))
        with pytest.raises(DamagedModelError, match=r"vqgan lacks the tensor out_block\.0\.bias"):
            convert(checkpoint, target)

    def test_missing(self, checkpoint: Path, target: Path) -> None:
        (checkpoint / VQGAN).unlink()
        (checkpoint / "decoder" / "config.json").unlink()
        with pytest.raises(ModelError, match=rf"checkpoint lacks decoder/config\.json, {VQGAN}"):
            convert(checkpoint, target)


class TestSource:
    """What is given as a checkpoint."""

    def test_a_single_file(self, tmp_path: Path, target: Path) -> None:
        (tmp_path / "model.ckpt").write_bytes(b"")
        with pytest.raises(ModelError, match=r"is a file; a model is a \.safetensors file"):
            convert(tmp_path / "model.ckpt", target)

    def test_a_single_file_as_a_prior(self, checkpoint: Path, tmp_path: Path, target: Path) -> None:
        (tmp_path / "model.safetensors").write_bytes(b"")
        with pytest.raises(ModelError, match="is a single file"):
            convert(checkpoint, target, prior=str(tmp_path / "model.safetensors"))

    def test_a_bundle(self, tmp_path: Path, target: Path) -> None:
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "bundle.json").write_text("{}")
        with pytest.raises(RequestError, match="is a bundle already"):
            convert(tmp_path / "model", target)

    def test_an_empty_directory(self, tmp_path: Path, target: Path) -> None:
        (tmp_path / "empty").mkdir()
        with pytest.raises(ModelError, match=r"empty lacks model_index\.json"):
            convert(tmp_path / "empty", target)

    @pytest.mark.parametrize("source", ["nothing", "../nothing", "a/b/c", "", "no such/place"])
    def test_nothing(self, source: str, target: Path) -> None:
        if source:
            with pytest.raises(RequestError, match="neither a directory here nor the id"):
                convert(source, target)

    def test_a_revision_of_a_directory(self, checkpoint: Path, target: Path) -> None:
        with pytest.raises(RequestError, match="--revision is for a repository"):
            convert(checkpoint, target, revision="main")

    @pytest.mark.parametrize("weights", ["bf16", "F16", None])
    def test_weights_that_conversion_does_not_write(self, checkpoint: Path, target: Path, weights: Any) -> None:
        with pytest.raises(RequestError, match=r"weights is .*; give one of f16, f32"):
            convert(checkpoint, target, weights=weights)


class TestOffline:
    """A repository of the hub when only its cache is at hand."""

    @pytest.fixture
    def cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setattr(hf.constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(hf.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        return tmp_path / "hub"

    @staticmethod
    def fill(cache: Path, name: str, source: Path) -> Path:
        home = cache / f"models--{name.replace('/', '--')}"
        (home / "refs").mkdir(parents=True)
        (home / "refs" / "main").write_text(COMMIT)
        return shutil.copytree(source, home / "snapshots" / COMMIT)

    def test_it_is_whole(self, cache: Path, combined: Path) -> None:
        self.fill(cache, ID, combined)
        manifest = open_model(ID).manifest
        source = manifest.source
        assert (source.id, source.revision, source.licence) == (ID, COMMIT, "mit")
        assert manifest.name == "wuerstchen"

    def test_the_prior_that_the_card_names(self, cache: Path, split: tuple[Path, Path]) -> None:
        self.fill(cache, ID, split[0])
        self.fill(cache, PRIOR_ID, split[1])
        assert open_model(ID).manifest.source.also == {"prior": PRIOR_ID}

    def test_the_prior_is_missing(self, cache: Path, split: tuple[Path, Path], target: Path) -> None:
        with pytest.raises(ModelError, match=f"hf download {PRIOR_ID} "):
            convert(split[0], target)

    def test_files_are_missing(self, cache: Path, combined: Path, target: Path) -> None:
        snapshot = self.fill(cache, ID, combined)
        (snapshot / VQGAN).unlink()
        (snapshot / "tokenizer" / "tokenizer.json").unlink()
        with pytest.raises(ModelError) as caught:
            convert(ID, target)
        missing = ["tokenizer/merges.txt", "tokenizer/vocab.json", VQGAN]
        assert f"Missing: {', '.join(missing)}." in str(caught.value)
        assert f"hf download {ID} {' '.join(missing)} --revision {COMMIT}" in str(caught.value)

    def test_one_part_alone_may_not_be_all(self, cache: Path, combined: Path, target: Path) -> None:
        snapshot = self.fill(cache, ID, combined)
        for each in snapshot.iterdir():
            if each.name != "decoder":
                shutil.rmtree(each) if each.is_dir() else each.unlink()
        with pytest.raises(ModelError, match=rf"Missing: model_index\.json\. Online, .*hf download {ID} model_index"):
            convert(ID, target)

    def test_nothing_is_there(self, cache: Path, target: Path) -> None:
        with pytest.raises(ModelError, match=f"hf download {ID} --revision v1 --include"):
            convert(ID, target, revision="v1")


class TestOnline:
    """The hub, which runs here."""

    @pytest.fixture
    def server(self, combined: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
        """It has the checkpoint, and files that nobody needs."""
        files = {p.relative_to(combined).as_posix(): p.read_bytes() for p in combined.rglob("*") if p.is_file()}
        variants = [f"decoder/diffusion_pytorch_model.{each}.safetensors" for each in ("bf16", "ema", "non_ema")]
        unneeded = ["decoder/diffusion_pytorch_model.bin", "a.png", *variants]
        with HubServer() as server:
            server.add(ID, files | {name: name.encode() for name in unneeded})
            server.in_use(monkeypatch, tmp_path / "hub")
            yield server

    @staticmethod
    def fetched(tmp_path: Path) -> set[str]:
        """The names of the files that are in the cache."""
        (snapshot,) = (tmp_path / "hub" / "hub").glob("models--*/snapshots/*")
        return {p.relative_to(snapshot).as_posix() for p in snapshot.rglob("*") if p.is_file()}

    def test_only_what_is_needed_is_fetched(self, server: HubServer, combined: Path, tmp_path: Path) -> None:
        opened = open_model(ID, revision="main")
        assert server.fetched()[0] == "model_index.json"
        needed = {p.relative_to(combined).as_posix() for p in combined.rglob("*") if p.is_file()}
        assert self.fetched(tmp_path) == needed
        assert opened.manifest.source.revision == server.repositories[ID].commit

    def test_one_part_alone(self, server: HubServer, target: Path) -> None:
        """Its configuration says so; its weights are not fetched."""
        names = ["README.md", "decoder/config.json", "decoder/diffusion_pytorch_model.safetensors"]
        server.add(ID, {name: server.repositories[ID].files[name] for name in names})
        with pytest.raises(ModelError, match=r"\(WuerstchenDiffNeXt\); put its decoder/ into a copy of a whole"):
            convert(ID, target)
        assert server.fetched() == ["decoder/config.json"]

    def test_a_family_that_we_do_not_have(self, server: HubServer, target: Path, tmp_path: Path) -> None:
        files = server.repositories[ID].files
        index = json.loads(files["model_index.json"]) | {"_class_name": "FluxPipeline"}
        server.add(ID, {**files, "model_index.json": json.dumps(index).encode()})
        with pytest.raises(ModelError, match="FluxPipeline"):
            convert(ID, target)
        assert self.fetched(tmp_path) == {"model_index.json"}

    @pytest.mark.parametrize(
        ("error", "message"),
        [
            (hf_errors.RepositoryNotFoundError, "the hub has no"),
            (hf_errors.GatedRepoError, "is gated: accept its terms"),
            (hf_errors.RevisionNotFoundError, "has no revision v1"),
        ],
    )
    def test_the_hub_refuses(
        self, error: type[Exception], message: str, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*args: object, **kwargs: object) -> None:
            raise error.__new__(error)

        monkeypatch.setattr(hf.HfApi, "model_info", refuse)
        with pytest.raises(ModelError, match=message):
            convert(ID, target, revision="v1")

    @pytest.mark.parametrize("error", [ConnectionError("reset"), TimeoutError("slow"), "client"])
    def test_the_hub_does_not_answer(
        self, error: Exception | str, tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if error == "client":
            error = type("ConnectError", (Exception,), {"__module__": "httpx"})("no route")

        def fail(*args: object, **kwargs: object) -> None:
            raise error  # type: ignore[misc]

        monkeypatch.setattr(hf.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(hf.HfApi, "model_info", fail)
        with pytest.raises(ModelError, match=r"the hub can't be reached .*hf download someone/wuerstchen"):
            convert(ID, target)
