"""Muon: gradient descent on matrices by orthogonalised momentum."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024): the steps of ``torch.optim.Muon``, in the precision of the parameters.

    That one orthogonalises matrix after matrix in bfloat16, which processors without its instructions emulate; here
    all of one shape go together.

    Args:
        parameters: Matrices; for all else use another optimiser.
        lr: Learning rate: the spectral norm of a square matrix's step, so that one serves models of any width.
        weight_decay: Decoupled, as AdamW's.
        momentum: Of the gradients' running mean (Nesterov's).
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.0, momentum: float = 0.95
    ) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        if any(p.ndim != 2 for group in self.param_groups for p in group["params"]):
            raise ValueError("Muon takes matrices only; give vectors and kernels to another optimiser.")

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Take a step by the gradients at hand; parameters without one stay as they are."""
        if closure is not None:
            raise ValueError("Muon takes no closure; compute the gradients before the step.")
        for group in self.param_groups:
            alike: dict[tuple[int, ...], list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike[tuple(sorted(parameter.shape))].append(parameter)
            for parameters in alike.values():
                updates = orthogonalise(torch.stack([_wide(self._momentum(p, group["momentum"])) for p in parameters]))
                for parameter, update in zip(parameters, updates, strict=True):
                    rows, columns = parameter.shape
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(
                        update if _is_wide(parameter) else update.mT,
                        alpha=-group["lr"] * math.sqrt(max(1.0, rows / columns)),
                    )

    def _momentum(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        gradient = parameter.grad
        assert gradient is not None
        mean = self.state[parameter].setdefault("mean", torch.zeros_like(parameter))
        mean.lerp_(gradient, 1 - momentum)
        return gradient.lerp(mean, momentum)


def orthogonalise(matrices: Tensor) -> Tensor:
    """Bring the singular values of wide matrices (matrix, row, column) near one (0.7 to 1.2), their vectors kept.

    Five steps of a quintic Newton–Schulz iteration, whose coefficients favour speed over convergence. Singular values
    far below the largest need more than five, and stay below one.
    """
    a, b, c = _COEFFICIENTS
    matrices = matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(_ITERATIONS):
        gram = matrices @ matrices.mT
        matrices = torch.baddbmm(matrices, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), matrices, beta=a)
    return matrices


def _is_wide(matrix: Tensor) -> bool:
    return matrix.shape[0] <= matrix.shape[1]


def _wide(matrix: Tensor) -> Tensor:
    return matrix if _is_wide(matrix) else matrix.mT
