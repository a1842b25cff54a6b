"""Plan an extraction: its arrays, runs and costs, before anything is loaded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from probing.backbones import BackboneSpec
from probing.errors import UserError
from probing.features.prompts import PROMPT_RULES
from probing.features.settings import (
    POOLED,
    STREAMS,
    ExtractionSettings,
    check_reductions,
    check_sigma,
    images_at_once,
    latent_reductions,
)
from probing.features.store import ArraySpec
from probing.seeds import check_seed

_RUN_BYTES = 512 * 2**20
_PROMPT_BYTES = 2 * 2**30
_LONGEST_RUN = 1024
_LIBRARIES = 700 * 2**20
"""Host memory of Python with the libraries of models."""
_WRITING = 3.5
"""Copies of an array's features of one run and noise level while they are written, as measured."""
_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class ExtractionPlan:
    """A checked extraction.

    Attributes:
        spec: The backbone.
        settings: What is read.
        blocks: Which blocks, increasing.
        arrays: Of the store.
        items: Number of items.
        prompts: Number of prompt groups.
        run_length: Items that are computed and written together; a multiple of the batch size.
    """

    spec: BackboneSpec
    settings: ExtractionSettings
    blocks: tuple[int, ...]
    arrays: tuple[ArraySpec, ...]
    items: int
    prompts: int
    run_length: int

    @property
    def forwards(self) -> int:
        """Items times noise levels; each forward reads every requested block."""
        return self.items * len(self.settings.sigmas)

    @property
    def image_tokens(self) -> int:
        return math.prod(self.spec.architecture.token_grid(self.settings.resolution))

    @property
    def text_tokens(self) -> int:
        return self.spec.architecture.text_tokens(self.settings.t5_length)

    @property
    def disk_bytes(self) -> int:
        """Bytes of the finished store; the last run takes as much as a whole one."""
        return math.ceil(self.items / self.run_length) * self.run_length * self._bytes_per_item

    @property
    def weight_size(self) -> int:
        """Bytes of one weight."""
        return _BYTES[self.settings.compute_dtype]

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights, which rest in host memory."""
        return self._transformer_bytes + self.weight_size * self.spec.architecture.text_parameters

    @property
    def host_bytes(self) -> int:
        """Host memory for one run: features waiting and being written, text conditioning, latents, weights at rest."""
        architecture, size = self.spec.architecture, _BYTES[self.settings.compute_dtype]
        conditioning = self.run_length * self.text_tokens * architecture.text_channels
        latents = self.run_length * math.prod(architecture.latent_shape(self.settings.resolution))
        run = self.run_length * self._bytes_per_item + size * conditioning + 4 * latents
        largest = max(self.run_length * array.bytes_per_item(1) for array in self.arrays)
        # One run is written while the next is computed.
        runs = min(2, math.ceil(self.items / self.run_length))
        return _LIBRARIES + self.weight_bytes + runs * run + int(_WRITING * largest)

    @property
    def device_bytes(self) -> int:
        """Accelerator memory at the widest point, estimated: the larger of text encoders and transformer at work."""
        architecture, size = self.spec.architecture, _BYTES[self.settings.compute_dtype]
        # A layer is brought while the one before it is still there.
        share = 2 / architecture.num_blocks if self.settings.placement == "host" else 1
        return max(
            int(share * size * architecture.text_parameters),
            int(share * self._transformer_bytes) + self._forward_bytes,
            self._encoding_bytes,
        )

    def host_peak(self, device: str) -> int:
        """Return the most host memory: on a CPU what computes is there too, beside weights that rest there anyway."""
        working = max(self._forward_bytes, self._encoding_bytes) if device == "cpu" else 0
        return self.host_bytes + working

    @property
    def _transformer_bytes(self) -> int:
        size = {None: self.weight_size, "8bit": 1.0, "4bit": 0.5625}[self.settings.quantization]
        return int(size * self.spec.architecture.parameters)

    @property
    def _forward_bytes(self) -> int:
        """At once in a block: input and output, queries, keys, values, and the widened feed-forward."""
        tokens = self.settings.batch_size * (self.image_tokens + self.text_tokens)
        return _BYTES[self.settings.compute_dtype] * tokens * self.spec.architecture.width * 14

    @property
    def _encoding_bytes(self) -> int:
        """At once in the VAE's first level, which is as large as the pictures: four tensors of its width."""
        pixels = images_at_once(self.settings.batch_size, self.settings.resolution) * self.settings.resolution**2
        return _BYTES[self.settings.compute_dtype] * pixels * self.spec.architecture.vae_width * 4

    @cached_property
    def forward_flops(self) -> int:
        """Floating-point operations of one whole forward of one item."""
        return self.spec.architecture.forward_flops(self.settings.resolution, self.text_tokens)

    @property
    def flops(self) -> int:
        """Floating-point operations of all forwards and image encodings; text encoders are not counted."""
        architecture = self.spec.architecture
        forward = self.forward_flops
        # Blocks after the deepest requested one are not run.
        forward = forward * (self.blocks[-1] + 1) // architecture.num_blocks
        return self.forwards * forward + self.items * architecture.encoding_flops(self.settings.resolution)

    @property
    def _bytes_per_item(self) -> int:
        return sum(array.bytes_per_item(len(self.settings.sigmas)) for array in self.arrays)

    def describe(self, device: str = "cuda") -> str:
        """Describe the plan in a few lines of text; a CPU has one memory for all."""
        settings, architecture = self.settings, self.spec.architecture
        rows = [
            (
                "model",
                f"{self.spec.name}: {architecture.num_blocks} blocks × {architecture.width} channels, "
                f"{si(architecture.parameters).replace('G', 'B')} parameters"
                + (", random-initialised" if settings.random_init else "")
                + ("" if settings.quantization is None else f", {settings.quantization} weights"),
            ),
            (
                "read",
                f"{len(self.blocks)} blocks, streams {', '.join(settings.streams)}, "
                f"reductions {', '.join(settings.reductions)}, "
                f"sigma {', '.join(f'{s:g}' for s in settings.sigmas)}",
            ),
            (
                "tokens",
                f"{self.image_tokens} image at {settings.resolution}², "
                + architecture.describe_text(settings.t5_length, use_t5=settings.use_t5)
                + ("" if settings.guidance is None else f"; guidance {settings.guidance:g}"),
            ),
            (
                "items",
                f"{self.items:,} of {self.prompts:,} prompts"
                + {"own": "", "foreign": ", each given another prompt's words", "empty": ", given no words"}[
                    settings.prompts
                ],
            ),
            (
                "forwards",
                f"{self.forwards:,} ({math.ceil(self.items / settings.batch_size) * len(settings.sigmas):,} "
                f"batches of up to {settings.batch_size}), {settings.compute_dtype}",
            ),
            ("compute", f"{si(self.flops)}FLOP in forwards and image encoding"),
            ("disk", f"{binary(self.disk_bytes)}, written in runs of {self.run_length} items"),
            (
                "memory",
                f"about {binary(self.host_peak(device))}"
                if device == "cpu"
                else f"about {binary(self.host_bytes)} of host and {binary(self.device_bytes)} of accelerator memory",
            ),
        ]
        return "\n".join(f"{name:>9}  {text}" for name, text in rows)


