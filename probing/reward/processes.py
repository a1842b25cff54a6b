"""Training by several processes, one a device, as ``accelerate launch`` or ``torchrun`` starts them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

_Item = TypeVar("_Item")


class Processes:
    """The processes of this training; one, if no launcher started several.

    Attributes:
        count: Number of processes.
        index: Number of this process, from 0.
        device: Its device in torch's notation; None for a process alone, which chooses as it likes.
    """

    def __init__(self) -> None:
        self.count, self.index = 1, 0
        self.device: str | None = None
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            from accelerate import PartialState

            state = PartialState(cpu=not torch.cuda.is_available())
            self.count, self.index, self.device = state.num_processes, state.process_index, str(state.device)

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and prints."""
        return self.index == 0

    def share(self, items: Sequence[_Item]) -> list[_Item]:
        """Return the items of this process."""
        return list(items[self.index :: self.count])

    def gather(self, values: Sequence[_Item]) -> list[_Item]:
        """Return the values of all processes, process by process."""
        if self.count == 1:
            return list(values)
        from accelerate.utils import gather_object

        return list(gather_object(list(values)))

    def sum(self, value: Tensor) -> Tensor:
        """Add a tensor over all processes."""
        if self.count == 1:
            return value
        there = value.detach().to(self.device, copy=True)
        torch.distributed.all_reduce(there)
        return there.to(value.device)

    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Add the gradients of all processes; a parameter that has none anywhere keeps none."""
        if self.count == 1:
            return
        present = self.sum(torch.tensor([float(parameter.grad is not None) for parameter in parameters]))
        for parameter, processes in zip(parameters, present.tolist(), strict=True):
            if processes:
                own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad = self.sum(own)

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.count > 1:
            torch.distributed.barrier()

    def on(self, device: str) -> str:
        """Return this process's device in place of one that was requested for a single process."""
        return self.device or device
