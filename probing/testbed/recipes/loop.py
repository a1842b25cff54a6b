"""The training loop of all recipes. A step depends only on (seed, step), and checkpoints resume."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from probing.errors import UserError
from probing.files import replace_file, write_bytes
from probing.progress import progress
from probing.testbed.recipes.muon import Muon


@dataclass(frozen=True)
class Schedule:
    """Settings of a training; saved beside the weights.

    Attributes:
        steps: Number of steps.
        batch_size: Samples a step.
        learning_rate: Of AdamW.
        weight_decay: Decoupled; of matrices and kernels only.
        warmup: Steps of linear warm-up.
        average: Half-life, in steps, of the exponential moving average of the weights; 0 for none.
        clip: Largest norm of the gradient.
        precision: Of the forwards; see :func:`computed_in`.
        shape: How the learning rate decays; see :meth:`fraction_at`.
        seed: Of batches and of torch's random numbers.
        matrix_rate: Learning rate of Muon, which optimises the matrices given to :func:`train`; 0 to leave them to
            AdamW.
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
        """Return the fraction of the full learning rate at a step.

        A linear warm-up comes first, then either a cosine that decays to 1%, or a plateau and a linear decay to zero
        over the last fifth. On the plateau the rate does not depend on ``steps``, so a resumed run may change them.
        """
        if step < self.warmup:
            return (step + 1) / self.warmup
        if self.shape == "plateau":
            return min(1.0, (self.steps - step) / (self.steps - self.fixed_from))
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))

    @property
    def fixed_from(self) -> int:
        """The step from which the learning rate depends on ``steps``."""
        return int(0.8 * self.steps) if self.shape == "plateau" else 0


def computed_in(device: torch.device, precision: str) -> torch.dtype:
    """Choose the dtype of a forward: ``bfloat16`` on request, if the device has instructions for it.

    A CPU without them emulates bfloat16, many times slower than float32.
    """
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    has_bfloat16 = device.type != "cpu" or any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return torch.bfloat16 if precision == "bfloat16" and has_bfloat16 else torch.float32


Loss = Callable[[np.random.Generator], tuple[Tensor, dict[str, float]]]


