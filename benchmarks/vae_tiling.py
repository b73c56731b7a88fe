"""Measures a VAE in tiles and in one piece: memory of the process, and the difference.

    python -m benchmarks.vae_tiling memory vae-folder --size 2048 --tiling on [--half encoder] [--precision f32]
    python -m benchmarks.vae_tiling seams vae-folder --size 1024
    python -m benchmarks.vae_tiling seams narrow-folder --size 2048 --narrow 4
    python -m benchmarks.vae_tiling seams storybook-sdxl --size 2048

vae-folder is written where it is missing: SDXL's VAE at its published size, with random weights.
--narrow divides its channels, which needs a folder of its own: a VAE with a quarter of the channels
has the same layers, norms and view of its surroundings, and takes a quarter of the memory.
"memory" gives the peak of a process of its own that computes one picture. "seams" computes a
picture both ways, in f32. Random weights get random latents. A model gets a picture that it drew,
and computes it by its tiny VAE where it has one.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import published_configs
from benchmarks.full_size import write_model
from vinograph import Pipeline
from vinograph.benchmark.memory import measure_peaks
from vinograph.families.autoencoder import VAE, vae_of
from vinograph.images import Size, resize, to_array
from vinograph.models.autoencoders import full_autoencoder
from vinograph.models.checkpoint import Subfolder, locate
from vinograph.models.parts import plan_component
from vinograph.models.sources import NetworkSource
from vinograph.networks import vae as network
from vinograph.runtime.sessions import Session

Array = NDArray[np.float32]

_PUBLISHED: Mapping[str, Any] = published_configs.VAE
_FILE = "diffusion_pytorch_model.safetensors"
_PROMPT = "a red house on a snowy hill at night"


def published(folder: Path, precision: str, tiling: str) -> VAE:
    """The VAE of published size in ``folder``."""
    part = full_autoencoder(Subfolder(locate(folder), "vae"))
    decoder = plan_component("vae_decoder", part, network.vae_decoder, network.DECODER_IGNORED)
    encoder = plan_component("vae_encoder", part, network.vae_encoder, network.ENCODER_IGNORED)
    decode, encode = (Session(NetworkSource(plan), "CPU", precision) for plan in (decoder, encoder))
    return VAE("full", decode, encode, np.float32(1), None, None, part.config.scale_factor, tiling)


def compute(arguments: argparse.Namespace) -> None:
    """Decode random latents, or encode a random picture, and print the seconds."""
    vae, rng = published(arguments.model, arguments.precision, arguments.tiling), np.random.default_rng(0)
    begin = time.perf_counter()
    if arguments.half == "decoder":
        vae.decode(rng.standard_normal((1, 4, arguments.size // 8, arguments.size // 8), np.float32))
    else:
        vae.encode(rng.random((1, 3, arguments.size, arguments.size), np.float32))
    print(f"{time.perf_counter() - begin:.0f} s", end="; ", flush=True)


def show_memory(_arguments: argparse.Namespace) -> None:
    """Run :func:`compute` in a process of its own and print its peaks."""
    command = [sys.executable, "-m", "benchmarks.vae_tiling", "compute", *sys.argv[2:]]
    with subprocess.Popen(command) as child, measure_peaks(child.pid) as peaks:
        code = child.wait()
    resident, anonymous = (f"{each / 1e9:.2f} GB" for each in (peaks.resident, peaks.anonymous))
    print(f"peak {resident} resident, {anonymous} of them not files")
    sys.exit(code)


def show_seams(arguments: argparse.Namespace) -> None:
    """Decode and encode one picture both ways, and print the differences in steps of 1/255."""
    size = Size(arguments.size, arguments.size)
    if arguments.model.exists():
        latents = np.random.default_rng(0).standard_normal((1, 4, size.height // 8, size.width // 8), np.float32)
        # One after the other: a VAE of this size keeps gigabytes.
        tiled, whole = (published(arguments.model, "f32", each).decode(latents) for each in ("on", "off"))
    else:
        pipe = Pipeline.from_pretrained(str(arguments.model), precision="f32")
        vaes = {each: vae_of(pipe._components, None, each) for each in ("on", "off")}
        pictures = to_array(resize(pipe(_PROMPT, seed=7).images[0], size))
        latents = vaes["off"].encode(pictures)
        error, deviation = np.abs(vaes["on"].encode(pictures) - latents), latents.std()
        print(f"encoded: mean {error.mean() / deviation:.4f}, largest {error.max() / deviation:.4f} deviations")
        tiled, whole = vaes["on"].decode(latents), vaes["off"].decode(latents)
    error = 255 * np.abs(tiled - whole)
    shares = ", ".join(f"{np.percentile(error, share):.2f} at {share}%" for share in (50, 99))
    print(f"decoded: mean {error.mean():.2f}, {shares}, largest {error.max():.1f} of 255")


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["memory", "seams", "compute"])
    parser.add_argument("model", type=Path)
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--tiling", choices=["on", "off"], default="on")
    parser.add_argument("--half", choices=["decoder", "encoder"], default="decoder")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--narrow", type=int, choices=[1, 2, 4], default=1)
    arguments = parser.parse_args()
    if not arguments.model.exists() and not str(arguments.model).startswith("storybook"):
        channels = [each // arguments.narrow for each in _PUBLISHED["block_out_channels"]]
        write_model(arguments.model / "vae", _FILE, {**_PUBLISHED, "block_out_channels": channels}, "AutoencoderKL")
    {"memory": show_memory, "seams": show_seams, "compute": compute}[arguments.what](arguments)


if __name__ == "__main__":
    main()
