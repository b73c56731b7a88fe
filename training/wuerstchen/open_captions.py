"""Continues Stage C from the published weights, so that it also counts right by open captions.

By a caption such as "three yellow boats", which leaves sky, ground and place open, the noise's
error teaches the mean of all pictures that the caption allows, and guidance amplifies that mean: in
early steps there are boats wherever boats may be, and a fourth one stays.

So an open caption is completed. Where the place is left open, the subjects stand in the middle: the
caption alone decides, before any noise does. The other attributes follow what the noise already
shows: a reader of noised codes guesses them, and prefers the likelier ones by far more than their
odds. The target is what the published Stage C predicts by a complete caption of these attributes.
So Stage C decides early, and then keeps to its decision. Complete and empty captions keep what the
published Stage C predicts.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from training.captions import encode, hidden_states, load_tokenizer, text_encoder
from training.loop import (
    EMA,
    Log,
    Optimisers,
    RunningMeans,
    TimeBudget,
    autocast,
    channels_last,
    learning_rate_factor,
    load,
    restore,
    save,
)
from training.losses import CLASSES
from training.scene_dataset import SceneDataset
from training.world import ATTRIBUTES, Scene, caption_of
from training.wuerstchen import noise_reader
from training.wuerstchen.config import PRIOR_TEXT, image_encoder, stage_c
from training.wuerstchen.image_encoder import encode_all
from training.wuerstchen.noise_reader import NoiseReader, guess
from training.wuerstchen.noise_schedule import cosine_alpha_cumprod, loss_weight

CHECKPOINT: Final = Path(__file__).parents[1] / "checkpoints" / "storybook-wuerstchen"
BATCH_SIZE = 64
LEARNING_RATE = 7e-4
OPEN_SHARE = 0.7
EMPTY_SHARE = 0.1
SHARPNESS = 8.0
STEPS = 30
"""Steps in which Stage C usually draws."""

EARLY_STEPS = 6
EARLY_SHARE = 0.3
"""Share of samples at the times of the early steps, which decide what the caption leaves open."""

LEAST_SIGNAL = 0.01
"""The reader takes noisier samples as if their ᾱ were this: then even pure noise decides."""

READER_MINUTES = 3.0
OPEN_PER_SCENE = 4
COMPLETE_PER_COMBINATION = 2

_OPEN: Final = tuple(name for name in ATTRIBUTES if name != "kind")
_PLACE: Final = list(ATTRIBUTES).index("place")
_MIDDLE: Final = ATTRIBUTES["place"].index("middle")
_WEIGHTS: Final = {"colour": 2, "count": 1}
"""How often colour and count are left open, compared with 4 for the others."""


@dataclass(frozen=True)
class Texts:
    """Captions as token ids.

    ``open`` [scenes, OPEN_PER_SCENE, length] states the attributes that ``stated`` [scenes,
    OPEN_PER_SCENE, attributes] says. ``complete`` [combinations, COMPLETE_PER_COMBINATION, length]
    states all. Every id has a mask of the same shape.
    """

    open: Tensor
    open_mask: Tensor
    stated: Tensor
    complete: Tensor
    complete_mask: Tensor
    empty: Tensor
    empty_mask: Tensor


def left_open(rng: random.Random) -> set[str]:
    """One to five attributes that a caption leaves open; fewer are more frequent."""
    names = sorted(_OPEN, key=lambda name: -(rng.random() ** (4 / _WEIGHTS.get(name, 4))))
    return set(names[: rng.choice((1, 1, 1, 2, 2, 2, 3, 3, 4, 5))])


def combination(labels: Tensor) -> Tensor:
    """The number [n] of each combination of attributes [n, attributes], as in a mixed radix."""
    number = torch.zeros(len(labels), dtype=torch.long)
    for i, count in enumerate(CLASSES):
        number = number * count + labels[:, i].cpu()
    return number


def scene_of(number: int) -> Scene:
    """The scene of a combination's number."""
    labels: list[int] = []
    for count in reversed(CLASSES):
        number, label = divmod(number, count)
        labels.append(label)
    return Scene.from_labels(tuple(reversed(labels)))


