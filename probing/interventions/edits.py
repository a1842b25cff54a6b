"""Edits of a block's streams, for :meth:`probing.features.trace.BlockTrace.run` and its ``velocity``."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from probing.backbones import Streams
from probing.features.trace import Edit
from probing.interventions.erasure import Eraser

ALL_ROWS = slice(None)


def steer(direction: Float[Tensor, " channel"], dose: float, *, stream: str = "image", rows: slice = ALL_ROWS) -> Edit:
    """Add a direction to every token, so that the mean over tokens moves by it.

    Args:
        direction: In the units of the block's output, such as a probe's ``coef_`` over its length, times a standard
            deviation of the reward along it.
        dose: Factor.
        stream: Stream.
        rows: Rows of the forward; with guidance, those of the empty prompt come first.
    """
    return _on(stream, rows, lambda tokens: tokens + dose * direction.to(tokens))


def patch(donor: Float[Tensor, "row token channel"], *, stream: str = "image", rows: slice = ALL_ROWS) -> Edit:
    """Replace tokens by those of another forward: of another prompt, picture or model.

    Args:
        donor: The tokens, a row for each row that is replaced.
        stream: Stream.
        rows: Rows of the forward.
    """
    return _on(stream, rows, lambda tokens: donor.to(tokens))


def erase(eraser: Eraser, *, stream: str = "image", rows: slice = ALL_ROWS) -> Edit:
    """Remove from every token what a linear probe could read of a label.

    Args:
        eraser: Of :func:`probing.interventions.fit_eraser`.
        stream: Stream.
        rows: Rows of the forward.
    """

    def change(tokens: Tensor) -> Tensor:
        matrix, mean = (torch.from_numpy(values).to(tokens) for values in (eraser.matrix, eraser.mean))
        return tokens - (tokens - mean) @ matrix.T

    return _on(stream, rows, change)


def combine(*edits: Edit) -> Edit:
    """Make one edit of several, which see each other's changes in their order."""

    def edit(streams: Streams) -> Streams:
        changed: Streams = {}
        for one in edits:
            changed |= one({**streams, **changed})
        return changed

    return edit


def _on(stream: str, rows: slice, change: Callable[[Tensor], Tensor]) -> Edit:
    def edit(streams: Streams) -> Streams:
        tokens = streams.get(stream)
        if tokens is None:
            # The trace refuses a stream that a block does not have.
            return {stream: torch.empty(0)}
        whole = tokens.clone()
        whole[rows] = change(tokens[rows])
        return {stream: whole}

    return edit
