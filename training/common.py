"""What every training recipe needs: a budget of time, checkpoints, averages of weights, a log."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer


def pick_device(name: str = "auto") -> torch.device:
    """`auto` is a CUDA device where there is one, else the CPU; anything else is what torch calls it."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Matrix products and convolutions in bfloat16."""
    return torch.autocast(device.type, torch.bfloat16)


def count_parameters(*modules: nn.Module) -> int:
    """Parameters of all the modules together."""
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def channels_last(x: Tensor) -> Tensor:
    """`x` [batch, channels, height, width] with its channels together in memory."""
    return x.contiguous(memory_format=torch.channels_last)


def place(module: nn.Module, device: torch.device) -> None:
    """Move a module to ``device``, its convolutions' weights laid out for channels that lie together."""
    module.to(device)
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class Ema:
    """Exponential averages of the weights of some modules. Young averages follow faster."""

    def __init__(self, modules: Mapping[str, nn.Module], decay: float) -> None:
        self.modules = dict(modules)
        self.decay = decay
        self.updates = 0
        self.state = {name: _copy(module.state_dict()) for name, module in self.modules.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Moves the averages towards the weights as they are now."""
        self.updates += 1
        share = 1 - min(self.decay, (1 + self.updates) / (20 + self.updates))
        for name, module in self.modules.items():
            now, averages = module.state_dict(), self.state[name]
            floating = [key for key, value in averages.items() if value.is_floating_point()]
            torch._foreach_lerp_([averages[k] for k in floating], [now[k] for k in floating], share)
            for key in averages.keys() - set(floating):
                averages[key].copy_(now[key])

    def checkpoint(self, optimisers: Optimisers, budget: Budget) -> dict[str, Any]:
        """All that training goes on from: averages by name, the weights as they are now, optimisers and budget."""
        now = {name: module.state_dict() for name, module in self.modules.items()}
        return {**self.state, "now": now, "optimisers": optimisers.state(), "budget": budget.state()}


def restore(path: Path, modules: Mapping[str, nn.Module], ema: Ema, optimisers: Optimisers, budget: Budget) -> None:
    """Go on from the checkpoint at ``path``, if there is one."""
    if not path.exists():
        return
    kept = load(path)
    for name, module in modules.items():
        module.load_state_dict(kept["now"][name])
        ema.state[name] = kept[name]
    ema.updates = int(kept["budget"]["steps"])
    optimisers.restore(kept["optimisers"])
    budget.restore(kept["budget"])


def _copy(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in state.items()}


@dataclass
class Budget:
    """A stage's minutes, and what was done in them; survives in the checkpoint."""

    minutes: float
    seconds: float = 0.0
    steps: int = 0
    samples: int = 0
    _since: float = field(default_factory=time.monotonic)

    @property
    def fraction(self) -> float:
        """The share of the minutes that is used up, at most 1."""
        return min(1.0, self.seconds / (60 * self.minutes))

    @property
    def done(self) -> bool:
        """Whether the minutes are used up."""
        return self.fraction >= 1

    def count(self, samples: int) -> None:
        """Notes one step."""
        now = time.monotonic()
        # A machine that slept, or a compilation, is not training.
        self.seconds += min(now - self._since, 60.0)
        self._since = now
        self.steps += 1
        self.samples += samples

    def state(self) -> dict[str, float]:
        """What a checkpoint keeps."""
        return {"seconds": self.seconds, "steps": self.steps, "samples": self.samples}

    def restore(self, state: Mapping[str, float]) -> None:
        """Goes on from what a checkpoint kept."""
        self.seconds, self.steps = float(state["seconds"]), int(state["steps"])
        self.samples = int(state["samples"])


def learning_rate(budget: Budget, warm_up: int = 100, floor: float = 0.01) -> float:
    """1 at its highest: up in a line over `warm_up` steps, then down as a cosine to `floor`."""
    cosine = 0.5 * (1 + math.cos(math.pi * budget.fraction))
    return min(1.0, (budget.steps + 1) / warm_up) * (floor + (1 - floor) * cosine)


class Optimisers:
    """Muon for the matrices inside a network, AdamW for everything else, by one learning rate.

    Muon (Jordan et al., 2024) orthogonalises a matrix's update. Its step is scaled to the size of AdamW's.
    """

    def __init__(
        self, modules: Iterable[nn.Module], rate: float, weight_decay: float = 0.01, muon: bool = True
    ) -> None:
        self.rate = rate
        self.parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
        matrices = [p for p in self.parameters if muon and p.ndim == 2 and min(p.shape) >= 16]
        chosen = {id(p) for p in matrices}
        others = [p for p in self.parameters if id(p) not in chosen]
        self.all: list[Optimizer] = [AdamW(others, rate, betas=(0.9, 0.98), weight_decay=weight_decay, fused=True)]
        if matrices:
            self.all.append(Muon(matrices, rate, weight_decay, adjust_lr_fn="match_rms_adamw"))

    def step(self, loss: Tensor, factor: float, clip: float = 1.0) -> Tensor:
        """One step down `loss`, at `factor` of the learning rate; returns the gradient's norm."""
        for optimiser in self.all:
            optimiser.zero_grad()
            for group in optimiser.param_groups:
                group["lr"] = self.rate * factor
        loss.backward()  # type: ignore[no-untyped-call]
        norm: Tensor = torch.nn.utils.clip_grad_norm_(self.parameters, clip)
        for optimiser in self.all:
            optimiser.step()
        return norm

    def state(self) -> list[dict[str, Any]]:
        """What a checkpoint keeps."""
        return [optimiser.state_dict() for optimiser in self.all]

    def restore(self, state: Sequence[dict[str, Any]]) -> None:
        """Goes on from what a checkpoint kept."""
        for optimiser, kept in zip(self.all, state, strict=True):
            optimiser.load_state_dict(kept)


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a checkpoint so that a kill leaves the one before or this one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    torch.save(dict(content), partial)
    partial.replace(path)


def load(path: Path) -> dict[str, Any]:
    """A checkpoint that `save` wrote, on the CPU."""
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return content


class Log:
    """Lines of JSON in a file, and as plain text on standard output."""

    def __init__(self, path: Path, stage: str) -> None:
        self.path, self.stage = path, stage
        path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, budget: Budget | None = None, **values: float | int | str) -> None:
        """One line: the stage, the time of day, what the budget has counted, and the values."""
        line: dict[str, float | int | str] = {"stage": self.stage, "time": time.strftime("%H:%M:%S")}
        if budget is not None:
            line |= {"seconds": round(budget.seconds, 1), "steps": budget.steps, "samples": budget.samples}
        line |= {key: round(v, 5) if isinstance(v, float) else v for key, v in values.items()}
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(" ".join(f"{key}={value}" for key, value in line.items()), flush=True)


class Means:
    """Running means of named numbers between two lines of a log."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    def add(self, **values: Tensor) -> None:
        """One more of each."""
        for key, value in values.items():
            self._sums[key] = self._sums.get(key, torch.zeros(())) + value.detach().float().cpu()
        self._count += 1

    def take(self) -> dict[str, float]:
        """The means since the last time."""
        means = {key: value.item() / max(1, self._count) for key, value in self._sums.items()}
        self._sums, self._count = {}, 0
        return means
