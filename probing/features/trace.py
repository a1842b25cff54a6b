"""Read chosen blocks of a transformer in one forward, and change what they give, through nnsight."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import attrgetter
from typing import Any, TypeAlias, TypeVar

import torch
from jaxtyping import Float
from nnsight import NNsight, save
from torch import Tensor

from probing.backbones import Backbone, Conditioning, Layout, Streams
from probing.errors import UserError

Reduced = TypeVar("Reduced")
Edit: TypeAlias = Callable[[Streams], Streams]
"""Takes the streams of a block, and returns those to be changed, with their new tokens; it changes none in place."""


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
        edits: Mapping[int, Edit] | None = None,
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
            edits: Change the streams of some blocks, before they are reduced and before the next block reads them.

        Returns:
            One entry a block, in the order of ``blocks``.

        Raises:
            UserError: As :meth:`velocity`.
        """
        blocks = list(blocks)
        if blocks != sorted(set(blocks)) or not blocks or blocks[0] < 0 or blocks[-1] >= len(self._blocks):
            raise ValueError(f"blocks must increase within 0 … {len(self._blocks) - 1}, got {blocks}.")
        with torch.enable_grad() if gradients else torch.inference_mode():
            return self._read(inputs, layout, blocks, reduce, edits or {})

    @torch.inference_mode()
    def velocity(
        self,
        noisy: Float[Tensor, "item channel row column"],
        conditioning: Conditioning,
        sigma: float,
        edits: Mapping[int, Edit],
    ) -> Float[Tensor, "item channel row column"]:
        """Return the backbone's velocity with the streams of some blocks changed.

        Args:
            noisy: As for :meth:`probing.backbones.Backbone.velocity`.
            conditioning: See there.
            sigma: See there.
            edits: By block, 0-indexed in running order.

        Raises:
            UserError: A block has no such stream, an edit returns another shape, or a family gives a copy of the
                stream, so that the edit would have no effect.
        """
        layout = self._backbone.layout(noisy, conditioning)
        transformer = self._backbone.transformer
        self._backbone.transformer = _Edited(transformer, lambda inputs: self._whole(inputs, layout, edits))
        try:
            return self._backbone.velocity(noisy, conditioning, sigma)
        finally:
            self._backbone.transformer = transformer

    def _read(
        self,
        inputs: dict[str, Any],
        layout: Layout,
        blocks: Sequence[int],
        reduce: Callable[[int, Streams], Reduced],
        edits: Mapping[int, Edit],
    ) -> list[Reduced]:
        # nnsight reads this body from its source and runs it beside the forward: it stands on its own lines.
        with self._model.trace(**inputs) as tracer:
            reduced = save([])
            for block in sorted({*blocks, *(block for block in edits if block <= blocks[-1])}):
                output = self._blocks[block].output
                if block in edits:
                    self._edit(block, output, layout, edits[block])
                if block in blocks:
                    reduced.append(reduce(block, self._backbone.streams(block, output, layout)))
            tracer.stop()
        return reduced

    def _whole(self, inputs: dict[str, Any], layout: Layout, edits: Mapping[int, Edit]) -> Any:
        with self._model.trace(**inputs):
            for block in sorted(edits):
                output = self._blocks[block].output
                self._edit(block, output, layout, edits[block])
            result = save(self._model.output)
        # Behind the trace: a return within it is not run.
        return result  # noqa: RET504

    def _edit(self, block: int, output: Any, layout: Layout, edit: Edit) -> None:
        """Change streams where they lie, and make sure that the output has changed with them."""
        streams = self._backbone.streams(block, output, layout)
        changed = {name: tokens for name, tokens in edit(streams).items() if tokens is not None}
        for name, tokens in changed.items():
            before = streams.get(name)
            if before is None:
                raise UserError(f"Block {block} has no {name} stream; edit another block or stream.")
            if tokens.shape != before.shape:
                raise UserError(
                    f"An edit of block {block} returned {name} tokens of shape {tuple(tokens.shape)}, expected "
                    f"{tuple(before.shape)}."
                )
            before.copy_(tokens)
        after = self._backbone.streams(block, output, layout)
        for name, tokens in changed.items():
            now = after[name]
            if now is None or not torch.equal(now, tokens.to(now.dtype)):
                raise UserError(
                    f"{self._backbone.spec.name} gives a copy of the {name} tokens of block {block}, so that an edit "
                    f"has no effect; edit the image stream."
                )


class _Edited:
    """Stands for a transformer whose calls go through a function."""

    def __init__(self, transformer: Any, call: Callable[[dict[str, Any]], Any]) -> None:
        self._transformer, self._call = transformer, call

    def __call__(self, **inputs: Any) -> Any:
        return self._call(inputs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transformer, name)