def load_texts(labels: Tensor, work: Path) -> Texts:
    """The captions of scenes with these labels, stored in ``work/open_captions.pt``."""
    path = work / "open_captions.pt"
    if not path.exists():
        tokenizer, rng = load_tokenizer(work), random.Random(1)
        texts, stated = [], []
        for row in labels.tolist():
            for _ in range(OPEN_PER_SCENE):
                names = set(ATTRIBUTES) - left_open(rng)
                texts.append(caption_of(Scene.from_labels(tuple(row)), names, rng))
                stated.append([name in names for name in ATTRIBUTES])
        combinations = int(torch.tensor(CLASSES).prod())
        complete = [
            caption_of(scene_of(number), set(ATTRIBUTES), rng)
            for number in range(combinations)
            for _ in range(COMPLETE_PER_COMBINATION)
        ]
        shapes = {"open": (len(labels), OPEN_PER_SCENE), "complete": (combinations, COMPLETE_PER_COMBINATION)}
        stored = {"stated": torch.tensor(stated).view(*shapes["open"], -1)}
        for name, written in (("open", texts), ("complete", complete)):
            ids, mask = encode(written, tokenizer)
            stored |= {name: ids.view(*shapes[name], -1), f"{name}_mask": mask.view(*shapes[name], -1)}
        ids, mask = encode([""], tokenizer)
        save(path, {**stored, "empty": ids[0], "empty_mask": mask[0]})
    return Texts(**load(path))


def load_codes(data: Path, work: Path, device: torch.device) -> Tensor:
    """The codes of the training scenes by the published image encoder, from ``work/codes_train.pt``."""
    path = work / "codes_train.pt"
    if not path.exists():
        encoder = image_encoder()
        encoder.load_state_dict(_published("image_encoder/model"))
        z = encode_all(encoder.to(device).float(), SceneDataset(data, "train").small_images, device)
        save(path, {"z": z})
    codes: Tensor = load(path)["z"]
    return codes


def _published(name: str) -> dict[str, Tensor]:
    weights = load_file(CHECKPOINT / f"{name}.safetensors")
    return {key: value.float() if value.is_floating_point() else value for key, value in weights.items()}


def published_modules(work: Path) -> dict[str, nn.Module]:
    """Stage C and its text encoder with the published weights."""
    modules: dict[str, nn.Module] = {"stage": stage_c(), "text": text_encoder(load_tokenizer(work), **PRIOR_TEXT)}
    modules["stage"].load_state_dict(_published("prior_prior/diffusion_pytorch_model"))
    modules["text"].load_state_dict(_published("prior_text_encoder/model"))
    return modules


def complete(reader: nn.Module, x: Tensor, alpha_cumprod: Tensor, labels: Tensor, stated: Tensor) -> Tensor:
    """``labels`` [n, attributes] where ``stated``; elsewhere what ``x`` seems to show."""
    logits = reader(x, alpha_cumprod.clamp(min=LEAST_SIGNAL), labels, stated)
    return torch.where(stated, labels, guess(logits, SHARPNESS))


def random_times(count: int) -> Tensor:
    """Times [n] in [0, 1], many of them near those of the sampler's early steps."""
    usual = torch.rand(count) ** 0.5
    step = torch.randint(0, EARLY_STEPS, (count,))
    early = (1 - (step + torch.rand(count) - 0.5) / STEPS).clamp(max=1.0)
    return torch.where(torch.rand(count) < EARLY_SHARE, early, usual)