def make_plan(spec: BackboneSpec, settings: ExtractionSettings, *, items: int, prompts: int) -> ExtractionPlan:
    """Check settings against a backbone and lay out the store.

    Raises:
        UserError: A seed that is too large, a sigma outside [0, 1], an unknown stream or reduction, a block that the
            model lacks, a resolution it cannot take, no items.
    """
    architecture = spec.architecture
    if items < 1:
        raise UserError("There are no items to extract; check --split and --limit.")
    if settings.batch_size < 1:
        raise UserError(f"--batch-size must be at least 1, got {settings.batch_size}.")
    check_seed(settings.seed)
    for sigma in settings.sigmas:
        check_sigma(sigma)
    _check_distinct("sigma", settings.sigmas)
    _check_distinct("stream", settings.streams)
    _check_distinct("reduction", settings.reductions)
    for stream in settings.streams:
        if stream not in STREAMS:
            raise UserError(f"Unknown stream {stream!r}; known are {', '.join(STREAMS)}.")
    check_reductions(settings.reductions, settings.streams)
    if settings.prompts not in PROMPT_RULES:
        raise UserError(f"Unknown rule of prompts {settings.prompts!r}; known are {', '.join(PROMPT_RULES)}.")
    if settings.guidance is not None and architecture.guidance is None:
        raise UserError(f"{spec.name} embeds no guidance; leave --guidance out.")
    blocks = tuple(range(architecture.num_blocks)) if settings.blocks is None else settings.blocks
    _check_distinct("block", blocks)
    for block in blocks:
        if not 0 <= block < architecture.num_blocks:
            raise UserError(f"{spec.name} has blocks 0 … {architecture.num_blocks - 1}, got {block}.")
    blocks = tuple(sorted(blocks))
    plan = ExtractionPlan(
        spec=spec,
        settings=settings,
        blocks=blocks,
        arrays=_lay_out(spec, settings, blocks),
        items=items,
        prompts=prompts,
        run_length=1,
    )
    conditioning = plan.text_tokens * architecture.text_channels * 4
    fitting = min(
        items + settings.batch_size - 1,
        _LONGEST_RUN,
        _RUN_BYTES // plan._bytes_per_item,
        _PROMPT_BYTES // max(1, conditioning),
    )
    # Runs hold whole batches, so that batches are cut at the same places whenever a run is made again.
    run_length = max(1, fitting // settings.batch_size) * settings.batch_size
    return replace(plan, run_length=run_length)


def _lay_out(spec: BackboneSpec, settings: ExtractionSettings, blocks: tuple[int, ...]) -> tuple[ArraySpec, ...]:
    architecture = spec.architecture
    grid = architecture.token_grid(settings.resolution)
    if "grid4" in settings.reductions and (grid[0] % 4 or grid[1] % 4):
        raise UserError(
            f"grid4 needs a grid of tokens that four divides, got {grid[0]}×{grid[1]}; change --resolution."
        )
    arrays: list[ArraySpec] = []
    width = architecture.width
    for stream in settings.streams:
        giving = architecture.blocks_of(stream)
        available = tuple(block for block in blocks if block in giving)
        if not available:
            numbers = ", ".join(map(str, giving)) or "none"
            raise UserError(f"No requested block of {spec.name} gives the {stream} stream; blocks with it: {numbers}.")
        tokens = math.prod(grid) if stream == "image" else architecture.text_tokens(settings.t5_length)
        for reduction in settings.reductions:
            if reduction == "tokens":
                arrays.append(ArraySpec(f"features/{stream}/tokens", available, (tokens, width), "float16"))
            elif stream == "image":
                shape = (16, width) if reduction == "grid4" else (width,)
                arrays.append(ArraySpec(f"features/image/{reduction}", available, shape, settings.dtype))
            elif reduction in POOLED:
                arrays += [
                    ArraySpec(f"features/text/{reduction}_{part}", available, (width,), settings.dtype)
                    for part in architecture.text_parts(use_t5=settings.use_t5)
                ]
    channels = architecture.latent_channels
    for reduction in latent_reductions(settings):
        shape = (16, channels) if reduction == "grid4" else (channels,)
        arrays.append(ArraySpec(f"latents/{reduction}", None, shape, "float32"))
    return tuple(arrays)


def _check_distinct(what: str, values: Sequence[Any]) -> None:
    if not values:
        raise UserError(f"At least one {what} is needed; got none.")
    if len(set(values)) != len(values):
        raise UserError(f"Each {what} can be given once, got {', '.join(str(v) for v in values)}.")


def binary(count: float | int) -> str:
    """Format bytes with a unit, ``1.5 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} TiB"


def si(count: float | int) -> str:
    """Format a large number with its prefix, ``2.44 T``."""
    for prefix in ("", "k", "M", "G", "T", "P", "E"):
        if count < 1000:
            return f"{count:.3g} {prefix}"
        count /= 1000
    return f"{count:.3g} Z"
