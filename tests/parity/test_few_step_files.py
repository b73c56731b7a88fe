"""Few-step LoRAs and UNets by their published names: no setting is given to us, the card's to diffusers."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from numpy.typing import NDArray
from peft.utils import get_peft_model_state_dict

from tests.adapters.adapters_made import randomised
from tests.single_files import LIBRARY, FileShape, models_of, save_directory, write
from vinograph import Pipeline

# diffusers' schedulers pass tensors to NumPy in ways that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning", "ignore:__array_wrap__ must accept:DeprecationWarning"
)

Array = NDArray[np.float32]
LARGEST = 2 / 255
_SIZE: dict[str, Any] = {"height": 64, "width": 64, "output_type": "np"}
_TRAILING = {"timestep_spacing": "trailing"}
_DDIM = {**_TRAILING, "clip_sample": False}  # the random checkpoint's file doesn't say so, SDXL's does
_DMD_STEPS = {"num_inference_steps": 4, "timesteps": [999, 749, 499, 249]}

Card = tuple[str, dict[str, Any], dict[str, Any]]
LIGHTNING: Card = ("EulerDiscreteScheduler", _TRAILING, {"num_inference_steps": 4})
DMD2: Card = ("LCMScheduler", {}, _DMD_STEPS)
LCM: Card = ("LCMScheduler", {}, {"num_inference_steps": 4})

# By the file's name: the scheduler's class, what from_config is given, and the call's arguments.
LORAS: Mapping[str, Card] = {
    "sdxl_lightning_4step_lora.safetensors": LIGHTNING,
    "Hyper-SDXL-4steps-lora.safetensors": ("DDIMScheduler", _DDIM, {"num_inference_steps": 4}),
    "Hyper-SDXL-1step-lora.safetensors": ("TCDScheduler", {}, {"num_inference_steps": 1, "eta": 1.0}),
    "lcm-lora-sdxl/pytorch_lora_weights.safetensors": LCM,
    "dmd2_sdxl_4step_lora.safetensors": DMD2,
}
UNETS: Mapping[str, Card] = {
    "sdxl_lightning_4step_unet.safetensors": LIGHTNING,
    "Hyper-SDXL-1step-Unet.safetensors": ("LCMScheduler", {}, {"num_inference_steps": 1, "timesteps": [800]}),
    "dmd2_sdxl_4step_unet_fp16.safetensors": DMD2,
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base as SDXL's, which has many steps with guidance."""
    torch.set_num_threads(1)
    return save_directory(tmp_path_factory.mktemp("few-steps") / "base")


@pytest.fixture(scope="module")
def lora() -> dict[str, torch.Tensor]:
    """A LoRA for the UNet as kohya's scripts name it, which all of these publishers follow."""
    network = copy.deepcopy(models_of().unet)
    network.add_adapter(peft.LoraConfig(r=4, lora_alpha=4, target_modules=["to_q", "to_out.0", "proj_in"]))
    randomised(((name, each) for name, each in network.named_parameters() if "lora_" in name), seed=1)
    tensors = {}
    for key, value in get_peft_model_state_dict(network).items():
        path, _, role = key.partition(".lora_")
        module = f"lora_unet_{path.replace('.', '_')}"
        tensors[f"{module}.lora_{'down' if role.startswith('A') else 'up'}.weight"] = value
        tensors[f"{module}.alpha"] = torch.tensor(2.0)
    return tensors


def with_card(pipe: Any, card: Card) -> Array:
    """What diffusers draws with a model card's scheduler and arguments."""
    name, settings, arguments = card
    pipe.scheduler = getattr(LIBRARY, name).from_config(pipe.scheduler.config, **settings)
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(3)
    return np.asarray(pipe("a red house", generator=generator, guidance_scale=0.0, **_SIZE, **arguments).images)


def assert_draws(pipe: Pipeline, expected: Array) -> None:
    """Check what is drawn without any setting, and that with a setting of SDXL's it is another picture."""
    drawn: Any = pipe("a red house", seed=3, **_SIZE)
    assert expected.std() > 0.02
    assert np.abs(drawn.images - expected).max() <= LARGEST
    others: Any = pipe("a red house", seed=3, guidance_scale=5.0, **_SIZE)
    assert np.abs(others.images - expected).max() > 10 / 255


@pytest.mark.parametrize("name", LORAS)
def test_loras(name: str, base: Path, lora: dict[str, torch.Tensor], tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    file = write(tmp_path / name, lora)
    theirs = LIBRARY.StableDiffusionXLPipeline.from_pretrained(base, add_watermarker=False)
    theirs.load_lora_weights(file.parent, weight_name=file.name)
    assert_draws(Pipeline.from_pretrained(base, precision="f32", adapters={file: 1.0}), with_card(theirs, LORAS[name]))


@pytest.mark.parametrize("name", UNETS)
def test_unets(name: str, base: Path, tmp_path: Path) -> None:
    other = models_of(FileShape(seed=1)).unet
    file = write(tmp_path / name, other.state_dict())
    theirs = LIBRARY.StableDiffusionXLPipeline.from_pretrained(base, unet=other, add_watermarker=False)
    assert_draws(Pipeline.from_pretrained(file, base=base, precision="f32"), with_card(theirs, UNETS[name]))
