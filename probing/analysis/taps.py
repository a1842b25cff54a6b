"""Which blocks published rewards read, scaled by relative depth to other models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from probing.errors import UserError


@dataclass(frozen=True)
class TapRule:
    """A rule for the blocks of a reward.

    Attributes:
        source: Where it is described.
        depths: (block + 1) / number of blocks.
        by_pipeline: Depths that it states for single families, by the class of the pipeline.
    """

    source: str
    depths: tuple[Fraction, ...]
    by_pipeline: Mapping[str, tuple[Fraction, ...]] = field(default_factory=dict)

    def depths_of(self, pipeline: str | None) -> tuple[Fraction, ...]:
        """Return the depths for a family."""
        return self.by_pipeline.get(pipeline or "", self.depths)

    def blocks(
        self, num_blocks: int, pipeline: str | None = None, *, among: Sequence[int] | None = None
    ) -> tuple[int, ...]:
        """Return the nearest block to each depth, of two the shallower, among some or all blocks of a backbone."""
        at_hand = range(num_blocks) if among is None else among
        return tuple(
            sorted({min(at_hand, key=lambda b: abs(Fraction(b + 1, num_blocks) - d)) for d in self.depths_of(pipeline)})
        )


def _of(blocks: tuple[int, ...], count: int) -> tuple[Fraction, ...]:
    """Return the depths of blocks that are counted from 1."""
    return tuple(Fraction(block, count) for block in blocks)


TAPS: dict[str, TapRule] = {
    "dit-reward": TapRule("DiT-Reward, frozen (arXiv 2606.23626)", _of((16, 24, 29, 38), 38)),
    "dina": TapRule(
        "DiNa-LRM (arXiv 2602.11146)",
        _of((4, 8, 12), 24),
        # Z-Image's are counted behind its four refiners.
        {"FluxPipeline": _of((8, 12, 16, 19), 57), "ZImagePipeline": _of((8, 12, 16, 20), 34)},
    ),
    "registers": TapRule(
        "taps of Latent Reward Registers (Guanys-dar/latent-reward-register)",
        (Fraction(1, 6), Fraction(1, 3), Fraction(1, 2)),
    ),
}
"""Rules by name. A new one is one entry."""


def taps_of(name: str) -> TapRule:
    """Return a rule.

    Raises:
        UserError: It is unknown.
    """
    if name not in TAPS:
        raise UserError(f"Unknown taps {name!r}; known are {', '.join(TAPS)}.")
    return TAPS[name]
