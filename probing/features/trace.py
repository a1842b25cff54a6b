"""Read every asked block of a transformer in one forward, through nnsight."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, TypeVar

import torch
from nnsight import NNsight, save
from torch import Tensor, nn

Reduced = TypeVar("Reduced")


class BlockTrace:
    """A transformer whose blocks can be read.

    Args:
        transformer: The module itself, not a pipeline: given latents are scored, and no guidance doubles rows.
        blocks_path: Attribute path of its list of blocks.
        streams_of: Names what one block returns, ``{"image": …, "text": …}``.
    """

    def __init__(
        self, transformer: nn.Module, blocks_path: str, streams_of: Callable[[Any], dict[str, Tensor | None]]
    ) -> None:
        self._model = NNsight(transformer)
        self._blocks = attrgetter(blocks_path)(self._model)
        self._num_blocks = len(attrgetter(blocks_path)(transformer))
        self._streams_of = streams_of

    @torch.inference_mode()
    def run(
        self, inputs: dict[str, Any], blocks: Sequence[int], reduce: Callable[[int, dict[str, Tensor | None]], Reduced]
    ) -> list[Reduced]:
        """Run one forward and reduce each asked block's output as soon as it is there.

        The forward stops after the deepest asked block. Reducing inside the trace lets go of a block's tokens
        before the next block makes its own.

        Args:
            inputs: Keyword arguments of the transformer's forward.
            blocks: 0-indexed in running order, increasing.
            reduce: Given the block and its streams; what it returns is kept.

        Returns:
            One entry a block, in the order asked.
        """
        blocks = list(blocks)
        if blocks != sorted(set(blocks)) or not blocks or blocks[0] < 0 or blocks[-1] >= self._num_blocks:
            raise ValueError(f"blocks must increase within 0 … {self._num_blocks - 1}, got {blocks}.")
        # nnsight reads this body from its source and runs it beside the forward: it stands on its own lines.
        with self._model.trace(**inputs) as tracer:
            kept = save([])
            for block in blocks:
                output = self._blocks[block].output
                kept.append(reduce(block, self._streams_of(output)))
            tracer.stop()
        return kept
