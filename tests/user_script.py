"""A program as a user writes it. It is never run: `mypy --strict` checks it, and finds what is changed to be wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from vinograph import Pipeline, RequestError, Result, Step


def draw(model: str, prompts: list[str], folder: Path) -> list[Path]:
    """Draw each prompt, showing how far it is, and write the pictures."""
    pipe = Pipeline.from_pretrained(model, device={"prior": "GPU", "vqgan": "CPU"}, precision="auto")
    files: list[Path] = []
    for step in pipe.stream(prompts, negative_prompt="blurred", num_images_per_prompt=2, seed=7):
        if isinstance(step, Step):
            print(f"{step.stage} {step.index}/{step.total}")
        else:
            for index, picture in enumerate(step.images):
                files.append(folder / f"{index}.png")
                picture.save(files[-1])
    return files


def redraw(pipe: Pipeline, start: Image.Image) -> Result:
    """Draw from a picture and from arrays; by position what diffusers takes by position."""
    pipe("a red house", 512, 512, guidance_scale=4.5, prior_timesteps="spaced", output_type="np")
    pipe("a red house", latents=np.zeros((1, 4, 32, 32)), generator=np.random.RandomState(7), eta=0.5)
    embeddings = pipe.prior("a red house", 1024, 1024, seed=7).image_embeddings
    pipe.decoder(embeddings, "a red house", num_inference_steps=12)
    try:
        return pipe("a red house", image=start, strength=0.6, mask_image="mask.png", original_size=(512, 512))
    except RequestError as error:
        print(error)
    return pipe.reconstruct(start, vae="full")
