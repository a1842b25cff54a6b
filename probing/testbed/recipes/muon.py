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

    torch's version orthogonalises one matrix at a time, in bfloat16, which some processors have to emulate. This one
    stacks all matrices of one shape.

    Args:
        parameters: Matrices. Use another optimiser for the rest.
        lr: Learning rate, the spectral norm of a square matrix's step; it does not depend on the width of the model.
        weight_decay: Decoupled, as in AdamW.
        momentum: Decay of the gradients' running mean (Nesterov).
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.0, momentum: float = 0.95
    ) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        if any(p.ndim != 2 for group in self.param_groups for p in group["params"]):
            raise ValueError("Muon takes matrices only; give vectors and kernels to another optimiser.")

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        if closure is not None:
            raise ValueError("Muon takes no closure; compute the gradients before the step.")
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[tuple(sorted(parameter.shape))].append(parameter)
            for parameters in by_shape.values():
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
    """Move the singular values of wide matrices (matrix, row, column) close to one (0.7 to 1.2).

    Runs five steps of a quintic Newton–Schulz iteration, whose coefficients favour speed over convergence. The singular
    vectors do not change. Singular values far below the largest would need more steps and stay below one.
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
