"""The training loop that all recipes share: steps that depend only on (seed, step), checkpoints that resume."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from probing.errors import UserError
from probing.testbed.recipes.muon import Muon


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train; saved beside the weights.

    ``learning_rate`` is AdamW's, ``matrix_rate`` that of Muon, which takes the matrices given to :func:`train` (0:
    AdamW takes all). ``average`` is the half-life, in steps, of the exponential moving average of the weights (0:
    none). ``precision`` is of the forwards, ``bfloat16`` where the device has it: see :func:`computed_in`.
    """

    steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 0.01
    warmup: int = 100
    average: int = 0
    clip: float = 1.0
    precision: Literal["float32", "bfloat16"] = "float32"
    shape: Literal["cosine", "plateau"] = "cosine"
    seed: int = 0
    matrix_rate: float = 0.0

    def fraction_at(self, step: int) -> float:
        """Fraction of the full rates: linear warm-up, then a cosine down to 1%, or a plateau and a line down to zero.

        Before the descent a plateau does not depend on ``steps``, so such a run can be made longer or
        shorter while it runs.
        """
        if step < self.warmup:
            return (step + 1) / self.warmup
        if self.shape == "plateau":
            return min(1.0, (self.steps - step) / (self.steps - self.fixed_from))
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))

    @property
    def fixed_from(self) -> int:
        """The step from which on the learning rate depends on ``steps``."""
        return int(0.8 * self.steps) if self.shape == "plateau" else 0


