"""Settings of an extraction: what is read, at which noise levels, from which images and words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal

from probing.backbones.placement import Placement, Quantization
from probing.errors import UserError

if TYPE_CHECKING:
    from probing.backbones import BackboneSpec

STREAMS = ("image", "text")
POOLED = ("mean", "std", "max")
REDUCTIONS = (*POOLED, "grid4", "tokens")
ENCODED = "encoded"
"""Name of the folder of kept latents and encoded prompts, beside the stores."""
TOKENS_AT_ONCE = {"cpu": 2**13}
"""Tokens of one forward by type of device (benchmarks/batch_size.py): more gain nothing, fewer are slower."""
_TOKENS_ELSEWHERE = 2**15
"""Not measured: no accelerator was at hand."""
_LARGEST_BATCH = 64
KEEP_INPUTS = 10.0
"""GiB of latents and encoded prompts that are kept beside the stores."""


_ENCODED_AT_ONCE = 2**22
"""Pixels."""


@dataclass(frozen=True)
class ExtractionSettings:
    """What to read, where, and how to store it; :func:`probing.features.plan.make_plan` checks it.

    Attributes:
        sigmas: Noise levels σ in [0, 1].
        streams: ``image``, ``text`` or both.
        reductions: Names from :data:`REDUCTIONS`.
        blocks: 0-indexed blocks; default: all.
        resolution: Side of the square images, in pixels.
        resize: How an image becomes square: ``center-crop``, ``pad`` or ``stretch``.
        background: Colour behind transparent and padded parts: ``white``, ``gray`` or ``black``.
        batch_size: Items in one forward.
        dtype: Type of stored reductions, ``float32`` or ``float16``; stored tokens are always float16.
        compute_dtype: Type of weights and forwards: ``float32``, ``float16`` or ``bfloat16``.
        seed: Seed of the noise, and of fresh weights.
        pair_noise: ``independent`` draws noise by item, ``shared`` by prompt group.
        t5_length: Positions of the text part whose length can be chosen (SD3: T5's), in tokens.
        use_t5: Whether the family's optional text encoder (SD3: T5) is used.
        random_init: Whether the transformer's weights are fresh; ``all`` makes those of every part fresh.
        prompts: Words given to the text encoders, from :data:`probing.features.prompts.PROMPT_RULES`.
        guidance: Guidance that the transformer embeds; None for one that embeds none.
        time_dtype: Type in which the timestep is embedded: ``float32``, or that of the weights (``model``).
        quantization: Bits of the weights of the transformer's products, ``8bit`` or ``4bit``; default: as they are.
        placement: Where the weights of text encoders and transformer are while they compute: whole on the ``device``,
            in ``host`` memory and brought layer by layer, or ``auto``: over all accelerators, then host memory, then
            disk. It changes no feature.
    """

    sigmas: tuple[float, ...] = (0.005,)
    streams: tuple[str, ...] = ("image",)
    reductions: tuple[str, ...] = ("mean",)
    blocks: tuple[int, ...] | None = None
    resolution: int = 512
    resize: Literal["center-crop", "pad", "stretch"] = "center-crop"
    background: Literal["white", "gray", "black"] = "white"
    batch_size: int = 16
    dtype: Literal["float32", "float16"] = "float32"
    compute_dtype: str = "float32"
    seed: int = 0
    pair_noise: Literal["independent", "shared"] = "independent"
    t5_length: int = 256
    use_t5: bool = True
    random_init: bool | Literal["all"] = False
    prompts: Literal["own", "foreign", "empty"] = "own"
    guidance: float | None = None
    time_dtype: Literal["float32", "model"] = "float32"
    quantization: Quantization | None = None
    placement: Placement = "device"


ADDED_SETTINGS = {"prompts": "own", "guidance": None, "time_dtype": "float32", "quantization": None}
"""Settings that earlier stores do not name, and what they were made with."""


@dataclass(frozen=True)
class ExtractionOptions(ExtractionSettings):
    """Settings of an extraction, as a person gives them: five have a default that depends on model and machine.

    Attributes:
        resolution: Side of the square images in pixels; default: the model's own.
        t5_length: Positions of the text part whose length can be chosen (SD3: T5's); default: the model's own.
        batch_size: Items in one forward; default: that of the store, or for a new one what suits model and device.
        compute_dtype: Type of weights and forwards; auto: bfloat16 on an accelerator, float32 on a CPU.
        guidance: Guidance that the transformer embeds, as FLUX.1-dev's does; default: the pipeline's own.
    """

    resolution: int | None = None  # type: ignore[assignment]
    t5_length: int | None = None  # type: ignore[assignment]
    batch_size: int | None = None  # type: ignore[assignment]
    compute_dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"

    def resolve(self, spec: BackboneSpec, dtype: str, device: str) -> ExtractionSettings:
        """Return the settings for one model, type of weights and type of device."""
        values = {name: getattr(self, name) for name in (field.name for field in fields(ExtractionSettings))}
        resolution = spec.resolution if self.resolution is None else self.resolution
        t5_length = spec.t5_length if self.t5_length is None else self.t5_length
        tokens = math.prod(spec.architecture.token_grid(resolution)) + spec.architecture.text_tokens(t5_length)
        return ExtractionSettings(
            **{
                **values,
                "resolution": resolution,
                "t5_length": t5_length,
                "batch_size": fitting_batch_size(tokens, device) if self.batch_size is None else self.batch_size,
                "compute_dtype": dtype,
                "guidance": spec.architecture.guidance if self.guidance is None else self.guidance,
            }
        )


def fitting_batch_size(tokens: int, device: str) -> int:
    """Return the batch size, a power of two, that keeps a forward of items of so many tokens fast on a device."""
    fitting = TOKENS_AT_ONCE.get(device, _TOKENS_ELSEWHERE) // max(1, tokens)
    return 1 << (min(max(1, fitting), _LARGEST_BATCH).bit_length() - 1)


def images_at_once(batch_size: int, resolution: int) -> int:
    """Return the number of pictures that the VAE encodes at once: it needs far more memory than the transformer."""
    return max(1, min(batch_size, _ENCODED_AT_ONCE // resolution**2))


def latent_reductions(settings: ExtractionSettings) -> tuple[str, ...]:
    """Reductions of the clean latents that are kept beside the features: the requested ones, but never all tokens."""
    return tuple(name for name in settings.reductions if name != "tokens") or ("mean",)


def check_sigma(sigma: float) -> None:
    """Refuse a number that is no noise level."""
    if not 0.0 <= sigma <= 1.0:
        raise UserError(
            f"sigma is a noise level in [0, 1], got {sigma:g}; a timestep is 1000·sigma, so divide it by 1000."
        )


def check_reductions(names: Sequence[str], streams: Sequence[str]) -> None:
    """Refuse an unknown reduction, or one that no requested stream has.

    Raises:
        UserError: With the known names.
    """
    for name in names:
        if name not in REDUCTIONS:
            raise UserError(f"Unknown reduction {name!r}; known are {', '.join(REDUCTIONS)}.")
        if name == "grid4" and "image" not in streams:
            raise UserError("grid4 is a reduction of image tokens; add image to --streams.")
