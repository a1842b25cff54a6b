"""Read chosen blocks of a transformer in one forward, through nnsight."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from typing import Any, TypeVar

import torch
from nnsight import NNsight, save

from probing.backbones import Backbone, Layout, Streams

Reduced = TypeVar("Reduced")


@contextmanager
def plain_objects() -> Iterator[None]:
    """Take back nnsight's patch of ``object`` for the time of a ``with`` block.

    nnsight gives every Python object an attribute ``save``, with which anyio, for one, cannot be imported.
    """
    try:
        from nnsight._c import mount, unmount
    except ImportError:
        # Without its C extension nnsight patches nothing.
        yield
        return
    patched = hasattr(object, "save")
    if patched:
        unmount("save")
    try:
        yield
    finally:
        if patched:
            mount(save, "save")


class _Transformer(NNsight):
    """Leaves inputs on the device; nnsight would move them to where weights rest between their turns."""

    device = None


class BlockTrace:
    """A transformer whose blocks can be read; blocks are numbered through all of its lists, in running order.

    Args:
        backbone: Its transformer is wrapped, not its pipeline: given latents are read, and no guidance doubles rows.
    """

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self._model = _Transformer(backbone.transformer)
        self._blocks = [
            attrgetter(path)(self._model)[i]
            for path in backbone.block_lists
            for i in range(len(attrgetter(path)(backbone.transformer)))
        ]

    def run(
        self,
        inputs: dict[str, Any],
        layout: Layout,
        blocks: Sequence[int],
        reduce: Callable[[int, Streams], Reduced],
        *,
        gradients: bool = False,
    ) -> list[Reduced]:
        """Run one forward and reduce each chosen block's output as soon as it is computed.

        The forward stops after the deepest chosen block. Reducing inside the trace frees a block's tokens before the
        next block makes its own.

        Args:
            inputs: Keyword arguments of the transformer's forward.
            layout: Where image and text lie in joined sequences of this forward.
            blocks: 0-indexed in running order, increasing.
            reduce: Takes the block and its streams; what it returns is kept.
            gradients: Keep what a gradient by the inputs needs.

        Returns:
            One entry a block, in the order of ``blocks``.
        """
        blocks = list(blocks)
        if blocks != sorted(set(blocks)) or not blocks or blocks[0] < 0 or blocks[-1] >= len(self._blocks):
            raise ValueError(f"blocks must increase within 0 … {len(self._blocks) - 1}, got {blocks}.")
        with torch.enable_grad() if gradients else torch.inference_mode():
            return self._read(inputs, layout, blocks, reduce)

    def _read(
        self, inputs: dict[str, Any], layout: Layout, blocks: Sequence[int], reduce: Callable[[int, Streams], Reduced]
    ) -> list[Reduced]:
        # nnsight reads this body from its source and runs it beside the forward: it stands on its own lines.
        with self._model.trace(**inputs) as tracer:
            reduced = save([])
            for block in blocks:
                output = self._blocks[block].output
                reduced.append(reduce(block, self._backbone.streams(block, output, layout)))
            tracer.stop()
        return reduced
