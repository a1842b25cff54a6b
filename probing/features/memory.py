"""What to do when memory runs out: halve a batch and go on, or say in one sentence what would fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from probing.backbones import Backbone
from probing.errors import UserError

Result = TypeVar("Result")


class FittingBatches:
    """Batches that are halved when the device's memory runs out, and stay so.

    Attributes:
        size: Largest number of rows that is tried; None until memory runs out.
    """

    def __init__(self) -> None:
        self.size: int | None = None

    def run(self, batch: slice, work: Callable[[slice], Result]) -> Iterator[tuple[slice, Result]]:
        """Run a batch, whole or in the parts that fit; no row is left out, and none gives two results.

        Args:
            batch: Rows.
            work: Takes rows, and is repeated with fewer of them if it runs out of memory.

        Yields:
            Rows and their result, in order.

        Raises:
            torch.OutOfMemoryError: A single row does not fit.
        """
        start = batch.start
        while start < batch.stop:
            rows = slice(start, min(batch.stop, start + (self.size or batch.stop - batch.start)))
            try:
                result = work(rows)
            except torch.OutOfMemoryError:
                if rows.stop - rows.start == 1:
                    raise
                self.size = (rows.stop - rows.start) // 2
            else:
                yield rows, result
                start = rows.stop
                continue
            # Outside of the except block, whose exception still holds the tensors of the forward.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


@contextmanager
def sentence_for_full_memory(backbone: Backbone, resolution: int) -> Iterator[None]:
    """Turn an out-of-memory error into one sentence; batches were halved down to one item before.

    Args:
        backbone: Names the device.
        resolution: Of the pictures.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"{backbone.device} ran out of memory with a single item of {resolution}²; give a lower --resolution, "
            f"--compute-dtype bfloat16, or a smaller model."
        ) from error
