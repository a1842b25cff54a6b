"""Published heads by name: which blocks, streams, noise levels and network; blocks are scaled to other depths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from probing.analysis.taps import TAPS, TapRule
from probing.errors import UserError


@dataclass(frozen=True)
class Preset:
    """A published head.

    Attributes:
        taps: Which blocks it reads, and where that is described.
        arrays: Token streams, and the reduction of each, as :func:`probing.extract` takes them; several choices, of
            which the first that a store has is read.
        sigmas: Noise levels.
        probe: Name of the probe.
        options: Options of the probe.
        differs: Where it differs from what was published; empty if nowhere.
    """

    taps: TapRule
    arrays: tuple[tuple[tuple[str, str], ...], ...]
    sigmas: tuple[float, ...]
    probe: str
    options: Mapping[str, Any] = field(default_factory=dict)
    differs: str = ""

    def describe(self, num_blocks: int, pipeline: str | None = None) -> str:
        """Describe the scaling of the blocks to a backbone in a sentence."""
        depths = ", ".join(f"{float(depth):.2f}" for depth in self.taps.depths_of(pipeline))
        blocks = ", ".join(map(str, self.taps.blocks(num_blocks, pipeline)))
        note = f"; {self.differs}" if self.differs else ""
        return f"{self.taps.source}: depths {depths} are blocks {blocks} of {num_blocks}{note}."


PRESETS: dict[str, Preset] = {
    "dit-reward": Preset(
        taps=TAPS["dit-reward"],
        arrays=((("image", "mean"),),),
        sigmas=(0.005,),
        probe="mlp_paper",
        options={"learning_rate": 2e-5, "epochs": 3, "patience": 3, "warmup": 0.05, "seeds": 1},
    ),
    "dina": Preset(
        taps=TAPS["dina"],
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
        taps=TAPS["registers"],
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
