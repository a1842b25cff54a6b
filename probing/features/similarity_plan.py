"""Plan a measurement of block similarity and its costs, before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from probing.backbones.sampling import GUIDANCE, STEPS
from probing.errors import UserError
from probing.features.plan import ExtractionPlan, binary, si
from probing.features.reading import check_steps
from probing.features.token_similarity import check_measures

_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class SimilarityPlan:
    """A checked measurement.

    Attributes:
        reading: Settings of the forwards; its noise levels are those of the images.
        measures: Names from :data:`probing.features.token_similarity.MEASURES`.
        read_at: Steps of the trajectory that are read; empty for no trajectory.
        steps: Steps of the sampler.
        guidance: Scale of classifier-free guidance.
        controls: Backbones that are measured: 2 with a random-init one beside the trained one.

    Raises:
        UserError: An unknown measure, too few tokens, a step that the trajectory lacks.
    """

    reading: ExtractionPlan
    measures: tuple[str, ...]
    read_at: tuple[int, ...] = ()
    steps: int = STEPS
    guidance: float = GUIDANCE
    controls: int = 1

    def __post_init__(self) -> None:
        check_measures(self.measures, self.reading.image_tokens)
        if len(set(self.measures)) != len(self.measures):
            raise UserError(f"Each measure can be given once, got {', '.join(self.measures)}.")
        if self.read_at:
            check_steps(self.steps, self.read_at)
        if self.reading.prompts < 2:
            raise UserError(
                f"Similarity is averaged over prompts, at least 2, got {self.reading.prompts}; raise --limit."
            )

    @property
    def rows(self) -> int:
        """Number of matrices: items times noise levels, and prompts times steps."""
        return self.controls * (self.reading.forwards + self.reading.prompts * len(self.read_at))

    @property
    def forwards(self) -> int:
        """Number of forwards, of one item or prompt each; a guided step takes two."""
        sampled = (1 + (self.guidance > 1)) * max(self.read_at) if self.read_at else 0
        return self.rows + self.controls * self.reading.prompts * sampled

    @property
    def token_bytes(self) -> int:
        """Bytes of the tokens of all blocks of a batch, which stay on the device until their matrices are computed."""
        settings = self.reading.settings
        tokens = self.reading.image_tokens * ("image" in settings.streams)
        tokens += self.reading.text_tokens * ("text" in settings.streams)
        width = self.reading.spec.architecture.width
        return settings.batch_size * len(self.reading.blocks) * tokens * width * _BYTES[settings.compute_dtype]

    def describe(self, device: str = "cuda") -> str:
        """Describe the plan in a few lines of text."""
        plan = self.reading
        architecture = plan.spec.architecture
        flops = self.forwards * architecture.forward_flops(plan.settings.resolution, plan.text_tokens)
        rows = [
            (
                "model",
                f"{plan.spec.name}: {architecture.num_blocks} blocks × {architecture.width} channels"
                + (", and with fresh weights" if self.controls > 1 else ""),
            ),
            ("measures", f"{', '.join(self.measures)}; streams {', '.join(plan.settings.streams)}"),
            (
                "images",
                f"{plan.items:,} of {plan.prompts:,} prompts at sigma "
                + ", ".join(f"{sigma:g}" for sigma in plan.settings.sigmas),
            ),
            (
                "denoising",
                f"{plan.prompts:,} prompts, {self.steps} steps, guidance {self.guidance:g}, read at "
                + ", ".join(map(str, self.read_at))
                if self.read_at
                else "none",
            ),
            ("forwards", f"{self.forwards:,}, {plan.settings.compute_dtype}, {si(flops)}FLOP"),
            (
                "memory",
                f"about {binary(plan.device_bytes + self.token_bytes)}"
                f"{'' if device == 'cpu' else ' of accelerator memory'}, "
                f"{binary(self.token_bytes)} of it tokens of a batch",
            ),
        ]
        return "\n".join(f"{name:>9}  {text}" for name, text in rows)
