"""What decodes the picture is compiled beside the work before it, for the shapes that it is then given."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.bundles import save_bundle, save_pixart_bundle, save_sdxl_bundle
from vinograph import Pipeline
from vinograph.models.bundle import Bundle
from vinograph.runtime.sessions import Session

Save = Callable[[Path], Bundle]
Compiled = list[tuple[str, str]]
DENOISERS = ("prior", "unet", "transformer")


@pytest.fixture
def beside() -> threading.Event:
    """Set when something was compiled that is no denoiser, and not by the drawing itself."""
    return threading.Event()


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch, beside: threading.Event) -> Compiled:
    """Which components were compiled, and on which threads."""
    found: Compiled = []
    compile_section = Session._compile_section

    def noting(self: Session, *given: Any) -> Any:
        thread = threading.current_thread()
        found.append((self.name, thread.name))
        if self.name not in DENOISERS and thread is not threading.main_thread():
            beside.set()
        return compile_section(self, *given)

    monkeypatch.setattr(Session, "_compile_section", noting)
    monkeypatch.setenv("VINOGRAPH_CACHE_LIMIT", "0")
    return found


CASES: Sequence[tuple[Save, str, dict[str, Any]]] = [
    (save_bundle, "vqgan", {"height": 128, "width": 256, "num_images_per_prompt": 2}),
    (save_sdxl_bundle, "tiny_vae_decoder", {"height": 64, "width": 128, "num_images_per_prompt": 2}),
    (save_sdxl_bundle, "vae_decoder", {"height": 64, "width": 128, "vae": "full"}),
    (save_pixart_bundle, "tiny_vae_decoder", {"num_inference_steps": 2}),
]


@pytest.mark.parametrize(("save", "name", "given"), CASES, ids=[name for _, name, _ in CASES])
def test_it_is_compiled_once_and_beside(
    tmp_path: Path,
    compiled: Compiled,
    beside: threading.Event,
    save: Save,
    name: str,
    given: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The denoiser's first call waits for it to have begun, which it does in no time."""
    call = Session.__call__

    def waiting(self: Session, inputs: Any) -> Any:
        assert self.name not in DENOISERS or beside.wait(30)
        return call(self, inputs)

    monkeypatch.setattr(Session, "__call__", waiting)
    pipe = Pipeline(save(tmp_path / "model"), precision="f32")
    pipe("a red house", seed=1, **given)
    assert [thread for each, thread in compiled if each == name] == [f"compile {name}"]


@pytest.mark.parametrize(("save", "name", "given"), CASES, ids=[name for _, name, _ in CASES])
def test_where_it_is_not_wanted_it_is_not(
    tmp_path: Path, compiled: Compiled, save: Save, name: str, given: dict[str, Any]
) -> None:
    pipe = Pipeline(save(tmp_path / "model"), precision="f32")
    pipe("a red house", seed=1, output_type="latent", **given)
    assert name not in {each for each, _ in compiled}