def train(
    modules: Mapping[str, nn.Module],
    loss: Loss,
    schedule: Schedule,
    folder: Path,
    *,
    matrices: Collection[nn.Parameter] = (),
    inputs: str = "",
    checkpoint_every: int = 200,
    stop_after: int | None = None,
    keep: Collection[int] = (),
) -> dict[str, nn.Module]:
    """Minimise ``loss`` over the parameters of ``modules``; resume if ``folder`` holds a checkpoint.

    The generator passed to ``loss`` is seeded with (seed, step), so a resumed run draws the same batches as an
    uninterrupted one.

    Args:
        modules: The modules to train, by name.
        loss: Draws a batch from the given generator; returns a scalar and numbers for the log.
        schedule: Length, learning rates and seed.
        folder: Receives ``checkpoint.pt`` and ``log.jsonl`` (one line every 50 steps).
        matrices: The parameters that Muon optimises, if the schedule has a ``matrix_rate``.
        inputs: A fingerprint of the data that ``loss`` draws from; a checkpoint resumes only with the same.
        checkpoint_every: Steps between two checkpoints.
        stop_after: Stop early after this step, with a checkpoint; the schedule is that of the full run.
        keep: Steps after which the weights are saved as ``NAME-step00600.safetensors``, averaged if the schedule
            averages.

    Returns:
        The modules, with averaged weights if the schedule averages.

    Raises:
        UserError: ``folder`` holds a checkpoint of another schedule or of other inputs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parameters = [p for module in modules.values() for p in module.parameters()]
    optimizers = _optimizers(parameters, matrices, schedule)
    averages = [p.detach().clone() for p in parameters] if schedule.average else []
    start = _resume(folder, modules, optimizers, averages, schedule, inputs)
    end = min(schedule.steps, stop_after or schedule.steps)
    device = parameters[0].device
    dtype = computed_in(device, schedule.precision)
    autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)
    recent: list[dict[str, float]] = []
    for step in _steps(start, end, folder.name):
        torch.manual_seed(schedule.seed * 1_000_003 + step)
        for optimizer, rate in zip(optimizers, (schedule.learning_rate, schedule.matrix_rate), strict=False):
            for group in optimizer.param_groups:
                group["lr"] = rate * schedule.fraction_at(step)
        with autocast:
            value, numbers = loss(np.random.default_rng([schedule.seed, step]))
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(parameters, schedule.clip)
        for optimizer in optimizers:
            optimizer.step()
        if averages:
            # Warm up the decay, so that the initial weights do not linger.
            decay = min(0.5 ** (1 / schedule.average), (1 + step) / (10 + step))
            with torch.no_grad():
                torch._foreach_lerp_(averages, [p.detach() for p in parameters], 1 - decay)
        if step + 1 in keep:
            _save_weights(folder, step + 1, modules, averages)
        recent.append({"loss": float(value.detach()), **numbers})
        if (step + 1) % 50 == 0:
            means = {key: float(np.mean([r[key] for r in recent])) for key in recent[0]}
            recent.clear()
            with (folder / "log.jsonl").open("a") as log:
                log.write(json.dumps({"step": step + 1, **means}) + "\n")
        if (step + 1) % checkpoint_every == 0 or step + 1 == end:
            _save_checkpoint(folder, step + 1, modules, optimizers, averages, schedule, inputs)
    with torch.no_grad():
        for parameter, average in zip(parameters if averages else [], averages, strict=True):
            parameter.copy_(average)
    return dict(modules)


def _steps(start: int, end: int, name: str) -> Iterator[int]:
    with progress(end - start, name if start == 0 else f"{name}, from step {start:,}", "steps") as bar:
        for step in range(start, end):
            yield step
            bar.update()


def _optimizers(
    parameters: Collection[nn.Parameter], matrices: Collection[nn.Parameter], schedule: Schedule
) -> list[torch.optim.Optimizer]:
    """Make AdamW, and Muon if the schedule has a ``matrix_rate``; only matrices and kernels decay."""
    muon = {id(matrix) for matrix in matrices} if schedule.matrix_rate else set()
    adamw = [p for p in parameters if id(p) not in muon]
    groups = [
        {"params": [p for p in adamw if p.ndim > 1], "weight_decay": schedule.weight_decay},
        {"params": [p for p in adamw if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=schedule.learning_rate, betas=(0.9, 0.98))]
    if muon:
        optimizers.append(Muon(matrices, lr=schedule.matrix_rate, weight_decay=schedule.weight_decay))
    return optimizers


def _save_checkpoint(
    folder: Path,
    step: int,
    modules: Mapping[str, nn.Module],
    optimizers: Sequence[torch.optim.Optimizer],
    averages: list[Tensor],
    schedule: Schedule,
    inputs: str,
) -> None:
    state = {
        "step": step,
        "modules": {name: module.state_dict() for name, module in modules.items()},
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "averages": averages,
        "schedule": asdict(schedule),
        "inputs": inputs,
    }
    with replace_file(folder / "checkpoint.pt") as file:
        torch.save(state, file)


def _save_weights(folder: Path, step: int, modules: Mapping[str, nn.Module], averages: list[Tensor]) -> None:
    averaged = iter(averages)
    for name, module in modules.items():
        state = module.state_dict()
        state |= {key: next(averaged) for key, _ in module.named_parameters()} if averages else {}
        content = save({key: value.contiguous().clone() for key, value in state.items()})
        write_bytes(folder / f"{name}-step{step:05d}.safetensors", content)


def _resume(
    folder: Path,
    modules: Mapping[str, nn.Module],
    optimizers: Sequence[torch.optim.Optimizer],
    averages: list[Tensor],
    schedule: Schedule,
    inputs: str,
) -> int:
    path = folder / "checkpoint.pt"
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True, map_location="cpu")
    saved = Schedule(**state["schedule"])
    may_change_steps = state["step"] <= min(saved.fixed_from, schedule.fixed_from)
    if saved != (replace(schedule, steps=saved.steps) if may_change_steps else schedule):
        raise UserError(
            f"{path} was written by another schedule ({saved}); remove the folder, or train with the same settings."
        )
    if state["inputs"] != inputs:
        raise UserError(f"{path} belongs to a training on other inputs; remove {folder} to start a new training.")
    for name, module in modules.items():
        module.load_state_dict(state["modules"][name])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    for average, saved in zip(averages, state["averages"], strict=True):
        average.copy_(saved)
    return int(state["step"])
