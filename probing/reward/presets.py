"""Published heads by name: which blocks, streams, noise levels and network; blocks are scaled to other depths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from probing.errors import UserError


@dataclass(frozen=True)
class Preset:
    """A published head.

    Attributes:
        source: Where it is described.
        depths: Depths of the blocks, (block + 1) / number of blocks.
        arrays: Token streams, and the reduction of each, as :func:`probing.extract` takes them; several choices, of
            which the first that a store has is read.
        sigmas: Noise levels.
        probe: Name of the probe.
        options: Options of the probe.
        differs: Where it differs from what was published; empty if nowhere.
    """

    source: str
    depths: tuple[Fraction, ...]
    arrays: tuple[tuple[tuple[str, str], ...], ...]
    sigmas: tuple[float, ...]
    probe: str
    options: Mapping[str, Any] = field(default_factory=dict)
    differs: str = ""

    def blocks(self, num_blocks: int) -> tuple[int, ...]:
        """Return the blocks of a backbone at these depths, each the nearest one."""
        return tuple(sorted({max(0, round(depth * num_blocks) - 1) for depth in self.depths}))

    def describe(self, num_blocks: int) -> str:
        """Describe the scaling of the blocks to a backbone in a sentence."""
        depths = ", ".join(f"{float(depth):.2f}" for depth in self.depths)
        blocks = ", ".join(map(str, self.blocks(num_blocks)))
        note = f"; {self.differs}" if self.differs else ""
        return f"{self.source}: depths {depths} are blocks {blocks} of {num_blocks}{note}."


_THIRDS = (Fraction(1, 6), Fraction(1, 3), Fraction(1, 2))

PRESETS: dict[str, Preset] = {
    "dit-reward": Preset(
        source="DiT-Reward, frozen (arXiv 2606.23626)",
        depths=tuple(Fraction(block + 1, 38) for block in (15, 23, 28, 37)),
        arrays=((("image", "mean"),),),
        sigmas=(0.005,),
        probe="mlp_paper",
        options={"learning_rate": 2e-5, "epochs": 3, "patience": 3, "warmup": 0.05, "seeds": 1},
    ),
    "dina": Preset(
        source="DiNa-LRM (arXiv 2602.11146)",
        depths=tuple(Fraction(block, 24) for block in (4, 8, 12)),
        arrays=((("image", "tokens"), ("text", "tokens")), (("image", "grid4"), ("text", "mean"))),
        sigmas=(0.1, 0.2, 0.3, 0.4),
        probe="attention",
        options={"loss": "fidelity", "by_noise": True},
        differs=(
            "its head has two layers of attention, gates, and features modulated by the noise level, where this one "
            "has one layer and an embedding of each stream, block and noise level; and it is trained on noise levels "
            "from 0 to 1, this one on those that it reads"
        ),
    ),
    "registers": Preset(
        source="taps of Latent Reward Registers (Guanys-dar/latent-reward-register)",
        depths=_THIRDS,
        arrays=((("image", "mean"),),),
        sigmas=(0.005,),
        probe="mlp",
        differs="a network on means takes the place of its register tokens",
    ),
}
"""Presets by the name that ``--preset`` takes. A new one is one entry."""


def preset_of(name: str) -> Preset:
    """Return a preset.

    Raises:
        UserError: It is unknown.
    """
    if name not in PRESETS:
        raise UserError(f"Unknown preset {name!r}; known are {', '.join(PRESETS)}.")
    return PRESETS[name]
