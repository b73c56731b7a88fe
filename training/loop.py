"""What every training loop needs: a time budget, checkpoints, EMA weights, optimisers and a log."""

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
    """The torch device called ``name``; ``auto`` is a CUDA device if there is one, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def autocast(device: torch.device) -> AbstractContextManager[Any]:
    """A context in which matrix products and convolutions compute in bfloat16."""
    return torch.autocast(device.type, torch.bfloat16)


def count_parameters(*modules: nn.Module) -> int:
    """Number of parameters of all modules together."""
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def channels_last(x: Tensor) -> Tensor:
    """``x`` [batch, channels, height, width] in torch's channels-last memory format."""
    return x.contiguous(memory_format=torch.channels_last)


def move_module(module: nn.Module, device: torch.device) -> None:
    """Move a module to ``device``, with its convolutions' weights in the channels-last format."""
    module.to(device)
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class EMA:
    """Exponential moving averages (EMA) of the weights of several modules.

    The decay rises with the number of updates up to ``decay``, so that early averages forget the
    random start.
    """

    def __init__(self, modules: Mapping[str, nn.Module], decay: float) -> None:
        self.modules = dict(modules)
        self.decay = decay
        self.updates = 0
        self.state = {name: _copy(module.state_dict()) for name, module in self.modules.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move the averages towards the modules' present weights."""
        self.updates += 1
        step = 1 - min(self.decay, (1 + self.updates) / (20 + self.updates))
        for name, module in self.modules.items():
            weights, averages = module.state_dict(), self.state[name]
            floating = [key for key, value in averages.items() if value.is_floating_point()]
            torch._foreach_lerp_([averages[k] for k in floating], [weights[k] for k in floating], step)
            # Counters, such as a batch norm's number of batches, have no average.
            for key in averages.keys() - set(floating):
                averages[key].copy_(weights[key])

    def checkpoint(self, optimisers: Optimisers, budget: TimeBudget) -> dict[str, Any]:
        """All that training resumes from: EMA weights, present weights, optimisers, budget."""
        weights = {name: module.state_dict() for name, module in self.modules.items()}
        return {**self.state, "now": weights, "optimisers": optimisers.state(), "budget": budget.state()}


def restore(path: Path, modules: Mapping[str, nn.Module], ema: EMA, optimisers: Optimisers, budget: TimeBudget) -> None:
    """Resume training from the checkpoint at ``path``, if there is one."""
    if not path.exists():
        return
    checkpoint = load(path)
    for name, module in modules.items():
        module.load_state_dict(checkpoint["now"][name])
        ema.state[name] = checkpoint[name]
    ema.updates = int(checkpoint["budget"]["steps"])
    optimisers.restore(checkpoint["optimisers"])
    budget.restore(checkpoint["budget"])


def _copy(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in state.items()}


@dataclass
class TimeBudget:
    """The minutes that a stage may train, and what was done in them; checkpoints store it."""

    minutes: float
    seconds: float = 0.0
    steps: int = 0
    samples: int = 0
    _since: float = field(default_factory=time.monotonic)

    @property
    def fraction(self) -> float:
        """Share of the minutes that is used up, from 0 to 1."""
        return min(1.0, self.seconds / (60 * self.minutes))

    @property
    def done(self) -> bool:
        """Whether the minutes are used up."""
        return self.fraction >= 1

    def count(self, samples: int) -> None:
        """Count one step of ``samples`` samples, and the time since the step before."""
        now = time.monotonic()
        # A longer gap is a machine that slept, or a compilation: neither is training.
        self.seconds += min(now - self._since, 60.0)
        self._since = now
        self.steps += 1
        self.samples += samples

    def state(self) -> dict[str, float]:
        """What a checkpoint stores of the budget."""
        return {"seconds": self.seconds, "steps": self.steps, "samples": self.samples}

    def restore(self, state: Mapping[str, float]) -> None:
        """Resume from what :meth:`state` gave."""
        self.seconds, self.steps = float(state["seconds"]), int(state["steps"])
        self.samples = int(state["samples"])


def learning_rate_factor(budget: TimeBudget, warm_up: int = 100, floor: float = 0.01) -> float:
    """Factor of the peak learning rate: linear warm-up over ``warm_up`` steps, then cosine decay.

    The decay ends at ``floor`` (SGDR, arXiv 1608.03983, without restarts). It follows the budget's
    minutes instead of a number of steps.
    """
    cosine = 0.5 * (1 + math.cos(math.pi * budget.fraction))
    return min(1.0, (budget.steps + 1) / warm_up) * (floor + (1 - floor) * cosine)


class Optimisers:
    """Muon for the matrices inside a network and AdamW for all other weights, at one learning rate.

    Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon) orthogonalises a matrix's
    update. Its step is scaled to the root mean square of AdamW's (Liu et al., arXiv 2502.16982), so
    that both take the same learning rate.
    """

    def __init__(self, modules: Iterable[nn.Module], learning_rate: float, weight_decay: float = 0.01) -> None:
        self.learning_rate = learning_rate
        self.parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
        # Narrow matrices, such as the last layer of a head, are left to AdamW.
        matrices = [p for p in self.parameters if p.ndim == 2 and min(p.shape) >= 16]
        chosen = {id(p) for p in matrices}
        others = [p for p in self.parameters if id(p) not in chosen]
        self.optimisers: list[Optimizer] = [
            AdamW(others, learning_rate, betas=(0.9, 0.98), weight_decay=weight_decay, fused=True)
        ]
        if matrices:
            self.optimisers.append(Muon(matrices, learning_rate, weight_decay, adjust_lr_fn="match_rms_adamw"))

    def step(self, loss: Tensor, learning_rate_factor: float, max_norm: float = 1.0) -> Tensor:
        """Take one step down ``loss`` with clipped gradients; returns the gradient's norm."""
        for optimiser in self.optimisers:
            optimiser.zero_grad()
            for group in optimiser.param_groups:
                group["lr"] = self.learning_rate * learning_rate_factor
        loss.backward()  # type: ignore[no-untyped-call]
        norm: Tensor = torch.nn.utils.clip_grad_norm_(self.parameters, max_norm)
        for optimiser in self.optimisers:
            optimiser.step()
        return norm

    def state(self) -> list[dict[str, Any]]:
        """What a checkpoint stores of the optimisers."""
        return [optimiser.state_dict() for optimiser in self.optimisers]

    def restore(self, state: Sequence[dict[str, Any]]) -> None:
        """Resume from what :meth:`state` gave."""
        for optimiser, own in zip(self.optimisers, state, strict=True):
            optimiser.load_state_dict(own)


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint; a kill meanwhile leaves the previous file or this one, complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    torch.save(dict(content), partial)
    partial.replace(path)


def load(path: Path) -> dict[str, Any]:
    """The content of a checkpoint that :func:`save` wrote, on the CPU."""
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return content


class Log:
    """A training log: lines of JSON in a file, and the same as plain text on standard output."""

    def __init__(self, path: Path, stage: str) -> None:
        self.path, self.stage = path, stage
        path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, budget: TimeBudget | None = None, **values: float | int | str) -> None:
        """Write one line: the stage, the time of day, the budget's counts, and ``values``."""
        line: dict[str, float | int | str] = {"stage": self.stage, "time": time.strftime("%H:%M:%S")}
        if budget is not None:
            line |= {"seconds": round(budget.seconds, 1), "steps": budget.steps, "samples": budget.samples}
        line |= {key: round(v, 5) if isinstance(v, float) else v for key, v in values.items()}
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(" ".join(f"{key}={value}" for key, value in line.items()), flush=True)


class RunningMeans:
    """Means of named values over the steps between two lines of the log."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    def add(self, **values: Tensor) -> None:
        """Add one step's values."""
        for key, value in values.items():
            self._sums[key] = self._sums.get(key, torch.zeros(())) + value.detach().float().cpu()
        self._count += 1

    def pop(self) -> dict[str, float]:
        """The means since the previous call, which starts over."""
        means = {key: value.item() / max(1, self._count) for key, value in self._sums.items()}
        self._sums, self._count = {}, 0
        return means