def _noised(codes: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
    alpha_cumprod = cosine_alpha_cumprod(times)[:, None, None, None]
    noise = torch.randn_like(codes)
    return channels_last(alpha_cumprod.sqrt() * codes + (1 - alpha_cumprod).sqrt() * noise), alpha_cumprod


def train(data: Path, work: Path, minutes: float, device: torch.device, reader_minutes: float = READER_MINUTES) -> None:
    """Continue Stage C by open captions; resumes from ``work/stage_c.pt`` if that exists."""
    codes, labels = load_codes(data, work, device), SceneDataset(data, "train").labels
    texts = load_texts(labels, work)
    reader = noise_reader.train(codes, labels, work, reader_minutes, device)
    torch.manual_seed(0)
    teacher, modules = published_modules(work), published_modules(work)
    for module in (*teacher.values(), *modules.values()):
        module.to(device)
    for module in teacher.values():
        module.eval().requires_grad_(False)
    for module in modules.values():
        module.train()
    ema, optimisers = EMA(modules, 0.998), Optimisers(modules.values(), LEARNING_RATE, 0.02)
    budget, log, means = TimeBudget(minutes), Log(work / "log.jsonl", "open-captions"), RunningMeans()
    path = work / "stage_c.pt"
    restore(path, modules, ema, optimisers, budget)
    frequency = labels[:, list(ATTRIBUTES).index("count")] + 1.0  # three are harder to draw than one
    while not budget.done:
        picked = torch.multinomial(frequency, BATCH_SIZE)
        times = random_times(BATCH_SIZE).to(device)
        x, alpha_cumprod = _noised(codes[picked].to(device), times)
        asked, answered, is_open = _captions(texts, reader, picked, x, alpha_cumprod[:, 0, 0, 0], labels[picked])
        with autocast(device):
            with torch.no_grad():
                target = _predict(teacher, x, times, *answered).float()
            predicted = _predict(modules, x, times, *asked).float()
        error = ((predicted - target).square() * loss_weight(alpha_cumprod)).mean(dim=(1, 2, 3))
        norm = optimisers.step(error.mean(), learning_rate_factor(budget))
        budget.count(BATCH_SIZE)
        ema.update()
        means.add(open=error[is_open].mean(), others=error[~is_open].mean(), gradient=norm)
        if budget.steps % 100 == 0 or budget.done:
            log.write(budget, **means.pop())
            save(path, ema.checkpoint(optimisers, budget))


Ids = tuple[Tensor, Tensor]
"""Token ids and mask [n, length]."""


def _captions(
    texts: Texts, reader: NoiseReader, picked: Tensor, x: Tensor, alpha_cumprod: Tensor, labels: Tensor
) -> tuple[Ids, Ids, Tensor]:
    """The captions of a batch, the teacher's for the same samples, and which are open [n]."""
    count, device = len(picked), x.device
    roll = torch.rand(count)
    is_open, is_empty = roll < OPEN_SHARE, roll > 1 - EMPTY_SHARE
    which = torch.randint(0, OPEN_PER_SCENE, (count,))
    # Where the place is left open, the subjects stand in the middle.
    is_open &= texts.stated[picked, which, _PLACE] | (labels[:, _PLACE] == _MIDDLE)
    stated = texts.stated[picked, which] | ~is_open[:, None]
    stated[:, _PLACE] = True
    shown = complete(reader, x, alpha_cumprod, labels.to(device), stated.to(device))
    number, version = combination(shown), torch.randint(0, COMPLETE_PER_COMBINATION, (count,))
    ids, mask = texts.complete[number, version], texts.complete_mask[number, version]
    ids[is_empty], mask[is_empty] = texts.empty, texts.empty_mask
    answered = (ids.long().to(device), mask.long().to(device))
    ids = torch.where(is_open[:, None], texts.open[picked, which], ids)
    mask = torch.where(is_open[:, None], texts.open_mask[picked, which], mask)
    return (ids.long().to(device), mask.long().to(device)), answered, is_open.to(device)


def _predict(modules: dict[str, nn.Module], x: Tensor, times: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    stage, text = modules["stage"], modules["text"]
    predicted: Tensor = stage(x, times, hidden_states(text, ids, mask))
    return predicted