def computed_in(device: torch.device, precision: str) -> torch.dtype:
    """Say in what a forward is computed: ``bfloat16`` is granted where the device has instructions for it.

    A CPU without them would emulate it, and take many times as long for a step as in float32.
    """
    can: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    has_bfloat16 = device.type != "cpu" or any(can.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return torch.bfloat16 if precision == "bfloat16" and has_bfloat16 else torch.float32


Loss = Callable[[np.random.Generator], tuple[Tensor, dict[str, float]]]


def train(
    modules: Mapping[str, nn.Module],
    loss: Loss,
    schedule: Schedule,
    folder: Path,
    *,
    matrices: Collection[nn.Parameter] = (),
    fed: str = "",
    checkpoint_every: int = 200,
    stop_after: int | None = None,
    keep: Collection[int] = (),
) -> dict[str, nn.Module]:
    """Minimise ``loss`` over the parameters of ``modules``; continue from ``folder`` if it holds a checkpoint.

    The generator given to ``loss`` is made from (seed, step), so a run that was killed and started again
    sees the same batches as one that was not.

    Args:
        modules: What is trained, by name.
        loss: Draws its own batch from the generator it is given; returns a scalar and numbers for the log.
        schedule: Length, rates and seed.
        folder: Receives ``checkpoint.pt`` and ``log.jsonl`` (one line every 50 steps).
        matrices: Which of the parameters Muon takes where the schedule has a ``matrix_rate``.
        fed: A fingerprint of what ``loss`` draws from; a checkpoint goes on with the same only.
        checkpoint_every: Steps between two checkpoints.
        stop_after: Stop early at this step, with a checkpoint (the schedule stays that of the full run).
        keep: Steps after which the weights (averaged where the schedule averages) are kept too, as
            ``NAME-step00600.safetensors``.

    Returns:
        The modules with averaged weights where ``schedule.average`` asks for it.

    Raises:
        UserError: ``folder`` holds a checkpoint of another schedule, or of a training that was fed otherwise.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parameters = [p for module in modules.values() for p in module.parameters()]
    optimizers = _optimizers(parameters, matrices, schedule)
    averages = [p.detach().clone() for p in parameters] if schedule.average else []
    start = _resume(folder, modules, optimizers, averages, schedule, fed)
    end = min(schedule.steps, stop_after or schedule.steps)
    device = parameters[0].device
    dtype = computed_in(device, schedule.precision)
    computing = torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)
    recent: list[dict[str, float]] = []
    bar = tqdm(range(start, end), initial=start, total=end, desc=folder.name, disable=None)
    for step in bar:
        torch.manual_seed(schedule.seed * 1_000_003 + step)
        for optimizer, rate in zip(optimizers, (schedule.learning_rate, schedule.matrix_rate), strict=False):
            for group in optimizer.param_groups:
                group["lr"] = rate * schedule.fraction_at(step)
        with computing:
            value, numbers = loss(np.random.default_rng([schedule.seed, step]))
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(parameters, schedule.clip)
        for optimizer in optimizers:
            optimizer.step()
        if averages:
            # A young average follows closely, so that it never remembers the initial weights.
            memory = min(0.5 ** (1 / schedule.average), (1 + step) / (10 + step))
            with torch.no_grad():
                torch._foreach_lerp_(averages, [p.detach() for p in parameters], 1 - memory)
        if step + 1 in keep:
            _keep(folder, step + 1, modules, averages)
        recent.append({"loss": float(value.detach()), **numbers})
        if (step + 1) % 50 == 0:
            means = {key: float(np.mean([r[key] for r in recent])) for key in recent[0]}
            recent.clear()
            with (folder / "log.jsonl").open("a") as log:
                log.write(json.dumps({"step": step + 1, **means}) + "\n")
            bar.set_postfix({key: f"{number:.3g}" for key, number in means.items()})
        if (step + 1) % checkpoint_every == 0 or step + 1 == end:
            _save(folder, step + 1, modules, optimizers, averages, schedule, fed)
    with torch.no_grad():
        for parameter, average in zip(parameters if averages else [], averages, strict=True):
            parameter.copy_(average)
    return dict(modules)


def _optimizers(
    parameters: Collection[nn.Parameter], matrices: Collection[nn.Parameter], schedule: Schedule
) -> list[torch.optim.Optimizer]:
    """AdamW, and Muon after it where the schedule has it; only matrices and kernels decay."""
    of_muon = {id(matrix) for matrix in matrices} if schedule.matrix_rate else set()
    others = [p for p in parameters if id(p) not in of_muon]
    groups = [
        {"params": [p for p in others if p.ndim > 1], "weight_decay": schedule.weight_decay},
        {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=schedule.learning_rate, betas=(0.9, 0.98))]
    if of_muon:
        optimizers.append(Muon(matrices, lr=schedule.matrix_rate, weight_decay=schedule.weight_decay))
    return optimizers


def _save(folder: Path, step: int, modules, optimizers, averages, schedule: Schedule, fed: str) -> None:
    state = {
        "step": step,
        "modules": {name: module.state_dict() for name, module in modules.items()},
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "averages": averages,
        "schedule": asdict(schedule),
        "fed": fed,
    }
    partial = folder / "checkpoint.partial"
    torch.save(state, partial)
    os.replace(partial, folder / "checkpoint.pt")


def _keep(folder: Path, step: int, modules: Mapping[str, nn.Module], averages: list[Tensor]) -> None:
    averaged = iter(averages)
    for name, module in modules.items():
        state = module.state_dict()
        state |= {key: next(averaged) for key, _ in module.named_parameters()} if averages else {}
        partial = folder / f"{name}.partial"
        save_file({key: value.contiguous().clone() for key, value in state.items()}, partial)
        os.replace(partial, folder / f"{name}-step{step:05d}.safetensors")


def _resume(folder: Path, modules, optimizers, averages, schedule: Schedule, fed: str) -> int:
    path = folder / "checkpoint.pt"
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True, map_location="cpu")
    saved = Schedule(**state["schedule"])
    lengthened = state["step"] <= min(saved.fixed_from, schedule.fixed_from)
    if saved != (replace(schedule, steps=saved.steps) if lengthened else schedule):
        raise UserError(
            f"{path} was written by another schedule ({saved}); remove the folder, or train with the same settings."
        )
    if state["fed"] != fed:
        raise UserError(f"{path} is of a training that was fed otherwise than this one; remove {folder} to train anew.")
    for name, module in modules.items():
        module.load_state_dict(state["modules"][name])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    for average, saved in zip(averages, state["averages"], strict=True):
        average.copy_(saved)
    return int(state["step"])
